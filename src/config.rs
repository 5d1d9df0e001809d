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
mod pairs;
mod prices;
mod reader;
mod receivers;
mod secrets;
mod smoke;
mod statement;
mod template;
mod timetable;
mod verification;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Map, Value};

pub use self::address::address_problem;
use self::address::{base_address, called_address};
pub use self::channels::{Channel, Digest, Escalation, Quiet};
pub use self::keep::{KeepRules, Rule, Span, Tier};
pub use self::pairs::{OnMismatch, Pair};
pub use self::prices::Prices;
use self::reader::Fields;
pub use self::reader::{Problem, one_of};
pub use self::receivers::{Good, Receiver};
pub use self::smoke::{Capture, SmokeTest};
pub use self::template::{FACTS, Template, Writing};
pub use self::timetable::Timetable;
pub use self::verification::{
    AfterRestore, AssertedOn, Assertion, Expected, Freshness, OnDrift, Policy, Tenants,
    Verification,
};
use crate::id::PairName;
pub use crate::notice_kind::{NoticeKind, Severity};
use crate::ordered::IntoOrdered as _;

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
        let pairs = pairs::pairs(&mut fields, allow_insecure);
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
                    "is {}, and pairs[{index}].verification.after_restore may take {minutes} \
                     minutes more; an invocation has fifteen in all, so allowed are at most \
                     {most}, or a shorter timeout_min",
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

#[cfg(test)]
mod tests;
