//! Mail on its way in: what IMAP and POP3 servers say, and what becomes of the names of their mailboxes.

use std::sync::Arc;

use packetboat_mail::fetched::{Arrivals, Delivery, MailboxRecord, UidSet};
use packetboat_mail::fuzzing::{Script, fetch, open_imap, open_pop3};
use packetboat_mail::imap::{Access, ImapAccount};
use packetboat_mail::maildir::{FolderName, UniqueName, modified_utf7};
use packetboat_mail::pop3::Pop3Account;
use packetboat_mail::{Deadlines, Endpoint, Login, Security};
use rustls::{ClientConfig, RootCertStore};

use crate::{Outcome, in_no_time, split};

/// A server's side of an IMAP session: login, listing, selecting, comparing and fetching.
///
/// Pieces are divided by `0xff`. What is handed on is bounded by what was said, and each message that begins ends.
pub fn imap_session(input: &[u8]) -> Outcome {
    let account = ImapAccount { endpoint: endpoint(), tls: tls(), login: login(), deadlines: deadlines() };
    in_no_time(async {
        let Ok(mut session) = open_imap(script(input), &account).await else { return Outcome::Refused };
        let _any = session.mailboxes().await;
        let _any = session.find_sent("Sent", "<a@b>").await;
        let Ok(selected) = session.select("INBOX", Access::Read).await else { return Outcome::Refused };
        let Ok(changes) = session.changes(&selected, &MailboxRecord::default()).await else {
            return Outcome::Refused;
        };
        let wanted = changes.new.union(&UidSet::parse("1:3").expect("a set"));
        // A server may list four billion messages in a line; a round asks for them in parts, a target for the first.
        let Some(wanted) = wanted.parts(10, 5).into_iter().next() else { return Outcome::Refused };
        let (arrivals, mut arrived) = Arrivals::queue();
        let fetched = fetch(&mut session, &wanted, &arrivals).await;
        drop(arrivals);
        let (mut bytes, mut open) = (0, false);
        while let Some((delivery, _room)) = arrived.recv().await {
            match delivery {
                Delivery::Begin(_) => assert!(!std::mem::replace(&mut open, true), "one message at a time"),
                Delivery::Piece(piece) => {
                    assert!(open);
                    bytes += piece.len();
                }
                Delivery::End | Delivery::Drop => assert!(std::mem::take(&mut open)),
                Delivery::Whole(_, message) => {
                    assert!(!open);
                    bytes += message.len();
                }
            }
        }
        assert!(!open || !fetched, "a message that begins ends, or the session does");
        assert!(bytes <= input.len(), "no more is handed on than came");
        fetched.into()
    })
}

/// A server's side of a POP3 session: login, listing, fetching and deleting.
pub fn pop3_session(input: &[u8]) -> Outcome {
    let account = Pop3Account { endpoint: endpoint(), tls: tls(), login: login(), deadlines: deadlines() };
    in_no_time(async {
        let Ok(mut session) = open_pop3(script(input), &account).await else { return Outcome::Refused };
        let Ok(listed) = session.list().await else { return Outcome::Refused };
        let mut whole = 0;
        for message in listed.iter().take(5) {
            assert!(!message.uidl.is_empty() && message.uidl.len() <= 70);
            if session.ask(message.number).await.is_err() {
                return Outcome::Refused;
            }
            let Ok(receiving) = session.receive(1 << 16).await else { return Outcome::Refused };
            let Some(mut receiving) = receiving else { continue };
            let mut bytes = 0;
            loop {
                match session.piece(&mut receiving).await {
                    Ok(Some(piece)) => bytes += piece.len(),
                    Ok(None) => break,
                    Err(_) => return Outcome::Refused,
                }
            }
            assert!(bytes <= input.len());
            whole += 1;
            let _any = session.delete(message.number).await;
        }
        let _any = session.quit().await;
        (whole > 0).into()
    })
}

/// Names of mailboxes and of files: whatever a server calls its mailbox, its folder lies within the Maildir.
pub fn mailbox_names(input: &[u8]) -> Outcome {
    let Ok(text) = std::str::from_utf8(input) else { return Outcome::Refused };
    let mut understood = false;
    let (delimiter, mailbox) = text.split_at(text.chars().next().map_or(0, char::len_utf8));
    for delimiter in [None, Some(delimiter)] {
        if let Ok(folder) = FolderName::for_mailbox(mailbox, delimiter) {
            let directory = folder.directory();
            assert!(folder.is_inbox() || directory.starts_with('.'));
            assert!(!directory.contains(['/', '\0']) && directory != "." && directory != "..", "{directory:?}");
            assert!(directory.len() <= 255);
            assert_eq!(FolderName::from_directory(directory).as_ref(), Some(&folder));
            understood = true;
        }
    }
    if let Some(folder) = FolderName::from_directory(text) {
        assert!(!folder.directory().contains(['/', '\0']) && folder.directory() != ".." && folder.directory() != ".");
        let _shown = folder.to_string();
    }
    if let Some(decoded) = modified_utf7::decode(text) {
        assert_eq!(modified_utf7::decode(&modified_utf7::encode(&decoded)).as_deref(), Some(decoded.as_str()));
    }
    assert_eq!(modified_utf7::decode(&modified_utf7::encode(text)).as_deref(), Some(text));
    if let Some(name) = UniqueName::parse(text) {
        assert!(!name.as_str().contains(['/', ':']) && !name.as_str().starts_with('.'));
        assert!(name.names(&format!("{name}:2,S")));
        understood = true;
    }
    if let Some(set) = UidSet::parse(text) {
        assert_eq!(UidSet::parse(&set.to_string()).as_ref(), Some(&set), "a set is read as it is written");
        assert_eq!(set.difference(&set).len(), 0);
        assert_eq!(set.union(&set), set);
        understood = true;
    }
    understood.into()
}

fn script(input: &[u8]) -> Script {
    Script::new(split(input, &[0xff]).into_iter().map(<[u8]>::to_vec).collect())
}

fn endpoint() -> Endpoint {
    Endpoint { host: "server.test".to_owned(), port: 143, security: Security::None }
}

fn login() -> Login {
    Login::Password { user: "ann".to_owned(), password: "secret".to_owned() }
}

fn deadlines() -> Deadlines {
    Deadlines::default()
}

/// Believes nobody: no target comes to a handshake.
pub fn tls() -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider knows them")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    Arc::new(config)
}

/// Inputs that are understood.
pub mod seeds {
    /// A session with one message.
    pub fn imap_session() -> Vec<Vec<u8>> {
        let pieces: [&str; 9] = [
            "* OK ready\r\n",
            "* CAPABILITY IMAP4rev1 UIDPLUS IDLE\r\nC1 OK done\r\n",
            "A0001 OK in\r\n",
            "* CAPABILITY IMAP4rev1 CONDSTORE\r\nA0002 OK done\r\n",
            "* LIST (\\HasNoChildren \\Sent) \"/\" Sent\r\n* LIST () NIL {3}\r\na\"b\r\nA0003 OK done\r\n",
            "* 1 EXISTS\r\n* OK [UIDVALIDITY 7] ok\r\nA0004 OK done\r\n* SEARCH 3\r\nA0005 OK done\r\n",
            "* 1 EXISTS\r\n* OK [UIDVALIDITY 7] ok\r\n* OK [HIGHESTMODSEQ 9] ok\r\nA0006 OK [READ-ONLY] done\r\n",
            "* 1 FETCH (UID 1 FLAGS (\\Seen))\r\nA0007 OK done\r\n",
            "* 1 FETCH (UID 1 FLAGS () INTERNALDATE \"17-Jul-1996 02:44:25 -0700\" BODY[]<0> {8}\r\nA: b\r\n\r\n)\r\n\
             A0008 OK done\r\n",
        ];
        let session = |pieces: &[&str]| pieces.join("\u{1}").bytes().map(|b| if b == 1 { 0xff } else { b }).collect();
        vec![session(&pieces)]
    }

    /// A session with two messages.
    pub fn pop3_session() -> Vec<Vec<u8>> {
        let pieces: [&str; 9] = [
            "+OK ready\r\n",
            "+OK\r\nUIDL\r\nUSER\r\nPIPELINING\r\n.\r\n",
            "+OK\r\n",
            "+OK in\r\n",
            "+OK\r\nUIDL\r\n.\r\n",
            "+OK\r\n1 8\r\n2 9\r\n.\r\n",
            "+OK\r\n1 whqtswO00WBw418f9t5JxYwZ\r\n2 b\r\n.\r\n",
            "+OK\r\nA: b\r\n\r\n..hi\r\n.\r\n+OK\r\n",
            "-ERR gone\r\n+OK\r\n",
        ];
        vec![pieces.join("\u{1}").bytes().map(|b| if b == 1 { 0xff } else { b }).collect()]
    }

    /// Names and sets.
    pub fn mailbox_names() -> Vec<Vec<u8>> {
        let texts =
            ["/Lists/Rust", "/../x", ".INBOX.a", "/Entw&APw-rfe", "1:3,7,9:4294967295", ".Lists.a", "17.M1P2.host"];
        texts.map(|text| text.as_bytes().to_vec()).to_vec()
    }
}
