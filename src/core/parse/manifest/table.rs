//! Reading TOML so that every problem has a place.
//!
//! Each key is asked for by name. What was never asked for is unknown, so the
//! list of valid keys, from which "did you mean" chooses, cannot be forgotten.

use crate::core::duration;
use crate::core::problem::{Place, Problem, nearest};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A text and all that is wrong with it.
#[derive(Debug)]
pub struct Sink<'a> {
    /// The whole of `migration.toml`.
    pub text: &'a str,
    problems: RefCell<Vec<Problem>>,
}

impl<'a> Sink<'a> {
    /// Nothing is wrong yet.
    pub fn new(text: &'a str) -> Sink<'a> {
        Sink { text, problems: RefCell::default() }
    }

    /// Whether something is wrong.
    pub fn has_problems(&self) -> bool {
        !self.problems.borrow().is_empty()
    }

    /// One problem more.
    pub fn push(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    /// A problem with what stands at a range.
    pub fn at(&self, range: Range<usize>, message: impl Into<String>, hint: impl Into<String>) {
        self.push(Problem::at(self.text, range, message).hint(hint));
    }

    /// All of them, in the order of the text.
    pub fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| problem.at.as_ref().map(|at| (at.line, at.column)));
        problems
    }
}

/// A table whose keys are asked for one by one.
#[derive(Debug)]
pub struct Table<'a> {
    /// Where problems go.
    pub sink: &'a Sink<'a>,
    /// Where it stands: its header, or its braces.
    pub range: Range<usize>,
    name: String,
    entries: BTreeMap<&'a str, (Range<usize>, &'a Spanned<DeValue<'a>>)>,
    asked: Vec<&'static str>,
}

impl<'a> Table<'a> {
    /// The whole document.
    pub fn root(sink: &'a Sink<'a>, document: &'a DeTable<'a>) -> Table<'a> {
        Table::new(sink, String::new(), 0..0, document)
    }

    fn new(
        sink: &'a Sink<'a>,
        name: String,
        range: Range<usize>,
        table: &'a DeTable<'a>,
    ) -> Table<'a> {
        let entries = table
            .iter()
            .map(|(key, value)| (key.get_ref().as_ref(), (key.span(), value)))
            .collect();
        Table { sink, range, name, entries, asked: Vec::new() }
    }

    /// The value of a key, if it is there.
    pub fn get(&mut self, key: &'static str) -> Option<Value<'a>> {
        self.asked.push(key);
        let (key_range, spanned) = self.entries.remove(key)?;
        Some(Value { sink: self.sink, name: key.to_owned(), key: key_range, spanned })
    }

    /// The value of a key that somebody else asks for.
    pub fn peek(&self, key: &str) -> Option<Value<'a>> {
        let (key_range, spanned) = self.entries.get(key)?;
        Some(Value { sink: self.sink, name: key.to_owned(), key: key_range.clone(), spanned })
    }

    /// The value of a key that must be there.
    pub fn need(&mut self, key: &'static str, hint: &str) -> Option<Value<'a>> {
        let value = self.get(key);
        if value.is_none() {
            self.complain(format!("{} has no `{key}`", self.title()), hint);
        }
        value
    }

    /// A problem with the table as a whole.
    pub fn complain(&self, message: impl Into<String>, hint: impl Into<String>) {
        self.sink.at(self.range.clone(), message, hint);
    }

    /// What it is called in messages: "`requires`", "this `[[backfill]]`".
    pub fn title(&self) -> String {
        if self.name.starts_with('[') {
            format!("this `{}`", self.name)
        } else {
            format!("`{}`", self.name)
        }
    }

    /// Where it stands.
    pub fn place(&self) -> Place {
        Place::of(self.sink.text, self.range.clone())
    }

    /// Every key that was not asked for is unknown.
    pub fn finish(self) {
        for (key, (range, _)) in &self.entries {
            let message = if self.name.is_empty() {
                format!("unknown key `{key}`")
            } else {
                format!("unknown key `{key}` in `{}`", self.name)
            };
            let hint = match nearest(key, self.asked.iter().copied()) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("the keys here are {}", list(&self.asked)),
            };
            self.sink.at(range.clone(), message, hint);
        }
    }
}

/// The value of a key.
#[derive(Clone, Debug)]
pub struct Value<'a> {
    /// Where problems go.
    pub sink: &'a Sink<'a>,
    /// What it is called in messages: its key.
    pub name: String,
    /// Where the key stands.
    pub key: Range<usize>,
    spanned: &'a Spanned<DeValue<'a>>,
}

impl<'a> Value<'a> {
    /// Where the value stands.
    pub fn range(&self) -> Range<usize> {
        self.spanned.span()
    }

    /// Where the key stands, as a place.
    pub fn place(&self) -> Place {
        Place::of(self.sink.text, self.key.clone())
    }

    /// The value as TOML has it.
    pub fn raw(&self) -> &'a DeValue<'a> {
        self.spanned.get_ref()
    }

    /// Whether it is a list.
    pub fn is_list(&self) -> bool {
        matches!(self.raw(), DeValue::Array(_))
    }

    /// Whether it is a table.
    pub fn is_table(&self) -> bool {
        matches!(self.raw(), DeValue::Table(_))
    }

    /// A problem with the value.
    pub fn complain(&self, message: impl Into<String>, hint: impl Into<String>) {
        self.sink.at(self.range(), message, hint);
    }

    /// It is not what it should be; `expected` is "a string", `example` a value
    /// that would do.
    pub fn wrong<T>(&self, expected: &str, example: &str) -> Option<T> {
        let message = format!("`{}` must be {expected}, not {}", self.name, what(self.raw()));
        self.complain(message, format!("for example `{} = {example}`", self.name));
        None
    }

    /// A string that says something.
    pub fn string(&self, example: &str) -> Option<Text<'a>> {
        let DeValue::String(value) = self.raw() else {
            return self.wrong("a string", example);
        };
        if value.trim().is_empty() {
            self.complain(
                format!("`{}` is empty", self.name),
                format!("write something, for example `{} = {example}`", self.name),
            );
            return None;
        }
        Some(Text { sink: self.sink, value: value.as_ref(), range: self.range() })
    }

    /// `true` or `false`.
    pub fn boolean(&self) -> Option<bool> {
        match self.raw() {
            DeValue::Boolean(value) => Some(*value),
            _ => self.wrong("true or false", "true"),
        }
    }

    /// A whole number from `least` to `most`.
    pub fn whole(&self, least: u64, most: u64, example: &str) -> Option<u64> {
        let DeValue::Integer(value) = self.raw() else {
            return self.wrong("a whole number", example);
        };
        let number = u64::from_str_radix(value.as_str(), value.radix()).ok();
        let number = number.filter(|number| (least..=most).contains(number));
        if number.is_none() {
            let limits = if most == u64::MAX {
                format!("at least {least}")
            } else {
                format!("from {least} to {most}")
            };
            self.complain(
                format!("`{}` must be {limits}, not {value}", self.name),
                format!("for example `{} = {example}`", self.name),
            );
        }
        number
    }

    /// A number of at least 0, with a fraction or without.
    pub fn fraction(&self, example: &str) -> Option<f64> {
        let number = match self.raw() {
            DeValue::Integer(value) => value.to_string().parse::<f64>().ok(),
            DeValue::Float(value) => value.as_str().parse::<f64>().ok(),
            _ => return self.wrong("a number", example),
        };
        match number {
            Some(number) if number.is_finite() && number >= 0.0 => Some(number),
            _ => {
                self.complain(
                    format!("`{}` must be a number of at least 0", self.name),
                    format!("for example `{} = {example}`", self.name),
                );
                None
            }
        }
    }

    /// A duration.
    pub fn duration(&self, example: &str) -> Option<Duration> {
        let DeValue::String(text) = self.raw() else {
            return self.wrong("a duration", example);
        };
        match duration::parse(text) {
            Ok(duration) => Some(duration),
            Err(error) => {
                self.complain(error.to_string(), error.hint);
                None
            }
        }
    }

    /// One of a few words.
    pub fn word<T: Copy>(&self, words: &[(&'static str, T)]) -> Option<T> {
        let all = words.iter().map(|(word, _)| *word).collect::<Vec<_>>();
        let DeValue::String(text) = self.raw() else {
            return self.wrong("a string", &format!("\"{}\"", all[0]));
        };
        if let Some((_, value)) = words.iter().find(|(word, _)| word == text) {
            return Some(*value);
        }
        let hint = match nearest(text, all.iter().copied()) {
            Some(known) => format!("did you mean `{known}`?"),
            None => format!("write one of {}", list(&all)),
        };
        self.complain(format!("`{text}` is not a value of `{}`", self.name), hint);
        None
    }

    /// A table.
    pub fn table(&self, example: &str) -> Option<Table<'a>> {
        match self.raw() {
            DeValue::Table(table) => {
                Some(Table::new(self.sink, self.name.clone(), self.key.clone(), table))
            }
            _ => self.wrong("a table", example),
        }
    }

    /// A list of tables, `[[name]]`.
    pub fn tables(&self) -> Vec<Table<'a>> {
        let DeValue::Array(items) = self.raw() else {
            let message = format!("`{}` must be a list of tables", self.name);
            self.sink.at(self.key.clone(), message, format!("write `[[{}]]`", self.name));
            return Vec::new();
        };
        let name = format!("[[{}]]", self.name);
        let mut tables = Vec::new();
        for item in items {
            if let DeValue::Table(table) = item.get_ref() {
                tables.push(Table::new(self.sink, name.clone(), item.span(), table));
            } else {
                let message = format!(
                    "`{}` must be a list of tables, not of {}",
                    self.name,
                    what(item.get_ref())
                );
                self.sink.at(item.span(), message, format!("write `[[{}]]`", self.name));
            }
        }
        tables
    }

    /// A list of strings that all say something, and at least one of them.
    pub fn strings(&self, example: &str) -> Option<Vec<Text<'a>>> {
        let DeValue::Array(items) = self.raw() else {
            return self.wrong("a list of strings", example);
        };
        if items.is_empty() {
            self.complain(
                format!("`{}` is empty", self.name),
                format!("for example `{} = {example}`", self.name),
            );
            return None;
        }
        let mut texts = Vec::new();
        for item in items {
            match item.get_ref() {
                DeValue::String(value) if !value.is_empty() => {
                    texts.push(Text { sink: self.sink, value: value.as_ref(), range: item.span() });
                }
                DeValue::String(_) => {
                    let message = format!("`{}` has an empty string in it", self.name);
                    self.sink.at(item.span(), message, "leave it out");
                }
                other => {
                    let message = format!(
                        "`{}` must be a list of strings, not of {}",
                        self.name,
                        what(other)
                    );
                    let hint = format!("for example `{} = {example}`", self.name);
                    self.sink.at(item.span(), message, hint);
                }
            }
        }
        (texts.len() == items.iter().len()).then_some(texts)
    }
}

/// A string of the manifest, some of which are read again by another reader.
#[derive(Clone, Debug)]
pub struct Text<'a> {
    /// Where problems go.
    pub sink: &'a Sink<'a>,
    /// What it says.
    pub value: &'a str,
    /// Where it stands, quotes included.
    pub range: Range<usize>,
}

impl Text<'_> {
    /// Where it stands, as a place.
    pub fn place(&self) -> Place {
        Place::of(self.sink.text, self.range.clone())
    }

    /// A problem with the whole string.
    pub fn complain(&self, message: impl Into<String>, hint: impl Into<String>) {
        self.sink.at(self.range.clone(), message, hint);
    }

    /// Passes on what another reader found in this string, at its place in the
    /// manifest. That reader was given `before` characters in front of the string.
    pub fn lift(&self, problem: Problem, before: usize) {
        let at = match &problem.at {
            None => self.range.clone(),
            Some(place) => self.inner(place, before),
        };
        self.sink.push(Problem { at: Some(Place::of(self.sink.text, at)), ..problem });
    }

    /// The range of bytes of the manifest that a place in the string is.
    fn inner(&self, place: &Place, before: usize) -> Range<usize> {
        // Where escapes make the source differ from the value, nothing finer
        // than the whole string is certain.
        let Some(base) = self.sink.text[self.range.clone()].find(self.value) else {
            return self.range.clone();
        };
        let line = place.line.saturating_sub(1) as usize;
        let line_start: usize = self.value.split_inclusive('\n').take(line).map(str::len).sum();
        let before = if line == 0 { before } else { 0 };
        let column = (place.column.saturating_sub(1) as usize).saturating_sub(before);
        let bytes = |text: &str, characters: usize| {
            text.char_indices().nth(characters).map_or(text.len(), |(at, _)| at)
        };
        let start = line_start + bytes(&self.value[line_start..], column);
        let end = start + bytes(&self.value[start..], place.width as usize);
        let base = self.range.start + base;
        base + start..base + end
    }
}

/// What a value is, in words.
fn what(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// "`a`, `b` and `c`".
pub fn list(words: &[&str]) -> String {
    let quoted = words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where a problem with `wrong` in the value of `key` is, when the reader was
    /// given `before` in front of it.
    fn place(toml: &str, before: &str, wrong: &str) -> (u32, u32, u32) {
        let document = DeTable::parse(toml).expect("it is TOML");
        let sink = Sink::new(toml);
        let mut table = Table::root(&sink, document.get_ref());
        let value = table.get("key").expect("it is there");
        let text = value.string("\"x\"").expect("it is a string");
        let read = format!("{before}{}", text.value);
        let at = read.find(wrong).expect("it is in there");
        let problem = Problem::at(&read, at..at + wrong.len(), "wrong");
        text.lift(problem, before.chars().count());
        let place = sink.into_problems().remove(0).at.expect("it has a place");
        (place.line, place.column, place.width)
    }

    #[test]
    fn a_problem_in_a_string_has_its_place_in_the_file() {
        assert_eq!(place("key = 'one two'", "", "two"), (1, 12, 3));
        assert_eq!(place("a = 1\nkey = \"größe zwei\"", "UPDATE ö ", "zwei"), (2, 14, 4));
        assert_eq!(place("key = \"\"\"one\n  two three\"\"\"", "SELECT ", "two"), (2, 3, 3));
        assert_eq!(place("key = '''\none\ntwo'''", "SELECT ", "one"), (2, 1, 3));
        assert_eq!(place("key = '''\none\ntwo'''", "SELECT ", "two"), (3, 1, 3));
    }

    #[test]
    fn a_problem_behind_an_escape_has_the_place_of_the_string() {
        assert_eq!(place("key = \"o\\u006ee two\"", "", "two"), (1, 7, 14));
        assert_eq!(place("key = \"\"\"one\n\\u0074wo\"\"\"", "", "two"), (1, 7, 6));
    }

    #[test]
    fn a_problem_in_what_stands_in_front_has_the_place_of_the_string() {
        assert_eq!(place("key = 'one'", "UPDATE t ", "UPDATE").0, 1);
    }

    #[test]
    fn words_are_listed_as_people_do() {
        assert_eq!(list(&["a"]), "`a`");
        assert_eq!(list(&["a", "b", "c"]), "`a`, `b` and `c`");
    }
}
