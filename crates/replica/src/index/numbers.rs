//! Numbers for devices and items, so that rows name them in a few bytes.
//!
//! Items come in batches that share their first twelve bytes and count in the rest. So the first fifteen bytes of an id
//! have a number, its block's, and the item's number is `block << 8 | last byte`: an item is found by its id without
//! any index of ids, and neighbours lie together. The root is number 0.
//!
//! Devices are few and all in memory; of blocks a bounded number is.

use std::cell::RefCell;
use std::collections::HashMap;

use packetboat_core::ids::{DeviceId, ItemId};
use rusqlite::{Connection, OptionalExtension};

use super::IndexError;

/// The numbers of devices and items.
#[derive(Debug)]
pub(super) struct Numbers {
    devices: RefCell<Devices>,
    blocks: RefCell<Blocks>,
}

#[derive(Debug, Default)]
struct Devices {
    by_id: HashMap<DeviceId, i64>,
    by_number: HashMap<i64, DeviceId>,
}

#[derive(Debug, Default)]
struct Blocks {
    by_prefix: HashMap<Prefix, i64>,
    by_number: HashMap<i64, Prefix>,
}

type Prefix = [u8; 15];

impl Numbers {
    /// Reads all devices.
    pub(super) fn load(sql: &Connection) -> Result<Self, IndexError> {
        let mut devices = Devices::default();
        let mut statement = sql.prepare_cached("SELECT n, id FROM device")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let id = DeviceId::from_slice(row.get_ref(1)?.as_blob()?);
            devices.insert(row.get(0)?, id.ok_or(IndexError::Damaged { what: "a device id" })?);
        }
        Ok(Self { devices: RefCell::new(devices), blocks: RefCell::default() })
    }

    /// A device's number, if it has one.
    pub(super) fn find_device(&self, id: &DeviceId) -> Option<i64> {
        self.devices.borrow().by_id.get(id).copied()
    }

    /// A device's number; gives it one if it has none.
    pub(super) fn device_number(&self, sql: &Connection, id: &DeviceId) -> Result<i64, IndexError> {
        if let Some(number) = self.find_device(id) {
            return Ok(number);
        }
        sql.prepare_cached("INSERT INTO device (id) VALUES (?1)")?.execute([id.as_bytes()])?;
        let number = sql.last_insert_rowid();
        self.devices.borrow_mut().insert(number, *id);
        Ok(number)
    }

    /// The device with this number.
    pub(super) fn device(&self, sql: &Connection, number: i64) -> Result<DeviceId, IndexError> {
        if let Some(id) = self.devices.borrow().by_number.get(&number) {
            return Ok(*id);
        }
        // Another process may have written since the index was opened.
        let mut statement = sql.prepare_cached("SELECT id FROM device WHERE n = ?1")?;
        let id = statement.query_row([number], |row| row.get::<_, [u8; 32]>(0)).optional()?;
        let id = DeviceId(id.ok_or(IndexError::Damaged { what: "a device number" })?);
        self.devices.borrow_mut().insert(number, id);
        Ok(id)
    }

    /// An item's number, if its block has one; the item itself may still be unknown.
    pub(super) fn find_item(&self, sql: &Connection, id: ItemId) -> Result<Option<i64>, IndexError> {
        let (prefix, low) = split(id);
        if let Some(block) = self.blocks.borrow().by_prefix.get(&prefix) {
            return Ok(Some(join(*block, low)));
        }
        let mut statement = sql.prepare_cached("SELECT n FROM block WHERE prefix = ?1")?;
        let block: Option<i64> = statement.query_row([&prefix[..]], |row| row.get(0)).optional()?;
        if let Some(block) = block {
            self.blocks.borrow_mut().insert(block, prefix);
        }
        Ok(block.map(|block| join(block, low)))
    }

    /// An item's number; gives it one if it has none.
    pub(super) fn item_number(&self, sql: &Connection, id: ItemId) -> Result<i64, IndexError> {
        if let Some(number) = self.find_item(sql, id)? {
            return Ok(number);
        }
        let (prefix, low) = split(id);
        sql.prepare_cached("INSERT INTO block (prefix) VALUES (?1)")?.execute([&prefix[..]])?;
        let block = sql.last_insert_rowid();
        self.blocks.borrow_mut().insert(block, prefix);
        Ok(join(block, low))
    }

    /// The item with this number.
    pub(super) fn item(&self, sql: &Connection, number: i64) -> Result<ItemId, IndexError> {
        let (block, low) = (number >> 8, number as u8);
        if let Some(prefix) = self.blocks.borrow().by_number.get(&block) {
            return Ok(whole(prefix, low));
        }
        let damaged = IndexError::Damaged { what: "an item number" };
        let mut statement = sql.prepare_cached("SELECT prefix FROM block WHERE n = ?1")?;
        let Some(prefix) = statement.query_row([block], |row| row.get::<_, Prefix>(0)).optional()? else {
            return Err(damaged);
        };
        self.blocks.borrow_mut().insert(block, prefix);
        Ok(whole(&prefix, low))
    }
}

impl Devices {
    fn insert(&mut self, number: i64, id: DeviceId) {
        self.by_id.insert(id, number);
        self.by_number.insert(number, id);
    }
}

impl Blocks {
    fn insert(&mut self, number: i64, prefix: Prefix) {
        if self.by_number.len() >= MAX_BLOCKS {
            self.by_prefix.clear();
            self.by_number.clear();
        }
        self.by_prefix.insert(prefix, number);
        self.by_number.insert(number, prefix);
    }
}

fn split(id: ItemId) -> (Prefix, u8) {
    let mut prefix = [0; 15];
    prefix.copy_from_slice(&id.0[..15]);
    (prefix, id.0[15])
}

fn join(block: i64, low: u8) -> i64 {
    block << 8 | i64::from(low)
}

fn whole(prefix: &Prefix, low: u8) -> ItemId {
    let mut id = [low; 16];
    id[..15].copy_from_slice(prefix);
    ItemId(id)
}

/// How many blocks are kept in memory: four million items that were made together, in some 5 MiB.
const MAX_BLOCKS: usize = 16 * 1024;
