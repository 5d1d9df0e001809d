//! What is remembered of channels.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::{Config, NoticeKind, Pair};
use crate::id::ChannelName;
use crate::time::{Timestamp, millis};

/// The key of what is known of channels.
pub const CHANNELS_KEY: &str = "channels";

/// What is known of channels, and of notices that nothing else lists.
///
/// Shape: `{"format":1,"disabled":{"team":{"at":"…","notice":"hub/20261121/failed"}},"outbox":[]}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channels {
    /// The version of this shape.
    pub format: u32,
    /// The channels whose address is gone, and since when.
    pub disabled: BTreeMap<ChannelName, Disabled>,
    /// The ids of notices that some channel has not taken, and that neither a run nor an incident
    /// lists.
    pub outbox: Vec<String>,
}

/// A channel has said that its address is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disabled {
    /// When.
    #[serde(with = "millis")]
    pub at: Timestamp,
    /// The notice that it would not take.
    pub notice: String,
    /// When it was last tried since, where there was no other to tell; missing where it was not.
    #[serde(default, with = "millis::option", skip_serializing_if = "Option::is_none")]
    pub tried_at: Option<Timestamp>,
}

impl Channels {
    /// Returns the pairs whose trouble nobody hears, because every channel that would is gone.
    pub fn unheard<'a>(&self, config: &'a Config) -> Vec<&'a Pair> {
        let is_unheard = |pair: &&Pair| {
            let mut hearing = config
                .channels
                .iter()
                .filter(|channel| channel.hears(&pair.name, NoticeKind::Failed))
                .peekable();
            hearing.peek().is_some()
                && hearing.all(|channel| self.disabled.contains_key(&channel.name))
        };
        config.pairs.iter().filter(is_unheard).collect()
    }
}
