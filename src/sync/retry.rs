//! Decides what an error of Neon's means for the run. This is the only place that does.
//!
//! Source: Neon API v2, read 2026-11-21: "any 423 and any 503 are always safe to retry"; other
//! errors of writing calls say nothing about whether the call took effect.

use std::time::Duration;

use crate::neon::message::is_quota;
use crate::neon::{Call, NeonError};

/// What an error means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// The request certainly did nothing; try again.
    Retry,
    /// It may have taken effect; look before acting.
    Observe,
    /// It will not get better by itself; open this page of `runbooks/`.
    Fail(&'static str),
}

/// The page for a run that failed.
pub const RUN_FAILED: &str = "run-failed.md";

/// The page that tells a run step by step.
pub const DAILY_SYNC: &str = "daily-sync.md";

/// Classifies an error.
pub fn disposition(error: &NeonError, call: &Call) -> Disposition {
    match error {
        NeonError::NoReply { .. } | NeonError::Undecodable { .. } if call.is_write() => {
            Disposition::Observe
        }
        // A reading call whose reply cannot be read may have been cut; the attempts are counted.
        NeonError::NoReply { .. } | NeonError::Undecodable { .. } => Disposition::Retry,
        NeonError::Status { status, message, .. } => status_disposition(*status, message, call),
    }
}

fn status_disposition(status: u16, message: &str, call: &Call) -> Disposition {
    match status {
        // "any 423 and any 503 are always safe to retry"; 429 is refused before anything is done.
        429 => Disposition::Retry,
        // A quota is used up until somebody acts.
        _ if is_quota(message) => Disposition::Fail(RUN_FAILED),
        423 | 503 => Disposition::Retry,
        // A name of ours is taken: this run, or another, got there first.
        409 => Disposition::Observe,
        // Observed: "branch not ready yet" passes by itself.
        422 if message.contains("not ready yet") => Disposition::Retry,
        // The children that were deleted just before are gone when their operations are done.
        422 if matches!(call, Call::DeleteBranch(_)) && message.contains("has children") => {
            Disposition::Retry
        }
        // Among them the limits of a plan, 422 with `BRANCHES_LIMIT_EXCEEDED`.
        400..=499 if !call.is_write() || matches!(status, 400 | 401 | 403 | 404 | 412 | 422) => {
            Disposition::Fail(RUN_FAILED)
        }
        500..=599 if !call.is_write() => Disposition::Retry,
        _ => Disposition::Observe,
    }
}

/// The longest wait before an attempt, also when Neon asks for a longer one: then nothing would be
/// tried before the deadline.
pub const LONGEST_WAIT: Duration = Duration::from_mins(5);

/// Returns the wait before attempt `attempt + 1`: 2, 4, 8, 16, 32, then 60 seconds, or as long as
/// Neon asked for.
pub fn wait_after(attempt: u32, error: Option<&NeonError>) -> Duration {
    let own = Duration::from_secs(1 << attempt.clamp(1, 6)).min(Duration::from_mins(1));
    match error {
        Some(NeonError::Status { retry_after: Some(asked), .. }) => {
            own.max(*asked).min(LONGEST_WAIT)
        }
        Some(
            NeonError::Status { .. } | NeonError::NoReply { .. } | NeonError::Undecodable { .. },
        )
        | None => own,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::neon::RestoreBranch;
    use crate::port::HttpFailure;

    /// Returns what Neon answered.
    pub(crate) fn status(status: u16, code: &str, message: &str) -> NeonError {
        NeonError::Status {
            call: "x".into(),
            status,
            code: code.into(),
            message: message.into(),
            retry_after: None,
        }
    }

    fn restore() -> Call {
        Call::RestoreBranch(RestoreBranch {
            branch: "br-staging".into(),
            source: "br-backup".into(),
            displaced_name: "staging-of-20261121".into(),
        })
    }

    #[test]
    fn every_status_has_one_meaning_for_reading_and_one_for_writing() {
        use Disposition::{Fail, Observe, Retry};
        let table = [
            (400, Fail(RUN_FAILED), Fail(RUN_FAILED)),
            (401, Fail(RUN_FAILED), Fail(RUN_FAILED)),
            (403, Fail(RUN_FAILED), Fail(RUN_FAILED)),
            (404, Fail(RUN_FAILED), Fail(RUN_FAILED)),
            (408, Fail(RUN_FAILED), Observe),
            (409, Observe, Observe),
            (412, Fail(RUN_FAILED), Fail(RUN_FAILED)),
            (422, Fail(RUN_FAILED), Fail(RUN_FAILED)),
            (423, Retry, Retry),
            (429, Retry, Retry),
            (500, Retry, Observe),
            (502, Retry, Observe),
            (503, Retry, Retry),
            (504, Retry, Observe),
            (524, Retry, Observe),
            (302, Observe, Observe),
        ];
        for (code, reading, writing) in table {
            let error = status(code, "", "");
            assert_eq!(disposition(&error, &Call::ListBranches), reading, "reading, {code}");
            assert_eq!(disposition(&error, &restore()), writing, "writing, {code}");
        }
    }

    #[test]
    fn a_lost_reply_of_a_writing_call_is_looked_into() {
        let lost = NeonError::NoReply { call: "x".into(), failure: HttpFailure::Disconnected };
        assert_eq!(disposition(&lost, &restore()), Disposition::Observe);
        assert_eq!(disposition(&lost, &Call::ListBranches), Disposition::Retry);
        let cut = NeonError::Undecodable { call: "x".into(), problem: "Eof".into() };
        assert_eq!(disposition(&cut, &restore()), Disposition::Observe);
    }

    #[test]
    fn a_branch_that_is_not_ready_is_waited_for_and_a_full_project_is_not() {
        assert_eq!(
            disposition(&status(422, "", "branch not ready yet"), &restore()),
            Disposition::Retry
        );
        assert_eq!(
            disposition(
                &status(422, "BRANCHES_LIMIT_EXCEEDED", "branches limit exceeded"),
                &restore()
            ),
            Disposition::Fail(RUN_FAILED)
        );
    }

    #[test]
    fn a_branch_whose_children_are_being_deleted_is_waited_for() {
        let error = status(422, "", "cannot delete branch that has children: br-a");
        assert_eq!(disposition(&error, &Call::DeleteBranch("br-b".into())), Disposition::Retry);
        assert_eq!(disposition(&error, &restore()), Disposition::Fail(RUN_FAILED));
    }

    #[test]
    fn a_quota_that_is_used_up_is_not_waited_for() {
        let text = "Your account or project has exceeded the compute time quota.";
        for code in [402, 422, 500, 503] {
            assert_eq!(
                disposition(&status(code, "", text), &Call::ListBranches),
                Disposition::Fail(RUN_FAILED),
                "{code}"
            );
        }
        assert_eq!(
            disposition(&status(429, "", "rate limit exceeded"), &Call::ListBranches),
            Disposition::Retry
        );
    }

    #[test]
    fn waits_double_up_to_a_minute() {
        let waits: Vec<u64> = (1..=8).map(|attempt| wait_after(attempt, None).as_secs()).collect();
        assert_eq!(waits, [2, 4, 8, 16, 32, 60, 60, 60]);
    }
}
