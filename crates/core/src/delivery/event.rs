//! What a driver tells a machine, and what a machine asks of its driver.
//!
//! A driver hands events to [`Host::handle`](super::host::Host::handle) or
//! [`Companion::handle`](super::companion::Companion::handle) and carries out the effects *in their order*.
//! Where the state changed, the first effect is [`Effect::Save`]: nothing that follows may be done before the state is
//! on stable storage. A crash between two effects is harmless, because [`Event::Restarted`] asks again for whatever
//! was owed; so an effect may be asked for twice, and its driver sees to it that it is done once.

use super::item::Recipients;
use super::message::Message;
use super::reply::{Replies, Reply};
use super::status::Status;
use super::time::Moment;

/// Counts the tries of one mail on one device, so that word of an earlier try is not taken for a later one's.
pub type Attempt = u32;

/// Something that happened. One that has no meaning in the present state, or on this side, does nothing.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// The other device said something about this mail.
    Message(Message),
    /// A try ended, and its final dot was *not* written, or was not the final one's: nothing was accepted.
    TryFailed {
        /// Which try.
        attempt: Attempt,
        /// What was said of single recipients.
        replies: Replies,
        /// What applies to all others. Where no server spoke, or it spoke of the account and not of the mail, such as
        /// a failed login, the driver makes it a 4xx.
        failure: Reply,
    },
    /// All but the final dot is sent. The dot is written only on [`Effect::WriteDot`].
    DotAsked {
        /// Which try.
        attempt: Attempt,
        /// What was said of recipients that the server did not take; the dot is for all the others.
        refused: Replies,
    },
    /// The server answered the dot.
    Answered {
        /// Which try.
        attempt: Attempt,
        /// What it said, for each recipient that the dot was for; one that is left out has no answer.
        replies: Replies,
    },
    /// The dot, or a part of it, may have been written, and no answer came in [`Settings::answer`](super::Settings).
    AnswerLost {
        /// Which try.
        attempt: Attempt,
    },
    /// The process began anew with the saved state; first of all events. A reboot shows in the passed time.
    Restarted,
    /// A moment named by `wake` has come. It may come early, late or in vain.
    Timer,
    /// The link to the other device stands; a message may get through.
    LinkUp,
    /// The link is gone.
    LinkDown,
    /// This device's own path may be usable again: a try is worth while before its time.
    PathUp,
    /// This device's own path is known to be unusable.
    PathDown,
    /// What came of [`Effect::LookUpSent`].
    SentLookup(SentLookup),
    /// A bounce is on stable storage in the inbox.
    BounceFiled {
        /// Of whom it tells.
        recipients: Recipients,
    },
    /// A copy is filed in Sent.
    SentFiled,
    /// The user wants it not to be tried for now.
    Hold,
    /// The user wants it to be tried again.
    Release,
    /// The user wants it tried at once, whatever it waits for. On a host whose turn was handed over without end and
    /// not returned, this takes it back unasked, which is a documented window.
    RetryNow,
    /// The user wants it not to be sent at all.
    Cancel,
    /// The host is about to sleep: the turn is to go to the companion until it is returned.
    HandOver,
    /// The host is awake again and wants the turn back.
    TakeBack,
    /// The user says on the companion that the host is lost: a documented window.
    TakeOver,
    /// The two devices are no longer a pair.
    Unpaired,
}

/// What looking for a mail's Message-ID among those sent came to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SentLookup {
    /// It is there: it was accepted.
    Found,
    /// It is not there, and it would be had it been accepted.
    Absent,
    /// The account does not file what is sent, so absence says nothing.
    NotEvidence,
    /// The account could not be reached.
    Unreachable,
}

/// Something that a driver is to do.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Effect {
    /// Put the state on stable storage; always first.
    Save,
    /// Send to the other device. It may be lost; the machine sends again until it is answered.
    Send(Message),
    /// Begin a try; it ends with an event of the same number, or by [`Effect::AbortTry`].
    Try {
        /// Which try.
        attempt: Attempt,
        /// For whom.
        recipients: Recipients,
    },
    /// Write the final dot, and wait for the answer as long as [`Settings::answer`](super::Settings) says.
    WriteDot {
        /// Which try.
        attempt: Attempt,
        /// The clock is read once more before the first byte: from this moment on the dot must not be written, and the
        /// try has failed ([`Event::TryFailed`]).
        before: Option<Moment>,
    },
    /// Break the connection of a try whose dot was not written. No event of it is expected.
    AbortTry {
        /// Which try.
        attempt: Attempt,
    },
    /// Look for the Message-ID among the mails sent, and say what came of it.
    LookUpSent,
    /// Tell the sender about these, and say when that is on stable storage. A driver that names the bounce after mail
    /// and recipients files it once though it be asked for twice.
    Bounce {
        /// Who was not reached, and why.
        recipients: Vec<(u32, Status)>,
    },
    /// Tell the sender that the mail is late and is being tried.
    WarnDelayed {
        /// Who is still waited for.
        recipients: Recipients,
    },
    /// File a copy in Sent, and say when that is done.
    FileInSent,
    /// The companion has the turn for good: the host may sleep.
    HandedOver,
    /// Delete the body; no state will ask for it again.
    DropBody,
    /// Delete the state; the number is finished and goes to the ledger in the same transaction.
    Forget,
}
