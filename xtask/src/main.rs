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

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// The repository's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Xtask {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Do the main job before your eyes
    Demo {
        /// Leave everything up until Enter is pressed
        #[arg(long)]
        keep: bool,
        /// Print the report as one line of JSON
        #[arg(long)]
        json: bool,
        /// Take a dump of your own as production: a file or folder of `pg_dump`, in any format
        #[arg(long, value_name = "DUMP")]
        seed: Option<PathBuf>,
    },
    /// Run every test
    Test,
    /// Start the same as the demo and stay; details in target/dev.json
    Dev,
    /// Run the simulation; see tests/simulation/src/lib.rs
    #[command(disable_help_flag = true)]
    Sim {
        /// What the simulation takes, such as --seconds 60, --exhaustive or --help
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Change one thing at a time and see whether a test notices (an hour and more)
    #[command(disable_help_flag = true)]
    Mutants {
        /// What `cargo mutants` takes
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Measure
    #[command(subcommand)]
    Bench(Bench),
    /// Name every fault of a wrangler.toml, or show the schedule of the next seven days
    CheckConfig {
        /// The file with [vars.FIRSTLIGHT]
        #[arg(value_name = "FILE", default_value = "wrangler.toml")]
        file: PathBuf,
        /// Check the secrets of a .dev.vars too, of which nothing is printed
        #[arg(long, value_name = "FILE")]
        secrets: Option<PathBuf>,
    },
    /// Write runbooks/notices.md, the page of every notice, anew
    Gallery,
    /// Check formatting, clippy and documentation
    Check,
    /// Install what is missing
    Setup,
    /// Build the Worker
    Build,
}

#[derive(Subcommand)]
enum Bench {
    /// CPU, requests and time of 20 runs and 20 idle ticks
    Cost,
    /// Our comparison beside those of other tools, on a table of so many megabytes
    Verify {
        #[arg(value_name = "MB", default_value_t = 2_048, value_parser = megabytes())]
        megabytes: u64,
    },
    /// Cron to verified staging beside `pg_dump` and `pg_restore`, with so many megabytes
    Refresh {
        #[arg(value_name = "MB", default_value_t = 100, value_parser = megabytes())]
        megabytes: u64,
    },
    /// So many runs of a staging in use, and as many with a planted change
    Alarms {
        #[arg(value_name = "COUNT", default_value_t = 100)]
        count: u64,
    },
}

fn megabytes() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(10..=50_000)
}

fn main() {
    if let Err(error) = run(Xtask::parse().task) {
        eprintln!("failed: {error:#}");
        std::process::exit(1);
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Demo { keep, json, seed } => {
            prepare()?;
            let shown = demo::Shown { keep, json };
            seed.map_or_else(|| demo::demo(shown), |dump| demo::seed::demo(&dump, shown))
        }
        Task::Test => {
            prepare()?;
            test::all()
        }
        Task::Dev => {
            prepare()?;
            demo::dev()
        }
        Task::Sim { arguments } => test::simulate(&arguments),
        Task::Mutants { arguments } => test::mutants(&arguments),
        Task::Bench(bench) => {
            prepare()?;
            measure(&bench)
        }
        Task::CheckConfig { file, secrets } => {
            check_config::check(&file, secrets.as_deref(), now())
        }
        Task::Gallery => test::gallery(),
        Task::Check => {
            setup::all()?;
            test::check()
        }
        Task::Setup => setup::all(),
        Task::Build => prepare(),
    }
}

fn measure(bench: &Bench) -> Result<()> {
    match *bench {
        Bench::Cost => bench::cost(),
        Bench::Verify { megabytes } => bench_verify::verify(megabytes),
        Bench::Refresh { megabytes } => bench_refresh::refresh(megabytes),
        Bench::Alarms { count } => bench_alarms::alarms(count),
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

#[expect(clippy::disallowed_methods, reason = "a command-line tool begins with the time of day")]
fn now() -> firstlight::time::Timestamp {
    std::time::SystemTime::now().into()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use clap::error::ErrorKind;

    use super::*;

    fn parsed(words: &str) -> Result<Xtask, clap::Error> {
        Xtask::try_parse_from(["cargo xtask"].into_iter().chain(words.split_whitespace()))
    }

    fn refused(words: &str) -> clap::Error {
        parsed(words).err().unwrap_or_else(|| panic!("{words} is understood"))
    }

    #[test]
    fn every_command_has_help_which_is_no_error() {
        let mut command = Xtask::command();
        command.clone().debug_assert();
        command.build();
        for task in command.get_subcommands().filter(|task| task.get_name() != "help") {
            // These two hand their arguments on.
            if ["sim", "mutants"].contains(&task.get_name()) {
                continue;
            }
            let error = refused(&format!("{} --help", task.get_name()));
            assert_eq!((error.kind(), error.exit_code()), (ErrorKind::DisplayHelp, 0));
            assert!(task.get_about().is_some(), "{} says what it does", task.get_name());
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_what_is_right() {
        for (wrong, right) in [
            ("demo --jsn", "--json"),
            ("chek", "check"),
            ("bench verify 9", "10..=50000"),
            ("check-config --secret .dev.vars", "--secrets"),
        ] {
            let error = refused(wrong);
            assert!(error.to_string().contains(right), "{wrong}: {error}");
            assert_eq!(error.exit_code(), 2, "{wrong}");
        }
    }

    /// Every command that a page names is one that is understood.
    #[test]
    fn the_pages_name_commands_that_there_are() {
        let root = harness::paths::root();
        let folders = ["runbooks", "docs", "."].map(|folder| root.join(folder));
        let files = folders.iter().flat_map(|folder| std::fs::read_dir(folder).expect("a folder"));
        let mut named = 0;
        for path in files.map(|entry| entry.expect("an entry").path()) {
            if path.extension().is_none_or(|ending| ending != "md") {
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("a page");
            for rest in text.split("cargo xtask ").skip(1) {
                let end = rest.find(['`', '\n', ';', ',', ')', '>', '|', '"']);
                let words = rest[..end.unwrap_or(rest.len())].trim();
                if words.is_empty() {
                    continue;
                }
                named += 1;
                let is_known = match parsed(words) {
                    Ok(_) => true,
                    Err(error) => error.kind() == ErrorKind::DisplayHelp,
                };
                assert!(is_known, "{}: cargo xtask {words}", path.display());
            }
        }
        assert!(named > 20, "only {named} commands were found");
    }
}
