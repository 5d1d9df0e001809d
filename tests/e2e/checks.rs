//! What a run checks beside the copy itself: the built wasm against real PostgreSQL and a staging
//! application.

use anyhow::{Context as _, Result};
use harness::emulator::Options;
use harness::sink::APP_SECRET;
use harness::stack::Stack;
use serde_json::{Value, json};

use crate::sync::{SEED, options};

/// Tables of two organizations, guarded by row-level security, and an orphan that production has
/// had for years.
const ORGANIZATIONS: &str = "\
create table public.projects(id int primary key, org int not null, name text);
insert into public.projects select g, 1 + g % 2, 'p' || g from generate_series(1, 10) g;
alter table public.projects enable row level security;
create policy own on public.projects using (org::text = current_setting('app.org', true));
grant select on public.projects to app;
create table public.old(id int primary key, project int);
insert into public.old values (1, 99);
alter table public.old add constraint to_project foreign key (project)
    references public.projects not valid;
create table public.mails(id int primary key, address text);
insert into public.mails values (1, 'ann@example.test');
";

fn stack(verification: &Value) -> Result<Stack> {
    let options = Options { seed: format!("{SEED}{ORGANIZATIONS}"), ..Options::default() };
    Stack::start_with(&options, &|settings, _, _| {
        settings["pairs"][0]["verification"] = verification.clone();
    })
}

/// Returns how a check went and what it says; null where it is not in the report.
fn told(report: &Value, name: &str) -> (Value, String) {
    let found =
        report["checks"].as_array().into_iter().flatten().find(|check| check["name"] == name);
    found
        .map(|check| {
            (check["outcome"].clone(), check["detail"].as_str().unwrap_or_default().to_owned())
        })
        .unwrap_or_default()
}

/// Holds the report against the tables of `runbooks/verification.md`.
fn every_field_is_documented(report: &Value) -> Result<()> {
    let page = std::fs::read_to_string(harness::paths::root().join("runbooks/verification.md"))?;
    let (_, page) = page.split_once("## The report").context("find the report")?;
    let (of_run, of_check) = page.split_once("A check:").context("find the check")?;
    let known = |table: &str| -> Vec<String> {
        let cells = table.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
        cells
            .flat_map(|cell| cell.split(['`', ',', ' ']))
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let (run, check) = (known(of_run), known(of_check));
    let keys = |value: &Value| {
        value.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect::<Vec<_>>()
    };
    let unknown: Vec<String> = keys(report).into_iter().filter(|key| !run.contains(key)).collect();
    assert!(unknown.is_empty(), "{unknown:?} of the report is not documented");
    let checks = report["checks"].as_array().into_iter().flatten();
    let unknown: Vec<String> = checks.flat_map(keys).filter(|key| !check.contains(key)).collect();
    assert!(unknown.is_empty(), "{unknown:?} of a check is not documented");
    let undone: Vec<&String> = run.iter().filter(|name| !keys(report).contains(name)).collect();
    assert!(undone.is_empty(), "{undone:?} is documented and not in the report");
    Ok(())
}

#[test]
fn a_run_with_every_kind_of_check_tells_each_and_runs_what_is_configured_once() -> Result<()> {
    let stack = stack(&json!({
        "assertions": [
            {"name": "users", "sql": "select count(*) from users", "on": "both", "expect": 1000},
            {"name": "no address", "sql": "select count(*) from mails where address is not null",
                "on": "after_restore", "expect": 0},
        ],
        "tenants": {"role": "app", "setting": "app.org", "column": "org", "values": ["1", "2"]},
        "after_restore": {"sql": ["update mails set address = null",
                "create table seeded(id int)"]},
        "production_counts": "warn",
    }))?;

    let report = stack.run_to_end(3)?;
    stack.worker.cron()?;

    assert_eq!(report["status"], "succeeded", "{report:#}");
    every_field_is_documented(&report)?;
    let orphans = "1 have orphans: public.old.to_project (1 rows: {\"id\": 1})";
    assert_eq!(told(&report, "neondb: foreign keys"), (json!("warned"), orphans.to_owned()));
    assert_eq!(told(&report, "neondb: constraints that were never validated").0, "warned");
    assert_eq!(
        told(&report, "neondb: assertion users on backup"),
        (json!("passed"), "1000".to_owned())
    );
    assert_eq!(
        told(&report, "neondb: assertion users on staging"),
        (json!("passed"), "1000".to_owned())
    );
    assert_eq!(
        told(&report, "neondb: assertion no address on staging"),
        (json!("passed"), "0".to_owned())
    );
    assert_eq!(
        told(&report, "neondb: tenants in public.projects"),
        (json!("passed"), "2 tenants see 10 rows of their own".to_owned())
    );
    assert_eq!(
        told(&report, "neondb: after_restore"),
        (json!("passed"), "2 statements were run".to_owned())
    );
    assert_eq!(told(&report, "neondb: rows of production as it is").0, "passed");
    assert_eq!(
        told(&report, "neondb: what acts by itself"),
        (json!("passed"), "nothing would".to_owned())
    );
    assert_eq!(told(&report, "neondb: rows since the last verified run").0, "not_checked");
    let rows =
        stack.emulator.sql(&stack.emulator.staging, &["select count(address)::text from mails"])?;
    assert_eq!(rows, [[Some("0".to_owned())]]);
    let rows = stack
        .emulator
        .sql(&stack.emulator.production, &["select count(address)::text from mails"])?;
    assert_eq!(rows, [[Some("1".to_owned())]], "production is as it was");
    Ok(())
}

#[test]
fn what_the_backup_must_not_have_fails_the_run_before_staging_is_touched() -> Result<()> {
    let stack = stack(&json!({"foreign_keys": "fail"}))?;

    let report = stack.run_to_end(3)?;

    assert_eq!(
        (&report["status"], &report["step"]),
        (&json!("failed"), &json!("verify_backup")),
        "{report:#}"
    );
    let reason = report["reason"].as_str().unwrap_or_default();
    assert!(
        reason.contains("neondb: foreign keys: 1 have orphans: public.old.to_project"),
        "{reason}"
    );
    assert_eq!(stack.emulator.count("restoreProjectBranch")?, 0);
    Ok(())
}

#[test]
fn a_tenant_that_sees_what_is_not_its_own_fails_the_run() -> Result<()> {
    let stack = stack(&json!({
        "tenants": {"role": "app", "setting": "app.org", "column": "org", "values": ["1", "2"]},
    }))?;
    stack
        .emulator
        .sql(&stack.emulator.production, &["create policy open on projects using (id = 3)"])?;

    let report = stack.run_to_end(3)?;

    assert_eq!(report["status"], "failed", "{report:#}");
    let reason = report["reason"].as_str().unwrap_or_default();
    assert!(
        reason.contains(
            "tenants in public.projects: 1 rows are seen without a tenant; tenant 1 sees 1 rows \
                that are not its own"
        ),
        "{reason}"
    );
    Ok(())
}

#[test]
fn a_table_that_lost_its_rows_since_yesterday_is_told_although_both_sides_agree() -> Result<()> {
    let stack = stack(&json!({}))?;
    stack.run_to_end(3)?;
    stack.emulator.sql(&stack.emulator.production, &["delete from users where id > 600"])?;

    let report = stack.worker.report(&stack.worker.run_now()?)?;

    assert_eq!(report["status"], "succeeded", "{report:#}");
    let (outcome, detail) = told(&report, "neondb: rows since the last verified run");
    assert_eq!(outcome, "warned");
    assert!(
        detail.starts_with("public.users had 1000 rows in ") && detail.ends_with(" and has 600"),
        "{detail}"
    );
    Ok(())
}

/// As in case 13: a table that was dropped on purpose fails each run until somebody says that it
/// was meant.
#[test]
fn a_table_that_was_dropped_on_purpose_fails_no_run_after_the_one_that_accepts_it() -> Result<()> {
    let stack = stack(&json!({"row_loss": "fail"}))?;
    assert_eq!(stack.run_to_end(3)?["status"], "succeeded");
    stack.emulator.sql(&stack.emulator.production, &["drop table public.projects cascade"])?;
    let row_loss = |report: &Value| told(report, "neondb: rows since the last verified run");

    for _ in 0..2 {
        let refused = stack.worker.report(&stack.worker.run_now()?)?;
        assert_eq!(
            (&refused["status"], row_loss(&refused).0),
            (&json!("failed"), json!("failed")),
            "{refused:#}"
        );
        assert!(
            row_loss(&refused).1.ends_with("start a run with {\"accept_row_loss\": true}"),
            "{refused:#}"
        );
    }
    stack.worker.run_now_with(r#"{"accept_row_loss": true}"#)?;
    let accepted = stack.run_to_end(3)?;
    assert_eq!(
        (&accepted["status"], row_loss(&accepted).0),
        (&json!("succeeded"), json!("warned")),
        "{accepted:#}"
    );
    let next = stack.worker.report(&stack.worker.run_now()?)?;
    assert_ne!(next["run"], accepted["run"]);
    assert_eq!(
        (&next["status"], row_loss(&next).0),
        (&json!("succeeded"), json!("passed")),
        "{next:#}"
    );
    Ok(())
}

#[test]
fn the_application_is_logged_in_to_and_its_page_is_read_with_the_cookie() -> Result<()> {
    let options = Options { seed: SEED.to_owned(), ..Options::default() };
    let stack = Stack::start_with(&options, &|settings, _, sink| {
        let url = |path: &str| format!("{}/app/{path}", sink.url);
        settings["pairs"][0]["smoke_tests"] = json!([
            {"name": "form", "url": url("form"), "expect_headers": {"content-type": "text/html"},
                "capture": {"csrf": "between:value=\"|\""}},
            {"name": "log in", "method": "POST", "url": url("login"), "body": "csrf={{csrf}}",
                "secret_headers": {"x-preview": "PREVIEW_TOKEN"},
             "expect_status": 302,
             "capture": {"session": "cookie:session", "theme": "cookie:theme"}},
            {"name": "me", "url": url("me"), "headers": {"cookie": "session={{session}}"},
                "expect_json": {"/user/id": 7}},
            {"name": "somebody else", "url": url("me"), "headers": {"cookie": "theme={{theme}}"},
                "attempts": 1, "on_failure": "warn"},
        ]);
    })?;

    let report = stack.run_to_end(3)?;

    assert_eq!(report["status"], "succeeded", "{report:#}");
    assert_eq!(told(&report, "smoke test: me"), (json!("passed"), "answered 200".to_owned()));
    assert_eq!(
        told(&report, "smoke test: somebody else"),
        (json!("warned"), format!("GET {}/app/me: expected 200, answered 401", stack.sink.url))
    );
    let places = [report.to_string(), stack.worker.output(), stack.stored_text()?];
    for secret in ["s3ss10n", "t0k3n", APP_SECRET] {
        assert!(
            places.iter().all(|place| !place.contains(secret)),
            "{secret} is where everybody may read it"
        );
    }
    Ok(())
}

/// As in case 01, case 03, case 18 and case 23: applications that answer as people have reported.
#[test]
fn an_application_is_called_letter_by_letter_and_its_answer_is_read_as_it_is_written() -> Result<()>
{
    let options = Options { seed: SEED.to_owned(), ..Options::default() };
    let stack = Stack::start_with(&options, &|settings, _, sink| {
        let url = |path: &str| format!("{}/app/{path}", sink.url);
        settings["pairs"][0]["smoke_tests"] = json!([
            {"name": "slash", "url": url("accounts/login/"), "expect_text": "sign in"},
            {"name": "latin1", "url": url("latin1"), "expect_text": "François"},
            {"name": "image", "url": url("image"), "expect_headers": {"content-type": "image/png"}},
            {"name": "mark", "url": url("bom.json"), "expect_json": {"/status": "ok"}},
            {"name": "form", "method": "POST", "url": url("form-login"),
                "body": "email=ann%40example.com&password=hunter2", "expect_status": 302},
            {"name": "zone", "url": url("same-zone"), "attempts": 1, "on_failure": "warn"},
            {"name": "moved", "url": url("accounts/login"), "attempts": 1, "on_failure": "warn"},
        ]);
    })?;

    let report = stack.run_to_end(3)?;

    assert_eq!(report["status"], "succeeded", "{report:#}");
    for name in ["slash", "latin1", "image", "mark", "form"] {
        assert_eq!(told(&report, &format!("smoke test: {name}")).0, "passed", "{name}: {report:#}");
    }
    let (_, zone) = told(&report, "smoke test: zone");
    assert!(
        zone.contains("/app/same-zone: expected 200, answered 404")
            && zone.contains("global_fetch_strictly_public"),
        "{zone}"
    );
    let (_, moved) = told(&report, "smoke test: moved");
    assert!(moved.ends_with("answered 301; it sends to /app/accounts/login/"), "{moved}");
    Ok(())
}

#[test]
fn people_with_access_are_listed_and_a_new_one_is_told() -> Result<()> {
    let stack = stack(&json!({"people": "warn"}))?;
    let grant = |email: &str| -> Result<()> {
        let answer = stack.emulator.call(
            "POST",
            "/permissions",
            Some(&json!({"email": email}).to_string()),
        )?;
        anyhow::ensure!(answer.status == 200, "{}", answer.body);
        Ok(())
    };
    grant("ann@example.com")?;
    let report = stack.run_to_end(3)?;
    assert_eq!(told(&report, "people with access").0, "passed", "{report:#}");
    grant("eve@example.com")?;

    let report = stack.worker.report(&stack.worker.run_now()?)?;

    let expected = "2 people have access to the project; new: eve@example.com";
    assert_eq!(told(&report, "people with access"), (json!("warned"), expected.to_owned()));
    Ok(())
}

/// As in case 17: masks of millions of rows take minutes; together they have the time that is
/// configured.
#[test]
fn what_is_run_after_the_restore_has_minutes_and_not_two() -> Result<()> {
    let stack = Stack::start_with(&options(), &|settings, _, _| {
        let sql = [
            "select pg_sleep(45)",
            "select pg_sleep(45)",
            "select pg_sleep(45)",
            "update users set name = 'masked'",
        ];
        settings["pairs"][0]["verification"] =
            json!({"after_restore": {"sql": sql, "timeout_min": 4}});
    })?;

    let report = stack.run_to_end(3)?;

    assert_eq!(report["status"], "succeeded", "{report:#}");
    let masked = stack
        .emulator
        .sql(&stack.emulator.staging, &["select count(*) from users where name <> 'masked'"])?;
    assert_eq!(masked[0][0].as_deref(), Some("0"));
    Ok(())
}

/// As in case 17: the statement that was refused is named, and people hear that staging holds real
/// data.
#[test]
fn a_mask_that_is_refused_is_told_by_its_number_with_what_staging_holds_now() -> Result<()> {
    let cases = [
        ("select 1 / 0", "22012", "statement 2 of 3: division by zero"),
        (
            "select pg_sleep(90)",
            "57014",
            "statement 2 of 3: canceling statement due to statement timeout",
        ),
    ];
    for (bad, state, told) in cases {
        let stack = Stack::start_with(&options(), &|settings, _, _| {
            let sql = ["update users set name = 'masked'", bad, "select 1"];
            settings["pairs"][0]["verification"] =
                json!({"after_restore": {"sql": sql, "timeout_min": 1}});
        })?;

        let report = stack.run_to_end(2)?;

        assert_eq!(
            (&report["status"], &report["step"]),
            (&json!("failed"), &json!("verify_staging")),
            "{report:#}"
        );
        let reason = report["reason"].as_str().unwrap_or_default();
        assert!(reason.contains(state) && reason.contains(told), "{reason}");
        assert!(reason.contains("staging holds production's data as it is"), "{reason}");
        let text = stack.sink.taken("/webhook")[0].body["data"]["text"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(text.contains("staging holds production's data as it is"), "{text}");
        let masked = stack
            .emulator
            .sql(&stack.emulator.staging, &["select count(*) from users where name = 'masked'"])?;
        assert_eq!(masked[0][0].as_deref(), Some("0"), "nothing of it holds");
    }
    Ok(())
}
