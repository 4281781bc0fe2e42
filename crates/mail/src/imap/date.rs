//! When a server received a message, as IMAP writes it: `17-Jul-1996 02:44:25 -0700`.

use std::time::{Duration, SystemTime};

/// Reads a date; nothing for one that is none or lies before 1970, which no file's time is worth.
pub(super) fn parse(date: &str) -> Option<SystemTime> {
    let mut parts = date.split_ascii_whitespace();
    let (day, time, zone) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || !date.is_ascii() {
        return None;
    }
    let mut day = day.split('-');
    let (day_of_month, month, year) = (number(day.next()?, 1, 31)?, day.next()?, number(day.next()?, 1970, 9999)?);
    let month = MONTHS.iter().position(|name| name.eq_ignore_ascii_case(month))?;
    let mut time = time.split(':');
    let (hour, minute, second) =
        (number(time.next()?, 0, 23)?, number(time.next()?, 0, 59)?, number(time.next()?, 0, 60)?);
    let (sign, digits) = zone.split_at_checked(1)?;
    if digits.len() != 4 {
        return None;
    }
    let offset = number(&digits[..2], 0, 23)? * 60 + number(&digits[2..], 0, 59)?;
    let offset = match sign {
        "+" => offset * 60,
        "-" => -offset * 60,
        _ => return None,
    };
    // Days since 1970-03-01, counted in years that begin in March, so that a leap day is the last of its year.
    let (year, month) = if month < 2 { (year - 1, month as i64 + 10) } else { (year, month as i64 - 2) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day_of_month - 1 - TO_1970;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second - offset;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).ok()?))
}

fn number(text: &str, least: i64, greatest: i64) -> Option<i64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| digits && (least..=greatest).contains(number))
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Days from the first of March of the year 0 to the first of January 1970.
const TO_1970: i64 = 719_468;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(date: &str) -> Option<u64> {
        parse(date).map(|time| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs())
    }

    #[test]
    fn dates_are_read_as_the_standard_shows() {
        assert_eq!(seconds("17-Jul-1996 02:44:25 -0700"), Some(837_596_665));
        assert_eq!(seconds(" 1-Jan-1970 00:00:00 +0000"), Some(0));
        assert_eq!(seconds("29-Feb-2024 23:59:59 +0530"), Some(1_709_231_399));
        assert_eq!(seconds("22-Nov-2026 02:44:00 +0000"), Some(1_795_315_440));
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for date in [
            "",
            "1-Jan-1969 00:00:00 +0000",
            "1-Foo-2020 00:00:00 +0000",
            "1-Jan-2020 24:00:00 +0000",
            "1-Jan-2020 00:00:00 00",
            "1-Jan-2020 00:00:00 +000é",
            "-1-Jan-2020 00:00:00 +0000",
            "1-Jan-2020 00:00:00 +0000 x",
        ] {
            assert_eq!(parse(date), None, "{date}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(date in "[0-9]{1,2}-(Jan|Dec|x)-[0-9]{2,5} [0-9:]{0,9} [+-]?[0-9é]{3,5}") {
            let _ = parse(&date);
        }
    }
}
