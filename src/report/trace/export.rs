//! Sends spans, on a thread of its own: the run gives them away and goes on. What
//! nobody takes is held for a while, then dropped and counted.

use super::otlp::{body, rejected};
use super::settings::Settings;
use super::{Span, TraceId};
use crate::report::http::{Address, Sender};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use ureq::http::Method;

/// What has ended leaves after this long at most, so that of a run that is killed
/// little is lost.
const EVERY: Duration = Duration::from_secs(1);

/// So many are sent at once.
const AT_ONCE: usize = 512;

/// So many wait for a collector that does not answer.
const WAITING_MAX: usize = 4_096;

/// A run that is over waits no longer for a collector that does not answer.
const END_LIMIT: Duration = Duration::from_secs(5);

/// What sends spans.
pub struct Exporter {
    messages: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
    to: Address,
}

enum Message {
    Ended(Box<Span>),
    /// No more come; the answer is what was wrong, if something was.
    Over(oneshot::Sender<Option<String>>),
}

impl Exporter {
    /// Begins to send. Nothing is sent before something has ended.
    ///
    /// # Errors
    /// The system gives us no thread.
    pub fn start(settings: Settings, trace: TraceId) -> std::io::Result<Exporter> {
        let (messages, receiver) = sync_channel(WAITING_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let (to, counted) = (settings.to.clone(), Arc::clone(&dropped));
        let thread = std::thread::Builder::new().name("traces".to_owned());
        thread.spawn(move || {
            let mut line = Line {
                sender: Sender::new(settings.to, settings.headers, settings.timeout),
                resource: settings.resource,
                trace,
                waiting: VecDeque::new(),
                is_failing: false,
                wrong: None,
                dropped: counted,
            };
            line.work(&receiver);
        })?;
        Ok(Exporter { messages, dropped, to })
    }

    /// Takes a span that has ended; never waits.
    pub fn take(&self, span: Span) {
        match self.messages.try_send(Message::Ended(Box::new(span))) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// So many were not sent, until now.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Sends what is left, for as long as that is worth it.
    ///
    /// # Errors
    /// What people should know: something was not taken, and why.
    pub async fn end(self) -> Result<(), String> {
        let Exporter { messages, dropped, to } = self;
        let (reply, answer) = oneshot::channel();
        // Its place in the queue may only come after a request that hangs.
        let mut over = Message::Over(reply);
        let until = Instant::now() + END_LIMIT;
        loop {
            match messages.try_send(over) {
                Ok(()) | Err(TrySendError::Disconnected(_)) => break,
                Err(TrySendError::Full(back)) => over = back,
            }
            if Instant::now() >= until {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let left = until.saturating_duration_since(Instant::now());
        let wrong = match tokio::time::timeout(left, answer).await {
            Ok(Ok(wrong)) => wrong,
            Ok(Err(_)) => Some("what sends them ended".to_owned()),
            Err(_) => {
                Some(format!("it did not answer within {}", crate::core::duration::show(END_LIMIT)))
            }
        };
        let Some(wrong) = wrong else { return Ok(()) };
        let lost = match dropped.load(Ordering::Relaxed) {
            0 => String::new(),
            1 => " (1 span is lost)".to_owned(),
            lost => format!(" ({lost} spans are lost)"),
        };
        Err(format!("the traces of this run did not all reach {to}: {wrong}{lost}"))
    }
}

/// The end of it that sends.
struct Line {
    sender: Sender,
    resource: Vec<(String, String)>,
    trace: TraceId,
    waiting: VecDeque<Span>,
    /// The last request failed: the next is sent when it is time, not when there is
    /// enough for one.
    is_failing: bool,
    /// What was wrong first, of what was lost.
    wrong: Option<String>,
    dropped: Arc<AtomicU64>,
}

impl Line {
    fn work(&mut self, messages: &Receiver<Message>) {
        let mut due: Option<Instant> = None;
        loop {
            let message = match due {
                None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) => messages.recv_timeout(due.saturating_duration_since(Instant::now())),
            };
            match message {
                Ok(Message::Ended(span)) => {
                    self.keep(*span);
                    due.get_or_insert_with(|| Instant::now() + EVERY);
                    if self.is_failing || self.waiting.len() < AT_ONCE {
                        continue;
                    }
                }
                Ok(Message::Over(reply)) => {
                    let why = self.flush();
                    // Nobody comes back for what is left.
                    self.lose(self.waiting.len(), why.unwrap_or_default());
                    let _ = reply.send(self.wrong.take());
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.is_failing = self.flush().is_some();
            due = (!self.waiting.is_empty()).then(|| Instant::now() + EVERY);
        }
    }

    /// The oldest go first: those that come later are nearer to what went wrong.
    fn keep(&mut self, span: Span) {
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.pop_front();
            self.lose(1, "it took none for too long".to_owned());
        }
        self.waiting.push_back(span);
    }

    fn lose(&mut self, spans: usize, why: String) {
        if spans > 0 {
            self.dropped.fetch_add(u64::try_from(spans).unwrap_or(u64::MAX), Ordering::Relaxed);
            self.wrong.get_or_insert(why);
        }
    }

    /// Sends what waits. What may be taken later waits on: then it says why.
    fn flush(&mut self) -> Option<String> {
        while !self.waiting.is_empty() {
            let spans = self.waiting.len().min(AT_ONCE);
            let spans: Vec<Span> = self.waiting.drain(..spans).collect();
            let text = body(&self.resource, self.trace, &spans);
            match self.sender.send(Method::POST, "application/json", text.as_bytes()) {
                Ok(answer) => {
                    if let Some(says) = rejected(&answer) {
                        self.wrong.get_or_insert(says);
                    }
                }
                Err(error) if error.is_passing() => {
                    for span in spans.into_iter().rev() {
                        self.waiting.push_front(span);
                    }
                    return Some(error.to_string());
                }
                Err(error) => self.lose(spans.len(), error.to_string()),
            }
        }
        None
    }
}
