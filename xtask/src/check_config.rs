//! `cargo xtask check-config [FILE] [--secrets FILE]`: every fault of a `wrangler.toml`, or the
//! schedule of the next seven days.
//!
//! What is *worth a look* can be carried out: among it, whether the runs of a day fit its
//! invocations, and its reads the Free plan, by the cron of the file. How long runs take is not
//! known here; the Worker knows, and writes the same into its log when a run begins.
//!
//! With `--secrets`, a file as `wrangler dev` reads it (`.dev.vars`) is checked too: whether every
//! secret that the settings name is there, and whether the addresses in it may be called. Nothing
//! of a secret is printed.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use firstlight::config::{Config, Receiver, VARIABLE};
use firstlight::id::Secret;
use firstlight::sync::capacity::{self, INTERVAL};
use firstlight::sync::checkpoint::History;
use firstlight::sync::schedule;
use firstlight::time::Timestamp;
use serde_json::Value;

/// Bytes that one variable may have.
///
/// Source: Cloudflare Workers, limits, 2026-09-05: "Env vars: 64 × 5 KB".
const VARIABLE_LIMIT: usize = 5 * 1024;

/// Reads a file and prints what is wrong with it, or what will happen.
pub(crate) fn check(file: &Path, secrets: Option<&Path>, now: Timestamp) -> Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let document: Value =
        if file.extension().is_some_and(|extension| extension == "json" || extension == "jsonc") {
            serde_json::from_str(&text).with_context(|| format!("read {}", file.display()))?
        } else {
            let table: toml::Table =
                toml::from_str(&text).with_context(|| format!("read {}", file.display()))?;
            serde_json::to_value(table)?
        };
    let variables: Vec<(String, Value)> = document["vars"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let mut faults: Vec<String> = Vec::new();
    for (name, value) in variables.iter().filter(|(name, _)| name.starts_with(VARIABLE)) {
        let size = value.to_string().len();
        if size > VARIABLE_LIMIT {
            faults.push(format!(
                "vars.{name}: has {size} bytes; allowed are {VARIABLE_LIMIT}; move pairs to \
                    [vars.{VARIABLE}_<X>]"
            ));
        }
    }
    // What is in the file is no secret, so a text of this name is meant as settings.
    for (name, _) in
        variables.iter().filter(|(name, value)| name.starts_with(VARIABLE) && value.is_string())
    {
        faults.push(format!("vars.{name}: is a text; allowed is a table, [vars.{name}]"));
    }
    match Config::from_variables(&variables) {
        Ok(config) => {
            faults.extend(bindings(&config, &document));
            if let Some(secrets) = secrets {
                faults.extend(
                    config.secret_problems(&read_secrets(secrets)?).iter().map(ToString::to_string),
                );
            }
            if faults.is_empty() {
                print_schedule(&config, cron_interval(&document), now);
                return Ok(());
            }
        }
        Err(errors) => faults.extend(errors.0.iter().map(ToString::to_string)),
    }
    for fault in &faults {
        println!("{fault}");
    }
    match faults.len() {
        1 => bail!("{} has 1 fault", file.display()),
        count => bail!("{} has {count} faults", file.display()),
    }
}

/// Returns what e-mail channels need and the file does not bind.
fn bindings(config: &Config, document: &Value) -> Vec<String> {
    let bound = |name: &str| {
        document["send_email"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|binding| binding["name"] == name)
    };
    let missing = |(index, receiver): (usize, &Receiver)| {
        let Receiver::Email { binding, .. } = receiver else { return None };
        let fault = || {
            format!(
                "channels[{index}].binding: is {binding:?}, which is not bound; add \
                    [[send_email]] with name = {binding:?}"
            )
        };
        (!bound(binding)).then(fault)
    };
    config
        .channels
        .iter()
        .map(|channel| &channel.receiver)
        .enumerate()
        .filter_map(missing)
        .collect()
}

/// Reads a file of secrets: lines of `NAME=value`, the value in quotes or not.
fn read_secrets(file: &Path) -> Result<BTreeMap<String, Secret>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='));
    let value = |value: &str| value.trim().trim_matches('"').trim_matches('\'').to_owned();
    Ok(lines.map(|(name, text)| (name.trim().to_owned(), Secret::new(value(text)))).collect())
}

/// Returns the time between two ticks of the file's cron that fires most often, of those that fire
/// in every hour; five minutes where there is none.
fn cron_interval(document: &Value) -> Duration {
    let minutes = |cron: &str| -> Option<u64> {
        let mut fields = cron.split_whitespace();
        let minute = fields.next()?;
        if fields.next()? != "*" {
            return None;
        }
        match minute.strip_prefix("*/") {
            Some(step) => step.parse().ok().filter(|step| (1..60).contains(step)),
            None if minute == "*" => Some(1),
            None => minute.parse::<u64>().ok().map(|_| 60),
        }
    };
    let crons =
        document["triggers"]["crons"].as_array().into_iter().flatten().filter_map(Value::as_str);
    crons.filter_map(minutes).min().map_or(INTERVAL, |minutes| Duration::from_secs(minutes * 60))
}

fn print_schedule(config: &Config, interval: Duration, now: Timestamp) {
    for pair in &config.pairs {
        println!(
            "{} ({}): production {} to staging {}",
            pair.name, pair.project, pair.production_branch, pair.staging_branch
        );
        for day in schedule::days(pair, &History::default(), now).take(7) {
            if !day.has_run {
                println!("  {}  no run", day.date);
                continue;
            }
            println!(
                "  {}  starts {} {}  done by {}  ({} UTC)",
                day.date,
                pair.zone.date_time(day.start_at),
                pair.zone_label,
                pair.times.deadline,
                day.start_at.format("%Y-%m-%d %H:%M"),
            );
        }
    }
    let crowded = capacity::crowded(config, &BTreeMap::new(), interval, now);
    let reads = capacity::too_many_reads(config, interval);
    for warning in schedule::warnings(config, now)
        .into_iter()
        .chain(crowded)
        .chain(reads)
        .chain(config.unheard())
    {
        println!("worth a look: {warning}");
    }
    println!(
        "Workers KV: about {} keys are read in a day, at a tick every {} minutes",
        capacity::reads_a_day(config, interval),
        interval.as_secs() / 60
    );
    let names: Vec<String> = config.secret_names().into_iter().collect();
    println!("secrets to set with `wrangler secret put`: {}", names.join(", "));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_interval_is_that_of_the_cron_that_fires_most_often() {
        let minutes =
            |crons: Value| cron_interval(&json!({"triggers": {"crons": crons}})).as_secs() / 60;
        assert_eq!(minutes(json!(["*/5 * * * *"])), 5);
        assert_eq!(minutes(json!(["* * * * *"])), 1);
        assert_eq!(minutes(json!(["7 * * * *", "*/10 * * * *"])), 10);
        assert_eq!(minutes(json!(["7 * * * *"])), 60);
        assert_eq!(
            minutes(json!(["*/5 3-8 * * *"])),
            5,
            "what is not understood is taken for the usual one"
        );
        assert_eq!(cron_interval(&json!({})), INTERVAL);
    }
}
