//! `/notices` and `/channels`: what people were told, whether it arrived, and whether a channel
//! works.

use chrono::{Days, Months};
use serde_json::{Value, json};

use super::{ApiRequest, ApiResponse, Asked, Problem, body, unavailable};
use crate::config::one_of;
use crate::id::{ChannelName, RunId};
use crate::ordered;
use crate::port::World;
use crate::record::{self, RecordError};
use crate::sync::checkpoint::Checkpoint;
use crate::sync::notice::{self, Delivery, Outgoing};
use crate::tick::Context;
use crate::time::{after, compact, render};

/// Notices that a listing shows, the newest. One request of the store reads a hundred.
const LISTED: usize = 50;

/// Months that are looked through for them, one listing each. A pair has a notice a day at least,
/// so one or two are enough.
const MONTHS: u32 = 3;

/// How long a request for a channel may take; its timeout is fifteen seconds.
const WALL: std::time::Duration = std::time::Duration::from_secs(25);

impl<W: World> Asked<'_, W> {
    /// Lists the newest notices of a pair with what became of them.
    pub(super) async fn list_notices(&self) -> Result<ApiResponse, Problem> {
        let fail = |failure: crate::port::StoreFailure| unavailable(&failure.into());
        let today = self.pair.zone.date(self.world.now());
        let mut newest = Vec::new();
        // A manual run may be named by tomorrow's date in UTC.
        let months = std::iter::once(today + Days::new(1))
            .chain((0..MONTHS).filter_map(|back| today.checked_sub_months(Months::new(back))));
        let mut last = String::new();
        for month in months.map(|month| compact(month)[..6].to_owned()) {
            if month == last {
                continue;
            }
            let prefix = record::notice_key(&format!("{}/{month}", self.pair.name));
            let page = self.world.list(&prefix, None).await.map_err(fail)?;
            // Keys are in the order of their runs.
            let keys: Vec<String> = page
                .keys
                .into_iter()
                .map(|(key, _)| key)
                .rev()
                .take(LISTED - newest.len())
                .collect();
            newest.extend(keys);
            if newest.len() == LISTED {
                break;
            }
            last = month;
        }
        let checkpoint_key = record::checkpoint_key(&self.pair.name);
        newest.push(checkpoint_key.clone());
        let mut found = self.world.read(&newest).await.map_err(fail)?;
        let last = last_run(&checkpoint_key, found.remove(&checkpoint_key).flatten());
        let (mut notices, mut unreadable): (Vec<Outgoing>, Vec<Value>) = (Vec::new(), Vec::new());
        for (key, text) in &found {
            // One that cannot be read hides no other.
            match text.as_ref().map(|text| record::decode(key, text)) {
                Some(Ok(mut notice)) => {
                    if let Some(last) = &last {
                        last.complete(&mut notice);
                    }
                    notices.push(notice);
                }
                Some(Err(error)) => unreadable
                    .push(json!({"id": key.strip_prefix("notice/"), "problem": error.to_string()})),
                None => {}
            }
        }
        ordered::sort_by(&mut notices, |left, right| {
            (right.notice.at, &right.notice.id).cmp(&(left.notice.at, &left.notice.id))
        });
        let shown: Vec<Value> =
            notices.iter().map(|outgoing| shown(outgoing, false)).chain(unreadable).collect();
        Ok(ApiResponse::json(200, &json!({"pair": self.pair.name, "notices": shown})))
    }

    /// Shows a notice with every attempt to deliver it.
    pub(super) async fn show_notice(&self, run: &str, word: &str) -> Result<ApiResponse, Problem> {
        let outgoing = self.notice(run, word).await?;
        Ok(ApiResponse::json(200, &shown(&outgoing, true)))
    }

    /// Sends a notice again: to the channel that is named, else to all of it. A receiver that knows
    /// its id may drop it.
    pub(super) async fn redeliver(
        &self,
        request: &ApiRequest,
        run: &str,
        word: &str,
    ) -> Result<ApiResponse, Problem> {
        let fields = body(request, &["channel"])?;
        let chosen = match fields.get("channel") {
            None | Some(Value::Null) => None,
            Some(Value::String(name)) => Some(ChannelName::from(name.clone())),
            Some(_) => {
                return Err(Problem::new(400, "The body cannot be used")
                    .with_detail("channel: expected a text".to_owned()));
            }
        };
        let mut outgoing = self.notice(run, word).await?;
        let now = self.world.now();
        let is_chosen =
            |delivery: &&mut Delivery| chosen.as_ref().is_none_or(|name| delivery.channel == *name);
        let mut count = 0_usize;
        for delivery in outgoing.deliveries.iter_mut().filter(is_chosen) {
            delivery.redeliver(now);
            count += 1;
        }
        if count == 0 {
            let known =
                one_of(outgoing.deliveries.iter().map(|delivery| delivery.channel.as_str()));
            let known = if known.is_empty() { "no channel".to_owned() } else { known };
            return Err(Problem::new(400, "The notice is not for that channel")
                .with_detail(format!("channel: it goes to {known}")));
        }
        let context =
            Context::new(self.world, self.config, self.secrets, after(now, WALL), &|_, _| {});
        context.redeliver(&mut outgoing, now).await;
        Ok(ApiResponse::json(200, &shown(&outgoing, true)))
    }

    async fn notice(&self, run: &str, word: &str) -> Result<Outgoing, Problem> {
        let unknown = || {
            let id: String = format!("{}/{run}/{word}", self.pair.name).chars().take(120).collect();
            Problem::new(404, "There is no such notice")
                .with_detail(format!("notice {id:?} is not known; GET /notices lists them"))
        };
        let run = RunId::decode(run).ok_or_else(unknown)?;
        let is_word = word.len() <= 80
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        let key = record::notice_key(&format!("{}/{run}/{word}", self.pair.name));
        if !is_word {
            return Err(unknown());
        }
        let checkpoint_key = record::checkpoint_key(&self.pair.name);
        let keys = [key.clone(), checkpoint_key.clone()];
        let mut found = self
            .world
            .read(&keys)
            .await
            .map_err(|failure| unavailable(&RecordError::from(failure)))?;
        let text = found.remove(&key).flatten().ok_or_else(unknown)?;
        let mut outgoing: Outgoing =
            record::decode(&key, &text).map_err(|error| unavailable(&error))?;
        let last = last_run(&checkpoint_key, found.remove(&checkpoint_key).flatten());
        if let Some(last) = &last {
            last.complete(&mut outgoing);
        }
        Ok(outgoing)
    }

    /// Sends a notice to a channel that says that it is a test. One that is taken enables a channel
    /// that was disabled.
    pub(super) async fn test_channel(&self, name: &str) -> Result<ApiResponse, Problem> {
        let Some(channel) =
            self.config.channels.iter().find(|channel| channel.name.as_str() == name)
        else {
            let name: String = name.chars().take(60).collect();
            let known = one_of(self.config.channels.iter().map(|channel| channel.name.as_str()));
            return Err(Problem::new(404, "There is no such channel")
                .with_detail(format!("channel: is {name:?}; known is {known}")));
        };
        let now = self.world.now();
        let test = notice::of_test(self.pair, &channel.name, &self.config.label, now);
        let context =
            Context::new(self.world, self.config, self.secrets, after(now, WALL), &|_, _| {});
        let attempt = context.try_channel(&test, channel).await;
        let shown = json!({"channel": name, "kind": channel.receiver.kind(), "notice": test.id,
                "attempt": attempt});
        match attempt.error {
            None => Ok(ApiResponse::json(200, &shown)),
            Some(error) => Err(Problem::new(502, "The channel did not take the test")
                .with_detail(format!("channel {name}: {error}"))),
        }
    }
}

/// Reads the checkpoint of a pair, which knows what became of notices whose keys take no write yet.
/// One that cannot be read says nothing of them.
fn last_run(key: &str, text: Option<String>) -> Option<Checkpoint> {
    record::decode(key, &text?).ok()
}

/// Shows a notice as people look at it; `is_whole` with its text and every attempt.
fn shown(outgoing: &Outgoing, is_whole: bool) -> Value {
    let notice = &outgoing.notice;
    let delivery = |delivery: &Delivery| {
        let state = match (&delivery.delivered_at, &delivery.given_up) {
            (Some(_), _) => "delivered",
            (None, Some(_)) => "given up",
            (None, None) => "waiting",
        };
        let next_at = (!delivery.is_settled()).then(|| render(delivery.next_at));
        let mut shown = json!({
            "channel": delivery.channel, "state": state, "attempts": delivery.attempts,
            "delivered_at": delivery.delivered_at.map(render), "next_at": next_at,
            "reason": delivery.given_up.as_ref().or(delivery.last_error.as_ref()),
        });
        if is_whole {
            shown["log"] = json!(delivery.log);
        }
        shown
    };
    let deliveries: Vec<Value> = outgoing.deliveries.iter().map(delivery).collect();
    let mut shown = json!({
        "id": notice.id, "kind": notice.kind, "severity": notice.severity(), "run": notice.run,
        "at": render(notice.at),
        "subject": notice.subject, "incident": notice.incident, "deliveries": deliveries,
    });
    if is_whole {
        shown["text"] = json!(notice.text);
        shown["warnings"] = json!(notice.warnings);
        shown["runbook"] = json!(notice.runbook);
    }
    shown
}
