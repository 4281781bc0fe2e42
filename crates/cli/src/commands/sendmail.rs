//! `packetboat sendmail`: what programs call that know nothing of SMTP.
//!
//! The same when the binary is called by the name `sendmail`, so that it can stand in its place.
//! It answers as sendmail does: by an exit status of `sysexits.h`, and on stderr.

use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use packetboat_daemon::control::client::{Client, ControlQueue};
use packetboat_daemon::outbox::desk::Tie;
use packetboat_daemon::outbox::intake::{Closed, Reception};
use packetboat_daemon::outbox::store::Store;
use packetboat_mail::address::{Address, ReversePath};
use packetboat_mail::message::{LineEnds, Preparation, Rules};
use packetboat_mail::sendmail::{Arguments, DotEnd, Mode};
use packetboat_mail::submission::{self, Limits, Peer, Queue, Refusal, Spooled, Submission, converse};
use tokio::sync::watch;

use crate::carrier::{Carrier, host_name, runtime};
use crate::failure::Failure;
use crate::opening::Context;
use crate::text;

/// Take a mail from standard input, as the program sendmail does
///
/// Understands what cron, git send-email, mutt and mail write: -t, -f, -F, -r, -i, -oi, -bm, -bs, -bp, -q and recipients.
/// The mail is on disk when this ends with 0, and is sent by `packetboat run`, now or when that runs next.
/// Link /usr/sbin/sendmail or ~/bin/sendmail to packetboat, and programs use it without being told.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct SendmailArgs {
    /// Options and recipients, as sendmail has them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(context: &Context, args: &SendmailArgs) -> Result<ExitCode, Failure> {
    if args.arguments.iter().any(|argument| argument == "--help") {
        crate::ui::print(HELP);
        return Ok(ExitCode::SUCCESS);
    }
    let arguments = match Arguments::parse(&args.arguments, &host_name()) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("sendmail: {error}");
            return Ok(ExitCode::from(USAGE));
        }
    };
    let carrier = Carrier::locate(context)?;
    match arguments.mode {
        Mode::ShowQueue => super::outbox::run(context, &super::outbox::OutboxArgs::waiting()),
        Mode::RunQueue => super::outbox::run(context, &super::outbox::OutboxArgs::retry_all()),
        Mode::Deliver => deliver(&carrier, &arguments),
        Mode::Smtp => speak(&carrier),
    }
}

/// What the caller hears: whatever went wrong here is no fault of the mail, so it is told to keep it and try again later.
pub(crate) fn answer(outcome: Result<ExitCode, Failure>) -> ExitCode {
    outcome.unwrap_or_else(|failure| {
        eprint!("sendmail: the mail is not taken\n{failure}");
        ExitCode::from(LATER)
    })
}

/// Where mails go: to the daemon, or to disk where none runs.
enum Outlet {
    Daemon(ControlQueue),
    Disk(Box<Closed>),
}

impl Outlet {
    fn open(carrier: &Carrier, reception: Arc<Reception>) -> Result<Self, Failure> {
        // A daemon that is just starting or ending has the home and does not listen; it does in a moment, or lets go.
        for _ in 0..100 {
            if let Some(claim) = carrier.home.claim()? {
                let store = Store::open(&carrier.home.outbox(), &carrier.home.bodies())?;
                let tie = carrier.pair()?.map(|pair| Tie { serial: pair.serial, role: pair.role });
                let settings = carrier.settings()?.delivery();
                return Ok(Self::Disk(Box::new(Closed::new(reception, store, tie, settings, claim))));
            }
            let client = Client::new(&carrier.home);
            if client.ask(&packetboat_daemon::control::Request::Who, None).is_ok() {
                return Ok(Self::Daemon(ControlQueue::new(client, reception)));
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        Err(Failure::new("the daemon holds the outbox and does not answer"))
    }
}

impl Queue for Outlet {
    type Id = String;

    async fn accept(&self, submission: Submission) -> Result<String, Refusal> {
        match self {
            Self::Daemon(queue) => queue.accept(submission).await,
            Self::Disk(queue) => queue.accept(submission).await.map(|mail| mail.to_string()),
        }
    }

    fn stamp(&self) -> packetboat_mail::message::Stamp {
        match self {
            Self::Daemon(queue) => queue.stamp(),
            Self::Disk(queue) => queue.stamp(),
        }
    }
}

fn deliver(carrier: &Carrier, arguments: &Arguments) -> Result<ExitCode, Failure> {
    carrier.home.prepare()?;
    let limit = carrier.settings()?.submission.message_limit;
    let user = user(carrier)?;
    let reception = carrier.reception();
    let rules = Rules {
        recipients_from_header: arguments.recipients_from_header,
        from: Some(arguments.from_field(&user)),
        line_ends: LineEnds::Normalise,
        ..Rules::unix_program(host_name(), limit)
    };
    let mut preparation = Preparation::new(rules, reception.stamp());
    let mut spool = Spool::new(carrier.home.bodies());
    let mut end = (!arguments.ignore_dots).then(DotEnd::default);
    let mut piece = vec![0; 64 << 10];
    let mut stdin = io::stdin().lock();
    let refuse = |why: String, status| {
        eprintln!("sendmail: {why}");
        Ok(ExitCode::from(status))
    };
    loop {
        let count = stdin.read(&mut piece)?;
        if count == 0 {
            break;
        }
        let ends = end.as_mut().and_then(|end| end.push(&piece[..count]));
        // The line with the dot alone is not of the message; it begins after the last line end before it.
        let of_message = ends.map_or(count, |position| dot_line_start(&piece[..position]));
        if let Err(error) = preparation.push(&piece[..of_message], &mut spool.memory) {
            return refuse(error.to_string(), DATA);
        }
        spool.settle()?;
        if ends.is_some() {
            break;
        }
    }
    let message = match preparation.finish(&mut spool.memory) {
        Ok(message) => message,
        Err(error) => return refuse(error.to_string(), DATA),
    };
    let body = spool.finish()?;
    let mut recipients = arguments.recipients.clone();
    for recipient in &message.recipients {
        if !recipients.iter().any(|known| known.same_mailbox(recipient)) {
            recipients.push(recipient.clone());
        }
    }
    if recipients.is_empty() {
        return refuse("no recipients are named".to_owned(), USAGE);
    }
    let sender = arguments.sender.clone().unwrap_or(ReversePath::Mailbox(user));
    let outlet = Outlet::open(carrier, reception)?;
    let submission = Submission { sender, recipients, message, body };
    match runtime(1)?.block_on(outlet.accept(submission)) {
        Ok(id) => {
            if arguments.verbose {
                println!("{id}");
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(refusal @ (Refusal::Full | Refusal::Busy { .. })) => refuse(refusal.to_string(), LATER),
        Err(refusal @ Refusal::NoAccount { .. }) => {
            refuse(format!("{refusal}; `packetboat mail setup` adds one, and -f names another sender"), NO_USER)
        }
        Err(refusal) => refuse(refusal.to_string(), DATA),
    }
}

/// Where the line begins that ends with the last byte.
fn dot_line_start(bytes: &[u8]) -> usize {
    let before = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    before.iter().rposition(|&byte| byte == b'\n').map_or(0, |position| position + 1)
}

/// Who hears of failures where nobody is named: the first address of the account that is the default, or of the only one.
fn user(carrier: &Carrier) -> Result<Address, Failure> {
    let accounts = carrier.accounts()?;
    let default = accounts.iter().find(|account| account.default).or_else(|| accounts.iter().next());
    let address = default.and_then(|account| account.addresses.iter().find(|address| !address.starts_with('@')));
    if let Some(address) = address.and_then(|address| Address::parse(address).ok()) {
        return Ok(address);
    }
    let name = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_else(|_| "nobody".to_owned());
    Address::parse(&format!("{name}@{}", host_name()))
        .map_err(|error| Failure::new(format!("{} cannot be a sender", text::plain(name.as_bytes()))).because(&error))
}

/// Speaks SMTP on standard input and output.
fn speak(carrier: &Carrier) -> Result<ExitCode, Failure> {
    carrier.home.prepare()?;
    let limit = carrier.settings()?.submission.message_limit;
    let reception = carrier.reception();
    let outlet = Outlet::open(carrier, reception)?;
    let settings = submission::Settings {
        host: host_name(),
        origin: host_name(),
        token: None,
        tls: None,
        spool: carrier.home.bodies(),
        limits: Limits { message: limit, ..Limits::default() },
    };
    let runtime = runtime(2)?;
    runtime.block_on(async {
        let (_go_on, stop) = watch::channel(false);
        let stream = tokio::io::join(tokio::io::stdin(), tokio::io::stdout());
        converse(stream, Peer::Pipe, &settings, &outlet, stop).await;
    });
    // A read of standard input that nobody waits for any more must not keep the process.
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}

/// A message on its way in: in memory while it is small.
struct Spool {
    directory: std::path::PathBuf,
    memory: Vec<u8>,
    file: Option<tempfile::NamedTempFile>,
}

impl Spool {
    fn new(directory: std::path::PathBuf) -> Self {
        Self { directory, memory: Vec::new(), file: None }
    }

    fn settle(&mut self) -> io::Result<()> {
        if self.memory.len() > submission::Spool::IN_MEMORY || self.file.is_some() {
            let file = match &mut self.file {
                Some(file) => file,
                none => none.insert(tempfile::NamedTempFile::with_prefix_in("incoming-", &self.directory)?),
            };
            file.write_all(&self.memory)?;
            self.memory.clear();
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<Spooled> {
        self.settle()?;
        match self.file {
            Some(mut file) => {
                file.flush()?;
                Ok(Spooled::File(file.into_temp_path()))
            }
            None => Ok(Spooled::Memory(self.memory)),
        }
    }
}

/// EX_USAGE, EX_DATAERR, EX_NOUSER and EX_TEMPFAIL.
const USAGE: u8 = 64;
const DATA: u8 = 65;
const NO_USER: u8 = 67;
const LATER: u8 = 75;

const HELP: &str = "\
Take a mail from standard input, as the program sendmail does

Usage: packetboat sendmail [OPTIONS] [RECIPIENTS]...

  -t            take recipients from To, Cc and Bcc
  -f, -r ADDR   who hears of failures (the envelope's sender)
  -F NAME       full name for a From that is missing
  -i, -oi       a line with a dot alone does not end the message
  -bs           speak SMTP on standard input and output
  -bp           show what waits, as `packetboat outbox`
  -q            try now what waits
  -v            print the mail's id

The mail is on disk when this ends with 0, and is sent by `packetboat run`, now or when that runs next.
Exit codes are those of sysexits.h: 64 wrong usage, 65 not a mail, 67 no account sends for this sender, 75 try again later.
";
