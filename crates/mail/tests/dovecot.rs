//! Mail in, from Debian's Dovecot.

mod servers {
    pub(crate) mod dovecot;
}

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path as FilePath;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use packetboat_mail::fetched::{Deliverer, FetchedStore, Flags, MailboxKey, MemoryFetched, UidSet};
use packetboat_mail::imap::{
    Access, Appended, Backoff, Deleted, ImapError, ImapSession, PullReport, SentLookup, Wake, Watched, pull_mailbox,
    watch_mailboxes,
};
use packetboat_mail::maildir::{FolderName, Maildir, UniqueNames};
use packetboat_mail::pop3::{Pop3Error, Pop3Session, pull_maildrop};
use packetboat_mail::{ConnectError, Security};
use tempfile::TempDir;
use tokio::sync::mpsc;

use servers::dovecot::{Dovecot, PASSWORD, USER, give_to_server, login};

type Delivering = Deliverer<MemoryFetched, Maildir>;

/// With a byte that is no UTF-8, and a line that POP3 doubles a dot of.
fn message(number: u32) -> Vec<u8> {
    let head = format!("From: a@example.org\r\nSubject: {number}\r\nMessage-ID: <{number}@example.org>\r\n\r\n");
    [head.as_bytes(), b".dot\r\n\xe9\r\n"].concat()
}

fn deliverer(root: &FilePath) -> Delivering {
    let clock = Arc::new(|| std::time::SystemTime::UNIX_EPOCH);
    let maildir = Maildir::open(root).unwrap();
    Deliverer::open(MemoryFetched::default(), maildir, UniqueNames::new("host", 1, 1), clock).unwrap()
}

async fn pull(session: &mut ImapSession, mailbox: &str, delivering: Delivering) -> (Delivering, PullReport) {
    let folder = FolderName::for_mailbox(mailbox, Some("/")).unwrap();
    let (delivering, report) = pull_mailbox(session, "home", mailbox, &folder, delivering).await;
    (delivering.unwrap(), report.unwrap())
}

/// The bytes of a file as they came: those of these tests have no lone LF but where they have CRs as well.
fn received(path: &FilePath) -> Vec<u8> {
    let bytes = std::fs::read(path).unwrap();
    if bytes.contains(&b'\r') {
        bytes
    } else {
        bytes
            .split_inclusive(|byte| *byte == b'\n')
            .flat_map(|line| match line.strip_suffix(b"\n") {
                Some(line) => [line, b"\r\n"].concat(),
                None => line.to_vec(),
            })
            .collect()
    }
}

/// The messages in a folder, by their bytes.
fn stored(folder: &FilePath) -> BTreeSet<Vec<u8>> {
    let files = ["new", "cur"].map(|part| std::fs::read_dir(folder.join(part)).unwrap());
    files.into_iter().flatten().map(|entry| received(&entry.unwrap().path())).collect()
}

fn count(folder: &FilePath) -> usize {
    ["new", "cur"].map(|part| std::fs::read_dir(folder.join(part)).unwrap().count()).iter().sum()
}

#[tokio::test]
async fn what_dovecot_has_comes_once_and_byte_for_byte() {
    let Some(server) = Dovecot::start() else { return };
    let home = TempDir::new().unwrap();
    (1..=30).for_each(|number| server.save("INBOX", &message(number)));
    server.doveadm(&["flags", "add", "-u", USER, "\\Seen \\Answered", "mailbox", "INBOX", "uid", "3"]);
    for security in [Security::Implicit, Security::Upgrade, Security::None] {
        let mut session = ImapSession::open(&server.imap(security)).await.unwrap();
        session.select("INBOX", Access::Read).await.unwrap();
        session.close().await;
    }
    let mut session = ImapSession::open(&server.imap(Security::Implicit)).await.unwrap();
    let (delivering, report) = pull(&mut session, "INBOX", deliverer(home.path())).await;
    assert_eq!((report.summary.delivered, report.missing), (30, UidSet::default()));
    assert_eq!(stored(home.path()), (1..=30).map(message).collect());
    let read: Vec<_> = std::fs::read_dir(home.path().join("cur")).unwrap().collect();
    assert_eq!(read.len(), 1);
    assert!(read[0].as_ref().unwrap().file_name().into_string().unwrap().ends_with(":2,RS"));

    server.save("INBOX", &message(31));
    let (delivering, report) = pull(&mut session, "INBOX", delivering).await;
    assert_eq!(report.summary.delivered, 1);
    let (_, report) = pull(&mut session, "INBOX", delivering).await;
    assert_eq!((report.summary.delivered, report.flags), (0, 0), "nothing changed, and nothing was looked at");
    session.close().await;
}

#[tokio::test]
async fn deletions_and_flags_at_the_server_are_remembered() {
    let Some(server) = Dovecot::start() else { return };
    let home = TempDir::new().unwrap();
    (1..=6).for_each(|number| server.save("INBOX", &message(number)));
    let mut session = ImapSession::open(&server.imap(Security::Implicit)).await.unwrap();
    let (delivering, first) = pull(&mut session, "INBOX", deliverer(home.path())).await;
    server.doveadm(&["expunge", "-u", USER, "mailbox", "INBOX", "uid", "2,5"]);
    server.doveadm(&["flags", "add", "-u", USER, "\\Flagged", "mailbox", "INBOX", "uid", "3"]);
    server.save("INBOX", &message(7));
    let (mut delivering, report) = pull(&mut session, "INBOX", delivering).await;
    assert_eq!(report.gone, [2, 5].into_iter().collect());
    assert_eq!(report.summary.delivered, 1);
    let key = MailboxKey { account: "home".into(), mailbox: "INBOX".into(), validity: first.validity };
    let record = delivering.store().mailbox(&key).unwrap();
    assert_eq!((record.known.to_string(), record.gone.to_string()), ("1:7".to_owned(), "2,5".to_owned()));
    assert!(delivering.store().flags(&key).unwrap().contains(&(3, Flags::FLAGGED)));
    assert_eq!(count(home.path()), 7, "what was deleted there stays here");

    // Deleted here by its user: it is not fetched again.
    for entry in std::fs::read_dir(home.path().join("new")).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let (delivering, report) = pull(&mut session, "INBOX", delivering).await;
    assert_eq!((report.summary.delivered, count(home.path())), (0, 0));
    // The same bytes under a new number are no new message either.
    server.save("INBOX", &message(1));
    let (_, report) = pull(&mut session, "INBOX", delivering).await;
    assert_eq!((report.summary.delivered, report.summary.known_already, count(home.path())), (0, 1, 0));
}

/// Selects the inbox as a mail program does, and gives what the server says of it and of its messages' flags.
fn as_a_mail_program_sees_it(server: &Dovecot) -> String {
    let stream = TcpStream::connect(("127.0.0.1", server.imap(Security::None).endpoint.port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let (mut lines, mut said) = (BufReader::new(stream), String::new());
    let login = format!("a LOGIN {USER} {{{}+}}\r\n{PASSWORD}\r\n", PASSWORD.len());
    for (command, end) in [(login.as_str(), "a "), ("b SELECT INBOX\r\n", "b "), ("c FETCH 1:* (FLAGS)\r\n", "c ")] {
        lines.get_mut().write_all(command.as_bytes()).unwrap();
        let from = said.len();
        while !said[from..].lines().any(|line| line.starts_with(end)) {
            assert_ne!(lines.read_line(&mut said).unwrap(), 0, "{said}");
        }
    }
    said
}

#[tokio::test]
async fn nothing_that_is_done_here_shows_at_the_server() {
    let Some(server) = Dovecot::start() else { return };
    let home = TempDir::new().unwrap();
    (1..=4).for_each(|number| server.save("INBOX", &message(number)));
    server.doveadm(&["flags", "add", "-u", USER, "\\Flagged", "mailbox", "INBOX", "uid", "2"]);
    let mut session = ImapSession::open(&server.imap(Security::Implicit)).await.unwrap();
    let (delivering, _) = pull(&mut session, "INBOX", deliverer(home.path())).await;
    // One is read here, and one deleted.
    let mut new = std::fs::read_dir(home.path().join("new")).unwrap().map(|entry| entry.unwrap().path());
    let read = new.next().unwrap();
    let name = format!("{}:2,S", read.file_name().unwrap().to_str().unwrap());
    std::fs::rename(&read, home.path().join("cur").join(name)).unwrap();
    std::fs::remove_file(new.next().unwrap()).unwrap();
    server.save("INBOX", &message(5));
    pull(&mut session, "INBOX", delivering).await;
    session.close().await;
    let seen = as_a_mail_program_sees_it(&server);
    assert!(seen.contains("* 5 EXISTS") && seen.contains("* 5 RECENT"), "{seen}");
    assert!(!seen.lines().any(|line| line.contains("FETCH") && line.contains("\\Seen")), "{seen}");
    let flagged: Vec<_> = seen.lines().filter(|line| line.contains("FETCH") && line.contains("\\Flagged")).collect();
    assert_eq!(flagged.len(), 1, "{seen}");
}

#[tokio::test]
async fn another_uidvalidity_brings_nothing_twice() {
    let Some(server) = Dovecot::start() else { return };
    let home = TempDir::new().unwrap();
    (1..=5).for_each(|number| server.save("INBOX", &message(number)));
    let mut session = ImapSession::open(&server.imap(Security::Implicit)).await.unwrap();
    let (delivering, before) = pull(&mut session, "INBOX", deliverer(home.path())).await;
    session.close().await;
    server.doveadm(&["mailbox", "update", "-u", USER, "--uid-validity", "99", "INBOX"]);
    server.save("INBOX", &message(6));
    let mut session = ImapSession::open(&server.imap(Security::Implicit)).await.unwrap();
    let (_, after) = pull(&mut session, "INBOX", delivering).await;
    assert_ne!(before.validity, after.validity);
    assert_eq!((after.summary.delivered, after.summary.known_already), (1, 5));
    assert_eq!(stored(home.path()), (1..=6).map(message).collect());
    assert_eq!(count(home.path()), 6);
}

#[tokio::test]
async fn a_large_message_comes_whole_in_pieces() {
    let Some(server) = Dovecot::start() else { return };
    let home = TempDir::new().unwrap();
    // Around the edges of one piece and of several, and beyond what is kept of first pieces.
    let mega = 1 << 20;
    let sizes = [mega - 1, mega, mega + 1, 3 * mega, 20 * mega + 77];
    let large = |size: usize| {
        let mut bytes = format!("Subject: {size}\r\n\r\n").into_bytes();
        while bytes.len() < size - 80 {
            bytes.extend_from_slice(format!("{:076}\r\n", bytes.len()).as_bytes());
        }
        let rest = size - bytes.len() - 2;
        bytes.extend(std::iter::repeat_n(b'x', rest));
        bytes.extend_from_slice(b"\r\n");
        bytes
    };
    let messages: BTreeSet<Vec<u8>> =
        sizes.map(large).into_iter().chain((1..=12).map(|n| large(2 * mega + n))).collect();
    messages.iter().for_each(|bytes| server.save("INBOX", bytes));
    server.save("INBOX", &message(1));
    let mut session = ImapSession::open(&server.imap(Security::Implicit)).await.unwrap();
    let (_, report) = pull(&mut session, "INBOX", deliverer(home.path())).await;
    assert_eq!((report.summary.delivered, report.missing), (messages.len() as u64 + 1, UidSet::default()));
    let mut expected = messages;
    expected.insert(message(1));
    assert!(stored(home.path()) == expected, "every byte of every message");
}

#[tokio::test]
async fn idle_wakes_for_new_mail_and_ends_quietly_without() {
    let Some(server) = Dovecot::start() else { return };
    server.save("INBOX", &message(1));
    let mut session = ImapSession::open(&server.imap(Security::Implicit)).await.unwrap();
    session.select("INBOX", Access::Read).await.unwrap();
    assert_eq!(session.wait(Duration::from_millis(500)).await.unwrap(), Wake::Quiet);
    let server = Arc::new(server);
    let saving = Arc::clone(&server);
    let (wake, ()) = tokio::join!(session.wait(Duration::from_secs(60)), async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        tokio::task::spawn_blocking(move || saving.save("INBOX", &message(2))).await.unwrap();
    });
    assert_eq!(wake.unwrap(), Wake::News);
    assert_eq!(session.select("INBOX", Access::Read).await.unwrap().exists, 2, "the session goes on");
}

#[tokio::test]
async fn a_watcher_comes_back_after_the_server_was_away() {
    let Some(server) = Dovecot::start() else { return };
    let (listener, mut watched) = mpsc::channel(8);
    let account = server.imap(Security::Implicit);
    let backoff = Backoff { first: Duration::from_millis(200), greatest: Duration::from_secs(1) };
    let watching = tokio::spawn(async move {
        watch_mailboxes(&account, &["INBOX".to_owned()], Duration::from_secs(60), backoff, || 9, listener).await
    });
    assert!(matches!(watched.recv().await, Some(Watched::Connected { all: true })));
    server.doveadm(&["kick", USER]);
    assert!(matches!(watched.recv().await, Some(Watched::Lost { .. })));
    assert!(matches!(watched.recv().await, Some(Watched::Connected { all: true })));
    let server = tokio::task::spawn_blocking(move || {
        server.save("INBOX", &message(1));
        server
    });
    let server = server.await.unwrap();
    assert!(matches!(watched.recv().await, Some(Watched::News)));
    drop(watched);
    watching.await.unwrap();
    drop(server);
}

/// Runs what waits for a process beside the task that waits for the server.
async fn beside(server: Dovecot, action: impl FnOnce(&Dovecot) + Send + 'static) -> Dovecot {
    let done = tokio::task::spawn_blocking(move || {
        action(&server);
        server
    });
    done.await.unwrap()
}

#[tokio::test]
async fn a_server_that_can_tells_of_other_mailboxes_too() {
    let Some(server) = Dovecot::start() else { return };
    server.doveadm(&["mailbox", "create", "-u", USER, "Lists", "Other"]);
    let backoff = Backoff { first: Duration::from_millis(200), greatest: Duration::from_secs(1) };
    let mut server = server;
    for (wanted, told, silent) in [
        (vec!["INBOX", "Lists"], vec!["Lists", "INBOX", "Lists"], Some("Other")),
        (vec!["*"], vec!["Other", "INBOX", "Made"], None),
        (vec!["Other"], vec!["Other"], Some("Lists")),
    ] {
        let (listener, mut watched) = mpsc::channel(9);
        let account = server.imap(Security::Implicit);
        let wanted: Vec<String> = wanted.into_iter().map(str::to_owned).collect();
        let watching = tokio::spawn(async move {
            watch_mailboxes(&account, &wanted, Duration::from_secs(60), backoff, || 9, listener).await
        });
        assert!(matches!(watched.recv().await, Some(Watched::Connected { all: true })));
        if let Some(mailbox) = silent {
            server = beside(server, move |server| server.save(mailbox, &message(1))).await;
            let quiet = tokio::time::timeout(Duration::from_secs(2), watched.recv()).await;
            assert!(quiet.is_err(), "it is not wanted: {quiet:?}");
        }
        for mailbox in told {
            server = beside(server, move |server| {
                if mailbox == "Made" {
                    server.doveadm(&["mailbox", "create", "-u", USER, mailbox]);
                }
                server.save(mailbox, &message(2));
            })
            .await;
            let news = tokio::time::timeout(Duration::from_secs(20), watched.recv()).await;
            assert!(matches!(news, Ok(Some(Watched::News))), "{mailbox}: {news:?}");
            // One delivery may be told in several answers.
            while tokio::time::timeout(Duration::from_secs(1), watched.recv()).await.is_ok() {}
        }
        drop(watched);
        watching.await.unwrap();
    }
}

#[tokio::test]
async fn a_sent_message_is_found_or_put_there_once() {
    let Some(server) = Dovecot::start() else { return };
    let mut session = ImapSession::open(&server.imap(Security::Implicit)).await.unwrap();
    let mailboxes = session.mailboxes().await.unwrap();
    let sent = ImapSession::sent_mailbox(&mailboxes).unwrap().name.clone();
    assert_eq!(sent, "Sent");
    assert!(matches!(session.find_sent(&sent, "<1@example.org>").await, SentLookup::Absent));
    let appended = session.append_sent(&sent, "<1@example.org>", &message(1)).await.unwrap();
    assert_eq!(appended, Appended::Stored);
    assert!(matches!(session.find_sent(&sent, "<1@example.org>").await, SentLookup::Found { uid: 1 }));
    let appended = session.append_sent(&sent, "<1@example.org>", &message(1)).await.unwrap();
    assert_eq!(appended, Appended::Present);
    assert!(matches!(session.find_sent(&sent, "<11@example.org>").await, SentLookup::Absent));
    let unknown = session.find_sent("Nowhere", "<1@example.org>").await;
    assert!(matches!(unknown, SentLookup::Unavailable(ImapError::Refused { .. })), "{unknown:?}");
    assert!(matches!(session.find_sent(&sent, "1@example.org").await, SentLookup::Unavailable(_)));
}

#[tokio::test]
async fn a_message_is_deleted_at_the_server_only_when_told_to() {
    let Some(server) = Dovecot::start() else { return };
    (1..=4).for_each(|number| server.save("INBOX", &message(number)));
    server.doveadm(&["flags", "add", "-u", USER, "\\Deleted", "mailbox", "INBOX", "uid", "1"]);
    let mut session = ImapSession::open(&server.imap(Security::Implicit)).await.unwrap();
    session.select("INBOX", Access::Write).await.unwrap();
    assert_eq!(session.delete(&[2, 4].into_iter().collect()).await.unwrap(), Deleted::Expunged);
    let left = server.doveadm(&["-f", "flow", "fetch", "-u", USER, "uid", "mailbox", "INBOX"]);
    assert_eq!(left.lines().collect::<Vec<_>>(), ["uid=1", "uid=3"], "another's mark is not acted on");
}

#[tokio::test]
async fn pop3_and_imap_bring_one_message_once() {
    let Some(server) = Dovecot::start() else { return };
    let home = TempDir::new().unwrap();
    (1..=40).for_each(|number| server.save("INBOX", &message(number)));
    server.save("INBOX", b"Subject: no end of line\r\n\r\nlast");
    let inbox = FolderName::inbox();
    let mut delivering = deliverer(home.path());
    for (security, expected) in [(Security::Implicit, 41), (Security::Upgrade, 0), (Security::None, 0)] {
        let mut session = Pop3Session::open(&server.pop3(security)).await.unwrap();
        assert!(session.can("PIPELINING"));
        let (back, report) = pull_maildrop(&mut session, "home", &inbox, delivering).await;
        delivering = back.unwrap();
        let report = report.unwrap();
        assert_eq!((report.summary.delivered, report.present.len(), report.missing), (expected, 41, 0));
        session.quit().await.unwrap();
    }
    assert!(stored(home.path()).is_superset(&(1..=40).map(message).collect()));
    let mut session = ImapSession::open(&server.imap(Security::Implicit)).await.unwrap();
    let (mut delivering, report) = pull(&mut session, "INBOX", delivering).await;
    assert_eq!((report.summary.delivered, report.summary.known_already), (0, 41));
    assert_eq!(count(home.path()), 41);

    let session = Pop3Session::open(&server.pop3(Security::Implicit)).await.unwrap();
    let mut listing = Pop3Session::open(&server.pop3(Security::Implicit)).await.unwrap();
    let first = Arc::clone(&listing.list().await.unwrap()[0].uidl);
    listing.quit().await.unwrap();
    assert_eq!(session.delete_and_quit(&[first].into()).await.unwrap(), 1);
    assert!(server.doveadm(&["mailbox", "status", "-u", USER, "messages", "INBOX"]).contains("messages=40"));
    assert!(delivering.store().pending().unwrap().is_empty());
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_certificate_say_so() {
    let Some(server) = Dovecot::start() else { return };
    let mut account = server.imap(Security::Implicit);
    account.login = login("wrong");
    assert!(matches!(ImapSession::open(&account).await.unwrap_err(), ImapError::LoginRefused { .. }));
    let mut account = server.pop3(Security::Implicit);
    account.login = login("wrong");
    assert!(matches!(Pop3Session::open(&account).await.unwrap_err(), Pop3Error::LoginRefused { .. }));

    let nobody =
        rustls::ClientConfig::builder().with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    for security in [Security::Implicit, Security::Upgrade] {
        let mut account = server.imap(security);
        account.tls = Arc::new(nobody.clone());
        account.login = login(PASSWORD);
        let error = ImapSession::open(&account).await.unwrap_err();
        assert!(matches!(error, ImapError::Connect(ConnectError::Untrusted { .. })), "{error:?}");
    }
    let mut account = server.imap(Security::Implicit);
    account.endpoint.host = "127.0.0.1".to_owned();
    let error = ImapSession::open(&account).await.unwrap_err();
    assert!(matches!(error, ImapError::Connect(ConnectError::Untrusted { .. })), "another host's account: {error:?}");
}

#[tokio::test]
async fn dovecot_and_mutt_read_the_maildir() {
    let Some(server) = Dovecot::start() else { return };
    let back = server.path("mail/back");
    std::fs::create_dir_all(&back).unwrap();
    (1..=5).for_each(|number| server.save("INBOX", &message(number)));
    server.doveadm(&["flags", "add", "-u", USER, "\\Seen", "mailbox", "INBOX", "uid", "3"]);
    server.doveadm(&["mailbox", "create", "-u", USER, "Entwürfe.2024"]);
    server.save("Entwürfe.2024", &message(9));
    let mut session = ImapSession::open(&server.imap(Security::Implicit)).await.unwrap();
    let (mut delivering, _) = pull(&mut session, "INBOX", deliverer(&back)).await;
    let remote = session.mailboxes().await.unwrap();
    let drafts = remote.iter().find(|mailbox| mailbox.name.contains("2024")).unwrap();
    let folder = FolderName::for_mailbox(&drafts.name, drafts.delimiter.as_deref()).unwrap();
    let (back_again, report) = pull_mailbox(&mut session, "home", &drafts.name, &folder, delivering).await;
    delivering = back_again.unwrap();
    assert_eq!(report.unwrap().summary.delivered, 1);
    drop(delivering);

    let mutt = Command::new("mutt").arg("-v").output().is_ok_and(|output| output.status.success());
    if mutt {
        let copy = server.path("copied");
        let keys = format!("<tag-pattern>~A<enter><tag-prefix><decode-copy>{}<enter><exit>", copy.display());
        let settings = "set folder=/ mbox_type=mbox copy=yes confirmcreate=no confirmappend=no wait_key=no quit=yes";
        // Where `script` finds no SHELL, its shell stays above `timeout`, which by itself would then put mutt into the
        // background of the terminal: mutt would be stopped at its first look at the keyboard, and nothing would end it.
        let mutt = format!(
            "exec timeout --foreground --kill-after=5 60 mutt -n -F /dev/null -R -e '{settings}' -e \"push '{keys}'\" -f {}",
            back.display()
        );
        let mut script = Command::new("script");
        script.env("SHELL", "/bin/sh").env("TERM", "xterm").arg("-qec").arg(mutt).arg("/dev/null");
        let read = script.output().unwrap();
        assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stdout));
        let copied = String::from_utf8_lossy(&std::fs::read(&copy).unwrap()).into_owned();
        for number in 1..=5 {
            assert!(copied.contains(&format!("\nSubject: {number}\n")), "{copied}");
        }
        assert_eq!(copied.matches("\n.dot\n").count(), 5, "{copied:?}");
        assert!(!copied.contains('\r'), "no CR is left in what mutt shows: {copied:?}");
    } else {
        eprintln!("skipped: mutt is not installed, so it did not read the Maildir");
    }

    give_to_server(&back);
    let read =
        server.doveadm(&["-f", "flow", "fetch", "-u", "back", "hdr.subject flags size.virtual", "mailbox", "INBOX"]);
    assert_eq!(read.lines().count(), 5, "{read}");
    let whole = message(1).len();
    assert!(read.contains(&format!("size.virtual={whole}")), "as large as it was: {read}");
    assert!(read.lines().any(|line| line.contains("subject=3") && line.contains("\\Seen")), "{read}");
    let read = server.doveadm(&["-f", "flow", "fetch", "-u", "back", "hdr.subject", "mailbox", "Entwürfe.2024"]);
    assert_eq!(read.trim(), "hdr.subject=9");
}
