//! `cargo xtask bench verify`: our comparison of two copies beside those of other tools, on the
//! same two servers and the same data.
//!
//! PostgreSQL comes from `PATH`, because its tools must fit its server. Every figure is a ratio
//! within one run.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use firstlight::id::Secret;
use firstlight::neon::sql::{Batch, Login, Rows};
use firstlight::port::HttpResponse;
use firstlight::verify::{Catalogue, DatabasePrint, Pages, Piece, decode_catalogue, pieces};
use harness::emulator::{Emulator, Options};

use crate::shell::say;

/// Small tables beside the large one.
const SMALL_TABLES: u32 = 500;

/// Rows of the large table in a megabyte: a row of it takes about 250 bytes.
const ROWS_PER_MEGABYTE: u64 = 4_000;

/// Rounds; the best of each tool counts.
const ROUNDS: u32 = 2;

/// One of the two copies.
pub(crate) struct Copy<'a> {
    emulator: &'a Emulator,
    host: String,
    password: String,
    /// How other programs connect.
    pub(crate) address: String,
}

impl<'a> Copy<'a> {
    /// Wakes a branch's compute and finds out how to reach it.
    pub(crate) fn of(emulator: &'a Emulator, branch: &str) -> Result<Self> {
        emulator.sql(branch, &["select 1"])?;
        let endpoint = emulator.writer(branch)?;
        let password = emulator.owner_password(branch)?;
        let host = endpoint["host"].as_str().context("the host")?.to_owned();
        let address =
            format!("postgresql://neondb_owner:{password}@127.0.0.1:{}/neondb", endpoint["port"]);
        Ok(Self { emulator, host, password, address })
    }

    /// Sends a batch as the Worker does.
    fn send(&self, batch: &Batch) -> Result<Vec<Rows>> {
        let password = Secret::new(self.password.clone());
        let login = Login {
            host: self.host.clone(),
            database: "neondb".into(),
            role: "neondb_owner".into(),
            password,
        };
        let request = batch.encode(&login, Some(&format!("{}/sql", self.emulator.url)), None);
        let mut headers: Vec<(&str, &str)> =
            request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        headers.extend(
            request.secret_headers.iter().map(|(name, value)| (name.as_str(), value.reveal())),
        );
        headers.retain(|(name, _)| *name != "Content-Type");
        let answer =
            harness::http::send_with("POST", &request.url, None, &headers, Some(&request.body))?;
        Ok(batch.decode(
            &login,
            Ok(HttpResponse {
                status: answer.status,
                body: answer.body,
                ..HttpResponse::default()
            }),
        )?)
    }

    /// Reads everything as the Worker does, pieces at the same time; returns the print and the
    /// number of requests.
    fn read(&self, guide: Option<&DatabasePrint>) -> Result<(DatabasePrint, usize)> {
        let catalogue: Catalogue = {
            let rows = Pages::fetch(&[], false, |batch| self.send(batch))?
                .context("a page makes no sense")?;
            decode_catalogue(&rows).context("the catalogue makes no sense")?
        };
        let (mut print, mut requests) = (catalogue.print.clone(), 1);
        // Bounded: a piece that takes its time is 3 GB at 200 MB/s.
        for _ in 0..10_000 {
            let asked = pieces(&catalogue, &print, guide);
            if asked.is_empty() {
                return Ok((print, requests));
            }
            requests += asked.len();
            let answers = std::thread::scope(|scope| {
                let tasks: Vec<_> = asked
                    .iter()
                    .map(|(_, batch)| scope.spawn(move || timed(|| self.send(batch))))
                    .collect();
                tasks
                    .into_iter()
                    .map(|task| task.join().expect("a thread panicked"))
                    .collect::<Vec<_>>()
            });
            for ((piece, _), (took, answer)) in asked.iter().zip(answers) {
                let piece: &Piece = piece;
                print.take(piece, &answer?, took).context("the content makes no sense")?;
            }
        }
        bail!("reading does not come to an end")
    }
}

/// Does something and says how long it took.
pub(crate) fn timed<T>(act: impl FnOnce() -> T) -> (Duration, T) {
    let began = Instant::now();
    let done = act();
    (began.elapsed(), done)
}

/// Runs a shell command and says how long it took.
pub(crate) fn shell(command: &str) -> Result<Duration> {
    let (took, status) = timed(|| {
        Command::new("bash").args(["-o", "pipefail", "-c", command]).stdout(Stdio::null()).status()
    });
    if !status.context("start bash")?.success() {
        bail!("{} failed", command.split_whitespace().next().unwrap_or_default());
    }
    Ok(took)
}

/// Returns the best of several rounds.
fn best(mut act: impl FnMut() -> Result<Duration>) -> Result<Duration> {
    let mut all = (0..ROUNDS).map(|_| act()).collect::<Result<Vec<_>>>()?;
    all.sort_unstable();
    Ok(all[0])
}

/// Inserts so many rows into production, of which `statement` makes one from the number `g`; in
/// parts, so that no request outlives its time.
pub(crate) fn insert(emulator: &Emulator, statement: &str, rows: u64) -> Result<()> {
    let part = rows.min(1_000_000);
    for from in (0..rows).step_by(usize::try_from(part)?) {
        let to = rows.min(from + part);
        emulator.sql(
            &emulator.production,
            &[&format!("{statement} from generate_series({from} + 1, {to}) g")],
        )?;
    }
    Ok(())
}

/// Fills production with a large table of mixed types, and leaves it as autovacuum would.
fn fill(emulator: &Emulator, megabytes: u64) -> Result<()> {
    emulator.sql(
        &emulator.production,
        &["create table public.big(id bigint primary key, org int, at timestamptz, changed \
            timestamptz, day date, kind text, mail varchar(80), \
            amount numeric(12, 2), score float8, doc jsonb, tags text[], flag bool, ref uuid)"],
    )?;
    insert(
        emulator,
        "insert into public.big select g, g % 1000, timestamptz '2026-01-01' + \
            make_interval(secs => g), timestamptz '2026-02-01' + \
            make_interval(secs => g), date '2026-01-01' + (g % 365)::int, 'kind ' || g % 17, \
            'user' || g || '@example.com', g * 1.01, g / 7.0, \
            jsonb_build_object('k', g, 'v', md5(g::text)), array['a' || g % 5, 'b'], g % 2 = 0, \
            md5(g::text)::uuid",
        megabytes * ROWS_PER_MEGABYTE,
    )?;
    vacuum(emulator, "public.big")
}

/// Leaves tables of production as autovacuum would: who reads a row for the first time otherwise
/// writes that it is visible.
pub(crate) fn vacuum(emulator: &Emulator, tables: &str) -> Result<()> {
    shell(&format!(
        "psql '{}' -qc 'vacuum analyze {tables}'",
        Copy::of(emulator, &emulator.production)?.address
    ))
    .map(drop)
}

/// Measures and prints.
pub(crate) fn verify(megabytes: u64) -> Result<()> {
    let folder = tempfile_in_reach()?;
    let options =
        Options { postgres_bin: Some(harness::paths::postgres_on_path()?), ..Options::default() };
    let emulator = Emulator::start(folder.path(), &options)?;
    say(&format!("filling production with a table of {megabytes} MB"));
    fill(&emulator, megabytes)?;
    say("making staging a physical copy of it");
    restore_staging(&emulator, "before")?;
    let (one, other) =
        (Copy::of(&emulator, &emulator.production)?, Copy::of(&emulator, &emulator.staging)?);
    let version = emulator.sql(
        &emulator.production,
        &["select current_setting('server_version'), pg_size_pretty(pg_table_size('public.big'))"],
    )?;
    println!("PostgreSQL {}, a table of {}", text(&version, 0), text(&version, 1));
    let ours = one_table(&one, &other)?;
    let copydb = if has_compare() {
        println!("`pgcopydb compare data`, the program itself, on the same two databases:");
        best(|| compare_data(&one, &other))?
    } else {
        println!(
            "pgcopydb has no `compare` here (0.17 has, in Debian 13); what it would run on \
                both sides, at the same time:"
        );
        let columns = emulator.sql(
            &emulator.production,
            &["select string_agg(attname, ', ' order by attnum) from pg_attribute where \
                attrelid = 'public.big'::regclass and attnum > 0"],
        )?;
        let checksum = format!(
            "select count(1), sum(hashtext(({})::text)::bigint) from only public.big",
            text(&columns, 0)
        );
        best(|| {
            shell(&format!(
                "psql '{}' -Atc \"{checksum}\" & psql '{}' -Atc \"{checksum}\"; wait",
                one.address, other.address
            ))
        })?
    };
    println!("  {}, {} times as long as ours", shown(copydb), ratio(copydb, ours));
    let reladiff = std::env::var("RELADIFF").unwrap_or_else(|_| "reladiff".to_owned());
    if Command::new(&reladiff).arg("--version").output().is_ok_and(|output| output.status.success())
    {
        let took = shell(&format!(
            "{reladiff} '{}' big '{}' big -k id -c '%' --threads 4 2> /dev/null",
            one.address, other.address
        ))?;
        println!(
            "reladiff on both sides: {}, {} times as long as ours",
            shown(took),
            ratio(took, ours)
        );
    } else {
        println!("reladiff: not measured; to get it: pip install 'reladiff[postgresql]'");
    }
    with_small_tables(&emulator)
}

/// Measures one large table: our comparison of both sides, which is returned, what `COPY` takes for
/// one, and counting.
fn one_table(one: &Copy<'_>, other: &Copy<'_>) -> Result<Duration> {
    // Both caches are filled alike before anything is measured.
    one.read(None)?;
    other.read(None)?;
    let counting =
        best(|| shell(&format!("psql '{}' -Atc 'select count(*) from public.big'", one.address)))?;
    let ours_one = best(|| {
        let (took, read) = timed(|| one.read(None));
        read.map(|_| took)
    })?;
    let ours = best(|| {
        let (took, compared) = timed(|| compare(one, other, 1));
        compared.map(|_| took)
    })?;
    let copied = best(|| {
        shell(&format!("psql '{}' -c 'copy public.big to stdout' | sha256sum", one.address))
    })?;
    println!("count(*) of one side: {}", shown(counting));
    println!(
        "our content digest of one side: {}, {} times count(*)",
        shown(ours_one),
        ratio(ours_one, counting)
    );
    println!(
        "COPY … TO STDOUT | sha256sum of one side: {}, {} times as long as ours",
        shown(copied),
        ratio(copied, ours_one)
    );
    println!("our comparison of both sides: {}", shown(ours));
    Ok(ours)
}

/// Adds many small tables and measures both databases as a whole.
fn with_small_tables(emulator: &Emulator) -> Result<()> {
    say(&format!("adding {SMALL_TABLES} small tables"));
    let small = format!(
        "do $$ begin for i in 1..{SMALL_TABLES} loop \
            execute format('create table public.small_%s(id int primary key, v text); \
            insert into public.small_%s \
            select g, md5(g::text) from generate_series(1, 100) g', i, i); end loop; end $$"
    );
    emulator.sql(&emulator.production, &[&small, "analyze"])?;
    restore_staging(emulator, "before-the-small-ones")?;
    let (one, other) =
        (Copy::of(emulator, &emulator.production)?, Copy::of(emulator, &emulator.staging)?);
    let tables = usize::try_from(SMALL_TABLES)? + 1;
    let mut requests = compare(&one, &other, tables)?;
    let ours = best(|| {
        let (took, compared) = timed(|| compare(&one, &other, tables));
        requests = compared?;
        Ok(took)
    })?;
    println!(
        "our comparison of both sides, {tables} tables each: {}, {requests} requests",
        shown(ours)
    );
    if has_compare() {
        let copydb = best(|| compare_data(&one, &other))?;
        println!(
            "`pgcopydb compare data` of all of them: {}, {} times as long as ours",
            shown(copydb),
            ratio(copydb, ours)
        );
    }
    Ok(())
}

/// Reads both sides as the Worker does, one after the other; returns the number of requests.
fn compare(one: &Copy<'_>, other: &Copy<'_>, tables: usize) -> Result<usize> {
    let (left, asked) = one.read(None)?;
    let (right, asked_too) = other.read(Some(&left))?;
    if left.tables != right.tables || left.tables.len() != tables {
        bail!("the copies differ, or were not read");
    }
    Ok(asked + asked_too)
}

/// Returns whether the pgcopydb on `PATH` can compare.
fn has_compare() -> bool {
    Command::new("pgcopydb")
        .args(["compare", "data", "--help"])
        .output()
        .is_ok_and(|output| output.status.success())
}

/// Runs `pgcopydb compare data`.
fn compare_data(one: &Copy<'_>, other: &Copy<'_>) -> Result<Duration> {
    let folder = tempfile_in_reach()?;
    let dir = folder.path().join("pgcopydb");
    shell(&format!(
        "pgcopydb compare data --source '{}' --target '{}' --dir '{}' 2> /dev/null",
        one.address,
        other.address,
        dir.display()
    ))
}

/// Makes a folder that postgres may look into when it runs as another user.
pub(crate) fn tempfile_in_reach() -> Result<tempfile::TempDir> {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::Builder::new().prefix("firstlight-").tempdir()?;
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
    Ok(folder)
}

/// Restores staging from production, keeping its state under a name, and waits until that is done.
fn restore_staging(emulator: &Emulator, kept: &str) -> Result<()> {
    let body =
        serde_json::json!({"source_branch_id": emulator.production, "preserve_under_name": kept})
            .to_string();
    let answer =
        emulator.call("POST", &format!("/branches/{}/restore", emulator.staging), Some(&body))?;
    if answer.status >= 300 {
        bail!("restore staging: {} {}", answer.status, answer.body);
    }
    let settled = harness::wait_for(Duration::from_mins(10), || {
        let operations = emulator.call("GET", "/operations", None).ok()?.json();
        let mut statuses = operations["operations"]
            .as_array()?
            .iter()
            .map(|operation| operation["status"].clone());
        statuses.all(|status| status == "finished").then_some(())
    });
    settled.context("the restore has not ended")
}

fn text(rows: &[Vec<Option<String>>], column: usize) -> &str {
    rows.first().and_then(|row| row.get(column)?.as_deref()).unwrap_or_default()
}

pub(crate) fn shown(took: Duration) -> String {
    format!("{}.{:02} s", took.as_secs(), took.subsec_millis() / 10)
}

/// Returns how many times as long one took as the other, with one decimal.
pub(crate) fn ratio(one: Duration, other: Duration) -> String {
    let tenths = one.as_millis() * 10 / other.as_millis().max(1);
    format!("{}.{}", tenths / 10, tenths % 10)
}
