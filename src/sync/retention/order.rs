//! What can be deleted, and in which order.

use std::collections::{BTreeMap, BinaryHeap};

use crate::id::BranchId;
use crate::neon::wire::Branch;

/// Branches by their parent.
pub(super) type Children<'a> = BTreeMap<&'a BranchId, Vec<&'a Branch>>;

/// Sorts branches by their parent.
pub(super) fn children(branches: &[Branch]) -> Children<'_> {
    let mut children = Children::new();
    for branch in branches {
        if let Some(parent) = &branch.parent_id {
            children.entry(parent).or_default().push(branch);
        }
    }
    children
}

/// Takes out what has a child that stays, and what that pins in turn. Returns what was taken out, each with that child.
pub(super) fn drop_pinned<'a>(going: &mut BTreeMap<&'a BranchId, &'a Branch>, children: &Children<'a>) -> Vec<(&'a Branch, &'a Branch)> {
    let mut pinned = Vec::new();
    let mut suspects: Vec<&BranchId> = going.keys().copied().collect();
    while let Some(id) = suspects.pop() {
        let stays = |child: &&&Branch| !going.contains_key(&child.id);
        let Some(child) = children.get(id).into_iter().flatten().find(stays) else { continue };
        if let Some(branch) = going.remove(id) {
            pinned.push((branch, *child));
            suspects.extend(&branch.parent_id);
        }
    }
    pinned
}

/// Orders deletions: children before parents, newest first, so that an abort leaves a usable set.
pub(super) fn children_first<'a>(going: &BTreeMap<&'a BranchId, &'a Branch>, children: &Children<'a>) -> Vec<&'a Branch> {
    let mut left: BTreeMap<&BranchId, usize> = going.keys().map(|id| (*id, children.get(id).map_or(0, Vec::len))).collect();
    let key = |branch: &'a Branch| (branch.created_at, &branch.name, &branch.id);
    let mut leaves: BinaryHeap<_> = going.values().filter(|branch| left.get(&branch.id) == Some(&0)).map(|branch| key(branch)).collect();
    let mut ordered = Vec::with_capacity(going.len());
    // A tree always has a leaf; should Neon ever answer with a circle, nothing of it is deleted.
    while let Some((.., id)) = leaves.pop() {
        let Some(branch) = going.get(id) else { continue };
        ordered.push(*branch);
        let parent = branch.parent_id.as_ref().and_then(|parent| going.get(parent));
        if let Some(count) = parent.and_then(|parent| left.get_mut(&parent.id)) {
            *count -= 1;
            if *count == 0 {
                leaves.extend(parent.map(|parent| key(parent)));
            }
        }
    }
    ordered
}
