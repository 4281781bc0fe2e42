//! `packetboat key`.

mod common;

use common::World;
use insta::assert_snapshot;

#[test]
fn a_new_passphrase_replaces_the_former() {
    let world = World::with_vault();
    let new = "staple battery horse";
    let changed =
        world.packetboat("laptop", &["key", "passphrase"]).with("PACKETBOAT_PASSPHRASE", new).within("docs").succeeds();
    let former = world.packetboat("desktop", &["sync", "work", "stick/vault"]).fails();
    world.packetboat("desktop", &["sync", "work", "stick/vault"]).with("PACKETBOAT_PASSPHRASE", new).succeeds();
    world.packetboat("laptop", &["sync"]).within("docs").without_passphrase().succeeds();
    assert_snapshot!(changed.seen + &former.seen);
}

#[test]
fn a_former_passphrase_does_not_come_back_with_the_copy_of_a_device_that_synchronised_since() {
    // Each device looked at the marker once a day: where it was lost within that, one put back its copy of before the change,
    // and the device that had made the change did not see it either.
    let world = World::with_vault();
    let new = "staple battery horse";
    world.packetboat("desktop", &["sync", "work", "stick/vault"]).succeeds();
    let marker = world.path("stick/vault/packetboat");
    let before = std::fs::read(&marker).unwrap();
    world.packetboat("laptop", &["key", "passphrase"]).with("PACKETBOAT_PASSPHRASE", new).within("docs").succeeds();
    let changed = std::fs::read(&marker).unwrap();
    assert_ne!(changed, before);
    let sync = |device: &str, folder: &str| {
        world.packetboat(device, &["sync"]).within(folder).without_passphrase().succeeds();
    };
    sync("desktop", "work");
    std::fs::remove_file(&marker).unwrap();
    sync("desktop", "work");
    assert_eq!(std::fs::read(&marker).unwrap(), changed);
    std::fs::write(&marker, &before).unwrap();
    sync("laptop", "docs");
    assert_eq!(std::fs::read(&marker).unwrap(), changed);
}

#[test]
fn a_new_passphrase_may_come_through_a_pipe() {
    // It was read twice, and a pipe has nothing for the second who reads.
    let world = World::with_vault();
    let pipe = world.path("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let writer = {
        let pipe = pipe.clone();
        std::thread::spawn(move || std::fs::write(pipe, "staple battery horse\n").unwrap())
    };
    let arguments = ["key", "passphrase", "--passphrase-file", pipe.to_str().unwrap()];
    world.packetboat("laptop", &arguments).within("docs").without_passphrase().succeeds();
    writer.join().unwrap();
    let new = world.packetboat("desktop", &["sync", "work", "stick/vault"]);
    new.with("PACKETBOAT_PASSPHRASE", "staple battery horse").succeeds();
}

#[test]
fn a_passphrase_is_not_called_new_that_opened_the_vault_before() {
    let world = World::with_vault();
    let marker = std::fs::read(world.path("stick/vault/packetboat")).unwrap();
    let same = world.packetboat("laptop", &["key", "passphrase"]).within("docs").fails();
    assert!(same.seen.contains("that is the passphrase which the vault has now"), "{}", same.seen);
    assert_eq!(std::fs::read(world.path("stick/vault/packetboat")).unwrap(), marker);
}

#[test]
fn a_new_recovery_key_is_shown_and_opens_the_vault() {
    let world = World::with_vault();
    let shown = world.packetboat("laptop", &["key", "recovery"]).within("docs").succeeds();
    let join = world.packetboat("desktop", &["sync", "work", "stick/vault", "--recovery"]).without_passphrase();
    join.with("PACKETBOAT_RECOVERY_KEY", shown.stdout.trim()).succeeds();
    assert_snapshot!(shown.seen);
}

#[test]
fn a_key_cannot_change_where_the_vault_is_not() {
    let world = World::with_vault();
    std::fs::rename(world.path("stick/vault"), world.path("aside")).unwrap();
    std::fs::create_dir(world.path("stick/vault")).unwrap();
    let ran = world.packetboat("laptop", &["key", "recovery"]).within("docs").fails();
    assert!(world.names("stick/vault").is_empty());
    assert_snapshot!(ran.seen);
}
