//! How fast a body travels over a link on loopback: `cargo run --release -p packetboat-link --example link_throughput`.
//!
//! Both devices are in this one process, so the figure is of sending and receiving together on the cores there are.

use std::time::{Duration, Instant};

use bytes::Bytes;
use packetboat_link::{Endpoint, Identity, Local, Part, Peer, Request, Session, Settings};

const BODY: u64 = 1 << 30;
const PIECE: usize = 1 << 20;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(measure());
}

async fn measure() {
    let device = |seed| {
        let local = Local::from(std::net::SocketAddr::from(([127, 0, 0, 1], 0)));
        Endpoint::bind(Identity::from_seed(&[seed; 32]), vec![local], Settings::default(), [seed; 16])
            .expect("loopback is there")
    };
    let (host, companion) = (device(1), device(2));
    let key = |seed| Identity::from_seed(&[seed; 32]).public();
    let to_host = companion.link(Peer { key: key(1), addresses: vec![] }).expect("a link");
    let to_companion = host.link(Peer { key: key(2), addresses: companion.local_addresses() }).expect("a link");
    let here = to_companion.sessions().next().await.expect("a session");
    let there = to_host.sessions().next().await.expect("a session");
    let serving = tokio::spawn(serve(there));

    for round in 1..=5 {
        let began = Instant::now();
        let mut body = here.get(b"body", Part::WHOLE).await.expect("an answer");
        let mut received = 0;
        while let Some(chunk) = body.chunk().await.expect("the body") {
            received += chunk.len() as u64;
        }
        assert_eq!(received, BODY);
        print_rate(&format!("get {round}"), began.elapsed(), BODY);
    }
    let began = Instant::now();
    for _ in 0..1000 {
        let mut body = here.get(b"small", Part { offset: 0, length: Some(4096) }).await.expect("an answer");
        body.read_all(4096).await.expect("the body");
    }
    println!("1000 bodies of 4 KiB, one after the other: {:?} each", began.elapsed() / 1000);
    println!("round trip {:?}", here.round_trip());
    here.close();
    serving.await.expect("the server ends");
}

async fn serve(session: Session) {
    let piece = Bytes::from(vec![7; PIECE]);
    while let Ok(request) = session.next_request().await {
        let Request::Get(get) = request else { continue };
        let piece = piece.clone();
        tokio::spawn(async move {
            let mut answer = get.accept(BODY).await.expect("the peer listens");
            while answer.remaining() > 0 {
                let length = answer.remaining().min(PIECE as u64) as usize;
                answer.write(piece.slice(..length)).await.expect("the peer reads");
            }
            answer.finish().await.expect("the peer has it");
        });
    }
}

fn print_rate(what: &str, took: Duration, bytes: u64) {
    println!("{what}: {:.0} MiB/s", bytes as f64 / f64::from(1 << 20) / took.as_secs_f64());
}
