//! How a notice tells that staging is not what was restored any more.
//!
//! Invariants: *verified* is never said without what is gone, changed or was added. What is gone or
//! changed stands first.

use crate::sync::checkpoint::Checkpoint;
use crate::verify::{Check, CheckKind, Drift, TOLD};

/// Returns the text of a success: what staging has lost, then what was done, then what was
/// verified. `end` ends the sentence.
pub(super) fn told_with(checkpoint: &Checkpoint, done: &str, end: &str) -> String {
    let lost = lines(checkpoint, Drift::Lost);
    let (first, verified) = if lost.is_empty() {
        (String::new(), "Staging data verified")
    } else {
        (
            format!("Staging is not what was restored any more: {lost}. "),
            "All else of staging data verified",
        )
    };
    let added = lines(checkpoint, Drift::Added);
    let added = if added.is_empty() { added } else { format!("; {added} since") };
    format!("{first}{done} {verified}{added}{end}")
}

/// Tells some of the checks that drifted so, those with rows first, and how many more there are.
fn lines(checkpoint: &Checkpoint, drift: Drift) -> String {
    let drifted = checkpoint.checks.iter().filter(|check| check.drift == Some(drift));
    let (tables, others): (Vec<&Check>, Vec<&Check>) =
        drifted.partition(|check| check.kind == CheckKind::Content);
    let has_many = checkpoint.databases.len() > 1;
    let all: Vec<String> =
        tables.into_iter().chain(others).map(|check| line(check, drift, has_many)).collect();
    let more = all.len().saturating_sub(TOLD);
    let more = (more > 0).then(|| format!("and {more} more"));
    all.into_iter().take(TOLD).chain(more).collect::<Vec<_>>().join("; ")
}

fn line(check: &Check, drift: Drift, has_many_databases: bool) -> String {
    let database = check
        .database
        .as_ref()
        .filter(|_| has_many_databases)
        .map_or_else(String::new, |database| format!("{database}: "));
    let object = &check.object;
    match (&check.rows, check.kind, drift) {
        (Some(rows), ..)
            if check.drift == Some(Drift::Lost) && rows.counts.gone + rows.counts.changed == 0 =>
        {
            let why = if rows.limits.is_empty() {
                "it is gone"
            } else {
                "rows of the backup may be gone or changed"
            };
            format!("{database}{object}: {why}")
        }
        (Some(rows), ..) if rows.counts.added == 0 && drift == Drift::Added => {
            format!("{database}{object}: no row was added")
        }
        (Some(rows), ..) => format!("{database}{object}: {}", rows.summary()),
        (None, CheckKind::Sequence, Drift::Lost) => format!("{database}sequence {object} is gone"),
        (None, CheckKind::Sequence, Drift::Added) => {
            format!("{database}sequence {object} was added")
        }
        (None, _, Drift::Lost) => {
            format!("{database}{object}: definitions of the backup are gone or changed")
        }
        (None, _, Drift::Added) => format!("{database}{object}: definitions were added"),
    }
}
