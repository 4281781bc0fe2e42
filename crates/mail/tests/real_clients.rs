//! Real mail programs against the submission port: swaks, msmtp, Python, git send-email, mutt and mail.
//!
//! Each sends one mail as its users would; the queue must hold it with the envelope and the bytes that were meant.

mod servers;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use packetboat_mail::message::{Moment, Stamp};
use packetboat_mail::submission::{Limits, Queue, Reach, Refusal, Server, Settings, Spooled, Submission, Token};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

const TOKEN: &str = "the-local-token";

#[derive(Default)]
struct Kept(Mutex<Vec<Submission>>);

impl Queue for Kept {
    type Id = usize;

    async fn accept(&self, submission: Submission) -> Result<usize, Refusal> {
        let mut mails = self.0.lock().unwrap();
        mails.push(submission);
        Ok(mails.len())
    }

    fn stamp(&self) -> Stamp {
        Stamp { moment: Moment { unix_seconds: 0, offset_minutes: 0 }, random: [1; 16], host: "laptop.test".to_owned() }
    }
}

/// A submission server with token and STARTTLS, and a directory for its files and those of programs.
struct Port {
    directory: tempfile::TempDir,
    port: u16,
    queue: Arc<Kept>,
    _stop: watch::Sender<bool>,
}

impl Port {
    async fn start() -> Option<Self> {
        if !servers::is_installed("openssl") {
            println!("skipped: a server with TLS needs openssl for its certificate");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        servers::write_certificates(directory.path());
        fs::create_dir(directory.path().join("spool")).unwrap();
        let chain =
            CertificateDer::pem_file_iter(directory.path().join("cert.pem")).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(directory.path().join("key.pem")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let settings = Settings {
            host: "localhost".to_owned(),
            origin: "laptop.test".to_owned(),
            token: Token::new(TOKEN),
            tls: Some(TlsAcceptor::from(Arc::new(config))),
            spool: directory.path().join("spool"),
            limits: Limits::default(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let queue = Arc::new(Kept::default());
        let (stop, stopped) = watch::channel(false);
        let server = Server::new(listener, Reach::Loopback, settings, queue.clone()).unwrap();
        tokio::spawn(server.run(stopped));
        Some(Self { directory, port, queue, _stop: stop })
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        let private = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o700);
        fs::set_permissions(&path, private).unwrap();
        path
    }

    /// Runs a program with a text as its input, and returns the mail that the queue got by it.
    async fn sent_by(&self, program: &str, arguments: &[&str], input: &str) -> Option<(String, Vec<String>, String)> {
        if !servers::is_installed(program.rsplit('/').next().unwrap()) {
            println!("skipped: {program} is not installed");
            return None;
        }
        let before = self.queue.0.lock().unwrap().len();
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.directory.path()).env("HOME", self.directory.path());
        command.env_remove("GIT_DIR").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let input = input.to_owned();
        // Programs take their time; the server answers on this runtime meanwhile.
        let output = tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().unwrap();
            let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
            child.wait_with_output().unwrap()
        });
        let output = output.await.unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{program}: {said}");
        let mut mails = self.queue.0.lock().unwrap();
        assert_eq!(mails.len(), before + 1, "{program}: {said}");
        let mail = mails.pop().unwrap();
        let recipients = mail.recipients.iter().map(ToString::to_string).collect();
        Some((mail.sender.to_string(), recipients, String::from_utf8(mail.body.read().unwrap()).unwrap()))
    }
}

const MESSAGE: &str = "From: ann@a.test\nTo: b@b.test, c@c.test\nSubject: gr\u{fc}n\n\n.dot\n..\n\nlast\n";

#[tokio::test(flavor = "multi_thread")]
async fn mail_programs_hand_over_what_their_users_wrote() {
    let Some(port) = Port::start().await else { return };
    let number = port.port.to_string();
    let authority = port.directory.path().join("authority.pem");
    let authority = authority.to_str().unwrap();
    let body = "\r\n\r\n.dot\r\n..\r\n\r\nlast\r\n";
    let envelope = |mail: &(String, Vec<String>, String)| (mail.0.clone(), mail.1.join(" "));
    let expected = ("<ann@a.test>".to_owned(), "b@b.test c@c.test".to_owned());

    let data = port.file("message", MESSAGE);
    let at = format!("@{}", data.display());
    let server = format!("127.0.0.1:{number}");
    let swaks = ["--server", &server, "--from", "ann@a.test", "--to", "b@b.test,c@c.test", "--data", &at];
    for more in [
        &["--auth", "PLAIN", "--pipeline"][..],
        &["--auth", "LOGIN", "--tls"],
        &["--auth", "PLAIN", "--tls", "--pipeline"],
    ] {
        let login = ["--auth-user", "ann", "--auth-password", TOKEN];
        if let Some(mail) = port.sent_by("swaks", &[&swaks[..], &login, more].concat(), "").await {
            assert_eq!(envelope(&mail), expected, "{more:?}");
            assert!(mail.2.contains(body.trim_end()), "{}", mail.2);
        }
    }

    let msmtp = format!(
        "defaults\nport {number}\ntls on\ntls_starttls on\ntls_trust_file {authority}\nauth on\nuser ann\npassword {TOKEN}\n\
         account a\nhost localhost\nfrom ann@a.test\naccount default : a\n"
    );
    let config = port.file("msmtprc", &msmtp);
    let config = format!("--file={}", config.display());
    if let Some(mail) = port.sent_by("msmtp", &[&config, "-t"], &format!("Bcc: d@d.test\n{MESSAGE}")).await {
        assert_eq!(envelope(&mail).0, expected.0);
        assert_eq!(
            {
                let mut all = mail.1.clone();
                all.sort();
                all
            },
            ["b@b.test", "c@c.test", "d@d.test"]
        );
        assert!(mail.2.ends_with(body) && !mail.2.contains("d@d.test"), "{}", mail.2);
    }

    let script = format!(
        "import smtplib, ssl\ns = smtplib.SMTP('localhost', {number}, source_address=('127.0.0.1', 0))\n\
         s.starttls(context=ssl.create_default_context(cafile='{authority}'))\ns.login('ann', '{TOKEN}')\n\
         refused = s.sendmail('ann@a.test', ['b@b.test', 'c@c.test'], open('message', 'rb').read().replace(b'\\n', b'\\r\\n'))\nassert not refused\ns.quit()\n"
    );
    let script = port.file("send.py", &script);
    if let Some(mail) = port.sent_by("python3", &[script.to_str().unwrap()], "").await {
        assert_eq!(envelope(&mail), expected);
        assert!(mail.2.ends_with(body), "{}", mail.2);
    }

    let patch = "From 0123456789012345678901234567890123456789 Mon Sep 17 00:00:00 2001\nFrom: Ann <ann@a.test>\n\
                 Date: Sun, 22 Nov 2026 02:21:19 +0000\nSubject: [PATCH] x\n\n.dot\n---\n a | 1 +\n";
    let patch = port.file("0001-x.patch", patch);
    port.file(".gitconfig", "[user]\nname = Ann\nemail = ann@a.test\n");
    let server = format!("--smtp-server-port={number}");
    let path = format!("--smtp-ssl-cert-path={authority}");
    let password = format!("--smtp-pass={TOKEN}");
    let git = [
        "send-email",
        "--quiet",
        "--confirm=never",
        "--smtp-server=localhost",
        &server,
        "--smtp-encryption=tls",
        &path,
    ];
    let more =
        ["--smtp-user=ann", &password, "--to=b@b.test", "--cc=c@c.test", "--suppress-cc=all", patch.to_str().unwrap()];
    if Path::new("/usr/lib/git-core/git-send-email").exists() {
        if let Some(mail) = port.sent_by("/usr/bin/git", &[&git[..], &more].concat(), "").await {
            assert_eq!(envelope(&mail), ("<ann@a.test>".to_owned(), "b@b.test c@c.test".to_owned()));
            assert!(mail.2.contains("\r\n\r\n.dot\r\n---\r\n"), "{}", mail.2);
        }
    } else {
        println!("skipped: git send-email is not installed");
    }

    let muttrc = format!(
        "set smtp_url=\"smtp://ann@localhost:{number}\"\nset smtp_pass=\"{TOKEN}\"\nset ssl_starttls=yes\nset ssl_force_tls=yes\n\
         set certificate_file=\"{authority}\"\nset ssl_ca_certificates_file=\"{authority}\"\nset from=\"ann@a.test\"\n\
         set envelope_from_address=\"ann@a.test\"\nset use_envelope_from=yes\nset copy=no\nset realname=\"Ann\"\n"
    );
    let muttrc = port.file("muttrc", &muttrc);
    let mutt = ["-n", "-F", muttrc.to_str().unwrap(), "-s", "gr\u{fc}n", "-c", "c@c.test", "--", "b@b.test"];
    if let Some(mail) = port.sent_by("mutt", &mutt, ".dot\n..\n\nlast\n").await {
        assert_eq!(envelope(&mail), expected);
        assert!(mail.2.ends_with(body), "{}", mail.2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_megabytes_pass_through_little_memory() {
    let Some(port) = Port::start().await else { return };
    let script = format!(
        "import smtplib\ns = smtplib.SMTP('127.0.0.1', {})\ns.login('ann', '{TOKEN}')\n\
         line = b'x' * 76 + b'\\r\\n'\ns.sendmail('ann@a.test', ['b@b.test'], b'Subject: x\\r\\n\\r\\n' + line * (100 * 1024 * 1024 // 78))\ns.quit()\n",
        port.port
    );
    let script = port.file("send.py", &script);
    let before = peak_memory();
    let mut python = Command::new("python3");
    let sent = tokio::task::spawn_blocking(move || python.arg(script).output()).await.unwrap();
    let Ok(output) = sent else { return println!("skipped: python3 is not installed") };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mail = port.queue.0.lock().unwrap().pop().unwrap();
    assert!(mail.message.size > 104_000_000);
    let Spooled::File(path) = &mail.body else { panic!("a large message is in memory") };
    assert_eq!(fs::metadata(path).unwrap().len(), mail.message.size);
    let grown = peak_memory().saturating_sub(before);
    println!("{grown} kB more memory at the peak, from {before} kB");
    assert!(grown < 16_000, "{grown} kB");
    let path = path.to_path_buf();
    drop(mail);
    assert!(!path.exists(), "what nobody keeps does not stay");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_before_tls_is_not_taken_as_said_within_it() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let Some(port) = Port::start().await else { return };
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port.port)).await.unwrap();
    stream.write_all(b"EHLO me\r\nSTARTTLS\r\nMAIL FROM:<mallory@m.test>\r\n").await.unwrap();
    let mut answer = String::new();
    // The server hangs up instead of beginning TLS.
    let _ = stream.read_to_string(&mut answer).await;
    assert!(answer.ends_with("220 2.0.0 go on\r\n"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_a_mail_is_answered_with_452_and_the_next_small_one_is_taken() {
    let Some(port) = Port::start().await else { return };
    let spool = port.directory.path().join("spool");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(&spool).status();
    if !mounted.is_ok_and(|status| status.success()) {
        return println!("skipped: a full disk needs root, who can mount a small one");
    }
    let script = format!(
        "import smtplib\ns = smtplib.SMTP('127.0.0.1', {})\ns.login('ann', '{TOKEN}')\n\
         def send(lines):\n  return s.sendmail('ann@a.test', ['b@b.test'], b'Subject: x\\r\\n\\r\\n' + b'hello\\r\\n' * lines)\n\
         try:\n  send(200000)\nexcept smtplib.SMTPDataError as error:\n  print(error.smtp_code)\nsend(1)\ns.quit()\n",
        port.port
    );
    let script = port.file("send.py", &script);
    let output = tokio::task::spawn_blocking(move || Command::new("python3").arg(script).output()).await.unwrap();
    let left_over = fs::read_dir(&spool).unwrap().count();
    Command::new("umount").arg(&spool).status().unwrap();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "452\n");
    assert_eq!(port.queue.0.lock().unwrap().len(), 1);
    assert_eq!(left_over, 0, "what was not taken leaves nothing behind");
}

/// The greatest memory that this process has had, in kB; nothing where the system does not say.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    line.unwrap_or_default()
}
