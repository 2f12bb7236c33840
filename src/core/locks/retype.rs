//! Whether values of a column stay as they are when its type changes.

/// What a column is, as the server tells.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ColumnType {
    /// As `format_type` has it: `character varying(20)`.
    pub is: String,
    /// The new type as the server calls it, without what stands in brackets; `None`
    /// if it knows none of that name.
    pub to: Option<String>,
    /// A value of the old type is one of the new type, bit for bit.
    pub is_binary: bool,
    /// The session's time zone is UTC.
    pub is_utc: bool,
}

/// Whether a change of type rewrites the table. `to` is the new type as it is
/// written in the statement.
pub fn changes_type(column: &ColumnType, to: &str) -> bool {
    let (from, had) = modifier(&column.is);
    let (_, gets) = modifier(to);
    let Some(target) = &column.to else { return true };
    let stamps = ["timestamp with time zone", "timestamp without time zone"];
    match (from.as_str(), target.as_str()) {
        ("character varying" | "bit varying", _) if from == *target => !is_as_wide(&had, &gets),
        ("text", "character varying") => !gets.is_empty(),
        ("character varying", "text") => false,
        ("numeric", "numeric") => !is_as_precise(&had, &gets),
        // In UTC both are the same number.
        (from, target) if from != target && stamps.contains(&from) && stamps.contains(&target) => {
            !(column.is_utc && is_as_wide(&had, &gets))
        }
        (from, target) if from == target && (stamps.contains(&from) || is_time(from)) => {
            !is_as_wide(&had, &gets)
        }
        (from, target) if from == target => had != gets,
        _ => !(column.is_binary && gets.is_empty()),
    }
}

fn is_time(name: &str) -> bool {
    ["time with time zone", "time without time zone", "interval"].contains(&name)
}

/// Without a limit, or with one that is no smaller.
fn is_as_wide(had: &[u32], gets: &[u32]) -> bool {
    match (had.first(), gets.first()) {
        (_, None) => true,
        (Some(had), Some(gets)) => gets >= had,
        (None, Some(_)) => false,
    }
}

/// `numeric(10, 2)` holds what `numeric(8, 2)` does, and `numeric(10, 3)` does not.
fn is_as_precise(had: &[u32], gets: &[u32]) -> bool {
    let scale = |numbers: &[u32]| numbers.get(1).copied().unwrap_or(0);
    match (had.first(), gets.first()) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(had_first), Some(gets_first)) => gets_first >= had_first && scale(had) == scale(gets),
    }
}

/// `timestamp(3) with time zone` is `timestamp with time zone` and 3.
fn modifier(text: &str) -> (String, Vec<u32>) {
    let Some((before, rest)) = text.split_once('(') else {
        return (text.trim().to_owned(), Vec::new());
    };
    let (numbers, after) = rest.split_once(')').unwrap_or((rest, ""));
    let name = format!("{} {}", before.trim(), after.trim());
    let numbers = numbers.split(',').filter_map(|number| number.trim().parse().ok());
    (name.trim().to_owned(), numbers.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_not_rewritten() {
        let check = |is: &str, base: &str, to: &str, rewrites: bool| {
            let column = ColumnType {
                is: is.to_owned(),
                to: Some(base.to_owned()),
                ..ColumnType::default()
            };
            assert_eq!(changes_type(&column, to), rewrites, "{is} to {to}");
        };
        check("character varying(20)", "character varying", "varchar(40)", false);
        check("character varying(20)", "character varying", "varchar(10)", true);
        check("character varying(20)", "character varying", "varchar", false);
        check("character varying(20)", "text", "text", false);
        check("text", "character varying", "varchar", false);
        check("text", "character varying", "varchar(9)", true);
        check("character(5)", "character", "char(6)", true);
        check("integer", "bigint", "bigint", true);
        check("integer", "integer", "int", false);
        check("numeric(8,2)", "numeric", "numeric(10, 2)", false);
        check("numeric(8,2)", "numeric", "numeric(10,3)", true);
        check("numeric(8,2)", "numeric", "numeric", false);
        check("numeric", "numeric", "numeric(8)", true);
        let stamp = "timestamp with time zone";
        check("timestamp(3) with time zone", stamp, "timestamptz", false);
        check(stamp, stamp, "timestamptz(3)", true);
        check("timestamp without time zone", stamp, "timestamptz", true);
        let column = ColumnType {
            is: "timestamp without time zone".to_owned(),
            to: Some(stamp.to_owned()),
            is_binary: false,
            is_utc: true,
        };
        assert!(!changes_type(&column, "timestamptz"));
        let column = ColumnType {
            is: "cidr".to_owned(),
            to: Some("inet".to_owned()),
            is_binary: true,
            is_utc: false,
        };
        assert!(!changes_type(&column, "inet"));
    }
}
