//! Numbers, times and names as people read them.

use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
pub(crate) use packetboat_engine::shell::word;

/// The bytes of hexadecimal text.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

/// A number of bytes in binary units: `4.1 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut size = count as f64 / 1024.0;
    let mut unit = 0;
    // What would be shown as 1024.0 is shown in the next unit.
    while size >= 1023.95 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

/// A count and its noun: `1 packet`, `2 packets`.
pub(crate) fn count(number: u64, singular: &str, plural: &str) -> String {
    format!("{number} {}", if number == 1 { singular } else { plural })
}

/// How long something took.
pub(crate) fn took(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", duration.as_secs_f64()),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// A time of day where the user is; milliseconds since 1970 UTC.
pub(crate) fn time(milliseconds: i64) -> String {
    match Timestamp::from_millisecond(milliseconds) {
        Ok(time) => time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => "at an unknown time".to_owned(),
    }
}

/// A time in a column; a dash where it is not known.
pub(crate) fn time_or_dash(milliseconds: Option<i64>) -> String {
    format!("{:<19}", milliseconds.map_or_else(|| "-".to_owned(), time))
}

/// Lines of which the columns stand beneath one another; the last of each line is as long as it is.
pub(crate) fn columns(lines: &[Vec<String>]) -> Vec<String> {
    let most = lines.iter().map(Vec::len).max().unwrap_or_default();
    let width = |at: usize| lines.iter().filter_map(|line| line.get(at)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..most).map(|at| width(at).unwrap_or_default()).collect();
    let padded = |line: &Vec<String>| {
        let cells = line.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    lines.iter().map(padded).collect()
}

/// A sentence: with its first letter large and a full stop.
pub(crate) fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect()) + "."
}

/// A time for scripts: RFC 3339 in UTC.
pub(crate) fn rfc3339(milliseconds: i64) -> Option<String> {
    Some(Timestamp::from_millisecond(milliseconds).ok()?.to_string())
}

/// How long ago something was: `3 hours ago`.
pub(crate) fn ago(now: i64, then: i64) -> String {
    let seconds = now.saturating_sub(then) / 1000;
    let (number, singular, plural) = match seconds {
        i64::MIN..-60 => return format!("{}, by its clock", time(then)),
        -60..60 => return "just now".to_owned(),
        60..3600 => (seconds / 60, "minute", "minutes"),
        3600..86_400 => (seconds / 3600, "hour", "hours"),
        _ => (seconds / 86_400, "day", "days"),
    };
    format!("{} ago", count(number as u64, singular, plural))
}

/// A path of this computer, safe for a terminal.
pub(crate) fn path(path: &Path) -> String {
    plain(path.as_os_str().as_bytes())
}

/// A path as an argument in a command that a message tells people to run.
pub(crate) fn argument(path: &Path) -> String {
    word(path.as_os_str().as_bytes())
}

/// Bytes that came from elsewhere, safe for a terminal: what does not print is escaped.
pub(crate) fn plain(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c.is_control() {
                true => text.extend(c.escape_default()),
                false => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use packetboat_core::hex;

    use super::*;

    #[test]
    fn bytes_are_shown_in_the_largest_fitting_unit() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (4_299_161, "4.1 MiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (number, shown) in cases {
            assert_eq!(bytes(number), shown);
        }
    }

    #[test]
    fn ages_are_shown_coarsely() {
        let cases =
            [(0, "just now"), (-30, "just now"), (90, "1 minute ago"), (7200, "2 hours ago"), (200_000, "2 days ago")];
        for (seconds, shown) in cases {
            assert_eq!(ago(10_000_000_000, 10_000_000_000 - seconds * 1000), shown);
        }
    }

    #[test]
    fn durations_are_shown_without_false_precision() {
        assert_eq!(took(Duration::from_millis(840)), "0.8 s");
        assert_eq!(took(Duration::from_secs(125)), "2 min 05 s");
        assert_eq!(took(Duration::from_secs(3700)), "1 h 01 min");
    }

    #[test]
    fn hexadecimal_is_read_back() {
        assert_eq!(unhex(&hex::encode(b"\x00\xff")), Some(b"\x00\xff".to_vec()));
        assert_eq!(unhex("0"), None);
        assert_eq!(unhex("zz"), None);
        assert_eq!(unhex("éé"), None);
    }
}
