//! `packetboat mail`: the accounts that mail is sent and fetched by.

use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use packetboat_daemon::control::Request;
use packetboat_mail::account::{Accounts, Checked, Entry, Keyring, KeyringError, check};
use serde_json::json;

use crate::carrier::{Carrier, host_name, runtime};
use crate::failure::Failure;
use crate::opening::Context;
use crate::state::write_whole;
use crate::text;

/// Add an account, or test the accounts there are
///
/// An account is tried before it is kept: a wrong password or a certificate that cannot be trusted is found now, and not
/// with the first mail.
#[derive(Debug, Args)]
pub(crate) struct MailArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Add an account, from a file, from options, or by asking
    ///
    /// The account is written to accounts.toml in the configuration directory, which only you can read. A password that is
    /// typed goes to the desktop's keyring (Secret Service) where there is one, and to that file where there is none.
    Setup(Box<SetupArgs>),
    /// Test every account, or one
    Test {
        /// Its name
        account: Option<String>,
    },
}

#[derive(Debug, Args)]
struct SetupArgs {
    /// Take the accounts from this TOML file, in place of those there are
    #[arg(long, value_name = "PATH", conflicts_with_all = ["address", "smtp", "imap"])]
    from: Option<PathBuf>,
    /// What to call the account; the address, if nothing is said
    #[arg(long)]
    name: Option<String>,
    /// The address that mail comes from
    #[arg(long, value_name = "ADDRESS")]
    address: Option<String>,
    /// The server that takes mail, and the port where it is not the usual one
    #[arg(long, value_name = "HOST[:PORT]")]
    smtp: Option<String>,
    /// How the connection is protected
    #[arg(long, value_name = "HOW", value_parser = ["tls", "starttls", "plain"], default_value = "tls")]
    security: String,
    /// The server that mail is fetched from
    #[arg(long, value_name = "HOST[:PORT]")]
    imap: Option<String>,
    /// The name to log in by; the address, if nothing is said
    #[arg(long)]
    user: Option<String>,
    /// Run this to get the password, rather than keeping it
    #[arg(long, value_name = "COMMAND")]
    password_command: Option<String>,
    /// Read the password from this file each time
    #[arg(long, value_name = "PATH")]
    password_file: Option<PathBuf>,
    /// Read the password from the first line of standard input, once, and keep it
    #[arg(long, conflicts_with_all = ["password_command", "password_file"])]
    password_stdin: bool,
    /// Keep a password that is typed in accounts.toml, though the desktop has a keyring
    #[arg(long)]
    no_keyring: bool,
    /// Trust the certificates of this PEM file too
    #[arg(long, value_name = "PATH")]
    ca_file: Option<PathBuf>,
    /// Keep the account though it cannot be tried now
    #[arg(long)]
    untested: bool,
}

/// Runs the command.
pub(crate) fn run(context: &Context, args: &MailArgs) -> Result<ExitCode, Failure> {
    let carrier = Carrier::locate(context)?;
    match &args.action {
        Action::Setup(setup) => set_up(context, &carrier, setup),
        Action::Test { account } => {
            let accounts = carrier.accounts()?;
            if accounts.iter().next().is_none() {
                return Err(Failure::new("there are no accounts").hint("`packetboat mail setup` adds one"));
            }
            test(context, &accounts, account.as_deref())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn set_up(context: &Context, carrier: &Carrier, args: &SetupArgs) -> Result<ExitCode, Failure> {
    let (text, fresh) = match &args.from {
        Some(path) => {
            let text = std::fs::read_to_string(path);
            let text =
                text.map_err(|error| Failure::new(format!("cannot read {}", text::path(path))).because(&error))?;
            (text, None)
        }
        None => {
            let mut account = Asked::gather(context, args)?;
            if account.secret.0 == "password" && !args.no_keyring {
                account.keep_in_keyring(context)?;
            }
            let known = match std::fs::read_to_string(carrier.home.accounts()) {
                Ok(text) => text + "\n",
                Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
                Err(error) => return Err(error.into()),
            };
            let default = known.is_empty();
            (known + &account.to_toml(default), Some(account.name))
        }
    };
    let accounts = Accounts::parse(&text).map_err(|error| Failure::new("this is no account").because(&error))?;
    if !args.untested {
        test(context, &accounts, fresh.as_deref())?;
    }
    let path = carrier.home.accounts();
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
    write_whole(&path, text.as_bytes())?;
    let runs = carrier.ask(&Request::Who).is_ok();
    context.ui.result(
        || json!({ "schema": 1, "accounts": accounts.iter().map(|account| &account.name).collect::<Vec<_>>() }),
        || {
            let hint = if runs { " Send the daemon SIGHUP, or start it again, to have it used." } else { "" };
            format!("The account is in {}.{hint}\n", text::path(&path))
        },
    );
    Ok(ExitCode::SUCCESS)
}

/// Tries accounts, and fails with the first that does not work.
fn test(context: &Context, accounts: &Accounts, only: Option<&str>) -> Result<(), Failure> {
    let wanted: Vec<_> = accounts.iter().filter(|account| only.is_none_or(|only| account.name == only)).collect();
    if wanted.is_empty() {
        return Err(Failure::new(format!("there is no account {:?}", only.unwrap_or_default())));
    }
    let runtime = runtime(2)?;
    for account in wanted {
        let Checked { smtp, .. } = runtime.block_on(check(account, &host_name(), None));
        match smtp {
            Some(Ok(_)) => context.ui.note(&format!("{}: mail can be sent", text::plain(account.name.as_bytes()))),
            Some(Err(problem)) => {
                let failure =
                    Failure::new(format!("no mail can be sent by {:?}: {}", account.name, problem.in_words()));
                return Err(match problem.hint() {
                    Some(hint) => failure.hint(hint),
                    None => failure.hint("look at the account; --untested keeps it as it is"),
                });
            }
            None => {}
        }
    }
    Ok(())
}

/// An account as it was asked for.
struct Asked {
    name: String,
    address: String,
    smtp: String,
    security: String,
    imap: Option<String>,
    user: String,
    secret: (&'static str, String),
    ca_file: Option<PathBuf>,
}

impl Asked {
    fn gather(context: &Context, args: &SetupArgs) -> Result<Self, Failure> {
        let address = given_or_asked(context, args.address.clone(), "Address that mail comes from", "--address")?;
        let smtp = given_or_asked(context, args.smtp.clone(), "Server that takes mail", "--smtp")?;
        let secret = match (&args.password_command, &args.password_file) {
            (Some(command), _) => ("password_command", command.clone()),
            (None, Some(path)) => ("password_file", std::path::absolute(path)?.to_string_lossy().into_owned()),
            (None, None) => ("password", typed_password(context, args.password_stdin)?),
        };
        Ok(Self {
            name: args.name.clone().unwrap_or_else(|| address.clone()),
            user: args.user.clone().unwrap_or_else(|| address.clone()),
            address,
            smtp,
            security: args.security.clone(),
            imap: args.imap.clone(),
            secret,
            ca_file: args.ca_file.as_ref().map(std::path::absolute).transpose()?,
        })
    }

    /// Keeps the password in the desktop's keyring, where there is one; else it stays in accounts.toml.
    fn keep_in_keyring(&mut self, context: &Context) -> Result<(), Failure> {
        let keyring = Keyring::of_user();
        let servers = [Some(self.smtp.as_str()), self.imap.as_deref()];
        let kept = runtime(1)?.block_on(async {
            if !keyring.is_there().await {
                return Ok(false);
            }
            for server in servers.into_iter().flatten() {
                let entry = Entry { server: host_and_port(server).0.to_owned(), user: self.user.clone() };
                keyring.keep(&entry, &self.secret.1).await?;
            }
            Ok(true)
        });
        match kept {
            Ok(true) => {
                self.secret = (KEYRING, String::new());
                context.ui.note("The password is in the desktop's keyring.");
            }
            Ok(false) => {
                context.ui.note("There is no keyring here; the password is in accounts.toml, which only you can read.")
            }
            Err::<_, KeyringError>(error) => {
                return Err(Failure::from(error)
                    .hint("unlock it and try again, or keep the password in accounts.toml by --no-keyring"));
            }
        }
        Ok(())
    }

    fn to_toml(&self, default: bool) -> String {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let server = |section: &str, server: &str| {
            let (host, port) = host_and_port(server);
            let mut text = format!("\n[account.{section}]\nhost = {}\n", quoted(host));
            if let Some(port) = port {
                text.push_str(&format!("port = {port}\n"));
            }
            text.push_str(&format!("security = {}\nuser = {}\n", quoted(&self.security), quoted(&self.user)));
            match self.secret.0 {
                KEYRING => text.push_str("keyring = true\n"),
                place => text.push_str(&format!("{place} = {}\n", quoted(&self.secret.1))),
            }
            if let Some(path) = &self.ca_file {
                text.push_str(&format!("ca_file = {}\n", quoted(&path.to_string_lossy())));
            }
            text
        };
        let mut text = format!("[[account]]\nname = {}\naddresses = [{}]\n", quoted(&self.name), quoted(&self.address));
        if default {
            text.push_str("default = true\n");
        }
        text.push_str(&server("smtp", &self.smtp));
        if let Some(imap) = &self.imap {
            text.push_str(&server("imap", imap));
        }
        text
    }
}

fn host_and_port(server: &str) -> (&str, Option<&str>) {
    match server.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => (host, Some(port)),
        _ => (server, None),
    }
}

fn typed_password(context: &Context, from_stdin: bool) -> Result<String, Failure> {
    if from_stdin {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line)?;
        let password = line.trim_end_matches(['\r', '\n']);
        return match password.is_empty() {
            true => Err(Failure::new("the first line of standard input is empty")),
            false => Ok(password.to_owned()),
        };
    }
    if context.ui.can_ask() {
        return Ok(rpassword::prompt_password("Password: ")?);
    }
    Err(Failure::new("nobody is there to type the password")
        .hint("give --password-command, --password-file or --password-stdin"))
}

fn given_or_asked(context: &Context, given: Option<String>, question: &str, option: &str) -> Result<String, Failure> {
    if let Some(given) = given {
        return Ok(given);
    }
    if !context.ui.can_ask() {
        return Err(Failure::new(format!("{option} is missing"))
            .hint("give an account by options, by --from, or in a terminal"));
    }
    eprint!("{question}: ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim().to_owned())
}

/// How accounts.toml says that the keyring holds a password.
const KEYRING: &str = "keyring";
