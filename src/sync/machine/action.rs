//! What the machine asks for.
//!
//! Invariants: an action is plain data; `tick::act` does it, and [`apply`](super::apply()) takes
//! what came of it.

use crate::id::{BranchId, DatabaseName, RoleName, RunId};
use crate::neon::Call;
use crate::neon::sql::Batch;
use crate::sync::checkpoint::Side;
use crate::verify::Piece;

/// Something to be done outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A call of Neon's API.
    Call(Call),
    /// A batch of SQL.
    Query(Box<Query>),
    /// Batches that read content, at the same time.
    Read(Vec<Query>),
    /// Read whether somebody has cancelled the run or holds staging, and what the first of these
    /// runs counted that is on record.
    ReadOrders(Vec<RunId>),
    /// Read what is on record of backups, and which manual runs never ended.
    ReadLedger,
    /// Read how these runs ended, of whose backups nothing else is on record.
    ReadEndings(Vec<RunId>),
    /// See that people are told how a manual run ended whose place this run took.
    Close(RunId),
    /// Call the staging application: the n-th configured test.
    Smoke(usize),
    /// Store the result and queue the notices.
    Publish,
    /// Remove what is on record of the backups of these runs, which are gone.
    Forget(Vec<RunId>),
    /// Write down what is known of the snapshot of the backup, and tell people when it is not what
    /// it should be.
    NoteSnapshot,
}

impl Action {
    /// Returns the name that the log and an error tell.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Call(_) => "call of Neon's API",
            Self::Query(_) | Self::Read(_) => "query",
            Self::ReadOrders(_) => "reading orders",
            Self::ReadLedger => "reading the ledger",
            Self::ReadEndings(_) => "reading endings",
            Self::Close(_) => "closing a manual run",
            Self::Smoke(_) => "smoke test",
            Self::Publish => "publishing",
            Self::Forget(_) => "forgetting records",
            Self::NoteSnapshot => "noting the snapshot",
        }
    }
}

/// A batch of SQL and what it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// What the answer is for.
    pub purpose: Purpose,
    /// The branch that is asked.
    pub branch: BranchId,
    /// The branch whose password is used.
    pub password_of: BranchId,
    /// The endpoint's host.
    pub host: String,
    /// The database.
    pub database: DatabaseName,
    /// The role that logs in.
    pub role: RoleName,
    /// The statements.
    pub batch: Batch,
}

/// What the answer to a query is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Whether the verifying role sees every row.
    SeesAllRows,
    /// What a database contains.
    Catalogue(Side),
    /// What some of its tables hold.
    Content(Side, Piece),
    /// In which groups the objects of the kinds differ of which there are many.
    Groups(Side),
    /// How the objects of the kinds that differ are defined.
    Items(Side),
    /// Which parts of the tables that differ do.
    Parts(Side, Vec<String>),
    /// The hashes of the rows of tables that differ, of large ones in those parts.
    Rows(Side, Vec<String>),
    /// The keys of rows that are named.
    Keys(Side, Vec<String>),
    /// What is asked beside the content: these probes of the side and database.
    Probes(Side, Vec<usize>),
    /// What is configured is run on staging.
    AfterRestore,
    /// What each tenant sees.
    Tenants,
    /// Which roles may log in to staging, and to which databases.
    Doors,
    /// The role gets the password it had on this branch.
    GivePassword(BranchId),
    /// Whether the role can log in.
    LogIn,
}
