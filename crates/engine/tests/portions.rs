//! A folder of which nothing is recorded is taken in by portions, and nobody can tell.

mod support;

use packetboat_engine::ports::Silent;
use packetboat_engine::replica::{Report, SyncOptions};

use support::{Device, Pair};

/// A tree of several levels: directories with files and directories in them, and one that is empty.
fn fill(device: &Device) {
    for n in 0..60 {
        device.fs.write(format!("d{}/e{}/file {n}", n % 4, n % 7), format!("text {n}").as_bytes()).unwrap();
        device.fs.write(format!("d{}/file {n}", n % 4), format!("other {n}").as_bytes()).unwrap();
        device.fs.write(format!("file {n}"), b"the same in all").unwrap();
    }
    device.fs.make_dir("empty").unwrap();
}

fn with_portions(portion: usize) -> (Pair, Report) {
    let mut pair = Pair::new();
    fill(&pair.laptop);
    pair.pass();
    pair.laptop.replica.settings_mut().portion = portion;
    let report = pair.laptop.sync();
    (pair, report)
}

#[test]
fn a_folder_taken_in_by_portions_is_taken_in_whole() {
    let (_, whole) = with_portions(usize::MAX);
    for portion in [1, 7, 50] {
        let (mut pair, report) = with_portions(portion);
        assert_eq!(report.sent, whole.sent, "portions of {portion}");
        assert_eq!((report.objects, report.problems), (whole.objects, whole.problems), "portions of {portion}");
        assert!(portion > 7 || report.published.packets > 1, "there was only one portion: {report:?}");
        let again = pair.laptop.sync();
        assert_eq!((again.sent.created, again.objects), (0, whole.objects), "portions of {portion}");
        pair.desk.sync();
        assert_eq!(pair.desk.files(), pair.laptop.files(), "portions of {portion}");
    }
}

#[test]
fn a_full_folder_joins_by_portions_and_agrees_with_what_the_vault_has() {
    let (pair, whole) = with_portions(usize::MAX);
    let mut third = pair.third();
    fill(&third);
    third.fs.write("d1/file 1", b"written here").unwrap();
    third.replica.settings_mut().portion = 5;
    let report = third.replica.sync(SyncOptions::default(), &mut Silent).unwrap();
    assert_eq!((report.sent.created, report.sent.edited), (0, 1), "{report:?}");
    assert_eq!(report.sent.agreed, whole.sent.created - 1, "{report:?}");
    assert_eq!(report.conflicts, 1);
}

#[test]
fn a_folder_that_is_recorded_is_scanned_whole_so_that_moves_are_seen() {
    let (mut pair, _) = with_portions(usize::MAX);
    pair.pass();
    pair.laptop.replica.settings_mut().portion = 1;
    pair.laptop.fs.rename("d0", "e").unwrap();
    let report = pair.laptop.sync();
    assert_eq!((report.sent.moved, report.sent.created, report.sent.deleted), (1, 0, 0), "{report:?}");
}
