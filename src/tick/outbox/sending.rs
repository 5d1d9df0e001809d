//! What is sent: parcels to channels, side by side, and what each channel answers.
//!
//! In: [`Parcel`]s. Out: an [`Answer`] for each that was sent.
//!
//! Invariants: a channel gets nothing more in this tick after what it did not take. What is sent
//! comes back as an attempt, whatever came of it.

use std::time::Duration;

use serde_json::json;

use super::Context;
use super::due::Parcel;
use super::gone::GONE_AGAIN;
use crate::config::{Channel, NoticeKind};
use crate::id::ChannelName;
use crate::port::{Clock as _, Http as _, HttpRequest, Level, World};
use crate::sync::notice::{Attempt, Letter, Notice, Outgoing, Unsendable, encode, refusal};
use crate::time::{Timestamp, between, render_duration};

/// What came of a request.
pub(super) struct Answer {
    pub(super) attempt: Attempt,
    /// How long the channel is to be left alone at least; `None` where nothing says so.
    pub(super) wait: Option<Duration>,
    /// Whether it is in vain to try again.
    pub(super) is_gone: bool,
}

impl Answer {
    /// Returns the answer where none came.
    pub(super) fn failed(at: Timestamp, error: String) -> Self {
        let attempt = Attempt { at, took_ms: 0, answered: None, error: Some(error) };
        Self { attempt, wait: None, is_gone: false }
    }
}

impl<W: World> Context<'_, W> {
    /// Sends parcels of these notices, and notes what came of it. Returns the places of those that
    /// have changed.
    pub(super) async fn send_all(
        &self,
        notices: &mut [Outgoing],
        parcels: Vec<Parcel>,
    ) -> Vec<usize> {
        let mut changed = Vec::new();
        for (parcel, answer) in self.send_parcels(parcels).await {
            for (place, of) in &parcel.places {
                notices[*place].deliveries[*of].note(
                    answer.attempt.clone(),
                    answer.wait,
                    answer.is_gone,
                );
                changed.push(*place);
            }
        }
        changed
    }

    /// Sends parcels, channels side by side. What comes after one that a channel did not take is
    /// left for a later tick.
    async fn send_parcels(&self, parcels: Vec<Parcel>) -> Vec<(Parcel, Answer)> {
        let mut queues: Vec<(ChannelName, Vec<Parcel>)> = Vec::new();
        for parcel in parcels {
            match queues.iter_mut().find(|(channel, _)| *channel == parcel.channel) {
                Some((_, queue)) => queue.push(parcel),
                None => queues.push((parcel.channel.clone(), vec![parcel])),
            }
        }
        let sent = queues.into_iter().map(|(_, queue)| async move {
            let mut sent = Vec::new();
            for parcel in queue {
                let answer = self.attempt(&parcel.letter, &parcel.channel).await;
                let is_taken = answer.attempt.error.is_none();
                sent.push((parcel, answer));
                if !is_taken {
                    break;
                }
            }
            sent
        });
        // All at once: there are few channels, and one that hangs must delay no other.
        futures_util::future::join_all(sent).await.into_iter().flatten().collect()
    }

    /// Sends a notice to one channel.
    pub(super) async fn attempt(&self, notice: &Notice, name: &ChannelName) -> Answer {
        let at = self.world.now();
        let Some(channel) = self.config.channels.iter().find(|channel| channel.name == *name)
        else {
            let error = "the channel is not configured any more".to_owned();
            return Answer { is_gone: true, ..Answer::failed(at, error) };
        };
        if let Some(answer) = self.left_alone(notice, channel, at) {
            return answer;
        }
        let request = match self.written(notice, channel) {
            Ok(request) => request,
            Err(error) => {
                return self.logged(notice, name, Answer::failed(at, error.to_string()));
            }
        };
        let answer = self.post(request, notice, channel, at).await;
        if answer.is_gone {
            Box::pin(self.disable(notice, channel)).await;
        } else if answer.attempt.error.is_none() && notice.kind != NoticeKind::Test {
            self.enable(name).await;
        }
        // What nobody else hears is not given up.
        let is_last = answer.is_gone && !self.has_another(notice, channel);
        let answer = if is_last {
            Answer { is_gone: false, wait: Some(GONE_AGAIN), ..answer }
        } else {
            answer
        };
        self.logged(notice, name, answer)
    }

    /// Sends a request, and reads what its answer says.
    async fn post(
        &self,
        request: HttpRequest,
        notice: &Notice,
        channel: &Channel,
        at: Timestamp,
    ) -> Answer {
        let result = self.world.send(request).await;
        let took_ms = u64::try_from(between(at, self.world.now()).as_millis()).unwrap_or(u64::MAX);
        match result {
            Ok(response) => {
                let error = refusal(&channel.receiver, &response, self.secrets);
                if error.is_none() {
                    let subject = &notice.subject;
                    (self.watch)("notice", json!({"channel": channel.name, "subject": subject}));
                }
                let wait = response.retry_after.filter(|_| error.is_some());
                let answered = Some(response.status);
                Answer {
                    attempt: Attempt { at, took_ms, answered, error },
                    wait,
                    is_gone: response.status == 410,
                }
            }
            Err(failure) => {
                let failed = Answer::failed(at, failure.to_string());
                Answer { attempt: Attempt { took_ms, ..failed.attempt }, ..failed }
            }
        }
    }

    /// Writes a notice for a channel.
    fn written(&self, notice: &Notice, channel: &Channel) -> Result<HttpRequest, Unsendable> {
        let (public_url, runbooks_url) =
            (self.config.public_url.as_deref(), self.config.runbooks_url.as_deref());
        let letter = Letter { notice, label: &self.config.label, public_url, runbooks_url };
        encode(
            &letter,
            &channel.receiver,
            self.secrets,
            self.config.allow_insecure,
            self.world.now(),
        )
    }

    fn logged(&self, notice: &Notice, channel: &ChannelName, answer: Answer) -> Answer {
        if let Some(error) = &answer.attempt.error {
            let took = render_duration(Duration::from_millis(answer.attempt.took_ms));
            let facts = [
                ("notice", notice.id.clone()),
                ("channel", channel.to_string()),
                ("error", error.clone()),
                ("took", took),
            ];
            self.log(Level::Warn, "notice not taken", &facts);
        }
        answer
    }
}
