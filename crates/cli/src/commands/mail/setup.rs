//! `packetboat mail setup`: adding an account, tried before it is kept.
//!
//! What is said of the server that takes mail says nothing of the one that mail is fetched from: that one has options of
//! its own, and defaults that do not depend on them. Only the secret and a private authority are the account's, and hold
//! for both where nothing else is said.

use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use packetboat_daemon::control::Request;
use packetboat_daemon::reports::check_maildir;
use packetboat_mail::account::{Account, Accounts, Entry, Keyring, KeyringError};
use serde_json::json;

use super::probe::probe;
use super::test;
use crate::carrier::{Carrier, home_directory, not_a_maildir, runtime};
use crate::failure::Failure;
use crate::opening::Context;
use crate::state::write_whole;
use crate::text;

#[derive(Debug, Args)]
#[command(after_help = JSON)]
pub(super) struct SetupArgs {
    /// Take the accounts from this TOML file, in place of those there are
    #[arg(long, value_name = "PATH", conflicts_with_all = ["address", "smtp", "incoming", "probe_sent"])]
    from: Option<PathBuf>,
    /// What to call the account; the address, if nothing is said
    #[arg(long)]
    name: Option<String>,
    /// The address that mail comes from
    #[arg(long, value_name = "ADDRESS")]
    address: Option<String>,
    /// Run this to get the password, rather than keeping it
    #[arg(long, value_name = "COMMAND")]
    password_command: Option<String>,
    /// Read the password from this file each time
    #[arg(long, value_name = "PATH", conflicts_with = "password_command")]
    password_file: Option<PathBuf>,
    /// Run this to get an access token (XOAUTH2) in place of a password
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["password_command", "password_file"])]
    token_command: Option<String>,
    /// Read the password from the first line of standard input, once, and keep it
    #[arg(long, conflicts_with_all = ["password_command", "password_file", "token_command"])]
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

    /// The server that takes mail, and the port where it is not the usual one
    #[arg(long, value_name = "HOST[:PORT]", help_heading = "Mail out")]
    smtp: Option<String>,
    /// How the connection to it is protected
    #[arg(long, value_name = "HOW", value_parser = HOW, default_value = "tls", help_heading = "Mail out")]
    security: String,
    /// The name to log in there by; the address, if nothing is said
    #[arg(long, help_heading = "Mail out")]
    user: Option<String>,
    /// Send one mail to yourself, to learn whether the provider itself files in Sent what it takes
    ///
    /// Where it does, Sent says whether a mail went out of which nobody knows, and no copy is filed from here. Of an account
    /// that is there already, `packetboat mail probe` asks it.
    #[arg(long, conflicts_with = "untested", help_heading = "Mail out")]
    probe_sent: bool,

    #[command(flatten)]
    incoming: Incoming,
}

/// The server that mail is fetched from.
#[derive(Debug, Args)]
#[group(id = "incoming", multiple = true)]
struct Incoming {
    /// The server that mail is fetched from by IMAP, and the port where it is not the usual one
    #[arg(long, value_name = "HOST[:PORT]", conflicts_with = "pop3", help_heading = "Mail in")]
    imap: Option<String>,
    /// The server that mail is fetched from by POP3, and the port where it is not the usual one
    #[arg(long, value_name = "HOST[:PORT]", help_heading = "Mail in")]
    pop3: Option<String>,
    /// How the connection to it is protected; tls, if nothing is said
    #[arg(long, visible_alias = "pop3-security", value_name = "HOW", value_parser = HOW, help_heading = "Mail in")]
    imap_security: Option<String>,
    /// The name to log in there by; the address, if nothing is said
    #[arg(long, visible_alias = "pop3-user", value_name = "USER", help_heading = "Mail in")]
    imap_user: Option<String>,
    /// Run this to get the password for it, where it is another one
    #[arg(long, visible_alias = "pop3-password-command", value_name = "COMMAND", help_heading = "Mail in")]
    imap_password_command: Option<String>,
    /// Fetch this mailbox, and others by further such options; INBOX alone, if nothing is said, and "*" for all
    #[arg(long, value_name = "NAME", conflicts_with = "pop3", help_heading = "Mail in")]
    mailbox: Vec<String>,
    /// What becomes of a message at the server once both devices of a pair hold it; leave, if nothing is said
    #[arg(long, value_name = "WHAT", value_parser = ["leave", "delete"], help_heading = "Mail in")]
    at_server: Option<String>,
}

/// Runs the command.
pub(super) fn run(context: &Context, carrier: &Carrier, args: &SetupArgs) -> Result<ExitCode, Failure> {
    let path = carrier.home.accounts();
    let (known, fresh) = match &args.from {
        Some(path) => {
            let text = std::fs::read_to_string(path);
            let text =
                text.map_err(|error| Failure::new(format!("cannot read {}", text::path(path))).because(&error))?;
            (text, None)
        }
        None => {
            let known = match std::fs::read_to_string(&path) {
                Ok(text) => text + "\n",
                Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
                Err(error) => return Err(error.into()),
            };
            (known, Some(Asked::gather(context, args)?))
        }
    };
    let whole = |asked: &Option<Asked>| match asked {
        Some(asked) => format!("{known}{}", asked.to_toml(known.is_empty())),
        None => known.clone(),
    };
    let mut asked = fresh;
    let accounts = parse(&whole(&asked))?;
    let name = asked.as_ref().map(|asked| asked.name.clone());
    let of_interest = |account: &&Account| name.as_ref().is_none_or(|name| account.name == *name);
    if accounts.iter().filter(of_interest).any(|account| account.imap.is_some() || account.pop3.is_some()) {
        let maildir = carrier.settings()?.maildir(home_directory().as_deref());
        check_maildir(&maildir).map_err(|error| not_a_maildir(&maildir, &error))?;
    }
    if !args.untested {
        test(context, carrier, &accounts, name.as_deref())?;
        let account = accounts.iter().find(|account| asked.is_some() && of_interest(account));
        if let (Some(asked), Some(account)) = (&mut asked, account) {
            asked.provider_files_sent = ask_provider(context, carrier, args, account)?;
        }
    }
    if let (Some(asked), false) = (&mut asked, args.no_keyring) {
        asked.keep_in_keyring(context)?;
    }
    let text = whole(&asked);
    let accounts = parse(&text)?;
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
    write_whole(&path, text.as_bytes())?;
    let runs = carrier.ask(&Request::Who).is_ok();
    context.ui.result(
        || {
            json!({
                "schema": 1, "accounts": accounts.iter().map(|account| &account.name).collect::<Vec<_>>(),
                "provider_files_sent": asked.as_ref().and_then(|asked| asked.provider_files_sent),
            })
        },
        || {
            let hint = if runs { " Send the daemon SIGHUP, or start it again, to have it used." } else { "" };
            format!("The account is in {}.{hint}\n", text::path(&path))
        },
    );
    Ok(ExitCode::SUCCESS)
}

fn parse(text: &str) -> Result<Accounts, Failure> {
    Accounts::parse(text).map_err(|error| Failure::new("this is no account").because(&error))
}

/// Whether the provider files in Sent what it takes, where its user wants that asked; nothing, where it is not known.
fn ask_provider(
    context: &Context,
    carrier: &Carrier,
    args: &SetupArgs,
    account: &Account,
) -> Result<Option<bool>, Failure> {
    let can = account.smtp.is_some() && account.imap.is_some();
    if args.probe_sent && !can {
        return Err(Failure::new("Sent can be looked at only by IMAP, and only by an account that sends")
            .hint("give --smtp and --imap, or leave --probe-sent out"));
    }
    let question = "Send one mail to yourself, to learn whether the provider files sent mail in Sent itself?";
    let wanted = args.probe_sent || (can && context.ui.can_ask() && context.ui.confirm(question)?);
    if !wanted {
        return Ok(None);
    }
    match probe(context, carrier, account)? {
        Ok(files) => Ok(Some(files)),
        Err(error) => {
            let said = text::plain(error.in_words().as_bytes());
            context.ui.warn(&format!(
                "whether the provider files in Sent what it takes is not known: {said}\nHint: the account is kept, and \
                 `packetboat mail probe` asks again"
            ));
            Ok(None)
        }
    }
}

/// An account as it was asked for.
struct Asked {
    name: String,
    address: String,
    provider_files_sent: Option<bool>,
    servers: Vec<Server>,
    ca_file: Option<PathBuf>,
}

/// One of its servers.
struct Server {
    section: &'static str,
    server: String,
    security: String,
    user: String,
    secret: Secret,
    /// Lines that are its own, as TOML has them.
    more: String,
}

/// Where a secret is kept: a key of accounts.toml and its value.
type Secret = (&'static str, String);

impl Asked {
    fn gather(context: &Context, args: &SetupArgs) -> Result<Self, Failure> {
        let address = given_or_asked(context, args.address.clone(), "Address that mail comes from", "--address")?;
        let incoming = &args.incoming;
        let mut smtp = args.smtp.clone();
        let mut fetched = match (&incoming.imap, &incoming.pop3) {
            (Some(imap), _) => Some(("imap", imap.clone())),
            (None, Some(pop3)) => Some(("pop3", pop3.clone())),
            (None, None) => None,
        };
        if smtp.is_none() && (fetched.is_none() || context.ui.can_ask()) {
            let asked = given_or_asked(context, None, "Server that takes mail", "--smtp or --imap")?;
            smtp = Some(asked).filter(|server| !server.is_empty());
        }
        if fetched.is_none() && context.ui.can_ask() && args.smtp.is_none() {
            let question = "Server that mail is fetched from by IMAP; nothing, to fetch none";
            let server = given_or_asked(context, None, question, "--imap")?;
            fetched = Some(("imap", server)).filter(|(_, server)| !server.is_empty());
        }
        if smtp.is_none() && fetched.is_none() {
            return Err(Failure::new("an account needs a server").hint("give --smtp, --imap or --pop3"));
        }
        if fetched.is_none() && incoming.is_described() {
            return Err(Failure::new("mail is to be fetched, but not from where").hint("give --imap or --pop3 too"));
        }
        let secret = secret(context, args)?;
        let mut servers = Vec::new();
        if let Some(server) = smtp {
            let user = args.user.clone().unwrap_or_else(|| address.clone());
            let (security, secret, more) = (args.security.clone(), secret.clone(), String::new());
            servers.push(Server { section: "smtp", server, security, user, secret, more });
        }
        if let Some((section, server)) = fetched {
            let own = incoming.imap_password_command.clone().map(|command| ("password_command", command));
            servers.push(Server {
                section,
                server,
                security: incoming.imap_security.clone().unwrap_or_else(|| "tls".to_owned()),
                user: incoming.imap_user.clone().unwrap_or_else(|| address.clone()),
                secret: own.unwrap_or(secret),
                more: incoming.lines(),
            });
        }
        Ok(Self {
            name: args.name.clone().unwrap_or_else(|| address.clone()),
            address,
            provider_files_sent: None,
            servers,
            ca_file: args.ca_file.as_ref().map(std::path::absolute).transpose()?,
        })
    }

    /// Keeps the passwords that were typed in the desktop's keyring, where there is one; else they stay in accounts.toml.
    fn keep_in_keyring(&mut self, context: &Context) -> Result<(), Failure> {
        if !self.servers.iter().any(|server| server.secret.0 == TYPED) {
            return Ok(());
        }
        let keyring = Keyring::of_user();
        let kept = runtime(1)?.block_on(async {
            if !keyring.is_there().await {
                return Ok(false);
            }
            for Server { server, user, secret, .. } in self.servers.iter_mut().filter(|server| server.secret.0 == TYPED)
            {
                let entry = Entry { server: host_and_port(server).0.to_owned(), user: user.clone() };
                keyring.keep(&entry, &secret.1).await?;
                *secret = (KEYRING, String::new());
            }
            Ok(true)
        });
        match kept {
            Ok(true) => context.ui.note("The password is in the desktop's keyring."),
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
        let mut text = format!("[[account]]\nname = {}\naddresses = [{}]\n", quoted(&self.name), quoted(&self.address));
        if default {
            text.push_str("default = true\n");
        }
        if let Some(files) = self.provider_files_sent {
            text.push_str(&format!("provider_files_sent = {files}\n"));
        }
        for Server { section, server, security, user, secret, more } in &self.servers {
            let (host, port) = host_and_port(server);
            text.push_str(&format!("\n[account.{section}]\nhost = {}\n", quoted(host)));
            if let Some(port) = port {
                text.push_str(&format!("port = {port}\n"));
            }
            text.push_str(&format!("security = {}\nuser = {}\n", quoted(security), quoted(user)));
            match secret.0 {
                KEYRING => text.push_str("keyring = true\n"),
                place => text.push_str(&format!("{place} = {}\n", quoted(&secret.1))),
            }
            if let Some(path) = &self.ca_file {
                text.push_str(&format!("ca_file = {}\n", quoted(&path.to_string_lossy())));
            }
            text.push_str(more);
        }
        text
    }
}

impl Incoming {
    /// Whether anything is said of a server, but not which one.
    fn is_described(&self) -> bool {
        let options = [&self.imap_security, &self.imap_user, &self.imap_password_command, &self.at_server];
        !self.mailbox.is_empty() || options.iter().any(|option| option.is_some())
    }

    fn lines(&self) -> String {
        let mut lines = String::new();
        if !self.mailbox.is_empty() {
            let names: Vec<String> = self.mailbox.iter().map(|name| quoted(name)).collect();
            lines.push_str(&format!("mailboxes = [{}]\n", names.join(", ")));
        }
        if let Some(what) = &self.at_server {
            lines.push_str(&format!("at_server = {}\n", quoted(what)));
        }
        lines
    }
}

fn secret(context: &Context, args: &SetupArgs) -> Result<Secret, Failure> {
    Ok(match (&args.password_command, &args.password_file, &args.token_command) {
        (Some(command), ..) => ("password_command", command.clone()),
        (None, Some(path), _) => ("password_file", std::path::absolute(path)?.to_string_lossy().into_owned()),
        (None, None, Some(command)) => ("token_command", command.clone()),
        (None, None, None) => (TYPED, typed_password(context, args.password_stdin)?),
    })
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
        .hint("give --password-command, --password-file, --password-stdin or --token-command"))
}

fn host_and_port(server: &str) -> (&str, Option<&str>) {
    match server.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => (host, Some(port)),
        _ => (server, None),
    }
}

/// A string as TOML has it, which JSON's escapes are a part of.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
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

/// How accounts.toml says that the password stands there.
const TYPED: &str = "password";
/// How accounts.toml says that the keyring holds the password.
const KEYRING: &str = "keyring";
const HOW: [&str; 3] = ["tls", "starttls", "plain"];

const JSON: &str = "JSON: accounts (their names), provider_files_sent (true, false, or null where it is not known).";
