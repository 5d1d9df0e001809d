//! What can be deleted, and in which order.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::room::Hold;
use crate::id::BranchId;
use crate::neon::wire::Branch;
use crate::ordered::IntoOrdered as _;

/// Branches by their places in a listing, with their parents and children.
pub(super) struct Tree<'a> {
    branches: &'a [Branch],
    parents: Vec<Option<usize>>,
    children: Vec<Vec<usize>>,
}

impl<'a> Tree<'a> {
    /// Finds the parent of each branch.
    pub(super) fn new(branches: &'a [Branch]) -> Self {
        let places: BTreeMap<&BranchId, usize> =
            branches.iter().enumerate().map(|(place, branch)| (&branch.id, place)).into_map();
        let parents: Vec<Option<usize>> = branches
            .iter()
            .map(|branch| branch.parent_id.as_ref().and_then(|id| places.get(id).copied()))
            .collect();
        let mut children = vec![Vec::new(); branches.len()];
        for (place, parent) in parents.iter().enumerate() {
            if let Some(parent) = parent {
                children[*parent].push(place);
            }
        }
        Self { branches, parents, children }
    }

    /// Takes out of what goes what has a child that stays, and what that pins in turn. Returns what
    /// was taken out, each with that child.
    pub(super) fn drop_pinned(&self, goes: &mut [bool]) -> Vec<(usize, usize)> {
        let mut pinned = Vec::new();
        let mut suspects: Vec<usize> = (0..goes.len()).filter(|place| goes[*place]).collect();
        while let Some(place) = suspects.pop() {
            let staying = self.children[place].iter().find(|child| !goes[**child]);
            let Some(child) = staying.filter(|_| goes[place]) else { continue };
            goes[place] = false;
            pinned.push((place, *child));
            suspects.extend(self.parents[place]);
        }
        pinned
    }

    /// Orders what goes: children before parents, newest first, so that an abort leaves a usable
    /// set.
    pub(super) fn children_first(&self, goes: &[bool]) -> Vec<usize> {
        let mut left: Vec<usize> = self.children.iter().map(Vec::len).collect();
        let age =
            |place: usize| (self.branches[place].created_at, &self.branches[place].name, place);
        let mut leaves: BinaryHeap<_> =
            (0..goes.len()).filter(|place| goes[*place] && left[*place] == 0).map(age).collect();
        let mut ordered = Vec::with_capacity(goes.len());
        // A tree always has a leaf; should Neon ever answer with a circle, nothing of it is
        // deleted.
        while let Some((.., place)) = leaves.pop() {
            ordered.push(place);
            if let Some(parent) = self.parents[place].filter(|parent| goes[*parent]) {
                left[parent] -= 1;
                if left[parent] == 0 {
                    leaves.push(age(parent));
                }
            }
        }
        ordered
    }

    /// Orders what may go where a run finds no room: always the leaf that is held by the least. Of
    /// what nothing holds the newest goes first, as ever, of the others the oldest.
    pub(super) fn give_way(&self, holds: &[Option<Hold>]) -> Vec<usize> {
        let mut left: Vec<usize> = self.children.iter().map(Vec::len).collect();
        let key = |place: usize| {
            let hold = holds[place]?;
            let made_at = self.branches[place].created_at.timestamp_millis();
            Some(Reverse((
                hold,
                if hold == Hold::Nothing { -made_at } else { made_at },
                &self.branches[place].name,
                place,
            )))
        };
        let mut leaves: BinaryHeap<_> =
            (0..holds.len()).filter(|place| left[*place] == 0).filter_map(key).collect();
        let mut ordered = Vec::new();
        while let Some(Reverse((.., place))) = leaves.pop() {
            ordered.push(place);
            if let Some(parent) = self.parents[place] {
                left[parent] -= 1;
                leaves.extend((left[parent] == 0).then_some(parent).and_then(key));
            }
        }
        ordered
    }
}
