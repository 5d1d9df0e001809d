//! Workers KV as it behaves: old answers, one write a second for each key, limits.
//!
//! Invariants: a misuse (a key or a value that is too long, more than 100 keys in a read) panics,
//! because KV would refuse it every time.
//!
//! Source: Workers KV, limits and "how KV works", 2026-09-05: a read may be 60 seconds old and
//! caches absence. 1 write/s per key (429). Keys of 512 bytes, values of 25 MiB, metadata of 1,024
//! bytes. Bulk reads of 100 keys. Lists of 1,000 keys.

use std::collections::BTreeMap;
use std::rc::Rc;

use chrono::TimeDelta;
use firstlight::port::{Metadata, Page, StoreFailure};
use firstlight::time::Timestamp;

/// How old an answer may be.
const STALE: TimeDelta = TimeDelta::seconds(60);
/// The time between two writes of a key.
const BETWEEN_WRITES: TimeDelta = TimeDelta::seconds(1);

/// How a tick sees the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// As it is.
    Fresh,
    /// As it was a minute ago.
    Stale,
    /// As it was at some instant of the last minute, drawn for every read and key.
    Any,
}

#[derive(Clone)]
struct Version {
    at: Timestamp,
    value: Option<Rc<str>>,
    metadata: Option<Metadata>,
}

/// The store: every version of every key.
#[derive(Clone, Default)]
pub(crate) struct Kv {
    keys: BTreeMap<Rc<str>, Vec<Version>>,
}

impl Kv {
    /// Returns the present value of a key.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.keys.get(key)?.last()?.value.as_deref()
    }

    /// Returns the facts that a listing shows of a key.
    pub(crate) fn metadata(&self, key: &str) -> Option<&Metadata> {
        self.keys.get(key)?.last()?.metadata.as_ref()
    }

    /// Returns the present keys with a prefix.
    pub(crate) fn keys<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        self.keys
            .keys()
            .filter(move |key| key.starts_with(prefix) && self.get(key).is_some())
            .map(AsRef::as_ref)
    }

    /// Returns every present key with its value.
    pub(crate) fn everything(&self) -> BTreeMap<String, String> {
        self.keys("").filter_map(|key| Some((key.to_owned(), self.get(key)?.to_owned()))).collect()
    }

    /// Forgets everything.
    pub(crate) fn wipe(&mut self) {
        self.keys.clear();
    }

    /// Forgets old versions.
    pub(crate) fn settle(&mut self) {
        self.keys.retain(|_, versions| {
            versions.drain(..versions.len() - 1);
            versions[0].value.is_some()
        });
    }

    /// Reads keys as a view shows them.
    pub(crate) fn read(
        &self,
        keys: &[String],
        view: View,
        now: Timestamp,
        random: &mut fastrand::Rng,
    ) -> BTreeMap<String, Option<String>> {
        assert!(
            (1..=100).contains(&keys.len()),
            "a bulk read takes 1 to 100 keys, not {}",
            keys.len()
        );
        let mut seen = |key: &String| {
            let at = match view {
                View::Fresh => now,
                View::Stale => now - STALE,
                View::Any => {
                    now - TimeDelta::milliseconds(random.i64(0..=STALE.num_milliseconds()))
                }
            };
            let versions = self.keys.get(key.as_str())?;
            versions
                .iter()
                .rev()
                .find(|version| version.at <= at)?
                .value
                .as_deref()
                .map(str::to_owned)
        };
        keys.iter().map(|key| (key.clone(), seen(key))).collect()
    }

    /// Writes a key, or removes it.
    pub(crate) fn write(
        &mut self,
        key: &str,
        value: Option<&str>,
        metadata: Option<Metadata>,
        now: Timestamp,
    ) -> Result<(), StoreFailure> {
        assert!((1..=512).contains(&key.len()), "a key has 1 to 512 bytes: {key}");
        assert!(
            value.is_none_or(|value| value.len() <= 25 << 20),
            "a value has 25 MiB at most: {key}"
        );
        let length = metadata
            .as_ref()
            .map_or(0, |metadata| serde_json::to_string(metadata).map_or(0, |text| text.len()));
        assert!(length <= 1_024, "metadata has 1,024 bytes at most: {key}");
        let versions = self.keys.entry(Rc::from(key)).or_default();
        if versions.last().is_some_and(|last| now - last.at < BETWEEN_WRITES) {
            return Err(StoreFailure::TooFast);
        }
        versions.push(Version { at: now, value: value.map(Rc::from), metadata });
        Ok(())
    }

    /// Lists keys, in the order of their bytes; the cursor is the last key of the page before.
    pub(crate) fn list(
        &self,
        prefix: &str,
        cursor: Option<&str>,
        view: View,
        now: Timestamp,
    ) -> Page {
        let at = if view == View::Fresh { now } else { now - STALE };
        let seen = |versions: &'_ Vec<Version>| {
            versions.iter().rev().find(|version| version.at <= at).cloned()
        };
        let mut keys: Vec<(String, Option<Metadata>)> = self
            .keys
            .iter()
            .filter(|(key, _)| {
                key.starts_with(prefix) && cursor.is_none_or(|cursor| &***key > cursor)
            })
            .filter_map(|(key, versions)| {
                Some((
                    key.as_ref().to_owned(),
                    seen(versions).filter(|version| version.value.is_some())?.metadata,
                ))
            })
            .collect();
        let is_complete = keys.len() <= 1_000;
        keys.truncate(1_000);
        let cursor = keys.last().filter(|_| !is_complete).map(|(key, _)| key.clone());
        Page { keys, cursor }
    }
}
