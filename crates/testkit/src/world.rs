//! A world of replicas: several devices on simulated disks, one misbehaving storage, a virtual clock, all by one seed.
//!
//! Users edit, rename, delete and create at random; devices synchronise, lose power and are killed at random.
//! The world keeps an account of what the users wrote and knowingly replaced, and in the end, when all devices have
//! synchronised without faults until nothing moves, holds the replicas to the promises:
//!
//! 1. every content that was written and not knowingly replaced or deleted is on every disk;
//! 2. all disks show the same tree, and all indexes the same state;
//! 3. no disk shows a content that nobody wrote;
//! 4. a further round changes nothing and publishes nothing.
//!
//! A failure prints the seed. The same seed gives the same [`World::trace`].

mod by_hand;
mod carrying;
mod comings;
mod edits;
mod meanwhile;
mod pruning;
mod replacing;
mod rest;
mod shown;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use packetboat_core::ids::VaultId;
use packetboat_core::keys::{KeyRing, Nonce, RootKey};
use packetboat_core::marker::{Argon2Cost, Marker, NewPassphrase, NewRecovery};
use packetboat_core::recovery::RecoveryKey;
use packetboat_core::store::ObjectName;
use packetboat_engine::RemovalError;
use packetboat_engine::error::{QueryError, SyncError};
use packetboat_engine::ignore_rules::IGNORE_FILE;
use packetboat_engine::ports::{Clock, Note, Observer, Phase, Silent};
use packetboat_engine::replica::{Keep, Parts, Replica, Report, Settings, SyncOptions};
use packetboat_replica::index::Index;

use self::edits::{Account, random_edit};
use self::meanwhile::Meanwhile;
use self::shown::{
    Watching, assert_same_tree, content, describe, is_quiet, listing, only_waits, visible, without_mtime,
};
use crate::crash::was_crash;
use crate::faulty_store::{FaultConfig, FaultyStore};
use crate::rng::Rng;
use crate::sim_fs::{CrashModel, Node, SimFs, SimOptions};

/// What may happen in a world.
#[derive(Clone, Debug)]
pub struct WorldOptions {
    /// How many devices there are.
    pub devices: usize,
    /// How many steps are taken before the world settles.
    pub steps: usize,
    /// How the storage misbehaves while the world runs.
    pub faults: FaultConfig,
    /// How often, in a hundred syncs, a device crashes in it.
    pub crash_percent: u64,
    /// What a crash leaves of unsynced writes.
    pub crash_model: CrashModel,
    /// Whether users rename and move.
    pub moves: bool,
    /// Whether users delete.
    pub deletes: bool,
    /// Whether users change permissions and make symlinks.
    pub oddities: bool,
    /// Whether somebody edits between two calls of a running round.
    pub races: bool,
    /// Whether so little travels inside packets that packs are made, too.
    pub small_packs: bool,
    /// Whether a folder of which nothing is recorded is taken in a few objects at a time.
    pub small_portions: bool,
    /// Whether users write what others wrote, settle conflicts and set attributes; needs a storage that behaves.
    pub settling: bool,
    /// Whether devices join later, and lose their index.
    pub newcomers: bool,
    /// Whether users change the ignore rules.
    pub ignoring: bool,
    /// Whether devices are retired and come back, or are revoked and join again.
    pub leaving: bool,
    /// Whether nobody is revoked where devices leave.
    pub retiring_alone: bool,
    /// Whether disks are cloned, and backups of disk and index restored.
    pub copies: bool,
    /// Whether devices let go of history and garbage.
    pub pruning: bool,
    /// Whether users put one object in the place of another, often of another kind.
    pub replacing: bool,
    /// Whether a device synchronises, or lets go, between two requests of another's round.
    pub meanwhile: bool,
    /// Whether there is a second storage: some devices see the one, some the other, and some now this and now that.
    pub second_storage: bool,
    /// Whether users write again what is gone, just while another device lets it go.
    pub rewriting: bool,
    /// Whether all happens within seconds, so that times tell little of what was written when.
    pub hasty: bool,
}

impl Default for WorldOptions {
    fn default() -> Self {
        Self {
            devices: 3,
            steps: 40,
            faults: FaultConfig::none(),
            crash_percent: 0,
            crash_model: CrashModel::OrderedMetadata,
            moves: true,
            deletes: true,
            oddities: true,
            races: false,
            small_packs: false,
            small_portions: false,
            settling: false,
            newcomers: false,
            ignoring: false,
            leaving: false,
            retiring_alone: false,
            copies: false,
            pruning: false,
            replacing: false,
            meanwhile: false,
            second_storage: false,
            rewriting: false,
            hasty: false,
        }
    }
}

/// Several devices, their users and the storage between them.
pub struct World {
    rng: Rng,
    options: WorldOptions,
    now: Arc<AtomicI64>,
    store: FaultyStore,
    /// Another storage, of which some devices know.
    second: Option<FaultyStore>,
    ring: KeyRing,
    /// What opens markers, where there are some: each change of the root key writes another.
    recovery: Vec<RecoveryKey>,
    revocations: usize,
    backups: Vec<Backup>,
    devices: Vec<Device>,
    account: Arc<Mutex<Account>>,
    trace: blake3::Hasher,
    log: Vec<String>,
    happened: Happened,
    meanwhile: Option<Meanwhile>,
}

/// What happened in worlds that a test must have seen to prove anything, and how often.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Happened(BTreeMap<String, u64>);

impl Happened {
    /// Counts something.
    pub fn add(&mut self, what: impl Into<String>, times: u64) {
        *self.0.entry(what.into()).or_default() += times;
    }

    /// Counts all that another has counted.
    pub fn merge(&mut self, other: &Self) {
        for (what, times) in &other.0 {
            self.add(what, *times);
        }
    }

    /// How often something happened.
    pub fn times(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }
}

/// Disk and index of a device as they were.
struct Backup {
    name: String,
    index: Index,
    fs: SimFs,
}

struct Device {
    name: String,
    fs: SimFs,
    store: FaultyStore,
    /// What it calls that storage.
    place: &'static str,
    /// Its way to another storage, where it goes to two.
    elsewhere: Option<(&'static str, FaultyStore)>,
    skew: i64,
    /// `None` only while it is being started again.
    replica: Option<Replica>,
    /// What its folder showed after a crash, until a round has ended well. Its user may replace what the crash kept from
    /// being recorded as seen, and then it stands beside: docs/semantics.md.
    unrecorded: BTreeSet<Vec<u8>>,
}

fn marker(root: &RootKey, recovery: &RecoveryKey) -> Vec<u8> {
    let (salt, nonce) = ([6; 16], Nonce([6; 24]));
    let passphrase = NewPassphrase { passphrase: b"first", cost: Argon2Cost::MINIMUM, salt, nonce };
    let slot = NewRecovery { key: recovery, nonce: Nonce([7; 24]) };
    Marker::create(VaultId([7; 16]), 0, root, passphrase, slot).encode()
}

impl World {
    /// A world with a vault, its devices joined and their folders empty.
    pub fn new(seed: u64, options: WorldOptions) -> Self {
        let mut rng = Rng::new(seed);
        let now = Arc::new(AtomicI64::new(1_790_000_000_000));
        let store = FaultyStore::new(rng.next_u64(), FaultConfig::none());
        // The passphrase is no part of these stories, and deriving keys from one takes longer than a whole life here.
        let mut root = [0; 32];
        root.copy_from_slice(&rng.bytes(32));
        let root = RootKey(root);
        let recovery = RecoveryKey([5; 32]);
        // Where nobody is revoked nobody opens the marker: any will do, and making one takes longer than a whole life here.
        static OF_NO_KEY: OnceLock<Vec<u8>> = OnceLock::new();
        let marker = match options.leaving || options.pruning {
            true => marker(&root, &recovery),
            false => OF_NO_KEY.get_or_init(|| marker(&RootKey([0; 32]), &recovery)).clone(),
        };
        let marker_name = ObjectName::new("packetboat").expect("a sound name");
        store.plant(&marker_name, &marker);
        let ring = KeyRing::new(VaultId([7; 16]), root);
        let mut second = options.second_storage.then(|| FaultyStore::new(rng.next_u64(), FaultConfig::none()));
        second.iter().for_each(|store| store.plant(&marker_name, &marker));
        // Groups that have never met cannot know whom the other one has revoked, or what it has let go.
        let copy = if options.leaving || options.pruning { second.take() } else { None };
        let mut world = Self {
            rng,
            options,
            now,
            store,
            second,
            ring,
            recovery: vec![recovery],
            revocations: 0,
            backups: Vec::new(),
            devices: Vec::new(),
            account: Arc::default(),
            trace: blake3::Hasher::new(),
            log: Vec::new(),
            happened: Happened::default(),
            meanwhile: None,
        };
        for _ in 0..world.options.devices {
            let options = SimOptions { crash_model: world.options.crash_model, ..SimOptions::default() };
            world.join(SimFs::new(options));
        }
        if let Some(copy) = copy {
            world.go_apart(copy);
        }
        for device in &world.devices {
            device.set_faults(&world.options.faults);
        }
        world
    }

    /// Another device joins with this disk, whatever is on it; returns its number.
    pub fn join(&mut self, fs: SimFs) -> usize {
        let name = format!("device{}", self.devices.len());
        fs.set_now(self.now.load(Ordering::SeqCst) * 1_000_000);
        if !fs.exists(".packetboat") {
            fs.make_dir(".packetboat").expect("a disk with room");
        }
        fs.settle();
        let ((place, store), elsewhere) = self.ways(self.devices.len());
        let parts = self.parts(&fs, place, &store, Index::in_memory().expect("memory"), 0);
        let replica = Some(Replica::join(parts, self.ring.clone(), &name).expect("a sound name"));
        let unrecorded = BTreeSet::new();
        self.devices.push(Device { name, fs, store, place, elsewhere, skew: 0, replica, unrecorded });
        self.devices.len() - 1
    }

    /// A device loses its index, and with it its key; it joins again with the disk that it has.
    pub fn lose_index(&mut self, at: usize) {
        let fs = self.devices[at].fs.kill();
        let now = self.join(fs);
        let mut again = self.devices.swap_remove(now);
        again.name = format!("{} again", self.devices[at].name);
        self.go_where_it_went(&mut again, at);
        again.set_faults(&self.options.faults);
        self.devices[at] = again;
    }

    /// A device goes on with another disk beneath its folder, or the same, and with the storage that it sees now.
    pub fn replace_disk(&mut self, at: usize, fs: SimFs) {
        let index = self.devices[at].replica.take().expect("started").into_parts().index;
        let parts = self.parts_of(at, &fs, index);
        self.devices[at].fs = fs;
        self.devices[at].replica = Some(Replica::open(parts).expect("the index holds its keys"));
    }

    /// Runs a whole life: random steps, then settling, then the promises.
    pub fn run(seed: u64, options: WorldOptions) -> [u8; 32] {
        Self::run_counting(seed, options).0
    }

    /// The same; says too what happened.
    pub fn run_counting(seed: u64, mut options: WorldOptions) -> ([u8; 32], Happened) {
        options.small_packs |= seed.is_multiple_of(2);
        options.small_portions |= seed.is_multiple_of(3);
        let mut world = Self::new(seed, options);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..world.options.steps {
                world.step();
            }
            world.settle();
            world.check();
            match (world.options.pruning, world.options.second_storage) {
                (true, false) => world.check_letting_go(),
                (true, true) => world.check_what_newcomers_see(),
                (false, _) => {}
            }
        }));
        if let Err(panic) = outcome {
            eprintln!("seed {seed} failed; what happened:\n{}", world.log.join("\n"));
            std::panic::resume_unwind(panic);
        }
        (world.trace(), world.happened)
    }

    /// A hash of everything that happened.
    pub fn trace(&self) -> [u8; 32] {
        *self.trace.finalize().as_bytes()
    }

    /// What a device is made of that goes on with this disk and index.
    fn parts_of(&mut self, at: usize, fs: &SimFs, index: Index) -> Parts {
        let Device { place, store, skew, .. } = &self.devices[at];
        let (place, store, skew) = (*place, store.clone(), *skew);
        self.parts(fs, place, &store, index, skew)
    }

    fn parts(&mut self, fs: &SimFs, place: &str, store: &FaultyStore, index: Index, skew: i64) -> Parts {
        Parts {
            fs: Arc::new(fs.clone()),
            index,
            store: Arc::new(store.clone()),
            place: place.to_owned(),
            clock: Box::new(SimClock { now: Arc::clone(&self.now), skew }),
            entropy: Box::new(self.rng.fork()),
            settings: Settings {
                passphrase_cost: Argon2Cost::MINIMUM,
                portion: if self.options.small_portions { 2 } else { Settings::default().portion },
                inline_bytes: if self.options.small_packs { [0, 4, 30_000][self.rng.index(3)] } else { 256 * 1024 },
                lets_go_by_itself: self.options.pruning,
                ..Settings::default()
            },
        }
    }

    fn note(&mut self, text: String) {
        self.trace.update(text.as_bytes());
        if std::env::var_os("PACKETBOAT_TRACE").is_some() {
            eprintln!("{text}");
        }
        self.log.push(text);
    }

    /// Lets one user or one device do something.
    pub fn step(&mut self) {
        let passed = self.rng.below(if self.options.hasty { 100 } else { 20_000 }) as i64;
        let now = self.now.fetch_add(passed, Ordering::SeqCst) + passed;
        let at = self.rng.index(self.devices.len());
        self.devices[at].fs.set_now(now * 1_000_000);
        if self.rng.chance(1, 60) {
            self.devices[at].skew = self.rng.below(86_400_000 * 400) as i64 - 86_400_000 * 200;
        }
        if self.options.newcomers && self.rng.chance(1, 25) {
            self.join_or_begin_again(at);
        }
        if self.options.settling && self.rng.chance(1, 12) {
            self.settle_a_conflict(at);
        }
        if self.options.leaving && self.rng.chance(1, 15) {
            self.send_away(at);
        }
        if self.options.copies && self.rng.chance(1, 12) {
            self.copy(at);
        }
        if self.options.pruning && self.rng.chance(1, 8) {
            self.prune_badly(at);
        }
        if self.options.rewriting && self.rng.chance(1, 12) {
            self.write_again_what_is_let_go(at);
        }
        self.account.lock().expect("nobody panics holding this").unrecorded = self.devices[at].unrecorded.clone();
        if self.rng.chance(3, 10) {
            self.sync_badly(at);
        } else {
            let edit = random_edit(&mut self.rng, &self.devices[at].fs, &self.options, &self.account);
            if let Some(text) = edit {
                self.devices[at].fs.settle();
                let name = self.devices[at].name.clone();
                self.note(format!("{name}: {text}"));
            }
        }
    }

    /// A user settles one of the conflicts that are to be seen.
    fn settle_a_conflict(&mut self, at: usize) {
        if self.sync(at).is_err() {
            return;
        }
        let replica = self.devices[at].replica.as_mut().expect("started");
        let conflicts = replica.conflicts().expect("the index is sound");
        let Some(conflict) = self.rng.pick(&conflicts) else { return };
        let keep = [Keep::Mine, Keep::Theirs, Keep::Both][self.rng.index(3)];
        let before: BTreeSet<Vec<u8>> = visible(&self.devices[at].fs).values().filter_map(content).cloned().collect();
        let path = conflict.path.clone();
        let replica = self.devices[at].replica.as_mut().expect("started");
        let result = replica.resolve(&path, keep, &mut Silent);
        let after: BTreeSet<Vec<u8>> = visible(&self.devices[at].fs).values().filter_map(content).cloned().collect();
        let mut account = self.account.lock().expect("nobody panics holding this");
        for dropped in before.difference(&after) {
            account.forsake(dropped);
        }
        // A side that became a file of its own stays what it is, though its branch is edited elsewhere; and a side that
        // was kept is written again by the settlement, against which an unseen edit of it stands.
        account.may_revive = true;
        drop(account);
        let name = self.devices[at].name.clone();
        match result {
            Ok(_) => self.note(format!("{name}: resolve {path} {keep:?}")),
            Err(QueryError::DirectoryInTheWay { .. } | QueryError::NoConflict { .. }) => {}
            Err(error) => panic!("{name}: resolve {path}: {}", packetboat_engine::error::chain(&error)),
        }
    }

    /// A round with whatever may go wrong.
    fn sync_badly(&mut self, at: usize) {
        self.maybe_go_elsewhere(at);
        let crash = self.rng.chance(self.options.crash_percent, 100);
        let by_disk = self.rng.chance(2, 3);
        let n = 1 + self.rng.below(if by_disk { 60 } else { 8 });
        if crash && by_disk {
            self.devices[at].fs.crash_at(n);
        } else if crash {
            self.devices[at].store.crash_at(n);
        }
        if self.options.races && self.rng.chance(1, 3) {
            let (mut rng, options, account) = (self.rng.fork(), self.options.clone(), Arc::clone(&self.account));
            let call = 1 + self.rng.below(80);
            self.devices[at].fs.on_call(call, move |fs| {
                if let Some(text) = random_edit(&mut rng, fs, &options, &account) {
                    // A user whose program syncs what it saves. Of what nobody synced a power loss keeps what it likes, such
                    // as new bytes beneath old times, which nobody can see who goes by times (docs/semantics.md).
                    fs.settle();
                    account.lock().expect("nobody panics holding this").slipped_in.push(text);
                }
            });
        }
        self.let_another_act(at, 12);
        let result = self.sync(at);
        let text = match &result {
            Ok(report) => format!("{}: sync {}", self.devices[at].name, describe(report)),
            Err(error) => format!("{}: sync failed: {}", self.devices[at].name, packetboat_engine::error::chain(error)),
        };
        self.note(text);
        let power = crash && (self.devices[at].fs.has_crashed() || self.devices[at].store.has_crashed());
        if crash {
            self.restart(at, power);
        }
        if let Err(error) = result {
            self.assert_expected(&error);
        }
        self.nothing_invented(at);
    }

    /// Panics where a round failed for no reason that this world has.
    fn assert_expected(&mut self, error: &SyncError) {
        if let SyncError::Inconsistent { evidence, .. } = error {
            self.log.push(evidence.clone());
        }
        let expected = was_crash(error) || matches!(error, SyncError::Store(_) | SyncError::DiskFull);
        assert!(expected, "{}", packetboat_engine::error::chain(error));
    }

    fn sync(&mut self, at: usize) -> Result<Report, SyncError> {
        let mut watching = Watching::default();
        let replica = self.devices[at].replica.as_mut().expect("started");
        let result = replica.sync(SyncOptions { confirm_deletes: true }, &mut watching);
        if result.is_ok() {
            self.devices[at].unrecorded.clear();
        }
        self.take_back_another(at);
        let name = self.devices[at].name.clone();
        for text in watching.0 {
            // Where two groups removed one another and let history go, what a device of one of them deleted unheard stays.
            if self.second.is_some() && self.options.leaving && self.options.pruning && text.contains(GOES_ON) {
                self.account.lock().expect("nobody panics holding this").may_revive = true;
            }
            self.note(format!("{name}:   {text}"));
        }
        let slipped_in = std::mem::take(&mut self.account.lock().expect("nobody panics holding this").slipped_in);
        for text in slipped_in {
            self.note(format!("{name}:   meanwhile {text}"));
        }
        match result {
            Err(SyncError::Revoked { .. } | SyncError::LeftOut { .. }) if self.options.leaving => {
                self.join_again(at);
                self.sync(at)
            }
            result => result,
        }
    }

    /// Starts a device again: after a power loss with what its disk kept, otherwise as after `kill -9`.
    fn restart(&mut self, at: usize, crashed: bool) {
        let device = &mut self.devices[at];
        device.store.revive();
        let parts = device.replica.take().expect("started").into_parts();
        device.fs = match (crashed, self.rng.chance(1, 2)) {
            (true, true) => device.fs.crash(&mut self.rng),
            _ => device.fs.kill(),
        };
        let fs = device.fs.clone();
        let now = self.now.load(Ordering::SeqCst);
        fs.set_now(now * 1_000_000);
        let parts = self.parts_of(at, &fs, parts.index);
        self.devices[at].replica = Some(Replica::open(parts).expect("the index holds its keys"));
        if crashed {
            self.devices[at].unrecorded = visible(&self.devices[at].fs).values().filter_map(content).cloned().collect();
        }
        let how = if crashed { "power loss" } else { "killed" };
        let text = format!("{}: started again ({how}), shows {}", self.devices[at].name, listing(&self.devices[at].fs));
        self.note(text);
    }
}

struct SimClock {
    now: Arc<AtomicI64>,
    skew: i64,
}

impl Clock for SimClock {
    fn now_ms(&self) -> i64 {
        self.now.load(Ordering::SeqCst) + self.skew
    }

    // Time passes between rounds alone.
    fn wait(&self, _: u64) {}
}

/// What a device says that forgets what it folded.
const GOES_ON: &str = "it goes on as a new device, and what";
const MAX_TURNS: usize = 12;
/// So many turns without a change at two storages until nothing more is to come.
const PATIENT_TURNS: usize = 5;
/// How often a user tries what a storage refuses.
const MAX_TRIES: usize = 8;
const MAX_DEVICES: usize = 6;
/// Each derives a key from a passphrase, which takes longer than a life here.
const MAX_REVOCATIONS: usize = 2;
