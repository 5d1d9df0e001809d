//! `neon-emulator`: Neon's API and SQL proxy over real PostgreSQL, for tests and demonstrations.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use neon_emulator::model::Durations;
use neon_emulator::{Emulator, Options};
use tokio::signal::unix::{SignalKind, signal};

/// Neon's API and SQL proxy over real PostgreSQL, for tests and demonstrations.
///
/// Prints `listening on ADDRESS` when it is ready. Ends, with every postgres it started, on SIGINT
/// or SIGTERM, and when its standard input is closed if --until-eof is given.
#[derive(Parser)]
#[command(name = "neon-emulator", version)]
struct Arguments {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: String,
    /// Where branches live; made if it is not there, and not removed
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
    /// Where initdb and postgres are
    #[arg(long, value_name = "FOLDER")]
    postgres_bin: PathBuf,
    /// The key that requests must have
    #[arg(long, value_name = "KEY", default_value = "neon_emulator_key")]
    api_key: String,
    /// SQL for production
    #[arg(long, value_name = "FILE")]
    seed: Option<PathBuf>,
    /// Make a child of production with this name
    #[arg(long, value_name = "NAME")]
    staging: Option<String>,
    /// How long making a branch takes
    #[arg(long, value_name = "N", default_value_t = Durations::default().create_ms)]
    create_ms: i64,
    /// How long a restore takes
    #[arg(long, value_name = "N", default_value_t = Durations::default().restore_ms)]
    restore_ms: i64,
    /// How long other operations take
    #[arg(long, value_name = "N", default_value_t = Durations::default().other_ms)]
    other_ms: i64,
    /// How much more or less than that each of them takes at most
    #[arg(long, value_name = "N", default_value_t = Durations::default().spread_percent,
        value_parser = clap::value_parser!(u32).range(0..=100))]
    spread_percent: u32,
    /// How many of a thousand take twenty times as long
    #[arg(long, value_name = "N", default_value_t = Durations::default().tail_per_mille,
        value_parser = clap::value_parser!(u32).range(0..=1000))]
    tail_per_mille: u32,
    /// How long the proxy goes on with an old password
    #[arg(long, value_name = "N", default_value_t = Durations::default().secret_cache_ms)]
    secret_cache_ms: i64,
    /// How long a compute that sleeps takes to start; more than 7000 fails the query
    #[arg(long, value_name = "N", default_value_t = Durations::default().wake_ms)]
    wake_ms: i64,
    /// Seconds until an idle compute sleeps
    #[arg(long, value_name = "N", default_value_t = 300)]
    suspend_after_s: u64,
    /// Seconds that Neon's clock is ahead of everybody else's; behind where negative
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    clock_offset_s: i64,
    /// The seed of the ids
    #[arg(long, value_name = "N", default_value_t = 1)]
    random_seed: u64,
    /// End when the standard input is closed
    #[arg(long)]
    until_eof: bool,
}

impl Arguments {
    fn options(self) -> Options {
        let durations = Durations {
            create_ms: self.create_ms,
            restore_ms: self.restore_ms,
            other_ms: self.other_ms,
            spread_percent: self.spread_percent,
            tail_per_mille: self.tail_per_mille,
            secret_cache_ms: self.secret_cache_ms,
            wake_ms: self.wake_ms,
            ..Durations::default()
        };
        Options {
            listen: self.listen,
            data: self.data,
            postgres_bin: self.postgres_bin,
            api_key: self.api_key,
            seed: self.seed,
            staging: self.staging,
            durations,
            suspend_after: Duration::from_secs(self.suspend_after_s),
            clock_offset_s: self.clock_offset_s,
            random_seed: self.random_seed,
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let until_eof = arguments.until_eof;
    let options = arguments.options();
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let emulator = tokio::select! {
        started = Emulator::start(options) => started?,
        _ = interrupted.recv() => return Ok(()),
        _ = terminated.recv() => return Ok(()),
    };
    let mut out = std::io::stdout();
    writeln!(out, "listening on {}", emulator.address)?;
    out.flush()?;
    tokio::select! {
        _ = interrupted.recv() => {}
        _ = terminated.recv() => {}
        () = end_of_input(), if until_eof => {}
    }
    emulator.stop().await;
    Ok(())
}

/// Waits until whoever started us is gone.
///
/// The input is read on a thread of its own: tokio's would keep the process alive until the next
/// line.
async fn end_of_input() {
    let (sender, ended) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = sender.send(());
    });
    let _ = ended.await;
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use clap::error::ErrorKind;

    use super::*;

    fn refused(words: &[&str]) -> clap::Error {
        let words = ["neon-emulator"].iter().chain(words);
        Arguments::try_parse_from(words).err().expect("it is refused")
    }

    #[test]
    fn help_is_no_error_and_a_wrong_flag_names_the_right_one() {
        Arguments::command().debug_assert();
        let help = refused(&["--help"]);
        assert_eq!((help.kind(), help.exit_code()), (ErrorKind::DisplayHelp, 0));
        let wrong = refused(&["--data", "d", "--postgres-bin", "p", "--restore-m", "3"]);
        assert!(wrong.to_string().contains("--restore-ms"), "{wrong}");
        assert_eq!(wrong.exit_code(), 2);
        let beyond = refused(&["--data", "d", "--postgres-bin", "p", "--spread-percent", "101"]);
        assert!(beyond.to_string().contains("0..=100"), "{beyond}");
    }

    #[test]
    fn what_is_not_said_is_as_neon_mostly_is() {
        let words =
            ["neon-emulator", "--data", "d", "--postgres-bin", "p", "--clock-offset-s", "-60"];
        let options = Arguments::try_parse_from(words).expect("it is understood").options();
        assert_eq!((options.durations.create_ms, options.clock_offset_s), (3_000, -60));
    }
}
