//! What a command line says: the grammar by smtp-proto, the addresses by [`crate::address`].
//!
//! smtp-proto takes the quotes off an address and makes `<postmaster>` an empty one, so the path is read here first,
//! as it was written, and the rest of the line is read with a path in its place that says nothing.

use smtp_proto::{
    AUTH_LOGIN, AUTH_PLAIN, Error, MAIL_BODY_7BIT, MAIL_BODY_8BITMIME, MAIL_BODY_BINARYMIME, MAIL_SMTPUTF8, Request,
};

use crate::address::{Address, AddressError, ReversePath};

/// A command that is understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Command {
    Hello { extended: bool },
    Login { mechanism: Mechanism, initial: Option<String> },
    Mail { sender: ReversePath, size: Option<u64> },
    Recipient { recipient: Address },
    Data,
    Starttls,
    Reset,
    Nothing,
    Verify,
    Help,
    Quit,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mechanism {
    Plain,
    Login,
}

/// A reply to a command that is not: code, status and text.
pub(super) type Fault = &'static str;

pub(super) fn parse(line: &[u8], origin: &str) -> Result<Command, Fault> {
    if line.contains(&0) {
        return Err("500 5.5.2 a command has no NUL");
    }
    let line = std::str::from_utf8(line).map_err(|_| "500 5.5.2 a command is UTF-8")?;
    let verb = line.split([' ', '\t']).next().unwrap_or_default();
    if verb.eq_ignore_ascii_case("MAIL") {
        let (path, request) = path_and_request(line)?;
        return mail(path, request, origin);
    }
    if verb.eq_ignore_ascii_case("RCPT") {
        let (path, request) = path_and_request(line)?;
        return recipient(path, request, origin);
    }
    Ok(match request(line)? {
        Request::Ehlo { .. } => Command::Hello { extended: true },
        Request::Helo { .. } => Command::Hello { extended: false },
        Request::Auth { mechanism, initial_response } => Command::Login {
            mechanism: match mechanism {
                AUTH_PLAIN => Mechanism::Plain,
                AUTH_LOGIN => Mechanism::Login,
                _ => return Err("504 5.5.4 only PLAIN and LOGIN are known"),
            },
            initial: (!initial_response.is_empty()).then_some(initial_response),
        },
        Request::Data => Command::Data,
        Request::StartTls => Command::Starttls,
        Request::Rset => Command::Reset,
        Request::Noop { .. } => Command::Nothing,
        Request::Vrfy { .. } | Request::Expn { .. } => Command::Verify,
        Request::Help { .. } => Command::Help,
        Request::Quit => Command::Quit,
        _ => return Err("502 5.5.1 not implemented"),
    })
}

fn mail(path: &str, request: Request<String>, origin: &str) -> Result<Command, Fault> {
    let Request::Mail { from } = request else { return Err("501 5.5.4 say MAIL FROM:<address>") };
    if from.flags & MAIL_BODY_BINARYMIME != 0 {
        return Err("555 5.5.4 BINARYMIME is not offered");
    }
    let known = MAIL_BODY_7BIT | MAIL_BODY_8BITMIME | MAIL_SMTPUTF8;
    if from.flags & !known != 0 || from.env_id.is_some() || from.hold_for != 0 || from.hold_until != 0 || from.by != 0 {
        return Err("555 5.5.4 a parameter that is not offered");
    }
    let sender = match path {
        "" => ReversePath::Null,
        path => ReversePath::Mailbox(address(path, origin).map_err(|_| "501 5.1.7 this is no address of a sender")?),
    };
    Ok(Command::Mail { sender, size: (from.size > 0).then_some(from.size as u64) })
}

fn recipient(path: &str, request: Request<String>, origin: &str) -> Result<Command, Fault> {
    let Request::Rcpt { to } = request else { return Err("501 5.5.4 say RCPT TO:<address>") };
    if to.flags != 0 || to.orcpt.is_some() || to.rrvs != 0 {
        return Err("555 5.5.4 a parameter that is not offered");
    }
    let recipient = address(path, origin).map_err(|_| "501 5.1.3 this is no address of a recipient")?;
    Ok(Command::Recipient { recipient })
}

/// An address within angle brackets; a source route before it means nothing (RFC 5321, appendix C).
fn address(path: &str, origin: &str) -> Result<Address, AddressError> {
    let path = match path.strip_prefix('@').and_then(|route| route.split_once(':')) {
        Some((_, mailbox)) => mailbox,
        None => path,
    };
    Address::qualify(path, origin)
}

/// What stands between the brackets, and the command with a path that says nothing.
fn path_and_request(line: &str) -> Result<(&str, Request<String>), Fault> {
    const FAULT: Fault = "501 5.5.4 the address stands in angle brackets, and parameters after it";
    let open = line.find('<').ok_or(FAULT)?;
    let mut in_quotes = false;
    let mut escaped = false;
    let end = line[open + 1..].find(|c: char| {
        let ends = c == '>' && !in_quotes;
        match c {
            _ if escaped => escaped = false,
            '\\' if in_quotes => escaped = true,
            '"' => in_quotes = !in_quotes,
            _ => {}
        }
        ends
    });
    let close = open + 1 + end.ok_or(FAULT)?;
    let stand_in = format!("{}<a@b.c>{}", &line[..open], &line[close + 1..]);
    Ok((&line[open + 1..close], request(&stand_in)?))
}

fn request(line: &str) -> Result<Request<String>, Fault> {
    let line = format!("{line}\r\n");
    match Request::parse(&mut line.as_bytes().iter()) {
        Ok(request) => Ok(request.into_owned()),
        Err(Error::UnknownCommand) => Err("500 5.5.2 unknown command"),
        Err(Error::UnsupportedParameter { .. }) => Err("555 5.5.4 a parameter that is not offered"),
        Err(_) => Err("501 5.5.4 this command is not written so"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(line: &str) -> Result<Command, Fault> {
        parse(line.as_bytes(), "laptop.test")
    }

    fn mailbox(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    #[test]
    fn commands_are_understood_as_programs_write_them() {
        let mail = |text: &str, size| Command::Mail { sender: ReversePath::Mailbox(mailbox(text)), size };
        for (line, command) in [
            ("EHLO [127.0.0.1]", Command::Hello { extended: true }),
            ("helo laptop", Command::Hello { extended: false }),
            ("MAIL FROM:<ann@a.test>", mail("ann@a.test", None)),
            ("mail from: <ann@a.test> SIZE=12 BODY=8BITMIME SMTPUTF8", mail("ann@a.test", Some(12))),
            ("MAIL FROM:<>", Command::Mail { sender: ReversePath::Null, size: None }),
            ("MAIL FROM:<\"a> SIZE=1 b\"@a.test> SIZE=2", mail("\"a> SIZE=1 b\"@a.test", Some(2))),
            ("MAIL FROM:<root>", mail("root@laptop.test", None)),
            ("RCPT TO:<grün@ä.test>", Command::Recipient { recipient: mailbox("grün@ä.test") }),
            ("RCPT TO:<@relay.test:bob@b.test>", Command::Recipient { recipient: mailbox("bob@b.test") }),
            ("RCPT TO:<Postmaster>", Command::Recipient { recipient: mailbox("Postmaster@laptop.test") }),
            (
                "AUTH PLAIN AGFubgBz",
                Command::Login { mechanism: Mechanism::Plain, initial: Some("AGFubgBz".to_owned()) },
            ),
            ("AUTH LOGIN", Command::Login { mechanism: Mechanism::Login, initial: None }),
            ("DATA", Command::Data),
            ("QUIT ", Command::Quit),
            ("NOOP please", Command::Nothing),
            ("VRFY ann", Command::Verify),
        ] {
            assert_eq!(read(line), Ok(command), "{line}");
        }
    }

    #[test]
    fn what_is_not_offered_is_not_taken() {
        for (line, code) in [
            ("", "500"),
            ("GET / HTTP/1.1", "500"),
            ("MAIL FROM:ann@a.test", "501"),
            ("MAIL FROM:<ann@a.test", "501"),
            ("MAIL FROM:<ann a.test>", "501"),
            ("MAIL FROM:<ann@a.test> BODY=BINARYMIME", "555"),
            ("MAIL FROM:<ann@a.test> RET=FULL", "555"),
            ("MAIL FROM:<ann@a.test> WHAT=ever", "555"),
            ("RCPT TO:<>", "501"),
            ("RCPT TO:<bob@b.test> NOTIFY=NEVER", "555"),
            ("RCPT TO:<a@b.test>\0", "500"),
            ("AUTH CRAM-MD5", "504"),
            ("BDAT 3 LAST", "502"),
            ("EHLO", "501"),
        ] {
            let fault = read(line).expect_err(line);
            assert!(fault.starts_with(code), "{line}: {fault}");
        }
    }

    proptest! {
        #[test]
        fn no_line_panics_and_no_address_is_unsafe(
            line in "((MAIL FROM|RCPT TO):)?<?[a-z\"\\\\@<>: =]{0,30}>?( SIZE=[0-9]{0,30})?|\\PC{0,60}"
        ) {
            match read(&line) {
                Ok(Command::Recipient { recipient }) => prop_assert!(Address::parse(recipient.as_str()).is_ok()),
                Ok(Command::Mail { sender, .. }) => prop_assert!(!sender.to_string().contains(['\r', '\n'])),
                _ => {}
            }
        }

        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse(&bytes, "laptop.test");
        }
    }
}
