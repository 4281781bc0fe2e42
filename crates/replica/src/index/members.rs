//! The members of a vault in the index, as its packets introduced them.

use packetboat_core::ids::{DeviceId, Lamport};
use packetboat_core::keys::PublicKey;
use rusqlite::{Row, params};

use super::{Index, IndexError};

/// A device that is or was a member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// The device.
    pub device: DeviceId,
    /// Its signing key.
    pub public_key: PublicKey,
    /// Its X25519 public key, to which later epochs' keys are sealed.
    pub exchange_key: [u8; 32],
    /// What people call it now.
    pub name: String,
    /// The name under which it introduced itself.
    pub introduced_name: String,
    /// Its standing, in the form of whoever decides it.
    pub state: Vec<u8>,
    /// The Lamport time of its last packet.
    pub heard_lamport: Lamport,
    /// When it was last heard of, in milliseconds since 1970 UTC.
    pub heard_time: i64,
}

impl Index {
    /// Stores a member.
    pub fn put_member(&mut self, member: &Member) -> Result<(), IndexError> {
        let device = self.numbers.device_number(&self.sql, &member.device)?;
        let mut put = self.sql.prepare_cached(
            "INSERT OR REPLACE INTO member
             (device, public_key, exchange_key, name, introduced_name, state, heard_lamport, heard_time)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?;
        put.execute(params![
            device,
            &member.public_key.0[..],
            &member.exchange_key[..],
            member.name,
            member.introduced_name,
            member.state,
            member.heard_lamport as i64,
            member.heard_time,
        ])?;
        Ok(())
    }

    /// A member.
    pub fn member(&self, device: DeviceId) -> Result<Option<Member>, IndexError> {
        let Some(device) = self.numbers.find_device(&device) else { return Ok(None) };
        let mut statement = self.sql.prepare_cached(
            "SELECT device, public_key, exchange_key, name, introduced_name, state, heard_lamport, heard_time
             FROM member WHERE device = ?1",
        )?;
        let mut rows = statement.query([device])?;
        rows.next()?.map(|row| self.read_member(row)).transpose()
    }

    /// All members, in the order of their device ids.
    pub fn members(&self) -> Result<Vec<Member>, IndexError> {
        let mut statement = self.sql.prepare_cached(
            "SELECT device, public_key, exchange_key, name, introduced_name, state, heard_lamport, heard_time
             FROM member",
        )?;
        let mut rows = statement.query([])?;
        let mut members = Vec::new();
        while let Some(row) = rows.next()? {
            members.push(self.read_member(row)?);
        }
        members.sort_by_key(|member| member.device);
        Ok(members)
    }

    fn read_member(&self, row: &Row<'_>) -> Result<Member, IndexError> {
        Ok(Member {
            device: self.numbers.device(&self.sql, row.get(0)?)?,
            public_key: PublicKey(row.get(1)?),
            exchange_key: row.get(2)?,
            name: row.get(3)?,
            introduced_name: row.get(4)?,
            state: row.get(5)?,
            heard_lamport: row.get::<_, i64>(6)? as u64,
            heard_time: row.get(7)?,
        })
    }
}
