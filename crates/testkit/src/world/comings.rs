//! Devices that join, leave, come back, and go on twice.

use super::*;

impl World {
    /// A device joins with a folder that may hold something, or one loses its index.
    pub(super) fn join_or_begin_again(&mut self, at: usize) {
        if self.devices.len() < MAX_DEVICES && self.rng.chance(1, 2) {
            let fs = match self.rng.chance(1, 2) {
                // The folder was copied from another device's by other means.
                true => {
                    let fs = self.devices[at].fs.kill();
                    if fs.exists(".packetboat") {
                        fs.remove(".packetboat").expect("it is there");
                    }
                    self.account.lock().expect("nobody panics holding this").may_revive = true;
                    fs
                }
                false => SimFs::new(SimOptions { crash_model: self.options.crash_model, ..SimOptions::default() }),
            };
            let new = self.join(fs);
            self.devices[new].set_faults(&self.options.faults);
            self.note(format!("device{new} joins and shows {}", listing(&self.devices[new].fs)));
        } else {
            self.lose_index(at);
            self.account.lock().expect("nobody panics holding this").may_revive = true;
            self.note(format!("{} lost its index", self.devices[at].name));
        }
    }

    /// A device retires or revokes another, or leaves by itself.
    pub(super) fn send_away(&mut self, at: usize) {
        if self.sync(at).is_err() {
            return;
        }
        let other = self.rng.index(self.devices.len());
        let (device, name) = (self.replica(other).own_device(), self.devices[other].name.clone());
        let by = self.devices[at].name.clone();
        // Two that revoke at two storages, each without knowing of the other, make two keys of which each knows one.
        let most = match self.second {
            _ if self.options.retiring_alone => 0,
            Some(_) => 1,
            None => MAX_REVOCATIONS,
        };
        let revokes = other != at && self.revocations < most && self.rng.chance(1, 3);
        let replica = self.devices[at].replica.as_mut().expect("started");
        let outcome = match revokes {
            true => replica.revoke(&device, b"another", &mut Silent).map(|revoked| {
                self.recovery.push(RecoveryKey::from_text(&revoked.recovery_key).expect("as it was written"));
                self.revocations += 1;
                format!("{by}: revoked {name}")
            }),
            false => replica.retire(&device, &mut Silent).map(|_| format!("{by}: retired {name}")),
        };
        match outcome {
            Ok(text) => self.note(text),
            Err(RemovalError::Sync(SyncError::Store(_)) | RemovalError::Join(_)) => {}
            Err(RemovalError::Sync(SyncError::Revoked { .. } | SyncError::LeftOut { .. })) => {}
            Err(RemovalError::Sync(error)) => panic!("{by}: {}", packetboat_engine::error::chain(&error)),
            // It is unknown yet, gone already, or the last.
            Err(_) => {}
        }
    }

    /// A device that was revoked, or left without a key, joins again as a new one, with the disk that it has.
    pub(super) fn join_again(&mut self, at: usize) {
        self.account.lock().expect("nobody panics holding this").may_revive = true;
        // Whoever is in the vault brings the marker up to date first, if need be; and again, where the storage kept a part of
        // what was put and said that it failed.
        for _ in 0..MAX_TRIES {
            for other in (0..self.devices.len()).filter(|other| *other != at) {
                let Some(replica) = self.devices[other].replica.as_mut() else { continue };
                if let Ok(Some(recovery)) = replica.change_passphrase(b"another", &mut Silent) {
                    self.recovery.push(RecoveryKey::from_text(&recovery).expect("as it was written"));
                }
            }
            let mut stores = std::iter::once(&self.store).chain(&self.second);
            if stores.all(|store| Replica::read_marker(store).is_ok()) {
                break;
            }
        }
        self.read_markers();
        self.lose_index(at);
        self.note(format!("{}: joins with the new key", self.devices[at].name));
    }

    /// Takes the key that a marker holds. The markers of two storages may differ until somebody has been to both; whoever
    /// tried one in vain tries the other.
    pub(super) fn read_markers(&mut self) {
        let rings = std::iter::once(&self.store).chain(&self.second).filter_map(|store| {
            let marker = Replica::read_marker(store).expect("sound").expect("it is there");
            // Where a storage stored a marker and said that it had not, its recovery key was shown to nobody.
            let opened = self.recovery.iter().rev().find_map(|recovery| marker.unlock_with_recovery(recovery).ok());
            opened.or_else(|| marker.unlock_with_passphrase(b"another").ok())
        });
        let rings: Vec<KeyRing> = rings.collect();
        let another = rings.iter().position(|ring| ring.current_root().id() == self.ring.current_root().id());
        let next = another.map_or(0, |tried| (tried + 1) % rings.len());
        self.ring = rings.into_iter().nth(next).expect("markers that some recovery key opens");
    }

    /// A disk is cloned with the index on it, a backup of both is made, or one is restored.
    pub(super) fn copy(&mut self, at: usize) {
        // What is not published is lost with the disk that is replaced, and that is no fault of the vault's.
        self.devices[at].fs.call_off();
        if !self.sync(at).is_ok_and(|report| report.sent.postponed == 0) {
            return;
        }
        let name = self.devices[at].name.clone();
        let index = self.replica(at).index().copy_in_memory().expect("memory");
        let fs = self.devices[at].fs.kill();
        let backup = self.backups.iter().position(|backup| backup.name == name);
        match backup {
            Some(backup) if self.rng.chance(1, 2) => {
                let Backup { index, fs, .. } = self.backups.swap_remove(backup);
                fs.set_now(self.now.load(Ordering::SeqCst) * 1_000_000);
                let parts = self.parts_of(at, &fs, index);
                self.devices[at].replica = Some(Replica::open(parts).expect("the index holds its keys"));
                self.devices[at].fs = fs;
                self.account.lock().expect("nobody panics holding this").may_revive = true;
                self.note(format!("{name}: restored from a backup, shows {}", listing(&self.devices[at].fs)));
            }
            _ if self.devices.len() < MAX_DEVICES && self.rng.chance(1, 3) => {
                let ((place, store), elsewhere) = self.ways(self.devices.len());
                let skew = self.devices[at].skew;
                let parts = self.parts(&fs, place, &store, index, skew);
                let replica = Some(Replica::open(parts).expect("the index holds its keys"));
                let clone = format!("{name}'s clone {}", self.devices.len());
                let unrecorded = BTreeSet::new();
                let device = Device { name: clone, fs, store, place, elsewhere, skew, replica, unrecorded };
                device.set_faults(&self.options.faults);
                self.devices.push(device);
                self.account.lock().expect("nobody panics holding this").may_revive = true;
                self.note(format!("{name}: cloned"));
            }
            _ => self.backups.push(Backup { name, index, fs }),
        }
    }
}
