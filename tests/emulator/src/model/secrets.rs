//! Passwords: which one the control plane has, which one the data holds, and which one lets
//! somebody in.
//!
//! Invariants: a role has two passwords, and they may differ. The control plane tells `password`
//! and its proxy asks for it; `in_data` stands in the data and the compute asks for it. A
//! read-write compute is told what it does not know when it starts. Whether a read-only one can be
//! told is a switch, and whether the proxy asks the control plane at all is another.
//!
//! Source: neondatabase/neon `proxy/src/serverless/backend.rs` (`authenticate_with_password`) and
//! `proxy/src/cache/project_info.rs`, read 2026-11-21: the proxy checks the secret of the control
//! plane and keeps it for minutes, unless it is told of a change.

use super::{Branch, Endpoint, Model, Role, Timestamp, milliseconds};

/// A password that the proxy still has after it was changed.
#[derive(Clone, Debug)]
pub struct Remembered {
    /// The password.
    pub password: Option<String>,
    /// Until when; `None` until the restore that changed it has ended.
    pub until: Option<Timestamp>,
}

impl Role {
    /// Returns whether the compute has to be told the password.
    pub fn is_stale(&self) -> bool {
        self.password.is_some() && self.password != self.in_data
    }

    /// Gives the role the password that its data had when its branch was made or restored last.
    pub(super) fn as_at_first(&mut self) {
        if self.at_first.is_some() {
            self.in_data.clone_from(&self.at_first);
        }
    }
}

impl Model {
    /// Lets somebody through the proxy: returns the password with which the compute is asked, or
    /// `None` where the proxy refuses.
    pub fn admits(
        &self,
        endpoint: &Endpoint,
        role: &str,
        given: &str,
        now: Timestamp,
    ) -> Option<String> {
        let served = self.served_by(&endpoint.id).and_then(|served| self.branch(served));
        let Some(branch) = served else { return Some(given.to_owned()) };
        let Some(known) = branch.roles.iter().find(|known| known.name == role) else {
            return Some(given.to_owned());
        };
        let remembered = branch
            .remembered
            .get(role)
            .filter(|remembered| remembered.until.is_none_or(|until| until > now));
        let secret = remembered.map_or(&known.password, |remembered| &remembered.password);
        // A password that was set by its digest is known to nobody: the compute decides.
        let is_wrong = secret.as_deref().is_some_and(|secret| secret != given);
        if self.switches.proxy_asks_control_plane && is_wrong {
            return None;
        }
        if endpoint.is_read_write || !self.switches.readers_take_new_passwords {
            return Some(given.to_owned());
        }
        match &known.password {
            Some(password) if password == given => {
                Some(known.in_data.clone().unwrap_or_else(|| given.to_owned()))
            }
            // It was told the other one.
            Some(_) if known.is_stale() => None,
            Some(_) | None => Some(given.to_owned()),
        }
    }

    /// Returns whether the compute of an endpoint knows this password of a role. Only for a model
    /// without a server.
    pub(crate) fn compute_knows(&self, branch: &str, role: &str, password: &str) -> bool {
        let role = self
            .branch(branch)
            .and_then(|branch| branch.roles.iter().find(|known| known.name == role));
        role.is_some_and(|role| role.in_data.as_deref() == Some(password))
    }

    /// Takes up that the data of a branch holds these passwords of its roles.
    pub(crate) fn told(&mut self, branch: &str, roles: &[(String, String)]) {
        let Some(branch) = self.branch_mut(branch) else { return };
        for (name, password) in roles {
            branch
                .roles
                .iter_mut()
                .filter(|role| role.name == *name)
                .for_each(|role| role.in_data = Some(password.clone()));
        }
    }

    /// Returns the passwords that the compute of a branch does not know.
    pub(crate) fn untold(&self, branch: &str) -> Vec<(String, String)> {
        let roles = self.branch(branch).into_iter().flat_map(|branch| &branch.roles);
        roles
            .filter(|role| role.is_stale())
            .filter_map(|role| Some((role.name.clone(), role.password.clone()?)))
            .collect()
    }

    /// Takes up that a role has got another password with SQL.
    pub(crate) fn password_changed(
        &mut self,
        branch: &str,
        role: &str,
        password: Option<&str>,
        now: Timestamp,
    ) {
        let until = now + milliseconds(self.durations.secret_cache_ms);
        let Some(branch) = self.branch_mut(branch) else { return };
        let Some(found) = branch.roles.iter_mut().find(|found| found.name == role) else { return };
        let old = std::mem::replace(&mut found.password, password.map(str::to_owned));
        found.in_data.clone_from(&found.password);
        if old != found.password {
            branch.remember(role, old, Some(until), now);
        }
    }

    /// A restored branch can be used: from now on the proxy will hear of the passwords it has.
    pub(super) fn restored_secrets(&mut self, branch: &str, now: Timestamp) {
        let until = now + milliseconds(self.durations.secret_cache_ms);
        let remembered =
            self.branch_mut(branch).into_iter().flat_map(|branch| branch.remembered.values_mut());
        remembered
            .filter(|remembered| remembered.until.is_none())
            .for_each(|remembered| remembered.until = Some(until));
    }
}

impl Branch {
    /// The proxy goes on with a password for a while; with the older one where it has not yet heard
    /// of the last change.
    pub(super) fn remember(
        &mut self,
        role: &str,
        password: Option<String>,
        until: Option<Timestamp>,
        now: Timestamp,
    ) {
        let is_valid = |remembered: &Remembered| remembered.until.is_none_or(|until| until > now);
        if !self.remembered.get(role).is_some_and(is_valid) {
            self.remembered.insert(role.to_owned(), Remembered { password, until });
        }
    }

    /// Remembers the passwords that a restore changes.
    pub(super) fn remember_before(&mut self, before: &[Role], now: Timestamp) {
        let changed: Vec<(String, Option<String>)> = self
            .roles
            .iter()
            .filter_map(|role| {
                let old = before.iter().find(|old| old.name == role.name)?;
                (old.password != role.password).then(|| (role.name.clone(), old.password.clone()))
            })
            .collect();
        for (role, password) in changed {
            self.remember(&role, password, None, now);
        }
    }
}
