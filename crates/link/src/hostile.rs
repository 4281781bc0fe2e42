//! What a peer that is paired and yet hostile, or a stranger who speaks the protocol, can make a device do: nothing.
//!
//! These tests speak to a link below its own interface, with raw connections and streams.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use packetboat_core::keys::PublicKey;
use packetboat_core::wire::WireError;
use quinn::{EndpointConfig, TokioRuntime};
use tokio::time::timeout;

use crate::endpoint::{Endpoint, SERVER_NAME};
use crate::greeting::{self, Greeting, Incarnation};
use crate::identity::Identity;
use crate::link::{Link, Peer};
use crate::pairing::{Introduction, PairingError, PairingListener, Role, propose};
use crate::session::{CLOSED, MISBEHAVED, Session, SessionError};
use crate::settings::{Limits, Local, Settings};
use crate::stream::Stream;
use crate::tls::{self, Trust};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const PATIENCE: Duration = Duration::from_secs(10);
const LINK: &[u8] = b"packetboat-link/1";
const PAIRING: &[u8] = b"packetboat-pair/1";

fn settings() -> Settings {
    Settings {
        connect: Duration::from_secs(1),
        greeting: Duration::from_millis(500),
        limits: Limits {
            message_bytes: 1000,
            requests: 4,
            request: Duration::from_millis(300),
            stall: Duration::from_millis(300),
            ..Limits::default()
        },
        ..Settings::default()
    }
}

fn identity(seed: u8) -> Identity {
    Identity::from_seed(&[seed; 32])
}

fn key(seed: u8) -> PublicKey {
    identity(seed).public()
}

/// A device that has paired the key of seed 9.
fn device() -> (Endpoint, Link, SocketAddr) {
    let endpoint = Endpoint::bind(identity(1), vec![Local::from(LOOPBACK)], settings(), [1; 16]).unwrap();
    let link = endpoint.link(Peer { key: key(9), addresses: vec![] }).unwrap();
    let address = endpoint.local_addresses()[0];
    (endpoint, link, address)
}

/// A connection of its own making, without anything that a link would do.
async fn raw(address: SocketAddr, protocol: &[u8], trust: Trust) -> (quinn::Endpoint, quinn::Connection) {
    let socket = std::net::UdpSocket::bind(LOOPBACK).unwrap();
    let endpoint = quinn::Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime)).unwrap();
    let mut config = quinn::ClientConfig::new(tls::client(&identity(9), trust, protocol));
    let generous = Settings { limits: Limits { requests: 1000, ..Limits::default() }, ..Settings::default() };
    config.transport_config(generous.transport());
    let connection = endpoint.connect_with(config, address, SERVER_NAME).unwrap().await.unwrap();
    (endpoint, connection)
}

/// A peer that greets as it should and then does as it likes; and the session that the device has with it.
async fn greeted(address: SocketAddr, link: &Link) -> (quinn::Endpoint, quinn::Connection, Stream, Session) {
    let (endpoint, connection) = raw(address, LINK, Trust::Key(key(1))).await;
    let own = Greeting { incarnation: Incarnation([9; 16]), accepted: Default::default() };
    let limits = Limits::default();
    let greeted = greeting::exchange(&connection, true, own, &limits, PATIENCE).await;
    let (mut stream, _) = greeted.unwrap();
    if key(9) < key(1) {
        greeting::accept(&mut stream, 1).await.unwrap();
    } else {
        greeting::accepted(&mut stream, PATIENCE).await.unwrap();
    }
    let session = timeout(PATIENCE, link.sessions().next()).await.unwrap().unwrap();
    (endpoint, connection, stream, session)
}

#[tokio::test]
async fn a_message_that_announces_too_much_ends_the_session_before_anything_of_it_is_kept() {
    let (_endpoint, link, address) = device();
    let (_kept, connection, mut stream, session) = greeted(address, &link).await;
    stream.writer.write(1001u32.to_le_bytes().to_vec().into()).await.unwrap();
    let refused = timeout(PATIENCE, session.receive()).await.unwrap();
    assert_eq!(refused, Err(SessionError::Misbehaved { limit: 1000 }));
    let told = timeout(PATIENCE, connection.closed()).await.unwrap();
    assert!(matches!(told, quinn::ConnectionError::ApplicationClosed(close) if close.error_code == MISBEHAVED));
}

#[tokio::test]
async fn a_message_that_never_ends_is_given_up_however_slowly_it_goes_on() {
    let (_endpoint, link, address) = device();
    let (_kept, _connection, mut stream, session) = greeted(address, &link).await;
    let dripping = tokio::spawn(async move {
        let mut message = 900u32.to_le_bytes().to_vec();
        message.extend([0; 900]);
        for byte in message {
            if stream.writer.write(vec![byte].into()).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let began = Instant::now();
    assert_eq!(timeout(PATIENCE, session.receive()).await.unwrap(), Err(SessionError::Stalled));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    dripping.await.unwrap();
}

#[tokio::test]
async fn streams_that_say_nothing_or_nonsense_take_no_ones_place_for_long() {
    let (_endpoint, link, address) = device();
    let (_kept, connection, mut control, session) = greeted(address, &link).await;
    let limits = Limits::default();
    for round in 0..3 {
        // As many as are let in: one drips, one talks nonsense, two announce more than a request may have.
        let mut streams = Vec::new();
        for number in 0..4u8 {
            let opened = timeout(PATIENCE, connection.open_bi()).await.expect("the places were freed").unwrap();
            let mut stream = Stream::quic(opened, &limits);
            match number {
                0 => stream.writer.write(vec![40].into()).await.unwrap(),
                1 => stream.writer.write_frame(b"nonsense").await.unwrap(),
                _ => stream.writer.write(u32::MAX.to_le_bytes().to_vec().into()).await.unwrap(),
            }
            streams.push(stream);
        }
        // The session goes on beside them.
        control.writer.write_frame(&[round]).await.unwrap();
        assert_eq!(timeout(PATIENCE, session.receive()).await.unwrap(), Ok(vec![round]));
        for mut stream in streams {
            assert!(timeout(PATIENCE, stream.reader.chunk(1)).await.unwrap().is_err(), "it was given up");
        }
    }
    assert!(timeout(Duration::from_millis(50), session.next_request()).await.is_err(), "none was a request");
}

#[tokio::test]
async fn no_more_streams_are_opened_than_are_let_in() {
    let (_endpoint, link, address) = device();
    let (_kept, connection, _control, _session) = greeted(address, &link).await;
    let mut open = Vec::new();
    // Each is opened, and never written to, so this device does not even see it.
    while let Ok(opened) = timeout(Duration::from_millis(100), connection.open_bi()).await {
        open.push(opened.unwrap());
        assert!(open.len() <= 4, "the control stream and four requests");
    }
    assert!(timeout(Duration::from_millis(100), connection.open_uni()).await.is_err());
    assert!(connection.max_datagram_size().is_none());
}

#[tokio::test]
async fn a_connection_that_does_not_greet_is_given_up_and_the_next_one_is_heard() {
    let (_endpoint, link, address) = device();
    let (_kept, silent) = raw(address, LINK, Trust::Key(key(1))).await;
    let began = Instant::now();
    let told = timeout(PATIENCE, silent.closed()).await.unwrap();
    assert!(matches!(told, quinn::ConnectionError::ApplicationClosed(close) if close.error_code == CLOSED));
    assert!(began.elapsed() < settings().greeting * 3, "{:?}", began.elapsed());
    greeted(address, &link).await;
}

#[tokio::test]
async fn connections_that_do_not_greet_are_turned_away_when_they_become_many() {
    let (_endpoint, link, address) = device();
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(raw(address, LINK, Trust::Key(key(1))).await);
    }
    tokio::time::sleep(settings().greeting / 5).await;
    let open = silent.iter().filter(|(_, connection)| connection.close_reason().is_none()).count();
    assert!(open <= 8, "{open} of 20 wait");
    // Once they were given up, there is room again.
    tokio::time::sleep(settings().greeting * 2).await;
    greeted(address, &link).await;
}

#[tokio::test]
async fn a_greeting_of_another_protocol_is_refused() {
    let (_endpoint, _link, address) = device();
    let (_kept, connection) = raw(address, LINK, Trust::Key(key(1))).await;
    let mut stream = Stream::quic(connection.open_bi().await.unwrap(), &Limits::default());
    stream.writer.write_frame(b"\x01\x09 hello").await.unwrap();
    let told = timeout(PATIENCE, connection.closed()).await.unwrap();
    assert!(matches!(told, quinn::ConnectionError::ApplicationClosed(close) if close.error_code == MISBEHAVED));
}

fn introduction(role: Role) -> Introduction {
    Introduction::new(role, "device", vec![]).unwrap()
}

fn listener() -> PairingListener {
    PairingListener::bind(identity(1), &[Local::from(LOOPBACK)], introduction(Role::Host), settings()).unwrap()
}

/// Someone at an address who plays the listener of a pairing with messages that were recorded.
async fn replaying_listener(recorded: Vec<Vec<u8>>) -> SocketAddr {
    let crypto = tls::server(&identity(1), Trust::Anyone, PAIRING);
    let socket = std::net::UdpSocket::bind(LOOPBACK).unwrap();
    let address = socket.local_addr().unwrap();
    let server = Some(quinn::ServerConfig::with_crypto(crypto));
    let endpoint = quinn::Endpoint::new(EndpointConfig::default(), server, socket, Arc::new(TokioRuntime)).unwrap();
    tokio::spawn(async move {
        let connection = endpoint.accept().await.unwrap().await.unwrap();
        let mut stream = Stream::quic(connection.accept_bi().await.unwrap(), &Limits::default());
        for message in recorded {
            if stream.reader.frame(2000).await.is_err() || stream.writer.write_frame(&message).await.is_err() {
                break;
            }
        }
        connection.closed().await;
    });
    address
}

/// What a listener says, frame by frame, to whoever dials it.
async fn record() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let mut host = listener();
    let address = host.addresses()[0];
    let answering = tokio::spawn(async move { host.next([7; 32]).await.map(|proposal| (proposal, host)) });
    let (_kept, connection) = raw(address, PAIRING, Trust::Anyone).await;
    let mut stream = Stream::quic(connection.open_bi().await.unwrap(), &Limits::default());
    let said = [vec![1, 1], [&[3u8][..], &[5; 32], &[2, 6], b"device", &[0]].concat()];
    let mut heard = Vec::new();
    for message in &said {
        stream.writer.write_frame(message).await.unwrap();
        heard.push(stream.reader.frame(2000).await.unwrap().unwrap());
    }
    answering.await.unwrap().unwrap();
    (said.to_vec(), heard)
}

#[tokio::test]
async fn a_replayed_listener_is_found_out_even_when_it_holds_the_key() {
    let (_, heard) = record().await;
    let address = replaying_listener(heard).await;
    let locals = [Local::from(LOOPBACK)];
    let companion = introduction(Role::Companion);
    let refused = propose(&identity(9), &locals, &[address], companion, [5; 32], &settings()).await;
    assert!(matches!(refused, Err(PairingError::Tampered)), "{refused:?}");
}

#[tokio::test]
async fn a_replayed_agreement_agrees_to_nothing() {
    let mut host = listener();
    let address = host.addresses()[0];
    let (said, _) = record().await;
    let replaying = async {
        let (_kept, connection) = raw(address, PAIRING, Trust::Anyone).await;
        let mut stream = Stream::quic(connection.open_bi().await.unwrap(), &Limits::default());
        for message in &said {
            stream.writer.write_frame(message).await.unwrap();
            stream.reader.frame(2000).await.unwrap().unwrap();
        }
        // What another connection's dialler said when its people agreed.
        stream.writer.write_frame(&[&[5u8][..], &[0xaa; 32]].concat()).await.unwrap();
        timeout(PATIENCE, connection.closed()).await.expect("it is shown out");
    };
    let confirming = async { host.next([8; 32]).await.unwrap().confirm().await };
    let (refused, ()) = tokio::join!(confirming, replaying);
    assert!(matches!(refused, Err(PairingError::Tampered)), "{refused:?}");
}

#[tokio::test]
async fn the_listeners_own_agreement_sent_back_agrees_to_nothing() {
    let mut host = listener();
    let address = host.addresses()[0];
    let (said, _) = record().await;
    let reflecting = async {
        let (_kept, connection) = raw(address, PAIRING, Trust::Anyone).await;
        let mut stream = Stream::quic(connection.open_bi().await.unwrap(), &Limits::default());
        for message in &said {
            stream.writer.write_frame(message).await.unwrap();
            stream.reader.frame(2000).await.unwrap().unwrap();
        }
        let agreement = stream.reader.frame(2000).await.unwrap().unwrap();
        stream.writer.write_frame(&agreement).await.unwrap();
        timeout(PATIENCE, connection.closed()).await.expect("it is shown out");
    };
    let confirming = async { host.next([8; 32]).await.unwrap().confirm().await };
    let (refused, ()) = tokio::join!(confirming, reflecting);
    assert!(matches!(refused, Err(PairingError::Tampered)), "{refused:?}");
}

#[tokio::test]
async fn a_listener_passes_over_whoever_talks_nonsense() {
    let mut host = listener();
    let address = host.addresses()[0];
    let locals = [Local::from(LOOPBACK)];
    let (identity, settings) = (identity(9), settings());
    let talking = async {
        for nonsense in [&[][..], &[1], &[9; 2000], &[1, 1, 1]] {
            let (_kept, connection) = raw(address, PAIRING, Trust::Anyone).await;
            let mut stream = Stream::quic(connection.open_bi().await.unwrap(), &Limits::default());
            stream.writer.write_frame(nonsense).await.unwrap();
            timeout(PATIENCE, connection.closed()).await.expect("it is shown out");
        }
        propose(&identity, &locals, &[address], introduction(Role::Companion), [5; 32], &settings).await
    };
    let (at_host, at_companion) = tokio::join!(host.next([8; 32]), talking);
    assert_eq!(at_host.unwrap().code(), at_companion.unwrap().code());
}

#[test]
fn nothing_that_is_read_first_panics() {
    let mut noise = blake3::Hasher::new().finalize_xof();
    let mut frame = [0; 80];
    for _ in 0..20_000 {
        noise.fill(&mut frame);
        let length = usize::from(frame[0]) % frame.len();
        frame[1] %= 8;
        let _read_or_refused: Result<Greeting, WireError> = Greeting::decode(&frame[1..=length.max(1)]);
    }
}
