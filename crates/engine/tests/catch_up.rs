//! A device that was away, and what it costs it to learn what many others did meanwhile.

mod support;

use std::sync::Arc;

use packetboat_engine::replica::{Replica, Report};
use packetboat_storage::counting::{CountingStore, Traffic};

use support::{Device, Pair};

#[test]
fn a_packet_of_each_of_a_hundred_devices_costs_one_read_for_each() {
    let pair = Pair::new();
    let mut away = pair.joined(2000, "away", b"secret");
    away.sync();
    // Each introduces itself and writes a file, in one round.
    for n in 0..100 {
        let mut device = pair.joined(1000 + n, &format!("device {n}"), b"secret");
        device.fs.write(format!("file of {n}"), format!("written by {n}").as_bytes()).unwrap();
        device.sync();
    }
    let (away, report, traffic) = counted(&pair, away);
    assert!(report.packets_learned >= 100, "{report:?}");
    assert_eq!(away.files().len(), 100);
    assert!(traffic.requests() < 150, "{traffic:?}");
    assert_eq!((traffic.lists, traffic.deletes), (1, 0), "{traffic:?}");
    // A tip of each, and of those who told meanwhile that they had learned.
    assert!((100..=105).contains(&traffic.gets), "{traffic:?}");
}

#[test]
fn a_thousand_packets_behind_cost_at_most_one_read_for_each() {
    let mut pair = Pair::new();
    let mut away = pair.joined(2000, "away", b"secret");
    away.sync();
    pair.settle();
    away.sync();
    for n in 0..1000 {
        pair.laptop.fs.write(format!("file {}", n % 50), format!("version {n}").as_bytes()).unwrap();
        pair.laptop.sync();
    }
    let (away, report, traffic) = counted(&pair, away);
    assert_eq!(report.packets_learned, 1000);
    assert_eq!(away.files(), pair.laptop.files());
    // The last of them lie in the tip.
    assert!(traffic.gets <= 1000, "{traffic:?}");
}

/// A round, and what it asked of the storage.
fn counted(pair: &Pair, device: Device) -> (Device, Report, Traffic) {
    let Device { fs, replica } = device;
    let store = CountingStore::new(pair.store.clone());
    let meter = store.meter();
    let mut parts = replica.into_parts();
    parts.store = Arc::new(store);
    let mut device = Device { fs, replica: Replica::open(parts).unwrap() };
    let before = meter.traffic();
    let report = device.sync();
    (device, report, meter.traffic() - before)
}
