//! How each kind of channel writes a notice: as an [`HttpRequest`].
//!
//! In: a [`Letter`], a [`Receiver`] and the secrets. Out: a request, or what stands in its way.
//!
//! Invariants: a notice that is too long for a channel is shortened, with where the whole is told;
//! it is never refused for its length. What a notice tells is text for every channel: it makes no
//! mark-up and calls nobody. A secret stands where its receiver expects it and nowhere else.

mod discord;
mod email;
mod healthcheck;
mod http;
mod pagerduty;
mod shorten;
mod slack;
mod taken;
mod teams;
mod webhook;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

pub use self::healthcheck::{run_uuid, start_ping};
pub use self::taken::refusal;
pub use self::webhook::sign;
use super::Notice;
use crate::config::{NoticeKind, Receiver, address_problem};
use crate::id::Secret;
use crate::port::{HttpRequest, Method, Reading};
use crate::time::Timestamp;

/// How long a receiver may take.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(15);

/// Characters of an address that is linked. Two of them and their names fit into a field of
/// Discord, which takes 1,024.
const LINK: usize = 480;

/// What the link to the report is called.
const REPORT: &str = "Report";

/// A notice with what surrounds it.
#[derive(Clone, Copy)]
pub struct Letter<'a> {
    /// The notice.
    pub notice: &'a Notice,
    /// Stands in brackets before every subject.
    pub label: &'a str,
    /// Where this Worker is reached.
    pub public_url: Option<&'a str>,
    /// Where the pages of `runbooks/` are read.
    pub runbooks_url: Option<&'a str>,
}

/// A notice cannot be written for a channel. Trying again is in vain until somebody sets a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsendable {
    /// A secret is missing.
    #[error("secret {0} is not set")]
    NotSet(String),
    /// The address in a secret may not be called.
    #[error("secret {secret}: {problem}")]
    BadAddress {
        /// The name of the secret.
        secret: String,
        /// What is wrong.
        problem: &'static str,
    },
}

/// Returns the address of the report of the notice's run; `None` where nobody knows where the
/// Worker is reached, and for a test, which has no run.
pub fn report_link(letter: &Letter<'_>) -> Option<String> {
    let base = letter.public_url.filter(|_| letter.notice.kind != NoticeKind::Test)?;
    Some(format!("{base}/runs/{}?pair={}", letter.notice.run, letter.notice.pair))
}

/// Returns the address of the notice's runbook; `None` where it has none, or nobody knows where the
/// pages are.
pub fn runbook_link(letter: &Letter<'_>) -> Option<String> {
    Some(format!("{}/{}", letter.runbooks_url?, letter.notice.runbook.as_ref()?))
}

/// Encodes a notice for a receiver.
///
/// # Errors
///
/// When a secret is missing, or holds an address that may not be called.
pub fn encode(
    letter: &Letter<'_>,
    receiver: &Receiver,
    secrets: &BTreeMap<String, Secret>,
    allow_insecure: bool,
    now: Timestamp,
) -> Result<HttpRequest, Unsendable> {
    let secrets = Secrets { all: secrets, allow_insecure };
    Ok(match receiver {
        Receiver::Webhook { url_secret, signing_secrets } => {
            let url = secrets.address(url_secret)?;
            let keys = signing_secrets
                .iter()
                .map(|name| secrets.get(name))
                .collect::<Result<Vec<_>, _>>()?;
            webhook::encode(letter, url, &keys, now)
        }
        Receiver::Slack { url_secret } => post(secrets.address(url_secret)?, &slack::body(letter)),
        Receiver::Discord { url_secret, thread_name } => post(
            &discord::address(secrets.address(url_secret)?),
            &discord::body(letter, thread_name.as_ref()),
        ),
        Receiver::Teams { url_secret } => post(secrets.address(url_secret)?, &teams::body(letter)),
        Receiver::PagerDuty { routing_key_secret, url } => {
            post(url, &pagerduty::body(letter, secrets.get(routing_key_secret)?))
        }
        Receiver::Email { binding, from, to } => {
            post(&format!("email:{binding}"), &email::body(letter, from, to))
        }
        Receiver::Http {
            url_secret,
            method,
            headers,
            secret_headers,
            content_type,
            body,
            good: _,
        } => {
            let mut request = to_receiver(*method, secrets.address(url_secret)?.to_owned());
            for (header, secret) in secret_headers {
                request.secret_headers.push((header.clone(), secrets.get(secret)?.clone()));
            }
            http::fill(&mut request, letter, headers, content_type, body);
            request
        }
        Receiver::Healthcheck { url_secret } => {
            healthcheck::encode(letter, secrets.address(url_secret)?)
        }
    })
}

/// The secrets, and what addresses they may hold.
struct Secrets<'a> {
    all: &'a BTreeMap<String, Secret>,
    allow_insecure: bool,
}

impl<'a> Secrets<'a> {
    fn get(&self, name: &str) -> Result<&'a Secret, Unsendable> {
        self.all.get(name).ok_or_else(|| Unsendable::NotSet(name.to_owned()))
    }

    fn address(&self, name: &str) -> Result<&'a str, Unsendable> {
        let url = self.get(name)?.reveal();
        match address_problem(url, self.allow_insecure) {
            Some(problem) => Err(Unsendable::BadAddress { secret: name.to_owned(), problem }),
            None => Ok(url),
        }
    }
}

/// Returns a request to a receiver. The beginning of its answer is read: there may be no end of it.
fn to_receiver(method: Method, url: String) -> HttpRequest {
    HttpRequest { reading: Reading::Beginning, ..HttpRequest::new(method, url, DELIVERY_TIMEOUT) }
}

/// Returns a request that posts JSON.
fn post(url: &str, body: &Value) -> HttpRequest {
    let mut request = to_receiver(Method::Post, url.to_owned());
    request.headers.push(("content-type".to_owned(), "application/json".to_owned()));
    request.body = body.to_string();
    request
}

/// Returns what a notice links to, each with its name. An address that is too long for a channel is
/// left out.
fn links(letter: &Letter<'_>) -> Vec<(&'static str, String)> {
    let all = [(REPORT, report_link(letter)), ("Runbook", runbook_link(letter))];
    let known = all.into_iter().filter_map(|(name, link)| Some((name, bare(&link?))));
    known.filter(|(_, link)| link.len() <= LINK).collect()
}

/// Returns the link to the report, if there is one.
fn report(letter: &Letter<'_>) -> Option<String> {
    links(letter).into_iter().find(|(name, _)| *name == REPORT).map(|(_, link)| link)
}

/// Returns where the whole of a notice is told.
fn place(letter: &Letter<'_>) -> String {
    report(letter).unwrap_or_else(|| format!("GET /runs/{}", letter.notice.run))
}

/// Percent-encodes what would end an address where a channel reads mark-up: `[name](address)`,
/// `<address|name>`, `"address"`.
fn bare(address: &str) -> String {
    let mut bare = String::with_capacity(address.len());
    for character in address.chars() {
        match character {
            '(' => bare.push_str("%28"),
            ')' => bare.push_str("%29"),
            '<' => bare.push_str("%3C"),
            '>' => bare.push_str("%3E"),
            '|' => bare.push_str("%7C"),
            '"' => bare.push_str("%22"),
            '\\' => bare.push_str("%5C"),
            other => bare.push(other),
        }
    }
    bare
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{PairName, RunId};

    const LONG_ADDRESS: &str = "https://firstlight.example.com/";

    /// What tries to be mark-up, a mention, an entity or the end of a line somewhere.
    const HOSTILE: &str = "<!channel> & <b>*bold*</b> _x_ ~y~ `z` ||s|| @everyone <@123> \
        [a](https://evil.example) &amp; \"q\" \\ 😀\n# h\n- l\n> q\u{7}";

    /// Returns an ordinary failure.
    pub(super) fn failure() -> Notice {
        Notice {
            id: "hub/20261121/failed".to_owned(),
            kind: NoticeKind::Failed,
            pair: PairName::from("hub"),
            run: RunId::decode("20261121").expect("a date"),
            at: "2026-11-21T10:02:31.250Z".parse().expect("an instant"),
            subject: "[URGENT] [CAIO Hub] Daily sync FAILED — 2026-11-21".to_owned(),
            text: "Production → staging sync failed at step 4 of 7 (restore staging). Error: none \
                recorded."
                .to_owned(),
            warnings: vec!["table public.user_accounts: 2 rows differ".to_owned()],
            runbook: Some("run-failed.md".to_owned()),
            incident: Some("hub-20261121".to_owned()),
        }
    }

    /// Returns a failure whose text has 100,000 characters, with 500 warnings of 300.
    pub(super) fn hostile() -> Notice {
        let text = |length: usize| HOSTILE.chars().cycle().take(length).collect::<String>();
        Notice {
            subject: format!("[{}] {}", text(100), text(2_000)),
            text: text(100_000),
            warnings: vec![text(300); 500],
            ..failure()
        }
    }

    pub(super) fn letter(notice: &Notice) -> Letter<'_> {
        let (public_url, runbooks_url) =
            (Some("https://firstlight.example.com"), Some("https://git.example.com/runbooks"));
        Letter { notice, label: "CAIO Hub", public_url, runbooks_url }
    }

    /// Returns the request for a receiver, with secrets that are their own names in lower case, or
    /// addresses.
    pub(super) fn request(letter: &Letter<'_>, receiver: &Receiver) -> HttpRequest {
        let secret = |name: &str, value: &str| (name.to_owned(), Secret::new(value.to_owned()));
        let secrets = [
            secret("URL", "https://hook.example.com/a?b=c"),
            secret("KEY", "key"),
            secret("OTHER", "whsec_b3RoZXI="),
        ];
        encode(letter, receiver, &BTreeMap::from(secrets), false, letter.notice.at)
            .expect("every secret is set")
    }

    /// Returns the body of the request for a receiver.
    pub(super) fn body(letter: &Letter<'_>, receiver: &Receiver) -> Value {
        serde_json::from_str(&request(letter, receiver).body).expect("it is JSON")
    }

    #[test]
    fn a_secret_that_is_missing_or_leads_into_a_private_network_is_named_and_not_shown() {
        let notice = failure();
        let receiver = Receiver::Slack { url_secret: "SLACK".to_owned() };
        let refused = |secrets: BTreeMap<String, Secret>| {
            let refused = encode(&letter(&notice), &receiver, &secrets, false, notice.at).err();
            refused.expect("it cannot be sent").to_string()
        };
        assert_eq!(refused(BTreeMap::new()), "secret SLACK is not set");
        let inside = BTreeMap::from([(
            "SLACK".to_owned(),
            Secret::new("https://10.0.0.1/token".to_owned()),
        )]);
        let text = refused(inside);
        assert!(
            text.starts_with("secret SLACK: leads into a private network")
                && !text.contains("token"),
            "{text}"
        );
    }

    #[test]
    fn a_link_is_left_out_where_it_is_unknown_too_long_or_leads_nowhere() {
        let notice = failure();
        let letter = letter(&notice);
        assert_eq!(place(&letter), "https://firstlight.example.com/runs/20261121?pair=hub");
        assert_eq!(
            links(&letter)[1],
            ("Runbook", "https://git.example.com/runbooks/run-failed.md".to_owned())
        );
        assert_eq!(place(&Letter { public_url: None, ..letter }), "GET /runs/20261121");
        let long = LONG_ADDRESS.repeat(20);
        assert_eq!(links(&Letter { public_url: Some(&long), runbooks_url: None, ..letter }), []);
        let test = Notice { kind: NoticeKind::Test, ..failure() };
        assert_eq!(report_link(&Letter { notice: &test, ..letter }), None);
    }

    #[test]
    fn an_address_cannot_end_where_mark_up_would_end_it() {
        assert_eq!(
            bare("https://a.example/(x)|<y>\"\\"),
            "https://a.example/%28x%29%7C%3Cy%3E%22%5C"
        );
    }
}
