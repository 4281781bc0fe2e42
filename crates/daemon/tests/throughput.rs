//! How fast mails are taken in, and what ten thousand that wait cost in memory: measured, not judged, but for the floor.
//!
//! `cargo test --release -p packetboat-daemon --test throughput -- --ignored --nocapture`

use std::sync::Arc;
use std::time::Instant;

use packetboat_core::delivery::{Address, Item, Settings};
use packetboat_core::ids::MailId;
use packetboat_daemon::clock::{BootClock, Clock};
use packetboat_daemon::outbox::body::BodyDraft;
use packetboat_daemon::outbox::courier::{Courier, Hands, run};
use packetboat_daemon::outbox::desk::{Desk, Outcome};
use packetboat_daemon::outbox::store::Store;
use tokio::sync::watch;

/// Hands that do nothing, so that every mail waits.
struct Idle;

impl Hands for Idle {
    fn carry_out(&mut self, _: Outcome) {}

    fn has_room(&self) -> bool {
        true
    }
}

/// Resident memory in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measure_taking_in_ten_thousand_mails() {
    let directory = tempfile::tempdir_in(std::env!("CARGO_TARGET_TMPDIR")).unwrap();
    let bodies = directory.path().join("bodies");
    std::fs::create_dir(&bodies).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(BootClock::new([9; 16]));
    let store = Store::open(&directory.path().join("outbox.db"), &bodies).unwrap();
    let (desk, outcomes) = Desk::open(store, None, Settings::default(), &clock.now()).unwrap();
    let (courier, mut commands) = Courier::channel();
    let (_stop, stopped) = watch::channel(false);
    tokio::spawn(async move { run(desk, outcomes, &mut commands, &mut Idle, clock.as_ref(), stopped).await });
    let (programs, mails) = (64, 10_000_u64);
    let before = resident();
    #[allow(clippy::disallowed_methods, reason = "a measurement takes the time")]
    let began = Instant::now();
    let mut submitting = tokio::task::JoinSet::new();
    for program in 0..programs {
        let (courier, bodies) = (courier.clone(), bodies.clone());
        submitting.spawn(async move {
            let mut count = program;
            while count < mails {
                let mut id = [0; 16];
                id[..8].copy_from_slice(&count.to_be_bytes());
                let mut draft = BodyDraft::new(&bodies, MailId(id));
                draft.write(&[b'x'; 4096]).unwrap();
                let body = draft.finish().unwrap();
                let address = |text: &str| Address::new(text).unwrap();
                let to = vec![address("someone@example.org")];
                let item = Item::new(body.mail, body.hash, body.size_bytes, address("me@example.org"), to).unwrap();
                courier.submit(Arc::new(item), body).await.unwrap();
                count += programs;
            }
        });
    }
    while submitting.join_next().await.is_some() {}
    let took = began.elapsed();
    let rate = mails as f64 / took.as_secs_f64();
    println!("{mails} mails of 4 KiB from {programs} programs in {took:.1?}: {rate:.0} a second");
    println!("resident: {} KiB before, {} KiB with all of them waiting", before, resident());
    assert!(rate > 1000.0, "{rate:.0} a second");
}
