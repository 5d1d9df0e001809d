//! The settings of verification: the table `verification` of a pair.

use std::time::Duration;

use super::reader::{Fields, one_of, shown_text};
use super::statement;
use crate::id::{DatabaseName, RoleName};

/// What is verified, and what follows from what is found.
#[derive(Clone, Debug)]
pub struct Verification {
    /// Schemas, tables and columns whose content is left out, quoted as Postgres quotes them.
    pub exclude: Vec<String>,
    /// How long one side is read; `None` reads until it is done.
    pub time_budget: Option<Duration>,
    /// Whether a table that could not be read, or did not fit the time budget, fails the run.
    pub is_not_checked_fatal: bool,
    /// What follows when rows or definitions of the backup are gone or changed on staging.
    pub on_drift: OnDrift,
    /// Rows whose referenced row is missing.
    pub foreign_keys: Policy,
    /// Sequences behind the largest value of their column.
    pub sequences: Policy,
    /// Indexes that are invalid or not ready.
    pub invalid_indexes: Policy,
    /// Constraints that were never validated.
    pub unvalidated_constraints: Policy,
    /// B-trees that `bt_index_check` objects to.
    pub index_structure: Policy,
    /// What would act by itself on staging.
    pub armed: Policy,
    /// Tables that have lost many rows since the last verified run.
    pub row_loss: Policy,
    /// How many rows of a hundred a table may have lost.
    pub row_loss_percent: u32,
    /// Tables whose rows may go, such as queues, quoted as Postgres quotes them.
    pub row_loss_exclude: Vec<String>,
    /// Row counts of the backup and of production as it is.
    pub production_counts: Policy,
    /// How many rows of a hundred they may be apart.
    pub production_counts_percent: u32,
    /// Neon's settings that protect production and not staging.
    pub posture: Policy,
    /// People who have been given access to the project, beside those of the last verified run.
    pub people: Policy,
    /// Tables whose newest row must not be old.
    pub freshness: Vec<Freshness>,
    /// Statements with an expected result.
    pub assertions: Vec<Assertion>,
    /// Tenants that must not see each other's rows.
    pub tenants: Option<Tenants>,
    /// What is run on staging once it was compared; `None` leaves it as it is.
    pub after_restore: Option<AfterRestore>,
}

/// What follows from a defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// It is not looked for.
    Off,
    /// It is told.
    Warn,
    /// It fails the run.
    Fail,
}

/// What follows when something of the backup is gone or changed on staging, which may be in use.
///
/// There is no "off": what differs is always told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDrift {
    /// It is told, and warns nobody.
    Note,
    /// It is told as a warning.
    Warn,
    /// It fails the run.
    Fail,
}

/// A table whose newest row must not be old.
#[derive(Clone, Debug)]
pub struct Freshness {
    /// In which database; `None` means every one that is compared.
    pub database: Option<DatabaseName>,
    /// Its schema, as it is called, not quoted.
    pub schema: String,
    /// The table.
    pub table: String,
    /// A column of dates or times; those without a zone are UTC.
    pub column: String,
    /// How old the newest may be.
    pub max_age: Duration,
    /// What follows when it is older, or lies in the future.
    pub policy: Policy,
}

/// A statement with an expected result.
#[derive(Clone, Debug)]
pub struct Assertion {
    /// Its name, for the report.
    pub name: String,
    /// In which database; `None` means the first that is compared.
    pub database: Option<DatabaseName>,
    /// The statement, which only reads.
    pub sql: String,
    /// Where it is run.
    pub on: AssertedOn,
    /// What it must return; `None` only compares both sides.
    pub expected: Option<Expected>,
    /// What follows when it does not.
    pub policy: Policy,
}

/// Where an assertion is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssertedOn {
    /// On the backup, before staging is restored.
    Backup,
    /// On staging, after it was compared with the backup.
    Staging,
    /// On both, and both must answer alike.
    Both,
    /// On staging, after what is configured was run on it.
    AfterRestore,
}

/// What an assertion must return.
#[derive(Clone, Debug, PartialEq)]
pub enum Expected {
    /// This text.
    Text(String),
    /// A number between two bounds, both included.
    Range {
        /// The lower bound.
        at_least: Option<f64>,
        /// The upper bound.
        at_most: Option<f64>,
    },
}

/// What is run on staging once it was compared: it disarms the copy, resets what must not be real,
/// or seeds it.
#[derive(Clone, Debug)]
pub struct AfterRestore {
    /// In which database; `None` means the first that is compared.
    pub database: Option<DatabaseName>,
    /// The statements, run in one transaction, once in a run.
    pub sql: Vec<String>,
    /// How long all of it together may take.
    pub timeout: Duration,
}

/// Tenants that must not see each other's rows.
#[derive(Clone, Debug)]
pub struct Tenants {
    /// In which database; `None` means the first that is compared.
    pub database: Option<DatabaseName>,
    /// The role that the application logs in with.
    pub role: RoleName,
    /// The setting that says which tenant it works for.
    pub setting: String,
    /// The column that says whose a row is.
    pub column: String,
    /// The tenants, at least two.
    pub values: Vec<String>,
    /// What follows when one sees what is not its own.
    pub policy: Policy,
}

impl Freshness {
    /// Returns the name of the check.
    pub fn name(&self) -> String {
        format!("{}.{}.{}", self.schema, self.table, self.column)
    }
}

const POLICIES: [(&str, Policy); 3] =
    [("off", Policy::Off), ("warn", Policy::Warn), ("fail", Policy::Fail)];

const DRIFTS: [(&str, OnDrift); 3] =
    [("note", OnDrift::Note), ("warn", OnDrift::Warn), ("fail", OnDrift::Fail)];

const SIDES: [(&str, AssertedOn); 4] = [
    ("backup", AssertedOn::Backup),
    ("staging", AssertedOn::Staging),
    ("both", AssertedOn::Both),
    ("after_restore", AssertedOn::AfterRestore),
];

/// Reads the database of a check, which must be one of those that are compared: what is asked of
/// another is never run.
fn database(fields: &mut Fields<'_>, compared: Option<&[String]>) -> Option<DatabaseName> {
    let name = fields.text("database")?;
    if let Some(compared) =
        compared.filter(|compared| !compared.is_empty() && !compared.contains(&name))
    {
        let allowed = one_of(compared.iter().map(String::as_str));
        let text = format!(
            "is {}, which is not compared; allowed is {allowed}, or add it to the pair's databases",
            shown_text(&name)
        );
        fields.problem("database", text);
    }
    Some(name.into())
}

/// Reads the table. `compared` are the databases of the pair, where they are configured; `verifier`
/// is its role.
pub(super) fn verification(
    pair: &mut Fields<'_>,
    compared: Option<&[String]>,
    verifier: Option<&str>,
) -> Verification {
    let empty = serde_json::Map::new();
    let (path, map) = pair.object("verification").unwrap_or_else(|| (String::new(), &empty));
    let mut fields = Fields::new(path, map, pair.problems());
    let fields = &mut fields;
    let found = Verification {
        exclude: fields.texts("exclude").unwrap_or_default(),
        time_budget: fields
            .number("time_budget_s", 10, 86_400)
            .map(|seconds| Duration::from_secs(seconds.into())),
        is_not_checked_fatal: fields
            .word("on_not_checked", &[("fail", true), ("warn", false)])
            .unwrap_or(true),
        on_drift: fields.word("on_drift", &DRIFTS).unwrap_or(OnDrift::Warn),
        foreign_keys: fields.word("foreign_keys", &POLICIES).unwrap_or(Policy::Warn),
        sequences: fields.word("sequences", &POLICIES).unwrap_or(Policy::Warn),
        invalid_indexes: fields.word("invalid_indexes", &POLICIES).unwrap_or(Policy::Warn),
        unvalidated_constraints: fields
            .word("unvalidated_constraints", &POLICIES)
            .unwrap_or(Policy::Warn),
        index_structure: fields.word("index_structure", &POLICIES).unwrap_or(Policy::Warn),
        armed: fields.word("armed", &POLICIES).unwrap_or(Policy::Warn),
        row_loss: fields.word("row_loss", &POLICIES).unwrap_or(Policy::Warn),
        row_loss_percent: fields.number("row_loss_percent", 1, 100).unwrap_or(30),
        row_loss_exclude: fields.texts("row_loss_exclude").unwrap_or_default(),
        production_counts: fields.word("production_counts", &POLICIES).unwrap_or(Policy::Off),
        production_counts_percent: fields.number("production_counts_percent", 0, 100).unwrap_or(5),
        posture: fields.word("posture", &POLICIES).unwrap_or(Policy::Warn),
        people: fields.word("people", &POLICIES).unwrap_or(Policy::Off),
        freshness: freshness(fields, compared),
        assertions: assertions(fields, compared),
        tenants: tenants(fields, compared, verifier),
        after_restore: after_restore(fields, compared),
    };
    let orphan =
        found.assertions.iter().position(|assertion| assertion.on == AssertedOn::AfterRestore);
    if let Some(index) =
        orphan.filter(|_| found.after_restore.is_none() && fields.value("after_restore").is_none())
    {
        let text = "is \"after_restore\", and nothing is run then; allowed is \"staging\", or add \
            [after_restore] with sql";
        fields.problem(&format!("assertions[{index}].on"), text);
    }
    fields.refuse_unknown();
    found
}

/// Reads what follows from a check that somebody configured.
fn on_failure(fields: &mut Fields<'_>) -> Policy {
    fields
        .word("on_failure", &[("warn", Policy::Warn), ("fail", Policy::Fail)])
        .unwrap_or(Policy::Fail)
}

fn freshness(fields: &mut Fields<'_>, compared: Option<&[String]>) -> Vec<Freshness> {
    let mut found: Vec<Freshness> = Vec::new();
    for (path, map) in fields.objects("freshness") {
        let mut one = Fields::new(path, map, fields.problems());
        let (table, column) =
            (one.required("table", "\"events\""), one.required("column", "\"created_at\""));
        one.need("max_age_h", "26");
        let max_age = one.number("max_age_h", 1, 8_760);
        let database = database(&mut one, compared);
        let schema = one.text("schema").unwrap_or_else(|| "public".to_owned());
        let policy = on_failure(&mut one);
        let given = table.zip(column).zip(max_age);
        let freshness = given.map(|((table, column), hours)| {
            let max_age = Duration::from_hours(hours.into());
            Freshness { database, schema, table, column, max_age, policy }
        });
        let is_twin = |other: &Freshness, one: &Freshness| {
            other.name() == one.name() && other.database == one.database
        };
        if freshness.as_ref().is_some_and(|one| found.iter().any(|other| is_twin(other, one))) {
            one.problem("column", "is looked at by another entry; one is enough");
        }
        one.refuse_unknown();
        found.extend(freshness);
    }
    found
}

fn assertions(fields: &mut Fields<'_>, compared: Option<&[String]>) -> Vec<Assertion> {
    let mut found: Vec<Assertion> = Vec::new();
    for (path, map) in fields.objects("assertions") {
        let mut one = Fields::new(path, map, fields.problems());
        let (name, sql) = (
            one.required("name", "\"no negative balance\""),
            one.required("sql", "\"select count(*) from orders where total < 0\""),
        );
        if name.as_deref().is_some_and(|name| found.iter().any(|other| other.name == name)) {
            one.problem("name", "is used by another assertion; it must be the assertion's own");
        }
        let on = one.word("on", &SIDES).unwrap_or(AssertedOn::Backup);
        let (text, at_least, at_most) =
            (one.scalar("expect"), one.float("at_least"), one.float("at_most"));
        let expected = match (text, at_least, at_most) {
            (Some(text), None, None) => Some(Expected::Text(text)),
            (None, None, None) => None,
            (None, at_least, at_most) => Some(Expected::Range { at_least, at_most }),
            (Some(_), ..) => {
                one.problem("expect", "stands beside at_least or at_most; allowed is one of them");
                None
            }
        };
        if expected.is_none() && on != AssertedOn::Both {
            one.problem(
                "expect",
                "is missing, and so are at_least and at_most; for example expect = \"0\" (only on \
                 = \"both\" needs none)",
            );
        }
        let database = database(&mut one, compared);
        let policy = on_failure(&mut one);
        judge_assertion(&mut one, sql.as_deref(), expected.as_ref());
        one.refuse_unknown();
        if let (Some(name), Some(sql)) = (name, sql) {
            let sql = sql.trim_end().trim_end_matches(';').to_owned();
            found.push(Assertion { name, database, sql, on, expected, policy });
        }
    }
    found
}

/// Refuses what can be known to fail every morning.
fn judge_assertion(one: &mut Fields<'_>, sql: Option<&str>, expected: Option<&Expected>) {
    let problem = sql.and_then(statement::cannot_be_asked);
    if let Some(problem) = problem {
        one.problem("sql", problem);
    }
    let Some(expected) = expected else { return };
    let key = if matches!(expected, Expected::Text(_)) { "expect" } else { "at_most" };
    if let Expected::Range { at_least: Some(least), at_most: Some(most) } = expected
        && least > most
    {
        one.problem(
            "at_most",
            format!("is {most}, below at_least {least}; allowed is that number or a larger one"),
        );
    }
    let never = sql.and_then(|sql| statement::never_holds(sql, expected));
    if let Some(never) = never {
        one.problem(key, never);
    }
}

fn after_restore(fields: &mut Fields<'_>, compared: Option<&[String]>) -> Option<AfterRestore> {
    let (path, map) = fields.object("after_restore")?;
    let mut one = Fields::new(path, map, fields.problems());
    one.need("sql", "[\"update cron.job set active = false\"]");
    let sql = one.texts("sql").filter(|sql| {
        if sql.is_empty() {
            one.problem("sql", "is empty; name at least one statement, or leave the table out");
        }
        !sql.is_empty()
    });
    for (index, sql) in sql.iter().flatten().enumerate() {
        let problem = statement::cannot_be_run(sql);
        if let Some(problem) = problem {
            one.problem(&format!("sql[{index}]"), problem);
        }
    }
    let database = database(&mut one, compared);
    let minutes = one.number("timeout_min", 1, 10).unwrap_or(5);
    one.refuse_unknown();
    Some(AfterRestore { database, sql: sql?, timeout: Duration::from_mins(minutes.into()) })
}

fn tenants(
    fields: &mut Fields<'_>,
    compared: Option<&[String]>,
    verifier: Option<&str>,
) -> Option<Tenants> {
    let (path, map) = fields.object("tenants")?;
    let mut one = Fields::new(path, map, fields.problems());
    let role = one.required("role", "\"app\"");
    let setting = one.required("setting", "\"app.organization_id\"").filter(|setting| {
        let is_good = setting.contains('.')
            && setting
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_'));
        if !is_good {
            one.problem(
                "setting",
                format!(
                    "is {}; allowed is a name with a dot, such as \"app.organization_id\"",
                    shown_text(setting)
                ),
            );
        }
        is_good
    });
    let column = one.required("column", "\"organization_id\"");
    one.need("values", "[\"1\", \"2\"]");
    let values = one.texts("values").filter(|values| {
        let is_good = (2..=20).contains(&values.len());
        if !is_good {
            one.problem(
                "values",
                format!("has {} entries; allowed are 2 to 20 tenants", values.len()),
            );
        }
        is_good
    });
    let is_twice = |values: &[String]| {
        values.iter().enumerate().any(|(index, value)| values[..index].contains(value))
    };
    if values.as_deref().is_some_and(is_twice) {
        one.problem(
            "values",
            "has a tenant twice; allowed is each once, so that one can be told from another",
        );
    }
    if role.is_some() && role.as_deref() == verifier {
        one.problem(
            "role",
            "is the role that verifies, which sees every row; allowed is the role that the \
             application logs in with",
        );
    }
    let database = database(&mut one, compared);
    let policy = on_failure(&mut one);
    one.refuse_unknown();
    Some(Tenants {
        database,
        role: role?.into(),
        setting: setting?,
        column: column?,
        values: values?,
        policy,
    })
}

#[cfg(test)]
mod tests;
