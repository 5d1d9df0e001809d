//! What people are told of channels, and several notices in one.

use super::Notice;
use super::words::notice;
use crate::config::{NoticeKind, Pair};
use crate::id::{ChannelName, RunId, digest};
use crate::time::{Timestamp, render};

/// Writes the notice, for the other channels, of a channel whose address is gone.
pub fn of_disabled_channel(
    lost: &Notice,
    channel: &ChannelName,
    label: &str,
    now: Timestamp,
) -> Notice {
    let text = format!(
        "Channel {channel} has answered 410 (gone) to notice {}: nothing is sent there any more. \
         Give it a new address, then try it with POST /channels/{channel}/test, which enables it \
         again. Runbook: runbooks/incident-response.md",
        lost.id
    );
    let subject = format!("[{label}] Channel {channel} is disabled");
    Notice {
        id: format!("{}/{}/channel_disabled-{channel}", lost.pair, lost.run),
        runbook: Some("incident-response.md".to_owned()),
        ..notice(NoticeKind::ChannelDisabled, &lost.pair, &lost.run, now, subject, text)
    }
}

/// Writes the notice of channels that cannot be used as they are configured.
pub fn of_misconfigured(
    pair: &Pair,
    run: &RunId,
    problems: &[String],
    label: &str,
    now: Timestamp,
) -> Notice {
    let text =
        "What is configured cannot be used as it is; runs go on, and notices wait. Runbook: \
         runbooks/incident-response.md"
            .to_owned();
    let subject = format!("[{label}] Configuration needs a look — {}", run.date());
    Notice {
        warnings: problems.to_vec(),
        runbook: Some("incident-response.md".to_owned()),
        ..notice(NoticeKind::Misconfigured, &pair.name, run, now, subject, text)
    }
}

/// Writes the notice with which somebody tries a channel.
pub fn of_test(pair: &Pair, channel: &ChannelName, label: &str, now: Timestamp) -> Notice {
    let run = RunId::manual(now);
    let text = format!("Channel {channel} takes notices. There is nothing to do.");
    Notice {
        id: format!("{}/{run}/test-{channel}", pair.name),
        ..notice(
            NoticeKind::Test,
            &pair.name,
            &run,
            now,
            format!("[{label}] Test of channel {channel}"),
            text,
        )
    }
}

/// Puts several notices into one. Its id is that of the channel, the instant for which they were
/// gathered, and what was.
pub fn of_digest(
    gathered: &[&Notice],
    channel: &ChannelName,
    label: &str,
    digest_at: Timestamp,
) -> Option<Notice> {
    // What joins it before it is sent again makes it another: a receiver must not drop that.
    let ids = gathered.iter().map(|notice| notice.id.as_str()).collect::<Vec<_>>().join(" ");
    let most = gathered.iter().max_by_key(|notice| notice.severity())?;
    let text = match gathered.len() {
        1 => "One notice was gathered.".to_owned(),
        count => format!("{count} notices were gathered."),
    };
    let one = |told: &&Notice| {
        let warnings = if told.warnings.is_empty() {
            String::new()
        } else {
            format!(" ({})", told.warnings.join("; "))
        };
        format!("{}: {}{warnings}", told.subject, told.text)
    };
    Some(Notice {
        id: format!("digest/{channel}/{}/{}", render(digest_at), digest(&ids, 4)),
        kind: most.kind,
        pair: most.pair.clone(),
        run: most.run.clone(),
        at: digest_at,
        subject: format!("[{label}] Digest"),
        text,
        warnings: gathered.iter().map(one).collect(),
        runbook: most.runbook.clone(),
        incident: None,
    })
}
