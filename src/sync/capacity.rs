//! Computes whether the runs of a day fit the invocations of a day, and the reads of a day the
//! plan.
//!
//! In: the settings, how long runs take where that is known, the interval of the cron. Out: what
//! deserves a look, each with what would do.
//!
//! The model is plainer than a tick: at each tick so many runs may be driven as their subrequests
//! fit ([`WHOLE_RUN`] each), those with the earliest deadline first. One that takes longer than the
//! interval takes its share of several ticks. Nothing goes wrong, and nobody starts a run by hand.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::{Config, Pair};
use crate::id::PairName;
use crate::ordered;
use crate::sync::checkpoint::History;
use crate::sync::schedule::{self, Day};
use crate::time::{Timestamp, after, before, between};

/// The cron interval that the Worker takes for granted; `check-config` reads the configured one.
pub const INTERVAL: Duration = Duration::from_mins(5);

/// Subrequests of a whole run.
///
/// With two channels and a smoke test a plain run takes fifty, which is an invocation of the Free
/// plan.
pub const WHOLE_RUN: u32 = 50;

/// Subrequests with which an invocation hands over a run that is open: one for the save, one for
/// its repetition.
pub const HAND_OVER: u32 = 2;

/// Subrequests of an invocation of the Free plan: whoever configures more has paid.
///
/// Source: Cloudflare Workers, limits, 2026-09-05: "Subrequests: 50/request (Free)".
const FREE_BUDGET: u32 = 50;

/// Keys that may be read in a day of the Free plan. What comes after them is refused until
/// midnight, UTC.
///
/// Source: Workers KV, limits, 2026-09-05: "Reads: 100,000 reads per day (Free)".
const FREE_READS: u64 = 100_000;

/// Keys that are read of a pair in a tick that finds it awake, beside the two of every tick.
const KEYS_AWAKE: u64 = 30;

/// Keys that a run reads itself, with its start and its end: orders, earlier results, endings, the
/// ledger.
const KEYS_OF_A_RUN: u64 = 450;

/// How long a pair stays awake after its run.
const AWAKE: Duration = Duration::from_hours(1);

/// Windows are made longer by this at most when it is looked for what would do.
const LONGEST: Duration = Duration::from_hours(12);

/// Days that are looked at: a week, for windows may differ by day.
const DAYS: usize = 7;

/// Pairs that are named in a sentence.
const NAMED: usize = 5;

/// A run that is to be driven.
#[derive(Clone)]
struct Job<'c> {
    pair: &'c Pair,
    day: Day,
    /// How long it takes; zero where that is not known.
    length: Duration,
    /// Ticks that it takes a share of.
    ticks: u64,
}

/// Returns the keys that are read in a day: one and two of each pair in every tick, the run of each
/// pair, and everything of a pair for an hour after it.
pub fn reads_a_day(config: &Config, interval: Duration) -> u64 {
    let ticks = |length: Duration| length.as_secs().div_ceil(interval.as_secs().max(1));
    let pairs = u64::try_from(config.pairs.len()).unwrap_or(u64::MAX);
    let idle = ticks(Duration::from_hours(24)) * (1 + 2 * pairs);
    idle + pairs * (ticks(AWAKE) * KEYS_AWAKE + KEYS_OF_A_RUN)
}

/// Says that the reads of a day do not fit the Free plan, where that is what the settings are for.
pub fn too_many_reads(config: &Config, interval: Duration) -> Option<String> {
    let reads = reads_a_day(config, interval);
    let (pairs, minutes) = (config.pairs.len(), interval.as_secs() / 60);
    (config.subrequest_budget <= FREE_BUDGET && reads > FREE_READS).then(|| {
        format!(
            "pairs: {pairs} pairs read about {reads} keys of Workers KV in a day at a tick every \
             {minutes} minutes, and the Free plan answers {FREE_READS}; after that nothing is \
             driven or told until midnight UTC. What would do: the Paid plan with a larger \
             subrequest_budget, fewer pairs in one Worker, or a cron that fires less often"
        )
    })
}

/// Says of the first day of the week ahead on which the runs of all pairs do not fit who would come
/// too late, and what would do. `lengths` are those of the pairs of which enough runs are known.
pub fn crowded(
    config: &Config,
    lengths: &BTreeMap<PairName, Duration>,
    interval: Duration,
    now: Timestamp,
) -> Option<String> {
    let jobs = jobs(config, lengths, interval, now);
    let at_once = config.subrequest_budget / (WHOLE_RUN + HAND_OVER);
    let late = too_late(&jobs, at_once.max(1), interval);
    let date = late.iter().map(|job| job.day.date).min()?;
    let names: Vec<&str> =
        late.iter().filter(|job| job.day.date == date).map(|job| job.pair.name.as_str()).collect();
    let of = jobs.iter().filter(|job| job.day.date == date).count();
    let first = names.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    let more = if names.len() > NAMED { ", …" } else { "" };
    let is_fit = |at_once: u32| too_late(&jobs, at_once, interval).is_empty();
    let most = u32::try_from(jobs.len()).unwrap_or(u32::MAX);
    let budget = (2..=most).find(|at_once| is_fit(*at_once)).map(|at_once| {
        let budget = at_once * (WHOLE_RUN + HAND_OVER);
        format!("subrequest_budget = {budget} (Paid plan)")
    });
    let longer = longer(&jobs, at_once.max(1), interval).map(|minutes| {
        format!(
            "windows that are {minutes} minutes longer (an earlier start_at, or a later \
             latest_start and deadline)"
        )
    });
    let remedies: Vec<String> = budget.into_iter().chain(longer).collect();
    let remedies = if remedies.is_empty() {
        "fewer pairs in one Worker".to_owned()
    } else {
        remedies.join(", or ")
    };
    Some(format!(
        "pairs: on {date} the runs of {} of {of} pairs cannot begin by their latest_start and end \
         by their deadline ({first}{more}): an invocation every {} minutes has subrequests for {} \
         of them (subrequest_budget = {}). What would do: {remedies}",
        names.len(),
        interval.as_secs() / 60,
        at_once.max(1),
        config.subrequest_budget,
    ))
}

/// Returns the runs of the week ahead, those with the earliest deadline first.
fn jobs<'c>(
    config: &'c Config,
    lengths: &BTreeMap<PairName, Duration>,
    interval: Duration,
    now: Timestamp,
) -> Vec<Job<'c>> {
    let none = History::default();
    let mut jobs = Vec::new();
    for pair in &config.pairs {
        let known = lengths.get(&pair.name).copied();
        let length = known.unwrap_or_default();
        let by_length = length.as_secs().div_ceil(interval.as_secs().max(1));
        let by_budget = WHOLE_RUN.div_ceil(config.subrequest_budget.max(1));
        let ticks = by_length.max(by_budget.into()).max(1);
        for mut day in schedule::days(pair, &none, now)
            .take(DAYS)
            .filter(|day| day.has_run && now <= day.latest_start)
        {
            // As `schedule::day` moves it.
            let needed = known
                .map_or(day.start_at, |long| before(day.deadline, long + pair.times.start_margin));
            let earliest = pair.zone.instant(day.date, pair.times.earliest_start);
            day.start_at = day.start_at.min(needed.max(earliest));
            jobs.push(Job { pair, day, length, ticks });
        }
    }
    ordered::sort_by_key(&mut jobs, |job: &Job<'_>| (job.day.deadline, job.day.start_at));
    jobs
}

/// Returns the runs that begin or end too late where so many are driven at once.
fn too_late<'j, 'c>(jobs: &'j [Job<'c>], at_once: u32, interval: Duration) -> Vec<&'j Job<'c>> {
    let mut late = Vec::new();
    let mut waiting: Vec<&Job<'_>> = jobs.iter().collect();
    let mut open: Vec<u64> = Vec::new();
    let at_once = usize::try_from(at_once).unwrap_or(usize::MAX);
    let Some(first) = jobs.iter().map(|job| job.day.start_at).min() else { return late };
    let mut now = next_tick(first, interval);
    while !waiting.is_empty() {
        open.retain_mut(|left| {
            *left -= 1;
            *left > 0
        });
        waiting.retain(|job| {
            let is_begun = job.day.start_at <= now && open.len() < at_once;
            if is_begun {
                open.push(job.ticks);
                if now > job.day.latest_start || after(now, job.length) > job.day.deadline {
                    late.push(*job);
                }
            }
            !is_begun
        });
        // Between two mornings there is nothing to look at.
        let next = waiting.iter().map(|job| job.day.start_at).min().filter(|_| open.is_empty());
        now = after(now, interval).max(next.map_or(now, |next| next_tick(next, interval)));
    }
    late
}

/// Returns the first tick at an instant or after it.
fn next_tick(at: Timestamp, interval: Duration) -> Timestamp {
    let interval = interval.as_secs().max(1);
    let since = between(Timestamp::UNIX_EPOCH, at);
    let passed = since.as_millis() % u128::from(interval * 1_000);
    let missing = if passed == 0 { 0 } else { u128::from(interval * 1_000) - passed };
    after(at, Duration::from_millis(u64::try_from(missing).unwrap_or(0)))
}

/// Returns by how many minutes windows have to be longer for all runs to fit.
fn longer(jobs: &[Job<'_>], at_once: u32, interval: Duration) -> Option<u64> {
    let steps = LONGEST.as_secs() / interval.as_secs().max(60);
    let lengths = (1..=steps)
        .map(|step| interval.max(Duration::from_mins(1)) * u32::try_from(step).unwrap_or(u32::MAX));
    let is_fit = |more: &Duration| {
        let mut jobs = jobs.to_vec();
        for job in &mut jobs {
            job.day.latest_start = after(job.day.latest_start, *more);
            job.day.deadline = after(job.day.deadline, *more);
        }
        too_late(&jobs, at_once, interval).is_empty()
    };
    lengths.into_iter().find(is_fit).map(|more| more.as_secs() / 60)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fixtures::settings;

    fn config(count: usize, change: &dyn Fn(usize, &mut Value), budget: u32) -> Config {
        let pair = |number: usize| {
            let mut pair = settings();
            pair["name"] = json!(format!("pair-{number}"));
            pair["project"] = json!(format!("old-violet-{number}"));
            change(number, &mut pair);
            pair
        };
        let pairs: Vec<Value> = (0..count).map(pair).collect();
        Config::from_value(&json!({"pairs": pairs, "subrequest_budget": budget}))
            .expect("the configuration is complete")
    }

    fn told(config: &Config, seconds: Option<u64>) -> Option<String> {
        let known = |seconds| {
            config
                .pairs
                .iter()
                .map(|pair| (pair.name.clone(), Duration::from_secs(seconds)))
                .collect()
        };
        let lengths = seconds.map(known).unwrap_or_default();
        crowded(config, &lengths, INTERVAL, "2026-11-21T08:00:00Z".parse().expect("an instant"))
    }

    #[test]
    fn seven_pairs_of_one_window_fit_the_free_plan_and_eight_do_not() {
        // At 05:00, 05:05, … 05:30 begins one each.
        assert_eq!(told(&config(7, &|_, _| {}, 50), None), None);
        assert_eq!(
            told(&config(8, &|_, _| {}, 50), None).as_deref(),
            Some(
                "pairs: on 2026-11-21 the runs of 1 of 8 pairs cannot begin by their latest_start \
                 and end by their deadline (pair-7): an invocation every 5 minutes has subrequests \
                 for 1 of them (subrequest_budget = 50). What would do: subrequest_budget = 104 \
                 (Paid plan), or windows that are 5 minutes longer (an earlier start_at, or a \
                 later latest_start and deadline)"
            )
        );
    }

    #[test]
    fn each_thing_that_would_do_does() {
        for (count, seconds) in
            [(8, None), (25, None), (25, Some(240)), (12, Some(700)), (3, Some(3_000))]
        {
            let text = told(&config(count, &|_, _| {}, 50), seconds).expect("they do not fit");
            let number = |before: &str| -> u32 {
                let digits: String = text
                    .split(before)
                    .nth(1)
                    .expect("it is said")
                    .chars()
                    .take_while(char::is_ascii_digit)
                    .collect();
                digits.parse().expect("a number")
            };
            let budget = number("What would do: subrequest_budget = ");
            assert_eq!(told(&config(count, &|_, _| {}, budget), seconds), None, "{text}");
            let minutes = number("windows that are ");
            let later =
                |at: u32| json!(format!("{:02}:{:02}", (at + minutes) / 60, (at + minutes) % 60));
            let longer = |_: usize, pair: &mut Value| {
                (pair["latest_start"], pair["deadline"]) = (later(5 * 60 + 30), later(6 * 60));
            };
            assert_eq!(told(&config(count, &longer, 50), seconds), None, "{text}");
            let earlier = |_: usize, pair: &mut Value| {
                let start = 5 * 60 - minutes.min(5 * 60);
                pair["start_at"] = json!(format!("{:02}:{:02}", start / 60, start % 60));
            };
            assert_eq!(told(&config(count, &earlier, 50), seconds), None, "{text}");
        }
    }

    #[test]
    fn windows_apart_from_each_other_and_on_other_days_fit() {
        let apart = |number: usize, pair: &mut Value| {
            let at =
                |hours: usize, minutes: &str| json!(format!("{:02}:{minutes}", number + hours));
            pair["start_at"] = at(0, "00");
            pair["latest_start"] = at(0, "05");
            pair["deadline"] = at(0, "50");
        };
        assert_eq!(told(&config(20, &apart, 50), Some(600)), None);
        let by_day = |number: usize, pair: &mut Value| {
            pair["weekdays"] = json!([if number < 7 { "mon" } else { "tue" }]);
        };
        assert_eq!(told(&config(14, &by_day, 50), None), None);
        let short = |_: usize, pair: &mut Value| {
            pair["start_at"] = json!("05:01");
            pair["latest_start"] = json!("05:02");
        };
        let text = told(&config(1, &short, 50), None).expect("no tick is between the two");
        assert!(text.contains("What would do: windows that are 5 minutes longer"), "{text}");
    }

    #[test]
    fn the_reads_of_a_day_fit_the_free_plan_up_to_seventy_pairs() {
        let reads = |count| reads_a_day(&config(count, &|_, _| {}, 50), INTERVAL);
        assert_eq!([1, 5, 25].map(reads), [1_674, 7_218, 34_938]);
        let told = |count, budget| too_many_reads(&config(count, &|_, _| {}, budget), INTERVAL);
        assert_eq!((told(71, 50), told(80, 1_000)), (None, None));
        let text = told(72, 50).expect("too many");
        assert!(
            text.starts_with(
                "pairs: 72 pairs read about 100080 keys of Workers KV in a day at a tick every 5 \
                 minutes"
            ),
            "{text}"
        );
        assert!(
            too_many_reads(&config(72, &|_, _| {}, 50), Duration::from_mins(10)).is_none(),
            "what would do does"
        );
    }
}
