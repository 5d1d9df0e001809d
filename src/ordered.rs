//! Puts things in order in little code: maps and sets of what an iterator gives, and sorting.
//!
//! Invariants: the same maps and sets as `collect` makes; of two entries with one key, the last
//! stays.
//!
//! The standard library's `FromIterator` for these sorts everything first, which adds a whole sort,
//! 5 kB of WebAssembly, for every type of entry.

use std::cmp::Ordering;
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

/// Sorts as the standard library does, which keeps equal things in their order; in little code,
/// because what is sorted are numbers, whatever they stand for.
pub fn sort_by<T>(items: &mut Vec<T>, compare: impl Fn(&T, &T) -> Ordering) {
    let mut order: Vec<usize> = (0..items.len()).collect();
    sort_places(&mut order, &|left, right| compare(&items[left], &items[right]));
    let mut taken: Vec<Option<T>> = items.drain(..).map(Some).collect();
    items.extend(order.into_iter().filter_map(|place| taken[place].take()));
}

/// As [`sort_by`], by what each gives.
pub fn sort_by_key<T, K: Ord>(items: &mut Vec<T>, key: impl Fn(&T) -> K) {
    sort_by(items, |left, right| key(left).cmp(&key(right)));
}

/// The one sort there is.
fn sort_places(order: &mut [usize], compare: &dyn Fn(usize, usize) -> Ordering) {
    order.sort_by(|left, right| compare(*left, *right));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_equal_stays_in_its_order() {
        let mut words = vec![(2, "b"), (1, "a"), (2, "a"), (1, "b")];
        sort_by_key(&mut words, |(number, _)| *number);
        assert_eq!(words, [(1, "a"), (1, "b"), (2, "b"), (2, "a")]);
        sort_by(&mut words, |left, right| right.cmp(left));
        assert_eq!(words, [(2, "b"), (2, "a"), (1, "b"), (1, "a")]);
    }

    #[test]
    fn of_two_entries_with_one_key_the_last_stays() {
        let map = [(1, "a"), (2, "b"), (1, "c")].into_iter().into_map();
        assert_eq!(map, BTreeMap::from([(1, "c"), (2, "b")]));
        assert_eq!([2, 1, 2].into_iter().into_set(), BTreeSet::from([1, 2]));
    }
}
