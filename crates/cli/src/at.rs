//! What `--at` takes: a time in one of the ways people write them, or a packet.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned};
use packetboat_engine::error::QueryError;
use packetboat_engine::replica::{At, Replica};
use thiserror::Error;

/// A point in history as the user named it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum AtText {
    /// A time, in milliseconds since 1970 UTC.
    Time(i64),
    /// A packet as `device:counter`; the replica knows which devices there are.
    Packet(String),
}

impl AtText {
    /// Reads a time or a packet; `now` is what "ago" counts from, and its time zone the one of times without one.
    pub(crate) fn parse(text: &str, now: &Zoned) -> Result<Self, AtError> {
        let text = text.trim();
        if let Some(time) = time(text, now)? {
            if time > now.timestamp() {
                return Err(AtError::Future { text: text.to_owned() });
            }
            return Ok(Self::Time(time.as_millisecond() + rest_of_second(text)));
        }
        match text.rsplit_once(':') {
            Some((device, counter)) if !device.is_empty() && counter.parse::<u64>().is_ok() => {
                Ok(Self::Packet(text.to_owned()))
            }
            _ => Err(AtError::Unreadable { text: text.to_owned() }),
        }
    }

    /// The point in this replica's history.
    pub(crate) fn find(&self, replica: &Replica) -> Result<At, QueryError> {
        match self {
            Self::Time(time) => Ok(At::Time(*time)),
            Self::Packet(text) => Ok(At::Packet(replica.packet_named(text)?)),
        }
    }
}

/// For clap.
pub(crate) fn parse_at(text: &str) -> Result<AtText, AtError> {
    AtText::parse(text, &Zoned::now())
}

fn time(text: &str, now: &Zoned) -> Result<Option<Timestamp>, AtError> {
    let zone = now.time_zone();
    if let Some(time) = relative(text, now)? {
        return Ok(Some(time.timestamp()));
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(Some(time));
    }
    // Jiff's own civil parser takes more than is meant here; the form is checked by what is tried.
    for format in ["%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M"] {
        if let Ok(time) = DateTime::strptime(format, text) {
            return local(time, zone).map(Some);
        }
    }
    match Date::strptime("%Y-%m-%d", text) {
        Ok(date) => local(date.at(0, 0, 0, 0), zone).map(Some),
        Err(_) => Ok(None),
    }
}

/// What is left of the second that a written time names, in milliseconds.
///
/// The log shows times to the second. Whoever copies one from it means what is listed there, and not what stood before.
fn rest_of_second(text: &str) -> i64 {
    let names_a_second = text.matches(':').count() >= 2 && !text.contains(['.', ',']);
    if names_a_second { 999 } else { 0 }
}

fn local(time: DateTime, zone: &TimeZone) -> Result<Timestamp, AtError> {
    let zoned = time.to_zoned(zone.clone()).map_err(|_| AtError::Unreadable { text: time.to_string() })?;
    Ok(zoned.timestamp())
}

/// `now`, `today`, `yesterday`, `3 days ago`, `2h ago`.
fn relative(text: &str, now: &Zoned) -> Result<Option<Zoned>, AtError> {
    let lower = text.to_lowercase();
    let too_far = || AtError::TooFar { text: text.to_owned() };
    match lower.as_str() {
        "now" => return Ok(Some(now.clone())),
        "today" => return now.start_of_day().map(Some).map_err(|_| too_far()),
        "yesterday" => return now.checked_sub(Span::new().days(1)).map(Some).map_err(|_| too_far()),
        _ => {}
    }
    let Some(amount) = lower.strip_suffix("ago").map(str::trim) else { return Ok(None) };
    let digits = amount.len() - amount.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = amount.split_at(digits);
    let number = match (number, unit.trim_start()) {
        ("", unit) if unit.starts_with("a ") || unit.starts_with("an ") => 1,
        (number, _) => match number.parse::<i64>() {
            Ok(number) => number,
            Err(_) => return Ok(None),
        },
    };
    let unit = unit.trim_start().trim_start_matches("an ").trim_start_matches("a ").trim();
    let span = Span::new();
    let span = match unit {
        "s" | "sec" | "secs" | "second" | "seconds" => span.try_seconds(number),
        "m" | "min" | "mins" | "minute" | "minutes" => span.try_minutes(number),
        "h" | "hour" | "hours" => span.try_hours(number),
        "d" | "day" | "days" => span.try_days(number),
        "w" | "week" | "weeks" => span.try_weeks(number),
        "month" | "months" => span.try_months(number),
        "y" | "year" | "years" => span.try_years(number),
        _ => return Ok(None),
    };
    span.and_then(|span| now.checked_sub(span)).map(Some).map_err(|_| too_far())
}

/// Why text is no point in history.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub(crate) enum AtError {
    #[error(
        "{text:?} is neither a time nor a packet: write '2026-03-14 15:09', '2026-03-14T15:09:26Z', '3 days ago', \
         'yesterday', or a packet such as 'laptop:12'"
    )]
    Unreadable { text: String },
    #[error("{text:?} lies in the future")]
    Future { text: String },
    #[error("{text:?} is too long ago")]
    TooFar { text: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Zoned {
        // The clocks of Berlin went forward in the night before.
        "2026-03-29T12:00:00+02:00[Europe/Berlin]".parse().expect("a time")
    }

    #[track_caller]
    fn check(text: &str, utc: &str) {
        let expected: Timestamp = utc.parse().unwrap();
        assert_eq!(AtText::parse(text, &now()), Ok(AtText::Time(expected.as_millisecond())), "{text}");
    }

    #[test]
    fn times_with_a_zone_are_taken_as_they_are() {
        check("2026-03-14T15:09:26Z", "2026-03-14T15:09:26.999Z");
        check("2026-03-14T15:09:26.5+05:30", "2026-03-14T09:39:26.5Z");
    }

    #[test]
    fn times_without_a_zone_are_local() {
        check("2026-03-14", "2026-03-13T23:00:00Z");
        check("2026-03-14 15:09", "2026-03-14T14:09:00Z");
        check("2026-03-14 15:09:26", "2026-03-14T14:09:26.999Z");
        check("2026-03-14T15:09", "2026-03-14T14:09:00Z");
    }

    /// Copied from the log, it had named the state before what the log lists for that second.
    #[test]
    fn a_time_as_the_log_shows_it_includes_the_second_that_it_names() {
        check("2026-03-14 15:09:26", "2026-03-14T14:09:26.999Z");
        check("2026-03-14T15:09:26", "2026-03-14T14:09:26.999Z");
        check("2026-03-14T15:09:26+01:00", "2026-03-14T14:09:26.999Z");
        check("2026-03-14T15:09:26.250Z", "2026-03-14T15:09:26.250Z");
        check("2026-03-29 12:00:00", "2026-03-29T10:00:00.999Z");
    }

    #[test]
    fn ago_counts_days_by_the_calendar_and_hours_by_the_clock() {
        check("yesterday", "2026-03-28T11:00:00Z");
        check("1 day ago", "2026-03-28T11:00:00Z");
        check("24 hours ago", "2026-03-28T10:00:00Z");
        check("2h ago", "2026-03-29T08:00:00Z");
        check("an hour ago", "2026-03-29T09:00:00Z");
        check("a month ago", "2026-02-28T11:00:00Z");
        check("90 minutes ago", "2026-03-29T08:30:00Z");
        check("today", "2026-03-28T23:00:00Z");
        check(" NOW ", "2026-03-29T10:00:00Z");
    }

    #[test]
    fn packets_are_told_from_times() {
        for text in ["laptop:12", "3fa01c22:12", "my old laptop:1", "a:b:3"] {
            assert_eq!(AtText::parse(text, &now()), Ok(AtText::Packet(text.to_owned())));
        }
    }

    #[test]
    fn what_is_neither_is_refused() {
        for text in
            ["", "soon", ":12", "laptop:", "laptop:x", "2026-13-01", "days ago", "3 fortnights ago", "-1 days ago"]
        {
            assert!(matches!(AtText::parse(text, &now()), Err(AtError::Unreadable { .. })), "{text:?}");
        }
        assert!(matches!(AtText::parse("2026-03-30", &now()), Err(AtError::Future { .. })));
        assert!(matches!(AtText::parse("99999999999999 years ago", &now()), Err(AtError::TooFar { .. })));
        assert!(matches!(AtText::parse("19000 years ago", &now()), Err(AtError::TooFar { .. })));
    }
}
