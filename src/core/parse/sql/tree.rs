//! One statement as a tree, by `squawk-syntax`.
//!
//! Besides `lint::known` nobody else uses that crate. It is asked by what wants to know more of a statement than how to run it; a
//! statement that cannot be read in this way runs all the same.

use super::cursor::Cursor;
use super::token::{Lexer, TokenKind};
use crate::core::step::QualifiedName;
use squawk_syntax::ast::AstNode as _;
use squawk_syntax::{SourceFile, SyntaxNode};

/// Longer statements are not looked into: a tree takes many times the memory of
/// its text.
pub(super) const BYTES_MAX: usize = 1 << 20;

/// Nor are deeper ones: the parser recurses, and takes quadratic time.
pub(super) const DEPTH_MAX: usize = 500;

/// Nor are those with longer runs without a comma: each operator of a chain is a
/// level of the tree.
pub(super) const CHAIN_MAX: usize = 10_000;

/// Enough for what the limits let through. Only what is used becomes memory.
pub(in crate::core) const STACK_BYTES: usize = 256 << 20;

/// Looks at the tree of one statement.
///
/// # Errors
/// Why there is none, as the rest of `unknown: …`.
pub(in crate::core) fn tree<T: Send>(
    statement: &str,
    look: impl FnOnce(&SyntaxNode) -> T + Send,
) -> Result<T, String> {
    if let Some(why) = beyond_limits(statement) {
        return Err(why);
    }
    let read = || {
        let parsed = SourceFile::parse(statement);
        let mut statements = parsed.tree().stmts();
        match (statements.next(), statements.next()) {
            (Some(only), None) if parsed.errors().is_empty() => Some(look(only.syntax())),
            _ => None,
        }
    };
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new().stack_size(STACK_BYTES);
        let read = reader.spawn_scoped(scope, read).map(|thread| thread.join().ok().flatten());
        read.ok().flatten().ok_or_else(|| "it cannot be parsed".to_owned())
    })
}

/// Why a statement is not parsed, if it is not.
pub(in crate::core) fn beyond_limits(statement: &str) -> Option<String> {
    if statement.len() > BYTES_MAX {
        return Some("it is longer than 1 MiB".to_owned());
    }
    let (mut depth, mut deepest, mut chain, mut longest) = (0_usize, 0, 0_usize, 0);
    for token in Lexer::new(statement) {
        let Ok(token) = token else { return Some("it cannot be parsed".to_owned()) };
        chain += 1;
        match token.kind {
            TokenKind::Symbol(b'(' | b'[') => depth += 1,
            TokenKind::Symbol(b')' | b']') => depth = depth.saturating_sub(1),
            TokenKind::Symbol(b',') => chain = 0,
            TokenKind::Word if statement[token.range.clone()].eq_ignore_ascii_case("case") => {
                depth += 1;
            }
            TokenKind::Word if statement[token.range.clone()].eq_ignore_ascii_case("end") => {
                depth = depth.saturating_sub(1);
            }
            _ => {}
        }
        (deepest, longest) = (deepest.max(depth), longest.max(chain));
    }
    (deepest > DEPTH_MAX || longest > CHAIN_MAX).then(|| "it is nested too deeply".to_owned())
}

/// A name as Postgres reads it.
pub(in crate::core) fn name(node: &SyntaxNode) -> Option<QualifiedName> {
    name_of(&node.text().to_string())
}

/// The same, of a text.
pub(in crate::core) fn name_of(text: &str) -> Option<QualifiedName> {
    Cursor::new(text).qualified_name().ok()
}
