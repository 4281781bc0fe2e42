//! Packets in the index: sealed for as long as they are kept, and what a log says of them.
//!
//! A folded one stays sealed until its owner lets it go, so that what an intermediary loses can be put there again. One that
//! lies before the checkpoint from which this replica began is kept where another intermediary may lack it.

use packetboat_core::ids::{Counter, DeviceId, Dot, Lamport, PacketHash};
use packetboat_core::packet::SealedPacket;
use packetboat_core::tree::Summary;
use packetboat_core::wire::{Reader, WireError, Writer};
use rusqlite::{OptionalExtension, Row, params};

use super::items::page;
use super::{Index, IndexError};

/// How a packet's changes came into the tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// By a checkpoint that includes it; it was not folded by itself, and is kept to be carried.
    Carried,
    /// Folded.
    Folded,
}

/// What the index holds of a packet beside its bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PacketRow {
    /// The packet.
    pub dot: Dot,
    /// Its hash.
    pub hash: PacketHash,
    /// What it holds, once it is folded.
    pub folded: Option<FoldedPacket>,
    /// Size of its sealed bytes, while they are kept.
    pub sealed_bytes: Option<u64>,
}

/// What a log says of a folded packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FoldedPacket {
    /// Its Lamport time.
    pub lamport: Lamport,
    /// The author's clock in milliseconds since 1970 UTC.
    pub time: i64,
    /// How many changes of each kind it holds.
    pub summary: Summary,
}

impl Index {
    /// Stores a packet; one that is there already is left as it is, but gets its sealed bytes back.
    ///
    /// Says whether it is stored now: not so where another packet has its dot, which is a fork.
    /// What a folded packet holds, [`set_folded`](Self::set_folded) says; until then its Lamport time is 0.
    pub fn put_packet(&mut self, packet: &SealedPacket, stage: Stage) -> Result<bool, IndexError> {
        let dot = packet.dot();
        let device = self.numbers.device_number(&self.sql, &dot.device)?;
        let (hash, bytes) = (packet.hash(), packet.bytes());
        let stage = i64::from(stage == Stage::Folded);
        let mut put = self.sql.prepare_cached(
            "INSERT INTO packet (device, counter, hash, stage, lamport, time, sealed) VALUES (?1, ?2, ?3, ?4, 0, 0, ?5)
             ON CONFLICT (device, counter) DO UPDATE SET sealed = excluded.sealed WHERE hash = excluded.hash",
        )?;
        Ok(put.execute(params![device, dot.counter as i64, hash.as_bytes(), stage, bytes])? > 0)
    }

    /// Notes that a packet was folded, and what it holds; says whether it is stored.
    pub fn set_folded(&mut self, dot: Dot, lamport: Lamport, time: i64, summary: &Summary) -> Result<bool, IndexError> {
        let Some(device) = self.numbers.find_device(&dot.device) else { return Ok(false) };
        let mut update = self.sql.prepare_cached(
            "UPDATE packet SET stage = 1, lamport = ?3, time = ?4, summary = ?5 WHERE device = ?1 AND counter = ?2",
        )?;
        let values = params![device, dot.counter as i64, lamport as i64, time, encode_summary(summary)];
        Ok(update.execute(values)? > 0)
    }

    /// What is known of a packet.
    pub fn packet_row(&self, dot: Dot) -> Result<Option<PacketRow>, IndexError> {
        Ok(self.packets(dot.device, dot.counter, dot.counter)?.pop())
    }

    /// The packets of a device from counter `first` to `last`, both included.
    pub fn packets(&self, device: DeviceId, first: Counter, last: Counter) -> Result<Vec<PacketRow>, IndexError> {
        let Some(device) = self.numbers.find_device(&device) else { return Ok(Vec::new()) };
        let mut statement = self.sql.prepare_cached(
            "SELECT device, counter, hash, stage, lamport, time, summary, length(sealed) FROM packet
             WHERE device = ?1 AND counter BETWEEN ?2 AND ?3 ORDER BY counter",
        )?;
        let mut rows = statement.query(params![device, first as i64, last as i64])?;
        let mut packets = Vec::new();
        while let Some(row) = rows.next()? {
            packets.push(self.read_packet(row)?);
        }
        Ok(packets)
    }

    /// At most `limit` folded packets before a place in the log, last first by (Lamport, device).
    pub fn recent_packets(
        &self,
        limit: usize,
        before: Option<(Lamport, DeviceId)>,
    ) -> Result<Vec<PacketRow>, IndexError> {
        let (lamport, device) = before.map_or((i64::MAX, [0xff; 32]), |(at, device)| (at as i64, device.0));
        let mut statement = self.sql.prepare_cached(
            "SELECT p.device, p.counter, p.hash, p.stage, p.lamport, p.time, p.summary, length(p.sealed)
             FROM packet p INDEXED BY packet_log CROSS JOIN device d ON d.n = p.device
             WHERE p.stage = 1 AND p.lamport <= ?1 AND (p.lamport < ?1 OR d.id < ?2)
             ORDER BY p.lamport DESC, d.id DESC LIMIT ?3",
        )?;
        let mut rows = statement.query(params![lamport, &device[..], page(limit)])?;
        let mut packets = Vec::new();
        while let Some(row) = rows.next()? {
            packets.push(self.read_packet(row)?);
        }
        Ok(packets)
    }

    /// The packets whose hash begins with these hexadecimal digits, at most `limit`.
    pub fn packet_by_prefix(&self, prefix: &str, limit: usize) -> Result<Vec<PacketRow>, IndexError> {
        let Some(missing) = (2 * PacketHash::LEN).checked_sub(prefix.len()) else { return Ok(Vec::new()) };
        let prefix = prefix.to_ascii_lowercase();
        let padded = |digit: &str| PacketHash::from_hex(&(prefix.clone() + &digit.repeat(missing)));
        let (Some(first), Some(last)) = (padded("0"), padded("f")) else { return Ok(Vec::new()) };
        let mut statement = self.sql.prepare_cached(
            "SELECT device, counter, hash, stage, lamport, time, summary, length(sealed) FROM packet
             WHERE stage = 1 AND hash BETWEEN ?1 AND ?2 ORDER BY hash LIMIT ?3",
        )?;
        let mut rows = statement.query(params![first.as_bytes(), last.as_bytes(), page(limit)])?;
        let mut packets = Vec::new();
        while let Some(row) = rows.next()? {
            packets.push(self.read_packet(row)?);
        }
        Ok(packets)
    }

    /// A packet's bytes, while they are kept.
    pub fn sealed(&self, dot: Dot) -> Result<Option<Vec<u8>>, IndexError> {
        let Some(device) = self.numbers.find_device(&dot.device) else { return Ok(None) };
        let mut statement = self.sql.prepare_cached("SELECT sealed FROM packet WHERE device = ?1 AND counter = ?2")?;
        let bytes: Option<Option<Vec<u8>>> =
            statement.query_row([device, dot.counter as i64], |row| row.get(0)).optional()?;
        Ok(bytes.flatten())
    }

    /// A packet, while its bytes are kept.
    pub fn sealed_packet(&self, dot: Dot) -> Result<Option<SealedPacket>, IndexError> {
        let damaged = |_| IndexError::Damaged { what: "a packet" };
        self.sealed(dot)?.map(SealedPacket::from_bytes).transpose().map_err(damaged)
    }

    /// Lets a packet's bytes go; what a log says of it stays.
    pub fn drop_sealed(&mut self, dot: Dot) -> Result<(), IndexError> {
        if let Some(device) = self.numbers.find_device(&dot.device) {
            let mut update =
                self.sql.prepare_cached("UPDATE packet SET sealed = NULL WHERE device = ?1 AND counter = ?2")?;
            update.execute([device, dot.counter as i64])?;
        }
        Ok(())
    }

    fn read_packet(&self, row: &Row<'_>) -> Result<PacketRow, IndexError> {
        let device = self.numbers.device(&self.sql, row.get(0)?)?;
        let dot = Dot { device, counter: row.get::<_, i64>(1)? as u64 };
        let folded = if row.get(3)? {
            let summary = match row.get_ref(6)?.as_blob_or_null()? {
                Some(bytes) => decode_summary(bytes)?,
                None => Summary::default(),
            };
            Some(FoldedPacket { lamport: row.get::<_, i64>(4)? as u64, time: row.get(5)?, summary })
        } else {
            None
        };
        let sealed_bytes = row.get::<_, Option<i64>>(7)?.map(|bytes| bytes as u64);
        Ok(PacketRow { dot, hash: PacketHash(row.get(2)?), folded, sealed_bytes })
    }
}

/// Five varints, in the order of the fields.
pub(super) fn encode_summary(summary: &Summary) -> Vec<u8> {
    let mut out = Writer::new();
    for count in [summary.created, summary.edited, summary.moved, summary.deleted, summary.attributes] {
        out.varint(u64::from(count));
    }
    out.finish()
}

pub(super) fn decode_summary(bytes: &[u8]) -> Result<Summary, WireError> {
    let mut input = Reader::new(bytes);
    let summary = Summary {
        created: input.varint32()?,
        edited: input.varint32()?,
        moved: input.varint32()?,
        deleted: input.varint32()?,
        attributes: input.varint32()?,
    };
    input.finish()?;
    Ok(summary)
}
