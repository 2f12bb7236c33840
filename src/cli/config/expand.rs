//! `${VAR}` and `${VAR:-default}` in the strings of `migrate.toml`.

/// How deep a default may hold another variable: `${A:-${B:-c}}` is 2.
const DEPTH_MAX: usize = 8;

/// Why a text has no value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum ExpandError {
    /// The text is not written as it should be: what is wrong; what to do.
    Syntax(String),
    /// This variable is not set, and the text has no default for it.
    Unset(String),
}

/// The text with its variables replaced: `${VAR}` by the variable, which must be
/// set; `${VAR:-default}` by the default when it is not set or empty; `$$` by a
/// dollar. Any other dollar stands for itself.
///
/// What a variable holds is not expanded again.
pub(super) fn expand(
    text: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<String, ExpandError> {
    let mut expander = Expander { rest: text, env, unset: None };
    let value = expander.text(0)?;
    match expander.unset {
        Some(name) => Err(ExpandError::Unset(name)),
        None => Ok(value),
    }
}

/// Whether a text depends on the environment.
pub(super) fn has_variable(text: &str) -> bool {
    text.replace("$$", "").contains("${")
}

struct Expander<'a> {
    rest: &'a str,
    env: &'a dyn Fn(&str) -> Option<String>,
    /// The first that is missing. Syntax errors behind it are found all the same.
    unset: Option<String>,
}

impl Expander<'_> {
    /// Up to the end; below depth 0, up to the closing brace.
    fn text(&mut self, depth: usize) -> Result<String, ExpandError> {
        let mut value = String::new();
        loop {
            let stop = if depth == 0 { self.rest.find('$') } else { self.rest.find(['$', '}']) };
            let Some(stop) = stop else {
                if depth > 0 {
                    return Err(not_closed());
                }
                value.push_str(self.rest);
                return Ok(value);
            };
            let (plain, rest) = self.rest.split_at(stop);
            value.push_str(plain);
            self.rest = rest;
            if self.takes("$$") {
                value.push('$');
            } else if self.takes("${") {
                value.push_str(&self.variable(depth + 1)?);
            } else if self.takes("$") {
                value.push('$');
            } else {
                self.takes("}");
                return Ok(value);
            }
        }
    }

    /// After `${`.
    fn variable(&mut self, depth: usize) -> Result<String, ExpandError> {
        if depth > DEPTH_MAX {
            let message = format!("variables are nested more than {DEPTH_MAX} deep; use fewer");
            return Err(ExpandError::Syntax(message));
        }
        let end = self.rest.find(|c: char| !is_name(c)).ok_or_else(not_closed)?;
        let (name, rest) = self.rest.split_at(end);
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(malformed());
        }
        self.rest = rest;
        let set = (self.env)(name);
        if self.takes("}") {
            if set.is_none() {
                self.unset.get_or_insert_with(|| name.to_owned());
            }
            return Ok(set.unwrap_or_default());
        }
        if !self.takes(":-") {
            return Err(malformed());
        }
        // What the default lacks does not matter when it is not needed.
        let unset_before = self.unset.take();
        let default = self.text(depth)?;
        let unset_within = self.unset.take();
        if let Some(value) = set.filter(|value| !value.is_empty()) {
            self.unset = unset_before;
            return Ok(value);
        }
        self.unset = unset_before.or(unset_within);
        Ok(default)
    }

    fn takes(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn not_closed() -> ExpandError {
    ExpandError::Syntax("`${` is not closed; write ${NAME}, or $${ for a plain ${".to_owned())
}

fn malformed() -> ExpandError {
    let message =
        "`${` begins no variable; write ${NAME} or ${NAME:-default}, and a plain ${ as $${";
    ExpandError::Syntax(message.to_owned())
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "an expect![] is written where it is used")]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(text: &str, expected: Expect) {
        let env = |name: &str| match name {
            "HOST" => Some("db".to_owned()),
            "EMPTY" => Some(String::new()),
            "TRICKY" => Some("${HOST}$$".to_owned()),
            _ => None,
        };
        let shown = match expand(text, &env) {
            Ok(value) => format!("{value:?}"),
            Err(ExpandError::Syntax(message)) => format!("refused: {message}"),
            Err(ExpandError::Unset(name)) => format!("unset: {name}"),
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn a_variable_is_replaced_wherever_it_stands() {
        check("${HOST}", expect![[r#""db""#]]);
        check("a${HOST}b${HOST}c", expect![[r#""adbbdbc""#]]);
        check("", expect![[r#""""#]]);
    }

    #[test]
    fn a_default_stands_in_for_what_is_unset_or_empty() {
        check("${NOPE:-x y}", expect![[r#""x y""#]]);
        check("${EMPTY:-x}", expect![[r#""x""#]]);
        check("${HOST:-x}", expect![[r#""db""#]]);
        check("${NOPE:-}", expect![[r#""""#]]);
        check("[${EMPTY}]", expect![[r#""[]""#]]);
    }

    #[test]
    fn a_default_may_hold_variables() {
        check("${NOPE:-postgres://${HOST}/${NOPE:-shop}}!", expect![[r#""postgres://db/shop!""#]]);
        check("${NOPE:-${ALSO_NOT}}", expect!["unset: ALSO_NOT"]);
        check("${HOST:-${ALSO_NOT}}", expect![[r#""db""#]]);
    }

    #[test]
    fn the_first_unset_variable_is_named() {
        check("${HOST}${NOPE}${OTHER}", expect!["unset: NOPE"]);
        check("${NOPE}${HOST:-${OTHER}}", expect!["unset: NOPE"]);
    }

    #[test]
    fn a_dollar_is_a_dollar_unless_a_brace_follows() {
        check("$HOST costs 5$", expect![[r#""$HOST costs 5$""#]]);
        check("$${HOST} $$ $$$$", expect![[r#""${HOST} $ $$""#]]);
        check("$$${HOST}", expect![[r#""$db""#]]);
        assert!(!has_variable("$${HOST}") && has_variable("$$${HOST}"));
    }

    #[test]
    fn what_a_variable_holds_is_not_expanded_again() {
        check("${TRICKY}", expect![[r#""${HOST}$$""#]]);
    }

    #[test]
    fn what_is_not_a_variable_is_refused() {
        check(
            "${HOST",
            expect!["refused: `${` is not closed; write ${NAME}, or $${ for a plain ${"],
        );
        check(
            "${NOPE:-x",
            expect!["refused: `${` is not closed; write ${NAME}, or $${ for a plain ${"],
        );
        check(
            "${}",
            expect![
                "refused: `${` begins no variable; write ${NAME} or ${NAME:-default}, and a plain ${ as $${"
            ],
        );
        check(
            "${1A}",
            expect![
                "refused: `${` begins no variable; write ${NAME} or ${NAME:-default}, and a plain ${ as $${"
            ],
        );
        check(
            "${HOST-x}",
            expect![
                "refused: `${` begins no variable; write ${NAME} or ${NAME:-default}, and a plain ${ as $${"
            ],
        );
        check(
            "${NOPE} ${",
            expect!["refused: `${` is not closed; write ${NAME}, or $${ for a plain ${"],
        );
        check(
            &"${A:-".repeat(9),
            expect!["refused: variables are nested more than 8 deep; use fewer"],
        );
    }
}
