//! The repository's own commands.
//!
//! `cargo xtask demo | test | sim | mutants | bench | dev | setup | build | gallery | check |
//! check-config`. Each sets up what it misses.

mod bench;
mod bench_alarms;
mod bench_refresh;
mod bench_verify;
mod check_config;
mod demo;
mod setup;
mod shell;
mod test;
mod wasm_std;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

const USAGE: &str = "\
cargo xtask demo [--keep] [--json]  do the main job before your eyes
cargo xtask test                    run every test
cargo xtask dev                     start the same as the demo and stay; details in target/dev.json
cargo xtask sim [--seconds N] [--seed S] | --pairs | --replay PLAN | --table | --exhaustive
                                    run the simulation; see tests/simulation/lib.rs
cargo xtask mutants [ARGUMENTS]     change one thing at a time and see whether a test notices
                                    (an hour and more)
cargo xtask bench cost              CPU, requests and time of 20 runs and 20 idle ticks
cargo xtask bench verify [MB]       our comparison beside those of other tools, on a table of so
                                    many megabytes (2048)
cargo xtask bench refresh [MB]      cron to verified staging beside pg_dump and pg_restore, with so
                                    many megabytes (100)
cargo xtask bench alarms [COUNT]    so many runs of a staging in use, and as many with a planted
                                    change (100)
cargo xtask check-config [FILE] [--secrets FILE]
                                    every fault of a wrangler.toml, or the schedule of the next
                                    seven days; with --secrets of a .dev.vars too, of which nothing
                                    is printed
cargo xtask gallery                 write runbooks/notices.md, the page of every notice, anew
cargo xtask check                   formatting, clippy and documentation
cargo xtask setup                   install what is missing
cargo xtask build                   build the Worker";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Err(error) = run(&arguments) {
        eprintln!("failed: {error:#}");
        std::process::exit(1);
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let flags: Vec<&str> = words.iter().copied().filter(|word| word.starts_with("--")).collect();
    match words.first().copied() {
        Some("demo") => {
            only(&flags, &["--keep", "--json"])?;
            prepare()?;
            demo::demo(demo::Shown {
                keep: flags.contains(&"--keep"),
                json: flags.contains(&"--json"),
            })
        }
        Some("bench") if words.get(1) == Some(&"cost") => {
            prepare()?;
            bench::cost()
        }
        Some("bench") if words.get(1) == Some(&"verify") => {
            prepare()?;
            bench_verify::verify(megabytes(words.get(2), 2_048)?)
        }
        Some("bench") if words.get(1) == Some(&"alarms") => {
            prepare()?;
            bench_alarms::alarms(words.get(2).map_or(Ok(100), |word| word.parse())?)
        }
        Some("bench") if words.get(1) == Some(&"refresh") => {
            prepare()?;
            bench_refresh::refresh(megabytes(words.get(2), 100)?)
        }
        Some("dev") => {
            prepare()?;
            demo::dev()
        }
        Some("test") => {
            prepare()?;
            test::all()
        }
        Some("sim") => test::simulate(&words[1..]),
        Some("mutants") => test::mutants(&words[1..]),
        Some("gallery") => test::gallery(),
        Some("check") => {
            setup::all()?;
            test::check()
        }
        Some("check-config") => {
            only(&flags, &["--secrets"])?;
            let place = words.iter().position(|word| *word == "--secrets");
            let secrets = place
                .map(|place| words.get(place + 1).context("name the file after --secrets"))
                .transpose()?;
            let is_file = |(index, _): &(usize, &&str)| {
                *index > 0 && place.is_none_or(|place| *index != place && *index != place + 1)
            };
            let file = words
                .iter()
                .enumerate()
                .find(is_file)
                .map_or_else(|| PathBuf::from("wrangler.toml"), |(_, word)| PathBuf::from(word));
            check_config::check(&file, secrets.map(Path::new), now())
        }
        Some("setup") => setup::all(),
        Some("build") => prepare(),
        _ => bail!("expected one of\n\n{USAGE}"),
    }
}

/// Installs what is missing and builds the Worker and the emulator.
fn prepare() -> Result<()> {
    setup::all()?;
    setup::build_worker()?;
    shell::quietly(
        std::process::Command::new("cargo")
            .args(["build", "--package", "neon-emulator"])
            .current_dir(harness::paths::root()),
    )
}

/// Reads a number of megabytes.
fn megabytes(word: Option<&&str>, usual: u64) -> Result<u64> {
    match word {
        None => Ok(usual),
        Some(word) => match word.parse() {
            Ok(number) if (10..=50_000).contains(&number) => Ok(number),
            _ => bail!("{word} is no number of megabytes; allowed are 10 to 50000"),
        },
    }
}

fn only(flags: &[&str], known: &[&str]) -> Result<()> {
    match flags.iter().find(|flag| !known.contains(flag)) {
        Some(flag) => bail!("{flag} is not known; known are {}", known.join(", ")),
        None => Ok(()),
    }
}

#[expect(clippy::disallowed_methods, reason = "a command-line tool begins with the time of day")]
fn now() -> firstlight::time::Timestamp {
    std::time::SystemTime::now().into()
}
