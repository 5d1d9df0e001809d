//! What is remembered in Workers KV, under which keys.
//!
//! | key | written by | read by | stale or lost, the worst that happens |
//! |---|---|---|---|
//! | `checkpoint/<pair>` | the tick that drives, `POST /runs` | every tick, `GET /runs/{id}` | the run is taken up again from the names in Neon |
//! | `result/<pair>/<run>`, for 400 days | the tick that ends the run | every tick, `GET /runs` | a run that is over is taken up, finds its backup and restore, and ends again |
//! | `notice/<pair>/<run>/<kind>`, for 400 days | the tick that ends the run or delivers | every tick | a notice is sent twice, with the same id |
//! | `backup/<pair>/<run>` | the tick that verified the backup | pruning; the next run | a backup is kept that might have gone; lost rows are not noticed |
//! | `backup/<pair>/<run>/pin` | `PUT` and `DELETE …/pin` | pruning, `GET /backups` | within the minute, a backup goes that was just pinned |
//! | `backup/<pair>/<run>/snapshot` | the tick that takes or compares it | pruning, `GET /backups` | a snapshot is not known to be verified, and is kept |
//! | `prune/<pair>/<run>`, for 400 days | the tick that pruned | `GET /runs/{id}` | the report lacks what was pruned |
//! | `hold/<pair>` | `PUT` and `DELETE …/hold` | every tick, and before a restore | staging is restored although it was to be held, within the minute |
//! | `cancel/<pair>/<run>`, for 7 days | `POST …/cancel` | before each write of a run | the run goes on to its next write |
//! | `accepted/<pair>/<run>`, for 30 days | `POST /runs` | pruning, `GET /runs/{id}`, a tick that finds no checkpoint | a manual run whose place another run took is told after the next run |
//! | `incident/<pair>` | a tick that tells of trouble, escalates or resolves | every tick, `GET /incidents` | an escalation is told twice, with the same id |
//! | `acknowledged/<pair>` | `POST /incidents/{id}/acknowledge` | every tick | people are told once more within the minute |
//! | `channels` | a tick to which a channel answered 410, `POST /channels/{name}/test` | every tick | a channel that is gone is called once more |
//! | `request/<pair>/<key>`, for 7 days | `POST /runs` | `POST /runs` | a repeated request starts a second run, or is refused with 409 |
//!
//! Invariants: one key has one meaning; a format newer than ours is never rewritten; absence is not
//! the same as no answer.
//!
//! *Two versions at once*, in a gradual deployment or after a roll-back, read and write the same
//! records. A version that adds a field keeps the format: the other one reads the record without
//! it, writes it without it, and the field has a default. So no record may refuse fields that it
//! does not know, at any level. What the other version would misunderstand, which is every new word
//! where it knows a list of words, is a new format: it leaves such a record alone, and says so. A
//! checkpoint that is neither is as good as lost: the run is rebuilt from the names in Neon.

mod asked;
mod backups;
mod channels;
mod checks;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, DeserializeOwned, Deserializer as _, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

pub use self::asked::{Accepted, CancelOrder, accepted_key, cancel_key, request_key};
pub use self::backups::{
    TakenSnapshot, VerifiedBackup, backup_key, backups, endings, facts_of_pin, ledger, pin_key,
    snapshot_key,
};
pub use self::channels::{CHANNELS_KEY, Channels, Disabled};
use crate::config::{NoticeKind, Pair};
use crate::id::{BranchId, BranchName, Lsn, PairName, RunId};
use crate::ordered;
use crate::port::{Clock, Metadata, Store, StoreFailure};
use crate::sync::checkpoint::{
    Checkpoint, FORMAT, Goal, Hold, Passwords, Prune, RecordedError, RunStatus, StepRecord,
};
use crate::sync::step::Step;
use crate::time::{Timestamp, after, millis};
use crate::verify::{Check, CheckOutcome};

/// How long a write waits before it is repeated: one key takes one write a second.
///
/// Source: Workers KV, limits, 2026-09-05: "1 write/s per key (429 error)".
const WRITE_AGAIN: std::time::Duration = std::time::Duration::from_millis(1_100);

/// Keys that one bulk read takes.
///
/// Source: Workers KV, limits, 2026-09-05: "bulk get ≤ 100 keys".
pub const KEYS_PER_READ: usize = 100;

/// A record could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The store did not answer.
    #[error("{0}")]
    Store(#[from] StoreFailure),
    /// The record was written by a newer version.
    #[error(
        "read {key}: it has format {found}, and this version knows {FORMAT}; deploy the newer \
         version again"
    )]
    Newer {
        /// Which.
        key: String,
        /// Its format.
        found: u64,
    },
    /// The record is not one of ours.
    #[error("read {key}: {problem}")]
    Unreadable {
        /// Which.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// Returns the key of a pair's checkpoint.
pub fn checkpoint_key(pair: &PairName) -> String {
    format!("checkpoint/{pair}")
}

/// Returns the key of a run's result.
pub fn result_key(pair: &PairName, run: &RunId) -> String {
    format!("result/{pair}/{run}")
}

/// Returns the key of a notice; its id is `<pair>/<run>/<kind>`.
pub fn notice_key(id: &str) -> String {
    format!("notice/{id}")
}

/// Returns how long the store keeps a record after its last write; `None` for ever.
///
/// What is for people, notices, results and what was pruned, is looked up for a year and a month.
/// An order to cancel, and a request that may be repeated, mean something for as long as a run may
/// take, many times over. That a run was accepted counts until the next has told what became of it.
/// There is one of each of the others for a pair, or for a backup that is there, which counts as
/// verified by it: those go with what they are about.
pub fn lifetime(key: &str) -> Option<std::time::Duration> {
    let days = match key.split('/').next()? {
        "notice" | "result" | "prune" => 400,
        "accepted" => 30,
        "cancel" | "request" => 7,
        _ => return None,
    };
    Some(std::time::Duration::from_hours(days * 24))
}

/// Returns the key of what a run pruned.
pub fn prune_key(pair: &PairName, run: &RunId) -> String {
    format!("prune/{pair}/{run}")
}

/// Returns the key of a pair's hold.
pub fn hold_key(pair: &PairName) -> String {
    format!("hold/{pair}")
}

/// Returns the key of a pair's incident, the last one where none is open.
pub fn incident_key(pair: &PairName) -> String {
    format!("incident/{pair}")
}

/// Returns the key that says who knows of a pair's incident.
pub fn acknowledged_key(pair: &PairName) -> String {
    format!("acknowledged/{pair}")
}

/// What a run did, as it is kept and as `GET /runs/{id}` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The version of this shape.
    pub format: u32,
    /// Whose run.
    pub pair: PairName,
    /// Which run.
    pub run: RunId,
    /// How it stands.
    pub status: RunStatus,
    /// How far it was to go.
    pub goal: Goal,
    /// Whether a person started it.
    pub is_manual: bool,
    /// When it started.
    #[serde(with = "millis")]
    pub started_at: Timestamp,
    /// When it ended; missing while it is under way.
    #[serde(with = "millis::option")]
    pub ended_at: Option<Timestamp>,
    /// The step it is at, or ended at.
    pub step: Step,
    /// Why it did not succeed.
    pub reason: Option<String>,
    /// The page of `runbooks/` to open.
    pub runbook: Option<String>,
    /// What staging holds, as observed at the end.
    pub staging: Option<String>,
    /// The backup, once made.
    pub backup: Option<ReportedBackup>,
    /// The branch that holds what staging held before.
    pub displaced: Option<BranchName>,
    /// Why staging was kept.
    pub hold: Option<Hold>,
    /// Every step with its times and attempts.
    pub steps: Vec<StepRecord>,
    /// What was compared.
    pub compared: Compared,
    /// How many checks went how.
    #[serde(default)]
    pub outcomes: BTreeMap<CheckOutcome, usize>,
    /// Every check; what did not hold first.
    #[serde(with = "checks")]
    pub checks: Vec<Check>,
    /// What became of passwords.
    pub passwords: Passwords,
    /// What people should know although it stopped nothing.
    pub warnings: Vec<String>,
    /// What went wrong on the way.
    pub errors: Vec<RecordedError>,
    /// Ticks that drove it.
    pub tick_count: u32,
    /// What was pruned; kept under a key of its own, because it comes after the verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prune: Option<Prune>,
}

/// The backup in a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportedBackup {
    /// Its id.
    pub id: BranchId,
    /// Its name.
    pub name: BranchName,
    /// Where in production it begins.
    pub lsn: Option<Lsn>,
    /// Whether this run read it without objection.
    pub is_verified: bool,
}

/// How much was compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// Tables.
    pub tables: usize,
    /// Rows.
    pub rows: u64,
    /// Bytes of those tables in the backup.
    pub bytes: u64,
}

impl Report {
    /// Writes the report of a run as it stands.
    pub fn of(checkpoint: &Checkpoint) -> Self {
        let verdict = checkpoint.verdict.as_ref();
        let fingerprint = checkpoint.fingerprint.as_ref();
        Self {
            format: FORMAT,
            pair: checkpoint.pair.clone(),
            run: checkpoint.run.clone(),
            status: checkpoint.status(),
            goal: checkpoint.goal,
            is_manual: checkpoint.is_manual,
            started_at: checkpoint.started_at,
            ended_at: verdict.map(|verdict| verdict.at),
            step: verdict.map_or(checkpoint.step, |verdict| verdict.step),
            reason: verdict.and_then(|verdict| verdict.reason.clone()),
            runbook: verdict.and_then(|verdict| verdict.runbook.clone()),
            staging: verdict.map(|verdict| verdict.staging.clone()),
            backup: checkpoint.backup.as_ref().map(|backup| ReportedBackup {
                id: backup.id.clone(),
                name: backup.name.clone(),
                lsn: backup.lsn,
                is_verified: backup.is_verified,
            }),
            displaced: checkpoint.restore.as_ref().map(|restore| restore.displaced_name.clone()),
            hold: checkpoint.hold.clone(),
            steps: checkpoint.steps.clone(),
            compared: fingerprint.map_or_else(Compared::default, |print| Compared {
                tables: print.table_count(),
                rows: print.row_count(),
                bytes: print.bytes(),
            }),
            outcomes: counted(&checkpoint.checks),
            checks: sorted(&checkpoint.checks),
            passwords: checkpoint.passwords.clone(),
            warnings: checkpoint.warnings.clone(),
            errors: checkpoint.errors.clone(),
            tick_count: checkpoint.tick_count,
            prune: checkpoint.prune.is_done.then(|| checkpoint.prune.clone()),
        }
    }

    /// Writes the report of a day on which no run was started.
    pub fn of_missed_day(pair: &Pair, run: &RunId, now: Timestamp) -> Self {
        Self {
            format: FORMAT,
            pair: pair.name.clone(),
            run: run.clone(),
            status: RunStatus::Missed,
            goal: Goal::Staging,
            is_manual: false,
            started_at: now,
            ended_at: Some(now),
            step: Step::Preflight,
            reason: Some(format!(
                "no tick between {} and {} {}",
                pair.times.start_at, pair.times.catch_up_until, pair.zone_label
            )),
            runbook: Some("run-failed.md".to_owned()),
            staging: Some("Staging is untouched.".to_owned()),
            backup: None,
            displaced: None,
            hold: None,
            steps: Vec::new(),
            compared: Compared::default(),
            outcomes: BTreeMap::new(),
            checks: Vec::new(),
            passwords: Passwords::default(),
            warnings: Vec::new(),
            errors: Vec::new(),
            tick_count: 0,
            prune: None,
        }
    }

    /// Writes the report of a manual run whose place another run took before its result was stored.
    /// `told` is how people were told that it ended, if they were.
    pub fn of_overtaken_run(
        pair: &Pair,
        run: &RunId,
        by: &RunId,
        told: Option<RunStatus>,
        now: Timestamp,
    ) -> Self {
        let reason = match told {
            None => format!("run {by} took its place before it ended; what it had made is kept"),
            Some(_) => format!("run {by} took its place before more than its notice was stored"),
        };
        Self {
            status: told.unwrap_or(RunStatus::Superseded),
            is_manual: true,
            started_at: run.started_at().unwrap_or(now),
            reason: Some(reason),
            staging: Some(format!("What staging holds is told by run {by}.")),
            ..Self::of_missed_day(pair, run, now)
        }
    }

    /// Returns the few facts that a listing shows.
    pub fn metadata(&self) -> Metadata {
        Metadata {
            status: self.status.as_str().to_owned(),
            started_at: crate::time::render(self.started_at),
            ended_at: self.ended_at.map(crate::time::render).unwrap_or_default(),
            reason: String::new(),
        }
    }
}

/// Counts checks by their outcome.
fn counted(checks: &[Check]) -> BTreeMap<CheckOutcome, usize> {
    let mut counts = BTreeMap::new();
    for check in checks {
        *counts.entry(check.outcome).or_default() += 1;
    }
    counts
}

/// Puts what did not hold first, otherwise in the order in which it was checked.
fn sorted(checks: &[Check]) -> Vec<Check> {
    let mut checks = checks.to_vec();
    ordered::sort_by_key(&mut checks, |check| check.outcome);
    checks
}

/// Decodes a record; a format newer than ours is refused.
///
/// # Errors
///
/// When it was written by a newer version, or is not one of ours.
pub fn decode<T: DeserializeOwned>(key: &str, text: &str) -> Result<T, RecordError> {
    let unreadable = |problem: String| RecordError::Unreadable { key: key.to_owned(), problem };
    // The version first: what a newer one means by its fields is not ours to guess.
    let found = version(text).map_err(|error| unreadable(format!("{:?}", error.classify())))?;
    if found > u64::from(FORMAT) {
        return Err(RecordError::Newer { key: key.to_owned(), found });
    }
    serde_json::from_str(text).map_err(|error| unreadable(error.to_string()))
}

/// Decodes a record that can be made again: one that makes no sense is as good as lost, `None`.
///
/// # Errors
///
/// When it was written by a newer version, whose it still is.
pub fn decode_or_lose<T: DeserializeOwned>(
    key: &str,
    text: &str,
) -> Result<Option<T>, RecordError> {
    match decode(key, text) {
        Ok(record) => Ok(Some(record)),
        Err(RecordError::Unreadable { .. }) => Ok(None),
        Err(error @ (RecordError::Newer { .. } | RecordError::Store(_))) => Err(error),
    }
}

/// Returns the version of a record, ours where it names none, and reads no further than that.
fn version(text: &str) -> Result<u64, serde_json::Error> {
    let mut found = None;
    let read = serde_json::Deserializer::from_str(text).deserialize_map(FindVersion(&mut found));
    found.map_or_else(|| read.map(|()| u64::from(FORMAT)), Ok)
}

/// Looks for the part of a record that every version has.
struct FindVersion<'a>(&'a mut Option<u64>);

impl<'de> Visitor<'de> for FindVersion<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            if name == "format" {
                *self.0 = Some(map.next_value()?);
                return Err(de::Error::custom("the rest is not read"));
            }
            map.next_value::<de::IgnoredAny>()?;
        }
        Ok(())
    }
}

/// Encodes a record.
///
/// # Panics
///
/// Never: records are plain data whose keys are texts.
pub fn encode<T: Serialize>(record: &T) -> String {
    serde_json::to_string(record).expect("records are plain data")
}

/// Writes a record; a write that is refused as too fast is repeated once, where the caller has room
/// for it.
///
/// # Errors
///
/// When the store refused, twice where there was room, or did not answer.
pub async fn write<W: Store + Clock>(
    world: &W,
    key: &str,
    value: &str,
    metadata: Option<Metadata>,
    has_room: impl Fn() -> bool,
) -> Result<(), StoreFailure> {
    match world.write(key, value, metadata.clone()).await {
        Err(StoreFailure::TooFast) if has_room() => {
            world.sleep(after(world.now(), WRITE_AGAIN)).await;
            world.write(key, value, metadata).await
        }
        result => result,
    }
}

/// Returns the keys of what may have been told of a run.
pub fn notice_keys(pair: &PairName, run: &RunId) -> impl Iterator<Item = String> {
    let stem = notice_key(&format!("{pair}/{run}/"));
    NoticeKind::OF_RUN.iter().map(move |kind| format!("{stem}{}", kind.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::checkpoint::Hold;

    fn hold(text: &str) -> Result<Hold, RecordError> {
        decode("hold/hub", text)
    }

    #[test]
    fn what_people_look_up_is_kept_for_longer_than_a_year_and_what_backups_need_for_ever() {
        let (pair, run) = (PairName::from("hub"), RunId::decode("20261121").expect("a date"));
        let days = |key: &str| lifetime(key).map(|kept| kept.as_secs() / 86_400);
        for key in
            [notice_key("hub/20261121/failed"), result_key(&pair, &run), prune_key(&pair, &run)]
        {
            assert_eq!(days(&key), Some(400), "{key}");
        }
        assert_eq!(days(&accepted_key(&pair, run.as_str())), Some(30));
        assert_eq!(
            (days(&cancel_key(&pair, &run)), days(&request_key(&pair, "4711"))),
            (Some(7), Some(7))
        );
        let of_pair =
            [checkpoint_key, hold_key, incident_key, acknowledged_key].map(|key| key(&pair));
        let of_backup = [backup_key, pin_key, snapshot_key].map(|key| key(&pair, &run));
        assert!(
            of_pair
                .iter()
                .chain(&of_backup)
                .chain([&CHANNELS_KEY.to_owned()])
                .all(|key| lifetime(key).is_none())
        );
    }

    #[test]
    fn a_record_of_a_newer_version_is_refused_whatever_else_it_holds() {
        let newer = RecordError::Newer { key: "hold/hub".to_owned(), found: 2 };
        assert_eq!(hold(r#"{"format":2,"reason":"demo"}"#), Err(newer.clone()));
        assert_eq!(hold(r#"{"reason":{"text":"demo"},"format":2}"#), Err(newer.clone()));
        assert_eq!(
            hold(r#"{"format":2,"rea"#),
            Err(newer),
            "cut, and ours to leave alone all the same"
        );
    }

    #[test]
    fn a_record_that_names_no_version_is_ours_and_one_that_makes_no_sense_is_unreadable() {
        let demo = Hold { reason: "demo".to_owned(), until: None };
        assert_eq!(hold(r#"{"reason":"demo"}"#), Ok(demo.clone()));
        assert_eq!(hold(r#"{"f\u006frmat":1,"reason":"demo"}"#), Ok(demo));
        for text in [
            "",
            "[]",
            "null",
            r#"{"format":"2","reason":"demo"}"#,
            r#"{"format":1}"#,
            r#"{"format":1,"reason":"demo""#,
        ] {
            assert!(matches!(hold(text), Err(RecordError::Unreadable { .. })), "{text}");
        }
    }
}
