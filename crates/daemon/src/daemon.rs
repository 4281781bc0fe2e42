//! The daemon put together: who talks to whom, in which order things start, and how they end.
//!
//! Starting: the outbox is opened and its mails told that the process began anew; then the control socket, the submission
//! port and the link; only then is the service manager told that the daemon is ready.
//! Ending: nothing more is taken in, a host hands its turns to the companion while the link stands, and what is left is
//! on disk anyway.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use packetboat_core::delivery::Event;
use packetboat_core::delivery::message::MAX_MESSAGE_BYTES;
use packetboat_core::keys::{DeviceKey, Nonce};
use packetboat_engine::ports::Entropy;
use packetboat_link::{Endpoint, Identity, Link, Local, Session};
use packetboat_mail::account::Accounts;
use packetboat_mail::submission::{self, Reach, Server, Token};
use serde_json::{Value, json};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::clock::Clock;
use crate::control::server::{self, Control};
use crate::files::with_causes;
use crate::hands::{DaemonHands, HandsParts};
use crate::home::{Claim, Home, HomeError};
use crate::inbox::exchange::Exchange;
use crate::inbox::fetcher::{self, Fetching};
use crate::inbox::office::{Office, OfficeParts};
use crate::inbox::status::States;
use crate::lender::{Lender, Lending};
use crate::lent::{Lent, LentError};
use crate::network::{Network, Ways};
use crate::notify::Notifier;
use crate::outbox::courier::{self, Courier};
use crate::outbox::desk::{Desk, Input, Tie};
use crate::outbox::intake::{Intake, Reception};
use crate::outbox::store::{Store, StoreError};
use crate::outbox::transmit::{Routes, Transmit};
use crate::pair::{Pair, Role};
use crate::paths::PathWatch;
use crate::peer::{HAND_OVER_PATIENCE, Peer, PeerParts};
use crate::relay::answer::Answerer;
use crate::relay::carried::Carried;
use crate::relay::shelf::{Shelf, ShelfError};
use crate::reports::Reports;
use crate::routes::AccountRoutes;
use crate::sent::{SentAccounts, SentFolder};
use crate::settings::Settings;

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
}

/// What a daemon is asked while it runs.
#[derive(Debug)]
pub enum Order {
    /// End.
    Stop,
    /// Go by these from now on. Ports and the link stay as they are until the next start.
    Reload(Box<Settings>, Accounts),
}

/// Runs until it is ordered to stop.
pub async fn run(mut parts: Parts, mut orders: mpsc::Receiver<Order>) -> Result<(), RunError> {
    let home = parts.claim.home().clone();
    let key = parts.claim.key(parts.entropy.as_mut())?;
    let token = parts.claim.token(parts.entropy.as_mut())?;
    let tie = parts.pair.as_ref().map(|pair| Tie { serial: pair.serial, role: pair.role });
    let store = Store::open(&home.outbox(), &home.bodies())?;
    let (reader, control_reader) = (store.reader()?, store.reader()?);
    let (transmit_reader, peer_reader) = (store.reader()?, store.reader()?);
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
    let mut peer_sender = None;
    let mut link_view: Arc<dyn Fn() -> Value + Send + Sync> = Arc::new(|| Value::Null);
    let mut endpoint = None;
    let mut link_up = None;
    let (session_now, session) = watch::channel(None);
    let lending_session = session.clone();
    let mut clock_ahead = None;
    let carried = match &parts.pair {
        Some(pair) if pair.role == Role::Companion => {
            let shelf = Arc::new(Shelf::open(&home.shelf(), parts.settings.relay.space)?);
            let carried = Arc::new(Carried::new(home.carried(), shelf));
            tasks.spawn(put_up(carried.clone(), parts.settings.relay.retry.0));
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
    let (mut hands, wakes, active) = DaemonHands::new(HandsParts {
        courier: courier.clone(),
        transmit: transmit.clone(),
        peer: peer_sender,
        reports,
        sent: sent.clone(),
        reader: Arc::new(Mutex::new(reader)),
        bodies: home.bodies(),
        lifetime: parts.settings.outbox.lifetime.0,
        clock: parts.clock.clone(),
    });

    let (stop, stopped) = watch::channel(false);
    let listener = server::bind(&home.socket()).map_err(RunError::Control)?;
    let paths_of = (watch.clone(), parts.pair.as_ref().map(|pair| pair.role));
    let inbox_of = (states.clone(), exchange);
    let control = Control {
        intake: intake.clone(),
        courier: courier.clone(),
        reader: Mutex::new(control_reader),
        wakes: Arc::new(move |mail| wakes.of(mail)),
        paths: Arc::new(move || {
            let inbox = json!({ "accounts": inbox_of.0.all(), "exchange_error": inbox_of.1.trouble() });
            let carried = carried.as_ref().map(|carried| carried.view());
            json!({
                "role": paths_of.1, "own": paths_of.0.state(), "link": link_view(),
                "inbox": inbox, "carried": carried,
            })
        }),
        session,
        bodies: home.bodies(),
        message_limit: parts.settings.submission.message_limit,
    };
    tasks.spawn(server::serve(listener, Arc::new(control)));
    for address in &parts.settings.submission.listen {
        let failed = |source| RunError::Submission { address: *address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let settings = submission_settings(&parts, &token, home.bodies());
        let reach = if parts.settings.submission.beyond_loopback { Reach::Network } else { Reach::Loopback };
        let server = Server::new(listener, reach, settings, intake.clone())?;
        tasks.spawn(server.run(stopped.clone()));
    }
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
    tracing::info!(pair = ?tie, "the daemon runs");

    let mut of_host = lent;
    loop {
        let rerouted = tokio::select! {
            order = orders.recv() => match order {
                None | Some(Order::Stop) => break,
                Some(Order::Reload(settings, accounts)) => {
                    courier.tell(Input::Settings(Box::new(settings.delivery()))).await;
                    (parts.settings, parts.accounts) = (*settings, accounts);
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
            // Parts that end by themselves are those whose work is done.
            Some(_) = tasks.join_next() => false,
        };
        if rerouted {
            let routes: Arc<dyn Routes> = Arc::new(self::routes(&parts, &of_host));
            transmit.set_routes(routes.clone());
            intake.set_routes(routes);
            sent.set(sent_accounts(&parts, &of_host));
            fetch.send_replace(self::fetching(&parts, &of_host));
        }
    }

    parts.notifier.stopping();
    stop.send_replace(true);
    if is_host {
        hand_over(&courier, active).await;
    }
    transmit.stop();
    end_loop.send_replace(true);
    let _ended = timeout(HAND_OVER_PATIENCE, looping).await;
    tasks.shutdown().await;
    if let Some(endpoint) = endpoint {
        endpoint.close().await;
    }
    let _gone = std::fs::remove_file(home.socket());
    tracing::info!("the daemon has ended");
    Ok(())
}

/// Whose server sends a mail.
fn routes(parts: &Parts, of_host: &Accounts) -> AccountRoutes {
    let (own, host_name) = (parts.accounts.clone(), parts.host_name.clone());
    AccountRoutes::new(own, of_host.clone(), host_name, &parts.settings, parts.clock.clone())
}

/// What a host lends its companion.
fn lending(parts: &Parts) -> Lending {
    let provider_files = parts.settings.outbox.provider_files_sent.clone();
    Lending { accounts: parts.accounts.clone(), provider_files }
}

/// Where mail that went out is looked for and filed.
fn sent_accounts(parts: &Parts, of_host: &Accounts) -> SentAccounts {
    SentAccounts {
        own: parts.accounts.clone(),
        of_host: of_host.clone(),
        provider_files: parts.settings.outbox.provider_files_sent.clone(),
    }
}

/// What is fetched: by the device's own accounts, and by those of its host.
fn fetching(parts: &Parts, of_host: &Accounts) -> Fetching {
    Fetching {
        own: parts.accounts.clone(),
        of_host: of_host.clone(),
        poll: parts.settings.inbox.poll.0,
        connect: parts.settings.outbox.connect.0,
    }
}

fn open_link(
    pair: &Pair,
    key: &DeviceKey,
    settings: &Settings,
    incarnation: [u8; 16],
) -> Result<(Endpoint, Link), RunError> {
    let locals = pair.locals.iter().map(|local| Local { address: local.address, interface: local.interface.clone() });
    let link_settings = packetboat_link::Settings {
        keep_alive: settings.link.keep_alive.0,
        idle: settings.link.idle.0,
        retry_greatest: settings.link.retry.0,
        limits: packetboat_link::Limits {
            // A copy for the most recipients there may be, and the byte that says that it is about delivery.
            message_bytes: MAX_MESSAGE_BYTES + 1,
            ..packetboat_link::Limits::default()
        },
        ..packetboat_link::Settings::default()
    };
    let endpoint = Endpoint::bind(Identity::from_seed(&key.seed()), locals.collect(), link_settings, incarnation)?;
    let peer = packetboat_link::Peer { key: pair.peer, addresses: pair.peer_addresses.clone() };
    let link = endpoint.link(peer)?;
    Ok((endpoint, link))
}

async fn serve_link(mut peer: Peer, link: Arc<Link>, session_now: watch::Sender<Option<Session>>) {
    let mut sessions = link.sessions();
    while let Some(session) = sessions.next().await {
        tracing::info!("the link is up");
        session_now.send_replace(Some(session.clone()));
        peer.serve(session).await;
        session_now.send_replace(None);
        tracing::info!("the link is down");
    }
}

fn view_of_link(
    pair: Pair,
    link: Arc<Link>,
    skew: watch::Receiver<Option<i64>>,
    clock: Arc<dyn Clock>,
) -> Arc<dyn Fn() -> Value + Send + Sync> {
    Arc::new(move || {
        let now = clock.now().wall_ms;
        let ago = |elapsed: Duration| now.saturating_sub(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
        let (up, since_ms, detail) = match link.status() {
            packetboat_link::Status::Up { since, remote, round_trip } => {
                let round_trip_ms = round_trip.as_secs_f64() * 1000.0;
                (true, ago(since.elapsed()), json!({ "remote": remote, "round_trip_ms": round_trip_ms }))
            }
            packetboat_link::Status::Down { since, error, tries, .. } => {
                let error = error.map(|error| error.to_string());
                (false, ago(since.elapsed()), json!({ "error": error, "tries": tries }))
            }
        };
        json!({
            "peer": pair.peer_name,
            "up": up,
            "since_ms": since_ms,
            "remote": detail["remote"],
            "round_trip_ms": detail["round_trip_ms"],
            "error": detail["error"],
            "tries": detail["tries"],
            "clock_ahead_ms": *skew.borrow(),
        })
    })
}

fn submission_settings(parts: &Parts, token: &str, spool: PathBuf) -> submission::Settings {
    let wanted = &parts.settings.submission;
    submission::Settings {
        host: parts.host_name.clone(),
        origin: parts.host_name.clone(),
        token: if wanted.require_token || wanted.beyond_loopback { Token::new(token) } else { None },
        tls: None,
        spool,
        limits: submission::Limits { message: wanted.message_limit, ..submission::Limits::default() },
    }
}

/// Puts up what waits of vaults, now and then.
async fn put_up(carried: Arc<Carried>, every: Duration) {
    loop {
        let carried = carried.clone();
        match tokio::task::spawn_blocking(move || carried.put_up()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(error = with_causes(&error), "what waits of vaults is not put up"),
            Err(error) => tracing::error!(%error, "putting up what waits of vaults ended"),
        }
        tokio::time::sleep(every).await;
    }
}

/// Tells the mails when a way out appears, and dials the other device at once, which may be reachable by it.
async fn watch_network(
    courier: Courier,
    transmit: Transmit,
    watch: PathWatch,
    link: Option<Arc<Link>>,
    networks: watch::Sender<u64>,
) {
    let mut network = match Network::watch() {
        Ok(network) => network,
        Err(error) => {
            tracing::debug!(%error, "the system does not tell of networks that come and go");
            return;
        }
    };
    while let Ok(ways) = network.changed().await {
        tracing::debug!(?ways, "the ways out changed");
        match ways {
            Ways::New => {
                courier.tell(Input::HappenedToAll(Event::PathUp)).await;
                networks.send_modify(|count| *count += 1);
                if let Some(link) = &link {
                    link.dial_now();
                }
            }
            Ways::None => {
                transmit.path_lost();
                watch.failed("there is no route to any network", packetboat_mail::smtp::Kind::Path);
                courier.tell(Input::HappenedToAll(Event::PathDown)).await;
            }
        }
    }
}

fn take_lent(bytes: &[u8], ahead_ms: i64, home: &Home, key: &DeviceKey, nonce: Nonce) -> Result<Accounts, LentError> {
    let lent = Lent::decode(bytes)?.by_own_clock(ahead_ms);
    if Lent::kept(&home.sealed_accounts(), key).ok().flatten().as_ref() != Some(&lent) {
        lent.keep(&home.sealed_accounts(), key, nonce)?;
    }
    lent.accounts(home.state())
}

/// Offers all turns to the companion, and waits until it has taken what it takes, or for as long as is seemly.
async fn hand_over(courier: &Courier, mut active: watch::Receiver<u64>) {
    courier.tell(Input::HappenedToAll(Event::HandOver)).await;
    let quiet =
        async { while timeout(HAND_OVER_QUIET, active.changed()).await.is_ok_and(|changed| changed.is_ok()) {} };
    let _in_time = timeout(HAND_OVER_PATIENCE, quiet).await;
}

/// Why a daemon does not run.
#[derive(Debug, Error)]
pub enum RunError {
    /// Its home cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
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
    #[error("mail cannot be taken at {address}")]
    Submission {
        /// Where.
        address: std::net::SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The submission port reaches further than it may.
    #[error(transparent)]
    Reach(#[from] submission::ServerError),
    /// An address of the link cannot be used.
    #[error(transparent)]
    Bind(#[from] packetboat_link::BindError),
    /// There cannot be a link to the other device.
    #[error(transparent)]
    Link(#[from] packetboat_link::LinkError),
}

const HAND_OVER_QUIET: Duration = Duration::from_millis(500);
