//! `packetboat sync` as people meet it: binding, rounds, and everything that can be wrong with the two places.

mod common;

use std::fs;

use common::{World, copy_all};
use insta::assert_snapshot;
use packetboat_replica::lock::ReplicaLock;

#[test]
fn the_first_time_makes_a_vault_and_the_second_does_nothing() {
    let world = World::new();
    world.write("docs/a.txt", "alpha\n");
    world.write("docs/sub/b.txt", "beta\n");
    let first = world.sync("laptop", "docs");
    let second = world.packetboat("laptop", &["sync"]).without_passphrase().within("docs/sub").succeeds();
    assert_snapshot!(first.seen + &second.seen);
}

#[test]
fn another_device_joins_and_gets_the_files() {
    let world = World::with_vault();
    let joined = world.sync("desktop", "work");
    assert_eq!(world.read("work/a.txt"), "alpha\n");
    assert_eq!(world.read("work/sub/b.txt"), "beta\n");
    world.write("work/c.txt", "gamma\n");
    fs::remove_file(world.path("work/a.txt")).unwrap();
    let sent = world.packetboat("desktop", &["sync", "work"]).succeeds();
    let received = world.packetboat("laptop", &["sync", "docs", "-v"]).succeeds();
    assert_eq!(world.names("docs"), ["c.txt", "sub"]);
    assert_snapshot!(joined.seen + &sent.seen + &received.seen);
}

#[test]
fn scripts_read_json() {
    let world = World::new();
    world.write("docs/a.txt", "alpha\n");
    let first = world.packetboat("laptop", &["sync", "docs", "stick/vault", "--name", "laptop", "--json"]).succeeds();
    assert_eq!(first.json()["schema"], 1);
    assert_eq!(first.json()["up"]["new"], 1);
    assert!(first.stderr.is_empty() || !first.stderr.contains("Recovery key"), "the key is in the JSON");
    let second = world.packetboat("laptop", &["sync", "docs", "--json"]).succeeds();
    assert_eq!(second.json()["recovery_key"], serde_json::Value::Null);
    assert_snapshot!(first.seen);
}

#[test]
fn quiet_says_nothing_but_the_recovery_key() {
    let world = World::new();
    world.write("docs/a.txt", "alpha\n");
    let first = world.packetboat("laptop", &["-q", "sync", "docs", "stick/vault"]).succeeds();
    assert_snapshot!(first.seen);
    let second = world.packetboat("laptop", &["-q", "sync", "docs"]).succeeds();
    assert_eq!((second.stdout.as_str(), second.stderr.as_str()), ("", ""));
}

#[test]
fn a_dry_run_shows_the_plan_and_changes_nothing() {
    let world = World::with_two_devices();
    world.write("docs/new.txt", "new\n");
    fs::rename(world.path("docs/a.txt"), world.path("docs/z.txt")).unwrap();
    fs::remove_file(world.path("docs/sub/b.txt")).unwrap();
    world.write("work/c.txt", "gamma\n");
    world.sync("desktop", "work");
    let vault = |folder: &str| world.names(&format!("stick/vault/{folder}"));
    let before = vault("lanes");
    let plan = world.packetboat("laptop", &["sync", "docs", "--dry-run"]).succeeds();
    assert_eq!(vault("lanes"), before);
    assert_eq!(world.names("docs"), ["new.txt", "sub", "z.txt"]);
    let json = world.packetboat("laptop", &["sync", "docs", "--dry-run", "--json"]).succeeds();
    assert_eq!(json.json()["steps"].as_array().unwrap().len(), plan.stdout.lines().count());
    assert_snapshot!(plan.seen);
    world.sync("laptop", "docs");
    let nothing = world.packetboat("laptop", &["sync", "docs", "--dry-run"]).succeeds();
    assert_snapshot!(nothing.stdout, @"Nothing to do: in step.");
}

#[test]
fn a_dry_run_binds_nothing() {
    let world = World::with_vault();
    world.write("new/x.txt", "x\n");
    let ran = world.packetboat("desktop", &["sync", "new", "stick/vault", "--dry-run"]).fails();
    assert!(!world.exists("new/.packetboat"));
    assert_snapshot!(ran.seen);
}

#[test]
fn most_files_gone_stops_the_round_until_confirmed() {
    let world = World::new();
    for number in 0..40 {
        world.write(&format!("docs/{number}.txt"), &format!("{number}\n"));
    }
    world.sync("laptop", "docs");
    for number in 0..30 {
        fs::remove_file(world.path(&format!("docs/{number}.txt"))).unwrap();
    }
    let stopped = world.packetboat("laptop", &["sync", "docs"]).fails();
    let confirmed = world.packetboat("laptop", &["sync", "docs", "--confirm-deletes"]).succeeds();
    assert_snapshot!(stopped.seen + &confirmed.seen);
}

#[test]
fn waiting_conflicts_have_an_exit_code_where_asked_for() {
    let world = World::with_conflict();
    assert_eq!(world.packetboat("laptop", &["sync", "docs"]).run().code, 0);
    let ran = world.packetboat("laptop", &["sync", "docs", "--fail-on-conflicts"]).run();
    assert_eq!(ran.code, 3);
    assert!(ran.stdout.contains("conflicts  1 waiting: see `packetboat conflicts`"), "{}", ran.stdout);
}

// Passphrases and keys.

#[test]
fn a_wrong_passphrase_joins_nothing() {
    let world = World::with_vault();
    let ran = world
        .packetboat("desktop", &["sync", "work", "stick/vault"])
        .with("PACKETBOAT_PASSPHRASE", "wrong horse battery")
        .fails();
    assert!(!world.exists("work"));
    assert_snapshot!(ran.seen);
}

#[test]
fn without_a_terminal_a_passphrase_must_be_given() {
    let world = World::with_vault();
    let joining = world.packetboat("desktop", &["sync", "work", "stick/vault"]).without_passphrase().fails();
    world.write("other/x", "x");
    let making = world.packetboat("desktop", &["sync", "other", "stick/new"]).without_passphrase().fails();
    assert!(!world.exists("work") && !world.exists("stick/new") && !world.exists("other/.packetboat"));
    fs::create_dir(world.path("stick/empty")).unwrap();
    let at_empty = world.packetboat("desktop", &["sync", "other", "stick/empty"]).without_passphrase().fails();
    assert_snapshot!(joining.seen + &making.seen + &at_empty.seen);
}

#[test]
fn an_empty_passphrase_is_refused_and_a_short_one_warned_of() {
    let world = World::new();
    world.write("docs/a.txt", "alpha\n");
    world.write("empty", "\n");
    let empty = world.packetboat("laptop", &["sync", "docs", "stick/vault"]).with("PACKETBOAT_PASSPHRASE", "").fails();
    let file = world.packetboat("laptop", &["sync", "docs", "stick/vault", "--passphrase-file", "empty"]).fails();
    assert!(!world.exists("stick/vault"));
    let short =
        world.packetboat("laptop", &["sync", "docs", "stick/vault"]).with("PACKETBOAT_PASSPHRASE", "short").succeeds();
    assert!(short.stderr.contains("Warning: the passphrase is shorter than 10 characters"), "{}", short.stderr);
    assert_snapshot!(empty.seen + &file.seen);
}

#[test]
fn a_passphrase_comes_from_a_file_without_its_newline() {
    let world = World::with_vault();
    world.write("secret", "correct horse battery\n");
    let arguments = ["sync", "work", "stick/vault", "--passphrase-file", "secret"];
    world.packetboat("desktop", &arguments).without_passphrase().succeeds();
    assert_eq!(world.read("work/a.txt"), "alpha\n");
    let arguments = ["sync", "more", "stick/vault", "--passphrase-file", "nowhere"];
    assert_snapshot!(world.packetboat("desktop", &arguments).fails().seen);
}

#[test]
fn the_recovery_key_opens_the_vault() {
    let world = World::new();
    world.write("docs/a.txt", "alpha\n");
    let made = world.packetboat("laptop", &["sync", "docs", "stick/vault", "--json"]).succeeds().json();
    let key = made["recovery_key"].as_str().unwrap().to_lowercase().replace('-', " ");
    let join = |key: &str| {
        world
            .packetboat("desktop", &["sync", "work", "stick/vault", "--recovery", "--name", "desktop"])
            .without_passphrase()
            .with("PACKETBOAT_RECOVERY_KEY", key)
    };
    let malformed = join("12345").fails();
    let wrong = join(&packetboat_core::recovery::RecoveryKey([1; 32]).to_text()).fails();
    assert!(!world.exists("work"));
    let joined = join(&key).succeeds();
    assert_eq!(world.read("work/a.txt"), "alpha\n");
    assert_snapshot!(malformed.seen + &wrong.seen + &joined.seen);
}

// The intermediary.

#[test]
fn a_mistyped_intermediary_makes_nothing() {
    let world = World::new();
    world.write("docs/a.txt", "alpha\n");
    let ran = world.packetboat("laptop", &["sync", "docs", "stcik/vault"]).fails();
    assert!(!world.exists("stcik") && !world.exists("docs/.packetboat"));
    assert_snapshot!(ran.seen);
}

#[test]
fn a_directory_with_other_things_is_no_place_for_a_vault() {
    let world = World::new();
    world.write("docs/a.txt", "alpha\n");
    world.write("stick/holiday.jpg", "\n");
    let ran = world.packetboat("laptop", &["sync", "docs", "stick"]).fails();
    assert_eq!(world.names("stick"), ["holiday.jpg"]);
    assert!(!world.exists("docs/.packetboat"));
    assert_snapshot!(ran.seen);
}

#[test]
fn what_systems_leave_on_an_empty_stick_is_no_hindrance() {
    let world = World::new();
    world.write("docs/a.txt", "alpha\n");
    fs::create_dir(world.path("stick/lost+found")).unwrap();
    fs::create_dir(world.path("stick/.Trash-1000")).unwrap();
    world.packetboat("laptop", &["sync", "docs", "stick"]).succeeds();
}

#[test]
fn files_and_addresses_are_no_intermediaries() {
    let world = World::new();
    world.write("docs/a.txt", "alpha\n");
    world.write("file", "");
    let file = world.packetboat("laptop", &["sync", "docs", "file"]).fails();
    let beneath = world.packetboat("laptop", &["sync", "docs", "file/vault"]).fails();
    let address = world.packetboat("laptop", &["sync", "docs", "s3://bucket/vault"]).fails();
    assert_snapshot!(file.seen + &beneath.seen + &address.seen);
}

#[test]
fn folder_and_intermediary_must_lie_apart() {
    let world = World::new();
    world.write("docs/sub/a.txt", "alpha\n");
    let same = world.packetboat("laptop", &["sync", "docs", "docs"]).fails();
    let within = world.packetboat("laptop", &["sync", "docs", "docs/vault"]).fails();
    let around = world.packetboat("laptop", &["sync", "docs/sub", "docs"]).fails();
    std::os::unix::fs::symlink(world.path("docs"), world.path("link")).unwrap();
    let linked = world.packetboat("laptop", &["sync", "docs", "link/sub/vault"]).fails();
    assert_eq!(world.names("docs"), ["sub"]);
    assert_snapshot!(same.seen + &within.seen + &around.seen + &linked.seen);
}

#[test]
fn an_unplugged_stick_is_not_an_empty_vault() {
    let world = World::with_vault();
    fs::rename(world.path("stick/vault"), world.path("aside")).unwrap();
    let gone = world.packetboat("laptop", &["sync", "docs"]).fails();
    fs::create_dir(world.path("stick/vault")).unwrap();
    let empty = world.packetboat("laptop", &["sync", "docs"]).fails();
    let both = world.packetboat("laptop", &["sync", "docs", "stick/vault"]).fails();
    assert!(world.names("stick/vault").is_empty(), "nothing was made at the mount point");
    assert_snapshot!(gone.seen + &empty.seen + &both.seen);
}

#[test]
fn the_same_vault_at_another_place_is_bound_without_a_question() {
    let world = World::with_vault();
    fs::create_dir(world.path("media")).unwrap();
    fs::rename(world.path("stick/vault"), world.path("media/vault")).unwrap();
    let moved = world.packetboat("laptop", &["sync", "docs", "media/vault"]).without_passphrase().succeeds();
    assert!(moved.stderr.contains("The vault is at"), "{}", moved.seen);
    let after = world.packetboat("laptop", &["sync", "docs"]).without_passphrase().succeeds();
    assert_eq!(after.stderr, "");
}

#[test]
fn another_vault_is_refused() {
    let world = World::with_vault();
    world.write("other/x.txt", "x\n");
    world.packetboat("laptop", &["sync", "other", "stick/other"]).succeeds();
    let ran = world.packetboat("laptop", &["sync", "docs", "stick/other"]).fails();
    assert_snapshot!(ran.seen);
}

#[test]
fn a_marker_that_cannot_be_read_is_told_from_a_missing_one() {
    let world = World::with_vault();
    let marker = world.path("stick/vault/packetboat");
    let sound = fs::read(&marker).unwrap();
    let mut newer = sound.clone();
    newer[4] = 9;
    fs::write(&marker, newer).unwrap();
    let newer = world.packetboat("desktop", &["sync", "work", "stick/vault"]).fails();
    fs::write(&marker, &sound[..sound.len() / 2]).unwrap();
    let damaged = world.packetboat("desktop", &["sync", "work", "stick/vault"]).fails();
    fs::write(&marker, "#!/bin/sh\n").unwrap();
    let foreign = world.packetboat("desktop", &["sync", "work", "stick/vault"]).fails();
    assert_snapshot!(newer.seen + &damaged.seen + &foreign.seen);
}

// The folder.

#[test]
fn a_folder_that_is_not_there_begins_no_vault() {
    let world = World::new();
    let ran = world.packetboat("laptop", &["sync", "dcos", "stick/vault"]).fails();
    let alone = world.packetboat("laptop", &["sync", "dcos"]).fails();
    assert!(!world.exists("dcos") && !world.exists("stick/vault"));
    assert_snapshot!(ran.seen + &alone.seen);
}

#[test]
fn a_folder_is_made_only_where_its_parent_is() {
    let world = World::with_vault();
    let ran = world.packetboat("desktop", &["sync", "deep/work", "stick/vault"]).fails();
    assert!(!world.exists("deep"));
    assert_snapshot!(ran.seen);
}

#[test]
fn what_is_no_folder_is_refused() {
    let world = World::new();
    world.write("file", "");
    let file = world.packetboat("laptop", &["sync", "file", "stick/vault"]).fails();
    let unbound = world.packetboat("laptop", &["sync", "stick"]).fails();
    let nowhere = world.packetboat("laptop", &["sync"]).fails();
    assert_snapshot!(file.seen + &unbound.seen + &nowhere.seen);
}

#[test]
fn an_empty_mount_is_not_an_emptied_folder() {
    let world = World::with_two_devices();
    fs::rename(world.path("docs"), world.path("aside")).unwrap();
    let gone = world.packetboat("laptop", &["sync", "docs"]).fails();
    fs::create_dir(world.path("docs")).unwrap();
    let empty = world.packetboat("laptop", &["sync", "docs", "stick/vault"]).fails();
    let within = world.packetboat("laptop", &["sync"]).within("docs").fails();
    assert!(world.names("docs").is_empty() && !world.exists("docs/.packetboat"));
    world.sync("desktop", "work");
    assert_eq!(world.names("work"), ["a.txt", "sub"], "nothing was deleted elsewhere");
    assert_snapshot!(gone.seen + &empty.seen + &within.seen);
    let rebound = world.packetboat("laptop", &["sync", "docs", "--rebind"]).succeeds();
    assert_eq!(world.names("docs"), ["a.txt", "sub"], "{}", rebound.seen);
}

#[test]
fn a_vault_that_is_gone_for_good_is_begun_anew_when_asked() {
    let world = World::with_vault();
    fs::remove_dir_all(world.path("stick/vault")).unwrap();
    world.packetboat("laptop", &["sync", "docs"]).fails();
    let begun = world.packetboat("laptop", &["sync", "docs", "--rebind", "--name", "laptop"]).succeeds();
    assert!(begun.stderr.contains("Created the vault"), "{}", begun.seen);
    world.sync("desktop", "work");
    assert_eq!(world.names("work"), ["a.txt", "sub"]);
    world.packetboat("laptop", &["sync", "docs"]).without_passphrase().succeeds();
}

#[test]
fn a_moved_folder_is_followed() {
    let world = World::with_vault();
    fs::rename(world.path("docs"), world.path("papers")).unwrap();
    let moved = world.packetboat("laptop", &["sync", "papers"]).without_passphrase().succeeds();
    assert_snapshot!(moved.seen);
    let after = world.packetboat("laptop", &["sync"]).without_passphrase().within("papers/sub").succeeds();
    assert_eq!(after.stderr, "");
}

#[test]
fn a_copied_folder_is_a_device_of_its_own() {
    let world = World::with_vault();
    copy_all(&world.path("docs"), &world.path("copy"));
    let looked = world.packetboat("laptop", &["conflicts", "--folder", "copy"]).fails();
    let bound = world.packetboat("laptop", &["sync", "copy", "--name", "copy"]).succeeds();
    world.write("copy/c.txt", "gamma\n");
    world.packetboat("laptop", &["sync", "copy"]).succeeds();
    world.packetboat("laptop", &["sync", "docs"]).succeeds();
    assert_eq!(world.read("docs/c.txt"), "gamma\n");
    assert_eq!(world.names("copy"), world.names("docs"), "no conflict copies");
    let devices = world.packetboat("laptop", &["devices", "--json", "--folder", "docs"]).succeeds().json();
    assert_eq!(devices["devices"].as_array().unwrap().len(), 2);
    assert_snapshot!(looked.seen + &bound.seen);
}

#[test]
fn a_lost_index_goes_on_as_a_new_device_and_deletes_nothing() {
    let world = World::with_two_devices();
    world.write("docs/unsent.txt", "unsent\n");
    fs::remove_dir_all(world.path("state-laptop")).unwrap();
    let alone = world.packetboat("laptop", &["sync", "docs"]).fails();
    let again = world.packetboat("laptop", &["sync", "docs", "stick/vault", "--name", "laptop again"]).succeeds();
    world.sync("desktop", "work");
    assert_eq!(world.names("docs"), ["a.txt", "sub", "unsent.txt"]);
    assert_eq!(world.names("work"), ["a.txt", "sub", "unsent.txt"]);
    assert_snapshot!(alone.seen + &again.seen);
}

#[test]
fn a_folder_belongs_to_one_vault() {
    let world = World::with_vault();
    let inner = world.packetboat("laptop", &["sync", "docs/sub", "stick/other"]).fails();
    world.write("around/inner/x.txt", "x\n");
    world.packetboat("laptop", &["sync", "around/inner", "stick/inner"]).succeeds();
    let outer = world.packetboat("laptop", &["sync", "around", "stick/outer"]).fails();
    assert!(!world.exists("stick/other") && !world.exists("stick/outer"));
    assert_snapshot!(inner.seen + &outer.seen);
}

#[test]
fn two_at_once_are_one_too_many() {
    let world = World::with_vault();
    let lock = ReplicaLock::acquire(&world.replica_state("laptop").join("lock")).unwrap();
    let ran = world.packetboat("laptop", &["sync", "docs"]).fails();
    drop(lock);
    world.packetboat("laptop", &["sync", "docs"]).succeeds();
    assert_snapshot!(ran.seen);
}

#[test]
fn state_within_the_folder_is_not_synchronised() {
    let world = World::new();
    world.write("home/notes.txt", "notes\n");
    world.write("home/.config/x", "x\n");
    let state = world.path("home/.local/state/packetboat");
    let here = |arguments: &[&str]| {
        world.packetboat("laptop", arguments).with("PACKETBOAT_STATE_DIR", state.to_str().unwrap())
    };
    here(&["sync", "home", "stick/vault"]).succeeds();
    here(&["sync", "home"]).succeeds();
    world.sync("desktop", "work");
    assert!(world.exists("work/.config/x"));
    assert!(!world.exists("work/.local/state/packetboat"));
    let quiet = here(&["sync", "home", "--json"]).succeeds().json();
    assert_eq!(quiet["up"]["changed"], 0);
}

#[test]
fn state_within_the_intermediary_is_refused() {
    let world = World::new();
    world.write("docs/a.txt", "alpha\n");
    let state = world.path("stick/state");
    let ran = world
        .packetboat("laptop", &["sync", "docs", "stick"])
        .with("PACKETBOAT_STATE_DIR", state.to_str().unwrap())
        .fails();
    assert!(world.names("stick").is_empty());
    assert_snapshot!(ran.seen);
}

#[test]
fn errors_are_json_too_where_asked_for() {
    let world = World::new();
    let ran = world.packetboat("laptop", &["sync", "--json"]).fails();
    assert_eq!(ran.json()["schema"], 1);
    assert!(ran.json()["error"]["hint"].is_string());
    assert!(ran.stderr.starts_with("Error: "));
}

#[test]
fn wrong_usage_has_its_own_exit_code() {
    let world = World::new();
    assert_eq!(world.packetboat("laptop", &["sync", "a", "b", "c"]).run().code, 2);
    assert_eq!(world.packetboat("laptop", &["sync", "--threads", "0"]).run().code, 2);
    assert_eq!(world.packetboat("laptop", &["snyc"]).run().code, 2);
}

#[test]
fn a_sparse_file_arrives_sparse_and_takes_no_room_on_the_way() {
    use std::os::unix::fs::{FileExt, MetadataExt};
    let world = World::with_vault();
    let file = std::fs::File::create(world.path("docs/sparse")).unwrap();
    file.set_len(32 * 1024 * 1024).unwrap();
    file.write_all_at(b"the end", 32 * 1024 * 1024 - 7).unwrap();
    drop(file);
    world.sync("laptop", "docs");
    world.sync("desktop", "work");
    let bytes = std::fs::read(world.path("work/sparse")).unwrap();
    assert_eq!(bytes.len(), 32 * 1024 * 1024);
    assert!(bytes.ends_with(b"the end") && bytes[..bytes.len() - 7].iter().all(|byte| *byte == 0));
    let room = std::fs::metadata(world.path("work/sparse")).unwrap().blocks() * 512;
    assert!(room < 8 * 1024 * 1024, "{room} bytes on disk");
    let stored = std::process::Command::new("du").arg("-sb").arg(world.path("stick")).output().unwrap().stdout;
    let stored: u64 = String::from_utf8_lossy(&stored).split_whitespace().next().unwrap().parse().unwrap();
    assert!(stored < 1024 * 1024, "{stored} bytes for next to nothing");
}
