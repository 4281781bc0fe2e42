//! From a TCP connection to one that is protected and logged in: greeting, EHLO, STARTTLS and AUTH, by mail-send.
//!
//! What a server promised before TLS is forgotten and asked for again, since anybody could have said it.

use std::time::Duration;

use mail_send::{Credentials, SmtpClient};
use rustls::{CertificateError, Error as TlsError};
use smtp_proto::{
    AUTH_LOGIN, AUTH_PLAIN, AUTH_XOAUTH2, EXT_8BIT_MIME, EXT_PIPELINING, EXT_SIZE, EXT_SMTP_UTF8, EXT_START_TLS,
    EhloResponse,
};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Capabilities, Failure, Reply, Security, Server, Stage, Stream};
use crate::connection::Login;

/// Says hello, protects the connection as the server's settings say, and logs in.
pub(super) async fn greet_and_log_in(
    stream: TcpStream,
    server: &Server,
) -> Result<(Box<dyn Stream>, Capabilities), Failure> {
    let deadlines = &server.deadlines;
    let mut client = SmtpClient { stream, timeout: deadlines.tls };
    match server.security {
        Security::Plain => begin_plainly(client, server).await,
        Security::Tls => {
            let mut client = client
                .into_tls(&server.trust.connector(), &server.host)
                .await
                .map_err(|error| failure(error, server, Stage::Tls, deadlines.tls))?;
            greeting(&mut client, server).await?;
            finish(client, server).await
        }
        Security::Starttls => {
            greeting(&mut client, server).await?;
            if !hello(&mut client, server).await?.has_capability(EXT_START_TLS) {
                return Err(Failure::NoStarttls);
            }
            client.timeout = deadlines.tls;
            let client = client
                .start_tls(&server.trust.connector(), &server.host)
                .await
                .map_err(|error| failure(error, server, Stage::Tls, deadlines.tls))?;
            finish(client, server).await
        }
    }
}

async fn greeting<S: Stream>(client: &mut SmtpClient<S>, server: &Server) -> Result<(), Failure> {
    let after = server.deadlines.greeting;
    let reply: Reply = timeout(after, client.read())
        .await
        .map_err(|_| Failure::Deadline { stage: Stage::Greeting, after })?
        .map_err(|error| failure(error, server, Stage::Greeting, after))?
        .into();
    if reply.is_positive() { Ok(()) } else { Err(Failure::Rejected { stage: Stage::Greeting, reply }) }
}

/// Says hello and logs in without TLS.
pub(super) async fn begin_plainly<S: Stream + 'static>(
    mut client: SmtpClient<S>,
    server: &Server,
) -> Result<(Box<dyn Stream>, Capabilities), Failure> {
    greeting(&mut client, server).await?;
    finish(client, server).await
}

async fn hello<S: Stream>(client: &mut SmtpClient<S>, server: &Server) -> Result<EhloResponse<String>, Failure> {
    client.timeout = server.deadlines.command;
    client.ehlo(&server.hello).await.map_err(|error| failure(error, server, Stage::Hello, server.deadlines.command))
}

async fn finish<S: Stream + 'static>(
    mut client: SmtpClient<S>,
    server: &Server,
) -> Result<(Box<dyn Stream>, Capabilities), Failure> {
    let mut offered = hello(&mut client, server).await?;
    let capabilities = Capabilities {
        pipelining: offered.has_capability(EXT_PIPELINING),
        eight_bit: offered.has_capability(EXT_8BIT_MIME),
        smtputf8: offered.has_capability(EXT_SMTP_UTF8),
        size: offered.has_capability(EXT_SIZE),
        size_limit: (offered.size > 0).then_some(offered.size as u64),
    };
    let credentials = match &server.login {
        None => None,
        Some(Login::Password { user, password }) => Some(Credentials::new(user.as_str(), password.as_str())),
        Some(Login::Token { user, token }) => Some(Credentials::new_xoauth2(user.as_str(), token.as_str())),
    };
    if let Some(credentials) = credentials {
        offered.auth_mechanisms &= AUTH_PLAIN | AUTH_LOGIN | AUTH_XOAUTH2;
        client
            .authenticate(&credentials, &offered)
            .await
            .map_err(|error| failure(error, server, Stage::Login, server.deadlines.command))?;
    }
    Ok((Box::new(client.stream), capabilities))
}

/// What an error of mail-send means here.
fn failure(error: mail_send::Error, server: &Server, stage: Stage, after: Duration) -> Failure {
    use mail_send::Error;
    match error {
        Error::Io(source) => Failure::Closed { stage, source: Some(source) },
        Error::Tls(source) => tls_failure(*source, server),
        Error::Timeout => Failure::Deadline { stage, after },
        Error::UnexpectedReply(reply) => Failure::Rejected { stage, reply: reply.into() },
        Error::AuthenticationFailed(reply) => Failure::Login { user: user(server), reply: reply.into() },
        Error::UnsupportedAuthMechanism => Failure::NoMechanism,
        Error::InvalidTLSName => {
            Failure::Setting { what: format!("{:?} is no name that a certificate can be for", server.host) }
        }
        Error::MissingStartTls => Failure::NoStarttls,
        // mail-send says so of a connection that ended, too, which is by far the more frequent of the two.
        Error::UnparseableReply => Failure::Closed { stage, source: None },
        _ => Failure::Garbled { stage },
    }
}

fn tls_failure(source: TlsError, server: &Server) -> Failure {
    let host = server.host.clone();
    match source {
        // The platform's verifier says so in its own words.
        TlsError::InvalidCertificate(CertificateError::BadEncoding) => Failure::Tls { host, source },
        TlsError::InvalidCertificate(_) => Failure::Untrusted { host, source },
        _ => Failure::Tls { host, source },
    }
}

fn user(server: &Server) -> String {
    match &server.login {
        None => String::new(),
        Some(Login::Password { user, .. } | Login::Token { user, .. }) => user.clone(),
    }
}
