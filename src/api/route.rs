//! Which addresses there are, and which methods each has: one table for dispatch, `Allow` and 405.

use super::Problem;
use crate::port::Method;

/// An address, with what stands in its variable places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    Health,
    Runs,
    Run(&'a str),
    CancelRun(&'a str),
    Hold(&'a str),
    Backups,
    Plan,
    Pin(&'a str),
    Notices,
    /// Pair, run and kind.
    Notice([&'a str; 3]),
    /// Pair, run and kind.
    Redeliver([&'a str; 3]),
    TestChannel(&'a str),
    Incidents,
    Acknowledge(&'a str),
}

impl<'a> Route<'a> {
    /// Returns the route of a path; `None` for an address that is not known.
    pub(super) fn of(path: &'a str) -> Option<Self> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        Some(match parts.as_slice() {
            ["health"] => Self::Health,
            ["runs"] => Self::Runs,
            ["runs", id] => Self::Run(id),
            ["runs", id, "cancel"] => Self::CancelRun(id),
            ["pairs", name, "hold"] => Self::Hold(name),
            ["backups"] => Self::Backups,
            ["backups", "plan"] => Self::Plan,
            ["backups", name, "pin"] => Self::Pin(name),
            ["notices"] => Self::Notices,
            ["notices", pair, run, kind] => Self::Notice([pair, run, kind]),
            ["notices", pair, run, kind, "redeliver"] => Self::Redeliver([pair, run, kind]),
            ["channels", name, "test"] => Self::TestChannel(name),
            ["incidents"] => Self::Incidents,
            ["incidents", id, "acknowledge"] => Self::Acknowledge(id),
            _ => return None,
        })
    }

    /// Returns the methods of the address. Where there is `GET`, there is `HEAD`.
    pub(super) fn methods(self) -> &'static [Method] {
        match self {
            Self::Runs => &[Method::Get, Method::Post],
            Self::Hold(_) | Self::Pin(_) => &[Method::Put, Method::Delete],
            Self::CancelRun(_)
            | Self::Redeliver(_)
            | Self::TestChannel(_)
            | Self::Acknowledge(_) => &[Method::Post],
            Self::Health
            | Self::Run(_)
            | Self::Backups
            | Self::Plan
            | Self::Notices
            | Self::Notice(_)
            | Self::Incidents => &[Method::Get],
        }
    }

    /// Refuses a method that the address does not have.
    ///
    /// Source: RFC 9110, 15.5.6: "The origin server MUST generate an Allow header field in a 405
    /// response".
    pub(super) fn refusal(self) -> Problem {
        let mut names = Vec::new();
        for method in self.methods() {
            names.push(method.as_str());
            if *method == Method::Get {
                names.push("HEAD");
            }
        }
        Problem::new(405, "The method is not allowed here")
            .with_detail(format!("allowed is {}", names.join(" or ")))
            .with_header("allow", names.join(", "))
    }
}
