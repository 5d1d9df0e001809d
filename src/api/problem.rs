//! Errors as people and programs read them.
//!
//! Source: RFC 9457, "Problem Details for HTTP APIs".

use serde_json::json;

use super::ApiResponse;

/// An error reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    status: u16,
    title: &'static str,
    detail: Option<String>,
    run: Option<String>,
}

impl Problem {
    /// Starts an error with a status and a short sentence.
    pub fn new(status: u16, title: &'static str) -> Self {
        Self { status, title, detail: None, run: None }
    }

    /// Adds what was expected and what was seen.
    #[must_use]
    pub fn with_detail(mut self, detail: String) -> Self {
        self.detail = Some(detail);
        self
    }

    /// Adds the run it is about.
    #[must_use]
    pub fn with_run(mut self, run: &crate::id::RunId) -> Self {
        self.run = Some(run.to_string());
        self
    }

    /// Writes the reply. Its `type` is the page of the runbook that explains the API.
    pub fn render(&self) -> ApiResponse {
        let mut body = json!({"type": "runbooks/daily-sync.md#the-api", "title": self.title, "status": self.status});
        if let Some(detail) = &self.detail {
            body["detail"] = json!(detail);
        }
        if let Some(run) = &self.run {
            body["run"] = json!(run);
        }
        ApiResponse { status: self.status, content_type: "application/problem+json", body: body.to_string(), location: None }
    }
}
