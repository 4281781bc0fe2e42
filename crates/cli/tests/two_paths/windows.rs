//! Why a mail was accepted more than once: each acceptance that another followed is held to the documented windows,
//! by the logs of the daemons and of the server.
//!
//! The server writes down when it accepted, and a daemon when it let a dot be written and how the try ended, so each
//! acceptance belongs to one dot: the last that its device wrote before. What became of that dot tells the window.
//! All of it runs on one computer, so the times come from one clock.

use jiff::Timestamp;

use crate::pair::{Arrival, BY_HOST, LEASE_AND_MARGIN, Pair, STARTED};

/// A window of docs/design/0012 in which a mail can be accepted though it was accepted before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Window {
    /// The server's reply did not come.
    ReplyLost,
    /// The daemon was killed before what the server said was on stable storage.
    CrashInDot,
    /// The companion succeeded, and the host had no word of it when the lease was over.
    UnreportedAtLeaseEnd,
}

/// The windows that excuse all acceptances of a mail but the last; nothing, where there was one only.
///
/// Fails where an acceptance has no excuse.
pub(crate) fn excuses(pair: &Pair, id: &str) -> Option<(String, Vec<Window>)> {
    let arrivals = pair.acceptances(id);
    if arrivals.len() < 2 {
        return None;
    }
    let mail = pair.outbox_id(id);
    let host = Log::of(&pair.whole_log("host"), mail);
    let companion = Log::of(&pair.whole_log("companion"), mail);
    let windows = arrivals.iter().take(arrivals.len() - 1).zip(&arrivals[1..]).map(|(arrival, next)| {
        window(&host, &companion, arrival, next).unwrap_or_else(|why| {
            let came: Vec<_> = arrivals.iter().map(|arrival| (&arrival.from, arrival.at)).collect();
            panic!(
                "{id} came again without an excuse, {why}: {came:?}\nhost:\n{}\ncompanion:\n{}",
                host.shown(),
                companion.shown()
            )
        })
    });
    Some((id.to_owned(), windows.collect()))
}

fn window(host: &Log, companion: &Log, arrival: &Arrival, next: &Arrival) -> Result<Window, &'static str> {
    let by_host = arrival.from == BY_HOST;
    let log = if by_host { host } else { companion };
    let dot = log.dot_of(arrival).ok_or("and no dot was written for it")?;
    let after = &log.0[dot + 1..];
    let ended =
        after.iter().position(|line| line.says("the try ended") || line.says(STARTED)).ok_or("still at its dot")?;
    let end = &after[ended];
    if end.says(STARTED) {
        return Ok(Window::CrashInDot);
    }
    if end.says("event=AnswerLost") {
        return Ok(Window::ReplyLost);
    }
    if !end.says("event=Answered") {
        return Err("and its dot is said not to have been written");
    }
    // Whatever is done about a mail is done after its state was saved; a kill before that leaves the dot as it was.
    if after.get(ended + 1).is_some_and(|line| line.says(STARTED)) {
        return Ok(Window::CrashInDot);
    }
    if by_host || next.from != BY_HOST {
        return Err("though its device knew of the acceptance");
    }
    let again = host.dot_of(next).ok_or("and no dot was written for the next")?;
    let before = &host.0[..again];
    let grant = before.iter().rev().find(|line| line.says("body: Grant")).ok_or("and no turn was granted")?;
    let turn = grant.turn().ok_or("and the grant has no number")?;
    // The request is answered anew while the grant is not heard of, and the lease counts from the first time.
    let granted = before.iter().find(|line| line.says("body: Grant") && line.turn() == Some(turn)).unwrap_or(grant).at;
    let told = before.iter().filter(|line| line.at > end.at && line.says("effect=Send")).any(|line| {
        line.says("body: DoneAck") || (line.says("body: ReturnAck") && line.turn().is_some_and(|told| told >= turn))
    });
    if told {
        return Err("though the companion had told the host");
    }
    if host.0[again].at.duration_since(granted) < LEASE_AND_MARGIN {
        return Err("and the lease was not over");
    }
    Ok(Window::UnreportedAtLeaseEnd)
}

/// What a device logged of one mail, and where it was started.
struct Log(Vec<Line>);

struct Line {
    at: Timestamp,
    text: String,
}

impl Log {
    fn of(log: &str, mail: &str) -> Self {
        let of_mail = |line: &&str| line.contains(&format!("mail={mail}")) || line.contains(STARTED);
        let line = |line: &str| {
            let (at, text) = line.split_once(' ')?;
            Some(Line { at: at.parse().ok()?, text: text.to_owned() })
        };
        Self(log.lines().filter(of_mail).filter_map(line).collect())
    }

    /// Where the dot stands that a server's acceptance answers.
    fn dot_of(&self, arrival: &Arrival) -> Option<usize> {
        self.0.iter().rposition(|line| line.at <= arrival.at && line.says("effect=WriteDot"))
    }

    fn shown(&self) -> String {
        self.0.iter().map(|line| format!("{} {}\n", line.at, line.text)).collect()
    }
}

impl Line {
    fn says(&self, what: &str) -> bool {
        self.text.contains(what)
    }

    /// The turn that a message is about.
    fn turn(&self) -> Option<u64> {
        let number = self.text.split_once("turn: ")?.1;
        number.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
    }
}

mod account {
    //! The account itself, with logs that were written by hand: what it excuses, and what it must not.

    use super::*;
    use crate::pair::BY_COMPANION;

    /// A log whose lines are `second what`, of the mail `m`.
    fn log(lines: &[&str]) -> Log {
        let line = |line: &&str| {
            let (second, what) = line.split_once(' ').unwrap();
            format!("{} mail=m {what}\n", at(second.parse().unwrap()))
        };
        Log::of(&lines.iter().map(line).collect::<String>(), "m")
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_795_000_000 + second).unwrap()
    }

    fn arrival(from: &str, second: i64) -> Arrival {
        Arrival { from: from.to_owned(), at: at(second) }
    }

    const GRANT: &str = "0 effect=Send(Message { body: Grant { turn: 3, length: For(5s) } })";
    const SENT_BY_COMPANION: [&str; 2] = ["2 effect=WriteDot", "3 the try ended event=Answered"];

    /// The companion sends under turn 3, and the host once more at second `again`; `told` is what the host said between.
    fn after_a_grant(again: i64, told: &[&str]) -> Result<Window, &'static str> {
        let dot = format!("{again} effect=WriteDot");
        let host: Vec<&str> = [&[GRANT], told, &[dot.as_str()]].concat();
        let (first, next) = (arrival(BY_COMPANION, 3), arrival(BY_HOST, again + 1));
        window(&log(&host), &log(&SENT_BY_COMPANION), &first, &next)
    }

    #[test]
    fn a_success_that_nobody_reported_is_excused_when_the_lease_is_over() {
        assert_eq!(after_a_grant(6, &[]), Ok(Window::UnreportedAtLeaseEnd));
        assert_eq!(after_a_grant(60, &[]), Ok(Window::UnreportedAtLeaseEnd));
        // What the host said of an earlier turn, or before the companion had sent, is no report of this one.
        let earlier = "4 effect=Send(Message { body: ReturnAck { turn: 2 } })";
        assert_eq!(after_a_grant(6, &[earlier]), Ok(Window::UnreportedAtLeaseEnd));
        let before = "1 effect=Send(Message { body: ReturnAck { turn: 3 } })";
        assert_eq!(after_a_grant(6, &[before]), Ok(Window::UnreportedAtLeaseEnd));
    }

    #[test]
    fn a_lease_counts_from_the_first_time_that_its_turn_was_granted() {
        let again = "4 effect=Send(Message { body: Grant { turn: 3, length: For(5s) } })";
        assert_eq!(after_a_grant(6, &[again]), Ok(Window::UnreportedAtLeaseEnd));
        let next = "4 effect=Send(Message { body: Grant { turn: 4, length: For(5s) } })";
        assert_eq!(after_a_grant(6, &[next]), Err("and the lease was not over"));
    }

    #[test]
    fn an_unexcused_duplicate_fails() {
        assert_eq!(after_a_grant(5, &[]), Err("and the lease was not over"));
        for told in ["DoneAck", "ReturnAck { turn: 3 }", "ReturnAck { turn: 4 }"] {
            let told = format!("4 effect=Send(Message {{ body: {told} }})");
            assert_eq!(after_a_grant(60, &[&told]), Err("though the companion had told the host"), "{told}");
        }
        let (companion, host) = (log(&SENT_BY_COMPANION), log(&["9 effect=WriteDot"]));
        let came = |first: &str, next: &str| [arrival(first, 3), arrival(next, 10)];
        let [first, next] = came(BY_COMPANION, BY_HOST);
        assert_eq!(window(&host, &companion, &first, &next), Err("and no turn was granted"));
        // The same device sends again what it knows to be accepted.
        let [first, next] = came(BY_COMPANION, BY_COMPANION);
        assert_eq!(window(&host, &companion, &first, &next), Err("though its device knew of the acceptance"));
        let sent_by_host = log(&["2 effect=WriteDot", "3 the try ended event=Answered", "9 effect=WriteDot"]);
        let [first, next] = came(BY_HOST, BY_COMPANION);
        assert_eq!(window(&sent_by_host, &companion, &first, &next), Err("though its device knew of the acceptance"));
        assert_eq!(window(&log(&[]), &companion, &first, &next), Err("and no dot was written for it"));
        assert_eq!(window(&log(&["2 effect=WriteDot"]), &companion, &first, &next), Err("still at its dot"));
        let failed = log(&["2 effect=WriteDot", "3 the try ended event=TryFailed"]);
        assert_eq!(window(&failed, &companion, &first, &next), Err("and its dot is said not to have been written"));
    }

    #[test]
    fn a_lost_reply_and_a_crash_at_the_dot_are_told_from_each_other() {
        let companion = log(&[]);
        let (first, next) = (arrival(BY_HOST, 3), arrival(BY_HOST, 10));
        let lost = log(&["2 effect=WriteDot", "5 the try ended event=AnswerLost", "9 effect=WriteDot"]);
        assert_eq!(window(&lost, &companion, &first, &next), Ok(Window::ReplyLost));
        let started = format!("4 {STARTED}");
        let crashed = log(&["2 effect=WriteDot", &started, "9 effect=WriteDot"]);
        assert_eq!(window(&crashed, &companion, &first, &next), Ok(Window::CrashInDot));
        let unsaved = log(&["2 effect=WriteDot", "3 the try ended event=Answered", &started, "9 effect=WriteDot"]);
        assert_eq!(window(&unsaved, &companion, &first, &next), Ok(Window::CrashInDot));
    }
}
