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
    headers: Vec<(&'static str, String)>,
}

impl Problem {
    /// Starts an error with a status and a short sentence.
    pub fn new(status: u16, title: &'static str) -> Self {
        let headers = if status == 401 {
            vec![("www-authenticate", "Bearer".to_owned())]
        } else {
            Vec::new()
        };
        Self { status, title, detail: None, run: None, headers }
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

    /// Adds a header of the reply.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Writes the reply. `runbooks_url` is where the runbooks are published, if they are.
    ///
    /// Its `type` is the page that explains the API, as an absolute address. Without one it is
    /// `about:blank`: a relative address would be read as one of the Worker's own.
    ///
    /// # Source
    ///
    /// RFC 9457, 3.1.1: "it is RECOMMENDED that absolute URIs be used in "type" when possible".
    pub fn render(&self, runbooks_url: Option<&str>) -> ApiResponse {
        let page =
            runbooks_url.map_or_else(|| "about:blank".to_owned(), |base| format!("{base}/{PAGE}"));
        let mut body = json!({"type": page, "title": self.title, "status": self.status});
        if let Some(detail) = &self.detail {
            body["detail"] = json!(detail);
        }
        if let Some(run) = &self.run {
            body["run"] = json!(run);
        }
        let content_type = "application/problem+json";
        ApiResponse {
            status: self.status,
            content_type,
            body: body.to_string(),
            headers: self.headers.clone(),
        }
    }
}

/// The page of `runbooks/` that explains the API.
const PAGE: &str = "daily-sync.md#the-api";
