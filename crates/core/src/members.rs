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
//! ```text
//! introductions  count, per member by device: device 32 | public key 32 | stamp | name bytes | exchange key 32
//!                | 0 or 1 and the device 32 that it continues
//! renames        count, per device by id: device 32 | stamp | name bytes
//! removals       count, by stamp: stamp | device 32 | cut varint | 0 retired, 1 revoked
//!
//! stamp          device 32 | lamport varint | counter varint, from 1 | index varint
//! ```

use std::collections::BTreeMap;

use crate::change::{Change, MAX_DEVICE_NAME};
use crate::ids::{Counter, DeviceId, Dot, Stamp};
use crate::item::Register;
use crate::keys::PublicKey;
use crate::packet::Packet;
use crate::wire::{Reader, WireError, Writer};

/// Who belongs to a vault.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Members {
    introductions: BTreeMap<DeviceId, Introduction>,
    renames: BTreeMap<DeviceId, Register<String>>,
    removals: BTreeMap<Stamp, Removal>,
    /// Decided by `removals`; devices without an entry are active.
    standings: BTreeMap<DeviceId, Standing>,
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
    /// Whether a packet of the device at `counter` stands by itself: it is not beyond a revocation's cut.
    pub fn covers(&self, counter: Counter) -> bool {
        !matches!(self, Standing::Revoked { cut, .. } if counter > *cut)
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
                Change::Revoke { device, cut, .. } => {
                    removed = true;
                    self.removals.insert(stamp, Removal { device: *device, cut: *cut, revokes: true });
                }
                Change::Retire { device, cut } => {
                    removed = true;
                    self.removals.insert(stamp, Removal { device: *device, cut: *cut, revokes: false });
                }
                _ => {}
            }
        }
        if removed {
            self.standings = standings(&self.removals);
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
        self.standings.get(device).copied().unwrap_or(Standing::Active)
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
            match &introduction.continues {
                Some(continued) => out.u8(1).raw(&continued.0),
                None => out.u8(0),
            };
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
            out.raw(&removal.device.0).varint(removal.cut).u8(removal.revokes.into());
        }
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let mut members = Self::new();
        for _ in 0..input.count(3 * DeviceId::LEN)? {
            let device = DeviceId(input.array()?);
            let introduction = Introduction {
                public_key: PublicKey(input.array()?),
                stamp: decode_stamp(input)?,
                name: decode_name(input)?,
                exchange_key: input.array()?,
                continues: match input.u8()? {
                    0 => None,
                    1 => Some(DeviceId(input.array()?)),
                    _ => return Err(WireError::NotCanonical),
                },
            };
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
            let revokes = match input.u8()? {
                0 => false,
                1 => true,
                _ => return Err(WireError::NotCanonical),
            };
            insert_last(&mut members.removals, stamp, Removal { device, cut, revokes })?;
        }
        members.standings = standings(&members.removals);
        Ok(members)
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Introduction {
    public_key: PublicKey,
    stamp: Stamp,
    name: String,
    exchange_key: [u8; 32],
    continues: Option<DeviceId>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Removal {
    device: DeviceId,
    cut: Counter,
    revokes: bool,
}

/// How devices stand after all removals, in total order.
fn standings(removals: &BTreeMap<Stamp, Removal>) -> BTreeMap<DeviceId, Standing> {
    let mut standings: BTreeMap<DeviceId, Standing> = BTreeMap::new();
    for (stamp, removal) in removals {
        let author = standings.get(&stamp.device).copied().unwrap_or(Standing::Active);
        if !author.covers(stamp.counter) {
            continue;
        }
        let standing = standings.entry(removal.device).or_insert(Standing::Active);
        *standing = match (*standing, removal.revokes) {
            // Whoever revokes with a later cut had those packets in its prerequisite, so they count.
            (Standing::Revoked { cut, by }, true) => Standing::Revoked { cut: cut.max(removal.cut), by },
            (standing @ Standing::Revoked { .. }, false) => standing,
            (_, true) => Standing::Revoked { cut: removal.cut, by: *stamp },
            (Standing::Retired { cut }, false) => Standing::Retired { cut: cut.max(removal.cut) },
            (Standing::Active, false) => Standing::Retired { cut: removal.cut },
        };
    }
    standings
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
        Change::Revoke { device: device(target), cut, epoch: 1, keys: Vec::new() }
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
        assert!(members.standing(&device(2)).covers(8));
        members.fold(&packet(1, 3, 8, vec![revoke(2, 7)]));
        members.fold(&packet(1, 4, 9, vec![retire(9)]));
        assert!(matches!(members.standing(&device(2)), Standing::Revoked { cut: 7, .. }));
    }

    fn changes() -> impl Strategy<Value = Vec<Change>> {
        let change = prop_oneof![
            (1u8..5, "[a-z]{1,3}").prop_map(|(target, name)| rename(target, &name)),
            (1u8..5, 0u64..6).prop_map(|(target, cut)| revoke(target, cut)),
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
