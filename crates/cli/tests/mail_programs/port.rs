//! The submission port of a daemon: programs on this computer, and on another one.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::device::{Device, installed};
use crate::network::{HOST_ON_LINK, Network, Place};
use crate::{BODY, MESSAGE, is};

#[test]
fn mail_programs_hand_over_to_the_daemon() {
    let device = Device::running("");
    let number = device.port.to_string();
    let both = ["b@b.test", "c@c.test"];

    let data = format!("@{}", device.file("message", MESSAGE));
    let server = format!("127.0.0.1:{number}");
    let swaks = ["--server", &server, "--from", "ann@a.test", "--to", "b@b.test,c@c.test", "--data", &data];
    for more in [&[][..], &["--pipeline"]] {
        if let Some(taken) = device.sends("swaks", &[&swaks, more].concat(), "") {
            is(&taken, "ann@a.test", &both);
            assert!(taken.text.contains(BODY.trim_end()), "{}", taken.text);
        }
    }

    let config = format!("defaults\naccount a\nhost 127.0.0.1\nport {number}\nfrom ann@a.test\naccount default : a\n");
    let config = format!("--file={}", device.file("msmtprc", &config));
    if let Some(taken) = device.sends("msmtp", &[&config, "-t"], &format!("Bcc: d@d.test\n{MESSAGE}")) {
        is(&taken, "ann@a.test", &["b@b.test", "c@c.test", "d@d.test"]);
        assert!(taken.text.ends_with(BODY) && !taken.text.contains("d@d.test"), "{}", taken.text);
    }

    let script = format!(
        "import smtplib\ns = smtplib.SMTP('127.0.0.1', {number})\n\
         message = open('message', 'rb').read().replace(b'\\n', b'\\r\\n')\n\
         assert not s.sendmail('ann@a.test', ['b@b.test', 'c@c.test'], message)\ns.quit()\n"
    );
    let script = device.file("send.py", &script);
    if let Some(taken) = device.sends("python3", &[&script], "") {
        is(&taken, "ann@a.test", &both);
        assert!(taken.text.ends_with(BODY), "{}", taken.text);
    }

    let muttrc = format!(
        "set smtp_url=\"smtp://127.0.0.1:{number}\"\nset from=\"ann@a.test\"\nset copy=no\nset realname=\"Ann\"\n\
         set envelope_from_address=\"ann@a.test\"\nset use_envelope_from=yes\n\
         # By itself it insists on TLS even on this computer.\nset ssl_force_tls=no\n"
    );
    let muttrc = device.file("muttrc", &muttrc);
    let mutt = ["-n", "-F", &muttrc, "-s", "x", "-c", "c@c.test", "--", "b@b.test"];
    if let Some(taken) = device.sends("mutt", &mutt, ".dot\n..\n\nlast\n") {
        is(&taken, "ann@a.test", &both);
        assert!(taken.text.ends_with(BODY), "{}", taken.text);
    }

    if installed("/usr/lib/git-core/git-send-email") {
        let patch = device.file("0001-x.patch", PATCH);
        device.file(".gitconfig", "[user]\nname = Ann\nemail = ann@a.test\n");
        let port = format!("--smtp-server-port={number}");
        let git = ["send-email", "--quiet", "--confirm=never", "--smtp-server=127.0.0.1", &port];
        let more = ["--to=b@b.test", "--cc=c@c.test", "--suppress-cc=all", &patch];
        if let Some(taken) = device.sends("/usr/bin/git", &[&git[..], &more].concat(), "") {
            is(&taken, "ann@a.test", &both);
            assert!(taken.text.contains("\r\n\r\n.dot\r\n---\r\n"), "{}", taken.text);
        }
    } else {
        println!("skipped: git send-email is not installed");
    }
    device.until("the outbox has nothing left", |device| !device.outbox().contains("turn"));
}

pub(crate) const PATCH: &str = "From 0123456789012345678901234567890123456789 Mon Sep 17 00:00:00 2001\n\
    From: Ann <ann@a.test>\nDate: Sun, 22 Nov 2026 02:21:19 +0000\nSubject: [PATCH] x\n\n.dot\n---\n a | 1 +\n";

#[test]
fn beyond_loopback_nothing_is_taken_without_tls_and_the_token() {
    let Some(network) = Network::new() else { return };
    if !installed("swaks") {
        return println!("skipped: another computer's mail program is swaks, which is not installed");
    }
    let mut device = Device::new("");
    let port = device.port;
    let listen = format!("[submission]\nlisten = [\"127.0.0.1:{port}\", \"{HOST_ON_LINK}:{port}\"]\n");
    device.file("config/daemon.toml", &listen);
    let refused = device.command(crate::device::PACKETBOAT).arg("run").output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("submission.beyond_loopback"), "{said}");

    device.file("config/daemon.toml", &format!("{listen}beyond_loopback = true\n"));
    device.start_by(network.command(Place::Host, crate::device::PACKETBOAT));
    let authority = device.path("state/daemon/submission-certificate.pem").to_str().unwrap().to_owned();
    let token = device.token();
    let data = format!("@{}", device.file("message", MESSAGE));
    let server = format!("{HOST_ON_LINK}:{port}");
    let swaks = ["--server", &server, "--from", "ann@a.test", "--to", "b@b.test,c@c.test", "--data", &data];
    let from = |place, more: &[&str]| {
        let mut command = device.within(network.command(place, "/usr/bin/swaks"));
        command.args(swaks).args(more);
        let output = device.run(command, "");
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let login = ["--auth", "PLAIN", "--auth-user", "ann", "--auth-password", &token];
    let verified = ["--tls", "--tls-verify", "--tls-ca-path", &authority];
    for (more, why) in [
        (&[][..], "530 5.7.0 begin TLS first"),
        (&login[..], "Host did not advertise authentication"),
        (&verified, "530 5.7.0 log in first"),
        (&["--tls", "--auth", "PLAIN", "--auth-user", "ann", "--auth-password", "not-the-token"], "535 5.7.8"),
    ] {
        let (taken, said) = from(Place::Companion, more);
        assert!(!taken && said.contains(why), "{more:?}: {said}");
    }
    assert!(device.kept() == 0, "{}", device.outbox());
    let (taken, said) = from(Place::Companion, &[&verified[..], &login].concat());
    assert!(taken, "{said}");
    assert_eq!(device.kept(), 1);
    // What another program listens to on the way is not believed.
    let other = concat!(env!("CARGO_MANIFEST_DIR"), "/../mail/tests/servers/some-authority.pem");
    let (taken, said) =
        from(Place::Companion, &[&["--tls", "--tls-verify", "--tls-ca-path", other][..], &login].concat());
    assert!(!taken, "{said}");

    if installed("msmtp") {
        let config = format!(
            "defaults\naccount a\nhost {HOST_ON_LINK}\nport {port}\nfrom ann@a.test\ntls on\ntls_starttls on\n\
             tls_trust_file {authority}\nauth plain\nuser ann\npassword {token}\naccount default : a\n"
        );
        let config = format!("--file={}", device.file("msmtprc", &config));
        let mut command = device.within(network.command(Place::Companion, "/usr/bin/msmtp"));
        command.args([&config, "-t"]);
        let output = device.run(command, MESSAGE);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(device.kept(), 2);
    }

    if installed("openssl") {
        let mut command = device.within(network.command(Place::Companion, "/usr/bin/openssl"));
        command.args([
            "s_client",
            "-starttls",
            "smtp",
            "-connect",
            &server,
            "-CAfile",
            &authority,
            "-verify_return_error",
        ]);
        command.args(["-verify_ip", HOST_ON_LINK, "-quiet"]);
        let output = device.run(command, "EHLO me\r\nQUIT\r\n");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("AUTH PLAIN LOGIN"), "{output:?}");
        assert!(!said.contains("STARTTLS"), "TLS has begun: {said}");
    }
}

#[test]
fn what_is_said_behind_starttls_is_not_taken_as_said_within_it() {
    use std::io::{Read, Write};
    let device = Device::running("starttls = true\n");
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", device.port)).unwrap();
    stream.write_all(b"EHLO me\r\nSTARTTLS\r\nMAIL FROM:<ann@a.test>\r\nRCPT TO:<b@b.test>\r\nDATA\r\n").unwrap();
    let mut said = String::new();
    let _reset = stream.read_to_string(&mut said);
    assert!(said.ends_with("220 2.0.0 go on\r\n"), "the port hangs up: {said}");
    assert_eq!(device.kept(), 0);
}

#[test]
fn a_renewed_certificate_is_shown_after_a_reload() {
    if !installed("openssl") {
        return println!("skipped: the certificate is looked at by openssl, which is not installed");
    }
    let mut device = Device::new("starttls = true\ncertificate = \"chain.pem\"\nkey = \"key.pem\"\n");
    renew(&device, "first");
    let shown = |device: &Device| {
        let mut command = device.command("/usr/bin/openssl");
        command.args(["s_client", "-starttls", "smtp", "-connect", &format!("127.0.0.1:{}", device.port)]);
        let output = device.run(command, "QUIT\r\n");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    device.start();
    assert!(shown(&device).contains("CN = first"));
    renew(&device, "second");
    device.signal(rustix::process::Signal::HUP);
    device.until("the new one is shown", |device| shown(device).contains("CN = second"));
    // One that cannot be read leaves the port as it is.
    device.file("config/chain.pem", "no certificate");
    device.signal(rustix::process::Signal::HUP);
    device.until("the log says so", |device| device.log().contains("keeps the certificate that it has"));
    assert!(shown(&device).contains("CN = second"));
}

/// Makes a certificate of this name, as its user's authority would.
fn renew(device: &Device, name: &str) {
    let mut openssl = device.command("/usr/bin/openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "30",
    ]);
    openssl.args(["-subj", &format!("/CN={name}"), "-keyout", "config/key.pem", "-out", "config/chain.pem"]);
    assert!(openssl.status().unwrap().success());
    fs::set_permissions(device.path("config/key.pem"), PermissionsExt::from_mode(0o600)).unwrap();
}
