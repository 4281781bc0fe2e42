//! The client against Debian's Postfix and Dovecot: TLS as it is verified, logins, refusals, and many mails.

mod servers;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use packetboat_mail::account::{Accounts, Checked, Trying, check};
use packetboat_mail::address::{Address, ReversePath};
use packetboat_mail::smtp::{Connection, Failure, Fate, OpenGate, Outgoing, Server, Stage, Try};
use servers::{PASSWORD, Servers, USER};

fn account(servers: &Servers, lines: &str) -> Accounts {
    let file = format!(
        "[[account]]\nname = \"a\"\naddresses = [\"alice@example.test\"]\n[account.smtp]\nhost = \"localhost\"\nuser = \"{USER}\"\n\
         ca_file = {:?}\n{lines}\n",
        servers.authority()
    );
    Accounts::parse(&file).unwrap()
}

fn good(servers: &Servers) -> [String; 2] {
    [
        format!("port = {}\nsecurity = \"tls\"\npassword = \"{PASSWORD}\"", servers.submissions),
        format!("port = {}\nsecurity = \"starttls\"\npassword = \"{PASSWORD}\"", servers.submission),
    ]
}

async fn server(servers: &Servers, lines: &str) -> Server {
    let accounts = account(servers, lines);
    // Postfix listens on this family alone.
    let source = Some("127.0.0.1".parse().unwrap());
    accounts.iter().next().unwrap().smtp.as_ref().unwrap().server("laptop.test", source).await.unwrap()
}

/// Postfix listens on this family alone.
fn trying() -> Trying<'static> {
    Trying { hello: "laptop.test", source: Some("127.0.0.1".parse().unwrap()), connect: Duration::from_secs(10) }
}

async fn check_with(servers: &Servers, lines: &str) -> Result<(), (String, Option<&'static str>)> {
    let accounts = account(servers, lines);
    let Checked { smtp, .. } = check(accounts.iter().next().unwrap(), trying()).await;
    smtp.unwrap().map(|_| ()).map_err(|problem| (problem.in_words(), problem.hint()))
}

async fn send(connection: &mut Connection, recipients: &[&str], body: &str) -> Vec<Fate> {
    let sender = ReversePath::Mailbox(Address::parse("alice@example.test").unwrap());
    let recipients: Vec<Address> = recipients.iter().map(|text| Address::parse(text).unwrap()).collect();
    let mail =
        Outgoing { sender: &sender, recipients: &recipients, size: body.len() as u64, eight_bit: !body.is_ascii() };
    match connection.send(&mail, &mut body.as_bytes(), &OpenGate).await {
        Try::Answered { recipients } => recipients,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_arrives_through_postfix_byte_for_byte_and_what_is_wrong_is_said() {
    let Some(servers) = Servers::start() else { return };
    for (index, lines) in good(&servers).iter().enumerate() {
        check_with(&servers, lines).await.unwrap();
        let mut connection = Connection::open(&server(&servers, lines).await).await.unwrap();
        let body = format!(
            "Subject: {index}\r\nMessage-ID: <{index}@laptop.test>\r\n\r\n.dot\r\n..\r\ngrün\r\n.\r\n{}\r\n",
            "x".repeat(900)
        );
        let fates = send(&mut connection, &["alice@example.test"], &body).await;
        assert!(matches!(fates[0], Fate::Accepted(_)), "{fates:?}");
        connection.close().await;
        let files = servers.wait_for_delivered(index + 1);
        let texts = files.iter().map(|file| fs::read_to_string(file).unwrap());
        let stored = texts.into_iter().find(|text| text.contains(&format!("Subject: {index}\n"))).expect("delivered");
        assert!(stored.ends_with(&body.split_once("\r\n\r\n").unwrap().1.replace("\r\n", "\n")), "{stored}");
    }
    let [tls, starttls] = good(&servers);
    for (lines, word) in [
        (tls.replace(PASSWORD, "wrong"), "does not accept the login of alice: 535 5.7.8"),
        (starttls.replace(PASSWORD, "wrong"), "does not accept the login of alice: 535 5.7.8"),
        (starttls.replace("starttls", "tls"), "no protected connection"),
        (tls.replace(&servers.submissions.to_string(), "1"), "refused the connection"),
    ] {
        let (words, hint) = check_with(&servers, &lines).await.unwrap_err();
        assert!(words.contains(word), "{lines}: {words}");
        println!("{words} (hint: {hint:?})");
    }
    // Without the authority's certificate, nobody is believed, and no password goes out.
    let some = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/servers/some-authority.pem");
    let accounts = Accounts::parse(
        &account(&servers, &tls)
            .write()
            .unwrap()
            .replace(servers.authority().to_str().unwrap(), some.to_str().unwrap()),
    )
    .unwrap();
    let checked = check(accounts.iter().next().unwrap(), trying()).await;
    let problem = checked.smtp.unwrap().unwrap_err();
    assert!(problem.in_words().starts_with("the certificate of localhost is not trusted"), "{}", problem.in_words());
    // A name that the certificate is not for, although it leads to the same server.
    let accounts =
        Accounts::parse(&account(&servers, &tls).write().unwrap().replace("\"localhost\"", "\"127.0.0.2\"")).unwrap();
    let checked = check(accounts.iter().next().unwrap(), trying()).await;
    assert!(checked.smtp.unwrap().is_err());
    assert!(!servers.log().contains("wrong"), "passwords do not go into logs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_between_two_mails_is_a_definite_failure() {
    let Some(servers) = Servers::start() else { return };
    let server = server(&servers, &good(&servers)[0]).await;
    let mut connection = Connection::open(&server).await.unwrap();
    drop(servers);
    servers::pause();
    assert!(!connection.is_usable());
    let sender = ReversePath::Null;
    let recipients = [Address::parse("alice@example.test").unwrap()];
    let mail = Outgoing { sender: &sender, recipients: &recipients, size: 4, eight_bit: false };
    let tried = connection.send(&mail, &mut &b"a\r\n\r\n"[..], &OpenGate).await;
    assert!(
        matches!(
            tried,
            Try::Failed {
                why: Failure::Closed { stage: Stage::Idle, .. } | Failure::Rejected { stage: Stage::Idle, .. },
                ..
            }
        ),
        "{tried:?}"
    );
}

/// How fast mail goes to Postfix over one connection, beside a script that does nothing else, in turns.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
#[allow(clippy::disallowed_methods)]
async fn measure_draining_to_postfix() {
    let Some(servers) = Servers::start() else { return };
    let count = 1000;
    let body = "Subject: x\r\n\r\n".to_owned() + &"a line of text\r\n".repeat(64);
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &body).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/drain.py");
    for _ in 0..3 {
        let mut connection = Connection::open(&server(&servers, &good(&servers)[0]).await).await.unwrap();
        let begun = Instant::now();
        for _ in 0..count {
            send(&mut connection, &["alice@example.test"], &body).await;
        }
        let ours = f64::from(count) / begun.elapsed().as_secs_f64();
        connection.close().await;
        let output = std::process::Command::new("python3")
            .args([script, &servers.submissions.to_string()])
            .arg(servers.authority())
            .arg(count.to_string())
            .arg(file.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let theirs: f64 = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap();
        println!(
            "{count} mails of {} bytes: {ours:.0} a second, the script {:.0}",
            body.len(),
            f64::from(count) / theirs
        );
    }
}
