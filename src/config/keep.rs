//! The keep rules: which backups of a pair stay.
//!
//! In: the keys `keep_…` of a pair, or those of a query that asks what other rules would do. Out:
//! [`KeepRules`].
//!
//! Invariants: the words are restic's, and the rules add up: a backup stays when any of them keeps
//! it. A rule that is set keeps something; there is no default for a rule, because a default would
//! delete.
//!
//! Source: restic 0.17, `restic-forget(1)`: "keep the last n daily snapshots"; "newer than duration
//! … relative to the latest snapshot".

use crate::ordered::IntoOrdered as _;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

use super::reader::{Fields, Problem};

/// The largest number of a rule: more backups than Neon has branches for (5,000 in a project) help
/// nobody.
const MOST: u32 = 1_000;

/// Verified backups that are kept whatever the rules say, where `keep_at_least` is not set.
const AT_LEAST: u32 = 3;

/// A keep rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// `keep_last`.
    Last,
    /// `keep_daily`.
    Daily,
    /// `keep_weekly`.
    Weekly,
    /// `keep_monthly`.
    Monthly,
    /// `keep_yearly`.
    Yearly,
    /// `keep_within`.
    Within,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 6] =
        [Self::Last, Self::Daily, Self::Weekly, Self::Monthly, Self::Yearly, Self::Within];

    /// Returns its key and the key of its tier, as they stand in a pair and in a query.
    fn keys(self) -> (&'static str, &'static str) {
        match self {
            Self::Last => ("keep_last", "keep_last_tier"),
            Self::Daily => ("keep_daily", "keep_daily_tier"),
            Self::Weekly => ("keep_weekly", "keep_weekly_tier"),
            Self::Monthly => ("keep_monthly", "keep_monthly_tier"),
            Self::Yearly => ("keep_yearly", "keep_yearly_tier"),
            Self::Within => ("keep_within", "keep_within_tier"),
        }
    }

    /// Returns its key.
    pub fn key(self) -> &'static str {
        self.keys().0
    }

    /// Returns the key of its tier.
    pub fn tier_key(self) -> &'static str {
        self.keys().1
    }
}

/// What keeps a backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// The branch that the run made: there at once, and counted against the plan's branches.
    #[default]
    Branch,
    /// A snapshot of Neon's, for the long tail.
    Snapshot,
}

impl Tier {
    /// Returns the other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Branch => Self::Snapshot,
            Self::Snapshot => Self::Branch,
        }
    }

    /// Returns the word that is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Branch => "branch",
            Self::Snapshot => "snapshot",
        }
    }
}

/// What is kept of a pair. A rule that is 0 or `None` is not set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeepRules {
    /// The newest backups.
    pub last: u32,
    /// The newest backup of each of the last days that have one.
    pub daily: u32,
    /// The newest backup of each of the last weeks of ISO 8601 that have one.
    pub weekly: u32,
    /// The newest backup of each of the last months that have one.
    pub monthly: u32,
    /// The newest backup of each of the last years that have one.
    pub yearly: u32,
    /// Backups that are no older than this before the newest.
    pub within: Option<Span>,
    /// The newest verified backups that no rule may delete, at least one.
    pub at_least: u32,
    /// Days for which a backup that was not verified is kept; `None` keeps it until somebody
    /// deletes it.
    pub failed_days: Option<u32>,
    /// The newest displaced branches, at least one.
    pub displaced: u32,
    /// The rules that keep snapshots; the others keep branches.
    pub as_snapshots: BTreeSet<Rule>,
}

/// A span of the calendar such as `1y6m`, `14d` or `36h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Years.
    pub years: u32,
    /// Months.
    pub months: u32,
    /// Days.
    pub days: u32,
    /// Hours.
    pub hours: u32,
}

impl FromStr for Span {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (mut span, mut rest, mut before) = (Self::default(), text, 0);
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let number: u32 = rest[..digits].parse().map_err(drop)?;
            let unit = rest[digits..].chars().next().ok_or(())?;
            // Each unit once, the largest first: `1m1y` and `1d1d` are slips.
            let place = 1 + "ymdh".find(unit).ok_or(())?;
            if place <= before || number > 10_000 {
                return Err(());
            }
            before = place;
            *[&mut span.years, &mut span.months, &mut span.days, &mut span.hours][place - 1] =
                number;
            rest = &rest[digits + 1..];
        }
        if span == Self::default() { Err(()) } else { Ok(span) }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [(self.years, 'y'), (self.months, 'm'), (self.days, 'd'), (self.hours, 'h')];
        parts
            .into_iter()
            .filter(|(number, _)| *number > 0)
            .try_for_each(|(number, unit)| write!(f, "{number}{unit}"))
    }
}

/// Reads the rules of a pair; `None` when they mean nothing.
pub(super) fn keep_rules(fields: &mut Fields<'_>) -> Option<KeepRules> {
    fields.need("keep_displaced", "1");
    let rules = read(fields);
    if Rule::ALL.iter().all(|rule| fields.value(rule.key()).is_none()) {
        let others = Rule::ALL[1..].iter().map(|rule| rule.key()).collect::<Vec<_>>().join(", ");
        fields.problem(
            "keep_last",
            format!(
                "is missing, and so are {others}; one of them has to keep something; for example \
                 keep_last = 7"
            ),
        );
        return None;
    }
    Some(rules)
}

/// Reads every rule that is there.
fn read(fields: &mut Fields<'_>) -> KeepRules {
    KeepRules {
        last: fields.number("keep_last", 1, MOST).unwrap_or(0),
        daily: fields.number("keep_daily", 1, MOST).unwrap_or(0),
        weekly: fields.number("keep_weekly", 1, MOST).unwrap_or(0),
        monthly: fields.number("keep_monthly", 1, MOST).unwrap_or(0),
        yearly: fields.number("keep_yearly", 1, MOST).unwrap_or(0),
        within: fields.parsed("keep_within", "a span such as \"14d\", \"1y6m\" or \"36h\""),
        at_least: fields.number("keep_at_least", 1, MOST).unwrap_or(AT_LEAST),
        failed_days: fields.number("keep_failed", 1, MOST),
        displaced: fields.number("keep_displaced", 1, 100).unwrap_or(1),
        as_snapshots: Rule::ALL
            .into_iter()
            .filter(|rule| tier(fields, *rule) == Tier::Snapshot)
            .into_set(),
    }
}

/// Reads the tier of a rule.
fn tier(fields: &mut Fields<'_>, rule: Rule) -> Tier {
    let key = rule.tier_key();
    let tier = fields.word(
        key,
        &[(Tier::Branch.as_str(), Tier::Branch), (Tier::Snapshot.as_str(), Tier::Snapshot)],
    );
    if fields.value(key).is_some() && fields.value(rule.key()).is_none() {
        fields.problem(
            key,
            format!("has no {} beside it; set that as well, or take this away", rule.key()),
        );
    }
    tier.unwrap_or_default()
}

impl KeepRules {
    /// Returns whether any rule keeps snapshots.
    pub fn has_snapshots(&self) -> bool {
        !self.as_snapshots.is_empty()
    }

    /// Returns what a rule keeps.
    pub fn tier(&self, rule: Rule) -> Tier {
        if self.as_snapshots.contains(&rule) { Tier::Snapshot } else { Tier::Branch }
    }

    /// Returns the rules of one tier alone; what belongs to no rule stays.
    #[must_use]
    pub fn of(&self, tier: Tier) -> Self {
        let mut rules = self.clone();
        for rule in Rule::ALL.into_iter().filter(|rule| self.tier(*rule) != tier) {
            match rule {
                Rule::Last => rules.last = 0,
                Rule::Daily => rules.daily = 0,
                Rule::Weekly => rules.weekly = 0,
                Rule::Monthly => rules.monthly = 0,
                Rule::Yearly => rules.yearly = 0,
                Rule::Within => rules.within = None,
            }
        }
        rules
    }

    /// Returns the rules that a query asks for. Where it names any rule, it names all of them;
    /// `keep_at_least`, `keep_failed` and `keep_displaced` stay as they are unless they are named.
    ///
    /// # Errors
    ///
    /// Every fault, with the key's name.
    pub fn asked(&self, query: &BTreeMap<String, String>) -> Result<Self, Vec<Problem>> {
        let map: Map<String, Value> = query
            .iter()
            .filter(|(key, _)| key.starts_with("keep_"))
            .map(|(key, text)| {
                (
                    key.clone(),
                    text.parse::<u64>().map_or_else(|_| Value::from(text.as_str()), Value::from),
                )
            })
            .collect();
        let mut problems = Vec::new();
        let mut fields = Fields::new(String::new(), &map, &mut problems);
        let mut asked = read(&mut fields);
        fields.refuse_unknown();
        if !problems.is_empty() {
            return Err(problems);
        }
        let has = |key: &str| map.contains_key(key);
        asked.at_least = if has("keep_at_least") { asked.at_least } else { self.at_least };
        asked.failed_days = asked.failed_days.or(self.failed_days);
        asked.displaced = if has("keep_displaced") { asked.displaced } else { self.displaced };
        if Rule::ALL.iter().any(|rule| has(rule.key())) {
            return Ok(asked);
        }
        Ok(Self {
            at_least: asked.at_least,
            failed_days: asked.failed_days,
            displaced: asked.displaced,
            ..self.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_read_as_it_is_written_and_slips_are_refused() {
        for text in ["14d", "1y", "1y6m", "36h", "2y3m4d5h"] {
            assert_eq!(text.parse::<Span>().map(|span| span.to_string()), Ok(text.to_owned()));
        }
        for text in [
            "", "0d", "d", "14", "14 d", "-1d", "1d1y", "1d1d", "99999d", "1w", "1,5d", "14D",
            "1dé",
        ] {
            assert_eq!(text.parse::<Span>(), Err(()), "{text}");
        }
    }

    #[test]
    fn a_query_that_names_a_rule_names_all_of_them() {
        let rules = KeepRules {
            last: 7,
            daily: 30,
            at_least: 3,
            failed_days: Some(9),
            displaced: 1,
            ..KeepRules::default()
        };
        let asked = |query: &[(&str, &str)]| {
            rules.asked(
                &query
                    .iter()
                    .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                    .collect(),
            )
        };
        assert_eq!(asked(&[("pair", "hub")]), Ok(rules.clone()));
        assert_eq!(
            asked(&[("keep_at_least", "1")]),
            Ok(KeepRules { at_least: 1, ..rules.clone() })
        );
        let weekly = KeepRules {
            weekly: 4,
            within: Some(Span { days: 3, ..Span::default() }),
            last: 0,
            daily: 0,
            ..rules.clone()
        };
        assert_eq!(asked(&[("keep_weekly", "4"), ("keep_within", "3d")]), Ok(weekly));
    }

    #[test]
    fn a_rule_keeps_branches_unless_its_tier_says_snapshots() {
        let rules =
            KeepRules { last: 7, daily: 30, at_least: 3, displaced: 1, ..KeepRules::default() };
        let asked = |query: &[(&str, &str)]| {
            rules.asked(
                &query
                    .iter()
                    .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                    .collect(),
            )
        };
        let tiers =
            asked(&[("keep_last", "5"), ("keep_weekly", "8"), ("keep_weekly_tier", "snapshot")])
                .expect("rules");
        assert_eq!(
            (tiers.tier(Rule::Last), tiers.tier(Rule::Weekly)),
            (Tier::Branch, Tier::Snapshot)
        );
        let (branches, snapshots) = (tiers.of(Tier::Branch), tiers.of(Tier::Snapshot));
        assert_eq!(
            (branches.last, branches.weekly, snapshots.last, snapshots.weekly),
            (5, 0, 0, 8)
        );
        let faults = |query: &[(&str, &str)]| {
            asked(query)
                .expect_err("a fault")
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("; ")
        };
        let unknown = faults(&[("keep_last", "5"), ("keep_last_tier", "tape")]);
        assert_eq!(unknown, "keep_last_tier: is \"tape\"; allowed is \"branch\" or \"snapshot\"");
        let alone = faults(&[("keep_yearly_tier", "snapshot")]);
        assert_eq!(
            alone,
            "keep_yearly_tier: has no keep_yearly beside it; set that as well, or take this away"
        );
    }

    #[test]
    fn a_query_with_a_fault_is_refused_with_the_name_of_the_key() {
        let rules = KeepRules { last: 7, at_least: 3, displaced: 1, ..KeepRules::default() };
        let faults = |key: &str, value: &str| {
            let problems =
                rules.asked(&[(key.to_owned(), value.to_owned())].into()).expect_err("a fault");
            problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(
            faults("keep_daily", "0"),
            "keep_daily: is 0; allowed is a whole number from 1 to 1000"
        );
        assert_eq!(
            faults("keep_last", "1000000"),
            "keep_last: is 1000000; allowed is a whole number from 1 to 1000"
        );
        assert_eq!(
            faults("keep_last", "many"),
            "keep_last: is \"many\"; allowed is a whole number from 1 to 1000"
        );
        assert_eq!(
            faults("keep_within", "soon"),
            "keep_within: is \"soon\"; allowed is a span such as \"14d\", \"1y6m\" or \"36h\""
        );
        assert!(
            faults("keep_hourly", "3")
                .starts_with("keep_hourly: is not a key; known here are keep_at_least, ")
        );
    }
}
