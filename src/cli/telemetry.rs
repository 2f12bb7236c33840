//! What a run tells about itself to whoever watches: figures when it ends, and a trace
//! while it is at work. Whatever goes wrong with that is a warning.

use crate::cli::args::{self, Global};
use crate::cli::config;
use crate::cli::config::secret::redacted;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::output::{Output, Reporter};
use crate::cli::project::configure;
use crate::core::notice::{Notice, Notices};
use crate::engine::{Clock as _, SystemClock};
use crate::report::http::Address;
use crate::report::metrics::run::{self, Figures};
use crate::report::metrics::{file, push, text};
use crate::report::trace::export::Exporter;
use crate::report::trace::{self, Nanos, Tracer, settings};
use crate::store::Run;
use std::cell::RefCell;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

/// Those who watch one run of a command.
pub struct Telemetry {
    /// `up`, `down`, `cleanup`.
    pub command: &'static str,
    began: Began,
    file: Option<PathBuf>,
    push: Option<Address>,
    state: RefCell<State>,
}

/// What is known so far.
#[derive(Default)]
struct State {
    run_id: String,
    release: Option<String>,
    figures: Figures,
    trace: Option<(Tracer, Exporter)>,
    /// What somebody wants and does not get.
    warnings: Vec<String>,
}

/// When the command began: on the wall, and for what lies between.
#[derive(Clone, Copy)]
struct Began {
    at: Nanos,
    instant: Instant,
}

impl Began {
    fn now() -> Began {
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Began { at: u64::try_from(at.as_nanos()).unwrap_or(u64::MAX), instant: Instant::now() }
    }

    /// The wall's clock may be put back meanwhile; this one goes on.
    fn nanos(&self) -> Nanos {
        let since = u64::try_from(self.instant.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.at.saturating_add(since)
    }
}

impl Telemetry {
    /// A command begins. What the flags do not say, the file does.
    pub fn new(command: &'static str, global: &Global, flags: &args::Telemetry) -> Telemetry {
        let began = Began::now();
        let mut state = State::default();
        // What is wrong with it, the command itself says.
        let config = configure(global).ok();
        let settings = config.as_ref().map(|config| &config.telemetry);
        let file = flags.metrics_file.clone();
        let file = file.or_else(|| settings.and_then(|it| it.metrics_file.clone()));
        let url = flags.push.as_deref();
        let url = url.or_else(|| Some(settings?.push.as_ref()?.expose()));
        let url = url.filter(|url| !url.trim().is_empty());
        let push = url.and_then(|url| match Address::parse(url) {
            Ok(address) => {
                let instance = config.as_ref().and_then(|config| config.env.as_deref());
                Some(push::group(&address, instance))
            }
            Err(why) => {
                let text = format!(
                    "the metrics of this run were not pushed, since the URL cannot be used: {why}"
                );
                state.warnings.push(text);
                None
            }
        });
        match settings::read(&config::variable) {
            Ok(None) => {}
            Ok(Some(settings)) => {
                let tracer = Tracer::new(command, settings.parent, began.at);
                match Exporter::start(settings, tracer.trace) {
                    Ok(exporter) => state.trace = Some((tracer, exporter)),
                    Err(error) => state.warnings.push(no_traces(&error.to_string())),
                }
            }
            Err(why) => state.warnings.push(no_traces(&why)),
        }
        Telemetry { command, began, file, push, state: RefCell::new(state) }
    }

    /// Who runs it is known now.
    pub fn run_is(&self, run: &Run) {
        let mut state = self.state.borrow_mut();
        state.run_id.clone_from(&run.id);
        state.release.clone_from(&run.release);
        if let Some((tracer, _)) = &mut state.trace {
            tracer.run_is(&run.id, run.release.as_deref());
        }
    }

    /// A reader of notices that tells us, too.
    pub fn beside(&self, reporter: Reporter) -> Beside<'_> {
        Beside { telemetry: self, reporter }
    }

    fn notice(&self, notice: &Notice) {
        let mut state = self.state.borrow_mut();
        let State { figures, trace, .. } = &mut *state;
        figures.notice(notice);
        if let Some((tracer, exporter)) = trace {
            tracer.notice(notice, self.began.nanos(), &mut |span| exporter.take(span));
        }
    }

    /// The command is over. All of it at once, so that nobody waits for one after the
    /// other.
    pub async fn end(&self, result: Result<Exit, &Failure>, output: &Output) {
        let State { run_id, release, figures, trace, mut warnings } = self.state.take();
        let (exit, failure) = match result {
            Ok(exit) => (exit, None),
            Err(failure) => (failure.exit, Some(failure)),
        };
        let text = text::render(&figures.families(&run::End {
            command: self.command,
            run_id: &run_id,
            release: release.as_deref().unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION"),
            success: failure.is_none(),
            code: exit.code(),
            took: self.began.instant.elapsed(),
            at: SystemClock.now(),
        }));
        if let Some(path) = &self.file
            && let Err(error) = file::write(path, &text)
        {
            warnings.push(format!(
                "the metrics of this run were not written to {}: {error}",
                path.display()
            ));
        }
        let pushed = async {
            let group = self.push.clone()?;
            let shown = group.to_string();
            let pushing = tokio::task::spawn_blocking(move || push::push(group, &text));
            // It has a limit of its own; a host that is looked for may take longer.
            let why = match tokio::time::timeout(push::LIMIT + GRACE, pushing).await {
                Ok(Ok(Ok(()))) => return None,
                Ok(Ok(Err(error))) => error.to_string(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it did not answer in time".to_owned(),
            };
            Some(format!("the metrics of this run were not pushed to {shown}: {why}"))
        };
        let traced = async {
            let (tracer, exporter) = trace?;
            let message = failure.map(|failure| redacted(&failure.message));
            let end = trace::End {
                outcome: exit.word(),
                code: exit.code(),
                error: failure.map(|it| it.code).zip(message.as_deref()),
                dropped: exporter.dropped(),
            };
            tracer.end(&end, self.began.nanos(), &mut |span| exporter.take(span));
            exporter.end().await.err()
        };
        let (pushed, traced) = futures_util::future::join(pushed, traced).await;
        warnings.extend(pushed);
        warnings.extend(traced);
        for warning in warnings {
            output.warning(&redacted(&warning));
        }
    }
}

/// Behind a limit that something has of its own.
const GRACE: Duration = Duration::from_millis(500);

fn no_traces(why: &str) -> String {
    format!("there are no traces of this run: {why}")
}

/// A reporter, and those who watch.
pub struct Beside<'a> {
    telemetry: &'a Telemetry,
    reporter: Reporter,
}

impl Notices for Beside<'_> {
    fn notice(&mut self, notice: Notice) {
        self.telemetry.notice(&notice);
        self.reporter.notice(notice);
    }

    fn wants_batches(&self) -> bool {
        self.telemetry.state.borrow().trace.is_some()
    }
}

impl Beside<'_> {
    /// Ends what moves.
    pub fn finish(&mut self) {
        self.reporter.finish();
    }
}
