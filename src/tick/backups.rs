//! Puts on record what is known of backups and their snapshots, and what was pruned.
//!
//! Failure: nothing here ends a run. What the store does not take is logged, and either tried again
//! by the next run or found out anew.

use super::Context;
use crate::config::{NoticeKind, Pair};
use crate::id::RunId;
use crate::port::{Clock as _, Level, Store as _, World};
use crate::record::{self, Compared, TakenSnapshot, VerifiedBackup};
use crate::sync::checkpoint::{Checkpoint, FORMAT};
use crate::sync::machine::Outcome;
use crate::sync::notice;

impl<W: World> Context<'_, W> {
    /// Records that the backup of this run was read without objection.
    pub(super) async fn store_verified(&self, checkpoint: &Checkpoint) {
        let (Some(backup), Some(print)) = (&checkpoint.backup, &checkpoint.fingerprint) else {
            return;
        };
        let record = VerifiedBackup {
            format: FORMAT,
            id: backup.id.clone(),
            name: backup.name.clone(),
            verified_at: self.world.now(),
            compared: Compared {
                tables: print.table_count(),
                rows: print.row_count(),
                bytes: print.bytes(),
            },
            counts: print.counts(),
            people: checkpoint.people.clone(),
        };
        let key = record::backup_key(&checkpoint.pair, &checkpoint.run);
        if let Err(error) = self.write(&key, &record::encode(&record), None).await {
            self.log(
                Level::Warn,
                "backup not recorded as verified",
                &[("key", key), ("error", error.to_string())],
            );
        }
    }

    /// Records what is known of the snapshot, and tells people when it is not what it should be.
    ///
    /// # Repeating
    ///
    /// The record is replaced; a notice has the same id each time.
    pub(super) async fn note_snapshot(&self, pair: &Pair, checkpoint: &Checkpoint) -> Outcome {
        let Some(work) = &checkpoint.prune.snapshot else {
            return Outcome::SnapshotNoted(true, Vec::new());
        };
        let (key, record) = (
            record::snapshot_key(&pair.name, &checkpoint.run),
            TakenSnapshot { format: FORMAT, work },
        );
        let stored = self.write(&key, &record::encode(&record), Some(record.facts())).await;
        if let Err(error) = &stored {
            self.log(
                Level::Warn,
                "snapshot not recorded",
                &[("key", key), ("error", error.to_string())],
            );
            return Outcome::SnapshotNoted(false, Vec::new());
        }
        let now = self.world.now();
        let waiting = match notice::of_snapshot(checkpoint, pair, &self.config.label, now) {
            Some(notice) => {
                self.log(
                    Level::Warn,
                    "snapshot told",
                    &[("run", checkpoint.run.to_string()), ("text", notice.text.clone())],
                );
                let is_verified = notice.kind == NoticeKind::SnapshotVerified;
                let waiting = self.tell(notice, now).await;
                if is_verified {
                    self.resolve_by_snapshot(pair, checkpoint, now).await;
                }
                waiting
            }
            None => None,
        };
        Outcome::SnapshotNoted(true, waiting.into_iter().collect())
    }

    /// Removes what is on record of backups that are gone. What the store keeps is tried again by
    /// the next run.
    pub(super) async fn forget(&self, pair: &Pair, runs: &[RunId]) {
        for run in runs {
            for key in [
                record::snapshot_key(&pair.name, run),
                record::pin_key(&pair.name, run),
                record::backup_key(&pair.name, run),
            ] {
                if let Err(error) = self.world.remove(&key).await {
                    self.log(
                        Level::Warn,
                        "record not removed",
                        &[("key", key), ("error", error.to_string())],
                    );
                }
            }
        }
    }

    /// Records what was pruned, where there is something to say.
    pub(super) async fn store_pruned(&self, checkpoint: &Checkpoint) {
        let prune = &checkpoint.prune;
        for (name, reason) in &prune.skipped {
            self.log(
                Level::Warn,
                "not pruned",
                &[("name", name.clone()), ("reason", reason.clone())],
            );
        }
        // The last save may go without its repetition for this: a prune that is not known to be
        // done is done again, and finds nothing.
        if !self.has_room(0) {
            return;
        }
        let key = record::prune_key(&checkpoint.pair, &checkpoint.run);
        if let Err(error) = self.write(&key, &record::encode(prune), None).await {
            self.log(
                Level::Warn,
                "pruning not recorded",
                &[("key", key), ("error", error.to_string())],
            );
        }
    }
}
