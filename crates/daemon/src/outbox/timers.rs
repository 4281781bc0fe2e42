//! When each mail wants to be woken: one number for each, in order.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use packetboat_core::ids::MailId;

/// The wake times of a desk, for itself and for whoever shows them.
#[derive(Clone, Debug, Default)]
pub struct Wakes(Arc<Mutex<Timers>>);

impl Wakes {
    /// When a mail is to be woken, in milliseconds since boot. Waits while the desk has a transaction under way.
    pub fn of(&self, mail: &MailId) -> Option<u64> {
        self.lock().of(mail)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Timers> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The wake times of all mails, in milliseconds since boot.
#[derive(Debug, Default)]
pub(super) struct Timers {
    of: HashMap<MailId, u64>,
    order: BTreeSet<(u64, MailId)>,
}

impl Timers {
    /// Sets or clears a mail's time.
    pub(super) fn set(&mut self, mail: &MailId, at: Option<u64>) {
        if let Some(before) = self.of.remove(mail) {
            self.order.remove(&(before, *mail));
        }
        if let Some(at) = at {
            self.of.insert(*mail, at);
            self.order.insert((at, *mail));
        }
    }

    /// Sets the same time for several mails.
    pub(super) fn set_all(&mut self, mails: &[MailId], at: u64) {
        for mail in mails {
            self.set(mail, Some(at));
        }
    }

    /// A mail's time.
    pub(super) fn of(&self, mail: &MailId) -> Option<u64> {
        self.of.get(mail).copied()
    }

    /// The earliest time.
    pub(super) fn next(&self) -> Option<u64> {
        self.order.first().map(|(at, _)| *at)
    }

    /// The mails whose time has come, the earliest first.
    pub(super) fn due(&self, now: u64, limit: usize) -> Vec<MailId> {
        self.order.iter().take_while(|(at, _)| *at <= now).take(limit).map(|(_, mail)| *mail).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mail_has_one_time_and_the_earliest_comes_first() {
        let (a, b) = (MailId([1; 16]), MailId([2; 16]));
        let mut timers = Timers::default();
        timers.set(&a, Some(50));
        timers.set(&b, Some(20));
        timers.set(&a, Some(10));
        assert_eq!(timers.next(), Some(10));
        assert_eq!(timers.due(20, 5), [a, b]);
        assert_eq!(timers.due(20, 1), [a]);
        assert!(timers.due(9, 5).is_empty());
        timers.set(&a, None);
        assert_eq!((timers.next(), timers.of(&a)), (Some(20), None));
    }
}
