//! `neon-emulator`: Neon's API and SQL proxy over real PostgreSQL, for tests and demonstrations.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use neon_emulator::model::Durations;
use neon_emulator::{Emulator, Options};
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "\
neon-emulator --listen ADDRESS --data FOLDER --postgres-bin FOLDER [options]

  --listen ADDRESS        such as 127.0.0.1:0
  --data FOLDER           where branches live
  --postgres-bin FOLDER   where initdb and postgres are
  --api-key KEY           the key that requests must have (default: neon_emulator_key)
  --seed FILE             SQL for production
  --staging NAME          make a child of production with this name
  --create-ms N           how long making a branch takes (default: 3000)
  --restore-ms N          how long a restore takes (default: 6100)
  --other-ms N            how long other operations take (default: 500)
  --spread-percent N      how much more or less than that each of them takes at most (default: 30)
  --tail-per-mille N      how many of a thousand take twenty times as long (default: 10)
  --secret-cache-ms N     how long the proxy goes on with an old password (default: 1500)
  --wake-ms N             how long a compute that sleeps takes to start (default: 300);
                          more than 7000 fails the query
  --suspend-after-s N     seconds until an idle compute sleeps (default: 300)
  --clock-offset-s N      seconds that Neon's clock is ahead of everybody else's (default: 0);
                          behind where negative
  --random-seed N         the seed of the ids (default: 1)

Prints `listening on ADDRESS` when it is ready. Ends, with every postgres it started, on SIGINT or
SIGTERM, and when its standard input is closed if --until-eof is given.";

#[tokio::main]
async fn main() -> Result<()> {
    let mut until_eof = false;
    let options = options(std::env::args().skip(1), &mut until_eof)?;
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

fn options(mut arguments: impl Iterator<Item = String>, until_eof: &mut bool) -> Result<Options> {
    let mut options = Options {
        listen: "127.0.0.1:0".to_owned(),
        data: PathBuf::new(),
        postgres_bin: PathBuf::new(),
        api_key: "neon_emulator_key".to_owned(),
        seed: None,
        staging: None,
        durations: Durations::default(),
        suspend_after: Duration::from_mins(5),
        clock_offset_s: 0,
        random_seed: 1,
    };
    while let Some(name) = arguments.next() {
        if name == "--help" {
            bail!("{USAGE}");
        }
        if name == "--until-eof" {
            *until_eof = true;
            continue;
        }
        let value =
            arguments.next().with_context(|| format!("{name}: a value is missing\n\n{USAGE}"))?;
        let number = || {
            value.parse::<i64>().with_context(|| format!("{name}: {value:?} is no whole number"))
        };
        match name.as_str() {
            "--listen" => options.listen.clone_from(&value),
            "--data" => options.data = PathBuf::from(&value),
            "--postgres-bin" => options.postgres_bin = PathBuf::from(&value),
            "--api-key" => options.api_key.clone_from(&value),
            "--seed" => options.seed = Some(PathBuf::from(&value)),
            "--staging" => options.staging = Some(value.clone()),
            "--create-ms" => options.durations.create_ms = number()?,
            "--restore-ms" => options.durations.restore_ms = number()?,
            "--other-ms" => options.durations.other_ms = number()?,
            "--spread-percent" => {
                options.durations.spread_percent = u32::try_from(number()?).unwrap_or(0).min(100);
            }
            "--tail-per-mille" => {
                options.durations.tail_per_mille = u32::try_from(number()?).unwrap_or(0);
            }
            "--secret-cache-ms" => options.durations.secret_cache_ms = number()?,
            "--wake-ms" => options.durations.wake_ms = number()?,
            "--suspend-after-s" => {
                options.suspend_after = Duration::from_secs(u64::try_from(number()?).unwrap_or(0));
            }
            "--clock-offset-s" => options.clock_offset_s = number()?,
            "--random-seed" => options.random_seed = u64::try_from(number()?).unwrap_or(0),
            _ => bail!("{name}: no such option\n\n{USAGE}"),
        }
    }
    if options.data.as_os_str().is_empty() || options.postgres_bin.as_os_str().is_empty() {
        bail!("--data and --postgres-bin are needed\n\n{USAGE}");
    }
    Ok(options)
}
