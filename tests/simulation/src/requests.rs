//! The port of requests: Neon, SQL, receivers of notices and the staging application, with whatever
//! goes wrong.

use std::time::Duration;

use chrono::TimeDelta;
use firstlight::port::{Http, HttpFailure, HttpRequest, HttpResponse};
use neon_emulator::simulated::{Damage, Place};

use crate::faults::{Fault, Kind};
use crate::oracle::Sight;
use crate::plan::Crash;
use crate::world::{Event, LateQuery, Sim, TaskWorld};

/// Source: neondatabase/neon `proxy`, read 2026-11-21.
const NOT_ALLOWED: &str = "This IP address 203.0.113.7 is not allowed to connect to this endpoint";

/// What comes back of a request, and after how long.
struct Reply {
    after: TimeDelta,
    result: Result<HttpResponse, HttpFailure>,
    /// What is true only once the reply has been read.
    seen: Option<Seen>,
}

/// What a task learns from a reply.
enum Seen {
    Staging(Sight),
    Tables(String, Vec<String>),
}

impl Http for TaskWorld {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpFailure> {
        let travel = self.latency();
        self.pause(travel).await;
        let reply = self.sim.borrow_mut().arrive(self.task, &request);
        self.pause(reply.after).await;
        let mut sim = self.sim.borrow_mut();
        match reply.seen.filter(|_| reply.result.is_ok()) {
            Some(Seen::Staging(sight)) => sim.tasks[self.task].sight = Some(sight),
            Some(Seen::Tables(branch, tables)) => sim.oracle.read(&branch, tables.into_iter()),
            None => {}
        }
        reply.result
    }
}

impl Sim {
    /// A request arrives.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "most faults leave the request itself alone"
    )]
    fn arrive(&mut self, task: usize, request: &HttpRequest) -> Reply {
        let now = self.now;
        self.neon.advance(now);
        if self.is_in_use {
            let staging = self.oracle.staging_id().to_owned();
            self.neon.write(&staging);
        }
        let action = action_of(request);
        let kind = kind_of(action);
        let mut fault = self.begin(task, action, kind);
        if kind == Kind::Notice && self.random.u8(..100) < self.receivers_fail {
            fault = crate::receivers::misbehaviour(&mut self.random);
            self.failed_letters += 1;
        }
        self.around(task, fault);
        let latency = self.latency();
        let timeout = TimeDelta::from_std(request.timeout).unwrap_or(TimeDelta::seconds(20));
        let is_api = matches!(kind, Kind::Reading | Kind::Writing | Kind::Deletion);
        let is_out = is_api && self.neon_out_until.is_some_and(|until| now < until);
        let fail = |after, failure| Reply { after, result: Err(failure), seen: None };
        let mut reply = match fault {
            _ if is_out => answer(latency, 503, error_body("service unavailable")),
            Fault::Refused(status) => answer(latency, status, refusal(status)),
            Fault::NotAllowed => answer(latency, 400, error_body(NOT_ALLOWED)),
            Fault::Lost => fail(latency, HttpFailure::Disconnected),
            Fault::Zombie | Fault::OldZombie => {
                let after = if fault == Fault::Zombie {
                    TimeDelta::seconds(30)
                } else {
                    TimeDelta::minutes(50)
                };
                let event = if kind == Kind::Query {
                    self.late_query(request)
                } else {
                    Event::Zombie(api_request(request))
                };
                self.events.push((now + after, event));
                self.faulty_until = self.faulty_until.max(now + after);
                fail(timeout, HttpFailure::TimedOut(request.timeout))
            }
            _ => self.apply(task, request, kind, latency),
        };
        match fault {
            Fault::AppliedAndLost => reply.result = Err(HttpFailure::Disconnected),
            Fault::Late => {
                reply.after = timeout;
                reply.result = Err(HttpFailure::TimedOut(request.timeout));
            }
            Fault::Cut => {
                if let Ok(response) = &mut reply.result {
                    response.body.truncate(response.body.len() / 2);
                }
            }
            Fault::NotJson => {
                if let Ok(response) = &mut reply.result {
                    "<html><body>please stand by</body></html>".clone_into(&mut response.body);
                }
            }
            _ => {}
        }
        if self.is_doomed(task, Crash::AtOnce) {
            self.kill(task);
        }
        reply
    }

    /// What happens around an action, whatever the action is.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the rest is done by somebody else, or to the request itself"
    )]
    fn around(&mut self, task: usize, fault: Fault) {
        use neon_emulator::model::Finish;
        let now = self.now;
        match fault {
            Fault::OperationFails => self.neon.model.operation_faults.push(Finish::Failed),
            Fault::OperationRetried => {
                self.neon.model.operation_faults.push(Finish::FailedThenRetried);
            }
            Fault::OperationHangs => {
                // The project is locked for ever: a run that needs to write tries as long as its
                // deadline allows.
                self.neon.model.operation_faults.push(Finish::Hangs);
                self.faulty_until = crate::run::instant(crate::run::DEADLINE);
            }
            Fault::OperationCancelled => self.neon.model.operation_faults.push(Finish::Cancelled),
            Fault::OperationCancelling => self.neon.model.operation_faults.push(Finish::Cancelling),
            Fault::OperationErrs => self.neon.model.operation_faults.push(Finish::Error),
            Fault::OperationSkipped => self.neon.model.operation_faults.push(Finish::Skipped),
            Fault::OperationFinishesLater => {
                self.neon.model.operation_faults.push(Finish::FailedThenFinished);
            }
            Fault::Damaged | Fault::DamagedBelow => {
                let place = if fault == Fault::Damaged { Place::After } else { Place::Before };
                let damage = Some(Damage::Rows(place));
                (self.neon.damages_next_restore, self.neon.damages_next_unpacking) =
                    (damage, damage);
            }
            Fault::Behind => self.neon.damages_next_restore = Some(Damage::Behind),
            Fault::Asleep => {
                // What wakes is another compute.
                (self.asleep, self.neon.computes_started) = (3, self.neon.computes_started + 1);
            }
            Fault::Restarted => self.neon.computes_started += 1,
            Fault::AsleepForEver => {
                // A run that cannot read tries as long as its deadline allows.
                self.asleep = u32::MAX;
                self.faulty_until = crate::run::instant(crate::run::DEADLINE);
            }
            Fault::Outage | Fault::LongOutage => {
                let until = now
                    + if fault == Fault::Outage {
                        TimeDelta::minutes(20)
                    } else {
                        TimeDelta::hours(3)
                    };
                self.neon_out_until = Some(until);
                self.faulty_until = self.faulty_until.max(until);
            }
            Fault::Deployed => self.is_deployed = true,
            Fault::ClockAhead => self.tasks[task].skew += TimeDelta::minutes(40),
            Fault::ClockBack => self.tasks[task].skew -= TimeDelta::minutes(20),
            Fault::QuotaReached => self.neon.model.limits.branches = self.neon.model.branches.len(),
            _ => crate::outside::happens(&mut self.neon, &mut self.oracle, fault, now),
        }
    }

    /// Carries a request out.
    fn apply(
        &mut self,
        task: usize,
        request: &HttpRequest,
        kind: Kind,
        latency: TimeDelta,
    ) -> Reply {
        let now = self.now;
        match kind {
            Kind::Reading | Kind::Writing | Kind::Deletion => {
                let asked = api_request(request);
                if asked.path.contains("/branches/") && asked.path.ends_with("/restore") {
                    self.oracle.restore_is_sent(self.tasks[task].sight.as_ref());
                }
                let response = self.serve(&asked);
                let is_listing = asked.method == "GET" && asked.path.ends_with("/branches");
                if is_listing && response.status == 200 {
                    self.oracle.listed();
                }
                let seen = is_listing.then(|| Seen::Staging(self.oracle.sight(&self.neon)));
                Reply { seen, ..answer(latency, response.status, response.body) }
            }
            Kind::Query => {
                let (connection, is_read_only) = (connection_of(request), is_read_only(request));
                let host = connection.rsplit_once('@').map(|(_, rest)| rest).unwrap_or_default();
                let endpoint = host.split('.').next().unwrap_or_default();
                let branch =
                    self.neon.model.endpoint(endpoint).map(|endpoint| endpoint.branch.clone());
                self.oracle.asked(branch.as_deref(), is_read_only);
                if self.asleep > 0 {
                    self.asleep = self.asleep.saturating_sub(1).max(if self.asleep == u32::MAX {
                        u32::MAX
                    } else {
                        0
                    });
                    return answer(latency, 500, error_body("Control plane request failed"));
                }
                let (status, body) = self.neon.query(connection, is_read_only, &request.body, now);
                let tables = if status == 200 { tables_in(&request.body) } else { Vec::new() };
                let seen = branch
                    .filter(|_| !tables.is_empty())
                    .map(|branch| Seen::Tables(branch, tables));
                // The first query wakes the compute.
                let waking = self.neon.waked_for;
                Reply {
                    seen,
                    ..answer(latency + TimeDelta::milliseconds(400) + waking, status, body)
                }
            }
            Kind::Notice => {
                self.receive(task, request);
                // As Slack says that a message was taken.
                answer(latency, 200, "ok".to_owned())
            }
            Kind::Smoke | Kind::StoreRead | Kind::StoreWrite => {
                answer(latency, 200, "ok".to_owned())
            }
        }
    }

    /// Returns a query that is on its way.
    fn late_query(&self, request: &HttpRequest) -> Event {
        Event::ZombieQuery(Box::new(LateQuery {
            connection: connection_of(request).to_owned(),
            is_read_only: is_read_only(request),
            body: request.body.clone(),
            meant_for: self.neon.written(self.oracle.staging_id()).map(|written| written.data),
        }))
    }

    /// A query arrives that nobody waits for any more: it must not change what another restore has
    /// made.
    pub(crate) fn arrives_late(&mut self, query: &LateQuery) {
        let (now, staging) = (self.now, self.oracle.staging_id().to_owned());
        self.neon.advance(now);
        let before = self.neon.written(&staging);
        let (status, body) =
            self.neon.query(&query.connection, query.is_read_only, &query.body, now);
        let after = self.neon.written(&staging);
        self.note(|| format!("zombie query: {status} {body}"));
        let is_other = before.as_ref().map(|before| &before.data) != query.meant_for.as_ref();
        if before != after && is_other {
            self.oracle.violations.push(format!(
                "G3: a query that was sent to one staging has changed the next: {}",
                query.body
            ));
        }
    }

    /// Lets Neon serve a request, and judges it.
    pub(crate) fn serve(
        &mut self,
        asked: &neon_emulator::model::Request,
    ) -> neon_emulator::model::Response {
        let now = self.now;
        self.neon.advance(now);
        let is_restore = asked.path.ends_with("/restore");
        let before = if is_restore {
            self.neon.model.branch(self.oracle.staging_id()).cloned()
        } else {
            None
        };
        if self.damages && is_restore {
            let source = asked.body["source_branch_id"].as_str().unwrap_or_default();
            let is_backup = self
                .neon
                .model
                .branch(source)
                .is_some_and(|branch| branch.name.starts_with("backup-"));
            self.neon.damages_next_restore = is_backup.then_some(Damage::Behind);
        }
        let response = self.neon.serve(asked, now);
        (self.neon.damages_next_restore, self.neon.damages_next_unpacking) = (None, None);
        self.oracle.applied(asked, &response, before.as_ref(), &self.neon, now);
        if self.is_live
            && response.status == 201
            && asked.method == "POST"
            && asked.path.ends_with("/branches")
        {
            // Production goes on: what is taken of its head later is not what the backup is.
            let production =
                asked.body["branch"]["parent_id"].as_str().unwrap_or_default().to_owned();
            self.neon.write(&production);
        }
        response
    }

    /// A receiver takes a notice.
    fn receive(&mut self, task: usize, request: &HttpRequest) {
        self.judge_secrets("a notice", &request.body);
        if let Some(letters) = &mut self.letters {
            letters.push(crate::receivers::Letterbox {
                url: request.url.clone(),
                body: request.body.clone(),
            });
        }
        if !request.url.contains("webhook") {
            return;
        }
        let body: serde_json::Value = serde_json::from_str(&request.body).unwrap_or_default();
        let data = &body["data"];
        let text = |name: &str| data[name].as_str().unwrap_or_default().to_owned();
        self.judge_claim(task, data);
        self.oracle.told(&text("run"), &text("kind"), &text("at"), &text("text"));
    }

    /// Judges a notice of success when it is first seen.
    pub(crate) fn judge_claim(&mut self, task: usize, notice: &serde_json::Value) {
        let text = |name: &str| notice[name].as_str().unwrap_or_default().to_owned();
        if matches!(text("kind").as_str(), "succeeded" | "corrected") {
            let claim = Some(text("text")).filter(|_| text("subject").contains("sync completed"));
            let sight = self.tasks[task].sight.clone();
            self.oracle.claimed(&text("id"), &text("run"), claim.as_deref(), sight.as_ref());
        }
    }

    /// No password may leave in the open. Neon's all begin alike.
    pub(crate) fn judge_secrets(&mut self, place: &str, text: &str) {
        for secret in ["npg_", "neon_emulator_key"] {
            if contains(text, secret) {
                self.oracle.violations.push(format!("G7: {place} holds a secret: {text}"));
            }
        }
    }
}

fn connection_of(request: &HttpRequest) -> &str {
    request.secret_headers.first().map(|(_, secret)| secret.reveal()).unwrap_or_default()
}

fn is_read_only(request: &HttpRequest) -> bool {
    request.headers.iter().any(|(name, value)| name == "Neon-Batch-Read-Only" && value == "true")
}

fn answer(after: TimeDelta, status: u16, body: String) -> Reply {
    let retry_after = (status == 429).then(|| Duration::from_secs(3));
    Reply {
        after,
        result: Ok(HttpResponse { status, retry_after, body, ..HttpResponse::default() }),
        seen: None,
    }
}

fn error_body(message: &str) -> String {
    format!("{{\"request_id\":\"\",\"code\":\"\",\"message\":\"{message}\"}}")
}

/// Returns what Neon, or who stands before it, answers with a status.
fn refusal(status: u16) -> String {
    match status {
        401 => error_body("supplied credentials do not pass authentication"),
        409 => error_body("branch already exists"),
        423 => error_body(
            "project already has running conflicting operations, scheduling of new ones is \
                prohibited",
        ),
        524 => "<html><head><title>524: A timeout occurred</title></head></html>".to_owned(),
        _ => error_body("refused by the simulation"),
    }
}

/// Returns the name of the action that a request is.
pub(crate) fn action_of(request: &HttpRequest) -> &'static str {
    if request.url.ends_with("/sql") {
        return query_of(&request.body);
    }
    if let Some((_, path)) = request.url.split_once("/api/v2") {
        let path = path.split('?').next().unwrap_or_default();
        return neon_emulator::model::route_name(request.method.as_str(), path);
    }
    if request.url.starts_with("email:") {
        return "email";
    }
    let Some((_, path)) = request.url.split_once("://hooks.example.test/") else { return "smoke" };
    RECEIVERS.into_iter().find(|name| path.starts_with(name)).unwrap_or("webhook")
}

/// The names of what takes notices, as they begin their paths.
const RECEIVERS: [&str; 7] =
    ["webhook", "slack", "discord", "teams", "pagerduty", "http", "healthcheck"];

/// Does what [`str::contains`] does, several times as fast: bodies have kilobytes.
fn contains(text: &str, part: &str) -> bool {
    memchr::memmem::find(text.as_bytes(), part.as_bytes()).is_some()
}

fn query_of(body: &str) -> &'static str {
    match body {
        body if contains(body, "as is_left_out") => "catalogue",
        body if contains(body, "firstlight.probes") => "probes",
        body if contains(body, "firstlight.sql") => "after_restore",
        body if contains(body, "items(kind, name, definition) as (") => "items",
        body if contains(body, "select string_agg(r") => "rows",
        body if contains(body, "select r, k from") => "keys",
        body if contains(body, " as k, ") => "parts",
        body if contains(body, "hashint4extended(1, ") => "content",
        body if contains(body, "rolbypassrls") => "sees_all_rows",
        body if contains(body, "rolconnlimit") => "doors",
        body if contains(body, "alter role") => "give_password",
        _ => "log_in",
    }
}

fn kind_of(action: &str) -> Kind {
    match action {
        "createProjectBranch"
        | "restoreProjectBranch"
        | "createProjectEndpoint"
        | "createSnapshot"
        | "restoreSnapshot" => Kind::Writing,
        "deleteProjectBranch" | "deleteProjectEndpoint" | "deleteSnapshot" => Kind::Deletion,
        "catalogue" | "content" | "probes" | "after_restore" | "items" | "parts" | "rows"
        | "keys" | "sees_all_rows" | "doors" | "give_password" | "log_in" => Kind::Query,
        "webhook" | "slack" | "discord" | "teams" | "pagerduty" | "http" | "healthcheck"
        | "email" => Kind::Notice,
        "smoke" => Kind::Smoke,
        _ => Kind::Reading,
    }
}

/// Returns the tables that a batch of SQL digests.
pub(crate) fn tables_in(body: &str) -> Vec<String> {
    const BEFORE: &str = "from only ";
    let after = memchr::memmem::find_iter(body.as_bytes(), BEFORE)
        .filter_map(|at| body.get(at + BEFORE.len()..));
    after
        .map(|rest| {
            rest.chars()
                .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_'))
                .collect()
        })
        .collect()
}

pub(crate) fn api_request(request: &HttpRequest) -> neon_emulator::model::Request {
    let (_, rest) = request.url.split_once("/api/v2").unwrap_or_default();
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let query = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.replace("%2F", "/")));
    neon_emulator::model::Request {
        method: request.method.as_str().to_owned(),
        path: path.to_owned(),
        query: query.collect(),
        body: if request.body.is_empty() {
            serde_json::Value::Null
        } else {
            serde_json::from_str(&request.body).expect("our client writes JSON")
        },
    }
}
