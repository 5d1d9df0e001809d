//! What is kept costs, at most: storage of backups and snapshots, and branches beyond the plan's.

use super::Forecast;
use crate::config::Prices;
use crate::neon::wire::{BranchList, Owner, Snapshot};

/// Bytes of a gigabyte, as Neon bills it.
const GB: u64 = 1_000_000_000;

/// What the forecast's branches and snapshots take, and cost in a month, at most: a branch is
/// billed for what it has not in common with its parent, and never for more than it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Bytes of backups and displaced branches.
    pub branch_bytes: u64,
    /// Bytes of snapshots.
    pub snapshot_bytes: u64,
    /// Branches beyond those of the plan.
    pub extra_branches: usize,
    /// Thousandths of a US dollar for a month; `None` on a plan that is not billed.
    pub price: Option<u64>,
}

/// Returns what is kept at the end of a forecast; `None` where Neon does not tell how large
/// production is.
pub fn storage(
    forecast: &Forecast,
    production: Option<u64>,
    owner: Option<&Owner>,
    prices: &Prices,
) -> Option<Storage> {
    let size = production?;
    let bytes = |count: usize| size.saturating_mul(u64::try_from(count).unwrap_or(u64::MAX));
    let branch_bytes = bytes(forecast.kept);
    let snapshot_bytes = bytes(forecast.snapshots.as_ref().map_or(0, |stock| stock.most));
    let extra_branches = owner
        .and_then(Owner::included_branches)
        .map_or(0, |included| forecast.most.saturating_sub(included));
    let of = |bytes: u64, price: u32| u128::from(bytes) * u128::from(price) / u128::from(GB);
    let extra = u128::from(prices.branch_month) * u128::try_from(extra_branches).unwrap_or(0);
    let sum = of(branch_bytes, prices.storage_gb_month)
        + of(snapshot_bytes, prices.snapshot_gb_month)
        + extra;
    let is_billed = owner.is_none_or(|owner| !owner.subscription_type.starts_with("free"));
    let price = is_billed.then(|| u64::try_from(sum).unwrap_or(u64::MAX));
    Some(Storage { branch_bytes, snapshot_bytes, extra_branches, price })
}

/// Returns how large production is: as Neon lists it, else as its newest snapshot was.
pub fn size_of_production(
    branches: &BranchList,
    snapshots: &[Snapshot],
    production: &crate::id::BranchId,
) -> Option<u64> {
    let is_of_production = |snapshot: &&Snapshot| {
        snapshot.source_branch_id.as_ref() == Some(production) && snapshot.full_size.is_some()
    };
    let newest =
        || snapshots.iter().filter(is_of_production).max_by_key(|snapshot| snapshot.created_at);
    branches
        .by_id(production)
        .and_then(|branch| branch.logical_size)
        .or_else(|| newest()?.full_size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retention::forecast::SnapshotForecast;

    #[test]
    fn storage_is_priced_by_what_is_kept_at_most_and_extra_branches_by_the_plan() {
        let stock = SnapshotForecast { most: 10, ..SnapshotForecast::default() };
        let day = chrono::NaiveDate::from_ymd_opt(2026, 11, 21).expect("a date");
        let forecast = Forecast {
            limit: 5_000,
            most: 27,
            most_on: day,
            short: None,
            blocked: None,
            after: Vec::new(),
            kept: 4,
            snapshots: Some(stock),
        };
        let owner =
            |plan: &str| Owner { branches_limit: 5_000, subscription_type: plan.to_owned() };
        let on = |plan: &str| {
            storage(&forecast, Some(2 * GB), Some(&owner(plan)), &Prices::default())
                .expect("the size is known")
        };
        // 8 GB at 0.35, 20 GB at 0.09, 2 branches at 1.50 dollars.
        let scale = Storage {
            branch_bytes: 8 * GB,
            snapshot_bytes: 20 * GB,
            extra_branches: 2,
            price: Some(2_800 + 1_800 + 3_000),
        };
        assert_eq!((on("scale_v3"), on("free_v3").price), (scale, None));
        assert_eq!(storage(&forecast, None, None, &Prices::default()), None);
    }
}
