//! What two devices made alike is one thing to people: whoever edits, moves or removes it acts on all that it is.

mod support;

use packetboat_storage::memory::MemoryStore;
use support::Pair;

/// Both devices made the same file and the same directory, and neither knew of the other.
fn twins() -> Pair {
    let mut pair = Pair::new();
    for device in [&pair.laptop, &pair.desk] {
        device.fs.write("same", b"text").unwrap();
    }
    pair.laptop.fs.write("dir/of the laptop", b"one").unwrap();
    pair.desk.fs.write("dir/of the desk", b"two").unwrap();
    // The desk publishes what it made before it hears of the other.
    let desk = pair.take_desk();
    let mut desk = pair.moved(desk, &MemoryStore::new(), "nowhere");
    desk.sync();
    pair.laptop.sync();
    pair.desk = pair.moved(desk, &pair.store, "memory");
    pair.settle();
    pair.settle();
    pair.assert_files(&[("dir/of the desk", "two"), ("dir/of the laptop", "one"), ("same", "text")]);
    pair
}

/// That both show this, and have nothing more to say.
#[track_caller]
fn assert_rests_at(pair: &mut Pair, files: &[(&str, &str)]) {
    pair.settle();
    pair.assert_files(files);
    for device in [&mut pair.laptop, &mut pair.desk] {
        assert_eq!(device.sync().published.packets, 0);
        assert_eq!(device.replica.conflicts().unwrap(), []);
    }
}

const DIR: [(&str, &str); 2] = [("dir/of the desk", "two"), ("dir/of the laptop", "one")];

#[test]
fn an_edit_of_what_two_made_alike_leaves_one_file() {
    for by_laptop in [true, false] {
        let mut pair = twins();
        let device = if by_laptop { &mut pair.laptop } else { &mut pair.desk };
        device.fs.write("same", b"edited").unwrap();
        assert_rests_at(&mut pair, &[DIR[0], DIR[1], ("same", "edited")]);
    }
}

#[test]
fn a_move_of_what_two_made_alike_leaves_nothing_behind() {
    for by_laptop in [true, false] {
        let mut pair = twins();
        let device = if by_laptop { &mut pair.laptop } else { &mut pair.desk };
        device.fs.rename("same", "moved").unwrap();
        device.fs.rename("dir", "elsewhere").unwrap();
        let files = [("elsewhere/of the desk", "two"), ("elsewhere/of the laptop", "one"), ("moved", "text")];
        assert_rests_at(&mut pair, &files);
    }
}

#[test]
fn a_removal_of_what_two_made_alike_leaves_nothing_behind() {
    for by_laptop in [true, false] {
        let mut pair = twins();
        let device = if by_laptop { &mut pair.laptop } else { &mut pair.desk };
        device.fs.remove("same").unwrap();
        device.fs.remove("dir").unwrap();
        assert_rests_at(&mut pair, &[]);
    }
}

#[test]
fn what_was_moved_and_edited_at_once_is_seen_whole_and_edited_further_without_a_conflict() {
    let mut pair = Pair::new();
    pair.laptop.fs.write("file", b"text").unwrap();
    pair.settle();
    pair.laptop.fs.rename("file", "moved").unwrap();
    pair.laptop.fs.write("moved", b"edited").unwrap();
    assert_rests_at(&mut pair, &[("moved", "edited")]);
    pair.laptop.fs.write("moved", b"edited again").unwrap();
    assert_rests_at(&mut pair, &[("moved", "edited again")]);
    pair.laptop.fs.rename("moved", "last").unwrap();
    assert_rests_at(&mut pair, &[("last", "edited again")]);
}
