//! The settings of pairs: which branches, as whom, when, what is kept and what is verified.
//!
//! Invariants: the branches of a pair differ, and staging is no pair's production. Two pairs share
//! neither a name, nor a staging branch, nor the prefix of their backups in one project.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::keep::{self, KeepRules};
use super::reader::{self, Fields, Problem, shown_text};
use super::secrets;
use super::smoke::{self, SmokeTest};
use super::timetable::{self, Timetable, zone};
use super::verification::{self, Verification};
use crate::id::{BranchId, DatabaseName, LONGEST_NAME, PairName, ProjectId, RoleName, digest};
use crate::ordered::IntoOrdered as _;
use crate::time::Zone;

/// Bytes that a prefix may have, so that the longest of our names fits:
/// `restore-test-<prefix>-20261121T143000Z`.
const LONGEST_PREFIX: usize = LONGEST_NAME - "restore-test-".len() - "-20261121T143000Z".len();

/// One production branch and the staging branch that mirrors it.
#[derive(Clone, Debug)]
pub struct Pair {
    /// A digest of the table that it was read from, so that a change in the middle of a run is
    /// noticed.
    pub settings: String,
    /// Its name, unique.
    pub name: PairName,
    /// The project that holds both branches.
    pub project: ProjectId,
    /// Never written to.
    pub production_branch: BranchId,
    /// Overwritten by each run.
    pub staging_branch: BranchId,
    /// The role that verifies; needs `BYPASSRLS`.
    pub role: RoleName,
    /// The name of a secret with the role's password; `None` asks Neon for it.
    pub role_password_secret: Option<String>,
    /// The databases that are compared; `None` compares all that Neon lists.
    pub databases: Option<Vec<DatabaseName>>,
    /// The size of helper endpoints in hundredths of a compute unit.
    pub endpoint_cu_hundredths: u32,
    /// The zone of every time of day below.
    pub zone: Zone,
    /// How people call the zone: `ET`.
    pub zone_label: String,
    /// When it runs.
    pub times: Timetable,
    /// Backups are named `<prefix>-<run>`.
    pub backup_prefix: String,
    /// What is kept.
    pub keep: KeepRules,
    /// What to do when staging differs from the backup.
    pub on_mismatch: OnMismatch,
    /// Whether staging's roles keep their passwords.
    pub keep_passwords: bool,
    /// What is verified.
    pub verification: Verification,
    /// Requests to the staging application.
    pub smoke_tests: Vec<SmokeTest>,
    /// The names of all configured pairs, this one's too, with their `backup_prefix`: what is
    /// marked by another is nobody's any more.
    pub configured: BTreeMap<PairName, String>,
}

/// What happens when staging differs from the backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnMismatch {
    /// Staging stays as it is and the run fails.
    Keep,
    /// Staging goes back to the state this run displaced and the run fails.
    RollBack,
}

/// Reads the pairs, of which no two may claim the same.
pub(super) fn pairs(fields: &mut Fields<'_>, allow_insecure: bool) -> Vec<Pair> {
    fields.need("pairs", "[[vars.FIRSTLIGHT.pairs]]");
    let objects = fields.objects("pairs");
    let mut pairs: Vec<Pair> = Vec::new();
    let mut seen = BTreeSet::new();
    for (path, map) in objects {
        let Some(pair) = pair(path.clone(), map, fields.problems(), allow_insecure) else {
            continue;
        };
        let claims = [
            ("name", format!("name {}", pair.name)),
            ("staging_branch", format!("staging {}/{}", pair.project, pair.staging_branch)),
            ("backup_prefix", format!("prefix {}/{}", pair.project, pair.backup_prefix)),
        ];
        for (key, claim) in claims {
            if !seen.insert(claim) {
                let text = "is used by another pair; it must be the pair's own".to_owned();
                fields.problems().push(Problem { path: format!("{path}.{key}"), text });
            }
        }
        pairs.push(pair);
    }
    let productions: BTreeSet<&str> =
        pairs.iter().map(|pair| pair.production_branch.as_str()).into_set();
    for (index, pair) in pairs.iter().enumerate() {
        if pair.production_branch != pair.staging_branch
            && productions.contains(pair.staging_branch.as_str())
        {
            let text = format!(
                "is {:?}, which is the production branch of another pair",
                pair.staging_branch.as_str()
            );
            fields
                .problems()
                .push(Problem { path: format!("pairs[{index}].staging_branch"), text });
        }
    }
    let names: BTreeMap<PairName, String> =
        pairs.iter().map(|pair| (pair.name.clone(), pair.backup_prefix.clone())).into_map();
    for pair in &mut pairs {
        pair.configured.clone_from(&names);
    }
    if pairs.is_empty() && fields.problems().is_empty() {
        fields.problem("pairs", "is empty; at least one pair is needed");
    }
    pairs
}

/// Reads one pair; `None` when a key without which it means nothing is missing or wrong.
fn pair(
    path: String,
    map: &Map<String, Value>,
    problems: &mut Vec<Problem>,
    allow_insecure: bool,
) -> Option<Pair> {
    // Of what was written, not of how this version understands it: a deployment alone is no change.
    let settings = digest(&Value::Object(map.clone()).to_string(), 8);
    let mut fields = Fields::new(path, map, problems);
    let name = fields.required("name", "\"hub\"").filter(|name| {
        let is_good = name.len() <= 40
            && name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if !is_good {
            fields.problem(
                "name",
                format!("is {}; allowed are up to 40 of a-z, 0-9 and -", shown_text(name)),
            );
        }
        is_good
    });
    let project = id(&mut fields, "project", "\"old-violet-32930710\"", "");
    let production = id(&mut fields, "production_branch", "\"br-noisy-breeze-a5e59rrb\"", "br-");
    let staging = id(&mut fields, "staging_branch", "\"br-calm-river-a5x0q1zz\"", "br-");
    if production.is_some() && production == staging {
        fields.problem(
            "staging_branch",
            "is the production branch; a run overwrites staging, so they must differ",
        );
    }
    let role = fields.required("role", "\"neondb_owner\"");
    fields.need("timezone", "\"America/New_York\"");
    let zone = zone(&mut fields);
    let times = timetable::timetable(&mut fields);
    let backup_prefix = backup_prefix(&mut fields);
    let keep = keep::keep_rules(&mut fields);
    let pair = (|fields: &mut Fields<'_>| {
        let role_password_secret = secrets::optional_secret_name(fields, "role_password_secret");
        let databases = databases(fields);
        let endpoint_cu_hundredths = endpoint_cu(fields);
        let zone_label = fields.text("zone_label");
        let on_mismatch = fields.word(
            "on_mismatch",
            &[("keep", OnMismatch::Keep), ("roll_back", OnMismatch::RollBack)],
        );
        let keep_passwords = fields.flag("keep_passwords").unwrap_or(true);
        let verification =
            verification::verification(fields, databases.as_deref(), role.as_deref());
        let smoke_tests = smoke::smoke_tests(fields, allow_insecure);
        let zone = zone?;
        Some(Pair {
            settings,
            configured: BTreeMap::new(),
            name: name?.into(),
            project: project?.into(),
            production_branch: production?.into(),
            staging_branch: staging?.into(),
            role: role?.into(),
            role_password_secret,
            databases: databases.map(|names| names.into_iter().map(DatabaseName::from).collect()),
            endpoint_cu_hundredths,
            zone_label: zone_label.unwrap_or_else(|| zone.name().to_owned()),
            zone,
            times: times?,
            backup_prefix,
            keep: keep?,
            on_mismatch: on_mismatch.unwrap_or(OnMismatch::Keep),
            keep_passwords,
            verification,
            smoke_tests,
        })
    })(&mut fields);
    fields.refuse_unknown();
    pair
}

/// Reads how the names of backups begin. They stand in names of Neon, in keys of the store and in
/// addresses of the API.
fn backup_prefix(fields: &mut Fields<'_>) -> String {
    let prefix = fields.text("backup_prefix").unwrap_or_else(|| "backup".to_owned());
    let is_plain =
        prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if !is_plain || prefix.len() > LONGEST_PREFIX {
        let found = if is_plain {
            format!("has {} characters", prefix.len())
        } else {
            format!("is {}", shown_text(&prefix))
        };
        let text = format!(
            "{found}; allowed are up to {LONGEST_PREFIX} of A-Z, a-z, 0-9, -, _ and . (Neon takes \
             names of 256 with what is added)"
        );
        fields.problem("backup_prefix", text);
    }
    prefix
}

/// Reads the databases that are compared.
fn databases(fields: &mut Fields<'_>) -> Option<Vec<String>> {
    let names = fields.texts("databases")?;
    if names.is_empty() {
        fields.problem(
            "databases",
            "is empty; name at least one, or leave the key out to compare all that Neon lists",
        );
    }
    for (index, name) in
        names.iter().enumerate().filter(|(index, name)| names[..*index].contains(name))
    {
        fields.problem(
            "databases",
            format!(
                "has {} twice, again as entry {}; allowed is each database once",
                shown_text(name),
                index + 1
            ),
        );
    }
    // Source: PostgreSQL, "Identifiers and Key Words": a longer name is cut to 63 bytes.
    if let Some(long) = names.iter().find(|name| name.len() > 63) {
        fields.problem("databases", format!("has a name of {} bytes; allowed are 63", long.len()));
    }
    Some(names)
}

/// Reads one of Neon's ids.
///
/// Source: Neon API v2, read 2026-11-21: ids match `^[a-z0-9-]{1,60}$`.
fn id(fields: &mut Fields<'_>, key: &'static str, example: &str, prefix: &str) -> Option<String> {
    let text = fields.required(key, example)?;
    let is_good = text.len() <= 60
        && text.starts_with(prefix)
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if !is_good {
        fields.problem(
            key,
            format!(
                "is {}; allowed is Neon's id, not a name; for example {key} = {example}",
                shown_text(&text)
            ),
        );
    }
    is_good.then_some(text)
}

/// Reads the size of helper endpoints, a number of compute units such as 0.25, as hundredths.
fn endpoint_cu(fields: &mut Fields<'_>) -> u32 {
    const ALLOWED: [(&str, u32); 9] = [
        ("0.25", 25),
        ("0.5", 50),
        ("1", 100),
        ("2", 200),
        ("3", 300),
        ("4", 400),
        ("6", 600),
        ("7", 700),
        ("8", 800),
    ];
    let Some(value) = fields.value("endpoint_cu") else { return 25 };
    let text = reader::shown(value);
    let text = text.strip_suffix(".0").unwrap_or(&text);
    let found = ALLOWED.iter().find(|(allowed, _)| *allowed == text);
    if found.is_none() {
        let allowed = ALLOWED.map(|(allowed, _)| allowed).join(", ");
        fields.problem("endpoint_cu", format!("is {text}; allowed is one of {allowed}"));
    }
    found.map_or(25, |(_, hundredths)| *hundredths)
}
