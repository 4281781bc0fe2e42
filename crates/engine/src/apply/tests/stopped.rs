//! Large files that a crash or the user stops.

use super::*;

#[test]
fn a_large_file_goes_on_where_a_crash_stopped_it() {
    let pieces: Vec<Vec<u8>> = (0..6u8).map(|at| vec![at; 3000]).collect();
    let whole = pieces.concat();
    for at in 1..100 {
        let mut world = World::new(SimOptions::default());
        world.limits.window = 7000;
        let content = packed(&mut world, &pieces.iter().map(Vec::as_slice).collect::<Vec<_>>());
        world.publish(vec![create(1, ROOT, "large", content)]);
        world.fs.settle();
        world.fs.crash_at(at);
        let ended = world.apply().is_ok();
        world.fs = if at % 2 == 0 { world.fs.kill() } else { world.fs.crash(&mut Rng::new(at)) };
        world.round().unwrap();
        assert_eq!(world.fs.read("large").unwrap(), whole);
        world.check_at_rest();
        if ended {
            return;
        }
    }
    panic!("it never ended");
}

/// Asks to stop once so many bytes of a file were written, and counts those written after that.
struct StopsAfter {
    bytes: u64,
    written: u64,
    flag: Arc<AtomicBool>,
}

impl Observer for StopsAfter {
    fn phase(&mut self, _: Phase, _: Option<u64>, _: Option<u64>) {}
    fn advance(&mut self, _: u64, bytes: u64) {
        self.written += bytes;
        self.flag.store(self.written >= self.bytes, Ordering::SeqCst);
    }
    fn note(&mut self, _: Note) {}
    fn interrupt(&self) -> Interrupt {
        Interrupt::by(Arc::clone(&self.flag))
    }
}

#[test]
fn a_wish_to_stop_is_heeded_within_a_large_file_and_what_was_received_is_kept() {
    let pieces: Vec<Vec<u8>> = (0..12u8).map(|at| vec![at; 3000]).collect();
    let whole = pieces.concat();
    for (threads, piece) in [(1, 1), (1, 5), (4, 5), (1, 11)] {
        let mut world = World::new(SimOptions::default());
        (world.threads, world.limits.window) = (threads, 10_000);
        let content = packed(&mut world, &pieces.iter().map(Vec::as_slice).collect::<Vec<_>>());
        world.publish(vec![create(1, ROOT, "large", content)]);
        let bytes = piece * 3000;
        let mut watch = StopsAfter { bytes, written: 0, flag: Arc::default() };
        let ended = world.apply_watched(&mut watch);
        assert!(matches!(ended, Err(SyncError::Interrupted)), "{ended:?}");
        assert_eq!(watch.written, bytes, "nothing is written after the wish was made");
        assert!(!world.fs.exists("large"));
        let parts: Vec<u64> = world
            .fs
            .tree()
            .iter()
            .filter_map(|(path, node)| match node {
                Node::File { bytes, .. } if path.starts_with(b".packetboat/stage/part-") => Some(bytes.len() as u64),
                _ => None,
            })
            .collect();
        assert_eq!(parts, [bytes], "what was received waits for the next round");
        world.round().unwrap();
        assert_eq!(world.fs.read("large").unwrap(), whole);
        world.check_at_rest();
    }
}

#[test]
fn a_wish_to_stop_is_heeded_while_an_old_version_is_read() {
    let pieces: Vec<Vec<u8>> = (0..12u8).map(|at| vec![at; 100_000]).collect();
    let mut world = World::new(SimOptions::default());
    world.limits.window = 250_000;
    let content = packed(&mut world, &pieces.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let made = world.publish(vec![create(1, ROOT, "large", content)]);
    world.settle();
    let mut pieces = pieces;
    pieces[0] = vec![77; 100_000];
    let content = packed(&mut world, &pieces.iter().map(Vec::as_slice).collect::<Vec<_>>());
    world.publish(vec![edit(1, content, made)]);
    let mut watch = StopsAfter { bytes: 400_000, written: 0, flag: Arc::default() };
    assert!(matches!(world.apply_watched(&mut watch), Err(SyncError::Interrupted)));
    assert_eq!(watch.written, 400_000);
    assert_eq!(world.fs.read("large").unwrap()[0], 0, "the old version stands");
    world.round().unwrap();
    assert_eq!(world.fs.read("large").unwrap(), pieces.concat());
    world.check_at_rest();
}
