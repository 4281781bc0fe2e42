//! Debian's Dovecot, started for one test on ports of its own, with its files in a directory of its own.
//!
//! It needs root, because Dovecot gives up root for users of its own. Where it cannot be, the test says so and is skipped.

#![allow(dead_code, reason = "each of those who include it uses a part of it")]

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use packetboat_mail::imap::ImapAccount;
use packetboat_mail::pop3::Pop3Account;
use packetboat_mail::{Deadlines, Endpoint, Login, Security};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;

/// A running server.
pub(crate) struct Dovecot {
    directory: TempDir,
    master: Child,
    imap: u16,
    imaps: u16,
    pop3: u16,
    pop3s: u16,
}

pub(crate) const USER: &str = "anna";
pub(crate) const PASSWORD: &str = "a secret \"with\" quotes\\";

impl Dovecot {
    /// Starts a server, or says why there is none.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with("")
    }

    /// The same with further settings.
    pub(crate) fn start_with(more: &str) -> Option<Self> {
        if let Err(reason) = provide() {
            eprintln!("skipped: {reason}");
            return None;
        }
        let directory = TempDir::new().expect("a directory");
        let at = directory.path();
        let [imap, imaps, pop3, pop3s] = free_ports();
        run(Command::new("chmod").arg("755").arg(at));
        for part in ["run", "mail"] {
            std::fs::create_dir(at.join(part)).expect("a directory");
        }
        run(Command::new("chown").arg("mail:mail").arg(at.join("mail")));
        run(Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
            .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
            .arg(at.join("key.pem"))
            .arg("-out")
            .arg(at.join("cert.pem")));
        let users: String = ["anna", "back"].map(|user| format!("{user}:{PASSWORD}::::::\n")).concat();
        std::fs::write(at.join("users"), users).expect("a file");
        let text = CONFIGURATION
            .replace("@DIR@", &at.display().to_string())
            .replace("@IMAP@", &imap.to_string())
            .replace("@IMAPS@", &imaps.to_string())
            .replace("@POP3@", &pop3.to_string())
            .replace("@POP3S@", &pop3s.to_string());
        std::fs::write(at.join("dovecot.conf"), text + more).expect("a file");
        let master = Command::new("dovecot")
            .args(["-F", "-c"])
            .arg(at.join("dovecot.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("dovecot starts");
        let server = Self { directory, master, imap, imaps, pop3, pop3s };
        for port in [imap, imaps, pop3, pop3s] {
            server.await_port(port);
        }
        Some(server)
    }

    fn await_port(&self, port: u16) {
        for _ in 0..200 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return;
            }
            let _ = Command::new("sleep").arg("0.05").status();
        }
        panic!("dovecot does not listen: {}", std::fs::read_to_string(self.path("log")).unwrap_or_default());
    }

    /// A file or directory of the server.
    pub(crate) fn path(&self, part: &str) -> PathBuf {
        self.directory.path().join(part)
    }

    /// What its certificate is trusted by.
    pub(crate) fn tls(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_file(self.path("cert.pem")).expect("a certificate");
        roots.add(certificate).expect("a certificate");
        Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
    }

    pub(crate) fn imap(&self, security: Security) -> ImapAccount {
        let port = if security == Security::Implicit { self.imaps } else { self.imap };
        let endpoint = Endpoint { host: "localhost".to_owned(), port, security };
        ImapAccount { endpoint, tls: self.tls(), login: login(PASSWORD), deadlines: deadlines() }
    }

    pub(crate) fn pop3(&self, security: Security) -> Pop3Account {
        let port = if security == Security::Implicit { self.pop3s } else { self.pop3 };
        let endpoint = Endpoint { host: "localhost".to_owned(), port, security };
        Pop3Account { endpoint, tls: self.tls(), login: login(PASSWORD), deadlines: deadlines() }
    }

    /// Runs the server's own tool, and gives what it says.
    pub(crate) fn doveadm(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("doveadm");
        let output = command.arg("-c").arg(self.path("dovecot.conf")).args(arguments).output().expect("doveadm runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Puts a message into a mailbox, as a delivery would.
    pub(crate) fn save(&self, mailbox: &str, message: &[u8]) {
        let mut command = Command::new("doveadm");
        let saving = command.arg("-c").arg(self.path("dovecot.conf")).args(["save", "-u", USER, "-m", mailbox]);
        let mut child = saving.stdin(Stdio::piped()).spawn().expect("doveadm runs");
        child.stdin.take().expect("a pipe").write_all(message).expect("it reads");
        assert!(child.wait().expect("it ends").success());
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        // The master is asked first, so that it ends its children.
        let _ = Command::new("doveadm").arg("-c").arg(self.path("dovecot.conf")).arg("stop").output();
        let _ = self.master.kill();
        let _ = self.master.wait();
    }
}

pub(crate) fn login(password: &str) -> Login {
    Login::Password { user: USER.to_owned(), password: password.to_owned() }
}

/// A machine that is busy with other tests may be slow; a server that is dead is not waited for all day.
fn deadlines() -> Deadlines {
    let deadline = Duration::from_secs(60);
    Deadlines { connect: deadline, silence: deadline, answer: deadline }
}

/// Installs what is missing, one process at a time.
fn provide() -> Result<(), &'static str> {
    if !rustix::process::geteuid().is_root() {
        return Err("Dovecot is started by root alone");
    }
    let there =
        || ["/usr/sbin/dovecot", "/usr/lib/dovecot/pop3", "/usr/bin/openssl"].iter().all(|at| Path::new(at).exists());
    if !there() {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../mail/tests/servers/install.sh");
        let _told = Command::new("sh").arg(script).args(["dovecot-imapd", "dovecot-pop3d", "openssl"]).output();
    }
    if there() { Ok(()) } else { Err("Dovecot is not installed here and cannot be") }
}

fn free_ports() -> [u16; 4] {
    let listeners: [TcpListener; 4] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("an address").port())
}

fn run(command: &mut Command) {
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Makes everything under a directory the server's own.
pub(crate) fn give_to_server(directory: &Path) {
    run(Command::new("chown").arg("-R").arg("mail:mail").arg(directory));
}

const CONFIGURATION: &str = "
base_dir = @DIR@/run
state_dir = @DIR@/run
log_path = @DIR@/log
protocols = imap pop3
listen = 127.0.0.1
ssl = yes
ssl_cert = <@DIR@/cert.pem
ssl_key = <@DIR@/key.pem
disable_plaintext_auth = no
auth_mechanisms = plain login
mail_location = maildir:@DIR@/mail/%u
mail_max_userip_connections = 100
first_valid_uid = 1
default_internal_user = dovecot
default_login_user = dovenull
default_vsz_limit = 2G
namespace inbox {
  inbox = yes
  mailbox Sent {
    auto = create
    special_use = \\Sent
  }
}
passdb {
  driver = passwd-file
  args = scheme=PLAIN username_format=%u @DIR@/users
}
userdb {
  driver = static
  args = uid=mail gid=mail home=@DIR@/mail/%u
}
service imap-login {
  chroot =
  inet_listener imap {
    port = @IMAP@
  }
  inet_listener imaps {
    port = @IMAPS@
    ssl = yes
  }
}
service pop3-login {
  chroot =
  inet_listener pop3 {
    port = @POP3@
  }
  inet_listener pop3s {
    port = @POP3S@
    ssl = yes
  }
}
service anvil {
  chroot =
}
service stats {
  chroot =
}
";
