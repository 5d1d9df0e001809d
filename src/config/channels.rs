//! The settings of channels: where notices go, which, and when.

use std::collections::BTreeSet;

use serde_json::Value;

use super::reader::{Fields, one_of, shown_text};
use super::receivers::{self, Receiver};
use super::timetable::zone;
use crate::id::{ChannelName, PairName};
use crate::notice_kind::{NoticeKind, Severity};
use crate::ordered::IntoOrdered as _;
use crate::time::{TimeOfDay, Zone};

/// Channels that a notice may go to.
///
/// Ending a run takes four subrequests and one for each channel, and must fit the smallest budget
/// of 20.
const MOST_CHANNELS: usize = 10;

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
    let name = channel_name(one);
    let receiver = receivers::receiver(one, allow_insecure);
    let kinds = kinds(one);
    let severities = Severity::ALL.map(|severity| (severity.as_str(), severity));
    let minimum_severity = one.word("minimum_severity", &severities).unwrap_or(Severity::Info);
    let chosen = chosen_pairs(one, pairs);
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
    refuse_deaf(one, &channel, pairs);
    Some(channel)
}

/// Reads the name of a channel, which stands in the ids of notices and in addresses.
fn channel_name(one: &mut Fields<'_>) -> Option<String> {
    one.required("name", "\"on-call\"").filter(|name| {
        let is_good = name.len() <= 40
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if !is_good {
            one.problem(
                "name",
                format!("is {}; allowed are up to 40 of A-Z, a-z, 0-9, - and _", shown_text(name)),
            );
        }
        is_good
    })
}

/// Reads the kinds of notices that a channel hears; `None` where it hears all.
fn kinds(one: &mut Fields<'_>) -> Option<BTreeSet<NoticeKind>> {
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
            "is empty, so that the channel hears nothing; name at least one kind, or leave the key \
             out for all",
        );
    }
    kinds
}

/// Reads the pairs of which a channel hears; `None` where it hears of all.
fn chosen_pairs(one: &mut Fields<'_>, pairs: &[PairName]) -> Option<BTreeSet<PairName>> {
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
            "is empty, so that the channel hears nothing; name at least one pair, or leave the key \
             out for all",
        );
    }
    chosen.map(|names| names.into_iter().map(PairName::from).into_set())
}

/// Refuses a severity by which a channel would hear nothing of what it has chosen.
fn refuse_deaf(one: &mut Fields<'_>, channel: &Channel, pairs: &[PairName]) {
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
    let zone = zone(one);
    let quiet = zone.clone().zip(from.zip(until)).map(|(zone, (from, until))| Quiet {
        zone,
        from,
        until,
        is_for_urgent,
    });
    (quiet, zone.zip(at).map(|(zone, at)| Digest { zone, at }))
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
