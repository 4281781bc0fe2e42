//! Links between devices on loopback: who gets in, which address wins, and what follows a loss.

mod common;

use std::time::{Duration, Instant};

use common::*;
use packetboat_link::{DialError, DownError, LinkError, Peer, SessionError, Status};

#[tokio::test]
async fn two_paired_devices_talk() {
    let (host, companion) = (device(1), device(2));
    let to_companion = link(&host, 2, &[address_of(&companion)]);
    let to_host = link(&companion, 1, &[]);
    let (here, there) = (up(&to_companion).await, up(&to_host).await);
    assert_eq!((here.peer(), there.peer()), (key(2), key(1)));
    talk(&here, &there).await;
    let Status::Up { round_trip, remote, .. } = to_companion.status() else { panic!("it is up") };
    assert!(round_trip > Duration::ZERO && round_trip < Duration::from_secs(1), "{round_trip:?}");
    assert_eq!(remote, Some(address_of(&companion)));
}

#[tokio::test]
async fn a_device_with_another_key_is_not_the_peer() {
    let (host, stranger) = (device(1), device(3));
    // The stranger would take the host; the host paired someone else.
    let _to_host = link(&stranger, 1, &[]);
    let to_companion = link(&host, 2, &[address_of(&stranger)]);
    let address = address_of(&stranger);
    until(&to_companion, "the key is named as the cause", |status| {
        matches!(status, Status::Down { error: Some(DownError::Dial(error)), .. }
            if *error == DialError::WrongKey { address })
    })
    .await;
    assert!(to_companion.session().is_none());
}

#[tokio::test]
async fn a_device_whose_key_is_not_paired_is_not_let_in() {
    let (host, stranger) = (device(1), device(3));
    let to_companion = link(&host, 2, &[]);
    let to_host = link(&stranger, 1, &[address_of(&host)]);
    until(&to_host, "the refusal is understood", |status| {
        matches!(status, Status::Down { error: Some(DownError::Dial(DialError::NotPaired)), .. })
    })
    .await;
    assert!(to_companion.session().is_none() && to_host.session().is_none());
}

#[tokio::test]
async fn a_key_that_was_paired_once_is_not_let_in_again() {
    let (host, companion) = (device(1), device(2));
    let to_companion = link(&host, 2, &[]);
    let to_host = link(&companion, 1, &[address_of(&host)]);
    up(&to_companion).await;
    up(&to_host).await;
    // The companion gets a new key; the old one is forgotten.
    drop(to_companion);
    let to_renewed = link(&host, 4, &[]);
    until(&to_host, "the old key is refused", |status| {
        matches!(status, Status::Down { error: Some(DownError::Dial(DialError::NotPaired)), .. })
    })
    .await;
    assert!(to_renewed.session().is_none());
}

#[tokio::test]
async fn a_device_is_not_its_own_companion() {
    let host = device(1);
    let oneself = Peer { key: key(1), addresses: vec![] };
    assert_eq!(host.link(oneself).unwrap_err(), LinkError::Oneself);
    let _first = link(&host, 2, &[]);
    let again = Peer { key: key(2), addresses: vec![] };
    assert_eq!(host.link(again).unwrap_err(), LinkError::Present);
}

#[tokio::test]
async fn an_address_that_swallows_everything_delays_by_the_stagger_only() {
    let (host, companion) = (device(1), device(2));
    let (_kept, hole) = black_hole();
    let _to_host = link(&companion, 1, &[]);
    let began = Instant::now();
    let to_companion = link(&host, 2, &[hole, address_of(&companion)]);
    up(&to_companion).await;
    assert!(began.elapsed() < quick().connect / 2, "{:?}", began.elapsed());
}

#[tokio::test]
async fn another_device_at_the_first_address_does_not_keep_the_peer_from_being_found() {
    let (host, companion, stranger) = (device(1), device(2), device(3));
    let _to_host = link(&companion, 1, &[]);
    let to_companion = link(&host, 2, &[address_of(&stranger), address_of(&companion)]);
    assert_eq!(up(&to_companion).await.peer(), key(2));
}

#[tokio::test]
async fn the_link_comes_back_after_the_peer_restarts() {
    let (host, companion) = (device(1), device(2));
    let address = address_of(&companion);
    let to_companion = link(&host, 2, &[address]);
    let mut sessions = to_companion.sessions();
    let to_host = link(&companion, 1, &[]);
    let before = sessions.next().await.unwrap();
    up(&to_host).await;
    drop(to_host);
    companion.close().await;
    assert_eq!(before.ended().await, SessionError::Closed);
    until(&to_companion, "it is down and says since when it was up", |status| {
        matches!(status, Status::Down { last_up: Some(_), .. })
    })
    .await;

    let companion = device_at(2, address, 77);
    let to_host = link(&companion, 1, &[]);
    let after = tokio::time::timeout(PATIENCE, sessions.next()).await.unwrap().unwrap();
    talk(&after, &up(&to_host).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_was_killed_and_restarts_is_met_again_before_the_old_connection_times_out() {
    // Killed: the sockets go without a word. The runtime of the first life ends with everything in it.
    let mut patient = quick();
    patient.idle = Duration::from_secs(60);
    let local = packetboat_link::Local::from(loopback(0));
    let host = packetboat_link::Endpoint::bind(identity(1), vec![local], patient, [1; 16]).unwrap();
    let host_address = address_of(&host);
    let (ready, address) = std::sync::mpsc::channel();
    let (kill, killed) = tokio::sync::oneshot::channel::<()>();
    let first_life = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let companion = runtime.block_on(async {
            let companion = device(2);
            let to_host = link(&companion, 1, &[host_address]);
            up(&to_host).await;
            ready.send(address_of(&companion)).unwrap();
            killed.await.unwrap();
            std::mem::forget(to_host);
            std::mem::forget(companion.clone());
            companion
        });
        runtime.shutdown_background();
        std::mem::forget(companion);
    });
    let to_companion = link(&host, 2, &[]);
    let mut sessions = to_companion.sessions();
    sessions.next().await.unwrap();
    let address = tokio::task::spawn_blocking(move || address.recv().unwrap()).await.unwrap();
    kill.send(()).unwrap();
    tokio::task::spawn_blocking(move || first_life.join().unwrap()).await.unwrap();

    let companion = device_at(2, loopback(0), 99);
    assert_ne!(address_of(&companion), address);
    let to_host = link(&companion, 1, &[host_address]);
    let after = tokio::time::timeout(PATIENCE, sessions.next()).await.expect("the restarted peer takes over").unwrap();
    talk(&after, &up(&to_host).await).await;
}

#[tokio::test]
async fn devices_that_dial_each_other_end_up_with_one_connection() {
    for round in 0..20 {
        let (host, companion) = (device_at(1, loopback(0), round), device_at(2, loopback(0), round));
        let (at_host, at_companion) = (address_of(&host), address_of(&companion));
        let to_companion = link(&host, 2, &[at_companion]);
        let to_host = link(&companion, 1, &[at_host]);
        let (mut of_host, mut of_companion) = (to_companion.sessions(), to_host.sessions());
        let (mut here, mut there) = (of_host.next().await.unwrap(), of_companion.next().await.unwrap());
        // Whatever crossed on the way has been sorted out once nothing changes any more.
        let still = Duration::from_millis(150);
        loop {
            tokio::select! {
                session = of_host.next() => here = session.unwrap(),
                session = of_companion.next() => there = session.unwrap(),
                () = tokio::time::sleep(still) => break,
            }
        }
        talk(&here, &there).await;
        assert_eq!((here.end(), there.end()), (None, None), "round {round}");
    }
}

#[tokio::test]
async fn a_peer_that_goes_silent_is_noticed_after_the_idle_time() {
    let companion = device(2);
    let address = address_of(&companion);
    // A cable that can be cut: datagrams pass through here.
    let relay = tokio::net::UdpSocket::bind(loopback(0)).await.unwrap();
    let relay_address = relay.local_addr().unwrap();
    let cable = tokio::spawn(async move {
        let mut host = None;
        let mut datagram = vec![0; 65536];
        loop {
            let (length, from) = relay.recv_from(&mut datagram).await.unwrap();
            let to = if from == address {
                host
            } else {
                host = Some(from);
                Some(address)
            };
            if let Some(to) = to {
                relay.send_to(&datagram[..length], to).await.unwrap();
            }
        }
    });
    let host = device(1);
    let to_companion = link(&host, 2, &[relay_address]);
    let _to_host = link(&companion, 1, &[]);
    let session = up(&to_companion).await;
    cable.abort();
    let began = Instant::now();
    assert_eq!(session.ended().await, SessionError::Lost);
    assert!(began.elapsed() < quick().idle * 2, "{:?}", began.elapsed());
    // And the wait between tries grows, but not beyond its bound.
    until(&to_companion, "tries fail", |status| matches!(status, Status::Down { tries: 2.., .. })).await;
}
