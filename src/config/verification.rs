//! The settings of verification: the table `verification` of a pair.

use std::time::Duration;

use super::reader::Fields;

/// What is verified, and what follows from what is found.
#[derive(Clone, Debug)]
pub struct Verification {
    /// Schemas, tables and columns whose content is left out, quoted as Postgres quotes them.
    pub exclude: Vec<String>,
    /// How long one side is read; `None` reads until it is done.
    pub time_budget: Option<Duration>,
    /// Whether a table that could not be read, or did not fit the time budget, fails the run.
    pub is_not_checked_fatal: bool,
}

/// Reads the table.
pub(super) fn verification(pair: &mut Fields<'_>) -> Verification {
    let empty = serde_json::Map::new();
    let (path, map) = pair.object("verification").unwrap_or_else(|| (String::new(), &empty));
    let mut fields = Fields::new(path, map, pair.problems());
    let found = Verification {
        exclude: fields.texts("exclude").unwrap_or_default(),
        time_budget: fields.number("time_budget_s", 10, 86_400).map(|seconds| Duration::from_secs(seconds.into())),
        is_not_checked_fatal: fields.word("on_not_checked", &[("fail", true), ("warn", false)]).unwrap_or(true),
    };
    fields.finish();
    found
}
