//! The settings, validated.
//!
//! In: the variables `FIRSTLIGHT` and `FIRSTLIGHT_<X>` of the Worker as JSON. Out: a [`Config`], or
//! every fault at once.
//!
//! Invariants: a [`Config`] never has a pair whose staging is its production, and never a default
//! for what may destroy data. It holds the *names* of secrets, never a secret.
//!
//! Source: `Cloudflare Workers, limits, 2026-09-05`: a variable holds at most 5 KB, which is why
//! there may be several.

mod address;
mod advice;
mod channels;
mod headers;
mod keep;
mod kinds;
mod prices;
mod reader;
mod secrets;
mod smoke;
mod statement;
mod template;
mod timetable;
mod verification;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Map, Value};

pub use self::address::address_problem;
use self::address::{base_address, called_address};
pub use self::channels::{Channel, Digest, Escalation, Good, Quiet, Receiver};
pub use self::keep::{KeepRules, Rule, Span, Tier};
pub use self::kinds::{NoticeKind, Severity};
pub use self::prices::Prices;
use self::reader::Fields;
use self::reader::shown_text;
pub use self::reader::{Problem, one_of};
pub use self::smoke::{Capture, SmokeTest};
pub use self::template::{FACTS, Template, Writing};
pub use self::timetable::Timetable;
pub use self::verification::{
    AfterRestore, AssertedOn, Assertion, Expected, Freshness, OnDrift, Policy, Tenants,
    Verification,
};
use crate::id::{BranchId, DatabaseName, LONGEST_NAME, PairName, ProjectId, RoleName, digest};
use crate::ordered::IntoOrdered as _;
use crate::time::Zone;

/// The variables that are read: this one, and all that begin with it and an underscore.
pub const VARIABLE: &str = "FIRSTLIGHT";

/// The secrets that have fixed names.
pub mod secret {
    /// The key of Neon's API.
    pub const NEON_API_KEY: &str = "NEON_API_KEY";
    /// The token that may start, cancel and hold.
    pub const ADMIN_TOKEN: &str = "ADMIN_TOKEN";
    /// The token that may only read.
    pub const READ_TOKEN: &str = "READ_TOKEN";
}

/// How long after its deadline a day without success is nobody's alarm yet, where nothing else is
/// configured.
const HEALTH_GRACE_MIN: u32 = 120;

/// Subrequests of one invocation on the Free plan.
///
/// Source: Cloudflare Workers, limits, 2026-09-05: "Subrequests/invocation: 50".
const FREE_SUBREQUESTS: u32 = 50;

/// The longest time that a cron invocation may drive a run.
///
/// Source: Cloudflare Workers, limits, 2026-09-05: a cron invocation ends after 15 minutes; one is
/// left for the hand-over.
pub const LONGEST_WALL_BUDGET: Duration = Duration::from_secs(LONGEST_WALL_BUDGET_S as u64);
const LONGEST_WALL_BUDGET_S: u32 = 840;

/// What a budget and the longest statement that may begin at its end have together: fifteen
/// minutes, of which half of one is left for the hand-over.
const LONGEST_INVOCATION: Duration = Duration::from_secs(870);

/// All settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// Stands in brackets before every subject.
    pub label: String,
    /// Where Neon's API is.
    pub neon_api_base: String,
    /// Where SQL is sent; `None` derives it from the endpoint's host as Neon's driver does.
    pub sql_url: Option<String>,
    /// Whether addresses may be plain http, for local use.
    pub allow_insecure: bool,
    /// Requests and KV calls that one invocation may make.
    pub subrequest_budget: u32,
    /// How long a cron invocation drives a run.
    pub wall_budget: Duration,
    /// The pairs, at least one.
    pub pairs: Vec<Pair>,
    /// Where notices go.
    pub channels: Vec<Channel>,
    /// Who hears of an incident that nobody has acknowledged, the earliest first.
    pub escalations: Vec<Escalation>,
    /// The minutes after which the last escalation is repeated; `None` repeats nothing.
    pub escalate_again_min: Option<u32>,
    /// Where this Worker is reached, for links in notices.
    pub public_url: Option<String>,
    /// Where the pages of `runbooks/` are read, for links in notices.
    pub runbooks_url: Option<String>,
    /// How long after its deadline a day without success is nobody's alarm yet.
    pub health_grace: Duration,
    /// What storage costs.
    pub prices: Prices,
}

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

/// Every fault that was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("read the configuration: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct ConfigErrors(pub Vec<Problem>);

impl Config {
    /// Reads the variables, given as `(name, value)`; those with other names are ignored.
    ///
    /// # Errors
    ///
    /// All faults at once, each with the key's path and what is allowed.
    pub fn from_variables(variables: &[(String, Value)]) -> Result<Self, ConfigErrors> {
        let mut problems = Vec::new();
        let merged = merge(variables, &mut problems);
        let config = Self::from_map(&merged, problems)?;
        let problems = secrets::settings_as_text(variables, &config.secret_names());
        if problems.is_empty() { Ok(config) } else { Err(ConfigErrors(problems)) }
    }

    /// Reads one value that holds everything.
    ///
    /// # Errors
    ///
    /// All faults at once.
    pub fn from_value(value: &Value) -> Result<Self, ConfigErrors> {
        Self::from_variables(&[(VARIABLE.to_owned(), value.clone())])
    }

    fn from_map(
        map: &Map<String, Value>,
        mut problems: Vec<Problem>,
    ) -> Result<Self, ConfigErrors> {
        let mut fields = Fields::new(String::new(), map, &mut problems);
        let allow_insecure = fields.flag("allow_insecure").unwrap_or(false);
        let pairs = pairs(&mut fields, allow_insecure);
        let names: Vec<PairName> = pairs.iter().map(|pair| pair.name.clone()).collect();
        let channels = channels::channels(&mut fields, &names, allow_insecure);
        let config = Self {
            label: fields.text("label").unwrap_or_else(|| "Firstlight".to_owned()),
            neon_api_base: base_address(&mut fields, "neon_api_base", allow_insecure)
                .unwrap_or_else(|| "https://console.neon.tech/api/v2".to_owned()),
            sql_url: called_address(&mut fields, "sql_url", allow_insecure),
            allow_insecure,
            subrequest_budget: fields
                .number("subrequest_budget", 20, 10_000)
                .unwrap_or(FREE_SUBREQUESTS),
            wall_budget: Duration::from_secs(
                fields.number("wall_budget_s", 10, LONGEST_WALL_BUDGET_S).unwrap_or(240).into(),
            ),
            pairs,
            escalations: channels::escalations(&mut fields, &channels),
            channels,
            escalate_again_min: fields.number("escalate_again_min", 5, 1_440),
            public_url: base_address(&mut fields, "public_url", allow_insecure),
            runbooks_url: base_address(&mut fields, "runbooks_url", allow_insecure),
            health_grace: Duration::from_mins(
                fields.number("health_grace_min", 5, 2_880).unwrap_or(HEALTH_GRACE_MIN).into(),
            ),
            prices: prices::prices(&mut fields),
        };
        if config.escalate_again_min.is_some() && config.escalations.is_empty() {
            fields.problem(
                "escalate_again_min",
                "repeats the last of the escalations, and there are none; add [[escalations]]",
            );
        }
        for (index, pair) in config.pairs.iter().enumerate() {
            let Some(prepare) = &pair.verification.after_restore else { continue };
            if config.wall_budget + prepare.timeout > LONGEST_INVOCATION {
                let minutes = prepare.timeout.as_secs() / 60;
                let most = LONGEST_INVOCATION.saturating_sub(prepare.timeout).as_secs();
                let text = format!(
                    "is {}, and pairs[{index}].verification.after_restore may take \
                        {minutes} minutes more; an invocation has fifteen \
                        in all, so allowed are at most {most}, or a shorter timeout_min",
                    config.wall_budget.as_secs()
                );
                fields.problem("wall_budget_s", text);
            }
        }
        fields.refuse_unknown();
        problems.extend(secrets::shared(&config));
        if problems.is_empty() { Ok(config) } else { Err(ConfigErrors(problems)) }
    }

    /// Returns the names of every secret that the settings speak of, and those that are always
    /// read.
    pub fn secret_names(&self) -> BTreeSet<String> {
        let always =
            [secret::NEON_API_KEY, secret::ADMIN_TOKEN, secret::READ_TOKEN].map(str::to_owned);
        let pairs = self.pairs.iter().filter_map(|pair| pair.role_password_secret.clone());
        let channels = self
            .channels
            .iter()
            .flat_map(|channel| channel.receiver.secrets())
            .map(|(_, name)| name.clone());
        let smoked = self
            .pairs
            .iter()
            .flat_map(|pair| &pair.smoke_tests)
            .flat_map(SmokeTest::secrets)
            .cloned();
        always.into_iter().chain(pairs).chain(channels).chain(smoked).into_set()
    }

    /// Returns the pair of a name.
    pub fn pair(&self, name: &str) -> Option<&Pair> {
        self.pairs.iter().find(|pair| pair.name.as_str() == name)
    }
}

/// Returns whether a variable is this one, or begins with it and an underscore.
fn is_ours(name: &str) -> bool {
    name == VARIABLE || name.strip_prefix(VARIABLE).is_some_and(|rest| rest.starts_with('_'))
}

/// Merges the variables: lists are joined, any other key may stand in one of them only.
fn merge(variables: &[(String, Value)], problems: &mut Vec<Problem>) -> Map<String, Value> {
    let mut merged = Map::new();
    // A secret has such a name too when somebody gives it one. It is a text, and no table of
    // settings.
    let is_settings =
        |name: &str, value: &Value| name == VARIABLE || (is_ours(name) && !value.is_string());
    for (name, value) in variables.iter().filter(|(name, value)| is_settings(name, value)) {
        let Some(map) = value.as_object() else {
            problems.push(Problem {
                path: name.clone(),
                text: "is no table; allowed is [vars.FIRSTLIGHT]".to_owned(),
            });
            continue;
        };
        for (key, value) in map {
            match (merged.get_mut(key), value) {
                (None, _) => {
                    merged.insert(key.clone(), value.clone());
                }
                (Some(Value::Array(joined)), Value::Array(more)) => {
                    joined.extend(more.iter().cloned());
                }
                (Some(_), _) => {
                    problems.push(Problem {
                        path: format!("{name}.{key}"),
                        text: "is set in another table too".to_owned(),
                    });
                }
            }
        }
    }
    merged
}

fn pairs(fields: &mut Fields<'_>, allow_insecure: bool) -> Vec<Pair> {
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

/// Bytes that a prefix may have, so that the longest of our names fits:
/// `restore-test-<prefix>-20261121T143000Z`.
const LONGEST_PREFIX: usize = LONGEST_NAME - "restore-test-".len() - "-20261121T143000Z".len();

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
            "{found}; allowed are up to {LONGEST_PREFIX} of A-Z, a-z, 0-9, -, _ and . (Neon \
                takes names of 256 with what is added)"
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

fn zone(fields: &mut Fields<'_>) -> Option<Zone> {
    let name = fields.text("timezone")?;
    let zone = Zone::get(&name);
    if zone.is_none() {
        fields.problem(
            "timezone",
            format!(
                "is {}; allowed is an IANA name; for example \"America/New_York\"",
                shown_text(&name)
            ),
        );
    }
    zone
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

#[cfg(test)]
mod tests;
