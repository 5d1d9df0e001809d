//! How large a piece of reading is: sized by the time that the one before it took.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a piece is to take. A tick hands over between pieces, so this is how far it overshoots its
/// time.
const PIECE_TIME: Duration = Duration::from_secs(15);

/// Bytes of the first pieces: 1.3 s at 200 MB/s, and within a statement's time at 2 MB/s.
pub(super) const FIRST_PIECE: u64 = 256 << 20;

/// Bytes of the smallest piece: one block.
const SMALLEST_PIECE: u64 = 8192;

/// How much larger or smaller a piece may be than the one before.
const PACE_STEP: u64 = 4;

/// How much smaller the pieces are after one that took too long.
const SLOWER: u64 = 8;

/// How often staging is listed again because a table of it was altered or dropped while it was
/// read.
const RELISTED: u32 = 3;

/// How often a table is tried that is refused alone, while others are answered: with the waits
/// between two attempts, for two minutes.
const TRIES: u32 = 6;

/// How often one is tried that somebody has locked: for ten minutes, because that is what a
/// migration takes.
const TRIES_OF_A_LOCKED_ONE: u32 = 14;

/// How fast a database is read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// Bytes of the next piece; 0 before the first.
    piece_bytes: u64,
    spent_ms: u64,
    /// Whether a piece took too long: ranges of the backup are then cut, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_slow: bool,
    /// How often staging was listed again because a table was not as it was.
    #[serde(default)]
    relisted: u32,
    /// Tables that were in a piece that failed.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) suspects: BTreeSet<String>,
    /// How often a table was refused alone with an error that may pass.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    tries: BTreeMap<String, u32>,
}

impl Pace {
    /// Returns how long was read so far.
    pub fn spent(&self) -> Duration {
        Duration::from_millis(self.spent_ms)
    }

    /// Returns the bytes of the next piece.
    pub(super) fn size(&self) -> u64 {
        if self.piece_bytes == 0 { FIRST_PIECE } else { self.piece_bytes }
    }

    /// Learns from a piece. One that was much smaller than it might have been says little.
    pub(super) fn learn(&mut self, bytes: u64, took: Duration) {
        let size = self.size();
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
        if bytes < size / 2 && took < PIECE_TIME {
            return;
        }
        let target_ms = u64::try_from(PIECE_TIME.as_millis()).unwrap_or(u64::MAX);
        let wanted = share(bytes, target_ms, took_ms);
        self.piece_bytes =
            wanted.clamp(size / PACE_STEP, size.saturating_mul(PACE_STEP)).max(SMALLEST_PIECE);
    }

    /// Counts that a table was refused alone, and returns whether it is tried again.
    ///
    /// # Source
    ///
    /// PostgreSQL, appendix A: 55P03 `lock_not_available`, 55006 `object_in_use`; class 40 is
    /// "Transaction Rollback".
    pub(super) fn may_try(&mut self, table: &str, state: &str) -> bool {
        let is_locked = matches!(state, "55P03" | "55006") || state.starts_with("40");
        let tries = self.tries.entry(table.to_owned()).or_default();
        *tries += 1;
        *tries < if is_locked { TRIES_OF_A_LOCKED_ONE } else { TRIES }
    }

    /// Returns whether it is worth listing the tables again, because one of them was not as it was.
    pub fn relist(&mut self) -> bool {
        self.relisted += 1;
        self.relisted <= RELISTED
    }

    /// Counts time that was spent reading, once for pieces that were read at the same time.
    pub fn spend(&mut self, took: Duration) {
        self.spent_ms += u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    }

    /// Pieces of which the largest has so many bytes took too long: the next ones are smaller.
    pub fn slow_down(&mut self, bytes: u64) {
        let size = self.size().min(bytes.max(SMALLEST_PIECE));
        self.piece_bytes = (size / SLOWER).max(SMALLEST_PIECE);
        self.is_slow = true;
    }
}

/// Returns `whole × part ÷ of`.
pub(super) fn share(whole: u64, part: u64, of: u64) -> u64 {
    let share = u128::from(whole) * u128::from(part) / u128::from(of.max(1));
    u64::try_from(share).unwrap_or(u64::MAX)
}
