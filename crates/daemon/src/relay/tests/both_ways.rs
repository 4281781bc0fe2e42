//! One host with two ways, its own and its companion's, in any order: nothing is lost, nothing counts twice, no lane is
//! taken for a forked one, and nothing is at the intermediary before what it needs.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use packetboat_core::ids::VaultId;
use packetboat_core::keys::KeyRing;
use packetboat_core::packet::SealedPacket;
use packetboat_core::store::Store;
use packetboat_engine::ports::Silent;
use packetboat_engine::replica::{Replica, Report, SyncOptions};
use packetboat_replica::index::Index;
use packetboat_storage::folder::FolderStore;
use packetboat_testkit::rng::Rng;
use packetboat_testkit::sim_fs::{SimFs, SimOptions};

use super::super::carried::Carried;
use super::super::deposits::Deposits;
use super::super::members::{Members, Replicas};
use super::super::places::Places;
use super::super::shelf::Shelf;
use super::super::store::LinkAsk;
use super::devices::Device;
use super::{TestLink, still};

/// A folder whose replica is opened anew for each round, as the command does, so that it can go another way each time.
#[derive(Clone)]
struct Opened {
    fs: SimFs,
    index: PathBuf,
    rounds: u64,
}

impl Opened {
    fn join(fs: SimFs, index: PathBuf, store: Arc<dyn Store>, ring: &KeyRing, name: &str, seed: u64) -> Self {
        let mut parts = Device::parts(&fs, store, seed);
        parts.index = Index::open(&index).unwrap();
        drop(Replica::join(parts, ring.clone(), name).unwrap());
        Self { fs, index, rounds: seed * 1000 }
    }

    fn sync(&mut self, store: Arc<dyn Store>, place: &str) -> Result<Report, String> {
        self.rounds += 1;
        let mut parts = Device::parts(&self.fs, store, self.rounds);
        parts.index = Index::open(&self.index).unwrap();
        parts.place = place.to_owned();
        let mut replica = Replica::open(parts).unwrap();
        replica.sync(SyncOptions::default(), &mut Silent).map_err(|error| crate::files::with_causes(&error))
    }
}

/// The companion's own replica.
struct Own {
    vault: VaultId,
    place: PathBuf,
    replica: Mutex<Opened>,
}

struct OwnReplicas(Arc<Own>);

impl Replicas for OwnReplicas {
    fn places(&self) -> Vec<(VaultId, PathBuf)> {
        vec![(self.0.vault, self.0.place.clone())]
    }

    fn round(&self, _: VaultId, store: Arc<dyn Store>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.0.replica.lock().unwrap().sync(store, "companion").map(drop)?)
    }
}

/// A host with both ways, a companion that is a member or not, and another device at the intermediary.
struct Quartet {
    directory: tempfile::TempDir,
    link: TestLink,
    carried: Arc<Carried>,
    host: Opened,
    other: Device,
    own: Option<Arc<Own>>,
    deposits: Deposits,
    kept: Arc<Shelf>,
    vault: VaultId,
    ring: KeyRing,
    /// Whether the companion and the host reach the intermediary.
    reached: [bool; 2],
}

impl Quartet {
    fn new(member: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("place");
        std::fs::create_dir(&place).unwrap();
        let upstream: Arc<dyn Store> = Arc::new(FolderStore::new(&place));
        let maker = SimFs::new(SimOptions::default());
        let (replica, _) =
            Replica::create(Device::parts(&maker, upstream.clone(), 1), b"correct horse", "other").unwrap();
        let other = Device { fs: maker, replica };
        let marker = Replica::read_marker(upstream.as_ref()).unwrap().unwrap();
        let (ring, vault) = (marker.unlock_with_passphrase(b"correct horse").unwrap(), marker.vault());
        // The companion sees the place by another name, which can be taken away without the other.
        let mount = directory.path().join("mount");
        std::os::unix::fs::symlink(&place, &mount).unwrap();
        let shelf = Arc::new(Shelf::open(&directory.path().join("shelf"), 1 << 30, still()).unwrap());
        let places = directory.path().join("carried.json");
        let own = member.then(|| {
            let index = directory.path().join("own.db");
            let fs = SimFs::new(SimOptions::default());
            let replica = Opened::join(fs, index, upstream.clone(), &ring, "companion", 3);
            Arc::new(Own { vault, place: mount.clone(), replica: Mutex::new(replica) })
        });
        let members = match &own {
            Some(own) => Members::new(Box::new(OwnReplicas(own.clone())), still()),
            None => {
                let mut said = Places::default();
                said.add(vault, mount.clone());
                said.write(&places).unwrap();
                Members::none(still())
            }
        };
        let carried = Arc::new(Carried::new(places, shelf, Arc::new(members), true));
        let answering = carried.clone();
        let link = TestLink::new(move |request, body| answering.answer(request, body));
        let index = directory.path().join("host.db");
        let host = Opened::join(SimFs::new(SimOptions::default()), index, upstream, &ring, "host", 2);
        let kept = Arc::new(Shelf::open(&directory.path().join("deposits"), u64::MAX, still()).unwrap());
        let deposits = Deposits::new(kept.clone(), vault);
        Self { directory, link, carried, host, other, own, deposits, kept, vault, ring, reached: [true; 2] }
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::new(FolderStore::new(self.directory.path().join("place")))
    }

    fn ask(&self) -> LinkAsk {
        LinkAsk::new(self.link.runtime.handle().clone(), self.link.session.subscribe())
    }

    /// A round by the host's own way, as the command does it.
    fn directly(&mut self) {
        if self.reached[1] {
            self.deposits.bring(self.store()).unwrap();
            let report = self.host.sync(self.store(), "folder").unwrap();
            assert_eq!((report.rolled_back.len(), report.conflicts), (0, 0), "{report:?}");
        }
    }

    /// A round by the companion, as the command does it.
    fn by_companion(&mut self) {
        let asked = self.ask();
        if self.deposits.settle(&asked).is_err() {
            return;
        }
        let store = self.link.store(self.vault).keeping(self.kept.clone());
        let report = self.host.sync(Arc::new(store), "companion").unwrap();
        assert_eq!((report.rolled_back.len(), report.conflicts), (0, 0), "{report:?}");
    }

    fn set_companion(&mut self, reaches: bool) {
        let (mount, place) = (self.directory.path().join("mount"), self.directory.path().join("place"));
        match (self.reached[0], reaches) {
            (false, true) => std::os::unix::fs::symlink(place, mount).unwrap(),
            (true, false) => std::fs::remove_file(mount).unwrap(),
            _ => {}
        }
        self.reached[0] = reaches;
    }

    /// Every packet at the intermediary has its predecessors and its packs there.
    #[track_caller]
    fn nothing_dangles(&self, why: &str) {
        let store = self.store();
        for lane in store.list("tips").unwrap() {
            let device = lane.name.as_str().rsplit_once('/').unwrap().1.to_owned();
            let packets = store.list(&format!("lanes/{device}")).unwrap();
            let counters: BTreeSet<u64> = packets
                .iter()
                .map(|packet| packet.name.as_str().rsplit_once('/').unwrap().1.parse().unwrap())
                .collect();
            assert!(counters.iter().copied().eq(1..=counters.len() as u64), "{why}: {counters:?}");
            for packet in packets {
                let sealed = SealedPacket::from_bytes(store.get(&packet.name, 1 << 24).unwrap()).unwrap();
                let body = sealed.open(&self.ring).unwrap().body;
                for pack in body.packs.iter().map(|pack| pack.pack).chain(body.needs.iter().copied()) {
                    let name = packetboat_storage::pack::object_name(&pack);
                    assert!(store.get(&name, 1 << 26).is_ok(), "{why}: {} needs {name}", packet.name);
                }
            }
        }
    }

    /// When every way is open again, all are in step.
    fn settles(&mut self, why: &str) {
        self.reached[1] = true;
        self.set_companion(true);
        self.carried.work().unwrap();
        self.by_companion();
        self.directly();
        self.other.sync();
        self.carried.work().unwrap();
        self.other.sync();
        self.directly();
        self.by_companion();
        assert_eq!(self.deposits.held().unwrap().waiting, 0, "{why}");
        let expected = contents(&self.other.fs);
        assert_eq!(contents(&self.host.fs), expected, "{why}");
        if let Some(own) = &self.own {
            assert_eq!(contents(&own.replica.lock().unwrap().fs), expected, "{why}");
        }
        assert_eq!(self.other.replica.devices().unwrap().len(), if self.own.is_some() { 3 } else { 2 }, "{why}");
        assert_eq!(self.other.sync().conflicts, 0, "{why}");
        self.nothing_dangles(why);
    }
}

fn contents(fs: &SimFs) -> Vec<(Vec<u8>, Vec<u8>)> {
    let own = |path: &[u8]| path.starts_with(b".packetboat");
    let read = |path: Vec<u8>| fs.read(&path).ok().map(|bytes| (path, bytes));
    fs.tree().into_keys().filter(|path| !own(path)).filter_map(read).collect()
}

/// What can happen, one letter each.
///
/// ```text
/// e the host edits       d it goes directly      c it goes by the companion    o the other device edits and goes
/// a the companion loses the intermediary, A gets it back, and w works          l the link breaks, L is there again
/// h the host loses its own way, H gets it back                                 m the companion's user edits
/// ```
fn play(script: &str, member: bool) {
    let mut all = Quartet::new(member);
    let why = format!("{script:?}, a {}", if member { "member" } else { "carrier" });
    let answering = all.carried.clone();
    for (at, step) in script.chars().enumerate() {
        let text = format!("{at} {step} ").repeat(1500);
        match step {
            'e' => all.host.fs.write(format!("host-{}", at % 3), text.as_bytes()).unwrap(),
            'd' => all.directly(),
            'c' => all.by_companion(),
            'o' => {
                all.other.fs.write(format!("other-{}", at % 3), text.as_bytes()).unwrap();
                all.other.sync();
            }
            'a' => all.set_companion(false),
            'A' => all.set_companion(true),
            'w' => all.carried.work().unwrap(),
            'l' => all.link.cut(),
            'L' => {
                let answering = answering.clone();
                all.link.join(super::Answerer::with(move |request, body| answering.answer(request, body)));
            }
            'h' => all.reached[1] = false,
            'H' => all.reached[1] = true,
            'm' => {
                if let Some(own) = &all.own {
                    own.replica.lock().unwrap().fs.write(format!("own-{}", at % 3), text.as_bytes()).unwrap();
                }
            }
            _ => unreachable!("no such step"),
        }
        all.nothing_dangles(&format!("after {at} of {why}"));
    }
    let answering = all.carried.clone();
    all.link.cut();
    all.link.join(super::Answerer::with(move |request, body| answering.answer(request, body)));
    all.settles(&why);
}

#[test]
fn a_deposit_and_a_round_by_the_own_way_in_any_order_are_one() {
    for script in [
        "aecd",      // deposited, then directly, before the companion ever put it up
        "aecdAw",    // and the companion after it
        "aecdAwc",   // and by the companion again
        "aecAwd",    // the companion first
        "edaec",     // directly first, then by the companion that is away
        "edaecHd",   // and directly again
        "aecedAw",   // more was made since, and went directly
        "aeceld",    // the link is gone when the host goes directly
        "aecldeLcA", // deposits on both sides of a break
        "ecdec",     // both ways are open
        "aecocdAwo", // others go on meanwhile
    ] {
        play(script, false);
        play(script, true);
    }
}

#[test]
fn both_ways_in_any_order_lose_nothing_and_count_nothing_twice() {
    let steps: Vec<char> = "eeeddcccooaAwwlLhHm".chars().collect();
    let seeds = 40;
    for seed in 0..seeds {
        let mut rng = Rng::new(seed);
        let script: String = (0..14).map(|_| steps[usize::from(rng.bytes(1)[0]) % steps.len()]).collect();
        play(&script, seed % 2 == 0);
    }
}

#[test]
fn a_member_companion_and_its_host_are_in_step_while_nothing_else_is_reached() {
    let mut all = Quartet::new(true);
    all.set_companion(false);
    all.host.fs.write("from-host", b"written on a train").unwrap();
    all.by_companion();
    all.carried.work().unwrap();
    let own = all.own.clone().unwrap();
    own.replica.lock().unwrap().fs.write("from-companion", &[3; 40_000]).unwrap();
    all.carried.work().unwrap();
    all.by_companion();
    assert_eq!(own.replica.lock().unwrap().fs.read("from-host").unwrap(), b"written on a train");
    assert_eq!(all.host.fs.read("from-companion").unwrap(), [3; 40_000]);
    all.other.sync();
    assert!(contents(&all.other.fs).is_empty(), "the intermediary has none of it yet");
    all.settles("a train");
}

#[test]
fn what_a_companion_lost_is_deposited_again() {
    let mut all = Quartet::new(false);
    all.set_companion(false);
    all.host.fs.write("one", &[1; 30_000]).unwrap();
    all.by_companion();
    let waits = all.deposits.held().unwrap().waiting;
    assert!(waits >= 2, "a pack and a packet at least");
    // Another shelf, as after the companion was set up anew.
    let shelf = Arc::new(Shelf::open(&all.directory.path().join("fresh"), 1 << 30, still()).unwrap());
    let carried = Arc::new(Carried::new(
        all.directory.path().join("carried.json"),
        shelf.clone(),
        Arc::new(Members::none(still())),
        true,
    ));
    all.carried = carried.clone();
    all.link.cut();
    all.link.join(super::Answerer::with(move |request, body| carried.answer(request, body)));
    assert_eq!(all.deposits.settle(&all.ask()).unwrap(), waits);
    assert_eq!(shelf.held(all.vault).unwrap().waiting, waits);
    all.settles("a lost shelf");
}
