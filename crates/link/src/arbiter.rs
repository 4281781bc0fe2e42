//! Which of several connections between two devices is the one: decided by one of them, from what both said.
//!
//! Both devices dial, since either may know where the other is, so two connections can come to stand at once; and one
//! that stands may be dead without the arbiter knowing, because the peer restarted or lost its network.
//! To let both sides decide by a rule on keys alone would keep a dead connection until it times out.
//! Here the device with the smaller key decides, and the other follows; there is nothing to disagree about.
//!
//! Both dial only while they have no connection. So a peer that dials although it had seen the present connection
//! accepted has lost it, and one that had not seen it merely crossed it on the way.

use packetboat_core::keys::PublicKey;

use crate::greeting::{Greeting, Incarnation};

/// Whether this device decides.
pub(crate) fn is_arbiter(own: &PublicKey, peer: &PublicKey) -> bool {
    own < peer
}

/// The connection that stands, as the arbiter knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) number: u64,
    pub(crate) peer: Incarnation,
}

/// Whether a new connection takes the place of the one that stands, if any does.
pub(crate) fn takes_over(own: Incarnation, standing: Option<Standing>, dialled: bool, peer: &Greeting) -> bool {
    let Some(standing) = standing else { return true };
    if standing.peer != peer.incarnation {
        // The peer restarted, and what it had before is gone. A connection from before the restart cannot still be
        // greeting: its greeting came before that of the one that stands, and its end died with the old process.
        return true;
    }
    // Dialled here while there was none; by now there is one.
    if dialled {
        return false;
    }
    peer.accepted.0 == own && peer.accepted.1 >= standing.number
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Incarnation = Incarnation([1; 16]);
    const PEER: Incarnation = Incarnation([2; 16]);
    const STANDING: Option<Standing> = Some(Standing { number: 3, peer: PEER });

    fn check(described: &str, standing: Option<Standing>, dialled: bool, peer: Greeting, takes: bool) {
        assert_eq!(takes_over(OWN, standing, dialled, &peer), takes, "{described}");
    }

    #[test]
    fn a_connection_gives_way_only_to_one_dialled_in_knowledge_of_it() {
        let greets = |incarnation, accepted| Greeting { incarnation, accepted };
        check("the first is kept", None, false, greets(PEER, Default::default()), true);
        check("the peer crossed it on the way", STANDING, false, greets(PEER, (OWN, 2)), false);
        check("our own dial came too late", STANDING, true, greets(PEER, (OWN, 2)), false);
        check("our own dial, after the peer saw it", STANDING, true, greets(PEER, (OWN, 3)), false);
        check("the peer saw it and lost it", STANDING, false, greets(PEER, (OWN, 3)), true);
        check("the peer restarted", STANDING, false, greets(Incarnation([9; 16]), Default::default()), true);
        check("our own dial reached a restarted peer", STANDING, true, greets(Incarnation([9; 16]), (OWN, 0)), true);
        let earlier = (Incarnation([8; 16]), 77);
        check("the peer speaks of our earlier run", STANDING, false, greets(PEER, earlier), false);
    }

    #[test]
    fn exactly_one_of_two_devices_decides() {
        let (a, b) = (PublicKey([1; 32]), PublicKey([2; 32]));
        assert!(is_arbiter(&a, &b) && !is_arbiter(&b, &a));
    }
}
