//! The arguments of `sendmail`, as cron, git send-email, mutt, mail(1) and PHP write them.
//!
//! They were written for a program of 1983, so options hang together (`-oi`, `-fann@a.test`, `-ti`), most of them mean
//! nothing today, and whoever calls checks no more than the exit status. What is known to mean nothing is passed over;
//! what is not known is an error, so that nobody believes in an effect that there is not.
//! Parsing is all that happens here. Reading the message and keeping it is the caller's.

use thiserror::Error;

use crate::address::{Address, AddressError, ReversePath};
use crate::address_list::{AddressListError, parse_address_list};

/// What `sendmail` was asked to do.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Arguments {
    /// What to do.
    pub mode: Mode,
    /// `-t`: recipients are in the header, too.
    pub recipients_from_header: bool,
    /// Recipients that were named.
    pub recipients: Vec<Address>,
    /// `-f` or `-r`: who hears of failures, where it is not the user.
    pub sender: Option<ReversePath>,
    /// `-F`: the full name of the sender, for a `From` that is missing.
    pub full_name: Option<String>,
    /// `-i`, `-oi`: a line with a dot alone does not end the message.
    pub ignore_dots: bool,
    /// `-v`: tell what happens.
    pub verbose: bool,
}

/// What `sendmail` is asked to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// `-bm`: take a message from standard input.
    #[default]
    Deliver,
    /// `-bs`: speak SMTP on standard input and output.
    Smtp,
    /// `-bp`, or called as `mailq`: show what waits.
    ShowQueue,
    /// `-q`: try now what waits.
    RunQueue,
}

impl Arguments {
    /// Parses arguments, without the program's name; bare names are at `origin`.
    pub fn parse<S: AsRef<str>>(arguments: impl IntoIterator<Item = S>, origin: &str) -> Result<Self, SendmailError> {
        let mut parsed = Self::default();
        let mut rest = arguments.into_iter();
        let mut only_recipients = false;
        while let Some(argument) = rest.next() {
            let argument = argument.as_ref();
            if only_recipients || !argument.starts_with('-') || argument == "-" {
                parsed.recipients.extend(recipients(argument, origin)?);
            } else if argument == "--" {
                only_recipients = true;
            } else {
                let mut next = || rest.next().map(|value| value.as_ref().to_owned());
                parsed.options(&argument[1..], &mut next, origin)?;
            }
        }
        if parsed.mode == Mode::Deliver && parsed.recipients.is_empty() && !parsed.recipients_from_header {
            return Err(SendmailError::NoRecipients);
        }
        Ok(parsed)
    }

    /// Reads options that hang together after one hyphen.
    fn options(
        &mut self,
        mut letters: &str,
        next: &mut dyn FnMut() -> Option<String>,
        origin: &str,
    ) -> Result<(), SendmailError> {
        while let Some(letter) = letters.chars().next() {
            letters = &letters[letter.len_utf8()..];
            match letter {
                't' => self.recipients_from_header = true,
                'i' => self.ignore_dots = true,
                'v' => self.verbose = true,
                // To metoo, to be a daemon's child, to say nothing: today's behaviour, or none.
                'm' | 'n' | 'U' | 'G' | 's' => {}
                'q' => {
                    // What may follow is an interval or a part of the queue.
                    self.mode = Mode::RunQueue;
                    return Ok(());
                }
                'b' => {
                    self.mode = mode(letters)?;
                    return Ok(());
                }
                'o' => {
                    // An old option: one letter and its value, together. -oem and -odi say how errors and queueing are
                    // to be done; both are as a caller without them would expect.
                    let value = value(letter, letters, next)?;
                    self.ignore_dots |= value == "i" || value == "iTrue" || value == "itrue";
                    return Ok(());
                }
                'O' => {
                    let value = value(letter, letters, next)?;
                    self.ignore_dots |=
                        value.eq_ignore_ascii_case("IgnoreDots") || value.eq_ignore_ascii_case("IgnoreDots=true");
                    return Ok(());
                }
                'f' | 'r' => {
                    let text = value(letter, letters, next)?;
                    self.sender = Some(sender(&text, origin)?);
                    return Ok(());
                }
                'F' => {
                    self.full_name = Some(value(letter, letters, next)?);
                    return Ok(());
                }
                // When to report, what of the mail, an id, hops, body type, syslog label, log file, configuration,
                // a protocol name, a debug level.
                'N' | 'R' | 'V' | 'h' | 'B' | 'L' | 'X' | 'C' | 'p' | 'A' | 'a' | 'D' | 'M' => {
                    value(letter, letters, next)?;
                    return Ok(());
                }
                // The debug level hangs on, or there is none.
                'd' => return Ok(()),
                letter => return Err(SendmailError::Unknown { letter }),
            }
        }
        Ok(())
    }

    /// What stands in a `From` that is put in where there is none.
    pub fn from_field(&self, user: &Address) -> String {
        let address = self.sender.as_ref().and_then(ReversePath::mailbox).unwrap_or(user);
        let name: String = self.full_name.iter().flat_map(|name| name.chars()).filter(|c| !c.is_control()).collect();
        if name.trim().is_empty() {
            return address.to_string();
        }
        let quoted: String =
            name.trim().chars().flat_map(|c| matches!(c, '"' | '\\').then_some('\\').into_iter().chain([c])).collect();
        format!("\"{quoted}\" <{address}>")
    }
}

/// The value of an option: what hangs on it, or the next argument.
fn value(letter: char, attached: &str, next: &mut dyn FnMut() -> Option<String>) -> Result<String, SendmailError> {
    if attached.is_empty() { next().ok_or(SendmailError::NoValue { letter }) } else { Ok(attached.to_owned()) }
}

fn mode(letters: &str) -> Result<Mode, SendmailError> {
    match letters {
        "m" => Ok(Mode::Deliver),
        "s" => Ok(Mode::Smtp),
        "p" => Ok(Mode::ShowQueue),
        other => Err(SendmailError::Mode { mode: other.to_owned() }),
    }
}

fn sender(text: &str, origin: &str) -> Result<ReversePath, SendmailError> {
    if text.is_empty() || text == "<>" {
        return Ok(ReversePath::Null);
    }
    let mut addresses = recipients(text, origin)?;
    match addresses.pop() {
        Some(address) if addresses.is_empty() => Ok(ReversePath::Mailbox(address)),
        _ => Err(SendmailError::Sender { text: text.to_owned() }),
    }
}

/// One argument may name several, as `mail -s x a@a.test,b@b.test` passes them on.
fn recipients(text: &str, origin: &str) -> Result<Vec<Address>, SendmailError> {
    parse_address_list(text, origin).map_err(|error| match error {
        AddressListError::Address { text, source } => SendmailError::Address { text, source },
        AddressListError::Open { .. } => SendmailError::Sender { text: text.to_owned() },
    })
}

/// Takes the message from what a program wrote, up to a line with a dot alone unless that is to be ignored.
///
/// Returns how much of the bytes belongs to the message, if it ends within them.
#[derive(Debug)]
pub struct DotEnd {
    /// How much of `LF . [CR] LF` was seen at the end of what has passed; a message begins after a line end.
    seen: u8,
}

impl Default for DotEnd {
    fn default() -> Self {
        Self { seen: 1 }
    }
}

impl DotEnd {
    /// Looks through some bytes; `Some` is the position after the line that ends the message.
    pub fn push(&mut self, bytes: &[u8]) -> Option<usize> {
        for (index, byte) in bytes.iter().enumerate() {
            self.seen = match (self.seen, byte) {
                (2 | 3, b'\n') => return Some(index + 1),
                (_, b'\n') => 1,
                (1, b'.') => 2,
                (2, b'\r') => 3,
                _ => 0,
            };
        }
        None
    }
}

/// Why the arguments make no sense. The exit status for these is 64 (`EX_USAGE`).
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum SendmailError {
    /// An option that is not known.
    #[error("unknown option -{letter}")]
    Unknown {
        /// Its letter.
        letter: char,
    },
    /// An option stands last that needs a value.
    #[error("option -{letter} needs a value")]
    NoValue {
        /// Its letter.
        letter: char,
    },
    /// A mode that is not known.
    #[error("unknown mode -b{mode}")]
    Mode {
        /// Its letters.
        mode: String,
    },
    /// Nobody is named.
    #[error("no recipients are named, and -t is not given")]
    NoRecipients,
    /// Not one address.
    #[error("{text:?} is not one address")]
    Sender {
        /// As it was written.
        text: String,
    },
    /// No address.
    #[error("{text:?} is no address")]
    Address {
        /// As it was written.
        text: String,
        /// Why not.
        #[source]
        source: AddressError,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(line: &str) -> Result<Arguments, SendmailError> {
        Arguments::parse(line.split(' ').filter(|word| !word.is_empty()), "laptop.test")
    }

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    fn mailbox(text: &str) -> Option<ReversePath> {
        Some(ReversePath::Mailbox(address(text)))
    }

    #[test]
    fn what_real_programs_write_is_understood() {
        let delivers = |recipients: &[&str]| Arguments {
            recipients: recipients.iter().map(|text| address(text)).collect(),
            ..Arguments::default()
        };
        let header = Arguments { recipients_from_header: true, ..Arguments::default() };
        let dots = |arguments: Arguments| Arguments { ignore_dots: true, ..arguments };
        for (who, line, expected) in [
            (
                "Debian's cron",
                "-i -FCronDaemon -B8BITMIME -oem root",
                Arguments { full_name: Some("CronDaemon".to_owned()), ..dots(delivers(&["root@laptop.test"])) },
            ),
            (
                "cronie",
                "-FCronDaemon -i -odi -oem -oi -t -f root",
                Arguments {
                    full_name: Some("CronDaemon".to_owned()),
                    sender: mailbox("root@laptop.test"),
                    ..dots(header.clone())
                },
            ),
            (
                "git send-email",
                "-f ann@a.test -i bob@b.test carl@c.test",
                Arguments { sender: mailbox("ann@a.test"), ..dots(delivers(&["bob@b.test", "carl@c.test"])) },
            ),
            (
                "mutt",
                "-oem -oi -f ann@a.test -- bob@b.test",
                Arguments { sender: mailbox("ann@a.test"), ..dots(delivers(&["bob@b.test"])) },
            ),
            (
                "mutt with DSN",
                "-oem -oi -N failure,delay -R hdrs -B 8BITMIME -- bob@b.test",
                dots(delivers(&["bob@b.test"])),
            ),
            (
                "s-nail",
                "-i -r ann@a.test -- bob@b.test",
                Arguments { sender: mailbox("ann@a.test"), ..dots(delivers(&["bob@b.test"])) },
            ),
            ("bsd-mailx", "-i bob@b.test,carl@c.test", dots(delivers(&["bob@b.test", "carl@c.test"]))),
            ("PHP", "-t -i", dots(header.clone())),
            (
                "PHP with a sender",
                "-t -i -fann@a.test",
                Arguments { sender: mailbox("ann@a.test"), ..dots(header.clone()) },
            ),
            ("letters together", "-tiv", Arguments { verbose: true, ..dots(header.clone()) }),
            (
                "letters and a value together",
                "-tifann@a.test",
                Arguments { sender: mailbox("ann@a.test"), ..dots(header.clone()) },
            ),
            (
                "a bounce",
                "-f <> bob@b.test",
                Arguments { sender: Some(ReversePath::Null), ..delivers(&["bob@b.test"]) },
            ),
            ("long options", "-O IgnoreDots=true -O DeliveryMode=b -C /etc/x -t", dots(header.clone())),
            ("SMTP", "-bs", Arguments { mode: Mode::Smtp, ..Arguments::default() }),
            ("SMTP, unrestricted", "-U -bs", Arguments { mode: Mode::Smtp, ..Arguments::default() }),
            ("mailq", "-bp", Arguments { mode: Mode::ShowQueue, ..Arguments::default() }),
            ("flushing", "-q30m", Arguments { mode: Mode::RunQueue, ..Arguments::default() }),
            ("a hyphen in a name", "-- -odd@a.test", delivers(&["-odd@a.test"])),
            ("options after names", "bob@b.test -oi", dots(delivers(&["bob@b.test"]))),
        ] {
            assert_eq!(parse(line), Ok(expected), "{who}");
        }
    }

    #[test]
    fn what_has_no_meaning_here_is_an_error() {
        for (line, error) in [
            ("", SendmailError::NoRecipients),
            ("-i", SendmailError::NoRecipients),
            ("-bi", SendmailError::Mode { mode: "i".to_owned() }),
            ("-bd", SendmailError::Mode { mode: "d".to_owned() }),
            ("-Z a@a.test", SendmailError::Unknown { letter: 'Z' }),
            ("-ti -f", SendmailError::NoValue { letter: 'f' }),
            ("-t -f a@a.test,b@b.test", SendmailError::Sender { text: "a@a.test,b@b.test".to_owned() }),
            ("a@", SendmailError::Address { text: "a@".to_owned(), source: AddressError::Domain }),
        ] {
            assert_eq!(parse(line), Err(error), "{line}");
        }
    }

    #[test]
    fn a_from_field_cannot_break_out_of_its_line() {
        let from = |full_name: &str| {
            Arguments { full_name: Some(full_name.to_owned()), ..Arguments::default() }
                .from_field(&address("ann@a.test"))
        };
        assert_eq!(from(" Ann \"A\" \r\nX: y"), "\"Ann \\\"A\\\" X: y\" <ann@a.test>");
        assert_eq!(from(""), "ann@a.test");
    }

    #[test]
    fn a_dot_on_a_line_of_its_own_ends_what_a_program_types() {
        let end = |pieces: &[&str]| {
            let mut dots = DotEnd::default();
            pieces.iter().find_map(|piece| dots.push(piece.as_bytes()))
        };
        assert_eq!(end(&["hi\n.\nmore"]), Some(5));
        assert_eq!(end(&["hi\r\n", ".", "\r", "\n"]), Some(1));
        assert_eq!(end(&[".\n"]), Some(2));
        assert_eq!(end(&["hi\n..\n. \n.x\n.\rx\n"]), None);
    }

    proptest! {
        #[test]
        fn no_arguments_panic(words in proptest::collection::vec("-?[a-zA-Z]{0,4}[@é.<>, ]?\\PC{0,6}", 0..6)) {
            let _ = Arguments::parse(words, "laptop.test");
        }
    }
}
