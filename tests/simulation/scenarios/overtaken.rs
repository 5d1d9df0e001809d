//! Manual runs that die and lose their place to another: what people are told of them, and when.

use firstlight::record::Report;
use firstlight::sync::checkpoint::RunStatus;
use firstlight::sync::notice::Outgoing;
use simulation::faults::Fault;
use simulation::plan::{Crash, Planned};
use simulation::run::Outcome;
use simulation::script::{Answers, Happening, Script};

use crate::{planned, play, stored};

/// Somebody starts a run that dies at once; somebody else's, started before the first is seen,
/// takes its place.
fn overtaken(faults: Vec<Planned>) -> Outcome {
    let faults = [vec![planned("getProject", 1, Fault::Nothing)], faults].concat();
    let happenings = vec![(0, Happening::Rehearse), (5, Happening::Rehearse)];
    play(&Script {
        view: Answers::Stale,
        faults,
        crash: Crash::AtOnce,
        happenings,
        ..Script::default()
    })
}

#[test]
fn a_manual_run_that_died_and_lost_its_place_is_told_recorded_and_struck_off_by_a_later_run() {
    // The fourth notice is the one about it; a receiver that refuses it gets it later.
    for faults in [Vec::new(), vec![planned("webhook", 4, Fault::Refused(500))]] {
        let outcome = overtaken(faults.clone());
        let lost: Vec<_> =
            outcome.told.iter().filter(|told| told.run == "20261121T100500Z").collect();
        assert_eq!(
            lost.iter().map(|told| told.kind.as_str()).collect::<Vec<_>>(),
            ["superseded"],
            "{faults:?}"
        );
        assert!(lost[0].text.contains("took its place before it ended"), "{}", lost[0].text);
        let report: Report = stored(&outcome, "result/hub/20261121T100500Z");
        assert_eq!((report.status, report.is_manual), (RunStatus::Superseded, true));
        assert!(
            !outcome.stored.keys().any(|key| key.starts_with("accepted/")),
            "{:?}",
            outcome.stored.keys()
        );
        let notice: Outgoing = stored(&outcome, "notice/hub/20261121T100500Z/superseded");
        assert!(notice.is_delivered(), "{faults:?}");
    }
}

#[test]
fn a_lost_run_whose_notice_was_refused_is_not_forgotten_with_the_tick_that_told_of_it() {
    // The day's run closes it, a channel refuses the notice, and the tick dies before it has saved
    // that.
    let accepted = Happening::Stored("accepted/hub/20261121T093000Z", Some("{}".to_owned()));
    let happenings = vec![(-600, accepted), (0, Happening::Cron)];
    for nth in 1..=3 {
        let faults = vec![planned("webhook", nth, Fault::Refused(500))];
        let outcome = play(&Script {
            faults,
            crash: Crash::BeforeSave,
            happenings: happenings.clone(),
            ..Script::default()
        });
        let told: Vec<_> = outcome
            .told
            .iter()
            .filter(|told| told.run == "20261121T093000Z")
            .map(|told| told.kind.as_str())
            .collect();
        assert_eq!(told, ["superseded"], "notice {nth} refused");
    }
}

#[test]
fn a_manual_run_that_died_between_its_notice_and_its_channels_is_told_as_it_ended() {
    // Its result is stored in the first case, in the second only its notice is.
    for (place, fault) in [("webhook", Fault::Lost), ("kv:result", Fault::Nothing)] {
        let happenings =
            vec![(0, Happening::Rehearse), (5, Happening::Rehearse), (86_100, Happening::Cron)];
        let faults = vec![planned(place, 1, fault)];
        let outcome = play(&Script {
            view: Answers::Stale,
            faults,
            crash: Crash::AtOnce,
            happenings,
            ..Script::default()
        });
        let of_first: Vec<_> = outcome
            .told
            .iter()
            .filter(|told| told.run == "20261121T100500Z")
            .map(|told| &told.kind)
            .collect();
        assert_eq!(of_first, ["succeeded"], "{place}");
        let report: Report = stored(&outcome, "result/hub/20261121T100500Z");
        assert_eq!(report.status, RunStatus::Succeeded, "{place}");
        assert!(
            !outcome.stored.keys().any(|key| key.starts_with("accepted/")),
            "{place}: {:?}",
            outcome.stored.keys()
        );
    }
}
