//! Which types of Postgres have a line in the table, and what their columns hold.
//!
//! What a type is comes from the catalogue, as plain values: nothing in here asks
//! a server.

use super::iso::{self, Interval};
use std::fmt;

/// A type that travels, with what a column of it can hold. A value that a column
/// would round, cut or refuse is refused before it gets there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Kind {
    /// `smallint`
    Int2,
    /// `integer`
    Int4,
    /// `bigint`
    Int8,
    /// `numeric`, or `numeric(12,2)`
    Numeric(Option<Precision>),
    /// `real`
    Float4,
    /// `double precision`
    Float8,
    /// `boolean`
    Bool,
    /// `text`, `citext`, or `varchar(n)` with its limit in characters
    Text(Option<u32>),
    /// An enum with its labels; where they are not known there are none, and the
    /// server has the last word.
    Enum(Vec<String>),
    /// `char(n)`, with n
    Char(Option<u32>),
    /// `timestamptz`, with the digits that its seconds have: 6, if nothing is said
    Timestamptz(u8),
    /// `timestamp`, the same
    Timestamp(u8),
    /// `date`
    Date,
    /// `time`, with the digits that its seconds have
    Time(u8),
    /// `interval`, with the finest that it has
    Interval(Finest),
    /// `uuid`
    Uuid,
    /// `bytea`
    Bytea,
    /// `json`
    Json,
    /// `jsonb`
    Jsonb,
    /// An array of any number of dimensions.
    Array(Box<Element>),
}

/// What an array is made of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Element {
    /// Its kind, which is not an array.
    pub kind: Kind,
    /// Its type as the server numbers it: an array names it in its head.
    pub oid: u32,
}

/// What a numeric column holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Precision {
    /// All digits.
    pub precision: i32,
    /// Those after the point.
    pub scale: i32,
}

/// What an interval column does not cut off.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Finest {
    /// `interval year`
    Year,
    /// `interval month`
    Month,
    /// `interval day`
    Day,
    /// Hours, minutes or seconds: a multiple of so many microseconds.
    Micros(i64),
}

impl Finest {
    /// Whether a column keeps all of an interval.
    pub fn keeps(self, interval: Interval) -> bool {
        let Interval { months, days, micros } = interval;
        match self {
            Finest::Year => months % 12 == 0 && days == 0 && micros == 0,
            Finest::Month => days == 0 && micros == 0,
            Finest::Day => micros == 0,
            Finest::Micros(step) => micros % step == 0,
        }
    }
}

/// A type, as the catalogue has it.
#[derive(Clone, Copy, Debug)]
pub struct PgType<'a> {
    /// `pg_type.oid`
    pub oid: u32,
    /// `pg_type.typname`; matters where the number is not the same on every server.
    pub name: &'a str,
    /// `pg_attribute.atttypmod`, or the same of an answer; -1 is none.
    pub modifier: i32,
    /// What `pg_type.typtype`, `typelem` and `typbasetype` say.
    pub form: Form<'a>,
}

/// What a type is made of.
#[derive(Clone, Copy, Debug)]
pub enum Form<'a> {
    /// Nothing else, as far as is known here.
    Plain,
    /// An enum, with its labels if they are known.
    Enum(&'a [String]),
    /// An array (`typcategory` A). The modifier is that of the whole.
    Array(&'a PgType<'a>),
    /// A domain, over a type with the modifier that the domain gives it
    /// (`typtypmod`). What it checks beside that is checked by the server.
    Domain(&'a PgType<'a>),
    /// A composite, a range, a pseudo-type.
    Other,
}

/// The one type of an extension that is known, which is by its name.
const CITEXT: &str = "citext";

impl Kind {
    /// The kind of a type; `None` when the table has no line for it, and then
    /// [`cast_hint`] says what to do.
    pub fn of(pg: &PgType<'_>) -> Option<Kind> {
        match pg.form {
            Form::Enum(labels) => Some(Kind::Enum(labels.to_vec())),
            Form::Domain(base) => Kind::of(base),
            Form::Other => None,
            Form::Array(_) if VECTORS.contains(&pg.oid) => None,
            Form::Array(element) => {
                let element = PgType { modifier: pg.modifier, ..*element };
                let kind = Kind::of(&element)?;
                if matches!(kind, Kind::Array(_)) {
                    return None;
                }
                Some(Kind::Array(Box::new(Element { kind, oid: element.oid })))
            }
            Form::Plain => {
                if let Some((_, element)) = ARRAYS.iter().find(|(array, _)| *array == pg.oid) {
                    let kind = plain(*element, pg.modifier)?;
                    return Some(Kind::Array(Box::new(Element { kind, oid: *element })));
                }
                let citext = pg.name == CITEXT && pg.oid >= FIRST_NORMAL_OID;
                if citext { Some(Kind::Text(None)) } else { plain(pg.oid, pg.modifier) }
            }
        }
    }
}

/// Below are the types that come with every server.
const FIRST_NORMAL_OID: u32 = 16_384;

/// `int2vector` and `oidvector` are arrays that begin at 0, which no other store has.
const VECTORS: [u32; 2] = [22, 30];

/// The arrays of the plain types, and what they are made of.
const ARRAYS: [(u32, u32); 20] = [
    (1005, 21),
    (1007, 23),
    (1016, 20),
    (1231, 1700),
    (1021, 700),
    (1022, 701),
    (1000, 16),
    (1009, 25),
    (1015, 1043),
    (1003, 19),
    (1014, 1042),
    (1185, 1184),
    (1115, 1114),
    (1182, 1082),
    (1183, 1083),
    (1187, 1186),
    (2951, 2950),
    (1001, 17),
    (199, 114),
    (3807, 3802),
];

fn plain(oid: u32, modifier: i32) -> Option<Kind> {
    /// What a length is stored with.
    const HEAD: i32 = 4;
    let length = || u32::try_from(modifier - HEAD).ok().filter(|length| *length > 0);
    let digits = || u8::try_from(modifier).unwrap_or(6).min(6);
    Some(match oid {
        21 => Kind::Int2,
        23 => Kind::Int4,
        20 => Kind::Int8,
        1700 => Kind::Numeric((modifier >= HEAD).then(|| {
            let packed = modifier - HEAD;
            // The scale has eleven bits, the first of which is its sign.
            Precision { precision: packed >> 16 & 0xffff, scale: ((packed & 0x7ff) ^ 1024) - 1024 }
        })),
        700 => Kind::Float4,
        701 => Kind::Float8,
        16 => Kind::Bool,
        // text and name
        25 | 19 => Kind::Text(None),
        1043 => Kind::Text(length()),
        1042 => Kind::Char(length()),
        1184 => Kind::Timestamptz(digits()),
        1114 => Kind::Timestamp(digits()),
        1082 => Kind::Date,
        1083 => Kind::Time(digits()),
        1186 => Kind::Interval(finest(modifier)),
        2950 => Kind::Uuid,
        17 => Kind::Bytea,
        114 => Kind::Json,
        3802 => Kind::Jsonb,
        _ => return None,
    })
}

/// The finest field that an interval's modifier names, and the digits of seconds.
fn finest(modifier: i32) -> Finest {
    const MONTH: i32 = 1 << 1;
    const YEAR: i32 = 1 << 2;
    const DAY: i32 = 1 << 3;
    const HOUR: i32 = 1 << 10;
    const MINUTE: i32 = 1 << 11;
    const ALL: i32 = 0x7fff;
    let fields = if modifier < 0 { ALL } else { modifier >> 16 & ALL };
    let has = |field: i32| fields & field != 0;
    let digits =
        if modifier < 0 { 6 } else { u32::try_from(modifier & 0xffff).unwrap_or(6).min(6) };
    let seconds = Finest::Micros(10i64.pow(6 - digits));
    if has(1 << 12) {
        seconds
    } else if has(MINUTE) {
        Finest::Micros(60_000_000)
    } else if has(HOUR) {
        Finest::Micros(iso::DAY / 24)
    } else if has(DAY) {
        Finest::Day
    } else if has(MONTH) {
        Finest::Month
    } else if has(YEAR) {
        Finest::Year
    } else {
        seconds
    }
}

/// The cast that makes a type of the table from one that is not, as it stands
/// behind a column: `::text`. The name is the catalogue's or the one people use.
pub fn cast_hint(name: &str) -> String {
    let (name, brackets) = match name.strip_prefix('_').or(name.strip_suffix("[]")) {
        Some(element) => (element, "[]"),
        None => (name, ""),
    };
    let cast = match name {
        "money" => "numeric",
        "oid" | "xid" | "cid" => "text",
        "hstore" | "record" => "jsonb",
        "vector" | "halfvec" => "real[]",
        _ => "text",
    };
    let cast = cast.trim_end_matches(if brackets.is_empty() { "" } else { "[]" });
    format!("::{cast}{brackets}")
}

/// As people name the type of a column.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limited = |f: &mut fmt::Formatter<'_>, name: &str, limit: Option<u32>| match limit {
            Some(limit) => write!(f, "{name}({limit})"),
            None => f.write_str(name),
        };
        let timed = |f: &mut fmt::Formatter<'_>, name: &str, digits: u8| {
            limited(f, name, (digits < 6).then_some(u32::from(digits)))
        };
        match self {
            Kind::Int2 => f.write_str("smallint"),
            Kind::Int4 => f.write_str("integer"),
            Kind::Int8 => f.write_str("bigint"),
            Kind::Numeric(None) => f.write_str("numeric"),
            Kind::Numeric(Some(Precision { precision, scale })) => {
                write!(f, "numeric({precision},{scale})")
            }
            Kind::Float4 => f.write_str("real"),
            Kind::Float8 => f.write_str("double precision"),
            Kind::Bool => f.write_str("boolean"),
            Kind::Text(None) => f.write_str("text"),
            Kind::Text(limit) => limited(f, "varchar", *limit),
            Kind::Enum(_) => f.write_str("enum"),
            Kind::Char(limit) => limited(f, "char", *limit),
            Kind::Timestamptz(digits) => timed(f, "timestamptz", *digits),
            Kind::Timestamp(digits) => timed(f, "timestamp", *digits),
            Kind::Date => f.write_str("date"),
            Kind::Time(digits) => timed(f, "time", *digits),
            Kind::Interval(finest) => f.write_str(match finest {
                Finest::Year => "interval year",
                Finest::Month => "interval month",
                Finest::Day => "interval day",
                Finest::Micros(_) => "interval",
            }),
            Kind::Uuid => f.write_str("uuid"),
            Kind::Bytea => f.write_str("bytea"),
            Kind::Json => f.write_str("json"),
            Kind::Jsonb => f.write_str("jsonb"),
            Kind::Array(element) => write!(f, "{}[]", element.kind),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain_type(oid: u32, modifier: i32) -> PgType<'static> {
        PgType { oid, name: "x", modifier, form: Form::Plain }
    }

    #[test]
    fn a_type_is_known_by_its_number() {
        let check = |oid: u32, modifier: i32, expected: &str| {
            let kind = Kind::of(&plain_type(oid, modifier)).map(|kind| kind.to_string());
            assert_eq!(kind.as_deref(), Some(expected), "{oid} {modifier}");
        };
        for (oid, expected) in [
            (21, "smallint"),
            (23, "integer"),
            (20, "bigint"),
            (1700, "numeric"),
            (700, "real"),
            (701, "double precision"),
            (16, "boolean"),
            (25, "text"),
            (19, "text"),
            (1043, "varchar"),
            (1042, "char"),
            (1184, "timestamptz"),
            (1114, "timestamp"),
            (1082, "date"),
            (1083, "time"),
            (1186, "interval"),
            (2950, "uuid"),
            (17, "bytea"),
            (114, "json"),
            (3802, "jsonb"),
            (1007, "integer[]"),
            (1015, "varchar[]"),
            (3807, "jsonb[]"),
        ] {
            let expected = if oid == 1043 { "text" } else { expected };
            let expected = if oid == 1015 { "text[]" } else { expected };
            check(oid, -1, expected);
        }
        check(1043, 24, "varchar(20)");
        check(1015, 24, "varchar(20)[]");
        check(1042, 7, "char(3)");
        check(1700, (12 << 16 | 2) + 4, "numeric(12,2)");
        check(1700, (5 << 16 | (2048 - 3)) + 4, "numeric(5,-3)");
        check(1184, 0, "timestamptz(0)");
        check(1114, 6, "timestamp");
        check(1083, 3, "time(3)");
        check(1186, 0x7fff << 16 | 0xffff, "interval");
        check(1186, 1 << 2 << 16 | 0xffff, "interval year");
        check(1186, (1 << 2 | 1 << 1) << 16 | 0xffff, "interval month");
        check(1186, 1 << 3 << 16 | 0xffff, "interval day");
        let day_to_hour = (1 << 3 | 1 << 10) << 16 | 0xffff;
        assert_eq!(finest(day_to_hour), Finest::Micros(3_600_000_000));
        assert_eq!(finest(0x7fff << 16 | 3), Finest::Micros(1_000));
    }

    #[test]
    fn a_type_of_somebody_is_known_by_what_it_is_made_of() {
        let labels = ["a".to_owned(), "b".to_owned()];
        let mood = PgType { oid: 20_000, name: "mood", modifier: -1, form: Form::Enum(&labels) };
        assert_eq!(Kind::of(&mood), Some(Kind::Enum(labels.to_vec())));
        let moods = PgType { oid: 20_001, name: "_mood", modifier: -1, form: Form::Array(&mood) };
        let element = Element { kind: Kind::Enum(labels.to_vec()), oid: 20_000 };
        assert_eq!(Kind::of(&moods), Some(Kind::Array(Box::new(element))));
        let citext = PgType { oid: 20_002, name: "citext", modifier: -1, form: Form::Plain };
        assert_eq!(Kind::of(&citext), Some(Kind::Text(None)));
        let base = plain_type(1043, 14);
        let domain = PgType { oid: 20_003, name: "short", modifier: -1, form: Form::Domain(&base) };
        assert_eq!(Kind::of(&domain), Some(Kind::Text(Some(10))));
        let varchar = plain_type(1043, -1);
        let array =
            PgType { oid: 1015, name: "_varchar", modifier: 14, form: Form::Array(&varchar) };
        let element = Element { kind: Kind::Text(Some(10)), oid: 1043 };
        assert_eq!(Kind::of(&array), Some(Kind::Array(Box::new(element))));
    }

    #[test]
    fn any_other_type_has_no_kind() {
        // money, inet, "char", timetz, xml, oid, int2vector, and what is somebody's.
        for oid in [790, 869, 18, 1266, 142, 26, 22, 20_000] {
            assert_eq!(Kind::of(&plain_type(oid, -1)), None, "{oid}");
        }
        let point = PgType { oid: 20_000, name: "point", modifier: -1, form: Form::Other };
        assert_eq!(Kind::of(&point), None);
        let points =
            PgType { oid: 20_001, name: "_point", modifier: -1, form: Form::Array(&point) };
        assert_eq!(Kind::of(&points), None);
    }

    #[test]
    fn a_cast_that_works_is_said() {
        for (name, cast) in [
            ("inet", "::text"),
            ("_inet", "::text[]"),
            ("inet[]", "::text[]"),
            ("money", "::numeric"),
            ("hstore", "::jsonb"),
            ("vector", "::real[]"),
        ] {
            assert_eq!(cast_hint(name), cast, "{name}");
        }
    }
}
