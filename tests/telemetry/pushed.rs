//! The metrics of a run that has ended, to a Pushgateway.

use crate::figures::series;
use crate::project::{Project, Ran};
use crate::receiver::{Answer, Receiver, nobody};
use crate::{FILES, run};

/// A run that did well, and what it warns of.
#[track_caller]
fn warned(project: &Project, url: &str) -> Ran {
    let ran = project.ok(&["up", "--push", url]);
    assert!(ran.stderr.contains("the metrics of this run were not pushed"), "{ran}");
    assert!(!ran.said().contains("s3cret"), "{ran}");
    ran
}

#[test]
fn a_run_is_pushed_as_a_whole() {
    let project = Project::new("pushed", FILES);
    let gateway = Receiver::new();
    let ran = project.ok(&["up", "--push", &gateway.url()]);
    assert!(!ran.said().contains("pushed"), "{ran}");
    let request = gateway.request();
    assert_eq!(request.what, "PUT /metrics/job/lockstep");
    assert_eq!(request.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(request.header("authorization"), None);
    let all = series(&request.body);
    let steps = all.keys().filter(|name| name.contains("step_duration"));
    assert_eq!(steps.count(), 5, "{all:#?}");
}

#[test]
fn a_login_of_the_url_is_sent_and_never_shown() {
    let project = Project::new("pushed_login", FILES);
    let gateway = Receiver::answering(Answer::With(401, "who are you?\nnot app"));
    let url = format!("http://app:s3cret%21@{}/metrics/job/shop/region/eu", gateway.address());
    let ran = warned(&project, &url);
    let expected =
        format!("{}/metrics/job/shop/region/eu: it answered 401: who are you?", gateway.url());
    assert!(ran.stderr.contains(&expected), "{ran}");
    let request = gateway.request();
    assert_eq!(request.what, "PUT /metrics/job/shop/region/eu");
    // app:s3cret!
    assert_eq!(request.header("authorization"), Some("Basic YXBwOnMzY3JldCE="));
}

#[test]
fn a_gateway_that_is_not_there_is_a_warning() {
    let project = Project::new("pushed_down", FILES);
    warned(&project, &nobody().replace("//", "//app:s3cret@"));
    warned(&project, "http://no-such-host.invalid");
    warned(&project, "ftp://app:s3cret@gateway");
    warned(&project, "http://app:s3cret/wrong@gateway");
}

#[test]
fn a_gateway_that_does_not_answer_is_not_waited_for() {
    let project = Project::new("pushed_slow", FILES);
    let gateway = Receiver::answering(Answer::Never);
    let ran = warned(&project, &gateway.url());
    assert!(ran.stderr.contains("it did not answer within 5s"), "{ran}");
    assert_eq!(gateway.requests().len(), 1);
}

#[test]
fn through_tls_a_gateway_must_be_who_it_says() {
    let key = rcgen::KeyPair::generate().expect("a key");
    let names = ["127.0.0.1".to_owned()];
    let certificate = rcgen::CertificateParams::new(names).expect("a name").self_signed(&key);
    let certificate = certificate.expect("a certificate").pem();
    let gateway = Receiver::with_tls(&certificate, &key.serialize_pem());
    let project = Project::new("pushed_tls", FILES);
    let url = format!("https://app:s3cret@{}", gateway.address());
    let ran = warned(&project, &url);
    assert!(ran.stderr.contains("UnknownIssuer"), "{ran}");
    assert!(gateway.requests().is_empty());

    std::fs::write(project.path("ours.pem"), certificate).expect("written");
    let ran = run(&project, &[("SSL_CERT_FILE", "ours.pem")], &["up", "--push", &url]);
    assert!(ran.code == 0 && !ran.said().contains("pushed"), "{ran}");
    assert_eq!(gateway.request().header("authorization"), Some("Basic YXBwOnMzY3JldA=="));
}

#[test]
fn a_gateway_that_sends_elsewhere_is_not_followed() {
    let project = Project::new("pushed_elsewhere", FILES);
    let gateway = Receiver::answering(Answer::With(302, ""));
    let ran = warned(&project, &gateway.url());
    assert!(ran.stderr.contains("it answered 302"), "{ran}");
    assert_eq!(gateway.requests().len(), 1);
}
