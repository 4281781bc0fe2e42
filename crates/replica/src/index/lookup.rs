//! Asking from several threads whether a chunk is stored.
//!
//! An index belongs to one thread. Those that prepare content ask through a connection of their own,
//! which sees what is committed; an index that is only in memory is copied for them.
//! Who asks for many asks a [`ChunkSieve`] first: most of what is new it knows to be new, and a question to the database
//! costs more than hashing a small file.
//!
//! A chunk that lies in condemned packs alone counts as not stored, so that it is stored anew. A device that the others may
//! not know yet counts only what it stored itself ([`Referable::Own`]).

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex};

use packetboat_core::ids::{ChunkId, DeviceId, PackId};
use rusqlite::{Connection, OpenFlags};

use super::chunks::{CONDEMNED, INLINE_KEY, decode_part, find_in_part, key};
use super::{Index, IndexError, STATEMENTS};

/// Answers whether a chunk is stored.
pub struct ChunkLookup {
    is_stored: Box<dyn Fn(&ChunkId) -> bool + Send + Sync>,
    /// The connection, where there is one of its own.
    live: Option<Arc<Mutex<Connection>>>,
    is_of_own: bool,
}

impl ChunkLookup {
    /// Whether only what this device stored counts.
    pub fn is_of_own(&self) -> bool {
        self.is_of_own
    }

    /// Whether the chunk is stored.
    pub fn is_stored(&self, id: &ChunkId) -> bool {
        (self.is_stored)(id)
    }

    /// Whether it sees what is committed after it was made.
    pub fn is_live(&self) -> bool {
        self.live.is_some()
    }

    /// A sieve of all chunks that are stored now. It reads a short number of each, so it is worth it for many questions.
    ///
    /// Nothing where no sieve can be made, or none is needed.
    pub fn sieve(&self) -> Option<ChunkSieve> {
        let sql = self.live.as_ref()?.lock().expect("nobody panics holding this");
        ChunkSieve::read(&sql).ok()
    }
}

/// Tells of most chunks that are not stored that they are not.
///
/// One bit for each value of the first 25 bits of an id: with a million chunks it is wrong of one new chunk in 33,
/// and never of one that is stored.
pub struct ChunkSieve {
    bits: Vec<u64>,
}

impl ChunkSieve {
    fn read(sql: &Connection) -> Result<Self, IndexError> {
        let mut sieve = Self { bits: vec![0; 1 << (SIEVE_BITS - 6)] };
        let mut statement = sql.prepare("SELECT key FROM chunk")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            sieve.set(row.get::<_, i64>(0)? as u32);
        }
        let mut statement = sql.prepare("SELECT id FROM inline")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if let Some(first) = row.get_ref(0)?.as_blob()?.first_chunk() {
                sieve.set(u32::from_be_bytes(*first));
            }
        }
        Ok(sieve)
    }

    /// Notes a chunk that was stored since the sieve was made.
    pub fn add(&mut self, id: &ChunkId) {
        self.set(key(id) as u32);
    }

    /// Whether the chunk may be stored; one of which this says that it is not, is not.
    pub fn may_hold(&self, id: &ChunkId) -> bool {
        let at = key(id) as u32 >> (32 - SIEVE_BITS);
        self.bits[at as usize / 64] & 1 << (at % 64) != 0
    }

    fn set(&mut self, key: u32) {
        let at = key >> (32 - SIEVE_BITS);
        self.bits[at as usize / 64] |= 1 << (at % 64);
    }
}

/// What a new version may refer to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Referable {
    /// All that is stored and not condemned.
    All,
    /// Of that, only what this device stored.
    Own {
        /// The device.
        device: DeviceId,
        /// The packs that it stored before now; those recorded from now on are its own too.
        packs: BTreeSet<PackId>,
    },
}

/// The same in the numbers of the index.
struct Allowed {
    /// Numbers of packs, and the greatest when it was made; none where all are allowed.
    packs: Option<(HashSet<i64>, i64)>,
    /// The number of the only device whose packets count; none where all do.
    device: Option<i64>,
}

impl Allowed {
    fn pack(&self, number: i64, state: i64) -> bool {
        let among = |(packs, last): &(HashSet<i64>, i64)| number > *last || packs.contains(&number);
        state != CONDEMNED && self.packs.as_ref().is_none_or(among)
    }

    fn packet(&self, device: i64) -> bool {
        self.device.is_none_or(|own| own == device)
    }
}

impl std::fmt::Debug for ChunkLookup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChunkLookup").field("is_live", &self.is_live()).finish_non_exhaustive()
    }
}

impl Index {
    /// A look-up of the chunks that are stored and may be referred to. A chunk that cannot be looked up counts as new, and
    /// so does one that only packs hold that are condemned or known to be damaged.
    pub fn chunk_lookup(&self, referable: &Referable) -> Result<ChunkLookup, IndexError> {
        let allowed = self.allowed(referable)?;
        let is_of_own = allowed.device.is_some();
        let Some(path) = self.sql.path().filter(|path| !path.is_empty()) else { return self.copied_lookup(&allowed) };
        let sql =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        sql.set_prepared_statement_cache_capacity(STATEMENTS);
        let live = Arc::new(Mutex::new(sql));
        let sql = Arc::clone(&live);
        let is_stored = Box::new(move |id: &ChunkId| {
            let sql = sql.lock().expect("nobody panics holding this");
            is_stored(&sql, &allowed, id).unwrap_or(false)
        });
        Ok(ChunkLookup { is_stored, live: Some(live), is_of_own })
    }

    fn allowed(&self, referable: &Referable) -> Result<Allowed, IndexError> {
        let Referable::Own { device, packs } = referable else { return Ok(Allowed { packs: None, device: None }) };
        let mut numbers = HashSet::new();
        for pack in packs {
            let mut statement = self.sql.prepare_cached("SELECT n FROM pack WHERE id = ?1")?;
            let mut rows = statement.query([pack.as_bytes()])?;
            if let Some(row) = rows.next()? {
                numbers.insert(row.get(0)?);
            }
        }
        let last = self.sql.query_row("SELECT coalesce(max(n), 0) FROM pack", [], |row| row.get(0))?;
        // No row has this number: a device without one has no packets.
        let device = self.numbers.find_device(device).unwrap_or(-1);
        Ok(Allowed { packs: Some((numbers, last)), device: Some(device) })
    }

    fn copied_lookup(&self, allowed: &Allowed) -> Result<ChunkLookup, IndexError> {
        let (mut known, mut condemned): (HashSet<Vec<u8>>, HashSet<Vec<u8>>) = Default::default();
        let mut statement = self
            .sql
            .prepare("SELECT p.chunks, k.n, k.state FROM part p JOIN pack k ON k.n = p.pack WHERE k.state >= 0")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (number, state) = (row.get(1)?, row.get(2)?);
            let into = match () {
                () if allowed.pack(number, state) => &mut known,
                () if state == CONDEMNED => &mut condemned,
                () => continue,
            };
            for chunk in decode_part(row.get_ref(0)?.as_blob()?) {
                into.insert(chunk?.id.0[..INLINE_KEY].to_vec());
            }
        }
        let mut statement = self.sql.prepare("SELECT id, device FROM inline")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let id: Vec<u8> = row.get(0)?;
            if allowed.packet(row.get(1)?) && !condemned.contains(&id) {
                known.insert(id);
            }
        }
        let is_stored = Box::new(move |id: &ChunkId| known.contains(&id.0[..INLINE_KEY]));
        Ok(ChunkLookup { is_stored, live: None, is_of_own: allowed.device.is_some() })
    }
}

fn is_stored(sql: &Connection, allowed: &Allowed, id: &ChunkId) -> Result<bool, IndexError> {
    let mut statement = sql.prepare_cached(
        "SELECT p.chunks, k.n, k.state FROM chunk c JOIN part p ON p.n = c.part JOIN pack k ON k.n = p.pack
         WHERE c.key = ?1 AND k.state >= 0",
    )?;
    let mut rows = statement.query([key(id)])?;
    let mut is_condemned = false;
    while let Some(row) = rows.next()? {
        let (number, state) = (row.get(1)?, row.get(2)?);
        if find_in_part(row.get_ref(0)?.as_blob()?, id)?.is_none() {
            continue;
        }
        if allowed.pack(number, state) {
            return Ok(true);
        }
        is_condemned |= state == CONDEMNED;
    }
    // Others may know of the condemned pack alone, and not that a packet holds the chunk as well.
    if is_condemned {
        return Ok(false);
    }
    let mut statement = sql.prepare_cached("SELECT device FROM inline WHERE id = ?1")?;
    let mut rows = statement.query([&id.0[..INLINE_KEY]])?;
    match rows.next()? {
        Some(row) => Ok(allowed.packet(row.get(0)?)),
        None => Ok(false),
    }
}

/// How many bits of an id choose one of a sieve's: it takes four MiB.
const SIEVE_BITS: u32 = 25;
