//! Steering over HTTP: pause, resume and speed of running backfills, for who has
//! the token.

use super::desk::Question;
use crate::core::pace::{SPEED, Steer};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// A token that is shorter can be guessed.
pub const TOKEN_MIN: usize = 16;

/// Shown where nothing else is said.
const NO_REASON: &str = "over HTTP";

/// Reasons that are longer are cut: they are shown on one line, and kept for ever.
const REASON_MAX: usize = 500;

/// What who steers must know. Only its checksum is kept.
#[derive(Clone)]
pub struct Token([u8; 32]);

/// Without what it is.
impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(***)")
    }
}

impl Token {
    /// A token, unless it is too short to be one.
    pub fn new(text: &str) -> Option<Token> {
        (text.len() >= TOKEN_MIN).then(|| Token(Sha256::digest(text.as_bytes()).into()))
    }

    /// Whether somebody has it. Takes as long for one that is nearly right as for any
    /// other.
    pub fn is(&self, given: &str) -> bool {
        let given: [u8; 32] = Sha256::digest(given.as_bytes()).into();
        let differs = self.0.iter().zip(given).fold(0, |all, (ours, theirs)| all | (ours ^ theirs));
        std::hint::black_box(differs) == 0
    }
}

/// What is asked for at the end of `/api/backfills/…`.
///
/// # Errors
/// What is wrong with the body.
pub fn question(what: &str, body: &[u8]) -> Result<Question, String> {
    let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
    let body: Value = serde_json::from_slice(body).map_err(|error| format!("no JSON: {error}"))?;
    let Some(fields) = body.as_object() else { return Err("not an object".to_owned()) };
    let known: &[&str] = match what {
        "pause" => &["reason"],
        "speed" => &["factor"],
        _ => &[],
    };
    if let Some(other) = fields.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(format!("`{other}` is nothing that {what} knows"));
    }
    let steer = match what {
        "pause" => {
            let reason = match fields.get("reason") {
                None | Some(Value::Null) => NO_REASON.to_owned(),
                Some(Value::String(reason)) => reason.chars().take(REASON_MAX).collect(),
                Some(_) => return Err("`reason` is no text".to_owned()),
            };
            Steer::Pause(reason)
        }
        "speed" => {
            let factor = fields.get("factor").and_then(Value::as_f64);
            let factor = factor.filter(|factor| SPEED.contains(factor));
            Steer::Speed(factor.ok_or_else(|| {
                format!("`factor` must be a number from {} to {}", SPEED.start(), SPEED.end())
            })?)
        }
        _ => Steer::Resume,
    };
    Ok(Question::Steer(steer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_is_the_token() {
        let token = Token::new("0123456789abcdef").expect("it is long enough");
        assert!(token.is("0123456789abcdef"));
        for other in ["", "0123456789abcdeF", "0123456789abcde", "0123456789abcdef "] {
            assert!(!token.is(other), "{other}");
        }
        assert!(Token::new("0123456789abcde").is_none());
        assert_eq!(format!("{token:?}"), "Token(***)");
    }

    #[test]
    fn a_body_says_what_is_asked_for() {
        let check = |what: &str, body: &str, expected: Result<Steer, &str>| {
            let expected = expected.map(Question::Steer).map_err(str::to_owned);
            assert_eq!(question(what, body.as_bytes()), expected, "{what} {body}");
        };
        check("pause", r#"{"reason":"lunch"}"#, Ok(Steer::Pause("lunch".to_owned())));
        check("pause", "", Ok(Steer::Pause("over HTTP".to_owned())));
        check("resume", "{}", Ok(Steer::Resume));
        check("speed", r#"{"factor":0.5}"#, Ok(Steer::Speed(0.5)));
        check("pause", "[]", Err("not an object"));
        check("pause", r#"{"reason":7}"#, Err("`reason` is no text"));
        check("resume", r#"{"reason":"x"}"#, Err("`reason` is nothing that resume knows"));
        assert!(question("speed", br#"{"factor":1e9}"#).is_err());
        assert!(question("speed", b"{}").is_err());
        assert!(question("pause", b"{").is_err());
    }
}
