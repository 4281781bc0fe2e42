//! What is wrong with objects that were read: told to the user when it is found, and for as long as it holds.

use std::collections::BTreeSet;

use packetboat_core::checkpoint::CheckpointRef;
use packetboat_core::ids::{DeviceId, Dot};
use packetboat_core::knowledge::Knowledge;
use packetboat_core::lane::Refusal;
use packetboat_core::members::Members;
use packetboat_core::store::ObjectName;
use packetboat_replica::index::Index;

use packetboat_core::packet::LANES_FOLDER;

use super::{Learner, counter_of, packet_name};
use crate::checkpoints;
use crate::error::SyncError;
use crate::ports::Note;
use crate::refusals;

impl Learner<'_> {
    pub(super) fn unusable(&mut self, kind: &str, name: &ObjectName, reason: String) -> Result<(), SyncError> {
        self.problem(kind, name.as_str(), &reason)
    }

    fn problem(&mut self, kind: &str, subject: &str, text: &str) -> Result<(), SyncError> {
        self.index.set_problem(kind, subject.as_bytes(), text)?;
        self.observer.note(Note::Warning { text: told_of(subject, text) });
        Ok(())
    }

    /// Tells of refused packets, where anybody can do something about it: not where what they say came another way.
    pub(super) fn tell_of_refusals(&mut self) -> Result<(), SyncError> {
        let told_before = refusals::own(self.index)?;
        let mut revoked = BTreeSet::new();
        for (dot, refusal) in std::mem::take(&mut self.refusals) {
            let name = self.members.name(&dot.device).unwrap_or("a device");
            let text = match refusal {
                // There is nothing to be mended, so it is told once: for good it is not to be told from damage.
                Refusal::Revoked { .. } => {
                    if !told_before.contains_key(&dot.device) && revoked.insert(dot.device) {
                        let text = format!(
                            "\"{name}\" was revoked, and what it published at the intermediary since, or what nobody had \
                             seen yet, does not count: take away its access to the storage where it still has it"
                        );
                        self.observer.note(Note::Warning { text });
                    }
                    continue;
                }
                _ if has_gone_on(&self.members, &dot.device) || self.is_needless(&dot)? => continue,
                Refusal::Retired { .. } => format!(
                    "\"{name}\" published it where nobody saw it before the device was retired: it counts once \"{name}\" \
                     synchronises again"
                ),
                refusal => refusal.to_string(),
            };
            self.problem(REFUSED, packet_name(&dot).as_str(), &text)?;
        }
        Ok(())
    }

    /// Tells of packets that could not be read, but for those that were let go: whoever needs one begins from a checkpoint.
    pub(super) fn tell_of_unread(&mut self) -> Result<(), SyncError> {
        let mut unread = Vec::new();
        for (dot, reason) in std::mem::take(&mut self.unread) {
            if !self.is_needless(&dot)? {
                unread.push((dot, reason));
            }
        }
        if unread.is_empty() {
            return Ok(());
        }
        for (device, number) in checkpoints::seen(self.index)? {
            let root = checkpoints::sound_root(self.store, self.keys, &CheckpointRef { device, number })?;
            unread.retain(|(dot, _)| !root.as_ref().is_some_and(|root| root.garbage.ended().contains(dot)));
        }
        unread.into_iter().try_for_each(|(dot, reason)| self.unusable(PACKET, &packet_name(&dot), reason))
    }

    fn is_needless(&self, dot: &Dot) -> Result<bool, SyncError> {
        is_needless(self.index, &self.members, self.garbage.ended(), dot)
    }

    /// Forgets what was wrong with packets that matter no more: what they say came another way, as in a checkpoint or by
    /// the device that goes on from their author, or nobody needs it since history was let go.
    pub(super) fn forget_problems_of_packets(&mut self) -> Result<(), SyncError> {
        if !self.index.has_problem(PACKET)? && !self.index.has_problem(REFUSED)? {
            return Ok(());
        }
        for problem in self.index.problems()? {
            let is_refused = problem.kind == REFUSED;
            if !is_refused && problem.kind != PACKET {
                continue;
            }
            let Some(dot) = dot_of(&problem.subject) else { continue };
            if is_refused && has_gone_on(&self.members, &dot.device) || self.is_needless(&dot)? {
                self.index.clear_problem(&problem.kind, &problem.subject)?;
            }
        }
        Ok(())
    }
}

/// Whether nobody needs a packet that is not folded: what it says came in a checkpoint, it was let go, or it is refused here
/// and its device went on under another key.
pub(crate) fn is_needless(index: &Index, members: &Members, ended: &Knowledge, dot: &Dot) -> Result<bool, SyncError> {
    if index.knowledge().contains(dot) || ended.contains(dot) {
        return Ok(true);
    }
    let is_refused = |lanes: &refusals::Lanes| lanes.get(&dot.device).is_some_and(|from| *from <= dot.counter);
    Ok(has_gone_on(members, &dot.device)
        && (is_refused(&refusals::own(index)?) || is_refused(&refusals::given_up(index)?)))
}

/// Whether another device says that it goes on from this one, and so publishes what that had.
pub(crate) fn has_gone_on(members: &Members, device: &DeviceId) -> bool {
    members.iter().any(|member| member.continues == Some(*device))
}

/// The packet that a problem is about.
fn dot_of(subject: &[u8]) -> Option<Dot> {
    let name = std::str::from_utf8(subject).ok()?;
    let (device, _) = name.strip_prefix(LANES_FOLDER)?.strip_prefix('/')?.split_once('/')?;
    Some(Dot { device: DeviceId::from_hex(device)?, counter: counter_of(name)? })
}

/// What is wrong with an object, for people: its name first, and once.
pub(crate) fn told_of(name: &str, reason: &str) -> String {
    if reason.starts_with(name) { reason.to_owned() } else { format!("{name}: {reason}") }
}

/// The kind of problem under which the index keeps packets that cannot be read.
pub(super) const PACKET: &str = "packet";
/// The kind of problem under which the index keeps packets that were refused.
pub(super) const REFUSED: &str = "refused packet";
