//! The whole of it over a link in memory: two replicas by way of a companion, what waits, what is repeated, what lies.

mod both_ways;
mod devices;
mod order;
mod pulling;
mod trust;

use std::sync::Arc;

use packetboat_core::delivery::Now;
use packetboat_core::ids::{BootId, VaultId};
use packetboat_core::keys::PublicKey;
use packetboat_core::store::Store;
use packetboat_link::{Limits, Session};
use packetboat_storage::memory::MemoryStore;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::answer::Answerer;
use super::carried::answer;
use super::message::{Answer, Request};
use super::store::{Ask, LinkAsk, RelayStore};
use crate::clock::Clock;

/// A clock that stands still.
struct Still;

impl Clock for Still {
    fn now(&self) -> Now {
        Now { boot: BootId([0; 16]), since_boot_ms: 5, wall_ms: NOW_MS }
    }
}

fn still() -> Arc<dyn Clock> {
    Arc::new(Still)
}

const NOW_MS: u64 = 1_790_000_000_000;

/// The contract of every store, held against this one too.
#[path = "../../../storage/src/conformance.rs"]
mod conformance;

/// A link in memory with somebody at its other end who answers.
struct TestLink {
    runtime: Runtime,
    session: watch::Sender<Option<Session>>,
}

impl TestLink {
    fn new(answers: impl Fn(&Request, &[u8]) -> Answer + Send + Sync + 'static) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let link = Self { runtime, session: watch::Sender::new(None) };
        link.join(Answerer::with(answers));
        link
    }

    /// A link to a companion that passes everything to a store.
    fn to(store: Arc<dyn Store>) -> Self {
        Self::new(move |request, body| answer(store.as_ref(), &request.what, body))
    }

    fn join(&self, answerer: Answerer) {
        let guard = self.runtime.enter();
        let [here, there] = Session::pair_in_memory([PublicKey([1; 32]), PublicKey([2; 32])], &Limits::default());
        drop(guard);
        self.session.send_replace(Some(here));
        self.runtime.spawn(async move {
            while let Ok(request) = there.next_request().await {
                let answerer = answerer.clone();
                tokio::spawn(async move { answerer.serve(request).await });
            }
        });
    }

    fn cut(&self) {
        if let Some(session) = self.session.send_replace(None) {
            session.close();
        }
    }

    fn store(&self, vault: VaultId) -> RelayStore<LinkAsk> {
        RelayStore::new(LinkAsk::new(self.runtime.handle().clone(), self.session.subscribe()), vault, "phone")
    }
}

#[test]
fn the_link_keeps_the_promises_of_the_port() {
    let link = TestLink::to(Arc::new(MemoryStore::new()));
    conformance::check_store(&link.store(VaultId([7; 16])));
}

#[test]
fn the_link_behaves_as_the_model_does() {
    conformance::check_store_against_model(|| {
        RelayStore::new(KeptLink(TestLink::to(Arc::new(MemoryStore::new()))), VaultId([7; 16]), "phone")
    });
}

#[test]
fn a_link_that_is_down_is_an_error_that_passes() {
    let link = TestLink::to(Arc::new(MemoryStore::new()));
    let store = link.store(VaultId([7; 16]));
    let name = conformance::name("tips/a");
    store.put(&name, b"one").unwrap();
    link.cut();
    let error = store.get(&name, 10).unwrap_err();
    assert!(crate::files::with_causes(&error).contains("the link to the companion is down"), "{error:?}");
}

/// A way over a link that lives as long as the way.
struct KeptLink(TestLink);

impl Ask for KeptLink {
    fn ask(&self, request: &Request, body: &[u8]) -> std::io::Result<Answer> {
        LinkAsk::new(self.0.runtime.handle().clone(), self.0.session.subscribe()).ask(request, body)
    }
}
