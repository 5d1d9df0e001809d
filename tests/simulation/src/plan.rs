//! One scenario, as text and as values: what a failure prints, and what replays it.
//!
//! Shape: `plain/restoreProjectBranch#1=applied_and_lost/crash_after_save/stale/two_ticks`, or
//! `seed-4711`. The parts: the kind of day, what goes wrong at which action (several joined by `+`;
//! `-` for nothing), where the Worker is killed, what the store remembers, how many ticks run.

use std::fmt;
use std::str::FromStr;

use chrono::TimeDelta;

use crate::faults::Fault;

/// How far Neon's clock and the Worker's are apart where they are: nearly as far as the Worker
/// allows.
pub const CLOCKS_APART: TimeDelta = TimeDelta::seconds(9 * 60 + 30);

/// The kind of day on which things go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Day {
    /// Staging is restored and equal.
    Plain,
    /// Applications write to staging as soon as it is restored: what differs is looked into.
    InUse,
    /// The restored data is damaged, and staging is rolled back.
    RollBack,
    /// A rule keeps snapshots: one is taken of the backup, restored and compared.
    Snapshot,
    /// Production is protected, as Neon advises: its backup has new passwords. A second role logs
    /// in as well.
    Protected,
    /// Neon's clock is ahead of the Worker's, as far as the Worker allows.
    Ahead,
    /// Neon's clock is behind, as far as the Worker allows.
    Behind,
    /// Neon's operations take a tenth of what they mostly take, twice as long, and three of ten
    /// twenty times as long.
    Uneven,
}

impl Day {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Plain,
        Self::InUse,
        Self::RollBack,
        Self::Snapshot,
        Self::Protected,
        Self::Ahead,
        Self::Behind,
        Self::Uneven,
    ];

    /// Returns how far Neon's clock is ahead on such a day.
    pub(crate) fn clock_offset(self) -> TimeDelta {
        match self {
            Self::Ahead => CLOCKS_APART,
            Self::Behind => -CLOCKS_APART,
            Self::Plain
            | Self::InUse
            | Self::RollBack
            | Self::Snapshot
            | Self::Protected
            | Self::Uneven => TimeDelta::zero(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::InUse => "in_use",
            Self::RollBack => "roll_back",
            Self::Snapshot => "snapshot",
            Self::Protected => "protected",
            Self::Ahead => "ahead",
            Self::Behind => "behind",
            Self::Uneven => "uneven",
        }
    }
}

/// Where the Worker is killed, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Nowhere.
    Never,
    /// When the reply of the action is on its way.
    AtOnce,
    /// At the save that follows the action, before it is made.
    BeforeSave,
    /// At that save, after it is made.
    AfterSave,
}

impl Crash {
    /// Every place.
    pub const ALL: [Self; 4] = [Self::Never, Self::AtOnce, Self::BeforeSave, Self::AfterSave];

    fn name(self) -> &'static str {
        match self {
            Self::Never => "no_crash",
            Self::AtOnce => "crash_at_once",
            Self::BeforeSave => "crash_before_save",
            Self::AfterSave => "crash_after_save",
        }
    }
}

/// What the store remembers from the action on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// What was written.
    Fresh,
    /// What was written a minute ago.
    Stale,
    /// Nothing of what was written before the action.
    Empty,
}

impl Memory {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Fresh, Self::Stale, Self::Empty];

    fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Empty => "empty",
        }
    }
}

/// A fault at the n-th action of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The action, such as `restoreProjectBranch`.
    pub action: String,
    /// Which of that name, counted from one since the run is due.
    pub nth: u32,
    /// What goes wrong.
    pub fault: Fault,
}

/// A scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Everything is said.
    Said {
        /// The kind of day.
        day: Day,
        /// What goes wrong.
        faults: Vec<Planned>,
        /// Where the Worker is killed.
        crash: Crash,
        /// What the store remembers.
        memory: Memory,
        /// Whether a second tick starts at the first fault.
        is_doubled: bool,
    },
    /// Everything is drawn.
    Seed(u64),
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seed(seed) => write!(f, "seed-{seed}"),
            Self::Said { day, faults, crash, memory, is_doubled } => {
                let faults: Vec<String> = faults
                    .iter()
                    .map(|planned| format!("{}#{}={}", planned.action, planned.nth, planned.fault))
                    .collect();
                let faults = if faults.is_empty() { "-".to_owned() } else { faults.join("+") };
                let ticks = if *is_doubled { "two_ticks" } else { "one_tick" };
                write!(f, "{}/{faults}/{}/{}/{ticks}", day.name(), crash.name(), memory.name())
            }
        }
    }
}

impl FromStr for Plan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(seed) = text.strip_prefix("seed-") {
            return seed
                .parse()
                .map(Self::Seed)
                .map_err(|_| format!("{text:?}: a seed is a number"));
        }
        let parts: Vec<&str> = text.split('/').collect();
        let [day, faults, crash, memory, ticks] = parts.as_slice() else {
            return Err(format!(
                "{text:?}: expected day/faults/crash/memory/ticks, or seed-<number>"
            ));
        };
        Ok(Self::Said {
            day: Day::ALL
                .into_iter()
                .find(|kind| kind.name() == *day)
                .ok_or_else(|| format!("{day:?} is no kind of day"))?,
            faults: faults
                .split('+')
                .filter(|fault| *fault != "-")
                .map(planned)
                .collect::<Result<_, _>>()?,
            crash: Crash::ALL
                .into_iter()
                .find(|kind| kind.name() == *crash)
                .ok_or_else(|| format!("{crash:?} is no crash"))?,
            memory: Memory::ALL
                .into_iter()
                .find(|kind| kind.name() == *memory)
                .ok_or_else(|| format!("{memory:?} is no memory"))?,
            is_doubled: match *ticks {
                "one_tick" => false,
                "two_ticks" => true,
                other => return Err(format!("{other:?}: expected one_tick or two_ticks")),
            },
        })
    }
}

fn planned(text: &str) -> Result<Planned, String> {
    let bad = || format!("{text:?}: expected action#n=fault");
    let (action, rest) = text.split_once('#').ok_or_else(bad)?;
    let (nth, fault) = rest.split_once('=').ok_or_else(bad)?;
    Ok(Planned {
        action: action.to_owned(),
        nth: nth.parse().map_err(|_| bad())?,
        fault: fault.parse()?,
    })
}
