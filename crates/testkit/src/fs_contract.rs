//! What every implementation of [`Fs`] must do, as one suite to run against each.
//!
//! Each check works in a directory of its own and panics where the contract is broken, as tests do.

use std::io::{self, ErrorKind};

use packetboat_core::name::{Name, RelPath};
use packetboat_replica::fs::{FileKind, Fs, Stat};

/// What the file system beneath an implementation can do.
#[derive(Clone, Copy, Debug)]
pub struct Abilities {
    /// It has `user.*` extended attributes.
    pub xattrs: bool,
    /// It can swap two names.
    pub exchange: bool,
}

/// Runs every check.
///
/// # Panics
/// Where the contract is broken.
pub fn check_fs(fs: &dyn Fs, abilities: Abilities) {
    let checks: [(&str, Check); 15] = [
        ("a new file is empty, private and exclusive", new_file_is_empty_private_and_exclusive),
        ("what is written is read back", what_is_written_is_read_back),
        ("only regular files are opened", only_regular_files_are_opened),
        ("a new directory or symlink refuses a taken name", taken_names_are_refused),
        ("rename_new refuses a taken name", rename_new_refuses_a_taken_name),
        ("a rename keeps the object", a_rename_keeps_the_object),
        ("rename_over replaces", rename_over_replaces),
        ("a directory is not moved into itself", a_directory_is_not_moved_into_itself),
        ("unlink removes files and symlinks only", unlink_removes_files_and_symlinks_only),
        ("rmdir refuses what is not an empty directory", rmdir_refuses_all_but_empty_directories),
        ("no symlink is followed", no_symlink_is_followed),
        ("modes are set and limited", modes_are_set_and_limited),
        ("an open file outlives its name", an_open_file_outlives_its_name),
        ("a listing shows every entry with its stat", a_listing_shows_every_entry),
        ("the root stays", the_root_stays),
    ];
    for (number, (claim, check)) in checks.iter().enumerate() {
        eprintln!("contract: {claim}");
        check(&Place::new(fs, number));
    }
    exchange_swaps(&Place::new(fs, 100), abilities.exchange);
    xattrs_are_kept(&Place::new(fs, 101), abilities.xattrs);
    fs.sync_dir(&RelPath::root()).unwrap();
    match fs.sync_all() {
        Ok(()) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported),
    }
    assert!(fs.free_bytes().unwrap() > 0);
}

type Check = fn(&Place<'_>);

/// A directory of one check.
struct Place<'a> {
    fs: &'a dyn Fs,
    dir: RelPath,
}

impl<'a> Place<'a> {
    fn new(fs: &'a dyn Fs, number: usize) -> Self {
        let place = Self { fs, dir: RelPath::root().join(&Name::new(format!("check-{number}")).unwrap()) };
        fs.mkdir(&place.dir, 0o755).unwrap();
        place
    }

    fn at(&self, path: &str) -> RelPath {
        path.split('/').fold(self.dir.clone(), |dir, name| dir.join(&Name::new(name).unwrap()))
    }

    fn write(&self, path: &str, bytes: &[u8]) -> Stat {
        let mut file = self.fs.create_new(&self.at(path)).unwrap();
        file.write_all(bytes).unwrap();
        file.sync().unwrap();
        file.stat().unwrap()
    }

    fn read(&self, path: &str) -> Vec<u8> {
        let mut file = self.fs.open(&self.at(path)).unwrap();
        let (mut bytes, mut buffer) = (Vec::new(), [0; 3]);
        loop {
            match file.read(&mut buffer).unwrap() {
                0 => return bytes,
                len => bytes.extend_from_slice(&buffer[..len]),
            }
        }
    }

    fn mkdir(&self, path: &str) {
        self.fs.mkdir(&self.at(path), 0o755).unwrap();
    }

    fn stat(&self, path: &str) -> io::Result<Stat> {
        self.fs.lstat(&self.at(path))
    }

    #[track_caller]
    fn gone(&self, path: &str) {
        assert_eq!(self.stat(path).unwrap_err().kind(), ErrorKind::NotFound);
    }
}

#[track_caller]
fn refused<T>(result: io::Result<T>, kind: ErrorKind) {
    match result {
        Ok(_) => panic!("not refused"),
        Err(error) => assert_eq!(error.kind(), kind, "{error}"),
    }
}

fn new_file_is_empty_private_and_exclusive(place: &Place<'_>) {
    let stat = place.fs.create_new(&place.at("f")).unwrap().stat().unwrap();
    assert_eq!((stat.kind, stat.size, stat.mode, stat.links), (FileKind::File, 0, 0o600, 1));
    assert_eq!(place.stat("f").unwrap(), stat);
    refused(place.fs.create_new(&place.at("f")), ErrorKind::AlreadyExists);
    refused(place.fs.create_new(&place.at("none/f")), ErrorKind::NotFound);
    refused(place.fs.create_new(&place.at("f/g")), ErrorKind::NotADirectory);
}

fn what_is_written_is_read_back(place: &Place<'_>) {
    let mut file = place.fs.create_new(&place.at("f")).unwrap();
    file.reserve(1_000).unwrap();
    assert_eq!(file.stat().unwrap().size, 0, "reserving does not show");
    file.write_all(b"hello, ").unwrap();
    file.write_all(b"world").unwrap();
    file.set_mtime(1_000_000_000_000_000_000).unwrap();
    file.set_mode(0o640).unwrap();
    file.sync().unwrap();
    let stat = place.stat("f").unwrap();
    assert_eq!((stat.size, stat.mode, stat.mtime), (12, 0o640, 1_000_000_000_000_000_000));
    assert_eq!(place.read("f"), b"hello, world");
    file.set_mtime(-2_000_000_000).unwrap();
    assert_eq!(place.stat("f").unwrap().mtime, -2_000_000_000, "before 1970");
    let mut read_only = place.fs.open(&place.at("f")).unwrap();
    assert!(read_only.write_all(b"x").is_err());
}

fn only_regular_files_are_opened(place: &Place<'_>) {
    place.mkdir("d");
    place.fs.symlink(b"f", &place.at("l")).unwrap();
    place.write("f", b"");
    assert!(place.fs.open(&place.at("d")).is_err());
    assert!(place.fs.open(&place.at("l")).is_err());
    refused(place.fs.open(&place.at("none")), ErrorKind::NotFound);
}

fn taken_names_are_refused(place: &Place<'_>) {
    place.mkdir("d");
    place.fs.symlink(b"any\xffwhere", &place.at("l")).unwrap();
    for name in ["d", "l"] {
        refused(place.fs.mkdir(&place.at(name), 0o700), ErrorKind::AlreadyExists);
        refused(place.fs.symlink(b"x", &place.at(name)), ErrorKind::AlreadyExists);
        refused(place.fs.create_new(&place.at(name)), ErrorKind::AlreadyExists);
    }
    assert_eq!(place.fs.read_link(&place.at("l")).unwrap(), b"any\xffwhere");
    assert!(place.fs.read_link(&place.at("d")).is_err());
    let stat = place.stat("l").unwrap();
    assert_eq!((stat.kind, stat.size), (FileKind::Symlink, 9));
}

fn rename_new_refuses_a_taken_name(place: &Place<'_>) {
    place.write("a", b"a");
    place.write("b", b"b");
    place.mkdir("d");
    for taken in ["a", "b", "d"] {
        refused(place.fs.rename_new(&place.at("a"), &place.at(taken)), ErrorKind::AlreadyExists);
    }
    refused(place.fs.rename_new(&place.at("none"), &place.at("new")), ErrorKind::NotFound);
    assert_eq!((place.read("a"), place.read("b")), (b"a".to_vec(), b"b".to_vec()));
}

fn a_rename_keeps_the_object(place: &Place<'_>) {
    let before = place.write("a", b"content");
    place.mkdir("d");
    place.mkdir("e");
    place.fs.rename_new(&place.at("a"), &place.at("d/b")).unwrap();
    place.gone("a");
    let after = place.stat("d/b").unwrap();
    assert_eq!((after.inode, after.mtime, after.btime), (before.inode, before.mtime, before.btime));
    place.fs.rename_new(&place.at("d"), &place.at("e/d")).unwrap();
    place.gone("d");
    assert_eq!(place.read("e/d/b"), b"content");
    place.fs.sync_dir(&place.at("e")).unwrap();
}

fn rename_over_replaces(place: &Place<'_>) {
    place.write("a", b"a");
    place.write("b", b"b");
    place.mkdir("d");
    place.mkdir("empty");
    place.fs.rename_over(&place.at("a"), &place.at("b")).unwrap();
    place.gone("a");
    assert_eq!(place.read("b"), b"a");
    assert!(place.fs.rename_over(&place.at("b"), &place.at("d")).is_err());
    assert!(place.fs.rename_over(&place.at("d"), &place.at("b")).is_err());
    place.fs.rename_over(&place.at("d"), &place.at("empty")).unwrap();
    place.gone("d");
    place.write("empty/f", b"");
    place.mkdir("d");
    refused(place.fs.rename_over(&place.at("d"), &place.at("empty")), ErrorKind::DirectoryNotEmpty);
}

fn a_directory_is_not_moved_into_itself(place: &Place<'_>) {
    place.mkdir("d");
    place.mkdir("d/e");
    refused(place.fs.rename_new(&place.at("d"), &place.at("d/e/f")), ErrorKind::InvalidInput);
    refused(place.fs.rename_over(&place.at("d"), &place.at("d/f")), ErrorKind::InvalidInput);
    assert_eq!(place.stat("d/e").unwrap().kind, FileKind::Directory);
}

fn unlink_removes_files_and_symlinks_only(place: &Place<'_>) {
    place.write("f", b"x");
    place.mkdir("d");
    place.fs.symlink(b"d", &place.at("l")).unwrap();
    place.fs.unlink(&place.at("f")).unwrap();
    place.fs.unlink(&place.at("l")).unwrap();
    place.gone("f");
    place.gone("l");
    refused(place.fs.unlink(&place.at("f")), ErrorKind::NotFound);
    assert!(place.fs.unlink(&place.at("d")).is_err());
    assert_eq!(place.stat("d").unwrap().kind, FileKind::Directory);
}

fn rmdir_refuses_all_but_empty_directories(place: &Place<'_>) {
    place.mkdir("d");
    place.write("d/f", b"x");
    refused(place.fs.rmdir(&place.at("d")), ErrorKind::DirectoryNotEmpty);
    refused(place.fs.rmdir(&place.at("d/f")), ErrorKind::NotADirectory);
    place.fs.unlink(&place.at("d/f")).unwrap();
    place.fs.rmdir(&place.at("d")).unwrap();
    place.gone("d");
}

fn no_symlink_is_followed(place: &Place<'_>) {
    place.mkdir("real");
    let before = place.write("real/f", b"x");
    place.fs.symlink(b"real", &place.at("l")).unwrap();
    place.fs.symlink(b"f", &place.at("real/to-f")).unwrap();
    assert!(place.stat("l/f").is_err());
    assert!(place.fs.open(&place.at("l/f")).is_err());
    assert!(place.fs.create_new(&place.at("l/new")).is_err());
    assert!(place.fs.mkdir(&place.at("l/new"), 0o700).is_err());
    assert!(place.fs.symlink(b"x", &place.at("l/new")).is_err());
    assert!(place.fs.rename_new(&place.at("real/f"), &place.at("l/new")).is_err());
    assert!(place.fs.rename_over(&place.at("l/f"), &place.at("moved")).is_err());
    assert!(place.fs.unlink(&place.at("l/f")).is_err());
    assert!(place.fs.read_dir(&place.at("l")).is_err());
    assert!(place.fs.sync_dir(&place.at("l")).is_err());
    assert!(place.fs.set_mode(&place.at("l/f"), 0o777).is_err());
    assert!(place.fs.set_mode(&place.at("l"), 0o700).is_err());
    assert!(place.fs.set_mode(&place.at("real/to-f"), 0o777).is_err());
    assert!(place.fs.set_xattr(&place.at("real/to-f"), b"user.a", Some(b"b")).is_err());
    assert_eq!(place.fs.xattrs(&place.at("real/to-f")).unwrap(), vec![]);
    assert_eq!(place.fs.read_dir(&place.at("real")).unwrap().len(), 2);
    assert_eq!(place.stat("real/f").unwrap(), before);
}

fn modes_are_set_and_limited(place: &Place<'_>) {
    place.write("f", b"x");
    place.mkdir("d");
    for path in ["f", "d"] {
        place.fs.set_mode(&place.at(path), 0).unwrap();
        assert_eq!(place.stat(path).unwrap().mode, 0);
        place.fs.set_mode(&place.at(path), 0o751).unwrap();
        assert_eq!(place.stat(path).unwrap().mode, 0o751);
        refused(place.fs.set_mode(&place.at(path), 0o4755), ErrorKind::InvalidInput);
    }
    refused(place.fs.mkdir(&place.at("sticky"), 0o1777), ErrorKind::InvalidInput);
    refused(place.fs.set_mode(&place.at("none"), 0o644), ErrorKind::NotFound);
}

fn an_open_file_outlives_its_name(place: &Place<'_>) {
    let mut file = place.fs.create_new(&place.at("f")).unwrap();
    place.fs.unlink(&place.at("f")).unwrap();
    file.write_all(b"still here").unwrap();
    file.sync().unwrap();
    let stat = file.stat().unwrap();
    assert_eq!((stat.size, stat.links), (10, 0));
    assert_eq!(place.fs.read_dir(&place.dir).unwrap(), vec![]);
}

fn a_listing_shows_every_entry(place: &Place<'_>) {
    place.write("f", b"x");
    place.mkdir("d");
    place.write("d/hidden", b"");
    place.fs.symlink(b"x", &place.at("l")).unwrap();
    let mut listed = place.fs.read_dir(&place.dir).unwrap();
    listed.sort_by(|a, b| a.name.cmp(&b.name));
    let names: Vec<_> = listed.iter().map(|entry| entry.name.as_slice()).collect();
    assert_eq!(names, [b"d", b"f", b"l"]);
    for (entry, path) in listed.iter().zip(["d", "f", "l"]) {
        assert_eq!(entry.stat.unwrap(), place.stat(path).unwrap());
    }
    refused(place.fs.read_dir(&place.at("none")), ErrorKind::NotFound);
    refused(place.fs.read_dir(&place.at("f")), ErrorKind::NotADirectory);
}

fn the_root_stays(place: &Place<'_>) {
    let root = RelPath::root();
    let fs = place.fs;
    assert_eq!(fs.lstat(&root).unwrap().kind, FileKind::Directory);
    assert!(!fs.read_dir(&root).unwrap().is_empty());
    assert!(fs.rmdir(&root).is_err());
    assert!(fs.unlink(&root).is_err());
    assert!(fs.mkdir(&root, 0o700).is_err());
    assert!(fs.create_new(&root).is_err());
    assert!(fs.rename_new(&root, &place.at("x")).is_err());
    assert!(fs.rename_over(&place.dir, &root).is_err());
    assert!(fs.xattrs(&root).is_ok());
}

fn exchange_swaps(place: &Place<'_>, able: bool) {
    let file = place.write("f", b"x");
    place.mkdir("d");
    place.write("d/inner", b"y");
    place.mkdir("e");
    if !able {
        return refused(place.fs.exchange(&place.at("f"), &place.at("d")), ErrorKind::Unsupported);
    }
    place.fs.exchange(&place.at("f"), &place.at("d")).unwrap();
    assert_eq!(place.stat("d").unwrap().inode, file.inode);
    assert_eq!(place.read("f/inner"), b"y");
    place.fs.exchange(&place.at("f/inner"), &place.at("e")).unwrap();
    assert_eq!(place.read("e"), b"y");
    assert_eq!(place.stat("f/inner").unwrap().kind, FileKind::Directory);
    refused(place.fs.exchange(&place.at("f"), &place.at("f/inner")), ErrorKind::InvalidInput);
    refused(place.fs.exchange(&place.at("f"), &place.at("none")), ErrorKind::NotFound);
}

fn xattrs_are_kept(place: &Place<'_>, able: bool) {
    place.write("f", b"x");
    place.mkdir("d");
    let long = vec![7; 1_000];
    for path in ["f", "d"] {
        let at = place.at(path);
        assert_eq!(place.fs.xattrs(&at).unwrap(), vec![]);
        refused(place.fs.set_xattr(&at, b"security.x", Some(b"1")), ErrorKind::PermissionDenied);
        if !able {
            assert!(path != "f" || place.fs.open(&at).unwrap().xattrs().unwrap().is_empty());
            refused(place.fs.set_xattr(&at, b"user.one", Some(b"1")), ErrorKind::Unsupported);
            continue;
        }
        place.fs.set_xattr(&at, b"user.two", Some(&long)).unwrap();
        place.fs.set_xattr(&at, b"user.one", Some(b"1")).unwrap();
        place.fs.set_xattr(&at, b"user.one", Some(b"")).unwrap();
        let both = vec![(b"user.one".to_vec(), Vec::new()), (b"user.two".to_vec(), long.clone())];
        assert_eq!(place.fs.xattrs(&at).unwrap(), both);
        if path == "f" {
            assert_eq!(place.fs.open(&at).unwrap().xattrs().unwrap(), both);
        }
        place.fs.set_xattr(&at, b"user.one", None).unwrap();
        place.fs.set_xattr(&at, b"user.one", None).unwrap();
        assert_eq!(place.fs.xattrs(&at).unwrap().len(), 1);
    }
}
