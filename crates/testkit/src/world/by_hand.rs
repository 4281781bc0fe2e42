//! Worlds in which a test says what happens.

use super::*;

impl World {
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
