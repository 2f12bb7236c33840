//! A statement on one line, for people: white space folded, comments left out.

/// The text of a SQL or mongosh statement on one line. What looks like a comment
/// inside quotes stays.
pub fn one_line(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if let Some(comment) = comment(rest) {
            kept.push(' ');
            rest = &rest[comment..];
            continue;
        } else if matches!(first, '\'' | '"' | '`') {
            quoted(rest, first)
        } else if first == '$' {
            dollar_quoted(rest)
        } else {
            first.len_utf8()
        };
        kept.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    kept.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// How long a comment is that begins here.
fn comment(text: &str) -> Option<usize> {
    if text.starts_with("--") || text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    let inside = text.strip_prefix("/*")?;
    Some(inside.find("*/").map_or(text.len(), |end| end + 4))
}

fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' if quote != '\'' => escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

/// `$tag$ … $tag$`, or just the dollar sign.
fn dollar_quoted(text: &str) -> usize {
    let name = text[1..].find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(0);
    let tag = match text.get(..name + 2) {
        Some(tag) if tag.ends_with('$') => tag,
        _ => return 1,
    };
    text[tag.len()..].find(tag).map_or(text.len(), |end| end + 2 * tag.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_go_and_quotes_stay() {
        let check = |text: &str, expected: &str| assert_eq!(one_line(text), expected);
        check("CREATE TABLE t ( -- why\n  id int /* key */\n)", "CREATE TABLE t ( id int )");
        check("SELECT '--x', \"//y\", $$ -- z $$", "SELECT '--x', \"//y\", $$ -- z $$");
        check(
            "db.a.insertOne({ // one\n  url: 'http://x' })",
            "db.a.insertOne({ url: 'http://x' })",
        );
        check("SELECT $1, 'it''s' -- end", "SELECT $1, 'it''s'");
        check("{ $set: { \"a\\\"//b\": 1 } }", "{ $set: { \"a\\\"//b\": 1 } }");
        check("é 'unterminated", "é 'unterminated");
        check("$", "$");
    }
}
