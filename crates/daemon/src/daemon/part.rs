//! How the daemon ends its pair: because a command asks it to, or because the other device says so.

use std::sync::{Arc, Mutex};

use packetboat_link::Session;
use tokio::sync::mpsc;

use crate::files::with_causes;
use crate::outbox::courier::Courier;
use crate::outbox::store::Reader;
use crate::pair::Pair;
use crate::parting::{Parted, Parting, Word};

/// The pair and the link to the other device, as far as there are any.
pub(super) type Between<'a> = (Option<&'a Pair>, Option<&'a Session>);

/// A command wants the pair to end, `alone` if the other device need not agree; why it does not is in words.
pub(super) async fn asked_to_part(
    between: Between<'_>,
    alone: bool,
    heard: &mut mpsc::Receiver<Word>,
    courier: &Courier,
    reader: &Arc<Mutex<Reader>>,
) -> Result<Parted, String> {
    match between {
        (None, _) => Err("this device is in no pair".to_owned()),
        (Some(pair), _) if alone => Ok(Parted { peer: pair.peer_name.clone(), agreed: false, unclear: 0 }),
        (Some(_), None) => Err("the other device is not reached".to_owned()),
        (Some(pair), Some(session)) => {
            let parting = Parting { pair, session, heard, courier, reader };
            parting.begin().await.map_err(|error| with_causes(&error))
        }
    }
}

/// The other device said something of ending the pair; how it ended, if it did.
pub(super) async fn heard_of_parting(
    between: Between<'_>,
    word: Word,
    heard: &mut mpsc::Receiver<Word>,
    courier: &Courier,
    reader: &Arc<Mutex<Reader>>,
) -> Option<Parted> {
    let (Some(pair), Some(session)) = between else { return None };
    let parting = Parting { pair, session, heard, courier, reader };
    parting.answer(word).await.unwrap_or_else(|error| {
        tracing::warn!(error = with_causes(&error), "the pair was not ended");
        None
    })
}
