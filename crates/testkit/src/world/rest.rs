//! How a world comes to rest, and the promises that its disks are held to then.

use super::*;

impl World {
    /// Lets every device synchronise without faults until a whole turn changes nothing, and at two storages some more.
    pub fn settle(&mut self) {
        self.store.settle();
        self.second.iter().for_each(FaultyStore::settle);
        // Nor does it for whoever joins again from now on.
        self.options.faults = FaultConfig::none();
        for at in 0..self.devices.len() {
            self.devices[at].set_faults(&FaultConfig::none());
            self.devices[at].store.revive();
            // A race that has not come yet, or a crash that was never reached, is called off by starting again.
            self.restart(at, false);
        }
        let mut unignored = !self.options.ignoring;
        // Groups that met late say only after some rounds what they refuse of one another.
        let patience = if self.second.is_some() { PATIENT_TURNS } else { 0 };
        let mut quiet_turns = 0;
        for turn in 0..2 * MAX_TURNS {
            let mut quiet = true;
            for at in 0..self.devices.len() {
                let passed = 10_000;
                let now = self.now.fetch_add(passed, Ordering::SeqCst) + passed;
                self.devices[at].fs.set_now(now * 1_000_000);
                for _ in 0..self.places_of(at) {
                    let id = self.replica(at).own_device();
                    let report = match self.sync(at) {
                        Ok(report) => report,
                        // A symlink was moved there; whoever is told moves it away.
                        Err(SyncError::IgnoreFile { .. }) if turn < MAX_TURNS => {
                            self.devices[at].fs.rename(IGNORE_FILE, format!("rules{at}{turn}~")).expect("it is there");
                            quiet = false;
                            continue;
                        }
                        Err(error) => panic!("{}: {}", self.devices[at].name, packetboat_engine::error::chain(&error)),
                    };
                    let text = format!("{}: settling {}", self.devices[at].name, describe(&report));
                    self.note(text);
                    // Whoever goes on as a new device is to be heard of by the others.
                    quiet &= self.replica(at).own_device() == id;
                    quiet &= is_quiet(&report) || (!unignored && only_waits(&report));
                    self.go_elsewhere(at);
                }
            }
            quiet_turns = if quiet && turn > 0 { quiet_turns + 1 } else { 0 };
            if quiet_turns > patience {
                if unignored {
                    return;
                }
                unignored = !self.stop_ignoring();
            }
        }
        for device in &mut self.devices {
            let replica = device.replica.as_mut().expect("started");
            eprintln!("{} plans {:#?}", device.name, replica.dry_run(&mut Silent));
            eprintln!("{} has problems {:#?}", device.name, replica.index().problems());
            eprintln!(
                "{} shows {:?}",
                device.name,
                visible(&device.fs).keys().map(|p| String::from_utf8_lossy(p).into_owned()).collect::<Vec<_>>()
            );
        }
        panic!("the world does not come to rest");
    }

    /// Empties the ignore rules everywhere; says whether there were any.
    pub(super) fn stop_ignoring(&mut self) -> bool {
        let mut any = false;
        for device in &self.devices {
            let Ok(rules) = device.fs.read(IGNORE_FILE) else { continue };
            if !rules.is_empty() {
                let mut account = self.account.lock().expect("nobody panics holding this");
                account.forsake(&rules);
                account.write(Vec::new());
                device.fs.write(IGNORE_FILE, b"").expect("a disk with room");
                any = true;
            }
        }
        self.note("nothing is ignored any more".to_owned());
        any
    }

    /// Holds the replicas to the promises.
    pub fn check(&mut self) {
        let trees: Vec<BTreeMap<Vec<u8>, Node>> = self.devices.iter().map(|device| visible(&device.fs)).collect();
        for (device, tree) in self.devices.iter().zip(&trees).skip(1) {
            assert_same_tree(&trees[0], tree, &device.name);
        }
        let states: BTreeSet<[u8; 32]> = self
            .devices
            .iter()
            .map(|device| device.replica.as_ref().expect("started").index().knowledge().state_hash())
            .collect();
        assert_eq!(states.len(), 1, "all devices have learned the same");
        let contents: BTreeSet<&Vec<u8>> = trees[0].values().filter_map(content).collect();
        let account = self.account.lock().expect("nobody panics holding this");
        for owed in &account.owed {
            assert!(contents.contains(owed), "lost: {}", String::from_utf8_lossy(owed));
        }
        for content in &contents {
            assert!(account.written.contains(*content), "invented: {}", String::from_utf8_lossy(content));
            let unsure = account.moved
                || account.may_revive
                || account.copied.contains(*content)
                || account.unknowingly.contains(*content);
            let known = account.owed.contains(*content) || unsure;
            assert!(known, "revived: {}", String::from_utf8_lossy(content));
        }
        drop(account);
        for at in 0..self.devices.len() {
            self.nothing_invented(at);
            let staged = self.devices[at].fs.tree();
            let left: Vec<_> = staged.keys().filter(|path| path.starts_with(b".packetboat/stage/")).collect();
            assert!(left.is_empty(), "left in staging: {left:?}");
        }
        let mut summary = blake3::Hasher::new();
        for (path, node) in &trees[0] {
            summary.update(path);
            summary.update(format!("{:?}", without_mtime(node)).as_bytes());
        }
        self.trace.update(summary.finalize().as_bytes());
    }

    pub(super) fn nothing_invented(&self, at: usize) {
        let account = self.account.lock().expect("nobody panics holding this");
        for (path, node) in visible(&self.devices[at].fs) {
            if let Some(content) = content(&node) {
                let known = account.written.contains(content);
                assert!(
                    known,
                    "{} shows what nobody wrote at {}",
                    self.devices[at].name,
                    String::from_utf8_lossy(&path)
                );
            }
        }
    }
}
