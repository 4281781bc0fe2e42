//! A mail server of the test's own process: takes what comes and remembers envelope and bytes.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A server on the loopback address, for as long as the test's process lives.
#[derive(Clone)]
pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    taken: Arc<Mutex<Vec<Taken>>>,
}

/// A mail that was accepted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Taken {
    pub(crate) sender: String,
    pub(crate) recipients: Vec<String>,
    pub(crate) text: String,
}

impl Sink {
    /// Starts a server that takes at most so many recipients in one mail, and answers 452 to the others.
    ///
    /// It knows nobody whose address begins with `nobody`, and does not answer the dot of a mail of `mute`.
    pub(crate) fn start(most_recipients: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sink = Self { address: listener.local_addr().unwrap(), taken: Arc::default() };
        let taken = sink.taken.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let taken = taken.clone();
                // A client that hangs up ends its own thread alone.
                thread::spawn(move || serve(stream, most_recipients, &taken));
            }
        });
        sink
    }

    /// All that was accepted until now.
    pub(crate) fn taken(&self) -> Vec<Taken> {
        self.taken.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, most_recipients: usize, taken: &Mutex<Vec<Taken>>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut lines = BufReader::new(stream.try_clone()?);
    let (mut sender, mut recipients) = (String::new(), Vec::new());
    stream.write_all(b"220 sink\r\n")?;
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let path = || line.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map_or("", |(path, _)| path);
        let reply = match line.get(..4).unwrap_or_default().to_ascii_uppercase().as_str() {
            "EHLO" => "250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 0",
            "MAIL" => {
                (sender, recipients) = (path().to_owned(), Vec::new());
                "250 2.1.0 fine"
            }
            "RCPT" if path().starts_with("nobody") => "550 5.1.1 nobody is here by this name",
            "RCPT" if recipients.len() >= most_recipients => "452 4.5.3 too many recipients",
            "RCPT" => {
                recipients.push(path().to_owned());
                "250 2.1.5 fine"
            }
            "DATA" => {
                stream.write_all(b"354 go on\r\n")?;
                let mut bytes = Vec::new();
                loop {
                    let begin = bytes.len();
                    if lines.read_until(b'\n', &mut bytes)? == 0 {
                        return Ok(());
                    }
                    if &bytes[begin..] == b".\r\n" {
                        bytes.truncate(begin);
                        break;
                    }
                    if bytes[begin] == b'.' {
                        bytes.remove(begin);
                    }
                }
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let mail = Taken { sender: sender.clone(), recipients: std::mem::take(&mut recipients), text };
                let is_mute = mail.sender.starts_with("mute");
                taken.lock().unwrap().push(mail);
                if is_mute {
                    return Ok(());
                }
                "250 2.0.0 taken"
            }
            "QUIT" => return stream.write_all(b"221 goodbye\r\n"),
            _ => "250 fine",
        };
        stream.write_all(format!("{reply}\r\n").as_bytes())?;
    }
}
