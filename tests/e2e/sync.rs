//! The main job: cron, backup, restore, comparison, notices.

use anyhow::Result;
use harness::emulator::Options;
use harness::stack::Stack;
use serde_json::{Value, json};

/// A small production.
pub(crate) const SEED: &str = "\
create table public.users(id bigint generated always as identity primary key, name text not \
null, score float8);
insert into public.users(name, score) select 'user ' || g, g / 3.0 from generate_series(1, 1000) g;
create table public.\"Company\"(\"Id\" uuid primary key default gen_random_uuid(),
    tags text[], doc json);
insert into public.\"Company\"(tags, doc)
    select array['a','b'], '{\"k\": 1}' from generate_series(1, 50);
create unlogged table public.cache(k text primary key);
create table public.secrets(id int primary key, org int);
alter table public.secrets enable row level security;
alter table public.secrets force row level security;
insert into public.secrets values (1, 1), (2, 2);
create materialized view public.later as select 1 as one with no data;
create role app login password 'app_secret';
grant select, insert on public.users to app;
";

/// Starts a stack with the small production and quick operations.
pub(crate) fn small() -> Result<Stack> {
    Stack::start(&options())
}

pub(crate) fn options() -> Options {
    Options { seed: SEED.to_owned(), ..Options::default() }
}

fn rows(stack: &Stack, branch: &str, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
    stack.emulator.sql(branch, &[sql])
}

#[test]
fn the_cron_makes_staging_a_verified_copy() -> Result<()> {
    let stack = small()?;
    let (production, staging) = (&stack.emulator.production, &stack.emulator.staging);
    stack.emulator.sql(
        staging,
        &["delete from users where id > 10", "alter role neondb_owner password 'staging only'"],
    )?;
    let before = rows(&stack, production, "select count(*), sum(score) from users")?;
    stack.emulator.control("DELETE", "journal", None)?;

    let report = stack.run_to_end(3)?;

    assert_eq!(report["status"], "succeeded", "{report:#}");
    assert_eq!(rows(&stack, staging, "select count(*), sum(score) from users")?, before);
    assert_eq!(rows(&stack, production, "select count(*), sum(score) from users")?, before);
    assert_eq!(stack.emulator.count("createProjectBranch")?, 1);
    assert_eq!(stack.emulator.count("restoreProjectBranch")?, 1);
    let writes: Vec<Value> =
        stack.emulator.journal()?.into_iter().filter(|entry| entry["method"] == "POST").collect();
    assert!(
        writes
            .iter()
            .all(|entry| !entry["path"].as_str().unwrap_or_default().contains(production.as_str())),
        "{writes:#?}"
    );
    let outcome = |name: &str| {
        let found =
            report["checks"].as_array().into_iter().flatten().find(|check| check["name"] == name);
        found.map(|check| check["outcome"].clone()).unwrap_or_default()
    };
    assert_eq!(outcome("neondb: content of public.users"), "passed");
    assert_eq!(outcome("neondb: content of public.\"Company\""), "passed");
    assert_eq!(outcome("neondb: content of public.secrets"), "passed");
    assert_eq!(outcome("neondb: content of public.cache"), "skipped");
    assert_eq!(outcome("neondb: content of public.later"), "skipped");
    // A role whose password the proxy has not heard of yet comes after the others.
    let mut kept: Vec<&str> = report["passwords"]["kept"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    kept.sort_unstable();
    assert_eq!(kept, ["app", "neondb_owner"]);
    Ok(())
}

#[test]
fn a_success_is_told_once_signed_and_in_the_agreed_words() -> Result<()> {
    let stack = small()?;

    let report = stack.run_to_end(3)?;
    stack.worker.cron()?;

    let hooks = stack.sink.taken("/webhook");
    assert_eq!(hooks.len(), 1, "{hooks:#?}");
    assert_eq!(hooks[0].is_signed, Some(true));
    assert_eq!(
        hooks[0].id.as_deref(),
        Some(format!("hub/{}/succeeded", report["run"].as_str().unwrap_or_default()).as_str())
    );
    let data = &hooks[0].body["data"];
    assert!(
        data["subject"]
            .as_str()
            .unwrap_or_default()
            .starts_with("[CAIO Hub] Daily sync completed — "),
        "{data:#}"
    );
    let text = data["text"].as_str().unwrap_or_default();
    assert!(
        text.starts_with("Production → staging sync completed successfully at ")
            && text.ends_with(". Staging data verified."),
        "{data:#}"
    );
    assert!(
        text.contains(" UTC, ") && (text.contains(" early. ") || text.contains(" late. ")),
        "{data:#}"
    );
    let health = harness::http::send("GET", &format!("{}/health", stack.worker.url), None, None)?;
    assert_eq!(health.status, 200, "{}", health.body);
    let messages = stack.sink.taken("/slack");
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].body["blocks"][0]["type"], "header");
    Ok(())
}

#[test]
fn an_idle_tick_reads_thirty_three_keys_in_the_hour_after_a_run_and_calls_nobody() -> Result<()> {
    let stack = small()?;
    stack.run_to_end(3)?;
    // The first tick after a run writes down that its notices were taken.
    stack.worker.cron()?;
    assert_eq!(stack.worker.logged("idle tick ended")["http"], "0", "{}", stack.worker.output());
    stack.emulator.control("DELETE", "journal", None)?;
    let told = stack.sink.received().len();

    stack.worker.cron()?;

    // In one read right after the start of the window, which is midnight here, and else in two.
    let line = stack.worker.logged("idle tick ended");
    assert_eq!(
        (line["http"].as_str(), line["keys"].as_str()),
        (Some("0"), Some("33")),
        "{}",
        stack.worker.output()
    );
    assert!(matches!(line["kv"].as_str(), Some("1" | "2")), "{}", stack.worker.output());
    assert!(stack.emulator.journal()?.is_empty());
    assert_eq!(stack.sink.received().len(), told);
    Ok(())
}

#[test]
fn a_run_of_a_hundred_tables_fits_one_invocation_and_its_count_is_the_journals() -> Result<()> {
    let tables = "do $$ begin for i in 1..100 loop \
        execute format('create table public.t%s(id int primary key, v text); \
        insert into public.t%s select g, md5(g::text) from generate_series(1, 20) g', i, i); \
        end loop; end $$;";
    let options = Options { seed: tables.to_owned(), ..Options::default() };
    // A machine that is busy has operations that are looked at more often: those looks are counted
    // apart, and may take more than there is.
    let stack = Stack::start_with(&options, &|settings, _, _| {
        settings["subrequest_budget"] = json!(200);
    })?;
    stack.emulator.control("DELETE", "journal", None)?;

    let report = stack.run_to_end(1)?;

    assert_eq!(
        (&report["status"], &report["compared"]["tables"]),
        (&json!("succeeded"), &json!(100)),
        "{report:#}"
    );
    let line = stack.worker.logged("tick ended");
    let count = |name: &str| {
        line[name].as_str().and_then(|text| text.parse::<usize>().ok()).unwrap_or(usize::MAX)
    };
    let journal = stack.emulator.journal()?;
    let looks = journal.iter().filter(|entry| entry["route"] == "getProjectOperation").count();
    // One look is needed at the backup, and one at the restore.
    assert!(count("subrequests") - looks.saturating_sub(2) <= 50, "{line} {journal:#?}");
    assert_eq!(line["handed_over"], "false");
    assert_eq!(count("http"), journal.len() + stack.sink.received().len(), "{line}");
    Ok(())
}

#[test]
fn five_hundred_tables_cost_at_most_ten_requests_more_than_five() -> Result<()> {
    let requests = |count: u32| -> Result<usize> {
        let tables = format!(
            "do $$ begin for i in 1..{count} loop execute format('create table \
                public.t%s(id serial primary key, up int references public.t%s); \
                insert into public.t%s(up) values (null), (1)', i, i, i); end loop; end $$;"
        );
        let stack = Stack::start(&Options { seed: tables, ..Options::default() })?;
        stack.emulator.control("DELETE", "journal", None)?;
        let report = stack.run_to_end(3)?;
        assert_eq!(
            (&report["status"], &report["compared"]["tables"]),
            (&json!("succeeded"), &json!(count)),
            "{report:#}"
        );
        // How often an operation is looked at tells how long it takes, and nothing of tables.
        let is_look = |entry: &&Value| entry["route"] == "getProjectOperation";
        let journal = stack.emulator.journal()?;
        assert!(journal.iter().any(|entry| is_look(&entry)), "{journal:?}");
        Ok(journal.iter().filter(|entry| !is_look(entry)).count())
    };
    let (few, many) = (requests(5)?, requests(500)?);
    assert!(many <= few + 10, "{few} requests for 5 tables, {many} for 500");
    Ok(())
}

/// Returns the check of a name.
fn check(report: &Value, name: &str) -> Value {
    report["checks"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|check| check["name"] == name)
        .cloned()
        .unwrap_or_default()
}

/// Returns the text of the first notice.
fn told(stack: &Stack) -> String {
    stack
        .sink
        .taken("/webhook")
        .first()
        .map(|hook| hook.body["data"]["text"].as_str().unwrap_or_default().to_owned())
        .unwrap_or_default()
}

#[test]
fn a_copy_that_is_no_copy_is_told_first_wherever_the_change_lies() -> Result<()> {
    let swap = "update users set name = case id \
        when 5 then (select name from users where id = 6) \
        else (select name from users where id = 5) end where id in (5, 6)";
    for place in ["before", "after"] {
        let stack = small()?;
        stack.emulator.fault(
            "restoreProjectBranch",
            1,
            &json!({"kind": "tamper", "where": place, "sql": swap}),
        )?;

        let report = stack.run_to_end(2)?;

        assert_eq!(report["status"], "succeeded", "{report:#}");
        let users = check(&report, "neondb: content of public.users");
        assert_eq!(
            (&users["outcome"], &users["drift"], &users["rows"]["counts"]["changed"]),
            (&json!("warned"), &json!("lost"), &json!(2))
        );
        assert_eq!(users["rows"]["changed"], json!(["{\"id\": 5}", "{\"id\": 6}"]), "{users:#}");
        assert!(
            told(&stack).starts_with(
                "Staging is not what was restored any more: public.users: 2 rows are changed. "
            ),
            "{}",
            told(&stack)
        );
        assert_eq!(stack.emulator.count("createProjectBranch")?, 1);
    }
    Ok(())
}

#[test]
fn a_definition_that_the_restore_changed_warns_and_names_the_object() -> Result<()> {
    let stack = small()?;
    stack.emulator.fault(
        "restoreProjectBranch",
        1,
        &json!({"kind": "tamper", "sql": "alter table users alter name drop not null"}),
    )?;

    let report = stack.run_to_end(2)?;

    assert_eq!(report["status"], "succeeded", "{report:#}");
    let columns = check(&report, "neondb: columns");
    assert_eq!(
        (&columns["outcome"], &columns["drift"]),
        (&json!("warned"), &json!("lost")),
        "{report:#}"
    );
    assert!(
        columns["detail"]
            .as_str()
            .unwrap_or_default()
            .contains("public.users.name: in the backup "),
        "{columns:#}"
    );
    Ok(())
}

/// As in case 37: what the application did between the restore and the comparison, as data that the
/// restore brings.
#[test]
fn a_staging_that_was_emptied_right_after_its_restore_is_told_first_and_warns() -> Result<()> {
    let seed = "create table public.t(id int primary key, v text); \
        insert into public.t select g, g from generate_series(1, 5000) g;\n\
        create table public.u(id int primary key, v text); \
        insert into public.u select g, g from generate_series(1, 5000) g;\n\
        create materialized view public.later as select 1 as one with no data;\n";
    let misuse = "truncate t; update u set v = v || 'x'; create table made_here (id int); \
        refresh materialized view later";
    for (word, status) in [("warn", "succeeded"), ("fail", "failed")] {
        let options = Options { seed: seed.to_owned(), ..Options::default() };
        let stack = Stack::start_with(&options, &|settings, _, _| {
            settings["pairs"][0]["verification"] = json!({"on_drift": word});
        })?;
        stack.emulator.fault(
            "restoreProjectBranch",
            1,
            &json!({"kind": "tamper", "sql": misuse}),
        )?;

        let report = stack.run_to_end(2)?;

        assert_eq!(report["status"], status, "{report:#}");
        let counts = |table: &str| {
            check(&report, &format!("neondb: content of public.{table}"))["rows"]["counts"].clone()
        };
        assert_eq!(counts("t"), json!({"gone": 5000, "changed": 0, "added": 0}));
        assert_eq!(counts("u"), json!({"gone": 0, "changed": 5000, "added": 0}));
        assert_eq!(counts("later"), json!({"gone": 0, "changed": 0, "added": 1}));
        let text = told(&stack);
        assert!(
            text.contains("5,000 rows of the backup are gone")
                && text.contains("5,000 rows are changed"),
            "{text}"
        );
        assert_eq!(
            text.starts_with("Staging is not what was restored any more: public.t: "),
            word == "warn",
            "{text}"
        );
    }
    Ok(())
}

#[test]
fn on_mismatch_staging_is_rolled_back_where_that_is_configured() -> Result<()> {
    let stack = Stack::start_with(&options(), &|settings, _, _| {
        settings["pairs"][0]["on_mismatch"] = json!("roll_back");
    })?;
    stack.emulator.sql(&stack.emulator.staging, &["delete from users where id > 10"])?;
    let set_back = "select setval('users_id_seq', 1)";
    stack.emulator.fault("restoreProjectBranch", 1, &json!({"kind": "tamper", "sql": set_back}))?;

    let report = stack.run_to_end(3)?;

    assert_eq!(report["status"], "failed", "{report:#}");
    assert!(
        report["staging"].as_str().unwrap_or_default().starts_with("Staging was rolled back"),
        "{report:#}"
    );
    assert_eq!(
        rows(&stack, &stack.emulator.staging, "select count(*) from users")?,
        vec![vec![Some("10".to_owned())]]
    );
    assert_eq!(stack.emulator.count("restoreProjectBranch")?, 2);
    Ok(())
}

#[test]
fn staging_that_is_written_to_while_it_is_read_is_drift_and_no_failure() -> Result<()> {
    let stack = small()?;
    let done = std::sync::atomic::AtomicBool::new(false);

    let report = std::thread::scope(|scope| {
        scope.spawn(|| {
            // Bounded: the run ends long before 600 × 100 ms.
            for _ in 0..600 {
                if done.load(std::sync::atomic::Ordering::SeqCst) {
                    break;
                }
                let _ = stack.emulator.sql(
                    &stack.emulator.staging,
                    &["insert into users(name) values ('from the application')"],
                );
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
        });
        let report = stack.run_to_end(3);
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        report
    })?;

    assert_eq!(report["status"], "succeeded", "{report:#}");
    let drift = report["checks"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|check| check["name"] == "neondb: content of public.users");
    assert!(
        drift.is_some_and(|check| check["detail"].as_str().unwrap_or_default().contains("drift")),
        "{report:#}"
    );
    assert!(told(&stack).contains(". Staging data verified; public.users: "), "{}", told(&stack));
    assert_eq!(stack.emulator.count("createProjectBranch")?, 1);
    Ok(())
}

#[test]
fn no_secret_reaches_kv_a_notice_or_the_log() -> Result<()> {
    let stack = small()?;
    let endpoint = stack.emulator.writer(&stack.emulator.production)?;
    let mut secrets = vec![
        "app_secret".to_owned(),
        harness::emulator::API_KEY.to_owned(),
        harness::worker::ADMIN_TOKEN.to_owned(),
    ];
    secrets.extend(
        endpoint["roles"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|role| role["password"].as_str().map(str::to_owned)),
    );

    let report = stack.run_to_end(3)?;

    let mut places = vec![report.to_string(), stack.worker.output()];
    places.extend(stack.sink.received().into_iter().map(|received| received.body.to_string()));
    places.push(stack.stored_text()?);
    for (place, secret) in
        places.iter().flat_map(|place| secrets.iter().map(move |secret| (place, secret)))
    {
        assert!(
            !place.contains(secret),
            "a secret of {} characters was found in {} characters of text",
            secret.len(),
            place.len()
        );
    }
    assert!(places[places.len() - 1].contains("checkpoint"), "KV was not looked into");
    Ok(())
}

#[test]
fn the_main_job_works_whichever_way_the_unverified_facts_are() -> Result<()> {
    let stack = small()?;
    stack.emulator.sql(&stack.emulator.staging, &["alter role app password 'staging only'"])?;
    let other = json!({
        "child_point_in_time": false, "refuse_expiring_source": false,
        "passwords_from_source": false, "branch_at_restore_lsn": false,
        "reader_without_writer": false, "parent_changes_at_once": false,
        "annotations_survive": false,
        "lonely_reader": {"status": 412, "message": "no primary compute"},
        "archives": {"after_age_s": 0, "after_idle_s": 3600},
        "archived_source": {"status": 400, "message": "ancestor is archived"},
    });
    stack.emulator.control("PUT", "switches", Some(&other.to_string()))?;
    stack.emulator.fault("restoreProjectBranch", 1, &json!({"kind": "drop_after"}))?;

    let report = stack.run_to_end(3)?;

    assert_eq!(report["status"], "succeeded", "{report:#}");
    assert_eq!(stack.emulator.count("restoreProjectBranch")?, 1);
    assert_eq!(
        report["prune"]["deleted_endpoints"].as_array().map(Vec::len),
        Some(1),
        "{report:#}"
    );
    let endpoint = stack.emulator.writer(&stack.emulator.staging)?;
    let app = endpoint["roles"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|role| role["name"] == "app")
        .cloned()
        .unwrap_or_default();
    assert_eq!(app["password"], "staging only");
    Ok(())
}

#[test]
fn more_roles_than_one_invocation_can_look_after_are_finished_by_the_next() -> Result<()> {
    let roles: Vec<String> = (1..=30)
        .map(|number| format!("create role r{number} login password 'secret_of_r{number}';\n"))
        .collect();
    let stack =
        Stack::start(&Options { seed: format!("{SEED}{}", roles.concat()), ..Options::default() })?;

    let report = stack.run_to_end(6)?;

    assert_eq!(report["status"], "succeeded", "{report:#}");
    assert!(report["tick_count"].as_u64().is_some_and(|ticks| ticks > 1), "{report:#}");
    assert_eq!(report["passwords"]["kept"].as_array().map(Vec::len), Some(32), "{report:#}");
    assert_eq!(stack.emulator.count("restoreProjectBranch")?, 1);
    Ok(())
}

#[test]
fn a_pair_whose_record_cannot_be_read_is_left_alone_and_told_once() -> Result<()> {
    let mut stack = small()?;
    stack.worker.kill();
    stack.put_kv("hold/hub", "{\"format\": 99, \"reason\": \"from the future\"}")?;
    stack.restart_worker()?;
    stack.emulator.control("DELETE", "journal", None)?;

    stack.worker.cron()?;
    stack.worker.cron()?;

    let told = stack.sink.taken("/webhook");
    assert_eq!(told.len(), 1, "{told:#?}");
    let data = &told[0].body["data"];
    assert!(data["subject"].as_str().unwrap_or_default().contains("Daily sync STUCK"), "{data:#}");
    assert!(
        data["text"].as_str().unwrap_or_default().contains("read hold/hub: it has format 99"),
        "{data:#}"
    );
    assert!(stack.emulator.journal()?.is_empty());
    Ok(())
}
