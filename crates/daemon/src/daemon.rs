//! The daemon put together: who talks to whom, in which order things start, and how they end.
//!
//! Starting: the outbox is opened and its mails told that the process began anew; then the link, the submission
//! port and the control socket; only then is the service manager told that the daemon is ready.
//! Ending: nothing more is taken in, a host hands its turns to the companion while the link stands, and what is left is
//! on disk anyway.

mod accounts;
mod hand_over;
mod link;
mod part;
mod ways;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use packetboat_core::delivery::{Event, Moment};
use packetboat_core::keys::Nonce;
use packetboat_engine::ports::Entropy;
use packetboat_mail::account::Accounts;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::accounts::{fetching, lending, routes, sent_accounts, take_lent};
use self::hand_over::{SleepyDevice, hand_over};
use self::link::{open_link, serve_link, view_of_link};
use self::part::{asked_to_part, heard_of_parting};
use self::ways::watch_network;
use crate::clock::Clock;
use crate::control::server::{self, Control, PartRequest};
use crate::files::FileError;
use crate::hands::{DaemonHands, HandsParts};
use crate::home::Claim;
use crate::inbox::exchange::Exchange;
use crate::inbox::fetcher;
use crate::inbox::office::{Office, OfficeParts};
use crate::inbox::status::States;
use crate::lender::Lender;
use crate::lent::Lent;
use crate::notify::Notifier;
use crate::outbox::courier::{self, Courier};
use crate::outbox::desk::{Desk, Input, Tie};
use crate::outbox::intake::{Intake, Reception};
use crate::outbox::store::{Store, StoreError};
use crate::outbox::transmit::{Routes, Transmit};
use crate::outbox::view::wall_ms;
use crate::pair::{Pair, Role};
use crate::parting::{self, PartError, Parted};
use crate::paths::PathWatch;
use crate::peer::{HAND_OVER_PATIENCE, Peer, PeerParts};
use crate::port::{Port, PortError};
use crate::relay::answer::Answerer;
use crate::relay::carried::Carried;
use crate::relay::members::{Members, NoReplicas, Replicas};
use crate::relay::seen::Seen;
use crate::relay::shelf::{Shelf, ShelfError};
use crate::relay::work::{self, Often};
use crate::reports::Reports;
use crate::sent::SentFolder;
use crate::settings::Settings;
use crate::sleep;

/// What a daemon is made of.
pub struct Parts {
    /// The right to write in its home.
    pub claim: Claim,
    /// Its settings.
    pub settings: Settings,
    /// Its accounts.
    pub accounts: Accounts,
    /// The other device, if there is one.
    pub pair: Option<Pair>,
    /// Its clock.
    pub clock: Arc<dyn Clock>,
    /// Its randomness.
    pub entropy: Box<dyn Entropy>,
    /// What this computer calls itself.
    pub host_name: String,
    /// How far the local clock is ahead of UTC, in minutes.
    pub offset_minutes: i32,
    /// Where mail is delivered.
    pub maildir: PathBuf,
    /// The service manager.
    pub notifier: Notifier,
    /// This user's replicas, which a companion brings in step for its host.
    pub replicas: Box<dyn Replicas>,
}

/// What a daemon is asked while it runs.
#[derive(Debug)]
pub enum Order {
    /// End.
    Stop,
    /// Go by these from now on. Ports and the link stay as they are until the next start.
    Reload(Box<Settings>, Accounts),
}

/// Why a daemon ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// It was ordered to.
    Stopped,
    /// Its pair is over; it is to begin anew without one.
    Unpaired,
}

/// Runs until it is ordered to stop, or its pair ends.
pub async fn run(mut parts: Parts, orders: &mut mpsc::Receiver<Order>) -> Result<Ended, RunError> {
    let home = parts.claim.home().clone();
    let key = parts.claim.key(parts.entropy.as_mut())?;
    let token = parts.claim.token(parts.entropy.as_mut())?;
    let tie = parts.pair.as_ref().map(|pair| Tie { serial: pair.serial, role: pair.role });
    let store = Store::open(&home.outbox(), &home.bodies())?;
    let (reader, control_reader) = (store.reader()?, store.reader()?);
    let (transmit_reader, peer_reader) = (store.reader()?, store.reader()?);
    let part_reader = Arc::new(Mutex::new(store.reader()?));
    let now = parts.clock.now();
    let (desk, outcomes) = Desk::open(store, tie, parts.settings.delivery(), &now)?;

    let lent = match Lent::kept(&home.sealed_accounts(), &key) {
        Ok(Some(lent)) => lent.accounts(home.state()).unwrap_or_default(),
        Ok(None) => Accounts::default(),
        Err(error) => {
            tracing::warn!(%error, "the host's accounts are waited for again");
            Accounts::default()
        }
    };
    let routes: Arc<dyn Routes> = Arc::new(routes(&parts, &lent));
    let (courier, mut commands) = Courier::channel();
    let watch = PathWatch::new(parts.clock.clone());
    let transmit = Transmit::new(courier.clone(), routes.clone(), transmit_reader, parts.clock.clone(), watch.clone());
    let reception = Arc::new(Reception::new(
        &home.bodies(),
        parts.clock.clone(),
        parts.entropy.fork(),
        parts.host_name.clone(),
        parts.offset_minutes,
    ));
    let intake = Arc::new(Intake::new(reception.clone(), courier.clone(), routes));

    let office = Office::new(OfficeParts {
        record: home.inbox(),
        maildir: parts.maildir.clone(),
        host_name: parts.host_name.clone(),
        clock: parts.clock.clone(),
        entropy: parts.entropy.fork(),
        paired: parts.pair.is_some(),
    });
    let exchange = Exchange::new(office.clone());
    let states = States::default();
    let (fetch, fetching) = watch::channel(fetching(&parts, &lent));
    let (networks, appearing) = watch::channel(0);

    let mut tasks = JoinSet::new();
    let (lend, lent_accounts) = watch::channel(None);
    let (got_accounts, mut accounts_of_host) = mpsc::channel(1);
    let (parting, mut words) = mpsc::channel(4);
    let (part, mut part_requests) = mpsc::channel::<PartRequest>(1);
    let mut peer_sender = None;
    let mut link_view: Arc<dyn Fn() -> Value + Send + Sync> = Arc::new(|| Value::Null);
    let mut endpoint = None;
    let mut link_up = None;
    let (session_now, session) = watch::channel(None);
    let lending_session = session.clone();
    let mut clock_ahead = None;
    let carried = match &parts.pair {
        Some(pair) if pair.role == Role::Companion => {
            let wanted = &parts.settings.relay;
            let shelf = Arc::new(Shelf::open(&home.shelf(), wanted.space, parts.clock.clone())?);
            let replicas: Box<dyn Replicas> = match wanted.members {
                true => std::mem::replace(&mut parts.replicas, Box::new(NoReplicas)),
                false => Box::new(NoReplicas),
            };
            let members = Arc::new(Members::new(replicas, parts.clock.clone()));
            let carried = Arc::new(Carried::new(home.carried(), shelf, members.clone(), wanted.pull));
            let often = Often { retry: wanted.retry.0, poll: wanted.poll.0 };
            tasks.spawn(work::run(carried.clone(), members, often, networks.subscribe()));
            Some(carried)
        }
        _ => None,
    };
    if let Some(pair) = &parts.pair {
        let (peer, sender, skew) = Peer::new(PeerParts {
            courier: courier.clone(),
            reader: peer_reader,
            bodies: home.bodies(),
            role: pair.role,
            clock: parts.clock.clone(),
            accounts: lent_accounts,
            got_accounts,
            inbox: exchange.clone(),
            carries: carried.clone().map(Answerer::new),
            parting,
        });
        peer_sender = Some(sender);
        clock_ahead = Some(skew.clone());
        let mut incarnation = [0; 16];
        parts.entropy.fill(&mut incarnation);
        let (bound, link) = open_link(pair, &key, &parts.settings, incarnation)?;
        let link = Arc::new(link);
        endpoint = Some(bound);
        link_up = Some(link.clone());
        link_view = view_of_link(pair.clone(), link.clone(), skew, parts.clock.clone());
        tasks.spawn(serve_link(peer, link, session_now));
    }
    let sent = Arc::new(SentFolder::new(sent_accounts(&parts, &lent)));
    let reports = Arc::new(Reports::new(parts.maildir.clone(), home.inbox(), reception));
    let (mut hands, active) = DaemonHands::new(HandsParts {
        courier: courier.clone(),
        transmit: transmit.clone(),
        peer: peer_sender,
        reports,
        sent: sent.clone(),
        reader: Arc::new(Mutex::new(reader)),
        bodies: home.bodies(),
        lifetime: parts.settings.outbox.lifetime.0,
    });

    let (stop, stopped) = watch::channel(false);
    let (wakes, wake_clock) = (desk.wakes(), parts.clock.clone());
    let port = Port::new(&home, parts.host_name.clone(), token, &parts.settings.submission)?;
    for address in &parts.settings.submission.listen {
        let server = port.listen(*address, &parts.settings.submission, intake.clone()).await?;
        tasks.spawn(server.run(stopped.clone()));
    }
    // Whoever finds that the daemon answers may submit.
    let listener = server::bind(&home.socket()).map_err(RunError::Control)?;
    let paths_of = (watch.clone(), parts.pair.as_ref().map(|pair| pair.role));
    let inbox_of = (states.clone(), exchange);
    let seen = parts.pair.as_ref().filter(|pair| pair.role == Role::Host);
    let seen = seen.map(|_| Arc::new(Seen::new(session.clone(), parts.clock.clone())));
    let carries = carried.clone();
    let session_of = session.clone();
    let control = Control {
        part,
        intake: intake.clone(),
        courier: courier.clone(),
        reader: Mutex::new(control_reader),
        wakes: Arc::new(move |mail| {
            let now = wake_clock.now();
            wakes.of(mail).map(|since_boot_ms| wall_ms(Moment { boot: now.boot, since_boot_ms }, &now))
        }),
        paths: Arc::new(move || {
            let inbox = json!({ "accounts": inbox_of.0.all(), "exchange_error": inbox_of.1.trouble() });
            let carried = carried.as_ref().map(|carried| carried.view());
            json!({
                "role": paths_of.1, "own": paths_of.0.state(), "link": link_view(),
                "inbox": inbox, "carried": carried,
            })
        }),
        session,
        carried: carries,
        seen,
        bodies: home.bodies(),
        message_limit: parts.settings.submission.message_limit,
    };
    tasks.spawn(server::serve(listener, Arc::new(control)));
    let link_again = link_up.clone();
    tasks.spawn(watch_network(courier.clone(), transmit.clone(), watch.clone(), link_up, networks));
    tasks.spawn(fetcher::run(office, states, watch.clone(), fetching, appearing));
    tasks.spawn({
        let (courier, watch) = (courier.clone(), watch.clone());
        async move {
            loop {
                watch.came_back().await;
                courier.tell(Input::HappenedToAll(Event::PathUp)).await;
            }
        }
    });
    let is_host = tie.is_some_and(|tie| tie.role == Role::Host);
    if tie.is_some() {
        let (courier, active, link) = (courier.clone(), active.clone(), link_again);
        tasks.spawn(sleep::run(SleepyDevice { courier, active, is_host, link }));
    }
    let lender = Lender::new(lending(&parts), lend, parts.clock.clone());
    if is_host {
        lender.lend().await;
        tasks.spawn(lender.clone().keep_fresh(lending_session));
    }

    let (end_loop, loop_ends) = watch::channel(false);
    let clock = parts.clock.clone();
    let looping = tokio::spawn(async move {
        courier::run(desk, outcomes, &mut commands, &mut hands, clock.as_ref(), loop_ends).await
    });
    parts.notifier.ready();
    match &parts.pair {
        Some(Pair { role: Role::Host, peer_name, .. }) => {
            tracing::info!(companion = peer_name, "the daemon runs as a host");
        }
        Some(Pair { role: Role::Companion, peer_name, .. }) => {
            tracing::info!(host = peer_name, "the daemon runs as a companion");
        }
        None => tracing::info!("the daemon runs without a pair"),
    }

    let mut of_host = lent;
    let mut parted: Option<Parted> = None;
    while parted.is_none() {
        let rerouted = tokio::select! {
            order = orders.recv() => match order {
                None | Some(Order::Stop) => break,
                Some(Order::Reload(settings, accounts)) => {
                    courier.tell(Input::Settings(Box::new(settings.delivery()))).await;
                    (parts.settings, parts.accounts) = (*settings, accounts);
                    port.reload(&parts.settings.submission);
                    if is_host {
                        lender.set(lending(&parts)).await;
                    }
                    tracing::info!("settings and accounts were read again");
                    true
                }
            },
            Some(bytes) = accounts_of_host.recv() => {
                let mut nonce = [0; 24];
                parts.entropy.fill(&mut nonce);
                let ahead_ms = clock_ahead.as_ref().and_then(|ahead| *ahead.borrow()).unwrap_or(0);
                match take_lent(&bytes, ahead_ms, &home, &key, Nonce(nonce)) {
                    // Each session says them again, and what is under way need not begin anew for that.
                    Ok(accounts) if accounts == of_host => false,
                    Ok(accounts) => { of_host = accounts; true }
                    Err(error) => { tracing::warn!(%error, "the host's accounts were not taken"); false }
                }
            }
            Some(PartRequest { alone, answer }) = part_requests.recv() => {
                let session = session_of.borrow().clone();
                let between = (parts.pair.as_ref(), session.as_ref());
                let outcome = asked_to_part(between, alone, &mut words, &courier, &part_reader).await;
                parted = outcome.as_ref().ok().cloned();
                let _gone = answer.send(outcome);
                false
            }
            Some(word) = words.recv() => {
                let session = session_of.borrow().clone();
                let between = (parts.pair.as_ref(), session.as_ref());
                parted = heard_of_parting(between, word, &mut words, &courier, &part_reader).await;
                false
            }
            // Parts that end by themselves are those whose work is done.
            Some(_) = tasks.join_next() => false,
        };
        if rerouted {
            let routes: Arc<dyn Routes> = Arc::new(accounts::routes(&parts, &of_host));
            transmit.set_routes(routes.clone());
            intake.set_routes(routes);
            sent.set(sent_accounts(&parts, &of_host));
            fetch.send_replace(accounts::fetching(&parts, &of_host));
        }
    }

    match &parted {
        None => parts.notifier.stopping(),
        Some(Parted { peer, agreed, unclear }) => tracing::info!(peer, agreed, unclear, "the pair is over"),
    }
    stop.send_replace(true);
    if let Some(parted) = &parted {
        // From here on no start takes up the link again.
        parting::forget(&home, parted.agreed)?;
        // The command that asked is still to hear of it.
        tokio::time::sleep(ANSWERED).await;
    } else if is_host {
        hand_over(&courier, active, HAND_OVER_PATIENCE).await;
    }
    transmit.stop();
    end_loop.send_replace(true);
    let _ended = timeout(HAND_OVER_PATIENCE, looping).await;
    tasks.shutdown().await;
    if let Some(endpoint) = endpoint {
        endpoint.close().await;
    }
    let _gone = std::fs::remove_file(home.socket());
    if parted.is_some() {
        return Ok(Ended::Unpaired);
    }
    tracing::info!("the daemon has ended");
    Ok(Ended::Stopped)
}

/// Why a daemon does not run.
#[derive(Debug, Error)]
pub enum RunError {
    /// Its home cannot be used.
    #[error(transparent)]
    Home(#[from] FileError),
    /// The outbox cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is carried of vaults cannot be opened.
    #[error(transparent)]
    Shelf(#[from] ShelfError),
    /// Commands cannot be listened to.
    #[error("the control socket cannot be made")]
    Control(#[source] std::io::Error),
    /// Mail programs cannot be listened to.
    #[error(transparent)]
    Port(#[from] PortError),
    /// An address of the link cannot be used.
    #[error(transparent)]
    Bind(#[from] packetboat_link::BindError),
    /// The pair cannot be ended.
    #[error(transparent)]
    Part(#[from] PartError),
    /// There cannot be a link to the other device.
    #[error(transparent)]
    Link(#[from] packetboat_link::LinkError),
}

impl RunError {
    /// What a person can do about it, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Port(error) => error.hint(),
            Self::Store(StoreError::Full) => Some("free some space on the disk that holds packetboat's state"),
            _ => None,
        }
    }
}

/// How long an answer may take to a command on this computer.
const ANSWERED: Duration = Duration::from_millis(200);
