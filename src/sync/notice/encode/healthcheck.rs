//! Pings of a healthchecks-style service: start, success, failure.
//!
//! Invariants: start and end of a run have the same run id, so that the service pairs them. What is
//! neither a success nor a failure leaves the check as it is.
//!
//! Source: Healthchecks.io, "Pinging API" and "Attaching Logs".

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use super::shorten::LONG;
use super::{Letter, email, to_receiver};
use crate::config::NoticeKind;
use crate::id::{PairName, RunId, Secret};
use crate::port::{HttpRequest, Method};

/// Characters of the subject. With [`LONG`] the summary stays below 66 kB.
///
/// Source: Healthchecks.io, "Attaching Logs": it "will log the first 100 kB (100000 bytes) of the
/// request body". One that is hosted elsewhere may keep less.
const SUBJECT: usize = 1_000;

/// Writes the ping of a notice, with its summary.
///
/// # Source
///
/// Healthchecks.io, "Pinging API": `/fail` signals a failure; `/log` "without signaling success or
/// failure".
pub(super) fn encode(letter: &Letter<'_>, url: &str) -> HttpRequest {
    let notice = letter.notice;
    let signal = match notice.kind {
        NoticeKind::Succeeded | NoticeKind::Corrected => "",
        NoticeKind::Failed | NoticeKind::Cancelled | NoticeKind::Missed | NoticeKind::Stuck => {
            "/fail"
        }
        // A channel may be tried, and named in an escalation: neither says how a run went.
        NoticeKind::Superseded
        | NoticeKind::LateStart
        | NoticeKind::AtRisk
        | NoticeKind::Late
        | NoticeKind::SnapshotFailed
        | NoticeKind::SnapshotVerified
        | NoticeKind::Misconfigured
        | NoticeKind::Escalated
        | NoticeKind::Resolved
        | NoticeKind::ChannelDisabled
        | NoticeKind::Test => "/log",
    };
    let mut request = ping(url, signal, &notice.pair, &notice.run);
    request.headers.push(("content-type".to_owned(), "text/plain; charset=utf-8".to_owned()));
    request.body = format!("{}\n\n{}", LONG.line(&notice.subject, SUBJECT), email::text(letter));
    request
}

/// Writes the ping that a run has started.
///
/// # Source
///
/// Healthchecks.io, "Pinging API": `/start` signals the start; `rid` is a UUID that pairs it with
/// the end of the same run.
pub fn start_ping(url: &Secret, pair: &PairName, run: &RunId) -> HttpRequest {
    ping(url.reveal(), "/start", pair, run)
}

/// Writes a ping. The address may have a query of its own, such as `create=1`.
fn ping(url: &str, signal: &str, pair: &PairName, run: &RunId) -> HttpRequest {
    let (check, query) = url.split_once('?').unwrap_or((url, ""));
    let separator = if query.is_empty() { "" } else { "&" };
    let address = format!(
        "{}{signal}?{query}{separator}rid={}",
        check.trim_end_matches('/'),
        run_uuid(pair, run)
    );
    to_receiver(Method::Post, address)
}

/// Returns a UUID of a run, the same each time: what pairs the pings of its start and its end.
///
/// # Source
///
/// RFC 9562, section 5.8: version 8, with the bits of a SHA-256 digest.
pub fn run_uuid(pair: &PairName, run: &RunId) -> String {
    let digest = Sha256::digest(format!("firstlight/{pair}/{run}"));
    let mut bytes = [0_u8; 16];
    bytes.copy_from_slice(&digest[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut uuid = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if [4, 6, 8, 10].contains(&index) {
            uuid.push('-');
        }
        // Writing to a text cannot fail.
        let _ = write!(uuid, "{byte:02x}");
    }
    uuid
}

#[cfg(test)]
mod tests {
    use super::super::tests::{failure, hostile, letter, request};
    use super::*;
    use crate::config::Receiver;
    use crate::sync::notice::Notice;

    const RUN: &str = "RUN";

    fn sent(notice: &Notice) -> HttpRequest {
        request(&letter(notice), &Receiver::Healthcheck { url_secret: "URL".to_owned() })
    }

    fn url(kind: NoticeKind) -> String {
        let uuid = run_uuid(&failure().pair, &failure().run);
        sent(&Notice { kind, ..failure() }).url.replace(&uuid, RUN)
    }

    #[test]
    fn success_and_failure_are_told_and_the_rest_is_logged() {
        assert_eq!(url(NoticeKind::Succeeded), "https://hook.example.com/a?b=c&rid=RUN");
        assert_eq!(url(NoticeKind::Corrected), url(NoticeKind::Succeeded));
        assert_eq!(url(NoticeKind::Failed), "https://hook.example.com/a/fail?b=c&rid=RUN");
        assert_eq!(url(NoticeKind::Missed), url(NoticeKind::Failed));
        assert_eq!(url(NoticeKind::Test), "https://hook.example.com/a/log?b=c&rid=RUN");
    }

    #[test]
    fn the_start_of_a_run_is_paired_with_its_end() {
        let start = start_ping(
            &Secret::new("https://hc-ping.com/check/".to_owned()),
            &failure().pair,
            &failure().run,
        );
        let uuid = run_uuid(&failure().pair, &failure().run);
        assert_eq!(start.url, format!("https://hc-ping.com/check/start?rid={uuid}"));
        assert!(sent(&failure()).url.ends_with(&uuid));
        assert_ne!(uuid, run_uuid(&PairName::from("other"), &failure().run));
    }

    #[test]
    fn a_run_id_is_a_uuid() {
        let uuid = run_uuid(&failure().pair, &failure().run);
        assert_eq!(uuid.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert!(
            uuid[14..].starts_with('8') && uuid[19..].starts_with(['8', '9', 'a', 'b']),
            "{uuid}"
        );
    }

    #[test]
    fn the_summary_is_plain_text() {
        let sent = sent(&failure());
        assert_eq!(
            sent.headers,
            [("content-type".to_owned(), "text/plain; charset=utf-8".to_owned())]
        );
        assert_eq!(
            sent.body,
            "[URGENT] [CAIO Hub] Daily sync FAILED — 2026-11-21\n\n\
             Production → staging sync failed at step 4 of 7 (restore staging). Error: none \
             recorded.\n\n\
             Warnings:\n- table public.user_accounts: 2 rows differ\n\n\
             Report: https://firstlight.example.com/runs/20261121?pair=hub\nRunbook: \
             https://git.example.com/runbooks/run-failed.md\n"
        );
    }

    #[test]
    fn a_long_summary_is_kept_whole_by_the_service() {
        let sent = sent(&hostile());
        assert!(sent.body.len() < 100_000, "{}", sent.body.len());
        assert!(
            sent.body.contains("Report: https://firstlight.example.com/runs/20261121?pair=hub")
        );
    }
}
