//! `packetboat devices`.

mod common;

use common::World;
use insta::assert_snapshot;

#[test]
fn devices_are_listed_and_renamed() {
    let world = World::with_two_devices();
    world.sync("laptop", "docs");
    let before = world.packetboat("laptop", &["devices"]).within("docs").succeeds();
    let renamed = world.packetboat("laptop", &["devices", "rename", "old laptop"]).within("docs").succeeds();
    world.packetboat("laptop", &["sync"]).within("docs").succeeds();
    world.sync("desktop", "work");
    let after = world.packetboat("desktop", &["devices", "list"]).within("work").succeeds();
    assert_snapshot!(before.seen + &renamed.seen + &after.seen);
}

#[test]
fn json_says_which_is_this() {
    let world = World::with_two_devices();
    let json = world.packetboat("desktop", &["devices", "--json"]).within("work").succeeds().json();
    let devices = json["devices"].as_array().unwrap();
    let this: Vec<_> = devices.iter().filter(|device| device["this"] == true).collect();
    assert_eq!(this.len(), 1);
    assert_eq!(this[0]["name"], "desktop");
    assert!(devices.iter().all(|device| device["last_heard"].as_str().unwrap().ends_with('Z')));
}

#[test]
fn a_name_must_be_a_name() {
    let world = World::with_vault();
    let empty = world.packetboat("laptop", &["devices", "rename", " "]).within("docs").fails();
    assert_snapshot!(empty.seen);
}

#[test]
fn a_revocation_says_what_it_does_and_what_it_cannot_take_back() {
    let world = World::with_two_devices();
    world.write("phone/own.txt", "on the phone");
    world.sync("phone", "phone");
    world.sync("laptop", "docs");
    let revoked = world.packetboat("laptop", &["devices", "revoke", "phone"]).within("docs");
    let revoked = revoked.with("PACKETBOAT_PASSPHRASE", "a new long passphrase").succeeds();
    assert!(revoked.seen.contains("\"phone\" is revoked. The other device takes up the vault's new key by itself"));
    assert!(revoked.seen.contains("This cannot be taken back:"), "{}", revoked.seen);
    // The other goes on without any command, and without a passphrase.
    world.write("docs/after.txt", "for two");
    world.sync("laptop", "docs");
    world.packetboat("desktop", &["sync"]).within("work").without_passphrase().succeeds();
    assert_eq!(world.read("work/after.txt"), "for two");
    // The revoked one is told, keeps its files and can see what it did not synchronise.
    world.write("phone/own.txt", "edited since");
    let told = world.packetboat("phone", &["sync"]).within("phone").fails();
    assert_snapshot!(told.seen);
    assert_eq!(world.read("phone/own.txt"), "edited since");
    assert!(!world.exists("phone/after.txt"));
    let status = world.packetboat("phone", &["status", "--json"]).within("phone").succeeds().json();
    assert_eq!((&status["to_send"], &status["in_step"]), (&1.into(), &false.into()));
    let status = world.packetboat("phone", &["status"]).within("phone").succeeds();
    assert!(status.stdout.contains("This device was revoked; `packetboat sync` says what follows"), "{}", status.seen);
    let unsent = world.packetboat("phone", &["sync", "--dry-run"]).within("phone").succeeds();
    assert!(unsent.stdout.contains("own.txt"), "{}", unsent.seen);
    let devices = world.packetboat("desktop", &["devices", "--json"]).within("work").succeeds().json();
    let standing = |name: &str| {
        let devices = devices["devices"].as_array().unwrap();
        devices.iter().find(|device| device["name"] == name).unwrap()["standing"].clone()
    };
    assert_eq!((standing("phone"), standing("laptop")), ("revoked".into(), "active".into()));
}

#[test]
fn a_revocation_that_makes_no_sense_is_refused_with_a_hint() {
    let world = World::with_two_devices();
    let oneself = world.packetboat("laptop", &["devices", "revoke", "laptop"]).within("docs").fails();
    let nobody = world.packetboat("laptop", &["devices", "revoke", "nobody"]).within("docs").fails();
    let retired = world.packetboat("laptop", &["devices", "retire", "desktop"]).within("docs").succeeds();
    let last = world.packetboat("laptop", &["devices", "retire"]).within("docs").fails();
    assert_snapshot!(oneself.seen + &nobody.seen + &retired.seen + &last.seen);
}

/// Scripts set the vault's passphrase for all that they run, and a tired user types the one that is known by heart.
#[test]
fn whoever_is_revoked_cannot_come_back_by_the_passphrase_that_was_known() {
    let world = World::with_two_devices();
    let known = world.packetboat("laptop", &["devices", "revoke", "desktop"]).within("docs").fails();
    world.sync("laptop", "docs");
    world.write("work/still.txt", "a member");
    world.packetboat("desktop", &["sync"]).within("work").succeeds();
    let another = world.packetboat("laptop", &["devices", "revoke", "desktop"]).within("docs");
    another.with("PACKETBOAT_PASSPHRASE", "a new long passphrase").succeeds();
    let back = world.packetboat("desktop", &["sync", "work", "stick/vault", "--rebind"]).fails();
    assert!(back.seen.contains("the passphrase does not open this vault"), "{}", back.seen);
    assert_snapshot!(known.seen);
}

#[test]
fn a_device_leaves_and_comes_back_reviving_nothing() {
    let world = World::with_two_devices();
    world.write("work/gone.txt", "soon");
    world.packetboat("desktop", &["sync"]).within("work").succeeds();
    world.sync("laptop", "docs");
    let left = world.packetboat("desktop", &["devices", "retire", "--json"]).within("work").succeeds().json();
    assert_eq!((&left["name"], &left["this"]), (&"desktop".into(), &true.into()));
    std::fs::remove_file(world.path("docs/gone.txt")).unwrap();
    world.sync("laptop", "docs");
    world.write("work/new.txt", "made away");
    let back = world.packetboat("desktop", &["sync"]).within("work").succeeds();
    assert!(back.seen.contains("this device was retired: it goes on as a new device"), "{}", back.seen);
    world.sync("laptop", "docs");
    assert!(!world.exists("work/gone.txt") && !world.exists("docs/gone.txt"));
    assert_eq!(world.read("docs/new.txt"), "made away");
}

#[test]
fn what_a_device_received_a_moment_before_it_comes_back_is_not_revived_where_history_is_gone() {
    // Their times may be those of a write that follows, so the records of such files proved nothing: what nobody had touched
    // here was published whole, and stood again or in conflict everywhere.
    let world = World::with_two_devices();
    for name in ["gone", "edited", "stays"] {
        world.write(&format!("docs/{name}"), "of the laptop");
    }
    world.sync("laptop", "docs");
    world.sync("desktop", "work");
    world.sync("laptop", "docs");
    world.packetboat("laptop", &["devices", "retire", "desktop"]).within("docs").succeeds();
    std::fs::remove_file(world.path("docs/gone")).unwrap();
    world.write("docs/edited", "by the laptop");
    world.sync("laptop", "docs");
    for _ in 0..2 {
        world.packetboat("laptop", &["prune", "--keep", "0d"]).within("docs").succeeds();
        world.sync("laptop", "docs");
    }
    let back = world.packetboat("desktop", &["sync"]).within("work").succeeds();
    assert!(back.seen.contains("it goes on as a new device"), "{}", back.seen);
    assert!(!back.seen.contains("is not at the intermediary"), "that was let go, not lost: {}", back.seen);
    world.sync("laptop", "docs");
    for folder in ["docs", "work"] {
        let files = world.names(folder);
        assert!(!files.iter().any(|name| name.contains("gone") || name.contains("conflict")), "{files:?}");
        assert_eq!(world.read(&format!("{folder}/edited")), "by the laptop");
    }
}
