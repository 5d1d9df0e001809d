//! Which refusals say what.

use super::*;
use crate::port::HttpFailure;
use crate::sync::retry::tests::status;

#[test]
fn only_a_refusal_says_that_certainly_nothing_was_done() {
    for (code, expected) in [
        (399, false),
        (400, true),
        (408, false),
        (423, true),
        (499, true),
        (500, false),
        (502, false),
        (503, true),
    ] {
        assert_eq!(is_refusal(&status(code, "", "")), expected, "{code}");
    }
    assert!(!is_refusal(&NeonError::NoReply {
        call: "x".into(),
        failure: HttpFailure::Disconnected
    }));
    assert!(!is_refusal(&NeonError::Undecodable { call: "x".into(), problem: "Eof".into() }));
}

#[test]
fn a_refused_reader_is_told_by_what_the_refusal_cannot_mean_and_not_by_its_words() {
    let call = Call::CreateEndpoint("br-a".into(), EndpointKind::ReadOnly, 25);
    let about = |code: u16, word: &str, message: &str| {
        let error = status(code, word, message);
        may_be_about_the_reader(&error, disposition(&error, &call))
    };
    for code in [400, 405, 409, 412, 422] {
        assert_eq!(
            about(code, "", "no compute without a primary"),
            code != 405,
            "{code}: 405 says nothing about what was done"
        );
    }
    assert!(!about(422, "ENDPOINTS_LIMIT_EXCEEDED", "endpoint limit exceeded"));
    assert!(!about(422, "", "your project has exceeded the compute time quota"));
    assert!(!about(422, "", "branch not ready yet"));
    assert!(!about(409, "BRANCH_ALREADY_EXISTS", "branch already exists"));
    assert!([401, 402, 403, 404, 408, 423, 429, 500, 503].iter().all(|code| !about(
        *code,
        "",
        "a read-only endpoint"
    )));
    assert!(
        asks_for_a_reader(&call)
            && !asks_for_a_reader(&Call::CreateEndpoint(
                "br-a".into(),
                EndpointKind::ReadWrite,
                25
            ))
    );
}
