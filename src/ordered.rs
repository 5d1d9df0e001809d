//! Ordered maps and sets of what an iterator gives, in little code.
//!
//! Invariants: the same maps and sets as `collect` makes; of two entries with one key, the last stays.
//!
//! The standard library's `FromIterator` for these sorts everything first, which adds a whole sort, 5 kB of WebAssembly, for every type of entry.

use std::collections::{BTreeMap, BTreeSet};

/// Collects entry by entry.
pub trait IntoOrdered: Iterator + Sized {
    /// Collects into a map.
    fn into_map<K: Ord, V>(self) -> BTreeMap<K, V>
    where
        Self: Iterator<Item = (K, V)>,
    {
        let mut map = BTreeMap::new();
        map.extend(self);
        map
    }

    /// Collects into a set.
    fn into_set(self) -> BTreeSet<Self::Item>
    where
        Self::Item: Ord,
    {
        let mut set = BTreeSet::new();
        set.extend(self);
        set
    }
}

impl<I: Iterator> IntoOrdered for I {}
