//! Real mail programs, the daemon that runs, and the binary under the name `sendmail`: what their users wrote comes to
//! the server, with the envelope that was meant, and whatever does not go well is said in the way each program knows.

mod by_hand;
mod device;
mod limits;
#[path = "../common/network.rs"]
#[allow(dead_code, reason = "other tests cut lines and count packets")]
mod network;
mod port;
mod sendmail;
#[path = "../../../mail/tests/servers/mod.rs"]
mod servers;
#[path = "../common/smtp_sink.rs"]
mod smtp_sink;

use smtp_sink::Taken;

const MESSAGE: &str = "From: ann@a.test\nTo: b@b.test, c@c.test\nSubject: x\n\n.dot\n..\n\nlast\n";
const BODY: &str = "\r\n\r\n.dot\r\n..\r\n\r\nlast\r\n";

/// Holds a mail against what was meant. A program may name the recipients in any order.
#[track_caller]
fn is(taken: &Taken, sender: &str, recipients: &[&str]) {
    let mut named = taken.recipients.clone();
    named.sort();
    assert_eq!((taken.sender.as_str(), named), (sender, recipients.iter().map(|&name| name.to_owned()).collect()));
    assert!(taken.text.contains("\r\nMessage-ID: ") || taken.text.to_lowercase().contains("message-id: "));
}
