//! Decodes bodies as Neon does: what its OpenAPI document would refuse is refused before anything
//! else is looked at.
//!
//! In: the name of a route and the body. Out: nothing, or a 400 that names the field.
//!
//! Invariants: a route that takes no body does not look at one. A field that nobody knows is
//! skipped. A `null` is refused where the document does not say that a field may be one.
//!
//! Why so strict: a client that encodes a position wrongly would otherwise restore the head, and
//! every test of it would pass.
//!
//! Source: Neon API v2, OpenAPI document of 2026-07-13, `requestBody` of each operation; `slug` and
//! the `expires_at` of a snapshot from `@neon/sdk` 6.1.2. Observed 2025-01-16: "invalid request:
//! decode application/json: invalid: project (field required)". UNVERIFIED: the words of every
//! other refusal, and the lengths of those names for which the document has none.

use chrono::DateTime;
use serde_json::Value;

use super::ApiError;
use super::branches::NAME_LENGTH;

/// How many texts may be written on a branch. Source: Neon API v2, `AnnotationCreateValueRequest`.
const ANNOTATIONS: usize = 50;

/// What a value has to be.
enum Kind {
    /// A text of so many characters, at least and at most.
    Text(usize, usize),
    /// One of Neon's ids: `^[a-z0-9-]{1,60}$`.
    Id,
    /// One of these words.
    Word(&'static [&'static str]),
    /// An instant.
    Time,
    /// True or false.
    Flag,
    /// A whole number between these.
    Whole(i64, i64),
    /// A size of a compute: 0.25 at least.
    Units,
    /// An object of these fields.
    Object(&'static [Field]),
    /// A list of such values.
    List(&'static Kind),
    /// An object of texts.
    Texts,
}

/// A field of an object.
struct Field {
    name: &'static str,
    kind: Kind,
    is_required: bool,
    is_nullable: bool,
}

const fn may(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, is_required: false, is_nullable: false }
}

const fn must(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, is_required: true, is_nullable: false }
}

/// May be missing, and may be null.
const fn nullable(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, is_required: false, is_nullable: true }
}

const ANY_TEXT: Kind = Kind::Text(0, usize::MAX);
const NAME: Kind = Kind::Text(1, NAME_LENGTH);
/// Source: Neon API v2, `EndpointCreateRequest`.
const ENDPOINT_NAME: Kind = Kind::Text(1, 64);
const TYPE: Kind = Kind::Word(&["read_only", "read_write"]);
const SUSPEND: Kind = Kind::Whole(-1, 604_800);
const SETTINGS: Kind =
    Kind::Object(&[may("pg_settings", Kind::Texts), may("pgbouncer_settings", Kind::Texts)]);

/// What a body of a route has to be, and whether there has to be one.
struct Body {
    fields: &'static [Field],
    is_required: bool,
}

const CREATE_BRANCH: &[Field] = &[
    may(
        "branch",
        Kind::Object(&[
            may("parent_id", Kind::Id),
            may("name", NAME),
            may("parent_lsn", ANY_TEXT),
            may("parent_timestamp", Kind::Time),
            may("protected", Kind::Flag),
            may("archived", Kind::Flag),
            may("init_source", ANY_TEXT),
            may("expires_at", Kind::Time),
        ]),
    ),
    may(
        "endpoints",
        Kind::List(&Kind::Object(&[
            must("type", TYPE),
            may("settings", SETTINGS),
            may("autoscaling_limit_min_cu", Kind::Units),
            may("autoscaling_limit_max_cu", Kind::Units),
            may("provisioner", ANY_TEXT),
            may("suspend_timeout_seconds", SUSPEND),
        ])),
    ),
    may("annotation_value", Kind::Texts),
];

const UPDATE_BRANCH: &[Field] = &[must(
    "branch",
    Kind::Object(&[
        may("name", NAME),
        may("protected", Kind::Flag),
        nullable("expires_at", Kind::Time),
    ]),
)];

/// An empty `preserve_under_name` keeps nothing. Source: Neon API v2, `BranchRestoreRequest`: "if
/// not empty".
const RESTORE_BRANCH: &[Field] = &[
    must("source_branch_id", Kind::Id),
    may("source_lsn", ANY_TEXT),
    may("source_timestamp", Kind::Time),
    may("preserve_under_name", Kind::Text(0, NAME_LENGTH)),
];

const UPDATE_SNAPSHOT: &[Field] =
    &[must("snapshot", Kind::Object(&[may("name", NAME), nullable("expires_at", Kind::Time)]))];

const RESTORE_SNAPSHOT: &[Field] =
    &[may("name", NAME), may("target_branch_id", Kind::Id), may("finalize_restore", Kind::Flag)];

const FINALIZE: &[Field] = &[may("name", NAME)];

const GRANT: &[Field] = &[must("email", Kind::Text(1, 256))];

const SCHEDULE: &[Field] = &[must(
    "schedule",
    Kind::List(&Kind::Object(&[
        must("frequency", ANY_TEXT),
        may("hour", Kind::Whole(0, 23)),
        may("day", Kind::Whole(1, 31)),
        may("month", Kind::Whole(1, 12)),
        may("retention_seconds", Kind::Whole(3_600, i64::MAX)),
    ])),
)];

const CREATE_ENDPOINT: &[Field] = &[must(
    "endpoint",
    Kind::Object(&[
        must("branch_id", Kind::Id),
        must("type", TYPE),
        may("region_id", ANY_TEXT),
        may("settings", SETTINGS),
        may("autoscaling_limit_min_cu", Kind::Units),
        may("autoscaling_limit_max_cu", Kind::Units),
        may("provisioner", ANY_TEXT),
        may("pooler_enabled", Kind::Flag),
        may("pooler_mode", Kind::Word(&["transaction"])),
        may("disabled", Kind::Flag),
        may("passwordless_access", Kind::Flag),
        may("suspend_timeout_seconds", SUSPEND),
        may("name", ENDPOINT_NAME),
    ]),
)];

const UPDATE_ENDPOINT: &[Field] = &[must(
    "endpoint",
    Kind::Object(&[
        may("branch_id", Kind::Id),
        may("settings", SETTINGS),
        may("autoscaling_limit_min_cu", Kind::Units),
        may("autoscaling_limit_max_cu", Kind::Units),
        may("provisioner", ANY_TEXT),
        may("pooler_enabled", Kind::Flag),
        may("pooler_mode", Kind::Word(&["transaction"])),
        may("disabled", Kind::Flag),
        may("passwordless_access", Kind::Flag),
        may("suspend_timeout_seconds", SUSPEND),
        may("name", ENDPOINT_NAME),
    ]),
)];

const UPDATE_PROJECT: &[Field] = &[must(
    "project",
    Kind::Object(&[
        may("name", NAME),
        may("history_retention_seconds", Kind::Whole(0, 2_592_000)),
        may(
            "settings",
            Kind::Object(&[
                may(
                    "allowed_ips",
                    Kind::Object(&[
                        may("ips", Kind::List(&ANY_TEXT)),
                        may("protected_branches_only", Kind::Flag),
                    ]),
                ),
                may("enable_logical_replication", Kind::Flag),
                may("block_public_connections", Kind::Flag),
                may("block_vpc_connections", Kind::Flag),
            ]),
        ),
    ]),
)];

/// Returns what the body of a route has to be; `None` for a route that takes none.
fn shape_of(route: &str) -> Option<Body> {
    let (fields, is_required) = match route {
        "updateProject" => (UPDATE_PROJECT, true),
        "createProjectBranch" => (CREATE_BRANCH, false),
        "updateProjectBranch" => (UPDATE_BRANCH, true),
        "restoreProjectBranch" => (RESTORE_BRANCH, true),
        "finalizeRestoreBranch" => (FINALIZE, false),
        "setSnapshotSchedule" => (SCHEDULE, true),
        "updateSnapshot" => (UPDATE_SNAPSHOT, true),
        "restoreSnapshot" => (RESTORE_SNAPSHOT, false),
        "createProjectEndpoint" => (CREATE_ENDPOINT, true),
        "updateProjectEndpoint" => (UPDATE_ENDPOINT, true),
        "grantPermissionToProject" => (GRANT, true),
        _ => return None,
    };
    Some(Body { fields, is_required })
}

/// Reads the body of a request; null where there is none, or the route takes none.
///
/// # Errors
///
/// 400 where it is no JSON.
pub fn body_of_route(route: &str, text: &str) -> Result<Value, ApiError> {
    if shape_of(route).is_none() || text.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(text)
        .map_err(|error| refused(&format!("unexpected byte at {}", error.column())))
}

/// Refuses a body that is not what the route takes.
pub(super) fn check(route: &str, body: &Value) -> Result<(), ApiError> {
    match shape_of(route) {
        Some(Body { is_required: true, .. }) if body.is_null() => Err(refused("body required")),
        Some(Body { fields, .. }) if !body.is_null() => check_object(fields, body, ""),
        Some(_) | None => Ok(()),
    }
}

fn refused(why: &str) -> ApiError {
    ApiError::new(400, "", format!("invalid request: decode application/json: {why}"))
}

fn invalid(path: &str, why: &str) -> ApiError {
    let path = if path.is_empty() { "body" } else { path };
    refused(&format!("invalid: {path} ({why})"))
}

fn check_object(fields: &[Field], value: &Value, path: &str) -> Result<(), ApiError> {
    let map = value.as_object().ok_or_else(|| invalid(path, "object expected"))?;
    for field in fields {
        let path =
            if path.is_empty() { field.name.to_owned() } else { format!("{path}.{}", field.name) };
        match map.get(field.name) {
            None if field.is_required => return Err(invalid(&path, "field required")),
            None => {}
            Some(Value::Null) if field.is_nullable => {}
            Some(value) => check_value(&field.kind, value, &path)?,
        }
    }
    Ok(())
}

fn check_value(kind: &Kind, value: &Value, path: &str) -> Result<(), ApiError> {
    let text = || value.as_str().ok_or_else(|| invalid(path, "string expected"));
    match kind {
        Kind::Text(least, most) => check_length(text()?, (*least, *most), path)?,
        Kind::Id => {
            let id = text()?;
            let is_id =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            if !(1..=60).contains(&id.len()) || !id.bytes().all(is_id) {
                return Err(invalid(path, "string: no regex match: ^[a-z0-9-]{1,60}$"));
            }
        }
        Kind::Word(words) => {
            let word = text()?;
            if !words.contains(&word) {
                return Err(invalid(path, &format!("invalid value: {word}")));
            }
        }
        Kind::Time => {
            if DateTime::parse_from_rfc3339(text()?).is_err() {
                return Err(invalid(path, "date-time expected"));
            }
        }
        Kind::Flag if !value.is_boolean() => return Err(invalid(path, "boolean expected")),
        Kind::Flag => {}
        Kind::Whole(least, most) => {
            let number = value.as_i64().ok_or_else(|| invalid(path, "integer expected"))?;
            if !(*least..=*most).contains(&number) {
                return Err(invalid(
                    path,
                    &format!("int: value {number} out of range [{least}, {most}]"),
                ));
            }
        }
        Kind::Units => {
            if value.as_f64().is_none_or(|units| units < 0.25) {
                return Err(invalid(path, "number of at least 0.25 expected"));
            }
        }
        Kind::Object(fields) => check_object(fields, value, path)?,
        Kind::List(kind) => {
            let items = value.as_array().ok_or_else(|| invalid(path, "array expected"))?;
            for (index, item) in items.iter().enumerate() {
                check_value(kind, item, &format!("{path}[{index}]"))?;
            }
        }
        Kind::Texts => {
            let map = value.as_object().ok_or_else(|| invalid(path, "object expected"))?;
            if map.len() > ANNOTATIONS {
                return Err(invalid(
                    path,
                    &format!("object: {} properties, at most {ANNOTATIONS}", map.len()),
                ));
            }
            map.iter().try_for_each(|(key, value)| {
                check_value(&ANY_TEXT, value, &format!("{path}.{key}"))
            })?;
        }
    }
    Ok(())
}

/// Refuses a text that has fewer or more characters than it may have.
fn check_length(text: &str, (least, most): (usize, usize), path: &str) -> Result<(), ApiError> {
    let length = text.chars().count();
    if length < least {
        return Err(invalid(path, &format!("string: len {length} less than minimum {least}")));
    }
    if length > most {
        return Err(invalid(path, &format!("string: len {length} greater than maximum {most}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refusal(route: &str, body: &Value) -> String {
        check(route, body)
            .map_or_else(|error| format!("{} {}", error.status, error.message), |()| String::new())
    }

    #[test]
    fn a_body_of_other_types_than_neons_is_refused_with_its_field() {
        let branch = |field: &str, value: Value| {
            refusal("createProjectBranch", &json!({"branch": {field: value}}))
        };
        for (field, value) in [
            ("parent_id", json!(5)),
            ("parent_id", json!("BR")),
            ("parent_lsn", json!(7)),
            ("parent_lsn", Value::Null),
            ("parent_timestamp", json!("yesterday")),
            ("expires_at", json!(9)),
            ("expires_at", Value::Null),
            ("protected", json!("yes")),
            ("name", json!("")),
            ("name", json!("b".repeat(257))),
        ] {
            let text = branch(field, value.clone());
            let begins =
                format!("400 invalid request: decode application/json: invalid: branch.{field} (");
            assert!(text.starts_with(&begins), "{field} {value}: {text:?}");
        }
        assert_eq!(branch("name", json!("ä".repeat(256))), "", "characters are counted, not bytes");
        assert_eq!(branch("colour", json!(5)), "", "what nobody knows is skipped");
        let required = "400 invalid request: decode application/json: invalid: source_branch_id \
            (field required)";
        assert_eq!(refusal("restoreProjectBranch", &json!({})), required);
        assert_eq!(
            refusal("restoreProjectBranch", &Value::Null),
            "400 invalid request: decode application/json: body required"
        );
        assert!(
            refusal(
                "restoreProjectBranch",
                &json!({"source_branch_id": "br-a", "source_lsn": 123})
            )
            .contains("source_lsn")
        );
        assert_eq!(
            refusal(
                "restoreProjectBranch",
                &json!({"source_branch_id": "br-a", "preserve_under_name": ""})
            ),
            ""
        );
        assert!(
            refusal("updateProject", &json!({"project": {"history_retention_seconds": 2_592_001}}))
                .contains("out of range")
        );
        assert!(
            refusal("createProjectBranch", &json!({"endpoints": [{"type": "read"}]}))
                .contains("endpoints[0].type")
        );
        assert!(
            refusal("createProjectBranch", &json!({"annotation_value": {"run": 5}}))
                .contains("annotation_value.run")
        );
        assert!(refusal("createProjectBranch", &json!([])).contains("body (object expected)"));
    }

    #[test]
    fn names_have_one_to_256_characters_and_those_of_endpoints_64() {
        let (long, longer) = ("n".repeat(256), "n".repeat(257));
        for (route, body, most) in [
            ("updateProjectBranch", json!({"branch": {"name": "NAME"}}), 256),
            (
                "restoreProjectBranch",
                json!({"source_branch_id": "br-a", "preserve_under_name": "NAME"}),
                256,
            ),
            ("updateSnapshot", json!({"snapshot": {"name": "NAME"}}), 256),
            ("restoreSnapshot", json!({"name": "NAME"}), 256),
            ("finalizeRestoreBranch", json!({"name": "NAME"}), 256),
            (
                "createProjectEndpoint",
                json!({"endpoint": {"branch_id": "br-a", "type": "read_only", "name": "NAME"}}),
                64,
            ),
            ("updateProjectEndpoint", json!({"endpoint": {"name": "NAME"}}), 64),
        ] {
            let named = |name: &str| {
                refusal(
                    route,
                    &serde_json::from_str(&body.to_string().replace("NAME", name)).expect("JSON"),
                )
            };
            assert_eq!(named(&long[..most]), "", "{route}");
            assert!(named(&longer[..=most]).contains("greater than maximum"), "{route}");
            assert_eq!(
                named("").is_empty(),
                route == "restoreProjectBranch",
                "{route}: an empty name keeps nothing there"
            );
        }
    }

    #[test]
    fn a_route_that_takes_no_body_does_not_look_at_one() {
        assert_eq!(body_of_route("createSnapshot", "{broken"), Ok(Value::Null));
        assert_eq!(refusal("createSnapshot", &json!({"name": 5})), "");
        assert_eq!(body_of_route("createProjectBranch", ""), Ok(Value::Null));
        assert_eq!(refusal("createProjectBranch", &Value::Null), "");
        let broken = body_of_route("createProjectBranch", "{broken")
            .map_err(|error| (error.status, error.message));
        assert_eq!(
            broken,
            Err((400, "invalid request: decode application/json: unexpected byte at 2".to_owned()))
        );
    }
}
