//! The names of secrets: what may be one, and what each is used for.
//!
//! Invariants: nothing of a text that stands where a name belongs is ever shown, for a secret is
//! pasted there sooner or later. The secrets with fixed names are sent to Neon or compared with
//! what a request brings, and to nobody else. A secret has one use: one that a receiver gets as an
//! address is not what another gets as a token.
//!
//! Source: Cloudflare Workers, bindings: a name is an identifier of JavaScript.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::address::address_problem;
use super::reader::{Fields, Problem, may_be_secret};
use super::{Config, Receiver, VARIABLE, is_ours, secret};
use crate::id::Secret;

/// The binding of the store, which no secret may replace.
const STORE: &str = "STATE";

const ALLOWED: &str = "the name of a secret, up to 100 of A-Z, 0-9 and _, which begins with a \
    letter; set its value with `wrangler secret put`";

/// Returns whether a text can be the name of a secret, and does not look like one itself.
pub(super) fn is_secret_name(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    // An access key or a routing key is of capitals and digits too, but nobody names a secret so.
    let is_key =
        text.len() >= 16 && !text.contains('_') && text.bytes().any(|byte| byte.is_ascii_digit());
    text.len() <= 100
        && text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.bytes().all(is_part)
        && !is_key
        && !may_be_secret_of(text)
}

/// Parts of a name are words; the part of a key is not.
fn may_be_secret_of(text: &str) -> bool {
    text.split('_').any(may_be_secret)
}

/// Returns what is wrong with the name of a secret that is sent to somebody.
fn name_problem(text: &str) -> Option<String> {
    if !is_secret_name(text) {
        let what = if text.contains("://") { "an address" } else { "no name of a secret" };
        return Some(format!(
            "is {what} ({} characters); allowed is {ALLOWED}",
            text.chars().count()
        ));
    }
    let fixed = [secret::NEON_API_KEY, secret::ADMIN_TOKEN, secret::READ_TOKEN];
    if fixed.contains(&text) {
        return Some(format!(
            "is {text}, which is sent to nobody else; allowed is a secret of its own, such as \
             {text}_OF_RECEIVER"
        ));
    }
    (text == STORE)
        .then(|| format!("is {STORE}, which is the binding of the store; allowed is another name"))
}

/// Reads the name of a secret that must be there.
pub(super) fn secret_name(
    fields: &mut Fields<'_>,
    key: &'static str,
    example: &str,
) -> Option<String> {
    let text = fields.required(key, example)?;
    let problem = name_problem(&text);
    let is_good = problem.is_none();
    if let Some(problem) = problem {
        fields.problem(key, problem);
    }
    is_good.then_some(text)
}

/// Reads the name of a secret that may be there.
pub(super) fn optional_secret_name(fields: &mut Fields<'_>, key: &'static str) -> Option<String> {
    fields.value(key)?;
    secret_name(fields, key, "")
}

/// Refuses what is no name of a secret, and shows nothing of it.
pub(super) fn check_names<'a>(
    fields: &mut Fields<'_>,
    key: &'static str,
    names: impl Iterator<Item = &'a String>,
) {
    for problem in names.filter_map(|name| name_problem(name)) {
        fields.problem(key, problem.replacen("is ", "has a text that is ", 1));
    }
}

/// Returns the secrets that are given two uses, as faults.
pub(super) fn shared(config: &Config) -> Vec<Problem> {
    let mut uses: BTreeMap<&str, &str> = BTreeMap::new();
    let mut problems = Vec::new();
    let mut found: Vec<(String, &String, &'static str)> = Vec::new();
    for (index, pair) in config.pairs.iter().enumerate() {
        found.extend(pair.role_password_secret.iter().map(|name| {
            (format!("pairs[{index}].role_password_secret"), name, "the password of a role")
        }));
        for (number, test) in pair.smoke_tests.iter().enumerate() {
            let path = format!("pairs[{index}].smoke_tests[{number}]");
            found.extend(
                test.secret_headers
                    .values()
                    .map(|name| (format!("{path}.secret_headers"), name, "a part of a smoke test")),
            );
            found.extend(
                test.body_secret
                    .iter()
                    .map(|name| (format!("{path}.body_secret"), name, "a part of a smoke test")),
            );
        }
    }
    for (index, channel) in config.channels.iter().enumerate() {
        for (key, name) in channel.receiver.secrets() {
            let is = match (key, &channel.receiver) {
                ("url_secret", _) => "the address of a channel",
                ("signing_secret", _) => "what signs notices",
                (_, Receiver::Http { .. }) => "a header of a channel",
                _ => "a routing key",
            };
            found.push((format!("channels[{index}].{key}"), name, is));
        }
    }
    for (path, name, is) in found {
        let other = *uses.entry(name.as_str()).or_insert(is);
        if other != is {
            let text = format!(
                "names {name}, which is {other} already and must not be {is}; allowed is a secret \
                 with one use"
            );
            problems.push(Problem { path, text });
        }
    }
    problems
}

/// Characters that a token has at least. Sixteen letters and digits chosen by chance cannot be
/// tried out over HTTP.
const SHORTEST_TOKEN: usize = 16;

/// Returns the variables that are texts and look like settings, and that no setting names as a
/// secret: they would be read by nobody. Nothing of them is shown.
pub(super) fn settings_as_text(
    variables: &[(String, Value)],
    named: &BTreeSet<String>,
) -> Vec<Problem> {
    let is_lost = |(name, value): &&(String, Value)| {
        is_ours(name)
            && !named.contains(name)
            && value.as_str().is_some_and(|text| text.trim_start().starts_with(['{', '[']))
    };
    let text = format!(
        "is a text; allowed is a table, [vars.{VARIABLE}_<X>] in wrangler.toml or a variable of \
         type JSON"
    );
    variables
        .iter()
        .filter(is_lost)
        .map(|(name, _)| Problem { path: name.clone(), text: text.clone() })
        .collect()
}

impl Config {
    /// Returns what is wrong with the secrets: those that are named and not set, addresses that may
    /// not be called, and tokens that anybody could guess. Told by the Worker once a day, and by
    /// `check-config --secrets`.
    pub fn secret_problems(&self, secrets: &BTreeMap<String, Secret>) -> Vec<Problem> {
        let mut problems = token_problems(secrets);
        let unset = |name: &str| match secrets.get(name) {
            None => Some(format!(
                "names secret {name}, which is not set; set it with `wrangler secret put {name}`"
            )),
            Some(secret) if secret.reveal().is_empty() => {
                Some(format!("names secret {name}, which is empty"))
            }
            Some(_) => None,
        };
        for (index, pair) in self.pairs.iter().enumerate() {
            let role = pair
                .role_password_secret
                .iter()
                .map(|name| (format!("pairs[{index}].role_password_secret"), name));
            let of_tests = pair.smoke_tests.iter().enumerate().flat_map(|(number, test)| {
                let path = format!("pairs[{index}].smoke_tests[{number}]");
                let body = test.body_secret.iter().map({
                    let path = path.clone();
                    move |name| (format!("{path}.body_secret"), name)
                });
                test.secret_headers
                    .values()
                    .map(move |name| (format!("{path}.secret_headers"), name))
                    .chain(body)
            });
            let found = role
                .chain(of_tests)
                .filter_map(|(path, name)| unset(name).map(|text| Problem { path, text }));
            problems.extend(found);
        }
        for (index, channel) in self.channels.iter().enumerate() {
            for (key, name) in channel.receiver.secrets() {
                let is_address = channel.receiver.url_secret() == Some(name);
                let unusable = || {
                    let problem = secrets
                        .get(name)
                        .filter(|_| is_address)
                        .and_then(|secret| address_problem(secret.reveal(), self.allow_insecure));
                    problem.map(|problem| {
                        format!("names secret {name}, whose address cannot be called; {problem}")
                    })
                };
                problems.extend(
                    unset(name)
                        .or_else(unusable)
                        .map(|text| Problem { path: format!("channels[{index}].{key}"), text }),
                );
            }
        }
        problems
    }
}

/// Returns what is wrong with the tokens that are set, and with Neon's key.
fn token_problems(secrets: &BTreeMap<String, Secret>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut problem =
        |path: &str, text: String| problems.push(Problem { path: path.to_owned(), text });
    for name in [secret::ADMIN_TOKEN, secret::READ_TOKEN] {
        let Some(token) = secrets.get(name).map(Secret::reveal) else { continue };
        let length = token.chars().count();
        if token.trim().is_empty() {
            problem(
                name,
                "is empty, so that it opens nothing; set a long one: openssl rand -hex 32"
                    .to_owned(),
            );
        } else if length < SHORTEST_TOKEN {
            problem(
                name,
                format!(
                    "has {length} characters; allowed are {SHORTEST_TOKEN} and more: openssl rand \
                     -hex 32"
                ),
            );
        } else if token.trim() != token || token.chars().any(|c| c.is_control() || !c.is_ascii()) {
            problem(
                name,
                "has blanks at an end or signs that no header takes; set another: openssl rand \
                 -hex 32"
                    .to_owned(),
            );
        }
    }
    let value = |name: &str| secrets.get(name).map(Secret::reveal).filter(|text| !text.is_empty());
    let same = |one: &str, other: &str| value(one).is_some() && value(one) == value(other);
    if same(secret::ADMIN_TOKEN, secret::READ_TOKEN) {
        problem(
            secret::READ_TOKEN,
            "is ADMIN_TOKEN, so that who may read may do everything; set another".to_owned(),
        );
    }
    for name in [secret::ADMIN_TOKEN, secret::READ_TOKEN] {
        if same(name, secret::NEON_API_KEY) {
            problem(name, "is NEON_API_KEY, which Neon alone gets; set another".to_owned());
        }
    }
    if secrets.get(secret::NEON_API_KEY).is_some_and(|key| key.reveal().trim().is_empty()) {
        problem(
            secret::NEON_API_KEY,
            "is empty; set it with `wrangler secret put NEON_API_KEY`".to_owned(),
        );
    }
    problems
}
