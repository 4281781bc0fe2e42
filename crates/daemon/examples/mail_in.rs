//! How fast a mailbox of many small messages comes from Debian's Dovecot, beside Debian's mbsync and OfflineIMAP.
//!
//! `cargo run --release -p packetboat-daemon --example mail_in -- [MESSAGES]`, as root (Dovecot wants it).
//! Each program fetches the same mailbox from the same server into an empty Maildir on the same disk, without TLS, one
//! after the other; the server has read everything once before. Ours runs first and last, so that caches favour nobody.
//! Those that wait for the disk with every message are stopped after a while, and their rate is what counts.
//!
//! With `beside FILE` behind the number, another build of this program takes turns with this one, and nobody else does.

#[path = "../../mail/tests/servers/dovecot.rs"]
mod dovecot;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use packetboat_daemon::inbox_store::InboxStore;
use packetboat_mail::Security;
use packetboat_mail::fetched::Deliverer;
use packetboat_mail::imap::{ImapSession, pull_mailbox};
use packetboat_mail::maildir::{FolderName, Maildir, UniqueNames};
use tempfile::TempDir;
use tokio::time::Instant;

use dovecot::{Dovecot, USER, give_to_server};

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let messages: usize = arguments.next().map_or(100_000, |count| count.parse().expect("a number of messages"));
    let program = std::env::current_exe().expect("a program");
    let mut beside = None;
    // This program runs itself for its own part, so that its memory is that of fetching alone.
    match (arguments.next().as_deref(), arguments.next()) {
        (Some("beside"), Some(other)) => beside = Some(PathBuf::from(other)),
        (Some(port), Some(root)) => return fetch(port.parse().expect("a port"), Path::new(&root), messages).await,
        _ => {}
    }
    let Some(server) = Dovecot::start() else { return };
    seed(&server, messages);
    let home = TempDir::new().expect("a directory");
    let port = server.imap(Security::None).endpoint.port;
    if let Some(other) = beside {
        for round in 0..3 {
            ours(&program, "this", &home.path().join(format!("this-{round}")), port, messages);
            ours(&other, "other", &home.path().join(format!("other-{round}")), port, messages);
        }
        return;
    }
    ours(&program, "packetboat", &home.path().join("first"), port, messages);
    for (name, fsync) in [("mbsync", "yes"), ("mbsync without fsync", "no")] {
        let root = home.path().join(format!("mbsync-{fsync}"));
        std::fs::create_dir_all(root.join("mail")).expect("a directory");
        let configuration = root.join("mbsyncrc");
        std::fs::write(&configuration, mbsyncrc(&root, port, fsync)).expect("a file");
        let mut command = Command::new("mbsync");
        measure(name, &root.join("mail/INBOX"), command.arg("-c").arg(configuration).arg("-q").arg("all"));
    }
    ours(&program, "packetboat", &home.path().join("last"), port, messages);
    let root = home.path().join("offlineimap");
    std::fs::create_dir_all(&root).expect("a directory");
    let configuration = root.join("offlineimaprc");
    std::fs::write(&configuration, offlineimaprc(&root, port)).expect("a file");
    let mut command = Command::new("offlineimap");
    measure("OfflineIMAP", &root.join("mail/INBOX"), command.args(["-o", "-u", "quiet", "-c"]).arg(configuration));
}

fn ours(program: &Path, name: &str, root: &Path, port: u16, messages: usize) {
    std::fs::create_dir_all(root).expect("a directory");
    let mut command = Command::new(program);
    measure(name, &root.join("mail"), command.arg(messages.to_string()).arg(port.to_string()).arg(root));
}

/// What a process does that fetches.
async fn fetch(port: u16, root: &Path, messages: usize) {
    let endpoint = packetboat_mail::Endpoint { host: "127.0.0.1".to_owned(), port, security: Security::None };
    let roots = rustls::RootCertStore::empty();
    let tls = Arc::new(rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth());
    let login = dovecot::login(dovecot::PASSWORD);
    let deadlines = packetboat_mail::Deadlines::default();
    let account = packetboat_mail::imap::ImapAccount { endpoint, tls, login, deadlines };
    let store = InboxStore::open(&root.join("inbox.db")).expect("a record");
    let maildir = Maildir::open(root.join("mail")).expect("a Maildir");
    let names = UniqueNames::new("bench", std::process::id(), 1);
    let deliverer = Deliverer::open(store, maildir, names, Arc::new(now)).expect("in order");
    let mut session = ImapSession::open(&account).await.expect("a session");
    let (_, report) = pull_mailbox(&mut session, "home", "INBOX", &FolderName::inbox(), deliverer).await;
    assert_eq!(report.expect("fetched").summary.delivered, messages as u64);
}

fn now() -> SystemTime {
    // Which second it is matters to no figure.
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// Runs a program and says how long it took, how many messages that were, and how much memory it had at most.
fn measure(name: &str, maildir: &Path, command: &mut Command) {
    let begun = Instant::now();
    let Ok(mut child) = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn() else {
        println!("{name}: not installed");
        return;
    };
    let (peak, outcome) = watch(&mut child, begun);
    let (seconds, files) = (begun.elapsed().as_secs_f64(), files(maildir));
    let rate = files as f64 / seconds;
    println!("{name}: {files} messages in {seconds:.1} s, {rate:.0} a second, {} MiB at most{outcome}", peak >> 10);
}

fn watch(child: &mut Child, begun: Instant) -> (u64, &'static str) {
    let mut peak = 0;
    loop {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kibibytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        peak = peak.max(kibibytes.unwrap_or(0));
        if let Ok(Some(status)) = child.try_wait() {
            return (peak, if status.success() { "" } else { " (it failed)" });
        }
        if begun.elapsed() > LONGEST {
            let _ = child.kill();
            let _ = child.wait();
            return (peak, " (stopped)");
        }
        let _ = Command::new("sleep").arg("0.02").status();
    }
}

const LONGEST: Duration = Duration::from_secs(45);

/// Puts messages of one to four KiB where the server looks for them.
fn seed(server: &Dovecot, messages: usize) {
    let root = server.path("mail").join(USER);
    for part in ["cur", "new", "tmp"] {
        std::fs::create_dir_all(root.join(part)).expect("a directory");
    }
    for number in 0..messages {
        let mut message = format!("From: a@example.org\nSubject: {number}\nMessage-ID: <{number}@example.org>\n\n");
        let length = 1000 + number * 7919 % 3000;
        while message.len() < length {
            message.push_str("It was a bright cold day in April, and the clocks were striking.\n");
        }
        let name =
            format!("cur/{}.M{number}.seed:2,{}", 1_700_000_000 + number, if number % 3 == 0 { "" } else { "S" });
        std::fs::write(root.join(name), message).expect("a file");
    }
    give_to_server(&root);
    server.doveadm(&["fetch", "-u", USER, "uid flags date.received size.virtual", "mailbox", "INBOX"]);
}

fn files(maildir: &Path) -> usize {
    ["new", "cur"].map(|part| std::fs::read_dir(maildir.join(part)).map_or(0, Iterator::count)).iter().sum()
}

fn mbsyncrc(root: &Path, port: u16, fsync: &str) -> String {
    let (root, password) = (root.display(), dovecot::PASSWORD.replace('\\', "\\\\").replace('"', "\\\""));
    format!(
        "FSync {fsync}\n\nIMAPAccount home\nHost 127.0.0.1\nPort {port}\nUser {USER}\nPass \"{password}\"\nSSLType None\nAuthMechs LOGIN\n\n\
         IMAPStore far\nAccount home\n\nMaildirStore near\nPath {root}/mail/\nInbox {root}/mail/INBOX\n\n\
         Channel all\nFar :far:\nNear :near:\nPatterns INBOX\nCreate Near\nSync Pull\nSyncState *\n"
    )
}

fn offlineimaprc(root: &Path, port: u16) -> String {
    let (root, password) = (root.display(), dovecot::PASSWORD);
    format!(
        "[general]\naccounts = home\nmetadata = {root}/metadata\n\n[Account home]\nlocalrepository = near\nremoterepository = far\n\n\
         [Repository near]\ntype = Maildir\nlocalfolders = {root}/mail\n\n[Repository far]\ntype = IMAP\nreadonly = True\n\
         remotehost = 127.0.0.1\nremoteport = {port}\nremoteuser = {USER}\nremotepass = {password}\nssl = no\nstarttls = no\n\
         auth_mechanisms = LOGIN\nfolderfilter = lambda name: name == 'INBOX'\n"
    )
}
