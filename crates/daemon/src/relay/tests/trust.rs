//! A carrier can read nothing, takes nothing that is not what it says, and may lie as any storage may.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use packetboat_core::ids::VaultId;
use packetboat_core::store::{ObjectName, Put, Store, StoreError};
use packetboat_engine::ports::Silent;
use packetboat_engine::replica::SyncOptions;
use packetboat_storage::memory::MemoryStore;

use super::super::answer::Answerer;
use super::super::forward::Forward;
use super::super::message::{Answer, What};
use super::super::shelf::Shelf;
use super::devices::Trio;
use super::order::Author;
use super::still;

fn files_below(directory: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files_below(&path, found),
            false => found.push((path.display().to_string(), fs::read(&path).unwrap())),
        }
    }
}

#[test]
fn a_carrier_can_read_nothing() {
    let mut trio = Trio::new();
    let (name, content) = ("canary-in-a-name", "canary in a content, many times over. ".repeat(200));
    trio.host.fs.write(name, content.as_bytes()).unwrap();
    trio.host.sync();
    trio.take_away();
    trio.host.fs.write(name, format!("changed {content}").as_bytes()).unwrap();
    trio.host.sync();
    assert!(trio.shelf.held(trio.vault).unwrap().waiting > 0);
    let mut found = Vec::new();
    files_below(&trio.directory.path().join("shelf"), &mut found);
    assert!(found.len() > 5, "there are files to be looked at");
    for (path, bytes) in found {
        for canary in [b"canary".as_slice(), b"content, many", b"host"] {
            let shows = bytes.windows(canary.len()).any(|window| window == canary);
            assert!(!shows, "{path} shows {:?}", String::from_utf8_lossy(canary));
        }
    }
}

#[test]
fn nothing_is_carried_that_is_not_what_it_says() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = MemoryStore::new();
    upstream.put(&ObjectName::new("packetboat").unwrap(), &Author::marker()).unwrap();
    let shelf = Arc::new(Shelf::open(directory.path(), 1 << 20, still()).unwrap());
    let vault = VaultId([7; 16]);
    let carrier = Forward::new(vault, shelf.clone(), Arc::new(upstream.clone()));
    let mut author = Author::new(1);
    let (packet, tip, pack) = (author.packet(), author.tip(1), Author::pack("a"));
    let foreign = Author::new(2).packet();
    for (name, bytes) in [&packet, &tip, &pack] {
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            let refused = carrier.put_new(name, &damaged).unwrap_err();
            assert!(matches!(refused, StoreError::Denied { .. }), "{name}: {refused:?}");
        }
        assert!(carrier.put_new(name, &[]).is_err());
    }
    assert!(carrier.put_new(&packet.0, &foreign.1).is_err(), "another device's packet has no place in this lane");
    let anything = ObjectName::new("whatever").unwrap();
    assert!(carrier.put_new(&anything, b"words").is_err());
    let other_vault = Forward::new(VaultId([8; 16]), shelf, Arc::new(upstream.clone()));
    assert!(other_vault.put_new(&packet.0, &packet.1).is_err());
    assert_eq!(upstream.names().len(), 1, "only the marker is there");
    assert_eq!(carrier.put_new(&packet.0, &packet.1).unwrap(), Put::Stored);
}

#[test]
fn what_a_storage_damaged_is_not_kept_as_a_copy() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = MemoryStore::new();
    upstream.put(&ObjectName::new("packetboat").unwrap(), &Author::marker()).unwrap();
    let shelf = Arc::new(Shelf::open(directory.path(), 1 << 20, still()).unwrap());
    let carrier = Forward::new(VaultId([7; 16]), shelf.clone(), Arc::new(upstream.clone()));
    let (name, bytes) = Author::new(1).packet();
    upstream.put(&name, &bytes).unwrap();
    upstream.tamper(&name, |bytes| bytes[70] ^= 1);
    carrier.get(&name, 1 << 20).unwrap();
    assert_eq!(shelf.held(VaultId([7; 16])).unwrap().copies, 0);
    upstream.tamper(&name, |bytes| bytes[70] ^= 1);
    carrier.get(&name, 1 << 20).unwrap();
    assert_eq!(shelf.held(VaultId([7; 16])).unwrap().copies, 1);
}

/// What a companion does to its answers.
const HONEST: u8 = 0;
const FLIPS: u8 = 1;
const HIDES: u8 = 2;
const FREEZES: u8 = 3;

#[test]
fn a_carrier_that_lies_can_hold_up_and_nothing_else() {
    for lie in [FLIPS, HIDES, FREEZES] {
        let mut trio = Trio::new();
        let mode = Arc::new(AtomicU8::new(HONEST));
        let frozen: Arc<std::sync::Mutex<std::collections::HashMap<Vec<u8>, Answer>>> = Arc::default();
        let (carried, lying) = (trio.carried.clone(), mode.clone());
        trio.link.cut();
        trio.link.join(Answerer::with(move |request, body| {
            let about_tips = match &request.what {
                What::Get { name, .. } => name.as_str().starts_with("tips/"),
                What::List { folder } => folder == "tips",
                _ => false,
            };
            let key = request.encode();
            let remembered = frozen.lock().unwrap().get(&key).cloned();
            match (lying.load(Ordering::SeqCst), carried.answer(request, body)) {
                (FLIPS, Answer::Bytes(mut bytes)) if !bytes.is_empty() => {
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 0x10;
                    Answer::Bytes(bytes)
                }
                (HIDES, Answer::Bytes(_)) => Answer::Missing,
                // An older tip than the one that was shown before.
                (FREEZES, answer) if about_tips => remembered.unwrap_or(answer),
                (HONEST, answer) => {
                    frozen.lock().unwrap().entry(key).or_insert_with(|| answer.clone());
                    answer
                }
                (_, answer) => answer,
            }
        }));
        trio.host.fs.write("mine", b"mine").unwrap();
        trio.host.sync();
        trio.other.fs.write("theirs", &[5; 40_000]).unwrap();
        trio.other.fs.write("second", b"two").unwrap();
        trio.other.sync();
        mode.store(lie, Ordering::SeqCst);
        // It may fail; what it must not do is to show what nobody wrote, or to lose what is here.
        let _held_up = trio.host.replica.sync(SyncOptions::default(), &mut Silent);
        assert_eq!(trio.host.fs.read("mine").unwrap(), b"mine", "lie {lie}");
        for name in ["theirs", "second"] {
            assert!(!trio.host.fs.exists(name), "lie {lie}: nothing of {name} could come by this companion");
        }
        mode.store(HONEST, Ordering::SeqCst);
        trio.host.sync();
        assert_eq!(trio.host.fs.read("theirs").unwrap(), [5; 40_000], "lie {lie}");
        assert_eq!(trio.host.fs.read("second").unwrap(), b"two", "lie {lie}");
    }
}
