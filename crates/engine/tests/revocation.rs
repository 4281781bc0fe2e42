//! Revocation: the rest go on under a new key by themselves, and the revoked device is told and keeps its files.

mod support;

use std::sync::atomic::Ordering;

use packetboat_core::store::{ObjectName, Store};
use packetboat_engine::error::{QueryError, SyncError};
use packetboat_engine::ports::Silent;
use packetboat_engine::replica::{Remedy, Replica, SyncOptions};
use packetboat_engine::{JoinError, PruneOptions, RemovalError, Revoked};
use packetboat_storage::memory::MemoryStore;
use support::{Device, Pair, Watcher, copy_objects, copy_of};

/// A vault with three devices that are in step and have one file.
fn trio() -> (Pair, Device) {
    let mut pair = Pair::new();
    let mut third = pair.third();
    pair.laptop.fs.write("kept", b"by the laptop").unwrap();
    pair.settle();
    third.sync();
    pair.settle();
    (pair, third)
}

fn revoke(by: &mut Device, device: &Device) -> Revoked {
    by.replica.revoke(&device.id(), b"a new passphrase", &mut Silent).unwrap()
}

/// The desk loses its copy of the marker.
fn forget_marker(pair: &mut Pair) {
    let Device { fs, replica } = pair.take_desk();
    let mut parts = replica.into_parts();
    parts.index.set_meta("marker", None).unwrap();
    pair.desk = Device { fs, replica: Replica::open(parts).unwrap() };
}

fn epoch_of(store: &MemoryStore, name: &str) -> u32 {
    let bytes = store.get(&ObjectName::new(name).unwrap(), u64::MAX).unwrap();
    // Packets and tips say their epoch at one place.
    u32::from_le_bytes(bytes[62..66].try_into().unwrap())
}

#[test]
fn the_rest_go_on_under_a_new_key_without_any_command() {
    let (mut pair, third) = trio();
    let revoked = revoke(&mut pair.laptop, &third);
    assert_eq!((revoked.name.as_str(), revoked.epoch, revoked.recipients), ("third", 1, 2));
    pair.laptop.fs.write("new", b"under the new key").unwrap();
    pair.settle();
    pair.desk.fs.write("newer", b"by the desk").unwrap();
    pair.settle();
    pair.assert_files(&[("kept", "by the laptop"), ("new", "under the new key"), ("newer", "by the desk")]);
    for device in [pair.laptop.id(), pair.desk.id()] {
        assert_eq!(epoch_of(&pair.store, &format!("tips/{device}")), 1);
    }
    let state = |device: &mut Device| device.replica.status().unwrap().state;
    assert_eq!(state(&mut pair.laptop), state(&mut pair.desk));
    // A device that starts again has its keys, and what it seals is under the new one.
    let parts = pair.desk.replica.into_parts();
    pair.desk.replica = Replica::open(parts).unwrap();
    pair.desk.fs.write("again", b"after a start").unwrap();
    pair.settle();
    assert_eq!(pair.laptop.files(), pair.desk.files());
}

#[test]
fn the_revoked_device_is_told_and_its_files_stay() {
    let (mut pair, mut third) = trio();
    revoke(&mut pair.laptop, &third);
    pair.laptop.fs.write("secret", b"not for the third").unwrap();
    pair.laptop.fs.remove("kept").unwrap();
    pair.settle();
    third.fs.write("mine", b"written since").unwrap();
    for _ in 0..2 {
        let error = third.sync_fails();
        assert!(matches!(&error, SyncError::Revoked { by } if by == "laptop"), "{error}");
    }
    let expected = [("kept", "by the laptop"), ("mine", "written since")];
    assert_eq!(third.files(), expected.map(|(path, text)| (path.to_owned(), text.to_owned())));
    let status = third.replica.status().unwrap();
    assert_eq!((status.to_send, status.in_step), (1, false), "what it has not synchronised is told");
    pair.settle();
    pair.assert_files(&[("secret", "not for the third")]);
}

#[test]
fn the_revoked_device_lets_nothing_go() {
    let (mut pair, mut third) = trio();
    revoke(&mut pair.laptop, &third);
    pair.settle();
    let before = pair.store.names();
    // It hears of that only now, and knows it the second time.
    for _ in 0..2 {
        let error = third.replica.prune(PruneOptions::default(), &mut Silent).unwrap_err();
        assert!(matches!(&error, SyncError::Revoked { by } if by == "laptop"), "{error}");
    }
    assert_eq!(pair.store.names(), before);
}

#[test]
fn the_revoked_device_is_told_of_that_and_of_no_damage() {
    // It has not the keys to tell: it called the marker and all tips damaged, and said that it could put them back.
    let (mut pair, mut third) = trio();
    revoke(&mut pair.laptop, &third);
    pair.settle();
    for deep in [false, true] {
        let error = third.replica.verify(deep, &mut Silent).unwrap_err();
        assert!(matches!(&error, QueryError::Sync(SyncError::Revoked { by }) if by == "laptop"), "{error}");
    }
}

#[test]
fn packets_beyond_the_cut_are_refused_by_whoever_learns_of_both_at_once() {
    let (mut pair, mut third) = trio();
    // The third publishes at a storage that nobody else sees; what it put there comes to the others' later.
    let aside = copy_of(&pair.store);
    third = pair.moved(third, &aside, "aside");
    third.fs.write("late", b"beyond the cut").unwrap();
    third.sync();
    revoke(&mut pair.laptop, &third);
    copy_objects(&aside, &pair.store, &third.id().to_string());
    pair.pass();
    // The desk finds revocation and late packet in one round, the laptop the packet alone. There is nothing to be mended, so
    // each is told once: it stood among what is damaged for good, and `doctor` found something wrong.
    for device in [&mut pair.desk, &mut pair.laptop] {
        for told in [1, 0, 0] {
            let mut watcher = Watcher::default();
            device.replica.sync(SyncOptions::default(), &mut watcher).unwrap();
            let is_told = |warning: &&String| warning.contains("take away its access to the storage");
            assert_eq!(watcher.warnings.iter().filter(is_told).count(), told, "{:?}", watcher.warnings);
            assert_eq!(watcher.warnings.len(), told, "{:?}", watcher.warnings);
        }
        assert_eq!(device.replica.index().problems().unwrap(), []);
    }
    pair.settle();
    pair.assert_files(&[("kept", "by the laptop")]);
}

#[test]
fn what_a_member_had_built_on_before_it_knew_stands_everywhere() {
    let (mut pair, mut third) = trio();
    let aside = copy_of(&pair.store);
    third = pair.moved(third, &aside, "aside");
    third.fs.write("late", b"beyond the cut").unwrap();
    third.sync();
    // The desk learns of it there; the laptop does not, and revokes.
    let place = pair.store.clone();
    let desk = pair.take_desk();
    pair.desk = pair.moved(desk, &aside, "aside");
    pair.desk.sync();
    assert_eq!(pair.desk.files().len(), 2);
    revoke(&mut pair.laptop, &third);
    let desk = pair.take_desk();
    pair.desk = pair.moved(desk, &place, "memory");
    copy_objects(&aside, &place, &third.id().to_string());
    for _ in 0..2 {
        pair.settle();
    }
    pair.assert_files(&[("kept", "by the laptop"), ("late", "beyond the cut")]);
    let state = |device: &mut Device| device.replica.status().unwrap().state;
    assert_eq!(state(&mut pair.laptop), state(&mut pair.desk));
}

#[test]
fn a_packet_of_the_old_epoch_by_a_member_in_good_standing_may_come_late() {
    let (mut pair, third) = trio();
    pair.desk.fs.write("late", b"sealed under the old key").unwrap();
    let aside = copy_of(&pair.store);
    let desk = pair.take_desk();
    pair.desk = pair.moved(desk, &aside, "aside");
    pair.desk.sync();
    revoke(&mut pair.laptop, &third);
    let (id, place) = (pair.desk.id().to_string(), pair.store.clone());
    copy_objects(&aside, &place, &id);
    let desk = pair.take_desk();
    pair.desk = pair.moved(desk, &place, "memory");
    pair.settle();
    pair.settle();
    pair.assert_files(&[("kept", "by the laptop"), ("late", "sealed under the old key")]);
}

#[test]
fn two_devices_revoked_at_once_by_two_get_no_key_that_lasts() {
    let (mut pair, third) = trio();
    let mut fourth = pair.joined(44, "fourth", b"secret");
    fourth.sync();
    pair.settle();
    // Laptop and desk revoke one each, and neither knows of the other's.
    let aside = copy_of(&pair.store);
    let desk = pair.take_desk();
    let mut desk = pair.moved(desk, &aside, "aside");
    revoke(&mut desk, &fourth);
    revoke(&mut pair.laptop, &third);
    let place = pair.store.clone();
    copy_objects(&aside, &place, &desk.id().to_string());
    pair.desk = pair.moved(desk, &place, "memory");
    for _ in 0..3 {
        pair.settle();
    }
    pair.laptop.fs.write("after", b"both").unwrap();
    pair.settle();
    pair.assert_files(&[("after", "both"), ("kept", "by the laptop")]);
    assert_eq!(epoch_of(&place, &format!("tips/{}", pair.laptop.id())), 2, "both had the other's key");
    for mut revoked in [third, fourth] {
        assert!(matches!(revoked.sync_fails(), SyncError::Revoked { .. }));
        assert!(revoked.files().iter().all(|(name, _)| name != "after"));
    }
}

#[test]
fn of_two_who_revoke_each_other_one_is_told_and_the_rest_agree() {
    let (mut pair, mut third) = trio();
    let aside = copy_of(&pair.store);
    let desk = pair.take_desk();
    let mut desk = pair.moved(desk, &aside, "aside");
    let (laptop_id, desk_id) = (pair.laptop.id(), desk.id());
    desk.replica.revoke(&laptop_id, b"the desk's passphrase", &mut Silent).unwrap();
    pair.laptop.replica.revoke(&desk_id, b"the laptop's passphrase", &mut Silent).unwrap();
    let place = pair.store.clone();
    copy_objects(&aside, &place, &desk_id.to_string());
    pair.desk = pair.moved(desk, &place, "memory");
    let mut outcomes = Vec::new();
    for _ in 0..4 {
        pair.pass();
        third.fs.set_now(i64::MAX / 4);
        third.sync();
        let sync = |device: &mut Device| device.replica.sync(Default::default(), &mut Silent).map(|_| ());
        outcomes = vec![sync(&mut pair.laptop), sync(&mut pair.desk)];
    }
    let told: Vec<bool> = outcomes.iter().map(|outcome| matches!(outcome, Err(SyncError::Revoked { .. }))).collect();
    assert_eq!(told.iter().filter(|told| **told).count(), 1, "{outcomes:?}");
    let (mut winner, loser) = if told[0] { (pair.desk, laptop_id) } else { (pair.laptop, desk_id) };
    assert_eq!(loser, laptop_id.max(desk_id), "equal logical times: the smaller device counts");
    assert_eq!(third.standings().iter().filter(|(_, standing)| *standing == "revoked").count(), 1);
    winner.fs.write("after", b"it").unwrap();
    winner.sync();
    third.sync();
    assert!(third.files().contains(&("after".to_owned(), "it".to_owned())));
}

#[test]
fn a_stranger_with_a_key_that_was_given_up_is_let_in_by_nobody() {
    let (mut pair, third) = trio();
    let old_marker = pair.store.get(&ObjectName::new("packetboat").unwrap(), u64::MAX).unwrap();
    revoke(&mut pair.laptop, &third);
    pair.settle();
    // The third goes on under another name, at a storage that shows it what was before.
    let aside = MemoryStore::new();
    aside.put(&ObjectName::new("packetboat").unwrap(), &old_marker).unwrap();
    let place = std::mem::replace(&mut pair.store, aside.clone());
    let mut stranger = pair.joined(99, "somebody new", b"secret");
    pair.store = place;
    stranger = pair.moved(stranger, &aside, "aside");
    stranger.fs.write("planted", b"by a stranger").unwrap();
    stranger.sync();
    copy_objects(&aside, &pair.store, &stranger.id().to_string());
    pair.settle();
    pair.settle();
    pair.assert_files(&[("kept", "by the laptop")]);
    assert!(pair.laptop.standings().iter().all(|(name, _)| name != "somebody new"));
}

#[test]
fn a_revocation_of_oneself_or_of_nobody_is_refused() {
    let (mut pair, third) = trio();
    let own = pair.laptop.id();
    let refused = |outcome: Result<Revoked, RemovalError>| outcome.unwrap_err();
    let revoke_own = pair.laptop.replica.revoke(&own, b"x", &mut Silent);
    assert!(matches!(refused(revoke_own), RemovalError::Oneself));
    revoke(&mut pair.laptop, &third);
    let again = pair.laptop.replica.revoke(&third.id(), b"x", &mut Silent);
    assert!(matches!(refused(again), RemovalError::AlreadyRevoked { name } if name == "third"));
    assert!(matches!(pair.laptop.replica.device_named("nobody"), Err(RemovalError::NoSuchDevice { .. })));
    assert_eq!(pair.laptop.replica.device_named("desk").unwrap(), pair.desk.id());
    assert_eq!(pair.laptop.replica.device_named(&pair.desk.id().to_string()[..8]).unwrap(), pair.desk.id());
}

#[test]
fn the_new_passphrase_opens_the_vault_and_the_former_does_not() {
    let (mut pair, third) = trio();
    let revoked = revoke(&mut pair.laptop, &third);
    let marker = Replica::read_marker(&pair.store).unwrap().unwrap();
    assert!(marker.unlock_with_passphrase(b"secret").is_err());
    let key = packetboat_core::recovery::RecoveryKey::from_text(&revoked.recovery_key).unwrap();
    assert_eq!(marker.unlock_with_recovery(&key).unwrap().current(), 1);
    let mut joined = pair.joined(50, "new", b"a new passphrase");
    joined.sync();
    pair.settle();
    assert_eq!(joined.files(), pair.laptop.files());
    joined.fs.write("by", b"the new one").unwrap();
    joined.sync();
    pair.settle();
    pair.assert_files(&[("by", "the new one"), ("kept", "by the laptop")]);
}

#[test]
fn an_older_marker_put_back_by_the_storage_is_noticed_and_replaced() {
    let (mut pair, third) = trio();
    let name = ObjectName::new("packetboat").unwrap();
    let old = pair.store.get(&name, u64::MAX).unwrap();
    revoke(&mut pair.laptop, &third);
    pair.settle();
    let new = pair.store.get(&name, u64::MAX).unwrap();
    pair.store.put(&name, &old).unwrap();
    // Whoever joins by it has a key that was given up, is told so by the packets, and is let in by nobody.
    let mut joined = pair.joined(51, "misled", b"secret");
    let error = joined.sync_fails();
    assert!(matches!(&error, SyncError::LeftOut { by } if by == "laptop"), "{error}");
    let faults = pair.desk.replica.verify(false, &mut Silent).unwrap().faults;
    let about_marker = faults.iter().find(|fault| fault.object == "packetboat").map(|fault| fault.what.as_str());
    assert_eq!(about_marker, Some("it is from before a device was revoked"));
    pair.pass_hours(25);
    pair.desk.sync();
    assert_eq!(pair.store.get(&name, u64::MAX).unwrap(), new, "a member put its copy back");
    pair.settle();
    pair.assert_files(&[("kept", "by the laptop")]);
}

#[test]
fn a_marker_that_could_not_be_put_is_put_by_the_next_round() {
    let (mut pair, third) = trio();
    let name = ObjectName::new("packetboat").unwrap();
    let old = pair.store.get(&name, u64::MAX).unwrap();
    revoke(&mut pair.laptop, &third);
    // As after a crash between the packet and the marker.
    pair.store.put(&name, &old).unwrap();
    pair.laptop.replica.index().meta("marker").unwrap().unwrap();
    pair.pass_hours(25);
    pair.laptop.sync();
    let marker = Replica::read_marker(&pair.store).unwrap().unwrap();
    assert!(marker.unlock_with_passphrase(b"a new passphrase").is_ok());
}

#[test]
fn a_marker_of_which_the_storage_kept_a_part_is_whole_again_after_the_next_round_or_try() {
    // Of a vault that was never given another key nobody had a copy, and each further try failed at what was there.
    let name = ObjectName::new("packetboat").unwrap();
    for tries_again in [false, true] {
        let mut pair = Pair::new();
        pair.fuse.store(0, Ordering::SeqCst);
        pair.laptop.replica.change_passphrase(b"another", &mut Silent).unwrap_err();
        pair.fuse.store(-1, Ordering::SeqCst);
        pair.out.store(false, Ordering::SeqCst);
        assert!(pair.store.tamper(&name, |bytes| bytes.truncate(bytes.len() / 2)));
        let passphrase: &[u8] = match tries_again {
            true => {
                // Its copy may hold a recovery key that somebody else has replaced.
                assert!(pair.laptop.replica.change_passphrase(b"another", &mut Silent).unwrap().is_some());
                b"another"
            }
            false => {
                pair.laptop.sync();
                b"secret"
            }
        };
        let mut joined = pair.joined(50, "new", passphrase);
        joined.sync();
        assert_eq!(joined.files(), pair.laptop.files());
    }
}

#[test]
fn a_marker_that_the_intermediary_lost_is_put_back_by_any_member() {
    // Of a vault that was never given another key, nobody had a copy: with the last of its devices all was lost.
    let name = ObjectName::new("packetboat").unwrap();
    for damage in [None, Some(20), Some(0)] {
        let mut pair = Pair::new();
        pair.laptop.fs.write("kept", b"by the laptop").unwrap();
        pair.settle();
        let sound = pair.store.get(&name, u64::MAX).unwrap();
        match damage {
            None => pair.store.delete(&name).unwrap(),
            Some(at) => assert!(pair.store.tamper(&name, |bytes| bytes[at] ^= 1)),
        }
        let faults = pair.desk.replica.verify(false, &mut Silent).unwrap().faults;
        let remedies: Vec<_> = faults.iter().map(|fault| (fault.object.as_str(), &fault.remedy)).collect();
        assert_eq!(remedies, [("packetboat", &Remedy::Here)]);
        if damage == Some(20) {
            assert!(pair.desk.replica.repair(false, &mut Silent).unwrap().left.is_empty());
        } else {
            pair.pass_hours(25);
            pair.desk.sync();
        }
        assert_eq!(pair.store.get(&name, u64::MAX).unwrap(), sound);
        let mut joined = pair.joined(50, "new", b"secret");
        joined.sync();
        assert_eq!(joined.files(), pair.laptop.files());
    }
}

#[test]
fn a_marker_of_a_newer_program_is_not_taken_for_a_damaged_one() {
    let name = ObjectName::new("packetboat").unwrap();
    let mut pair = Pair::new();
    assert!(pair.store.tamper(&name, |bytes| bytes[4] = 2));
    let newer = pair.store.get(&name, u64::MAX).unwrap();
    pair.pass_hours(25);
    pair.desk.sync();
    assert_eq!(pair.store.get(&name, u64::MAX).unwrap(), newer);
}

#[test]
fn a_passphrase_that_was_replaced_opens_nothing_where_the_storage_shows_the_former_marker_again() {
    let name = ObjectName::new("packetboat").unwrap();
    let mut pair = Pair::new();
    let marker = |pair: &Pair| pair.store.get(&name, u64::MAX).unwrap();
    let first = marker(&pair);
    assert_eq!(pair.laptop.replica.change_passphrase(b"another", &mut Silent).unwrap(), None);
    let second = marker(&pair);
    pair.store.put(&name, &first).unwrap();
    pair.pass_hours(25);
    pair.laptop.sync();
    assert!(marker(&pair) == second, "whoever changed it knows which is the former");
    // What others chose later stays.
    assert_eq!(pair.desk.replica.change_passphrase(b"a third", &mut Silent).unwrap(), None);
    let third = marker(&pair);
    for _ in 0..3 {
        pair.pass_hours(25);
        pair.laptop.sync();
        pair.desk.sync();
    }
    assert!(marker(&pair) == third);
    let opened = Replica::read_marker(&pair.store).unwrap().unwrap();
    assert!(opened.unlock_with_passphrase(b"a third").is_ok());
}

#[test]
fn a_passphrase_is_changed_under_the_key_that_holds_though_the_device_had_not_heard_of_it() {
    // The marker was sealed under the key that had been given up, and whoever joined by it was let in by nobody.
    let name = ObjectName::new("packetboat").unwrap();
    let (mut pair, third) = trio();
    revoke(&mut pair.laptop, &third);
    forget_marker(&mut pair);
    assert!(pair.store.tamper(&name, |bytes| bytes.truncate(bytes.len() / 2)));
    pair.desk.replica.change_passphrase(b"another", &mut Silent).unwrap().unwrap();
    let mut joined = pair.joined(50, "new", b"another");
    joined.sync();
    assert_eq!(joined.files(), pair.laptop.files());
}

#[test]
fn a_revocation_that_the_intermediary_cannot_take_is_done_and_shows_its_recovery_key() {
    // It had been called a failure: the device was revoked by the next round, and nobody knew the recovery key.
    let (mut pair, mut third) = trio();
    pair.fuse.store(0, Ordering::SeqCst);
    let revoked = revoke(&mut pair.laptop, &third);
    assert!(revoked.untold.is_some());
    pair.fuse.store(-1, Ordering::SeqCst);
    pair.out.store(false, Ordering::SeqCst);
    pair.settle();
    let marker = Replica::read_marker(&pair.store).unwrap().unwrap();
    let key = packetboat_core::recovery::RecoveryKey::from_text(&revoked.recovery_key).unwrap();
    assert!(marker.unlock_with_recovery(&key).is_ok() && marker.unlock_with_passphrase(b"a new passphrase").is_ok());
    assert!(matches!(third.sync_fails(), SyncError::Revoked { .. }));
}

#[test]
fn a_recovery_key_that_nobody_was_shown_is_put_by_no_round() {
    let name = ObjectName::new("packetboat").unwrap();
    let (mut pair, third) = trio();
    let old = pair.store.get(&name, u64::MAX).unwrap();
    let revoked = revoke(&mut pair.laptop, &third);
    pair.settle();
    pair.store.put(&name, &old).unwrap();
    pair.fuse.store(0, Ordering::SeqCst);
    pair.laptop.replica.change_passphrase(b"another", &mut Silent).unwrap_err();
    pair.fuse.store(-1, Ordering::SeqCst);
    pair.out.store(false, Ordering::SeqCst);
    pair.pass_hours(25);
    pair.laptop.sync();
    let marker = Replica::read_marker(&pair.store).unwrap().unwrap();
    let key = packetboat_core::recovery::RecoveryKey::from_text(&revoked.recovery_key).unwrap();
    assert!(marker.unlock_with_recovery(&key).is_ok() && marker.unlock_with_passphrase(b"a new passphrase").is_ok());
}

#[test]
fn whoever_builds_on_a_copy_of_a_lost_marker_gives_another_recovery_key_and_says_so() {
    // The copy may be older than a change: the key that the desk was shown was void, and nobody was told.
    let name = ObjectName::new("packetboat").unwrap();
    let mut pair = Pair::new();
    pair.desk.replica.new_recovery_key(&mut Silent).unwrap();
    assert!(pair.store.tamper(&name, |bytes| bytes.truncate(bytes.len() / 2)));
    let refused = pair.laptop.replica.new_recovery_key(&mut Silent).unwrap_err();
    assert!(matches!(refused, JoinError::Marker(_)), "its copy may open by a passphrase that was replaced: {refused}");
    let recovery = pair.laptop.replica.change_passphrase(b"another", &mut Silent).unwrap().unwrap();
    let marker = Replica::read_marker(&pair.store).unwrap().unwrap();
    let recovery = packetboat_core::recovery::RecoveryKey::from_text(&recovery).unwrap();
    assert!(marker.unlock_with_recovery(&recovery).is_ok() && marker.unlock_with_passphrase(b"another").is_ok());
}

#[test]
fn whoever_was_revoked_and_has_not_heard_of_it_changes_no_passphrase() {
    let name = ObjectName::new("packetboat").unwrap();
    let (mut pair, mut third) = trio();
    revoke(&mut pair.laptop, &third);
    let marker = pair.store.get(&name, u64::MAX).unwrap();
    let refused = third.replica.change_passphrase(b"another", &mut Silent).unwrap_err();
    assert!(matches!(refused, JoinError::Sync(SyncError::Revoked { .. })), "{refused}");
    let refused = third.replica.new_recovery_key(&mut Silent).unwrap_err();
    assert!(matches!(refused, JoinError::Sync(SyncError::Revoked { .. })), "{refused}");
    assert_eq!(pair.store.get(&name, u64::MAX).unwrap(), marker);
}

#[test]
fn a_damaged_marker_of_which_no_member_has_a_copy_is_made_anew_for_a_new_passphrase() {
    let name = ObjectName::new("packetboat").unwrap();
    let (mut pair, third) = trio();
    for (seed, is_of_a_later_epoch) in [(50, false), (51, true)] {
        if is_of_a_later_epoch {
            revoke(&mut pair.laptop, &third);
            pair.desk.sync();
        }
        forget_marker(&mut pair);
        assert!(!pair.desk.replica.holds_marker().unwrap());
        assert!(pair.store.tamper(&name, |bytes| bytes.truncate(bytes.len() / 2)));
        let recovery = pair.desk.replica.change_passphrase(b"another", &mut Silent).unwrap().unwrap();
        let marker = Replica::read_marker(&pair.store).unwrap().unwrap();
        let recovery = packetboat_core::recovery::RecoveryKey::from_text(&recovery).unwrap();
        assert!(marker.unlock_with_recovery(&recovery).is_ok());
        let mut joined = pair.joined(seed, "new", b"another");
        joined.sync();
        assert_eq!(joined.files(), pair.laptop.files());
        pair.settle();
    }
}

#[test]
fn a_restored_backup_from_before_a_revocation_takes_up_the_key_again() {
    let directory = tempfile::tempdir().unwrap();
    let (now, old) = (directory.path().join("now.db"), directory.path().join("old.db"));
    let (mut pair, third) = trio();
    let (fs, mut parts) = pair.parts(60);
    parts.index = packetboat_replica::index::Index::open(&now).unwrap();
    let ring = Replica::read_marker(&pair.store).unwrap().unwrap().unlock_with_passphrase(b"secret").unwrap();
    let mut tower = Device { replica: Replica::join(parts, ring, "tower").unwrap(), fs: fs.clone() };
    tower.sync();
    pair.settle();
    drop(tower.replica.into_parts());
    std::fs::copy(&now, &old).unwrap();
    let open = |path: &std::path::Path, seed: u64| {
        let (_, mut parts) = pair.parts(seed);
        parts.fs = std::sync::Arc::new(fs.clone());
        parts.index = packetboat_replica::index::Index::open(path).unwrap();
        Device { replica: Replica::open(parts).unwrap(), fs: fs.clone() }
    };
    let mut tower = open(&now, 61);
    revoke(&mut tower, &third);
    tower.fs.write("since", b"under the new key").unwrap();
    tower.sync();
    drop(tower.replica.into_parts());
    fs.remove("since").unwrap();
    let mut restored = open(&old, 62);
    let report = restored.sync();
    assert_eq!(report.sent.deleted, 0);
    restored.sync();
    pair.settle();
    pair.assert_files(&[("kept", "by the laptop"), ("since", "under the new key")]);
    assert_eq!(restored.files(), pair.laptop.files());
}
