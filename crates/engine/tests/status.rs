//! Status says what a next round would do, and why.

mod support;

use packetboat_engine::replica::Status;
use support::{Device, Pair};

fn status(device: &mut Device) -> Status {
    device.replica.status().unwrap()
}

/// Story: after a round that took in a file of 300 MB, `status` said "to send 6": what had been written just before the
/// round was counted as changed, since in the moment in which it was recorded another write could have gone unseen.
#[test]
fn what_was_written_just_before_a_round_is_not_said_to_wait_after_it() {
    let mut pair = Pair::new();
    pair.laptop.fs.write("small", b"small").unwrap();
    pair.laptop.fs.write("dir/large", &vec![0; 40 << 20]).unwrap();
    pair.laptop.sync();
    let quiet = status(&mut pair.laptop);
    assert_eq!((quiet.to_send, quiet.in_step), (0, true));
    // A small file is looked into all the same: it may have been written again within the same tick of the clock.
    pair.laptop.fs.write("small", b"other").unwrap();
    assert_eq!(status(&mut pair.laptop).to_send, 1);
    pair.laptop.sync();
    // And of a large one it is seen by its time that it was changed.
    pair.pass();
    pair.laptop.fs.write("dir/large", &vec![1; 40 << 20]).unwrap();
    assert_eq!(status(&mut pair.laptop).to_send, 1);
    pair.laptop.sync();
    assert!(status(&mut pair.laptop).in_step);
}
