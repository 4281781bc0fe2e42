//! Status says what a next round would do, and why.

mod support;

use packetboat_core::store::Store;
use packetboat_core::tip::Tip;
use packetboat_engine::ports::Silent;
use packetboat_engine::replica::{Keep, Status, SyncOptions};
use support::{Device, Pair, Watcher, path};

fn status(device: &mut Device) -> Status {
    device.replica.status().unwrap()
}

fn noise(seed: u32) -> Vec<u8> {
    let word = |n: u32| (n ^ seed).wrapping_mul(2_654_435_761).rotate_left(n % 31).to_le_bytes();
    (0..100_000).flat_map(word).collect()
}

/// Story: after a round that took in a file of 300 MB, `status` said "to send 6": what had been written just before the
/// round was counted as changed, since in the moment in which it was recorded another write could have gone unseen.
#[test]
fn what_was_written_just_before_a_round_is_not_said_to_wait_after_it() {
    let mut pair = Pair::new();
    pair.laptop.fs.write("small", b"small").unwrap();
    pair.laptop.fs.write("dir/large", &vec![0; 40 << 20]).unwrap();
    pair.laptop.sync();
    let quiet = status(&mut pair.laptop);
    assert_eq!((quiet.to_send, quiet.in_step), (0, true));
    // A small file is looked into all the same: it may have been written again within the same tick of the clock.
    pair.laptop.fs.write("small", b"other").unwrap();
    assert_eq!(status(&mut pair.laptop).to_send, 1);
    pair.laptop.sync();
    // And of a large one it is seen by its time that it was changed.
    pair.pass();
    pair.laptop.fs.write("dir/large", &vec![1; 40 << 20]).unwrap();
    assert_eq!(status(&mut pair.laptop).to_send, 1);
    pair.laptop.sync();
    assert!(status(&mut pair.laptop).in_step);
}

/// How a conflict is settled of which one side cannot be had here.
#[derive(Clone, Copy, Debug)]
enum Settlement {
    RemovedByItsAuthor,
    KeptTheOther,
    RemovedWithTheOther,
}

/// Story: the pack of one side of a conflict was lost. The conflict was settled for the other side, and whoever had missed
/// the content was told of it for ever: nothing was to be brought to that path any more, which alone ended the problem.
#[test]
fn a_problem_ends_when_the_side_of_a_conflict_that_it_is_about_is_settled_and_gone() {
    for settlement in [Settlement::RemovedByItsAuthor, Settlement::KeptTheOther, Settlement::RemovedWithTheOther] {
        let mut pair = Pair::new();
        pair.laptop.fs.write("file", b"base").unwrap();
        pair.settle();
        pair.pass();
        pair.laptop.fs.write("file", &noise(1)).unwrap();
        pair.laptop.sync();
        for pack in pair.store.names().into_iter().filter(|name| name.as_str().starts_with("packs/")) {
            pair.store.delete(&pack).unwrap();
        }
        pair.desk.fs.write("file", b"of the desk").unwrap();
        assert!(pair.desk.sync().problems > 0, "{settlement:?}");
        assert!(!status(&mut pair.desk).problems.is_empty(), "{settlement:?}");
        match settlement {
            Settlement::RemovedByItsAuthor => {
                pair.laptop.fs.remove("file").unwrap();
                pair.pass();
                pair.laptop.sync();
            }
            Settlement::KeptTheOther => {
                pair.desk.replica.resolve(&path("file"), Keep::Mine, &mut Silent).unwrap();
            }
            Settlement::RemovedWithTheOther => {
                // Whoever removes all that it sees of a file removes it, and of the lost side it sees nothing.
                pair.laptop.sync();
                for (file, _) in pair.laptop.files() {
                    pair.laptop.fs.remove(&file).unwrap();
                }
                pair.pass();
                pair.laptop.sync();
            }
        }
        let report = pair.desk.sync();
        assert_eq!(report.problems, 0, "{settlement:?}");
        assert_eq!(status(&mut pair.desk).problems, [], "{settlement:?}");
    }
}

/// Story: of a device that was gone for good the tip was damaged, and all others were warned of it in each round by the 64
/// digits of its id. Nothing said whose it was, nor that retiring that device ends it.
#[test]
fn a_damaged_tip_is_told_with_the_name_of_its_device_and_what_ends_it() {
    for is_retired in [true, false] {
        let mut pair = Pair::new();
        let mut third = pair.joined(3, "old phone", b"secret");
        third.sync();
        pair.settle();
        let (third, name) = (third.id(), Tip::name(&third.id()));
        let tip = pair.store.get(&name, u64::MAX).unwrap();
        pair.store.put(&name, &tip[..50]).unwrap();
        for _ in 0..2 {
            let (_, warnings) = sync_told(&mut pair.laptop);
            let [warning] = &warnings[..] else { panic!("{warnings:?}") };
            assert!(warning.starts_with("tips/"), "{warning}");
            assert!(warning.contains("\"old phone\""), "{warning}");
            assert!(warning.contains("`packetboat devices retire 'old phone'`"), "{warning}");
        }
        let shown = status(&mut pair.laptop).problems;
        assert!(shown[0].2.contains("`packetboat devices retire 'old phone'`"), "{shown:?}");
        if is_retired {
            pair.laptop.replica.retire(&third, &mut Silent).unwrap();
        } else {
            pair.store.delete(&name).unwrap();
        }
        assert_eq!(sync_told(&mut pair.laptop), (0, vec![]), "retired: {is_retired}");
        assert_eq!(status(&mut pair.laptop).problems, [], "retired: {is_retired}");
    }
}

/// How many problems a round tells of, and what it warns of.
fn sync_told(device: &mut Device) -> (u64, Vec<String>) {
    let mut told = Watcher::default();
    let report = device.replica.sync(SyncOptions::default(), &mut told).unwrap();
    (report.problems, told.warnings)
}
