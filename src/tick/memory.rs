//! What is remembered of a pair, read at the beginning of a tick.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::Context;
use crate::config::Pair;
use crate::id::RunId;
use crate::port::World;
use crate::record::{self, KEYS_PER_READ, RecordError};
use crate::sync::checkpoint::{Checkpoint, Hold};
use crate::sync::notice::{Notice, NoticeKind, Outgoing};
use crate::sync::schedule::{self, Day};
use crate::time::{Timestamp, between};

/// How long what people were told of a manual run is looked at again. A scheduled run's is read all day.
const MANUAL_IS_RECENT: Duration = Duration::from_hours(1);

/// Everything that is remembered of a pair, from one read.
pub(super) struct Memory {
    pub(super) day: Day,
    pub(super) checkpoint: Option<Checkpoint>,
    /// Whether today's run has a result.
    pub(super) is_ended: bool,
    pub(super) hold: Option<Hold>,
    /// Notices that some channel has not taken.
    pub(super) notices: Vec<Outgoing>,
    /// The ids of notices that every channel has taken.
    pub(super) delivered: Vec<String>,
    /// Notices that every channel has taken, which only the checkpoint knows so far.
    pub(super) taken: Vec<Outgoing>,
    /// Successes that were told beside something that says the opposite.
    pub(super) contradicted: Vec<Contradiction>,
    /// Whether people were told that today's run is late.
    pub(super) is_late_told: bool,
    /// Yesterday, when the pair was there and no run of that date was started or told as missed.
    pub(super) unjudged: Option<Day>,
}

/// A result, of which only its being there and its version matter here.
#[derive(Deserialize)]
struct Ended {}

/// A run was told as a success, and as something else by a tick that did not know of it.
pub(super) struct Contradiction {
    pub(super) success: Notice,
    pub(super) others: Vec<NoticeKind>,
}

impl<W: World> Context<'_, W> {
    /// Reads what is remembered of every pair, in one request for up to five pairs. A record that cannot be read stops its own pair only.
    pub(super) async fn load(&self, now: Timestamp) -> Result<Vec<Result<Memory, (RecordError, bool)>>, RecordError> {
        let mut keys = Vec::new();
        for pair in &self.config.pairs {
            keys.extend([record::checkpoint_key(&pair.name), record::hold_key(&pair.name)]);
            for day in [schedule::today(pair, now), schedule::yesterday(pair, now)] {
                keys.push(record::result_key(&pair.name, &day.run));
                keys.extend(record::notice_keys(&pair.name, &day.run));
            }
        }
        let mut found = self.read_all(&keys).await?;
        // Notices of a manual run, or of yesterday's, are known from the checkpoint alone.
        let mut more = Vec::new();
        let mut checkpoints = Vec::new();
        for pair in &self.config.pairs {
            let checkpoint: Result<Option<Checkpoint>, RecordError> = decode_found(&found, &record::checkpoint_key(&pair.name));
            if let Ok(Some(checkpoint)) = &checkpoint {
                more.extend(checkpoint.outbox.iter().map(|id| record::notice_key(id)).filter(|key| !found.contains_key(key)));
                more.extend(notices_of_manual_run(pair, checkpoint, now));
            }
            checkpoints.push(checkpoint);
        }
        found.extend(self.read_all(&more).await?);
        let told = |pair: &Pair| {
            let run = schedule::today(pair, now).run;
            let key = record::notice_key(&format!("{}/{run}/{}", pair.name, NoticeKind::Stuck.as_str()));
            found.get(&key).is_some_and(Option::is_some)
        };
        let pairs = self.config.pairs.iter().zip(checkpoints);
        Ok(pairs.map(|(pair, checkpoint)| memory(pair, checkpoint, &found, now).map_err(|error| (error, told(pair)))).collect())
    }

    async fn read_all(&self, keys: &[String]) -> Result<BTreeMap<String, Option<String>>, RecordError> {
        use crate::port::Store as _;
        let mut found = BTreeMap::new();
        for chunk in keys.chunks(KEYS_PER_READ) {
            found.extend(self.world.read(chunk).await?);
        }
        Ok(found)
    }
}

/// Returns the keys of what may have been told of a manual run that has ended just now.
fn notices_of_manual_run(pair: &Pair, checkpoint: &Checkpoint, now: Timestamp) -> Vec<String> {
    let ended_at = checkpoint.verdict.as_ref().map(|verdict| verdict.at);
    let is_recent = checkpoint.is_manual && ended_at.is_some_and(|at| between(at, now) < MANUAL_IS_RECENT);
    if is_recent { record::notice_keys(&pair.name, &checkpoint.run).collect() } else { Vec::new() }
}

fn decode_found<T: serde::de::DeserializeOwned>(found: &BTreeMap<String, Option<String>>, key: &str) -> Result<Option<T>, RecordError> {
    found.get(key).and_then(Option::as_ref).map(|text| record::decode(key, text)).transpose()
}

/// Puts together what is remembered of a pair.
fn memory(
    pair: &Pair,
    checkpoint: Result<Option<Checkpoint>, RecordError>,
    found: &BTreeMap<String, Option<String>>,
    now: Timestamp,
) -> Result<Memory, RecordError> {
    let day = schedule::today(pair, now);
    let checkpoint = checkpoint?;
    let hold: Option<Hold> = decode_found(found, &record::hold_key(&pair.name))?;
    let prefix = record::notice_key(&format!("{}/", pair.name));
    let (mut notices, mut delivered, mut taken, mut told) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for key in found.keys().filter(|key| key.starts_with(&prefix)) {
        let Some(outgoing) = decode_found::<Outgoing>(found, key)? else { continue };
        told.push(outgoing.notice.clone());
        // The checkpoint of the same run knows better: a notice that it does not list was taken.
        let is_taken = checkpoint.as_ref().is_some_and(|checkpoint| {
            checkpoint.run == outgoing.notice.run && checkpoint.is_published && !checkpoint.outbox.contains(&outgoing.notice.id)
        });
        match (outgoing.is_delivered(), is_taken) {
            (true, _) => delivered.push(outgoing.notice.id),
            (false, true) => taken.push(outgoing),
            (false, false) => notices.push(outgoing),
        }
    }
    let late = record::notice_key(&format!("{}/{}/{}", pair.name, day.run, NoticeKind::Late.as_str()));
    let yesterday = schedule::yesterday(pair, now);
    let is_told = found.get(&record::result_key(&pair.name, &yesterday.run)).is_some_and(Option::is_some);
    // A pair that was not there yesterday has missed nothing; its first checkpoint tells.
    let was_there = checkpoint.as_ref().is_some_and(|last| last.started_at < yesterday.start_at && last.run != yesterday.run);
    Ok(Memory {
        unjudged: (!is_told && was_there).then_some(yesterday),
        is_late_told: found.get(&late).is_some_and(Option::is_some),
        is_ended: decode_found::<Ended>(found, &record::result_key(&pair.name, &day.run))?.is_some(),
        hold: hold.filter(|hold| hold.is_in_force(now)),
        day,
        checkpoint,
        notices,
        delivered,
        taken,
        contradicted: contradictions(&told),
    })
}

/// Finds the runs of which people were told a success and its opposite, and that nobody has corrected.
fn contradictions(told: &[Notice]) -> Vec<Contradiction> {
    let of = |run: &RunId| told.iter().filter(|notice| notice.run == *run).map(|notice| notice.kind).collect::<Vec<_>>();
    let successes = told.iter().filter(|notice| notice.kind == NoticeKind::Succeeded);
    let contradicted = successes.filter_map(|success| {
        let mut others = of(&success.run);
        if others.contains(&NoticeKind::Corrected) {
            return None;
        }
        others.retain(|kind| kind.is_opposite_of_success());
        (!others.is_empty()).then(|| Contradiction { success: success.clone(), others })
    });
    contradicted.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::checkpoint::tests::started;
    use crate::sync::checkpoint::{RunStatus, Verdict};
    use crate::sync::schedule::tests::pair;
    use crate::sync::step::Step;

    #[test]
    fn what_was_told_of_a_manual_run_is_looked_at_for_an_hour_after_its_end() {
        let at = |text: &str| text.parse::<Timestamp>().expect("an instant");
        let run = RunId::decode("20261121T143000Z").expect("an instant");
        let running = Checkpoint { run, is_manual: true, ..started() };
        let (at_end, status, staging) = (at("2026-11-21T14:31:00Z"), RunStatus::Succeeded, String::new());
        let verdict = Verdict { status, at: at_end, step: Step::Prune, reason: None, runbook: None, staging };
        let ended = Checkpoint { verdict: Some(verdict), ..running.clone() };
        let count = |checkpoint: &Checkpoint, now: &str| notices_of_manual_run(&pair(), checkpoint, at(now)).len();
        assert_eq!(count(&ended, "2026-11-21T15:30:59.999Z"), NoticeKind::ALL.len());
        assert_eq!(count(&ended, "2026-11-21T15:31:00Z"), 0);
        assert_eq!(count(&running, "2026-11-21T14:31:00Z"), 0);
        assert_eq!(count(&Checkpoint { is_manual: false, ..ended }, "2026-11-21T14:32:00Z"), 0);
    }
}
