//! `/backups`: what is kept and why, what would be deleted, and pins.
//!
//! Invariants: nothing here deletes; what is shown is what the next run would do, as far as it can be known now.

use serde_json::{Value, json};

use super::{ApiRequest, ApiResponse, Asked, Problem, body, reason_and_end, unavailable};
use crate::config::{KeepRules, Rule, secret};
use crate::id::{BranchName, RunId};
use crate::neon::wire::{BranchList, Endpoint, Owner, Snapshot};
use crate::neon::{Api, Call, Reply};
use crate::port::{Method, World};
use crate::record;
use crate::sync::machine::{is_our_backup, run_of_backup};
use crate::sync::retention::{self, Entry, Forecast, Inventory, Kind, Known, Pin, Records, Room};
use crate::time::render;

impl<W: World> Asked<'_, W> {
    /// Shows every backup and every branch with a name like ours, each with the reasons to stay or to go.
    pub(super) async fn list(&self) -> Result<ApiResponse, Problem> {
        let branches = self.branches().await?;
        let records = self.records(&branches).await?;
        let snapshots = self.snapshots(&self.pair.keep, &records).await?;
        let inventory = Inventory { branches: &branches, endpoints: &[], snapshots: &snapshots, records: &records, is_short: false };
        let plan = retention::plan(&inventory, self.pair, &self.pair.keep, None, self.world.now());
        let is_backup = |entry: &&Entry| matches!(entry.kind, Kind::Backup(_) | Kind::Snapshot(_));
        let (backups, others): (Vec<&Entry>, Vec<&Entry>) = plan.entries.iter().partition(is_backup);
        let shown = |entries: &[&Entry]| entries.iter().map(|entry| self.shown(entry, &records)).collect::<Vec<Value>>();
        let value = json!({
            "pair": self.pair.name, "rules": rules(&self.pair.keep), "backups": shown(&backups), "others": shown(&others),
        });
        Ok(ApiResponse::json(200, &value))
    }

    /// Shows what the next run would delete, in this order, and what it would keep; by other rules where the query names them.
    pub(super) async fn plan(&self, request: &ApiRequest) -> Result<ApiResponse, Problem> {
        let known = |key: &&String| key.starts_with("keep_") || *key == "pair";
        if let Some(key) = request.query.keys().find(|key| !known(key)) {
            let key: String = key.chars().take(60).collect();
            return Err(Problem::new(400, "The query cannot be used")
                .with_detail(format!("{key}: is not known here; allowed are pair and keep rules")));
        }
        let asked = self.pair.keep.asked(&request.query).map_err(|problems| {
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            Problem::new(400, "The rules cannot be used").with_detail(problems.join("; "))
        })?;
        let branches = self.branches().await?;
        let endpoints = self.endpoints().await?;
        let records = self.records(&branches).await?;
        let snapshots = self.snapshots(&asked, &records).await?;
        let inventory = Inventory { branches: &branches, endpoints: &endpoints, snapshots: &snapshots, records: &records, is_short: false };
        let plan = retention::plan(&inventory, self.pair, &asked, None, self.world.now());
        let endpoints = plan.entries.iter().filter(|entry| entry.kind == Kind::Endpoint && !entry.is_kept);
        let delete: Vec<Value> =
            endpoints.chain(plan.branches()).chain(plan.snapshots()).map(|entry| self.shown(entry, &records)).collect();
        let keep: Vec<Value> = plan.entries.iter().filter(|entry| entry.is_kept).map(|entry| self.shown(entry, &records)).collect();
        let room = self.room(&inventory, &asked).await?;
        Ok(ApiResponse::json(200, &json!({"pair": self.pair.name, "rules": rules(&asked), "delete": delete, "keep": keep, "room": room})))
    }

    /// Looks whether the next mornings find room; the warnings alone where the project names no limit.
    async fn room(&self, inventory: &Inventory<'_>, asked: &KeepRules) -> Result<Value, Problem> {
        let Reply::Project(project) = self.call(&Call::GetProject).await? else { return Err(senseless()) };
        let schedule = Call::ListSchedule(self.pair.production_branch.clone());
        // What cannot be told (the plan has none, the key may not ask) is not told.
        let schedule = match self.call(&schedule).await {
            Ok(Reply::Schedule(schedule)) => schedule,
            _ => Vec::new(),
        };
        let owner = project.owner.as_ref();
        let warnings = retention::limits(asked, &project, inventory.branches, &schedule);
        let Some(limit) = owner.and_then(Owner::limit) else { return Ok(json!({"limit": null, "warnings": warnings})) };
        let room = Room { branches: limit, snapshots: owner.and_then(Owner::snapshot_limit) };
        let forecast = retention::forecast(inventory, self.pair, asked, room, self.world.now());
        let warnings: Vec<String> = warnings.into_iter().chain(forecast.warnings()).collect();
        let snapshots = forecast.snapshots.as_ref().map(|stock| {
            json!({"snapshots": inventory.snapshots.len(), "limit": stock.limit, "most": stock.most, "blocked_on": stock.blocked_on})
        });
        Ok(json!({
            "branches": inventory.branches.branches.len(), "limit": limit, "most": forecast.most, "most_on": forecast.most_on,
            "blocked_on": forecast.blocked_on, "snapshots": snapshots, "storage": self.storage(inventory, &forecast, owner), "warnings": warnings,
        }))
    }

    /// Shows what is kept takes and costs, at most; nothing where Neon does not tell how large production is.
    fn storage(&self, inventory: &Inventory<'_>, forecast: &Forecast, owner: Option<&Owner>) -> Value {
        let prices = &self.config.prices;
        let size = retention::size_of_production(inventory.branches, inventory.snapshots, &self.pair.production_branch);
        let Some(storage) = retention::storage(forecast, size, owner, prices) else { return Value::Null };
        let dollars = |thousandths: u64| format!("{}.{:03}", thousandths / 1_000, thousandths % 1_000);
        json!({
            "branch_bytes_at_most": storage.branch_bytes, "snapshot_bytes_at_most": storage.snapshot_bytes, "extra_branches": storage.extra_branches,
            "usd_a_month_at_most": storage.price.map(dollars), "prices_as_of": prices.as_of,
        })
    }

    /// Pins a backup, or releases it. Pinning again replaces reason and end; releasing what is not pinned is no error.
    pub(super) async fn pin(&self, name: &str, request: &ApiRequest) -> Result<ApiResponse, Problem> {
        let run = run_of_backup(self.pair, &BranchName::from(name)).ok_or_else(|| {
            let name: String = name.chars().take(60).collect();
            let prefix = &self.pair.backup_prefix;
            Problem::new(404, "There is no such backup")
                .with_detail(format!("{name:?}: a backup is named {prefix}-20261121 or {prefix}-20261121T143000Z"))
        })?;
        let key = record::pin_key(&self.pair.name, &run);
        if request.method == Method::Delete {
            self.world.remove(&key).await.map_err(|error| unavailable(&error.into()))?;
            return Ok(ApiResponse::json(200, &json!({"pair": self.pair.name, "backup": name, "pin": null})));
        }
        let now = self.world.now();
        let (reason, until) = reason_and_end(&body(request, &["reason", "until"])?, now)?;
        let Some(id) = self.backup(&BranchName::from(name), &run).await? else {
            let detail = format!("{name} is no backup of pair {}; GET /backups lists them", self.pair.name);
            return Err(Problem::new(404, "There is no such backup").with_detail(detail));
        };
        let pin = Pin { reason, until };
        let value = json!({"format": 1, "id": id, "reason": pin.reason, "until": pin.until.map(render)}).to_string();
        let facts = record::facts_of_pin(&pin, now);
        let stored = record::write(self.world, &key, &value, Some(facts), || true).await;
        stored.map_err(|error| unavailable(&error.into()))?;
        let shown = json!({"reason": pin.reason, "until": pin.until.map(render)});
        Ok(ApiResponse::json(200, &json!({"pair": self.pair.name, "backup": name, "pin": shown})))
    }

    /// Returns the id of a backup: of its branch, else of its snapshot.
    async fn backup(&self, name: &BranchName, run: &RunId) -> Result<Option<String>, Problem> {
        let branches = self.branches().await?;
        if let Some(branch) = branches.by_name(name).filter(|branch| is_our_backup(self.pair, &branches, branch)) {
            return Ok(Some(branch.id.to_string()));
        }
        let records = self.records(&branches).await?;
        let snapshots = self.snapshots(&self.pair.keep, &records).await?;
        let found = snapshots.iter().find(|snapshot| retention::is_our_snapshot(self.pair, &branches, &records, snapshot, run));
        Ok(found.map(|snapshot| snapshot.id.to_string()))
    }

    fn shown(&self, entry: &Entry, records: &Records) -> Value {
        let kind = match entry.kind {
            Kind::Backup(_) => "backup",
            Kind::Displaced => "displaced",
            Kind::Snapshot(_) => "snapshot",
            Kind::Check => "check",
            Kind::RestoreTest => "restore_test",
            Kind::Endpoint => "endpoint",
            Kind::Orphan => "orphan",
        };
        let mut value = json!({
            "name": entry.name, "id": entry.id, "kind": kind, "created_at": render(entry.created_at), "kept": entry.is_kept, "reasons": entry.reasons,
        });
        if let Kind::Backup(known) | Kind::Snapshot(known) = entry.kind {
            value["state"] = json!(match known {
                Some(Known::Verified) => "verified",
                Some(Known::Unverified) => "unverified",
                None => "unknown",
            });
            let run: Option<RunId> = run_of_backup(self.pair, &BranchName::from(entry.name.as_str()));
            if let Some(pin) = run.and_then(|run| records.pins.get(&run)) {
                value["pin"] = json!({"reason": pin.reason, "until": pin.until.map(render)});
            }
        }
        value
    }

    async fn branches(&self) -> Result<BranchList, Problem> {
        let Reply::Branches(branches) = self.call(&Call::ListBranches).await? else { return Err(senseless()) };
        Ok(branches)
    }

    /// Lists the snapshots, where a rule keeps some or there is one on record.
    async fn snapshots(&self, rules: &KeepRules, records: &Records) -> Result<Vec<Snapshot>, Problem> {
        if !rules.has_snapshots() && records.snapshots.is_empty() {
            return Ok(Vec::new());
        }
        let Reply::Snapshots(snapshots) = self.call(&Call::ListSnapshots).await? else { return Err(senseless()) };
        Ok(snapshots)
    }

    async fn endpoints(&self) -> Result<Vec<Endpoint>, Problem> {
        let Reply::Endpoints(endpoints) = self.call(&Call::ListEndpoints).await? else { return Err(senseless()) };
        Ok(endpoints)
    }

    /// Reads what is on record, with the endings of runs of whose backups nothing else is.
    async fn records(&self, branches: &BranchList) -> Result<Records, Problem> {
        let fail = |error: crate::port::StoreFailure| unavailable(&error.into());
        let mut records = record::backups(self.world, &self.pair.name).await.map_err(fail)?;
        let unknown = retention::unknown(self.pair, branches, &records);
        if !unknown.is_empty() {
            records.known.extend(record::endings(self.world, &self.pair.name, &unknown).await.map_err(fail)?);
        }
        Ok(records)
    }

    async fn call(&self, call: &Call) -> Result<Reply, Problem> {
        let Some(key) = self.secrets.get(secret::NEON_API_KEY).cloned() else {
            let detail = format!("secret {} is not set; set it with `wrangler secret put`", secret::NEON_API_KEY);
            return Err(Problem::new(500, "A secret is missing").with_detail(detail));
        };
        let api = Api { base: self.config.neon_api_base.clone(), key };
        let result = self.world.send(call.encode(&api, &self.pair.project)).await;
        call.decode(&self.pair.project, result).map_err(|error| Problem::new(502, "Neon does not answer").with_detail(error.to_string()))
    }
}

fn senseless() -> Problem {
    Problem::new(502, "Neon's answer makes no sense")
}

fn rules(rules: &KeepRules) -> Value {
    let number = |number: u32| if number == 0 { Value::Null } else { number.into() };
    let mut value = json!({
        "keep_last": number(rules.last), "keep_daily": number(rules.daily), "keep_weekly": number(rules.weekly), "keep_monthly": number(rules.monthly),
        "keep_yearly": number(rules.yearly), "keep_within": rules.within.map(|span| span.to_string()), "keep_at_least": rules.at_least,
        "keep_failed": rules.failed_days, "keep_displaced": rules.displaced,
    });
    for rule in Rule::ALL.into_iter().filter(|rule| !value[rule.key()].is_null()).collect::<Vec<_>>() {
        value[rule.tier_key()] = rules.tier(rule).as_str().into();
    }
    value
}
