//! MongoDB scripts. A `.mongodb.js` file is read, never run: each statement
//! must be a call on `db` with literal arguments, so that what the file does
//! can be checked, planned, shown and resumed statement by statement, and the
//! same file still works in mongosh and stores the same BSON there.
//!
//! Invariant: nothing outside this module names oxc. It parses the JavaScript
//! here and nothing of it is visible outside.
//!
//! Reading order: `nesting` (what may be parsed at all), `literal` and
//! `construct` (values), `call` (a statement), `target` and `arguments` (its
//! parts), `define` and `write` (methods as commands), `command` and `kind`
//! (what may be sent, and what matters about it), `json`; `module` (what another
//! tool's program does, as far as it is such calls).

mod nesting;

mod literal;

mod number;

mod construct;

mod date;

mod call;

mod target;

mod arguments;

mod define;

mod write;

mod command;

pub(super) mod kind;

mod json;

mod module;

pub use module::{Module, Part, module};

use crate::core::parse::mongosh::literal::Reader;
use crate::core::problem::Problem;
use crate::core::step::MongoStep;
use bson::Bson;
use oxc_allocator::Allocator;
use oxc_ast::ast::{
    BindingPattern, Expression, Program, Statement as Js, VariableDeclaration,
    VariableDeclarationKind,
};
use oxc_parser::Parser;
use oxc_span::{GetSpan, SourceType, Span};
use std::ops::Range;

/// A script is read into memory as a tree, which is a good deal larger. Bulk
/// data belongs into a copy backfill or `mongoimport`.
pub const FILE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A file can be wrong everywhere; nobody reads more than this.
const PROBLEMS_MAX: usize = 100;

/// The parser is recursive. `nesting` bounds how deep it goes, and this is
/// several times what it needs for that in a debug build.
const STACK_BYTES: usize = 256 * 1024 * 1024;

/// One statement of a script.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Statement {
    /// What it does.
    pub step: MongoStep,
    /// The line on which it begins, from 1.
    pub line: u32,
}

/// Reads a `.mongodb.js` file. `text` is normalized: no BOM, LF.
///
/// # Errors
/// All problems of the file in its order (at most 100, then a count of the
/// rest), `file` left empty.
pub fn read(text: &str) -> Result<Vec<Statement>, Vec<Problem>> {
    guarded(text, || {
        let allocator = Allocator::default();
        let parsed = Parser::new(&allocator, text, SourceType::mjs()).parse();
        if !parsed.diagnostics.is_empty() || parsed.panicked {
            return Err(parsed
                .diagnostics
                .iter()
                .map(|diagnostic| {
                    let range = diagnostic.labels.first().map_or(0..0, |label| {
                        let start = label.offset() as usize;
                        start..start + label.len() as usize
                    });
                    syntax(text, range, &diagnostic.message, diagnostic.help.as_deref())
                })
                .collect());
        }
        script(text, &parsed.program)
    })
}

/// Reads a `.mongodb.json` file: an array of database commands in Extended
/// JSON, canonical or relaxed (the shape that golang-migrate uses). Each
/// command is a statement.
///
/// # Errors
/// As [`read`].
pub fn read_json(text: &str) -> Result<Vec<Statement>, Vec<Problem>> {
    guarded(text, || json::read(text))
}

/// One literal of mongosh, with the same rules as in a script: a filter, an
/// update or a pipeline in `migration.toml`.
///
/// # Errors
/// The first problem, `file` left empty.
pub fn literal(text: &str) -> Result<Bson, Problem> {
    let read = guarded(text, || {
        let allocator = Allocator::default();
        let parsed = Parser::new(&allocator, text, SourceType::mjs()).parse_expression();
        match parsed {
            Ok(expression) => {
                let mut reader = Reader::default();
                let value = reader.value(&expression);
                match value {
                    Some(value) if reader.faults.is_empty() => Ok(value.into_bson()),
                    _ => Err(reader.faults),
                }
            }
            Err(diagnostics) => Err(diagnostics
                .iter()
                .map(|diagnostic| {
                    let range = diagnostic.labels.first().map_or(0..0, |label| {
                        let start = label.offset() as usize;
                        start..start + label.len() as usize
                    });
                    syntax(text, range, &diagnostic.message, diagnostic.help.as_deref())
                })
                .collect()),
        }
    });
    read.map_err(|mut problems| {
        if problems.is_empty() {
            return Problem::at(text, 0..0, "cannot be read as a literal");
        }
        problems.swap_remove(0)
    })
}

/// What is wrong, before its line and column are counted: counting is linear
/// in the file, and a file can be wrong everywhere.
#[derive(Clone, Debug)]
struct Fault {
    at: Range<usize>,
    message: String,
    hint: Option<String>,
}

impl Fault {
    fn new(at: impl Into<At>, message: impl Into<String>) -> Fault {
        Fault { at: at.into().0, message: message.into(), hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Fault {
        self.hint = Some(hint.into());
        self
    }
}

/// A range of bytes, from the parser's span or from our own.
struct At(Range<usize>);

impl From<Span> for At {
    fn from(span: Span) -> At {
        At(span.start as usize..span.end as usize)
    }
}

impl From<Range<usize>> for At {
    fn from(range: Range<usize>) -> At {
        At(range)
    }
}

/// Any stack is deep enough for a text of this depth.
const SHALLOW: usize = 40;

/// Runs `read` where it can neither exhaust the stack nor the memory.
fn guarded<T: Send>(
    text: &str,
    read: impl FnOnce() -> Result<T, Vec<Fault>> + Send,
) -> Result<T, Vec<Problem>> {
    if text.len() > FILE_BYTES_MAX {
        let message =
            format!("larger than {} MiB, the most that a script may be", FILE_BYTES_MAX >> 20);
        return Err(vec![
            Problem::whole("", message)
                .hint("load bulk data with a copy backfill, or with mongoimport from a `[[run]]`"),
        ]);
    }
    let result = match nesting::check(text) {
        Err(fault) => Err(vec![fault]),
        // As almost every script is: a thread would cost more than the reading.
        Ok(depth) if depth <= SHALLOW => read(),
        Ok(_) => std::thread::scope(|scope| {
            let builder = std::thread::Builder::new().stack_size(STACK_BYTES);
            match builder.spawn_scoped(scope, read) {
                Ok(thread) => {
                    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                }
                Err(error) => {
                    Err(vec![Fault::new(0..0, format!("no thread to read it on: {error}"))])
                }
            }
        }),
    };
    result.map_err(|mut faults| {
        faults.sort_by_key(|fault| fault.at.start);
        let more = faults.len().saturating_sub(PROBLEMS_MAX);
        let mut problems: Vec<Problem> = faults
            .into_iter()
            .take(PROBLEMS_MAX)
            .map(|fault| Problem { hint: fault.hint, ..Problem::at(text, fault.at, fault.message) })
            .collect();
        if more > 0 {
            problems.push(Problem::whole("", format!("and {more} more problems")));
        }
        problems
    })
}

/// What the parser says, in our words where a word of mongosh's prompt is meant.
fn syntax(text: &str, at: Range<usize>, message: &str, help: Option<&str>) -> Fault {
    let start = text.floor_char_boundary(at.start.min(text.len()));
    let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[line_start..].split('\n').next().unwrap_or_default();
    let word = line.split_whitespace().next().unwrap_or_default();
    let word_at = line_start + (line.len() - line.trim_start().len());
    match word {
        "use" => {
            Fault::new(word_at..word_at + word.len(), "`use` is a command of mongosh's prompt")
                .hint("remove it: the database is that of the connection")
        }
        "show" => {
            Fault::new(word_at..word_at + word.len(), "`show` is a command of mongosh's prompt")
                .hint("remove it: a migration that only reads does nothing")
        }
        _ => {
            let message = format!("not JavaScript: {}", message.trim_end_matches('.'));
            let fault = Fault::new(at, message);
            match help {
                Some(help) => fault.hint(help),
                None => fault,
            }
        }
    }
}

/// The statements of a program.
fn script(text: &str, program: &Program) -> Result<Vec<Statement>, Vec<Fault>> {
    let mut reader = Reader::default();
    let mut statements = Vec::new();
    let mut lines = Lines::new(text);
    for directive in &program.directives {
        if directive.directive != "use strict" {
            reader
                .refuse(Fault::new(directive.span, "a text alone does nothing").hint("remove it"));
        }
    }
    for statement in &program.body {
        match statement {
            Js::EmptyStatement(_) => {}
            Js::VariableDeclaration(declaration) => declare(&mut reader, declaration),
            Js::ExpressionStatement(expression) => {
                let span = expression.expression.span();
                if let Some((commands, kind)) = call::read(&mut reader, &expression.expression) {
                    let text = text[span.start as usize..span.end as usize].to_owned();
                    let line = lines.of(span.start as usize);
                    statements.push(Statement { step: MongoStep { text, commands, kind }, line });
                }
            }
            other => reader.refuse(not_a_call(other)),
        }
    }
    if reader.faults.is_empty() { Ok(statements) } else { Err(reader.faults) }
}

/// `const name = <literal>;`
fn declare(reader: &mut Reader, declaration: &VariableDeclaration) {
    if declaration.kind != VariableDeclarationKind::Const {
        let word = match declaration.kind {
            VariableDeclarationKind::Let => "let",
            VariableDeclarationKind::Var => "var",
            VariableDeclarationKind::Const
            | VariableDeclarationKind::Using
            | VariableDeclarationKind::AwaitUsing => "using",
        };
        let start = declaration.span.start as usize;
        reader.refuse(
            Fault::new(start..start + word.len(), format!("`{word}` names something that changes"))
                .hint("write `const name = <literal>;`"),
        );
    }
    for declarator in &declaration.declarations {
        let BindingPattern::BindingIdentifier(name) = &declarator.id else {
            reader.refuse(
                Fault::new(declarator.id.span(), "taking a value apart is not read here")
                    .hint("write `const name = <literal>;` for each name"),
            );
            continue;
        };
        let Some(init) = &declarator.init else {
            // Only `let` and `var` get here, and were refused above.
            reader.poison(&name.name);
            continue;
        };
        let value = reader.value(init);
        if declaration.kind == VariableDeclarationKind::Const {
            reader.name(&name.name, name.span, value);
        } else {
            reader.poison(&name.name);
        }
    }
}

/// What a statement that is no call should have been.
fn not_a_call(statement: &Js) -> Fault {
    let (what, hint) = match statement {
        Js::ForStatement(_)
        | Js::ForInStatement(_)
        | Js::ForOfStatement(_)
        | Js::WhileStatement(_)
        | Js::DoWhileStatement(_) => (
            "a loop is not read: the file is never run",
            "write the statements out, use one update or `bulkWrite`, or a `[[backfill]]`",
        ),
        Js::IfStatement(_) | Js::SwitchStatement(_) => (
            "a condition is not read: the file is never run",
            "put the condition into the filter, or use a `[[run]]` of your own program",
        ),
        Js::FunctionDeclaration(_) | Js::ClassDeclaration(_) => (
            "a function is not read: the file is never run",
            "write the statements out, or use a `[[run]]` of your own program",
        ),
        Js::TryStatement(_) | Js::ThrowStatement(_) => (
            "handling errors is not read: the file is never run",
            "remove it: a statement that fails stops the migration, and `migrate up` continues there",
        ),
        Js::ImportDeclaration(_)
        | Js::ExportAllDeclaration(_)
        | Js::ExportDefaultDeclaration(_)
        | Js::ExportNamedDeclaration(_) => {
            ("modules are not read: the file is never run", "write the values out in this file")
        }
        _ => (
            "only calls on `db` and `const name = <literal>;` are read: the file is never run",
            "write the statements out, or use a `[[run]]` of your own program",
        ),
    };
    // The first word says enough; the whole loop would mark the whole page.
    let start = statement.span().start as usize;
    Fault::new(start..start + 1, what).hint(hint)
}

/// Line numbers of growing offsets, counted once.
struct Lines<'a> {
    text: &'a str,
    seen: usize,
    line: u32,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Lines<'a> {
        Lines { text, seen: 0, line: 1 }
    }

    /// The line of an offset that is not before the last one asked for.
    fn of(&mut self, offset: usize) -> u32 {
        let newlines = self.text.as_bytes()[self.seen..offset].iter().filter(|b| **b == b'\n');
        self.line = self.line.saturating_add(u32::try_from(newlines.count()).unwrap_or(u32::MAX));
        self.seen = offset;
        self.line
    }
}

/// The expression inside any parentheses.
fn bare<'a, 'b>(expression: &'b Expression<'a>) -> &'b Expression<'a> {
    let mut inner = expression;
    while let Expression::ParenthesizedExpression(parenthesized) = inner {
        inner = &parenthesized.expression;
    }
    inner
}

#[cfg(test)]
#[expect(clippy::needless_raw_string_hashes, reason = "expect_test writes them so")]
mod tests {
    use super::nesting::CHAIN_MAX;
    use super::*;
    use bson::Document;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;
    use std::fmt::Write as _;

    /// Reads a script and shows its commands, or what is wrong with it.
    pub(super) fn check(text: &str, expected: &Expect) {
        expected.assert_eq(&shown(read(text)));
    }

    pub(super) fn shown(read: Result<Vec<Statement>, Vec<Problem>>) -> String {
        let mut all = String::new();
        match read {
            Ok(statements) => {
                for Statement { step, line } in statements {
                    write!(all, "{line} {:?}", step.kind).expect("a text");
                    for command in step.commands {
                        let body = Document::from_reader(&command.body[..]).expect("BSON");
                        write!(all, " {:?} {body}", command.on).expect("a text");
                    }
                    all.push('\n');
                }
            }
            Err(problems) => {
                for problem in problems {
                    let problem = problem.to_string();
                    writeln!(all, "{}", problem.trim_start_matches([':', ' '])).expect("a text");
                }
            }
        }
        all
    }

    #[test]
    fn a_script_is_its_statements() {
        check(
            "#!/usr/bin/env mongosh\n'use strict';\n// a comment\nconst n = 1;\ndb.a.insertOne({ _id: n });\n\n  db.b.drop()\n;;(db.c.drop({}))",
            &expect![[r#"
                5 Write(Harmless) Database { "insert": "a", "documents": [{ "_id": 1 }] }
                7 Drop Database { "drop": "b" }
                8 Drop Database { "drop": "c" }
            "#]],
        );
    }

    #[test]
    fn a_script_of_comments_has_no_statements() {
        check("// nothing\n/* here */\n", &expect![[""]]);
        check("", &expect![[""]]);
    }

    #[test]
    fn a_statement_knows_its_own_text() {
        let script = "/* a */ db.a.insertOne({\n  a: 1, // one\n}) ; db.b.drop()\n";
        let statements = read(script).expect("is right");
        let texts: Vec<_> = statements.iter().map(|one| one.step.text.as_str()).collect();
        assert_eq!(texts, ["db.a.insertOne({\n  a: 1, // one\n})", "db.b.drop()"]);
    }

    #[test]
    fn every_problem_of_a_file_is_told_in_its_order() {
        check(
            "db.a.udpateMany({}, {});\nfor (;;) {}\ndb.a.insertOne({ a: x, b: undefined, c: [, ] });\nlet y = 1;\ndb.a.insertOne({ a: y });\n",
            &expect![[r#"
                1:6: `udpateMany` is not a method that is read here; did you mean `updateMany`?
                2:1: a loop is not read: the file is never run; write the statements out, use one update or `bulkWrite`, or a `[[backfill]]`
                3:21: `x` has no value in this file; write `const x = <literal>;` before it
                3:27: `undefined` is not a value of MongoDB; leave the field out, or write `null`
                3:42: a hole in an array; write `null`, or remove the comma
                4:1: `let` names something that changes; write `const name = <literal>;`
            "#]],
        );
    }

    #[test]
    fn only_calls_and_constants_are_statements() {
        for (text, expected) in [
            (
                "while (true) { db.a.drop() }",
                expect![[r#"
                1:1: a loop is not read: the file is never run; write the statements out, use one update or `bulkWrite`, or a `[[backfill]]`
            "#]],
            ),
            (
                "if (true) db.a.drop()",
                expect![[r#"
                1:1: a condition is not read: the file is never run; put the condition into the filter, or use a `[[run]]` of your own program
            "#]],
            ),
            (
                "function f() {}",
                expect![[r#"
                1:1: a function is not read: the file is never run; write the statements out, or use a `[[run]]` of your own program
            "#]],
            ),
            (
                "try { db.a.drop() } catch (e) {}",
                expect![[r#"
                1:1: handling errors is not read: the file is never run; remove it: a statement that fails stops the migration, and `migrate up` continues there
            "#]],
            ),
            (
                "import x from 'y'",
                expect![[r#"
                1:1: modules are not read: the file is never run; write the values out in this file
            "#]],
            ),
            (
                "{ db.a.drop() }",
                expect![[r#"
                1:1: only calls on `db` and `const name = <literal>;` are read: the file is never run; write the statements out, or use a `[[run]]` of your own program
            "#]],
            ),
            (
                "return 1",
                expect![[r#"
                1:1: not JavaScript: A 'return' statement can only be used within a function body
            "#]],
            ),
            (
                "'a text'",
                expect![[r#"
                1:1: a text alone does nothing; remove it
            "#]],
            ),
            (
                "let a = 1;",
                expect![[r#"
                1:1: `let` names something that changes; write `const name = <literal>;`
            "#]],
            ),
            (
                "var a = 1;",
                expect![[r#"
                1:1: `var` names something that changes; write `const name = <literal>;`
            "#]],
            ),
            (
                "using a = 1;",
                expect![[r#"
                1:1: `using` names something that changes; write `const name = <literal>;`
            "#]],
            ),
            (
                "const { a } = { a: 1 };",
                expect![[r#"
                1:7: taking a value apart is not read here; write `const name = <literal>;` for each name
            "#]],
            ),
            (
                "const a;",
                expect![[r#"
                1:7: not JavaScript: Missing initializer in const declaration; Add an initializer (e.g. ` = undefined`) here
            "#]],
            ),
            (
                "const a = 1, a = 2;",
                expect![[r#"
                1:14: `a` already has a value in this file; choose another name
            "#]],
            ),
            (
                "const db = 1;",
                expect![[r#"
                1:7: `db` is a name of mongosh itself; choose another name
            "#]],
            ),
            (
                "const ISODate = 1;",
                expect![[r#"
                1:7: `ISODate` is a name of mongosh itself; choose another name
            "#]],
            ),
        ] {
            check(text, &expected);
        }
    }

    #[test]
    fn what_is_no_javascript_is_told_in_its_place() {
        for (text, expected) in [
            (
                "use shop\ndb.a.drop()",
                expect![[r#"
                1:1: `use` is a command of mongosh's prompt; remove it: the database is that of the connection
            "#]],
            ),
            (
                "db.a.drop()\n  show collections",
                expect![[r#"
                2:3: `show` is a command of mongosh's prompt; remove it: a migration that only reads does nothing
            "#]],
            ),
            (
                "db.a.insertOne({ a: 1 }",
                expect![[r#"
                1:24: not JavaScript: Expected `)` but found `EOF`
            "#]],
            ),
            (
                "db.a.insertOne({ a 1 })",
                expect![[r#"
                1:20: not JavaScript: Expected `,` or `}` but found `decimal`
            "#]],
            ),
            (
                "db.a.insertOne('a)",
                expect![[r#"
                1:16: not JavaScript: Unterminated string
            "#]],
            ),
            (
                "/* never closed",
                expect![[r#"
                1:1: not JavaScript: Unterminated multiline comment
            "#]],
            ),
        ] {
            check(text, &expected);
        }
    }

    #[test]
    fn a_file_that_is_nested_too_deep_or_too_large_is_refused() {
        check(
            &format!("db.a.insertOne({})", "[".repeat(500)),
            &expect![[r#"
            1:215: nested too deep to be read; MongoDB itself refuses documents of more than 100 levels
        "#]],
        );
        check(
            &format!("const a = {}1", "- ".repeat(5_000)),
            &expect![[r#"
            1:4009: nested too deep to be read; MongoDB itself refuses documents of more than 100 levels
        "#]],
        );
        check(
            &" ".repeat(FILE_BYTES_MAX + 1),
            &expect![[r#"
                 larger than 16 MiB, the most that a script may be; load bulk data with a copy backfill, or with mongoimport from a `[[run]]`
            "#]],
        );
        assert!(read(&" ".repeat(FILE_BYTES_MAX)).is_ok());
    }

    #[test]
    fn what_is_just_not_too_deep_neither_kills_the_process_nor_takes_long() {
        for part in [
            "(",
            "[",
            "{a:",
            "({a:",
            "f(",
            "(a,",
            "(a=>(",
            "async(",
            "[a,",
            "`${",
            "- ",
            "!",
            "a = ",
            "a => ",
            "a ? b : ",
            "a ? ",
            "if (x) ",
            "new ",
            "x: ",
            "2 ** ",
            "1 + ",
            "typeof ",
            "a.",
            "f()",
            "while (x) ",
            "do ",
            "if (x) ; else ",
            "async a => ",
            "(async (a) => ",
            "class A extends ",
            "`a`",
            "a?.b",
            "function f() {",
            "{",
            "[...",
            "({...",
            "({a = ",
            "(a = ",
            "for (;;) ",
            "<!--",
        ] {
            // As often as is let through.
            let mut times = 2_500;
            while nesting::check(&part.repeat(times)).is_err() {
                times = times * 9 / 10;
            }
            for start in ["", "const x = ", "db.a.insertOne("] {
                let text = format!("{start}{}", part.repeat(times.saturating_sub(2)));
                let closed: String = text
                    .chars()
                    .rev()
                    .filter_map(|open| match open {
                        '(' => Some(')'),
                        '[' => Some(']'),
                        '{' => Some('}'),
                        _ => None,
                    })
                    .collect();
                for text in [format!("{text}1{closed}"), text] {
                    // Either way is right, if it comes back.
                    let _ = (read(&text).is_ok(), literal(&text).is_ok(), read_json(&text).is_ok());
                }
            }
        }
        assert!(read(&format!("db{}.drop()", ".a".repeat(20_000))).is_ok());
        assert!(read(&format!("db{}", ".a()".repeat(20_000))).is_err());
        assert!(literal(&format!("1{}", " + 1".repeat(CHAIN_MAX))).is_ok());
    }

    #[test]
    fn after_a_hundred_problems_the_rest_is_counted() {
        let Err(problems) = read(&"print(1);\n".repeat(250)) else { panic!("all are wrong") };
        assert_eq!(problems.len(), 101);
        assert_eq!(problems[100].message, "and 150 more problems");
        assert_eq!(problems[99].at.as_ref().map(|at| at.line), Some(100));
    }

    #[test]
    fn a_literal_stands_alone() {
        for (text, expected) in [
            (" { a: 1, } // a comment\n", expect![[r#"Document({"a": Int32(1)})"#]]),
            (
                "[{ $set: { a: 1 } }]",
                expect![[r#"Array([Document({"$set": Document({"a": Int32(1)})})])"#]],
            ),
            ("", expect![":1:1: not JavaScript: Unexpected token"]),
            ("{}; db.a.drop()", expect![":1:3: not JavaScript: Unexpected token"]),
            ("{} {}", expect![":1:4: not JavaScript: Unexpected token"]),
            ("{ a: }", expect![":1:6: not JavaScript: Unexpected token"]),
            (
                "{ a: x }",
                expect![
                    ":1:6: `x` has no value in this file; write `const x = <literal>;` before it"
                ],
            ),
        ] {
            let shown = match literal(text) {
                Ok(bson) => format!("{bson:?}"),
                Err(problem) => problem.to_string(),
            };
            expected.assert_eq(&shown);
        }
    }

    /// Parts that scripts are made of, and what breaks them.
    const FRAGMENTS: &[&str] = &[
        "db",
        ".a",
        ".insertOne(",
        ".updateMany(",
        ".bulkWrite([",
        ".createIndex({a:1}",
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        ",",
        ";",
        ":",
        "\n",
        "a: 1",
        "'",
        "\"",
        "`",
        "${",
        "/",
        "/*",
        "*/",
        "//",
        "\\",
        "\\u",
        "\\ud800",
        "\u{2028}",
        "é",
        "😀",
        "\0",
        "__proto__",
        "const x = ",
        "x",
        "new ",
        "ISODate('2024-01-01')",
        "Date(",
        "-",
        "+",
        "- ",
        "!",
        "=>",
        "...",
        "?.",
        "async ",
        "await ",
        "class A {",
        "if (x) ",
        "function ",
        "0x",
        "1e999",
        "1_",
        "9n",
        "NaN",
        "$set",
        "runCommand({",
        "aggregate([",
        "sh.",
        "\"$date\":",
        "\"$numberLong\": \"1\"",
        "null",
        "/[/",
        "#",
        "@",
        "<!--",
        "use x",
        "label: ",
        "_id: null",
        "1: 2",
        "getCollection(",
    ];

    fn script() -> impl Strategy<Value = String> {
        let parts = prop::sample::select(FRAGMENTS);
        prop_oneof![
            any::<String>(),
            prop::collection::vec(parts.clone(), 0..40).prop_map(|parts| parts.concat()),
            (parts.clone(), 1..3_000_usize).prop_map(|(part, times)| part.repeat(times)),
            (prop::collection::vec(parts, 1..4), 1..1_500_usize)
                .prop_map(|(parts, times)| parts.concat().repeat(times)),
            prop::collection::vec(0..SEEDS.len(), 1..4).prop_flat_map(|seeds| {
                let text: String = seeds.into_iter().map(|seed| SEEDS[seed]).collect();
                (0..text.len(), prop::sample::select(FRAGMENTS)).prop_map(move |(at, part)| {
                    let mut text = text.clone();
                    text.insert_str(text.floor_char_boundary(at), part);
                    text
                })
            }),
        ]
    }

    /// Right as they are; the fuzzer breaks them.
    const SEEDS: &[&str] = &[
        "db.a.insertMany([{ _id: 1, n: NumberLong('5'), d: new Date(0) }], { ordered: true });\n",
        "const c = { a: [1, -2.5, /x\\/y/i] };\ndb['x y'].updateOne({ _id: 1 }, { $set: { c: c } }, { upsert: true })\n",
        "db.a.bulkWrite([{ insertOne: { document: {} } }, { deleteOne: { filter: { _id: 1 } } }]);\n",
        "[{ \"insert\": \"a\", \"documents\": [{ \"_id\": { \"$oid\": \"65a1b2c3d4e5f60718293a4b\" } }] }]",
        "db.a.aggregate([{ $match: {} }, { $merge: { into: 'b' } }]);\n",
    ];

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 250,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn no_text_makes_it_panic(text in script()) {
            for problems in [read(&text).err(), read_json(&text).err()].into_iter().flatten() {
                prop_assert!(!problems.is_empty());
            }
            let _ = literal(&text);
        }
    }
}
