//! What people and programs write: sendmail's arguments and messages, addresses, ignore rules, settings.

use packetboat_core::name::RelPath;
use packetboat_daemon::settings::Settings;
use packetboat_engine::ignore_rules::IgnoreRules;
use packetboat_mail::account::Accounts;
use packetboat_mail::address::{Address, ReversePath};
use packetboat_mail::address_list::parse_address_list;
use packetboat_mail::message::{Glance, Preparation, Rules};
use packetboat_mail::sendmail::{Arguments, DotEnd};

use crate::mail_out::transmit;
use crate::submission::{Mail, stamp};
use crate::{Outcome, split};

/// The arguments of sendmail, divided by NUL as a system passes them.
pub fn sendmail_arguments(input: &[u8]) -> Outcome {
    let words: Vec<String> = split(input, &[0]).into_iter().map(|word| String::from_utf8_lossy(word).into()).collect();
    let Ok(arguments) = Arguments::parse(&words, "laptop.test") else { return Outcome::Refused };
    for address in arguments.recipients.iter().chain(arguments.sender.iter().filter_map(ReversePath::mailbox)) {
        check_address(address);
    }
    let from = arguments.from_field(&Address::parse("ann@laptop.test").expect("an address"));
    assert!(!from.contains(|c: char| c.is_control()), "a field is one line: {from:?}");
    Outcome::Understood
}

/// A message that a Unix program pipes in, with its recipients in the header: what is stored can be sent by anybody.
pub fn sendmail_message(input: &[u8]) -> Outcome {
    let message = match DotEnd::default().push(input) {
        Some(end) => &input[..end],
        None => input,
    };
    let rules = || Rules {
        recipients_from_header: true,
        from: Some("Ann <ann@laptop.test>".to_owned()),
        ..Rules::unix_program("laptop.test", 1 << 16)
    };
    let Some((body, prepared)) = prepare(rules(), message, message.len()) else { return Outcome::Refused };
    // The pieces in which it comes change nothing.
    let in_pieces = prepare(rules(), message, 7);
    assert_eq!(in_pieces.as_ref(), Some(&(body.clone(), prepared.clone())));
    for address in &prepared.recipients {
        check_address(address);
    }
    let _any = Glance::of(&body);
    // What was stored is as a mail program would have written it: prepared again it is the same.
    let port = Rules::port("laptop.test", 1 << 17);
    let (again, second) = prepare(port, &body, body.len()).expect("what was stored can be sent");
    assert_eq!(again, body);
    assert_eq!(second.message_id, prepared.message_id);
    let recipients = vec![Address::parse("a@a.test").expect("an address")];
    let mail = Mail { sender: ReversePath::Null, recipients, body, eight_bit: prepared.eight_bit };
    assert_eq!(transmit(&mail), std::slice::from_ref(&mail));
    Outcome::Understood
}

fn prepare(rules: Rules, message: &[u8], piece: usize) -> Option<(Vec<u8>, packetboat_mail::message::Prepared)> {
    let mut body = Vec::new();
    let mut preparation = Preparation::new(rules, stamp());
    for piece in message.chunks(piece.max(1)) {
        preparation.push(piece, &mut body).ok()?;
    }
    let prepared = preparation.finish(&mut body).ok()?;
    assert_eq!(prepared.size, body.len() as u64);
    Some((body, prepared))
}

/// Addresses, alone and in the body of a field.
pub fn addresses(input: &[u8]) -> Outcome {
    let Ok(text) = std::str::from_utf8(input) else { return Outcome::Refused };
    let mut understood = false;
    for address in Address::parse(text).into_iter().chain(Address::qualify(text, "laptop.test")) {
        check_address(&address);
        understood = true;
    }
    if let Ok(list) = parse_address_list(text, "laptop.test") {
        list.iter().for_each(check_address);
        let written = list.iter().map(|address| format!("<{address}>")).collect::<Vec<_>>().join(", ");
        let again = parse_address_list(&written, "laptop.test");
        assert_eq!(again.as_ref(), Ok(&list), "{written:?}");
        understood |= !list.is_empty();
    }
    understood.into()
}

fn check_address(address: &Address) {
    assert!(address.as_str().len() <= Address::LONGEST);
    assert!(!address.as_str().contains(|c: char| c.is_control()), "{address:?}");
    assert!(!address.domain().is_empty() && !address.domain().contains(['<', '>', ' ', '@', '"']), "{address:?}");
    assert_eq!(Address::parse(address.as_str()).as_ref(), Ok(address));
    assert!(address.same_mailbox(address));
}

/// Ignore rules of a vault, an overlay and a path to match, divided by NUL.
pub fn ignore_rules(input: &[u8]) -> Outcome {
    let parts = split(input, &[0]);
    let text = |at: usize| String::from_utf8_lossy(parts.get(at).copied().unwrap_or_default()).into_owned();
    let (vault, overlay) = (text(0), text(1));
    let Ok((rules, bad)) = IgnoreRules::new(&vault, &overlay) else { return Outcome::Refused };
    for line in &bad {
        let of = if line.overlay { &overlay } else { &vault };
        assert_eq!(of.lines().nth(line.number - 1), Some(line.text.as_str()), "the line that is named is the one");
    }
    if let Some(path) = parts.get(2).and_then(|path| RelPath::new(path)).filter(|path| !path.is_root()) {
        for directory in [false, true] {
            assert!(!rules.ignores(&path, directory) || rules.covers(&path, directory));
        }
    }
    (!rules.is_empty()).into()
}

/// Files of mail accounts.
pub fn account_settings(input: &[u8]) -> Outcome {
    let Some(accounts) = std::str::from_utf8(input).ok().and_then(|text| Accounts::parse(text).ok()) else {
        return Outcome::Refused;
    };
    let text = accounts.write().expect("what was read can be written");
    assert_eq!(Accounts::parse(&text).expect("what was written can be read"), accounts);
    let sender = ReversePath::Mailbox(Address::parse("ann@example.org").expect("an address"));
    let _any = (accounts.for_sender(&sender), accounts.for_sender(&ReversePath::Null));
    for account in accounts.iter() {
        assert!(!format!("{account:?}").contains("hunter2"), "no secret is shown");
    }
    Outcome::Understood
}

/// The daemon's settings.
pub fn daemon_settings(input: &[u8]) -> Outcome {
    let Some(settings) = std::str::from_utf8(input).ok().and_then(|text| Settings::parse(text).ok()) else {
        return Outcome::Refused;
    };
    let delivery = settings.delivery();
    assert!(delivery.check().is_ok(), "the machines can go by what was taken");
    let _any = settings.maildir(None);
    Outcome::Understood
}

/// Inputs that are understood.
pub mod seeds {
    /// As programs call it.
    pub fn sendmail_arguments() -> Vec<Vec<u8>> {
        let calls: [&[u8]; 5] = [
            b"-i\0-FCronDaemon\0-B8BITMIME\0-oem\0root",
            b"-oem\0-oi\0-f\0ann@a.test\0--\0bob@b.test",
            b"-tifann@a.test",
            b"-f\0<>\0bob@b.test,carl@c.test",
            b"-bs",
        ];
        calls.map(<[u8]>::to_vec).to_vec()
    }

    /// Messages as programs write them.
    pub fn sendmail_message() -> Vec<Vec<u8>> {
        let messages = [
            "From ann Sun Nov 22\nTo: a@x.test,\n b@x.test\nBcc: c@x.test\nSubject: hi\n\n.x\nhi\n.\nrest",
            "To: root\nhi there\n",
            "Resent-To: new@x.test\nTo: old@x.test\n\nb\r\n",
        ];
        messages.map(|message| message.as_bytes().to_vec()).to_vec()
    }

    /// Addresses of every kind.
    pub fn addresses() -> Vec<Vec<u8>> {
        let texts = [
            "ann@example.org",
            "root",
            "\"a b\"@[192.0.2.1], Ann (of \\) old) <a.b@c.d>",
            "Friends: a@b.c, \"x, y\" <d@e.f>;, gr\u{fc}n@g\u{fc}n.test",
            "<@route.test:a@b.c>",
        ];
        texts.map(|text| text.as_bytes().to_vec()).to_vec()
    }

    /// Rules and paths.
    pub fn ignore_rules() -> Vec<Vec<u8>> {
        let texts: [&[u8]; 3] = [b"*.o\n/build/\n!keep.o\0[\n!x.o\0a/x.o", b"**/a[!b]\\ c{d,e}\0\0z/ab", b"a/\0\0a/b"];
        texts.map(<[u8]>::to_vec).to_vec()
    }

    /// A file with every kind of account.
    pub fn account_settings() -> Vec<Vec<u8>> {
        let text = r#"
[[account]]
name = "work"
addresses = ["ann@example.org", "@lists.example.org"]
default = true
[account.smtp]
host = "smtp.example.org"
security = "starttls"
user = "ann"
password_command = "pass show mail/work"
[account.smtp.deadlines]
answer = 1.5
[account.imap]
host = "imap.example.org"
user = "ann"
password = "hunter2"
mailboxes = ["*"]
at_server = "delete"
"#;
        vec![text.as_bytes().to_vec()]
    }

    /// The documented file.
    pub fn daemon_settings() -> Vec<Vec<u8>> {
        let changed = b"[outbox]\nlease = \"20m\"\nunknown = \"hold\"\n[relay]\nspace = 7\n".to_vec();
        vec![packetboat_daemon::settings::DOCUMENTED.as_bytes().to_vec(), changed]
    }
}
