//! A host whose computer sleeps: a private system bus, and a logind of the tests' own on it.

use std::io::{PipeReader, Read};
use std::os::fd::OwnedFd as Pipe;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use zbus::{Connection, OwnedFd, interface};

use crate::network::{Cut, Line};
use crate::pair::{BY_COMPANION, Pair};

/// Keeps the other ends of the inhibitors that were given out.
#[derive(Clone, Default)]
struct Inhibitors(Arc<Mutex<Vec<PipeReader>>>);

#[interface(name = "org.freedesktop.login1.Manager")]
impl Inhibitors {
    fn inhibit(&self, what: &str, _who: &str, _why: &str, mode: &str) -> zbus::fdo::Result<OwnedFd> {
        assert_eq!((what, mode), ("sleep", "delay"));
        let (reader, writer) = std::io::pipe().map_err(|error| zbus::fdo::Error::Failed(error.to_string()))?;
        self.0.lock().unwrap().push(reader);
        Ok(Pipe::from(writer).into())
    }
}

impl Inhibitors {
    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Waits until the newest inhibitor is let go of, as logind does before it suspends.
    fn released(&self) {
        let mut newest = self.0.lock().unwrap().pop().unwrap();
        let mut nothing = Vec::new();
        newest.read_to_end(&mut nothing).unwrap();
    }
}

/// A bus that ends with the test.
struct Bus(Child);

impl Bus {
    fn start(socket: &Path) -> Option<Self> {
        let config = socket.with_extension("conf");
        let text = format!(
            "<busconfig><type>system</type><listen>unix:path={}</listen><auth>EXTERNAL</auth><policy context=\"default\">\
             <allow send_destination=\"*\"/><allow receive_sender=\"*\"/><allow own=\"*\"/><allow user=\"*\"/></policy></busconfig>",
            socket.display()
        );
        std::fs::write(&config, text).unwrap();
        let option = format!("--config-file={}", config.display());
        let Ok(daemon) = Command::new("dbus-daemon").args([&option, "--nofork"]).stderr(Stdio::null()).spawn() else {
            println!("skipped: there is no dbus-daemon");
            return None;
        };
        let bus = Self(daemon);
        // The socket is there before anybody listens at it.
        let started = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(50));
            UnixStream::connect(socket).is_ok()
        });
        assert!(started, "the bus did not start");
        Some(bus)
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _ended = self.0.wait();
    }
}

async fn say(logind: &Connection, sleeps: bool) {
    let path = "/org/freedesktop/login1";
    let interface = "org.freedesktop.login1.Manager";
    logind.emit_signal(None::<&str>, path, interface, "PrepareForSleep", &(sleeps,)).await.unwrap();
}

#[test]
fn a_computer_that_sleeps_hands_its_mails_to_the_companion_first() {
    let Some(mut pair) = Pair::start() else { return };
    let socket = pair.system_bus();
    let Some(_bus) = Bus::start(&socket) else { return };
    let inhibitors = Inhibitors::default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let logind = runtime.block_on(async {
        let address = format!("unix:path={}", socket.display());
        let bus = zbus::connection::Builder::address(address.as_str()).name("org.freedesktop.login1");
        bus.serve_at("/org/freedesktop/login1", inhibitors.clone()).build().await.unwrap()
    });
    // The daemon looks for the bus when it starts.
    pair.end("host", rustix::process::Signal::TERM);
    pair.run("host");
    pair.until("the host asks to be waited for", |_| inhibitors.count() == 1);
    pair.until("the link is up", |pair| pair.json("host", &["paths"])["link"]["up"] == true);

    pair.network.cut(Line::HostPath, Cut::Unplugged);
    pair.network.cut(Line::CompanionPath, Cut::Unplugged);
    let id = pair.send();
    pair.until("the companion has a copy", |pair| pair.open("companion") == 1);
    let began = Instant::now();
    runtime.block_on(say(&logind, true));
    inhibitors.released();
    let took = began.elapsed();
    println!("the computer was held back for {took:?}");
    assert!(took < Duration::from_secs(5), "longer than logind waits: {took:?}");
    let mail = pair.json("host", &["outbox"])["mails"][0].clone();
    assert_eq!(mail["state"], "handed-over", "the turn was the companion's before the computer slept: {mail}");

    // It sleeps: nothing is heard of it, and the companion's path comes back.
    pair.network.cut(Line::Link, Cut::Unplugged);
    pair.network.mend(Line::CompanionPath);
    pair.arrives_once(&id, BY_COMPANION);
    pair.network.mend(Line::Link);
    pair.network.mend(Line::HostPath);
    runtime.block_on(say(&logind, false));
    pair.until("both are done", |pair| pair.open("host") == 0 && pair.open("companion") == 0);
    assert_eq!(pair.arrivals(&id), [BY_COMPANION]);
    pair.until("it asks to be waited for again", |_| inhibitors.count() == 1);
}
