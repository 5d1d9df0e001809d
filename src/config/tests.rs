//! What is read, and what is refused with the key's path.

mod secrets;

use serde_json::json;

use super::*;
use crate::id::Secret;
use crate::time::Zone;

fn good() -> Value {
    json!({
        "label": "CAIO Hub",
        "pairs": [{
            "name": "hub", "project": "old-violet-32930710",
            "production_branch": "br-noisy-breeze-a5e59rrb",
            "staging_branch": "br-calm-river-a5x0q1zz", "role": "neondb_owner",
            "timezone": "America/New_York",
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
    assert_eq!(
        paths,
        ["pairs[0].deadline", "pairs[0].keep_last", "pairs[0].retention", "colour"],
        "{found:#?}"
    );
}

#[test]
fn the_budget_of_an_invocation_leaves_the_time_of_the_longest_statement() {
    let with = |budget: u32, minutes: u32| {
        faults(|value| {
            value["wall_budget_s"] = json!(budget);
            value["pairs"][0]["verification"] =
                json!({"after_restore": {"sql": ["select 1"], "timeout_min": minutes}});
        })
    };
    let expected = "wall_budget_s: is 600, and pairs[0].verification.after_restore may take 5 \
        minutes more; an invocation has fifteen in all, so allowed are at most 570, or a shorter \
        timeout_min";
    assert_eq!(with(600, 5), [expected]);
    assert!(with(570, 5).is_empty() && with(240, 10).is_empty());
    assert_eq!(with(840, 1).len(), 1);
    assert!(
        faults(|value| value["wall_budget_s"] = json!(840)).is_empty(),
        "nothing is run on staging"
    );
}

#[test]
fn staging_must_not_be_production() {
    let found =
        faults(|value| value["pairs"][0]["staging_branch"] = json!("br-noisy-breeze-a5e59rrb"));
    assert_eq!(
        found,
        ["pairs[0].staging_branch: is the production branch; a run overwrites staging, so they \
            must differ"]
    );
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
    let found = faults(|value| {
        value["channels"][0]["url_secret"] = json!("https://hooks.example.com/T0/secret");
    });
    assert!(!found[0].contains("T0/secret"), "{found:?}");
}

#[test]
fn tables_are_merged_and_a_key_set_twice_is_a_fault() {
    let mut first = good();
    let pairs = first.as_object_mut().and_then(|map| map.remove("pairs")).expect("pairs");
    let second = json!({"pairs": pairs});
    let variables = [
        ("FIRSTLIGHT".to_owned(), first.clone()),
        ("FIRSTLIGHT_PAIRS".to_owned(), second),
        ("OTHER".to_owned(), json!(1)),
    ];
    assert!(Config::from_variables(&variables).is_ok());
    let twice =
        [("FIRSTLIGHT".to_owned(), good()), ("FIRSTLIGHT_X".to_owned(), json!({"label": "Other"}))];
    let ConfigErrors(problems) = Config::from_variables(&twice).expect_err("label is set twice");
    assert_eq!(problems[0].to_string(), "FIRSTLIGHT_X.label: is set in another table too");
}

#[test]
fn settings_under_which_nothing_would_be_checked_are_refused() {
    assert!(
        faults(|value| value["pairs"][0]["databases"] = json!([]))[0]
            .starts_with("pairs[0].databases: is empty")
    );
    let test = json!({"name": "login", "url": "https://staging.example.com/login"});
    let twice = faults(|value| value["pairs"][0]["smoke_tests"] = json!([test, test]));
    assert_eq!(
        twice,
        ["pairs[0].smoke_tests[1].name: is used by another smoke test; it must be the test's own"]
    );
    let millions = faults(|value| value["pairs"][0]["keep_last"] = json!(1_000_000));
    assert_eq!(
        millions,
        ["pairs[0].keep_last: is 1000000; allowed is a whole number from 1 to 1000"]
    );
}

/// As in case 24: 23:40 to 00:40.
#[test]
fn a_window_across_midnight_is_refused_with_a_way_out() {
    let across = |times: [(&str, &str); 4]| {
        faults(|value| {
            let pair = value["pairs"][0].as_object_mut().expect("a table");
            pair.extend(times.map(|(key, time)| (key.to_owned(), json!(time))));
        })
    };
    let cases = [
        (
            "deadline",
            [
                ("earliest_start", "23:30"),
                ("start_at", "23:40"),
                ("latest_start", "23:50"),
                ("deadline", "00:40"),
            ],
        ),
        (
            "latest_start",
            [
                ("earliest_start", "23:30"),
                ("start_at", "23:40"),
                ("latest_start", "00:10"),
                ("deadline", "00:40"),
            ],
        ),
        (
            "earliest_start",
            [
                ("earliest_start", "23:30"),
                ("start_at", "00:05"),
                ("latest_start", "00:10"),
                ("deadline", "00:40"),
            ],
        ),
        (
            "catch_up_until",
            [
                ("catch_up_until", "00:40"),
                ("start_at", "23:10"),
                ("latest_start", "23:20"),
                ("deadline", "23:50"),
            ],
        ),
    ];
    for (key, times) in cases {
        let found = across(times);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(&format!("pairs[0].{key}: is ")), "{found:?}");
        let way_out = "one across midnight ends by 23:59, begins at 00:00, or has another \
            timezone, such as \"Etc/GMT+6\" for UTC-6";
        assert!(found[0].contains(way_out), "{found:?}");
    }
    assert!(Zone::get("Etc/GMT+6").is_some(), "the way out is one");
}

#[test]
fn faults_of_times_and_channels_are_told_at_once_with_their_paths() {
    let found = faults(|value| {
        let pair = value["pairs"][0].as_object_mut().expect("a table");
        pair.insert("timezone".into(), json!("America/New_Yrok"));
        pair.insert("latest_start".into(), json!("06:30"));
        pair.insert("earliest_start".into(), json!("05:10"));
        pair.insert("weekdays".into(), json!(["monday"]));
        pair.insert("holidays".into(), json!(["25-12"]));
        value["escalate_again_min"] = json!(30);
        value["channels"] = json!([
            {"name": "a", "kind": "pigeon"},
            {"name": "b", "kind": "http", "url_secret": "B_URL",
                "body": "{\"x\": \"{{password}}\"}"},
            {"name": "c", "kind": "webhook", "url_secret": "C_URL",
                "signing_secret": ["whsec_abc"]},
            {"name": "d d", "kind": "slack", "url_secret": "D_URL", "quiet_from": "22:00",
                "notices": ["won"]},
            {"name": "e", "kind": "email", "from": "me", "to": []},
            {"name": "f", "kind": "healthcheck", "url_secret": "F_URL", "pairs": ["other"],
                "digest_at": "09:00", "timezone": "UTC"},
            {"name": "g", "kind": "pagerduty", "routing_key_secret": "G_KEY",
                "url": "http://10.0.0.1/"},
        ]);
    });
    let expected = [
        "pairs[0].timezone: is \"America/New_Yrok\"",
        "pairs[0].weekdays: has \"monday\"",
        "pairs[0].holidays: has \"25-12\"",
        "pairs[0].earliest_start: is 05:10, after start_at 05:00",
        "pairs[0].deadline: is 06:00, not after latest_start 06:30",
        "channels[0].kind: is \"pigeon\"",
        "channels[1].body: has {{password}}",
        "channels[2].signing_secret: has a text that is no name of a secret (9 characters)",
        "channels[3].name: is \"d d\"",
        "channels[3].notices: has \"won\"",
        "channels[3].quiet_until: is missing",
        "channels[3].timezone: is missing",
        "channels[4].from: is \"me\"",
        "channels[4].to: has 0 addresses",
        "channels[5].pairs: has \"other\"",
        "channels[5].kind: is a check",
        "channels[6].url: is \"http://10.0.0.1/…\"",
        "escalate_again_min: repeats the last of the escalations",
    ];
    for (index, start) in expected.iter().enumerate() {
        assert!(found.iter().any(|text| text.starts_with(start)), "{index}: {start}: {found:#?}");
    }
    assert!(!found.iter().any(|text| text.contains("whsec_")), "{found:#?}");
}

/// As in case 40: a check of a database that is not compared is refused, not left out.
#[test]
fn a_check_of_a_database_that_is_not_compared_is_refused() {
    let whole = |verification: Value| {
        faults(|value| {
            value["pairs"][0]["databases"] = json!(["a", "shop"]);
            value["pairs"][0]["verification"] = verification.clone();
        })
    };
    let assertion = json!({"name": "n", "database": "b",
            "sql": "select count(*) from orders where total < 0", "expect": 0});
    let freshness = json!({"table": "t", "column": "c", "max_age_h": 1, "database": "b"});
    let tenants = json!({"role": "app", "setting": "app.id", "column": "c", "values": ["1", "2"],
            "database": "b"});
    for (verification, path) in [
        (json!({"assertions": [assertion]}), "assertions[0]"),
        (json!({"freshness": [freshness]}), "freshness[0]"),
        (json!({"after_restore": {"sql": ["select 1"], "database": "b"}}), "after_restore"),
        (json!({"tenants": tenants}), "tenants"),
    ] {
        let text = "is \"b\", which is not compared; allowed is \"a\" or \"shop\", or add it to \
            the pair's databases";
        assert_eq!(whole(verification), [format!("pairs[0].verification.{path}.database: {text}")]);
    }
    let good =
        json!({"assertions": [{"name": "n", "database": "shop", "sql": "select 1", "expect": 1}]});
    assert!(whole(good).is_empty());
}

#[test]
fn what_cannot_work_is_refused_before_the_morning() {
    let pair =
        |key: &str, found: Value| faults(|value| value["pairs"][0][key] = found.clone()).join("\n");
    assert!(
        pair("databases", json!(["a", "b", "a"]))
            .starts_with("pairs[0].databases: has \"a\" twice, again as entry 3")
    );
    assert!(
        pair("databases", json!(["a".repeat(64)]))
            .starts_with("pairs[0].databases: has a name of 64 bytes")
    );
    assert!(
        pair("backup_prefix", json!("b".repeat(227)))
            .starts_with("pairs[0].backup_prefix: has 227 characters; allowed are up to 226")
    );
    assert_eq!(pair("backup_prefix", json!("b".repeat(226))), "");
    assert!(
        pair("backup_prefix", json!("a b"))
            .starts_with("pairs[0].backup_prefix: is \"a b\"; allowed are")
    );
    let base =
        faults(|value| value["neon_api_base"] = json!("https://console.neon.tech/api/v2?org_id=x"));
    assert!(
        base[0].starts_with("neon_api_base: is \"https://console.neon.tech/…\", with a query"),
        "{base:?}"
    );
    assert_eq!(faults(|value| value["public_url"] = json!("https://example.com/#a")).len(), 1);
    let channel = |key: &str, found: Value| {
        faults(|value| value["channels"][0][key] = found.clone()).join("\n")
    };
    assert!(
        channel("pairs", json!([]))
            .starts_with("channels[0].pairs: is empty, so that the channel hears nothing")
    );
    assert!(
        channel("notices", json!([]))
            .starts_with("channels[0].notices: is empty, so that the channel hears nothing")
    );
    let low = faults(|value| {
        value["channels"][0]["notices"] = json!(["succeeded"]);
        value["channels"][0]["minimum_severity"] = json!("urgent");
    });
    assert!(
        low[0].starts_with("channels[0].minimum_severity: leaves the channel nothing to hear"),
        "{low:?}"
    );
}

#[test]
fn a_pair_whose_failure_nobody_hears_is_worth_a_look() {
    let unheard = |channels: Value| {
        let mut value = good();
        value["channels"] = channels;
        Config::from_value(&value).expect("it is allowed").unheard().join("\n")
    };
    assert_eq!(unheard(good()["channels"].clone()), "");
    assert!(unheard(json!([])).starts_with(
        "pairs[0]: no channel hears of hub when it is failed, missed, late, stuck; add one"
    ));
    let only = json!([{"name": "a", "kind": "slack", "url_secret": "A_URL",
                "notices": ["succeeded", "late"]}]);
    assert!(unheard(only).contains("when it is failed, missed, stuck;"));
}

#[test]
fn secrets_that_are_missing_or_lead_into_a_private_network_are_named_and_not_shown() {
    let mut value = good();
    value["channels"] = json!([
        {"name": "a", "kind": "slack", "url_secret": "A_URL"},
        {"name": "b", "kind": "webhook", "url_secret": "B_URL", "signing_secret": "B_KEY"},
        {"name": "c", "kind": "discord", "url_secret": "C_URL"},
    ]);
    let config = Config::from_value(&value).expect("the configuration is complete");
    let secrets = [
        ("B_URL", "https://169.254.169.254/latest"),
        ("B_KEY", ""),
        ("C_URL", "https://discord.example.com/api/webhooks/1/t0k3n"),
    ];
    let secrets =
        secrets.map(|(name, value)| (name.to_owned(), Secret::new(value.to_owned()))).into();
    let found: Vec<String> =
        config.secret_problems(&secrets).iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(
        found[0].starts_with("channels[0].url_secret: names secret A_URL, which is not set"),
        "{found:#?}"
    );
    assert!(found[1].starts_with(
        "channels[1].url_secret: names secret B_URL, whose address cannot be called; leads into a \
         private network"
    ));
    assert_eq!(found[2], "channels[1].signing_secret: names secret B_KEY, which is empty");
    assert!(
        !found.iter().any(|text| text.contains("169.254") || text.contains("t0k3n")),
        "{found:#?}"
    );
}
