//! Two devices that synchronise again and again while programs write: whatever a program finished writing is there in the
//! end, or was knowingly replaced.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::World;

/// Every file of a folder with its text.
fn texts(root: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(at) = pending.pop() {
        for entry in fs::read_dir(&at).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap() == ".packetboat" {
                continue;
            }
            match path.is_dir() {
                true => pending.push(path),
                false => {
                    let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
                    found.push((path.strip_prefix(root).unwrap().to_owned(), text));
                }
            }
        }
    }
    found.sort();
    found
}

/// Whether a text stands anywhere, under its own name or as a side of a conflict.
fn was_kept(world: &World, text: &str) -> bool {
    ["docs", "work"].iter().any(|folder| texts(&world.path(folder)).iter().any(|(_, found)| found == text))
}

/// An editor: writes another file and renames it over the one edited. Returns what it wrote last.
fn editor(file: &Path, who: &str, stop: &AtomicBool) -> String {
    let mut last = String::new();
    for at in 0.. {
        last = format!("{who} saved {at}\n{}", "x".repeat(at % 5000));
        let aside = file.with_extension("tmp~");
        fs::write(&aside, &last).unwrap();
        // The directory may just be renamed; the next save finds it.
        let _ = fs::rename(&aside, file);
        std::thread::sleep(Duration::from_millis(37));
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    last
}

/// A program that writes in place, in pieces. Returns what it wrote last.
fn in_place(file: &Path, who: &str, stop: &AtomicBool) -> String {
    use std::io::Write;
    for at in 0.. {
        let mut text = format!("{who} wrote {at}\n");
        let mut open = fs::File::create(file).unwrap();
        open.write_all(text.as_bytes()).unwrap();
        for piece in 0..4 {
            std::thread::sleep(Duration::from_millis(7));
            let line = format!("piece {piece} of {at}\n");
            open.write_all(line.as_bytes()).unwrap();
            text.push_str(&line);
        }
        if stop.load(Ordering::Relaxed) {
            return text;
        }
    }
    unreachable!("it goes on until it is stopped")
}

/// A checkout back and forth: files come, change and go. Ends on the branch "b".
fn checkout(tree: &Path, stop: &AtomicBool) {
    for at in 0.. {
        let on_b = at % 2 == 1;
        for file in 0..12 {
            let path = tree.join(format!("src/m{}/f{file}.rs", file % 3));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let _ = fs::remove_file(&path);
            if on_b || file % 4 != 0 {
                fs::write(&path, format!("branch {} of {file}\n", if on_b { "b" } else { "a" })).unwrap();
            }
        }
        std::thread::sleep(Duration::from_millis(150));
        if on_b && stop.load(Ordering::Relaxed) {
            return;
        }
    }
}

fn keep_syncing(world: &World, device: &str, folder: &str, until: Instant) -> u32 {
    let mut rounds = 0;
    while Instant::now() < until {
        let ran = world.packetboat(device, &["sync", folder]).run();
        assert!(ran.code == 0, "{}", ran.seen);
        rounds += 1;
        std::thread::sleep(Duration::from_millis(200));
    }
    rounds
}

#[test]
#[ignore = "it takes half a minute"]
fn what_programs_finish_writing_while_devices_synchronise_is_kept() {
    let world = World::with_two_devices();
    fs::create_dir_all(world.path("docs/code")).unwrap();
    let (stop, until) = (AtomicBool::new(false), Instant::now() + Duration::from_secs(25));
    let last = std::thread::scope(|scope| {
        let (stop, world) = (&stop, &world);
        let one = scope.spawn(move || keep_syncing(world, "laptop", "docs", until));
        let two = scope.spawn(move || keep_syncing(world, "desktop", "work", until));
        let programs = [
            scope.spawn(move || editor(&world.path("docs/a.txt"), "laptop's editor", stop)),
            scope.spawn(move || editor(&world.path("work/own.txt"), "desktop's editor", stop)),
            scope.spawn(move || in_place(&world.path("docs/log"), "laptop's log", stop)),
            scope.spawn(move || in_place(&world.path("work/shared"), "desktop's shared", stop)),
            scope.spawn(move || editor(&world.path("docs/shared"), "laptop's shared", stop)),
        ];
        let tree = scope.spawn(move || checkout(&world.path("docs/code"), stop));
        println!("{} and {} rounds", one.join().unwrap(), two.join().unwrap());
        stop.store(true, Ordering::Relaxed);
        tree.join().unwrap();
        programs.map(|program| program.join().unwrap())
    });
    // The record of a write in the last moment is not trusted for a while, so nothing has to be waited for.
    for _ in 0..3 {
        world.sync("laptop", "docs");
        world.sync("desktop", "work");
    }
    let (docs, work) = (texts(&world.path("docs")), texts(&world.path("work")));
    assert_eq!(
        docs.iter().map(|(path, _)| path).collect::<Vec<_>>(),
        work.iter().map(|(path, _)| path).collect::<Vec<_>>()
    );
    assert!(docs == work, "the same files with other contents");
    for text in &last {
        assert!(was_kept(&world, text), "lost: {}", text.lines().next().unwrap_or_default());
    }
    for file in 0..12 {
        let text = world.read(&format!("work/code/src/m{}/f{file}.rs", file % 3));
        assert_eq!(text, format!("branch b of {file}\n"));
    }
    let strays: Vec<_> = docs
        .iter()
        .filter(|(path, _)| path.starts_with("code") && path.to_string_lossy().contains("conflict"))
        .collect();
    assert!(strays.is_empty(), "only one device wrote there: {strays:?}");
    assert!(!docs.iter().any(|(path, _)| path.to_string_lossy().starts_with("log (")), "only one device wrote the log");
}
