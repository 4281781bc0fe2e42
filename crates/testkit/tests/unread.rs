//! What cannot be read for a while: nothing is deleted elsewhere for it, and nothing ignored is published for it.

use packetboat_core::name::RelPath;
use packetboat_engine::ports::{Note, Observer, Phase};
use packetboat_engine::replica::{Report, SyncOptions};
use packetboat_testkit::world::{World, WorldOptions};

/// Two devices, in step, the first with these files.
fn world(files: &[&str]) -> World {
    let mut world = World::new(1, WorldOptions { devices: 2, ..WorldOptions::default() });
    for path in files {
        world.fs(0).write(path, format!("text of {path}").as_bytes()).unwrap();
    }
    rest(&mut world);
    world.pass(60_000);
    rest(&mut world);
    world
}

fn paths(world: &World, at: usize) -> Vec<String> {
    world.files(at).into_keys().collect()
}

/// What a round said was left alone.
#[derive(Default)]
struct Said {
    skipped: Vec<(String, String)>,
    warnings: Vec<String>,
}

impl Observer for Said {
    fn phase(&mut self, _: Phase, _: Option<u64>, _: Option<u64>) {}
    fn advance(&mut self, _: u64, _: u64) {}
    fn note(&mut self, note: Note) {
        match note {
            Note::Skipped { path, reason } => self.skipped.push((path.to_string(), reason)),
            Note::Warning { text } => self.warnings.push(text),
            Note::Step(_) => {}
        }
    }
}

/// A round as a user runs it: the world's own confirms deletions.
fn sync(world: &mut World, at: usize) -> (Report, Said) {
    world.pass(10_000);
    let mut said = Said::default();
    let report = world.replica(at).sync(SyncOptions::default(), &mut said).unwrap();
    (report, said)
}

/// Synchronises both until both have everything, without confirming deletions.
fn rest(world: &mut World) {
    for at in [0, 1, 0, 1, 0, 1] {
        sync(world, at);
    }
}

#[test]
fn what_was_moved_into_a_directory_that_cannot_be_read_is_not_deleted_elsewhere() {
    let mut world = world(&["letters/a", "letters/b", "closed/old", "plain"]);
    world.fs(0).rename("plain", "closed/plain").unwrap();
    world.fs(0).rename("letters", "closed/letters").unwrap();
    world.fs(0).set_readable("closed", false).unwrap();
    for _ in 0..3 {
        let (report, said) = sync(&mut world, 0);
        assert_eq!((report.sent.deleted, report.sent.postponed), (0, 2), "{:?}", said.skipped);
        let told = said.skipped.iter().filter(|(_, reason)| reason.contains("may be in closed"));
        assert_eq!(told.map(|(path, _)| path.as_str()).collect::<Vec<_>>(), ["letters", "plain"]);
        sync(&mut world, 1);
        assert_eq!(paths(&world, 1), ["closed/old", "letters/a", "letters/b", "plain"]);
        world.pass(60_000);
    }
    let status = world.replica(0).status().unwrap();
    assert!(!status.in_step && status.problems.iter().any(|(_, subject, _)| subject == "letters"), "{status:?}");
    world.fs(0).set_readable("closed", true).unwrap();
    rest(&mut world);
    assert_eq!(paths(&world, 1), ["closed/letters/a", "closed/letters/b", "closed/old", "closed/plain"]);
    world.assert_same();
}

#[test]
fn a_directory_that_could_never_be_read_does_not_keep_deletions_back() {
    let mut world = world(&["a", "b", "c"]);
    world.fs(0).make_dir("lost+found").unwrap();
    world.fs(0).set_readable("lost+found", false).unwrap();
    world.pass(60_000);
    rest(&mut world);
    world.fs(0).remove("a").unwrap();
    rest(&mut world);
    assert_eq!(paths(&world, 1), ["b", "c"]);
    // It is changed: something may have been moved into it.
    world.pass(60_000);
    world.fs(0).rename("b", "lost+found/b").unwrap();
    for _ in 0..3 {
        world.pass(60_000);
        assert_eq!(sync(&mut world, 0).0.sent.postponed, 1);
    }
    rest(&mut world);
    assert_eq!(paths(&world, 1), ["b", "c"]);
    // What is deleted later waits with it, until somebody says that it is meant.
    world.fs(0).remove("c").unwrap();
    rest(&mut world);
    assert_eq!(paths(&world, 1), ["b", "c"]);
    world.try_sync(0, SyncOptions { confirm_deletes: true }).unwrap();
    rest(&mut world);
    assert_eq!(paths(&world, 1), Vec::<String>::new());
}

#[test]
fn what_moved_during_the_scan_into_a_directory_that_cannot_be_read_is_not_deleted_elsewhere() {
    for call in 1..40 {
        let mut world = world(&["a/file", "z/file"]);
        world.fs(0).make_dir("m").unwrap();
        world.fs(0).set_readable("m", false).unwrap();
        world.pass(60_000);
        rest(&mut world);
        world.fs(0).on_call(call, |fs| fs.rename("a/file", "m/file").unwrap());
        sync(&mut world, 0);
        world.pass(60_000);
        sync(&mut world, 0);
        sync(&mut world, 1);
        assert_eq!(paths(&world, 1), ["a/file", "z/file"], "moved at call {call}");
    }
}

#[test]
fn a_file_that_was_written_anew_and_cannot_be_read_does_not_delete_what_it_may_be() {
    let mut world = world(&["one", "two more"]);
    let bytes = world.fs(0).read("one").unwrap();
    world.fs(0).write("copy", &bytes).unwrap();
    world.fs(0).set_readable("copy", false).unwrap();
    world.fs(0).remove("one").unwrap();
    world.fs(0).remove("two more").unwrap();
    rest(&mut world);
    // It is of another size, so it is not that one.
    assert_eq!(paths(&world, 1), ["one"]);
    world.fs(0).set_readable("copy", true).unwrap();
    rest(&mut world);
    assert_eq!(paths(&world, 1), ["copy"]);
}

/// Two devices that ignore `cache/`, each with something in it.
fn ignoring() -> World {
    let mut world = world(&["kept"]);
    world.fs(0).write(".packetboatignore", b"cache/\n").unwrap();
    rest(&mut world);
    for at in 0..2 {
        world.fs(at).write("cache/secret", b"not to be sent").unwrap();
    }
    world.pass(60_000);
    rest(&mut world);
    world
}

/// Whether a path was ever known to the vault, as this device has learned it.
fn knows(world: &mut World, at: usize, path: &str) -> bool {
    world.replica(at).log(Some(&RelPath::new(path.as_bytes()).unwrap()), 1).is_ok()
}

#[test]
fn a_moment_without_the_ignore_file_publishes_nothing_ignored() {
    for size in [None, Some(0)] {
        let mut world = ignoring();
        match size {
            None => world.fs(0).rename(".packetboatignore", "saving~").unwrap(),
            Some(_) => world.fs(0).write(".packetboatignore", b"").unwrap(),
        }
        let (report, said) = sync(&mut world, 0);
        assert_eq!(report.sent.postponed, 1);
        assert!(said.skipped.iter().any(|(path, _)| path == ".packetboatignore"), "{:?}", said.skipped);
        sync(&mut world, 1);
        assert!(world.fs(1).exists(".packetboatignore"));
        world.fs(0).write(".packetboatignore", b"cache/\n*.tmp\n").unwrap();
        if size.is_none() {
            world.fs(0).remove("saving~").unwrap();
        }
        rest(&mut world);
        assert_eq!(world.fs(1).read(".packetboatignore").unwrap(), b"cache/\n*.tmp\n");
        assert!(!knows(&mut world, 1, "cache/secret"));
    }
}

#[test]
fn an_ignore_file_that_two_rounds_find_gone_or_empty_is_meant_to_be() {
    for empty in [false, true] {
        let mut world = ignoring();
        match empty {
            true => world.fs(0).write(".packetboatignore", b"").unwrap(),
            false => world.fs(0).remove(".packetboatignore").unwrap(),
        }
        assert_eq!(sync(&mut world, 0).0.sent.postponed, 1);
        let (report, _) = sync(&mut world, 0);
        assert_eq!((report.sent.postponed, report.sent.created), (0, 2));
        rest(&mut world);
        assert_eq!(world.fs(1).exists(".packetboatignore"), empty);
        assert!(knows(&mut world, 1, "cache/secret"));
        // And it can come back, and go in two rounds again.
        world.fs(0).write(".packetboatignore", b"*.o\n").unwrap();
        rest(&mut world);
        world.fs(0).remove(".packetboatignore").unwrap();
        assert_eq!(sync(&mut world, 0).0.sent.deleted, 0);
        assert_eq!(sync(&mut world, 0).0.sent.deleted, 1);
    }
}

#[test]
fn bad_lines_of_the_ignore_file_are_told_by_number_and_the_others_hold() {
    let mut world = ignoring();
    world.fs(0).write(".packetboatignore", b"cache/\n\nnotes{a\n*.o\n").unwrap();
    world.fs(0).write("x.o", b"object").unwrap();
    let (_, said) = sync(&mut world, 0);
    assert!(
        said.warnings.iter().any(|text| text.contains("line 3 of .packetboatignore") && text.contains("notes{a")),
        "{:?}",
        said.warnings
    );
    assert!(!knows(&mut world, 0, "x.o") && !knows(&mut world, 0, "cache/secret"));
}

/// Story: a directory was removed with files in it of which one might have been moved to a file that could not be read.
/// The file waited and the directory did not, and with its record went the file's: neither deleted nor shown again.
#[test]
fn a_directory_waits_with_what_waits_in_it() {
    let mut world = world(&["d/sub/f", "d/of another size", "plain"]);
    let text = world.fs(0).read("d/sub/f").unwrap();
    world.fs(0).remove("d").unwrap();
    world.fs(0).write("closed", &text).unwrap();
    world.fs(0).set_readable("closed", false).unwrap();
    for _ in 0..2 {
        sync(&mut world, 0);
        sync(&mut world, 1);
        assert_eq!(paths(&world, 1), ["d/sub/f", "plain"]);
    }
    world.fs(0).set_readable("closed", true).unwrap();
    rest(&mut world);
    world.assert_same();
    assert_eq!(paths(&world, 1), ["closed", "plain"]);
    assert!(!world.fs(1).exists("d"));
}

/// Replaces an object of the first device by another while a file that cannot be read has the size of what went.
type Replacing = fn(&World);

/// Ways in which another object takes the place of `place`, and what then stands there.
const REPLACING: [(&str, Replacing, &[&str]); 5] = [
    ("a directory by a symlink", |world| world.fs(0).make_symlink(b"plain", "place").unwrap(), &["place"]),
    ("a directory by a file", |world| world.fs(0).write("place", b"something else").unwrap(), &["place"]),
    (
        "a directory by one that was made",
        |world| {
            world.fs(0).make_dir("place").unwrap();
            world.fs(0).write("place/new", b"new").unwrap();
        },
        &["place/new"],
    ),
    ("a directory by one that was moved", |world| world.fs(0).rename("other", "place").unwrap(), &["place/in other"]),
    (
        "a directory by a file that was moved",
        |world| world.fs(0).rename("other/in other", "place").unwrap(),
        &["place"],
    ),
];

/// Story: the new object took over the directory's record while a file in it waited, which then lay in a directory that
/// was recorded nowhere: it was neither deleted nor shown again.
#[test]
fn a_directory_whose_place_is_taken_while_a_file_in_it_waits_goes_later() {
    for (how, replace, expected) in REPLACING {
        let mut world = world(&["place/sub/f", "place/of another size", "other/in other", "plain"]);
        let text = world.fs(0).read("place/sub/f").unwrap();
        world.fs(0).remove("place").unwrap();
        replace(&world);
        world.fs(0).write("closed", &text).unwrap();
        world.fs(0).set_readable("closed", false).unwrap();
        for _ in 0..3 {
            let (report, said) = sync(&mut world, 0);
            assert!(report.sent.postponed >= 2, "{how}");
            let told = said.skipped.iter().find(|(_, reason)| reason.contains("a new file that cannot be read"));
            assert!(told.is_some_and(|(path, _)| path.starts_with("place")), "{how}: {:?}", said.skipped);
            assert!(!world.replica(0).status().unwrap().in_step, "{how}");
            sync(&mut world, 1);
            let waits = |path: &String| path.ends_with("/sub/f");
            assert!(paths(&world, 1).iter().any(waits), "{how}: {:?}", paths(&world, 1));
            world.pass(60_000);
        }
        world.fs(0).set_readable("closed", true).unwrap();
        rest(&mut world);
        world.assert_same();
        let mut expected: Vec<&str> = [expected, &["closed", "plain"]].concat();
        if !how.contains("moved") {
            expected.push("other/in other");
        }
        expected.sort_unstable();
        assert_eq!(paths(&world, 1), expected, "{how}");
        assert!(world.replica(0).status().unwrap().in_step, "{how}");
    }
}

/// Story: the new directory took over the file's record, and nothing asked for the removal of the file any more.
#[test]
fn a_file_whose_place_a_directory_takes_while_it_waits_goes_later() {
    let mut world = world(&["place", "plain"]);
    let text = world.fs(0).read("place").unwrap();
    world.fs(0).remove("place").unwrap();
    world.fs(0).make_dir("place").unwrap();
    world.fs(0).write("place/new", b"new").unwrap();
    world.fs(0).write("closed", &text).unwrap();
    world.fs(0).set_readable("closed", false).unwrap();
    for _ in 0..2 {
        assert_eq!(sync(&mut world, 0).0.sent.postponed, 2);
        sync(&mut world, 1);
        assert!(world.files(1).values().any(|found| *found == text), "it waits: {:?}", paths(&world, 1));
    }
    world.fs(0).set_readable("closed", true).unwrap();
    rest(&mut world);
    world.assert_same();
    assert_eq!(paths(&world, 1), ["closed", "place/new", "plain"]);
}

#[test]
fn a_directory_that_may_be_where_nothing_can_be_read_is_known_again_though_its_place_was_taken() {
    let mut world = world(&["closed/old", "letters/a", "letters/sub/b"]);
    world.fs(0).rename("letters", "closed/letters").unwrap();
    world.fs(0).make_symlink(b"closed", "letters").unwrap();
    world.fs(0).set_readable("closed", false).unwrap();
    for _ in 0..3 {
        let (report, said) = sync(&mut world, 0);
        assert_eq!(report.sent.deleted, 0);
        assert!(said.skipped.iter().any(|(path, _)| path == "letters"), "{:?}", said.skipped);
        sync(&mut world, 1);
        assert_eq!(paths(&world, 1).len(), 4, "{:?}", paths(&world, 1));
        world.pass(60_000);
    }
    world.fs(0).set_readable("closed", true).unwrap();
    let (report, _) = sync(&mut world, 0);
    assert_eq!((report.sent.moved, report.sent.created, report.sent.deleted), (1, 0, 0), "it was only moved");
    rest(&mut world);
    world.assert_same();
    assert_eq!(paths(&world, 1), ["closed/letters/a", "closed/letters/sub/b", "closed/old", "letters"]);
}

/// Interrupts a round at one of the times that it asks.
struct Impatient(std::cell::Cell<u32>);

impl Observer for Impatient {
    fn phase(&mut self, _: Phase, _: Option<u64>, _: Option<u64>) {}
    fn advance(&mut self, _: u64, _: u64) {}
    fn note(&mut self, _: Note) {}
    fn interrupted(&self) -> bool {
        self.0.set(self.0.get().wrapping_sub(1));
        self.0.get() == 0
    }
}

/// An interrupted round publishes what it has read: objects that took a place before the removal of those that had it.
#[test]
fn a_round_that_is_interrupted_between_an_object_and_the_removal_of_what_it_replaced_goes_on() {
    let mut interrupted = 0;
    for at in 1..30 {
        let mut world = world(&["directory/f", "directory/sub/g", "file", "plain"]);
        for path in ["directory", "file"] {
            world.fs(0).remove(path).unwrap();
        }
        world.fs(0).make_symlink(b"plain", "directory").unwrap();
        world.fs(0).make_dir("file").unwrap();
        world.fs(0).write("file/within", b"new").unwrap();
        world.fs(0).write("last", b"one more").unwrap();
        world.pass(10_000);
        let mut impatient = Impatient(at.into());
        let result = world.replica(0).sync(SyncOptions::default(), &mut impatient);
        interrupted += u32::from(result.is_err());
        rest(&mut world);
        world.assert_same();
        assert_eq!(paths(&world, 1), ["directory", "file/within", "last", "plain"], "interrupted at {at}");
    }
    assert!(interrupted > 3, "{interrupted} rounds were interrupted");
}
