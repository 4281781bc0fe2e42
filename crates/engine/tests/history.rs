//! What a vault tells of its past, and how the past is brought back.
#![allow(dead_code)]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use packetboat_engine::error::QueryError;
use packetboat_engine::replica::{At, Received};
use packetboat_testkit::rng::Rng;
use packetboat_testkit::sim_fs::{SimFs, SimOptions};
use support::{Device, Pair, Watcher, files, path};

fn texts(device: &mut Device, of: &str) -> Vec<String> {
    let lines = device.replica.log(Some(&path(of)), 100).unwrap();
    lines
        .iter()
        .map(|line| {
            let current = if line.current { "*" } else { "" };
            let size = line.size.map(|size| format!(" {size}")).unwrap_or_default();
            format!("{}{current} {} at {}{size}", line.device, line.text, line.path.as_ref().unwrap())
        })
        .collect()
}

fn shown(device: &mut Device, of: &str, at: Option<&At>) -> Result<String, QueryError> {
    let mut out = Vec::new();
    device.replica.show(&path(of), at, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

/// A life of a few files: times are before the edit, after it, after the rename, and after the removal.
fn life() -> (Pair, [At; 4]) {
    let mut pair = Pair::new();
    pair.laptop.fs.write("notes/todo.md", b"one").unwrap();
    pair.laptop.fs.write("notes/other.md", b"other").unwrap();
    pair.settle();
    let made = At::Time(pair.pass());
    pair.desk.fs.write("notes/todo.md", b"one, two").unwrap();
    pair.settle();
    let edited = At::Time(pair.pass());
    pair.laptop.fs.rename("notes/todo.md", "notes/done.md").unwrap();
    pair.laptop.fs.rename("notes", "papers").unwrap();
    pair.laptop.fs.chmod("papers/done.md", 0o600).unwrap();
    pair.settle();
    let renamed = At::Time(pair.pass());
    pair.desk.fs.remove("papers/other.md").unwrap();
    pair.settle();
    let removed = At::Time(pair.pass());
    pair.assert_files(&[("papers/done.md", "one, two")]);
    (pair, [made, edited, renamed, removed])
}

#[test]
fn a_log_follows_a_file_across_renames_on_every_device() {
    let (mut pair, _) = life();
    for device in [&mut pair.laptop, &mut pair.desk] {
        let expected = [
            "laptop renamed from papers/todo.md, permissions 644 -> 600 at papers/done.md",
            "desk* changed at papers/todo.md 8",
            "laptop created at papers/todo.md 3",
        ];
        assert_eq!(texts(device, "papers/done.md"), expected);
        // The same under the paths that it had before.
        assert_eq!(texts(device, "papers/todo.md"), expected);
        assert_eq!(texts(device, "notes/todo.md"), expected);
        assert_eq!(
            texts(device, "notes/other.md"),
            ["desk deleted at papers/other.md", "laptop created at papers/other.md 5"]
        );
        assert_eq!(texts(device, "notes"), ["laptop renamed from notes at papers", "laptop* created at notes"]);
        let error = device.replica.log(Some(&path("never")), 10).unwrap_err();
        assert!(matches!(error, QueryError::NotFound { .. }), "{error}");
    }
}

#[test]
fn a_log_of_the_vault_says_in_words_what_each_packet_did() {
    let (mut pair, _) = life();
    let lines = pair.desk.replica.log(None, 100).unwrap();
    let texts: Vec<String> = lines.iter().map(|line| format!("{}: {}", line.device, line.text)).collect();
    assert_eq!(
        texts,
        [
            "desk: 1 deleted",
            "laptop: 2 moved, 1 with other attributes",
            "desk: 1 changed",
            "laptop: 3 new",
            "desk: desk joined",
            "laptop: laptop joined",
        ]
    );
    assert!(lines.windows(2).all(|pair| pair[0].time >= pair[1].time));
    assert_eq!(pair.desk.replica.log(None, 2).unwrap().len(), 2);
}

#[test]
fn packets_are_found_by_device_name_id_and_hash() {
    let (mut pair, _) = life();
    let lines = pair.desk.replica.log(None, 100).unwrap();
    let replica = &pair.desk.replica;
    let first = lines.iter().find(|line| line.text == "3 new").unwrap().packet;
    assert_eq!(replica.packet_named("laptop:2").unwrap(), first);
    assert_eq!(replica.packet_named(&first.to_string()).unwrap(), first);
    for bad in ["laptop:99", "laptop:0", "nobody:1", "laptop:x", "ab", "zzzzzz"] {
        assert!(matches!(replica.packet_named(bad), Err(QueryError::NoSuchPacket { .. })), "{bad}");
    }
}

#[test]
fn a_file_is_shown_as_it_was_under_the_path_it_had_or_has() {
    let (mut pair, [made, edited, renamed, _]) = life();
    for device in [&mut pair.laptop, &mut pair.desk] {
        assert_eq!(shown(device, "papers/done.md", None).unwrap(), "one, two");
        assert_eq!(shown(device, "notes/todo.md", Some(&made)).unwrap(), "one");
        assert_eq!(shown(device, "notes/todo.md", Some(&edited)).unwrap(), "one, two");
        // By the path that it has now.
        assert_eq!(shown(device, "papers/done.md", Some(&made)).unwrap(), "one");
        assert_eq!(shown(device, "papers/other.md", Some(&renamed)).unwrap(), "other");
        // What is there no more is told from what never was.
        match shown(device, "notes/todo.md", None) {
            Err(QueryError::ElsewhereNow { now, .. }) => assert_eq!(now, path("papers/done.md")),
            other => panic!("{other:?}"),
        }
        match shown(device, "papers/other.md", None) {
            Err(QueryError::Deleted(deletion)) => {
                assert_eq!(deletion.by.as_deref(), Some("desk"));
                assert!(deletion.time.is_some());
                let (then, packet) = deletion.last.unwrap();
                assert_eq!(shown(device, &then.to_string(), Some(&At::Packet(packet))).unwrap(), "other");
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(shown(device, "never.md", None), Err(QueryError::NotFound { .. })));
        assert!(matches!(shown(device, "papers/other.md", Some(&At::Time(0))), Err(QueryError::NotThen { .. })));
        // Nothing stands beneath a file.
        assert!(matches!(shown(device, "papers/done.md/x", None), Err(QueryError::NotFound { .. })));
        assert!(matches!(shown(device, "papers", None), Err(QueryError::IsDirectory { .. })));
        let packet = device.replica.packet_named("laptop:2").unwrap();
        assert_eq!(shown(device, "notes/todo.md", Some(&At::Packet(packet))).unwrap(), "one");
    }
}

#[test]
fn large_contents_are_shown_and_restored_from_packs() {
    let mut pair = Pair::new();
    let large: Vec<u8> = (0..2_200_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    pair.laptop.fs.write("large", &large).unwrap();
    pair.settle();
    let at = At::Time(pair.pass());
    pair.laptop.fs.write("large", b"small").unwrap();
    pair.settle();
    let mut out = Vec::new();
    pair.desk.replica.show(&path("large"), Some(&at), &mut out).unwrap();
    assert!(out == large);
    let received = pair.desk.replica.restore(Some(&path("large")), &at, None, &mut Watcher::default()).unwrap();
    assert_eq!(received, Received { edited: 1, bytes_written: 8_800_000, ..Received::default() });
    assert!(pair.desk.fs.read("large").unwrap() == large);
}

#[test]
fn everything_comes_back_into_another_directory_as_it_was() {
    let (mut pair, [made, ..]) = life();
    pair.laptop.fs.make_symlink(b"papers/done.md", "link").unwrap();
    pair.settle();
    let with_link = At::Time(pair.pass());
    for (at, expected) in [
        (&made, vec![("notes/other.md", "other"), ("notes/todo.md", "one")]),
        (&with_link, vec![("link", "-> papers/done.md"), ("papers/done.md", "one, two")]),
    ] {
        let to = SimFs::new(SimOptions::default());
        let received = pair.desk.replica.restore(None, at, Some(Arc::new(to.clone())), &mut Watcher::default());
        assert_eq!(received.unwrap().created, 3);
        assert_eq!(files(&to), expected.iter().map(|(p, t)| ((*p).to_owned(), (*t).to_owned())).collect::<Vec<_>>());
        assert!(!to.exists(".packetboat-restore"));
    }
    let stat = |fs: &SimFs, of: &str| {
        let stat = fs.stat(of).unwrap();
        (stat.mode, stat.mtime)
    };
    let to = SimFs::new(SimOptions::default());
    let one = path("papers/done.md");
    pair.desk.replica.restore(Some(&one), &with_link, Some(Arc::new(to.clone())), &mut Watcher::default()).unwrap();
    assert_eq!(stat(&to, "papers/done.md"), stat(&pair.laptop.fs, "papers/done.md"));
}

#[test]
fn a_restore_elsewhere_overwrites_nothing() {
    let (mut pair, [made, ..]) = life();
    let to = SimFs::new(SimOptions::default());
    to.write("notes/todo.md", b"mine").unwrap();
    let mut watcher = Watcher::default();
    let received = pair.desk.replica.restore(None, &made, Some(Arc::new(to.clone())), &mut watcher).unwrap();
    assert_eq!(received, Received { created: 1, bytes_written: 5, waiting: 1, ..Received::default() });
    assert_eq!(watcher.left, ["notes/todo.md: another file is there"]);
    assert_eq!(to.read("notes/todo.md").unwrap(), b"mine");
}

#[test]
fn a_restore_in_place_is_a_local_change_that_the_next_round_publishes() {
    let (mut pair, [made, edited, ..]) = life();
    pair.desk.replica.restore(Some(&path("notes")), &edited, None, &mut Watcher::default()).unwrap();
    pair.desk.replica.restore(Some(&path("papers/done.md")), &made, None, &mut Watcher::default()).unwrap();
    pair.settle();
    pair.assert_files(&[("notes/other.md", "other"), ("notes/todo.md", "one, two"), ("papers/done.md", "one")]);
    assert_eq!(
        texts(&mut pair.laptop, "papers/done.md")[0],
        "desk* changed, permissions 600 -> 644 at papers/done.md 3"
    );
    // It is undone by another.
    pair.desk.replica.restore(Some(&path("papers/done.md")), &edited, None, &mut Watcher::default()).unwrap();
    pair.settle();
    assert_eq!(pair.laptop.fs.read("papers/done.md").unwrap(), b"one, two");
}

#[test]
fn a_restore_in_place_leaves_what_was_not_synchronised() {
    let (mut pair, [made, ..]) = life();
    pair.pass();
    pair.desk.fs.write("papers/done.md", b"not yet sent").unwrap();
    pair.desk.fs.write("notes/todo.md", b"not known").unwrap();
    let mut watcher = Watcher::default();
    pair.desk.replica.restore(Some(&path("papers/done.md")), &made, None, &mut watcher).unwrap();
    pair.desk.replica.restore(None, &made, None, &mut watcher).unwrap();
    let reason = "it has changes that were not synchronised yet";
    assert_eq!(watcher.left, [format!("papers/done.md: {reason}"), format!("notes/todo.md: {reason}")]);
    assert_eq!(pair.desk.fs.read("papers/done.md").unwrap(), b"not yet sent");
    assert_eq!(pair.desk.fs.read("notes/todo.md").unwrap(), b"not known");
    assert_eq!(pair.desk.fs.read("notes/other.md").unwrap(), b"other");
}

#[test]
fn a_write_in_the_instant_of_restoring_is_kept() {
    let (mut pair, [made, ..]) = life();
    for call in 1..80 {
        let wrote = Arc::new(std::sync::Mutex::new(false));
        let flag = Arc::clone(&wrote);
        let text = format!("in the last moment, {call}");
        let bytes = text.clone().into_bytes();
        pair.desk.fs.on_call(call, move |fs| {
            fs.write("papers/done.md", &bytes).unwrap();
            *flag.lock().unwrap() = true;
        });
        pair.desk.replica.restore(Some(&path("papers/done.md")), &made, None, &mut Watcher::default()).unwrap();
        if !*wrote.lock().unwrap() {
            assert!(call > 5, "a restore makes more calls than that");
            return;
        }
        assert_eq!(String::from_utf8(pair.desk.fs.read("papers/done.md").unwrap()).unwrap(), text, "call {call}");
        pair.settle();
        pair.pass();
    }
    panic!("a restore of one file makes fewer calls than that");
}

#[test]
fn a_power_loss_while_restoring_leaves_the_old_file_or_the_new() {
    for n in 1..60 {
        let (mut pair, [made, ..]) = life();
        pair.desk.fs.settle();
        pair.desk.fs.crash_at(n);
        // It fails, or leaves the file and says so.
        let _ = pair.desk.replica.restore(Some(&path("papers/done.md")), &made, None, &mut Watcher::default());
        let whole = !pair.desk.fs.has_crashed();
        for seed in 0..20 {
            let after = pair.desk.fs.crash(&mut Rng::new(seed));
            let text = String::from_utf8(after.read("papers/done.md").unwrap()).unwrap();
            assert!(text == "one" || !whole && text == "one, two", "change {n}, seed {seed}: {text:?}");
        }
        if whole {
            assert!(n > 5, "a restore makes more changes than that");
            return;
        }
    }
    panic!("a restore of one file makes fewer changes than that");
}

#[test]
fn a_restore_in_place_works_on_a_file_system_that_can_do_little() {
    let (mut pair, [made, ..]) = life();
    pair.desk.fs.set_options(|options| {
        (options.no_exchange, options.no_sync_all, options.no_xattrs) = (true, true, true);
    });
    pair.desk.replica.restore(Some(&path("papers/done.md")), &made, None, &mut Watcher::default()).unwrap();
    assert_eq!(pair.desk.fs.read("papers/done.md").unwrap(), b"one");
    pair.settle();
    pair.assert_files(&[("papers/done.md", "one")]);
}

#[test]
fn status_tells_what_waits_and_that_the_storage_is_out_of_reach() {
    let (mut pair, _) = life();
    let status = pair.laptop.replica.status().unwrap();
    assert!(status.in_step, "{status:?}");
    assert_eq!((status.to_send, status.to_receive, status.conflicts, status.objects), (0, 0, 0, 2));
    assert!(status.last_in_step.is_some());
    assert_eq!(status.devices.len(), 2);
    assert_eq!(status.state, pair.desk.replica.status().unwrap().state);
    pair.desk.fs.write("new", b"new").unwrap();
    pair.desk.fs.remove("papers/done.md").unwrap();
    let status = pair.desk.replica.status().unwrap();
    assert_eq!((status.to_send, status.to_receive, status.in_step), (2, 0, false));
    pair.desk.sync();
    let status = pair.laptop.replica.status().unwrap();
    assert_eq!((status.to_send, status.to_receive, status.in_step), (0, 2, false));
    pair.out.store(true, Ordering::SeqCst);
    pair.laptop.fs.write("offline", b"offline").unwrap();
    let status = pair.laptop.replica.status().unwrap();
    assert_eq!(
        status.intermediary_reachable,
        Err("cannot read anything at the intermediary: no route to it".to_owned())
    );
    assert_eq!((status.to_send, status.to_receive, status.in_step), (1, 2, false));
    pair.laptop.fs.remove("offline").unwrap();
    pair.out.store(false, Ordering::SeqCst);
    // Asking changed nothing.
    pair.laptop.sync();
    assert!(pair.laptop.replica.status().unwrap().in_step);
    pair.assert_files(&[("new", "new")]);
}
