//! Mail in with the real binary: what either device could fetch from Dovecot is in the Maildir of both, once and byte for
//! byte, by IMAP and by POP3, whatever is cut or killed meanwhile; and what its user deleted stays deleted.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::network::{Cut, Line, Network, SERVER};
use crate::pair::Pair;
use crate::schedule;
use crate::servers::{PASSWORD, Place, Servers, USER};

/// By which protocol mail is fetched.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Protocol {
    Imap,
    Pop3,
}

/// The pair, the servers, and what was put into the mailbox there.
pub(crate) struct MailIn {
    pub(crate) pair: Pair,
    servers: Servers,
    /// As a Maildir has them, where all line ends are LF.
    pub(crate) saved: BTreeSet<Vec<u8>>,
}

impl MailIn {
    /// Starts everything, with one account of the host's; nothing, where it cannot be had. `more` is about the account.
    pub(crate) fn start(protocol: Protocol, more: &str) -> Option<Self> {
        let network = Network::new()?;
        let namespace = Some(network.namespace(crate::network::Place::Net));
        let servers = Servers::start_at(Place { address: SERVER.to_owned(), namespace })?;
        let (section, port) = match protocol {
            Protocol::Imap => ("imap", servers.imaps),
            Protocol::Pop3 => ("pop3", servers.pop3s),
        };
        let account = format!(
            "[[account]]\nname = \"net\"\naddresses = [\"@example.org\"]\n[account.{section}]\nhost = \"{SERVER}\"\n\
             port = {port}\nuser = \"{USER}\"\npassword = \"{PASSWORD}\"\nca_file = {:?}\n{more}",
            servers.authority()
        );
        let pair = Pair::join(network, tempfile::tempdir().unwrap(), None, &account, "b@example.org");
        let mail = Self { pair, servers, saved: BTreeSet::new() };
        mail.pair.until("both fetch", |_| ["host", "companion"].iter().all(|device| mail.fetches(device)));
        Some(mail)
    }

    /// Whether a device's last round at the server went well.
    fn fetches(&self, device: &str) -> bool {
        let accounts = &self.pair.json(device, &["inbox"])["accounts"];
        accounts[0]["last_success_ms"].is_u64() && accounts[0]["error"].is_null()
    }

    /// Puts messages into the mailbox: one of any text, one that POP3 doubles dots of, one of some size.
    pub(crate) fn save(&mut self, count: usize) {
        for _ in 0..count {
            let number = self.saved.len();
            let body = match number % 3 {
                0 => "text\n".to_owned(),
                1 => ".\n..\n.dot \u{e9}\n".to_owned(),
                _ => "0123456789 0123456789 0123456789 0123456789\n".repeat(2000),
            };
            let head = format!("From: a@example.org\nSubject: {number}\nMessage-ID: <in{number}@test>\n\n");
            let message = [head.as_bytes(), body.as_bytes()].concat();
            self.servers.save("INBOX", &message);
            assert!(self.saved.insert(message));
        }
    }

    pub(crate) fn has_all(&self, device: &str) -> bool {
        self.pair.maildir_files(device).len() >= self.saved.len()
    }

    /// Waits until devices have every message, and looks that each has it once and byte for byte.
    #[track_caller]
    pub(crate) fn all_at(&self, devices: &[&str]) {
        for device in devices {
            self.pair.until("every message is there", |_| self.has_all(device));
            self.nothing_twice(device);
        }
    }

    #[track_caller]
    fn nothing_twice(&self, device: &str) {
        let there = self.pair.maildir(device);
        let subjects = || there.iter().map(|message| String::from_utf8_lossy(&message[..60]).into_owned());
        let same = there.iter().eq(self.saved.iter());
        assert!(same, "{device} has {} of {}: {:?}", there.len(), self.saved.len(), subjects().collect::<Vec<_>>());
    }

    /// Waits until devices went to the server again, and well, after this call began.
    #[track_caller]
    fn fetches_again(&self, devices: &[&str]) {
        let now = jiff::Timestamp::now().as_millisecond();
        for device in devices {
            self.pair.until("it fetched once more", |pair| {
                let accounts = &pair.json(device, &["inbox"])["accounts"];
                accounts[0]["last_success_ms"].as_i64().is_some_and(|at| at > now) && accounts[0]["error"].is_null()
            });
        }
    }

    /// By which paths the messages that a device has came there.
    fn paths(&self, device: &str) -> BTreeSet<String> {
        let mails = self.pair.json(device, &["inbox", "--last", "1000"])["mails"].clone();
        mails.as_array().unwrap().iter().map(|mail| mail["path"].as_str().unwrap().to_owned()).collect()
    }
}

pub(crate) const BOTH: [&str; 2] = ["host", "companion"];

/// What only the companion can fetch the host has by the link, and its own path brings none of it again.
fn companion_fetches_for_the_host(protocol: Protocol, cut: Cut) {
    let Some(mut mail) = MailIn::start(protocol, "") else { return };
    mail.pair.network.cut(Line::HostPath, cut);
    mail.save(6);
    mail.all_at(&BOTH);
    let by = |path: &str| BTreeSet::from([path.to_owned()]);
    assert_eq!((mail.paths("companion"), mail.paths("host")), (by("own"), by("link")));
    mail.pair.network.mend(Line::HostPath);
    mail.fetches_again(&["host"]);
    mail.save(1);
    mail.all_at(&BOTH);
    mail.fetches_again(&BOTH);
    BOTH.iter().for_each(|device| mail.nothing_twice(device));
}

#[test]
fn mail_that_only_the_companion_can_fetch_by_imap_is_at_both_once() {
    companion_fetches_for_the_host(Protocol::Imap, Cut::Unplugged);
}

#[test]
fn mail_that_only_the_companion_can_fetch_by_pop3_is_at_both_once() {
    companion_fetches_for_the_host(Protocol::Pop3, Cut::Unplugged);
}

#[test]
fn a_path_that_fails_silently_keeps_no_mail_from_the_host() {
    companion_fetches_for_the_host(Protocol::Imap, Cut::Silent);
}

/// Both go to the server for the same messages at the same time, and tell each other of them meanwhile.
fn both_fetch_at_once(protocol: Protocol) {
    let Some(mut mail) = MailIn::start(protocol, "") else { return };
    for _ in 0..6 {
        mail.save(10);
    }
    mail.all_at(&BOTH);
    // What was fetched while there was no link is compared when there is one.
    mail.pair.network.cut(Line::Link, Cut::Unplugged);
    mail.save(20);
    mail.all_at(&BOTH);
    mail.pair.network.mend(Line::Link);
    mail.pair.until("the link is up", |pair| pair.json("host", &["paths"])["link"]["up"] == true);
    mail.fetches_again(&BOTH);
    mail.save(1);
    mail.all_at(&BOTH);
}

#[test]
fn what_both_fetch_at_once_by_imap_is_at_both_once() {
    both_fetch_at_once(Protocol::Imap);
}

#[test]
fn what_both_fetch_at_once_by_pop3_is_at_both_once() {
    both_fetch_at_once(Protocol::Pop3);
}

#[test]
fn what_one_fetched_while_the_link_was_cut_comes_when_it_is_back() {
    let Some(mut mail) = MailIn::start(Protocol::Imap, "") else { return };
    for (path, fetching, waiting) in [(Line::HostPath, "companion", "host"), (Line::CompanionPath, "host", "companion")]
    {
        mail.pair.network.cut(Line::Link, Cut::Silent);
        mail.pair.network.cut(path, Cut::Unplugged);
        let before = mail.saved.len();
        mail.save(5);
        mail.all_at(&[fetching]);
        assert_eq!(mail.pair.maildir_files(waiting).len(), before, "it has no way to it");
        mail.pair.network.mend(Line::Link);
        mail.all_at(&BOTH);
        mail.pair.network.mend(path);
        mail.fetches_again(&BOTH);
        BOTH.iter().for_each(|device| mail.nothing_twice(device));
    }
}

/// At the server a message stays until both devices hold it, and goes then.
fn deleted_at_the_server(protocol: Protocol) {
    let Some(mut mail) = MailIn::start(protocol, "at_server = \"delete\"\n") else { return };
    mail.pair.network.cut(Line::Link, Cut::Unplugged);
    mail.pair.network.cut(Line::HostPath, Cut::Unplugged);
    mail.save(4);
    mail.all_at(&["companion"]);
    mail.fetches_again(&["companion"]);
    assert_eq!(mail.servers.count_in("INBOX"), 4, "only one of them holds it");
    mail.pair.network.mend(Line::Link);
    mail.all_at(&["host"]);
    mail.pair.until("it is deleted at the server", |_| mail.servers.count_in("INBOX") == 0);
    mail.pair.network.mend(Line::HostPath);
    mail.fetches_again(&BOTH);
    mail.save(1);
    mail.all_at(&BOTH);
    mail.pair.until("that is deleted too", |_| mail.servers.count_in("INBOX") == 0);
    BOTH.iter().for_each(|device| mail.nothing_twice(device));
}

#[test]
fn mail_is_deleted_at_an_imap_server_once_both_hold_it() {
    deleted_at_the_server(Protocol::Imap);
}

#[test]
fn mail_is_deleted_at_a_pop3_server_once_both_hold_it() {
    deleted_at_the_server(Protocol::Pop3);
}

#[test]
fn mail_is_left_at_the_server_unless_the_account_says_otherwise() {
    let Some(mut mail) = MailIn::start(Protocol::Pop3, "") else { return };
    mail.save(3);
    mail.all_at(&BOTH);
    mail.fetches_again(&BOTH);
    assert_eq!(mail.servers.count_in("INBOX"), 3);
}

#[test]
fn what_was_deleted_in_one_maildir_does_not_come_back() {
    let Some(mut mail) = MailIn::start(Protocol::Imap, "") else { return };
    mail.save(4);
    mail.all_at(&BOTH);
    let deleted = fs::read(&mail.pair.maildir_files("host")[0]).unwrap();
    fs::remove_file(&mail.pair.maildir_files("host")[0]).unwrap();
    // A new session compares anew, and so does a daemon that was killed; the server still has it.
    mail.pair.network.cut(Line::Link, Cut::Unplugged);
    mail.pair.until("the loss is noticed", |pair| pair.json("host", &["paths"])["link"]["up"] == false);
    mail.pair.network.mend(Line::Link);
    mail.save(1);
    let left = |mail: &MailIn| mail.saved.iter().filter(|message| **message != deleted).cloned().collect::<Vec<_>>();
    mail.pair.until("the new one is there", |pair| pair.maildir_files("host").len() == left(&mail).len());
    for device in BOTH {
        mail.pair.end(device, Signal::KILL);
        mail.pair.run(device);
    }
    mail.save(1);
    mail.pair.until("the new one is there", |pair| pair.maildir_files("host").len() == left(&mail).len());
    mail.fetches_again(&BOTH);
    assert_eq!(mail.pair.maildir("host"), left(&mail));
    mail.all_at(&["companion"]);
}

/// Cuts, mends and kills at random while mail comes; then everything is mended, and both have every message once.
fn random_schedule(protocol: Protocol, messages: usize, most: Duration, seed: u64) {
    let Some(mut mail) = MailIn::start(protocol, "") else { return };
    let mut random = schedule::random(seed);
    let began = Instant::now();
    let mut kills = 0;
    while mail.saved.len() < messages && began.elapsed() < most {
        mail.save(1 + random(6) as usize);
        let line = [Line::Link, Line::HostPath, Line::CompanionPath][random(3) as usize];
        match random(8) {
            0 | 1 => mail.pair.network.cut(line, [Cut::Unplugged, Cut::Silent][random(2) as usize]),
            2..=4 => mail.pair.network.mend(line),
            _ => {
                let device = BOTH[random(2) as usize];
                mail.pair.end(device, Signal::KILL);
                mail.pair.run(device);
                kills += 1;
            }
        }
        std::thread::sleep(Duration::from_millis(random(400)));
    }
    for line in [Line::Link, Line::HostPath, Line::CompanionPath] {
        mail.pair.network.mend(line);
    }
    mail.all_at(&BOTH);
    mail.fetches_again(&BOTH);
    BOTH.iter().for_each(|device| mail.nothing_twice(device));
    println!("seed {seed}: {} messages, {kills} kills, {:?}", mail.saved.len(), began.elapsed());
}

#[test]
fn no_mail_by_imap_is_lost_or_doubled_whatever_is_cut_or_killed() {
    random_schedule(Protocol::Imap, 80, Duration::from_secs(20), schedule::seed(3));
}

#[test]
fn no_mail_by_pop3_is_lost_or_doubled_whatever_is_cut_or_killed() {
    random_schedule(Protocol::Pop3, 80, Duration::from_secs(20), schedule::seed(4));
}

#[test]
#[ignore = "long: a thousand messages"]
fn no_mail_of_a_thousand_is_lost_or_doubled() {
    random_schedule(Protocol::Imap, 1000, Duration::from_secs(170), schedule::seed(5));
}
