//! What a message gets that has no `Message-ID` or `Date`: made of a time, randomness and a name that are passed in.

use packetboat_core::conflict_name::date;
use packetboat_core::hex;

/// A moment as people write it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment {
    /// Seconds since 1970 UTC.
    pub unix_seconds: i64,
    /// How far the local clock is ahead of UTC, in minutes.
    pub offset_minutes: i32,
}

/// What a message is stamped with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// Now.
    pub moment: Moment,
    /// Fresh for every message.
    pub random: [u8; 16],
    /// What stands after the `@` of a `Message-ID`.
    pub host: String,
}

impl Stamp {
    /// A `Message-ID` with its angle brackets.
    pub fn message_id(&self) -> String {
        let random = hex::encode(&self.random);
        let host: String =
            self.host.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')).take(200).collect();
        let host = host.trim_matches('.');
        format!("<{:x}.{random}@{}>", self.moment.unix_seconds.max(0), if host.is_empty() { "localhost" } else { host })
    }
}

/// A moment as `Date` has it (RFC 5322, 3.3): `Sun, 22 Nov 2026 02:21:19 +0100`.
pub fn format_date(moment: Moment) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let offset = moment.offset_minutes.clamp(-99 * 60, 99 * 60);
    // Years 1 to 9999, so that the parts below are where they are expected.
    let local = moment.unix_seconds.saturating_add(i64::from(offset) * 60).clamp(-62_135_596_800, 253_402_300_799);
    let calendar = date(local);
    let mut parts = calendar.split('-').map(|part| part.parse::<usize>().unwrap_or(1));
    let (year, month, day) = (parts.next().unwrap_or(1), parts.next().unwrap_or(1), parts.next().unwrap_or(1));
    let weekday = DAYS[local.div_euclid(86_400).rem_euclid(7) as usize];
    let second = local.rem_euclid(86_400);
    format!(
        "{weekday}, {day} {} {year:04} {:02}:{:02}:{:02} {}{:02}{:02}",
        MONTHS[(month.clamp(1, 12)) - 1],
        second / 3600,
        second / 60 % 60,
        second % 60,
        if offset < 0 { '-' } else { '+' },
        offset.abs() / 60,
        offset.abs() % 60,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dates_are_those_of_the_standard() {
        let format = |unix_seconds, offset_minutes| format_date(Moment { unix_seconds, offset_minutes });
        assert_eq!(format(0, 0), "Thu, 1 Jan 1970 00:00:00 +0000");
        assert_eq!(format(1_795_314_079, 60), "Sun, 22 Nov 2026 03:21:19 +0100");
        assert_eq!(format(1_795_314_079, -210), "Sat, 21 Nov 2026 22:51:19 -0330");
        assert_eq!(format(951_782_400, 0), "Tue, 29 Feb 2000 00:00:00 +0000");
    }

    #[test]
    fn a_host_name_cannot_break_a_message_id() {
        let stamp = |host: &str| Stamp {
            moment: Moment { unix_seconds: 0x10, offset_minutes: 0 },
            random: [0xab; 16],
            host: host.to_owned(),
        };
        assert_eq!(stamp("Laptop.test").message_id(), format!("<10.{}@Laptop.test>", "ab".repeat(16)));
        assert!(stamp("a\r\nX: y>").message_id().ends_with("@aXy>"));
        assert!(stamp("..").message_id().ends_with("@localhost>"));
    }

    proptest! {
        #[test]
        fn any_clock_gives_a_date_that_mail_programs_read(unix_seconds: i64, offset_minutes: i32) {
            let text = format_date(Moment { unix_seconds, offset_minutes });
            prop_assert!(mail_parser::DateTime::parse_rfc822(&text).is_some(), "{}", text);
        }
    }
}
