//! Real servers for tests: Debian's Postfix and Dovecot, started on free ports in a directory of the test's own.
//!
//! `tests/servers/install.sh` installs them. Where they are missing, or the test does not run as root, [`Servers::start`]
//! says in one line what is skipped and returns nothing.
//! Postfix takes mail for `example.test` by submission (STARTTLS or implicit TLS, SASL by Dovecot) from the user
//! `alice` with the password `secret` and delivers it to the Maildir that Dovecot serves by IMAP and POP3.

// Not every test file uses every part.
#![allow(dead_code, unreachable_pub)]

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Postfix and Dovecot, until dropped.
pub struct Servers {
    directory: tempfile::TempDir,
    /// Where they listen.
    place: Place,
    /// SMTP with STARTTLS.
    pub submission: u16,
    /// SMTP with implicit TLS.
    pub submissions: u16,
    /// IMAP with STARTTLS.
    pub imap: u16,
    /// IMAP with implicit TLS.
    pub imaps: u16,
    /// POP3 with STLS.
    pub pop3: u16,
    /// POP3 with implicit TLS.
    pub pop3s: u16,
}

/// An address to listen at, and the network namespace that it is in, where that is not this process's own.
pub struct Place {
    /// The address.
    pub address: String,
    /// The name of the namespace.
    pub namespace: Option<String>,
}

/// The one user of the servers.
pub const USER: &str = "alice";
/// Its password.
pub const PASSWORD: &str = "secret";

impl Servers {
    /// Starts both servers at the loopback address, or says what is missing.
    pub fn start() -> Option<Self> {
        Self::start_at(Place { address: "127.0.0.1".to_owned(), namespace: None })
    }

    /// Starts both servers, or says what is missing.
    pub fn start_at(place: Place) -> Option<Self> {
        let missing: Vec<&str> =
            ["postfix", "dovecot", "openssl"].into_iter().filter(|name| !is_installed(name)).collect();
        let root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n");
        if !root || !missing.is_empty() {
            println!("skipped: real servers need root and {missing:?}; see tests/servers/install.sh");
            return None;
        }
        let directory = tempfile::Builder::new().prefix("packetboat-mail-").tempdir_in("/tmp").unwrap();
        let [submission, submissions, imap, imaps, pop3, pop3s] = free_ports();
        let servers = Self { directory, place, submission, submissions, imap, imaps, pop3, pop3s };
        servers.write_files();
        servers.run("dovecot", &["-c", &servers.path("dovecot.conf")]);
        servers.run("postfix", &["-c", &servers.path("etc"), "start"]);
        for port in [submission, submissions, imap, imaps, pop3, pop3s] {
            servers.wait_for_port(port);
        }
        Some(servers)
    }

    /// The certificate of the authority that signed that of the servers, whose name is `localhost`.
    pub fn authority(&self) -> PathBuf {
        self.directory.path().join("authority.pem")
    }

    /// The certificate chain and the key of the servers.
    pub fn certificate(&self) -> (PathBuf, PathBuf) {
        (self.directory.path().join("cert.pem"), self.directory.path().join("key.pem"))
    }

    /// The Maildir of the user, as Dovecot serves it.
    pub fn maildir(&self) -> PathBuf {
        self.directory.path().join("dovecot/mail").join(USER)
    }

    /// The messages that were delivered: the files in `new` and `cur`.
    pub fn delivered(&self) -> Vec<PathBuf> {
        ["new", "cur"]
            .iter()
            .flat_map(|folder| fs::read_dir(self.maildir().join(folder)).into_iter().flatten())
            .map(|entry| entry.unwrap().path())
            .collect()
    }

    /// Waits until so many messages were delivered, at most half a minute.
    pub fn wait_for_delivered(&self, count: usize) -> Vec<PathBuf> {
        for _ in 0..300 {
            if self.delivered().len() >= count {
                break;
            }
            pause();
        }
        self.delivered()
    }

    /// How many messages with this Message-ID Dovecot shows in the inbox.
    pub fn count_in_inbox(&self, message_id: &str) -> usize {
        let config = self.path("dovecot.conf");
        let search = ["-c", &config, "search", "-u", USER, "mailbox", "INBOX", "header", "Message-ID", message_id];
        let output = Command::new("doveadm").args(search).output().unwrap();
        assert!(output.status.success(), "doveadm: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).lines().count()
    }

    /// Puts a message into a mailbox of the user, as a delivery would.
    pub fn save(&self, mailbox: &str, message: &[u8]) {
        let config = self.path("dovecot.conf");
        let saving = ["-c", &config, "save", "-u", USER, "-m", mailbox];
        let mut saving = Command::new("doveadm").args(saving).stdin(Stdio::piped()).spawn().unwrap();
        saving.stdin.take().unwrap().write_all(message).unwrap();
        assert!(saving.wait().unwrap().success(), "doveadm saves: {}", self.log());
    }

    /// From now on Postfix files in Sent what it takes, as some providers do.
    pub fn file_in_sent(&self) {
        let path = self.path("etc/main.cf");
        let settings = fs::read_to_string(&path).unwrap() + "always_bcc = sent@example.test\n";
        fs::write(&path, settings).unwrap();
        self.run("postfix", &["-c", &self.path("etc"), "reload"]);
    }

    /// Runs Dovecot's own tool, and gives what it says.
    pub fn doveadm(&self, arguments: &[&str]) -> String {
        let config = self.path("dovecot.conf");
        let output = Command::new("doveadm").args(["-c", &config]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// How many messages there are in a mailbox of the user.
    pub fn count_in(&self, mailbox: &str) -> usize {
        self.doveadm(&["search", "-u", USER, "mailbox", mailbox, "ALL"]).lines().count()
    }

    /// The addresses from which Postfix took the message with this Message-ID, by the user who logged in.
    pub fn taken_from(&self, message_id: &str) -> Vec<String> {
        let log = String::from_utf8_lossy(&fs::read(self.path("postfix/log")).unwrap_or_default()).into_owned();
        let named = format!(": message-id={message_id}");
        let queued = log.lines().filter_map(|line| line.strip_suffix(&named)?.rsplit(": ").next());
        let taken = queued.filter_map(|queue_id| {
            let client = format!(": {queue_id}: client=");
            let line = log.lines().find_map(|line| line.split_once(&client))?.1;
            line.ends_with(&format!("sasl_username={USER}")).then_some(())?;
            Some(line.split_once('[')?.1.split_once(']')?.0.to_owned())
        });
        taken.collect()
    }

    /// How many messages Postfix has taken and not yet delivered.
    pub fn queue_length(&self) -> usize {
        let count = |queue: &str| fs::read_dir(self.path(&format!("postfix/spool/{queue}"))).map_or(0, Iterator::count);
        ["incoming", "active"].into_iter().map(count).sum()
    }

    fn wait_for_port(&self, port: u16) {
        let Some(namespace) = &self.place.namespace else { return wait_for_port(port) };
        // This process is in another namespace, so a shell within looks.
        let look = format!("exec 3<>/dev/tcp/{}/{port}", self.place.address);
        for _ in 0..300 {
            let mut bash = Command::new("ip");
            bash.args(["netns", "exec", namespace, "bash", "-c", &look]).stdout(Stdio::null()).stderr(Stdio::null());
            if bash.status().unwrap().success() {
                return;
            }
            pause();
        }
        panic!("nothing listens on port {port} in {namespace}: {}", self.log());
    }

    /// What both servers logged.
    pub fn log(&self) -> String {
        ["postfix/log", "dovecot/log"]
            .iter()
            .map(|name| String::from_utf8_lossy(&fs::read(self.path(name)).unwrap_or_default()).into_owned())
            .collect()
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    fn write_files(&self) {
        let root = self.directory.path();
        // The servers run as users of their own and must reach what lies in here.
        fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["etc", "postfix/spool", "postfix/data", "dovecot/run", "dovecot/mail"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        self.run("chown", &["mail:mail", &self.path("dovecot/mail")]);
        self.run("chown", &["postfix", &self.path("postfix/data")]);
        write_certificates_for(root, &self.place.address);
        fs::write(root.join("dovecot/users"), format!("{USER}:{PASSWORD}\n")).unwrap();
        for (name, template) in [
            ("dovecot.conf", include_str!("dovecot.conf")),
            ("etc/main.cf", include_str!("main.cf")),
            ("etc/master.cf", include_str!("master.cf")),
        ] {
            let filled = [
                ("@ADDRESS@", self.place.address.clone()),
                ("@DIR@", root.to_str().unwrap().to_owned()),
                ("@SUBMISSIONS@", self.submissions.to_string()),
                ("@SUBMISSION@", self.submission.to_string()),
                ("@IMAPS@", self.imaps.to_string()),
                ("@IMAP@", self.imap.to_string()),
                ("@POP3S@", self.pop3s.to_string()),
                ("@POP3@", self.pop3.to_string()),
            ]
            .iter()
            .fold(template.to_owned(), |text, (mark, value)| text.replace(mark, value));
            fs::write(root.join(name), filled).unwrap();
        }
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        // A server goes on writing to what it was given, so it gets a file and no pipe whose end would be waited for.
        let file = fs::File::create(self.path("output")).unwrap();
        let errors = file.try_clone().unwrap();
        let status =
            self.place.command(program).args(arguments).stdin(Stdio::null()).stdout(file).stderr(errors).status();
        let said = fs::read_to_string(self.path("output")).unwrap_or_default();
        assert!(status.unwrap().success(), "{program}: {said}{}", self.log());
    }
}

impl Place {
    fn command(&self, program: &str) -> Command {
        match &self.namespace {
            None => Command::new(program),
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace, program]);
                command
            }
        }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        // By its process: `postfix stop` refuses to do anything where the address that it listens on is another
        // namespace's, and the namespace may be gone by now.
        let pid = fs::read_to_string(self.path("postfix/spool/pid/master.pid")).unwrap_or_default();
        let pid = pid.trim();
        let kill = |how: &str| Command::new("kill").args([how, pid]).stderr(Stdio::null()).status();
        if !pid.is_empty() && kill("-TERM").is_ok_and(|status| status.success()) {
            let ended = (0..60).any(|_| {
                pause();
                has_ended(pid)
            });
            if !ended {
                let _ = kill("-KILL");
            }
        }
        let mut dovecot = Command::new("dovecot");
        dovecot.args(["-c", &self.path("dovecot.conf"), "stop"]).stdout(Stdio::null()).stderr(Stdio::null());
        let _ = dovecot.status();
    }
}

/// Whether a process is gone, or only waits for whoever adopted it to look at how it ended.
fn has_ended(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.map_or(true, |stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
}

/// Writes `authority.pem`, `cert.pem` and `key.pem` for `localhost` and 127.0.0.1 into a directory.
pub fn write_certificates(directory: &Path) {
    write_certificates_for(directory, "127.0.0.1");
}

/// The same for `localhost` and an address.
fn write_certificates_for(directory: &Path, address: &str) {
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl").args(arguments).current_dir(directory).output().unwrap();
        assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    };
    let new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"];
    openssl(
        &[
            &new[..],
            &["-subj", "/CN=Packetboat test authority", "-keyout", "authority.key", "-out", "authority.pem"],
            &["-addext", "keyUsage=critical,keyCertSign"],
        ]
        .concat(),
    );
    // Without the first extension rustls takes the certificate for one of an authority and refuses it.
    openssl(
        &[
            &new[..],
            &["-CA", "authority.pem", "-CAkey", "authority.key", "-subj", "/CN=localhost"],
            &["-keyout", "key.pem", "-out", "cert.pem", "-addext", "basicConstraints=critical,CA:FALSE"],
            &["-addext", &format!("subjectAltName=DNS:localhost,IP:{address}")],
        ]
        .concat(),
    );
    fs::set_permissions(directory.join("key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
}

/// Whether a program is there to be run.
pub fn is_installed(program: &str) -> bool {
    let found = |path: &str| path.split(':').any(|folder| Path::new(folder).join(program).exists());
    found(option_env!("PATH").unwrap_or_default()) || found("/usr/bin:/usr/sbin:/bin:/sbin:/usr/lib/git-core")
}

/// Ports of the loopback address that nobody uses.
pub fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    // All are held at once, so that no two are the same.
    let listeners: [TcpListener; COUNT] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// Waits until something listens on a port.
pub fn wait_for_port(port: u16) {
    for _ in 0..300 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return;
        }
        pause();
    }
    panic!("nothing listens on port {port}");
}

/// Servers are other processes: there is nothing to wait for but time.
#[allow(clippy::disallowed_methods)]
pub fn pause() {
    std::thread::sleep(Duration::from_millis(100));
}
