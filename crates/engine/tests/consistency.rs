//! The check after a round stops where vault, record and disk contradict each other.

mod support;

use packetboat_core::local::{DirId, EntryState, LocalRead};
use packetboat_core::name::Name;
use packetboat_engine::consistency::Check;
use packetboat_engine::error::SyncError;
use packetboat_engine::ports::Silent;
use packetboat_engine::replica::{Replica, SyncOptions};
use packetboat_engine::scan::fingerprint;
use support::{Device, Pair};

/// Makes the record say that a file is as it was when it is not, as a disk that lies would.
fn belie(device: Device, name: &str, check: Check) -> Device {
    let Device { fs, replica } = device;
    let mut parts = replica.into_parts();
    let mut entry = parts.index.entry_at(DirId::ROOT, &Name::new(name.as_bytes()).unwrap()).unwrap().unwrap();
    entry.stat = fingerprint(&fs.stat(name).unwrap());
    entry.state = EntryState::Settled;
    parts.index.put_entry(&entry).unwrap();
    parts.settings.check = check;
    Device { fs, replica: Replica::open(parts).unwrap() }
}

#[test]
fn a_file_that_does_not_hold_what_the_record_says_stops_the_round_with_evidence() {
    for check in [Check::Sample(48), Check::Everything, Check::Off] {
        let mut pair = Pair::new();
        pair.laptop.fs.write("file", b"what was written").unwrap();
        pair.settle();
        pair.laptop.fs.write("file", b"what nobody knows").unwrap();
        pair.pass();
        let before = pair.store.names();
        let Pair { laptop, store, .. } = pair;
        let mut laptop = belie(laptop, "file", check);
        let outcome = laptop.replica.sync(SyncOptions::default(), &mut Silent);
        match (check, outcome) {
            (Check::Off, outcome) => assert!(outcome.is_ok(), "{outcome:?}"),
            (_, Err(SyncError::Inconsistent { what, evidence })) => {
                assert_eq!(what, "file does not hold what the record says");
                assert!(evidence.contains("item ") && evidence.contains("learned "), "{evidence}");
            }
            (_, outcome) => panic!("{check:?}: {outcome:?}"),
        }
        assert_eq!(store.names(), before);
        assert_eq!(laptop.fs.read("file").unwrap(), b"what nobody knows");
    }
}

#[test]
fn a_change_that_shows_is_no_finding() {
    let mut pair = Pair::new();
    pair.laptop.replica.settings_mut().check = Check::Everything;
    for n in 0..5 {
        pair.laptop.fs.write("file", format!("text {n}").as_bytes()).unwrap();
        pair.desk.fs.write(format!("dir/{n}"), b"text").unwrap();
        pair.settle();
    }
    assert_eq!(pair.laptop.files(), pair.desk.files());
}
