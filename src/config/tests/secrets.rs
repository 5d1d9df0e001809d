//! Secrets in the wrong place, and what is never shown of them.

use super::*;

const TOKEN: &str = "Bearer eyJhbGciOiJIUzI1NiJ9.e30.c2VjcmV0LXRva2Vu";

/// As in case 35: a secret where its name belongs, in every place where there is one.
#[test]
fn a_secret_in_place_of_a_secrets_name_is_refused_and_not_shown() {
    let test = |key: &str, found: Value| {
        json!([{"name": "t", "url": "https://staging.example.com/",
                "method": "POST", key: found}])
    };
    let http = |found: Value| {
        json!([{"name": "a", "kind": "http", "url_secret": "A_URL",
                "body": "{}", "secret_headers": found}])
    };
    let secrets = [
        TOKEN,
        "hunter2",
        "https://hooks.example.com/T0/c2VjcmV0",
        "R015MP1KBWZ2ABCDEFGH34567890ABCD",
        "AKIAIOSFODNN7EXAMPLE",
        "line\nline",
    ];
    for secret in secrets {
        let whole = [
            (
                "pairs[0].smoke_tests[0].secret_headers",
                faults(|value| {
                    value["pairs"][0]["smoke_tests"] =
                        test("secret_headers", json!({"Authorization": secret}));
                }),
            ),
            (
                "pairs[0].smoke_tests[0].body_secret",
                faults(|value| {
                    value["pairs"][0]["smoke_tests"] = test("body_secret", json!(secret));
                }),
            ),
            (
                "pairs[0].role_password_secret",
                faults(|value| value["pairs"][0]["role_password_secret"] = json!(secret)),
            ),
            (
                "channels[0].secret_headers",
                faults(|value| value["channels"] = http(json!({"Authorization": secret}))),
            ),
            ("channels[0].secret_headers", faults(|value| value["channels"] = http(json!(secret)))),
            (
                "channels[0].secret_headers.X",
                faults(|value| value["channels"] = http(json!({"X": [secret]}))),
            ),
            (
                "channels[0].url_secret",
                faults(|value| value["channels"][0]["url_secret"] = json!(secret)),
            ),
            (
                "channels[0].url_secret",
                faults(|value| value["channels"][0]["url_secret"] = json!([secret])),
            ),
        ];
        for (path, found) in whole {
            assert!(
                found.iter().any(|text| text.starts_with(&format!("{path}: "))),
                "{path}: {found:#?}"
            );
            for part in secret
                .split(|c: char| !c.is_alphanumeric())
                .filter(|part| part.len() > 6 && *part != "example")
            {
                assert!(!found.iter().any(|text| text.contains(part)), "{path}: {found:#?}");
            }
        }
    }
}

/// A secret that stands anywhere else is not shown either.
#[test]
fn a_secret_in_any_other_place_is_not_shown() {
    let everywhere = |place: &str| {
        faults(|value| {
            let (at, key) = place.rsplit_once('/').expect("a pointer");
            value.pointer_mut(at).expect("a table")[key] = json!(TOKEN);
        })
    };
    for place in [
        "/pairs/0/name",
        "/pairs/0/project",
        "/pairs/0/staging_branch",
        "/pairs/0/timezone",
        "/pairs/0/start_at",
        "/pairs/0/keep_last",
        "/pairs/0/on_mismatch",
        "/pairs/0/databases",
        "/pairs/0/verification",
        "/pairs/0/smoke_tests",
        "/pairs/0/endpoint_cu",
        "/pairs/0/backup_prefix",
        "/channels/0/name",
        "/channels/0/kind",
        "/channels/0/notices",
        "/channels/0/pairs",
        "/channels/0/token",
        "/neon_api_base",
        "/pairs",
        "/channels",
    ] {
        let found = everywhere(place).join("\n");
        assert!(!found.is_empty() && !found.contains("eyJ"), "{place}: {found}");
    }
    let key = faults(|value| value["channels"][0][TOKEN] = json!("x")).join("\n");
    assert!(key.contains("is not a key") && !key.contains("eyJ"), "{key}");
}

/// As in case 35: an address that is refused says who would be called, and nothing else of it.
#[test]
fn a_refused_address_shows_no_user_password_path_or_query() {
    for (address, shown) in [
        ("https://ann:s3cr3t@example.com/", "is an address of 31 characters"),
        ("https://ann:s3/cr3t@example.com/", "is an address of 32 characters"),
        ("http://example.com/hook/s3cr3t?key=s3cr3t", "is \"http://example.com/…\""),
        ("ftp://example.com?s3cr3t", "is \"ftp://example.com/…\""),
        ("https://10.0.0.1#s3cr3t", "is \"https://10.0.0.1/…\""),
    ] {
        let found = faults(|value| value["neon_api_base"] = json!(address));
        assert!(
            found[0].starts_with(&format!("neon_api_base: {shown}; allowed is"))
                || found[0].contains("leads into a private network"),
            "{found:?}"
        );
        assert!(!found[0].contains("3cr3t") && !found[0].contains("ann"), "{found:?}");
    }
}

/// As in case 35: what Firstlight needs for itself is sent to nobody, and a secret has one use.
#[test]
fn a_secret_of_another_use_is_refused() {
    for fixed in ["NEON_API_KEY", "ADMIN_TOKEN", "READ_TOKEN", "STATE"] {
        let channel = faults(|value| value["channels"][0]["url_secret"] = json!(fixed));
        assert!(
            channel[0].starts_with(&format!("channels[0].url_secret: is {fixed}, which is")),
            "{channel:?}"
        );
        let test = json!([{"name": "t", "url": "https://staging.example.com/",
                    "secret_headers": {"Authorization": fixed}}]);
        let found = faults(|value| value["pairs"][0]["smoke_tests"] = test.clone());
        assert!(
            found[0].starts_with("pairs[0].smoke_tests[0].secret_headers: has a text that is "),
            "{found:?}"
        );
        assert_eq!(
            faults(|value| value["pairs"][0]["role_password_secret"] = json!(fixed)).len(),
            1
        );
    }
    let test = json!([{"name": "t", "url": "https://staging.example.com/",
                "secret_headers": {"X": "SLACK_WEBHOOK_URL"}}]);
    let found = faults(|value| value["pairs"][0]["smoke_tests"] = test.clone());
    let expected = "channels[0].url_secret: names SLACK_WEBHOOK_URL, which is a part of a smoke \
        test already and must not be the address of a channel; allowed is a secret with one use";
    assert_eq!(found, [expected]);
    let both = json!([{"name": "a", "kind": "slack", "url_secret": "A_URL"},
            {"name": "b", "kind": "slack", "url_secret": "A_URL", "minimum_severity": "urgent"}]);
    assert!(
        faults(|value| value["channels"] = both.clone()).is_empty(),
        "two channels may share an address"
    );
}

/// As in case 35: a secret whose name begins as the settings do is no table of settings, and stops
/// nothing.
#[test]
fn a_secret_that_is_named_like_the_settings_is_not_read_as_settings() {
    let mut value = good();
    value["channels"][0]["url_secret"] = json!("FIRSTLIGHT_SLACK_URL");
    let read = |name: &str, text: Value| {
        Config::from_variables(&[("FIRSTLIGHT".to_owned(), value.clone()), (name.to_owned(), text)])
    };
    assert!(read("FIRSTLIGHT_SLACK_URL", json!("https://hooks.example.com/T0")).is_ok());
    assert!(read("FIRSTLIGHT_SLACK_URL", json!("{\"a\": 1}")).is_ok(), "a secret may be JSON");
    assert!(read("FIRSTLIGHT_OTHER", json!("x")).is_ok());
    let ConfigErrors(lost) = read("FIRSTLIGHT_PAIRS", json!(" {\"pairs\": \"s3cr3t\"}"))
        .expect_err("settings that nobody would read");
    assert!(
        lost[0].to_string().starts_with("FIRSTLIGHT_PAIRS: is a text; allowed is a table"),
        "{lost:?}"
    );
    assert!(!lost[0].to_string().contains("s3cr3t"), "{lost:?}");
    let text = Config::from_variables(&[("FIRSTLIGHT".to_owned(), json!("s3cr3t"))])
        .expect_err("no table")
        .to_string();
    assert!(text.contains("FIRSTLIGHT: is no table") && !text.contains("s3cr3t"), "{text}");
}

#[test]
fn tokens_that_anybody_could_guess_are_told() {
    let config = Config::from_value(&good()).expect("the configuration is complete");
    let told = |secrets: &[(&str, &str)]| {
        let more = [("SLACK_WEBHOOK_URL", "https://hooks.example.com/T0")];
        let secrets = secrets
            .iter()
            .chain(&more)
            .map(|(name, value)| ((*name).to_owned(), Secret::new((*value).to_owned())));
        config
            .secret_problems(&secrets.into_map())
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    };
    let long = "0123456789abcdef0123456789abcdef";
    assert_eq!(
        told(&[
            ("ADMIN_TOKEN", long),
            ("READ_TOKEN", "fedcba9876543210fedcba98"),
            ("NEON_API_KEY", "napi_x")
        ]),
        ""
    );
    assert!(told(&[("ADMIN_TOKEN", "")]).starts_with("ADMIN_TOKEN: is empty"));
    assert!(told(&[("ADMIN_TOKEN", "   ")]).starts_with("ADMIN_TOKEN: is empty"));
    assert!(
        told(&[("READ_TOKEN", "letmein")])
            .starts_with("READ_TOKEN: has 7 characters; allowed are 16 and more")
    );
    assert!(
        told(&[("ADMIN_TOKEN", long), ("READ_TOKEN", long)])
            .starts_with("READ_TOKEN: is ADMIN_TOKEN")
    );
    assert!(
        told(&[("ADMIN_TOKEN", long), ("NEON_API_KEY", long)])
            .starts_with("ADMIN_TOKEN: is NEON_API_KEY")
    );
    assert!(!told(&[("ADMIN_TOKEN", long), ("READ_TOKEN", long)]).contains(long));
    assert!(told(&[("NEON_API_KEY", "")]).starts_with("NEON_API_KEY: is empty"));
}
