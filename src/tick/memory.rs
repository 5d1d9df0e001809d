//! What is remembered of the pairs, read at the beginning of a tick.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::Context;
use super::waking::{self, Glance};
use crate::config::{NoticeKind, Pair};
use crate::id::{PairName, RunId};
use crate::ordered::IntoOrdered as _;
use crate::port::{Clock as _, Level, Store as _, World};
use crate::record::{self, Channels, KEYS_PER_READ, RecordError};
use crate::sync::checkpoint::{Checkpoint, History, Hold, RunStatus};
use crate::sync::incident::{Acknowledgement, Incident};
use crate::sync::notice::{Notice, Outgoing};
use crate::sync::schedule::{self, Day};
use crate::time::{Timestamp, between};

/// How long what people were told of a manual run is looked at again. A scheduled run's is read all
/// day.
const MANUAL_IS_RECENT: Duration = Duration::from_hours(1);

/// Everything that is remembered of a pair, from one read.
pub(super) struct Memory {
    pub(super) day: Day,
    pub(super) checkpoint: Option<Checkpoint>,
    /// What is remembered of the runs so far.
    pub(super) history: History,
    /// Whether today's run has a result.
    pub(super) is_ended: bool,
    pub(super) hold: Option<Hold>,
    /// Notices that every channel has taken, which only the checkpoint knows so far.
    pub(super) taken: Vec<Outgoing>,
    /// Successes that were told beside something that says the opposite.
    pub(super) contradicted: Vec<Contradiction>,
    /// What people were told of the runs of today and yesterday, and of a manual run that has just
    /// ended.
    pub(super) told: Vec<Notice>,
    /// Yesterday, when the pair was there and no run of that date was started or told as missed.
    pub(super) unjudged: Option<Day>,
    /// Whether nothing is due but notices and an escalation: the rest was not read.
    pub(super) is_asleep: bool,
}

/// What is known of a pair before the rest is read.
struct Known<'p> {
    pair: &'p Pair,
    checkpoint: Result<Option<Checkpoint>, RecordError>,
    incident: Option<Incident>,
    glance: Glance,
}

impl Known<'_> {
    /// Returns the keys of the notices that its records list.
    fn listed(&self, now: Timestamp) -> Vec<String> {
        let mut keys = Vec::new();
        if let Ok(Some(checkpoint)) = &self.checkpoint {
            keys.extend(checkpoint.outbox.iter().map(|id| record::notice_key(id)));
            keys.extend(notices_of_manual_run(self.pair, checkpoint, now));
        }
        if let Some(incident) = &self.incident {
            keys.extend(incident.outbox.iter().map(|id| record::notice_key(id)));
            keys.extend(incident.recent_notices(now).iter().map(|id| record::notice_key(id)));
        }
        keys
    }
}

impl Memory {
    /// Returns whether people were told this of today's run.
    pub(super) fn is_told(&self, kind: NoticeKind) -> bool {
        self.told.iter().any(|notice| notice.run == self.day.run && notice.kind == kind)
    }
}

/// What is remembered of one pair, or that it cannot be read.
pub(super) type Remembered = Result<Memory, Unreadable>;

/// A pair of which a record cannot be read.
pub(super) struct Unreadable {
    pub(super) error: RecordError,
    /// What people were told of the runs of today and yesterday.
    pub(super) told: Vec<Notice>,
}

/// The notices of a pair, by how far their delivery is.
#[derive(Default)]
struct Post {
    /// Every one.
    told: Vec<Notice>,
    /// Those that some channel has not taken.
    waiting: Vec<Outgoing>,
    /// Those that every channel has taken, which only the checkpoint knows so far.
    taken: Vec<Outgoing>,
}

/// A run was told as a success, and as something else by a tick that did not know of it.
pub(super) struct Contradiction {
    pub(super) success: Notice,
    pub(super) others: Vec<NoticeKind>,
}

/// What was read, by its key.
pub(super) type Found = BTreeMap<String, Option<String>>;

impl<W: World> Context<'_, W> {
    /// Reads what is remembered of every pair, as far as there may be something to do:
    /// [`super::waking`] says where. A record that cannot be read stops its own pair only.
    ///
    /// One request reads a hundred keys, and a tick makes three at most where that is enough.
    /// They are what is read of every pair, what that asks for, and everything of a pair that is
    /// woken by what is not there.
    pub(super) async fn load(&self, now: Timestamp) -> Result<Vec<Remembered>, RecordError> {
        let mut keys = vec![record::CHANNELS_KEY.to_owned()];
        for pair in &self.config.pairs {
            keys.extend([record::checkpoint_key(&pair.name), record::incident_key(&pair.name)]);
            if waking::is_starting(pair, now) {
                keys.extend(all_keys_of(pair, now));
            }
        }
        let mut found = self.read_all(&distinct(keys)).await?;
        self.take_channels(&found);
        let mut known: Vec<Known<'_>> =
            self.config.pairs.iter().map(|pair| self.know(pair, &found, now)).collect();
        // Notices of a manual run, of an incident or of a channel, and yesterday's, are known from
        // where they were told.
        let mut more: Vec<String> =
            self.desk.channels.borrow().outbox.iter().map(|id| record::notice_key(id)).collect();
        for known in &known {
            more.extend(known.listed(now));
            match &known.glance {
                Glance::Awake => more.extend(all_keys_of(known.pair, now)),
                Glance::Asleep { doubts, keys } => more.extend(doubts.iter().chain(keys).cloned()),
            }
        }
        self.read_more(&mut found, more).await?;
        let mut woken = Vec::new();
        for known in &mut known {
            let Glance::Asleep { doubts, .. } = &known.glance else { continue };
            let is_there = |key: &String| found.get(key).is_some_and(Option::is_some);
            if !doubts.iter().all(is_there) || incident(known.pair, &found).is_err() {
                known.glance = Glance::Awake;
                woken.extend(all_keys_of(known.pair, now));
            }
        }
        self.read_more(&mut found, woken).await?;
        Ok(known.into_iter().map(|known| self.remember(known, &found, now)).collect())
    }

    /// Says what is known of a pair from its checkpoint and its incident, and what is to be read
    /// beside them.
    fn know<'p>(&self, pair: &'p Pair, found: &Found, now: Timestamp) -> Known<'p> {
        let checkpoint = self.checkpoint(pair, found);
        let incident: Result<Option<Incident>, RecordError> =
            decode_found(found, &record::incident_key(&pair.name));
        if let Ok(Some(last)) = &checkpoint {
            self.desk.learn(last);
        }
        // A checkpoint that was there and is lost says nothing of what is due.
        let is_lost = matches!(&checkpoint, Ok(None))
            && found.get(&record::checkpoint_key(&pair.name)).is_some_and(Option::is_some);
        let mut glance = match (&checkpoint, &incident) {
            _ if is_lost => Glance::Awake,
            (Ok(checkpoint), Ok(incident)) => {
                waking::glance(pair, self.config, checkpoint.as_ref(), incident.as_ref(), now)
            }
            (Err(_), _) | (_, Err(_)) => Glance::Awake,
        };
        // What is configured and cannot be used is told with the first pair.
        let is_first = self.config.pairs.first().is_some_and(|first| first.name == pair.name);
        if let Glance::Asleep { doubts, .. } = &mut glance
            && is_first
            && !self.config.secret_problems(self.secrets).is_empty()
        {
            doubts.push(waking::misconfigured_key(pair, now));
        }
        Known { pair, checkpoint, incident: incident.ok().flatten(), glance }
    }

    /// Reads keys that were not read yet.
    async fn read_more(&self, found: &mut Found, mut keys: Vec<String>) -> Result<(), RecordError> {
        keys.retain(|key| !found.contains_key(key));
        found.extend(self.read_all(&distinct(keys)).await?);
        Ok(())
    }

    /// Reads what is remembered of the incident of one pair and of channels, for a run that no cron
    /// drives.
    pub(super) async fn load_desk(&self, pair: &Pair) -> Result<(), RecordError> {
        let (found, incident, notices) = self.read_incident(pair, None).await?;
        self.take_channels(&found);
        self.desk.incidents.borrow_mut().insert(pair.name.clone(), incident);
        for outgoing in &notices {
            self.desk.keep(outgoing);
        }
        Ok(())
    }

    /// Reads the incident of a pair, the notices that belong to it or were told of a run, and what
    /// was read with it: what is known of channels.
    pub(super) async fn read_incident(
        &self,
        pair: &Pair,
        run: Option<&RunId>,
    ) -> Result<(Found, Option<Incident>, Vec<Outgoing>), RecordError> {
        let mut keys = keys_of(pair).to_vec();
        keys.push(record::CHANNELS_KEY.to_owned());
        let found = self.read_all(&keys).await?;
        let incident = incident(pair, &found)?;
        let mut keys = Vec::new();
        if let Some(incident) = &incident {
            keys.extend(
                incident.outbox.iter().chain(&incident.joined).map(|id| record::notice_key(id)),
            );
        }
        if let Some(run) = run {
            keys.extend(record::notice_keys(&pair.name, run));
        }
        let notices = self.read_notices(keys).await?;
        Ok((found, incident, notices))
    }

    /// Reads notices, with who is remembered to have taken them.
    pub(super) async fn read_notices(
        &self,
        keys: Vec<String>,
    ) -> Result<Vec<Outgoing>, RecordError> {
        Ok(self.recalled(&self.read_all(&distinct(keys)).await?, self.world.now()))
    }

    /// Returns the notices among what was read, with who is remembered to have taken them. One that
    /// cannot be read stays as it is.
    pub(super) fn recalled(&self, found: &Found, now: Timestamp) -> Vec<Outgoing> {
        let keys = found.keys().filter(|key| key.starts_with("notice/"));
        let mut notices: Vec<Outgoing> =
            keys.filter_map(|key| decode_found(found, key).ok()?).collect();
        for outgoing in &mut notices {
            self.recall_taken(outgoing, now);
        }
        notices
    }

    /// Reads what is known of channels. Where the store does not answer, none is disabled.
    pub(super) async fn load_channels(&self) {
        if let Ok(found) = self.read_all(&[record::CHANNELS_KEY.to_owned()]).await {
            self.take_channels(&found);
        }
    }

    /// Puts together what is remembered of a pair.
    fn remember(&self, known: Known<'_>, found: &Found, now: Timestamp) -> Remembered {
        let Known { pair, checkpoint, glance, .. } = known;
        let post = post(
            pair,
            found,
            checkpoint.as_ref().ok().and_then(Option::as_ref),
            &self.desk.channels.borrow().outbox,
        );
        self.desk.found.borrow_mut().extend(post.told.iter().map(|notice| notice.id.clone()));
        self.desk.waiting.borrow_mut().extend(post.waiting);
        // Where nothing else can be read, people are told again all the same.
        let incident = incident(pair, found).map(|incident| {
            drop(self.desk.incidents.borrow_mut().insert(pair.name.clone(), incident));
        });
        let unreadable = |error| Unreadable { error, told: post.told.clone() };
        let memory = checkpoint
            .and_then(|checkpoint| incident.and_then(|()| memory(pair, found, checkpoint, now)))
            .map_err(unreadable)?;
        let is_asleep = glance != Glance::Awake;
        Ok(Memory {
            taken: post.taken,
            contradicted: contradictions(&post.told),
            told: post.told,
            is_asleep,
            ..memory
        })
    }

    /// Returns the checkpoint of a pair. One that makes no sense is as good as lost: its run is
    /// rebuilt from the names in Neon.
    fn checkpoint(&self, pair: &Pair, found: &Found) -> Result<Option<Checkpoint>, RecordError> {
        let key = record::checkpoint_key(&pair.name);
        let Some(text) = found.get(&key).and_then(Option::as_ref) else { return Ok(None) };
        let checkpoint = record::decode_or_lose(&key, text)?;
        if checkpoint.is_none() {
            let error = record::decode::<Checkpoint>(&key, text)
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default();
            self.log(
                Level::Error,
                "checkpoint rebuilt from the names in Neon",
                &[("pair", pair.name.to_string()), ("error", error)],
            );
        }
        Ok(checkpoint)
    }

    /// Takes up what is known of channels. A record that cannot be read disables none, and is not
    /// written over.
    fn take_channels(&self, found: &Found) {
        let channels: Result<Option<Channels>, RecordError> =
            decode_found(found, record::CHANNELS_KEY);
        self.desk.is_channels_known.set(channels.is_ok());
        self.desk.channels.replace(channels.ok().flatten().unwrap_or_default());
    }

    async fn read_all(&self, keys: &[String]) -> Result<Found, RecordError> {
        let mut found = BTreeMap::new();
        for chunk in keys.chunks(KEYS_PER_READ) {
            found.extend(self.world.read(chunk).await?);
        }
        Ok(found)
    }
}

/// Returns the keys of everything that is remembered of a pair, and of its runs of today and
/// yesterday: thirty-two.
fn all_keys_of(pair: &Pair, now: Timestamp) -> Vec<String> {
    let mut keys = keys_of(pair).to_vec();
    for run in schedule::recent_runs(pair, now) {
        keys.push(record::result_key(&pair.name, &run));
        keys.extend(record::notice_keys(&pair.name, &run));
    }
    keys
}

fn distinct(keys: Vec<String>) -> Vec<String> {
    keys.into_iter().into_set().into_iter().collect()
}

/// Returns the keys of a pair of which there is one each.
fn keys_of(pair: &Pair) -> [String; 4] {
    let of: [fn(&PairName) -> String; 4] =
        [record::checkpoint_key, record::hold_key, record::incident_key, record::acknowledged_key];
    of.map(|key| key(&pair.name))
}

/// Returns the pair's incident with who knows of it.
fn incident(pair: &Pair, found: &Found) -> Result<Option<Incident>, RecordError> {
    // What makes no sense is as good as lost: the notices open the incident again, and people are
    // told once more.
    let incident: Option<Incident> = decode_or_lose(found, &record::incident_key(&pair.name))?;
    let known: Option<Acknowledgement> =
        decode_or_lose(found, &record::acknowledged_key(&pair.name))?;
    Ok(incident.map(|incident| {
        let acknowledged = known.filter(|known| known.incident == incident.id);
        Incident { acknowledged, ..incident }
    }))
}

/// Returns the keys of what may have been told of a manual run that has ended just now.
fn notices_of_manual_run(pair: &Pair, checkpoint: &Checkpoint, now: Timestamp) -> Vec<String> {
    let ended_at = checkpoint.verdict.as_ref().map(|verdict| verdict.at);
    let is_recent =
        checkpoint.is_manual && ended_at.is_some_and(|at| between(at, now) < MANUAL_IS_RECENT);
    if is_recent { record::notice_keys(&pair.name, &checkpoint.run).collect() } else { Vec::new() }
}

fn decode_found<T: DeserializeOwned>(found: &Found, key: &str) -> Result<Option<T>, RecordError> {
    found.get(key).and_then(Option::as_ref).map(|text| record::decode(key, text)).transpose()
}

fn decode_or_lose<T: DeserializeOwned>(found: &Found, key: &str) -> Result<Option<T>, RecordError> {
    found
        .get(key)
        .and_then(Option::as_ref)
        .map_or(Ok(None), |text| record::decode_or_lose(key, text))
}

/// Finds the notices of a pair. `listed` are the ids of those that no run and no incident lists.
fn post(pair: &Pair, found: &Found, checkpoint: Option<&Checkpoint>, listed: &[String]) -> Post {
    let prefix = record::notice_key(&format!("{}/", pair.name));
    let mut post = Post::default();
    for key in found.keys().filter(|key| key.starts_with(&prefix)) {
        // One that cannot be read keeps nobody from the run; it stays as it is.
        let Ok(Some(mut outgoing)) = decode_found::<Outgoing>(found, key) else { continue };
        post.told.push(outgoing.notice.clone());
        // The checkpoint of the same run knows better: a notice that it does not list was taken.
        let is_taken = checkpoint.is_some_and(|checkpoint| {
            let is_its_own = is_told_of(checkpoint.status(), outgoing.notice.kind)
                && checkpoint.run == outgoing.notice.run;
            // One that somebody has sent again is listed elsewhere.
            let is_listed = checkpoint.outbox.contains(&outgoing.notice.id)
                || listed.contains(&outgoing.notice.id);
            is_its_own && checkpoint.is_published && !is_listed
        });
        match (outgoing.is_delivered(), is_taken) {
            (true, _) => {}
            (false, true) => {
                if let Some(checkpoint) = checkpoint {
                    checkpoint.complete(&mut outgoing);
                }
                post.taken.push(outgoing);
            }
            (false, false) => post.waiting.push(outgoing),
        }
    }
    post
}

/// Puts together what is remembered of a pair, beside its notices.
fn memory(
    pair: &Pair,
    found: &Found,
    checkpoint: Option<Checkpoint>,
    now: Timestamp,
) -> Result<Memory, RecordError> {
    let hold: Option<Hold> = decode_found(found, &record::hold_key(&pair.name))?;
    let history = History::after(checkpoint.as_ref());
    let day = schedule::today(pair, &history, now);
    let yesterday = schedule::yesterday(pair, &history, now);
    let is_judged =
        found.get(&record::result_key(&pair.name, &yesterday.run)).is_some_and(Option::is_some);
    // A pair that was not there yesterday has missed nothing; its first checkpoint tells.
    let is_owed = waking::is_owed(&yesterday, checkpoint.as_ref());
    Ok(Memory {
        unjudged: (!is_judged && is_owed).then_some(yesterday),
        // A result is never replaced, so that it is there is all that matters, whoever wrote it.
        is_ended: found.get(&record::result_key(&pair.name, &day.run)).is_some_and(Option::is_some),
        hold: hold.filter(|hold| hold.is_in_force(now)),
        day,
        checkpoint,
        history,
        taken: Vec::new(),
        contradicted: Vec::new(),
        told: Vec::new(),
        is_asleep: false,
    })
}

/// Returns whether a run that ended like this tells it itself, so that its checkpoint lists it
/// until it is taken. What another tick has told of the same run may be in no list: this one may
/// not have seen it.
fn is_told_of(status: RunStatus, kind: NoticeKind) -> bool {
    match status {
        RunStatus::Succeeded => matches!(kind, NoticeKind::Succeeded | NoticeKind::Corrected),
        RunStatus::Failed => kind == NoticeKind::Failed,
        RunStatus::Cancelled => kind == NoticeKind::Cancelled,
        RunStatus::Superseded => kind == NoticeKind::Superseded,
        RunStatus::Running | RunStatus::Missed => false,
    }
}

/// Finds the runs of which people were told a success and its opposite, and that nobody has
/// corrected.
fn contradictions(told: &[Notice]) -> Vec<Contradiction> {
    let of = |run: &RunId| {
        told.iter()
            .filter(|notice| notice.run == *run)
            .map(|notice| notice.kind)
            .collect::<Vec<_>>()
    };
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
    use crate::fixtures::pair;
    use crate::fixtures::started;
    use crate::sync::checkpoint::Verdict;
    use crate::sync::step::Step;

    #[test]
    fn what_was_told_of_a_manual_run_is_looked_at_for_an_hour_after_its_end() {
        let at = |text: &str| text.parse::<Timestamp>().expect("an instant");
        let run = RunId::decode("20261121T143000Z").expect("an instant");
        let running = Checkpoint { run, is_manual: true, ..started() };
        let (at_end, status, staging) =
            (at("2026-11-21T14:31:00Z"), RunStatus::Succeeded, String::new());
        let verdict =
            Verdict { status, at: at_end, step: Step::Prune, reason: None, runbook: None, staging };
        let ended = Checkpoint { verdict: Some(verdict), ..running.clone() };
        let count = |checkpoint: &Checkpoint, now: &str| {
            notices_of_manual_run(&pair(), checkpoint, at(now)).len()
        };
        assert_eq!(count(&ended, "2026-11-21T15:30:59.999Z"), NoticeKind::OF_RUN.len());
        assert_eq!(count(&ended, "2026-11-21T15:31:00Z"), 0);
        assert_eq!(count(&running, "2026-11-21T14:31:00Z"), 0);
        assert_eq!(count(&Checkpoint { is_manual: false, ..ended }, "2026-11-21T14:32:00Z"), 0);
    }
}
