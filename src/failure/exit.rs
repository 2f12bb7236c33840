//! Exit codes: what a script can rely on.

/// Each way to end, see docs/cli.md.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exit {
    /// Done, or nothing to do.
    Ok,
    /// A migration failed; what was done is recorded, and `up` goes on there.
    Failed,
    /// A wrong flag, setting or migration file. Nothing was touched.
    Usage,
    /// Something is pending.
    Pending,
    /// Somebody else holds the lease, or ours was lost.
    Locked,
    /// Edited, missing, out of order, a gap, or two databases that are no pair.
    Conflict,
    /// An invariant does not hold; `cleanup` was not run.
    Invariant,
    /// A database cannot be reached, or refuses us.
    Unreachable,
    /// A time limit ran out.
    Timeout,
    /// Irreversible, unconfirmed, or the server lacks what is required.
    Refused,
    /// SIGINT.
    Interrupted,
    /// SIGTERM.
    Terminated,
}

impl Exit {
    /// All of them, in the order of their numbers.
    pub const ALL: [Exit; 12] = [
        Exit::Ok,
        Exit::Failed,
        Exit::Usage,
        Exit::Pending,
        Exit::Locked,
        Exit::Conflict,
        Exit::Invariant,
        Exit::Unreachable,
        Exit::Timeout,
        Exit::Refused,
        Exit::Interrupted,
        Exit::Terminated,
    ];

    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Pending => 3,
            Exit::Locked => 4,
            Exit::Conflict => 5,
            Exit::Invariant => 6,
            Exit::Unreachable => 7,
            Exit::Timeout => 8,
            Exit::Refused => 9,
            Exit::Interrupted => 130,
            Exit::Terminated => 143,
        }
    }

    /// The word, as `run_finished` has it for its `outcome`.
    pub fn word(self) -> &'static str {
        match self {
            Exit::Ok => "ok",
            Exit::Failed => "failed",
            Exit::Usage => "usage",
            Exit::Pending => "pending",
            Exit::Locked => "locked",
            Exit::Conflict => "conflict",
            Exit::Invariant => "invariant",
            Exit::Unreachable => "unreachable",
            Exit::Timeout => "timeout",
            Exit::Refused => "refused",
            Exit::Interrupted | Exit::Terminated => "interrupted",
        }
    }

    /// The sentence of docs/cli.md, without its marks.
    pub fn means(self) -> &'static str {
        match self {
            Exit::Ok => "done, or nothing to do",
            Exit::Failed => "a migration failed; what was done is recorded, and up continues there",
            Exit::Usage => "wrong flag, configuration or migration file; nothing was touched",
            Exit::Pending => {
                "status --exit-code: something is pending; up: something waits behind a held migration"
            }
            Exit::Locked => "somebody else holds the lease, or ours was lost",
            Exit::Conflict => "edited, missing, out of order, gap, pair mismatch",
            Exit::Invariant => {
                "an invariant does not hold; cleanup was not run, and the same command asks again"
            }
            Exit::Unreachable => {
                "a database cannot be reached or does not let us in, or the connection was lost"
            }
            Exit::Timeout => "--timeout or --wait ran out; up continues",
            Exit::Refused => {
                "irreversible, unconfirmed, or the server lacks what requires asks for"
            }
            Exit::Interrupted => {
                "interrupted (SIGINT): stopped between two steps, lease given back; up continues"
            }
            Exit::Terminated => {
                "interrupted (SIGTERM): stopped between two steps, lease given back; up continues"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = include_str!("../../docs/cli.md");

    /// The rows of the table of exit codes: numbers, word, sentence.
    fn rows() -> Vec<[String; 3]> {
        let (_, section) = DOCUMENT.split_once("\n## Exit codes\n").expect("it has one");
        let section = section.split("\n## ").next().unwrap_or_default();
        let cells = |line: &str| {
            let line = line.trim_matches('|').replace('`', "");
            let cells: Vec<String> = line.split(" | ").map(|it| it.trim().to_owned()).collect();
            <[String; 3]>::try_from(cells).expect("three cells")
        };
        let is_row = |line: &&str| line.starts_with("| ") && !line.starts_with("| code");
        section.lines().filter(is_row).map(cells).collect()
    }

    #[test]
    fn the_document_has_every_exit_code_and_no_other() {
        let mut documented: Vec<(u8, String, String)> = Vec::new();
        for [codes, word, means] in rows() {
            for code in codes.split(", ") {
                let code = code.parse().expect("a number");
                documented.push((code, word.clone(), means.clone()));
            }
        }
        let plain = |exit: Exit| match exit {
            // The two share a row.
            Exit::Interrupted | Exit::Terminated => {
                "SIGINT, SIGTERM: stopped between two steps, lease given back; up continues"
            }
            exit => exit.means(),
        };
        let ours: Vec<(u8, String, String)> = Exit::ALL
            .into_iter()
            .map(|exit| (exit.code(), exit.word().to_owned(), plain(exit).to_owned()))
            .collect();
        assert_eq!(documented, ours);
    }
}
