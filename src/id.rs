//! Names of things, as types that cannot be mixed up.
//!
//! Invariants: an id that came from Neon or from the configuration is not empty; an [`Lsn`] is
//! compared as a number.

use std::fmt;
use std::str::FromStr;

use chrono::{NaiveDate, Timelike as _};
use serde::{Deserialize, Serialize};

use crate::time::{Timestamp, compact, read_compact};

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Returns the id as it is written on the wire.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// A Neon project, such as `old-violet-32930710`.
    ProjectId
);
text_id!(
    /// A Neon branch, such as `br-noisy-breeze-a5e59rrb`.
    BranchId
);
text_id!(
    /// A Neon endpoint, such as `ep-misty-sea-a5833nbi`.
    EndpointId
);
text_id!(
    /// A Neon operation, a UUID.
    OperationId
);
text_id!(
    /// A Neon snapshot, such as `snap-damp-dew-a1b2c3d4`.
    SnapshotId
);
text_id!(
    /// The name of a branch; unique in its project.
    BranchName
);
text_id!(
    /// The name of a Postgres role.
    RoleName
);
text_id!(
    /// The name of a Postgres database.
    DatabaseName
);
text_id!(
    /// The configured name of a pair: one production branch and the staging branch that mirrors it.
    PairName
);
text_id!(
    /// The configured name of a channel that notices are sent to.
    ChannelName
);

/// Characters that the name of a branch may have.
///
/// # Source
///
/// Neon API v2, `BranchCreateRequest`, read 2026-11-30: "minLength=1, maxLength=256".
pub const LONGEST_NAME: usize = 256;

impl BranchId {
    /// Returns the last part of the id, the part that Neon draws at random.
    pub fn tail(&self) -> &str {
        self.0.rsplit('-').next().unwrap_or(&self.0)
    }
}

/// A run of a pair: its civil date (`20261121`), or for a manual run its start in UTC
/// (`20261121T143000Z`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(String);

impl RunId {
    /// Returns the id of the scheduled run of a civil date.
    pub fn scheduled(date: NaiveDate) -> Self {
        Self(compact(date))
    }

    /// Returns the id of a manual run that starts at `now`.
    pub fn manual(now: Timestamp) -> Self {
        Self(format!(
            "{}T{:02}{:02}{:02}Z",
            compact(now.date_naive()),
            now.hour(),
            now.minute(),
            now.second()
        ))
    }

    /// Reads an id; `None` when the text is neither of the two forms.
    pub fn decode(text: &str) -> Option<Self> {
        let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let date = text.get(..8).filter(|date| is_digits(date))?;
        read_compact(date)?;
        let is_scheduled = text.len() == 8;
        let is_manual = text.len() == 16
            && text.as_bytes()[8] == b'T'
            && text.ends_with('Z')
            && is_digits(&text[9..15]);
        (is_scheduled || is_manual).then(|| Self(text.to_owned()))
    }

    /// Returns the text of the id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns when a manual run was started; `None` for a scheduled run.
    pub fn started_at(&self) -> Option<Timestamp> {
        let time = self.0.get(9..15)?;
        let part = |from: usize| time[from..from + 2].parse().ok();
        Some(self.date().and_hms_opt(part(0)?, part(2)?, part(4)?)?.and_utc())
    }

    /// Returns the date in the id: civil for a scheduled run, UTC for a manual one.
    ///
    /// # Panics
    ///
    /// Never for an id that was made by this type's constructors.
    pub fn date(&self) -> NaiveDate {
        read_compact(&self.0[..8]).expect("every constructor checks the date")
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A position in the write-ahead log, printed `16/B374D848`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

/// The text is not two hexadecimal numbers with a slash between them.
#[derive(Debug, thiserror::Error)]
#[error("read LSN {0:?}: expected two hexadecimal numbers such as 16/B374D848")]
pub struct BadLsn(String);

impl FromStr for Lsn {
    type Err = BadLsn;

    fn from_str(text: &str) -> Result<Self, BadLsn> {
        let bad = || BadLsn(text.chars().take(40).collect());
        let (high, low) = text.split_once('/').ok_or_else(bad)?;
        let part = |digits: &str| u32::from_str_radix(digits, 16).map_err(|_| bad());
        Ok(Self(u64::from(part(high)?) << 32 | u64::from(part(low)?)))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl Serialize for Lsn {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Returns a digest of a text as hexadecimal digits, for keys and comparisons.
pub fn digest(text: &str, bytes: usize) -> String {
    use std::fmt::Write as _;

    use sha2::Digest as _;
    let mut digits = String::with_capacity(bytes * 2);
    for byte in sha2::Sha256::digest(text.as_bytes()).iter().take(bytes) {
        // Writing to a text cannot fail.
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

/// A password, a key or a token. It cannot be printed, compared with `==` or serialised by
/// accident.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// Returns the secret, for the one place that must send it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Returns whether two secrets are equal, in time that depends on the lengths alone.
    pub fn matches(&self, other: &str) -> bool {
        use subtle::ConstantTimeEq as _;
        self.0.as_bytes().ct_eq(other.as_bytes()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_lsn_is_compared_as_a_number_and_printed_as_postgres_does() {
        let low: Lsn = "9/FF".parse().expect("a literal");
        let high: Lsn = "10/0".parse().expect("a literal");
        assert!(low < high);
        assert_eq!(high.to_string(), "10/0");
        assert!("1/2/3".parse::<Lsn>().is_err());
        assert!("16".parse::<Lsn>().is_err());
    }

    #[test]
    fn only_the_two_forms_of_a_run_id_are_read() {
        for good in ["20261121", "20261121T143000Z"] {
            assert!(RunId::decode(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "2026112",
            "20261321",
            "20261121T14300Z",
            "20261121t143000Z",
            "2026-11-21",
            "20261121T14300xZ",
            "äääääääää",
        ] {
            assert!(RunId::decode(bad).is_none(), "{bad}");
        }
        let started_at = |text: &str| {
            RunId::decode(text).and_then(|run| run.started_at()).map(crate::time::render)
        };
        assert_eq!(started_at("20261121T143000Z").as_deref(), Some("2026-11-21T14:30:00.000Z"));
        assert_eq!(started_at("20261121"), None);
    }
}
