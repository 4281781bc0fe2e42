//! Crashes, errors and other writers at every operation, over plans that touch much.

use super::*;

#[test]
fn a_write_that_slips_in_at_any_call_survives() {
    for call in 1..200 {
        let mut world = World::new(SimOptions::default());
        let changes = vec![world.file(1, ROOT, "f", b"base"), world.file(2, ROOT, "g", b"goes")];
        let first = world.publish(changes);
        world.settle();
        let changed = world.content(b"theirs");
        world.publish(vec![edit(1, changed, first), delete(&[(2, first)])]);
        let before = world.fs.calls();
        world.fs.on_call(call, |fs| {
            fs.set_now(THEN + 1_000_000_000);
            fs.write("f", b"mine").unwrap();
            fs.write("g", b"also mine").unwrap();
        });
        world.apply().unwrap();
        world.check_heeded(&[item(1), item(2)]);
        let done = world.fs.calls() < before + call;
        for _ in 0..3 {
            world.round().unwrap();
        }
        if done {
            return;
        }
        let seen = world.seen();
        for text in ["mine", "also mine"] {
            assert!(seen.values().any(|found| found == text), "call {call}: {seen:?}");
        }
    }
    panic!("it never ended");
}

/// A tree that is edited, moved, swapped, deleted from and added to at once.
fn busy(world: &mut World) {
    let changes = vec![
        create(1, ROOT, "d", Content::Directory),
        world.file(2, item(1), "a", b"one"),
        world.file(3, item(1), "b", b"two"),
        create(4, ROOT, "e", Content::Directory),
        world.file(5, item(4), "gone", b"three"),
        world.file(6, ROOT, "s", b"S"),
        world.file(7, ROOT, "t", b"T"),
        world.file(8, ROOT, "kind", b"a file"),
    ];
    let first = world.publish(changes);
    world.settle();
    let edited = world.content(b"one, edited");
    let changes = vec![
        edit(2, edited, first),
        place(1, ROOT, "d2", first),
        place(6, ROOT, "t", first),
        place(7, ROOT, "s", first),
        delete(&[(4, first), (5, first), (8, first)]),
        create(9, ROOT, "kind", Content::Directory),
        world.file(10, item(9), "new", b"four"),
        place(3, item(9), "moved", first),
    ];
    world.publish(changes);
    world.fs.settle();
}

const BUSY: [(&str, &str); 7] = [
    ("d2", "/"),
    ("d2/a", "one, edited"),
    ("kind", "/"),
    ("kind/moved", "two"),
    ("kind/new", "four"),
    ("s", "T"),
    ("t", "S"),
];

#[test]
fn many_changes_at_once_end_in_the_right_tree() {
    let mut world = World::new(SimOptions::default());
    busy(&mut world);
    world.settle();
    world.shows(&BUSY);
}

#[test]
fn a_file_system_that_can_little_ends_in_the_right_tree() {
    let options = SimOptions {
        no_exchange: true,
        no_btime: true,
        no_xattrs: true,
        no_sync_all: true,
        time_granularity: 2_000_000_000,
        ..SimOptions::default()
    };
    let mut world = World::new(options);
    busy(&mut world);
    world.settle();
    world.shows(&BUSY);
}

#[test]
fn small_batches_end_in_the_right_tree() {
    let mut world = World::new(SimOptions::default());
    world.limits = Limits { items: 1, bytes: 1, ..Limits::default() };
    busy(&mut world);
    world.settle();
    world.shows(&BUSY);
}

/// Directories that change places, come to one name, and are replaced by others.
fn tangled(world: &mut World) {
    let changes = vec![
        create(1, ROOT, "a", Content::Directory),
        create(2, item(1), "b", Content::Directory),
        world.file(3, item(1), "in-a", b"1"),
        world.file(4, item(2), "in-b", b"2"),
        create(5, ROOT, "x", Content::Directory),
        world.file(6, item(5), "one", b"3"),
        create(7, ROOT, "y", Content::Directory),
        world.file(8, item(7), "two", b"4"),
        create(9, ROOT, "p", Content::Directory),
        world.file(10, item(9), "in-p", b"5"),
        create(11, ROOT, "q", Content::Directory),
        world.file(12, item(11), "in-q", b"6"),
    ];
    let first = world.publish(changes);
    world.settle();
    world.publish(vec![
        place(2, ROOT, "a", first),
        place(1, item(2), "b", first),
        place(7, ROOT, "x", first),
        place(9, ROOT, "q", first),
        place(11, ROOT, "p", first),
    ]);
    world.fs.settle();
}

const TANGLED: [(&str, &str); 11] = [
    ("a", "/"),
    ("a/b", "/"),
    ("a/b/in-a", "1"),
    ("a/in-b", "2"),
    ("p", "/"),
    ("p/in-q", "6"),
    ("q", "/"),
    ("q/in-p", "5"),
    ("x", "/"),
    ("x/one", "3"),
    ("x/two", "4"),
];

/// Crashes at every operation of applying, in every way, and looks that the next rounds end in the right tree.
fn crash_everywhere(prepare: fn(&mut World), wanted: &[(&str, &str)]) {
    let wanted: BTreeMap<String, String> =
        wanted.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
    for model in [CrashModel::OrderedMetadata, CrashModel::Anything] {
        for at in 1.. {
            let mut ended = false;
            for seed in 0..4u64 {
                let mut world = World::new(SimOptions { crash_model: model, ..SimOptions::default() });
                prepare(&mut world);
                world.fs.crash_at(at);
                match world.apply() {
                    Ok(_) => ended = true,
                    Err(error) => assert!(was_crash(&error), "{error:?}"),
                }
                world.fs = match seed {
                    0 => world.fs.kill(),
                    _ => world.fs.crash(&mut Rng::new(seed * 1000 + at)),
                };
                if seed >= 2 {
                    // It crashes once more while it recovers.
                    world.fs.crash_at(1 + (at * seed) % 23);
                    if let Err(error) = world.round() {
                        assert!(was_crash(&error), "{error:?}");
                    }
                    world.fs = world.fs.crash(&mut Rng::new(seed * 2000 + at));
                }
                for _ in 0..3 {
                    let received = world.round().unwrap_or_else(|error| panic!("{model:?} {at} {seed}: {error:?}"));
                    if received.waiting == 0 {
                        break;
                    }
                }
                assert_eq!(world.seen(), wanted, "{model:?} {at} {seed}");
                if let Some(Node::Directory { mode, .. }) = world.fs.tree().get(&b"closed"[..]) {
                    assert_eq!(*mode, 0o500, "{model:?} {at} {seed}");
                }
                world.check_at_rest();
            }
            if ended {
                break;
            }
        }
    }
}

#[test]
fn a_crash_at_any_operation_costs_nothing() {
    crash_everywhere(busy, &BUSY);
}

#[test]
fn a_crash_while_directories_change_places_costs_nothing() {
    crash_everywhere(tangled, &TANGLED);
}

/// Story: a version took the place of one that went aside as its conflict copy, and the power loss took the record of it.
/// What stood in the place was taken for a new file, and stayed beside the version that it was.
#[test]
fn a_crash_while_a_version_takes_the_place_of_another_leaves_no_third() {
    fn conflict(world: &mut World) {
        let changes = vec![world.file(1, ROOT, "f.txt", b"base")];
        let first = world.publish(changes);
        let left = world.content(b"left");
        world.publish(vec![edit(1, left, first)]);
        world.settle();
        let right = world.content(b"right");
        world.publish(vec![edit(1, right, first)]);
        world.fs.settle();
    }
    let mut undisturbed = World::new(SimOptions::default());
    conflict(&mut undisturbed);
    undisturbed.settle();
    let wanted = undisturbed.seen();
    assert_eq!((wanted.len(), &*wanted["f.txt"]), (2, "right"));
    crash_everywhere(conflict, &wanted.iter().map(|(path, text)| (&**path, &**text)).collect::<Vec<_>>());
}

/// Story: a file had come to its place, and the crash took the record of it. Before the next round its author wrote a later
/// version, and the earlier one was set against it as if somebody had written it here.
#[test]
fn a_file_whose_record_a_crash_took_follows_what_its_author_wrote_since() {
    for at in 1.. {
        let mut world = World::new(SimOptions::default());
        let changes = vec![world.file(1, ROOT, "f", b"first"), world.file(2, ROOT, "g", b"other")];
        let first = world.publish(changes);
        world.fs.settle();
        world.fs.crash_at(at);
        let ended = world.apply().is_ok();
        world.fs = world.fs.kill();
        world.index.rollback().unwrap();
        let later = world.content(b"later");
        let trail = vec![Mark { dot: first, lamport: 1, time: NOW / 1_000_000_000 }];
        world.publish(vec![Change::Content { item: item(1), content: later, replaces: vec![first], trail }]);
        for _ in 0..2 {
            world.round().unwrap();
        }
        world.shows(&[("f", "later"), ("g", "other")]);
        world.check_at_rest();
        if ended {
            break;
        }
    }
}

/// Story: a directory that may not be written was recorded with its permissions before it had them; a power loss in
/// between left it open for ever.
#[test]
fn a_crash_before_a_directory_is_closed_leaves_it_to_be_closed() {
    fn closed(world: &mut World) {
        tangled(world);
        let mut closed = create(13, ROOT, "closed", Content::Directory);
        if let Change::Create { mode, .. } = &mut closed {
            *mode = Some(0o500);
        }
        let changes = vec![closed, world.file(14, item(13), "in", b"7")];
        world.publish(changes);
        world.fs.settle();
    }
    let wanted: Vec<(&str, &str)> = TANGLED.into_iter().chain([("closed", "/"), ("closed/in", "7")]).collect();
    crash_everywhere(closed, &wanted);
}

/// Lets every call of applying fail once with this error, and looks that the next rounds end in the right tree.
fn fail_everywhere(errno: i32, expected: fn(&SyncError) -> bool) {
    for (prepare, wanted) in [(busy as fn(&mut World), &BUSY[..]), (tangled, &TANGLED)] {
        for call in 1.. {
            let mut world = World::new(SimOptions::default());
            prepare(&mut world);
            let before = world.fs.calls();
            world.fs.fail_at(call, errno);
            let result = world.apply();
            assert!(result.as_ref().err().is_none_or(expected), "{call}: {result:?}");
            if world.fs.calls() < before + call {
                world.shows(wanted);
                break;
            }
            for _ in 0..3 {
                world.round().unwrap();
            }
            world.shows(wanted);
            world.check_at_rest();
        }
    }
}

#[test]
fn a_disk_that_runs_full_at_any_operation_is_told_and_loses_nothing() {
    fail_everywhere(28, |error| matches!(error, SyncError::DiskFull));
}

#[test]
fn what_the_system_refuses_waits_and_stops_nothing_else() {
    fail_everywhere(13, |error| matches!(error, SyncError::Disk { .. }));
}

#[test]
fn a_disk_that_fails_ends_the_round_and_the_next_goes_on() {
    fail_everywhere(5, |error| matches!(error, SyncError::Disk { .. }));
}

#[test]
fn a_preview_lists_what_would_be_done_and_does_nothing() {
    let mut world = World::new(SimOptions::default());
    busy(&mut world);
    let before = world.fs.calls();
    let steps = planned_steps(&world.index, 100).unwrap();
    assert_eq!(world.fs.calls(), before);
    let path = |text: &str| RelPath::new(text.as_bytes()).unwrap();
    assert!(steps.iter().any(|step| step.action == Action::Remove && step.path == path("e/gone")));
    assert!(steps.iter().any(|step| step.action == Action::Move && step.to == Some(path("d2"))));
    assert!(steps.iter().any(|step| step.action == Action::Make && step.path == path("kind/new")));
    assert!(steps.iter().any(|step| step.action == Action::Edit && step.path == path("d/a")));
}
