//! Lanes in the index: what was learned, and how much of it each intermediary is known to have.

use std::collections::HashMap;

use packetboat_core::ids::{Counter, DeviceId, Lamport, PacketHash};
use packetboat_core::knowledge::{Knowledge, Learned};
use packetboat_core::wire::{Reader, Writer};
use rusqlite::{OptionalExtension, params};

use super::{Index, IndexError};

impl Index {
    /// What was learned: for each lane the last folded packet.
    pub fn knowledge(&self) -> &Knowledge {
        &self.knowledge
    }

    /// The whole prerequisite of a lane's last folded packet; empty for a lane that is not known.
    pub fn lane_prerequisite(&self, device: DeviceId) -> Result<Knowledge, IndexError> {
        let Some(device) = self.numbers.find_device(&device) else { return Ok(Knowledge::new()) };
        let mut statement = self.sql.prepare_cached("SELECT prerequisite FROM lane WHERE device = ?1")?;
        let mut rows = statement.query([device])?;
        let Some(row) = rows.next()? else { return Ok(Knowledge::new()) };
        let mut input = Reader::new(row.get_ref(0)?.as_blob()?);
        let prerequisite = Knowledge::decode(&mut input)?;
        input.finish()?;
        Ok(prerequisite)
    }

    /// Notes that a lane was folded up to `learned`, whose Lamport time and whole prerequisite these are.
    pub fn advance_lane(
        &mut self,
        device: DeviceId,
        learned: Learned,
        lamport: Lamport,
        prerequisite: &Knowledge,
    ) -> Result<(), IndexError> {
        let number = self.numbers.device_number(&self.sql, &device)?;
        let mut encoded = Writer::new();
        prerequisite.encode(&mut encoded);
        let mut put = self.sql.prepare_cached(
            "INSERT INTO lane (device, counter, hash, lamport, prerequisite) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET counter = ?2, hash = ?3, lamport = ?4, prerequisite = ?5 WHERE counter < ?2",
        )?;
        let (counter, lamport) = (learned.counter as i64, lamport as i64);
        put.execute(params![number, counter, learned.hash.as_bytes(), lamport, encoded.finish()])?;
        self.knowledge.advance(device, learned);
        Ok(())
    }

    /// The Lamport time of a lane's last folded packet.
    pub fn lane_lamport(&self, device: DeviceId) -> Result<Option<Lamport>, IndexError> {
        let Some(device) = self.numbers.find_device(&device) else { return Ok(None) };
        let mut statement = self.sql.prepare_cached("SELECT lamport FROM lane WHERE device = ?1")?;
        let lamport: Option<i64> = statement.query_row([device], |row| row.get(0)).optional()?;
        Ok(lamport.map(|lamport| lamport as u64))
    }

    /// The greatest Lamport time among what was folded; 0 for none.
    pub fn max_lamport(&self) -> Result<Lamport, IndexError> {
        let mut statement = self.sql.prepare_cached("SELECT coalesce(max(lamport), 0) FROM lane")?;
        let lamport: i64 = statement.query_row([], |row| row.get(0))?;
        Ok(lamport as u64)
    }

    /// The last packet of this device's own lane that an intermediary is known to have; 0 for none.
    pub fn published(&self, place: &str) -> Result<Counter, IndexError> {
        let mut statement = self.sql.prepare_cached("SELECT counter FROM published WHERE place = ?1")?;
        let counter: Option<i64> = statement.query_row([place], |row| row.get(0)).optional()?;
        Ok(counter.unwrap_or(0) as u64)
    }

    /// Notes how far this device's own lane lies at an intermediary; it may go back, where that one has lost something.
    pub fn set_published(&mut self, place: &str, counter: Counter) -> Result<(), IndexError> {
        let mut put = self.sql.prepare_cached("INSERT OR REPLACE INTO published (place, counter) VALUES (?1, ?2)")?;
        put.execute(params![place, counter as i64])?;
        Ok(())
    }

    /// The tips as they were last read at an intermediary: etag and counter.
    pub fn tip_etags(&self, place: &str) -> Result<HashMap<DeviceId, (String, Counter)>, IndexError> {
        let mut statement = self.sql.prepare_cached("SELECT device, etag, counter FROM seen_tip WHERE place = ?1")?;
        let mut rows = statement.query([place])?;
        let mut tips = HashMap::new();
        while let Some(row) = rows.next()? {
            let device = self.numbers.device(&self.sql, row.get(0)?)?;
            tips.insert(device, (row.get(1)?, row.get::<_, i64>(2)? as u64));
        }
        Ok(tips)
    }

    /// The greatest counter of a device's tips that was seen at any intermediary; 0 before the first.
    ///
    /// One intermediary may be reached in two ways that are recorded as two places, and shows a tip that was put by
    /// the one way late by the other: a number that is taken again would be taken for an older tip.
    pub fn greatest_tip(&self, device: &DeviceId) -> Result<Counter, IndexError> {
        let Some(device) = self.numbers.find_device(device) else { return Ok(0) };
        let mut statement = self.sql.prepare_cached("SELECT max(counter) FROM seen_tip WHERE device = ?1")?;
        let greatest: Option<i64> = statement.query_row([device], |row| row.get(0))?;
        Ok(greatest.unwrap_or(0) as u64)
    }

    /// Notes the etag and counter of a tip that was read.
    pub fn set_tip_etag(
        &mut self,
        place: &str,
        device: DeviceId,
        etag: &str,
        counter: Counter,
    ) -> Result<(), IndexError> {
        let device = self.numbers.device_number(&self.sql, &device)?;
        let mut put = self
            .sql
            .prepare_cached("INSERT OR REPLACE INTO seen_tip (place, device, etag, counter) VALUES (?1, ?2, ?3, ?4)")?;
        put.execute(params![place, device, etag, counter as i64])?;
        Ok(())
    }

    /// Forgets all that is noted of an intermediary, so that everything there is looked at again.
    pub fn forget_place(&mut self, place: &str) -> Result<(), IndexError> {
        self.sql.prepare_cached("DELETE FROM seen_tip WHERE place = ?1")?.execute([place])?;
        self.sql.prepare_cached("DELETE FROM published WHERE place = ?1")?.execute([place])?;
        Ok(())
    }

    pub(super) fn load_knowledge(&self) -> Result<Knowledge, IndexError> {
        let mut statement = self.sql.prepare_cached("SELECT device, counter, hash FROM lane")?;
        let mut rows = statement.query([])?;
        let mut knowledge = Knowledge::new();
        while let Some(row) = rows.next()? {
            let device = self.numbers.device(&self.sql, row.get(0)?)?;
            let learned = Learned { counter: row.get::<_, i64>(1)? as u64, hash: PacketHash(row.get(2)?) };
            knowledge.advance(device, learned);
        }
        Ok(knowledge)
    }
}
