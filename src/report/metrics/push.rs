//! Metrics to a Pushgateway.

use super::text::CONTENT_TYPE;
use crate::report::http::{Address, SendError, Sender};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::time::Duration;
use ureq::http::Method;

/// A gateway that does not answer by then is not waited for.
pub const LIMIT: Duration = Duration::from_secs(5);

/// The job, where the URL names none.
const JOB: &str = "/metrics/job/lockstep";

/// Where a run's metrics go: the URL as it is if it names a job, else below it. With
/// an `instance`, runs of several environments do not replace each other's.
#[must_use]
pub fn group(address: &Address, instance: Option<&str>) -> Address {
    if address.path().contains("/metrics/job") {
        return address.clone();
    }
    match instance {
        None | Some("") => address.below(JOB),
        // In a path it would be a separator, even when it is encoded.
        Some(name) if name.contains('/') => {
            address.below(&format!("{JOB}/instance@base64/{}", BASE64_URL_SAFE.encode(name)))
        }
        Some(name) => {
            let name = utf8_percent_encode(name, NON_ALPHANUMERIC);
            address.below(&format!("{JOB}/instance/{name}"))
        }
    }
}

/// Replaces what the gateway has of this group. It blocks.
///
/// # Errors
/// [`SendError`].
pub fn push(group: Address, text: &str) -> Result<(), SendError> {
    let sender = Sender::new(group, Vec::new(), LIMIT);
    sender.send(Method::PUT, CONTENT_TYPE, text.as_bytes()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, instance: Option<&str>, expected: &str) {
        let address = Address::parse(url).expect("a URL");
        assert_eq!(group(&address, instance).to_string(), expected);
    }

    #[test]
    fn a_group_is_named_by_the_url_or_is_ours() {
        check("http://gw:9091", None, "http://gw:9091/metrics/job/lockstep");
        check("http://gw:9091/", None, "http://gw:9091/metrics/job/lockstep");
        check("http://gw/prom/", Some("eu"), "http://gw/prom/metrics/job/lockstep/instance/eu");
        check("http://gw/metrics/job/shop", Some("eu"), "http://gw/metrics/job/shop");
        check("http://gw/metrics/job/shop/region/eu", None, "http://gw/metrics/job/shop/region/eu");
        check("http://gw/metrics/job@base64/c2hvcA", None, "http://gw/metrics/job@base64/c2hvcA");
    }

    #[test]
    fn an_instance_of_any_name_is_one_part_of_the_path() {
        check("http://gw", Some("a b?c"), "http://gw/metrics/job/lockstep/instance/a%20b%3Fc");
        check("http://gw", Some("a/b"), "http://gw/metrics/job/lockstep/instance@base64/YS9i");
        check("http://gw", Some(""), "http://gw/metrics/job/lockstep");
    }
}
