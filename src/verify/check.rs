//! One check of the report: what was looked at, how it went, what was found.
//!
//! Invariants: a check that did not run never counts as passed.

use serde::{Deserialize, Serialize};

use super::{Difference, RowDifferences};
use crate::id::DatabaseName;

/// One check of the report.
///
/// Shape: `{"name":"neondb: content of
/// public.users","kind":"content","database":"neondb","object":"public.users","outcome":"passed",
/// "detail":"12 rows equal"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was checked, for people, such as `neondb: content of public.users`; unique in a report.
    pub name: String,
    /// What was checked, for programs.
    #[serde(default)]
    pub kind: CheckKind,
    /// In which database; missing where it is about none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseName>,
    /// The table, the kind of schema objects, the role, or the name of a configured check.
    #[serde(default)]
    pub object: String,
    /// How it went.
    pub outcome: CheckOutcome,
    /// Whether the run goes on although it was not checked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_optional: bool,
    /// What was expected and seen, or why it was not checked; empty when there is nothing to say.
    pub detail: String,
    /// The objects that differ, at most twenty; the detail says how many there are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<Difference>,
    /// What was found, at most twenty; the detail says how many there are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<String>,
    /// Whether staging is not what was restored any more, and how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<Drift>,
    /// The rows that differ, where they were counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<RowDifferences>,
}

/// How staging, as people get it, differs from the backup that it was restored from.
///
/// Both sides are read while staging may be in use, and nothing in a database says who has written.
/// A difference is therefore told as what it is to those who use staging, and never as the proof of
/// a bad copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Drift {
    /// Something of the backup is gone or changed, or may be.
    Lost,
    /// Everything of the backup is there; something was added.
    Added,
}

/// What a check is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckKind {
    /// A database is on both sides.
    #[default]
    Database,
    /// All objects of a kind.
    Schema,
    /// The rows of a table.
    Content,
    /// Where a sequence stands.
    Sequence,
    /// Rows whose referenced row is missing.
    ForeignKeys,
    /// Sequences behind the largest value of their column.
    SequenceBounds,
    /// Indexes that are invalid or not ready.
    InvalidIndexes,
    /// Constraints that were never validated.
    UnvalidatedConstraints,
    /// B-trees that are damaged.
    IndexStructure,
    /// The newest row of a table is not too old.
    Freshness,
    /// Tables that have lost many rows since the last verified run.
    RowLoss,
    /// Row counts of the backup and of production as it is.
    ProductionCounts,
    /// A configured statement returns what was expected.
    Assertion,
    /// A tenant sees its own rows only.
    Tenants,
    /// What would act by itself on staging.
    Armed,
    /// What is configured was run on staging.
    AfterRestore,
    /// Neon's settings that protect production and not staging.
    Posture,
    /// Who has been given access to the project.
    People,
    /// Staging is a child of this run's backup, and begins where that ends.
    Source,
    /// A role of staging logs in.
    LogIn,
    /// The staging application answers.
    SmokeTest,
}

impl CheckKind {
    /// Returns how a check of this kind is called.
    fn render(self, object: &str) -> String {
        match self {
            Self::Database => "database".to_owned(),
            Self::Schema => object.to_owned(),
            Self::Content => format!("content of {object}"),
            Self::Sequence => format!("sequence {object}"),
            Self::ForeignKeys => "foreign keys".to_owned(),
            Self::SequenceBounds => "sequences and their columns".to_owned(),
            Self::InvalidIndexes => "invalid indexes".to_owned(),
            Self::UnvalidatedConstraints => "constraints that were never validated".to_owned(),
            Self::IndexStructure => "structure of indexes".to_owned(),
            Self::Freshness => format!("freshness of {object}"),
            Self::RowLoss => "rows since the last verified run".to_owned(),
            Self::ProductionCounts => "rows of production as it is".to_owned(),
            Self::Assertion => format!("assertion {object}"),
            Self::Tenants => format!("tenants in {object}"),
            Self::Armed => "what acts by itself".to_owned(),
            Self::AfterRestore => "after_restore".to_owned(),
            Self::Posture => "protection of staging".to_owned(),
            Self::People => "people with access".to_owned(),
            Self::Source => "staging: its source".to_owned(),
            Self::LogIn => format!("staging: role {object} logs in"),
            Self::SmokeTest => format!("smoke test: {object}"),
        }
    }
}

/// How a check went; what people should look at first comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckOutcome {
    /// It was run and did not hold.
    Failed,
    /// It could not be run.
    NotChecked,
    /// It was run; somebody should look, nothing is stopped.
    Warned,
    /// There is nothing to check.
    Skipped,
    /// It was run and held.
    Passed,
}

impl Check {
    /// Returns a check of something in a database.
    pub fn of(
        kind: CheckKind,
        database: &DatabaseName,
        object: &str,
        outcome: CheckOutcome,
        detail: impl Into<String>,
    ) -> Self {
        let name = format!("{database}: {}", kind.render(object));
        Self {
            name,
            database: Some(database.clone()),
            ..Self::of_pair(kind, object, outcome, detail)
        }
    }

    /// Returns a check of something that is in no database.
    pub fn of_pair(
        kind: CheckKind,
        object: &str,
        outcome: CheckOutcome,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            name: kind.render(object),
            kind,
            database: None,
            object: object.to_owned(),
            outcome,
            is_optional: false,
            detail: detail.into(),
            differences: Vec::new(),
            findings: Vec::new(),
            drift: None,
            rows: None,
        }
    }

    /// Returns the same check with another outcome.
    #[must_use]
    pub fn again(&self, outcome: CheckOutcome, detail: impl Into<String>) -> Self {
        Self {
            outcome,
            detail: detail.into(),
            differences: Vec::new(),
            findings: Vec::new(),
            drift: None,
            rows: None,
            ..self.clone()
        }
    }

    /// Returns the same check with the rows that differ.
    #[must_use]
    pub fn with(self, rows: RowDifferences) -> Self {
        Self { rows: Some(rows), ..self }
    }

    /// Returns whether people are told of it in a notice. That a database has no `amcheck`, or a
    /// first run no run before it, is told in the report alone, where it does not come back every
    /// morning.
    pub fn is_worth_telling(&self) -> bool {
        match self.outcome {
            CheckOutcome::Failed | CheckOutcome::Warned => true,
            CheckOutcome::NotChecked => {
                !matches!(
                    self.kind,
                    CheckKind::IndexStructure | CheckKind::RowLoss | CheckKind::Source
                ) || !self.is_optional
            }
            CheckOutcome::Passed | CheckOutcome::Skipped => false,
        }
    }

    /// Returns whether it stands in the way of a success.
    pub fn is_objection(&self) -> bool {
        self.outcome == CheckOutcome::Failed
            || self.outcome == CheckOutcome::NotChecked && !self.is_optional
    }
}

/// As it is told to people: what was checked, and what was found.
impl std::fmt::Display for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let not = if self.outcome == CheckOutcome::NotChecked { "not checked: " } else { "" };
        write!(f, "{}: {not}{}", self.name, self.detail)
    }
}
