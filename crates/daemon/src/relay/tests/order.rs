//! What waits goes up in its order, whatever is killed, lost, repeated or late.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use packetboat_core::body::PacketBody;
use packetboat_core::ids::{Dot, PacketHash, VaultId};
use packetboat_core::keys::{DeviceKey, KeyRing, Nonce, RootKey};
use packetboat_core::knowledge::Knowledge;
use packetboat_core::marker::{Argon2Cost, MARKER_NAME, Marker, NewPassphrase, NewRecovery};
use packetboat_core::packet::SealedPacket;
use packetboat_core::recovery::RecoveryKey;
use packetboat_core::store::{ObjectName, Put, Store, StoreError};
use packetboat_core::tip::{SealedTip, Tip};
use packetboat_engine::learn::packet_name;
use packetboat_storage::pack::object_name;
use packetboat_testkit::faulty_store::{Fault, FaultConfig, FaultyStore};

use super::super::check::Kind;
use super::super::forward::Forward;
use super::super::shelf::{Shelf, ShelfError};
use super::still;

/// A device that makes sealed objects, and the marker of its vault.
pub(super) struct Author {
    pub(super) ring: KeyRing,
    key: DeviceKey,
    last: Option<SealedPacket>,
    pub(super) nonce: u8,
}

impl Author {
    pub(super) fn new(seed: u8) -> Self {
        let ring = KeyRing::new(VaultId([7; 16]), RootKey([8; 32]));
        Self { ring, key: DeviceKey::from_seed(&[seed; 32]), last: None, nonce: 0 }
    }

    pub(super) fn marker() -> Vec<u8> {
        let passphrase =
            NewPassphrase { passphrase: b"words", cost: Argon2Cost::MINIMUM, salt: [1; 16], nonce: Nonce([1; 24]) };
        let recovery = RecoveryKey([3; 32]);
        let recovery = NewRecovery { key: &recovery, nonce: Nonce([2; 24]) };
        Marker::create(VaultId([7; 16]), 0, &RootKey([8; 32]), passphrase, recovery).encode()
    }

    fn nonce(&mut self) -> Nonce {
        self.nonce += 1;
        Nonce([self.nonce; 24])
    }

    /// The next packet of the lane.
    pub(super) fn packet(&mut self) -> (ObjectName, Vec<u8>) {
        let (counter, previous) =
            self.last.as_ref().map_or((1, PacketHash([0; 32])), |last| (last.dot().counter + 1, last.hash()));
        let body = PacketBody {
            lamport: counter,
            time: 0,
            prerequisite: Knowledge::default(),
            needs: Vec::new(),
            packs: Vec::new(),
            inline: Vec::new(),
            changes: Vec::new(),
        };
        let nonce = self.nonce();
        let sealed = SealedPacket::seal(&self.key, &self.ring, counter, previous, nonce, &body).unwrap();
        let packet = (packet_name(&sealed.dot()), sealed.bytes().to_vec());
        self.last = Some(sealed);
        packet
    }

    pub(super) fn tip(&mut self, number: u64) -> (ObjectName, Vec<u8>) {
        let tip = Tip {
            sequence: number,
            last: None,
            learned: Knowledge::default(),
            checkpoint: None,
            wanted: Default::default(),
            refused: Default::default(),
            recent: Vec::new(),
        };
        let nonce = self.nonce();
        let sealed = SealedTip::seal(&self.key, &self.ring, nonce, &tip).unwrap();
        (Tip::name(&self.key.device()), sealed.bytes().to_vec())
    }

    pub(super) fn pack(text: &str) -> (ObjectName, Vec<u8>) {
        let pack = packetboat_core::ids::PackId(*blake3::hash(text.as_bytes()).as_bytes());
        (object_name(&pack), text.as_bytes().to_vec())
    }
}

/// An intermediary that writes down in which order things came, and can go away.
struct Watched {
    inner: FaultyStore,
    came: Mutex<Vec<ObjectName>>,
}

impl Watched {
    fn new() -> Arc<Self> {
        let inner = FaultyStore::new(1, FaultConfig::none());
        let marker = ObjectName::new(MARKER_NAME).unwrap();
        inner.put(&marker, &Author::marker()).unwrap();
        Arc::new(Self { inner, came: Mutex::default() })
    }

    fn go_away(&self) {
        self.inner.set_config(FaultConfig::none().with(Fault::Transient, 1000));
    }

    fn come_back(&self) {
        self.inner.set_config(FaultConfig::none());
        self.inner.revive();
    }

    fn came(&self) -> Vec<ObjectName> {
        self.came.lock().unwrap().clone()
    }
}

impl Store for Watched {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn put_new(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put, StoreError> {
        let put = self.inner.put_new(name, bytes)?;
        if put == Put::Stored {
            self.came.lock().unwrap().push(name.clone());
        }
        Ok(put)
    }

    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), StoreError> {
        self.inner.put(name, bytes)?;
        self.came.lock().unwrap().push(name.clone());
        Ok(())
    }

    fn get(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>, StoreError> {
        self.inner.get(name, limit)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        self.inner.get_range(name, offset, len)
    }

    fn list(&self, folder: &str) -> Result<Vec<packetboat_core::store::Listed>, StoreError> {
        self.inner.list(folder)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.inner.delete(name)
    }
}

const VAULT: VaultId = VaultId([7; 16]);
const ROOM: u64 = 1 << 20;

fn forward(directory: &std::path::Path, store: &Arc<Watched>) -> (Forward, Arc<Shelf>) {
    let shelf = Arc::new(Shelf::open(directory, ROOM, still()).unwrap());
    (Forward::new(VAULT, shelf.clone(), store.clone()), shelf)
}

/// Puts one object as a device does.
pub(super) fn put(store: &dyn Store, (name, bytes): &(ObjectName, Vec<u8>)) {
    match Kind::of(name) {
        Some(Kind::Tip(_)) => store.put(name, bytes).unwrap(),
        _ => drop(store.put_new(name, bytes).unwrap()),
    }
}

/// Two rounds of a device: packs, a packet, a tip.
fn two_rounds() -> Vec<(ObjectName, Vec<u8>)> {
    let mut author = Author::new(1);
    let (one, first) = (author.packet(), author.tip(1));
    let (two, second) = (author.packet(), author.tip(2));
    vec![Author::pack("a"), Author::pack("b"), one, first, Author::pack("c"), two, second]
}

#[test]
fn what_waits_goes_up_in_the_order_in_which_it_came() {
    let directory = tempfile::tempdir().unwrap();
    let store = Watched::new();
    let (carrier, shelf) = forward(directory.path(), &store);
    store.go_away();
    let objects = two_rounds();
    objects.iter().for_each(|object| put(&carrier, object));
    store.come_back();
    carrier.put_up().unwrap();
    let expected: Vec<_> = [0, 1, 2, 4, 5, 6].map(|at: usize| objects[at].0.clone()).into();
    assert_eq!(store.came(), expected, "the newer tip goes up in the place of its own coming, and the older never");
    assert_eq!(store.get(&objects[6].0, 1 << 20).unwrap(), objects[6].1);
    assert_eq!(shelf.held(VAULT).unwrap().waiting, 0);
}

#[test]
fn a_put_waits_behind_what_waits() {
    let directory = tempfile::tempdir().unwrap();
    let store = Watched::new();
    let (carrier, _) = forward(directory.path(), &store);
    let objects = two_rounds();
    store.go_away();
    objects[..2].iter().for_each(|object| put(&carrier, object));
    store.come_back();
    objects[2..].iter().for_each(|object| put(&carrier, object));
    let came: Vec<_> = objects.iter().map(|object| object.0.clone()).collect();
    assert_eq!(store.came(), came);
}

#[test]
fn kills_at_every_step_lose_and_reorder_nothing() {
    let objects = two_rounds();
    for kill in 1..=8 {
        let directory = tempfile::tempdir().unwrap();
        let store = Watched::new();
        store.go_away();
        {
            let (carrier, _) = forward(directory.path(), &store);
            objects.iter().for_each(|object| put(&carrier, object));
        }
        store.come_back();
        store.inner.crash_at(kill);
        let (carrier, shelf) = forward(directory.path(), &store);
        let first = carrier.put_up();
        assert_eq!(first.is_err(), kill <= 6, "{kill}: {first:?}");
        drop((carrier, shelf));
        store.come_back();
        // Another process opens the same shelf and goes on.
        let (carrier, shelf) = forward(directory.path(), &store);
        carrier.put_up().unwrap();
        assert_eq!(shelf.held(VAULT).unwrap().waiting, 0);
        let (came, mut seen) = (store.came(), BTreeSet::new());
        let firsts: Vec<_> = came.iter().filter(|name| seen.insert((*name).clone())).cloned().collect();
        let expected: Vec<_> = [0, 1, 2, 4, 5, 6].map(|at: usize| objects[at].0.clone()).into();
        // The call in which the crash fell may have been carried out unseen; all that was seen is in order.
        let mut rest = expected.iter();
        assert!(firsts.iter().all(|name| rest.any(|other| other == name)), "{kill}: {firsts:?}");
        for at in [0, 1, 2, 4, 5, 6] {
            let (name, bytes) = &objects[at];
            assert_eq!(store.get(name, 1 << 20).unwrap(), *bytes, "{kill}: {name}");
        }
    }
}

#[test]
fn a_deposit_cut_short_means_nothing_and_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = Watched::new();
    store.go_away();
    let (pack, bytes) = Author::pack("whole");
    let file = directory.path().join(VAULT.to_string()).join(pack.as_str());
    {
        let (carrier, _) = forward(directory.path(), &store);
        put(&carrier, &(pack.clone(), bytes.clone()));
    }
    // As after a crash between the row and the file.
    std::fs::remove_file(&file).unwrap();
    let (carrier, shelf) = forward(directory.path(), &store);
    assert_eq!(shelf.next(VAULT).unwrap(), None);
    // As of a crash that left a file without a row.
    std::fs::write(&file, b"who").unwrap();
    assert_eq!(carrier.put_new(&pack, &bytes).unwrap(), Put::Stored);
    store.come_back();
    carrier.put_up().unwrap();
    assert_eq!(store.get(&pack, 10).unwrap(), bytes);
}

#[test]
fn repeated_and_late_requests_change_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = Watched::new();
    let (carrier, shelf) = forward(directory.path(), &store);
    let mut author = Author::new(1);
    let (packet, older, newer) = (author.packet(), author.tip(4), author.tip(5));
    store.go_away();
    assert_eq!(carrier.put_new(&packet.0, &packet.1).unwrap(), Put::Stored);
    assert_eq!(carrier.put_new(&packet.0, &packet.1).unwrap(), Put::Present);
    put(&carrier, &newer);
    put(&carrier, &older);
    assert_eq!(carrier.get(&newer.0, 1 << 20).unwrap(), newer.1);
    assert_eq!(shelf.held(VAULT).unwrap().waiting, 2);
    store.come_back();
    carrier.put_up().unwrap();
    put(&carrier, &older);
    put(&carrier, &packet);
    assert_eq!(store.get(&newer.0, 1 << 20).unwrap(), newer.1, "an older tip that comes late replaces nothing");
    assert_eq!(store.came(), [packet.0.clone(), newer.0.clone()]);
}

#[test]
fn a_tip_that_the_intermediary_has_moved_past_is_not_put_back() {
    let directory = tempfile::tempdir().unwrap();
    let store = Watched::new();
    let (carrier, _) = forward(directory.path(), &store);
    let mut author = Author::new(1);
    let (deposited, direct) = (author.tip(2), author.tip(3));
    store.go_away();
    put(&carrier, &deposited);
    store.come_back();
    // The host had a way of its own meanwhile.
    store.inner.put(&direct.0, &direct.1).unwrap();
    carrier.put_up().unwrap();
    assert_eq!(store.get(&direct.0, 1 << 20).unwrap(), direct.1);
}

#[test]
fn a_forked_lane_is_set_aside_and_stops_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let store = Watched::new();
    let (carrier, shelf) = forward(directory.path(), &store);
    let (mut ours, mut theirs, mut else_) = (Author::new(1), Author::new(1), Author::new(2));
    theirs.nonce = 100;
    let (one, two, tip) = (ours.packet(), ours.packet(), ours.tip(1));
    let other = else_.packet();
    store.go_away();
    [&one, &two, &other, &tip].into_iter().for_each(|object| put(&carrier, object));
    store.come_back();
    let fork = theirs.packet();
    assert_eq!(fork.0, one.0);
    store.inner.put(&fork.0, &fork.1).unwrap();
    carrier.put_up().unwrap();
    assert_eq!(store.came(), [other.0], "nothing of the forked lane goes up behind the other packet");
    let held = shelf.held(VAULT).unwrap();
    assert_eq!((held.waiting, held.aside), (0, 3));
    assert_eq!(carrier.get(&one.0, 1 << 20).unwrap(), fork.1, "the device finds the other packet");
    let kept = directory.path().join("aside").join(VAULT.to_string()).join(one.0.as_str());
    assert_eq!(std::fs::read(kept).unwrap(), one.1);
}

#[test]
fn what_waits_is_never_given_up_for_room_and_the_message_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let store = Watched::new();
    let (carrier, shelf) = forward(directory.path(), &store);
    let large = |text: &str| Author::pack(&text.repeat(400 << 10));
    let (copied, one, two, three) = (large("w"), large("x"), large("y"), large("z"));
    put(&carrier, &copied);
    assert_eq!(shelf.held(VAULT).unwrap().copies, 1);
    store.go_away();
    put(&carrier, &one);
    put(&carrier, &two);
    assert_eq!(shelf.held(VAULT).unwrap().copies, 0, "copies make room");
    let error = carrier.put_new(&three.0, &three.1).unwrap_err();
    assert!(crate::files::with_causes(&error).contains("relay.space"), "{error:?}");
    assert!(matches!(shelf.deposit(VAULT, &three.0, &three.1, false), Err(ShelfError::NoRoom { limit: ROOM })));
    store.come_back();
    carrier.put_up().unwrap();
    put(&carrier, &three);
    for (name, bytes) in [copied, one, two, three] {
        assert_eq!(store.get(&name, ROOM).unwrap(), bytes);
    }
}

#[test]
fn dots_are_what_lanes_are_named_by() {
    let (name, _) = Author::new(1).packet();
    assert!(matches!(Kind::of(&name), Some(Kind::Packet(Dot { counter: 1, .. }))));
    for unsound in ["lanes/x/1", "packs/3f/one", "other", "tips/a"] {
        assert_eq!(Kind::of(&ObjectName::new(unsound).unwrap()), None);
    }
    let padded = name.as_str().replace("/1", "/01");
    assert_eq!(Kind::of(&ObjectName::new(padded).unwrap()), None);
}
