//! What Neon does to computes by itself: they wake with a query, sleep when nobody uses them, and
//! are checked while they sleep. Each is an operation that everybody sees, that keeps requests out
//! while it is under way, and that may fail.
//!
//! Source: Neon, reference of operations, read 2026-11-21: `start_compute`, `suspend_compute`,
//! `check_availability`; 423 comes "also for operations that you did not start".

use chrono::TimeDelta;

use super::operations::{Finish, Start, Then};
use super::{Model, Timestamp, milliseconds};

/// How long the proxy waits for a compute. Source: PROXY: `wake_compute` is retried for about 7 s.
const PATIENCE_MS: i64 = 7_000;

/// What a query finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wake {
    /// The compute runs.
    Awake,
    /// It starts, which takes so long; with the operation that does it, where there is one.
    Starting(TimeDelta, Option<String>),
    /// It does not start, which is known after so long.
    Fails(TimeDelta),
}

impl Model {
    /// Returns the branch that an endpoint's compute serves: while its branch is being restored,
    /// the old state, until the compute is suspended.
    pub fn served_by(&self, endpoint: &str) -> Option<&str> {
        let endpoint = self.endpoint(endpoint)?;
        Some(endpoint.serves.as_ref().unwrap_or(&endpoint.branch))
    }

    /// A query arrives at an endpoint.
    pub fn wake(&mut self, id: &str, now: Timestamp) -> Wake {
        let Some(endpoint) = self.endpoint_mut(id) else { return Wake::Fails(TimeDelta::zero()) };
        if endpoint.state == "active" {
            endpoint.last_active = Some(now);
            return Wake::Awake;
        }
        let branch = endpoint.branch.clone();
        let takes = milliseconds(self.durations.wake_ms);
        if !self.switches.compute_operations {
            self.set_endpoint_state(id, "active", now);
            return if self.durations.wake_ms > PATIENCE_MS {
                Wake::Fails(milliseconds(PATIENCE_MS))
            } else {
                Wake::Starting(takes, None)
            };
        }
        let is_starting = |operation: &super::Operation| {
            operation.action == "start_compute" && operation.endpoint.as_deref() == Some(id)
        };
        let under_way = self
            .operations
            .iter()
            .find(|operation| operation.is_under_way() && is_starting(operation));
        let (operation, finish) = match under_way {
            Some(found) => (found.id.clone(), found.finish),
            None => self.start_own(
                &branch,
                id,
                "start_compute",
                self.durations.wake_ms + self.durations.wake_lingers_ms,
                now,
            ),
        };
        if let Some(endpoint) = self.endpoint_mut(id) {
            endpoint.pending_state = Some("active");
        }
        if !finish.does_its_work() {
            return Wake::Fails(takes.min(milliseconds(PATIENCE_MS)));
        }
        if self.durations.wake_ms > PATIENCE_MS {
            // It runs when somebody asks again later.
            return Wake::Fails(milliseconds(PATIENCE_MS));
        }
        Wake::Starting(takes, Some(operation))
    }

    /// Begins to suspend a compute that nobody uses, as Neon does by itself.
    pub fn falls_asleep(&mut self, id: &str, now: Timestamp) -> Option<String> {
        let branch = self.endpoint(id)?.branch.clone();
        if !self.switches.compute_operations {
            self.set_endpoint_state(id, "idle", now);
            return None;
        }
        Some(self.start_own(&branch, id, "suspend_compute", self.durations.other_ms, now).0)
    }

    /// Returns how long an endpoint may be unused; `None` for ever.
    ///
    /// Source: Neon API v2, `SuspendTimeoutSeconds`, read 2026-11-21: 0 is the default, -1 never.
    pub fn suspend_after(&self, id: &str) -> Option<TimeDelta> {
        match self.endpoint(id)?.suspend_timeout_seconds {
            0 => Some(TimeDelta::seconds(self.durations.suspend_after_s)),
            seconds if seconds < 0 => None,
            seconds => Some(TimeDelta::seconds(seconds)),
        }
    }

    fn start_own(
        &mut self,
        branch: &str,
        endpoint: &str,
        action: &'static str,
        milliseconds: i64,
        now: Timestamp,
    ) -> (String, Finish) {
        self.call += 1;
        self.own_operations += 1;
        let every = self.switches.compute_operations_fail_every;
        let fails = every > 0 && self.own_operations.is_multiple_of(every);
        let finish = if fails { self.switches.compute_operations_end } else { Finish::Finished };
        let then = match action {
            "start_compute" => vec![Then::Active(endpoint.to_owned())],
            "suspend_compute" => vec![Then::Idle(endpoint.to_owned())],
            _ => Vec::new(),
        };
        let has_work = action != "check_availability" && finish.does_its_work();
        let start = Start {
            branch: branch.to_owned(),
            endpoint: Some(endpoint.to_owned()),
            action,
            milliseconds,
            then,
            has_work,
        };
        (self.add_operation(start, finish, now), finish)
    }

    /// Neon checks the compute of a branch, and that ends like this after so long.
    pub fn checks(&mut self, branch: &str, finish: Finish, milliseconds: i64, now: Timestamp) {
        let Some(endpoint) = self.writer_of(branch).map(|endpoint| endpoint.id.clone()) else {
            return;
        };
        self.call += 1;
        let (branch, endpoint, then) = (branch.to_owned(), Some(endpoint), Vec::new());
        let start = Start {
            branch,
            endpoint,
            action: "check_availability",
            milliseconds,
            then,
            has_work: false,
        };
        self.add_operation(start, finish, now);
    }

    /// Lets computes fall asleep, and checks one that sleeps, up to an instant.
    pub(super) fn tend_computes(&mut self, now: Timestamp) {
        if !self.switches.compute_operations {
            return;
        }
        if !self.has_server {
            self.let_sleep(now);
        }
        self.check_one(now);
    }

    /// Without a server, computes fall asleep by time alone.
    fn let_sleep(&mut self, now: Timestamp) {
        let is_quiet = |id: &str| {
            !self
                .operations
                .iter()
                .any(|operation| operation.is_open() && operation.endpoint.as_deref() == Some(id))
        };
        let due: Vec<(String, Timestamp)> = self
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.state == "active" && is_quiet(&endpoint.id))
            .filter_map(|endpoint| {
                Some((
                    endpoint.id.clone(),
                    endpoint.last_active? + self.suspend_after(&endpoint.id)?,
                ))
            })
            .filter(|(_, at)| *at <= now)
            .collect();
        for (id, at) in due {
            let branch =
                self.endpoint(&id).map(|endpoint| endpoint.branch.clone()).unwrap_or_default();
            if self
                .operations
                .iter()
                .any(|operation| operation.is_under_way() && operation.branch == branch)
            {
                continue;
            }
            self.falls_asleep(&id, at);
            // One that failed is tried again after as long.
            self.endpoint_mut(&id)
                .into_iter()
                .for_each(|endpoint| endpoint.last_active = Some(now));
        }
        super::operations::advance(self, now);
    }

    /// Checks a compute that sleeps; which one goes round.
    fn check_one(&mut self, now: Timestamp) {
        let every = TimeDelta::seconds(self.durations.checks_every_s);
        if every <= TimeDelta::zero() || now - self.checked_at < every {
            return;
        }
        // Of those that nobody saw only the last one is told.
        let passed = (now - self.checked_at).num_seconds() / every.num_seconds();
        self.checked_at += TimeDelta::seconds(passed * every.num_seconds());
        let at = self.checked_at;
        let is_busy = |branch: &str| {
            self.operations
                .iter()
                .any(|operation| operation.is_under_way() && operation.branch == branch)
        };
        let asleep: Vec<(String, String)> = self
            .endpoints
            .iter()
            .filter(|endpoint| {
                endpoint.state == "idle" && !endpoint.is_disabled && !is_busy(&endpoint.branch)
            })
            .map(|endpoint| (endpoint.branch.clone(), endpoint.id.clone()))
            .collect();
        let turn = usize::try_from(self.own_operations).unwrap_or_default() % asleep.len().max(1);
        if let Some((branch, endpoint)) = asleep.get(turn).cloned() {
            self.start_own(&branch, &endpoint, "check_availability", self.durations.other_ms, at);
            super::operations::advance(self, now);
        }
    }
}
