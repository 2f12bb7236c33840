//! Two databases, and what must be true of them after every effect.

use crate::deed::{Deed, Extent, Schema};
use lockstep::core::checksum::Checksum;
use lockstep::core::history::{
    Event, Histories, History, Record, Row, RowStatus, Snapshot, Status, StepState,
};
use lockstep::core::id::{Direction, StepId, StepName, StoreName, Version};
use lockstep::core::migration::{MigrationSet, Rollback};
use lockstep::core::parse::folder;
use lockstep::core::step::{Commit, Step};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

/// Both databases.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub postgres: Side,
    pub mongo: Side,
}

/// One database.
#[derive(Clone, Debug, Default)]
pub struct Side {
    /// `migration_control`.
    pub control: Control,
    /// `migration_runs`.
    pub runs: BTreeMap<String, RunRow>,
    /// `migration_steps`, by its key.
    pub records: BTreeMap<(StepId, u32, Event), Record>,
    /// `migration_history`.
    pub rows: BTreeMap<Version, (Row, Rc<Rollback>)>,
    /// Everything else.
    pub schema: Schema,
    /// How often a transaction with this step in it took effect.
    pub took_effect: BTreeMap<(StepId, Checksum), u32>,
    /// The fence and the run of each write to the history, in order.
    pub writes: Vec<(i64, String)>,
    /// The runs that wrote to the history when it said that they were over.
    pub writes_of_the_dead: Vec<String>,
}

#[derive(Clone, Debug, Default)]
pub struct Control {
    pub pair: Option<String>,
    pub fence: i64,
    pub lease: Option<Lease>,
}

#[derive(Clone, Debug)]
pub struct Lease {
    pub run: String,
    pub has_run_out: bool,
}

#[derive(Clone, Debug)]
pub struct RunRow {
    pub fence: i64,
    pub is_running: bool,
}

impl Side {
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            records: self.records.values().cloned().collect(),
            rows: self.rows.values().map(|(row, _)| row.clone()).collect(),
            pair: self.control.pair.clone(),
            lease: None,
            unreadable: Vec::new(),
        }
    }

    /// The lease of whoever is dead runs out.
    pub fn expire(&mut self) {
        if let Some(lease) = &mut self.control.lease {
            lease.has_run_out = true;
        }
    }

    fn hash(&self, with: What, into: &mut DefaultHasher) {
        self.control.pair.is_some().hash(into);
        for ((step, attempt, event), record) in &self.records {
            (step, attempt, event, record.rank).hash(into);
            (record.checksum, record.migration_checksum).hash(into);
        }
        for (row, _) in self.rows.values() {
            (row.version, row.rank, row.checksum, row.status as u8).hash(into);
            (&row.migration_name, row.finished_at.is_some()).hash(into);
        }
        self.schema.hash(into);
        match with {
            What::Lasting => self.control.lease.is_some().hash(into),
            What::Everything => {
                self.control.fence.hash(into);
                let lease = self.control.lease.as_ref();
                lease.map(|lease| (&lease.run, lease.has_run_out)).hash(into);
                for (id, run) in &self.runs {
                    (id, run.fence, run.is_running).hash(into);
                }
            }
        }
    }
}

/// What two worlds are compared by.
#[derive(Clone, Copy, Debug)]
pub enum What {
    /// What outlives every run: names of runs and fences only grow, and nothing
    /// that a new run does depends on them.
    Lasting,
    /// Runs are still at work.
    Everything,
}

impl World {
    pub fn side(&self, store: StoreName) -> &Side {
        match store {
            StoreName::Postgres => &self.postgres,
            StoreName::Mongo => &self.mongo,
        }
    }

    pub fn side_mut(&mut self, store: StoreName) -> &mut Side {
        match store {
            StoreName::Postgres => &mut self.postgres,
            StoreName::Mongo => &mut self.mongo,
        }
    }

    pub fn sides(&self) -> [(StoreName, &Side); 2] {
        StoreName::BOTH.map(|store| (store, self.side(store)))
    }

    pub fn histories(&self) -> Histories {
        Histories {
            postgres: History::replay(self.postgres.snapshot()),
            mongo: History::replay(self.mongo.snapshot()),
        }
    }

    /// Worlds of the same number have the same future: 64 bits for some hundred
    /// thousand worlds.
    pub fn number(&self, with: What) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.postgres.hash(with, &mut hasher);
        self.mongo.hash(with, &mut hasher);
        hasher.finish()
    }
}

/// All that is known about the migrations of a scenario: every step that any of
/// its files has or had, up and down.
#[derive(Debug)]
pub struct Book {
    steps: BTreeMap<(StepId, Checksum), Known>,
    /// The steps of a folder, by its checksum.
    folders: BTreeMap<Checksum, Vec<StepId>>,
    /// What was there before the first migration.
    pub start: World,
    /// Somebody deleted rows of `migration_history`.
    pub rows_were_lost: bool,
}

#[derive(Debug)]
struct Known {
    /// The order within its migration: up, then down.
    position: (Direction, usize),
    commit: Commit,
    deeds: Vec<Deed>,
}

impl Book {
    pub fn of(sets: &[MigrationSet]) -> Book {
        let mut book = Book {
            steps: BTreeMap::new(),
            folders: BTreeMap::new(),
            start: World::default(),
            rows_were_lost: false,
        };
        for migration in sets.iter().flatten() {
            let version = migration.version;
            let id = |step: &Step| StepId { version, name: step.name.clone() };
            let down = folder::down_steps(version, &migration.folder, &migration.rollback)
                .expect("a down script that can be read");
            book.folders.insert(migration.checksum, migration.steps.iter().map(id).collect());
            for (at, step) in migration.steps.iter().chain(&down).enumerate() {
                let position = (step.direction(), at);
                let known = Known { position, commit: step.commit, deeds: Deed::of(&step.body) };
                book.steps.insert((id(step), step.checksum), known);
            }
        }
        book
    }

    /// What a store would say if a row meant that all was done.
    pub fn all_applied(&self, row: &Row, store: StoreName) -> Vec<Record> {
        let steps = self.folders.get(&row.checksum).into_iter().flatten();
        let here = steps.filter(
            |step| matches!(step.name, StepName::Script { store: place, .. } if place == store),
        );
        let applied = here.filter_map(|step| {
            let (_, checksum) = self.steps.keys().find(|(known, _)| known == step)?;
            Some(Record {
                step: step.clone(),
                attempt: 1,
                event: Event::Applied,
                rank: row.rank,
                checksum: *checksum,
                migration_checksum: row.checksum,
            })
        });
        applied.collect()
    }

    fn known(&self, step: &StepId, checksum: Checksum) -> Option<&Known> {
        self.steps.get(&(step.clone(), checksum))
    }
}

/// One migration in one store, as its records have it.
struct Part<'a> {
    version: Version,
    rank: u32,
    up: Vec<(&'a StepName, &'a StepState)>,
    down: Vec<(&'a StepName, &'a StepState)>,
}

/// Those of each store.
type Parts<'a> = [(StoreName, Vec<Part<'a>>); 2];

fn is_live(state: &StepState) -> bool {
    state.status() != Status::Pending
}

/// The migrations with live steps in a store, in the order of application.
fn parts<'a>(histories: &'a Histories, store: StoreName, book: &Book) -> Vec<Part<'a>> {
    let history = histories.of(store);
    let mut parts = Vec::new();
    for version in history.versions() {
        let of = |direction| {
            let mut steps: Vec<_> = history
                .steps_of(version)
                .filter(|(name, state)| {
                    matches!(name, StepName::Script { .. })
                        && name.direction() == direction
                        && is_live(state)
                })
                .collect();
            steps.sort_by_key(|(name, state)| {
                let id = StepId { version, name: (*name).clone() };
                book.known(&id, state.checksum).map(|known| known.position)
            });
            steps
        };
        let up = of(Direction::Up);
        let Some(rank) = up.iter().map(|(_, state)| state.rank).max() else { continue };
        // Down steps of an older attempt reverted something that is gone.
        let newest = histories
            .steps_of(version)
            .filter(|(_, name, state)| name.direction() == Direction::Up && is_live(state))
            .map(|(_, _, state)| state.attempt)
            .max();
        let mut down = of(Direction::Down);
        down.retain(|(_, state)| Some(state.attempt) >= newest);
        parts.push(Part { version, rank, up, down });
    }
    parts.sort_by_key(|part| (part.rank, part.version));
    parts
}

/// Everything that must be true after every effect of every run.
pub fn check(world: &World, book: &Book) -> Result<(), String> {
    let histories = world.histories();
    let parts = StoreName::BOTH.map(|store| (store, parts(&histories, store, book)));
    a_transaction_took_effect_once_for_each_record_of_it(world)?;
    each_store_is_what_its_records_say(world, &parts, book)?;
    nothing_is_recorded_before_an_earlier_step_is_done(&histories, &parts, book)?;
    what_no_transaction_holds_is_announced_first(world, book)?;
    each_attempt_is_of_one_text(world)?;
    a_live_migration_has_its_row(world, &parts, book)?;
    a_seal_comes_last(world, &histories, book)?;
    no_two_runs_write_under_one_fence(world)?;
    no_fence_comes_after_a_newer_one(world)?;
    nobody_writes_after_it_was_declared_dead(world)
}

fn a_transaction_took_effect_once_for_each_record_of_it(world: &World) -> Result<(), String> {
    for (store, side) in world.sides() {
        for ((step, checksum), times) in &side.took_effect {
            let applied = side.records.values().filter(|record| {
                record.step == *step
                    && record.checksum == *checksum
                    && record.event == Event::Applied
            });
            let applied = applied.count();
            if applied != *times as usize {
                return Err(format!(
                    "{step} took effect {times} times in {store}, and is recorded {applied} times"
                ));
            }
        }
    }
    Ok(())
}

/// Done on what was there, the applied steps make what is there now. Only a step
/// in doubt may have happened, or not, or half.
fn each_store_is_what_its_records_say(
    world: &World,
    parts: &Parts<'_>,
    book: &Book,
) -> Result<(), String> {
    for (store, parts) in parts {
        let store = *store;
        let mut possible = vec![book.start.side(store).schema.clone()];
        for part in parts {
            for (name, state) in part.up.iter().chain(&part.down) {
                let id = StepId { version: part.version, name: (*name).clone() };
                let Some(known) = book.known(&id, state.checksum) else {
                    return Err(format!("{id} is recorded in {store}, and nobody wrote it"));
                };
                possible = outcomes(possible, known, state);
            }
        }
        let is = &world.side(store).schema;
        if !possible.contains(is) {
            let says: Vec<String> = parts
                .iter()
                .flat_map(|part| {
                    part.up.iter().chain(&part.down).map(|(name, state)| {
                        format!("{} {name} {:?}", part.version, state.status())
                    })
                })
                .collect();
            return Err(format!(
                "{store} is not what its records say: {is:?} instead of {possible:?}; records: {says:?}"
            ));
        }
    }
    Ok(())
}

fn outcomes(before: Vec<Schema>, known: &Known, state: &StepState) -> Vec<Schema> {
    let after = |mut schema: Schema, extent: Extent| {
        for deed in &known.deeds {
            // A down step may find that what it removes was never made.
            let _ = schema.perform(deed, extent);
        }
        schema
    };
    match state.status() {
        Status::Pending => before,
        // A step that was in doubt when its migration was to be reverted may be so
        // still: its down finds out.
        Status::Applied | Status::Reverting if state.events.contains(&Event::Applied) => {
            before.into_iter().map(|schema| after(schema, Extent::Whole)).collect()
        }
        Status::InDoubt | Status::Applied | Status::Reverting => before
            .into_iter()
            .flat_map(|schema| {
                let half = after(schema.clone(), Extent::Half);
                [after(schema.clone(), Extent::Whole), half, schema]
            })
            .collect(),
    }
}

/// Applied steps are a prefix, and at most the next one is in doubt.
fn nothing_is_recorded_before_an_earlier_step_is_done(
    histories: &Histories,
    parts: &Parts<'_>,
    book: &Book,
) -> Result<(), String> {
    let mut live: BTreeMap<(u32, Version), BTreeMap<StepId, Status>> = BTreeMap::new();
    for part in parts.iter().flat_map(|(_, parts)| parts) {
        for (name, state) in &part.up {
            let id = StepId { version: part.version, name: (*name).clone() };
            let place = (part.rank, part.version);
            live.entry(place).or_default().insert(id, state.status());
        }
    }
    let newest = live.keys().next_back().copied();
    for (place, statuses) in &live {
        let reverting = histories.steps_of(place.1).any(|(_, name, state)| {
            name.direction() == Direction::Up && state.events.contains(&Event::Reverting)
        });
        if reverting {
            continue;
        }
        // Which file it was does not matter: names keep their order, and an edit
        // takes no step out.
        let orders = book.folders.values().filter(|order| order[0].version == place.1);
        let Some(order) = orders.max_by_key(|order| order.len()) else { continue };
        let mut open = None;
        for step in order {
            let status = statuses.get(step).copied().unwrap_or_default();
            match (status, &open) {
                (Status::Pending, None) => open = Some(step),
                (Status::InDoubt, None) => open = Some(step),
                (Status::Pending, Some(_)) | (Status::Applied | Status::Reverting, None) => {}
                (status, Some(open)) => {
                    return Err(format!("{step} is {status:?} before {open} is done"));
                }
            }
        }
        if let Some(open) = open
            && Some(*place) != newest
        {
            return Err(format!("a later migration has begun before {open} is done"));
        }
    }
    Ok(())
}

fn what_no_transaction_holds_is_announced_first(world: &World, book: &Book) -> Result<(), String> {
    for (store, side) in world.sides() {
        for ((step, attempt, event), record) in &side.records {
            let known = book.known(step, record.checksum);
            let journaled = known.is_some_and(|known| known.commit == Commit::Journaled);
            // A down step may find that there is nothing left to do.
            if *event == Event::Applied
                && journaled
                && step.name.direction() == Direction::Up
                && !side.records.contains_key(&(step.clone(), *attempt, Event::Started))
            {
                return Err(format!("{step} was applied in {store} without having been started"));
            }
        }
    }
    Ok(())
}

/// What a text left behind is settled by that text.
fn each_attempt_is_of_one_text(world: &World) -> Result<(), String> {
    for (store, side) in world.sides() {
        let records: Vec<&Record> = side.records.values().collect();
        for pair in records.windows(2) {
            let one_attempt = pair[0].step == pair[1].step && pair[0].attempt == pair[1].attempt;
            if one_attempt && pair[0].checksum != pair[1].checksum {
                let Record { step, attempt, event, .. } = pair[1];
                return Err(format!(
                    "attempt {attempt} of {step} in {store} has another text when it is {event}"
                ));
            }
        }
    }
    Ok(())
}

fn a_live_migration_has_its_row(
    world: &World,
    parts: &Parts<'_>,
    book: &Book,
) -> Result<(), String> {
    if book.rows_were_lost {
        return Ok(());
    }
    for (store, parts) in parts {
        let side = world.side(*store);
        for part in parts {
            if !side.rows.contains_key(&part.version) {
                return Err(format!("{} has live steps in {store}, and no row", part.version));
            }
        }
    }
    Ok(())
}

fn a_seal_comes_last(world: &World, histories: &Histories, book: &Book) -> Result<(), String> {
    for (store, side) in world.sides() {
        for (row, _) in side.rows.values() {
            let Some(steps) = book.folders.get(&row.checksum) else { continue };
            if row.status == RowStatus::Running {
                continue;
            }
            for step in steps {
                let done = StoreName::BOTH.into_iter().any(|store| {
                    let state = histories.of(store).step(step);
                    let status = state.map(StepState::status);
                    matches!(status, Some(Status::Applied | Status::Reverting))
                });
                if !done {
                    return Err(format!(
                        "{} is sealed in {store}, and {step} is not done",
                        row.version
                    ));
                }
            }
        }
    }
    Ok(())
}

fn no_two_runs_write_under_one_fence(world: &World) -> Result<(), String> {
    for (store, side) in world.sides() {
        let mut by_fence: BTreeMap<i64, &str> = BTreeMap::new();
        for (fence, run) in &side.writes {
            let first = *by_fence.entry(*fence).or_insert(run);
            if first != run {
                return Err(format!("{first} and {run} both wrote to {store} with fence {fence}"));
            }
        }
    }
    Ok(())
}

fn no_fence_comes_after_a_newer_one(world: &World) -> Result<(), String> {
    for (store, side) in world.sides() {
        for pair in side.writes.windows(2) {
            if pair[1].0 < pair[0].0 {
                return Err(format!(
                    "{} wrote to {store} with fence {} after {} had written with fence {}",
                    pair[1].1, pair[1].0, pair[0].1, pair[0].0
                ));
            }
        }
    }
    Ok(())
}

fn nobody_writes_after_it_was_declared_dead(world: &World) -> Result<(), String> {
    for (store, side) in world.sides() {
        if let Some(run) = side.writes_of_the_dead.first() {
            return Err(format!("{run} wrote to {store} when its row said that it was over"));
        }
    }
    Ok(())
}

/// What is left when nothing more is to be done.
pub fn check_at_rest(world: &World, undisturbed: &World) -> Result<(), String> {
    nothing_is_left_half_done(world)?;
    no_lease_is_left(world)?;
    both_stores_tell_the_same(world)?;
    nobody_can_tell_it_from_an_undisturbed_run(world, undisturbed)
}

fn nothing_is_left_half_done(world: &World) -> Result<(), String> {
    match world.sides().iter().find(|(_, side)| side.schema.has_debris()) {
        None => Ok(()),
        Some((store, side)) => {
            Err(format!("something invalid is left in {store}: {:?}", side.schema))
        }
    }
}

pub fn no_lease_is_left(world: &World) -> Result<(), String> {
    let lasts = |side: &Side| side.control.lease.as_ref().is_some_and(|it| !it.has_run_out);
    match world.sides().iter().find(|(_, side)| lasts(side)) {
        None => Ok(()),
        Some((store, side)) => Err(format!("a lease is left in {store}: {:?}", side.control)),
    }
}

pub fn nothing_is_left_of_what_was_rolled_back(
    world: &World,
    version: Version,
) -> Result<(), String> {
    let histories = world.histories();
    for (store, name, state) in histories.steps_of(version) {
        if name.direction() == Direction::Up && is_live(state) {
            return Err(format!("{version} was rolled back, and {name} is live in {store}"));
        }
    }
    match world.sides().iter().find(|(_, side)| side.rows.contains_key(&version)) {
        None => Ok(()),
        Some((store, _)) => Err(format!("{version} was rolled back, and has a row in {store}")),
    }
}

/// A row without what differs from run to run.
fn lasting(row: &Row) -> Row {
    Row { run_id: String::new(), ..row.clone() }
}

fn both_stores_tell_the_same(world: &World) -> Result<(), String> {
    let used = |side: &Side| side.control.pair.is_some();
    if !used(&world.postgres) || !used(&world.mongo) {
        return Ok(());
    }
    let rows = |side: &Side| -> Vec<(Row, Rc<Rollback>)> {
        side.rows.values().map(|(row, rollback)| (lasting(row), rollback.clone())).collect()
    };
    let (postgres, mongo) = (rows(&world.postgres), rows(&world.mongo));
    if postgres == mongo {
        Ok(())
    } else {
        Err(format!("Postgres has the rows {postgres:?}, MongoDB {mongo:?}"))
    }
}

/// A migration's row, and a live step of it, without numbers that grow with
/// each try.
type Lives = Vec<(StoreName, Vec<(StepId, Status, Checksum)>, Vec<Row>)>;

fn lives(world: &World) -> Lives {
    let histories = world.histories();
    let of = |(store, side): (StoreName, &Side)| {
        let history = histories.of(store);
        let steps = history.versions().into_iter().flat_map(|version| {
            history
                .steps_of(version)
                .filter(|(name, state)| name.direction() == Direction::Up && is_live(state))
                .map(move |(name, state)| {
                    let id = StepId { version, name: name.clone() };
                    (id, state.status(), state.checksum)
                })
        });
        let mut rows: Vec<Row> = side.rows.values().map(|(row, _)| lasting(row)).collect();
        // Their order, and not the numbers.
        rows.sort_by_key(|row| row.rank);
        for (rank, row) in (1..).zip(&mut rows) {
            row.rank = rank;
        }
        (store, steps.collect(), rows)
    };
    world.sides().map(of).into()
}

fn nobody_can_tell_it_from_an_undisturbed_run(
    world: &World,
    undisturbed: &World,
) -> Result<(), String> {
    for ((store, is), (_, should)) in world.sides().into_iter().zip(undisturbed.sides()) {
        if is.schema != should.schema {
            return Err(format!(
                "{store} has {:?}, and after an undisturbed run {:?}",
                is.schema, should.schema
            ));
        }
    }
    let (is, should) = (lives(world), lives(undisturbed));
    if is == should {
        Ok(())
    } else {
        Err(format!("the histories say {is:?}, and after an undisturbed run {should:?}"))
    }
}
