//! `GET /health`: whether the Worker can work, and whether it does.
//!
//! Invariants: it names nothing, because it asks for no token; a run that never started is noticed
//! here as well as one that failed.

use std::time::Duration;

use serde_json::json;

use super::{ApiResponse, Route, VERSION};
use crate::config::{Config, ConfigErrors, Pair};
use crate::port::{Method, World};
use crate::record::{self, Channels, RecordError};
use crate::sync::checkpoint::{Checkpoint, History};
use crate::sync::schedule;
use crate::time::{Timestamp, between, render};

/// How long an answer is given again. It is asked for without a token, and each answer reads the
/// store, which is billed by the key; a monitor asks once a minute.
const FRESH: Duration = Duration::from_secs(10);

/// How old an answer may be while another request waits for the store.
const OLDEST: Duration = Duration::from_mins(1);

/// Pairs whose checkpoints are read at once; one key of a read is for all channels.
const PAIRS: usize = record::KEYS_PER_READ - 1;

/// The last answer of an instance of the program.
///
/// Invariants: one read of the store in `FRESH`, however many ask; no answer is older than
/// `OLDEST`.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    /// The last answer, and when it was made.
    last: Option<(Timestamp, ApiResponse)>,
    /// When the store was last asked.
    asked_at: Option<Timestamp>,
}

impl Recent {
    /// Returns the answer to a request for `path` that may be given again. Where it returns `None`
    /// for `GET /health`, whoever asks makes one and hands it to [`Self::keep`].
    pub fn answer(&mut self, method: Method, path: &str, now: Timestamp) -> Option<ApiResponse> {
        if method != Method::Get || Route::of(path) != Some(Route::Health) {
            return None;
        }
        // A clock that has jumped back makes nothing fresh.
        let is_within = |at: Timestamp, most: Duration| at <= now && between(at, now) < most;
        let known = self.last.as_ref().filter(|(at, _)| is_within(*at, OLDEST));
        if known.is_some() && self.asked_at.is_some_and(|at| is_within(at, FRESH)) {
            return known.map(|(_, answer)| answer.clone());
        }
        self.asked_at = Some(now);
        None
    }

    /// Keeps an answer of `GET /health`; anything else is not kept.
    pub fn keep(&mut self, method: Method, path: &str, now: Timestamp, answer: &ApiResponse) {
        if method == Method::Get && Route::of(path) == Some(Route::Health) {
            self.last = Some((now, answer.clone()));
        }
    }
}

/// Says whether everything is as it should be: 200, or 503 with a reason that any monitor can show.
pub(super) async fn health<W: World>(
    world: &W,
    config: Result<&Config, &ConfigErrors>,
) -> ApiResponse {
    let reason = match config {
        Err(_) => Some("the configuration is invalid".to_owned()),
        Ok(config) => unwell(world, config).await,
    };
    match reason {
        None => ApiResponse::json(200, &json!({"status": "ok", "version": VERSION})),
        Some(reason) => {
            let body = json!({"status": "unavailable", "reason": reason, "version": VERSION});
            ApiResponse::json(503, &body)
        }
    }
}

/// Returns what is wrong, of any pair.
async fn unwell<W: World>(world: &W, config: &Config) -> Option<String> {
    let keys: Vec<String> =
        config.pairs.iter().map(|pair| record::checkpoint_key(&pair.name)).collect();
    let now = world.now();
    let channels_key = record::CHANNELS_KEY.to_owned();
    let mut channels = Channels::default();
    for (pairs, keys) in config.pairs.chunks(PAIRS).zip(keys.chunks(PAIRS)) {
        let wanted: Vec<String> = keys.iter().chain([&channels_key]).cloned().collect();
        let Ok(found) = world.read(&wanted).await else {
            return Some("the store does not answer".to_owned());
        };
        if let Some(Ok(known)) = found
            .get(&channels_key)
            .and_then(Option::as_ref)
            .map(|text| record::decode(&channels_key, text))
        {
            channels = known;
        }
        for (pair, key) in pairs.iter().zip(keys) {
            let checkpoint = found
                .get(key)
                .and_then(Option::as_ref)
                .map(|text| record::decode::<Checkpoint>(key, text))
                .transpose();
            let checkpoint = match checkpoint {
                Ok(checkpoint) => checkpoint,
                Err(RecordError::Newer { .. }) => {
                    return Some(
                        "a record of a pair was written by a newer version, and the pair is left \
                         alone"
                            .to_owned(),
                    );
                }
                Err(_) => {
                    return Some(
                        "a record of a pair cannot be read; its next run makes it again".to_owned(),
                    );
                }
            };
            let history = History::after(checkpoint.as_ref());
            if let Some(reason) = overdue(pair, config, &history, now) {
                return Some(reason);
            }
        }
    }
    let is_unheard = !channels.unheard(config).is_empty();
    is_unheard.then(|| "no channel of a pair takes notices: every one has answered 410".to_owned())
}

/// Returns since when a pair has not succeeded, when the last day on which it had to is over with
/// its grace.
fn overdue(pair: &Pair, config: &Config, history: &History, now: Timestamp) -> Option<String> {
    let day = schedule::last_expected(pair, history, config.health_grace, now)?;
    let begins = pair.zone.instant(day.date, pair.times.earliest_start);
    if history.has_succeeded(begins) {
        return None;
    }
    Some(match history.last_success_at {
        None => "no run of a pair has succeeded yet".to_owned(),
        Some(at) => format!(
            "the last success of a pair was at {}; one was due by {}",
            render(at),
            render(day.deadline)
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        "2026-11-21T14:30:00Z".parse::<Timestamp>().expect("an instant")
            + chrono::TimeDelta::seconds(seconds)
    }

    fn told(status: &str) -> ApiResponse {
        ApiResponse::json(200, &json!({"status": status}))
    }

    #[test]
    fn an_answer_is_given_again_for_ten_seconds_and_made_once_after_that() {
        let mut recent = Recent::default();
        let ask = |recent: &mut Recent, seconds| recent.answer(Method::Get, "/health", at(seconds));
        assert_eq!(ask(&mut recent, 0), None);
        assert_eq!(ask(&mut recent, 0), None, "there is nothing to give yet");
        recent.keep(Method::Get, "/health", at(1), &told("ok"));
        assert_eq!(ask(&mut recent, 9), Some(told("ok")));
        assert_eq!(ask(&mut recent, 10), None, "the one that asks reads the store");
        assert_eq!(ask(&mut recent, 10), Some(told("ok")), "others do not, until it has answered");
        recent.keep(Method::Get, "/health", at(11), &told("unavailable"));
        assert_eq!(ask(&mut recent, 12), Some(told("unavailable")));
    }

    #[test]
    fn an_answer_older_than_a_minute_is_not_given_whoever_waits_for_the_store() {
        let mut recent = Recent::default();
        recent.keep(Method::Get, "/health", at(0), &told("ok"));
        assert_eq!(recent.answer(Method::Get, "/health", at(59)), None);
        assert_eq!(recent.answer(Method::Get, "/health", at(59)), Some(told("ok")));
        assert_eq!(recent.answer(Method::Get, "/health", at(60)), None);
        assert_eq!(
            recent.answer(Method::Get, "/health", at(-1)),
            None,
            "the clock has jumped back"
        );
    }

    #[test]
    fn only_health_is_answered_so() {
        let mut recent = Recent::default();
        recent.keep(Method::Get, "/runs", at(0), &told("ok"));
        recent.keep(Method::Get, "/health", at(0), &told("ok"));
        assert_eq!(
            recent.answer(Method::Get, "/health/", at(1)),
            None,
            "the first to ask makes it"
        );
        assert_eq!(recent.answer(Method::Get, "/health/", at(1)), Some(told("ok")));
        assert_eq!(recent.answer(Method::Get, "/runs", at(1)), None);
        assert_eq!(recent.answer(Method::Post, "/health", at(1)), None);
    }
}
