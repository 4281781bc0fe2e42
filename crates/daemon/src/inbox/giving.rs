//! Answers what the other device asks about mail in: what is held here, which messages that is, and their bytes.
//!
//! Only what the record says was delivered is given, and only while its file is the message that was delivered. What its
//! user moved, changed or deleted is missing, and the other device goes without it; its own path may still show it.

use std::sync::Arc;

use packetboat_link::{BulkError, GetRequest, Part, Refusal};
use packetboat_mail::fetched::MessageDigest;
use packetboat_mail::maildir::FolderName;
use tokio::task::spawn_blocking;

use super::office::{Office, OfficeError};
use super::stored::StoredMessage;
use super::words::{Wanted, encode_descriptions};
use crate::files::with_causes;
use crate::inbox_store::listing::find;

/// Answers one request.
pub(crate) async fn give(office: &Arc<Office>, request: GetRequest) -> Result<(), BulkError> {
    if request.part != Part::WHOLE {
        return request.refuse(Refusal::Unwanted("this is given whole".to_owned())).await;
    }
    let Some(wanted) = Wanted::decode(&request.name) else {
        return request.refuse(Refusal::Unwanted("it means nothing here".to_owned())).await;
    };
    let bytes = match wanted {
        Wanted::Message { folder, digest } => return give_message(office, request, folder, digest).await,
        Wanted::Uids => office.with_store(|store| store.held_uids()).await.map(|uids| {
            // Longer than this is no mailbox that a person has.
            uids.encode(CATALOGUE_BYTES).unwrap_or_default()
        }),
        Wanted::OfUids(uids) => {
            let count: u64 = uids.mailboxes().map(|(_, set)| set.len()).sum();
            if count > UIDS_AT_ONCE {
                return request.refuse(Refusal::Unwanted("that is too much at once".to_owned())).await;
            }
            office.with_store(move |store| store.of_uids(&uids)).await.map(|held| encode_descriptions(&held))
        }
        Wanted::OfItems(digests) => {
            office.with_store(move |store| store.of_items(&digests)).await.map(|held| encode_descriptions(&held))
        }
    };
    match bytes {
        Ok(bytes) => {
            let mut outgoing = request.accept(bytes.len() as u64).await?;
            for piece in bytes.chunks(PIECE) {
                outgoing.write(piece.to_vec()).await?;
            }
            outgoing.finish().await
        }
        Err(error) => request.refuse(Refusal::Failed(with_causes(&error))).await,
    }
}

async fn give_message(
    office: &Arc<Office>,
    request: GetRequest,
    folder: FolderName,
    digest: MessageDigest,
) -> Result<(), BulkError> {
    let name = office.with_store({
        let folder = folder.clone();
        move |store| store.file_name(&folder, &digest)
    });
    let name = match name.await {
        Ok(Some(name)) => name,
        Ok(None) => return request.refuse(Refusal::Missing).await,
        Err(error) => return request.refuse(Refusal::Failed(with_causes(&error))).await,
    };
    let maildir = office.maildir().to_owned();
    let opened = spawn_blocking(move || match find(&maildir, &folder, &name) {
        Some(file) => StoredMessage::open(&file, &digest),
        None => Ok(None),
    });
    let mut message = match opened.await {
        Ok(Ok(Some(message))) => message,
        Ok(Ok(None)) => return request.refuse(Refusal::Missing).await,
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            return request.refuse(Refusal::Missing).await;
        }
        Ok(Err(error)) => return request.refuse(Refusal::Failed(error.to_string())).await,
        Err(_) => return request.refuse(Refusal::Failed(OfficeError::Panicked.to_string())).await,
    };
    let mut outgoing = request.accept(message.size + 8).await?;
    outgoing.write(message.received.to_be_bytes().to_vec()).await?;
    loop {
        let Ok((back, piece)) = spawn_blocking(move || {
            let piece = message.piece();
            (message, piece)
        })
        .await
        else {
            return Ok(());
        };
        message = back;
        match piece {
            Ok(Some(piece)) => outgoing.write(piece).await?,
            Ok(None) => return outgoing.finish().await,
            // What is cut short is not taken for whole.
            Err(error) => {
                tracing::warn!(%error, "a message cannot be read for the other device");
                return Ok(());
            }
        }
    }
}

/// The longest catalogue: some millions of runs.
pub(super) const CATALOGUE_BYTES: usize = 32 << 20;

/// How many UIDs one request may ask about.
pub(super) const UIDS_AT_ONCE: u64 = 1000;

const PIECE: usize = 256 << 10;
