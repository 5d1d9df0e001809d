//! What a call that was refused, lost or answered oddly leads to: tried again, looked into, or the
//! end.

use firstlight::sync::checkpoint::{Prune, RunStatus};
use serde_json::json;
use simulation::faults::Fault;
use simulation::plan::{Crash, Memory, Planned};
use simulation::run::Outcome;
use simulation::script::{Answers, Happening, Script, Settings};

use crate::{count, planned, play, report, run_traced, stored};

/// Plays a plain morning with these faults.
fn with(faults: &[(&str, u32, Fault)]) -> Outcome {
    let faults: Vec<Planned> =
        faults.iter().map(|(action, nth, fault)| planned(action, *nth, *fault)).collect();
    play(&Script { faults, ..Script::default() })
}

fn pruned(outcome: &Outcome) -> Prune {
    stored(outcome, "prune/hub/20261121")
}

/// Returns the line of the trace on which something happens first.
fn place(outcome: &Outcome, text: &str) -> usize {
    outcome
        .trace
        .iter()
        .position(|line| line.contains(text))
        .unwrap_or_else(|| panic!("{text} is not in {:#?}", outcome.trace))
}

/// Returns the second of the hour at which a line of the trace was written.
fn second(line: &str) -> i64 {
    let number = |range: std::ops::Range<usize>| {
        line[range].parse::<i64>().expect("a line begins with HH:MM:SS")
    };
    number(3..5) * 60 + number(6..8)
}

#[test]
fn a_smoke_test_that_passes_is_called_once_and_one_that_fails_three_times() {
    assert_eq!(count(&with(&[]), "smoke"), 1);
    let failing =
        with(&[("smoke", 1, Fault::Lost), ("smoke", 2, Fault::Lost), ("smoke", 3, Fault::Lost)]);
    assert_eq!((count(&failing, "smoke"), failing.status), (3, Some(RunStatus::Failed)));
}

#[test]
fn a_full_project_is_pruned_before_the_backup() {
    let older_backups = vec!["20261110", "20261111"];
    let full = |faults: Vec<Planned>| {
        let outcome = play(&Script {
            faults,
            branch_limit: Some(9),
            older_backups: older_backups.clone(),
            ..Script::default()
        });
        assert!(
            !outcome
                .branches
                .iter()
                .any(|name| name.starts_with("backup-2026111") && name != "backup-20261119")
        );
        outcome
    };
    let outcome = full(Vec::new());
    assert_eq!(outcome.status, Some(RunStatus::Succeeded), "{:?}", outcome.told);
    assert!(
        place(&outcome, "] deleteProjectBranch#1") < place(&outcome, "] createProjectBranch#1")
    );
    // Which backups are verified has to be known first: that is asked again.
    let again = full(vec![planned("kv:list", 1, Fault::StoreFails)]);
    assert_eq!(again.status, Some(RunStatus::Succeeded), "{:?}", again.told);
    assert!(place(&again, "] kv:list#2") < place(&again, "] createProjectBranch#1"));
}

#[test]
fn room_is_made_only_where_the_run_needs_it() {
    // Seven branches are there; a run needs two, one that leaves staging alone needs one.
    let held = [(-60, Happening::Hold)];
    let play = |limit: usize, before: &[(i64, Happening)]| {
        let happenings = before.iter().cloned().chain([(0, Happening::Cron)]).collect();
        let outcome = play(&Script { branch_limit: Some(limit), happenings, ..Script::default() });
        (outcome.status == Some(RunStatus::Succeeded), outcome.told[0].text.clone())
    };
    assert!(play(9, &[]).0);
    let (is_good, text) = play(8, &[]);
    assert!(
        !is_good && text.contains("make room for 2 branches: the project has 7 of 8"),
        "{text}"
    );
    assert!(play(8, &held).0);
    let (is_good, text) = play(7, &held);
    assert!(
        !is_good && text.contains("make room for 1 branches: the project has 7 of 7"),
        "{text}"
    );
}

#[test]
fn a_database_that_is_configured_has_to_be_on_production() {
    let play = |settings: Settings| play(&Script { settings, ..Script::default() });
    assert_eq!(
        play(|value| value["pairs"][0]["databases"] = json!(["neondb"])).status,
        Some(RunStatus::Succeeded)
    );
    let missing = play(|value| value["pairs"][0]["databases"] = json!(["neondb", "orders"]));
    let text = &missing.told[0].text;
    assert!(
        text.contains("databases: orders is not on production") && text.contains("it has neondb"),
        "{text}"
    );
    assert_eq!(missing.deeds, (0, 0, 0));
}

#[test]
fn a_run_that_is_taken_up_again_needs_no_room_for_what_it_has_made_already() {
    // The backup is there, or staging is restored as well; the store has forgotten both.
    for (nth, limit) in [(1, 9), (2, 9)] {
        let faults = vec![planned("catalogue", nth, Fault::Nothing)];
        let (crash, memory) = (Crash::AtOnce, Memory::Empty);
        let outcome =
            play(&Script { faults, crash, memory, branch_limit: Some(limit), ..Script::default() });
        assert_eq!(
            (outcome.status, outcome.deeds),
            (Some(RunStatus::Succeeded), (1, 1, 0)),
            "{nth}: {:?}",
            outcome.told
        );
        let deletions = outcome.trace[..place_of_end(&outcome)]
            .iter()
            .filter(|line| line.contains("] deleteProjectBranch#"))
            .count();
        assert_eq!(deletions, 0, "{nth}");
    }
}

fn place_of_end(outcome: &Outcome) -> usize {
    place(outcome, " run ended")
}

#[test]
fn nothing_is_pruned_where_nobody_knows_which_backups_are_verified() {
    let outcome = with(&[("kv:list", 1, Fault::StoreFails)]);
    assert!(outcome.branches.contains(&"backup-20261119".to_owned()), "{:?}", outcome.branches);
    assert_eq!((count(&outcome, "kv:list"), count(&outcome, "deleteProjectBranch")), (1, 0));
}

#[test]
fn every_lost_run_is_closed() {
    let accepted = |run: &str, key: &'static str| {
        (-600, Happening::Stored(key, Some(format!("{{\"run\":\"{run}\"}}"))))
    };
    let first = accepted("20261121T090000Z", "accepted/hub/20261121T090000Z");
    let second = accepted("20261121T093000Z", "accepted/hub/20261121T093000Z");
    let outcome = play(&Script {
        happenings: vec![first, second, (0, Happening::Cron)],
        ..Script::default()
    });
    let told: Vec<(&str, &str)> =
        outcome.told.iter().map(|told| (told.run.as_str(), told.kind.as_str())).collect();
    assert_eq!(
        told,
        [
            ("20261121", "succeeded"),
            ("20261121T090000Z", "superseded"),
            ("20261121T093000Z", "superseded")
        ]
    );
}

#[test]
fn an_operation_of_somebody_else_that_fails_during_the_run_stops_nothing() {
    // The operations of the restore are known by the ids that its reply gave.
    for seconds in [4, 12] {
        let happenings = vec![(0, Happening::Cron), (seconds, Happening::SuspendInVain)];
        let outcome = play(&Script { happenings, ..Script::default() });
        assert_eq!(outcome.status, Some(RunStatus::Succeeded), "{seconds} s: {:?}", outcome.told);
    }
}

#[test]
fn a_failure_is_told_after_four_looks_in_vain_and_a_success_waits_for_a_look_until_its_deadline() {
    let failed = with(&[
        ("restoreProjectBranch", 1, Fault::OperationCancelled),
        ("listProjectBranches", 4, Fault::LongOutage),
    ]);
    assert_eq!(failed.status, Some(RunStatus::Failed));
    let told = &failed.trace[place(&failed, "run ended")];
    assert!(told.starts_with("10:05:"), "{told}");
    assert!(told.contains("What staging holds could not be observed"), "{told}");
    let looks: Vec<i64> = failed.trace[..place(&failed, "run ended")]
        .iter()
        .filter(|line| line.contains("Neon answered 503"))
        .map(|line| second(line))
        .collect();
    let waits: Vec<i64> = looks.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // Whole seconds of instants with milliseconds: one wait may look a second longer.
    assert!(
        waits.len() == 3
            && waits
                .iter()
                .zip([2, 4, 8])
                .all(|(wait, expected)| (0..=1).contains(&(wait - expected))),
        "{waits:?}"
    );
    let good = with(&[("listProjectBranches", 7, Fault::Outage)]);
    assert_eq!(good.status, Some(RunStatus::Succeeded), "{:?}", good.told);
}

#[test]
fn everything_is_looked_at_again_before_a_refused_write_is_repeated() {
    let outcome = with(&[("restoreProjectBranch", 1, Fault::Refused(423))]);
    let between = &outcome.trace
        [place(&outcome, "] restoreProjectBranch#1")..place(&outcome, "] restoreProjectBranch#2")];
    for action in ["listProjectBranches", "listProjectEndpoints", "kv:read"] {
        assert!(
            between.iter().any(|line| line.contains(&format!("] {action}#"))),
            "{action}: {between:#?}"
        );
    }
}

#[test]
fn a_read_that_failed_is_repeated_alone_and_one_that_makes_no_sense_after_another_look() {
    let looks = |outcome: &Outcome| {
        outcome.trace[..place_of_end(outcome)]
            .iter()
            .filter(|line| line.contains("] listProjectEndpoints#"))
            .count()
    };
    let plain = looks(&with(&[]));
    let refused = with(&[("getProjectBranchRolePassword", 2, Fault::Refused(500))]);
    assert_eq!(looks(&refused), plain);
    let odd = with(&[("getProjectBranchRolePassword", 2, Fault::Refused(409))]);
    assert_eq!(looks(&odd), plain + 1);
}

#[test]
fn a_deletion_that_was_lost_is_repeated_and_one_that_was_refused_is_left_with_the_reason() {
    let lost = with(&[("deleteProjectBranch", 1, Fault::Lost)]);
    assert_eq!(
        (pruned(&lost).deleted.len(), pruned(&lost).skipped.len()),
        (2, 0),
        "{:?}",
        pruned(&lost)
    );
    let refused = with(&[("deleteProjectBranch", 1, Fault::Refused(404))]);
    let skipped = pruned(&refused).skipped;
    assert!(
        skipped
            .iter()
            .any(|(name, why)| name == "staging-of-20261119" && why.contains("Neon answered 404")),
        "{skipped:?}"
    );
}

#[test]
fn production_that_does_not_let_us_in_is_no_reason_to_stop_and_the_report_says_what_is_not_known() {
    let outcome = with(&[("sees_all_rows", 1, Fault::NotAllowed)]);
    assert_eq!(outcome.status, Some(RunStatus::Succeeded), "{:?}", outcome.told);
    let warnings = report(&outcome).warnings;
    let is_said = |warning: &String| {
        warning.starts_with("production could not be asked whether neondb_owner sees every row")
    };
    assert!(warnings.iter().any(is_said), "{warnings:?}");
    let backup = with(&[("content", 1, Fault::NotAllowed)]);
    assert_eq!((backup.status, count(&backup, "content")), (Some(RunStatus::Failed), 1));
    let refused = with(&[("sees_all_rows", 1, Fault::Refused(401))]);
    assert_eq!(refused.status, Some(RunStatus::Failed), "a refusal of the role is one");
}

#[test]
fn a_password_that_cannot_be_given_is_tried_three_times_and_then_told() {
    let refused = |times: u32| {
        let faults: Vec<_> =
            (1..=times).map(|nth| ("give_password", nth, Fault::Refused(401))).collect();
        let outcome = with(&faults);
        let passwords = report(&outcome).passwords;
        (
            outcome.status,
            count(&outcome, "give_password"),
            passwords.kept.len(),
            passwords.not_kept.len(),
        )
    };
    assert_eq!(refused(2), (Some(RunStatus::Succeeded), 3, 1, 0));
    assert_eq!(refused(3), (Some(RunStatus::Succeeded), 3, 0, 1));
}

#[test]
fn an_operation_that_takes_its_time_is_asked_for_less_and_less_often() {
    let outcome = with(&[("createProjectBranch", 1, Fault::OperationHangs)]);
    let tick = &outcome.ticks[0];
    assert!(
        (tick.ended_at - tick.began_at).num_seconds() > 200 && tick.summary.http_count < 40,
        "{tick:?}"
    );
}

#[test]
fn an_error_is_recorded_with_its_text_and_a_success_records_none() {
    assert_eq!(report(&with(&[])).errors, []);
    let errors = report(&with(&[("getProject", 1, Fault::Refused(401))])).errors;
    assert!(
        errors.iter().all(|error| error.text.contains("Neon answered 401")) && !errors.is_empty(),
        "{errors:?}"
    );
}

#[test]
fn a_run_that_may_still_end_by_itself_is_not_closed_and_does_not_hold_up_the_making_of_room() {
    let accepted = (-50, Happening::Stored("accepted/hub/20261121T100410Z", Some("{}".to_owned())));
    let happenings = vec![accepted, (0, Happening::Cron)];
    let older_backups = vec!["20261110", "20261111"];
    let outcome =
        play(&Script { branch_limit: Some(9), older_backups, happenings, ..Script::default() });
    assert!(
        outcome.trace[place(&outcome, "] createProjectBranch#1")].starts_with("10:05:"),
        "the backup is made at once"
    );
    let told: Vec<(&str, &str)> =
        outcome.told.iter().map(|told| (told.run.as_str(), told.kind.as_str())).collect();
    assert_eq!(told, [("20261121", "succeeded"), ("20261121T100410Z", "superseded")]);
    let closing = &outcome.trace[place(&outcome, "] webhook#2")];
    assert!(
        closing > &"10:10:10".to_owned() && closing < &"10:15:00".to_owned(),
        "six minutes after its start: {closing}"
    );
}

#[test]
fn a_backup_that_somebody_has_given_an_end_is_not_restored_from() {
    let outcome = with(&[("content", 1, Fault::BackupExpires)]);
    assert_eq!((outcome.status, outcome.deeds), (Some(RunStatus::Failed), (1, 0, 0)));
    assert!(
        outcome.told[0].text.contains("backup backup-20261121 has been given an end"),
        "{}",
        outcome.told[0].text
    );
}

#[test]
fn a_run_that_comes_to_its_restore_after_a_newer_one_leaves_staging_to_it() {
    // The reply to the day's run takes two minutes; a run that somebody starts meanwhile restores
    // staging from a newer backup.
    let faults = vec![planned("content", 1, Fault::Late)];
    let happenings = vec![(0, Happening::Cron), (3, Happening::Start)];
    let outcome = play(&Script { view: Answers::Stale, faults, happenings, ..Script::default() });
    assert_eq!(
        (outcome.status, outcome.deeds),
        (Some(RunStatus::Superseded), (1, 0, 0)),
        "{:?}",
        outcome.told
    );
    let of_today: Vec<&str> = outcome
        .told
        .iter()
        .filter(|told| told.run == "20261121")
        .map(|told| told.text.as_str())
        .collect();
    assert!(
        of_today[0].contains(
            "staging was restored from the newer backup backup-20261121T100503Z meanwhile"
        ),
        "{of_today:?}"
    );
}

#[test]
fn a_run_that_has_forgotten_its_restore_finds_the_branch_that_keeps_what_staging_held() {
    let outcome =
        run_traced("plain/restoreProjectBranch#1=applied_and_lost/crash_at_once/empty/one_tick");
    assert_eq!((outcome.status, outcome.deeds), (Some(RunStatus::Succeeded), (1, 1, 0)));
    assert_eq!(
        report(&outcome).displaced.map(|name| name.to_string()).as_deref(),
        Some("staging-of-20261120")
    );
    assert_eq!(outcome.staging_password.as_deref(), Some("npg_stagingsown"));
}

#[test]
fn a_plain_prune_sends_each_deletion_once() {
    let outcome = with(&[]);
    assert_eq!(
        (count(&outcome, "deleteProjectEndpoint"), count(&outcome, "deleteProjectBranch")),
        (1, 2)
    );
    assert_eq!((pruned(&outcome).deleted_endpoints.len(), pruned(&outcome).deleted.len()), (1, 2));
}

#[test]
fn what_neon_did_not_delete_in_the_morning_goes_in_the_evening_once() {
    let faults =
        (1..=2).map(|nth| planned("deleteProjectBranch", nth, Fault::Refused(404))).collect();
    let happenings = [0, 300, 13 * 3_600, 13 * 3_600 + 300, 13 * 3_600 + 600]
        .map(|at| (at, Happening::Cron))
        .to_vec();
    let outcome = play(&Script { faults, happenings, ..Script::default() });
    let pruned = pruned(&outcome);
    assert!(pruned.skipped.is_empty() && pruned.swept_at.is_some(), "{pruned:?}");
    assert!(pruned.deleted.contains(&"staging-of-20261119".to_owned()), "{pruned:?}");
    assert!(
        !outcome.branches.contains(&"staging-of-20261119".to_owned()),
        "{:?}",
        outcome.branches
    );
    let requests = |tick: usize| outcome.ticks[tick].summary.http_count;
    assert!(requests(2) > 2, "the evening's first tick looks again");
    assert_eq!([requests(3), requests(4)], [0, 0], "and no other does");
    let told: Vec<&str> = outcome.told.iter().map(|told| told.kind.as_str()).collect();
    assert_eq!(told, ["succeeded"], "nobody is told of it");
}

#[test]
fn a_staging_that_an_earlier_restore_left_unready_is_named_with_the_operation_that_failed() {
    let faults = vec![planned("restoreProjectBranch", 1, Fault::OperationFails)];
    let happenings = vec![
        (0, Happening::Cron),
        (300, Happening::Cron),
        (900, Happening::Start),
        (960, Happening::Cron),
    ];
    let outcome = play(&Script { faults, happenings, ..Script::default() });
    let second =
        outcome.told.iter().find(|told| told.run.contains('T')).expect("the second run is told");
    let is_named = second.text.contains(
        "is \"resetting\", expected \"ready\", and no operation of Neon's is under way on it; \
            operation ",
    );
    assert!(
        is_named && second.text.contains("ended \"failed\"; restore it by hand, or ask Neon"),
        "{}",
        second.text
    );
    assert_eq!(count(&outcome, "restoreProjectBranch"), 1, "nothing more is written to it");
}
