//! What is remembered of backups: that they were read, their pins, their snapshots.

use crate::ordered::IntoOrdered as _;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Compared, KEYS_PER_READ, accepted_key, decode, result_key};
use crate::id::{BranchId, BranchName, PairName, RunId, SnapshotId};
use crate::port::{Metadata, Store, StoreFailure};
use crate::retention::{Known, Pin, Records, SnapshotRecord};
use crate::sync::checkpoint::SnapshotWork;
use crate::sync::machine::Ledger;
use crate::time::{Timestamp, millis, read_instant};
use crate::verify::Counts;

/// Pages of the listing of backups: with a record, a snapshot and a pin for each, a page of 1,000
/// keys is most of a year at least.
const PAGES_OF_BACKUPS: u32 = 5;

/// Returns the key of a backup's record.
pub fn backup_key(pair: &PairName, run: &RunId) -> String {
    format!("backup/{pair}/{run}")
}

/// How the key of a pin ends, after that of the backup's record.
const PIN: &str = "/pin";

/// How the key of what is known of a snapshot ends, after that of the backup's record.
const SNAPSHOT: &str = "/snapshot";

/// Returns the key of what is known of a backup's snapshot.
pub fn snapshot_key(pair: &PairName, run: &RunId) -> String {
    format!("{}{SNAPSHOT}", backup_key(pair, run))
}

/// Returns what the keys of all records of a pair's backups begin with.
fn backup_prefix(pair: &PairName) -> String {
    format!("backup/{pair}/")
}

/// Returns the key of a pin.
pub fn pin_key(pair: &PairName, run: &RunId) -> String {
    format!("{}{PIN}", backup_key(pair, run))
}

/// The record of a backup that was read without objection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedBackup {
    /// The version of this shape.
    pub format: u32,
    /// Its id.
    pub id: BranchId,
    /// Its name.
    pub name: BranchName,
    /// When it was read.
    #[serde(with = "millis")]
    pub verified_at: Timestamp,
    /// What was read.
    pub compared: Compared,
    /// The rows of each table, beside which those of the next run are held.
    #[serde(default, skip_serializing_if = "Counts::is_empty")]
    pub counts: Counts,
    /// The people who had been given access to the project; missing where that was not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub people: Option<BTreeSet<String>>,
}

/// Reads what is on record of a pair's backups, and which manual runs were accepted and are not
/// struck off.
///
/// # Errors
///
/// When the store did not answer.
pub async fn ledger<W: Store>(world: &W, pair: &PairName) -> Result<Ledger, StoreFailure> {
    let prefix = accepted_key(pair, "");
    let accepted = world.list(&prefix, None).await?;
    let unfinished = accepted
        .keys
        .iter()
        .filter_map(|(key, _)| RunId::decode(key.strip_prefix(&prefix)?))
        .collect();
    Ok(Ledger { records: backups(world, pair).await?, unfinished, is_complete: false })
}

/// Reads what is on record of a pair's backups, in one request for each 1,000 records of backups,
/// snapshots and pins.
///
/// # Errors
///
/// When the store did not answer.
pub async fn backups<W: Store>(world: &W, pair: &PairName) -> Result<Records, StoreFailure> {
    let prefix = backup_prefix(pair);
    let mut records = Records::default();
    let mut cursor = None;
    for _ in 0..PAGES_OF_BACKUPS {
        let page = world.list(&prefix, cursor).await?;
        for (key, facts) in page.keys {
            let Some(rest) = key.strip_prefix(&prefix) else { continue };
            if let Some(run) = rest.strip_suffix(PIN) {
                records.pins.extend(RunId::decode(run).zip(facts.map(pin)));
            } else if let Some(run) = rest.strip_suffix(SNAPSHOT) {
                records
                    .snapshots
                    .extend(RunId::decode(run).zip(facts.and_then(|facts| snapshot(&facts))));
            } else {
                records.known.extend(RunId::decode(rest).map(|run| (run, Known::Verified)));
            }
        }
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
    }
    Ok(records)
}

/// Reads from the results of runs what became of their backups; nothing of a run whose result is
/// not there.
///
/// # Errors
///
/// When the store did not answer.
pub async fn endings<W: Store>(
    world: &W,
    pair: &PairName,
    runs: &[RunId],
) -> Result<BTreeMap<RunId, Known>, StoreFailure> {
    let keys: Vec<String> =
        runs.iter().take(KEYS_PER_READ).map(|run| result_key(pair, run)).collect();
    let found = world.read(&keys).await?;
    let endings = found.into_iter().filter_map(|(key, text)| decode::<EndedRun>(&key, &text?).ok());
    let known = |ended: EndedRun| {
        let is_verified = ended.backup?.is_verified;
        Some((ended.run, if is_verified { Known::Verified } else { Known::Unverified }))
    };
    Ok(endings.filter_map(known).into_map())
}

/// Returns the facts of a pin, which a listing shows.
pub fn facts_of_pin(pin: &Pin, now: Timestamp) -> Metadata {
    let until = pin.until.map(crate::time::render).unwrap_or_default();
    Metadata {
        status: "pinned".to_owned(),
        started_at: crate::time::render(now),
        ended_at: until,
        reason: pin.reason.clone(),
    }
}

/// Reads the facts of a pin. One whose end makes no sense has none.
fn pin(facts: Metadata) -> Pin {
    Pin { reason: facts.reason, until: read_instant(&facts.ended_at) }
}

/// What is known of the snapshot of a backup.
///
/// Shape:
/// `{"format":1,"name":"backup-20261121","slug":"firstlight-hub-20261121","lsn":"0/1DE2850","id":"snap-…","outcome":{"status":"verified",…},…}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TakenSnapshot<'a> {
    /// The version of this shape.
    pub format: u32,
    /// The snapshot, and what came of it; without an outcome it may not have been taken.
    #[serde(flatten)]
    pub work: &'a SnapshotWork,
}

impl TakenSnapshot<'_> {
    /// Returns the facts that a listing shows: whether it is verified, when the backup was made,
    /// its position, and its id.
    pub fn facts(&self) -> Metadata {
        let status = if self.work.is_verified() { VERIFIED } else { "unverified" };
        let id = self.work.id.as_ref().map(|id| format!(" {id}")).unwrap_or_default();
        let started_at = crate::time::render(self.work.made_at);
        Metadata {
            status: status.to_owned(),
            started_at,
            ended_at: String::new(),
            reason: format!("{}{id}", self.work.lsn),
        }
    }
}

/// How the facts of a snapshot call one that was restored and compared.
const VERIFIED: &str = "verified";

/// Reads the facts of a snapshot; `None` when they make no sense.
fn snapshot(facts: &Metadata) -> Option<SnapshotRecord> {
    let mut words = facts.reason.split(' ');
    let lsn = words.next().and_then(|lsn| lsn.parse().ok());
    let id = words.next().map(SnapshotId::from);
    let known = if facts.status == VERIFIED { Known::Verified } else { Known::Unverified };
    Some(SnapshotRecord { id, lsn, made_at: read_instant(&facts.started_at)?, known })
}

/// Of a result, what it says of the backup.
#[derive(Deserialize)]
struct EndedRun {
    run: RunId,
    backup: Option<EndedBackup>,
}

/// Whether the backup was read without objection.
#[derive(Deserialize)]
struct EndedBackup {
    is_verified: bool,
}
