//! Two engines at once: every order in which their effects can happen, up to a
//! number of times that one of them is stopped in the middle and the other goes on.
//! While it is stopped its leases may run out, one of them or both, as those of a
//! process do that stands still for too long and then goes on as if nothing had
//! happened.
//!
//! What an engine does next depends on the answers that it got, and on nothing
//! else. So where two orders have led to the same two databases, and both engines
//! have got the same answers, they go on as one.

use crate::choices::Choices;
use crate::crash::Bad;
use crate::mutants::Mutant;
use crate::scenario::{
    Ended, Scenario, Stage, Stage0, down_to, engine, engine_alone, migration, servers, set, stage,
    up,
};
use crate::store::{Faults, Sim, Turn};
use crate::world::{self, What, World};
use lockstep::core::id::StoreName;
use lockstep::core::migration::Migration;
use lockstep::core::server::Topology;
use lockstep::engine::execute::{Cause, ExecuteError};
use lockstep::engine::lock::LockError;
use lockstep::engine::run::{Report, RunError};
use lockstep::store::Fate;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Their names, as runs.
const NAMES: [&str; 2] = ["one", "two"];

/// Visits the orders of two commands.
pub struct Race<'a> {
    scenario: &'a Scenario,
    /// The world in which they begin.
    before: World,
    /// The two commands, and the one that is typed after both.
    stages: [&'a Stage; 3],
    pub mutant: Option<Mutant>,
    /// So many engines may die.
    pub crashes: usize,
    /// So often is one of them stopped that could go on.
    pub stops: usize,
    undisturbed: World,
    tokio: Stage0,
    seen: HashSet<u64>,
    ends: HashSet<u64>,
    /// Orders that were told, up to where they met another one.
    pub orders: u64,
    pub effects: u64,
}

type Running<'r> = Pin<Box<dyn Future<Output = Result<Report, RunError>> + 'r>>;

/// What may happen next: the next effect of this engine, after the leases in these
/// stores have run out.
#[derive(Clone, Debug)]
struct Move {
    engine: usize,
    run_out: Vec<StoreName>,
}

/// Who is at work, and what is still allowed.
#[derive(Clone, Debug, Hash)]
struct Bounds {
    /// Nobody before the first effect.
    at_work: Option<usize>,
    stops_left: usize,
    /// Each once.
    may_run_out: Vec<StoreName>,
}

impl<'a> Race<'a> {
    /// `first` is typed before the race, if there is one.
    pub fn new(scenario: &'a Scenario, first: Option<usize>, stages: [usize; 3]) -> Race<'a> {
        let tokio = Stage0::new();
        let stages = stages.map(|at| &scenario.stages[at]);
        let (before, undisturbed) = {
            let _tokio = tokio.enter();
            let alone = |world: World, stage: &Stage| {
                let sim = Rc::new(Sim::new(world, scenario.book.clone(), Choices::default()));
                let _ = engine_alone(&sim, scenario, stage, "before");
                Rc::into_inner(sim).expect("the run is over").world.into_inner()
            };
            let start = scenario.start();
            let before = first.map_or(start.clone(), |at| alone(start, &scenario.stages[at]));
            (before.clone(), alone(before, stages[2]))
        };
        Race {
            scenario,
            before,
            stages,
            mutant: None,
            crashes: 0,
            stops: 2,
            undisturbed,
            tokio,
            seen: HashSet::new(),
            ends: HashSet::new(),
            orders: 0,
            effects: 0,
        }
    }

    pub fn explore(&mut self) -> Result<(), Bad> {
        let mut choices = Choices::default();
        while choices.next_history() {
            let mut sim = Sim::new(self.before.clone(), self.scenario.book.clone(), choices);
            sim.mutant = self.mutant;
            sim.faults = Faults::Deaths;
            sim.faults_left.set(self.crashes);
            sim.turn.set(Turn::Nobody);
            let sim = Rc::new(sim);
            let told = self.tell(&sim);
            let Some(sim) = Rc::into_inner(sim) else { unreachable!("both runs are over") };
            self.orders += 1;
            self.effects += sim.effects.get();
            if self.orders.is_multiple_of(1000) {
                self.tokio.sweep();
            }
            told.map_err(|why| Bad { why, lines: sim.trace.borrow_mut().drain(..).collect() })?;
            choices = sim.choices.into_inner();
        }
        self.tokio.sweep();
        Ok(())
    }

    /// One order, to its end or to where another one has been.
    fn tell(&mut self, sim: &Rc<Sim>) -> Result<(), String> {
        let mut running: Vec<Option<Running<'_>>> = Vec::new();
        for (name, stage) in NAMES.into_iter().zip(self.stages) {
            let run = engine(sim, self.scenario, stage, name, Duration::ZERO);
            let mut run: Running<'_> = Box::pin(run);
            // As far as its first effect.
            let _ = self.poll(&mut run);
            running.push(Some(run));
        }
        let mut returned = [const { None }; 2];
        let mut bounds =
            Bounds { at_work: None, stops_left: self.stops, may_run_out: StoreName::BOTH.to_vec() };
        loop {
            let moves = moves(sim, &running, &bounds);
            if moves.is_empty() {
                break;
            }
            let is_new = sim.choices.borrow().is_new();
            if is_new && !self.seen.insert(place(sim, &running, &bounds)) {
                return Ok(());
            }
            let chosen = match moves.len() {
                1 => 0,
                several => sim.choices.borrow_mut().pick(several),
            };
            let Move { engine: at, run_out } = &moves[chosen];
            for store in run_out {
                sim.world.borrow_mut().side_mut(*store).expire();
                bounds.may_run_out.retain(|other| other != store);
            }
            let stopped = bounds.at_work.replace(*at).filter(|before| before != at);
            if stopped.is_some_and(|before| can_go_on(sim, &running, before)) {
                bounds.stops_left -= 1;
            }
            let run = running[*at].as_mut().expect("it is among the moves");
            if let Some(result) = self.step(sim, *at, run)? {
                running[*at] = None;
                returned[*at] = Some(result);
            }
            if let Some(why) = sim.violation.borrow().clone() {
                return Err(why);
            }
        }
        let nothing_ran_out = bounds.may_run_out.len() == StoreName::BOTH.len();
        drop(running);
        for (name, result) in NAMES.into_iter().zip(&returned) {
            let result = result.as_ref();
            result
                .map_or(Ok(()), nobody_is_told_what_is_not_so)
                .map_err(|why| format!("{name}: {why}"))?;
        }
        if nothing_ran_out && self.crashes == 0 {
            nobody_loses_a_lease_that_has_not_run_out(&returned)?;
            somebody_came_to_the_end(&returned)?;
            world::no_lease_is_left(&sim.world.borrow())?;
        }
        self.goes_on(sim)
    }

    fn poll(&self, run: &mut Running<'_>) -> Poll<Result<Report, RunError>> {
        let _tokio = self.tokio.enter();
        run.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    /// One effect of an engine, and what follows from it up to the next one.
    fn step(
        &self,
        sim: &Rc<Sim>,
        at: usize,
        run: &mut Running<'_>,
    ) -> Result<Option<Result<Report, RunError>>, String> {
        sim.turn.set(Turn::Of(at));
        // More often than an engine sleeps between two effects.
        for _ in 0..8 {
            if let Poll::Ready(result) = self.poll(run) {
                sim.turn.set(Turn::Nobody);
                return Ok(Some(result));
            }
            if sim.turn.get() == Turn::Nobody {
                return Ok(None);
            }
            self.tokio.pass_a_moment();
        }
        Err(format!("{} waits for nothing", NAMES[at]))
    }

    /// Whatever came of it, whoever comes next goes on from there.
    fn goes_on(&mut self, sim: &Rc<Sim>) -> Result<(), String> {
        let mut world = sim.world.borrow().clone();
        world.postgres.expire();
        world.mongo.expire();
        if !self.ends.insert(world.number(What::Lasting)) {
            return Ok(());
        }
        let next = Rc::new(Sim::new(world, self.scenario.book.clone(), Choices::default()));
        let ended = {
            let _tokio = self.tokio.enter();
            engine_alone(&next, self.scenario, self.stages[2], "next")
        };
        self.effects += next.effects.get();
        match ended {
            Ended::Returned(Ok(_)) => {}
            Ended::Returned(Err(error)) => return Err(format!("the next run failed: {error:?}")),
            Ended::Died | Ended::Waits => {
                let histories = next.world.borrow().histories();
                return Err(format!("the next run waits for nobody: {histories:?}"));
            }
        }
        if let Some(why) = next.violation.borrow().clone() {
            return Err(format!("in the next run: {why}"));
        }
        world::check_at_rest(&next.world.borrow(), &self.undisturbed)
    }
}

fn can_go_on(sim: &Sim, running: &[Option<Running<'_>>], engine: usize) -> bool {
    running[engine].is_some() && !sim.engines.borrow()[engine].died
}

/// What may happen next. That a lease has run out is seen by the other engine
/// only, so it matters only when that comes to work.
fn moves(sim: &Sim, running: &[Option<Running<'_>>], bounds: &Bounds) -> Vec<Move> {
    let world = sim.world.borrow();
    let lasts = |store: &StoreName| {
        world.side(*store).control.lease.as_ref().is_some_and(|lease| !lease.has_run_out)
    };
    let lasting: Vec<StoreName> = bounds.may_run_out.iter().copied().filter(lasts).collect();
    let at_work = bounds.at_work.filter(|at| can_go_on(sim, running, *at));
    let mut moves = Vec::new();
    for engine in (0..running.len()).filter(|engine| can_go_on(sim, running, *engine)) {
        moves.push(Move { engine, run_out: Vec::new() });
        if at_work == Some(engine) {
            continue;
        }
        moves.extend(lasting.iter().map(|store| Move { engine, run_out: vec![*store] }));
        if lasting.len() > 1 {
            moves.push(Move { engine, run_out: lasting.clone() });
        }
    }
    if bounds.stops_left == 0 && at_work.is_some() {
        moves.retain(|next| at_work == Some(next.engine));
    }
    moves
}

/// All that the rest depends on, in one number.
fn place(sim: &Sim, running: &[Option<Running<'_>>], bounds: &Bounds) -> u64 {
    let mut hasher = DefaultHasher::new();
    sim.world.borrow().number(What::Everything).hash(&mut hasher);
    (sim.faults_left.get(), bounds).hash(&mut hasher);
    for (engine, run) in sim.engines.borrow().iter().zip(running) {
        (run.is_some(), engine.died, engine.answers.finish()).hash(&mut hasher);
    }
    hasher.finish()
}

/// A run beside another one may be told that it came too late, and nothing else.
fn nobody_is_told_what_is_not_so(returned: &Result<Report, RunError>) -> Result<(), String> {
    let came_too_late = |error: &ExecuteError| match &error.cause {
        Cause::Store(error) => error.fate == Fate::Fenced,
        Cause::Obstacle(_) | Cause::Ask | Cause::Stopped(_) => false,
        Cause::Broken(_) | Cause::Program(_) | Cause::Hook(_) | Cause::Backup { .. } => {
            unreachable!("no scenario has them")
        }
    };
    match returned {
        Ok(_) | Err(RunError::Lock(LockError::Held { .. } | LockError::Lost { .. })) => Ok(()),
        Err(RunError::Store(error)) if error.fate == Fate::Fenced => Ok(()),
        Err(RunError::Execute(error)) if came_too_late(error) => Ok(()),
        Err(error) => Err(format!("it was told {error:?}")),
    }
}

fn nobody_loses_a_lease_that_has_not_run_out(
    returned: &[Option<Result<Report, RunError>>; 2],
) -> Result<(), String> {
    let keeps = |result: &Result<Report, RunError>| {
        matches!(result, Ok(_) | Err(RunError::Lock(LockError::Held { .. })))
    };
    match returned.iter().flatten().find(|result| !keeps(result)) {
        None => Ok(()),
        Some(result) => Err(format!("no lease ran out, and yet {result:?}")),
    }
}

/// While no lease runs out, at least one of the two does what it was asked to.
fn somebody_came_to_the_end(
    returned: &[Option<Result<Report, RunError>>; 2],
) -> Result<(), String> {
    match returned.iter().flatten().any(Result::is_ok) {
        true => Ok(()),
        false => Err(format!("nobody came to the end: {returned:?}")),
    }
}

/// Two ups of one project.
pub fn two_ups() -> Scenario {
    commands("two ups")
}

/// An up that has one more migration, and a down of what was there before.
pub fn up_and_down() -> Scenario {
    commands("an up and a down")
}

/// The same in MongoDB alone, whose lease is not taken in one transaction.
pub fn two_ups_in_mongodb() -> Scenario {
    let things = migration(
        "001-things",
        &[
            ("up.mongodb.js", "db.createCollection(\"things\");\ndb.things.insertOne({ n: 1 });"),
            ("down.mongodb.js", "db.things.drop();"),
        ],
    );
    let alone = servers(&[StoreName::Mongo], Topology::ReplicaSet);
    Scenario::only_up("two ups in MongoDB alone", &[things]).on(alone)
}

/// A transaction and what no transaction holds, in both stores.
fn things() -> Migration {
    migration(
        "001-things",
        &[
            (
                "up.sql",
                "CREATE TABLE things (n int);\nCREATE INDEX CONCURRENTLY things_n ON things (n);",
            ),
            ("up.mongodb.js", "db.createCollection(\"things\");\ndb.things.insertOne({ n: 1 });"),
            ("down.sql", "DROP TABLE IF EXISTS things;"),
            ("down.mongodb.js", "db.things.drop();"),
        ],
    )
}

fn commands(name: &'static str) -> Scenario {
    let more = migration(
        "002-more",
        &[
            ("up.sql", "INSERT INTO things VALUES (2);"),
            ("down.sql", "DELETE FROM things WHERE n = 2;"),
        ],
    );
    let stages = vec![
        stage(up(), 0, None),
        stage(down_to(0), 1, None),
        Stage { set: 1, ..stage(up(), 2, None) },
    ];
    Scenario::new(name, vec![set(&[things()]), set(&[things(), more])], stages)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(scenario: &Scenario, mut race: Race<'_>) {
        race.explore().unwrap_or_else(|bad| panic!("{}: {bad}", scenario.name));
        println!(
            "{}, {} crashes: {} orders of {} effects, {} ends",
            scenario.name,
            race.crashes,
            race.orders,
            race.effects,
            race.ends.len()
        );
    }

    #[test]
    fn two_ups_at_once() {
        let scenario = two_ups();
        visit(&scenario, Race::new(&scenario, None, [0, 0, 0]));
    }

    #[test]
    fn two_ups_at_once_in_one_store() {
        let scenario = two_ups_in_mongodb();
        visit(&scenario, Race { stops: 3, ..Race::new(&scenario, None, [0, 0, 0]) });
    }

    #[test]
    fn an_up_and_a_down_at_once() {
        let scenario = up_and_down();
        visit(&scenario, Race::new(&scenario, Some(0), [2, 1, 2]));
    }

    #[test]
    fn one_of_two_dies() {
        let scenario = two_ups();
        let race = Race::new(&scenario, None, [0, 0, 0]);
        visit(&scenario, Race { stops: 1, crashes: 1, ..race });
    }
}
