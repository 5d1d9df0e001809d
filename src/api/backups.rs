//! `/backups`: what is kept and why, what would be deleted, and pins.
//!
//! Invariants: nothing here deletes; what is shown is what the next run would do, as far as it can
//! be known now.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{ApiRequest, ApiResponse, Asked, Problem, body, reason_and_end, unavailable};
use crate::config::{KeepRules, Rule, secret};
use crate::id::{BranchName, RunId};
use crate::names::{run_of_backup, run_of_slug};
use crate::neon::wire::{BranchList, Endpoint, Owner, Snapshot};
use crate::neon::{Api, Call, Reply};
use crate::ordered::IntoOrdered as _;
use crate::port::{Method, World};
use crate::record;
use crate::retention::{
    self, After, Entry, Forecast, Inventory, Kind, Known, Pin, Records, Room, is_our_snapshot,
    marked_run,
};
use crate::sync::checkpoint::Checkpoint;
use crate::sync::machine::recall;
use crate::time::render;

impl<W: World> Asked<'_, W> {
    /// Shows every backup and every branch with a name like ours, each with the reasons to stay or
    /// to go.
    pub(super) async fn list(&self) -> Result<ApiResponse, Problem> {
        let branches = self.branches().await?;
        let endpoints = self.endpoints().await?;
        let records = self.records(&branches).await?;
        let snapshots = self.snapshots(&self.pair.keep, &records).await?;
        let inventory = Inventory {
            branches: &branches,
            endpoints: &endpoints,
            snapshots: &snapshots,
            records: &records,
        };
        let plan = retention::plan(&inventory, self.pair, &self.pair.keep, None, self.world.now());
        let is_backup = |entry: &&Entry| matches!(entry.kind, Kind::Backup(_) | Kind::Snapshot(_));
        let (backups, others): (Vec<&Entry>, Vec<&Entry>) =
            plan.entries.iter().partition(is_backup);
        let marked = self.marked(&branches);
        let shown = |entries: &[&Entry]| {
            entries.iter().map(|entry| self.shown(entry, &records, &marked)).collect::<Vec<Value>>()
        };
        let value = json!({
            "pair": self.pair.name, "rules": rules(&self.pair.keep), "backups": shown(&backups),
            "others": shown(&others),
        });
        Ok(ApiResponse::json(200, &value))
    }

    /// Shows what the next run would delete, in this order, and what it would keep; by other rules
    /// where the query names them.
    pub(super) async fn plan(&self, request: &ApiRequest) -> Result<ApiResponse, Problem> {
        let known = |key: &&String| key.starts_with("keep_") || *key == "pair";
        if let Some(key) = request.query.keys().find(|key| !known(key)) {
            let key: String = key.chars().take(60).collect();
            return Err(Problem::new(400, "The query cannot be used").with_detail(format!(
                "{key}: is not known here; allowed are pair and keep rules"
            )));
        }
        let asked = self.pair.keep.asked(&request.query).map_err(|problems| {
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            Problem::new(400, "The rules cannot be used").with_detail(problems.join("; "))
        })?;
        let branches = self.branches().await?;
        let endpoints = self.endpoints().await?;
        let records = self.records(&branches).await?;
        let snapshots = self.snapshots(&asked, &records).await?;
        let inventory = Inventory {
            branches: &branches,
            endpoints: &endpoints,
            snapshots: &snapshots,
            records: &records,
        };
        let plan = retention::plan(&inventory, self.pair, &asked, None, self.world.now());
        let endpoints =
            plan.entries.iter().filter(|entry| entry.kind == Kind::Endpoint && !entry.is_kept);
        let marked = self.marked(&branches);
        let shown = |entry: &Entry| self.shown(entry, &records, &marked);
        let delete: Vec<Value> =
            endpoints.chain(plan.branches()).chain(plan.snapshots()).map(shown).collect();
        let keep: Vec<Value> =
            plan.entries.iter().filter(|entry| entry.is_kept).map(shown).collect();
        let room = self.room(&inventory, &asked).await?;
        Ok(ApiResponse::json(
            200,
            &json!({"pair": self.pair.name, "rules": rules(&asked), "delete": delete, "keep": keep,
                    "room": room}),
        ))
    }

    /// Looks whether the next mornings find room; the warnings alone where the project names no
    /// limit.
    async fn room(&self, inventory: &Inventory<'_>, asked: &KeepRules) -> Result<Value, Problem> {
        let Reply::Project(project) = self.call(&Call::GetProject).await? else {
            return Err(senseless());
        };
        let schedule = Call::ListSchedule(self.pair.production_branch.clone());
        // What cannot be told (the plan has none, the key may not ask) is not told.
        let schedule = match self.call(&schedule).await {
            Ok(Reply::Schedule(schedule)) => schedule,
            _ => Vec::new(),
        };
        let owner = project.owner.as_ref();
        let warnings = retention::limits(asked, &project, inventory.branches, &schedule);
        let Some(limit) = owner.and_then(Owner::limit) else {
            return Ok(json!({"limit": null, "warnings": warnings}));
        };
        let room = Room { branches: limit, snapshots: owner.and_then(Owner::snapshot_limit) };
        let forecast =
            retention::forecast(inventory, self.pair, asked, room, None, self.world.now());
        let warnings: Vec<String> = warnings.into_iter().chain(forecast.warnings()).collect();
        let snapshots = forecast.snapshots.as_ref().map(|stock| {
            json!({"snapshots": inventory.snapshots.len(), "limit": stock.limit, "most": stock.most,
                    "blocked_on": stock.blocked_on})
        });
        let after = |after: &After| {
            let (short, blocked) = (after.short.as_ref(), after.blocked.as_ref());
            let value = json!({
                "short_on": short.map(|short| short.on),
                "gives_way": short.map(|short| &short.gives_way),
                "blocked_on": blocked.map(|blocked| blocked.on),
            });
            (after.first.as_str().to_owned(), value)
        };
        let after: Map<String, Value> = forecast.after.iter().map(after).collect();
        Ok(json!({
            "branches": inventory.branches.branches.len(), "limit": limit, "most": forecast.most,
            "most_on": forecast.most_on,
            "short_on": forecast.short.as_ref().map(|short| short.on),
            "gives_way": forecast.short.as_ref().map(|short| &short.gives_way),
            "blocked_on": forecast.blocked.as_ref().map(|blocked| blocked.on), "after": after,
            "snapshots": snapshots, "storage": self.storage(inventory, &forecast, owner),
            "warnings": warnings,
        }))
    }

    /// Shows what is kept takes and costs, at most; nothing where Neon does not tell how large
    /// production is.
    fn storage(
        &self,
        inventory: &Inventory<'_>,
        forecast: &Forecast,
        owner: Option<&Owner>,
    ) -> Value {
        let prices = &self.config.prices;
        let size = retention::size_of_production(
            inventory.branches,
            inventory.snapshots,
            &self.pair.production_branch,
        );
        let Some(storage) = retention::storage(forecast, size, owner, prices) else {
            return Value::Null;
        };
        let dollars =
            |thousandths: u64| format!("{}.{:03}", thousandths / 1_000, thousandths % 1_000);
        json!({
            "branch_bytes_at_most": storage.branch_bytes,
            "snapshot_bytes_at_most": storage.snapshot_bytes,
            "extra_branches": storage.extra_branches,
            "usd_a_month_at_most": storage.price.map(dollars), "prices_as_of": prices.as_of,
        })
    }

    /// Pins a backup, or releases it. Pinning again replaces reason and end; releasing what is not
    /// pinned is no error.
    pub(super) async fn pin(
        &self,
        name: &str,
        request: &ApiRequest,
    ) -> Result<ApiResponse, Problem> {
        let is_release = request.method == Method::Delete;
        let now = self.world.now();
        let asked = if is_release {
            None
        } else {
            Some(reason_and_end(&body(request, &["reason", "until"])?, now)?)
        };
        let by_name = run_of_backup(self.pair, &BranchName::from(name));
        // A backup that is gone has lost nothing by its pin, so that is released without a look.
        let found = if by_name.is_some() && is_release {
            None
        } else {
            self.backup(&BranchName::from(name)).await?
        };
        let Some(run) = by_name.clone().or_else(|| found.as_ref().map(|(run, _)| run.clone()))
        else {
            let name: String = name.chars().take(60).collect();
            let prefix = &self.pair.backup_prefix;
            let detail = format!(
                "{name:?}: a backup is named {prefix}-20261121 or {prefix}-20261121T143000Z, or \
                 was made under such a name"
            );
            return Err(Problem::new(404, "There is no such backup").with_detail(detail));
        };
        let key = record::pin_key(&self.pair.name, &run);
        let Some((reason, until)) = asked else {
            self.world.remove(&key).await.map_err(|error| unavailable(&error.into()))?;
            return Ok(ApiResponse::json(
                200,
                &json!({"pair": self.pair.name, "backup": name, "pin": null}),
            ));
        };
        let Some((_, id)) = found.filter(|(found, _)| *found == run) else {
            let detail =
                format!("{name} is no backup of pair {}; GET /backups lists them", self.pair.name);
            return Err(Problem::new(404, "There is no such backup").with_detail(detail));
        };
        let pin = Pin { reason, until };
        let value =
            json!({"format": 1, "id": id, "reason": pin.reason, "until": pin.until.map(render)})
                .to_string();
        let facts = record::facts_of_pin(&pin, now);
        let stored = record::write(self.world, &key, &value, Some(facts), || true).await;
        stored.map_err(|error| unavailable(&error.into()))?;
        let shown = json!({"reason": pin.reason, "until": pin.until.map(render)});
        Ok(ApiResponse::json(200, &json!({"pair": self.pair.name, "backup": name, "pin": shown})))
    }

    /// Returns the run and the id of a backup that has a name now: of its branch, else of its
    /// snapshot. Somebody may have renamed it, or another prefix been configured.
    async fn backup(&self, name: &BranchName) -> Result<Option<(RunId, String)>, Problem> {
        let branches = self.branches().await?;
        if let Some((run, branch)) = branches
            .by_name(name)
            .and_then(|branch| Some((marked_run(self.pair, &branches, branch)?, branch)))
        {
            return Ok(Some((run, branch.id.to_string())));
        }
        let records = self.records(&branches).await?;
        let snapshots = self.snapshots(&self.pair.keep, &records).await?;
        let found =
            snapshots.iter().filter(|snapshot| snapshot.name == *name).find_map(|snapshot| {
                let of_slug =
                    snapshot.slug.as_deref().and_then(|slug| run_of_slug(self.pair, slug));
                let named = || {
                    run_of_backup(self.pair, name).filter(|run| {
                        is_our_snapshot(self.pair, &branches, &records, snapshot, run)
                    })
                };
                Some((of_slug.or_else(named)?, snapshot.id.to_string()))
            });
        Ok(found)
    }

    /// Shows an entry. `renamed` are the runs of backups that have another name now, by their ids.
    fn shown(&self, entry: &Entry, records: &Records, renamed: &BTreeMap<String, RunId>) -> Value {
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
            "name": entry.name, "id": entry.id, "kind": kind,
            "created_at": render(entry.created_at), "kept": entry.is_kept, "reasons": entry.reasons,
        });
        if let Kind::Backup(known) | Kind::Snapshot(known) = entry.kind {
            value["state"] = json!(match known {
                Some(Known::Verified) => "verified",
                Some(Known::Unverified) => "unverified",
                None => "unknown",
            });
            let run = run_of_backup(self.pair, &BranchName::from(entry.name.as_str()))
                .or_else(|| renamed.get(&entry.id).cloned());
            if let Some(pin) = run.and_then(|run| records.pins.get(&run)) {
                value["pin"] = json!({"reason": pin.reason, "until": pin.until.map(render)});
            }
        }
        value
    }

    /// Returns the runs of branches that are marked as backups of this pair, by their ids.
    fn marked(&self, branches: &BranchList) -> BTreeMap<String, RunId> {
        branches
            .branches
            .iter()
            .filter_map(|branch| {
                Some((branch.id.to_string(), marked_run(self.pair, branches, branch)?))
            })
            .into_map()
    }

    async fn branches(&self) -> Result<BranchList, Problem> {
        let Reply::Branches(branches) = self.call(&Call::ListBranches).await? else {
            return Err(senseless());
        };
        Ok(branches)
    }

    /// Lists the snapshots, where a rule keeps some or there is one on record.
    async fn snapshots(
        &self,
        rules: &KeepRules,
        records: &Records,
    ) -> Result<Vec<Snapshot>, Problem> {
        if !rules.has_snapshots() && records.snapshots.is_empty() {
            return Ok(Vec::new());
        }
        let Reply::Snapshots(snapshots) = self.call(&Call::ListSnapshots).await? else {
            return Err(senseless());
        };
        Ok(snapshots)
    }

    async fn endpoints(&self) -> Result<Vec<Endpoint>, Problem> {
        let Reply::Endpoints(endpoints) = self.call(&Call::ListEndpoints).await? else {
            return Err(senseless());
        };
        Ok(endpoints)
    }

    /// Reads what is on record, with the endings of runs of whose backups nothing else is.
    async fn records(&self, branches: &BranchList) -> Result<Records, Problem> {
        let fail = |error: crate::port::StoreFailure| unavailable(&error.into());
        let mut records = record::backups(self.world, &self.pair.name).await.map_err(fail)?;
        let key = record::checkpoint_key(&self.pair.name);
        let found = self.world.read(std::slice::from_ref(&key)).await.map_err(fail)?;
        // One that cannot be read remembers nothing: what it would have known is kept.
        let last: Option<Checkpoint> = found
            .get(&key)
            .and_then(Option::as_ref)
            .and_then(|text| record::decode(&key, text).ok());
        if let Some(last) = &last {
            recall(&mut records, last);
        }
        let unknown = retention::unknown(self.pair, branches, &records);
        if !unknown.is_empty() {
            records.known.extend(
                record::endings(self.world, &self.pair.name, &unknown).await.map_err(fail)?,
            );
        }
        Ok(records)
    }

    async fn call(&self, call: &Call) -> Result<Reply, Problem> {
        let Some(key) = self.secrets.get(secret::NEON_API_KEY).cloned() else {
            let detail = format!(
                "secret {} is not set; set it with `wrangler secret put`",
                secret::NEON_API_KEY
            );
            return Err(Problem::new(500, "A secret is missing").with_detail(detail));
        };
        let api = Api { base: self.config.neon_api_base.clone(), key };
        let result = self.world.send(call.encode(&api, &self.pair.project)).await;
        call.decode(&self.pair.project, result).map_err(|error| {
            Problem::new(502, "Neon does not answer").with_detail(error.to_string())
        })
    }
}

fn senseless() -> Problem {
    Problem::new(502, "Neon's answer makes no sense")
}

fn rules(rules: &KeepRules) -> Value {
    let number = |number: u32| if number == 0 { Value::Null } else { number.into() };
    let mut value = json!({
        "keep_last": number(rules.last), "keep_daily": number(rules.daily),
        "keep_weekly": number(rules.weekly), "keep_monthly": number(rules.monthly),
        "keep_yearly": number(rules.yearly),
        "keep_within": rules.within.map(|span| span.to_string()), "keep_at_least": rules.at_least,
        "keep_failed": rules.failed_days, "keep_displaced": rules.displaced,
    });
    for rule in
        Rule::ALL.into_iter().filter(|rule| !value[rule.key()].is_null()).collect::<Vec<_>>()
    {
        value[rule.tier_key()] = rules.tier(rule).as_str().into();
    }
    value
}
