//! The protocol of Neon's API: calls to requests, replies to values.
//!
//! In: a [`Call`]. Out: an [`HttpRequest`], and from its reply a [`Reply`] or a [`NeonError`].
//!
//! Invariants: nothing here sends, waits or decides; the API key appears in one header only.
//!
//! Failure: a reply that cannot be read is an error of its own, because the call may have taken
//! effect.
//!
//! Source: Neon API v2, OpenAPI document of 2026-07-13, and the recorded replies named at each
//! item.

mod call;
pub mod message;
pub mod sql;
pub mod wire;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::{DeserializeOwned, DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

pub use self::call::{
    Call, CreateBranch, CreateSnapshot, EndpointKind, RestoreBranch, RestoreSnapshot,
};
use self::wire::{
    Branch, BranchList, Database, Endpoint, Operation, OperationPage, Permission, Project, Role,
    ScheduleItem, Snapshot,
};
use crate::id::{BranchId, ProjectId, RoleName, Secret};
use crate::port::{HttpFailure, HttpRequest, HttpResponse, Method};

/// How long a call to Neon may take.
///
/// Cloudflare, which stands before Neon, gives up after 100 s (status 524). A call that takes
/// longer than 20 s is better looked at than waited for, and leaves room for several in one
/// invocation.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// Operations of one page, of the thousand that Neon gives at most: about 70 kB.
///
/// A restore is followed by ids; a page is read only where those are not known.
const OPERATIONS_PER_PAGE: u32 = 200;

/// Characters of a message of Neon's that are kept.
const MESSAGE_LENGTH: usize = 200;

/// Where Neon is and who we are.
#[derive(Clone)]
pub struct Api {
    /// The base address, with `/api/v2`.
    pub base: String,
    /// The key.
    pub key: Secret,
}

/// What a call answered.
#[derive(Clone)]
pub enum Reply {
    /// The project.
    Project(Project),
    /// Every branch.
    Branches(BranchList),
    /// Every endpoint.
    Endpoints(Vec<Endpoint>),
    /// The databases of a branch.
    Databases(Vec<Database>),
    /// The roles of a branch.
    Roles(BranchId, Vec<Role>),
    /// A role's password on a branch.
    Password(BranchId, RoleName, Secret),
    /// One operation.
    Operation(Operation),
    /// A page of operations, newest first, and where the next one begins.
    Operations(Vec<Operation>, Option<String>),
    /// Who has been given access.
    Permissions(Vec<Permission>),
    /// A branch was made; its operations are under way.
    Created(Branch, Vec<Endpoint>, Vec<Operation>),
    /// An endpoint was made; it starts with the first query.
    EndpointCreated(Endpoint),
    /// A restore was accepted; its operations are under way.
    Restored(Branch, Vec<Operation>),
    /// A branch, an endpoint or a snapshot is being deleted, or was gone already.
    Deleted,
    /// Every snapshot.
    Snapshots(Vec<Snapshot>),
    /// When Neon takes snapshots by itself.
    Schedule(Vec<ScheduleItem>),
    /// A snapshot is being taken.
    SnapshotCreated(Snapshot, Vec<Operation>),
    /// A branch is being made of a snapshot; with its endpoints, if it has any.
    SnapshotRestored(Branch, Vec<Endpoint>, Vec<Operation>),
}

/// A call was not answered as wished.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NeonError {
    /// Neon answered with an error status.
    #[error("{call}: Neon answered {status}{}{}", spaced(.code), quoted(.message))]
    Status {
        /// What was asked.
        call: String,
        /// The status code.
        status: u16,
        /// Neon's word for the error; often empty.
        code: String,
        /// Neon's sentence, shortened.
        message: String,
        /// The wait that Neon asked for.
        retry_after: Option<Duration>,
    },
    /// No complete reply came.
    #[error("{call}: {failure}")]
    NoReply {
        /// What was asked.
        call: String,
        /// What happened.
        failure: HttpFailure,
    },
    /// The status was good, the body was not.
    #[error("{call}: Neon's reply could not be read: {problem}")]
    Undecodable {
        /// What was asked.
        call: String,
        /// What is wrong with it; never a part of the body.
        problem: String,
    },
}

fn spaced(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" {text}") }
}

fn quoted(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" \"{text}\"") }
}

impl Call {
    /// Returns whether the call can change something.
    pub fn is_write(&self) -> bool {
        match self {
            Self::CreateBranch(_)
            | Self::CreateEndpoint(..)
            | Self::RestoreBranch(_)
            | Self::DeleteBranch(_)
            | Self::DeleteEndpoint(_)
            | Self::CreateSnapshot(_)
            | Self::RestoreSnapshot(_)
            | Self::DeleteSnapshot(_) => true,
            Self::GetProject
            | Self::ListBranches
            | Self::ListEndpoints
            | Self::ListDatabases(_)
            | Self::ListRoles(_)
            | Self::RevealPassword(..)
            | Self::GetOperation(_)
            | Self::ListOperations(_)
            | Self::ListPermissions
            | Self::ListSnapshots
            | Self::ListSchedule(_) => false,
        }
    }

    /// Says what is asked, for errors: fits after "failed to".
    pub fn describe(&self, project: &ProjectId) -> String {
        match self {
            Self::GetProject => format!("read project {project}"),
            Self::ListBranches => format!("list branches of {project}"),
            Self::ListEndpoints => format!("list endpoints of {project}"),
            Self::ListDatabases(branch) => format!("list databases of {branch}"),
            Self::ListRoles(branch) => format!("list roles of {branch}"),
            Self::RevealPassword(branch, role) => {
                format!("read the password of role {role} on {branch}")
            }
            Self::GetOperation(operation) => format!("read operation {operation}"),
            Self::ListOperations(_) => format!("list operations of {project}"),
            Self::ListPermissions => format!("list the people with access to {project}"),
            Self::CreateBranch(create) => {
                format!("create branch {} from {}", create.name, create.parent)
            }
            Self::CreateEndpoint(branch, EndpointKind::ReadOnly, _) => {
                format!("create a read-only endpoint on {branch}")
            }
            Self::CreateEndpoint(branch, EndpointKind::ReadWrite, _) => {
                format!("create a read-write endpoint on {branch}")
            }
            Self::RestoreBranch(restore) => {
                format!("restore {} from {}", restore.branch, restore.source)
            }
            Self::DeleteBranch(branch) => format!("delete branch {branch}"),
            Self::DeleteEndpoint(endpoint) => format!("delete endpoint {endpoint}"),
            Self::ListSnapshots => format!("list snapshots of {project}"),
            Self::ListSchedule(branch) => format!("read the backup schedule of {branch}"),
            Self::CreateSnapshot(create) => {
                format!("take snapshot {} of {} at {}", create.name, create.branch, create.lsn)
            }
            Self::RestoreSnapshot(restore) => {
                format!("make branch {} from snapshot {}", restore.name, restore.snapshot)
            }
            Self::DeleteSnapshot(snapshot) => format!("delete snapshot {snapshot}"),
        }
    }

    /// Encodes the request.
    pub fn encode(&self, api: &Api, project: &ProjectId) -> HttpRequest {
        let (method, path) = self.route();
        let mut request = HttpRequest::new(
            method,
            format!("{}/projects/{project}{path}", api.base),
            CALL_TIMEOUT,
        );
        request.secret_headers.push((
            "Authorization".to_owned(),
            Secret::new(format!("Bearer {}", api.key.reveal())),
        ));
        request.headers.push(("Accept".to_owned(), "application/json".to_owned()));
        if let Some(body) = self.body() {
            request.headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
            request.body = body.to_string();
        }
        request
    }

    fn route(&self) -> (Method, String) {
        match self {
            Self::GetProject => (Method::Get, String::new()),
            Self::ListBranches => {
                (Method::Get, "/branches?sort_by=created_at&sort_order=asc&limit=10000".to_owned())
            }
            Self::ListEndpoints => (Method::Get, "/endpoints".to_owned()),
            Self::ListDatabases(branch) => (Method::Get, format!("/branches/{branch}/databases")),
            Self::ListRoles(branch) => (Method::Get, format!("/branches/{branch}/roles")),
            Self::RevealPassword(branch, role) => (
                Method::Get,
                format!(
                    "/branches/{branch}/roles/{}/reveal_password",
                    percent_encode(role.as_str())
                ),
            ),
            Self::GetOperation(operation) => (Method::Get, format!("/operations/{operation}")),
            Self::ListOperations(from) => {
                let from = from
                    .as_ref()
                    .map(|cursor| format!("&cursor={}", percent_encode(cursor)))
                    .unwrap_or_default();
                (Method::Get, format!("/operations?limit={OPERATIONS_PER_PAGE}{from}"))
            }
            Self::ListPermissions => (Method::Get, "/permissions".to_owned()),
            Self::CreateBranch(_) => (Method::Post, "/branches".to_owned()),
            Self::CreateEndpoint(..) => (Method::Post, "/endpoints".to_owned()),
            Self::RestoreBranch(restore) => {
                (Method::Post, format!("/branches/{}/restore", restore.branch))
            }
            Self::DeleteBranch(branch) => (Method::Delete, format!("/branches/{branch}")),
            Self::DeleteEndpoint(endpoint) => (Method::Delete, format!("/endpoints/{endpoint}")),
            Self::ListSnapshots => (Method::Get, "/snapshots".to_owned()),
            Self::ListSchedule(branch) => {
                (Method::Get, format!("/branches/{branch}/backup_schedule"))
            }
            Self::CreateSnapshot(create) => {
                let slug =
                    create.slug.as_ref().map(|slug| format!("&slug={slug}")).unwrap_or_default();
                let name = percent_encode(create.name.as_str());
                let lsn = percent_encode(&create.lsn.to_string());
                (
                    Method::Post,
                    format!("/branches/{}/snapshot?lsn={lsn}&name={name}{slug}", create.branch),
                )
            }
            Self::RestoreSnapshot(restore) => {
                (Method::Post, format!("/snapshots/{}/restore", restore.snapshot))
            }
            Self::DeleteSnapshot(snapshot) => (Method::Delete, format!("/snapshots/{snapshot}")),
        }
    }

    fn body(&self) -> Option<Value> {
        if let Self::CreateBranch(create) = self {
            let size = compute_units(create.endpoint_cu_hundredths);
            let mut branch = json!({"name": create.name, "parent_id": create.parent});
            if let Some(lsn) = create.parent_lsn {
                branch["parent_lsn"] = json!(lsn);
            }
            let annotation: Map<String, Value> = create
                .annotation
                .iter()
                .map(|(key, value)| ((*key).to_owned(), json!(value)))
                .collect();
            return Some(json!({
                "branch": branch,
                "endpoints": [{"type": create.endpoint.as_str(), "autoscaling_limit_min_cu": size,
                        "autoscaling_limit_max_cu": size}],
                "annotation_value": annotation,
            }));
        }
        if let Self::CreateEndpoint(branch, kind, cu) = self {
            let size = compute_units(*cu);
            return Some(json!({"endpoint": {
                "branch_id": branch, "type": kind.as_str(), "autoscaling_limit_min_cu": size,
                "autoscaling_limit_max_cu": size,
            }}));
        }
        if let Self::RestoreBranch(restore) = self {
            return Some(json!({"source_branch_id": restore.source,
                        "preserve_under_name": restore.displaced_name}));
        }
        if let Self::RestoreSnapshot(restore) = self {
            return Some(json!({"name": restore.name, "target_branch_id": restore.target,
                        "finalize_restore": false}));
        }
        None
    }

    /// Decodes what came back.
    ///
    /// # Errors
    ///
    /// Any status that is not a success, no reply, or a reply that cannot be read. `sync::retry`
    /// decides what follows.
    pub fn decode(
        &self,
        project: &ProjectId,
        result: Result<HttpResponse, HttpFailure>,
    ) -> Result<Reply, NeonError> {
        let call = || self.describe(project);
        let response = result.map_err(|failure| NeonError::NoReply { call: call(), failure })?;
        if response.status == 404 && matches!(self, Self::DeleteSnapshot(_)) {
            // A branch that is gone answers 204; a snapshot does not.
            return Ok(Reply::Deleted);
        }
        if !(200..300).contains(&response.status) {
            return Err(status_error(call(), &response));
        }
        self.decode_body(&response.body)
            .map_err(|problem| NeonError::Undecodable { call: call(), problem })
    }

    fn decode_body(&self, body: &str) -> Result<Reply, String> {
        Ok(match self {
            Self::GetProject => Reply::Project(field(body, "project")?),
            Self::ListBranches => Reply::Branches(whole(body)?),
            Self::ListEndpoints => Reply::Endpoints(field(body, "endpoints")?),
            Self::ListDatabases(_) => Reply::Databases(field(body, "databases")?),
            Self::ListRoles(branch) => Reply::Roles(branch.clone(), field(body, "roles")?),
            Self::RevealPassword(branch, role) => {
                let password: String = field(body, "password")?;
                Reply::Password(branch.clone(), role.clone(), Secret::new(password))
            }
            Self::GetOperation(_) => Reply::Operation(field(body, "operation")?),
            Self::ListOperations(_) => {
                let page: OperationPage = whole(body)?;
                Reply::Operations(
                    page.operations,
                    page.pagination.and_then(|pagination| pagination.cursor),
                )
            }
            Self::ListPermissions => Reply::Permissions(field(body, "project_permissions")?),
            Self::CreateBranch(_) => {
                let created: Created = whole(body)?;
                Reply::Created(created.branch, created.endpoints, created.operations)
            }
            Self::CreateEndpoint(..) => Reply::EndpointCreated(field(body, "endpoint")?),
            Self::RestoreBranch(_) => {
                let restored: Restored = whole(body)?;
                Reply::Restored(restored.branch, restored.operations)
            }
            Self::DeleteBranch(_) | Self::DeleteEndpoint(_) | Self::DeleteSnapshot(_) => {
                Reply::Deleted
            }
            Self::ListSnapshots => Reply::Snapshots(field(body, "snapshots")?),
            Self::ListSchedule(_) => Reply::Schedule(field(body, "schedule")?),
            Self::CreateSnapshot(_) => {
                let taken: Taken = whole(body)?;
                Reply::SnapshotCreated(taken.snapshot, taken.operations)
            }
            Self::RestoreSnapshot(_) => {
                let restored: Unpacked = whole(body)?;
                Reply::SnapshotRestored(restored.branch, restored.endpoints, restored.operations)
            }
        })
    }
}

#[derive(Deserialize)]
struct Created {
    branch: Branch,
    endpoints: Vec<Endpoint>,
    operations: Vec<Operation>,
}

#[derive(Deserialize)]
struct Restored {
    branch: Branch,
    operations: Vec<Operation>,
}

#[derive(Deserialize)]
struct Taken {
    snapshot: Snapshot,
    operations: Vec<Operation>,
}

#[derive(Deserialize)]
struct Unpacked {
    branch: Branch,
    #[serde(default)]
    endpoints: Vec<Endpoint>,
    operations: Vec<Operation>,
}

fn whole<T: DeserializeOwned>(body: &str) -> Result<T, String> {
    serde_json::from_str(body).map_err(|error| position(&error))
}

/// Reads one field of an object and skips the others.
fn field<T: DeserializeOwned>(body: &str, name: &str) -> Result<T, String> {
    let mut deserializer = serde_json::Deserializer::from_str(body);
    let found = Field { name, value: PhantomData }
        .deserialize(&mut deserializer)
        .and_then(|found| deserializer.end().map(|()| found));
    found
        .map_err(|error| format!("{name}: {}", position(&error)))?
        .ok_or_else(|| format!("field {name:?} is missing"))
}

/// The field that is wanted, and its type.
struct Field<'a, T> {
    name: &'a str,
    value: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for Field<'_, T> {
    type Value = Option<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Field<'_, T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            if key == self.name {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Says what is wrong without quoting the body: serde's own text can contain a value.
fn position(error: &serde_json::Error) -> String {
    format!("{:?} error at line {}, column {}", error.classify(), error.line(), error.column())
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

fn status_error(call: String, response: &HttpResponse) -> NeonError {
    // A page of Cloudflare's is not JSON and says nothing that we need.
    let body: Option<ErrorBody> = serde_json::from_str(&response.body).ok();
    let (code, message) = body.map_or_else(Default::default, |body| (body.code, body.message));
    NeonError::Status {
        call,
        status: response.status,
        code: shorten(&code),
        message: shorten(&message),
        retry_after: response.retry_after,
    }
}

/// Shortens a text of somebody else's to one line that holds no connection string.
pub fn shorten(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let words: Vec<&str> = line
        .split_whitespace()
        .map(|word| if word.contains("://") { "(address)" } else { word })
        .collect();
    words.join(" ").chars().take(MESSAGE_LENGTH).collect()
}

/// Writes hundredths of a compute unit as the number Neon expects, such as 0.25.
fn compute_units(hundredths: u32) -> Value {
    let text = format!("{}.{:02}", hundredths / 100, hundredths % 100);
    let text = text.trim_end_matches('0').trim_end_matches('.');
    serde_json::from_str(text).expect("digits with at most one point are a number")
}

/// Encodes a name for one part of a path.
pub fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            encoded.push(char::from(byte));
        } else {
            // Writing to a text cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests;
