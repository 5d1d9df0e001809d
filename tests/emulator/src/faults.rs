//! Misbehaviour on request.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::Finish;

/// One misbehaviour: for the n-th request of a route from now on.
///
/// Shape: `{"route":"restoreProjectBranch","nth":1,"fault":{"kind":"drop_after"}}`. A route is an
/// `operationId` of Neon's OpenAPI document, or `sql`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Planned {
    /// The route.
    pub(crate) route: String,
    /// Which request of it, counted from one.
    #[serde(default = "one")]
    pub(crate) nth: u32,
    /// What happens.
    pub(crate) fault: Fault,
}

fn one() -> u32 {
    1
}

/// What goes wrong.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Fault {
    /// The request is answered with a status and nothing is done.
    Refuse {
        /// The status code.
        status: u16,
        /// The body; the usual error when missing.
        #[serde(default)]
        body: Option<Value>,
    },
    /// Nothing is done and nothing is answered.
    Hang,
    /// The connection is dropped before anything is done.
    DropBefore,
    /// It is done, and the connection is dropped instead of an answer.
    DropAfter,
    /// It is done after a while, and the connection is dropped at once.
    Later {
        /// After how long.
        milliseconds: u64,
    },
    /// It is done to its end, also where its client goes away: what Postgres has begun is then not
    /// cancelled. Only for `sql`.
    OutlivesClient,
    /// It is done, and the body of the answer is cut in the middle.
    Cut,
    /// It is done, and the restored data is changed before anybody can read it: a copy that is no
    /// copy.
    Tamper {
        /// What is run on it, as the superuser, in `neondb`.
        sql: String,
        /// Where the change lies; after the fork when missing.
        #[serde(default, rename = "where")]
        place: Place,
    },
    /// It is done, and the first operation ends like this.
    Operation {
        /// How it ends.
        finish: Finish,
    },
}

/// Where a change of restored data lies, as seen from the position at which the data forked from
/// its source.
///
/// Source: inferred from Neon's storage, where a read falls through to the ancestor at the fork; no
/// document states it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Below it: a branch at the fork shows the change. Neon can have that only where the source
    /// was another.
    Before,
    /// Above it, in the timeline of the restored branch: a branch at the fork shows what the source
    /// holds.
    #[default]
    After,
}

/// The misbehaviour that is planned.
#[derive(Default)]
pub(crate) struct Faults {
    planned: Vec<Planned>,
}

impl Faults {
    /// Plans one more.
    pub(crate) fn add(&mut self, planned: Planned) {
        self.planned.push(planned);
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.planned.clear();
    }

    /// Returns what is planned.
    pub(crate) fn list(&self) -> &[Planned] {
        &self.planned
    }

    /// Counts a request of a route, and returns what goes wrong with it.
    pub(crate) fn next(&mut self, route: &str) -> Option<Fault> {
        let mut due = None;
        for (index, planned) in
            self.planned.iter_mut().enumerate().filter(|(_, planned)| planned.route == route)
        {
            planned.nth = planned.nth.saturating_sub(1);
            if planned.nth == 0 && due.is_none() {
                due = Some(index);
            }
        }
        due.map(|index| self.planned.remove(index).fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_request_of_a_route_misbehaves_once() {
        let mut faults = Faults::default();
        faults.add(Planned { route: "sql".into(), nth: 2, fault: Fault::Hang });
        let due: Vec<bool> = ["sql", "getProject", "sql", "sql"]
            .iter()
            .map(|route| faults.next(route).is_some())
            .collect();
        assert_eq!(due, [false, false, true, false]);
    }
}
