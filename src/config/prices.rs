//! What storage costs: Neon's prices as of a day, or yours.
//!
//! In: the table `prices`. Out: [`Prices`], which only the forecast reads.

use std::str::FromStr;

use chrono::NaiveDate;

use super::reader::Fields;

/// Prices in thousandths of a US dollar, and the day on which they were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prices {
    /// When they held.
    pub as_of: NaiveDate,
    /// A branch beyond those of the plan, for a month.
    pub branch_month: u32,
    /// A gigabyte of a branch, for a month.
    pub storage_gb_month: u32,
    /// A gigabyte of a snapshot, for a month.
    pub snapshot_gb_month: u32,
}

impl Default for Prices {
    /// Source: Neon plans, seen 2026-11-12: storage "$0.35/GB-month", snapshots "$0.09/GB-month",
    /// extra branches "$1.50/branch-month".
    fn default() -> Self {
        let as_of = NaiveDate::from_ymd_opt(2026, 11, 12).expect("a date");
        Self { as_of, branch_month: 1_500, storage_gb_month: 350, snapshot_gb_month: 90 }
    }
}

/// A date as it is written: `2026-11-12`.
struct Date(NaiveDate);

impl FromStr for Date {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        crate::time::read_date(text).map(Self).ok_or(())
    }
}

/// Reads the prices; those that are not set are Neon's. A price without its day is refused: nobody
/// could tell how old it is.
pub(super) fn prices(fields: &mut Fields<'_>) -> Prices {
    let mut prices = Prices::default();
    let Some((path, map)) = fields.object("prices") else { return prices };
    let mut fields = Fields::new(path, map, fields.problems());
    fields.need("as_of", "\"2026-11-12\"");
    if let Some(Date(as_of)) = fields.parsed("as_of", "a date such as \"2026-11-12\"") {
        prices.as_of = as_of;
    }
    prices.branch_month = thousandths(&mut fields, "branch_month").unwrap_or(prices.branch_month);
    prices.storage_gb_month =
        thousandths(&mut fields, "storage_gb_month").unwrap_or(prices.storage_gb_month);
    prices.snapshot_gb_month =
        thousandths(&mut fields, "snapshot_gb_month").unwrap_or(prices.snapshot_gb_month);
    fields.refuse_unknown();
    prices
}

/// Reads dollars, as they are written: at most three digits behind the point.
fn thousandths(fields: &mut Fields<'_>, key: &'static str) -> Option<u32> {
    let text = fields.scalar(key)?;
    let read = decimal(&text);
    if read.is_none() {
        fields.problem(key, format!("is {text}; allowed are dollars from 0 to 999.999"));
    }
    read
}

fn decimal(text: &str) -> Option<u32> {
    let (whole, rest) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |part: &str| {
        (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    if !is_number(whole) || !is_number(rest) {
        return None;
    }
    Some(whole.parse::<u32>().ok()? * 1_000 + format!("{rest:0<3}").parse::<u32>().ok()?)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(value: &Value) -> Result<Prices, String> {
        let mut problems = Vec::new();
        let map = json!({"prices": value});
        let found = prices(&mut Fields::new(
            String::new(),
            map.as_object().expect("an object"),
            &mut problems,
        ));
        if problems.is_empty() {
            Ok(found)
        } else {
            Err(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
        }
    }

    #[test]
    fn prices_are_read_with_their_day_and_faults_are_named() {
        let found =
            read(&json!({"as_of": "2027-01-31", "branch_month": 2, "storage_gb_month": 0.35,
                    "snapshot_gb_month": "0.125"}));
        let as_of = NaiveDate::from_ymd_opt(2027, 1, 31).expect("a date");
        assert_eq!(
            found,
            Ok(Prices {
                as_of,
                branch_month: 2_000,
                storage_gb_month: 350,
                snapshot_gb_month: 125
            })
        );
        let faults = read(&json!({"branch_month": -1, "storage_gb_month": "cheap",
                        "snapshot_gb_month": 0.12345, "tax": 1}))
        .expect_err("faults");
        let expected = [
            "prices.as_of: is missing; for example as_of = \"2026-11-12\"",
            "prices.branch_month: is -1; allowed are dollars from 0 to 999.999",
            "prices.storage_gb_month: is cheap; allowed are dollars from 0 to 999.999",
            "prices.snapshot_gb_month: is 0.12345; allowed are dollars from 0 to 999.999",
            "prices.tax: is not a key",
        ];
        assert!(expected.iter().all(|fault| faults.contains(fault)), "{faults}");
        assert!(
            read(&json!({"as_of": "soon"}))
                .is_err_and(|fault| fault.contains("prices.as_of: is \"soon\"; allowed is a date"))
        );
    }
}
