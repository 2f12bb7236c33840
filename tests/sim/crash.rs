//! Every crash, at every effect of every run, up to a number of crashes in one
//! history.
//!
//! At each effect the generator chooses: it happens, the engine dies before it
//! or in the middle of it, it is lost, its reply is lost, or the server refuses
//! it. A person then types one of the commands that make sense, until one of
//! them reaches its end.
//!
//! Whatever a run did, the next one sees nothing but the two databases. So where
//! two histories have led to the same two databases, they go on as one, and their
//! number is multiplied instead of visiting each of them again.

use crate::choices::Choices;
use crate::mutants::Mutant;
use crate::scenario::{Ended, Ends, Scenario, Stage, Stage0, engine_alone};
use crate::store::{Faults, Line, Sim};
use crate::world::{self, What, World};
use lockstep::core::id::Version;
use lockstep::core::plan::{self, Down, Goal, Known, PlanError, Up};
use lockstep::engine::execute::{Cause, ExecuteError};
use lockstep::engine::run::{Report, RunError};
use lockstep::store::Fate;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::rc::Rc;

/// How much was visited.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// From the first command to the last.
    pub histories: u64,
    /// In all of them.
    pub effects: u64,
}

/// What was found to be wrong, and how it came to it.
#[derive(Debug)]
pub struct Bad {
    pub why: String,
    pub lines: Vec<Line>,
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.why)?;
        self.lines.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// Visits the histories of a scenario.
pub struct Explorer<'a> {
    scenario: &'a Scenario,
    pub mutant: Option<Mutant>,
    pub faults: Faults,
    /// Whether histories that have led to the same go on as one.
    pub merging: bool,
    undisturbed: World,
    tokio: Stage0,
    known: HashMap<(u64, usize, usize), Tally>,
    /// Runs of the engine that were really made.
    pub runs: u64,
    /// Effects that were really simulated.
    pub effects: u64,
}

impl<'a> Explorer<'a> {
    pub fn new(scenario: &'a Scenario) -> Explorer<'a> {
        let mut explorer = Explorer {
            scenario,
            mutant: None,
            faults: Faults::All,
            merging: true,
            undisturbed: World::default(),
            tokio: Stage0::new(),
            known: HashMap::new(),
            runs: 0,
            effects: 0,
        };
        explorer.undisturbed = explorer.undisturbed();
        explorer
    }

    /// The world after the commands, when nothing goes wrong.
    fn undisturbed(&self) -> World {
        let _tokio = self.tokio.enter();
        let mut world = self.scenario.start();
        let mut stage = Some(0);
        while let Some(at) = stage {
            let sim = Rc::new(Sim::new(world, self.scenario.book.clone(), Choices::default()));
            engine_alone(&sim, self.scenario, &self.scenario.stages[at], "first");
            world = Rc::into_inner(sim).expect("the run is over").world.into_inner();
            stage = self.scenario.stages[at].then;
        }
        world
    }

    /// Visits every history with at most so many crashes.
    pub fn explore(&mut self, crashes: usize) -> Result<Tally, Bad> {
        let start = self.scenario.start();
        let tally = self.from(&start, 0, crashes, 1).map_err(|mut bad| {
            bad.lines.reverse();
            bad
        });
        self.tokio.sweep();
        tally
    }

    /// Every history that goes on from here.
    fn from(
        &mut self,
        world: &World,
        stage: usize,
        crashes: usize,
        run: usize,
    ) -> Result<Tally, Bad> {
        let place = (world.number(What::Lasting), stage, crashes);
        if self.merging
            && let Some(tally) = self.known.get(&place)
        {
            return Ok(*tally);
        }
        every_goal_has_a_plan(world, self.scenario, &self.scenario.stages[stage])
            .map_err(|why| Bad { why, lines: Vec::new() })?;
        let mut tally = Tally::default();
        let mut choices = Choices::default();
        while choices.next_history() {
            let mut sim = Sim::new(world.clone(), self.scenario.book.clone(), choices);
            sim.faults_left.set(crashes);
            sim.faults = self.faults;
            sim.mutant = self.mutant;
            let sim = Rc::new(sim);
            let ended = {
                let _tokio = self.tokio.enter();
                let name = format!("run {run}");
                engine_alone(&sim, self.scenario, &self.scenario.stages[stage], &name)
            };
            let Some(sim) = Rc::into_inner(sim) else { unreachable!("the run is over") };
            self.runs += 1;
            self.effects += sim.effects.get();
            if self.runs.is_multiple_of(1000) {
                self.tokio.sweep();
            }
            let lines = |sim: &Sim| sim.trace.borrow_mut().drain(..).rev().collect();
            let next = match self.judge(&sim, &ended, stage, crashes) {
                Ok(next) => next,
                Err(why) => return Err(Bad { why, lines: lines(&sim) }),
            };
            let effects = sim.effects.get();
            let mut world = sim.world.borrow().clone();
            // Nobody renews the leases of the dead.
            world.postgres.expire();
            world.mongo.expire();
            for stage in &next {
                let after = self.from(&world, *stage, sim.faults_left.get(), run + 1);
                let after = after.map_err(|mut bad| {
                    bad.lines.extend::<Vec<Line>>(lines(&sim));
                    bad
                })?;
                tally.histories += after.histories;
                tally.effects += after.effects + effects * after.histories;
            }
            if next.is_empty() {
                tally.histories += 1;
                tally.effects += effects;
            }
            choices = sim.choices.into_inner();
        }
        self.known.insert(place, tally);
        Ok(tally)
    }

    /// Whether a run ended as it must, and what may be typed next.
    fn judge(
        &self,
        sim: &Sim,
        ended: &Ended,
        stage: usize,
        crashes: usize,
    ) -> Result<Vec<usize>, String> {
        if let Some(why) = sim.violation.borrow().clone() {
            return Err(why);
        }
        let stage = &self.scenario.stages[stage];
        let faults = crashes - sim.faults_left.get();
        let world = sim.world.borrow();
        let returned = match ended {
            Ended::Died => return Ok(stage.after_crash.clone()),
            Ended::Waits => return Err("an engine waits for nobody".to_owned()),
            Ended::Returned(returned) => returned,
        };
        if sim.engines.borrow()[0].lease_faults == 0 {
            world::no_lease_is_left(&world)?;
        }
        if let (Some(restored), Err(RunError::Plan(PlanError::EditedInDoubt { .. }))) =
            (stage.before_edit, returned)
        {
            return match sim.written.get() {
                0 => Ok(vec![restored]),
                _ => Err("an edit was refused, and something was written".to_owned()),
            };
        }
        nobody_is_asked(returned)?;
        if let Some(version) = rolled_back(returned) {
            world::nothing_is_left_of_what_was_rolled_back(&world, version)?;
        }
        let as_planned = match (stage.ends, returned) {
            (Ends::Well, Ok(_)) => true,
            (Ends::Refused, Err(RunError::Execute(error))) => faults == 0 && is_refused(error),
            (Ends::RolledBack, Err(_)) => faults == 0 && rolled_back(returned).is_some(),
            (Ends::Refused | Ends::RolledBack, Ok(_)) => {
                return Err("nonsense was applied".to_owned());
            }
            (Ends::Refused, Err(_)) => false,
            (Ends::Well, Err(_)) => false,
        };
        if !as_planned {
            return match faults {
                0 => Err(format!("failed without a cause: {returned:?}")),
                _ => Ok(stage.after_crash.clone()),
            };
        }
        match stage.then {
            Some(then) => Ok(vec![then]),
            None => {
                // A lease whose release was lost runs out.
                let mut world = world.clone();
                if sim.engines.borrow()[0].lease_faults > 0 {
                    world.postgres.expire();
                    world.mongo.expire();
                }
                world::check_at_rest(&world, &self.undisturbed)?;
                Ok(Vec::new())
            }
        }
    }

    /// Worlds that were told apart.
    pub fn worlds(&self) -> usize {
        self.known.len()
    }
}

/// Whatever died, no command ends with a question to a person.
pub fn nobody_is_asked<T>(returned: &Result<T, RunError>) -> Result<(), String> {
    let asks = |error: &ExecuteError| match &error.cause {
        Cause::Obstacle(obstacle) => Err(format!("in the way: {obstacle}")),
        Cause::Ask => Err("only a person can say whether it happened".to_owned()),
        Cause::Store(_) | Cause::Stopped(_) => Ok(()),
        Cause::Broken(_) | Cause::Program(_) | Cause::Hook(_) | Cause::Backup { .. } => {
            unreachable!("no scenario has them")
        }
    };
    match returned {
        Err(RunError::Plan(error)) => Err(format!("there is no plan: {error}")),
        Err(RunError::Pair(error)) => Err(format!("the pair is none: {error}")),
        Err(RunError::Execute(error)) => asks(error),
        Err(RunError::RolledBack(error)) => {
            asks(&error.failed).and_then(|()| nobody_is_asked(&error.back))
        }
        Err(RunError::Hook(_)) => unreachable!("no scenario has hooks"),
        Ok(_) | Err(RunError::Store(_) | RunError::Lock(_) | RunError::Changed) => Ok(()),
    }
}

fn is_refused(error: &ExecuteError) -> bool {
    matches!(&error.cause, Cause::Store(error) if error.fate == Fate::Refused)
}

/// What failed and was rolled back.
fn rolled_back(returned: &Result<Report, RunError>) -> Option<Version> {
    match returned {
        Err(RunError::RolledBack(error)) if is_refused(&error.failed) && error.back.is_ok() => {
            error.failed.at.as_ref().map(|at| at.version)
        }
        _ => None,
    }
}

/// Wherever a run died, there is a way up and a way down.
fn every_goal_has_a_plan(world: &World, scenario: &Scenario, stage: &Stage) -> Result<(), String> {
    let histories = world.histories();
    let rollbacks: BTreeMap<_, _> = [&world.postgres, &world.mongo]
        .into_iter()
        .flat_map(|side| side.rows.iter())
        .map(|(version, (_, rollback))| (*version, (**rollback).clone()))
        .collect();
    let known = Known {
        set: &scenario.sets[stage.set],
        histories: &histories,
        rollbacks: &rollbacks,
        servers: &scenario.servers,
    };
    for goal in [Goal::Up(Up::default()), Goal::Down(Down::To(Version(0)))] {
        match plan::plan(&known, &goal) {
            Ok(_) => {}
            Err(PlanError::EditedInDoubt { .. }) if stage.before_edit.is_some() => {}
            Err(error) => return Err(format!("no plan for {goal:?}: {error}")),
        }
    }
    Ok(())
}

/// Visits, and says how much.
pub fn visit(scenario: &Scenario, crashes: usize, faults: Faults) -> Tally {
    let mut explorer = Explorer::new(scenario);
    explorer.faults = faults;
    let tally = explorer.explore(crashes).unwrap_or_else(|bad| panic!("{}: {bad}", scenario.name));
    println!(
        "{}, up to {crashes} crashes: {} histories of {} effects; told apart: {} worlds, {} runs, {} effects",
        scenario.name,
        tally.histories,
        tally.effects,
        explorer.worlds(),
        explorer.runs,
        explorer.effects,
    );
    tally
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{migration, no_index, posts, servers, users};
    use lockstep::core::id::StoreName;
    use lockstep::core::server::Topology;

    #[test]
    fn one_store_alone_survives_every_crash() {
        let sql = "CREATE TABLE things (n int);\nCREATE INDEX CONCURRENTLY things_n ON things (n);\nINSERT INTO things VALUES (1);";
        let things = migration(
            "001-things",
            &[("up.sql", sql), ("down.sql", "DROP TABLE IF EXISTS things;")],
        );
        let alone = servers(&[StoreName::Postgres], Topology::ReplicaSet);
        let scenario = Scenario::only_up("up in Postgres alone", &[things]).on(alone);
        visit(&scenario, 3, Faults::All);
    }

    #[test]
    fn up_survives_every_crash() {
        let scenario = Scenario::only_up("up", &[users(), posts(), no_index()]);
        for crashes in 0..=2 {
            visit(&scenario, crashes, Faults::All);
        }
    }
}
