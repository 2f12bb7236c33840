//! A module of migrate-mongo: two functions, `up(db, client)` and `down(db, client)`,
//! written for the driver of Node. It is read, never run. A statement that is one call
//! with literal arguments is written as mongosh has it; whether it can be is asked the
//! reader of our own scripts. Everything else is handed on as it stands.

use super::{Fault, Lines, bare, guarded, not_a_call, read, syntax};
use crate::core::problem::Problem;
use oxc_allocator::Allocator;
use oxc_ast::ast::{
    Argument, ArrowFunctionBody, AssignmentTarget, BindingPattern, CallExpression, Declaration,
    ExportDefaultDeclarationKind, Expression, FormalParameters, ObjectExpression,
    ObjectPropertyKind, Statement as Js, UnaryOperator, VariableDeclaration,
    VariableDeclarationKind,
};
use oxc_parser::Parser;
use oxc_span::{GetSpan, SourceType, Span};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A piece of a function, in the order of the file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Part {
    /// A statement of a mongosh script, or a comment.
    Script {
        /// The line where it begins in the module, from 1.
        line: u32,
        /// As mongosh has it.
        text: String,
    },
    /// What only a person can translate.
    ForPerson {
        /// The line where it begins in the module, from 1.
        line: u32,
        /// As it stands there.
        text: String,
        /// Why it is left over.
        why: String,
    },
}

/// Both functions.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Module {
    /// What `up` does.
    pub up: Vec<Part>,
    /// What `down` does; nothing if it does nothing.
    pub down: Vec<Part>,
}

/// Reads a module. `text` is normalized.
///
/// # Errors
/// It is not JavaScript, or has no `up`.
pub fn module(text: &str) -> Result<Module, Vec<Problem>> {
    guarded(text, || {
        let allocator = Allocator::default();
        let parsed = Parser::new(&allocator, text, SourceType::mjs()).parse();
        if !parsed.diagnostics.is_empty() || parsed.panicked {
            let fault = parsed.diagnostics.first().map(|diagnostic| {
                let range = diagnostic.labels.first().map_or(0..0, |label| {
                    let start = label.offset() as usize;
                    start..start + label.len() as usize
                });
                syntax(text, range, &diagnostic.message, diagnostic.help.as_deref())
            });
            return Err(fault.into_iter().collect());
        }
        let mut functions = Functions::default();
        for statement in &parsed.program.body {
            functions.statement(text, statement);
        }
        functions.forget_changed(text);
        let part = |name: &str| {
            let function = functions.exported.get(name);
            let mut function = *function.or_else(|| functions.declared.get(name))?;
            if let Body::Named(other, span) = function {
                let declared = functions.declared.get(other).copied();
                function = declared.unwrap_or(Body::Unread(span));
            }
            Some(translate(text, &function, &functions.constants))
        };
        let Some(up) = part("up") else {
            let hint = "write `module.exports = { async up(db) { … } }`, or remove the file";
            return Err(vec![Fault::new(0..0, "the module exports no function `up`").hint(hint)]);
        };
        Ok(Module { up, down: part("down").unwrap_or_default() })
    })
}

/// A function, as far as it matters.
#[derive(Clone, Copy)]
enum Body<'a, 'b> {
    Statements(&'b [Js<'a>], Option<&'b str>, Span),
    Expression(&'b Expression<'a>, Option<&'b str>),
    /// The one that is declared under this name.
    Named(&'b str, Span),
    /// Something that makes a function.
    Unread(Span),
}

/// What a module says at its top.
#[derive(Default)]
struct Functions<'a, 'b> {
    exported: BTreeMap<String, Body<'a, 'b>>,
    declared: BTreeMap<String, Body<'a, 'b>>,
    /// `const NAME = <literal>;`
    constants: Vec<(String, String)>,
    /// What else is done when the module is loaded.
    others: Vec<Span>,
}

impl<'a, 'b> Functions<'a, 'b> {
    fn statement(&mut self, text: &str, statement: &'b Js<'a>) {
        match statement {
            Js::FunctionDeclaration(function) => {
                if let (Some(id), Some(body)) = (&function.id, &function.body) {
                    let body =
                        Body::Statements(&body.statements, first(&function.params), body.span);
                    self.declared.insert(id.name.to_string(), body);
                }
            }
            Js::VariableDeclaration(declaration) => self.variables(text, declaration, false),
            Js::ExpressionStatement(statement) => self.assignment(&statement.expression),
            Js::ExportDeclaration(export) => self.declaration(text, &export.declaration),
            Js::ExportDefaultDeclaration(export) => {
                if let ExportDefaultDeclarationKind::ObjectExpression(object) = &export.declaration
                {
                    self.object(object);
                }
            }
            other => self.others.push(other.span()),
        }
    }

    /// What is done when the module is loaded may change what a constant holds.
    fn forget_changed(&mut self, text: &str) {
        let others = &self.others;
        let is_left = |name: &str| others.iter().any(|span| names(slice(text, *span), name));
        self.constants.retain(|(name, _)| !is_left(name));
    }

    fn constant(&mut self, name: &str, value: &str) {
        let line = format!("const {name} = {value};");
        if read(&line).is_ok() {
            self.constants.push((name.to_owned(), line));
        }
    }

    /// `module.exports = { … }`, `exports.up = …`, `module.exports.up = …`
    fn assignment(&mut self, expression: &'b Expression<'a>) {
        let Expression::AssignmentExpression(assignment) = bare(expression) else {
            return self.others.push(expression.span());
        };
        let AssignmentTarget::StaticMemberExpression(member) = &assignment.left else {
            return self.others.push(expression.span());
        };
        let name = member.property.name.as_str();
        match (bare(&assignment.right), name) {
            (Expression::ObjectExpression(object), "exports") => self.object(object),
            (right, "up" | "down") => {
                self.exported.insert(name.to_owned(), function_or(right));
            }
            _ => self.others.push(expression.span()),
        }
    }

    fn variables(&mut self, text: &str, declaration: &'b VariableDeclaration<'a>, exported: bool) {
        for declarator in &declaration.declarations {
            let BindingPattern::BindingIdentifier(name) = &declarator.id else { continue };
            let Some(init) = &declarator.init else { continue };
            match function(init) {
                Some(body) => {
                    let place = if exported { &mut self.exported } else { &mut self.declared };
                    place.insert(name.name.to_string(), body);
                }
                // What may be another one by then is none.
                None if declaration.kind == VariableDeclarationKind::Const => {
                    self.constant(&name.name, slice(text, init.span()));
                }
                None => {}
            }
        }
    }

    fn declaration(&mut self, text: &str, declaration: &'b Declaration<'a>) {
        match declaration {
            Declaration::FunctionDeclaration(function) => {
                if let (Some(id), Some(body)) = (&function.id, &function.body) {
                    let body =
                        Body::Statements(&body.statements, first(&function.params), body.span);
                    self.exported.insert(id.name.to_string(), body);
                }
            }
            Declaration::VariableDeclaration(declaration) => {
                self.variables(text, declaration, true);
            }
            _ => {}
        }
    }

    fn object(&mut self, object: &'b ObjectExpression<'a>) {
        for property in &object.properties {
            let ObjectPropertyKind::ObjectProperty(property) = property else { continue };
            let Some(name) = property.key.static_name() else { continue };
            self.exported.insert(name.to_string(), function_or(&property.value));
        }
    }
}

/// What is exported; `{ up, down }` names functions that are declared elsewhere.
fn function_or<'a, 'b>(expression: &'b Expression<'a>) -> Body<'a, 'b> {
    function(expression).unwrap_or_else(|| match bare(expression) {
        Expression::Identifier(name) => Body::Named(name.name.as_str(), expression.span()),
        _ => Body::Unread(expression.span()),
    })
}

fn function<'a, 'b>(expression: &'b Expression<'a>) -> Option<Body<'a, 'b>> {
    match bare(expression) {
        Expression::FunctionExpression(function) => {
            let body = function.body.as_ref()?;
            Some(Body::Statements(&body.statements, first(&function.params), body.span))
        }
        Expression::ArrowFunctionExpression(arrow) => Some(match &arrow.body {
            ArrowFunctionBody::FunctionBody(body) => {
                Body::Statements(&body.statements, first(&arrow.params), body.span)
            }
            body => Body::Expression(body.as_expression()?, first(&arrow.params)),
        }),
        _ => None,
    }
}

/// The name of the first parameter: the database.
fn first<'b>(parameters: &'b FormalParameters<'_>) -> Option<&'b str> {
    match &parameters.items.first()?.pattern {
        BindingPattern::BindingIdentifier(name) => Some(name.name.as_str()),
        _ => None,
    }
}

fn slice(text: &str, span: Span) -> &str {
    &text[span.start as usize..span.end as usize]
}

/// A function while it is translated.
struct Translation<'t> {
    text: &'t str,
    lines: Lines<'t>,
    /// What the database is called in it.
    db: &'t str,
    /// Names that stand for a collection, each with how that is named.
    collections: BTreeMap<String, String>,
    /// The constants above, as a script.
    before: String,
    parts: Vec<Part>,
}

fn translate(text: &str, body: &Body<'_, '_>, constants: &[(String, String)]) -> Vec<Part> {
    let (db, span) = match body {
        Body::Statements(_, db, span) => (*db, *span),
        Body::Expression(expression, db) => (*db, expression.span()),
        Body::Named(_, span) | Body::Unread(span) => (None, *span),
    };
    let mut translation = Translation {
        text,
        lines: Lines::new(text),
        // Without a parameter, `db` is something else.
        db: db.unwrap_or_default(),
        collections: BTreeMap::new(),
        before: String::new(),
        parts: Vec::new(),
    };
    let inside = slice(text, span);
    for (_, line) in constants.iter().filter(|(name, _)| names(inside, name)) {
        let _ = writeln!(translation.before, "{line}");
        translation.parts.push(Part::Script { line: 1, text: line.clone() });
    }
    let given = translation.parts.len();
    match body {
        Body::Expression(expression, _) => translation.expression(expression.span(), expression),
        Body::Named(_, span) | Body::Unread(span) => {
            translation.left(*span, "what makes this function is not read");
        }
        Body::Statements(statements, _, span) => {
            let mut end = span.start as usize + 1;
            let mut is_over = false;
            for statement in *statements {
                let own = statement.span();
                translation.comment(end, own.start as usize);
                match is_over {
                    true => translation.left(own, "it stands behind the end of the function"),
                    false => translation.statement(statement),
                }
                is_over |= matches!(statement, Js::ReturnStatement(_) | Js::ThrowStatement(_));
                end = own.end as usize;
            }
            // Comments alone, as the template has them, are nothing.
            if translation.parts.len() > given {
                translation.comment(end, (span.end as usize).saturating_sub(1));
            }
        }
    }
    match translation.parts.iter().any(|part| !is_remark(part)) {
        true => translation.parts,
        false => Vec::new(),
    }
}

/// Whether a part does nothing: comments and constants.
fn is_remark(part: &Part) -> bool {
    match part {
        Part::Script { text, .. } => read(text).is_ok_and(|statements| statements.is_empty()),
        Part::ForPerson { .. } => false,
    }
}

/// Whether a name stands somewhere in a text.
fn names(text: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    text.split(|c: char| !is_part(c)).any(|word| word == name)
}

impl Translation<'_> {
    /// Keeps the comments between two statements.
    fn comment(&mut self, start: usize, end: usize) {
        let between = self.text[start..end.max(start)].trim();
        if between.starts_with("//") || between.starts_with("/*") {
            let at = start + self.text[start..].find(between).unwrap_or(0);
            let line = self.lines.of(at);
            let lines: Vec<&str> = between.split('\n').map(str::trim).collect();
            self.parts.push(Part::Script { line, text: lines.join("\n") });
        }
    }

    fn statement(&mut self, statement: &Js) {
        match statement {
            Js::EmptyStatement(_) => {}
            Js::ExpressionStatement(it) => self.expression(statement.span(), &it.expression),
            Js::ReturnStatement(it) => {
                if let Some(expression) = it.argument.as_ref().filter(|it| !is_quiet(it)) {
                    self.expression(statement.span(), expression);
                }
            }
            Js::VariableDeclaration(declaration) => {
                let [declarator] = declaration.declarations.as_slice() else {
                    return self.left(statement.span(), "several names in one declaration");
                };
                let named = match &declarator.id {
                    BindingPattern::BindingIdentifier(name) => Some(name.name.to_string()),
                    _ => None,
                };
                let collection = declarator.init.as_ref().and_then(|init| self.collection(init));
                if let (Some(name), Some(collection)) = (named, collection) {
                    self.collections.insert(name, collection);
                    return;
                }
                let source = slice(self.text, statement.span()).to_owned();
                match self.problem(&source) {
                    None => {
                        let line = self.lines.of(statement.span().start as usize);
                        let _ = writeln!(self.before, "{source}");
                        self.parts.push(Part::Script { line, text: source });
                    }
                    Some(why) => self.left(statement.span(), &why),
                }
            }
            other => self.left(other.span(), &not_a_call(other).message),
        }
    }

    /// A call, or several at once.
    fn expression(&mut self, span: Span, expression: &Expression) {
        let call = awaited(expression);
        if let Expression::CallExpression(call) = call {
            let mut arguments = call.arguments.iter();
            if is_of(&call.callee, "console", None)
                && arguments.all(|it| it.as_expression().is_some_and(is_quiet))
            {
                return;
            }
            if is_of(&call.callee, "Promise", Some("all"))
                && let [Argument::ArrayExpression(list)] = call.arguments.as_slice()
            {
                let each: Option<Vec<String>> = list
                    .elements
                    .iter()
                    .map(|element| self.script(element.as_expression()?).ok())
                    .collect();
                if let Some(each) = each {
                    let line = self.lines.of(span.start as usize);
                    self.parts.extend(each.into_iter().map(|text| Part::Script { line, text }));
                    return;
                }
            }
        }
        match self.script(expression) {
            Ok(text) => {
                let line = self.lines.of(span.start as usize);
                self.parts.push(Part::Script { line, text });
            }
            Err(why) => self.left(span, &why),
        }
    }

    fn left(&mut self, span: Span, why: &str) {
        let line = self.lines.of(span.start as usize);
        let text = slice(self.text, span).to_owned();
        self.parts.push(Part::ForPerson { line, text, why: why.to_owned() });
    }

    /// The call as mongosh has it, if that can be read.
    fn script(&self, expression: &Expression) -> Result<String, String> {
        let Expression::CallExpression(call) = awaited(expression) else {
            return Err("this is no call on the database".to_owned());
        };
        let text = self.call(call)?;
        match self.problem(&text) {
            None => Ok(text),
            Some(why) => Err(why),
        }
    }

    /// What the reader of our scripts has against a text.
    fn problem(&self, text: &str) -> Option<String> {
        let problems = read(&format!("{}{text}", self.before)).err()?;
        Some(problems.into_iter().next().map_or_else(String::new, |problem| problem.message))
    }

    fn call(&self, call: &CallExpression) -> Result<String, String> {
        let no_call = || "this is no call on the database".to_owned();
        let Expression::StaticMemberExpression(member) = bare(&call.callee) else {
            return Err(no_call());
        };
        let method = member.property.name.as_str();
        let object = bare(&member.object);
        if method == "toArray" {
            let Expression::CallExpression(inner) = object else { return Err(no_call()) };
            return self.call(inner);
        }
        let arguments: Vec<&str> =
            call.arguments.iter().map(|argument| slice(self.text, argument.span())).collect();
        let callee_end = call.callee.span().end as usize;
        let brackets = &self.text[callee_end..call.span.end as usize];
        if let Some(collection) = self.collection(object) {
            return Ok(match (method, arguments.as_slice()) {
                ("createIndex", [_, ..]) => {
                    format!("db.getCollection({collection}).createIndex{};", self.index(call, 0))
                }
                ("rename", [to]) => {
                    format!("db.getCollection({collection}).renameCollection({to});")
                }
                _ => format!("db.getCollection({collection}).{method}{brackets};"),
            });
        }
        if !matches!(object, Expression::Identifier(name) if name.name == self.db) {
            return Err(no_call());
        }
        Ok(match (method, arguments.as_slice()) {
            ("command", _) => format!("db.runCommand{brackets};"),
            ("dropCollection", [name]) => format!("db.getCollection({name}).drop();"),
            ("renameCollection", [from, to]) => {
                format!("db.getCollection({from}).renameCollection({to});")
            }
            ("createIndex", [collection, ..]) => {
                format!("db.getCollection({collection}).createIndex{};", self.index(call, 1))
            }
            _ => format!("db.{method}{brackets};"),
        })
    }

    /// How a collection is named: the argument of `db.collection(…)`, or of the one
    /// that a name stands for.
    fn collection(&self, expression: &Expression) -> Option<String> {
        match bare(expression) {
            Expression::Identifier(name) => self.collections.get(name.name.as_str()).cloned(),
            Expression::CallExpression(call) => {
                let Expression::StaticMemberExpression(member) = bare(&call.callee) else {
                    return None;
                };
                let is_db = matches!(bare(&member.object), Expression::Identifier(name) if name.name == self.db);
                let [name] = call.arguments.as_slice() else { return None };
                (is_db && member.property.name == "collection")
                    .then(|| slice(self.text, name.span()).to_owned())
            }
            _ => None,
        }
    }

    /// The arguments of `createIndex` from the `skip`th, with the name that the driver
    /// gives an index without one.
    fn index(&self, call: &CallExpression, skip: usize) -> String {
        let arguments: Vec<&str> =
            call.arguments.iter().skip(skip).map(|it| slice(self.text, it.span())).collect();
        let as_it_is = || format!("({})", arguments.join(", "));
        let Some(Argument::ObjectExpression(keys)) = call.arguments.get(skip) else {
            return as_it_is();
        };
        let Some(name) = index_name(keys) else { return as_it_is() };
        let keys = arguments[0];
        match call.arguments.get(skip + 1) {
            None => format!("({keys}, {{ name: \"{name}\" }})"),
            Some(Argument::ObjectExpression(options)) => {
                let has_name = options.properties.iter().any(|property| match property {
                    ObjectPropertyKind::ObjectProperty(property) => {
                        property.key.static_name().is_some_and(|key| key == "name")
                    }
                    ObjectPropertyKind::SpreadProperty(_) => true,
                });
                if has_name {
                    return as_it_is();
                }
                let rest = slice(self.text, options.span);
                let rest = rest.strip_prefix('{').unwrap_or(rest);
                let comma = if options.properties.is_empty() { "" } else { "," };
                format!("({keys}, {{ name: \"{name}\"{comma}{rest})")
            }
            Some(_) => as_it_is(),
        }
    }
}

/// `{ a: 1, b: -1 }` is `a_1_b_-1`.
fn index_name(keys: &ObjectExpression) -> Option<String> {
    let mut words = Vec::new();
    for property in &keys.properties {
        let ObjectPropertyKind::ObjectProperty(property) = property else { return None };
        let key = property.key.static_name()?;
        let value = match bare(&property.value) {
            Expression::NumericLiteral(number) => number.value.to_string(),
            Expression::StringLiteral(text) => text.value.to_string(),
            Expression::UnaryExpression(unary)
                if unary.operator == UnaryOperator::UnaryNegation =>
            {
                match bare(&unary.argument) {
                    Expression::NumericLiteral(number) => format!("-{}", number.value),
                    _ => return None,
                }
            }
            _ => return None,
        };
        words.push(format!("{key}_{value}"));
    }
    let name = words.join("_");
    let is_plain = |c: char| !c.is_control() && c != '"' && c != '\\';
    (!name.is_empty() && name.chars().all(is_plain)).then_some(name)
}

/// What is waited for.
fn awaited<'a, 'b>(expression: &'b Expression<'a>) -> &'b Expression<'a> {
    match bare(expression) {
        Expression::AwaitExpression(awaited) => bare(&awaited.argument),
        expression => expression,
    }
}

/// Whether it is this method, or any, of something that is called so.
fn is_of(callee: &Expression, object: &str, method: Option<&str>) -> bool {
    match bare(callee) {
        Expression::StaticMemberExpression(member) => {
            matches!(bare(&member.object), Expression::Identifier(name) if name.name == object)
                && method.is_none_or(|method| member.property.name == method)
        }
        _ => false,
    }
}

/// Whether asking for its value does nothing.
fn is_quiet(expression: &Expression) -> bool {
    match bare(expression) {
        Expression::StringLiteral(_)
        | Expression::NumericLiteral(_)
        | Expression::BooleanLiteral(_)
        | Expression::NullLiteral(_)
        | Expression::Identifier(_) => true,
        Expression::StaticMemberExpression(member) => is_quiet(&member.object),
        Expression::TemplateLiteral(template) => template.expressions.iter().all(is_quiet),
        Expression::BinaryExpression(binary) => is_quiet(&binary.left) && is_quiet(&binary.right),
        _ => false,
    }
}
