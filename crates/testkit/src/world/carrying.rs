//! Two storages, neither of which knows of the other: some devices see the one, some the other, and some now this and now
//! that. What the first kind publish comes to the second only because the third carry it.

use super::{Device, World};
use crate::faulty_store::{FaultConfig, FaultyStore};
use packetboat_engine::replica::Replica;

/// A way to a storage, and what a device calls it.
type Way = (&'static str, FaultyStore);

impl World {
    /// The storages that the `number`-th device sees: where it is now, and where else it goes. The first goes to both, so
    /// that there is somebody who carries.
    pub(super) fn ways(&mut self, number: usize) -> (Way, Option<Way>) {
        let first = (FIRST, self.store.attach(self.rng.next_u64(), FaultConfig::none()));
        let Some(second) = self.second.clone() else { return (first, None) };
        let second = (SECOND, second.attach(self.rng.next_u64(), FaultConfig::none()));
        match number % 4 {
            0 => (first, Some(second)),
            1 => (second, None),
            2 => (first, None),
            _ => (second, Some(first)),
        }
    }

    /// Lets a device see what another one saw.
    pub(super) fn go_where_it_went(&mut self, device: &mut Device, other: usize) {
        if self.second.is_none() {
            return;
        }
        let Device { place, store, elsewhere, .. } = &self.devices[other];
        (device.place, device.store, device.elsewhere) = (place, store.clone(), elsewhere.clone());
        let mut parts = device.replica.take().expect("started").into_parts();
        (parts.place, parts.store) = (device.place.to_owned(), std::sync::Arc::new(device.store.clone()));
        device.replica = Some(Replica::open(parts).expect("the index holds its keys"));
    }

    /// The first storage is copied once everybody has heard of everybody, and from then on there are two.
    pub(super) fn go_apart(&mut self, second: FaultyStore) {
        for at in (0..self.devices.len()).chain(0..self.devices.len()) {
            self.sync(at).expect("a storage that behaves");
        }
        self.store.objects().iter().for_each(|(name, bytes)| second.plant(name, bytes));
        self.second = Some(second);
        for at in 0..self.devices.len() {
            let ((place, store), elsewhere) = self.ways(at);
            let device = &mut self.devices[at];
            (device.place, device.store, device.elsewhere) = (place, store, elsewhere);
            let fs = device.fs.clone();
            self.replace_disk(at, fs);
        }
    }

    /// How many storages a device sees.
    pub(super) fn places_of(&self, at: usize) -> usize {
        1 + usize::from(self.devices[at].elsewhere.is_some())
    }

    /// A device that sees two storages goes to the other one every other time.
    pub(super) fn maybe_go_elsewhere(&mut self, at: usize) {
        if self.devices[at].elsewhere.is_some() && self.rng.chance(1, 2) {
            self.go_elsewhere(at);
        }
    }

    /// A device that sees two storages goes to the other one.
    pub fn go_elsewhere(&mut self, at: usize) {
        let device = &mut self.devices[at];
        let Some((place, store)) = device.elsewhere.take() else { return };
        let before = (std::mem::replace(&mut device.place, place), std::mem::replace(&mut device.store, store));
        device.elsewhere = Some(before);
        let fs = device.fs.clone();
        self.replace_disk(at, fs);
        self.note(format!("{}: goes to the {place}", self.devices[at].name));
    }
}

impl Device {
    /// Has this device's ways to storages misbehave like this from now on.
    pub(super) fn set_faults(&self, faults: &FaultConfig) {
        self.store.set_config(faults.clone());
        self.elsewhere.iter().for_each(|(_, store)| store.set_config(faults.clone()));
    }
}

const FIRST: &str = "storage";
const SECOND: &str = "second storage";
