//! What is stored anew: what is in use of packs that are mostly waste, and what is brought back although it is to go.
//!
//! An undo, or settling a conflict, names contents that it does not read, and those are stored anew where what holds them
//! may not be referred to.

mod support;

use packetboat_core::content::MIN_CHUNK_BYTES;
use packetboat_core::garbage::Retention;
use packetboat_core::store::{ObjectName, Store};
use packetboat_engine::ports::Silent;
use packetboat_storage::pack::{TARGET_PACK_BYTES, object_name};
use support::letting_go::{
    LARGE, ONE_VERSION, assert_sound, count, garbage, half_wasted, keep, let_go_until_nothing_moves, noise,
};
use support::{Device, Pair};

/// Names of files, and what they hold.
type Files = Vec<(String, Vec<u8>)>;

fn files(contents: impl IntoIterator<Item = Vec<u8>>) -> Files {
    contents.into_iter().enumerate().map(|(number, bytes)| (format!("file {number}"), bytes)).collect()
}

/// Two devices, of which the laptop replaced these files and condemned what they were; with the packs that it condemned.
fn replaced(files: &Files) -> (Pair, Vec<ObjectName>) {
    let mut pair = Pair::new();
    for (name, bytes) in files {
        pair.laptop.fs.write(name, bytes).unwrap();
    }
    pair.settle();
    pair.pass_days(1);
    for (name, _) in files {
        pair.laptop.fs.write(name, b"replaced").unwrap();
    }
    pair.settle();
    pair.pass_days(1);
    assert!(keep(&mut pair.laptop, ONE_VERSION).packs > 0);
    let condemned = garbage(&pair.laptop).condemned().iter().map(object_name).collect();
    (pair, condemned)
}

/// Undoes what a device published last.
#[track_caller]
fn undo(device: &mut Device) {
    let undone = device.replica.undo(false, &mut Silent).unwrap();
    assert!(undone.left.is_empty(), "{:?}", undone.left);
    assert!(!undone.steps.is_empty());
}

/// That all goes that was condemned, and that everybody has these files, also who joins then.
#[track_caller]
fn assert_kept(pair: &mut Pair, condemned: &[ObjectName], files: &Files) {
    let_go_until_nothing_moves(pair, &mut []);
    assert!(!condemned.iter().any(|name| pair.store.names().contains(name)), "what was condemned has not gone");
    let mut third = pair.third();
    third.sync();
    for device in [&mut pair.laptop, &mut pair.desk, &mut third] {
        for (name, bytes) in files {
            assert!(device.fs.read(name).unwrap() == *bytes, "{name}");
        }
        assert_sound(device);
    }
    assert_eq!(pair.laptop.replica.verify(true, &mut Silent).unwrap().orphans, Vec::<String>::new());
}

#[test]
fn what_an_undo_brings_back_is_kept_though_it_was_to_go() {
    let files = files([noise(1, LARGE), noise(2, LARGE)]);
    let (mut pair, condemned) = replaced(&files);
    undo(&mut pair.laptop);
    assert_kept(&mut pair, &condemned, &files);
}

#[test]
fn what_an_undo_brings_back_and_one_pack_cannot_hold_goes_into_several() {
    let files = files([noise(1, TARGET_PACK_BYTES as usize), noise(2, TARGET_PACK_BYTES as usize / 2)]);
    let (mut pair, condemned) = replaced(&files);
    let before = count(&pair.store, "packs/");
    undo(&mut pair.laptop);
    assert_eq!(count(&pair.store, "packs/") - before, 2);
    assert_kept(&mut pair, &condemned, &files);
}

#[test]
fn what_an_undo_brings_back_many_times_is_stored_once() {
    // More files than are read at once, and more than fit into one pack, so that most contents come up again after that.
    let files = files((0..2 * MORE_THAN_A_PACK).map(|number| noise(number % MORE_THAN_A_PACK, ONE_CHUNK)));
    let (mut pair, condemned) = replaced(&files);
    let before = pair.store.size();
    undo(&mut pair.laptop);
    let (stored, least) = (pair.store.size() - before, MORE_THAN_A_PACK * ONE_CHUNK as u64);
    assert!((least..least * 5 / 4).contains(&stored), "{stored} bytes");
    assert_kept(&mut pair, &condemned, &files);
}

#[test]
fn what_an_undo_brings_back_and_is_to_stay_is_not_stored_anew() {
    let files = files([noise(1, LARGE), noise(2, LARGE)]);
    let mut pair = Pair::new();
    // What the second file holds stands elsewhere, too.
    pair.laptop.fs.write("the same", &files[1].1).unwrap();
    pair.settle();
    for (name, bytes) in &files {
        pair.laptop.fs.write(name, bytes).unwrap();
    }
    pair.settle();
    pair.pass_days(1);
    for (name, _) in &files {
        pair.laptop.fs.write(name, b"replaced").unwrap();
    }
    pair.settle();
    pair.pass_days(1);
    assert_eq!(keep(&mut pair.laptop, ONE_VERSION).packs, 1);
    let condemned: Vec<ObjectName> = garbage(&pair.laptop).condemned().iter().map(object_name).collect();
    let before = count(&pair.store, "packs/");
    let size = pair.store.size();
    undo(&mut pair.laptop);
    assert_eq!(count(&pair.store, "packs/") - before, 1);
    assert!(pair.store.size() - size < (2 * LARGE) as u64);
    pair.pass();
    pair.laptop.fs.rename("the same", "renamed").unwrap();
    pair.laptop.sync();
    undo(&mut pair.laptop);
    pair.pass();
    pair.laptop.fs.remove("the same").unwrap();
    pair.laptop.sync();
    undo(&mut pair.laptop);
    assert_eq!(count(&pair.store, "packs/") - before, 1, "nor is an empty pack");
    assert_kept(&mut pair, &condemned, &files);
}

#[test]
fn an_undo_of_a_device_that_has_just_come_relies_on_nothing_that_others_stored() {
    let mut pair = Pair::new();
    pair.laptop.fs.write("file", &noise(1, LARGE)).unwrap();
    pair.settle();
    let of_others: Vec<ObjectName> =
        pair.store.names().into_iter().filter(|name| name.as_str().starts_with("packs/")).collect();
    assert_eq!(of_others.len(), 1);
    let mut third = pair.third();
    third.sync();
    third.fs.write("file", &noise(2, LARGE)).unwrap();
    third.sync();
    undo(&mut third);
    // Nobody has heard of it: they may have let go what they think nobody needs.
    pair.store.delete(&of_others[0]).unwrap();
    let mut fourth = pair.joined(4, "fourth", b"secret");
    fourth.sync();
    assert_eq!(fourth.fs.read("file").unwrap(), noise(1, LARGE));
}

#[test]
fn what_is_in_use_of_many_wasteful_packs_goes_into_as_many_as_it_takes() {
    let mut pair = Pair::new();
    let half = TARGET_PACK_BYTES as usize * 3 / 7;
    let files: Files = (0..3).map(|number| (format!("stays {number}"), noise(number, half))).collect();
    for (number, (name, bytes)) in (100..).zip(&files) {
        pair.laptop.fs.write(name, bytes).unwrap();
        pair.laptop.fs.write("goes", &noise(number, half)).unwrap();
        pair.laptop.sync();
    }
    pair.laptop.fs.remove("goes").unwrap();
    pair.settle();
    pair.pass_days(1);
    assert_eq!(keep(&mut pair.laptop, Retention::Days(0)).repacked, 3);
    let condemned: Vec<ObjectName> = garbage(&pair.laptop).condemned().iter().map(object_name).collect();
    let sizes = pair.store.names().into_iter().map(|name| pair.store.get(&name, u64::MAX).unwrap().len());
    assert!(sizes.max() < Some(TARGET_PACK_BYTES as usize * 5 / 4));
    assert_kept(&mut pair, &condemned, &files);
}

#[test]
fn what_is_stored_anew_of_a_pack_from_before_a_new_key_is_read_by_whoever_joins_with_that() {
    let mut pair = half_wasted();
    let mut third = pair.third();
    third.sync();
    pair.settle();
    pair.laptop.replica.revoke(&third.id(), b"a new passphrase", &mut Silent).unwrap();
    pair.settle();
    pair.pass_days(1);
    assert_eq!(keep(&mut pair.laptop, Retention::Days(0)).repacked, 1);
    let_go_until_nothing_moves(&mut pair, &mut []);
    let mut fourth = pair.joined(4, "fourth", b"a new passphrase");
    fourth.sync();
    for device in [&mut pair.laptop, &mut pair.desk, &mut fourth] {
        assert_eq!(device.fs.read("stays").unwrap(), noise(1, LARGE));
        assert_sound(device);
    }
}

/// Bytes of a file that is cut into no chunks.
const ONE_CHUNK: usize = MIN_CHUNK_BYTES as usize;
/// So many of these do not fit into one pack.
const MORE_THAN_A_PACK: u64 = (TARGET_PACK_BYTES / MIN_CHUNK_BYTES + 2) as u64;
