//! An intermediary in memory that misbehaves by a seed in the ways that real ones do.
//!
//! One shelf of objects may serve several devices: [`FaultyStore::attach`] makes another way to the same shelf
//! with faults, counts and a crash of its own. Clones share all of that.
//! Time is counted in calls by anyone: an object whose visibility is delayed shows after so many more.
//!
//! What no fault touches: [`objects`](FaultyStore::objects), [`damage`](FaultyStore::damage) and the other calls of the test.

mod faults;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use packetboat_core::store::{Listed, ObjectName, Put, Store, StoreError};

pub use self::faults::{Fault, FaultConfig, Requests};
use crate::crash::Crash;
use crate::rng::Rng;

/// One device's way to a simulated intermediary.
#[derive(Clone, Debug)]
pub struct FaultyStore {
    shelf: Arc<Mutex<Shelf>>,
    access: Arc<Mutex<Access>>,
}

/// A copy of all objects at one instant, to roll the storage back to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot(BTreeMap<ObjectName, Vec<u8>>);

/// What the storage holds, with its past.
#[derive(Debug, Default)]
struct Shelf {
    objects: BTreeMap<ObjectName, Vec<Version>>,
    calls: u64,
    next_etag: u64,
}

/// What an object was from some call on.
#[derive(Clone, Debug)]
struct Version {
    visible_from: u64,
    /// `None` where it was deleted.
    bytes: Option<Arc<Vec<u8>>>,
    etag: u64,
}

/// One device's luck.
#[derive(Debug)]
struct Access {
    rng: Rng,
    config: FaultConfig,
    fired: BTreeMap<Fault, u64>,
    requests: Requests,
    crash_at: Option<u64>,
    crashed: bool,
    calls: u64,
    /// By the call before which each runs.
    hooks: Vec<(u64, Hook)>,
}

/// Something that happens between two calls.
struct Hook(Box<dyn FnOnce() + Send>);

impl FaultyStore {
    /// An empty storage and one way to it.
    pub fn new(seed: u64, config: FaultConfig) -> Self {
        Self { shelf: Arc::default(), access: Access::new(seed, config) }
    }

    /// Another way to the same storage, with faults of its own.
    pub fn attach(&self, seed: u64, config: FaultConfig) -> Self {
        Self { shelf: Arc::clone(&self.shelf), access: Access::new(seed, config) }
    }

    /// Replaces the faults from now on: with [`FaultConfig::none`] the storage behaves,
    /// but what is delayed already stays so.
    pub fn set_config(&self, config: FaultConfig) {
        self.access().config = config;
    }

    /// How often a fault has struck this device.
    pub fn fired(&self, fault: Fault) -> u64 {
        self.access().fired.get(&fault).copied().unwrap_or(0)
    }

    /// How many requests this device has made.
    pub fn requests(&self) -> Requests {
        self.access().requests
    }

    /// How many mutating calls this device has made.
    pub fn ops(&self) -> u64 {
        self.access().requests.mutating()
    }

    /// Stops this device's world at its `n`-th mutating call from now (1 is the next): that call may or may not
    /// have been carried out, and all calls after it fail with [`Crash`] until [`revive`](Self::revive).
    pub fn crash_at(&self, n: u64) {
        let mut access = self.access();
        access.crash_at = Some(access.requests.mutating() + n);
    }

    /// Runs `hook` right before this device's `n`-th call from now (1 is the next), as if somebody else acted between
    /// two of its calls. The storage is free to be used meanwhile.
    pub fn on_call(&self, n: u64, hook: impl FnOnce() + Send + 'static) {
        let mut access = self.access();
        let at = access.calls + n;
        access.hooks.push((at, Hook(Box::new(hook))));
    }

    /// Calls off what was to happen before calls that have not come.
    pub fn call_off(&self) {
        self.access().hooks.clear();
    }

    /// Whether a crash that was asked for has happened.
    pub fn has_crashed(&self) -> bool {
        self.access().crashed
    }

    /// Lets the device reach the storage again after a crash.
    pub fn revive(&self) {
        let mut access = self.access();
        (access.crashed, access.crash_at) = (false, None);
    }

    /// All objects as they are, delayed or not.
    pub fn objects(&self) -> BTreeMap<ObjectName, Vec<u8>> {
        let shelf = self.shelf();
        let latest = |(name, versions): (&ObjectName, &Vec<Version>)| {
            let bytes = versions.last()?.bytes.as_ref()?;
            Some((name.clone(), bytes.to_vec()))
        };
        shelf.objects.iter().filter_map(latest).collect()
    }

    /// Makes everything that is delayed visible.
    pub fn settle(&self) {
        let mut shelf = self.shelf();
        let now = shelf.calls;
        for version in shelf.objects.values_mut().flatten() {
            version.visible_from = version.visible_from.min(now);
        }
    }

    /// A copy of all objects.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.objects())
    }

    /// Puts the storage back to an earlier copy, as somebody does who restores a backup of it.
    pub fn restore_snapshot(&self, snapshot: &Snapshot) {
        let mut shelf = self.shelf();
        shelf.objects.clear();
        for (name, bytes) in &snapshot.0 {
            shelf.store(name, Some(bytes.clone()), 0);
        }
    }

    /// Changes one byte of an object for good; returns whether there was one to change.
    pub fn damage(&self, name: &ObjectName, byte: usize) -> bool {
        let mut shelf = self.shelf();
        let versions = shelf.objects.get_mut(name);
        let Some(bytes) = versions.and_then(|versions| versions.last_mut()?.bytes.as_mut()) else { return false };
        match Arc::make_mut(bytes).get_mut(byte) {
            Some(byte) => *byte ^= 0x55,
            None => return false,
        }
        true
    }

    /// Removes an object behind everyone's back; returns whether there was one.
    pub fn remove(&self, name: &ObjectName) -> bool {
        let removed = self.shelf().objects.remove(name);
        removed.is_some_and(|versions| versions.last().is_some_and(|version| version.bytes.is_some()))
    }

    /// Replaces an object, or makes one, behind everyone's back.
    pub fn plant(&self, name: &ObjectName, bytes: &[u8]) {
        self.shelf().store(name, Some(bytes.to_vec()), 0);
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn access(&self) -> MutexGuard<'_, Access> {
        self.access.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call, and lets happen what was to happen before it.
    fn turn(&self) {
        let mut access = self.access();
        access.calls += 1;
        let now = access.calls;
        let due: Vec<_> = access.hooks.extract_if(.., |(at, _)| *at <= now).collect();
        drop(access);
        for (_, hook) in due {
            hook.0();
        }
    }

    /// Begins a call that changes nothing.
    fn begin_read(
        &self,
        action: &'static str,
        name: &str,
    ) -> Result<(MutexGuard<'_, Access>, MutexGuard<'_, Shelf>), StoreError> {
        let mut access = self.access();
        if access.crashed {
            return Err(failure(action, name, Crash::error()));
        }
        let mut shelf = self.shelf();
        shelf.calls += 1;
        if action == "list" {
            access.requests.lists += 1;
        } else {
            access.requests.gets += 1;
        }
        access.fail_transiently(action, name)?;
        Ok((access, shelf))
    }

    /// Counts a call that may change something, unless this device has crashed.
    fn count(
        &self,
        action: &'static str,
        name: &ObjectName,
        count: impl FnOnce(&mut Requests),
    ) -> Result<MutexGuard<'_, Access>, StoreError> {
        let mut access = self.access();
        if access.crashed {
            return Err(failure(action, name.as_str(), Crash::error()));
        }
        count(&mut access.requests);
        Ok(access)
    }

    /// Carries out a put or delete, as far as the faults let it.
    fn mutate(&self, action: &'static str, name: &ObjectName, bytes: Option<&[u8]>) -> Result<(), StoreError> {
        let mut access = self.access();
        let mut shelf = self.shelf();
        shelf.calls += 1;
        let access = &mut *access;
        if access.crash_at == Some(access.requests.mutating()) {
            access.crashed = true;
            if access.rng.chance(1, 2) {
                shelf.store(name, bytes.map(<[u8]>::to_vec), 0);
            }
            return Err(failure(action, name.as_str(), Crash::error()));
        }
        access.fail_transiently(action, name.as_str())?;
        if let Some(bytes) = bytes {
            if access.strikes(Fault::Full) {
                return Err(StoreError::Full);
            }
            if !bytes.is_empty() && access.strikes(Fault::Torn) {
                let cut = access.rng.index(bytes.len());
                shelf.store(name, Some(bytes[..cut].to_vec()), 0);
                return Err(failure(action, name.as_str(), io::ErrorKind::ConnectionReset.into()));
            }
        }
        let delay = match access.strikes(Fault::DelayedVisibility) {
            true => 1 + access.rng.below(access.config.greatest_delay()),
            false => 0,
        };
        shelf.store(name, bytes.map(<[u8]>::to_vec), delay);
        if access.strikes(Fault::StoredButFailed) {
            return Err(failure(action, name.as_str(), io::ErrorKind::TimedOut.into()));
        }
        Ok(())
    }

    /// What a read of an object yields, faults included.
    fn fetch(&self, name: &ObjectName) -> Result<Vec<u8>, StoreError> {
        let (mut access, shelf) = self.begin_read("read", name.as_str())?;
        let mut found = shelf.visible(name);
        let past = shelf.past(name);
        if name.as_str().starts_with("tips/") && past.len() > 1 && access.strikes(Fault::ReplayedTip) {
            found = access.rng.pick(&past).copied();
        }
        let bytes = found.and_then(|version| version.bytes.as_ref());
        let mut bytes = bytes.ok_or_else(|| StoreError::Missing { name: name.clone() })?.to_vec();
        if !bytes.is_empty() && access.strikes(Fault::FlippedBit) {
            let at = access.rng.index(bytes.len());
            bytes[at] ^= 1 << access.rng.below(8);
        }
        Ok(bytes)
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

impl Store for FaultyStore {
    fn describe(&self) -> String {
        "a simulated intermediary".to_owned()
    }

    fn put_new(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put, StoreError> {
        self.turn();
        // What is not visible yet does not stand in the way: put-if-absent is not exclusive.
        let mut access = self.count("write", name, |requests| requests.puts += 1)?;
        let taken = self.shelf().visible(name).is_some_and(|version| version.bytes.is_some());
        if taken {
            self.shelf().calls += 1;
            if access.crash_at == Some(access.requests.mutating()) {
                access.crashed = true;
                return Err(failure("write", name.as_str(), Crash::error()));
            }
            access.fail_transiently("write", name.as_str())?;
            return Ok(Put::Present);
        }
        drop(access);
        self.mutate("write", name, Some(bytes))?;
        Ok(Put::Stored)
    }

    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), StoreError> {
        self.turn();
        drop(self.count("write", name, |requests| requests.puts += 1)?);
        self.mutate("write", name, Some(bytes))
    }

    fn get(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>, StoreError> {
        self.turn();
        let bytes = self.fetch(name)?;
        if bytes.len() as u64 > limit {
            return Err(StoreError::TooLarge { name: name.clone(), limit });
        }
        Ok(bytes)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        self.turn();
        let bytes = self.fetch(name)?;
        let range = offset.checked_add(len).and_then(|end| Some(offset.try_into().ok()?..end.try_into().ok()?));
        let found = range.and_then(|range: std::ops::Range<usize>| bytes.get(range));
        found.map(<[u8]>::to_vec).ok_or_else(|| StoreError::Short { name: name.clone() })
    }

    fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        self.turn();
        let (mut access, shelf) = self.begin_read("list", folder)?;
        let stale = access.strikes(Fault::StaleListing);
        let greatest_delay = access.config.greatest_delay();
        let at = if stale { shelf.calls.saturating_sub(1 + access.rng.below(greatest_delay)) } else { shelf.calls };
        let listed = |(name, _): (&ObjectName, &Vec<Version>)| {
            let (parent, _) = name.as_str().rsplit_once('/').unwrap_or(("", name.as_str()));
            let version = if parent == folder { shelf.visible_at(name, at)? } else { return None };
            let size = version.bytes.as_ref()?.len() as u64;
            Some(Listed { name: name.clone(), size, etag: format!("{:x}", version.etag) })
        };
        Ok(shelf.objects.iter().filter_map(listed).collect())
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.turn();
        drop(self.count("delete", name, |requests| requests.deletes += 1)?);
        self.mutate("delete", name, None)
    }
}

impl Shelf {
    /// Records what an object is from now on, or from `delay` calls later.
    fn store(&mut self, name: &ObjectName, bytes: Option<Vec<u8>>, delay: u64) {
        self.next_etag += 1;
        let versions = self.objects.entry(name.clone()).or_default();
        // What comes later never shows sooner.
        let earlier = versions.last().map_or(0, |version| version.visible_from);
        let visible_from = (self.calls + delay).max(if delay == 0 { 0 } else { earlier });
        if delay == 0 {
            for version in &mut *versions {
                version.visible_from = version.visible_from.min(visible_from);
            }
        }
        versions.push(Version { visible_from, bytes: bytes.map(Arc::new), etag: self.next_etag });
    }

    fn visible(&self, name: &ObjectName) -> Option<&Version> {
        self.visible_at(name, self.calls)
    }

    fn visible_at(&self, name: &ObjectName, call: u64) -> Option<&Version> {
        self.objects.get(name)?.iter().rev().find(|version| version.visible_from <= call)
    }

    /// Every version of an object that was ever shown.
    fn past(&self, name: &ObjectName) -> Vec<&Version> {
        let versions = self.objects.get(name).into_iter().flatten();
        versions.filter(|version| version.visible_from <= self.calls && version.bytes.is_some()).collect()
    }
}

impl Access {
    fn new(seed: u64, config: FaultConfig) -> Arc<Mutex<Self>> {
        let (fired, requests) = (BTreeMap::new(), Requests::default());
        let (rng, crash_at, crashed, calls, hooks) = (Rng::new(seed), None, false, 0, Vec::new());
        Arc::new(Mutex::new(Self { rng, config, fired, requests, crash_at, crashed, calls, hooks }))
    }

    /// Whether a fault happens now; counts it.
    fn strikes(&mut self, fault: Fault) -> bool {
        let chance = self.config.per_mille(fault);
        let strikes = chance > 0 && self.rng.chance(chance, 1_000);
        if strikes {
            *self.fired.entry(fault).or_default() += 1;
        }
        strikes
    }

    fn fail_transiently(&mut self, action: &'static str, name: &str) -> Result<(), StoreError> {
        if self.strikes(Fault::Transient) {
            return Err(failure(action, name, io::ErrorKind::TimedOut.into()));
        }
        Ok(())
    }
}

fn failure(action: &'static str, name: &str, source: io::Error) -> StoreError {
    StoreError::Io { action, name: name.to_owned(), source }
}
