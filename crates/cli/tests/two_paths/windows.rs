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
