//! Days on which receivers of every kind fail at random: nothing that people are to be told may be
//! lost, told under another id, or told in another order.
//!
//! Each day may have a fault as well, so that there is something to tell beside successes, and a
//! third of the days have a run that fails for certain. A receiver refuses (500, 429), does not
//! answer, takes what it says it did not, or is slow to say so. It never says 410: that is told in
//! a scenario of its own. What a receiver got is known by its body: it is held against what each
//! notice that is on record looks like for that channel.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use firstlight::config::{Config, NoticeKind};
use firstlight::record;
use firstlight::sync::notice::{Letter, Notice, Outgoing, encode};
use firstlight::time::Timestamp;
use serde_json::{Value, json};

use crate::faults::Fault;
use crate::plan::{Crash, Planned};
use crate::run::{Simulation, any_view};
use crate::scene::Scene;
use crate::world::Sim;

/// The channels, one of each kind.
const KINDS: [&str; 8] =
    ["webhook", "slack", "discord", "teams", "pagerduty", "email", "http", "healthcheck"];

/// Hours without any fault at the end: the longest wait between two attempts is a day, and what
/// waits behind that follows in the ticks after it.
const QUIET_HOURS: i64 = 60;

/// What a receiver got.
#[derive(Clone, Debug)]
pub(crate) struct Letterbox {
    /// The address, without what varies.
    pub(crate) url: String,
    /// The body.
    pub(crate) body: String,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Post {
    /// Notices that were on record at the end.
    pub notices: usize,
    /// What receivers took, repetitions too.
    pub taken: usize,
    /// Requests that a receiver failed.
    pub failed: u32,
    /// Incidents that were opened, and escalations.
    pub incidents: (usize, usize),
    /// What must not have happened.
    pub violations: Vec<String>,
}

/// Configures one channel of each kind, and escalations.
fn configure(value: &mut Value, subrequest_budget: u32) {
    let url = |name: &str| format!("{}_URL", name.to_uppercase());
    let channels = KINDS.map(|kind| match kind {
        "webhook" => json!({"name": kind, "kind": kind, "url_secret": url(kind),
            "signing_secret": "WEBHOOK_SECRET"}),
        "pagerduty" => json!({
            "name": kind, "kind": kind, "routing_key_secret": "ROUTING_KEY",
            "url": "https://hooks.example.test/pagerduty"
        }),
        "email" => json!({"name": kind, "kind": kind, "from": "firstlight@example.com",
            "to": ["director@example.com"]}),
        "http" => json!({"name": kind, "kind": kind, "url_secret": url(kind),
            "body": r#"{"id": "{{id}}", "text": "{{text}}"}"#}),
        _ => json!({"name": kind, "kind": kind, "url_secret": url(kind)}),
    });
    value["channels"] = json!(channels);
    value["escalations"] = json!([
        {"after_min": 15, "channels": ["webhook", "pagerduty"]},
        {"after_min": 45, "channels": ["webhook", "pagerduty", "email", "slack"]}
    ]);
    value["escalate_again_min"] = json!(60);
    value["subrequest_budget"] = json!(subrequest_budget);
}

/// Draws what a receiver does with a request.
pub(crate) fn misbehaviour(draw: &mut fastrand::Rng) -> Fault {
    let faults =
        [Fault::Refused(500), Fault::Refused(429), Fault::Lost, Fault::AppliedAndLost, Fault::Late];
    faults[draw.usize(..faults.len())]
}

/// Runs so many days from a seed; of a hundred requests to receivers `percent` fail.
///
/// # Panics
///
/// Never: the configuration and the dates are literals.
pub fn run(scene: &Scene, days: u32, percent: u8, seed: u64) -> Post {
    // Eight channels are told of each notice; a third of the seeds has the invocations of the Free
    // plan.
    let subrequest_budget = if seed % 3 == 2 { 50 } else { 200 };
    let config = scene.config(&|value| configure(value, subrequest_budget));
    let mut draw = fastrand::Rng::with_seed(seed);
    let mut sim = scene.base();
    sim.letters = Some(Vec::new());
    sim.receivers_fail = percent;
    let zone = config.pairs[0].zone.clone();
    let first = crate::run::instant("2026-11-21T10:05:00Z");
    let mut simulation = scene.configured(sim, &config);
    for day in 0..days {
        let date = zone.date(first + TimeDelta::days(day.into()));
        let morning = zone.instant(date, "05:05".parse().expect("a time of day"));
        {
            let mut sim = simulation.sim();
            sim.heal();
            (sim.neon_out_until, sim.store_out_until) = (None, None);
            sim.view = any_view(&mut draw);
            sim.is_jittery = true;
            sim.is_live = true;
            sim.random = fastrand::Rng::with_seed(draw.u64(..));
            sim.crash = if draw.u8(..4) == 0 { Crash::ALL[draw.usize(..4)] } else { Crash::Never };
            sim.plan = match draw.u8(..3) {
                0 => vec![Planned {
                    action: "getProject".to_owned(),
                    nth: sim.count_of("getProject") + 1,
                    fault: Fault::Refused(401),
                }],
                1 => vec![crate::season::fault(&mut draw)],
                _ => Vec::new(),
            };
        }
        // Every five minutes while something is under way or fresh, then every hour.
        let minutes = (0..180).step_by(5).chain((180..1_380).step_by(60));
        for minutes in minutes {
            tick(&mut simulation, morning + TimeDelta::minutes(minutes));
        }
        simulation.sim().kv.settle();
    }
    simulation.sim().heal();
    simulation.sim().receivers_fail = 0;
    simulation.sim().crash = Crash::Never;
    simulation.sim().plan.clear();
    let end = simulation.sim().now;
    for hours in 1..=QUIET_HOURS {
        tick(&mut simulation, end + TimeDelta::hours(hours));
    }
    let sim = simulation.into_sim();
    let mut post = judge(&sim, &config, scene.secrets());
    let budgets = sim.oracle.violations.iter().filter(|violation| violation.starts_with("budget"));
    post.violations.extend(budgets.cloned());
    post
}

/// Lets the cron fire once, and whatever it begins come to an end.
fn tick(simulation: &mut Simulation<'_>, at: Timestamp) {
    simulation.jump(at);
    simulation.cron();
    simulation.advance(at + TimeDelta::minutes(4) + TimeDelta::seconds(59));
}

/// Holds what receivers got against what is on record.
fn judge(sim: &Sim, config: &Config, secrets: &BTreeMap<String, firstlight::id::Secret>) -> Post {
    let mut post = Post::default();
    let stored = sim.kv.everything();
    let notices: Vec<Outgoing> = stored
        .iter()
        .filter(|(key, _)| key.starts_with("notice/"))
        .filter_map(|(key, text)| record::decode(key, text).ok())
        .collect();
    post.notices = notices.len();
    post.failed = sim.failed_letters;
    let letters = sim.letters.clone().unwrap_or_default();
    post.taken = letters.len();
    let lost = |post: &mut Post, text: String| post.violations.push(text);
    for channel in &config.channels {
        let name = channel.name.as_str();
        // What each notice looks like for this channel. The signature is in a header, so that the
        // body says it all.
        let written = |notice: &Notice| {
            let letter =
                Letter { notice, label: &config.label, public_url: None, runbooks_url: None };
            let request = encode(&letter, &channel.receiver, secrets, true, notice.at).ok()?;
            Some(Letterbox { url: request.url, body: request.body })
        };
        let expected: Vec<(&Outgoing, Letterbox)> = notices
            .iter()
            .filter_map(|outgoing| Some((outgoing, written(&outgoing.notice)?)))
            .collect();
        let address = expected
            .first()
            .map(|(_, letter)| letter.url.split('?').next().unwrap_or_default().to_owned())
            .unwrap_or_default();
        let stem = address.trim_end_matches("/fail").to_owned();
        let got: Vec<&Letterbox> = letters
            .iter()
            .filter(|letter| letter.url.starts_with(&stem) && !letter.url.contains("/start"))
            .collect();
        let mut order: Vec<&Notice> = Vec::new();
        for letter in &got {
            // Where the id is not in the message, two escalations of one day may read the same.
            let mut same = expected
                .iter()
                .filter(|(_, known)| known.body == letter.body && known.url == letter.url)
                .peekable();
            // What the store could not take is told directly, and on no record.
            if same.peek().is_none() && !letter.body.contains("could not be recorded") {
                lost(&mut post, format!("{name} was told what no record says: {}", letter.body));
            }
            let new = same
                .find(|(outgoing, _)| !order.iter().any(|notice| notice.id == outgoing.notice.id));
            order.extend(new.map(|(outgoing, _)| &outgoing.notice));
        }
        for (outgoing, _) in &expected {
            let Some(delivery) =
                outgoing.deliveries.iter().find(|delivery| delivery.channel == channel.name)
            else {
                continue;
            };
            if !order.iter().any(|notice| notice.id == outgoing.notice.id) {
                lost(
                    &mut post,
                    format!("{name} was never told {}: {delivery:?}", outgoing.notice.id),
                );
            }
        }
        judge_order(name, &order, &mut post);
        judge_ids(name, &order, &mut post);
    }
    judge_records(&stored, &notices, &mut post);
    let of =
        |kind: NoticeKind| notices.iter().filter(|outgoing| outgoing.notice.kind == kind).count();
    let opened: BTreeSet<&String> =
        notices.iter().filter_map(|outgoing| outgoing.notice.incident.as_ref()).collect();
    post.incidents = (opened.len(), of(NoticeKind::Escalated));
    post
}

/// Of each incident, what opened it comes before what escalated it, and its end comes last.
fn judge_order(channel: &str, order: &[&Notice], post: &mut Post) {
    let incidents: BTreeSet<&String> =
        order.iter().filter_map(|notice| notice.incident.as_ref()).collect();
    for incident in incidents {
        let of: Vec<&&Notice> =
            order.iter().filter(|notice| notice.incident.as_ref() == Some(incident)).collect();
        let rank = |notice: &Notice| {
            let is = |kind: NoticeKind| u8::from(notice.kind == kind);
            2 * is(NoticeKind::Resolved) + is(NoticeKind::Escalated)
        };
        let first_escalation = of.iter().position(|notice| rank(notice) == 1);
        let first_trouble = of.iter().position(|notice| rank(notice) == 0);
        let is_opened_first = first_escalation
            .is_none_or(|escalation| first_trouble.is_none_or(|trouble| trouble < escalation));
        // What came before the end is told before it.
        let end = of.iter().position(|notice| rank(notice) == 2);
        let is_ended_last = end.is_none_or(|end| {
            of[end + 1..].iter().all(|notice| notice.at > of[end].at && rank(notice) == 0)
        });
        if !is_opened_first || !is_ended_last {
            let ids: Vec<&String> = of.iter().map(|notice| &notice.id).collect();
            post.violations.push(format!("{channel} was told {incident} in this order: {ids:?}"));
        }
    }
}

/// The same is not told under two ids.
fn judge_ids(channel: &str, order: &[&Notice], post: &mut Post) {
    let mut seen: BTreeMap<(String, &str, Timestamp), &String> = BTreeMap::new();
    for notice in order {
        let what = (notice.run.to_string(), notice.kind.as_str(), notice.at);
        if let Some(other) = seen.insert(what, &notice.id).filter(|other| **other != notice.id) {
            post.violations.push(format!("{channel} was told {other} as {} again", notice.id));
        }
    }
}

/// Every run that ended is told, and every incident but the last is over.
fn judge_records(stored: &BTreeMap<String, String>, notices: &[Outgoing], post: &mut Post) {
    for key in stored.keys().filter_map(|key| key.strip_prefix("result/hub/")) {
        let is_told = notices.iter().any(|outgoing| {
            let kinds = [
                NoticeKind::Succeeded,
                NoticeKind::Failed,
                NoticeKind::Cancelled,
                NoticeKind::Superseded,
                NoticeKind::Missed,
                NoticeKind::Corrected,
            ];
            outgoing.notice.run.as_str() == key && kinds.contains(&outgoing.notice.kind)
        });
        // The scene's own mornings were told to its own channels.
        if !is_told && key > "20261120" {
            post.violations.push(format!("nobody was told how run {key} ended"));
        }
    }
    let opened: BTreeSet<&String> =
        notices.iter().filter_map(|outgoing| outgoing.notice.incident.as_ref()).collect();
    let ended = notices
        .iter()
        .filter(|outgoing| outgoing.notice.kind == NoticeKind::Resolved)
        .filter_map(|outgoing| outgoing.notice.incident.as_ref());
    let ended: BTreeSet<&String> = ended.collect();
    for incident in opened.iter().filter(|incident| !ended.contains(*incident)).rev().skip(1) {
        post.violations.push(format!("incident {incident} was never resolved"));
    }
}
