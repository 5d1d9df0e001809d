//! The passwords of staging's roles: a restore takes none away, and what could not be kept is said.

use firstlight::sync::checkpoint::RunStatus;
use neon_emulator::model::Switches;
use serde_json::json;
use simulation::faults::Fault;
use simulation::run::Outcome;
use simulation::script::Script;

use crate::{count, planned, play, report};

/// The password that staging's role had yesterday.
const OWN: &str = "npg_stagingsown";

fn kept(outcome: &Outcome) -> Vec<String> {
    report(outcome).passwords.kept.iter().map(ToString::to_string).collect()
}

fn gave_a_password(outcome: &Outcome) -> bool {
    count(outcome, "give_password") > 0
}

#[test]
fn a_role_of_staging_has_the_password_that_it_had_whichever_the_restore_brings() {
    for passwords_from_source in [true, false] {
        let switches = Switches { passwords_from_source, ..Switches::default() };
        let outcome = play(&Script { switches, ..Script::default() });
        assert_eq!(outcome.staging_password.as_deref(), Some(OWN), "{passwords_from_source}");
        assert_eq!(
            (kept(&outcome), gave_a_password(&outcome)),
            (vec!["neondb_owner".to_owned()], passwords_from_source)
        );
        assert_eq!(
            report(&outcome).passwords.logged_in,
            report(&outcome).passwords.kept,
            "and it logs in with it"
        );
    }
}

#[test]
fn a_password_that_neon_does_not_tell_is_not_kept_and_that_is_said() {
    // The first three are production's, the backup's and staging's; the fourth is that of the
    // branch that keeps what staging held.
    let faults = vec![planned("getProjectBranchRolePassword", 4, Fault::Refused(404))];
    let outcome = play(&Script { faults, ..Script::default() });
    assert_eq!((outcome.status, kept(&outcome)), (Some(RunStatus::Succeeded), Vec::new()));
    let report = report(&outcome);
    assert_eq!(report.passwords.not_kept.len(), 1, "{:?}", report.passwords);
    assert!(
        report
            .warnings
            .iter()
            .any(|warning| warning == "roles of staging without their old password: neondb_owner"),
        "{report:?}"
    );
}

#[test]
fn a_role_that_only_staging_had_is_gone_and_that_is_said() {
    let outcome = play(&Script { staging_role: Some("preview"), ..Script::default() });
    assert_eq!(
        (outcome.status, kept(&outcome)),
        (Some(RunStatus::Succeeded), vec!["neondb_owner".to_owned()])
    );
    let report = report(&outcome);
    assert_eq!(
        report.warnings,
        ["roles that staging had and production does not have are gone: preview"]
    );
    assert_eq!(
        report.passwords.gone.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["preview"]
    );
}

#[test]
fn passwords_are_left_alone_where_that_is_configured() {
    let settings =
        |value: &mut serde_json::Value| value["pairs"][0]["keep_passwords"] = json!(false);
    let outcome = play(&Script { settings, ..Script::default() });
    assert_eq!(
        (outcome.status, kept(&outcome), gave_a_password(&outcome)),
        (Some(RunStatus::Succeeded), Vec::new(), false)
    );
    assert_eq!(report(&outcome).warnings, Vec::<String>::new());
}
