//! What a run remembers of those before it: how long they took, when one last succeeded, what they
//! have made that no name in Neon tells.
//!
//! Invariants: it travels from checkpoint to checkpoint, so that it costs no read of its own; lost
//! with a checkpoint, it begins again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Checkpoint, Goal, RunStatus};
use crate::id::{BranchName, EndpointId, RunId};
use crate::ordered;
use crate::sync::step::Step;
use crate::time::{Timestamp, between, millis};

/// Runs whose length is remembered.
const RUNS: usize = 30;

/// Runs of which the endpoints are remembered: what one of them has left is swept by the next.
const RUNS_WITH_ENDPOINTS: usize = 14;

/// Names of staging that are remembered.
const NAMES: usize = 5;

/// Runs that have to be known before anything is concluded from their length.
const ENOUGH: usize = 3;

/// What is remembered of earlier runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// How long the runs took that restored staging and succeeded, the oldest first; at most
    /// thirty.
    pub paces: Vec<Pace>,
    /// When a run last succeeded; missing when none is remembered.
    #[serde(default, with = "millis::option")]
    pub last_success_at: Option<Timestamp>,
    /// When that run was started; missing in what earlier versions have written.
    #[serde(default, with = "millis::option", skip_serializing_if = "Option::is_none")]
    pub last_success_started_at: Option<Timestamp>,
    /// The endpoints that runs have made on their backups; nothing of a run whose replies were
    /// lost.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub endpoints: BTreeMap<RunId, BTreeSet<EndpointId>>,
    /// The names that staging had, the newest last: what it held before is named after them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub staging_names: Vec<BranchName>,
}

/// How long a run took.
///
/// Shape: `{"run":"20261121","seconds":252,"steps":[1,4,31,8,46,2]}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// Which run.
    pub run: RunId,
    /// From its start to its verdict, in seconds.
    pub seconds: u64,
    /// Each step before the verdict, in seconds.
    pub steps: Vec<u64>,
}

impl History {
    /// Returns what the run after this one remembers.
    pub fn after(last: Option<&Checkpoint>) -> Self {
        let Some(last) = last else { return Self::default() };
        let mut history = last.history.clone();
        history.remember_what_was_made(last);
        let Some(verdict) =
            last.verdict.as_ref().filter(|verdict| verdict.status == RunStatus::Succeeded)
        else {
            return history;
        };
        if last.goal == Goal::Staging {
            history.last_success_at = history.last_success_at.max(Some(verdict.at));
            history.last_success_started_at =
                history.last_success_started_at.max(Some(last.started_at));
        }
        if last.restore.is_some() && !history.paces.iter().any(|pace| pace.run == last.run) {
            let seconds = |step: Step| {
                let of = last.steps.iter().filter(|record| record.step == step);
                of.map(|record| {
                    between(record.started_at, record.ended_at.unwrap_or(verdict.at)).as_secs()
                })
                .sum()
            };
            let steps =
                Step::ALL.into_iter().filter(|step| *step != Step::Prune).map(seconds).collect();
            history.paces.push(Pace {
                run: last.run.clone(),
                seconds: between(last.started_at, verdict.at).as_secs(),
                steps,
            });
            let surplus = history.paces.len().saturating_sub(RUNS);
            history.paces.drain(..surplus);
        }
        history
    }

    /// Remembers what a run has made.
    fn remember_what_was_made(&mut self, last: &Checkpoint) {
        if let Some(made) = last.backup.as_ref().and_then(|backup| backup.endpoints.clone()) {
            self.endpoints.insert(last.run.clone(), made);
            while self.endpoints.len() > RUNS_WITH_ENDPOINTS {
                self.endpoints.pop_first();
            }
        }
        if let Some(name) = last.pins.as_ref().map(|pins| &pins.staging_name) {
            self.staging_names.retain(|other| other != name);
            self.staging_names.push(name.clone());
            let surplus = self.staging_names.len().saturating_sub(NAMES);
            self.staging_names.drain(..surplus);
        }
    }

    /// Returns whether a run has succeeded that was started at `since` or later: one that only
    /// ended after that has copied what was there before it.
    pub fn has_succeeded(&self, since: Timestamp) -> bool {
        self.last_success_started_at.or(self.last_success_at).is_some_and(|at| at >= since)
    }

    /// Returns the length that 95 of 100 runs do not exceed; `None` while too few are known.
    pub fn long_run(&self) -> Option<Duration> {
        percentile(self.paces.iter().map(|pace| pace.seconds), 95)
    }

    /// Returns how long a run usually still takes that is at `step` for `elapsed`; `None` while too
    /// few are known.
    ///
    /// A step that already takes longer than usual is expected to end at once: the expected end
    /// then moves on with the clock.
    pub fn remaining(&self, step: Step, elapsed: Duration) -> Option<Duration> {
        let usual = |index: usize| {
            percentile(self.paces.iter().filter_map(|pace| pace.steps.get(index).copied()), 50)
        };
        let at = Step::ALL.iter().position(|other| *other == step)?;
        let last = Step::ALL.len() - 1;
        let mut remaining =
            if at < last { usual(at)?.saturating_sub(elapsed) } else { Duration::ZERO };
        for index in at + 1..last {
            remaining += usual(index)?;
        }
        Some(remaining)
    }
}

/// Returns the nearest-rank percentile; `None` of too few.
fn percentile(seconds: impl Iterator<Item = u64>, percent: usize) -> Option<Duration> {
    let mut seconds: Vec<u64> = seconds.collect();
    if seconds.len() < ENOUGH {
        return None;
    }
    ordered::sort_by(&mut seconds, Ord::cmp);
    let rank = (seconds.len() * percent).div_ceil(100);
    seconds.get(rank.saturating_sub(1)).copied().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::started;
    use crate::sync::checkpoint::{Backup, Pins, Restore, StepRecord, Verdict};

    fn at(text: &str) -> Timestamp {
        text.parse().expect("an instant")
    }

    fn paces(seconds: impl IntoIterator<Item = u64>) -> History {
        let pace = |(index, seconds): (usize, u64)| Pace {
            run: RunId::decode(&format!("202610{:02}", index % 28 + 1)).expect("a date"),
            seconds,
            steps: vec![1, 4, seconds - 15, 8, 2, 0],
        };
        History { paces: seconds.into_iter().enumerate().map(pace).collect(), ..History::default() }
    }

    fn succeeded() -> Checkpoint {
        let step = |step, from: &str, to: &str| StepRecord {
            step,
            started_at: at(from),
            ended_at: Some(at(to)),
            attempts: 1,
        };
        Checkpoint {
            steps: vec![
                step(Step::Preflight, "2026-11-21T10:00:00Z", "2026-11-21T10:00:01Z"),
                step(Step::Backup, "2026-11-21T10:00:01Z", "2026-11-21T10:00:05Z"),
            ],
            restore: Some(Restore {
                displaced_name: "staging-of-20261120".into(),
                displaced_id: None,
                accepted_at: None,
                before: None,
                operations: Vec::new(),
                is_done: true,
            }),
            verdict: Some(Verdict {
                status: RunStatus::Succeeded,
                at: at("2026-11-21T10:04:12Z"),
                step: Step::Prune,
                reason: None,
                runbook: None,
                staging: String::new(),
            }),
            ..started()
        }
    }

    #[test]
    fn a_run_that_succeeded_is_remembered_once() {
        let history = History::after(Some(&succeeded()));
        assert_eq!(history.last_success_at, Some(at("2026-11-21T10:04:12Z")));
        let started_at = succeeded().started_at;
        assert!(
            history.has_succeeded(started_at) && !history.has_succeeded(at("2026-11-21T10:04:12Z")),
            "it counts from its start"
        );
        let of_an_earlier_version = History { last_success_started_at: None, ..history.clone() };
        assert!(of_an_earlier_version.has_succeeded(at("2026-11-21T10:04:12Z")));
        assert!(!History::default().has_succeeded(started_at));
        assert_eq!(
            history.paces,
            [Pace { run: started().run, seconds: 252, steps: vec![1, 4, 0, 0, 0, 0] }]
        );
        let again = Checkpoint { history: history.clone(), ..succeeded() };
        assert_eq!(History::after(Some(&again)), history);
    }

    #[test]
    fn what_runs_have_made_and_how_staging_was_called_is_remembered_however_they_ended() {
        let of = |day: u32, endpoints: Option<&str>, staging: &str, history: History| {
            let (id, name) = ("br-a-b-c".into(), format!("backup-202611{day:02}").as_str().into());
            let endpoints = endpoints.map(|id| [id.into()].into());
            let made_at = started().started_at;
            let backup = Backup {
                id,
                name,
                lsn: None,
                made_at,
                operations: Vec::new(),
                is_ready: false,
                is_verified: false,
                endpoints,
            };
            let (project, production, branch) = ("p".into(), "br-p".into(), "br-s".into());
            let pins =
                Some(Pins { project, production, staging: branch, staging_name: staging.into() });
            let run = RunId::decode(&format!("202611{day:02}")).expect("a date");
            History::after(Some(&Checkpoint {
                run,
                backup: Some(backup),
                pins,
                history,
                ..started()
            }))
        };
        let mut history = of(1, Some("ep-1"), "staging", History::default());
        history = of(2, None, "preview", history);
        history = of(3, Some("ep-3"), "staging", history);
        let made: Vec<&str> =
            history.endpoints.values().flatten().map(EndpointId::as_str).collect();
        assert_eq!(made, ["ep-1", "ep-3"], "of the second the reply was lost");
        assert_eq!(history.staging_names, ["preview".into(), "staging".into()]);
        for day in 4..=30 {
            history = of(day, Some("ep-x"), &format!("staging-{day}"), history);
        }
        assert_eq!(
            (history.endpoints.len(), history.staging_names.len()),
            (RUNS_WITH_ENDPOINTS, NAMES)
        );
        assert!(
            history.endpoints.contains_key(&RunId::decode("20261130").expect("a date")),
            "the newest are remembered"
        );
    }

    #[test]
    fn a_run_that_failed_or_left_staging_tells_nothing_of_the_length() {
        let mut failed = Checkpoint { history: paces([100, 110, 120]), ..succeeded() };
        failed.verdict.as_mut().expect("a verdict").status = RunStatus::Failed;
        assert_eq!(History::after(Some(&failed)), failed.history);
        let held = History::after(Some(&Checkpoint { restore: None, ..succeeded() }));
        assert!(held.paces.is_empty() && held.last_success_at.is_some());
        let rehearsed = History::after(Some(&Checkpoint {
            goal: Goal::VerifyBackup,
            restore: None,
            ..succeeded()
        }));
        assert_eq!(rehearsed, History::default());
        assert_eq!(History::after(None), History::default());
    }

    #[test]
    fn thirty_runs_are_remembered() {
        let history = History::after(Some(&Checkpoint { history: paces(100..130), ..succeeded() }));
        assert_eq!(
            (history.paces.len(), history.paces[0].seconds, history.paces[29].seconds),
            (30, 101, 252)
        );
    }

    #[test]
    fn the_long_run_is_the_nearest_rank() {
        assert_eq!(paces([100, 200]).long_run(), None, "two are too few");
        assert_eq!(paces([100, 300, 200]).long_run(), Some(Duration::from_mins(5)));
        assert_eq!(paces(101..=120).long_run(), Some(Duration::from_secs(119)), "the 19th of 20");
    }

    #[test]
    fn what_is_left_of_a_run_is_what_its_steps_usually_take() {
        let history = paces([100, 100, 100]);
        let left = |step, elapsed| {
            history
                .remaining(step, Duration::from_secs(elapsed))
                .expect("enough are known")
                .as_secs()
        };
        assert_eq!(left(Step::Preflight, 0), 100);
        assert_eq!(left(Step::VerifyBackup, 40), 55);
        assert_eq!(left(Step::VerifyBackup, 4_000), 10, "it is expected to end at once");
        assert_eq!(left(Step::SmokeTest, 0), 0);
        assert_eq!(paces([100]).remaining(Step::Backup, Duration::ZERO), None);
    }
}
