//! The settings of channels: where notices go, which, and when.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::address::called_address;
use super::kinds::{NoticeKind, Severity};
use super::reader::{Fields, one_of, shown_text};
use super::secrets::{check_names, is_secret_name, secret_name};
use super::template::{Template, Writing};
use crate::id::{ChannelName, PairName};
use crate::ordered::IntoOrdered as _;
use crate::port::Method;
use crate::time::{TimeOfDay, Zone};

/// Channels that a notice may go to.
///
/// Ending a run takes four subrequests and one for each channel, and must fit the smallest budget
/// of 20.
const MOST_CHANNELS: usize = 10;

/// Where `PagerDuty` takes events.
///
/// Source: `PagerDuty`, Events API v2 overview: `https://events.pagerduty.com/v2/enqueue`; in the
/// EU region `events.eu.pagerduty.com`.
const PAGERDUTY: &str = "https://events.pagerduty.com/v2/enqueue";

/// Addresses that one e-mail goes to.
///
/// Source: Cloudflare Email Service, limits, 2026-04-16: 50 recipients.
const MOST_RECIPIENTS: usize = 50;

/// Where notices go.
#[derive(Clone, Debug)]
pub struct Channel {
    /// Its name, unique.
    pub name: ChannelName,
    /// What takes them.
    pub receiver: Receiver,
    /// The kinds that it hears; `None` hears all that its receiver is for.
    pub kinds: Option<BTreeSet<NoticeKind>>,
    /// It hears this severity and those above.
    pub minimum_severity: Severity,
    /// The pairs of which it hears; `None` hears of all.
    pub pairs: Option<BTreeSet<PairName>>,
    /// When it is left in peace.
    pub quiet: Option<Quiet>,
    /// When it hears, all at once, what is not urgent; `None` hears it at once.
    pub digest: Option<Digest>,
}

/// What takes notices, and how it is reached. Secrets are named, never held.
#[derive(Clone, Debug)]
pub enum Receiver {
    /// JSON, signed after Standard Webhooks 1.0.
    Webhook {
        /// The secret with the address.
        url_secret: String,
        /// The secrets that sign; several while one replaces another.
        signing_secrets: Vec<String>,
    },
    /// Slack's incoming webhook, with Block Kit.
    Slack {
        /// The secret with the address.
        url_secret: String,
    },
    /// Discord's webhook, with embeds.
    Discord {
        /// The secret with the address.
        url_secret: String,
        /// How the thread is called that each notice begins, in a forum.
        thread_name: Option<Template>,
    },
    /// A Microsoft Teams workflow, with an Adaptive Card.
    Teams {
        /// The secret with the address.
        url_secret: String,
    },
    /// `PagerDuty`'s Events API v2.
    PagerDuty {
        /// The secret with the routing key of an integration.
        routing_key_secret: String,
        /// Where events are taken.
        url: String,
    },
    /// A message through a `send_email` binding.
    Email {
        /// The binding.
        binding: String,
        /// The sender.
        from: String,
        /// Who gets it.
        to: Vec<String>,
    },
    /// Any HTTP call.
    Http {
        /// The secret with the address.
        url_secret: String,
        /// How it asks.
        method: Method,
        /// Headers.
        headers: BTreeMap<String, String>,
        /// Headers whose value a secret holds, by the name of the secret.
        secret_headers: BTreeMap<String, String>,
        /// The media type of the body.
        content_type: String,
        /// The body.
        body: Template,
        /// What an answer says that took the notice.
        good: Good,
    },
    /// A check of a healthchecks-style service: pinged at start, success and failure.
    Healthcheck {
        /// The secret with the check's address.
        url_secret: String,
    },
}

/// What a good answer says, beside its status. Nothing, where nothing is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Good {
    /// A text that it contains.
    pub text: Option<String>,
    /// Places in its JSON (JSON Pointer), each with its value as text.
    pub json: BTreeMap<String, String>,
}

impl Receiver {
    /// Returns the word that is configured.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Webhook { .. } => "webhook",
            Self::Slack { .. } => "slack",
            Self::Discord { .. } => "discord",
            Self::Teams { .. } => "teams",
            Self::PagerDuty { .. } => "pagerduty",
            Self::Email { .. } => "email",
            Self::Http { .. } => "http",
            Self::Healthcheck { .. } => "healthcheck",
        }
    }

    /// Returns the secret that holds the address; `None` where the address is no secret.
    pub fn url_secret(&self) -> Option<&String> {
        match self {
            Self::Webhook { url_secret, .. }
            | Self::Slack { url_secret }
            | Self::Discord { url_secret, .. }
            | Self::Teams { url_secret }
            | Self::Http { url_secret, .. }
            | Self::Healthcheck { url_secret } => Some(url_secret),
            Self::PagerDuty { .. } | Self::Email { .. } => None,
        }
    }

    /// Returns every secret that it needs, each with its key.
    pub fn secrets(&self) -> Vec<(&'static str, &String)> {
        let mut needed: Vec<_> =
            self.url_secret().map(|name| ("url_secret", name)).into_iter().collect();
        match self {
            Self::Webhook { signing_secrets, .. } => {
                needed.extend(signing_secrets.iter().map(|name| ("signing_secret", name)));
            }
            Self::PagerDuty { routing_key_secret, .. } => {
                needed.push(("routing_key_secret", routing_key_secret));
            }
            Self::Http { secret_headers, .. } => {
                needed.extend(secret_headers.values().map(|name| ("secret_headers", name)));
            }
            Self::Slack { .. }
            | Self::Discord { .. }
            | Self::Teams { .. }
            | Self::Email { .. }
            | Self::Healthcheck { .. } => {}
        }
        needed
    }

    /// Returns whether a kind of notice is for it at all.
    fn is_for(&self, kind: NoticeKind) -> bool {
        match self {
            // What opens no incident would open one that nothing resolves.
            Self::PagerDuty { .. } => {
                kind.is_trouble()
                    || matches!(
                        kind,
                        NoticeKind::Escalated | NoticeKind::Resolved | NoticeKind::Test
                    )
            }
            Self::Healthcheck { .. } => matches!(
                kind,
                NoticeKind::Succeeded
                    | NoticeKind::Corrected
                    | NoticeKind::Failed
                    | NoticeKind::Cancelled
                    | NoticeKind::Missed
                    | NoticeKind::Stuck
            ),
            Self::Webhook { .. }
            | Self::Slack { .. }
            | Self::Discord { .. }
            | Self::Teams { .. }
            | Self::Email { .. }
            | Self::Http { .. } => true,
        }
    }
}

/// Hours in which a channel is left in peace.
#[derive(Clone, Debug, PartialEq)]
pub struct Quiet {
    /// The zone of both times.
    pub zone: Zone,
    /// They begin.
    pub from: TimeOfDay,
    /// They end; earlier than `from` means on the next day.
    pub until: TimeOfDay,
    /// Whether what is urgent waits as well.
    pub is_for_urgent: bool,
}

/// When a channel hears of everything that is not urgent.
#[derive(Clone, Debug, PartialEq)]
pub struct Digest {
    /// The zone of the time.
    pub zone: Zone,
    /// Every day at this time.
    pub at: TimeOfDay,
}

impl Channel {
    /// Returns whether a notice ends what another has opened there, and nobody else would.
    fn ends(&self, kind: NoticeKind) -> bool {
        kind == NoticeKind::Resolved && matches!(self.receiver, Receiver::PagerDuty { .. })
    }

    /// Returns whether it hears of a notice. That an incident is over matters as much as the
    /// incident did.
    pub fn hears(&self, pair: &PairName, kind: NoticeKind) -> bool {
        let severity =
            if kind == NoticeKind::Resolved { Severity::Urgent } else { kind.severity() };
        self.receiver.is_for(kind)
            && self.pairs.as_ref().is_none_or(|pairs| pairs.contains(pair))
            && (self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&kind)) || self.ends(kind))
            && severity >= self.minimum_severity
    }
}

/// Who hears of an incident that nobody has acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Escalation {
    /// Minutes after the incident was opened.
    pub after_min: u32,
    /// The channels.
    pub channels: Vec<ChannelName>,
}

/// Reads the channels.
pub(super) fn channels(
    fields: &mut Fields<'_>,
    pairs: &[PairName],
    allow_insecure: bool,
) -> Vec<Channel> {
    let mut channels: Vec<Channel> = Vec::new();
    let objects = fields.objects("channels");
    if objects.len() > MOST_CHANNELS {
        fields.problem(
            "channels",
            format!("has {} entries; allowed are {MOST_CHANNELS}", objects.len()),
        );
    }
    for (path, map) in objects {
        let mut one = Fields::new(path, map, fields.problems());
        let found = channel(&mut one, pairs, allow_insecure);
        if found.as_ref().is_some_and(|found| channels.iter().any(|other| other.name == found.name))
        {
            one.problem("name", "is used by another channel; it must be the channel's own");
        }
        one.refuse_unknown();
        channels.extend(found);
    }
    channels
}

fn channel(one: &mut Fields<'_>, pairs: &[PairName], allow_insecure: bool) -> Option<Channel> {
    // It stands in the ids of notices and in addresses.
    let name = one.required("name", "\"on-call\"").filter(|name| {
        let is_good = name.len() <= 40
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if !is_good {
            one.problem(
                "name",
                format!("is {}; allowed are up to 40 of A-Z, a-z, 0-9, - and _", shown_text(name)),
            );
        }
        is_good
    });
    let receiver = receiver(one, allow_insecure);
    let kinds = one.texts("notices").map(|words| {
        let known = |word: &String| NoticeKind::ALL.into_iter().find(|kind| kind.as_str() == word);
        if let Some(word) = words.iter().find(|word| known(word).is_none()) {
            let allowed = NoticeKind::ALL.map(NoticeKind::as_str).join(", ");
            one.problem("notices", format!("has {}; allowed are {allowed}", shown_text(word)));
        }
        words.iter().filter_map(known).into_set()
    });
    if kinds.as_ref().is_some_and(BTreeSet::is_empty)
        && one.value("notices").is_some_and(|value| value == &Value::Array(Vec::new()))
    {
        one.problem(
            "notices",
            "is empty, so that the channel hears nothing; name at least one kind, or leave the \
                key out for all",
        );
    }
    let severities = Severity::ALL.map(|severity| (severity.as_str(), severity));
    let minimum_severity = one.word("minimum_severity", &severities).unwrap_or(Severity::Info);
    let chosen = one.texts("pairs");
    for unknown in
        chosen.iter().flatten().filter(|chosen| !pairs.iter().any(|pair| pair.as_str() == *chosen))
    {
        let known = one_of(pairs.iter().map(PairName::as_str));
        one.problem("pairs", format!("has {}; allowed is {known}", shown_text(unknown)));
    }
    if chosen.as_ref().is_some_and(Vec::is_empty) {
        one.problem(
            "pairs",
            "is empty, so that the channel hears nothing; name at least one pair, or leave the \
                key out for all",
        );
    }
    let chosen = chosen.map(|names| names.into_iter().map(PairName::from).into_set());
    let is_healthcheck = matches!(receiver, Some(Receiver::Healthcheck { .. }));
    if is_healthcheck && chosen.as_ref().map_or(pairs.len(), BTreeSet::len) != 1 {
        one.problem(
            "pairs",
            "does not name one pair; a check belongs to one: for example pairs = [\"hub\"]",
        );
    }
    let (quiet, digest) = times(one);
    if digest.is_some() && matches!(receiver, Some(Receiver::PagerDuty { .. })) {
        one.problem(
            "digest_at",
            "is set for a channel that needs each notice by itself; allowed is none",
        );
    }
    if is_healthcheck
        && (kinds.is_some()
            || quiet.is_some()
            || digest.is_some()
            || minimum_severity > Severity::Info)
    {
        one.problem(
            "kind",
            "is a check, which has to hear of every run at once; allowed are no notices, \
                minimum_severity, quiet hours and digest_at",
        );
    }
    let channel = Channel {
        name: name?.into(),
        receiver: receiver?,
        kinds,
        minimum_severity,
        pairs: chosen,
        quiet,
        digest,
    };
    let hears = |kind: &NoticeKind| pairs.iter().any(|pair| channel.hears(pair, *kind));
    let is_chosen = channel.kinds.as_ref().is_none_or(|kinds| !kinds.is_empty())
        && channel.pairs.as_ref().is_none_or(|pairs| !pairs.is_empty());
    let told = || {
        NoticeKind::ALL
            .into_iter()
            .filter(|kind| *kind != NoticeKind::Test && *kind != NoticeKind::Resolved)
    };
    if is_chosen && !pairs.is_empty() && !told().any(|kind| hears(&kind)) {
        one.problem(
            "minimum_severity",
            "leaves the channel nothing to hear; lower it, or name kinds of that severity in \
                notices",
        );
    }
    Some(channel)
}

/// Reads when a channel is left in peace, and when it hears of the rest.
fn times(one: &mut Fields<'_>) -> (Option<Quiet>, Option<Digest>) {
    const ALLOWED: &str = "a local time such as \"22:00\"";
    let from: Option<TimeOfDay> = one.parsed("quiet_from", ALLOWED);
    let until: Option<TimeOfDay> = one.parsed("quiet_until", ALLOWED);
    let at: Option<TimeOfDay> = one.parsed("digest_at", ALLOWED);
    let is_for_urgent = one.flag("quiet_for_urgent").unwrap_or(false);
    if from.is_some() != until.is_some() {
        let missing = if from.is_some() { "quiet_until" } else { "quiet_from" };
        one.problem(missing, "is missing; quiet hours have a beginning and an end");
    }
    if from.is_some() && from == until {
        one.problem("quiet_until", "is quiet_from; a whole day in peace is no channel");
    }
    if from.is_some() || at.is_some() {
        one.need("timezone", "\"America/New_York\"");
    }
    let zone = super::zone(one);
    let quiet = zone.clone().zip(from.zip(until)).map(|(zone, (from, until))| Quiet {
        zone,
        from,
        until,
        is_for_urgent,
    });
    (quiet, zone.zip(at).map(|(zone, at)| Digest { zone, at }))
}

/// Reads what takes the notices. Keys of another kind are refused as unknown.
fn receiver(one: &mut Fields<'_>, allow_insecure: bool) -> Option<Receiver> {
    const KINDS: [&str; 8] =
        ["webhook", "slack", "discord", "teams", "pagerduty", "email", "http", "healthcheck"];
    one.need("kind", "\"slack\"");
    let kind = one.word("kind", &KINDS.map(|kind| (kind, kind)))?;
    Some(match kind {
        "pagerduty" => Receiver::PagerDuty {
            routing_key_secret: secret_name(
                one,
                "routing_key_secret",
                "\"PAGERDUTY_ROUTING_KEY\"",
            )?,
            url: called_address(one, "url", allow_insecure).unwrap_or_else(|| PAGERDUTY.to_owned()),
        },
        "email" => email(one)?,
        "webhook" => {
            let (url_secret, signing_secrets) =
                (url_secret(one, "\"WEBHOOK_URL\""), signing_secrets(one));
            Receiver::Webhook { url_secret: url_secret?, signing_secrets }
        }
        "http" => http(one)?,
        "slack" => Receiver::Slack { url_secret: url_secret(one, "\"SLACK_WEBHOOK_URL\"")? },
        "discord" => discord(one)?,
        "teams" => Receiver::Teams { url_secret: url_secret(one, "\"TEAMS_WEBHOOK_URL\"")? },
        _ => Receiver::Healthcheck { url_secret: url_secret(one, "\"HEALTHCHECK_URL\"")? },
    })
}

fn url_secret(one: &mut Fields<'_>, example: &str) -> Option<String> {
    secret_name(one, "url_secret", example)
}

fn discord(one: &mut Fields<'_>) -> Option<Receiver> {
    let url_secret = url_secret(one, "\"DISCORD_WEBHOOK_URL\"");
    let text = one.text("thread_name");
    let read = |text: String| {
        Template::read(&text, Writing::Plain)
            .map_err(|problem| one.problem("thread_name", problem))
            .ok()
    };
    let thread_name = text.and_then(read);
    Some(Receiver::Discord { url_secret: url_secret?, thread_name })
}

/// Reads the secrets that sign: one, or several while one replaces another.
fn signing_secrets(one: &mut Fields<'_>) -> Vec<String> {
    match one.value("signing_secret") {
        Some(Value::Array(_)) => {
            let names = one.texts("signing_secret").unwrap_or_default();
            if names.is_empty() {
                one.problem(
                    "signing_secret",
                    "is empty; name one secret, or several while one replaces another",
                );
            }
            check_names(one, "signing_secret", names.iter());
            names
        }
        Some(_) => secret_name(one, "signing_secret", "").into_iter().collect(),
        None => {
            one.need("signing_secret", "\"WEBHOOK_SIGNING_SECRET\"");
            Vec::new()
        }
    }
}

fn email(one: &mut Fields<'_>) -> Option<Receiver> {
    let is_address = |text: &str| {
        let (local, domain) = text.split_once('@').unwrap_or_default();
        !local.is_empty()
            && domain.contains('.')
            && !text.contains(|c: char| c.is_whitespace() || "<>,;".contains(c))
    };
    let binding = one.text("binding").unwrap_or_else(|| "EMAIL".to_owned());
    if !is_secret_name(&binding) {
        let length = binding.chars().count();
        one.problem(
            "binding",
            format!(
                "is a text of {length} characters; allowed is the name of \
                    a binding, such as \"EMAIL\""
            ),
        );
    }
    let from = one.required("from", "\"firstlight@example.com\"");
    one.need("to", "[\"director@example.com\"]");
    let to = one.texts("to");
    if let Some(bad) = from.iter().find(|from| !is_address(from)) {
        one.problem(
            "from",
            format!(
                "is {}; allowed is an address such as \"firstlight@example.com\"",
                shown_text(bad)
            ),
        );
    }
    if let Some(bad) = to.iter().flatten().find(|to| !is_address(to)) {
        one.problem(
            "to",
            format!(
                "has {}; allowed are addresses such as \"director@example.com\"",
                shown_text(bad)
            ),
        );
    }
    if let Some(to) = to.as_ref().filter(|to| to.is_empty() || to.len() > MOST_RECIPIENTS) {
        one.problem(
            "to",
            format!("has {} addresses; allowed are 1 to {MOST_RECIPIENTS}", to.len()),
        );
    }
    Some(Receiver::Email { binding, from: from?, to: to? })
}

fn http(one: &mut Fields<'_>) -> Option<Receiver> {
    let url_secret = url_secret(one, "\"HOOK_URL\"");
    let methods = [Method::Get, Method::Post, Method::Put, Method::Patch, Method::Delete]
        .map(|method| (method.as_str(), method));
    let method = one.word("method", &methods).unwrap_or(Method::Post);
    let (headers, secret_headers) = (one.map("headers"), one.map("secret_headers"));
    check_names(one, "secret_headers", secret_headers.values());
    super::headers::check(one, "headers", &headers);
    super::headers::check(one, "secret_headers", &secret_headers);
    // A header of that name is what the receiver reads: the places are written as it says.
    let header = headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("content-type"))
        .map(|(_, value)| value.clone());
    let configured = one.text("content_type");
    if header.is_some() && configured.is_some() {
        one.problem("content_type", "stands beside a header Content-Type; allowed is one of them");
    }
    let content_type = configured.or(header).unwrap_or_else(|| "application/json".to_owned());
    let text = if method == Method::Get {
        if one.value("body").is_some() {
            one.problem("body", "stands beside method GET, which has none");
        }
        String::new()
    } else {
        one.need("body", "'{\"message\": \"{{subject}}\"}'");
        one.scalar("body")?
    };
    let writing = Writing::of(&content_type);
    let body = Template::read(&text, writing).map_err(|problem| one.problem("body", problem)).ok();
    let good = Good { text: one.text("expect_text"), json: one.map("expect_json") };
    if let Some(pointer) =
        good.json.keys().find(|pointer| !pointer.is_empty() && !pointer.starts_with('/'))
    {
        one.problem(
            "expect_json",
            format!("has {pointer:?}; allowed is a JSON Pointer such as \"/errcode\""),
        );
    }
    Some(Receiver::Http {
        url_secret: url_secret?,
        method,
        headers,
        secret_headers,
        content_type,
        body: body?,
        good,
    })
}

/// Reads who hears of an incident that nobody has acknowledged, and when.
pub(super) fn escalations(fields: &mut Fields<'_>, channels: &[Channel]) -> Vec<Escalation> {
    let mut found: Vec<Escalation> = Vec::new();
    for (path, map) in fields.objects("escalations") {
        let mut one = Fields::new(path, map, fields.problems());
        one.need("after_min", "15");
        let after_min = one.number("after_min", 1, 10_080);
        one.need("channels", "[\"on-call\"]");
        let names = one.texts("channels");
        for name in names
            .iter()
            .flatten()
            .filter(|name| !channels.iter().any(|channel| channel.name.as_str() == *name))
        {
            let known = one_of(channels.iter().map(|channel| channel.name.as_str()));
            one.problem("channels", format!("has {name:?}, which is no channel; known is {known}"));
        }
        if names.as_ref().is_some_and(Vec::is_empty) {
            one.problem("channels", "is empty; name at least one channel");
        }
        if let (Some(after), Some(last)) = (after_min, found.last())
            && after <= last.after_min
        {
            one.problem(
                "after_min",
                format!("is {after}, not after the {} of the escalation before it", last.after_min),
            );
        }
        one.refuse_unknown();
        if let (Some(after_min), Some(names)) = (after_min, names) {
            found.push(Escalation {
                after_min,
                channels: names.into_iter().map(ChannelName::from).collect(),
            });
        }
    }
    found
}
