//! `packetboat run`: the daemon.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use packetboat_daemon::control::Request;
use packetboat_daemon::daemon::{self, Ended, Order, Parts};
use packetboat_daemon::home::Claim;
use packetboat_daemon::notify::Notifier;
use packetboat_daemon::reports::check_maildir;
use packetboat_daemon::settings::DOCUMENTED;
use packetboat_engine::ports::Clock as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing_subscriber::EnvFilter;

use crate::carrier::{Carrier, clock, home_directory, host_name, not_a_maildir, offset_minutes, runtime};
use crate::failure::Failure;
use crate::member::RegisteredReplicas;
use crate::opening::Context;
use crate::ui::print;
use crate::world::{SystemClock, SystemEntropy};

/// Carry mail: take it from mail programs, send it by this device's path or the companion's
///
/// Runs until it is stopped; `packetboat service install` has it run whenever you are logged in.
/// Mail that was taken is on disk, so stopping loses none: a host hands its turns to the companion on the way out, if the
/// link is up, and takes them back when it starts. It does the same before the computer sleeps, where logind says so.
/// A companion brings its own replicas of vaults in step for its host (relay.members in daemon.toml).
/// SIGHUP has settings and accounts read again; ports and the link change with the next start.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct RunArgs {
    /// Show every setting with its meaning and default, and do nothing else
    #[arg(long)]
    print_settings: bool,
    /// Log at this level and above: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "info", env = "PACKETBOAT_LOG")]
    log: String,
}

/// Runs the command.
pub(crate) fn run(context: &Context, args: &RunArgs) -> Result<ExitCode, Failure> {
    if args.print_settings {
        print(DOCUMENTED);
        return Ok(ExitCode::SUCCESS);
    }
    let carrier = Carrier::locate(context)?;
    let first = parts(context, &carrier)?;
    log_to_stderr(context, &args.log)?;
    if SystemClock.now_ms() < BUILT_AFTER_MS {
        context.ui.warn("this computer's clock is years late; mails get wrong dates, and certificates may be refused");
    }
    let runtime = runtime(context.threads)?;
    let ran = runtime.block_on(async {
        let (orders, mut waiting) = mpsc::channel(4);
        tokio::spawn(listen(orders, Carrier { home: carrier.home.clone() })?);
        let mut next = first;
        while daemon::run(next, &mut waiting).await? == Ended::Unpaired {
            // It goes on with what is its own.
            next = parts(context, &carrier)?;
        }
        Ok(())
    });
    // A maildrop that is being read is read again at the next start.
    runtime.shutdown_background();
    ran.map(|()| ExitCode::SUCCESS)
}

/// Reads what a daemon is made of.
fn parts(context: &Context, carrier: &Carrier) -> Result<Parts, Failure> {
    let (settings, accounts, pair) = (carrier.settings()?, carrier.accounts()?, carrier.pair()?);
    let maildir = settings.maildir(home_directory().as_deref());
    check_maildir(&maildir).map_err(|error| not_a_maildir(&maildir, &error))?;
    let claim = claim(carrier)?;
    let socket = std::env::var("NOTIFY_SOCKET").ok();
    Ok(Parts {
        claim,
        settings,
        accounts,
        pair,
        clock: clock(),
        entropy: Box::new(SystemEntropy),
        host_name: host_name(),
        offset_minutes: offset_minutes(),
        maildir,
        notifier: Notifier::new(socket.as_deref())?,
        replicas: Box::new(RegisteredReplicas { context: context.clone() }),
    })
}

/// The right to write in the home. A command that has just done its work there, such as `packetboat pair`, is waited for.
fn claim(carrier: &Carrier) -> Result<Claim, Failure> {
    let began = Instant::now();
    loop {
        if let Some(claim) = carrier.home.claim()? {
            return Ok(claim);
        }
        if carrier.ask(&Request::Who).is_ok() {
            return Err(Failure::new("the daemon runs already").hint("`packetboat paths` shows how it stands"));
        }
        if began.elapsed() > OTHER_COMMAND {
            return Err(Failure::new("another command is at work in the daemon's place")
                .hint("let `packetboat pair` come to its end first, or stop it"));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Turns signals into orders.
fn listen(orders: mpsc::Sender<Order>, carrier: Carrier) -> Result<impl Future<Output = ()> + Send, Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hang_up.recv() => match (carrier.settings(), carrier.accounts()) {
                    (Ok(settings), Ok(accounts)) => {
                        let _ended = orders.send(Order::Reload(Box::new(settings), accounts)).await;
                    }
                    // What runs goes on as it is.
                    (Err(failure), _) | (_, Err(failure)) => tracing::error!("{failure}"),
                },
            }
        }
        let _ended = orders.send(Order::Stop).await;
        // Whoever asks twice does not want to wait for the companion.
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::process::exit(130);
    })
}

fn log_to_stderr(context: &Context, level: &str) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(format!(
        "warn,packetboat={level},packetboat_daemon={level},packetboat_link={level},packetboat_mail={level}"
    ));
    let filter = filter.map_err(|error| Failure::new(format!("{level:?} is no level")).because(&error))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if context.ui.json {
        log.json().init()
    } else {
        log.with_ansi(false).init()
    }
    Ok(())
}

/// How long a command that is at work where the daemon wants to be is waited for: it ends soon, or waits for somebody.
const OTHER_COMMAND: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The first of January 2026.
const BUILT_AFTER_MS: i64 = 1_767_225_600_000;

const HELP: &str = "\
Settings are read from $PACKETBOAT_CONFIG_DIR, or $XDG_CONFIG_HOME/packetboat, or ~/.config/packetboat: daemon.toml and \
accounts.toml. Both may be missing. Logs go to stderr, with --json as one object a line.";
