//! No path leaves the root, whoever races with us, and the awkward objects of real disks are met with errors.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::FileType;

use super::look::MANY_ENTRIES;
use super::*;

fn path(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).unwrap()
}

/// Creates files beneath `inside/swapped` while that is swapped with a symlink to `outside`.
fn nothing_escapes(open: fn(&Path) -> io::Result<RealFs>) {
    let temp = tempfile::tempdir().unwrap();
    let (inside, outside) = (temp.path().join("inside"), temp.path().join("outside"));
    std::fs::create_dir_all(inside.join("swapped/deep")).unwrap();
    std::fs::create_dir_all(outside.join("deep")).unwrap();
    symlink(&outside, inside.join("other")).unwrap();
    let fs = open(&inside).unwrap();
    let done = AtomicBool::new(false);
    let (created, refused) = std::thread::scope(|scope| {
        scope.spawn(|| {
            let swapper = RealFs::open(&inside).unwrap();
            while !done.load(Ordering::Relaxed) {
                swapper.exchange(&path("swapped"), &path("other")).unwrap();
            }
        });
        let (mut created, mut refused) = (0, 0);
        let mut count = |result: io::Result<()>| match result {
            Ok(()) => created += 1,
            Err(error) => {
                assert_ne!(error.kind(), io::ErrorKind::AlreadyExists);
                refused += 1;
            }
        };
        for round in 0..4_000 {
            count(fs.create_new(&path(&format!("swapped/f{round}"))).map(drop));
            count(fs.create_new(&path(&format!("swapped/deep/f{round}"))).map(drop));
            count(fs.mkdir(&path(&format!("swapped/deep/d{round}")), 0o700));
            count(fs.symlink(b"nowhere", &path(&format!("swapped/deep/l{round}"))));
        }
        done.store(true, Ordering::Relaxed);
        (created, refused)
    });
    let strays: Vec<_> = std::fs::read_dir(&outside).unwrap().collect();
    assert_eq!(strays.len(), 1, "only the directory that was there: {strays:?}");
    assert_eq!(std::fs::read_dir(outside.join("deep")).unwrap().count(), 0);
    assert!(created > 0 && refused > 0, "the race was run: {created} created, {refused} refused");
}

#[test]
fn a_directory_swapped_for_a_symlink_lets_nothing_escape() {
    nothing_escapes(RealFs::open);
}

#[test]
fn a_directory_swapped_for_a_symlink_lets_nothing_escape_without_openat2() {
    nothing_escapes(RealFs::open_name_by_name);
}

#[test]
fn a_large_directory_is_listed_whole_by_two_threads() {
    let temp = tempfile::tempdir().unwrap();
    for number in 0..MANY_ENTRIES + 1 {
        std::fs::write(temp.path().join(number.to_string()), [0; 1]).unwrap();
    }
    let listed = RealFs::open(temp.path()).unwrap().read_dir(&RelPath::root()).unwrap();
    let mut names: Vec<_> = listed.iter().map(|entry| entry.name.clone()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), MANY_ENTRIES + 1);
    assert!(listed.iter().all(|entry| entry.stat.is_ok_and(|stat| stat.size == 1)));
}

#[test]
fn a_path_deeper_than_the_kernel_takes_at_once_is_reached() {
    let temp = tempfile::tempdir().unwrap();
    let fs = RealFs::open(temp.path()).unwrap();
    let name = Name::new(vec![b'd'; 200]).unwrap();
    let mut at = RelPath::root();
    for _ in 0..25 {
        at = at.join(&name);
        fs.mkdir(&at, 0o700).unwrap();
    }
    assert!(at.as_bytes().len() > 4096);
    fs.create_new(&at.join(&name)).unwrap();
    assert_eq!(fs.read_dir(&at).unwrap().len(), 1);
}

#[test]
fn a_fifo_is_listed_and_neither_opened_nor_waited_for() {
    let temp = tempfile::tempdir().unwrap();
    rustix::fs::mknodat(CWD, temp.path().join("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let fs = RealFs::open(temp.path()).unwrap();
    assert_eq!(fs.lstat(&path("fifo")).unwrap().kind, FileKind::Special);
    assert!(fs.open(&path("fifo")).is_err());
    assert_eq!(fs.xattrs(&path("fifo")).unwrap(), vec![]);
    assert!(fs.set_mode(&path("fifo"), 0o600).is_err());
}

#[test]
fn renaming_by_link_refuses_what_is_taken_and_moves_what_is_not() {
    let temp = tempfile::tempdir().unwrap();
    let fs = RealFs::open(temp.path()).unwrap();
    let rename = |from: &str, to: &str| {
        let (from_parent, from) = fs.parent(&path(from)).unwrap();
        let (to_parent, to) = fs.parent(&path(to)).unwrap();
        rename_new_by_link((&from_parent, from.as_bytes()), (&to_parent, to.as_bytes()))
    };
    for name in ["a", "b"] {
        std::fs::write(temp.path().join(name), name).unwrap();
        fs.mkdir(&path(&format!("{name}-dir")), 0o700).unwrap();
    }
    assert_eq!(rename("a", "b").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(rename("a-dir", "b-dir").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    rename("a", "a-dir/c").unwrap();
    rename("a-dir", "c-dir").unwrap();
    assert_eq!(std::fs::read(temp.path().join("c-dir/c")).unwrap(), b"a");
    assert!(fs.lstat(&path("a")).is_err());
}

#[test]
fn bits_of_an_unreadable_file_can_be_changed_and_setuid_cannot_be_set() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("f");
    std::fs::write(&file, b"").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o000)).unwrap();
    let fs = RealFs::open(temp.path()).unwrap();
    fs.set_mode(&path("f"), 0o640).unwrap();
    assert_eq!(fs.lstat(&path("f")).unwrap().mode, 0o640);
    assert!(fs.set_mode(&path("f"), 0o4755).is_err());
}
