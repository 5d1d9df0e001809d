//! What is allowed of a verification, and what is refused.

use serde_json::{Value, json};

use super::*;
use crate::config::{Config, ConfigErrors};

fn read(verification: &Value) -> Result<Verification, Vec<String>> {
    let value = json!({"pairs": [{
        "name": "hub", "project": "old-violet-32930710",
        "production_branch": "br-noisy-breeze-a5e59rrb",
        "staging_branch": "br-calm-river-a5x0q1zz", "role": "neondb_owner",
        "timezone": "America/New_York", "start_at": "05:00",
        "latest_start": "05:30", "deadline": "06:00", "keep_last": 7, "keep_displaced": 1,
        "verification": verification,
    }]});
    match Config::from_value(&value) {
        Ok(mut config) => Ok(config.pairs.remove(0).verification),
        Err(ConfigErrors(problems)) => Err(problems.iter().map(ToString::to_string).collect()),
    }
}

#[test]
fn what_is_not_configured_warns_and_costs_no_request() {
    let settings = read(&json!({})).expect("nothing is required");
    let warning = [
        settings.foreign_keys,
        settings.sequences,
        settings.invalid_indexes,
        settings.unvalidated_constraints,
        settings.index_structure,
    ];
    assert!(
        warning
            .into_iter()
            .chain([settings.armed, settings.row_loss, settings.posture])
            .all(|policy| policy == Policy::Warn)
    );
    assert_eq!((settings.production_counts, settings.people), (Policy::Off, Policy::Off));
    assert_eq!(settings.on_drift, OnDrift::Warn);
    assert!(
        settings.is_not_checked_fatal
            && settings.time_budget.is_none()
            && settings.after_restore.is_none()
    );
}

#[test]
fn an_assertion_is_read_with_what_it_expects() {
    let one = |more: Value| {
        let mut whole = json!({"name": "a", "sql": "select 1;"});
        whole
            .as_object_mut()
            .expect("a table")
            .extend(more.as_object().cloned().unwrap_or_default());
        read(&json!({"assertions": [whole]})).map(|settings| settings.assertions[0].clone())
    };
    let found = one(json!({"expect": 0})).expect("complete");
    assert_eq!(
        (found.sql.as_str(), found.expected),
        ("select 1", Some(Expected::Text("0".to_owned())))
    );
    let range = Expected::Range { at_least: Some(1.0), at_most: Some(2.5) };
    assert_eq!(
        one(json!({"at_least": 1, "at_most": 2.5})).expect("complete").expected,
        Some(range)
    );
    assert_eq!(one(json!({"on": "both"})).expect("complete").on, AssertedOn::Both);
    let path = "pairs[0].verification.assertions[0]";
    assert!(
        one(json!({})).expect_err("nothing is expected")[0]
            .starts_with(&format!("{path}.expect: is missing"))
    );
    assert!(
        one(json!({"expect": "1", "at_least": 1})).expect_err("both")[0]
            .contains("stands beside at_least")
    );
    assert!(
        one(json!({"expect": "1", "on": "production"})).expect_err("nowhere")[0]
            .starts_with(&format!("{path}.on: is \"production\"; allowed is"))
    );
}

/// As in case 17, and its siblings: what fails every morning is refused before the first.
#[test]
fn what_fails_every_morning_is_refused() {
    let faults = |verification: Value| read(&verification).expect_err("it is refused").join("\n");
    let assertion = |more: Value| {
        let mut whole = json!({"name": "a", "sql": "select count(*) from t", "expect": 0});
        whole
            .as_object_mut()
            .expect("a table")
            .extend(more.as_object().cloned().unwrap_or_default());
        faults(json!({"assertions": [whole]}))
    };
    let path = "pairs[0].verification.assertions[0]";
    assert!(
        assertion(json!({"expect": "none"}))
            .starts_with(&format!("{path}.expect: is \"none\", and count gives"))
    );
    assert!(
        assertion(json!({"sql": "delete from t"}))
            .starts_with(&format!("{path}.sql: is no question"))
    );
    assert!(
        assertion(json!({"sql": "select 1; select 2"}))
            .starts_with(&format!("{path}.sql: has several statements"))
    );
    assert!(
        assertion(json!({"on": "after_restore"}))
            .starts_with(&format!("{path}.on: is \"after_restore\", and nothing is run"))
    );
    let range =
        json!({"assertions": [{"name": "a", "sql": "select 1", "at_least": 2, "at_most": 1}]});
    assert!(faults(range).starts_with(&format!("{path}.at_most: is 1, below at_least 2")));
    let run = |sql: Value| faults(json!({"after_restore": {"sql": sql}}));
    assert!(
        run(json!(["select 1", "vacuum analyze"]))
            .starts_with("pairs[0].verification.after_restore.sql[1]: has vacuum")
    );
    assert!(run(json!([])).starts_with("pairs[0].verification.after_restore.sql: is empty"));
    let hidden = run(json!("alter role app password 's3cr3t'"));
    assert!(
        hidden.contains("is a text; allowed is a list of texts") && !hidden.contains("s3cr3t"),
        "{hidden}"
    );
    let tenants = |role: &str, values: Value| {
        faults(json!({"tenants": {"role": role, "setting": "app.id", "column": "c",
                            "values": values}}))
    };
    assert!(
        tenants("app", json!(["1", "2", "1"]))
            .starts_with("pairs[0].verification.tenants.values: has a tenant twice")
    );
    assert!(
        tenants("neondb_owner", json!(["1", "2"]))
            .starts_with("pairs[0].verification.tenants.role: is the role that verifies")
    );
}

#[test]
fn what_cannot_be_meant_is_refused_with_its_path() {
    let fault = |verification: Value| read(&verification).expect_err("it is refused").remove(0);
    let path = "pairs[0].verification";
    assert_eq!(fault(json!("all")), format!("{path}: is a text; allowed is a table"));
    assert!(fault(json!({"foreign_keys": "error"})).starts_with(&format!(
        "{path}.foreign_keys: is \"error\"; allowed is \"off\" or \"warn\" or \"fail\""
    )));
    assert!(fault(json!({"on_drift": "off"})).starts_with(&format!(
        "{path}.on_drift: is \"off\"; allowed is \"note\" or \"warn\" or \"fail\""
    )));
    assert!(
        fault(json!({"orphans": "fail"}))
            .starts_with(&format!("{path}.orphans: is not a key; known here are"))
    );
    let tenants = |values: Value, setting: &str| {
        fault(json!({"tenants": {"role": "app", "setting": setting, "column": "org",
                            "values": values}}))
    };
    assert!(
        tenants(json!(["1"]), "app.org")
            .starts_with(&format!("{path}.tenants.values: has 1 entries; allowed are 2 to 20"))
    );
    assert!(tenants(json!(["1", "2"]), "org").contains("allowed is a name with a dot"));
    let fresh = json!({"table": "events", "column": "at", "max_age_h": 2});
    assert!(fault(json!({"freshness": [fresh, fresh]})).contains("is looked at by another entry"));
    assert!(
        fault(json!({"freshness": [{"table": "events", "column": "at"}]}))
            .contains("max_age_h: is missing")
    );
    assert!(fault(json!({"after_restore": {}})).contains("after_restore.sql: is missing"));
    assert!(fault(json!({"time_budget_s": 1})).contains("a whole number from 10 to 86400"));
    assert!(fault(json!({"row_loss_percent": 0})).contains("a whole number from 1 to 100"));
}
