//! The words, notice by notice.

use super::*;
use crate::fixtures::pair;
use crate::fixtures::started;
use crate::sync::checkpoint::{Hold, Restore, Verdict};

fn at(text: &str) -> Timestamp {
    text.parse().expect("an instant")
}

fn ended(status: RunStatus, step: Step, reason: Option<&str>) -> Checkpoint {
    let mut checkpoint = started();
    checkpoint.verdict = Some(Verdict {
        status,
        at: at("2026-11-21T10:02:31Z"),
        step,
        reason: reason.map(str::to_owned),
        runbook: reason.map(|_| "run-failed.md".to_owned()),
        staging: "Staging holds backup-20261121, not verified.".to_owned(),
    });
    checkpoint
}

fn restored(mut checkpoint: Checkpoint) -> Checkpoint {
    checkpoint.restore = Some(Restore {
        displaced_name: "staging-of-20261120".into(),
        displaced_id: None,
        accepted_at: None,
        before: None,
        operations: Vec::new(),
        is_done: true,
    });
    checkpoint
}

#[test]
fn a_success_is_told_in_these_words() {
    let notice =
        of_run(&restored(ended(RunStatus::Succeeded, Step::Prune, None)), &pair(), "CAIO Hub")
            .expect("a verdict");
    assert_eq!(notice.subject, "[CAIO Hub] Daily sync completed — 2026-11-21");
    assert_eq!(
        notice.text,
        "Production → staging sync completed successfully at 5:02 AM ET, 58 minutes early. Staging \
         data verified."
    );
}

#[test]
fn a_staging_that_is_not_what_was_restored_is_told_first() {
    use crate::verify::{Check, CheckKind, CheckOutcome, Drift, RowCounts, RowDifferences};

    let content = |object: &str, outcome, drift, counts| {
        let check =
            Check::of(CheckKind::Content, &"neondb".into(), object, outcome, "drift: differs");
        Check { drift: Some(drift), ..check }.with(RowDifferences::counted(counts))
    };
    let nobody = RowCounts::default();
    let lost =
        content("public.t", CheckOutcome::Warned, Drift::Lost, RowCounts { gone: 5_000, ..nobody });
    let changed = content(
        "public.u",
        CheckOutcome::Warned,
        Drift::Lost,
        RowCounts { changed: 5_000, ..nobody },
    );
    let added = content(
        "public.made_here",
        CheckOutcome::Passed,
        Drift::Added,
        RowCounts { added: 3, ..nobody },
    );
    let told = |checks: Vec<Check>| {
        let checkpoint =
            Checkpoint { checks, ..restored(ended(RunStatus::Succeeded, Step::Prune, None)) };
        of_run(&checkpoint, &pair(), "CAIO Hub").expect("a verdict").text
    };
    let done = "Production → staging sync completed successfully at 5:02 AM ET, 58 minutes early.";
    assert_eq!(
        told(vec![added.clone(), lost.clone(), changed]),
        format!(
            "Staging is not what was restored any more: public.t: 5,000 rows of the backup are \
             gone; public.u: 5,000 rows are changed. {done} All else of staging data verified; \
             public.made_here: 3 rows were added since. There are 2 warnings."
        )
    );
    assert_eq!(
        told(vec![added]),
        format!("{done} Staging data verified; public.made_here: 3 rows were added since.")
    );
    // A note warns nobody, and is told all the same.
    let noted = told(vec![Check { outcome: CheckOutcome::Passed, ..lost }]);
    assert!(
        noted.starts_with("Staging is not what was restored any more: public.t: 5,000")
            && noted.ends_with(" verified."),
        "{noted}"
    );
}

#[test]
fn a_failure_is_told_in_these_words() {
    let checkpoint =
        restored(ended(RunStatus::Failed, Step::Restore, Some("operation op-1 ended \"failed\"")));
    let notice = of_run(&checkpoint, &pair(), "CAIO Hub").expect("a verdict");
    assert_eq!(notice.subject, "[URGENT] [CAIO Hub] Daily sync FAILED — 2026-11-21");
    assert_eq!(
        notice.text,
        "Production → staging sync failed at step 4 of 7 (restore staging). Error: operation op-1 \
         ended \"failed\". Staging holds backup-20261121, not verified. Runbook: \
         runbooks/run-failed.md"
    );
}

#[test]
fn a_late_start_a_missed_day_and_a_stuck_pair_are_told() {
    let checkpoint = ended(RunStatus::Succeeded, Step::Prune, None);
    let late = of_late_start(&checkpoint, &pair(), "CAIO Hub", at("2026-11-21T10:42:00Z"));
    assert_eq!(late.subject, "[CAIO Hub] Daily sync starts late — 2026-11-21");
    assert_eq!(
        late.text,
        "Production → staging sync was to start by 05:30 ET and starts at 5:42 AM ET. It is to be \
         done by 06:00 ET; the outcome will be told. Runbook: runbooks/late.md"
    );
    let stuck = of_stuck_pair(
        &pair(),
        &checkpoint.run,
        "read hold/hub: Syntax",
        "CAIO Hub",
        at("2026-11-21T10:05:00Z"),
    );
    assert_eq!(
        stuck.text,
        "Nothing is done for pair hub: read hold/hub: Syntax. Staging stays as it is, and no \
         backup is made, until that is mended. Runbook: runbooks/run-failed.md"
    );
    let missed = of_missed_day(&pair(), &checkpoint.run, "CAIO Hub", at("2026-11-21T11:05:00Z"));
    assert_eq!(missed.subject, "[URGENT] [CAIO Hub] Daily sync MISSED — 2026-11-21");
    assert!(missed.text.starts_with(
        "Production → staging sync was not started between 05:00 and 06:00 ET. Staging is untouched"
    ));
}

#[test]
fn a_silent_store_is_told_under_one_id_however_long_it_lasts() {
    let told = |now: &str| {
        of_silent_store(&pair(), "no answer", at("2026-11-21T09:05:00Z"), "CAIO Hub", at(now))
    };
    assert_eq!(told("2026-11-21T10:05:00Z").id, "hub/20261121/store-silent");
    assert_eq!(told("2026-11-22T10:05:00Z").id, "hub/20261121/store-silent");
    let known = [
        of_stuck_pair(&pair(), &started().run, "x", "CAIO Hub", at("2026-11-21T10:05:00Z")).id,
        stuck_id(&started()),
    ];
    assert!(
        !known.contains(&told("2026-11-21T10:05:00Z").id),
        "a receiver must not take it for another"
    );
    assert!(
        told("2026-11-21T10:05:00Z")
            .text
            .contains("cannot be read since 2026-11-21 04:05 ET: no answer.")
    );
}

#[test]
fn a_day_that_others_took_names_five_of_them() {
    let others: Vec<PairName> =
        (1..=7).map(|number| PairName::from(format!("pair-{number}"))).collect();
    let told = |count: usize| {
        of_crowded_out_day(
            &pair(),
            &started().run,
            &others[..count],
            "CAIO Hub",
            at("2026-11-21T11:05:00Z"),
        )
    };
    let text = "was not started: the invocations between 05:00 and 06:00 ET drove the runs of \
        pair-1 and had no room for this one. Staging";
    assert!(told(1).text.contains(text), "{}", told(1).text);
    assert!(
        told(7)
            .text
            .contains("of pair-1, pair-2, pair-3, pair-4, pair-5 and 2 more and had no room"),
        "{}",
        told(7).text
    );
    assert_eq!(
        told(7).id,
        of_missed_day(&pair(), &started().run, "CAIO Hub", at("2026-11-21T11:05:00Z")).id
    );
}

#[test]
fn a_held_staging_is_told() {
    let mut checkpoint = ended(RunStatus::Succeeded, Step::VerifyBackup, None);
    checkpoint.hold =
        Some(Hold { reason: "customer demo".into(), until: Some(at("2026-11-22T17:00:00Z")) });
    let notice = of_run(&checkpoint, &pair(), "CAIO Hub").expect("a verdict");
    assert_eq!(
        notice.text,
        "The backup of production was made and verified at 5:02 AM ET. Staging is held as it is \
         until 2026-11-22 12:00 ET: customer demo."
    );
}

#[test]
fn what_is_late_is_told_with_its_deadline() {
    let now = at("2026-11-21T10:58:00Z");
    let risk = of_at_risk(&started(), &pair(), "CAIO Hub", at("2026-11-21T11:12:30Z"), now);
    assert_eq!(risk.subject, "[CAIO Hub] Daily sync may be late — 2026-11-21");
    assert_eq!(
        risk.text,
        "Production → staging sync is at step 1 of 7 (preflight) and is expected to be done at \
         6:12 AM ET, 12 minutes after its deadline of 06:00 ET. It goes on; the outcome will be \
         told. Runbook: runbooks/late.md"
    );
    assert_eq!(
        of_missed_deadline(&pair(), &started().run, "CAIO Hub", at("2026-11-21T11:05:00Z")).text,
        "The deadline of 06:00 ET has passed, and staging is no verified copy: the day's run has \
         ended without success, and no other has succeeded since. Runbook: runbooks/late.md"
    );
    let late =
        Checkpoint { is_manual: false, ..restored(ended(RunStatus::Succeeded, Step::Prune, None)) };
    let mut late_run = late.clone();
    late_run.verdict.as_mut().expect("a verdict").at = at("2026-11-21T12:01:00Z");
    assert!(
        of_run(&late_run, &pair(), "CAIO Hub")
            .expect("a verdict")
            .text
            .contains("at 7:01 AM ET, 1 hour 1 minute late. Staging")
    );
    let manual = Checkpoint { is_manual: true, ..late };
    assert!(
        of_run(&manual, &pair(), "CAIO Hub")
            .expect("a verdict")
            .text
            .contains("at 5:02 AM ET. Staging")
    );
}
