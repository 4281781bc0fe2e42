//! Saying things again until they are answered.
//!
//! A machine derives from its state what is *outstanding*: what the other device must hear and has not acknowledged.
//! What is new among it is said at once, all of it when the link comes up, and again after waits that double.
//! None of this is saved: a machine that was restarted says what is outstanding when the link comes up.

use super::message::Body;
use super::settings::Settings;
use super::time::{Moment, Now};

/// One machine's view of the link.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Line {
    up: bool,
    came_up: bool,
    again: Option<(Moment, u32)>,
}

impl Line {
    pub(super) fn new(up: bool) -> Self {
        Self { up, came_up: up, again: None }
    }

    pub(super) fn is_up(&self) -> bool {
        self.up
    }

    pub(super) fn set(&mut self, up: bool) {
        self.came_up = up;
        self.up = up;
    }

    /// When something outstanding is to be said again.
    pub(super) fn wake(&self) -> Option<Moment> {
        self.again.map(|(moment, _)| moment)
    }

    /// What is to be said now, of what was outstanding before an event and is after it.
    pub(super) fn speak(&mut self, before: &[Body], after: Vec<Body>, now: &Now, settings: &Settings) -> Vec<Body> {
        let came_up = std::mem::take(&mut self.came_up);
        if !self.up || after.is_empty() {
            self.again = None;
            return Vec::new();
        }
        let due = self.again.filter(|(moment, _)| now.reached(*moment));
        let (said, times) = match due {
            _ if came_up => (after, 0),
            // The count stops where the wait no longer grows.
            Some((_, times)) if settings.resend(times) < settings.resend_max => (after, times + 1),
            Some((_, times)) => (after, times),
            None => {
                let new: Vec<Body> = after.into_iter().filter(|body| !before.contains(body)).collect();
                if new.is_empty() && self.again.is_some() {
                    return new;
                }
                (new, 0)
            }
        };
        self.again = Some((now.after(settings.resend(times)), times));
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::BootId;

    fn now(since_boot_ms: u64) -> Now {
        Now { boot: BootId([0; 16]), since_boot_ms, wall_ms: 0 }
    }

    #[test]
    fn what_is_outstanding_is_said_at_once_and_then_at_growing_intervals() {
        let settings = Settings::default();
        let mut line = Line::new(true);
        let ask = vec![Body::Ask { turn: 1 }];
        assert_eq!(line.speak(&[], ask.clone(), &now(0), &settings), ask);
        let mut said = Vec::new();
        for second in 1..1300 {
            if !line.speak(&ask, ask.clone(), &now(second * 1000), &settings).is_empty() {
                said.push(second);
            }
        }
        assert_eq!(said, [2, 6, 14, 30, 62, 126, 254, 510, 810, 1110]);
    }

    #[test]
    fn nothing_is_said_while_the_link_is_down_and_all_when_it_comes_up() {
        let settings = Settings::default();
        let mut line = Line::new(false);
        let outstanding = vec![Body::Ack, Body::Ask { turn: 1 }];
        assert!(line.speak(&[], outstanding.clone(), &now(0), &settings).is_empty());
        assert_eq!(line.wake(), None);
        line.set(true);
        assert_eq!(line.speak(&outstanding, outstanding.clone(), &now(1), &settings), outstanding);
        assert!(line.speak(&outstanding, outstanding.clone(), &now(2), &settings).is_empty());
        assert!(line.speak(&outstanding, Vec::new(), &now(3), &settings).is_empty());
        assert_eq!(line.wake(), None);
    }
}
