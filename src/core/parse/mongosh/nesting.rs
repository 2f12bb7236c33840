//! How deep a text is nested, before a recursive parser sees it: too deep, and
//! the parser does not fail, the process dies.
//!
//! It reads tokens only roughly. What matters is that it never counts less
//! than the parser's recursion: brackets, and everything else by which
//! JavaScript nests without them (`- - -x`, `a = b = c`, `if (x) if (y)`).

use super::Fault;

/// MongoDB refuses documents of more than 100 levels; a call, its arguments
/// and parentheses come on top.
pub(super) const BRACKETS_MAX: usize = 200;

/// Operators and keywords that may stand in all the brackets open at one place
/// without a comma or semicolon between them.
pub(super) const CHAIN_MAX: usize = 2_000;

/// How deep the parser will recurse, at most.
///
/// # Errors
/// Where the text is nested too deep.
pub(super) fn check(text: &str) -> Result<usize, Fault> {
    let mut deepest = 0;
    // For each open bracket, how long the chain in it was when the next opened.
    let mut open: Vec<usize> = Vec::new();
    let mut chain = 0;
    // The sum of `open` and `chain`: what the parser has on its stack.
    let mut chains = 0;
    // Whether a `/` here would divide; else it begins a regular expression.
    let mut after_value = false;
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        at += 1;
        let mut chained = false;
        match bytes[start] {
            byte if byte.is_ascii_whitespace() => continue,
            b'/' if bytes.get(at) == Some(&b'/') || bytes.get(at) == Some(&b'*') => {
                at = comment_end(bytes, start);
                continue;
            }
            b'/' if !after_value => {
                at = regex_end(bytes, start);
                after_value = true;
            }
            quote @ (b'"' | b'\'') => {
                at = string_end(bytes, start, quote);
                after_value = true;
            }
            b'`' => {
                at = string_end(bytes, start, b'`');
                // Substitutions are refused later, but parsed before.
                let inside = &bytes[start..at];
                let substitutions = inside.windows(2).filter(|pair| *pair == b"${").count();
                if substitutions > BRACKETS_MAX {
                    return Err(too_deep(start));
                }
                after_value = true;
            }
            b'(' | b'[' | b'{' => {
                if open.len() == BRACKETS_MAX {
                    return Err(too_deep(start));
                }
                open.push(chain);
                chain = 0;
                after_value = false;
            }
            b')' | b']' | b'}' => {
                chains -= chain;
                chain = open.pop().unwrap_or(0);
                after_value = true;
            }
            b',' | b';' => {
                chains -= chain;
                chain = 0;
                after_value = false;
            }
            b'.' => after_value = false,
            byte if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte > 127 => {
                while at < bytes.len()
                    && (bytes[at].is_ascii_alphanumeric()
                        || bytes[at] == b'_'
                        || bytes[at] == b'$'
                        || bytes[at] > 127)
                {
                    at += 1;
                }
                chained = KEYWORDS.contains(&&text.as_bytes()[start..at]);
                after_value = !chained;
            }
            _ => {
                chained = true;
                after_value = false;
            }
        }
        if chained {
            chain += 1;
            chains += 1;
            if chains > CHAIN_MAX {
                return Err(too_deep(start));
            }
        }
        deepest = deepest.max(open.len() + chains);
    }
    Ok(deepest)
}

/// Words after which a statement or an expression nests without a bracket.
const KEYWORDS: &[&[u8]] = &[
    b"async",
    b"await",
    b"case",
    b"catch",
    b"class",
    b"default",
    b"delete",
    b"do",
    b"else",
    b"export",
    b"extends",
    b"for",
    b"function",
    b"if",
    b"import",
    b"in",
    b"instanceof",
    b"new",
    b"of",
    b"return",
    b"switch",
    b"throw",
    b"try",
    b"typeof",
    b"void",
    b"while",
    b"with",
    b"yield",
];

fn too_deep(at: usize) -> Fault {
    Fault::new(at..at + 1, "nested too deep to be read")
        .hint("MongoDB itself refuses documents of more than 100 levels")
}

fn comment_end(bytes: &[u8], start: usize) -> usize {
    let rest = &bytes[start + 2..];
    let end = if bytes[start + 1] == b'/' {
        rest.iter().position(|byte| *byte == b'\n')
    } else {
        rest.windows(2).position(|pair| pair == b"*/").map(|at| at + 2)
    };
    end.map_or(bytes.len(), |end| start + 2 + end)
}

/// Behind the closing quote, or where an unclosed string ends: at its line's
/// end, a template at the file's.
fn string_end(bytes: &[u8], start: usize, quote: u8) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'\n' if quote != b'`' => return at,
            byte if byte == quote => return at + 1,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

fn regex_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    let mut class = false;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'\n' => return at,
            b'[' => class = true,
            b']' => class = false,
            b'/' if !class => return at + 1,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deep(text: &str) -> bool {
        check(text).is_err()
    }

    #[test]
    fn brackets_in_texts_comments_and_regular_expressions_do_not_count() {
        let line =
            "db.a.insertOne({ a: \":( [{\", b: '((', c: `{{`, d: /[(]\\(/ }); // ([{\n/* {{{ */\n";
        assert!(!deep(&line.repeat(1_000)));
    }

    #[test]
    fn a_division_does_not_begin_a_regular_expression() {
        assert!(deep(&format!("x = (1) / 2; {} y / 2", "[".repeat(300))));
    }

    #[test]
    fn brackets_nest() {
        assert!(!deep(&format!("{}{}", "[".repeat(200), "]".repeat(200))));
        assert!(deep(&"[".repeat(201)));
        assert!(deep(&"({a:".repeat(101)));
    }

    #[test]
    fn what_nests_without_brackets_counts_too() {
        for chain in ["- ", "!", "a = ", "a => ", "a ? b : ", "if (x) ", "new ", "x: ", "2 ** "] {
            assert!(deep(&chain.repeat(2_001)), "{chain}");
        }
    }

    #[test]
    fn many_statements_and_many_elements_are_not_deep() {
        assert!(!deep(&"const a = -1;\n".repeat(10_000)));
        assert!(!deep(&format!("[{}]", "-1, ".repeat(10_000))));
        assert!(!deep(&"db.a.insertOne({ a: -1, b: { c: -2 } })\n".repeat(10_000)));
    }

    #[test]
    fn unbalanced_brackets_do_not_confuse_it() {
        assert!(!deep(&")}]".repeat(10_000)));
        assert!(!deep(&"a = )".repeat(1_000)));
    }
}
