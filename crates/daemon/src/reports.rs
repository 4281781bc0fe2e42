//! Reports to the sender of a mail: that it bounced, or that it is late; filed into the sender's own inbox.
//!
//! A report is named after the mail and the recipients that it tells of, so one that is asked for again after a crash is
//! found to be there already, as long as nobody has moved it out of its Maildir folder.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use packetboat_core::delivery::{Item, Status};
use packetboat_mail::address::{Address, ReversePath};
use packetboat_mail::bounce::{Reason, Report, ReportKind, Undelivered};
use packetboat_mail::fetched::MessageDigest;
use packetboat_mail::maildir::UniqueName;
use packetboat_mail::smtp::Reply as SmtpReply;
use sha2::{Digest, Sha256};

use crate::files;
use crate::inbox_store::InboxStore;
use crate::outbox::intake::Reception;

/// Files reports.
pub struct Reports {
    maildir: PathBuf,
    record: PathBuf,
    reception: Arc<Reception>,
}

/// What a report tells.
pub struct Telling<'a> {
    /// Of which mail.
    pub item: &'a Item,
    /// Of whom, and what became of them.
    pub recipients: &'a [(u32, Status)],
    /// When it was submitted, in milliseconds since 1970.
    pub submitted_ms: u64,
    /// Until when it is tried, in milliseconds since 1970, where it is only late.
    pub tried_until_ms: Option<u64>,
}

impl Reports {
    /// Files into a Maildir, which is made where it is missing, and tells the record of mail in.
    pub fn new(maildir: PathBuf, record: PathBuf, reception: Arc<Reception>) -> Self {
        Self { maildir, record, reception }
    }

    /// Files a report, durably and once; a mail with the null sender has nobody to tell. It blocks on the disk.
    pub fn file(&self, telling: &Telling<'_>, header: impl Read) -> io::Result<()> {
        let name = name(telling);
        for part in ["tmp", "new", "cur"] {
            files::make_directory(&self.maildir.join(part))?;
        }
        if self.is_there(&name)? {
            return Ok(());
        }
        let Some(message) = self.write(telling, header) else { return Ok(()) };
        let draft = self.maildir.join("tmp").join(&name);
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(&message)?;
        file.sync_all()?;
        fs::rename(&draft, self.maildir.join("new").join(&name))?;
        files::sync_directory(&self.maildir.join("new"))?;
        self.list(&name, &message);
        Ok(())
    }

    /// Has the report listed with what came. The report is there either way, so a record that fails loses none.
    fn list(&self, name: &str, message: &[u8]) {
        let Some(name) = UniqueName::parse(name) else { return };
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(self.reception.now_ms());
        let listed = InboxStore::open(&self.record)
            .and_then(|mut store| store.file_report(&name, &MessageDigest::of(message), message.len() as u64, at));
        if let Err(error) = listed {
            tracing::warn!(error = files::with_causes(&error), "a report is filed and cannot be listed");
        }
    }

    fn is_there(&self, name: &str) -> io::Result<bool> {
        if self.maildir.join("new").join(name).exists() {
            return Ok(true);
        }
        // A reader appends flags to the name.
        for entry in fs::read_dir(self.maildir.join("cur"))? {
            if entry?.file_name().as_encoded_bytes().starts_with(name.as_bytes()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn write(&self, telling: &Telling<'_>, header: impl Read) -> Option<Vec<u8>> {
        let Telling { item, recipients, submitted_ms, tried_until_ms } = telling;
        let sender = ReversePath::Mailbox(Address::parse(item.sender().as_str()).ok()?);
        let mut beginning = Vec::new();
        // A report without the header is better than none.
        let _partly = header.take(HEADER_BYTES).read_to_end(&mut beginning);
        let undelivered: Vec<Undelivered> = recipients
            .iter()
            .filter_map(|(place, status)| {
                let recipient = Address::parse(item.recipients().get(*place as usize)?.as_str()).ok()?;
                Some(Undelivered { recipient, reason: reason(status) })
            })
            .collect();
        let report = Report {
            kind: match tried_until_ms {
                Some(until) => ReportKind::Delayed { until: self.reception.moment(*until) },
                None => ReportKind::Failed,
            },
            host: self.reception.host(),
            sender: &sender,
            submitted: self.reception.moment(*submitted_ms),
            recipients: &undelivered,
            header: &beginning,
        };
        if undelivered.is_empty() { None } else { Some(report.write(&self.reception.stamp())?.message) }
    }
}

fn reason(status: &Status) -> Reason {
    let reply = match status {
        Status::Refused { reply, .. } | Status::Delivered { reply, .. } => Some(reply),
        Status::Waiting { last } | Status::Expired { last } => last.as_ref(),
        Status::Bounced { reply } => reply.as_ref(),
        Status::FoundInSent | Status::Cancelled { .. } => None,
    };
    match reply {
        Some(reply) => Reason::Refused {
            server: "the server of the account".to_owned(),
            reply: SmtpReply { code: reply.code(), enhanced: None, text: reply.to_string() },
        },
        None => Reason::Unreached { why: "no server could be reached on either path".to_owned() },
    }
}

fn name(telling: &Telling<'_>) -> String {
    let mut hash = Sha256::new();
    hash.update([u8::from(telling.tried_until_ms.is_some())]);
    for (recipient, _) in telling.recipients {
        hash.update(recipient.to_be_bytes());
    }
    let digest: [u8; 32] = hash.finalize().into();
    let digits = packetboat_core::hex::encode(&digest[..8]);
    let seconds = telling.submitted_ms / 1000;
    format!("{seconds}.report-{}-{digits}.packetboat", telling.item.id())
}

/// Whether a directory can be a Maildir; a file cannot.
pub fn check_maildir(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(io::Error::from(io::ErrorKind::NotADirectory)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

const HEADER_BYTES: u64 = 64 << 10;
