//! The check after a round stops where vault, record and disk contradict each other.

mod support;

use packetboat_core::content::Content;
use packetboat_core::item::Item;
use packetboat_core::local::{DirId, EntryState, LocalEntry, LocalRead};
use packetboat_core::name::Name;
use packetboat_core::plan::HistoryRead;
use packetboat_core::tree::{TreeRead, TreeWrite};
use packetboat_engine::consistency::Check;
use packetboat_engine::error::SyncError;
use packetboat_engine::ports::{Note, Observer, Phase, Silent};
use packetboat_engine::replica::{Replica, SyncOptions};
use packetboat_engine::scan::fingerprint;
use packetboat_replica::index::Index;
use packetboat_testkit::sim_fs::SimFs;
use support::{Device, Pair};

/// Makes the record say that a file is as it was when it is not, as a disk that lies would.
fn belie(device: Device, name: &str, check: Check) -> Device {
    belie_as(device, name, check, EntryState::Settled)
}

fn belie_as(device: Device, name: &str, check: Check, state: EntryState) -> Device {
    let Device { fs, replica } = device;
    let mut parts = replica.into_parts();
    let mut entry = parts.index.entry_at(DirId::ROOT, &Name::new(name.as_bytes()).unwrap()).unwrap().unwrap();
    entry.stat = fingerprint(&fs.stat(name).unwrap());
    entry.state = state;
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
fn a_large_file_is_read_only_where_everything_is_checked() {
    for (size, check, is_found) in [
        (64 * 1024, Check::Sample(48), true),
        (64 * 1024 + 1, Check::Sample(48), false),
        (64 * 1024 + 1, Check::Everything, true),
    ] {
        let mut pair = Pair::new();
        pair.laptop.fs.write("file", &vec![1; size]).unwrap();
        pair.settle();
        pair.laptop.fs.write("file", &vec![2; size]).unwrap();
        pair.pass();
        let mut laptop = belie(pair.laptop, "file", check);
        let outcome = laptop.replica.sync(SyncOptions::default(), &mut Silent);
        assert_eq!(matches!(outcome, Err(SyncError::Inconsistent { .. })), is_found, "{size}, {check:?}: {outcome:?}");
    }
}

#[test]
fn a_symlink_that_leads_elsewhere_than_the_record_says_is_found() {
    let mut pair = Pair::new();
    pair.laptop.fs.make_symlink(b"here", "link").unwrap();
    pair.settle();
    pair.laptop.fs.remove("link").unwrap();
    pair.laptop.fs.make_symlink(b"away", "link").unwrap();
    pair.pass();
    let mut laptop = belie(pair.laptop, "link", Check::Everything);
    let outcome = laptop.replica.sync(SyncOptions::default(), &mut Silent);
    let Err(SyncError::Inconsistent { what, .. }) = outcome else { panic!("{outcome:?}") };
    assert_eq!(what, "link does not hold what the record says");
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

/// What is found after a round of a device of whose index something is amiss.
fn found_where(spoil: impl Fn(&mut Index)) -> String {
    let mut pair = Pair::new();
    pair.laptop.fs.write("dir/file", b"text").unwrap();
    pair.laptop.fs.write("other", b"another").unwrap();
    pair.settle();
    let Device { fs: _, replica } = pair.laptop;
    let mut parts = replica.into_parts();
    spoil(&mut parts.index);
    parts.settings.check = Check::Everything;
    let names = pair.store.names();
    let outcome = Replica::open(parts).unwrap().sync(SyncOptions::default(), &mut Silent);
    assert_eq!(pair.store.names(), names);
    match outcome {
        Err(SyncError::Inconsistent { what, .. }) => what,
        outcome => panic!("{outcome:?}"),
    }
}

/// The item that stands at a name in the root.
fn item_at(index: &Index, name: &str) -> Item {
    let entry = index.entry_at(DirId::ROOT, &Name::new(name.as_bytes()).unwrap()).unwrap().unwrap();
    index.item(entry.seen.item).unwrap().unwrap()
}

/// Story: of an item within itself the check asked what is planned for it, which has no end, before it told of it.
#[test]
fn an_item_that_lies_in_what_is_no_directory_or_within_itself_is_found() {
    let what = found_where(|index| {
        let parent = item_at(index, "other").id;
        let mut item = item_at(index, "dir");
        item.at.parent = parent;
        index.put_item(&item).unwrap();
    });
    assert_eq!(what, "an item lies in what is no directory");
    let what = found_where(|index| {
        let mut item = item_at(index, "dir");
        item.at.parent = item.id;
        index.put_item(&item).unwrap();
    });
    assert_eq!(what, "an item lies within itself");
}

#[test]
fn an_entry_that_stands_for_nothing_known_is_found() {
    let spoil = |spoil: fn(&mut LocalEntry)| {
        move |index: &mut Index| {
            let name = Name::new(*b"other").unwrap();
            let mut entry = index.entry_at(DirId::ROOT, &name).unwrap().unwrap();
            spoil(&mut entry);
            index.put_entry(&entry).unwrap();
        }
    };
    let unknown = spoil(|entry| entry.seen.heads[0].counter += 1000);
    assert_eq!(found_where(unknown), "an entry stands for a version that is not known");
    let nowhere = spoil(|entry| entry.dir = DirId(1000));
    assert_eq!(found_where(nowhere), "an entry lies in a directory that is not recorded");
    let of_another_kind = |index: &mut Index| {
        let mut item = item_at(index, "other");
        item.heads[0].content = Content::Directory;
        index.put_item(&item).unwrap();
    };
    assert_eq!(found_where(of_another_kind), "an entry is of another kind than its item");
}

#[test]
fn what_is_not_as_the_vault_shows_it_though_nothing_waits_is_found() {
    let what = found_where(|index| {
        let mut item = item_at(index, "other");
        item.mode.as_mut().unwrap().value ^= 0o111;
        index.put_item(&item).unwrap();
    });
    assert_eq!(what, "other is not as the vault shows it, and nothing waits (alive: true)");
}

#[test]
fn what_is_ignored_here_and_changed_elsewhere_is_no_finding() {
    let mut pair = Pair::new();
    pair.laptop.fs.write("file", b"text").unwrap();
    pair.settle();
    pair.desk.fs.write("file", b"changed elsewhere").unwrap();
    pair.pass();
    pair.desk.sync();
    // The rule comes with the round that learns of it: before that the desk would follow it too.
    pair.laptop.fs.write(".packetboatignore", b"file\n").unwrap();
    pair.laptop.replica.settings_mut().check = Check::Everything;
    for _ in 0..2 {
        pair.laptop.sync();
    }
    assert_eq!(pair.laptop.fs.read("file").unwrap(), b"text");
}

#[test]
fn what_is_ignored_here_may_hold_anything() {
    let mut pair = Pair::new();
    pair.laptop.fs.write("file", b"text").unwrap();
    pair.settle();
    pair.laptop.fs.write(".packetboatignore", b"file\n").unwrap();
    pair.laptop.sync();
    pair.laptop.fs.write("file", b"what nobody is to know").unwrap();
    let mut laptop = belie_as(pair.laptop, "file", Check::Everything, EntryState::Frozen);
    laptop.sync();
    assert_eq!(laptop.fs.read("file").unwrap(), b"what nobody is to know");
}

/// Writes to a file when a round has looked at the folder.
struct Busy(SimFs, u32);

impl Observer for Busy {
    fn phase(&mut self, phase: Phase, _: Option<u64>, _: Option<u64>) {
        if matches!(phase, Phase::Store | Phase::Apply) {
            self.1 += 1;
            self.0.write("file", "more and ".repeat(self.1 as usize).as_bytes()).unwrap();
        }
    }
    fn advance(&mut self, _: u64, _: u64) {}
    fn note(&mut self, _: Note) {}
}

#[test]
fn a_file_that_a_program_writes_to_during_the_round_is_no_finding() {
    let mut pair = Pair::new();
    pair.laptop.fs.write("file", b"text").unwrap();
    pair.settle();
    pair.pass();
    pair.laptop.replica.settings_mut().check = Check::Everything;
    let mut busy = Busy(pair.laptop.fs.clone(), 0);
    pair.laptop.fs.write("other", b"something to store").unwrap();
    pair.laptop.replica.sync(SyncOptions::default(), &mut busy).unwrap();
    assert!(busy.1 > 0);
    pair.settle();
    assert_eq!(pair.laptop.files(), pair.desk.files());
}

/// A device that shows of an ignored file what was replaced elsewhere, and in whose index something is changed.
fn behind_by_a_rule(change: impl FnOnce(&mut Index, Item)) -> Result<(), SyncError> {
    let mut pair = Pair::new();
    pair.laptop.fs.write("file", b"text").unwrap();
    pair.settle();
    for text in ["once", "twice"] {
        pair.desk.fs.write("file", text.as_bytes()).unwrap();
        pair.pass();
        pair.desk.sync();
    }
    // The rule comes with the round that learns of it.
    pair.laptop.fs.write(".packetboatignore", b"file*\n").unwrap();
    pair.laptop.replica.settings_mut().check = Check::Everything;
    pair.laptop.sync();
    assert_eq!(pair.laptop.fs.read("file").unwrap(), b"text");
    let mut laptop = pair.laptop.with_index(|index| {
        let item = item_at(index, "file");
        change(index, item);
    });
    laptop.replica.settings_mut().check = Check::Everything;
    laptop.replica.sync(SyncOptions::default(), &mut Silent).map(drop)
}

/// Forgets all replaced contents of an item, as a device that begins from a checkpoint does.
fn forget_replaced(index: &mut Index, item: &Item) {
    for past in index.history_of(item.id).unwrap() {
        index.remove_past(item.id, &past).unwrap();
    }
    let shown = index.entry_at(DirId::ROOT, &Name::new(*b"file").unwrap()).unwrap().unwrap().seen.heads[0];
    assert_eq!(index.version(item.id, &shown).unwrap(), None);
}

#[test]
fn a_version_that_a_standing_one_replaced_may_be_shown_where_nothing_else_is_known_of_it() {
    behind_by_a_rule(|index, item| {
        assert_eq!(item.heads[0].trail.len(), 2, "{item:?}");
        forget_replaced(index, &item);
    })
    .unwrap();
    // Another version beside that one need not have replaced it.
    behind_by_a_rule(|index, mut item| {
        forget_replaced(index, &item);
        let mut other = item.heads[0].clone();
        other.dot.counter += 1000;
        other.trail.clear();
        item.heads.push(other);
        index.put_item(&item).unwrap();
    })
    .unwrap();
}

#[test]
fn a_version_that_no_standing_one_replaced_and_of_which_nothing_is_known_is_found() {
    let outcome = behind_by_a_rule(|index, _| {
        let mut entry = index.entry_at(DirId::ROOT, &Name::new(*b"file").unwrap()).unwrap().unwrap();
        entry.seen.heads[0].counter += 1000;
        index.put_entry(&entry).unwrap();
    });
    let Err(SyncError::Inconsistent { what, .. }) = outcome else { panic!("{outcome:?}") };
    assert_eq!(what, "an entry stands for a version that is not known");
}
