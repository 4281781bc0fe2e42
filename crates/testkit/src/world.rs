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

mod carrying;
mod edits;
mod meanwhile;
mod pruning;
mod replacing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

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
        if options.leaving || options.pruning {
            let (salt, nonce) = ([6; 16], Nonce([6; 24]));
            let passphrase = NewPassphrase { passphrase: b"first", cost: Argon2Cost::MINIMUM, salt, nonce };
            let slot = NewRecovery { key: &recovery, nonce: Nonce([7; 24]) };
            let marker = Marker::create(VaultId([7; 16]), 0, &root, passphrase, slot);
            store.plant(&ObjectName::new("packetboat").expect("a sound name"), &marker.encode());
        }
        let ring = KeyRing::new(VaultId([7; 16]), root);
        let mut second = options.second_storage.then(|| FaultyStore::new(rng.next_u64(), FaultConfig::none()));
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
        let passed = self.rng.below(20_000) as i64;
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

    /// A device joins with a folder that may hold something, or one loses its index.
    fn join_or_begin_again(&mut self, at: usize) {
        if self.devices.len() < MAX_DEVICES && self.rng.chance(1, 2) {
            let fs = match self.rng.chance(1, 2) {
                // The folder was copied from another device's by other means.
                true => {
                    let fs = self.devices[at].fs.kill();
                    if fs.exists(".packetboat") {
                        fs.remove(".packetboat").expect("it is there");
                    }
                    self.account.lock().expect("nobody panics holding this").may_revive = true;
                    fs
                }
                false => SimFs::new(SimOptions { crash_model: self.options.crash_model, ..SimOptions::default() }),
            };
            let new = self.join(fs);
            self.devices[new].set_faults(&self.options.faults);
            self.note(format!("device{new} joins and shows {}", listing(&self.devices[new].fs)));
        } else {
            self.lose_index(at);
            self.account.lock().expect("nobody panics holding this").may_revive = true;
            self.note(format!("{} lost its index", self.devices[at].name));
        }
    }

    /// A device retires or revokes another, or leaves by itself.
    fn send_away(&mut self, at: usize) {
        if self.sync(at).is_err() {
            return;
        }
        let other = self.rng.index(self.devices.len());
        let (device, name) = (self.replica(other).own_device(), self.devices[other].name.clone());
        let by = self.devices[at].name.clone();
        // Two that revoke at two storages, each without knowing of the other, make two keys of which each knows one.
        let most = match self.second {
            _ if self.options.retiring_alone => 0,
            Some(_) => 1,
            None => MAX_REVOCATIONS,
        };
        let revokes = other != at && self.revocations < most && self.rng.chance(1, 3);
        let replica = self.devices[at].replica.as_mut().expect("started");
        let outcome = match revokes {
            true => replica.revoke(&device, b"another", &mut Silent).map(|revoked| {
                self.recovery.push(RecoveryKey::from_text(&revoked.recovery_key).expect("as it was written"));
                self.revocations += 1;
                format!("{by}: revoked {name}")
            }),
            false => replica.retire(&device, &mut Silent).map(|_| format!("{by}: retired {name}")),
        };
        match outcome {
            Ok(text) => self.note(text),
            Err(RemovalError::Sync(SyncError::Store(_)) | RemovalError::Join(_)) => {}
            Err(RemovalError::Sync(SyncError::Revoked { .. } | SyncError::LeftOut { .. })) => {}
            Err(RemovalError::Sync(error)) => panic!("{by}: {}", packetboat_engine::error::chain(&error)),
            // It is unknown yet, gone already, or the last.
            Err(_) => {}
        }
    }

    /// A device that was revoked, or left without a key, joins again as a new one, with the disk that it has.
    fn join_again(&mut self, at: usize) {
        self.account.lock().expect("nobody panics holding this").may_revive = true;
        // Whoever is in the vault brings the marker up to date first, if need be; and again, where the storage kept a part of
        // what was put and said that it failed.
        for _ in 0..MAX_TRIES {
            for other in (0..self.devices.len()).filter(|other| *other != at) {
                let Some(replica) = self.devices[other].replica.as_mut() else { continue };
                if let Ok(Some(recovery)) = replica.change_passphrase(b"another") {
                    self.recovery.push(RecoveryKey::from_text(&recovery).expect("as it was written"));
                }
            }
            let mut stores = std::iter::once(&self.store).chain(&self.second);
            if stores.all(|store| Replica::read_marker(store).is_ok()) {
                break;
            }
        }
        self.read_markers();
        self.lose_index(at);
        self.note(format!("{}: joins with the new key", self.devices[at].name));
    }

    /// Takes the key that a marker holds. The markers of two storages may differ until somebody has been to both; whoever
    /// tried one in vain tries the other.
    fn read_markers(&mut self) {
        let rings = std::iter::once(&self.store).chain(&self.second).filter_map(|store| {
            let marker = Replica::read_marker(store).expect("sound").expect("it is there");
            // Where a storage stored a marker and said that it had not, its recovery key was shown to nobody.
            let opened = self.recovery.iter().rev().find_map(|recovery| marker.unlock_with_recovery(recovery).ok());
            opened.or_else(|| marker.unlock_with_passphrase(b"another").ok())
        });
        let rings: Vec<KeyRing> = rings.collect();
        let another = rings.iter().position(|ring| ring.current_root().id() == self.ring.current_root().id());
        let next = another.map_or(0, |tried| (tried + 1) % rings.len());
        self.ring = rings.into_iter().nth(next).expect("markers that some recovery key opens");
    }

    /// A disk is cloned with the index on it, a backup of both is made, or one is restored.
    fn copy(&mut self, at: usize) {
        // What is not published is lost with the disk that is replaced, and that is no fault of the vault's.
        self.devices[at].fs.call_off();
        if !self.sync(at).is_ok_and(|report| report.sent.postponed == 0) {
            return;
        }
        let name = self.devices[at].name.clone();
        let index = self.replica(at).index().copy_in_memory().expect("memory");
        let fs = self.devices[at].fs.kill();
        let backup = self.backups.iter().position(|backup| backup.name == name);
        match backup {
            Some(backup) if self.rng.chance(1, 2) => {
                let Backup { index, fs, .. } = self.backups.swap_remove(backup);
                fs.set_now(self.now.load(Ordering::SeqCst) * 1_000_000);
                let parts = self.parts_of(at, &fs, index);
                self.devices[at].replica = Some(Replica::open(parts).expect("the index holds its keys"));
                self.devices[at].fs = fs;
                self.account.lock().expect("nobody panics holding this").may_revive = true;
                self.note(format!("{name}: restored from a backup, shows {}", listing(&self.devices[at].fs)));
            }
            _ if self.devices.len() < MAX_DEVICES && self.rng.chance(1, 3) => {
                let ((place, store), elsewhere) = self.ways(self.devices.len());
                let skew = self.devices[at].skew;
                let parts = self.parts(&fs, place, &store, index, skew);
                let replica = Some(Replica::open(parts).expect("the index holds its keys"));
                let clone = format!("{name}'s clone {}", self.devices.len());
                let unrecorded = BTreeSet::new();
                let device = Device { name: clone, fs, store, place, elsewhere, skew, replica, unrecorded };
                device.set_faults(&self.options.faults);
                self.devices.push(device);
                self.account.lock().expect("nobody panics holding this").may_revive = true;
                self.note(format!("{name}: cloned"));
            }
            _ => self.backups.push(Backup { name, index, fs }),
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

    /// Lets every device synchronise without faults until a whole turn changes nothing, and at two storages some more.
    pub fn settle(&mut self) {
        self.store.settle();
        self.second.iter().for_each(FaultyStore::settle);
        // Nor does it for whoever joins again from now on.
        self.options.faults = FaultConfig::none();
        for at in 0..self.devices.len() {
            self.devices[at].set_faults(&FaultConfig::none());
            self.devices[at].store.revive();
            // A race that has not come yet, or a crash that was never reached, is called off by starting again.
            self.restart(at, false);
        }
        let mut unignored = !self.options.ignoring;
        // Groups that met late say only after some rounds what they refuse of one another.
        let patience = if self.second.is_some() { PATIENT_TURNS } else { 0 };
        let mut quiet_turns = 0;
        for turn in 0..2 * MAX_TURNS {
            let mut quiet = true;
            for at in 0..self.devices.len() {
                let passed = 10_000;
                let now = self.now.fetch_add(passed, Ordering::SeqCst) + passed;
                self.devices[at].fs.set_now(now * 1_000_000);
                for _ in 0..self.places_of(at) {
                    let id = self.replica(at).own_device();
                    let report = match self.sync(at) {
                        Ok(report) => report,
                        // A symlink was moved there; whoever is told moves it away.
                        Err(SyncError::IgnoreFile { .. }) if turn < MAX_TURNS => {
                            self.devices[at].fs.rename(IGNORE_FILE, format!("rules{at}{turn}~")).expect("it is there");
                            quiet = false;
                            continue;
                        }
                        Err(error) => panic!("{}: {}", self.devices[at].name, packetboat_engine::error::chain(&error)),
                    };
                    let text = format!("{}: settling {}", self.devices[at].name, describe(&report));
                    self.note(text);
                    // Whoever goes on as a new device is to be heard of by the others.
                    quiet &= self.replica(at).own_device() == id;
                    quiet &= is_quiet(&report) || (!unignored && only_waits(&report));
                    self.go_elsewhere(at);
                }
            }
            quiet_turns = if quiet && turn > 0 { quiet_turns + 1 } else { 0 };
            if quiet_turns > patience {
                if unignored {
                    return;
                }
                unignored = !self.stop_ignoring();
            }
        }
        for device in &mut self.devices {
            let replica = device.replica.as_mut().expect("started");
            eprintln!("{} plans {:#?}", device.name, replica.dry_run(&mut Silent));
            eprintln!("{} has problems {:#?}", device.name, replica.index().problems());
            eprintln!(
                "{} shows {:?}",
                device.name,
                visible(&device.fs).keys().map(|p| String::from_utf8_lossy(p).into_owned()).collect::<Vec<_>>()
            );
        }
        panic!("the world does not come to rest");
    }

    /// Empties the ignore rules everywhere; says whether there were any.
    fn stop_ignoring(&mut self) -> bool {
        let mut any = false;
        for device in &self.devices {
            let Ok(rules) = device.fs.read(IGNORE_FILE) else { continue };
            if !rules.is_empty() {
                let mut account = self.account.lock().expect("nobody panics holding this");
                account.forsake(&rules);
                account.write(Vec::new());
                device.fs.write(IGNORE_FILE, b"").expect("a disk with room");
                any = true;
            }
        }
        self.note("nothing is ignored any more".to_owned());
        any
    }

    /// Holds the replicas to the promises.
    pub fn check(&mut self) {
        let trees: Vec<BTreeMap<Vec<u8>, Node>> = self.devices.iter().map(|device| visible(&device.fs)).collect();
        for (device, tree) in self.devices.iter().zip(&trees).skip(1) {
            assert_same_tree(&trees[0], tree, &device.name);
        }
        let states: BTreeSet<[u8; 32]> = self
            .devices
            .iter()
            .map(|device| device.replica.as_ref().expect("started").index().knowledge().state_hash())
            .collect();
        assert_eq!(states.len(), 1, "all devices have learned the same");
        let contents: BTreeSet<&Vec<u8>> = trees[0].values().filter_map(content).collect();
        let account = self.account.lock().expect("nobody panics holding this");
        for owed in &account.owed {
            assert!(contents.contains(owed), "lost: {}", String::from_utf8_lossy(owed));
        }
        for content in &contents {
            assert!(account.written.contains(*content), "invented: {}", String::from_utf8_lossy(content));
            let unsure = account.moved
                || account.may_revive
                || account.copied.contains(*content)
                || account.unknowingly.contains(*content);
            let known = account.owed.contains(*content) || unsure;
            assert!(known, "revived: {}", String::from_utf8_lossy(content));
        }
        drop(account);
        for at in 0..self.devices.len() {
            self.nothing_invented(at);
            let staged = self.devices[at].fs.tree();
            let left: Vec<_> = staged.keys().filter(|path| path.starts_with(b".packetboat/stage/")).collect();
            assert!(left.is_empty(), "left in staging: {left:?}");
        }
        let mut summary = blake3::Hasher::new();
        for (path, node) in &trees[0] {
            summary.update(path);
            summary.update(format!("{:?}", without_mtime(node)).as_bytes());
        }
        self.trace.update(summary.finalize().as_bytes());
    }

    fn nothing_invented(&self, at: usize) {
        let account = self.account.lock().expect("nobody panics holding this");
        for (path, node) in visible(&self.devices[at].fs) {
            if let Some(content) = content(&node) {
                let known = account.written.contains(content);
                assert!(
                    known,
                    "{} shows what nobody wrote at {}",
                    self.devices[at].name,
                    String::from_utf8_lossy(&path)
                );
            }
        }
    }

    /// The tree that a device's user sees.
    pub fn tree(&self, at: usize) -> BTreeMap<Vec<u8>, Node> {
        visible(&self.devices[at].fs)
    }

    /// A device's disk.
    pub fn fs(&self, at: usize) -> &SimFs {
        &self.devices[at].fs
    }

    /// A device's way to the storage.
    pub fn store(&self, at: usize) -> &FaultyStore {
        &self.devices[at].store
    }

    /// A device's replica.
    pub fn replica(&mut self, at: usize) -> &mut Replica {
        self.devices[at].replica.as_mut().expect("started")
    }

    /// The storage between the devices.
    pub fn shelf(&self) -> &FaultyStore {
        &self.store
    }

    /// How many devices there are.
    pub fn devices(&self) -> usize {
        self.devices.len()
    }

    /// Lets so many milliseconds pass for all.
    pub fn pass(&mut self, ms: i64) {
        let now = self.now.fetch_add(ms, Ordering::SeqCst) + ms;
        for device in &self.devices {
            device.fs.set_now(now * 1_000_000);
        }
    }

    /// Sets a device's clock wrong by so many milliseconds.
    pub fn set_clock(&mut self, at: usize, wrong_by_ms: i64) {
        self.devices[at].skew = wrong_by_ms;
        self.restart(at, false);
    }

    /// Lets some time pass, and synchronises one device; panics where that fails.
    pub fn sync_well(&mut self, at: usize) -> Report {
        self.pass(10_000);
        self.sync(at).unwrap_or_else(|error| panic!("{}", packetboat_engine::error::chain(&error)))
    }

    /// Lets some time pass, and synchronises one device as its user asks.
    ///
    /// # Errors
    /// The round's.
    pub fn try_sync(&mut self, at: usize, options: SyncOptions) -> Result<Report, SyncError> {
        self.pass(10_000);
        self.replica(at).sync(options, &mut Silent)
    }

    /// Synchronises all in turn until a whole turn changes nothing; panics where a round fails or there is no end.
    pub fn rest(&mut self) {
        for turn in 0..MAX_TURNS {
            let mut quiet = true;
            for at in 0..self.devices.len() {
                quiet &= is_quiet(&self.sync_well(at));
            }
            if quiet && turn > 0 {
                return;
            }
        }
        panic!("the world does not come to rest: {}", self.log.join("\n"));
    }

    /// The contents that a device's user sees, by path.
    pub fn files(&self, at: usize) -> BTreeMap<String, Vec<u8>> {
        let named = |(path, node): (&Vec<u8>, &Node)| {
            content(node).map(|bytes| (String::from_utf8_lossy(path).into_owned(), bytes.clone()))
        };
        self.tree(at).iter().filter_map(named).collect()
    }

    /// Panics unless all disks show the same.
    pub fn assert_same(&self) {
        for at in 1..self.devices.len() {
            assert_same_tree(&self.tree(0), &self.tree(at), &self.devices[at].name);
        }
    }
}

/// What a user sees: everything but Packetboat's own directory.
fn visible(fs: &SimFs) -> BTreeMap<Vec<u8>, Node> {
    let mut tree = fs.tree();
    tree.retain(|path, _| !path.starts_with(b".packetboat/") && path != b".packetboat");
    tree
}

/// The names and contents on a disk, staging included, in one line.
fn listing(fs: &SimFs) -> String {
    let short = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(8)]).into_owned();
    let show = |(path, node): (&Vec<u8>, &Node)| {
        format!("{}={}", String::from_utf8_lossy(path), content(node).map_or("/".to_owned(), |bytes| short(bytes)))
    };
    fs.tree().iter().map(show).collect::<Vec<_>>().join(" ")
}

fn content(node: &Node) -> Option<&Vec<u8>> {
    match node {
        Node::File { bytes, .. } => Some(bytes),
        Node::Symlink { target } => Some(target),
        _ => None,
    }
}

/// A touch does not travel, so times may differ where contents agree.
fn without_mtime(node: &Node) -> Node {
    match node.clone() {
        Node::File { bytes, mode, xattrs, .. } => Node::File { bytes, mode, xattrs, mtime: 0 },
        node => node,
    }
}

fn assert_same_tree(expected: &BTreeMap<Vec<u8>, Node>, found: &BTreeMap<Vec<u8>, Node>, who: &str) {
    let show = |tree: &BTreeMap<Vec<u8>, Node>| -> Vec<String> {
        tree.iter()
            .map(|(path, node)| match node {
                Node::File { bytes, mode, .. } => {
                    format!("{} = {} {mode:o}", String::from_utf8_lossy(path), String::from_utf8_lossy(bytes))
                }
                node => format!("{} {node:?}", String::from_utf8_lossy(path)),
            })
            .collect()
    };
    let (expected, found) = (show(expected), show(found));
    let missing: Vec<_> = expected.iter().filter(|line| !found.contains(line)).collect();
    let extra: Vec<_> = found.iter().filter(|line| !expected.contains(line)).collect();
    assert!(missing.is_empty() && extra.is_empty(), "{who} lacks {missing:#?}\nand has besides {extra:#?}");
}

fn is_quiet(report: &Report) -> bool {
    report.published.packets == 0
        && report.packets_learned == 0
        && report.received.waiting == 0
        && report.sent == Default::default()
        && report.received == Default::default()
}

/// Whether nothing moved and something waits, as for what is ignored in its place.
fn only_waits(report: &Report) -> bool {
    let mut report = report.clone();
    (report.received.waiting, report.received.bytes_written) = (0, 0);
    is_quiet(&report)
}

/// A report in words, without what is zero.
fn describe(report: &Report) -> String {
    let text = format!("{:?} {:?} learned: {}", report.sent, report.received, report.packets_learned);
    text.split(", ").filter(|part| !part.ends_with(": 0")).collect::<Vec<_>>().join(", ")
}

/// Takes down what a round says it does.
#[derive(Default)]
struct Watching(Vec<String>);

impl Observer for Watching {
    fn wants_steps(&self) -> bool {
        true
    }
    fn phase(&mut self, _: Phase, _: Option<u64>, _: Option<u64>) {}
    fn advance(&mut self, _: u64, _: u64) {}
    fn note(&mut self, note: Note) {
        self.0.push(match note {
            Note::Step(step) => {
                let to = step.to.map_or_else(String::new, |to| format!(" to {to}"));
                format!("{:?} {:?} {}{to}: {}", step.direction, step.action, step.path, step.cause)
            }
            Note::Skipped { path, reason } => format!("skipped {path}: {reason}"),
            Note::Warning { text } => format!("warning: {text}"),
        });
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
