//! What people are told of incidents, in words.

use super::Notice;
use super::words::notice;
use crate::config::{NoticeKind, Pair};
use crate::sync::incident::{Due, Incident, Occasion, Resolution};
use crate::time::{Timestamp, between, render_age};

/// Writes the notice of an incident that nobody has acknowledged, or that is open when the business
/// day begins.
pub fn of_escalation(
    incident: &Incident,
    due: &Due,
    pair: &Pair,
    label: &str,
    now: Timestamp,
) -> Notice {
    let since = opened_text(incident, pair, now);
    let why = match (&due.occasion, &incident.acknowledged) {
        (Occasion::BusinessDay(_), Some(acknowledged)) => {
            format!(
                "The business day begins, and it is not resolved. {} has acknowledged it.",
                acknowledged.by
            )
        }
        (Occasion::BusinessDay(_), None) => {
            "The business day begins, and it is not resolved. Nobody has acknowledged it."
                .to_owned()
        }
        (Occasion::Level(_), _) => "Nobody has acknowledged it.".to_owned(),
    };
    let more = match incident.joined.len() {
        0 | 1 => String::new(),
        2 => " One more notice belongs to it.".to_owned(),
        count => format!(" {} more notices belong to it.", count - 1),
    };
    let text = format!(
        "Incident {} is open {since}: {}. {why}{more} Acknowledge it with POST \
         /incidents/{}/acknowledge; a good run resolves it. Runbook: runbooks/incident-response.md",
        incident.id, incident.subject, incident.id
    );
    let subject = format!("[URGENT] [{label}] Daily sync UNRESOLVED — {}", pair.zone.date(now));
    Notice {
        id: incident.notice_id(&due.occasion.word()),
        runbook: Some("incident-response.md".to_owned()),
        incident: Some(incident.id.clone()),
        ..notice(NoticeKind::Escalated, &incident.pair, &incident.run, now, subject, text)
    }
}

/// Writes the notice of an incident that is over.
pub fn of_resolution(
    incident: &Incident,
    resolution: &Resolution,
    pair: &Pair,
    label: &str,
) -> Notice {
    let now = resolution.at;
    let text = format!(
        "Incident {} was resolved by run {} at {} {}. It was open {}.",
        incident.id,
        resolution.run,
        pair.zone.clock_time(now),
        pair.zone_label,
        opened_text(incident, pair, now)
    );
    let subject = format!("[{label}] Daily sync RESOLVED — {}", pair.zone.date(now));
    Notice {
        id: incident.notice_id(NoticeKind::Resolved.as_str()),
        incident: Some(incident.id.clone()),
        ..notice(NoticeKind::Resolved, &incident.pair, &incident.run, now, subject, text)
    }
}

/// Says since when an incident is open, and how long that is.
fn opened_text(incident: &Incident, pair: &Pair, now: Timestamp) -> String {
    let open = between(incident.opened_at, now);
    format!(
        "since {} {} ({})",
        pair.zone.date_time(incident.opened_at),
        pair.zone_label,
        render_age(open)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::pair;
    use crate::fixtures::started;
    use crate::id::RunId;
    use crate::sync::incident::Acknowledgement;
    use crate::sync::notice::of_missed_day;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("an instant")
    }

    #[test]
    fn an_incident_is_told_until_it_is_over() {
        let missed = of_missed_day(&pair(), &started().run, "CAIO Hub", at("2026-11-21T11:05:00Z"));
        let mut incident = Incident::open(&missed, None);
        let due =
            Due { occasion: Occasion::Level(1), at: at("2026-11-21T11:20:00Z"), channels: None };
        let told = of_escalation(&incident, &due, &pair(), "CAIO Hub", at("2026-11-21T11:20:00Z"));
        assert_eq!(
            (told.id.as_str(), told.subject.as_str()),
            ("hub/20261121/escalated-1", "[URGENT] [CAIO Hub] Daily sync UNRESOLVED — 2026-11-21")
        );
        assert_eq!(
            told.text,
            "Incident hub-20261121 is open since 2026-11-21 06:05 ET (15 min): [URGENT] [CAIO Hub] \
             Daily sync MISSED — 2026-11-21. Nobody has acknowledged it. Acknowledge it with POST \
             /incidents/hub-20261121/acknowledge; a good run resolves it. Runbook: \
             runbooks/incident-response.md"
        );
        incident.acknowledged = Some(Acknowledgement {
            format: 1,
            incident: incident.id.clone(),
            at: missed.at,
            by: "Dana".to_owned(),
        });
        let business = Due {
            occasion: Occasion::BusinessDay("2026-11-21".parse().expect("a date")),
            at: at("2026-11-21T14:00:00Z"),
            channels: None,
        };
        let told =
            of_escalation(&incident, &business, &pair(), "CAIO Hub", at("2026-11-21T14:00:00Z"));
        assert_eq!(told.id, "hub/20261121/escalated-20261121");
        assert!(
            told.text.contains(
                "The business day begins, and it is not resolved. Dana has acknowledged it."
            ),
            "{}",
            told.text
        );
        let resolution = Resolution {
            at: at("2026-11-22T10:04:00Z"),
            run: RunId::decode("20261122").expect("a date"),
        };
        let told = of_resolution(&incident, &resolution, &pair(), "CAIO Hub");
        assert_eq!(
            (told.id.as_str(), told.subject.as_str()),
            ("hub/20261121/resolved", "[CAIO Hub] Daily sync RESOLVED — 2026-11-22")
        );
        assert_eq!(
            told.text,
            "Incident hub-20261121 was resolved by run 20261122 at 5:04 AM ET. It was open since \
             2026-11-21 06:05 ET (22 h)."
        );
    }
}
