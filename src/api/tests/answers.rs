//! What is common to all answers: tokens, bodies, methods, headers, errors.

use super::*;

/// Returns the value of a header, or of each of its lines.
fn header(response: &ApiResponse, name: &str) -> Vec<String> {
    response
        .headers()
        .filter(|(known, _)| *known == name)
        .map(|(_, value)| value.to_owned())
        .collect()
}

/// A4 of issue 19: 90 MB of chunks, sent by anybody, took the Worker to 423 MB.
#[test]
fn nothing_of_a_body_is_read_before_the_token_is_known() {
    let reads =
        |method, path: &str, token| reads_body(&secrets(), &request(method, path, token, ""));
    for method in [Method::Post, Method::Put, Method::Patch, Method::Delete] {
        assert!(!reads(method, "/runs", None), "{method:?} of somebody");
        assert!(
            !reads(method, "/runs", Some("wrong")),
            "{method:?} with a token that opens nothing"
        );
        assert!(!reads(method, "/runs", Some("reader")), "{method:?} of who may only read");
        assert!(reads(method, "/runs", Some("admin")), "{method:?}");
    }
    assert!(!reads(Method::Get, "/runs", Some("admin")), "GET has no body");
    assert!(!reads(Method::Post, "/health", None), "an address without a token has none either");
}

#[test]
fn a_body_of_one_byte_too_many_is_refused_as_too_large() {
    let post = |length: usize| {
        ask(&Memory::default(), &request(Method::Post, "/runs", Some("admin"), &" ".repeat(length)))
            .0
    };
    assert_eq!((post(BODY_LIMIT), post(BODY_LIMIT + 1)), (202, 413));
    assert_eq!(refuse_body(Ok(&config())).status, 408);
}

#[test]
fn the_name_of_the_scheme_may_be_written_in_any_case() {
    let status = |header: &str| {
        let request = ApiRequest {
            authorization: Some(header.to_owned()),
            ..request(Method::Get, "/runs", None, "")
        };
        ask(&Memory::default(), &request).0
    };
    for header in ["Bearer reader", "bearer reader", "BEARER reader", "bEaReR  reader"] {
        assert_eq!(status(header), 200, "{header}");
    }
    for header in [
        "reader",
        "Basic reader",
        "Bearerreader",
        "Bearer",
        "Bearer ",
        "Bearer Reader",
        "Bearer reader x",
    ] {
        assert_eq!(status(header), 401, "{header}");
    }
}

#[test]
fn a_method_that_an_address_does_not_have_is_refused_with_those_that_it_has() {
    let refused = |method, path: &str| {
        answered(&Memory::default(), &config(), &request(method, path, Some("admin"), "")).response
    };
    for (method, path, allowed) in [
        (Method::Delete, "/runs", "GET, HEAD, POST"),
        (Method::Post, "/runs/20261121", "GET, HEAD"),
        (Method::Get, "/runs/20261121/cancel", "POST"),
        (Method::Patch, "/pairs/hub/hold", "PUT, DELETE"),
        (Method::Get, "/backups/backup-20261121/pin", "PUT, DELETE"),
        (Method::Post, "/health", "GET, HEAD"),
        (Method::Get, "/channels/team/test", "POST"),
        (Method::Post, "/incidents", "GET, HEAD"),
    ] {
        let response = refused(method, path);
        assert_eq!(
            (response.status, header(&response, "allow")),
            (405, vec![allowed.to_owned()]),
            "{path}"
        );
    }
    // `OPTIONS`, `TRACE` and whatever else a client thinks of.
    let other = refuse_method(Ok(&config()), "/runs");
    assert_eq!((other.status, header(&other, "allow")), (405, vec!["GET, HEAD, POST".to_owned()]));
    assert_eq!(header(&other, "content-type"), ["application/problem+json"]);
    assert_eq!(refuse_method(Ok(&config()), "/nothing").status, 404);
}

#[test]
fn every_answer_says_that_it_is_not_to_be_kept_framed_or_guessed_at() {
    let config = config();
    let ask = |method, path: &str, token| {
        answered(&Memory::default(), &config, &request(method, path, token, "")).response
    };
    let answers = [
        ask(Method::Get, "/health", None),
        ask(Method::Get, "/runs", None),
        ask(Method::Get, "/runs", Some("reader")),
        ask(Method::Post, "/runs", Some("admin")),
        ask(Method::Delete, "/runs", Some("admin")),
        ask(Method::Get, "/nothing", Some("reader")),
        refuse_method(Ok(&config), "/runs"),
        refuse_body(Ok(&config)),
    ];
    for answer in answers {
        for (name, value) in SECURITY_HEADERS {
            assert_eq!(header(&answer, name), [value], "{}", answer.body);
        }
        assert_eq!(header(&answer, "firstlight-version"), [VERSION], "{}", answer.body);
        let challenge = header(&answer, "www-authenticate");
        assert_eq!(challenge.is_empty(), answer.status != 401, "{}", answer.body);
    }
}

#[test]
fn the_type_of_an_error_is_an_absolute_address_or_blank() {
    let kind = |config: &Config| {
        let answer = answered(
            &Memory::default(),
            config,
            &request(Method::Get, "/nothing", Some("reader"), ""),
        );
        serde_json::from_str::<Value>(&answer.response.body).expect("a problem")["type"].clone()
    };
    assert_eq!(kind(&config()), "about:blank");
    let mut settings = settings();
    settings["runbooks_url"] = json!("https://git.example.com/firstlight/runbooks/");
    let published = Config::from_value(&settings).expect("the configuration is complete");
    assert_eq!(
        kind(&published),
        "https://git.example.com/firstlight/runbooks/daily-sync.md#the-api"
    );
}

#[test]
fn the_place_of_a_run_names_its_pair_where_there_are_several() {
    let location = |config: &Config, path: &str| {
        let mut request = request(Method::Post, path, Some("admin"), "");
        request.idempotency_key = Some("ci-4711".to_owned());
        let memory = Memory::default();
        let places = [&request, &request]
            .map(|request| header(&answered(&memory, config, request).response, "location"));
        assert_eq!(places[0], places[1], "a repeated request leads to the same");
        places[0].join("")
    };
    assert_eq!(location(&config(), "/runs"), "/runs/20261121T143000Z");
    let mut settings = settings();
    let mut other = settings["pairs"][0].clone();
    (other["name"], other["staging_branch"]) = (json!("lobby"), json!("br-other-river-a5x0q1zz"));
    (other["project"], other["production_branch"]) =
        (json!("new-violet-32930710"), json!("br-other-breeze-a5e59rrb"));
    settings["pairs"].as_array_mut().expect("a list").push(other);
    let fleet = Config::from_value(&settings).expect("the configuration is complete");
    assert_eq!(location(&fleet, "/runs?pair=lobby"), "/runs/20261121T143000Z?pair=lobby");
}
