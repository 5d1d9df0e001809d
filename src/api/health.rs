//! `GET /health`: whether the Worker can work, and whether it does.
//!
//! Invariants: it names nothing, because it asks for no token; a run that never started is noticed here as well as one that failed.

use serde_json::json;

use super::ApiResponse;
use crate::config::{Config, ConfigErrors, Pair};
use crate::port::World;
use crate::record;
use crate::sync::checkpoint::{Checkpoint, History};
use crate::sync::schedule;
use crate::time::{Timestamp, render};

/// Says whether everything is as it should be: 200, or 503 with a reason that any monitor can show.
pub(super) async fn health<W: World>(world: &W, config: Result<&Config, &ConfigErrors>) -> ApiResponse {
    let reason = match config {
        Err(_) => Some("the configuration is invalid".to_owned()),
        Ok(config) => unwell(world, config).await,
    };
    match reason {
        None => ApiResponse::json(200, &json!({"status": "ok"})),
        Some(reason) => ApiResponse::json(503, &json!({"status": "unavailable", "reason": reason})),
    }
}

/// Returns what is wrong, of any pair.
async fn unwell<W: World>(world: &W, config: &Config) -> Option<String> {
    let keys: Vec<String> = config.pairs.iter().map(|pair| record::checkpoint_key(&pair.name)).collect();
    let now = world.now();
    for (pairs, keys) in config.pairs.chunks(record::KEYS_PER_READ).zip(keys.chunks(record::KEYS_PER_READ)) {
        let Ok(found) = world.read(keys).await else { return Some("the store does not answer".to_owned()) };
        for (pair, key) in pairs.iter().zip(keys) {
            let checkpoint = found.get(key).and_then(Option::as_ref).map(|text| record::decode::<Checkpoint>(key, text)).transpose();
            let Ok(checkpoint) = checkpoint else { return Some("a record of a pair cannot be read".to_owned()) };
            let history = History::after(checkpoint.as_ref());
            if let Some(reason) = overdue(pair, config, &history, now) {
                return Some(reason);
            }
        }
    }
    None
}

/// Returns since when a pair has not succeeded, when the last day on which it had to is over with its grace.
fn overdue(pair: &Pair, config: &Config, history: &History, now: Timestamp) -> Option<String> {
    let day = schedule::last_expected(pair, history, config.health_grace, now)?;
    let begins = pair.zone.instant(day.date, pair.times.earliest_start);
    if history.has_succeeded(begins) {
        return None;
    }
    Some(match history.last_success_at {
        None => "no run of a pair has succeeded yet".to_owned(),
        Some(at) => format!("the last success of a pair was at {}; one was due by {}", render(at), render(day.deadline)),
    })
}
