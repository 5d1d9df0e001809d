//! `/runs`: start, list, show, cancel.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    Answer, ApiRequest, ApiResponse, Drive, NAME_LENGTH, Problem, REASON_LENGTH, body, named_pair,
    store, text_of, unavailable,
};
use crate::config::{Config, Pair};
use crate::id::{RunId, digest};
use crate::ordered;
use crate::port::{StoreFailure, World};
use crate::record::{self, Accepted, CancelOrder, Report};
use crate::sync::checkpoint::{Checkpoint, FORMAT, Goal, History, Hold, Prune, Start};
use crate::sync::schedule;
use crate::sync::step::Step;
use crate::tick::{Context, Secrets};
use crate::time::{Timestamp, after, between};

/// Pages of a listing that are read; a page has up to 1,000 runs, so these reach back more than ten
/// years.
const PAGES: u32 = 5;

/// Starts a run now.
///
/// `{"pair": "hub", "until": "verify_backup", "accept_row_loss": true}`, each optional. The same
/// `Idempotency-Key` with the same body answers with the same run as long as KV remembers it.
pub(super) async fn start<W: World>(
    world: &W,
    config: &Config,
    secrets: &Secrets,
    request: &ApiRequest,
) -> Result<Answer, Problem> {
    let fields = body(request, &["pair", "until", "accept_row_loss"])?;
    let name = match fields.get("pair") {
        None => request.query.get("pair").map(String::as_str),
        Some(Value::String(name)) => Some(name.as_str()),
        Some(_) => {
            return Err(Problem::new(400, "The body cannot be used")
                .with_detail("pair: expected a text".to_owned()));
        }
    };
    let pair = named_pair(config, name)?;
    let goal = match fields.get("until") {
        None => Goal::Staging,
        Some(value) if value == "verify_backup" => Goal::VerifyBackup,
        Some(value) => {
            let shown: String = value.to_string().chars().take(60).collect();
            let detail = format!(
                "until: is {shown}; allowed is \"verify_backup\", or nothing for a whole run"
            );
            return Err(Problem::new(400, "The body cannot be used").with_detail(detail));
        }
    };
    let accepts_row_loss = match fields.get("accept_row_loss") {
        None => false,
        Some(Value::Bool(accepts)) => *accepts,
        Some(_) => {
            let detail = "accept_row_loss: expected true or false".to_owned();
            return Err(Problem::new(400, "The body cannot be used").with_detail(detail));
        }
    };
    let repeat = repeat_key(pair, request)?;
    let now = world.now();
    // Before anything is waited for: of two requests at one instant the store shows neither to the
    // other.
    let before = begun(world, pair, now);
    world.note(&begun_by_hand(pair), now);
    let answer = begin(
        world,
        config,
        secrets,
        pair,
        request,
        Begin { goal, accepts_row_loss, repeat, before, now },
    )
    .await;
    if !answer.as_ref().is_ok_and(|answer| answer.drive.is_some()) {
        // It has begun nothing: what was begun before it counts on.
        world.note(&begun_by_hand(pair), before.unwrap_or_default());
    }
    answer
}

/// How long a run that was begun here is known although the store does not show it: as long as an
/// answer of the store may be old, and half of that again.
const SHOWN_LATE: Duration = Duration::from_secs(90);

/// How long it may take to tell that the run before gives way: a channel has fifteen seconds.
const WALL: Duration = Duration::from_secs(25);

/// What is noted of the last manual run of a pair that was begun by this instance.
fn begun_by_hand(pair: &Pair) -> String {
    format!("{} begun by hand", pair.name)
}

/// Returns when a manual run of the pair was last begun by this instance, where the store may not
/// show it yet.
fn begun<W: World>(world: &W, pair: &Pair, now: Timestamp) -> Option<Timestamp> {
    world.noted_at(&begun_by_hand(pair)).filter(|at| *at <= now && between(*at, now) < SHOWN_LATE)
}

/// A run that somebody wants to begin.
struct Begin {
    goal: Goal,
    accepts_row_loss: bool,
    /// The key and the digest of a repeatable request.
    repeat: Option<(String, String)>,
    /// When this instance has begun one before, if that may not show yet.
    before: Option<Timestamp>,
    now: Timestamp,
}

/// Begins a run, unless one is under way as far as the store or this instance knows.
///
/// Two requests that reach two instances within a minute may both be accepted: names in Neon keep
/// them apart, and the one whose place the other takes is told as overtaken. Within the same second
/// both have one id, and are one run that two ticks drive.
async fn begin<W: World>(
    world: &W,
    config: &Config,
    secrets: &Secrets,
    pair: &Pair,
    request: &ApiRequest,
    begin: Begin,
) -> Result<Answer, Problem> {
    let Begin { goal, accepts_row_loss, repeat, before, now } = begin;
    let checkpoint_key = record::checkpoint_key(&pair.name);
    let hold_key = record::hold_key(&pair.name);
    let keys: Vec<String> = [
        Some(checkpoint_key.clone()),
        Some(hold_key.clone()),
        repeat.as_ref().map(|(key, _)| key.clone()),
    ]
    .into_iter()
    .flatten()
    .collect();
    let found = world.read(&keys).await.map_err(|error| unavailable(&error.into()))?;
    let text = |key: &str| found.get(key).and_then(Option::as_ref);
    if let Some((key, digest)) = &repeat
        && let Some(known) = text(key)
    {
        return repeated(known, digest, config, pair);
    }
    let last = checkpoint(&checkpoint_key, text(&checkpoint_key))?;
    let under_way = last.as_ref().filter(|last| !last.is_over());
    // The snapshot of a backup may take hours: a run does not wait for it, but for the tick that
    // drives it.
    let left = under_way
        .filter(|last| last.is_published && last.prune.is_at_snapshot() && !last.is_driven(now));
    if let Some(last) = under_way.filter(|_| left.is_none()) {
        return Err(Problem::new(409, "A run is under way")
            .with_detail(what_is_under_way(last))
            .with_run(&last.run));
    }
    if let Some(at) = before {
        let run = RunId::manual(at);
        // A run that is over, or one that was started since, is what the store shows of it.
        if last.as_ref().is_none_or(|last| last.run != run && last.started_at <= at) {
            return Err(Problem::new(409, "A run is under way")
                .with_detail(format!("run {run} was accepted at {}", crate::time::render(at)))
                .with_run(&run));
        }
    }
    let hold: Option<Hold> = decoded(&hold_key, text(&hold_key))?;
    let history = History::after(last.as_ref());
    let done = last.as_ref().filter(|last| last.is_over()).map(|last| &last.run);
    let start = Start {
        pair: pair.name.clone(),
        run: RunId::manual(now),
        is_manual: true,
        goal,
        hold: hold.filter(|hold| hold.is_in_force(now)),
        give_up_at: schedule::manual_give_up_at(pair, &history, done, now),
        settings: pair.settings.clone(),
        history,
    };
    let mut checkpoint = Checkpoint::start(start, now);
    checkpoint.accepts_row_loss = accepts_row_loss;
    checkpoint.outbox = last.as_ref().map(|last| last.outbox.clone()).unwrap_or_default();
    if let Some(left) = left {
        let context = Context::new(world, config, secrets, after(now, WALL), &|_, _| {});
        checkpoint.outbox.extend(context.give_way(pair, left, now).await);
    }
    accept(world, config, pair, request, checkpoint, repeat).await
}

/// Says what a run is at that keeps another from beginning.
fn what_is_under_way(run: &Checkpoint) -> String {
    match run.driven_until.filter(|_| run.is_published && run.prune.is_at_snapshot()) {
        Some(until) => format!(
            "the snapshot of run {} is being taken or compared, by a tick that lasts until {}; try \
             again then",
            run.run,
            crate::time::render(until)
        ),
        None => format!("run {} is at step {} ({})", run.run, run.step.number(), run.step.name()),
    }
}

/// Stores the run and answers.
async fn accept<W: World>(
    world: &W,
    config: &Config,
    pair: &Pair,
    request: &ApiRequest,
    checkpoint: Checkpoint,
    repeat: Option<(String, String)>,
) -> Result<Answer, Problem> {
    store(world, &record::checkpoint_key(&pair.name), &record::encode(&checkpoint)).await?;
    // A second run that is accepted at the same time takes the place of this one; what was promised
    // is then still known.
    let accepted_key = record::accepted_key(&pair.name, checkpoint.run.as_str());
    let value =
        Accepted { format: FORMAT, at: Some(checkpoint.started_at), goal: Some(checkpoint.goal) };
    store(world, &accepted_key, &record::encode(&value)).await?;
    if let Some((key, digest)) = repeat {
        let value = json!({"format": 1, "run": checkpoint.run, "request": digest}).to_string();
        store(world, &key, &value).await?;
    }
    let is_followed = request.query.contains_key("follow");
    Ok(Answer {
        response: accepted(config, pair, &checkpoint.run),
        drive: Some(Drive {
            pair: pair.name.clone(),
            checkpoint: Box::new(checkpoint),
            is_followed,
        }),
    })
}

/// Answers that a run was accepted, and where it is shown. With several pairs an address of a run
/// names its pair.
fn accepted(config: &Config, pair: &Pair, run: &RunId) -> ApiResponse {
    let query = if config.pairs.len() > 1 { format!("?pair={}", pair.name) } else { String::new() };
    ApiResponse::json(202, &json!({"run": run, "status": "running"}))
        .with_header("location", format!("/runs/{run}{query}"))
}

/// Returns the key under which a repeatable request is remembered, and the digest of what it asks
/// for.
fn repeat_key(pair: &Pair, request: &ApiRequest) -> Result<Option<(String, String)>, Problem> {
    let Some(key) = &request.idempotency_key else { return Ok(None) };
    let is_good = (1..=200).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_good {
        let detail =
            "Idempotency-Key: allowed are 1 to 200 visible ASCII characters without spaces"
                .to_owned();
        return Err(Problem::new(400, "The header cannot be used").with_detail(detail));
    }
    Ok(Some((record::request_key(&pair.name, &digest(key, 16)), digest(request.body.trim(), 16))))
}

/// Answers a request that was made before.
fn repeated(known: &str, digest: &str, config: &Config, pair: &Pair) -> Result<Answer, Problem> {
    let known: Value = serde_json::from_str(known).unwrap_or_default();
    if known["request"] != digest {
        let detail = "Idempotency-Key: was used with another body; use a key once for each request"
            .to_owned();
        return Err(Problem::new(422, "The key was used for another request").with_detail(detail));
    }
    match known["run"].as_str().and_then(RunId::decode) {
        Some(run) => Ok(accepted(config, pair, &run).into()),
        None => Err(Problem::new(503, "The memory of this request cannot be read")),
    }
}

/// Reads the checkpoint of a pair. One that makes no sense is as good as lost, as it is for a tick.
fn checkpoint(key: &str, text: Option<&String>) -> Result<Option<Checkpoint>, Problem> {
    text.map_or(Ok(None), |text| record::decode_or_lose(key, text))
        .map_err(|error| unavailable(&error))
}

fn decoded<T: serde::de::DeserializeOwned>(
    key: &str,
    text: Option<&String>,
) -> Result<Option<T>, Problem> {
    text.map(|text| record::decode(key, text)).transpose().map_err(|error| unavailable(&error))
}

/// Lists the runs of a pair, newest first, the one under way included.
pub(super) async fn list<W: World>(world: &W, pair: &Pair) -> Result<ApiResponse, Problem> {
    let fail = |error: StoreFailure| unavailable(&error.into());
    let checkpoint_key = record::checkpoint_key(&pair.name);
    let found = world.read(std::slice::from_ref(&checkpoint_key)).await.map_err(fail)?;
    let last = checkpoint(&checkpoint_key, found.get(&checkpoint_key).and_then(Option::as_ref))?;
    let prefix = format!("result/{}/", pair.name);
    let mut runs = Vec::new();
    let mut cursor = None;
    for _ in 0..PAGES {
        let page = world.list(&prefix, cursor).await.map_err(fail)?;
        for (key, facts) in page.keys {
            let run = key.strip_prefix(&prefix).unwrap_or(&key).to_owned();
            let facts = facts.unwrap_or_default();
            runs.push((
                facts.started_at.clone(),
                json!({
                    "run": run, "status": facts.status, "started_at": facts.started_at,
                    "ended_at": facts.ended_at,
                }),
            ));
        }
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
    }
    if let Some(checkpoint) =
        last.filter(|checkpoint| !runs.iter().any(|(_, run)| run["run"] == checkpoint.run.as_str()))
    {
        let report = Report::of(&checkpoint);
        let started_at = crate::time::render(report.started_at);
        runs.push((
            started_at.clone(),
            json!({
                "run": report.run, "status": report.status, "started_at": started_at,
                "ended_at": report.ended_at.map(crate::time::render),
            }),
        ));
    }
    ordered::sort_by(&mut runs, |(left, _), (right, _)| right.cmp(left));
    let runs: Vec<Value> = runs.into_iter().map(|(_, run)| run).collect();
    Ok(ApiResponse::json(200, &json!({"pair": pair.name, "runs": runs})))
}

/// What is known of a run.
enum Known {
    /// Its result, or its checkpoint while it is under way.
    Report(Box<Report>),
    /// It was accepted, and what it does is not to be seen: the store shows it late, or another run
    /// has its place.
    Accepted(RunId, Option<Timestamp>),
}

/// Reads what is known of a run.
async fn known<W: World>(world: &W, pair: &Pair, id: &str) -> Result<Known, Problem> {
    let run = RunId::decode(id).ok_or_else(|| {
        let id: String = id.chars().take(60).collect();
        Problem::new(404, "There is no such run").with_detail(format!(
            "run: is {id:?}; a run is named by its date (20261121) or its start (20261121T143000Z)"
        ))
    })?;
    let accepted_key = record::accepted_key(&pair.name, run.as_str());
    let result_key = record::result_key(&pair.name, &run);
    let (checkpoint_key, prune_key) =
        (record::checkpoint_key(&pair.name), record::prune_key(&pair.name, &run));
    let keys =
        [result_key.clone(), checkpoint_key.clone(), prune_key.clone(), accepted_key.clone()];
    let found = world.read(&keys).await.map_err(|error| unavailable(&error.into()))?;
    let text = |key: &str| found.get(key).and_then(Option::as_ref);
    let checkpoint = checkpoint(&checkpoint_key, text(&checkpoint_key))?
        .filter(|checkpoint| checkpoint.run == run);
    if let Some(mut report) = decoded::<Report>(&result_key, text(&result_key))? {
        // A tick whose budget is spent leaves what it pruned in the checkpoint alone.
        let latest = checkpoint
            .filter(|checkpoint| checkpoint.prune.is_done)
            .map(|checkpoint| checkpoint.prune);
        report.prune = decoded::<Prune>(&prune_key, text(&prune_key))?.or(latest);
        return Ok(Known::Report(Box::new(report)));
    }
    if let Some(checkpoint) = checkpoint {
        return Ok(Known::Report(Box::new(Report::of(&checkpoint))));
    }
    let begun_here = begun(world, pair, world.now()).filter(|at| RunId::manual(*at) == run);
    let accepted = decoded::<Accepted>(&accepted_key, text(&accepted_key))?;
    if accepted.is_some() || begun_here.is_some() {
        let at = accepted.and_then(|accepted| accepted.at).or(begun_here);
        return Ok(Known::Accepted(run, at));
    }
    let id: String = id.chars().take(60).collect();
    Err(Problem::new(404, "There is no such run")
        .with_detail(format!("run {id:?} of pair {} is not known", pair.name)))
}

/// Shows a run.
pub(super) async fn show<W: World>(
    world: &W,
    pair: &Pair,
    id: &str,
) -> Result<ApiResponse, Problem> {
    match known(world, pair, id).await? {
        Known::Report(report) => {
            // In the store, checks that passed are kept in a compact form.
            let mut shown = json!(report);
            shown["checks"] = json!(report.checks);
            Ok(ApiResponse::json(200, &shown))
        }
        Known::Accepted(run, at) => Ok(ApiResponse::json(
            200,
            &json!({
                "pair": pair.name, "run": run, "status": "accepted", "is_manual": true,
                "started_at": at.map(crate::time::render),
            }),
        )),
    }
}

/// Asks a run to end before its next write. Asking again replaces who has asked and why.
///
/// `{"by": "Dana", "reason": "production is being migrated"}`, both optional.
pub(super) async fn cancel<W: World>(
    world: &W,
    pair: &Pair,
    request: &ApiRequest,
    id: &str,
) -> Result<ApiResponse, Problem> {
    let fields = body(request, &["by", "reason"])?;
    let (by, reason) =
        (text_of(&fields, "by", NAME_LENGTH)?, text_of(&fields, "reason", REASON_LENGTH)?);
    let order = CancelOrder { format: FORMAT, at: world.now(), by, reason };
    let report = match known(world, pair, id).await? {
        Known::Report(report) => report,
        Known::Accepted(run, _) => return cancelling(world, pair, &order, &run, None).await,
    };
    if report.ended_at.is_some() {
        return Err(Problem::new(409, "The run has ended")
            .with_detail(format!("run {} has {}", report.run, report.status.as_str()))
            .with_run(&report.run));
    }
    cancelling(world, pair, &order, &report.run, Some(&report)).await
}

/// Stores the order to end a run, and answers with what it finds staging in. Of a run that was
/// accepted and is not to be seen there is no report.
async fn cancelling<W: World>(
    world: &W,
    pair: &Pair,
    order: &CancelOrder,
    run: &RunId,
    report: Option<&Report>,
) -> Result<ApiResponse, Problem> {
    let key = record::cancel_key(&pair.name, run);
    store(world, &key, &record::encode(order)).await?;
    let step = report.map_or(Step::Preflight, |report| report.step).name();
    let staging = match report.and_then(|report| report.displaced.as_ref()) {
        None => "Staging is untouched so far.".to_owned(),
        Some(displaced) => format!(
            "Staging is being restored (step {step}); what it held before is in {displaced}."
        ),
    };
    Ok(ApiResponse::json(
        202,
        &json!({
            "run": run, "status": "cancelling", "step": step, "staging": staging,
            "detail": "the run ends before its next write; a write that was sent is not taken back",
        }),
    ))
}
