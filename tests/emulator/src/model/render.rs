//! Neon's objects as JSON.
//!
//! Source: Neon API v2, OpenAPI document of 2026-07-13 (required fields) and recorded replies of
//! 2025-01-16 (shapes).

use serde::Serialize;
use serde_json::{Value, json};

use super::{Branch, Endpoint, Model, Operation, Role, Snapshot, Timestamp, seconds};

/// A branch as Neon writes it.
#[derive(Serialize)]
pub(super) struct BranchBody<'a> {
    id: &'a str,
    project_id: &'a str,
    name: &'a str,
    current_state: &'a str,
    state_changed_at: String,
    creation_source: &'a str,
    primary: bool,
    default: bool,
    protected: bool,
    cpu_used_sec: u32,
    compute_time_seconds: u32,
    active_time_seconds: u32,
    written_data_bytes: u32,
    data_transfer_bytes: u32,
    created_at: String,
    updated_at: String,
    init_source: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_lsn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_timestamp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pending_state: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_reset_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logical_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restore_status: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restored_from: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restored_as: Option<&'a str>,
}

/// A snapshot as Neon writes it.
#[derive(Serialize)]
pub(super) struct SnapshotBody<'a> {
    id: &'a str,
    name: &'a str,
    source_branch_id: &'a str,
    created_at: String,
    manual: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    full_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slug: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lsn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
}

/// An endpoint as Neon writes it.
#[derive(Serialize)]
pub(super) struct EndpointBody<'a> {
    host: String,
    id: &'a str,
    project_id: &'a str,
    branch_id: &'a str,
    autoscaling_limit_min_cu: &'a Value,
    autoscaling_limit_max_cu: &'a Value,
    region_id: &'a str,
    r#type: &'a str,
    current_state: &'a str,
    settings: EndpointSettings,
    pooler_enabled: bool,
    pooler_mode: &'a str,
    disabled: bool,
    passwordless_access: bool,
    creation_source: &'a str,
    created_at: String,
    updated_at: String,
    proxy_host: &'a str,
    suspend_timeout_seconds: i64,
    provisioner: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pending_state: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_active: Option<String>,
}

/// Settings of an endpoint: none.
#[derive(Default, Serialize)]
struct EndpointSettings {
    pg_settings: NoSettings,
}

#[derive(Default, Serialize)]
struct NoSettings {}

/// An operation as Neon writes it.
#[derive(Serialize)]
pub(super) struct OperationBody<'a> {
    id: &'a str,
    project_id: &'a str,
    branch_id: &'a str,
    action: &'a str,
    status: &'a str,
    failures_count: u32,
    created_at: String,
    updated_at: String,
    total_duration_ms: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_at: Option<String>,
}

/// A role as Neon writes it, without its password.
#[derive(Serialize)]
pub(super) struct RoleBody<'a> {
    branch_id: &'a str,
    name: &'a str,
    protected: bool,
    authentication_method: &'a str,
    created_at: String,
    updated_at: String,
}

impl Model {
    /// Renders the project.
    pub(super) fn render_project(&self) -> Value {
        json!({
            "data_storage_bytes_hour": 0, "data_transfer_bytes": 0, "written_data_bytes": 0,
            "compute_time_seconds": 0,
            "active_time_seconds": 0, "cpu_used_sec": 0, "id": self.project, "platform_id": "aws",
            "region_id": "aws-us-east-2",
            "name": self.project_name, "provisioner": "k8s-neonvm",
            "default_endpoint_settings": {"autoscaling_limit_min_cu": 0.25,
                "autoscaling_limit_max_cu": 0.25, "suspend_timeout_seconds": 0},
            "settings": {"allowed_ips": {"ips": self.allowed_ips.0,
                "protected_branches_only": self.allowed_ips.1},
                "enable_logical_replication": false,
                    "block_public_connections": self.blocks_public,
                    "block_vpc_connections": false},
            "pg_version": self.pg_version, "proxy_host": self.domain,
            "branch_logical_size_limit": 512,
            "branch_logical_size_limit_bytes": 536_870_912, "store_passwords": self.store_passwords,
            "creation_source": "console",
            "history_retention_seconds": self.history_seconds,
            "created_at": seconds(self.created_at),
            "updated_at": seconds(self.created_at),
            "consumption_period_start": "0001-01-01T00:00:00Z",
            "consumption_period_end": "0001-01-01T00:00:00Z", "owner_id": "org-emulated-00000000",
            "org_id": "org-emulated-00000000",
            "owner": {"email": "owner@example.com", "name": "Owner",
                "branches_limit": self.limits.branches,
                      "subscription_type": self.limits.subscription},
        })
    }

    /// Renders the project as a listing has it.
    pub(super) fn render_project_item(&self) -> Value {
        let mut item = self.render_project();
        if let Some(map) = item.as_object_mut() {
            for name in [
                "data_storage_bytes_hour",
                "data_transfer_bytes",
                "written_data_bytes",
                "compute_time_seconds",
                "active_time_seconds",
                "consumption_period_start",
                "consumption_period_end",
                "owner",
            ] {
                map.remove(name);
            }
            map.insert("active_time".to_owned(), json!(0));
        }
        item
    }

    /// Renders a branch.
    pub(super) fn render_branch<'a>(&'a self, branch: &'a Branch) -> BranchBody<'a> {
        BranchBody {
            id: &branch.id,
            project_id: &self.project,
            name: &branch.name,
            current_state: branch.state,
            state_changed_at: seconds(branch.state_changed_at),
            creation_source: "console",
            primary: branch.is_default,
            default: branch.is_default,
            protected: branch.is_protected,
            cpu_used_sec: 0,
            compute_time_seconds: 0,
            active_time_seconds: 0,
            written_data_bytes: 0,
            data_transfer_bytes: 0,
            created_at: seconds(branch.created_at),
            updated_at: seconds(branch.updated_at),
            init_source: "parent-data",
            parent_id: branch.parent.as_deref(),
            parent_lsn: branch.parent_lsn.map(|lsn| lsn.to_string()),
            parent_timestamp: branch.parent_timestamp.map(seconds),
            pending_state: branch.pending_state,
            expires_at: branch.expires_at.map(seconds),
            last_reset_at: branch.last_reset_at.map(seconds),
            logical_size: branch.logical_size,
            restore_status: branch
                .unpacked
                .as_ref()
                .map(|from| if from.finalized_at.is_some() { "finalized" } else { "restored" }),
            restored_from: branch.unpacked.as_ref().map(|from| from.snapshot.as_str()),
            restored_as: branch.unpacked.as_ref().map(|from| from.target.as_str()),
        }
    }

    /// Renders a snapshot.
    pub(super) fn render_snapshot<'a>(&self, snapshot: &'a Snapshot) -> SnapshotBody<'a> {
        SnapshotBody {
            id: &snapshot.id,
            name: &snapshot.name,
            source_branch_id: &snapshot.source,
            created_at: seconds(snapshot.created_at),
            manual: snapshot.is_manual,
            full_size: snapshot.full_size,
            slug: snapshot.slug.as_deref(),
            lsn: snapshot
                .lsn
                .filter(|_| self.switches.snapshots_tell_lsn)
                .map(|lsn| lsn.to_string()),
            expires_at: snapshot.expires_at.map(seconds),
        }
    }

    /// Renders what is written on a branch.
    pub(super) fn render_annotation(branch: &Branch) -> Value {
        json!({
            "object": {"type": "console/branch", "id": branch.id}, "value": branch.annotation,
            "created_at": seconds(branch.created_at), "updated_at": seconds(branch.created_at),
        })
    }

    /// Renders an endpoint.
    pub(super) fn render_endpoint<'a>(&'a self, endpoint: &'a Endpoint) -> EndpointBody<'a> {
        EndpointBody {
            host: self.host(&endpoint.id),
            id: &endpoint.id,
            project_id: &self.project,
            branch_id: &endpoint.branch,
            autoscaling_limit_min_cu: &endpoint.size.0,
            autoscaling_limit_max_cu: &endpoint.size.1,
            region_id: "aws-us-east-2",
            r#type: if endpoint.is_read_write { "read_write" } else { "read_only" },
            current_state: endpoint.state,
            settings: EndpointSettings::default(),
            pooler_enabled: false,
            pooler_mode: "transaction",
            disabled: endpoint.is_disabled,
            passwordless_access: endpoint.is_passwordless,
            creation_source: "console",
            created_at: seconds(endpoint.created_at),
            updated_at: seconds(endpoint.updated_at),
            proxy_host: &self.domain,
            suspend_timeout_seconds: endpoint.suspend_timeout_seconds,
            provisioner: "k8s-neonvm",
            pending_state: endpoint.pending_state,
            name: endpoint.name.as_deref(),
            last_active: endpoint.last_active.map(seconds),
        }
    }

    /// Renders an operation.
    pub(super) fn render_operation<'a>(
        &'a self,
        operation: &'a Operation,
        now: Timestamp,
    ) -> OperationBody<'a> {
        let end = if operation.is_under_way() { now } else { operation.updated_at };
        OperationBody {
            id: &operation.id,
            project_id: &self.project,
            branch_id: &operation.branch,
            action: operation.action,
            status: operation.status,
            failures_count: operation.failures,
            created_at: seconds(operation.created_at),
            updated_at: seconds(operation.updated_at),
            total_duration_ms: operation
                .started_at
                .map_or(0, |at| (end - at).num_milliseconds().max(0)),
            endpoint_id: operation.endpoint.as_deref(),
            error: operation.error.as_deref(),
            retry_at: operation.retry_at.map(seconds),
        }
    }

    /// Renders operations by id, in order.
    pub(super) fn render_operations<'a>(
        &'a self,
        ids: &[String],
        now: Timestamp,
    ) -> Vec<OperationBody<'a>> {
        ids.iter()
            .filter_map(|id| self.operation(id))
            .map(|operation| self.render_operation(operation, now))
            .collect()
    }

    /// Renders the roles of a branch.
    pub(super) fn render_roles(branch: &Branch) -> Vec<RoleBody<'_>> {
        branch.roles.iter().map(|role| Self::render_role(branch, role)).collect()
    }

    /// Renders a role.
    pub(super) fn render_role<'a>(branch: &'a Branch, role: &'a Role) -> RoleBody<'a> {
        RoleBody {
            branch_id: &branch.id,
            name: &role.name,
            protected: false,
            authentication_method: "password",
            created_at: seconds(role.created_at),
            updated_at: seconds(role.created_at),
        }
    }

    /// Renders the databases of a branch.
    pub(super) fn render_databases(branch: &Branch) -> Value {
        branch
            .databases
            .iter()
            .map(|database| {
                json!({
                    "id": database.id, "branch_id": branch.id, "name": database.name,
                    "owner_name": database.owner,
                    "created_at": seconds(database.created_at),
                    "updated_at": seconds(database.created_at),
                })
            })
            .collect()
    }
}
