//! `cargo xtask check-config [FILE]`: every fault of a `wrangler.toml`, or the schedule of the next seven days.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use firstlight::config::{Config, VARIABLE};
use firstlight::sync::schedule;
use firstlight::time::Timestamp;
use serde_json::Value;

/// Bytes that one variable may have.
///
/// Source: Cloudflare Workers, limits, 2026-09-05: "Env vars: 64 × 5 KB".
const VARIABLE_LIMIT: usize = 5 * 1024;

/// Reads a file and prints what is wrong with it, or what will happen.
pub(crate) fn check(file: &Path, now: Timestamp) -> Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let document: Value = if file.extension().is_some_and(|extension| extension == "json" || extension == "jsonc") {
        serde_json::from_str(&text).with_context(|| format!("read {}", file.display()))?
    } else {
        let table: toml::Table = toml::from_str(&text).with_context(|| format!("read {}", file.display()))?;
        serde_json::to_value(table)?
    };
    let variables: Vec<(String, Value)> =
        document["vars"].as_object().into_iter().flatten().map(|(name, value)| (name.clone(), value.clone())).collect();
    let mut faults: Vec<String> = Vec::new();
    for (name, value) in variables.iter().filter(|(name, _)| name.starts_with(VARIABLE)) {
        let size = value.to_string().len();
        if size > VARIABLE_LIMIT {
            faults.push(format!("vars.{name}: has {size} bytes; allowed are {VARIABLE_LIMIT}; move pairs to [vars.{VARIABLE}_<X>]"));
        }
    }
    match Config::from_variables(&variables) {
        Ok(config) if faults.is_empty() => {
            print_schedule(&config, now);
            return Ok(());
        }
        Ok(_) => {}
        Err(errors) => faults.extend(errors.0.iter().map(ToString::to_string)),
    }
    for fault in &faults {
        println!("{fault}");
    }
    bail!("{} has {} faults", file.display(), faults.len())
}

fn print_schedule(config: &Config, now: Timestamp) {
    for pair in &config.pairs {
        println!("{} ({}): production {} to staging {}", pair.name, pair.project, pair.production_branch, pair.staging_branch);
        for day in schedule::week(pair, now) {
            println!(
                "  {}  starts {} {}  done by {}  ({} UTC)",
                day.date,
                pair.zone.date_time(day.start_at),
                pair.zone_label,
                pair.deadline,
                day.start_at.format("%Y-%m-%d %H:%M"),
            );
        }
    }
    let names: Vec<String> = config.secret_names().into_iter().collect();
    println!("secrets to set with `wrangler secret put`: {}", names.join(", "));
}
