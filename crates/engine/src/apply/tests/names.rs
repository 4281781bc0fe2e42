//! Names that a file system cannot hold or tell apart.

use super::*;

#[test]
fn names_that_fold_into_one_are_told_apart_on_this_disk_alone() {
    let mut world = World::new(SimOptions { case_insensitive: true, ..SimOptions::default() });
    let changes = vec![
        world.file(1, ROOT, "A", b"upper"),
        world.file(2, ROOT, "a", b"lower"),
        create(3, ROOT, "d", Content::Directory),
        world.file(4, item(3), "B", b"upper b"),
        world.file(5, item(3), "b", b"lower b"),
    ];
    let first = world.publish(changes);
    world.settle();
    let seen = world.seen();
    assert_eq!(seen.len(), 5, "{seen:?}");
    for text in ["upper", "lower", "upper b", "lower b"] {
        assert!(seen.values().any(|found| found == text), "{seen:?}");
    }
    let edited = world.content(b"lower, edited");
    world.publish(vec![edit(2, edited, first), delete(&[(1, first)])]);
    world.settle();
    assert!(world.seen().values().any(|found| found == "lower, edited"));
}

/// Story: what found its name taken by one that folds into it came to a stand-in, and its record stayed where it had been:
/// the next round took it for renamed by its user, and renamed it for everybody.
#[test]
fn names_that_fold_into_one_are_told_apart_when_their_directories_are_merged() {
    let mut world = World::new(SimOptions { case_insensitive: true, ..SimOptions::default() });
    let changes = vec![
        create(1, ROOT, "x", Content::Directory),
        world.file(2, item(1), "A", b"upper"),
        world.file(3, item(1), "L", b"upper link"),
        create(4, ROOT, "y", Content::Directory),
        world.file(5, item(4), "a", b"lower"),
        create(6, item(4), "l", Content::Symlink(b"target".to_vec())),
        create(7, item(4), "X", Content::Directory),
        world.file(8, item(7), "in", b"deep"),
    ];
    let first = world.publish(changes);
    world.settle();
    world.publish(vec![place(4, ROOT, "x", first)]);
    world.settle();
    let seen = world.seen();
    for (path, text) in [("x/A", "upper"), ("x/L", "upper link"), ("x/X/in", "deep")] {
        assert_eq!(seen[path], text);
    }
    for text in ["lower", "-> target"] {
        assert!(seen.values().any(|found| found == text), "{seen:?}");
    }
    // What stands in for a name stays that name's: an edit comes there, and the name itself when it is free.
    let edited = world.content(b"lower, edited");
    world.publish(vec![edit(5, edited, first), delete(&[(2, first)])]);
    world.settle();
    let seen = world.seen();
    assert!(seen.iter().any(|(path, text)| path.starts_with("x/") && text == "lower, edited"), "{seen:?}");
}

#[test]
fn a_name_changes_its_case_where_cases_are_folded() {
    let mut world = World::new(SimOptions { case_insensitive: true, ..SimOptions::default() });
    let changes = vec![world.file(1, ROOT, "readme", b"text")];
    let first = world.publish(changes);
    world.settle();
    world.publish(vec![place(1, ROOT, "README", first)]);
    world.settle();
    world.shows(&[("README", "text")]);
}

#[test]
fn forbidden_names_get_stand_ins() {
    let options = SimOptions { forbidden_bytes: b":?".to_vec(), max_name: 120, ..SimOptions::default() };
    let mut world = World::new(options);
    let long = "n".repeat(200);
    let changes = vec![
        world.file(1, ROOT, "a:b", b"colon"),
        create(2, ROOT, "d?", Content::Directory),
        world.file(3, item(2), "x:y", b"inner"),
        world.file(4, ROOT, &long, b"long"),
    ];
    world.publish(changes);
    world.settle();
    let seen = world.seen();
    assert_eq!(seen["a%3Ab"], "colon");
    assert_eq!(seen["d%3F/x%3Ay"], "inner");
    assert!(seen.values().any(|text| text == "long"));
}

/// Story: what stood under a stand-in name gave way to an item of that very name, and came back under the name that it had in
/// staging, `park-5`, for good.
#[test]
fn what_stands_under_a_stand_in_name_gives_way_to_what_has_that_name_and_gets_another() {
    let refusing = SimOptions { forbidden_bytes: b":".to_vec(), ..SimOptions::default() };
    let folding = SimOptions { case_insensitive: true, ..SimOptions::default() };
    for options in [refusing, folding] {
        let mut world = World::new(options);
        let changes = vec![
            world.file(1, ROOT, "A:B", b"first"),
            world.file(2, ROOT, "a:b", b"second"),
            create(3, ROOT, "D:", Content::Directory),
            create(4, ROOT, "d:", Content::Directory),
            world.file(5, item(4), "in", b"third"),
        ];
        world.publish(changes);
        world.settle();
        let stand_ins: Vec<String> =
            world.seen().into_keys().filter(|path| path.contains(['%', '~']) && !path.contains('/')).collect();
        assert!(!stand_ins.is_empty());
        let changes = (10u8..).zip(&stand_ins).map(|(at, path)| world.file(at, ROOT, path, path.as_bytes()));
        let changes = changes.collect();
        world.publish(changes);
        world.settle();
        let seen = world.seen();
        for path in &stand_ins {
            assert_eq!(&seen[path], path, "{seen:?}");
        }
        for text in ["first", "second", "third"] {
            assert!(seen.values().any(|found| found == text), "{seen:?}");
        }
        assert!(!seen.keys().any(|path| path.contains("park")), "{seen:?}");
    }
}
