//! What is read, and what is refused with the key's path.

use serde_json::json;

use super::*;

fn good() -> Value {
    json!({
        "label": "CAIO Hub",
        "pairs": [{
            "name": "hub", "project": "old-violet-32930710", "production_branch": "br-noisy-breeze-a5e59rrb",
            "staging_branch": "br-calm-river-a5x0q1zz", "role": "neondb_owner", "timezone": "America/New_York",
            "zone_label": "ET", "start_at": "05:00", "latest_start": "05:30", "deadline": "06:00",
            "keep_last": 7, "keep_displaced": 1
        }],
        "channels": [{"name": "director", "kind": "slack", "url_secret": "SLACK_WEBHOOK_URL"}]
    })
}

fn faults(change: impl Fn(&mut Value)) -> Vec<String> {
    let mut value = good();
    change(&mut value);
    match Config::from_value(&value) {
        Ok(_) => Vec::new(),
        Err(ConfigErrors(problems)) => problems.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn a_complete_configuration_is_read() {
    let config = Config::from_value(&good()).expect("the configuration is complete");
    let pair = config.pair("hub").expect("the pair is there");
    assert_eq!(pair.keep.at_least, 3);
    assert_eq!(pair.times.catch_up_until, pair.times.deadline);
    assert_eq!(pair.times.earliest_start, pair.times.start_at);
    assert_eq!(pair.endpoint_cu_hundredths, 25);
    assert!(pair.keep_passwords);
}

#[test]
fn all_faults_are_told_at_once_with_their_paths() {
    let found = faults(|value| {
        let pair = value["pairs"][0].as_object_mut().expect("a table");
        pair.remove("keep_last");
        pair.insert("deadline".into(), json!("6 am"));
        pair.insert("retention".into(), json!(3));
        value["colour"] = json!("red");
    });
    let paths: Vec<&str> = found.iter().filter_map(|text| text.split(':').next()).collect();
    assert_eq!(paths, ["pairs[0].deadline", "pairs[0].keep_last", "pairs[0].retention", "colour"], "{found:#?}");
}

#[test]
fn staging_must_not_be_production() {
    let found = faults(|value| value["pairs"][0]["staging_branch"] = json!("br-noisy-breeze-a5e59rrb"));
    assert_eq!(found, ["pairs[0].staging_branch: is the production branch; a run overwrites staging, so they must differ"]);
}

#[test]
fn a_branch_is_named_by_its_id() {
    let found = faults(|value| value["pairs"][0]["staging_branch"] = json!("staging"));
    assert!(found[0].contains("allowed is Neon's id, not a name"), "{found:?}");
}

#[test]
fn an_address_is_https_unless_told_otherwise() {
    let found = faults(|value| value["neon_api_base"] = json!("http://127.0.0.1:1/api/v2"));
    assert_eq!(found.len(), 1);
    let none = faults(|value| {
        value["neon_api_base"] = json!("http://127.0.0.1:1/api/v2");
        value["allow_insecure"] = json!(true);
    });
    assert!(none.is_empty(), "{none:?}");
}

#[test]
fn a_webhook_address_in_place_of_a_secrets_name_is_not_shown() {
    let found = faults(|value| value["channels"][0]["url_secret"] = json!("https://hooks.example.com/T0/secret"));
    assert!(!found[0].contains("T0/secret"), "{found:?}");
}

#[test]
fn tables_are_merged_and_a_key_set_twice_is_a_fault() {
    let mut first = good();
    let pairs = first.as_object_mut().and_then(|map| map.remove("pairs")).expect("pairs");
    let second = json!({"pairs": pairs});
    let variables = [("FIRSTLIGHT".to_owned(), first.clone()), ("FIRSTLIGHT_PAIRS".to_owned(), second), ("OTHER".to_owned(), json!(1))];
    assert!(Config::from_variables(&variables).is_ok());
    let twice = [("FIRSTLIGHT".to_owned(), good()), ("FIRSTLIGHT_X".to_owned(), json!({"label": "Other"}))];
    let ConfigErrors(problems) = Config::from_variables(&twice).expect_err("label is set twice");
    assert_eq!(problems[0].to_string(), "FIRSTLIGHT_X.label: is set in another table too");
}

#[test]
fn settings_under_which_nothing_would_be_checked_are_refused() {
    assert!(faults(|value| value["pairs"][0]["databases"] = json!([]))[0].starts_with("pairs[0].databases: is empty"));
    let test = json!({"name": "login", "url": "https://staging.example.com/login"});
    let twice = faults(|value| value["pairs"][0]["smoke_tests"] = json!([test, test]));
    assert_eq!(twice, ["pairs[0].smoke_tests[1].name: is used by another smoke test; it must be the test's own"]);
    let millions = faults(|value| value["pairs"][0]["keep_last"] = json!(1_000_000));
    assert_eq!(millions, ["pairs[0].keep_last: is 1000000; allowed is a whole number from 1 to 1000"]);
}
