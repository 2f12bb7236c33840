//! Every sequence of bounded choices, one after the other.
//! <https://matklad.github.io/2021/11/07/generate-all-the-things.html>

/// The choices of one history. It is told again from the beginning, each time
/// with the last choice that has another option left made differently.
#[derive(Debug, Default)]
pub struct Choices {
    started: bool,
    /// What was chosen, and of how many.
    made: Vec<(usize, usize)>,
    at: usize,
}

impl Choices {
    /// Begins the next history; false when all were told.
    pub fn next_history(&mut self) -> bool {
        self.at = 0;
        if !self.started {
            self.started = true;
            return true;
        }
        while let Some((chosen, options)) = self.made.pop() {
            if chosen + 1 < options {
                self.made.push((chosen + 1, options));
                return true;
            }
        }
        false
    }

    /// One of so many options, the first one first.
    pub fn pick(&mut self, options: usize) -> usize {
        if self.at == self.made.len() {
            self.made.push((0, options));
        }
        let (chosen, of) = self.made[self.at];
        assert_eq!(of, options, "the same choices lead to the same question");
        self.at += 1;
        chosen
    }

    /// Whether the choices so far were not all made in the history before: what
    /// they lead to is new.
    pub fn is_new(&self) -> bool {
        self.at >= self.made.len()
    }
}

#[test]
fn every_sequence_is_told_once() {
    let mut choices = Choices::default();
    let mut told = Vec::new();
    while choices.next_history() {
        let first = choices.pick(2);
        // The second question is asked only after one of the answers.
        told.push((first, if first == 1 { choices.pick(3) } else { 9 }));
    }
    assert_eq!(told, [(0, 9), (1, 0), (1, 1), (1, 2)]);
}
