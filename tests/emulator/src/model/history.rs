//! Where the data of each branch was at which time, and which points of it a request may ask for.
//!
//! In: positions as they are seen. Out: the position that a point means, or the 400 of Neon.
//!
//! Invariants: a position that was never the head, one of before the data began, and one that has
//! left the history window are refused by the request itself, never by the operation after it.
//!
//! Source: Neon API v2, `BranchCreateRequest`, and Neon, restore window, 2026-09-24: a point "must
//! fall within the restore window"; `@neon/sdk` 6.1.2: 0 seconds of history switch it off.
//! UNVERIFIED: the words.

use std::collections::BTreeMap;

use chrono::TimeDelta;

use super::{ApiError, Branch, Lsn, Model, Point, Timestamp};

/// Positions that are kept of each data: a day at one a second.
const KEPT: usize = 86_400;

/// Where data was when, by data, oldest first. The first is where it forked from its source.
pub(super) type History = BTreeMap<String, Vec<(Timestamp, Lsn)>>;

impl Model {
    /// Notes where data is now.
    pub fn saw(&mut self, data: &str, at: Timestamp, lsn: Lsn) {
        let seen = self.history.entry(data.to_owned()).or_default();
        if seen.last().is_some_and(|(_, last)| *last >= lsn) {
            return;
        }
        if seen.len() == KEPT {
            seen.remove(1);
        }
        seen.push((at, lsn));
    }

    /// Forgets data that is gone.
    pub fn forget_history(&mut self, data: &str) {
        self.history.remove(data);
    }

    /// Returns the point as a position where that is known.
    ///
    /// # Errors
    ///
    /// 400 where the point is outside the history window of the branch.
    pub(super) fn locate(
        &self,
        branch: &Branch,
        point: Point,
        prefix: &str,
        now: Timestamp,
    ) -> Result<Point, ApiError> {
        let what = match point {
            Point::Head => return Ok(point),
            Point::Time(_) => "timestamp",
            Point::Lsn(_) => "lsn",
        };
        let outside =
            || ApiError::new(400, "", format!("{prefix}{what} is not within the history window"));
        let oldest = now - TimeDelta::seconds(self.history_seconds);
        if self.history_seconds == 0 || matches!(point, Point::Time(at) if at > now || at < oldest)
        {
            return Err(outside());
        }
        // Without data of its own, a model knows of no positions.
        let Some(seen) = self.history.get(&branch.data) else { return Ok(point) };
        let passed =
            |at: Timestamp| seen.iter().rev().find(|(when, _)| *when <= at).map(|(_, lsn)| *lsn);
        match point {
            Point::Head => Ok(point),
            Point::Time(at) => passed(at).map(Point::Lsn).ok_or_else(outside),
            Point::Lsn(lsn) => {
                let begins = passed(oldest).or_else(|| seen.first().map(|(_, lsn)| *lsn));
                let is_inside = begins.is_some_and(|begins| begins <= lsn)
                    && seen.last().is_some_and(|(_, head)| lsn <= *head);
                if is_inside { Ok(point) } else { Err(outside()) }
            }
        }
    }
}
