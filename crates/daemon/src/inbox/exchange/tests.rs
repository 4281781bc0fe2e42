//! Two devices' offices over a session in memory: what either lacks it gets, once, whatever is cut, said twice or untrue.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use packetboat_core::delivery::Now;
use packetboat_core::ids::BootId;
use packetboat_core::keys::PublicKey;
use packetboat_link::{Limits as LinkLimits, Request};
use packetboat_mail::fetched::{Flags, MailboxKey, Origin};
use packetboat_mail::maildir::FolderName;
use packetboat_testkit::rng::Rng;
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::clock::Clock;
use crate::inbox::office::OfficeParts;
use crate::inbox::words::encode_descriptions;
use crate::inbox_store::listing::newest;

struct Wall;

impl Clock for Wall {
    fn now(&self) -> Now {
        Now { boot: BootId([0; 16]), since_boot_ms: 1, wall_ms: 1_795_338_000_000 }
    }
}

/// Where the devices of a test live.
struct Homes(TempDir);

impl Homes {
    fn device(&self, name: &str) -> Device {
        Device::at(tempfile::tempdir_in(&self.0).unwrap().keep(), name)
    }
}

/// Runs a test with devices.
///
/// Their homes go after the runtime: what a task began on a blocking thread goes on when the task is ended, and would
/// make anew what was removed under it.
fn with_homes(test: impl AsyncFnOnce(&Homes)) {
    let homes = Homes(TempDir::new().unwrap());
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test(&homes));
}

/// One device.
struct Device {
    home: PathBuf,
    office: Arc<Office>,
    exchange: Arc<Exchange>,
}

impl Device {
    fn at(home: PathBuf, name: &str) -> Self {
        let office = Office::new(OfficeParts {
            record: home.join("inbox.db"),
            maildir: home.join("Mail"),
            host_name: name.to_owned(),
            clock: Arc::new(Wall),
            entropy: Box::new(Rng::new(name.len() as u64)),
            paired: true,
        });
        Self { home, exchange: Exchange::new(office.clone()), office }
    }

    /// As its own path would have fetched it.
    async fn fetches(&self, origin: Origin, bytes: &[u8]) {
        let mut deliverer = self.office.deliverer().await.unwrap();
        let folder = match &origin {
            Origin::Imap { mailbox, .. } => FolderName::for_mailbox(&mailbox.mailbox, Some("/")).unwrap(),
            Origin::Pop3 { .. } => FolderName::inbox(),
        };
        let received = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(1_700_000_000));
        deliverer.begin(Arrival { origin, folder, flags: Flags::default(), received, path: Path::Own }).unwrap();
        deliverer.write(bytes).unwrap();
        deliverer.end().unwrap();
        deliverer.flush().unwrap();
        self.office.tell_news();
    }

    fn files(&self) -> Vec<PathBuf> {
        let mail = self.home.join("Mail");
        let mut found: Vec<PathBuf> = ["new", "cur"]
            .iter()
            .flat_map(|part| fs::read_dir(mail.join(part)).into_iter().flatten().flatten())
            .map(|entry| entry.path())
            .collect();
        found.sort();
        found
    }

    /// The messages of the inbox as their servers sent them.
    fn messages(&self) -> Vec<Vec<u8>> {
        let read = |path: &PathBuf| {
            let text = fs::read(path).unwrap();
            text.split(|byte| *byte == b'\n').collect::<Vec<_>>().join(&b"\r\n"[..])
        };
        let mut found: Vec<Vec<u8>> = self.files().iter().map(read).collect();
        found.sort();
        found
    }

    fn paths(&self) -> Vec<String> {
        let listed = newest(&self.home.join("inbox.db"), &self.home.join("Mail"), 100).unwrap();
        listed.into_iter().map(|mail| mail.path).collect()
    }

    async fn knows(&self, origin: Origin) -> bool {
        self.office.with_store(move |store| store.is_known(&origin)).await.unwrap()
    }
}

/// A link between two devices, as the daemon serves it.
struct Joined {
    tasks: JoinSet<()>,
    ends: [Session; 2],
    steps: Arc<Steps>,
}

/// Counts what passes over a link, and cuts it at a chosen step.
#[derive(Default)]
struct Steps {
    taken: AtomicUsize,
    fatal: Option<usize>,
}

impl Steps {
    /// One step; the session is closed where it is the fatal one, and nothing passes from then on.
    fn step(&self, session: &Session) -> bool {
        let step = 1 + self.taken.fetch_add(1, Ordering::SeqCst);
        if self.fatal.is_some_and(|fatal| step >= fatal) {
            session.close();
            return false;
        }
        true
    }
}

impl Joined {
    fn new(here: &Device, there: &Device) -> Self {
        Self::until(here, there, None)
    }

    /// The same, but cut when one of the two hears something, is asked for something, or has given it.
    fn until(here: &Device, there: &Device, fatal: Option<usize>) -> Self {
        let steps = Arc::new(Steps { fatal, ..Steps::default() });
        let keys = [PublicKey([1; 32]), PublicKey([2; 32])];
        let ends = Session::pair_in_memory(keys, &LinkLimits::default());
        let mut tasks = JoinSet::new();
        for (device, session) in [here, there].into_iter().zip(&ends) {
            let (tell, heard) = mpsc::channel(64);
            let (hearing, answering, exchange) = (session.clone(), session.clone(), device.exchange.clone());
            tasks.spawn(device.exchange.clone().serve(session.clone(), heard));
            let (heard_steps, given_steps) = (steps.clone(), steps.clone());
            tasks.spawn(async move {
                while let Ok(message) = hearing.receive().await {
                    assert_eq!(message[0], CHANNEL_INBOX);
                    if !heard_steps.step(&hearing) {
                        return;
                    }
                    let _lost = tell.try_send(message[1..].to_vec());
                }
            });
            tasks.spawn(async move {
                let mut giving = JoinSet::new();
                while let Ok(Request::Get(request)) = answering.next_request().await {
                    let (exchange, steps, session) = (exchange.clone(), given_steps.clone(), answering.clone());
                    giving.spawn(async move {
                        if steps.step(&session) && exchange.give(request).await.is_ok() {
                            steps.step(&session);
                        }
                    });
                }
            });
        }
        Self { tasks, ends, steps }
    }

    async fn cut(mut self) {
        self.ends[0].close();
        self.tasks.shutdown().await;
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = timeout(Duration::from_secs(20), async {
        while !holds().await {
            sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "not within 20 s: {what}");
}

fn imap(validity: u32, uid: u32) -> Origin {
    let mailbox = MailboxKey { account: "imap a@h".into(), mailbox: "INBOX".into(), validity };
    Origin::Imap { mailbox, uid }
}

fn pop3(uidl: &str) -> Origin {
    Origin::Pop3 { account: "pop3 a@h".into(), uidl: uidl.into() }
}

fn mail(number: u32) -> Vec<u8> {
    format!("Received: by h; Sun, 22 Nov 2026 10:00:{:02} +0000\r\nSubject: {number}\r\n\r\nbody\r\n", number % 60)
        .into()
}

/// Nothing more travels within a while in which much could.
async fn quiet() {
    sleep(Duration::from_millis(500)).await;
}

#[test]
fn what_only_one_side_could_fetch_is_at_both_once() {
    with_homes(async |homes| {
        let (host, companion) = (homes.device("host"), homes.device("companion"));
        for number in 0..30 {
            host.fetches(imap(7, number + 1), &mail(number)).await;
        }
        for number in 30..50 {
            companion.fetches(pop3(&format!("u{number}")), &mail(number)).await;
        }
        let joined = Joined::new(&host, &companion);
        until("both have all", async || host.files().len() == 50 && companion.files().len() == 50).await;
        // Some more comes while they are joined, by either.
        companion.fetches(imap(7, 100), &mail(100)).await;
        host.fetches(pop3("u101"), &mail(101)).await;
        until("both have those too", async || host.files().len() == 52 && companion.files().len() == 52).await;
        quiet().await;
        let mut all: Vec<Vec<u8>> = (0..50).chain([100, 101]).map(mail).collect();
        all.sort();
        assert_eq!((host.messages(), companion.messages()), (all.clone(), all));
        assert_eq!(host.paths().iter().filter(|path| *path == "link").count(), 21);
        assert_eq!(companion.paths().iter().filter(|path| *path == "link").count(), 31);
        // What came over the link has its origin too, so that the own path does not fetch it again.
        assert!(companion.knows(imap(7, 30)).await && host.knows(pop3("u49")).await);
        let file = companion.files().remove(0);
        let modified = fs::metadata(file).unwrap().modified().unwrap();
        assert_eq!(modified.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs(), 1_700_000_000);
        joined.cut().await;
    });
}

#[test]
fn the_same_mail_by_imap_here_and_pop3_there_is_one() {
    with_homes(async |homes| {
        let (host, companion) = (homes.device("host"), homes.device("companion"));
        host.fetches(imap(7, 1), &mail(1)).await;
        // POP3 cannot say whether the last line was ended.
        companion.fetches(pop3("u1"), &mail(1)).await;
        let joined = Joined::new(&host, &companion);
        // From then on the UID speaks for it, also at the companion.
        until("the companion knows the UID", async || companion.knows(imap(7, 1)).await).await;
        quiet().await;
        assert_eq!((host.files().len(), companion.files().len()), (1, 1));
        joined.cut().await;
    });
}

#[test]
fn another_uidvalidity_brings_nothing_again() {
    with_homes(async |homes| {
        let (host, companion) = (homes.device("host"), homes.device("companion"));
        for number in 0..5 {
            host.fetches(imap(7, number + 1), &mail(number)).await;
            companion.fetches(imap(7, number + 1), &mail(number)).await;
        }
        // The server numbers anew; the host has seen it, with one message more, and the companion has not.
        for number in 0..6 {
            host.fetches(imap(8, 10 - number), &mail(number)).await;
        }
        let joined = Joined::new(&host, &companion);
        until("the companion has the new one", async || companion.files().len() == 6).await;
        until("it knows the new numbers", async || companion.knows(imap(8, 10)).await).await;
        quiet().await;
        assert_eq!((host.files().len(), companion.files().len()), (6, 6));
        joined.cut().await;
    });
}

#[test]
fn what_was_deleted_is_not_revived() {
    with_homes(async |homes| {
        let (host, companion) = (homes.device("host"), homes.device("companion"));
        for number in 0..4 {
            host.fetches(imap(7, number + 1), &mail(number)).await;
            host.fetches(pop3(&format!("u{}", number + 10)), &mail(number + 10)).await;
        }
        let joined = Joined::new(&host, &companion);
        until("both have all", async || companion.files().len() == 8).await;
        // One by its user's mail program, one by telling the record.
        for file in host.files().iter().take(4) {
            fs::remove_file(file).unwrap();
        }
        let digest = MessageDigest::of(&mail(3));
        companion.office.with_store(move |store| store.delete(&FolderName::inbox(), &digest)).await.unwrap();
        joined.cut().await;
        let joined = Joined::new(&host, &companion);
        companion.fetches(imap(7, 50), &mail(50)).await;
        until("what is new comes", async || host.files().len() == 5).await;
        quiet().await;
        assert_eq!((host.files().len(), companion.files().len()), (5, 9));
        // What is deleted here is offered to nobody, and a third device would not get it from here.
        let third = homes.device("third");
        joined.cut().await;
        let joined = Joined::new(&companion, &third);
        until("the third has the others", async || third.files().len() == 8).await;
        quiet().await;
        assert!(!third.messages().contains(&mail(3)));
        joined.cut().await;
    });
}

#[test]
fn a_link_that_is_cut_in_the_midst_loses_and_doubles_nothing() {
    with_homes(async |homes| {
        let (host, companion) = (homes.device("host"), homes.device("companion"));
        let large = |number: u32| [mail(number), vec![b'x'; 1 << 21], b"\r\n".to_vec()].concat();
        for number in 0..60 {
            host.fetches(imap(7, number + 1), &if number % 20 == 0 { large(number) } else { mail(number) }).await;
        }
        for milliseconds in [1, 5, 10, 20, 40, 60, 90, 130] {
            let joined = Joined::new(&host, &companion);
            sleep(Duration::from_millis(milliseconds)).await;
            joined.cut().await;
        }
        let joined = Joined::new(&host, &companion);
        until("the companion has all", async || companion.files().len() >= 60).await;
        quiet().await;
        assert_eq!(companion.messages(), host.messages());
        assert_eq!(companion.files().len(), 60);
        joined.cut().await;
    });
}

#[test]
fn a_link_that_is_cut_at_any_step_loses_and_doubles_nothing() {
    with_homes(async |homes| {
        let fresh = async || {
            let (host, companion) = (homes.device("host"), homes.device("companion"));
            for number in 0..4 {
                host.fetches(imap(7, number + 1), &mail(number)).await;
                companion.fetches(imap(7, number + 11), &mail(number + 10)).await;
                host.fetches(pop3(&format!("h{number}")), &mail(number + 20)).await;
                companion.fetches(pop3(&format!("c{number}")), &mail(number + 30)).await;
            }
            // One that both fetched before they saw each other, each by its own protocol.
            host.fetches(imap(7, 9), &mail(59)).await;
            companion.fetches(pop3("both"), &mail(59)).await;
            (host, companion)
        };
        let whole = {
            let (host, companion) = fresh().await;
            let joined = Joined::new(&host, &companion);
            until("both have all", async || host.files().len() == 17 && companion.files().len() == 17).await;
            quiet().await;
            let taken = joined.steps.taken.load(Ordering::SeqCst);
            joined.cut().await;
            taken
        };
        assert!(whole > 40, "{whole}");
        let mut expected: Vec<Vec<u8>> =
            [0, 10, 20, 30].iter().flat_map(|first| (0..4).map(move |n| mail(first + n))).collect();
        expected.push(mail(59));
        expected.sort();
        for fatal in 1..=whole {
            let (host, companion) = fresh().await;
            let mut joined = Joined::until(&host, &companion, Some(fatal));
            // Both sides see the end by themselves, and leave the session.
            let _ended = timeout(Duration::from_secs(5), joined.ends[0].ended()).await;
            joined.tasks.shutdown().await;
            let joined = Joined::new(&host, &companion);
            until("both have all", async || host.files().len() >= 17 && companion.files().len() >= 17).await;
            until("the doubled origin is known", async || companion.knows(imap(7, 9)).await).await;
            joined.cut().await;
            assert_eq!((host.messages(), companion.messages()), (expected.clone(), expected.clone()), "cut at {fatal}");
        }
    });
}

#[test]
fn only_what_both_hold_may_be_deleted_at_the_server() {
    with_homes(async |homes| {
        let (host, companion) = (homes.device("host"), homes.device("companion"));
        let key = MailboxKey { account: "imap a@h".into(), mailbox: "INBOX".into(), validity: 7 };
        for number in 0..3 {
            host.fetches(imap(7, number + 1), &mail(number)).await;
        }
        host.fetches(pop3("u9"), &mail(9)).await;
        let deletable = async |device: &Device| {
            let uids = device.office.deletable_uids(key.clone()).await.unwrap();
            let uidls = device.office.deletable_uidls("pop3 a@h".to_owned()).await.unwrap();
            (uids.to_string(), uidls.len())
        };
        assert_eq!(deletable(&host).await, (String::new(), 0), "the companion has nothing yet");
        let joined = Joined::new(&host, &companion);
        until("the host hears that both hold it", async || deletable(&host).await == ("1:3".to_owned(), 1)).await;
        until("so does the companion", async || deletable(&companion).await == ("1:3".to_owned(), 1)).await;
        joined.cut().await;
        host.fetches(imap(7, 4), &mail(4)).await;
        assert_eq!(deletable(&host).await.0, "1:3", "the fourth is at the host alone");
    });
}

/// A peer that answers every request with what `lie` gives.
async fn with_liar(device: &Device, lie: impl Fn(&Wanted) -> Option<Vec<u8>> + Send + 'static) -> String {
    let keys = [PublicKey([1; 32]), PublicKey([2; 32])];
    let [here, there] = Session::pair_in_memory(keys, &LinkLimits::default());
    let (tell, heard) = mpsc::channel(64);
    let mut tasks = JoinSet::new();
    tasks.spawn(device.exchange.clone().serve(here, heard));
    tell.send(Said::News.encode()).await.unwrap();
    tasks.spawn(async move {
        while let Ok(Request::Get(request)) = there.next_request().await {
            let Some(bytes) = Wanted::decode(&request.name).and_then(|wanted| lie(&wanted)) else {
                let _gone = request.refuse(Refusal::Missing).await;
                continue;
            };
            let Ok(mut outgoing) = request.accept(bytes.len() as u64).await else { continue };
            let _cut = outgoing.write(bytes).await;
            let _cut = outgoing.finish().await;
        }
    });
    until("the lie is seen", async || device.exchange.trouble().is_some()).await;
    tasks.shutdown().await;
    device.exchange.trouble().unwrap()
}

#[test]
fn a_peer_that_lies_puts_nothing_else_into_the_maildir() {
    with_homes(async |homes| {
        let held = |digest| {
            let Origin::Imap { mailbox, .. } = imap(7, 1) else { unreachable!() };
            let origin = Origin::Imap { mailbox, uid: 1 };
            Held { origin, folder: FolderName::inbox(), digest, size: 3, flags: Flags::default() }
        };
        let catalogue = || {
            let Origin::Imap { mailbox, .. } = imap(7, 1) else { unreachable!() };
            let set: UidSet = [1].into_iter().collect();
            UidCatalogue::new([(crate::inbox_store::compared_key(&mailbox), set)]).encode(1000).unwrap()
        };
        // Other bytes than it said.
        for size in [100usize, 3 << 20] {
            let device = homes.device("host");
            let said = with_liar(&device, move |wanted| match wanted {
                Wanted::Uids => Some(catalogue()),
                Wanted::OfUids(_) => Some(encode_descriptions(&[held(MessageDigest([9; 32]))])),
                _ => Some(vec![b'a'; size]),
            })
            .await;
            assert!(said.contains("another message"), "{said}");
            assert_eq!(device.files().len(), 0);
            assert!(!device.knows(imap(7, 1)).await);
        }
        // Descriptions of what nobody asked about, and nonsense.
        let device = homes.device("host");
        let said = with_liar(&device, move |wanted| match wanted {
            Wanted::Uids => Some(catalogue()),
            Wanted::OfUids(_) => {
                let origin = imap(7, 2);
                Some(encode_descriptions(&[Held { origin, ..held(MessageDigest([9; 32])) }]))
            }
            _ => None,
        })
        .await;
        assert!(said.contains("not asked"), "{said}");
        let device = homes.device("host");
        let said = with_liar(&device, |_| Some(vec![0xff; 50])).await;
        assert!(said.contains("meaning"), "{said}");
    });
}

#[test]
fn parts_of_what_is_lacking_fit_requests() {
    let Origin::Imap { mailbox, .. } = imap(7, 1) else { unreachable!() };
    let name = "x".repeat(1024);
    let mailbox = MailboxKey { account: name.as_str().into(), mailbox: name.as_str().into(), ..mailbox };
    let key = crate::inbox_store::compared_key(&mailbox);
    let mut holes: UidSet = (0..2000u32).map(|number| u32::MAX - number * 2_000_000).collect();
    holes.insert_run(1, 2500);
    let all = UidCatalogue::new([(key.clone(), holes)]);
    let parts = parts(&all);
    let mut together = UidSet::new();
    for part in &parts {
        assert!(Wanted::OfUids(part.clone()).encode().is_some_and(|name| name.len() <= 4096));
        assert!(part.mailboxes().map(|(_, set)| set.len()).sum::<u64>() <= UIDS_AT_ONCE);
        part.mailboxes().flat_map(|(_, set)| set.runs()).for_each(|(first, last)| together.insert_run(first, last));
    }
    assert_eq!(UidCatalogue::new([(key, together)]), all);
}
