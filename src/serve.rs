//! `migrate serve`: health, metrics, and where everything stands, over HTTP.
//!
//! [`watch`] asks the databases, all the time and at its own pace; [`view`] is what
//! that adds up to. Whoever asks over HTTP gets the last answer at once. What needs
//! more than a look goes to the [`desk`], one question after the other; what steers has
//! a desk of its own.
//!
//! Nothing here creates, changes or locks anything in a database, but for what
//! [`control`] is told to with the token.

pub mod api;
pub mod control;
pub mod desk;
pub mod events;
pub mod health;
pub mod http;
pub mod metrics;
pub mod view;
pub mod watch;

use crate::cli::config::Config;
use crate::cli::failure::Failure;
use crate::cli::project::this_run;
use crate::core::history::Timestamp;
use crate::core::id::StoreName;
use crate::core::migration::MigrationSet;
use crate::core::pace::Limits;
use crate::engine::{Clock as _, Stop, StopReason, SystemClock};
use control::Token;
use desk::Asked;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, mpsc, watch as channel};
use view::View;
use watch::{Looked, Pulse, Watched};

/// How it is served.
pub struct Settings {
    /// With this, running backfills can be steered.
    pub control: Option<Token>,
    /// Between two looks at each store.
    pub interval: Duration,
}

/// What is known now, for whoever asks.
pub struct Shared {
    /// Since when it is served.
    pub began: Instant,
    /// Between two looks at each store.
    pub interval: Duration,
    /// The stores of this project, with their signs of life.
    pub pulses: BTreeMap<StoreName, channel::Receiver<Option<Pulse>>>,
    /// And what was found in them.
    pub looks: BTreeMap<StoreName, channel::Receiver<Looked>>,
    /// Where everything stands; `None` until every store was looked at.
    pub view: channel::Receiver<Option<Arc<View>>>,
    /// The same as it is sent to who listens, anew whenever something changed.
    pub state: channel::Receiver<Arc<str>>,
    /// What needs more than a look.
    pub desk: mpsc::Sender<Asked>,
    /// What changes something: nobody who only asks is before it.
    pub steering: mpsc::Sender<Asked>,
    /// With this, running backfills can be steered.
    pub control: Option<Token>,
    /// So many may still listen to events.
    pub streams: Arc<Semaphore>,
    /// Whether it is served no longer.
    pub closing: channel::Receiver<bool>,
    /// Of the probes.
    pub limits: Limits,
    /// Only this machine can reach it.
    pub is_local: bool,
}

impl Shared {
    /// Where everything stands, if every store answers and could be looked at.
    ///
    /// # Errors
    /// Why one of them does not.
    pub fn now(&self) -> Result<Arc<View>, Failure> {
        for store in self.stores() {
            self.reachable(store)?;
            if let Some(failure) = self.looks[&store].borrow().failure.clone() {
                return Err(failure);
            }
        }
        self.view.borrow().clone().ok_or_else(not_yet)
    }

    /// The stores of this project, Postgres first.
    pub fn stores(&self) -> impl Iterator<Item = StoreName> {
        self.pulses.keys().copied()
    }

    /// How long a store took to answer.
    ///
    /// # Errors
    /// Why it cannot be reached.
    pub fn reachable(&self, store: StoreName) -> Result<Duration, Failure> {
        let pulse = self.pulses[&store].borrow().clone().ok_or_else(not_yet)?;
        // An answer that is too old is none, whyever no other came.
        let age = pulse.asked.elapsed();
        if pulse.answer.is_ok() && age > self.interval + 2 * watch::PULSE_TIME {
            return Err(watch::overdue(store, age));
        }
        pulse.answer
    }
}

fn not_yet() -> Failure {
    Failure::new(
        crate::cli::exit::Exit::Unreachable,
        "UNREACHABLE",
        "it was only just started: the databases have not answered yet",
    )
    .next("ask again in a moment")
}

/// Serves until it is told to stop; then what is under way has a moment to end. No
/// database that is away ends it: that is what it is there to tell of.
pub async fn serve(
    listener: TcpListener,
    config: &Config,
    set: &MigrationSet,
    settings: Settings,
    stop: &Stop,
) -> StopReason {
    let Settings { control, interval } = settings;
    let is_local = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
    let mut stores = Vec::new();
    stores.extend(config.postgres.as_ref().map(|_| StoreName::Postgres));
    stores.extend(config.mongo.as_ref().map(|_| StoreName::Mongo));
    let run = this_run("serve");
    let limits = config.throttle.pace().limits;
    let pokes: Vec<Arc<Notify>> = stores.iter().map(|_| Arc::new(Notify::new())).collect();
    let watched: Vec<Watched<'_>> = stores
        .iter()
        .map(|store| Watched { config, set, store: *store, run_id: &run.id, interval, limits })
        .collect();
    let (mut pulses, mut looks) = (BTreeMap::new(), BTreeMap::new());
    let mut watching = Vec::new();
    for (at, watched) in watched.iter().enumerate() {
        let (tell_pulse, pulse) = channel::channel(None);
        let (tell_look, look) = channel::channel(Looked::default());
        pulses.insert(watched.store, pulse);
        looks.insert(watched.store, look);
        // With one store alone, its other is itself, which does no harm.
        let other = if stores.len() == 2 { 1 - at } else { at };
        let pokes = [Arc::clone(&pokes[at]), Arc::clone(&pokes[other])];
        watching.push(async move {
            let pulse = Box::pin(watch::pulse(watched, tell_pulse));
            let look = Box::pin(watch::look(watched, tell_look, pokes));
            futures_util::future::join(pulse, look).await;
        });
    }
    let (tell_view, view) = channel::channel(None);
    let (tell_state, state) = channel::channel(Arc::from(""));
    let (desk, asked) = mpsc::channel(desk::WAITING_MAX);
    let (steering, steered) = mpsc::channel(desk::WAITING_MAX);
    let (close, closing) = channel::channel(false);
    let shared = Arc::new(Shared {
        began: Instant::now(),
        interval,
        pulses,
        looks,
        view,
        state,
        desk,
        steering,
        control,
        streams: Arc::new(Semaphore::new(events::STREAMS_MAX)),
        closing,
        limits,
        is_local,
    });
    // All of this on one task: what the stores give is not made to be sent about.
    let at_work = async {
        let adding_up = add_up(&shared, config, set, (tell_view, tell_state));
        let at_the_desk = Box::pin(desk::desk(config, set, &run, asked, &pokes));
        let at_the_wheel = Box::pin(desk::desk(config, set, &run, steered, &pokes));
        let watching = futures_util::future::join_all(watching);
        futures_util::future::join4(watching, adding_up, at_the_desk, at_the_wheel).await;
    };
    let mut http = tokio::spawn(http::listen(listener, Arc::clone(&shared)));
    let mut stop = stop.clone();
    let reason = tokio::select! {
        reason = stop.wait() => reason,
        () = at_work => StopReason::Terminated,
        _ = &mut http => StopReason::Terminated,
    };
    close.send_replace(true);
    if !http.is_finished() {
        let _ = tokio::time::timeout(http::CLOSING_TIME, http).await;
    }
    reason
}

/// Makes one view of all looks, whenever there is a new one, and tells who listens.
async fn add_up(
    shared: &Shared,
    config: &Config,
    set: &MigrationSet,
    (tell_view, tell_state): (channel::Sender<Option<Arc<View>>>, channel::Sender<Arc<str>>),
) {
    let mut looks: Vec<_> =
        shared.looks.iter().map(|(store, look)| (*store, look.clone())).collect();
    let mut pulses: Vec<_> = shared.pulses.values().cloned().collect();
    let mut said = serde_json::Value::Null;
    loop {
        let seen: Vec<_> = looks
            .iter_mut()
            .filter_map(|(store, look)| Some((*store, look.borrow_and_update().look.clone()?)))
            .collect();
        for pulse in &mut pulses {
            pulse.mark_unchanged();
        }
        let last = tell_view.borrow().clone();
        let is_new = last.as_ref().is_none_or(|last: &Arc<View>| {
            let same = |((_, a), (_, b)): (&(_, Arc<_>), &(_, Arc<_>))| Arc::ptr_eq(a, b);
            !last.looks.iter().zip(&seen).all(same)
        });
        if seen.len() == looks.len() && is_new {
            let view = View::of(config, set, seen).map(Arc::new);
            tell_view.send_replace(view);
        }
        let now = events::state(shared);
        let is_at_work =
            shared.view.borrow().as_ref().is_some_and(|it| !it.seen.running.is_empty());
        let gist = events::gist(&now);
        if gist != said || is_at_work {
            said = gist;
            tell_state.send_replace(events::message(now, SystemClock.now()));
        }
        let looked = looks.iter_mut().map(|(_, look)| Box::pin(changed(look)));
        let looked = futures_util::future::select_all(looked);
        let beaten = futures_util::future::select_all(
            pulses.iter_mut().map(|pulse| Box::pin(changed(pulse))),
        );
        tokio::select! {
            _ = looked => {}
            _ = beaten => {}
            // What is too old changes by itself.
            () = tokio::time::sleep(TICK) => {}
        }
    }
}

/// While nothing is heard of a store, it is looked this often whether that is too long.
/// While a backfill runs, who listens hears of it this often.
const TICK: Duration = Duration::from_secs(1);

async fn changed<T>(receiver: &mut channel::Receiver<T>) {
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Waits until it is served no longer.
async fn closed(closing: &mut channel::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

/// Now, for people.
fn now() -> Timestamp {
    SystemClock.now()
}
