//! Reports of mail that could not be delivered, or not yet (RFC 3464), to whoever sent it.
//!
//! A report has three parts: one for people, one for programs, and the header of the mail it is about, by which it is
//! found again. It is itself a mail with the null sender, and of mail with the null sender no report is ever made:
//! otherwise two computers could report to each other for ever.

use crate::address::{Address, ReversePath};
use crate::message::{Moment, Stamp, format_date};
use crate::smtp::Reply;
use packetboat_core::hex;

/// A report to be made.
#[derive(Clone, Debug)]
pub struct Report<'a> {
    /// What it is about.
    pub kind: ReportKind,
    /// The computer that reports.
    pub host: &'a str,
    /// The sender of the mail, who gets the report.
    pub sender: &'a ReversePath,
    /// When the mail was submitted.
    pub submitted: Moment,
    /// The recipients it is about, and why; at least one.
    pub recipients: &'a [Undelivered],
    /// The mail's header, or its beginning; what follows an empty line is left out.
    pub header: &'a [u8],
}

/// What a report is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReportKind {
    /// It was given up.
    Failed,
    /// It waits, and will be tried until a moment.
    Delayed {
        /// Until when.
        until: Moment,
    },
}

/// A recipient who has not got the mail.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Undelivered {
    /// Who.
    pub recipient: Address,
    /// What the last try ended in.
    pub reason: Reason,
}

/// What a try ended in, as a report says it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reason {
    /// A server refused.
    Refused {
        /// Which.
        server: String,
        /// What it said.
        reply: Reply,
    },
    /// No server answered; in words.
    Unreached {
        /// Why.
        why: String,
    },
}

/// A report, ready to be submitted or put into an inbox. Its sender is null.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bounce {
    /// Who gets it.
    pub recipient: Address,
    /// Its own `Message-ID`.
    pub message_id: String,
    /// The message, with CR LF.
    pub message: Vec<u8>,
}

impl Report<'_> {
    /// Writes the report; nothing, where the mail has no sender to report to.
    pub fn write(&self, stamp: &Stamp) -> Option<Bounce> {
        let recipient = self.sender.mailbox()?.clone();
        let boundary = self.boundary(stamp);
        let message_id = stamp.message_id();
        let eight_bit = !self.header().is_ascii() || self.recipients.iter().any(|to| to.recipient.is_international());
        let international =
            recipient.is_international() || self.recipients.iter().any(|to| to.recipient.is_international());
        let (report_type, header_type) = if international {
            ("message/global-delivery-status", "message/global-headers")
        } else {
            ("message/delivery-status", "text/rfc822-headers")
        };
        let encoding = if eight_bit || international { "Content-Transfer-Encoding: 8bit\n" } else { "" };
        let subject = match self.kind {
            ReportKind::Failed => "Your mail could not be delivered",
            ReportKind::Delayed { .. } => "Your mail is delayed",
        };
        let host = one_line(self.host);
        let mut text = format!(
            "Message-ID: {message_id}\nDate: {}\nFrom: Packetboat on {host} <MAILER-DAEMON@{host}>\nTo: <{recipient}>\n\
             Subject: {subject}\nAuto-Submitted: auto-replied\nMIME-Version: 1.0\n{encoding}\
             Content-Type: multipart/report; report-type={}; boundary=\"{boundary}\"\n\n\
             --{boundary}\nContent-Type: text/plain; charset=utf-8\n{encoding}\n",
            format_date(stamp.moment),
            report_type.trim_start_matches("message/"),
        );
        self.write_for_people(&mut text);
        text.push_str(&format!("\n--{boundary}\nContent-Type: {report_type}\n{encoding}\n"));
        self.write_for_programs(&mut text, international);
        text.push_str(&format!("\n--{boundary}\nContent-Type: {header_type}\n{encoding}\n"));
        let mut message = text.replace('\n', "\r\n").into_bytes();
        message.extend_from_slice(&self.header());
        message.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        Some(Bounce { recipient, message_id, message })
    }

    fn write_for_people(&self, text: &mut String) {
        match self.kind {
            ReportKind::Failed => {
                text.push_str("Your mail could not be delivered to the recipients below, and will not be tried again.\n");
            }
            ReportKind::Delayed { until } => text.push_str(&format!(
                "Your mail has not yet reached the recipients below. You need not send it again:\nit will be tried until {}.\n",
                format_date(until)
            )),
        }
        for undelivered in self.recipients {
            let reason = match &undelivered.reason {
                Reason::Refused { server, reply } => {
                    format!("{} said: {}", one_line(server), one_line(&reply.to_string()))
                }
                Reason::Unreached { why } => one_line(why),
            };
            text.push_str(&format!("\n<{}>\n", undelivered.recipient));
            // Lines stay within what every program shows, whatever a server has said.
            let mut column = 0;
            for word in reason.split(' ') {
                if column > 0 && column + word.chars().count() > 72 {
                    text.push('\n');
                    column = 0;
                }
                text.push_str(if column == 0 { "    " } else { " " });
                text.push_str(word);
                column += word.chars().count() + 1;
            }
            text.push('\n');
        }
    }

    fn write_for_programs(&self, text: &mut String, international: bool) {
        let kind = if international { "utf-8" } else { "rfc822" };
        text.push_str(&format!(
            "Reporting-MTA: dns; {}\nArrival-Date: {}\n",
            one_line(self.host),
            format_date(self.submitted)
        ));
        for undelivered in self.recipients {
            let [mut class, subject, detail] = match &undelivered.reason {
                Reason::Refused { reply, .. } => reply.status(),
                // "Bad connection", or "delivery time expired".
                Reason::Unreached { .. } if self.kind == ReportKind::Failed => [5, 4, 7],
                Reason::Unreached { .. } => [4, 4, 1],
            };
            let action = match self.kind {
                ReportKind::Failed => "failed",
                ReportKind::Delayed { .. } => "delayed",
            };
            // What was given up after many temporary refusals failed for good.
            class = if self.kind == ReportKind::Failed { 5 } else { class.min(4) };
            text.push_str(&format!(
                "\nFinal-Recipient: {kind}; {}\nAction: {action}\nStatus: {class}.{subject}.{detail}\n",
                undelivered.recipient
            ));
            if let Reason::Refused { server, reply } = &undelivered.reason {
                text.push_str(&format!(
                    "Remote-MTA: dns; {}\nDiagnostic-Code: smtp; {}\n",
                    one_line(server),
                    fold(&one_line(&reply.to_string()))
                ));
            }
            if let ReportKind::Delayed { until } = self.kind {
                text.push_str(&format!("Will-Retry-Until: {}\n", format_date(until)));
            }
        }
    }

    /// The header alone, in whole lines.
    fn header(&self) -> Vec<u8> {
        let header = &self.header[..self.header.len().min(HEADER_LIMIT)];
        let end = header.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 2);
        let whole = || header.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        header[..end.unwrap_or_else(whole)].to_vec()
    }

    /// A line that stands nowhere in the report.
    fn boundary(&self, stamp: &Stamp) -> String {
        let mut random = stamp.random;
        random.reverse();
        let mut boundary = format!("=_{}", hex::encode(&random));
        let header = self.header();
        while header.windows(boundary.len()).any(|window| window == boundary.as_bytes()) {
            boundary.push('=');
        }
        boundary
    }
}

/// Text from elsewhere, which cannot begin a line of its own here.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(1000).collect()
}

/// Breaks a field's body at spaces, so that no line is too long for mail.
fn fold(text: &str) -> String {
    let mut folded = String::new();
    let mut column = 0;
    for word in text.split(' ') {
        if column > 0 && column + word.len() > 70 {
            folded.push_str("\n ");
            column = 1;
        } else if column > 0 {
            folded.push(' ');
        }
        folded.push_str(word);
        column += word.len() + 1;
    }
    folded
}

/// Enough of a header to know a mail by.
const HEADER_LIMIT: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use mail_parser::{MessageParser, MimeHeaders};
    use proptest::prelude::*;

    const MOMENT: Moment = Moment { unix_seconds: 1_795_314_079, offset_minutes: 0 };

    fn stamp() -> Stamp {
        Stamp { moment: MOMENT, random: [9; 16], host: "laptop.test".to_owned() }
    }

    fn reply(text: &str) -> Reply {
        Reply { code: 550, enhanced: Some([5, 1, 1]), text: text.to_owned() }
    }

    fn report(kind: ReportKind, sender: &ReversePath, recipients: &[Undelivered], header: &[u8]) -> Option<String> {
        let report = Report { kind, host: "laptop.test", sender, submitted: MOMENT, recipients, header };
        report.write(&stamp()).map(|bounce| String::from_utf8(bounce.message).unwrap())
    }

    fn undelivered(text: &str) -> Vec<Undelivered> {
        let refused = Reason::Refused { server: "mx.b.test".to_owned(), reply: reply(text) };
        let unreached = Reason::Unreached { why: "there is no network".to_owned() };
        vec![
            Undelivered { recipient: Address::parse("b@b.test").unwrap(), reason: refused },
            Undelivered { recipient: Address::parse("c@c.test").unwrap(), reason: unreached },
        ]
    }

    fn ann() -> ReversePath {
        ReversePath::Mailbox(Address::parse("ann@a.test").unwrap())
    }

    #[test]
    fn a_failure_is_told_to_people_and_programs() {
        let text = report(
            ReportKind::Failed,
            &ann(),
            &undelivered("nobody here"),
            b"Subject: hello\r\nX: y\r\n\r\nsecret body\r\n",
        )
        .unwrap();
        let parsed = MessageParser::default().parse(text.as_bytes()).unwrap();
        assert_eq!(parsed.parts.len(), 4);
        let kind = parsed.content_type().unwrap();
        assert_eq!((kind.ctype(), kind.subtype()), ("multipart", Some("report")));
        assert!(parsed.body_text(0).unwrap().contains("mx.b.test said: 550 5.1.1 nobody here"));
        for line in [
            "Reporting-MTA: dns; laptop.test",
            "Final-Recipient: rfc822; b@b.test\r\nAction: failed\r\nStatus: 5.1.1\r\nRemote-MTA: dns; mx.b.test\r\nDiagnostic-Code: smtp; 550 5.1.1 nobody here\r\n",
            "Final-Recipient: rfc822; c@c.test\r\nAction: failed\r\nStatus: 5.4.7\r\n",
            "text/rfc822-headers\r\n\r\nSubject: hello\r\nX: y\r\n\r\n--",
        ] {
            assert!(text.contains(line), "{line:?} in {text}");
        }
        assert!(!text.contains("secret body"));
    }

    #[test]
    fn a_delay_says_until_when() {
        let text = report(ReportKind::Delayed { until: MOMENT }, &ann(), &undelivered("x"), b"Subject: hello\r\n\r\n")
            .unwrap();
        assert!(
            text.contains("Action: delayed\r\nStatus: 4.4.1\r\nWill-Retry-Until: Sun, 22 Nov 2026 02:21:19 +0000\r\n"),
            "{text}"
        );
    }

    #[test]
    fn of_mail_without_a_sender_there_is_no_report() {
        assert_eq!(report(ReportKind::Failed, &ReversePath::Null, &undelivered("x"), b""), None);
    }

    #[test]
    fn addresses_beyond_ascii_are_reported_as_such() {
        let recipients = [Undelivered {
            recipient: Address::parse("grün@b.test").unwrap(),
            reason: Reason::Unreached { why: "x".to_owned() },
        }];
        let text = report(ReportKind::Failed, &ann(), &recipients, b"").unwrap();
        assert!(
            text.contains("report-type=global-delivery-status") && text.contains("Final-Recipient: utf-8; grün@b.test"),
            "{text}"
        );
    }

    proptest! {
        #[test]
        fn nothing_that_a_server_says_or_a_header_holds_breaks_a_report(
            said in "\\PC{0,300}|[a-z\r\n:=_-]{0,60}|[a-z]{0,1500}",
            header in "([A-Z][a-z]{0,8}: [a-z=_09-]{0,40}\r\n){0,6}(\r\n)?|[\\PC\r\n]{0,60}",
        ) {
            let text = report(ReportKind::Failed, &ann(), &undelivered(&said), header.as_bytes()).unwrap();
            prop_assert!(text.starts_with("Message-ID: "));
            let parsed = MessageParser::default().parse(text.as_bytes()).unwrap();
            prop_assert_eq!(parsed.parts.len(), 4);
            prop_assert_eq!(text.matches("\r\nAction: ").count(), 2);
        }
    }
}
