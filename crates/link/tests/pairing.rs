//! Pairing on loopback: people who compare codes, and those who try to be in between.

mod common;

use std::net::SocketAddr;

use common::*;
use packetboat_link::pairing::{Code, Introduction, PairingError, PairingListener, Proposal, Role, propose};
use packetboat_link::{Local, Peer, Settings};

fn introduction(role: Role, name: &str) -> Introduction {
    Introduction::new(role, name, vec!["192.0.2.7:4711".parse().unwrap()]).unwrap()
}

fn locals() -> Vec<Local> {
    vec![Local::from(loopback(0))]
}

fn listener(seed: u8) -> PairingListener {
    PairingListener::bind(identity(seed), &locals(), introduction(Role::Host, "laptop"), quick()).unwrap()
}

async fn dial(seed: u8, address: SocketAddr, random: u8) -> Result<Proposal, PairingError> {
    let introduction = introduction(Role::Companion, "phone");
    propose(&identity(seed), &locals(), &[address], introduction, [random; 32], &quick()).await
}

/// Two devices that got as far as showing codes.
async fn proposals(host: &mut PairingListener, companion: u8, random: u8) -> (Proposal, Proposal) {
    let address = host.addresses()[0];
    let both = async { tokio::join!(host.next([random; 32]), dial(companion, address, random)) };
    let (at_host, at_companion) = tokio::time::timeout(PATIENCE, both).await.expect("the devices meet");
    (at_host.unwrap(), at_companion.unwrap())
}

#[tokio::test]
async fn both_screens_show_one_code_and_both_devices_know_the_same_pair() {
    let (at_host, at_companion) = proposals(&mut listener(1), 2, 5).await;
    assert_eq!(at_host.code(), at_companion.code());
    assert_eq!(Code::parse(&at_host.code().to_string()), Some(at_host.code()));
    let (host, companion) = tokio::join!(at_host.confirm(), at_companion.confirm());
    let (host, companion) = (host.unwrap(), companion.unwrap());
    assert_eq!(host.id, companion.id);
    assert_eq!((host.key, companion.key), (key(2), key(1)));
    assert_eq!(host.introduction, introduction(Role::Companion, "phone"));
    assert_eq!(companion.introduction, introduction(Role::Host, "laptop"));
}

#[tokio::test]
async fn a_pair_links_up_with_the_keys_it_exchanged() {
    let (at_host, at_companion) = proposals(&mut listener(1), 2, 5).await;
    let (host, companion) = tokio::join!(at_host.confirm(), at_companion.confirm());
    let (at_host, at_companion) = (device(1), device(2));
    let addresses = vec![address_of(&at_companion)];
    let to_companion = at_host.link(Peer { key: host.unwrap().key, addresses }).unwrap();
    let to_host = at_companion.link(Peer { key: companion.unwrap().key, addresses: vec![] }).unwrap();
    talk(&up(&to_companion).await, &up(&to_host).await).await;
}

#[tokio::test]
async fn each_pairing_has_a_code_and_an_id_of_its_own() {
    let mut host = listener(1);
    // The same randomness twice, as a broken generator would give: the connection still differs.
    let (first_host, first) = proposals(&mut host, 2, 5).await;
    let (second_host, second) = proposals(&mut host, 2, 5).await;
    assert_ne!(first.code(), second.code());
    let ids = tokio::join!(first_host.confirm(), first.confirm(), second_host.confirm(), second.confirm());
    let (one, other) = (ids.0.unwrap().id, ids.2.unwrap().id);
    assert_eq!((one, other), (ids.1.unwrap().id, ids.3.unwrap().id));
    assert_ne!(one, other);
}

#[tokio::test]
async fn a_wrong_code_pairs_nobody_and_both_sides_hear_of_it() {
    let (at_host, at_companion) = proposals(&mut listener(1), 2, 5).await;
    let shown = at_host.code();
    let wrong = Code::parse("000 000").filter(|code| *code != shown).or(Code::parse("111111")).unwrap();
    let (host, companion) = tokio::join!(at_host.confirm_code(wrong), at_companion.confirm());
    assert!(matches!(host, Err(PairingError::WrongCode { shown: told }) if told == shown), "{host:?}");
    assert!(matches!(companion, Err(PairingError::Refused)), "{companion:?}");
}

#[tokio::test]
async fn a_refusal_at_the_companion_pairs_nobody() {
    let (at_host, at_companion) = proposals(&mut listener(1), 2, 5).await;
    let (host, ()) = tokio::join!(at_host.confirm(), at_companion.refuse());
    assert!(matches!(host, Err(PairingError::Refused)), "{host:?}");
}

#[tokio::test]
async fn someone_in_between_makes_the_codes_differ() {
    for random in 0..10 {
        let (mut host, mut between) = (listener(1), listener(9));
        // Towards each side it acts as the other, with keys of its own and the other's introduction.
        let (to_companion, companion) = proposals(&mut between, 2, random).await;
        let (at_host, to_host) = proposals(&mut host, 9, random).await;
        assert_ne!(at_host.code(), companion.code(), "round {random}");
        // It says yes to both; the people do not.
        let (host_says, companion_says, one, other) =
            tokio::join!(at_host.refuse(), companion.refuse(), to_companion.confirm(), to_host.confirm());
        let ((), ()) = (host_says, companion_says);
        assert!(matches!(one, Err(PairingError::Refused)) && matches!(other, Err(PairingError::Refused)));
    }
}

#[tokio::test]
async fn guessing_codes_ends_after_a_few_attempts() {
    let mut host = listener(1);
    for random in 0..5 {
        let (at_host, guess) = proposals(&mut host, 9, random).await;
        drop(guess);
        at_host.refuse().await;
    }
    let address = host.addresses()[0];
    let (next, refused) = tokio::join!(host.next([9; 32]), dial(9, address, 9));
    assert!(matches!(next, Err(PairingError::TooManyAttempts)), "{next:?}");
    assert!(refused.is_err());
}

#[tokio::test]
async fn a_device_does_not_pair_with_itself_nor_two_hosts_with_each_other() {
    let mut host = listener(1);
    let address = host.addresses()[0];
    // Whoever dialled leaves at once; the listener may or may not have seen who it was.
    tokio::select! {
        at_host = host.next([1; 32]) => assert!(matches!(at_host, Err(PairingError::Oneself)), "{at_host:?}"),
        oneself = dial(1, address, 1) => assert!(matches!(oneself, Err(PairingError::Oneself)), "{oneself:?}"),
    }

    let locals = locals();
    let addresses = [address];
    let (identity, settings): (_, Settings) = (identity(2), quick());
    let dialling = propose(&identity, &locals, &addresses, introduction(Role::Host, "desktop"), [1; 32], &settings);
    let (at_host, at_other) = tokio::join!(host.next([1; 32]), dialling);
    assert!(matches!(at_host, Err(PairingError::SameRole(Role::Host))), "{at_host:?}");
    assert!(matches!(at_other, Err(PairingError::SameRole(Role::Host))), "{at_other:?}");
}

#[tokio::test]
async fn nobody_at_the_address_is_said_so() {
    let (_kept, hole) = black_hole();
    assert!(matches!(dial(2, hole, 1).await, Err(PairingError::Unreachable)));
}

#[tokio::test]
async fn a_link_is_not_made_by_whoever_only_waits_to_be_paired() {
    let host = listener(1);
    let companion = device(2);
    let to_host = link(&companion, 1, &host.addresses());
    until(&to_host, "the protocols are told apart", |status| {
        matches!(status, packetboat_link::Status::Down { tries: 2.., .. })
    })
    .await;
}
