//! Members: which devices belong to a vault, folded from the packets in which they say so.
//!
//! What this holds is a function of the set of packets folded, never of their order: introductions, renames and
//! removals are kept as they came, by stamp, and who stands how is decided over all of them.
//!
//! **Removals** are revocations and retirements. They are taken in total order, and one counts unless its author was
//! revoked by one before it and its packet lies beyond that cut. So of two members who revoke each other, unaware of
//! each other, the smaller in (Lamport, device) order counts, and what depends on the void one is void as well.
//! A removed device may be unknown yet; the removal is remembered and meets it when it introduces itself.
//!
//! **Epochs** begin with revocations. Things are sealed under the key of the greatest epoch that a revocation which
//! counts has begun; where several began it unaware of one another, under the smallest one's. A key is *leaked* when a
//! device has it that is revoked by now, as after two such revocations: then another epoch is due.
//!
//! ```text
//! introductions  count, per member by device: device 32 | public key 32 | stamp | name bytes | exchange key 32
//!                | flags u8 | with 1: the device 32 that it continues | with 2: epoch varint, not 0
//! renames        count, per device by id: device 32 | stamp | name bytes
//! removals       count, by stamp: stamp | device 32 | cut varint
//!                | 0 retired, or 1 revoked, epoch varint, key id 32 and count, device 32 of whom the key was sealed to
//!
//! stamp          device 32 | lamport varint | counter varint, from 1 | index varint
//! ```

use std::collections::{BTreeMap, BTreeSet};

use crate::change::{Change, MAX_DEVICE_NAME};
use crate::ids::{Counter, DeviceId, Dot, Epoch, Stamp};
use crate::item::Register;
use crate::keys::{KeyId, PublicKey};
use crate::knowledge::Knowledge;
use crate::packet::Packet;
use crate::wire::{Reader, WireError, Writer};

/// Who belongs to a vault.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Members {
    introductions: BTreeMap<DeviceId, Introduction>,
    renames: BTreeMap<DeviceId, Register<String>>,
    removals: BTreeMap<Stamp, Removal>,
    /// What follows from `removals`.
    decided: Decided,
}

/// One member, as all packets folded so far describe it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member<'a> {
    /// The device.
    pub device: DeviceId,
    /// Its signing key.
    pub public_key: PublicKey,
    /// What it called itself when it joined; conflict copies carry this, so that they keep their names.
    pub introduced_name: &'a str,
    /// What it is called now.
    pub name: &'a str,
    /// Its X25519 key, to which later epochs' keys are sealed.
    pub exchange_key: [u8; 32],
    /// The device that this one goes on from.
    pub continues: Option<DeviceId>,
    /// The packet in which it joined.
    pub introduced: Dot,
    /// The epoch in which it joined.
    pub epoch: Epoch,
    /// Whether it is still waited for and trusted.
    pub standing: Standing,
}

/// Whether a device is still waited for and trusted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It is.
    Active,
    /// It was unheard of for long and is not waited for.
    Retired {
        /// The greatest counter of its lane that anyone who retired it knew.
        cut: Counter,
    },
    /// It is not trusted.
    Revoked {
        /// The last counter of its lane that counts by itself.
        cut: Counter,
        /// The first revocation that counts.
        by: Stamp,
    },
}

impl Standing {
    /// Whether a packet of the device at `counter` stands by itself: it is not beyond the cut.
    pub fn covers(&self, counter: Counter) -> bool {
        match self {
            Standing::Active => true,
            Standing::Retired { cut } | Standing::Revoked { cut, .. } => counter <= *cut,
        }
    }

    /// Whether the device is not trusted.
    pub fn is_revoked(&self) -> bool {
        matches!(self, Standing::Revoked { .. })
    }

    /// Whether what the device said of others at `counter` counts: a retired one was trusted all the same.
    fn is_believed(&self, counter: Counter) -> bool {
        !self.is_revoked() || self.covers(counter)
    }
}

/// A root key that a revocation announced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochKey {
    /// The epoch that began.
    pub epoch: Epoch,
    /// What names the key.
    pub key: KeyId,
    /// The revocation.
    pub by: Stamp,
}

/// Whom the deletion of what was condemned waits for, and what each of them must have learned besides.
///
/// A device that was removed is waited for no more. It may have referred to the condemned in a packet that only some
/// have folded; so whoever acknowledges must know of the removal, after which its packets are cut.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Awaited {
    /// The active devices, by id.
    pub devices: BTreeSet<DeviceId>,
    /// The packets that removed the others.
    pub removals: BTreeSet<Dot>,
}

impl Awaited {
    /// Those that have not acknowledged packet `condemnation`; `published` is what each is known to have folded.
    pub fn lacking<'a>(
        &self,
        condemnation: &Dot,
        published: impl Fn(&DeviceId) -> Option<&'a Knowledge>,
    ) -> Vec<DeviceId> {
        let knows_all = |knowledge: &Knowledge, own: &DeviceId| {
            let knows = |dot: &Dot| dot.device == *own || knowledge.contains(dot);
            knows(condemnation) && self.removals.iter().all(knows)
        };
        let lacks = |device: &&DeviceId| !published(device).is_some_and(|knowledge| knows_all(knowledge, device));
        self.devices.iter().filter(lacks).copied().collect()
    }
}

impl Members {
    /// No members.
    pub fn new() -> Self {
        Self::default()
    }

    /// Folds what a packet says about devices; a packet folded before changes nothing.
    pub fn fold(&mut self, packet: &Packet) {
        let mut removed = false;
        for (index, change) in (0u32..).zip(&packet.body.changes) {
            let Dot { device, counter } = packet.dot;
            let stamp = Stamp { lamport: packet.body.lamport, device, counter, index };
            match change {
                Change::Introduce { name, exchange_key, continues } => {
                    self.introduce(Introduction {
                        public_key: packet.author,
                        epoch: packet.epoch,
                        stamp,
                        name: name.clone(),
                        exchange_key: *exchange_key,
                        continues: *continues,
                    });
                }
                Change::RenameDevice { device, name } => {
                    let standing = self.renames.get(device);
                    if standing.is_none_or(|standing| standing.stamp < stamp) {
                        self.renames.insert(*device, Register { stamp, value: name.clone() });
                    }
                }
                Change::Revoke { device, cut, epoch, key, keys } => {
                    removed = true;
                    let recipients = keys.iter().map(|(device, _)| *device).collect();
                    let begins = Some(NewEpoch { epoch: *epoch, key: *key, recipients });
                    self.removals.insert(stamp, Removal { device: *device, cut: *cut, begins });
                }
                Change::Retire { device, cut } => {
                    removed = true;
                    self.removals.insert(stamp, Removal { device: *device, cut: *cut, begins: None });
                }
                _ => {}
            }
        }
        if removed {
            self.decided = Decided::by(&self.removals);
        }
    }

    /// A device introduces itself once; should a lane do so again, the first counts.
    fn introduce(&mut self, introduction: Introduction) {
        let device = introduction.stamp.device;
        let standing = self.introductions.get(&device);
        if standing.is_none_or(|standing| introduction.stamp < standing.stamp) {
            self.introductions.insert(device, introduction);
        }
    }

    /// The member that is this device.
    pub fn get(&self, device: &DeviceId) -> Option<Member<'_>> {
        self.introductions.get(device).map(|introduction| self.member(*device, introduction))
    }

    /// All who ever introduced themselves, by device.
    pub fn iter(&self) -> impl Iterator<Item = Member<'_>> {
        self.introductions.iter().map(|(device, introduction)| self.member(*device, introduction))
    }

    /// Those who are neither retired nor revoked, by device.
    pub fn active(&self) -> impl Iterator<Item = Member<'_>> {
        self.iter().filter(|member| member.standing == Standing::Active)
    }

    /// How many ever introduced themselves.
    pub fn len(&self) -> usize {
        self.introductions.len()
    }

    /// Whether nobody ever did.
    pub fn is_empty(&self) -> bool {
        self.introductions.is_empty()
    }

    /// How a device stands, whether or not it has introduced itself yet.
    pub fn standing(&self, device: &DeviceId) -> Standing {
        self.decided.standings.get(device).copied().unwrap_or(Standing::Active)
    }

    /// The packets in which devices were revoked or retired, whether or not they count.
    pub fn removals(&self) -> impl Iterator<Item = Dot> {
        self.removals.keys().map(Stamp::dot)
    }

    /// Whom to wait for before what was condemned is deleted. It is decided by packets alone, never by a clock.
    pub fn awaited(&self) -> Awaited {
        let devices = self.active().map(|member| member.device).collect();
        Awaited { devices, removals: self.removals().collect() }
    }

    /// The key under which things are to be sealed; none while the vault is in its first epoch.
    pub fn epoch_key(&self) -> Option<EpochKey> {
        let by = self.decided.current?;
        let begun = self.removals[&by].begins.as_ref()?;
        Some(EpochKey { epoch: begun.epoch, key: begun.key, by })
    }

    /// All keys that revocations announced, by stamp, those that do not count included: packets are sealed under these too.
    pub fn epoch_keys(&self) -> impl Iterator<Item = EpochKey> {
        self.removals.iter().filter_map(|(by, removal)| {
            let begun = removal.begins.as_ref()?;
            Some(EpochKey { epoch: begun.epoch, key: begun.key, by: *by })
        })
    }

    /// Whether a device was given a key by the revocation that announced it, or gave it.
    pub fn was_given(&self, device: &DeviceId, key: &EpochKey) -> bool {
        let begun = self.removals.get(&key.by).and_then(|removal| removal.begins.as_ref());
        key.by.device == *device || begun.is_some_and(|begun| begun.recipients.contains(device))
    }

    /// A revoked device that has the key under which things are sealed, if there is one.
    ///
    /// So it is where two devices were revoked unaware of each other: the key of either revocation went to both.
    pub fn leaked_to(&self) -> Option<DeviceId> {
        let key = self.epoch_key()?;
        let revoked = self.decided.standings.iter().filter(|(_, standing)| standing.is_revoked());
        revoked.map(|(device, _)| *device).find(|device| self.was_given(device, &key))
    }

    /// The devices to which a new epoch's key is to be sealed when `revoked` is no longer trusted.
    ///
    /// They are those that have the present key by right: whoever joined with an older key, unknown to the one who gave
    /// that up, could be the revoked device by another name, and must join with the new passphrase.
    pub fn heirs(&self, revoked: &DeviceId) -> Vec<Member<'_>> {
        let present = self.epoch_key();
        let has_it = |member: &Member<'_>| {
            present.is_none_or(|key| member.epoch >= key.epoch || self.was_given(&member.device, &key))
        };
        let trusted = |member: &Member<'_>| member.device != *revoked && !member.standing.is_revoked();
        self.iter().filter(|member| trusted(member) && has_it(member)).collect()
    }

    /// What a device called itself when it joined: for conflict copies, whose names must not change.
    pub fn label(&self, device: &DeviceId) -> Option<&str> {
        self.introductions.get(device).map(|introduction| introduction.name.as_str())
    }

    /// What a device is called now.
    pub fn name(&self, device: &DeviceId) -> Option<&str> {
        let introduction = self.introductions.get(device)?;
        Some(self.renames.get(device).map_or(&introduction.name, |rename| &rename.value))
    }

    fn member<'a>(&'a self, device: DeviceId, introduction: &'a Introduction) -> Member<'a> {
        Member {
            device,
            public_key: introduction.public_key,
            introduced_name: &introduction.name,
            name: self.renames.get(&device).map_or(&introduction.name, |rename| &rename.value),
            exchange_key: introduction.exchange_key,
            continues: introduction.continues,
            introduced: introduction.stamp.dot(),
            epoch: introduction.epoch,
            standing: self.standing(&device),
        }
    }

    /// Appends all that was folded, for a checkpoint.
    pub fn encode(&self, out: &mut Writer) {
        out.varint(self.introductions.len() as u64);
        for (device, introduction) in &self.introductions {
            out.raw(&device.0).raw(&introduction.public_key.0);
            encode_stamp(&introduction.stamp, out);
            out.bytes(introduction.name.as_bytes()).raw(&introduction.exchange_key);
            let flags = if introduction.continues.is_some() { CONTINUES } else { 0 };
            out.u8(if introduction.epoch > 0 { flags | LATER_EPOCH } else { flags });
            if let Some(continued) = &introduction.continues {
                out.raw(&continued.0);
            }
            if introduction.epoch > 0 {
                out.varint(introduction.epoch.into());
            }
        }
        out.varint(self.renames.len() as u64);
        for (device, rename) in &self.renames {
            out.raw(&device.0);
            encode_stamp(&rename.stamp, out);
            out.bytes(rename.value.as_bytes());
        }
        out.varint(self.removals.len() as u64);
        for (stamp, removal) in &self.removals {
            encode_stamp(stamp, out);
            out.raw(&removal.device.0).varint(removal.cut).u8(removal.begins.is_some().into());
            if let Some(NewEpoch { epoch, key, recipients }) = &removal.begins {
                out.varint((*epoch).into()).raw(&key.0).varint(recipients.len() as u64);
                for device in recipients {
                    out.raw(&device.0);
                }
            }
        }
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let mut members = Self::new();
        for _ in 0..input.count(3 * DeviceId::LEN)? {
            let device = DeviceId(input.array()?);
            let mut introduction = Introduction {
                public_key: PublicKey(input.array()?),
                stamp: decode_stamp(input)?,
                name: decode_name(input)?,
                exchange_key: input.array()?,
                continues: None,
                epoch: 0,
            };
            let flags = input.u8()?;
            if flags > CONTINUES | LATER_EPOCH {
                return Err(WireError::NotCanonical);
            }
            if flags & CONTINUES != 0 {
                introduction.continues = Some(DeviceId(input.array()?));
            }
            if flags & LATER_EPOCH != 0 {
                introduction.epoch =
                    Some(input.varint32()?).filter(|epoch| *epoch > 0).ok_or(WireError::NotCanonical)?;
            }
            if introduction.stamp.device != device {
                return Err(WireError::Invalid { what: "introduction" });
            }
            insert_last(&mut members.introductions, device, introduction)?;
        }
        for _ in 0..input.count(2 * DeviceId::LEN)? {
            let device = DeviceId(input.array()?);
            let rename = Register { stamp: decode_stamp(input)?, value: decode_name(input)? };
            insert_last(&mut members.renames, device, rename)?;
        }
        for _ in 0..input.count(2 * DeviceId::LEN)? {
            let stamp = decode_stamp(input)?;
            let device = DeviceId(input.array()?);
            let cut = input.varint()?;
            let begins = match input.u8()? {
                0 => None,
                1 => Some(NewEpoch::decode(input)?),
                _ => return Err(WireError::NotCanonical),
            };
            insert_last(&mut members.removals, stamp, Removal { device, cut, begins })?;
        }
        members.decided = Decided::by(&members.removals);
        Ok(members)
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Introduction {
    public_key: PublicKey,
    epoch: Epoch,
    stamp: Stamp,
    name: String,
    exchange_key: [u8; 32],
    continues: Option<DeviceId>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Removal {
    device: DeviceId,
    cut: Counter,
    /// What a revocation begins; none for a retirement.
    begins: Option<NewEpoch>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct NewEpoch {
    epoch: Epoch,
    key: KeyId,
    recipients: BTreeSet<DeviceId>,
}

impl NewEpoch {
    fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let (epoch, key) = (input.varint32()?, KeyId(input.array()?));
        let mut recipients = BTreeSet::new();
        for _ in 0..input.count(DeviceId::LEN)? {
            let device = DeviceId(input.array()?);
            if recipients.last().is_some_and(|last| *last >= device) {
                return Err(WireError::NotCanonical);
            }
            recipients.insert(device);
        }
        Ok(Self { epoch, key, recipients })
    }
}

/// What follows from all removals, in total order.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct Decided {
    /// How devices stand; those without an entry are active.
    standings: BTreeMap<DeviceId, Standing>,
    /// The revocation whose key seals.
    current: Option<Stamp>,
}

impl Decided {
    fn by(removals: &BTreeMap<Stamp, Removal>) -> Self {
        let mut standings: BTreeMap<DeviceId, Standing> = BTreeMap::new();
        let mut current: Option<(Epoch, Stamp)> = None;
        for (stamp, removal) in removals {
            let author = standings.get(&stamp.device).copied().unwrap_or(Standing::Active);
            if !author.is_believed(stamp.counter) {
                continue;
            }
            if let Some(begun) = &removal.begins
                && current.is_none_or(|(epoch, _)| epoch < begun.epoch)
            {
                current = Some((begun.epoch, *stamp));
            }
            let standing = standings.entry(removal.device).or_insert(Standing::Active);
            *standing = match (*standing, removal.begins.is_some()) {
                // Whoever revokes with a later cut had those packets in its prerequisite, so they count.
                (Standing::Revoked { cut, by }, true) => Standing::Revoked { cut: cut.max(removal.cut), by },
                (standing @ Standing::Revoked { .. }, false) => standing,
                (_, true) => Standing::Revoked { cut: removal.cut, by: *stamp },
                (Standing::Retired { cut }, false) => Standing::Retired { cut: cut.max(removal.cut) },
                (Standing::Active, false) => Standing::Retired { cut: removal.cut },
            };
        }
        Self { standings, current: current.map(|(_, stamp)| stamp) }
    }
}

/// Inserts what must come after all that is there.
fn insert_last<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: V) -> Result<(), WireError> {
    if map.last_key_value().is_some_and(|(last, _)| *last >= key) {
        return Err(WireError::NotCanonical);
    }
    map.insert(key, value);
    Ok(())
}

pub(crate) fn encode_stamp(stamp: &Stamp, out: &mut Writer) {
    out.raw(&stamp.device.0).varint(stamp.lamport).varint(stamp.counter).varint(stamp.index.into());
}

pub(crate) fn decode_stamp(input: &mut Reader<'_>) -> Result<Stamp, WireError> {
    let device = DeviceId(input.array()?);
    let (lamport, counter, index) = (input.varint()?, input.varint()?, input.varint32()?);
    if counter == 0 {
        return Err(WireError::Invalid { what: "counter" });
    }
    Ok(Stamp { lamport, device, counter, index })
}

fn decode_name(input: &mut Reader<'_>) -> Result<String, WireError> {
    let bytes = input.bytes(MAX_DEVICE_NAME)?.to_vec();
    String::from_utf8(bytes)
        .ok()
        .filter(|text| !text.is_empty() && !text.chars().any(char::is_control))
        .ok_or(WireError::Invalid { what: "device name" })
}

/// Flags of an introduction: it goes on from another device, and it was made in a later epoch than the first.
const CONTINUES: u8 = 1;
const LATER_EPOCH: u8 = 2;

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::body::PacketBody;
    use crate::ids::{Lamport, PacketHash};
    use crate::knowledge::Knowledge;

    fn device(n: u8) -> DeviceId {
        DeviceId([n; 32])
    }

    fn packet(author: u8, counter: Counter, lamport: Lamport, changes: Vec<Change>) -> Packet {
        Packet {
            dot: Dot { device: device(author), counter },
            hash: PacketHash([author; 32]),
            previous: PacketHash([0; 32]),
            author: PublicKey([author; 32]),
            epoch: 0,
            body: PacketBody {
                lamport,
                time: 0,
                prerequisite: Knowledge::new(),
                needs: Vec::new(),
                packs: Vec::new(),
                inline: Vec::new(),
                changes,
            },
        }
    }

    fn introduce(author: u8) -> Packet {
        let name = format!("device {author}");
        let change = Change::Introduce { name, exchange_key: [author; 32], continues: None };
        packet(author, 1, u64::from(author), vec![change])
    }

    fn revoke(target: u8, cut: Counter) -> Change {
        begin(target, cut, 1, &[])
    }

    fn begin(target: u8, cut: Counter, epoch: Epoch, recipients: &[u8]) -> Change {
        let keys = recipients.iter().map(|recipient| (device(*recipient), vec![1; 3])).collect();
        Change::Revoke { device: device(target), cut, epoch, key: KeyId([epoch as u8; 32]), keys }
    }

    fn rename(target: u8, name: &str) -> Change {
        Change::RenameDevice { device: device(target), name: name.into() }
    }

    fn folded<'a>(packets: impl IntoIterator<Item = &'a Packet>) -> Members {
        let mut members = Members::new();
        for packet in packets {
            members.fold(packet);
        }
        members
    }

    #[test]
    fn a_device_keeps_its_label_when_it_is_renamed() {
        let members = folded(&[
            introduce(1),
            packet(1, 2, 10, vec![rename(1, "laptop")]),
            packet(2, 2, 9, vec![rename(1, "older")]),
        ]);
        assert_eq!(members.label(&device(1)), Some("device 1"));
        assert_eq!(members.name(&device(1)), Some("laptop"));
        let member = members.get(&device(1)).unwrap();
        assert_eq!((member.introduced_name, member.name), ("device 1", "laptop"));
        assert_eq!(member.introduced, Dot { device: device(1), counter: 1 });
        assert_eq!(members.get(&device(2)), None);
    }

    #[test]
    fn of_two_who_revoke_each_other_the_earlier_in_total_order_counts() {
        let first = packet(1, 5, 20, vec![revoke(2, 3)]);
        let second = packet(2, 4, 20, vec![revoke(1, 4)]);
        for order in [[&first, &second], [&second, &first]] {
            let members = folded([&introduce(1), &introduce(2)].into_iter().chain(order));
            assert_eq!(members.standing(&device(1)), Standing::Active);
            assert!(matches!(members.standing(&device(2)), Standing::Revoked { cut: 3, by } if by.device == device(1)));
            assert_eq!(members.active().map(|member| member.device).collect::<Vec<_>>(), [device(1)]);
        }
    }

    #[test]
    fn what_rests_on_a_void_revocation_is_void() {
        // 1 revokes 2, unaware of which 2 revokes 3; 3 revokes 4 and that counts.
        let members = folded(&[
            packet(1, 5, 20, vec![revoke(2, 3)]),
            packet(2, 4, 21, vec![revoke(3, 1)]),
            packet(3, 2, 22, vec![revoke(4, 1)]),
        ]);
        assert_eq!(members.standing(&device(3)), Standing::Active);
        assert!(matches!(members.standing(&device(4)), Standing::Revoked { .. }));
    }

    #[test]
    fn a_revocation_within_the_cut_of_its_author_counts() {
        let members = folded(&[packet(1, 5, 20, vec![revoke(2, 4)]), packet(2, 4, 21, vec![revoke(3, 1)])]);
        assert!(matches!(members.standing(&device(3)), Standing::Revoked { .. }));
    }

    #[test]
    fn the_revocation_of_an_unknown_device_meets_it_when_it_comes() {
        let mut members = folded(&[packet(1, 5, 20, vec![revoke(2, 0)])]);
        assert!(!members.standing(&device(2)).covers(1));
        members.fold(&introduce(2));
        assert!(matches!(members.get(&device(2)).unwrap().standing, Standing::Revoked { cut: 0, .. }));
        assert_eq!(members.active().count(), 0);
    }

    #[test]
    fn a_retired_device_is_not_waited_for_and_a_revoked_one_stays_revoked() {
        let retire = |cut| Change::Retire { device: device(2), cut };
        let mut members = folded(&[introduce(2), packet(1, 2, 5, vec![retire(7)]), packet(3, 2, 6, vec![retire(4)])]);
        assert_eq!(members.standing(&device(2)), Standing::Retired { cut: 7 });
        assert!(members.standing(&device(2)).covers(7) && !members.standing(&device(2)).covers(8));
        members.fold(&packet(1, 3, 8, vec![revoke(2, 7)]));
        members.fold(&packet(1, 4, 9, vec![retire(9)]));
        assert!(matches!(members.standing(&device(2)), Standing::Revoked { cut: 7, .. }));
    }

    #[test]
    fn of_two_epochs_of_one_number_the_earlier_in_total_order_seals_and_a_leaked_key_is_noticed() {
        let first = packet(1, 5, 20, vec![begin(3, 3, 1, &[2, 4])]);
        let second = packet(2, 4, 20, vec![begin(4, 4, 1, &[1, 3])]);
        let everyone: Vec<Packet> = (1..=4).map(introduce).collect();
        let alone = folded(everyone.iter().chain([&first]));
        assert_eq!(alone.leaked_to(), None);
        let both = folded(everyone.iter().chain([&second, &first]));
        let key = both.epoch_key().unwrap();
        assert_eq!((key.epoch, key.by.device), (1, device(1)));
        assert_eq!(both.epoch_keys().count(), 2);
        assert_eq!(both.leaked_to(), Some(device(4)), "the first did not know that the second revoked it");
        // Whoever renews the key names one of the revoked again and gives it to those who are left.
        let renewal = packet(1, 6, 21, vec![begin(3, 3, 2, &[2])]);
        let renewed = folded(everyone.iter().chain([&first, &second, &renewal]));
        assert_eq!((renewed.epoch_key().unwrap().epoch, renewed.leaked_to()), (2, None));
        assert_eq!(renewed.standing(&device(3)), both.standing(&device(3)));
    }

    #[test]
    fn an_epoch_of_a_revocation_that_does_not_count_seals_nothing() {
        let first = packet(1, 5, 20, vec![begin(2, 3, 1, &[3])]);
        let second = packet(2, 4, 21, vec![begin(1, 4, 2, &[3])]);
        let members = folded(&[introduce(1), introduce(2), introduce(3), first, second]);
        assert_eq!(members.epoch_key().map(|key| key.epoch), Some(1));
        assert_eq!(members.epoch_keys().map(|key| key.epoch).max(), Some(2));
    }

    #[test]
    fn a_new_key_goes_to_those_who_have_the_present_one_by_right() {
        let mut late = introduce(4);
        late.epoch = 1;
        let heirs = |members: &Members, revoked: u8| -> Vec<u8> {
            members.heirs(&device(revoked)).iter().map(|heir| heir.device.0[0]).collect()
        };
        let mut members = folded(&[introduce(1), introduce(2), introduce(3)]);
        members.fold(&packet(2, 2, 4, vec![Change::Retire { device: device(3), cut: 1 }]));
        assert_eq!(heirs(&members, 2), [1, 3], "a retired device may come back");
        members.fold(&packet(1, 2, 5, vec![begin(2, 1, 1, &[3])]));
        // One joined with the new key; another with the one that had been given up.
        members.fold(&late);
        members.fold(&introduce(5));
        assert_eq!(heirs(&members, 3), [1, 4]);
    }

    #[test]
    fn who_acknowledges_must_know_whom_nobody_waits_for_any_more() {
        let retire = packet(1, 5, 20, vec![Change::Retire { device: device(3), cut: 2 }]);
        let members = folded(&[introduce(1), introduce(2), introduce(3), retire]);
        let awaited = members.awaited();
        assert_eq!(awaited.devices, BTreeSet::from([device(1), device(2)]));
        let condemnation = Dot { device: device(1), counter: 4 };
        let known = |counter| {
            let mut knowledge = Knowledge::new();
            knowledge.advance(device(1), crate::knowledge::Learned { counter, hash: PacketHash([1; 32]) });
            knowledge
        };
        for (counter, lacking) in [(3, vec![device(2)]), (4, vec![device(2)]), (5, vec![])] {
            let (own, other) = (known(5), known(counter));
            let published = |of: &DeviceId| Some(if *of == device(1) { &own } else { &other });
            assert_eq!(awaited.lacking(&condemnation, published), lacking, "known up to {counter}");
        }
        assert_eq!(awaited.lacking(&condemnation, |_| None), [device(1), device(2)]);
    }

    fn changes() -> impl Strategy<Value = Vec<Change>> {
        let change = prop_oneof![
            (1u8..5, "[a-z]{1,3}").prop_map(|(target, name)| rename(target, &name)),
            (1u8..5, 0u64..6, 1u32..4, vec(1u8..5, 0..3))
                .prop_map(|(target, cut, epoch, to)| begin(target, cut, epoch, &to)),
            (1u8..5, 0u64..6).prop_map(|(target, cut)| Change::Retire { device: device(target), cut }),
            (1u8..5).prop_map(|author| introduce(author).body.changes.remove(0)),
        ];
        vec(change, 0..4)
    }

    fn history() -> impl Strategy<Value = Vec<Packet>> {
        vec((1u8..5, 1u64..4, changes()), 0..12).prop_map(|drawn| {
            let mut last: BTreeMap<u8, (Counter, Lamport)> = BTreeMap::new();
            let mut packets = Vec::new();
            for (author, step, changes) in drawn {
                let (counter, lamport) = last.entry(author).or_default();
                (*counter, *lamport) = (*counter + 1, *lamport + step);
                packets.push(packet(author, *counter, *lamport, changes));
            }
            packets
        })
    }

    proptest! {
        #[test]
        fn members_are_a_function_of_the_set_of_packets(
            (packets, shuffled) in history().prop_flat_map(|packets| (Just(packets.clone()), Just(packets).prop_shuffle())),
        ) {
            let members = folded(&packets);
            prop_assert_eq!(&members, &folded(&shuffled));
            prop_assert_eq!(&members, &folded(shuffled.iter().chain(&packets)));
        }

        #[test]
        fn what_was_folded_round_trips(packets in history()) {
            let members = folded(&packets);
            let mut out = Writer::new();
            members.encode(&mut out);
            let bytes = out.finish();
            let mut input = Reader::new(&bytes);
            prop_assert_eq!(Members::decode(&mut input), Ok(members));
            prop_assert_eq!(input.finish(), Ok(()));
            for len in 0..bytes.len() {
                prop_assert!(Members::decode(&mut Reader::new(&bytes[..len])).is_err());
            }
        }

        #[test]
        fn what_decodes_is_canonical(packets in history(), at: prop::sample::Index, with: u8) {
            let mut out = Writer::new();
            folded(&packets).encode(&mut out);
            let mut bytes = out.finish();
            let at = at.index(bytes.len());
            bytes[at] ^= with;
            let mut input = Reader::new(&bytes);
            if let Ok(members) = Members::decode(&mut input) {
                let read = bytes.len() - input.remaining();
                let mut out = Writer::new();
                members.encode(&mut out);
                prop_assert_eq!(&out.finish()[..], &bytes[..read]);
            }
        }
    }
}
