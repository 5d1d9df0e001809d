//! Incidents: what went wrong with a pair, until somebody knows and until it is over.
//!
//! In: the incident on record, a notice, what is configured, `now`. Out: the changed incident, and
//! what is [`due`].
//!
//! Invariants: a pair has one open incident at most. Its id is that of the first notice that it was
//! opened by, so that two ticks open the same one. An escalation has an id of its own, so that a
//! receiver drops a second copy.
//!
//! Failure: the record is a memory. Where it is lost, the notices of the day open the incident
//! again, under the same id.

use std::time::Duration;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use crate::config::{Config, NoticeKind, Pair};
use crate::id::{ChannelName, PairName, RunId};
use crate::sync::checkpoint::{Checkpoint, FORMAT, RunStatus};
use crate::sync::notice::Notice;
use crate::time::{Timestamp, after, between, compact, millis};

/// How long the last notices of an incident are looked at, whether they are listed or not.
const RECENT: Duration = Duration::from_hours(1);

/// Notices that an incident remembers.
const JOINED: usize = 50;

/// Escalations of one incident beside those of business days: at the shortest distance of five
/// minutes, four hours of them.
const MOST_ESCALATIONS: u32 = 48;

/// What went wrong with a pair.
///
/// Shape:
/// `{"format":1,"id":"hub-20261121","pair":"hub","run":"20261121","opened_at":"…","subject":"…","joined":["hub/20261121/failed"],"escalations":0,…}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// The version of this shape.
    pub format: u32,
    /// `<pair>-<run>`.
    pub id: String,
    /// Whose.
    pub pair: PairName,
    /// The run that it began with.
    pub run: RunId,
    /// How many incidents began with that run before this one.
    pub number: u32,
    /// When it was opened.
    #[serde(with = "millis")]
    pub opened_at: Timestamp,
    /// The instant of its last notice. The next one's is later, also where a clock has jumped back.
    #[serde(with = "millis")]
    pub told_at: Timestamp,
    /// What people were told first.
    pub subject: String,
    /// The ids of the notices that belong to it, the first first.
    pub joined: Vec<String>,
    /// How often it was escalated, business days apart.
    pub escalations: u32,
    /// When it was last escalated.
    #[serde(with = "millis::option")]
    pub escalated_at: Option<Timestamp>,
    /// The last business day at whose beginning it was told.
    pub business_day: Option<NaiveDate>,
    /// Who knows of it; kept under a key of its own, because people write it.
    #[serde(default, skip)]
    pub acknowledged: Option<Acknowledgement>,
    /// How it ended; missing while it is open.
    pub resolution: Option<Resolution>,
    /// The ids of its notices that some channel has not taken.
    pub outbox: Vec<String>,
    /// When the last one was put there.
    #[serde(with = "millis")]
    pub listed_at: Timestamp,
}

/// Somebody knows of an incident.
///
/// Shape: `{"format":1,"incident":"hub-20261121","at":"…","by":"Dana, on call"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledgement {
    /// The version of this shape.
    pub format: u32,
    /// Which.
    pub incident: String,
    /// When.
    #[serde(with = "millis")]
    pub at: Timestamp,
    /// Who, in their words.
    pub by: String,
}

/// How an incident ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolution {
    /// When.
    #[serde(with = "millis")]
    pub at: Timestamp,
    /// The good run.
    pub run: RunId,
}

/// Why people are told again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// Nobody has acknowledged it: the n-th time, counted from one.
    Level(u32),
    /// The business day of this date begins.
    BusinessDay(NaiveDate),
}

impl Occasion {
    /// Returns the word that stands in the id of its notice.
    pub fn word(&self) -> String {
        match self {
            Self::Level(number) => format!("escalated-{number}"),
            Self::BusinessDay(date) => format!("escalated-{}", compact(*date)),
        }
    }
}

/// People are to be told again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Why.
    pub occasion: Occasion,
    /// Since when. Two ticks that do not know of each other tell the same.
    pub at: Timestamp,
    /// The channels; `None` where none is configured for it: all that hear of failures.
    pub channels: Option<Vec<ChannelName>>,
}

impl Incident {
    /// Opens an incident with the notice of a trouble. `last` is the pair's incident before, if one
    /// is on record.
    pub fn open(notice: &Notice, last: Option<&Self>) -> Self {
        let number = last.filter(|last| last.run == notice.run).map_or(0, |last| last.number + 1);
        let again = if number == 0 { String::new() } else { format!("-{}", number + 1) };
        Self {
            format: FORMAT,
            id: format!("{}-{}{again}", notice.pair, notice.run),
            pair: notice.pair.clone(),
            run: notice.run.clone(),
            number,
            opened_at: notice.at,
            told_at: notice.at,
            subject: notice.subject.clone(),
            joined: vec![notice.id.clone()],
            escalations: 0,
            escalated_at: None,
            business_day: None,
            acknowledged: None,
            resolution: None,
            // What is on its way of the one before must not be forgotten with it.
            outbox: last.map(|last| last.outbox.clone()).unwrap_or_default(),
            listed_at: notice.at,
        }
    }

    /// Opens it again from a notice that is on record, when its own record was lost.
    pub fn recover(notice: &Notice, last: Option<&Self>) -> Option<Self> {
        let id = notice.incident.as_ref().filter(|_| notice.kind.is_trouble())?;
        let is_known = last
            .is_some_and(|last| last.id == *id || last.opened_at >= notice.at || last.is_open());
        (!is_known).then(|| {
            let mut incident = Self { id: id.clone(), ..Self::open(notice, last) };
            incident.list(&notice.id, notice.at);
            incident
        })
    }

    /// Returns whether it is not over.
    pub fn is_open(&self) -> bool {
        self.resolution.is_none()
    }

    /// Returns the id of one of its notices.
    pub fn notice_id(&self, word: &str) -> String {
        let again = if self.number == 0 { String::new() } else { format!("-{}", self.number + 1) };
        format!("{}/{}/{word}{again}", self.pair, self.run)
    }

    /// Returns the ids of its own last notices, for an hour: two ticks that did not see each other
    /// may have written this record, and what one of them has told is then not listed.
    pub fn recent_notices(&self, now: Timestamp) -> Vec<String> {
        if between(self.listed_at, now) > RECENT {
            return Vec::new();
        }
        let level = (self.escalations > 0)
            .then(|| self.notice_id(&Occasion::Level(self.escalations).word()));
        let day = self.business_day.map(|date| self.notice_id(&Occasion::BusinessDay(date).word()));
        let end = self.resolution.is_some().then(|| self.notice_id(NoticeKind::Resolved.as_str()));
        level.into_iter().chain(day).chain(end).collect()
    }

    /// Lists a notice as one that some channel has not taken.
    pub fn list(&mut self, id: &str, now: Timestamp) {
        self.outbox.retain(|other| other != id);
        self.outbox.push(id.to_owned());
        self.listed_at = self.listed_at.max(now);
    }

    /// Takes up what another tick has written of the same incident.
    pub fn catch_up(&mut self, other: Self) {
        if other.id != self.id {
            return;
        }
        self.told_at = self.told_at.max(other.told_at);
        self.listed_at = self.listed_at.max(other.listed_at);
        self.escalations = self.escalations.max(other.escalations);
        self.escalated_at = self.escalated_at.max(other.escalated_at);
        self.business_day = self.business_day.max(other.business_day);
        self.acknowledged = self.acknowledged.take().or(other.acknowledged);
        self.resolution = self.resolution.take().or(other.resolution);
        for (ours, theirs) in [(&mut self.joined, other.joined), (&mut self.outbox, other.outbox)] {
            for id in theirs {
                if !ours.contains(&id) {
                    ours.push(id);
                }
            }
        }
    }

    /// Takes up a notice that it does not know.
    fn join(&mut self, notice: &Notice) {
        if !self.joined.contains(&notice.id) && self.joined.len() < JOINED {
            self.joined.push(notice.id.clone());
            self.told_at = self.told_at.max(notice.at);
        }
    }

    /// Returns how it ends with a run: a good one that has restored staging, and ended after it was
    /// opened. Staging that is held is not mended.
    pub fn resolution_by(&self, run: &Checkpoint) -> Option<Resolution> {
        let verdict =
            run.verdict.as_ref().filter(|verdict| verdict.status == RunStatus::Succeeded)?;
        let is_good = self.is_open()
            && run.restore.is_some()
            && run.is_published
            && verdict.at >= self.opened_at;
        is_good.then(|| Resolution { at: self.next_notice(verdict.at), run: run.run.clone() })
    }

    /// Returns how it ends with the success of the run that it began with: where nothing belongs to
    /// it but what that success contradicts. Another tick may have told that after the success,
    /// because it did not see it.
    pub fn resolution_by_told(&self, told: &[Notice], now: Timestamp) -> Option<Resolution> {
        let is_success =
            |notice: &Notice| notice.run == self.run && notice.kind == NoticeKind::Succeeded;
        let contradicted = NoticeKind::ALL
            .into_iter()
            .filter(|kind| kind.is_opposite_of_success() || *kind == NoticeKind::Stuck);
        let contradicted: Vec<String> = contradicted
            .map(|kind| format!("{}/{}/{}", self.pair, self.run, kind.as_str()))
            .collect();
        let is_all = self.is_open() && self.joined.iter().all(|id| contradicted.contains(id));
        (is_all && told.iter().any(is_success))
            .then(|| Resolution { at: self.next_notice(now), run: self.run.clone() })
    }

    /// Returns how it ends with a snapshot that is verified after all: where nothing else belongs
    /// to it.
    pub fn resolution_by_snapshot(&self, run: &RunId, now: Timestamp) -> Option<Resolution> {
        let word = format!("/{}", NoticeKind::SnapshotFailed.as_str());
        let is_all = self.is_open() && self.joined.iter().all(|id| id.contains(&word));
        is_all.then(|| Resolution { at: self.next_notice(now), run: run.clone() })
    }

    /// Returns the instant of its next notice.
    pub fn next_notice(&self, now: Timestamp) -> Timestamp {
        now.max(after(self.told_at, Duration::from_millis(1)))
    }

    /// Notes that people were told again.
    pub fn escalated(&mut self, due: &Due, told_at: Timestamp, now: Timestamp) {
        self.told_at = told_at;
        match due.occasion {
            Occasion::Level(number) => {
                self.escalations = number;
                self.escalated_at = Some(now);
            }
            Occasion::BusinessDay(date) => self.business_day = Some(date),
        }
    }
}

/// Returns the incident that a notice belongs to: the open one, or one that it opens; `None` when
/// it is no trouble.
pub fn take_up(current: Option<&Incident>, notice: &Notice) -> Option<Incident> {
    if !notice.kind.is_trouble() {
        return None;
    }
    let open = current.filter(|current| current.is_open());
    let is_known = open.is_some_and(|open| open.joined.contains(&notice.id));
    let mut incident = open.cloned().unwrap_or_else(|| Incident::open(notice, current));
    incident.join(notice);
    if !is_known && !incident.outbox.contains(&notice.id) {
        incident.list(&notice.id, notice.at);
    }
    Some(incident)
}

/// Says whether people are to be told again. Of several escalations that were missed, the last is
/// told.
pub fn due(incident: &Incident, pair: &Pair, config: &Config, now: Timestamp) -> Option<Due> {
    if !incident.is_open() {
        return None;
    }
    business_day(incident, pair, config, now).or_else(|| level(incident, config, now))
}

fn business_day(incident: &Incident, pair: &Pair, config: &Config, now: Timestamp) -> Option<Due> {
    let today = pair.zone.date(now);
    let begins = pair.zone.instant(today, pair.times.business_day_starts);
    let is_told = incident.business_day.is_some_and(|told| told >= today);
    let is_due =
        pair.times.has_run(today) && !is_told && incident.opened_at < begins && begins <= now;
    let all = || config.escalations.iter().flat_map(|escalation| &escalation.channels).cloned();
    let channels = (!config.escalations.is_empty()).then(|| all().collect());
    is_due.then_some(Due { occasion: Occasion::BusinessDay(today), at: begins, channels })
}

fn level(incident: &Incident, config: &Config, now: Timestamp) -> Option<Due> {
    if incident.acknowledged.is_some() || incident.escalations >= MOST_ESCALATIONS {
        return None;
    }
    let minutes = |count: u32| Duration::from_mins(count.into());
    let configured = u32::try_from(config.escalations.len()).unwrap_or(u32::MAX);
    let passed = config
        .escalations
        .iter()
        .filter(|escalation| after(incident.opened_at, minutes(escalation.after_min)) <= now)
        .count();
    let passed = u32::try_from(passed).unwrap_or(u32::MAX);
    let is_first = passed > incident.escalations;
    let number = if is_first { passed } else { incident.escalations + 1 };
    let index = usize::try_from(number.min(configured).saturating_sub(1)).ok()?;
    let escalation = config.escalations.get(index)?;
    let at = if is_first {
        after(incident.opened_at, minutes(escalation.after_min))
    } else {
        let is_last = incident.escalations >= configured;
        let again = minutes(config.escalate_again_min.filter(|_| is_last)?);
        incident.escalated_at.map(|at| after(at, again)).filter(|at| *at <= now)?
    };
    Some(Due { occasion: Occasion::Level(number), at, channels: Some(escalation.channels.clone()) })
}

#[cfg(test)]
mod tests;
