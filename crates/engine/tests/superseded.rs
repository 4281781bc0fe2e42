//! Checkpoints that nobody needs any more go, with the packs of their segments; what somebody begins from stays.

mod support;

use std::collections::BTreeMap;

use packetboat_core::checkpoint::CheckpointRef;
use packetboat_core::garbage::Retention;
use packetboat_core::ids::DeviceId;
use packetboat_core::store::{ObjectName, Store};
use packetboat_engine::ports::Silent;
use packetboat_storage::memory::MemoryStore;
use packetboat_storage::pack::object_name;
use support::letting_go::{
    LARGE, MORE_THAN_A_TAIL, assert_sound, bring, garbage, keep, let_go_until_nothing_moves, noise, packets, prune,
};
use support::{Device, Pair};

/// The checkpoints that are listed.
fn roots(store: &MemoryStore) -> Vec<ObjectName> {
    store.names().into_iter().filter(|name| name.as_str().starts_with("checkpoints/")).collect()
}

fn name(device: &Device, number: u64) -> ObjectName {
    CheckpointRef { device: device.replica.own_device(), number }.name()
}

/// Two devices and some files, of which a directory was moved.
fn vault() -> Pair {
    let mut pair = Pair::new();
    fill(&mut pair.laptop, "text");
    pair.laptop.fs.write("moved 0/file", b"moved").unwrap();
    pair.settle();
    pair.laptop.fs.rename("moved 0", "moved 1").unwrap();
    pair.settle();
    pair
}

fn fill(device: &mut Device, text: &str) {
    for file in 0..FILES {
        device.fs.write(format!("dir/{file}"), format!("{text} {file}").as_bytes()).unwrap();
    }
}

/// Changes every file, what was moved, and how many packs there are: no segment is as it was.
fn change_all(device: &mut Device) {
    fill(device, "changed");
    let large = format!("large {}", device.files().len());
    device.fs.write(&large, &noise(device.files().len() as u64, LARGE)).unwrap();
    let moved = |number: usize| format!("moved {number}");
    let last = (1..9).rev().find(|number| device.fs.read(moved(*number) + "/file").is_ok()).unwrap();
    device.fs.rename(moved(last), moved(last + 1)).unwrap();
    device.sync();
}

/// Has a device publish until it has written a checkpoint.
fn checkpoint(device: &mut Device, store: &MemoryStore) {
    let before = roots(store);
    for number in 0..MORE_THAN_A_TAIL {
        device.fs.write("counter", format!("{} {number}", before.len()).as_bytes()).unwrap();
        device.sync();
    }
    assert_eq!(roots(store).iter().filter(|root| !before.contains(root)).count(), 1);
}

/// What nobody refers to, as a device sees it.
fn orphans(device: &mut Device) -> Vec<String> {
    device.replica.verify(true, &mut Silent).unwrap().orphans
}

#[test]
fn older_checkpoints_of_a_device_go_with_the_packs_that_only_they_need() {
    let mut pair = vault();
    for _ in 0..3 {
        checkpoint(&mut pair.laptop, &pair.store);
        change_all(&mut pair.laptop);
    }
    checkpoint(&mut pair.desk, &pair.store);
    let (condemned, deleted) = condemned(&mut pair.laptop);
    assert_eq!(deleted, 2);
    assert_eq!(roots(&pair.store), sorted([name(&pair.desk, 1), name(&pair.laptop, 3)]));
    assert!(!condemned.is_empty());
    assert!(condemned.iter().all(|pack| pair.store.names().contains(pack)), "nobody has answered");
    let_go_until_nothing_moves(&mut pair, &mut []);
    assert!(!condemned.iter().any(|pack| pair.store.names().contains(pack)));
    let mut third = pair.third();
    third.sync();
    assert_eq!(third.files(), pair.laptop.files());
    for device in [&mut pair.laptop, &mut pair.desk, &mut third] {
        assert_sound(device);
        assert_eq!(orphans(device), Vec::<String>::new());
    }
}

/// Found by mutants: the first byte of a segment of packs is a chunk of its own and never changes, so the pack in which it
/// lay stayed for ever, with all the rest of the first checkpoint.
#[test]
fn the_little_that_a_checkpoint_shares_with_a_superseded_one_keeps_none_of_its_packs() {
    let mut pair = vault();
    let before = pair.store.names();
    checkpoint(&mut pair.laptop, &pair.store);
    let contents: Vec<ObjectName> =
        pair.laptop.replica.index().packs(None, 99).unwrap().iter().map(|row| object_name(&row.pack)).collect();
    let is_of_segments = |name: &ObjectName| name.as_str().starts_with("packs/") && !contents.contains(name);
    let of_first: Vec<ObjectName> =
        pair.store.names().into_iter().filter(|name| !before.contains(name) && is_of_segments(name)).collect();
    assert!(!of_first.is_empty());
    // The second shares it; the third sees how little it is.
    for _ in 0..2 {
        change_all(&mut pair.laptop);
        checkpoint(&mut pair.laptop, &pair.store);
    }
    keep(&mut pair.laptop, Retention::All);
    let_go_until_nothing_moves(&mut pair, &mut []);
    assert!(!of_first.iter().any(|pack| pair.store.names().contains(pack)));
    let mut third = pair.third();
    third.sync();
    assert_eq!(third.files(), pair.laptop.files());
    for device in [&mut pair.laptop, &mut pair.desk, &mut third] {
        assert_sound(device);
    }
}

#[test]
fn the_checkpoint_at_which_history_is_to_begin_stays_until_all_have_answered() {
    let mut pair = vault();
    pair.pass_days(1);
    assert!(keep(&mut pair.laptop, Retention::Days(0)).packets > 0);
    assert_eq!(roots(&pair.store), [name(&pair.laptop, 1)]);
    checkpoint(&mut pair.laptop, &pair.store);
    keep(&mut pair.laptop, Retention::All);
    assert!(pair.store.names().contains(&name(&pair.laptop, 1)), "the desk has not answered");
    let before = packets(&pair.store);
    pair.desk.sync();
    prune(&mut pair.laptop);
    assert!(packets(&pair.store) < before, "history went");
    let_go_until_nothing_moves(&mut pair, &mut []);
    for device in [&mut pair.laptop, &mut pair.desk] {
        assert_sound(device);
        let problems = device.replica.index().problems().unwrap();
        assert!(problems.is_empty(), "{problems:?}");
    }
}

#[test]
fn a_checkpoint_that_a_storage_broke_off_goes_and_one_that_may_be_somebodys_stays() {
    let mut pair = vault();
    for _ in 0..2 {
        checkpoint(&mut pair.laptop, &pair.store);
    }
    let own = pair.laptop.replica.own_device();
    let torn = |number| CheckpointRef { device: own, number }.name();
    // One before a number that it wrote since, and one that it never took for written.
    let (older, later) = (torn(1), torn(9));
    let whole = pair.store.get(&older, u64::MAX).unwrap();
    pair.store.tamper(&older, |bytes| bytes.truncate(50));
    pair.store.put(&later, &whole[..50]).unwrap();
    // The desk is there, and may be about to put it again.
    let of_desk = name(&pair.desk, 4);
    pair.store.put(&of_desk, &whole[..50]).unwrap();
    keep(&mut pair.laptop, Retention::All);
    assert_eq!(roots(&pair.store), sorted([torn(2), of_desk.clone()]));
    // It is needed to know what nobody needs: so nothing more goes,
    checkpoint(&mut pair.laptop, &pair.store);
    prune(&mut pair.laptop);
    assert!(pair.store.names().contains(&name(&pair.laptop, 2)));
    // unless its author is gone.
    let desk = pair.desk.replica.own_device();
    pair.laptop.replica.retire(&desk, &mut Silent).unwrap();
    prune(&mut pair.laptop);
    assert!(!pair.store.names().contains(&of_desk));
    prune(&mut pair.laptop);
    assert_eq!(roots(&pair.store).len(), 1);
    assert_sound(&mut pair.laptop);
    let mut third = pair.third();
    third.sync();
    assert_eq!(third.files(), pair.laptop.files());
}

#[test]
fn the_newest_checkpoint_of_a_device_stays_though_it_cannot_be_read_just_now() {
    let mut pair = vault();
    for _ in 0..2 {
        checkpoint(&mut pair.laptop, &pair.store);
    }
    let newest = name(&pair.laptop, 2);
    let whole = pair.store.get(&newest, u64::MAX).unwrap();
    pair.store.tamper(&newest, |bytes| bytes[60] ^= 1);
    keep(&mut pair.laptop, Retention::All);
    assert_eq!(roots(&pair.store).len(), 2, "what it needs is not known, nor whether the older one is needed");
    pair.store.put(&newest, &whole).unwrap();
    prune(&mut pair.laptop);
    assert_eq!(roots(&pair.store), [newest]);
}

/// Two devices of which all history went, so that it begins at the laptop's first checkpoint, and its later checkpoints.
fn begun() -> Pair {
    let mut pair = vault();
    pair.pass_days(1);
    keep(&mut pair.laptop, Retention::Days(0));
    pair.desk.sync();
    prune(&mut pair.laptop);
    checkpoint(&mut pair.laptop, &pair.store);
    assert!(roots(&pair.store).contains(&name(&pair.laptop, 1)));
    assert!(!garbage(&pair.laptop).ended().is_empty());
    pair
}

#[test]
fn the_checkpoint_at_which_history_begins_stays_though_it_cannot_be_read_just_now() {
    let mut pair = begun();
    let base = name(&pair.laptop, 1);
    pair.store.tamper(&base, |bytes| bytes[60] ^= 1);
    prune(&mut pair.laptop);
    assert!(roots(&pair.store).contains(&base), "its storage may only have read it wrongly");
    pair.store.tamper(&base, |bytes| bytes[60] ^= 1);
    prune(&mut pair.laptop);
    assert!(roots(&pair.store).contains(&base));
}

#[test]
fn a_checkpoint_that_a_storage_broke_off_goes_where_history_begins_later_too() {
    let mut pair = begun();
    let torn = name(&pair.laptop, 99);
    pair.store.put(&torn, b"PBCP and no more").unwrap();
    prune(&mut pair.laptop);
    assert!(!roots(&pair.store).contains(&torn), "where history begins can be read");
    assert!(roots(&pair.store).contains(&name(&pair.laptop, 1)));
}

/// The only checkpoint is of the desk, which is retired.
fn checkpoint_of_retired() -> (Pair, ObjectName) {
    let mut pair = vault();
    checkpoint(&mut pair.desk, &pair.store);
    let of_desk = name(&pair.desk, 1);
    pair.laptop.sync();
    let desk = pair.desk.replica.own_device();
    pair.laptop.replica.retire(&desk, &mut Silent).unwrap();
    (pair, of_desk)
}

#[test]
fn a_checkpoint_that_is_held_stays_though_its_author_is_gone_and_it_cannot_be_read_just_now() {
    let (mut pair, of_desk) = checkpoint_of_retired();
    let flip = |pair: &Pair| pair.store.tamper(&of_desk, |bytes| bytes[60] ^= 1);
    flip(&pair);
    keep(&mut pair.laptop, Retention::All);
    assert_eq!(roots(&pair.store), std::slice::from_ref(&of_desk), "newcomers are led to it");
    flip(&pair);
    let third = pair.third();
    let laptop = std::mem::replace(&mut pair.laptop, third);
    let mut newcomer = pair.joined(5, "newcomer", b"secret");
    let read = pair.watch_reads(&mut newcomer);
    newcomer.sync();
    assert!(read.lock().unwrap().contains(&of_desk));
    assert_eq!(newcomer.files(), laptop.files());
}

#[test]
fn of_two_lost_checkpoints_each_whole_again_to_its_holder_a_newcomer_finds_one() {
    // Each of the two had the other's for whole, and no tip told of the one that was written.
    let mut pair = vault();
    checkpoint(&mut pair.desk, &pair.store);
    checkpoint(&mut pair.laptop, &pair.store);
    keep(&mut pair.laptop, Retention::Days(0));
    keep(&mut pair.desk, Retention::Days(0));
    for _ in 0..3 {
        pair.settle();
        prune(&mut pair.laptop);
        prune(&mut pair.desk);
    }
    let lost = roots(&pair.store);
    assert!(lost.len() > 1, "{lost:?}");
    lost.iter().for_each(|name| pair.store.delete(name).unwrap());
    pair.settle();
    let mut joined = pair.third();
    assert!(joined.sync().received.waiting > 0);
    pair.settle();
    joined.sync();
    assert_eq!(joined.files(), pair.laptop.files());
    assert_eq!(joined.replica.status().unwrap().problems, []);
}

#[test]
fn whoever_joins_after_a_revocation_hears_nothing_of_checkpoints_from_before() {
    // Tips name them until their devices have taken up the newer one; nobody is to look after that.
    let mut pair = vault();
    checkpoint(&mut pair.desk, &pair.store);
    let mut third = pair.third();
    third.sync();
    pair.laptop.sync();
    pair.laptop.replica.revoke(&third.id(), b"a new passphrase", &mut Silent).unwrap();
    assert!(roots(&pair.store).contains(&name(&pair.desk, 1)), "the tip of the desk names it");
    let mut joined = pair.joined(50, "new", b"a new passphrase");
    joined.sync();
    assert_eq!(joined.files(), pair.laptop.files());
    assert_eq!(joined.replica.status().unwrap().problems, []);
}

#[test]
fn a_checkpoint_of_a_device_that_is_gone_goes_once_another_contains_it() {
    let (mut pair, of_desk) = checkpoint_of_retired();
    keep(&mut pair.laptop, Retention::All);
    assert_eq!(roots(&pair.store), std::slice::from_ref(&of_desk), "nobody else has written one");
    checkpoint(&mut pair.laptop, &pair.store);
    prune(&mut pair.laptop);
    assert_eq!(roots(&pair.store), [name(&pair.laptop, 1)]);
    let mut third = pair.third();
    third.sync();
    assert_eq!(third.files(), pair.laptop.files());
    prune(&mut pair.laptop);
    assert_sound(&mut pair.laptop);
    assert_sound(&mut third);
}

/// Two devices and a checkpoint of the desk's, which shares segments with one of the laptop's that the laptop superseded
/// before it heard of that; with the packs that it condemned, and the name of the desk's.
fn shared() -> (Pair, Vec<ObjectName>, ObjectName) {
    let mut pair = vault();
    checkpoint(&mut pair.laptop, &pair.store);
    change_all(&mut pair.laptop);
    checkpoint(&mut pair.laptop, &pair.store);
    pair.desk.sync();
    // The desk goes where it hears of nothing, and writes a checkpoint that shares segments with the laptop's second.
    let elsewhere = MemoryStore::new();
    bring(&pair.store, &[], &elsewhere);
    let before = elsewhere.names();
    let desk = pair.take_desk();
    let mut desk = pair.moved(desk, &elsewhere, "memory");
    checkpoint(&mut desk, &elsewhere);
    // Meanwhile little of that one is left in the laptop's third.
    change_all(&mut pair.laptop);
    checkpoint(&mut pair.laptop, &pair.store);
    let (condemned, _) = condemned(&mut pair.laptop);
    assert!(!condemned.is_empty());
    bring(&elsewhere, &before, &pair.store);
    pair.desk = pair.moved(desk, &pair.store, "memory");
    let of_desk = name(&pair.desk, 1);
    pair.desk.sync();
    (pair, condemned, of_desk)
}

/// That whoever joins begins from this checkpoint, where there is no other.
#[track_caller]
fn begins_from(pair: &mut Pair, laptop: &Device, checkpoint: &ObjectName) {
    for root in roots(&pair.store).into_iter().filter(|root| root != checkpoint) {
        pair.store.delete(&root).unwrap();
    }
    let mut newcomer = pair.joined(5, "newcomer", b"secret");
    let read = pair.watch_reads(&mut newcomer);
    newcomer.sync();
    let first = format!("lanes/{}/1", laptop.id());
    assert!(!read.lock().unwrap().iter().any(|name| name.as_str() == first), "it did not begin from there");
    assert_eq!(newcomer.fs.read("dir/1").unwrap(), b"changed 1");
}

#[test]
fn what_another_checkpoint_shares_with_a_superseded_one_stays() {
    let (mut pair, condemned, of_desk) = shared();
    prune(&mut pair.laptop);
    assert!(condemned.iter().any(|pack| pair.store.names().contains(pack)), "the desk's checkpoint needs it");
    for device in [&mut pair.laptop, &mut pair.desk] {
        assert_sound(device);
    }
    let third = pair.third();
    let laptop = std::mem::replace(&mut pair.laptop, third);
    begins_from(&mut pair, &laptop, &of_desk);
}

/// The checkpoint that a device names in its tip, and with which its next shares segments.
fn held(device: &Device) -> Option<ObjectName> {
    let name = device.replica.index().meta("checkpoint").unwrap()?;
    let (id, number) = name.split_at(DeviceId::LEN);
    let number = u64::from_le_bytes(number.try_into().unwrap());
    Some(CheckpointRef { device: DeviceId::from_slice(id).unwrap(), number }.name())
}

#[test]
fn whoever_deletes_the_packs_of_the_checkpoint_it_began_from_names_another_that_is_whole() {
    for is_lost in [false, true] {
        let mut pair = vault();
        checkpoint(&mut pair.laptop, &pair.store);
        let mut third = pair.third();
        third.sync();
        assert_eq!(held(&third), Some(name(&pair.laptop, 1)));
        for _ in 0..2 {
            change_all(&mut pair.laptop);
            checkpoint(&mut pair.laptop, &pair.store);
        }
        let (condemned, _) = condemned(&mut pair.laptop);
        pair.desk.sync();
        let newest = name(&pair.laptop, 3);
        if is_lost {
            pair.store.delete(&newest).unwrap();
        }
        prune(&mut third);
        assert!(!condemned.is_empty() && !condemned.iter().any(|pack| pair.store.names().contains(pack)));
        assert_eq!(held(&third), Some(newest).filter(|_| !is_lost));
        third.fs.write("more", b"by the third").unwrap();
        third.sync();
        if is_lost {
            begins_from(&mut pair, &third, &name(&third, 1));
        }
    }
}

/// Told by mutants: where some other checkpoint stands, none may have said where history begins.
#[test]
fn whoever_lets_history_go_says_so_in_a_checkpoint_though_another_stands_that_does_not() {
    let mut pair = vault();
    pair.pass_days(1);
    keep(&mut pair.laptop, Retention::Days(0));
    // It contains where history is to begin, and was written before that was done.
    checkpoint(&mut pair.desk, &pair.store);
    pair.laptop.sync();
    assert!(!garbage(&pair.laptop).ended().is_empty());
    let newest = roots(&pair.store).into_iter().filter(|root| *root != name(&pair.laptop, 1));
    assert_eq!(newest.collect::<Vec<_>>(), sorted([name(&pair.desk, 1), name(&pair.laptop, 2)]));
}

#[test]
fn a_checkpoint_that_lies_before_where_history_begins_goes_with_that_history() {
    let mut pair = vault();
    checkpoint(&mut pair.desk, &pair.store);
    let of_desk = name(&pair.desk, 1);
    pair.pass_days(1);
    pair.laptop.fs.write("more", b"since").unwrap();
    pair.laptop.sync();
    pair.pass_days(1);
    keep(&mut pair.laptop, Retention::Days(0));
    pair.desk.sync();
    let sizes = |store: &MemoryStore| -> BTreeMap<ObjectName, u64> {
        store.names().into_iter().map(|name| (name.clone(), store.get(&name, u64::MAX).unwrap().len() as u64)).collect()
    };
    let before = sizes(&pair.store);
    assert!(before.contains_key(&of_desk));
    let report = prune(&mut pair.laptop);
    let after = sizes(&pair.store);
    let gone: Vec<u64> = before.iter().filter(|(name, _)| !after.contains_key(*name)).map(|(_, size)| *size).collect();
    assert!(!after.contains_key(&of_desk), "nobody can begin from it any more");
    assert_eq!((report.deleted, report.deleted_bytes), (gone.len() as u64, gone.iter().sum()));
    // Its author goes by another too.
    assert_eq!(held(&pair.desk), Some(of_desk));
    prune(&mut pair.desk);
    let held = held(&pair.desk).unwrap();
    assert!(pair.store.names().contains(&held), "{held:?} is named and is gone");
    let mut third = pair.third();
    third.sync();
    assert_eq!(third.files(), pair.laptop.files());
}

#[test]
fn whoever_cannot_tell_whether_packs_may_go_waits_for_none_that_a_checkpoint_needs() {
    let (mut pair, condemned, of_desk) = shared();
    for root in roots(&pair.store).into_iter().filter(|root| *root != of_desk) {
        pair.store.delete(&root).unwrap();
    }
    let mut third = pair.third();
    third.sync();
    let doubts: Vec<bool> = garbage(&third).standing().map(|(_, condemnation)| condemnation.is_doubtful).collect();
    assert_eq!(doubts, [true]);
    for _ in 0..2 {
        pair.settle();
        third.sync();
    }
    let left: Vec<_> = condemned.into_iter().filter(|pack| pair.store.names().contains(pack)).collect();
    assert_eq!(left.len(), 1, "the desk's checkpoint needs it");
    // Where no checkpoint is seen to need it, the third leaves it to others.
    let whole = pair.store.get(&of_desk, u64::MAX).unwrap();
    pair.store.delete(&of_desk).unwrap();
    prune(&mut third);
    assert_eq!(garbage(&third).standing().count(), 1);
    assert!(pair.store.names().contains(&left[0]));
    pair.store.put(&of_desk, &whole).unwrap();
    prune(&mut third);
    assert_eq!(garbage(&third).standing().count(), 0);
    assert!(pair.store.names().contains(&left[0]));
    assert_sound(&mut third);
}

/// Has a device take its superseded checkpoints away: the packs that it condemns with them, and how many objects went.
fn condemned(device: &mut Device) -> (Vec<ObjectName>, u64) {
    let report = keep(device, Retention::All);
    (garbage(device).condemned().iter().map(packetboat_storage::pack::object_name).collect(), report.deleted)
}

fn sorted<const N: usize>(mut names: [ObjectName; N]) -> [ObjectName; N] {
    names.sort();
    names
}

const FILES: usize = 20;
