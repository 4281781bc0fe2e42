//! What a round costs at the intermediary, counted in requests.

use packetboat_testkit::faulty_store::Requests;
use packetboat_testkit::sim_fs::SimFs;
use packetboat_testkit::world::{World, WorldOptions};

fn in_step(devices: usize) -> World {
    let mut world = World::new(1, WorldOptions { devices, ..WorldOptions::default() });
    world.fs(0).write("docs/f.txt", b"text").unwrap();
    world.rest();
    world
}

/// The requests of one round.
fn cost(world: &mut World, at: usize) -> Requests {
    let before = world.store(at).requests();
    world.sync_well(at);
    let after = world.store(at).requests();
    Requests {
        puts: after.puts - before.puts,
        gets: after.gets - before.gets,
        lists: after.lists - before.lists,
        deletes: after.deletes - before.deletes,
    }
}

const ONE_LISTING: Requests = Requests { puts: 0, gets: 0, lists: 1, deletes: 0 };

#[test]
fn an_idle_poll_is_one_listing_and_nothing_else() {
    let mut world = in_step(10);
    for at in 0..10 {
        assert_eq!(cost(&mut world, at), ONE_LISTING, "device {at}");
    }
}

#[test]
fn a_touch_costs_no_request_more_than_an_idle_poll() {
    let mut world = in_step(2);
    world.fs(0).touch("docs/f.txt", 1_000_000_000).unwrap();
    assert_eq!(cost(&mut world, 0), ONE_LISTING);
    assert_eq!(cost(&mut world, 1), ONE_LISTING);
}

#[test]
fn a_small_edit_is_two_writes_for_its_author_and_one_read_for_each_reader() {
    let mut world = in_step(10);
    for edit in 0..5 {
        world.fs(3).write("docs/f.txt", format!("edit {edit}").as_bytes()).unwrap();
        let author = cost(&mut world, 3);
        assert_eq!(author, Requests { puts: 2, ..ONE_LISTING });
        for at in (0..10).filter(|at| *at != 3) {
            let reader = cost(&mut world, at);
            assert_eq!(reader, Requests { gets: 1, ..ONE_LISTING }, "device {at}");
        }
        for at in 0..10 {
            assert_eq!(cost(&mut world, at), ONE_LISTING, "device {at} afterwards");
        }
    }
}

#[test]
fn several_edits_while_a_reader_was_away_are_one_read() {
    let mut world = in_step(2);
    for edit in 0..5 {
        world.fs(0).write("docs/f.txt", format!("edit {edit}").as_bytes()).unwrap();
        world.sync_well(0);
    }
    assert_eq!(cost(&mut world, 1), Requests { gets: 1, ..ONE_LISTING });
}

#[test]
fn a_first_upload_of_three_thousand_small_files_is_fewer_than_thirty_objects() {
    let mut world = in_step(2);
    let before = world.shelf().objects().len();
    for number in 0..3_000u32 {
        let text = format!("{number} ").repeat(1 + number as usize % 300);
        world.fs(0).write(format!("many/{}/{number}.txt", number % 17), text.as_bytes()).unwrap();
    }
    let author = cost(&mut world, 0);
    let objects = world.shelf().objects().len() - before;
    assert!(objects < 30, "{objects}");
    assert!(author.puts < 40, "{author:?}");
    let reader = cost(&mut world, 1);
    assert_eq!(reader.puts, 0);
    assert!(reader.gets < 60, "{reader:?}");
    world.assert_same();
    let newcomer = world.join(SimFs::default());
    let joining = cost(&mut world, newcomer);
    assert!(joining.total() < 80, "{joining:?}");
    world.rest();
    world.assert_same();
}

#[test]
fn a_renamed_directory_of_five_hundred_files_is_one_small_packet_and_one_rename() {
    let mut world = in_step(2);
    for number in 0..500 {
        let text = format!("file {number}").repeat(50);
        world.fs(0).write(format!("big/{}/{number}.txt", number % 7), text.as_bytes()).unwrap();
    }
    world.rest();
    let packets = |world: &World| -> std::collections::BTreeMap<String, usize> {
        let objects = world.shelf().objects();
        objects.into_iter().map(|(name, bytes)| (name.as_str().to_owned(), bytes.len())).collect()
    };
    let before = packets(&world);
    let old = world.fs(1).stat("big/3/3.txt").unwrap();
    world.fs(0).rename("big", "huge").unwrap();
    let sent = world.sync_well(0);
    assert_eq!((sent.sent.moved, sent.sent.created, sent.sent.deleted, sent.sent.edited), (1, 0, 0, 0));
    let new: Vec<(String, usize)> =
        packets(&world).into_iter().filter(|(name, _)| !before.contains_key(name)).collect();
    let [(name, size)] = &new[..] else { panic!("{new:?}") };
    assert!(name.starts_with("lanes/") && *size < 4_096, "{new:?}");
    let ops = world.fs(1).ops();
    let received = world.sync_well(1).received;
    assert_eq!((received.moved, received.created, received.deleted, received.edited), (1, 0, 0, 0));
    assert_eq!(received.bytes_written, 0);
    // Clock probe, the rename, and making it durable.
    let ops = world.fs(1).ops() - ops;
    assert!(ops <= 12, "{ops}");
    assert_eq!(world.fs(1).stat("huge/3/3.txt").unwrap(), old);
    world.assert_same();
}
