//! What a database is made of: every kind of object, from its catalogue.
//!
//! In: rows of `schema.sql`. Out: a count and a digest for each kind; for kinds that differ, the
//! items that do.
//!
//! Invariants: what may hold a secret is digested and never fetched: function bodies, trigger
//! arguments, settings, foreign options.
//!
//! What is not compared: passwords of roles, which only a superuser may read, and subscriptions.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::catalogue::{in_one_line, settings, text};
use super::{DatabasePrint, Digest, NAMED, differing};
use crate::neon::sql::{Batch, Rows};
use crate::ordered::IntoOrdered as _;

/// Every object: `kind`, `name`, `definition`; without comments and line ends, which would be sent
/// with every request.
static ITEMS: LazyLock<String> = LazyLock::new(|| in_one_line(include_str!("schema.sql")));

/// Kinds whose definitions may hold a secret.
const SECRETIVE: &str = "'function bodies', 'trigger arguments', 'settings', 'foreign options'";

/// Items of the kinds that differ that are fetched at once, with their definitions: half of Neon's
/// limit of 10 MB for a response.
pub const ITEMS_AT_ONCE: u64 = 10_000;

/// Groups that the items of a kind are put in by their names where they are more.
pub const GROUPS: u32 = 256;

/// Characters of a definition that are fetched: a column or a policy fits, a view is recognised.
const SHOWN: u32 = 300;

/// An object as one side has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    kind: String,
    name: String,
    digest: String,
    /// `None` where it may hold a secret.
    definition: Option<String>,
}

/// An object that is not the same on both sides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Which one.
    pub name: String,
    /// How the backup has it; `None` when it has not.
    pub backup: Option<String>,
    /// How staging has it; `None` when it has not.
    pub staging: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, backup, staging } = self;
        match (backup, staging) {
            (Some(backup), Some(staging)) => {
                write!(f, "{name}: in the backup {backup:?}, on staging {staging:?}")
            }
            (Some(backup), None) => write!(f, "{name}: in the backup {backup:?}, not on staging"),
            (None, _) => write!(f, "{name}: on staging and not in the backup"),
        }
    }
}

/// Returns the statement that digests each kind.
pub(super) fn digests() -> (String, Vec<String>) {
    let sql = format!(
        "{}select kind, count(*)::text, \
            coalesce(sum(pg_catalog.hashtextextended(pg_catalog.concat(name, \
            pg_catalog.chr(10), definition), 1)), 0)::text \
            from items group by kind",
        *ITEMS
    );
    (sql, Vec::new())
}

/// The items of a kind in a group: how many, and a digest.
pub type Groups = BTreeMap<(String, u32), Digest>;

/// Returns the batch that digests the items of some kinds in groups.
pub fn groups_batch(kinds: &[&str]) -> Batch {
    let sql = format!(
        "{}select kind, (pg_catalog.hashtextextended(name, 1) & {})::text, count(*)::text, \
            sum(pg_catalog.hashtextextended(pg_catalog.concat(name, pg_catalog.chr(10), \
            definition), 1))::text \
            from items where kind in ({}) group by 1, 2",
        *ITEMS,
        GROUPS - 1,
        places(kinds.len())
    );
    Batch { statements: vec![settings(), (sql, owned(kinds))], is_read_only: true }
}

/// Reads the answer to [`groups_batch`]; `None` when it makes no sense.
pub fn decode_groups(results: &[Rows]) -> Option<Groups> {
    let [_, groups] = results else { return None };
    let group = |row: &Vec<Option<String>>| {
        let digest =
            Digest { count: text(row, 2)?.parse().ok()?, digest: text(row, 3)?.to_owned() };
        Some(((text(row, 0)?.to_owned(), text(row, 1)?.parse().ok()?), digest))
    };
    Some(groups.rows.iter().map(group).collect::<Option<Vec<_>>>()?.into_iter().into_map())
}

/// The groups whose items are fetched, and how many more differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    groups: BTreeMap<String, Vec<u32>>,
    left: BTreeMap<String, usize>,
}

impl Chosen {
    /// Chooses groups that differ, as many as fit a reply.
    pub fn of(backup: &Groups, staging: &Groups) -> Self {
        let (mut chosen, mut sum) = (Self::default(), 0);
        for key in differing(backup, staging) {
            let count = |side: &Groups| side.get(key).map_or(0, |digest| digest.count);
            let more = count(backup).max(count(staging));
            let (kind, group) = key.clone();
            if sum + more > ITEMS_AT_ONCE {
                *chosen.left.entry(kind).or_default() += 1;
                continue;
            }
            sum += more;
            chosen.groups.entry(kind).or_default().push(group);
        }
        chosen
    }

    /// Returns how many groups of a kind differ and are not looked into.
    pub fn left(&self, kind: &str) -> usize {
        self.left.get(kind).copied().unwrap_or(0)
    }
}

fn places(count: usize) -> String {
    (1..=count).map(|number| format!("${number}")).collect::<Vec<_>>().join(", ")
}

fn owned(kinds: &[&str]) -> Vec<String> {
    kinds.iter().map(|kind| (*kind).to_owned()).collect()
}

/// Returns the batch that fetches the items of some kinds, of those of the chosen groups alone
/// where groups were chosen.
pub fn items_batch(kinds: &[&str], chosen: Option<&Chosen>) -> Batch {
    let wanted = match chosen {
        None => format!("kind in ({})", places(kinds.len())),
        Some(chosen) => {
            let of = |(index, kind): (usize, &&str)| {
                let groups = chosen
                    .groups
                    .get(*kind)
                    .map(|groups| groups.iter().map(u32::to_string).collect::<Vec<_>>().join(", "));
                let group = format!("(pg_catalog.hashtextextended(name, 1) & {})", GROUPS - 1);
                format!(
                    "kind = ${} and {group} in ({})",
                    index + 1,
                    groups.unwrap_or_else(|| "null".to_owned())
                )
            };
            kinds.iter().enumerate().map(of).collect::<Vec<_>>().join(" or ")
        }
    };
    let sql = format!(
        "{}select kind, name, pg_catalog.hashtextextended(coalesce(definition, ''), 1)::text, \
            case when kind in ({SECRETIVE}) then null else pg_catalog.left(coalesce(definition, \
            ''), {SHOWN}) end \
            from items where {wanted} order by kind, name",
        *ITEMS
    );
    Batch { statements: vec![settings(), (sql, owned(kinds))], is_read_only: true }
}

/// Takes up the rows of [`digests`]; `None` when they make no sense.
pub(super) fn decode_digests(rows: &Rows, print: &mut DatabasePrint) -> Option<()> {
    for row in &rows.rows {
        let digest =
            Digest { count: text(row, 1)?.parse().ok()?, digest: text(row, 2)?.to_owned() };
        print.schema.insert(text(row, 0)?.to_owned(), digest);
    }
    // Every database has a version and a schema; without them nothing was read.
    (print.schema.contains_key("server") && print.schema.contains_key("schemas")).then_some(())
}

/// Reads the answer to [`items_batch`]; `None` when it makes no sense.
pub fn decode_items(results: &[Rows]) -> Option<Vec<Item>> {
    let [_, items] = results else { return None };
    let item = |row: &Vec<Option<String>>| {
        let (kind, name, digest) =
            (text(row, 0)?.to_owned(), text(row, 1)?.to_owned(), text(row, 2)?.to_owned());
        Some(Item { kind, name, digest, definition: row.get(3)?.clone() })
    };
    items.rows.iter().map(item).collect()
}

/// Names the items of a kind that differ, at most twenty of them, and says how many there are, and
/// how many of those the backup has.
pub fn differences(
    kind: &str,
    backup: &[Item],
    staging: &[Item],
) -> (Vec<Difference>, usize, usize) {
    let of_kind = |items: &'_ [Item]| -> BTreeMap<String, Item> {
        items
            .iter()
            .filter(|item| item.kind == kind)
            .map(|item| (item.name.clone(), item.clone()))
            .into_map()
    };
    let (backup, staging) = (of_kind(backup), of_kind(staging));
    let shown = |item: &Item| {
        item.definition.clone().unwrap_or_else(|| "(not shown: it may hold a secret)".to_owned())
    };
    let found: Vec<Difference> = differing(&backup, &staging)
        .map(|name| Difference {
            name: name.clone(),
            backup: backup.get(name).map(shown),
            staging: staging.get(name).map(shown),
        })
        .collect();
    let (count, lost) =
        (found.len(), found.iter().filter(|difference| difference.backup.is_some()).count());
    (found.into_iter().take(NAMED).collect(), count, lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(name: &str, digest: &str, definition: Option<&str>) -> Item {
        Item {
            kind: "triggers".to_owned(),
            name: name.to_owned(),
            digest: digest.to_owned(),
            definition: definition.map(str::to_owned),
        }
    }

    fn told(backup: &[Item], staging: &[Item]) -> Vec<String> {
        differences("triggers", backup, staging).0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_object_that_differs_is_told_as_both_sides_have_it() {
        let (before, after) =
            ([item("a", "1", Some("enabled"))], [item("a", "2", Some("disabled"))]);
        assert_eq!(
            told(&before, &after),
            ["a: in the backup \"enabled\", on staging \"disabled\""]
        );
        assert_eq!(told(&before, &[]), ["a: in the backup \"enabled\", not on staging"]);
        assert_eq!(told(&[], &after), ["a: on staging and not in the backup"]);
        assert_eq!(told(&before, &before), Vec::<String>::new());
    }

    #[test]
    fn what_may_hold_a_secret_is_not_shown() {
        let text = &told(&[item("a", "1", None)], &[item("a", "2", None)])[0];
        assert_eq!(text.matches("(not shown: it may hold a secret)").count(), 2, "{text}");
    }

    #[test]
    fn twenty_objects_are_named_and_all_are_counted() {
        let many: Vec<Item> =
            (0..30).map(|number| item(&format!("t{number}"), "1", Some(""))).collect();
        let (named, count, lost) = differences("triggers", &many, &[]);
        assert_eq!((named.len(), count, lost), (20, 30, 30));
        let (_, count, lost) = differences("triggers", &many[..1], &many);
        assert_eq!((count, lost), (29, 0), "all of them were added");
        assert_eq!(differences("rules", &many, &[]).1, 0, "objects of another kind");
    }

    #[test]
    fn of_many_items_those_are_fetched_whose_group_differs_and_the_rest_is_counted() {
        let group = |kind: &str, group: u32, count: u64, digest: &str| {
            ((kind.to_owned(), group), Digest { count, digest: digest.to_owned() })
        };
        let backup: Groups = [
            group("columns", 1, 6_000, "1"),
            group("columns", 2, 6_000, "1"),
            group("rules", 3, 9, "1"),
        ]
        .into();
        let staging: Groups = [
            group("columns", 1, 6_000, "2"),
            group("columns", 2, 6_000, "2"),
            group("rules", 3, 9, "1"),
        ]
        .into();
        let chosen = Chosen::of(&backup, &staging);
        assert_eq!(
            (chosen.groups["columns"].as_slice(), chosen.left("columns"), chosen.left("rules")),
            (&[1][..], 1, 0)
        );
        let sql = &items_batch(&["columns", "rules"], Some(&chosen)).statements[1].0;
        assert!(
            sql.contains("kind = $1 and (pg_catalog.hashtextextended(name, 1) & 255) in (1)"),
            "{sql}"
        );
        assert!(
            sql.contains("kind = $2 and (pg_catalog.hashtextextended(name, 1) & 255) in (null)"),
            "{sql}"
        );
        assert_eq!(Chosen::of(&backup, &backup), Chosen::default());
    }

    #[test]
    fn an_answer_without_a_version_or_a_schema_is_no_reading() {
        let row = |kind: &str| [kind, "1", "7"].map(|value| Some(value.to_owned())).to_vec();
        let read = |kinds: &[&str]| {
            decode_digests(
                &Rows { rows: kinds.iter().map(|kind| row(kind)).collect() },
                &mut DatabasePrint::new(),
            )
        };
        assert_eq!(
            [
                read(&["server", "schemas", "rules"]),
                read(&["server"]),
                read(&["schemas"]),
                read(&[])
            ],
            [Some(()), None, None, None]
        );
    }
}
