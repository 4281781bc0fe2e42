//! Telling the service manager how the daemon stands (sd_notify): a datagram to the socket that it named.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

/// The service manager, if there is one.
#[derive(Debug, Default)]
pub struct Notifier(Option<(UnixDatagram, SocketAddr)>);

impl Notifier {
    /// The manager that listens at `socket`, the value of `NOTIFY_SOCKET`; nobody, where it is not set.
    pub fn new(socket: Option<&str>) -> io::Result<Self> {
        let Some(socket) = socket.filter(|socket| !socket.is_empty()) else { return Ok(Self(None)) };
        let address = match socket.strip_prefix('@') {
            // An abstract name, which no file stands for.
            Some(name) => SocketAddr::from_abstract_name(name.as_bytes())?,
            None => SocketAddr::from_pathname(Path::new(socket))?,
        };
        Ok(Self(Some((UnixDatagram::unbound()?, address))))
    }

    /// Says that everything that was asked for is there.
    pub fn ready(&self) {
        self.say("READY=1\nSTATUS=carrying mail");
    }

    /// Says that settings are being read again; `microseconds` is the monotonic clock, which systemd wants to know.
    pub fn reloading(&self, microseconds: u64) {
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
    }

    /// Says that the daemon is about to end.
    pub fn stopping(&self) {
        self.say("STOPPING=1\nSTATUS=handing over");
    }

    fn say(&self, text: &str) {
        if let Some((socket, address)) = &self.0 {
            // A manager that does not listen is no reason not to carry mail.
            let _unheard = socket.send_to_addr(text.as_bytes(), address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_hears_when_the_daemon_is_ready() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        Notifier::new(path.to_str()).unwrap().ready();
        let mut heard = [0; 64];
        let count = manager.recv(&mut heard).unwrap();
        assert!(heard[..count].starts_with(b"READY=1"));
        Notifier::new(None).unwrap().ready();
    }

    #[test]
    fn an_abstract_name_is_understood() {
        let name = format!("packetboat-test-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name.as_bytes()).unwrap()).unwrap();
        Notifier::new(Some(&format!("@{name}"))).unwrap().stopping();
        let mut heard = [0; 64];
        let count = manager.recv(&mut heard).unwrap();
        assert!(heard[..count].starts_with(b"STOPPING=1"));
    }
}
