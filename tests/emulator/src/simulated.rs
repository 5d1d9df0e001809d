//! Neon without any server: the [`Model`], with what its branches hold and the few statements that
//! are asked of them.
//!
//! In: a [`Request`] of the API or the body of a `POST /sql`, and `now`. Out: what Neon answers.
//! Everything happens in memory, so that thousands of runs a second can be simulated.
//!
//! Invariants: the data of a branch is copied when the request is accepted and whole when its
//! operation has finished; a branch whose operation ended badly is never readable. A statement that
//! is not known is an error, not an empty answer.
//!
//! What is not simulated: Postgres. A table is a number of rows and a digest; the statements are
//! those of verification, of passwords, and `select 1`. `tests/contract` runs one suite over this
//! and over the served emulator.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;

pub use crate::faults::Place;
use crate::model::{Effect, Lsn, Model, Point, Request, Response, Timestamp};

mod contents;
mod statements;
#[cfg(test)]
mod tests;

use self::contents::ROW_BYTES;
pub use self::contents::{Contents, Damage, Table};

/// The role that reads and its database, in every simulated project.
pub const ROLE: &str = "neondb_owner";
/// The database.
pub const DATABASE: &str = "neondb";

/// The position at which every branch of a new project begins.
const FIRST_POSITION: u64 = 0x0100_0000;

/// The data of a branch: each restore makes a new one.
#[derive(Clone, Debug)]
struct Data {
    /// What it held at its fork.
    first: Contents,
    present: Contents,
    /// Where it forked: a position of its source.
    fork: Lsn,
    /// Its newest position.
    head: Lsn,
    damage: Option<Damage>,
    is_whole: bool,
    /// The runs that have run something on it.
    prepared_by: BTreeSet<String>,
}

/// What queries have written to a branch, apart from rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The data; each restore makes another.
    pub data: String,
    /// The passwords of its roles.
    pub passwords: Vec<Option<String>>,
    /// What marks the runs that have run something on it.
    pub prepared_by: BTreeSet<String>,
}

/// Data that is whole when an operation has finished.
#[derive(Clone, Debug)]
struct Copied {
    operation: String,
    branch: String,
    data: String,
    lsn: Lsn,
}

/// A project of Neon's in memory.
#[derive(Clone)]
pub struct Simulated {
    /// States, names, rules and time.
    pub model: Model,
    /// How often a compute was started by itself; a restore starts another one as well.
    pub computes_started: u32,
    /// What is wrong with the next restored data: a copy that is no copy.
    pub damages_next_restore: Option<Damage>,
    /// How far Neon's clock is ahead of everybody else's; behind where it is negative.
    pub clock_offset: TimeDelta,
    /// What is wrong with the next branch that is made from a snapshot.
    pub damages_next_unpacking: Option<Damage>,
    data: BTreeMap<String, Data>,
    copies: Vec<Copied>,
    /// How long the query that was answered last has waited for its compute.
    pub waked_for: TimeDelta,
    /// What data held at the positions that it has passed.
    passed: BTreeMap<(String, Lsn), Contents>,
    /// The latest instant of which it has heard.
    clock: Timestamp,
}

impl Simulated {
    /// Takes a model; every branch in it holds the same.
    pub fn new(mut model: Model, contents: &Contents) -> Self {
        for branch in model.branches.iter_mut().filter(|branch| branch.parent.is_some()) {
            branch.parent_lsn = Some(Lsn(FIRST_POSITION));
        }
        for role in model.branches.iter_mut().flat_map(|branch| &mut branch.roles) {
            role.in_data.clone_from(&role.password);
            role.at_first.clone_from(&role.password);
        }
        let position = Lsn(FIRST_POSITION);
        let whole = Data {
            first: contents.clone(),
            present: contents.clone(),
            fork: position,
            head: position,
            damage: None,
            is_whole: true,
            prepared_by: BTreeSet::new(),
        };
        let data =
            model.branches.iter().map(|branch| (branch.data.clone(), whole.clone())).collect();
        let begun: Vec<(String, Timestamp)> =
            model.branches.iter().map(|branch| (branch.data.clone(), branch.created_at)).collect();
        for (data, at) in &begun {
            model.saw(data, *at, position);
        }
        let clock = begun.iter().map(|(_, at)| *at).max().unwrap_or_default();
        Self {
            model,
            damages_next_restore: None,
            clock_offset: TimeDelta::zero(),
            computes_started: 0,
            damages_next_unpacking: None,
            data,
            copies: Vec::new(),
            waked_for: TimeDelta::zero(),
            passed: BTreeMap::new(),
            clock,
        }
    }

    /// Returns what a branch holds; `None` when there is no such branch, or it cannot be read.
    pub fn contents(&self, branch: &str) -> Option<&Contents> {
        let data = self.data.get(&self.model.branch(branch)?.data)?;
        data.is_whole.then_some(&data.present)
    }

    /// Returns what a branch held when it was made or restored last.
    pub fn first_contents(&self, branch: &str) -> Option<&Contents> {
        Some(&self.data.get(&self.model.branch(branch)?.data)?.first)
    }

    /// Returns what is wrong with what a branch was restored or made with.
    pub fn damage_of(&self, branch: &str) -> Option<Damage> {
        self.data.get(&self.model.branch(branch)?.data)?.damage
    }

    /// Returns what queries have written to a branch, apart from rows.
    pub fn written(&self, branch: &str) -> Option<Written> {
        let branch = self.model.branch(branch)?;
        Some(Written {
            data: branch.data.clone(),
            passwords: branch.roles.iter().map(|role| role.password.clone()).collect(),
            prepared_by: self.data.get(&branch.data)?.prepared_by.clone(),
        })
    }

    /// Writes to a branch, as an application does. A sequence that was behind by one is not any
    /// more.
    pub fn write(&mut self, branch: &str) {
        self.change(branch, Contents::write);
        let data = self.model.branch(branch).map(|branch| branch.data.clone());
        if let Some(data) = data.and_then(|data| self.data.get_mut(&data))
            && data.damage == Some(Damage::Behind)
        {
            data.damage = None;
        }
    }

    /// Removes and changes rows of a branch; see [`Contents::empty`].
    pub fn empty(&mut self, branch: &str) {
        self.change(branch, Contents::empty);
    }

    fn change(&mut self, branch: &str, change: impl Fn(&mut Contents)) {
        let Some(id) = self.model.branch(branch).map(|branch| branch.data.clone()) else { return };
        let Some(data) = self.data.get_mut(&id) else { return };
        self.passed.entry((id.clone(), data.head)).or_insert_with(|| data.present.clone());
        change(&mut data.present);
        data.head.0 += 0x100;
        self.model.saw(&id, self.clock, data.head);
        // Who writes is using the branch.
        let clock = self.clock;
        let writers = self
            .model
            .endpoints
            .iter_mut()
            .filter(|endpoint| endpoint.branch == branch && endpoint.is_read_write);
        writers.for_each(|endpoint| endpoint.last_active = Some(clock));
    }

    /// Gives the last table of every branch so many rows.
    pub fn grow(&mut self, rows: u64) {
        let contents = self.data.values_mut().flat_map(|data| [&mut data.first, &mut data.present]);
        contents
            .filter_map(|contents| contents.tables.values_mut().next_back())
            .for_each(|table| *table = Table::new(rows, table.digest));
    }

    /// Returns what Neon's clock shows at an instant of everybody else's.
    fn neons(&self, now: Timestamp) -> Timestamp {
        now + self.clock_offset
    }

    /// Ends what has come to its end. `now` is the time by everybody else's clock, here and below.
    pub fn advance(&mut self, now: Timestamp) {
        let now = self.neons(now);
        self.advance_to(now);
    }

    fn advance_to(&mut self, now: Timestamp) {
        self.clock = self.clock.max(now);
        self.model.advance(now);
        let copies = std::mem::take(&mut self.copies);
        for copied in copies {
            match self.model.operation(&copied.operation) {
                Some(operation) if matches!(operation.status, "finished" | "skipped") => {
                    self.finish(&copied, now);
                }
                Some(operation) if operation.is_open() => self.copies.push(copied),
                Some(_) | None => {}
            }
        }
    }

    fn finish(&mut self, copied: &Copied, now: Timestamp) {
        let mut size = None;
        if let Some(data) = self.data.get_mut(&copied.data) {
            data.is_whole = true;
            size = Some(data.first.tables.values().map(|table| table.rows * ROW_BYTES).sum());
        }
        if let Some(branch) =
            self.model.branch_mut(&copied.branch).filter(|branch| branch.data == copied.data)
        {
            branch.logical_size = size;
        }
        if let Some(snapshot) =
            self.model.snapshots.iter_mut().find(|snapshot| snapshot.data == copied.data)
        {
            snapshot.lsn = snapshot.lsn.or(Some(copied.lsn));
            snapshot.full_size = size;
        }
        if let Some(branch) = self
            .model
            .branch_mut(&copied.branch)
            .filter(|branch| branch.data == copied.data && branch.unpacked.is_none())
        {
            branch.parent_lsn = Some(copied.lsn);
            branch.parent_timestamp = Some(now);
        }
    }

    /// Answers a request of the API.
    pub fn serve(&mut self, request: &Request, now: Timestamp) -> Response {
        let now = self.neons(now);
        self.advance_to(now);
        let response = self.model.serve(request, now);
        for effect in &response.effects {
            match effect {
                Effect::Branch { operation, branch, source, point } => {
                    self.copy(operation, branch, source, *point, None);
                }
                Effect::Restore { operation, branch, source, point, .. } => {
                    let damage = self.damages_next_restore.take();
                    self.copy(operation, branch, source, *point, damage);
                }
                Effect::Snapshot { operation, snapshot, source, point } => {
                    let data = self
                        .model
                        .snapshot(snapshot)
                        .map(|snapshot| snapshot.data.clone())
                        .unwrap_or_default();
                    self.copy_to(operation, "", &data, source, *point, None);
                }
                Effect::Unpack { operation, branch, source } => {
                    let damage = self.damages_next_unpacking.take();
                    self.copy(operation, branch, source, Point::Head, damage);
                }
                Effect::Discard { data, .. } => drop(self.data.remove(data)),
                Effect::Start { .. }
                | Effect::Suspend { .. }
                | Effect::Delete { .. }
                | Effect::SetPassword { .. } => {}
            }
        }
        response
    }

    fn copy(
        &mut self,
        operation: &str,
        branch: &str,
        source: &str,
        point: Point,
        damage: Option<Damage>,
    ) {
        let Some(data) = self.model.branch(branch).map(|branch| branch.data.clone()) else {
            return;
        };
        self.copy_to(operation, branch, &data, source, point, damage);
    }

    /// Makes data from what a source holds at a point. Its position is one of the source's, at or
    /// before the head.
    fn copy_to(
        &mut self,
        operation: &str,
        branch: &str,
        data: &str,
        source: &str,
        point: Point,
        damage: Option<Damage>,
    ) {
        let Some(from) = self.data.get(source) else { return };
        let (mut first, lsn) = match point {
            Point::Head => (from.present.clone(), from.head),
            Point::Lsn(lsn) if lsn == from.fork => (from.first.clone(), lsn),
            Point::Lsn(lsn) if lsn == from.head => (from.present.clone(), lsn),
            Point::Lsn(lsn) => {
                let before = self
                    .passed
                    .range((source.to_owned(), Lsn(0))..=(source.to_owned(), lsn))
                    .next_back();
                (before.map_or(&from.first, |(_, contents)| contents).clone(), lsn)
            }
            // The model has made a position of it.
            Point::Time(_) => return,
        };
        if point == Point::Head {
            self.passed.insert((source.to_owned(), lsn), first.clone());
        }
        let mut present = first.clone();
        match damage {
            None => {}
            Some(Damage::Rows(Place::After)) => present.damage(),
            Some(Damage::Rows(Place::Before)) => {
                first.damage();
                present.clone_from(&first);
            }
            Some(Damage::Behind) => present.set_back(),
        }
        // What changes a branch after its fork has a position of its own.
        let head = if present == first { lsn } else { Lsn(lsn.0 + 0x100) };
        let new = Data {
            first,
            present,
            fork: lsn,
            head,
            damage,
            is_whole: false,
            prepared_by: BTreeSet::new(),
        };
        self.model.saw(data, self.clock, lsn);
        self.model.saw(data, self.clock, head);
        self.data.insert(data.to_owned(), new);
        self.copies.push(Copied {
            operation: operation.to_owned(),
            branch: branch.to_owned(),
            data: data.to_owned(),
            lsn,
        });
    }
}
