//! Endpoints and roles.

use serde::Serialize;
use serde_json::{Value, json};

use super::operations::{Start, Then};
use super::render::{EndpointBody, RoleBody};
use super::{ApiError, Effect, Endpoint, Model, Request, Response, Timestamp, milliseconds};

/// A listing of endpoints.
#[derive(Serialize)]
struct Endpoints<'a> {
    endpoints: Vec<EndpointBody<'a>>,
}

/// A listing of roles.
#[derive(Serialize)]
struct Roles<'a> {
    roles: Vec<RoleBody<'a>>,
}

/// An endpoint that somebody asks for.
pub(super) struct Asked {
    is_read_write: bool,
    size: (Value, Value),
    suspend_timeout_seconds: i64,
    name: Option<String>,
    is_disabled: bool,
}

impl Asked {
    /// The read-write endpoint that a branch of a snapshot comes with.
    pub(super) fn writer() -> Self {
        Self {
            is_read_write: true,
            size: (json!(0.25), json!(0.25)),
            suspend_timeout_seconds: 0,
            name: None,
            is_disabled: false,
        }
    }
}

impl Model {
    fn find_endpoint(&self, id: &str) -> Result<&Endpoint, ApiError> {
        self.endpoint(id).ok_or_else(|| ApiError::new(404, "", "endpoint not found"))
    }

    /// Reads the endpoints that a new branch is to have.
    pub(super) fn asked_endpoints(&self, value: &Value) -> Result<Vec<Asked>, ApiError> {
        let asked: Vec<Asked> = value
            .as_array()
            .into_iter()
            .flatten()
            .map(Self::asked_endpoint)
            .collect::<Result<_, _>>()?;
        if asked.iter().filter(|asked| asked.is_read_write).count() > 1 {
            return Err(ApiError::new(409, "", "read-write endpoint already exists"));
        }
        let has_writer = asked.iter().any(|asked| asked.is_read_write);
        if !asked.is_empty() && !has_writer && !self.switches.reader_without_writer {
            return Err(self.switches.lonely_reader.error());
        }
        Ok(asked)
    }

    fn asked_endpoint(value: &Value) -> Result<Asked, ApiError> {
        if value["settings"].is_object() && value["settings"].get("pg_settings").is_none() {
            return Err(ApiError::new(400, "", "settings must not be nil"));
        }
        let size =
            |key: &str| if value[key].is_number() { value[key].clone() } else { json!(0.25) };
        Ok(Asked {
            is_read_write: value["type"] == "read_write",
            size: (size("autoscaling_limit_min_cu"), size("autoscaling_limit_max_cu")),
            suspend_timeout_seconds: value["suspend_timeout_seconds"].as_i64().unwrap_or(0),
            name: value["name"].as_str().map(str::to_owned),
            is_disabled: value["disabled"].as_bool().unwrap_or(false),
        })
    }

    /// Adds an endpoint and the operation that starts it.
    pub(super) fn create_endpoint_on(
        &mut self,
        branch: &str,
        asked: Asked,
        milliseconds: i64,
        now: Timestamp,
    ) -> (String, String) {
        let id = self.add_endpoint(branch, asked.is_read_write, now);
        if let Some(endpoint) = self.endpoint_mut(&id) {
            endpoint.state = "init";
            endpoint.pending_state = Some("active");
            endpoint.size = asked.size;
            endpoint.suspend_timeout_seconds = asked.suspend_timeout_seconds;
            endpoint.name = asked.name;
            endpoint.is_disabled = asked.is_disabled;
        }
        let operation = self.start_operation(
            Start {
                branch: branch.to_owned(),
                endpoint: Some(id.clone()),
                action: "start_compute",
                milliseconds,
                then: vec![Then::Active(id.clone())],
                has_work: true,
            },
            now,
        );
        (id, operation)
    }

    pub(super) fn create_endpoint(
        &mut self,
        body: &Value,
        now: Timestamp,
    ) -> Result<Response, ApiError> {
        let value = &body["endpoint"];
        let branch = value["branch_id"].as_str().unwrap_or_default();
        self.find_branch(branch)?;
        let asked = Self::asked_endpoint(value)?;
        if asked.is_read_write && self.writer_of(branch).is_some() {
            return Err(ApiError::new(409, "", "read-write endpoint already exists"));
        }
        if !asked.is_read_write
            && self.writer_of(branch).is_none()
            && !self.switches.reader_without_writer
        {
            return Err(self.switches.lonely_reader.error());
        }
        self.check_idle(&[branch])?;
        let (id, operation) = self.create_endpoint_on(branch, asked, self.durations.other_ms, now);
        let effects = vec![Effect::Start { operation: operation.clone(), endpoint: id.clone() }];
        let endpoint = self.find_endpoint(&id).map(|endpoint| self.render_endpoint(endpoint))?;
        let body =
            json!({"endpoint": endpoint, "operations": self.render_operations(&[operation], now)});
        Ok(Response::new(201, body, effects))
    }

    pub(super) fn list_endpoints(&self, branch: Option<&str>) -> Result<Response, ApiError> {
        if let Some(id) = branch {
            self.find_branch(id)?;
        }
        let endpoints = self
            .endpoints
            .iter()
            .filter(|endpoint| branch.is_none_or(|id| endpoint.branch == id))
            .map(|endpoint| self.render_endpoint(endpoint))
            .collect();
        Ok(Response::ok(Endpoints { endpoints }))
    }

    pub(super) fn show_endpoint(&self, id: &str) -> Result<Response, ApiError> {
        Ok(Response::ok(json!({"endpoint": self.render_endpoint(self.find_endpoint(id)?)})))
    }

    pub(super) fn update_endpoint(
        &mut self,
        id: &str,
        body: &Value,
        now: Timestamp,
    ) -> Result<Response, ApiError> {
        let branch = self.find_endpoint(id)?.branch.clone();
        self.check_unchanging(&[&branch])?;
        let value = &body["endpoint"];
        if let Some(endpoint) = self.endpoint_mut(id) {
            endpoint.is_disabled = value["disabled"].as_bool().unwrap_or(endpoint.is_disabled);
            endpoint.is_passwordless =
                value["passwordless_access"].as_bool().unwrap_or(endpoint.is_passwordless);
            endpoint.suspend_timeout_seconds = value["suspend_timeout_seconds"]
                .as_i64()
                .unwrap_or(endpoint.suspend_timeout_seconds);
            if let Some(name) = value["name"].as_str() {
                endpoint.name = Some(name.to_owned());
            }
            endpoint.updated_at = now;
        }
        let endpoint = self.find_endpoint(id).map(|endpoint| self.render_endpoint(endpoint))?;
        Ok(Response::ok(json!({"endpoint": endpoint, "operations": []})))
    }

    pub(super) fn suspend_operation(
        &mut self,
        endpoint: &str,
        branch: &str,
        mut then: Vec<Then>,
        now: Timestamp,
    ) -> String {
        then.insert(0, Then::Idle(endpoint.to_owned()));
        self.start_operation(
            Start {
                branch: branch.to_owned(),
                endpoint: Some(endpoint.to_owned()),
                action: "suspend_compute",
                milliseconds: self.durations.other_ms,
                then,
                has_work: true,
            },
            now,
        )
    }

    pub(super) fn delete_endpoint(
        &mut self,
        id: &str,
        now: Timestamp,
    ) -> Result<Response, ApiError> {
        let Some(endpoint) = self.endpoint(id).cloned() else {
            return Ok(Response::gone());
        };
        if self.branch(&endpoint.branch).is_some_and(|branch| branch.is_protected) {
            return Err(ApiError::new(422, "", "cannot delete a compute of a protected branch"));
        }
        self.check_idle(&[&endpoint.branch])?;
        let operation = self.suspend_operation(
            id,
            &endpoint.branch,
            vec![Then::ForgetEndpoint(id.to_owned())],
            now,
        );
        let effects =
            vec![Effect::Suspend { operation: operation.clone(), endpoint: id.to_owned() }];
        let body = json!({"endpoint": self.render_endpoint(&endpoint),
            "operations": self.render_operations(&[operation], now)});
        Ok(Response::new(200, body, effects))
    }

    /// `start`, `suspend` or `restart`.
    pub(super) fn drive_endpoint(
        &mut self,
        id: &str,
        verb: &str,
        now: Timestamp,
    ) -> Result<Response, ApiError> {
        let branch = self.find_endpoint(id)?.branch.clone();
        self.check_idle(&[&branch])?;
        let mut operations = Vec::new();
        let mut effects = Vec::new();
        if matches!(verb, "suspend" | "restart") {
            let operation = self.suspend_operation(id, &branch, Vec::new(), now);
            effects.push(Effect::Suspend { operation: operation.clone(), endpoint: id.to_owned() });
            operations.push(operation);
        }
        if matches!(verb, "start" | "restart") {
            let start = Start {
                branch,
                endpoint: Some(id.to_owned()),
                action: "start_compute",
                milliseconds: self.durations.other_ms,
                then: vec![Then::Active(id.to_owned())],
                has_work: true,
            };
            let operation = self.start_operation(start, now);
            effects.push(Effect::Start { operation: operation.clone(), endpoint: id.to_owned() });
            operations.push(operation);
        }
        let endpoint = self.find_endpoint(id).map(|endpoint| self.render_endpoint(endpoint))?;
        Ok(Response::new(
            200,
            json!({"endpoint": endpoint, "operations": self.render_operations(&operations, now)}),
            effects,
        ))
    }

    pub(super) fn list_roles(&self, branch: &str) -> Result<Response, ApiError> {
        let branch = self.find_branch(branch)?;
        Ok(Response::ok(Roles { roles: Self::render_roles(branch) }))
    }

    pub(super) fn show_role(&self, branch: &str, role: &str) -> Result<Response, ApiError> {
        let branch = self.find_branch(branch)?;
        let found = branch
            .roles
            .iter()
            .find(|found| found.name == role)
            .ok_or_else(|| ApiError::new(404, "", "role not found"))?;
        Ok(Response::ok(json!({"role": Self::render_role(branch, found)})))
    }

    pub(super) fn reveal_password(&self, branch: &str, role: &str) -> Result<Response, ApiError> {
        let branch = self.find_branch(branch)?;
        let found = branch
            .roles
            .iter()
            .find(|found| found.name == role)
            .ok_or_else(|| ApiError::new(404, "", "role not found"))?;
        if !self.store_passwords {
            return Err(ApiError::new(412, "", "storing passwords is disabled for this project"));
        }
        match &found.password {
            Some(password) => Ok(Response::ok(json!({"password": password}))),
            None => Err(ApiError::new(404, "", "password not found")),
        }
    }

    pub(super) fn reset_password(
        &mut self,
        branch: &str,
        role: &str,
        now: Timestamp,
    ) -> Result<Response, ApiError> {
        self.show_role(branch, role)?;
        self.check_idle(&[branch])?;
        let password = self.password();
        let until = now + milliseconds(self.durations.secret_cache_ms);
        if let Some(branch) = self.branch_mut(branch)
            && let Some(found) = branch.roles.iter_mut().find(|found| found.name == role)
        {
            let old = found.password.replace(password.clone());
            branch.remember(role, old, Some(until), now);
        }
        let operation = self.start_operation(
            Start {
                branch: branch.to_owned(),
                endpoint: None,
                action: "apply_config",
                milliseconds: self.durations.other_ms,
                then: Vec::new(),
                has_work: true,
            },
            now,
        );
        let effects = vec![Effect::SetPassword {
            operation: operation.clone(),
            branch: branch.to_owned(),
            role: role.to_owned(),
        }];
        let mut rendered = self.show_role(branch, role)?.value()["role"].take();
        rendered["password"] = json!(password);
        Ok(Response::new(
            200,
            json!({"role": rendered, "operations": self.render_operations(&[operation], now)}),
            effects,
        ))
    }

    pub(super) fn connection_uri(&self, request: &Request) -> Result<Response, ApiError> {
        let query = |name: &str| request.query.get(name).map(String::as_str);
        let need = |name: &str| {
            query(name).ok_or_else(|| {
                ApiError::new(400, "", format!("invalid request: {name} is required"))
            })
        };
        let (database, role) = (need("database_name")?, need("role_name")?);
        let branch = match query("branch_id") {
            Some(id) => self.find_branch(id)?,
            None => self
                .branches
                .iter()
                .find(|branch| branch.is_default)
                .ok_or_else(|| ApiError::new(404, "", "branch not found"))?,
        };
        if !branch.databases.iter().any(|found| found.name == database) {
            return Err(ApiError::new(404, "", "database not found"));
        }
        let found = branch
            .roles
            .iter()
            .find(|found| found.name == role)
            .ok_or_else(|| ApiError::new(404, "", "role not found"))?;
        let endpoint = match query("endpoint_id") {
            Some(id) => self.find_endpoint(id)?,
            None => self
                .writer_of(&branch.id)
                .ok_or_else(|| ApiError::new(404, "", "endpoint not found"))?,
        };
        let mut host = self.host(&endpoint.id);
        if query("pooled") == Some("true") {
            host = host.replacen('.', "-pooler.", 1);
        }
        let password = found.password.clone().unwrap_or_default();
        Ok(Response::ok(
            json!({"uri": format!("postgresql://{role}:{password}@{host}/{database}?sslmode=require")}),
        ))
    }
}
