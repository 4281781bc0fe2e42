//! A vault whose storage damages or loses one object: what is shown is right or refused, and `verify --deep` finds it.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use common::{World, copy_all};

/// A vault with a checkpoint-less history of two devices: packets, packs and tips.
fn vault() -> (World, BTreeMap<String, Vec<u8>>) {
    let world = World::new();
    let large: String = (0..120_000u32).map(|at| format!("{:x}", at.wrapping_mul(2_654_435_761) >> 3)).collect();
    world.write("docs/a.txt", "alpha\n");
    world.write("docs/sub/b.txt", "beta\n");
    world.write("docs/large", &large);
    world.sync("laptop", "docs");
    world.sync("desktop", "work");
    // Until the laptop says that it knows the desktop, that one stores anew what the laptop stored, and is spare to it.
    world.write("docs/sub/b.txt", "beta of the laptop\n");
    world.sync("laptop", "docs");
    world.sync("desktop", "work");
    world.write("work/a.txt", "alpha of the desktop\n");
    world.write("work/sub/c.txt", &large[1000..90_000]);
    world.sync("desktop", "work");
    world.sync("laptop", "docs");
    let files = contents(&world.path("docs"));
    (world, files)
}

fn contents(root: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(root: &Path, at: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
        let Ok(entries) = fs::read_dir(at) else { return };
        for entry in entries {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true if path.file_name().unwrap() == ".packetboat" => {}
                true => walk(root, &path, found),
                false => {
                    let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                    found.insert(name, fs::read(&path).unwrap());
                }
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(root, root, &mut found);
    found
}

fn objects(at: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(at).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(objects(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

/// Lets a new device join the vault as it lies there now, and holds what it shows to what was ever written.
fn join(world: &World, at: usize, what: &str, files: &BTreeMap<String, Vec<u8>>) -> bool {
    let (device, folder) = (format!("joiner{at}"), format!("join{at}"));
    let ran = world.packetboat(&device, &["sync", &folder, "stick/vault", "--name", &device]).run();
    assert!(ran.code == 0 || ran.code == 1, "{what}: {}", ran.seen);
    assert!(!ran.stderr.contains("panicked"), "{what}: {}", ran.seen);
    if ran.code == 1 {
        assert!(ran.stderr.contains("Hint: "), "{what} has no hint: {}", ran.seen);
    }
    let joined = contents(&world.path(&folder));
    for (path, bytes) in &joined {
        let before = path == "a.txt" && bytes == b"alpha\n";
        assert!(before || files.get(path) == Some(bytes), "{what}: {path} has wrong content");
    }
    let whole = &joined == files;
    if ran.code == 0 && !whole {
        let told = !ran.stdout.starts_with("In step") || ran.stdout.contains("problem") || !ran.stderr.is_empty();
        assert!(told, "{what}: something is missing and nothing is said: {}", ran.seen);
    }
    whole
}

#[test]
fn a_flipped_byte_in_any_object_is_refused_and_found() {
    let (world, files) = vault();
    let vault = world.path("stick/vault");
    let good = world.path("good");
    copy_all(&vault, &good);
    let mut at = 0;
    for object in objects(&vault) {
        let name = object.strip_prefix(&vault).unwrap().display().to_string();
        let bytes = fs::read(&object).unwrap();
        for position in [0, bytes.len() / 3, bytes.len() - 1] {
            let what = format!("{name} flipped at {position} of {}", bytes.len());
            let mut flipped = bytes.clone();
            flipped[position] ^= 0x40;
            fs::write(&object, &flipped).unwrap();
            let found = world.packetboat("laptop", &["verify", "--deep"]).within("docs").run();
            assert_eq!(found.code, 1, "{what} is not found: {}", found.seen);
            join(&world, at, &what, &files);
            fs::remove_dir_all(&vault).unwrap();
            copy_all(&good, &vault);
            at += 1;
        }
    }
    assert!(at >= 18, "{at}");
    world.packetboat("laptop", &["verify", "--deep"]).within("docs").succeeds();
}

#[test]
fn any_missing_object_is_told_and_found() {
    let (world, files) = vault();
    let vault = world.path("stick/vault");
    let good = world.path("good");
    copy_all(&vault, &good);
    for (at, object) in objects(&vault).into_iter().enumerate() {
        let name = object.strip_prefix(&vault).unwrap().display().to_string();
        let what = format!("{name} missing");
        fs::remove_file(&object).unwrap();
        let found = world.packetboat("laptop", &["verify", "--deep"]).within("docs").run();
        assert_eq!(found.code, 1, "{what} is not found: {}", found.seen);
        if name != "packetboat" {
            join(&world, at, &what, &files);
        }
        fs::remove_dir_all(&vault).unwrap();
        copy_all(&good, &vault);
    }
}

#[test]
fn a_vault_that_lost_its_marker_goes_on_and_gets_it_back() {
    // Any device in the vault had stopped there, and the command that writes a marker anew as well.
    let world = World::with_two_devices();
    let marker = world.path("stick/vault/packetboat");
    let sound = fs::read(&marker).unwrap();
    let damages = [Some([&sound[..40], b"torn"].concat()), Some(Vec::new()), Some(vec![7; 1 << 20]), None];
    for (at, lost) in damages.into_iter().enumerate() {
        match lost {
            Some(bytes) => fs::write(&marker, bytes).unwrap(),
            None => fs::remove_file(&marker).unwrap(),
        }
        let stranger = world.packetboat("stranger", &["sync", "new", "stick/vault"]).run();
        assert!(stranger.code == 1 && stranger.stderr.contains("packetboat sync"), "{}", stranger.seen);
        assert!(!world.exists("new"), "{}", stranger.seen);
        let looked = world.packetboat("laptop", &["sync", "docs", "--dry-run"]).succeeds();
        assert!(looked.stderr.is_empty(), "{}", looked.seen);
        let doctor = world.packetboat("laptop", &["doctor"]).within("docs").run();
        assert!(
            doctor.code == 1 && doctor.stdout.contains("puts back the copy that this device keeps"),
            "{}",
            doctor.seen
        );
        let verified = world.packetboat("laptop", &["verify"]).within("docs").run();
        assert!(verified.code == 1 && verified.stdout.contains("this device can put it back"), "{}", verified.seen);

        let text = format!("written meanwhile {at}\n");
        world.write("docs/a.txt", &text);
        let told = world.packetboat("laptop", &["sync", "docs"]).succeeds();
        assert!(told.stderr.contains("this device's copy was put back"), "{}", told.seen);
        assert_eq!(fs::read(&marker).unwrap(), sound);
        world.packetboat("desktop", &["sync", "work"]).succeeds();
        assert_eq!(world.read("work/a.txt"), text);
        world.packetboat("laptop", &["verify"]).within("docs").succeeds();
        let again = world.packetboat("laptop", &["sync", "docs"]).succeeds();
        assert!(again.stderr.is_empty(), "{}", again.seen);
        let device = ["first", "second", "third", "fourth"][at];
        world.sync(device, device);
        assert_eq!(world.read(&format!("{device}/a.txt")), text);
    }
    // An empty mount point is no vault that lost its marker.
    fs::rename(world.path("stick/vault"), world.path("stick/away")).unwrap();
    fs::create_dir(world.path("stick/vault")).unwrap();
    world.packetboat("laptop", &["sync", "docs"]).fails();
    assert_eq!(fs::read_dir(world.path("stick/vault")).unwrap().count(), 0);
}

#[test]
fn a_vault_that_lost_its_marker_and_all_tips_goes_on() {
    // Every command took it for another place, on every device and for ever, though lanes and packs were there.
    for damage in ["gone", "cut"] {
        let world = World::with_two_devices();
        let (marker, tips) = (world.path("stick/vault/packetboat"), world.path("stick/vault/tips"));
        let sound = fs::read(&marker).unwrap();
        match damage {
            "gone" => fs::remove_file(&marker).unwrap(),
            _ => fs::write(&marker, &sound[..60]).unwrap(),
        }
        fs::remove_dir_all(&tips).unwrap();
        world.write("docs/a.txt", "written meanwhile\n");
        for _ in 0..2 {
            world.packetboat("laptop", &["sync", "docs"]).succeeds();
            world.packetboat("desktop", &["sync", "work"]).succeeds();
        }
        assert_eq!((fs::read(&marker).unwrap(), world.read("work/a.txt").as_str()), (sound, "written meanwhile\n"));
        assert_eq!(fs::read_dir(&tips).unwrap().count(), 2);
        world.packetboat("laptop", &["verify", "--deep"]).within("docs").succeeds();
    }
}

#[test]
fn a_lost_marker_is_written_anew_for_another_passphrase_and_not_for_the_one_that_it_had() {
    let world = World::with_two_devices();
    let marker = world.path("stick/vault/packetboat");
    fs::remove_file(&marker).unwrap();
    let same = world.packetboat("laptop", &["key", "passphrase"]).within("docs").fails();
    assert!(same.stderr.contains("that is the passphrase which the vault has now"), "{}", same.seen);
    assert!(!marker.exists());
    let with = |device: &'static str, arguments: &[&str], within: &str| {
        world.packetboat(device, arguments).within(within).with("PACKETBOAT_PASSPHRASE", "another horse").succeeds()
    };
    let changed = with("laptop", &["key", "passphrase"], "docs");
    assert!(changed.stdout.contains("New recovery key"), "a copy may hold one that was replaced: {}", changed.seen);
    with("third", &["sync", "third", "stick/vault"], ".");
    assert_eq!(world.read("third/a.txt"), world.read("docs/a.txt"));
    world.packetboat("laptop", &["verify"]).within("docs").succeeds();
}
