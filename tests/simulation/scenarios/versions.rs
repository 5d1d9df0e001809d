//! Two versions of the Worker at once: one of them writes fields that the other does not know.
//!
//! This version plays the older one. After every tick each record gets an addition in every object
//! that it holds, as the next version might write it. A roll-back, and a gradual deployment, then
//! look the same to this one.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use firstlight::port::Method;
use firstlight::record::{self, Accepted, CancelOrder, Channels, Report, VerifiedBackup};
use firstlight::sync::checkpoint::{Checkpoint, Hold, Prune};
use firstlight::sync::incident::{Acknowledgement, Incident};
use firstlight::sync::notice::Outgoing;
use firstlight::time::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use simulation::fleet::{Fleet, Trouble};

/// What holds keys that are data and not fields, by the end of its path: of such an object every
/// key is known. A new word there is a new format.
const MAPS: [&str; 22] = [
    "closed",
    "closed.*",
    "counts",
    "counts.*",
    "databases",
    "disabled",
    "endpoints",
    "left_out",
    "not_checked",
    "outcomes",
    "pace.tries",
    "part_of",
    "prints",
    "probes",
    "probes.*",
    "ranges",
    "refused_logins",
    "schema",
    "sequences",
    "skipped",
    "tables",
    "values",
];

fn is_map(path: &str) -> bool {
    MAPS.iter().any(|map| {
        path.strip_suffix(map).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

/// Reads a record and writes it again.
fn again<T: DeserializeOwned + Serialize>(key: &str, text: &str) -> Result<Value, String> {
    let read: T = record::decode(key, text).map_err(|error| error.to_string())?;
    serde_json::from_str(&record::encode(&read)).map_err(|error| error.to_string())
}

/// Reads a record as the key says, and writes it again; `None` for one that is never read as a
/// whole.
fn reread(key: &str, text: &str) -> Option<Result<Value, String>> {
    Some(match key.split('/').next()? {
        _ if key.ends_with("/pin") || key.ends_with("/snapshot") => return None,
        "checkpoint" => again::<Checkpoint>(key, text),
        "result" => again::<Report>(key, text),
        "notice" => again::<Outgoing>(key, text),
        "backup" => again::<VerifiedBackup>(key, text),
        "prune" => again::<Prune>(key, text),
        "hold" => again::<Hold>(key, text),
        "incident" => again::<Incident>(key, text),
        "acknowledged" => again::<Acknowledgement>(key, text),
        "cancel" => again::<CancelOrder>(key, text),
        "accepted" => again::<Accepted>(key, text),
        "channels" => again::<Channels>(key, text),
        other => panic!("{other} is a record that this test does not know"),
    })
}

/// Calls `change` with every object of a value and with the path to it, in which the keys of maps
/// are stars.
fn each(
    value: &mut Value,
    path: &str,
    change: &mut dyn FnMut(&str, &mut serde_json::Map<String, Value>),
) {
    match value {
        Value::Object(object) => {
            for (name, inner) in object.iter_mut() {
                let name = if is_map(path) { "*" } else { name.as_str() };
                let inner_path =
                    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
                each(inner, &inner_path, change);
            }
            change(path, object);
        }
        Value::Array(list) => list.iter_mut().for_each(|inner| each(inner, path, change)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Returns a record as the next version might write it, with the paths of what was added to.
fn of_next_version(text: &str, paths: &mut BTreeSet<String>) -> String {
    let mut value: Value = serde_json::from_str(text).expect("every record is JSON");
    each(&mut value, "", &mut |path, object| {
        if !is_map(path) {
            object.insert("of_next_version".to_owned(), json!({"since": [1, "two", null]}));
            paths.insert(path.to_owned());
        }
    });
    value.to_string()
}

/// Lets the cron fire for the n-th time after the start of the day's runs.
fn tick(fleet: &mut Fleet, step: i32) {
    let start: Timestamp = "2026-11-21T10:00:00Z".parse().expect("an instant");
    fleet.tick(start + TimeDelta::minutes(5) * step);
}

/// A morning of two pairs with every kind of record: one is held, one has an incident that somebody
/// knows of. Both are handed over in the middle of their runs.
fn morning(after_tick: &mut dyn FnMut(&mut Fleet)) -> Fleet {
    let mut fleet = Fleet::new(2, &|value| {
        value["subrequest_budget"] = json!(32);
    });
    fleet.trouble(1, Trouble::Asleep);
    for step in 0..30 {
        tick(&mut fleet, step);
        match step {
            1 => fleet.write(
                "channels",
                Some(r#"{"format":1,"disabled":{"old":{"at":"2026-11-20T10:00:00.000Z","notice":"pair-0/20261120/failed"}},"outbox":[]}"#),
            ),
            2 => drop(fleet.ask(Method::Put, "/pairs/pair-1/hold", r#"{"reason":"demo"}"#)),
            24 => drop(fleet.ask(Method::Post, "/incidents/pair-1-20261121/acknowledge", r#"{"by":"Dana"}"#)),
            26 => drop(fleet.start("pair-0")),
            _ => {}
        }
        after_tick(&mut fleet);
    }
    fleet
}

/// As in case 35a: an addition at any level of any record is read over, and does not come back.
#[test]
fn a_record_with_additions_at_every_level_is_read_as_if_they_were_not_there() {
    let (mut kinds, mut paths) = (BTreeSet::new(), BTreeSet::new());
    morning(&mut |fleet| {
        for key in fleet.keys("") {
            let Some(text) = fleet.stored(&key) else { continue };
            let Some(plain) = reread(&key, &text) else { continue };
            let kind = key.split('/').next().unwrap_or_default().to_owned();
            let mut of_kind = BTreeSet::new();
            let added =
                reread(&key, &of_next_version(&text, &mut of_kind)).expect("it is read as a whole");
            assert_eq!(added, plain, "{key}");
            paths.extend(of_kind.into_iter().map(|path| format!("{kind}:{path}")));
            kinds.insert(kind);
        }
    });
    let expected = [
        "accepted",
        "acknowledged",
        "backup",
        "channels",
        "checkpoint",
        "hold",
        "incident",
        "notice",
        "prune",
        "result",
    ];
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), expected, "every kind of record was there");
    for path in [
        "checkpoint:",
        "checkpoint:steps",
        "checkpoint:pins",
        "checkpoint:backup",
        "checkpoint:history",
        "checkpoint:passwords",
        "checkpoint:fingerprint.databases.*.tables.*",
        "checkpoint:verdict",
        "result:checks",
        "notice:notice",
        "notice:deliveries.log",
    ] {
        assert!(paths.contains(path), "{path} is not among {paths:#?}");
    }
}

/// As in case 35a: two versions take turns, tick by tick, and nobody notices.
#[test]
fn two_versions_that_take_turns_never_stop_a_pair() {
    let alone = morning(&mut |_| {});
    let together = morning(&mut |fleet| {
        for key in fleet.keys("") {
            let text = fleet.stored(&key).unwrap_or_default();
            let added = of_next_version(&text, &mut BTreeSet::new());
            fleet.rewrite(&key, &added);
        }
    });
    for pair in ["pair-0", "pair-1"] {
        assert_eq!(together.kinds(pair), alone.kinds(pair), "{:#?}", together.log());
        assert!(!together.kinds(pair).contains(&"stuck".to_owned()));
    }
    assert!(alone.kinds("pair-0").contains(&"succeeded".to_owned()), "{:?}", alone.told("pair-0"));
    assert_eq!(together.violations(), Vec::<String>::new());
}

/// As in case 35a: a format that is newer is another thing: the pair is left alone, and people and
/// `/health` are told why.
#[test]
fn a_checkpoint_of_a_newer_format_is_told_once_and_left_alone() {
    let mut fleet = Fleet::new(1, &|_| {});
    fleet.write("checkpoint/pair-0", Some(r#"{"format":2,"step":"dance"}"#));
    fleet.ticks("2026-11-21T10:00:00Z", "2026-11-21T11:00:00Z");
    assert_eq!(
        fleet.kinds("pair-0").iter().filter(|kind| *kind == "stuck").count(),
        1,
        "{:?}",
        fleet.told("pair-0")
    );
    assert!(
        fleet.told("pair-0")[0].text.contains("has format 2, and this version knows 1"),
        "{:?}",
        fleet.told("pair-0")
    );
    assert_eq!(
        fleet.stored("checkpoint/pair-0").as_deref(),
        Some(r#"{"format":2,"step":"dance"}"#)
    );
    let (status, health) = fleet.ask(Method::Get, "/health", "");
    assert_eq!(status, 503, "{health}");
    assert!(health.contains("written by a newer version"), "{health}");
    assert_eq!(fleet.start("pair-0").0, 503);
}

/// As in case 35a: what cannot be read at all is rebuilt from the names in Neon, as an empty store
/// is.
#[test]
fn a_checkpoint_that_makes_no_sense_is_rebuilt_from_the_names_in_neon() {
    for text in
        ["", "{", "null", r#"{"format":1}"#, r#"{"format":1,"pair":7}"#, r#"{"format":"one"}"#]
    {
        let mut fleet = Fleet::new(1, &|value| value["subrequest_budget"] = json!(32));
        for step in 0..8 {
            tick(&mut fleet, step);
            if step == 0 {
                assert!(fleet.kinds("pair-0").is_empty(), "the run is in the middle");
                fleet.write("checkpoint/pair-0", Some(text));
            }
        }
        assert_eq!(fleet.kinds("pair-0"), ["succeeded"], "{text:?}: {:#?}", fleet.log());
        assert_eq!(fleet.violations(), Vec::<String>::new(), "{text:?}");
        assert_eq!(fleet.ask(Method::Get, "/health", "").0, 200);
    }
    // Before anything was started, it is in nobody's way either.
    let mut fleet = Fleet::new(1, &|_| {});
    fleet.write("checkpoint/pair-0", Some("{"));
    let (status, health) = fleet.ask(Method::Get, "/health", "");
    assert!(status == 503 && health.contains("its next run makes it again"), "{health}");
    assert_eq!(fleet.start("pair-0").0, 202);
}
