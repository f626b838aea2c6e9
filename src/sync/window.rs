//! When changes may be made: windows of time, written as cron, a length and a time zone.
//!
//! The `cron` crate walks the calendar in civil time (dressed as UTC), and jiff places each start
//! in its zone: a start in the hour that summer time skips runs at the same minute of the next
//! one, a start in the hour that occurs twice runs once, at the first. (`cron` with a zone of its
//! own skips the day and fires twice.) Leaves it to `plan.rs` which changes need a window. Never
//! reads a clock.

use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use jiff::civil;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// A recurring stretch of time in which changes are allowed or denied.
#[derive(Clone, Debug)]
pub struct Window {
    /// The name that people see when it is closed.
    pub name: String,
    /// Whether changes may be made in it, or may not.
    pub rule: Rule,
    /// Which changes it speaks of.
    pub scope: Scope,
    starts: Starts,
    duration: Duration,
}

/// Whether changes may be made in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Changes may be made inside, and nowhere else unless another window allows it.
    Allow,
    /// Changes may not be made inside, whatever else allows them.
    Deny,
}

/// Which changes a window speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Changes that restart servers.
    Restarts,
    /// All changes.
    All,
}

/// Whether a change may be made now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// It may.
    Open,
    /// It may not.
    Closed {
        /// The window that says so.
        window: String,
        /// When it may next; `None` when no opening is found within `HORIZON`.
        opens: Option<Timestamp>,
    },
}

/// Longest window. Longer ones are typing errors, and bound the search for a start.
const LONGEST: Duration = Duration::from_secs(31 * 24 * 3600);
/// How far ahead an opening is looked for: a year and a leap day, for yearly windows.
const HORIZON: SignedDuration = SignedDuration::from_hours(366 * 24);
/// How many starts and ends are looked at before the search for an opening is given up: a start
/// every minute for two days, or hourly for four months.
const TRANSITIONS: usize = 3000;
/// No zone has moved its clock by more at once.
const CLOCK_CHANGE: SignedDuration = SignedDuration::from_hours(3);

/// Whether a change may be made at `now`. `restarts` says whether it restarts servers.
///
/// No window that speaks of the change: open. An active deny closes. An active allow opens. Any
/// allow at all: closed outside of it.
pub fn gate(windows: &[Window], restarts: bool, now: Timestamp) -> Gate {
    let relevant: Vec<&Window> =
        windows.iter().filter(|w| restarts || w.scope == Scope::All).collect();
    match closed_by(&relevant, now) {
        None => Gate::Open,
        Some(window) => {
            Gate::Closed { window: window.name.clone(), opens: next_opening(&relevant, now) }
        }
    }
}

/// The window because of which nothing may be done at `at`.
fn closed_by<'a>(windows: &[&'a Window], at: Timestamp) -> Option<&'a Window> {
    let active = |rule: Rule| {
        windows.iter().find(|window| window.rule == rule && window.active_until(at).is_some())
    };
    if let Some(denied) = active(Rule::Deny) {
        return Some(denied);
    }
    if active(Rule::Allow).is_some() {
        return None;
    }
    windows.iter().find(|window| window.rule == Rule::Allow).copied()
}

/// Steps from one start or end to the next until nothing is closed.
fn next_opening(windows: &[&Window], now: Timestamp) -> Option<Timestamp> {
    let horizon = now.checked_add(HORIZON).ok()?;
    let mut at = now;
    for _ in 0..TRANSITIONS {
        let next = windows.iter().filter_map(|window| window.next_transition(at)).min()?;
        if next > horizon {
            return None;
        }
        if closed_by(windows, next).is_none() {
            return Some(next);
        }
        at = next;
    }
    None
}

impl Window {
    /// A window that begins whenever the five fields of `cron` match in `zone`.
    ///
    /// # Errors
    /// A sentence that says which part is wrong and what to write.
    pub fn new(
        name: &str,
        rule: Rule,
        scope: Scope,
        cron: &str,
        duration: Duration,
        zone: &str,
    ) -> Result<Self, NotAWindow> {
        if duration < Duration::from_secs(60) || duration > LONGEST {
            return Err(NotAWindow::Duration);
        }
        Ok(Self {
            name: name.to_owned(),
            rule,
            scope,
            starts: Starts::parse(cron, zone)?,
            duration,
        })
    }

    /// When the stretch that `at` lies in ends; `None` when it lies in none.
    pub fn active_until(&self, at: Timestamp) -> Option<Timestamp> {
        let length = SignedDuration::try_from(self.duration).ok()?;
        // The latest start counts. Looking back in growing steps finds it among few: a window of
        // days that begins every minute has tens of thousands of starts.
        let steps = [SignedDuration::from_hours(1), SignedDuration::from_hours(24), length];
        let latest = steps.into_iter().find_map(|back| {
            let from = at.checked_sub(back.min(length)).ok()?;
            self.starts.after(from).take_while(|start| *start <= at).last()
        })?;
        latest.checked_add(length).ok()
    }

    /// The next start or end after `at`.
    fn next_transition(&self, at: Timestamp) -> Option<Timestamp> {
        let start = self.starts.after(at).next();
        let end = self.active_until(at);
        match (start, end) {
            (Some(start), Some(end)) => Some(start.min(end)),
            (one, other) => one.or(other),
        }
    }
}

/// A text that was to be a window and is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAWindow {
    /// Not five fields, or a field that is wrong.
    #[error("schedule {text:?} is not cron: {reason}")]
    Cron {
        /// What was written.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Not a zone.
    #[error("time zone {0:?} is not known")]
    Zone(String),
    /// Too short or too long.
    #[error("duration is not between 1m and 31 days")]
    Duration,
}

/// When a window begins.
#[derive(Clone, Debug)]
struct Starts {
    /// One schedule, or two of which either suffices: cron's rule when both the day of the month
    /// and the day of the week are restricted.
    schedules: Vec<cron::Schedule>,
    zone: TimeZone,
}

impl Starts {
    fn parse(text: &str, zone: &str) -> Result<Self, NotAWindow> {
        let wrong = |reason: &str| NotAWindow::Cron {
            text: text.chars().take(80).collect(),
            reason: reason.to_owned(),
        };
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(wrong("five fields are needed: minute hour day month weekday"));
        };
        let days = weekdays(weekday).map_err(|reason| wrong(&reason))?;
        let either = !day.starts_with('*') && !weekday.starts_with('*');
        let pairs =
            if either { vec![(day, "*"), ("*", days.as_str())] } else { vec![(day, &*days)] };
        let schedules = pairs
            .iter()
            .map(|(day, days)| format!("0 {minute} {hour} {day} {month} {days}"))
            .map(|six| cron::Schedule::from_str(&six).map_err(|error| wrong(&first_line(&error))))
            .collect::<Result<Vec<_>, _>>()?;
        let zone = TimeZone::get(zone).map_err(|_| NotAWindow::Zone(zone.to_owned()))?;
        Ok(Self { schedules, zone })
    }

    /// Starts after `at`, in order.
    fn after(&self, at: Timestamp) -> impl Iterator<Item = Timestamp> + '_ {
        // Civil time can lie behind what was already placed when the clock was changed in between.
        let from = at.checked_sub(CLOCK_CHANGE).unwrap_or(at);
        let civil = as_utc(self.zone.to_datetime(from)).unwrap_or(DateTime::<Utc>::MAX_UTC);
        let mut next: Vec<_> =
            self.schedules.iter().map(|schedule| schedule.after(&civil).peekable()).collect();
        let merged = std::iter::from_fn(move || {
            let earliest = next.iter_mut().filter_map(|starts| starts.peek().copied()).min()?;
            for starts in &mut next {
                starts.next_if_eq(&earliest);
            }
            Some(earliest)
        });
        merged.filter_map(move |civil| self.place(civil)).filter(move |placed| *placed > at)
    }

    /// A civil time in the zone: in a gap the later reading, in a fold the first.
    fn place(&self, civil: DateTime<Utc>) -> Option<Timestamp> {
        let civil = civil::DateTime::from_str(&civil.naive_utc().to_string()).ok()?;
        Some(self.zone.to_ambiguous_zoned(civil).compatible().ok()?.timestamp())
    }
}

/// Civil time dressed as UTC, whole seconds.
fn as_utc(civil: civil::DateTime) -> Option<DateTime<Utc>> {
    let date = NaiveDate::from_ymd_opt(
        i32::from(civil.year()),
        u32::try_from(civil.month()).ok()?,
        u32::try_from(civil.day()).ok()?,
    )?;
    let part = |number: i8| u32::try_from(number).ok();
    Some(
        date.and_hms_opt(part(civil.hour())?, part(civil.minute())?, part(civil.second())?)?
            .and_utc(),
    )
}

const NAMES: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// POSIX's day of the week (0 to 7, names, lists, ranges, steps) as a list of names, because the
/// `cron` crate counts from Sunday = 1.
fn weekdays(field: &str) -> Result<String, String> {
    if field == "*" {
        return Ok("*".to_owned());
    }
    let mut days = [false; 7];
    for part in field.split(',') {
        let (range, step) = part.split_once('/').unwrap_or((part, "1"));
        let step: usize = step
            .parse()
            .ok()
            .filter(|step| (1..=7).contains(step))
            .ok_or_else(|| format!("{part:?} has no step from 1 to 7 behind the slash"))?;
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (weekday(first)?, weekday(last)?),
            None if range == "*" => (0, 6),
            None => (weekday(range)?, weekday(range)?),
        };
        // `FRI-SUN` goes on past Saturday: 7 is Sunday as well.
        let last = if last < first && last == 0 { 7 } else { last };
        if last < first {
            return Err(format!("{part:?} runs backwards"));
        }
        for day in (first..=last).step_by(step) {
            days[day % 7] = true;
        }
    }
    let chosen: Vec<&str> =
        NAMES.iter().zip(days).filter(|(_, chosen)| *chosen).map(|(name, _)| *name).collect();
    Ok(chosen.join(","))
}

fn weekday(text: &str) -> Result<usize, String> {
    let by_name = NAMES.iter().position(|name| name.eq_ignore_ascii_case(text));
    let number = by_name.or_else(|| text.parse().ok().filter(|day| *day <= 7));
    number.ok_or_else(|| format!("{text:?} is not a day of the week (0-7 or SUN-SAT)"))
}

fn first_line(error: &impl std::fmt::Display) -> String {
    error.to_string().lines().next().unwrap_or_default().chars().take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn window(rule: Rule, scope: Scope, cron: &str, minutes: u64, zone: &str) -> Window {
        let length = Duration::from_secs(minutes * 60);
        Window::new("w", rule, scope, cron, length, zone).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn windows_open_and_close() {
        fn check(windows: &[Window], restarts: bool, now: &str, expected: Option<Option<&str>>) {
            let expected = expected.map(|opens| opens.map(at));
            let got = match gate(windows, restarts, at(now)) {
                Gate::Open => None,
                Gate::Closed { opens, .. } => Some(opens),
            };
            assert_eq!(got, expected, "{now}");
        }
        use Rule::{Allow, Deny};
        use Scope::{All, Restarts};
        check(&[], true, "2026-03-02T12:00:00Z", None);
        let nights = [window(Allow, Restarts, "0 2 * * *", 120, "Europe/Helsinki")];
        check(&nights, true, "2026-03-02T00:30:00Z", None);
        check(&nights, true, "2026-03-02T02:00:00Z", Some(Some("2026-03-03T00:00:00Z")));
        check(&nights, true, "2026-03-02T12:00:00Z", Some(Some("2026-03-03T00:00:00Z")));
        check(&nights, false, "2026-03-02T12:00:00Z", None);
        let freeze = window(Deny, All, "0 0 24 12 *", 4 * 24 * 60, "UTC");
        let both = [nights[0].clone(), freeze];
        check(&both, true, "2026-12-25T00:30:00Z", Some(Some("2026-12-28T00:00:00Z")));
        check(&both, false, "2026-12-25T00:30:00Z", Some(Some("2026-12-28T00:00:00Z")));
        check(
            &[window(Allow, All, "0 0 30 2 *", 60, "UTC")],
            false,
            "2026-01-01T00:00:00Z",
            Some(None),
        );
    }

    #[test]
    fn summer_time_neither_skips_a_day_nor_runs_one_twice() {
        fn check(after: &str, expected: &[&str]) {
            let daily = window(Rule::Allow, Scope::All, "30 3 * * *", 60, "Europe/Helsinki");
            let got: Vec<Timestamp> = daily.starts.after(at(after)).take(expected.len()).collect();
            let expected: Vec<Timestamp> = expected.iter().map(|text| at(text)).collect();
            assert_eq!(got, expected);
        }
        // 03:30 does not exist on the 29th: 04:30 of summer time is the same instant.
        check("2026-03-28T12:00:00Z", &["2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"]);
        // 03:30 occurs twice on the 25th: the first counts.
        check("2026-10-24T12:00:00Z", &["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
        check("2026-10-25T00:45:00Z", &["2026-10-26T01:30:00Z"]);
    }

    #[test]
    fn weekdays_are_posix() {
        fn check(field: &str, expected: Option<&str>) {
            assert_eq!(weekdays(field).ok().as_deref(), expected, "{field}");
        }
        check("*", Some("*"));
        check("0", Some("SUN"));
        check("7", Some("SUN"));
        check("1-5", Some("MON,TUE,WED,THU,FRI"));
        check("fri-sun", Some("SUN,FRI,SAT"));
        check("5-7", Some("SUN,FRI,SAT"));
        check("*/2", Some("SUN,TUE,THU,SAT"));
        check("mon,3", Some("MON,WED"));
        for bad in ["8", "x", "5-2", "1/0", "L", ""] {
            check(bad, None);
        }
    }

    #[test]
    fn what_is_no_window_says_why() {
        fn check(cron: &str, seconds: u64, zone: &str, expected: &str) {
            let length = Duration::from_secs(seconds);
            let error = Window::new("w", Rule::Allow, Scope::All, cron, length, zone).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
        check("0 3 * *", 60, "UTC", "five fields");
        check("61 3 * * *", 60, "UTC", "61");
        check("0 3 * * *", 60, "Mars/Olympus", "Mars/Olympus");
        check("0 3 * * *", 59, "UTC", "between 1m and 31 days");
    }

    proptest! {
        /// croner is the oracle. In the hour of a clock change the two differ by design (croner
        /// moves a start out of a gap to the gap's end), so days with one are left out.
        #[test]
        fn starts_are_those_that_croner_finds(
            minute in 0..60u32, hour in 0..24u32,
            day in prop_oneof![Just("*".to_owned()), (1..29u32).prop_map(|d| d.to_string())],
            weekday in prop_oneof![Just("*".to_owned()), (0..8u32).prop_map(|d| d.to_string()),
                                   Just("1-5".to_owned())],
            seconds in 1_750_000_000i64..1_900_000_000,
            zone in prop_oneof![Just("UTC"), Just("Europe/Helsinki"), Just("America/New_York"),
                                Just("Asia/Kolkata"), Just("Australia/Lord_Howe")],
        ) {
            let text = format!("{minute} {hour} {day} * {weekday}");
            let from = Timestamp::from_second(seconds).unwrap();
            let ours: Vec<Timestamp> =
                Starts::parse(&text, zone).unwrap().after(from).take(5).collect();
            let oracle = croner::Cron::from_str(&text).unwrap();
            let zone = TimeZone::get(zone).unwrap();
            let mut at = from.to_zoned(zone);
            for ours in ours {
                at = oracle.find_next_occurrence(&at, false).unwrap();
                let day = at.start_of_day().unwrap();
                let whole_day = day.tomorrow().unwrap().timestamp().duration_since(day.timestamp());
                if whole_day == SignedDuration::from_hours(24) {
                    prop_assert_eq!(ours, at.timestamp(), "{}", text);
                } else {
                    // The two agree on the day; go on from ours.
                    prop_assert_eq!(ours.to_zoned(at.time_zone().clone()).date(), at.date());
                    at = at.clone().max(ours.to_zoned(at.time_zone().clone()));
                }
            }
        }
    }
}
