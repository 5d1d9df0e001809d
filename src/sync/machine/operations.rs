//! Follows what Neon does after it has accepted a call: by the ids that the reply named.
//!
//! A listing is read only for what no id is known of, because a reply was lost or Neon does not
//! know the id. Then the operations of the branch that are not older than the call are read, page
//! by page. What a listing of the newest ones does not show says nothing: others' work comes
//! between.
//!
//! Invariants: an operation that this run did not start neither ends the run nor holds it up,
//! whatever becomes of it. An id that ended well is not asked for again. `Ok(())` says that
//! operations ended well, and never that a branch can be used, which the branch itself says.
//!
//! Failure: an operation that failed is waited for as long as Neon may try it again. An id that is
//! answered with 404 is looked for in the listing; where that shows nothing, the branch decides.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Conclusion, Decision, View, act, fail};
use crate::id::{BranchId, OperationId};
use crate::neon::Call;
use crate::neon::wire::{Operation, Progress};
use crate::time::{Timestamp, between};

/// How long an operation that failed may be tried again by Neon, which need not say so.
///
/// Source: Neon, reference of operations, read 2026-11-21: a failed one "may be retried"; when, no
/// document says. Three minutes fit in one tick, with 13 looks of its 50 subrequests.
const FAILED_FOR_GOOD: Duration = Duration::from_mins(3);

/// Pages of a listing that are read: 1,600 operations since a call that is seconds or minutes old.
const PAGES: u32 = 8;

/// Neon writes some instants as whole seconds.
const WHOLE_SECONDS: chrono::TimeDelta = chrono::TimeDelta::seconds(2);

/// A part of an operation that ends after what it belongs to can be used.
pub(super) const CLEANING_UP: &str = "delete_timeline";

/// What this tick knows of operations.
#[derive(Default)]
pub(super) struct Operations {
    /// What Neon told of each id since the last wait; `None` where it does not know the id.
    by_id: BTreeMap<OperationId, Option<Operation>>,
    /// Those that ended well, which stays so.
    done: BTreeSet<OperationId>,
    /// The newest ones, newest first, as far as they were read.
    newest: Option<Newest>,
}

struct Newest {
    operations: Vec<Operation>,
    next: Option<String>,
    pages: u32,
}

impl Operations {
    /// Forgets what changes by itself.
    pub(super) fn forget(&mut self) {
        self.by_id.clear();
        self.newest = None;
    }

    /// Neon told of an operation.
    pub(super) fn told(&mut self, operation: Operation) {
        if operation.progress() == Progress::EndedWell {
            self.done.insert(operation.id.clone());
        }
        self.by_id.insert(operation.id.clone(), Some(operation));
    }

    /// Neon does not know an id.
    pub(super) fn is_unknown(&mut self, id: OperationId) {
        self.by_id.insert(id, None);
    }

    /// Neon told a page: the first one, or the one after those that are known.
    pub(super) fn listed(&mut self, page: Vec<Operation>, is_next: bool, next: Option<String>) {
        // A page that is empty is the last one, whatever it says.
        let next = next.filter(|_| !page.is_empty());
        match self.newest.as_mut().filter(|_| is_next) {
            Some(newest) => {
                newest.operations.extend(page);
                newest.next = next;
                newest.pages += 1;
            }
            None => self.newest = Some(Newest { operations: page, next, pages: 1 }),
        }
    }
}

/// What a call of ours has started.
pub(super) struct Awaited<'a> {
    /// The branch that is made or overwritten.
    pub(super) branch: &'a BranchId,
    /// The operations that the reply named, in their order; empty where it was lost.
    pub(super) named: &'a [OperationId],
    /// When Neon accepted the call, or an instant before that.
    pub(super) since: Timestamp,
    /// When it is asked for first.
    pub(super) first_look: Timestamp,
    /// What it is for.
    pub(super) why: &'static str,
}

impl<'a> View<'a> {
    /// Waits until the last operation of a call is done, which costs one request for each look.
    ///
    /// Neon runs those of one call one after the other. Where the branch does not say afterwards
    /// that it can be used, [`View::await_all`] finds the one that has failed.
    pub(super) fn await_last(&self, awaited: &Awaited<'_>) -> Result<(), Decision> {
        let Some(last) = awaited.named.last() else { return self.await_unnamed(awaited) };
        if let Some(failing) = self
            .checkpoint
            .failing
            .as_ref()
            .filter(|failing| awaited.named.contains(&failing.operation))
        {
            // It holds up those after it: nothing else is asked for until it is done.
            self.await_named(awaited, std::slice::from_ref(&failing.operation))?;
        }
        let told = self.seen.operations.by_id.get(last).and_then(Option::as_ref);
        let is_bad = told.is_some_and(|told| {
            matches!(told.progress(), Progress::MayBeRetried | Progress::EndedBadly)
        });
        // What follows one that has failed is cancelled: the first that ended badly is the one to
        // tell, and may be tried again.
        self.await_named(awaited, if is_bad { awaited.named } else { std::slice::from_ref(last) })
    }

    /// Waits until every operation of a call is done.
    pub(super) fn await_all(&self, awaited: &Awaited<'_>) -> Result<(), Decision> {
        if awaited.named.is_empty() {
            self.await_unnamed(awaited)
        } else {
            self.await_named(awaited, awaited.named)
        }
    }

    fn await_named(&self, awaited: &Awaited<'_>, ids: &[OperationId]) -> Result<(), Decision> {
        let seen = &self.seen.operations;
        for id in ids.iter().filter(|id| !seen.done.contains(*id)) {
            match seen.by_id.get(id) {
                None => {
                    return Err(self.look(
                        Call::GetOperation(id.clone()),
                        awaited.first_look,
                        awaited.why,
                    ));
                }
                Some(Some(operation)) => self.judge(operation, awaited)?,
                Some(None) => self.await_unnamed(awaited)?,
            }
        }
        Ok(())
    }

    /// Waits for what works on the data of the branch since the call, whoever began it; of what has
    /// ended, the newest that made data decides.
    fn await_unnamed(&self, awaited: &Awaited<'_>) -> Result<(), Decision> {
        let found = self.listed_of(
            awaited.branch,
            awaited.since - WHOLE_SECONDS,
            awaited.first_look,
            awaited.why,
        )?;
        if found.iter().any(|operation| operation.progress() == Progress::UnderWay) {
            return Err(Decision::Conclude(Conclusion::LookAgain));
        }
        match found.iter().find(|operation| operation.action != CLEANING_UP) {
            Some(newest) => self.judge(newest, awaited),
            None => Ok(()),
        }
    }

    /// Returns the operations on a branch's data that are not older than an instant, newest first.
    pub(super) fn listed_of(
        &self,
        branch: &BranchId,
        since: Timestamp,
        first_look: Timestamp,
        why: &'static str,
    ) -> Result<Vec<&'a Operation>, Decision> {
        let Some(newest) = &self.seen.operations.newest else {
            return Err(self.look(Call::ListOperations(None), first_look, why));
        };
        let reaches_back = newest.operations.last().is_none_or(|oldest| oldest.created_at < since);
        if let Some(cursor) = newest.next.as_ref().filter(|_| !reaches_back && newest.pages < PAGES)
        {
            return Err(act(Call::ListOperations(Some(cursor.clone()))));
        }
        let is_one = |operation: &&Operation| {
            operation.branch_id.as_ref() == Some(branch) && operation.created_at >= since
        };
        Ok(newest
            .operations
            .iter()
            .filter(is_one)
            .filter(|operation| !operation.is_of_a_compute())
            .collect())
    }

    /// Looks, at once or when it is time.
    fn look(&self, call: Call, first_look: Timestamp, why: &'static str) -> Decision {
        let until = self.seen.look_at.unwrap_or(first_look);
        if self.is_ahead(until) { Decision::Wait { until, why } } else { act(call) }
    }

    fn judge(&self, operation: &Operation, awaited: &Awaited<'_>) -> Result<(), Decision> {
        match operation.progress() {
            Progress::EndedWell => return Ok(()),
            Progress::UnderWay => return Err(Decision::Conclude(Conclusion::LookAgain)),
            Progress::MayBeRetried => self.await_retry(operation)?,
            Progress::EndedBadly => {}
        }
        let (why, id, status) = (awaited.why, &operation.id, operation.status_text());
        Err(fail(format!(
            "{why}: operation {id} on {} ended {status:?}, expected \"finished\"",
            awaited.branch
        )))
    }

    /// As [`View::await_retry`], of an operation that may have failed long before this run looked.
    pub(super) fn await_late_retry(&self, operation: &Operation) -> Result<(), Decision> {
        let is_old = between(operation.created_at, self.now) >= FAILED_FOR_GOOD;
        if is_old { Ok(()) } else { self.await_retry(operation) }
    }

    /// Waits while Neon may try an operation again that failed; `Ok(())` where it does not.
    fn await_retry(&self, operation: &Operation) -> Result<(), Decision> {
        if operation.progress() != Progress::MayBeRetried {
            return Ok(());
        }
        let failing =
            self.checkpoint.failing.as_ref().filter(|failing| failing.operation == operation.id);
        match failing.map(|failing| between(failing.seen_at, self.now)) {
            Some(time) if time >= FAILED_FOR_GOOD => Ok(()),
            Some(_) => Err(Decision::Conclude(Conclusion::LookAgain)),
            None => Err(Decision::Conclude(Conclusion::Failing(operation.id.clone()))),
        }
    }
}
