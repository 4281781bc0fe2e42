//! Vaults through the companion: the link as one more adapter, and what the companion keeps until it can put it up.
//!
//! A host that cannot reach a vault's intermediary asks its companion, which may: [`RelayStore`](store::RelayStore) is a
//! [`Store`](packetboat_core::store::Store) whose requests ([`message`]) travel over the link ([`answer`]) or, from a
//! command, by the control socket to the daemon and then over the link ([`socket`]).
//! On the companion [`Carried`](carried::Carried) answers them: at the intermediary where that can be reached, and else
//! from a [`Shelf`](shelf::Shelf) of copies, which also takes what is to be put up later ([`forward`]).
//!
//! Packets need no turn: putting one twice is putting it once. So nothing here is negotiated, and either device may
//! put whatever it holds, as long as nothing comes to the intermediary before what it rests on.
//!
//! The companion needs no key of any vault. It checks what can be checked without one ([`check`]) and can read nothing.
//! It fetches what the host may lack ([`pull`]), and where it is a member it keeps its own replica in step too
//! ([`members`]). The host keeps what waits there until it is known to be where it belongs ([`deposits`]).

pub mod answer;
pub mod carried;
pub mod check;
pub mod deposits;
pub mod forward;
pub mod members;
pub mod message;
pub mod places;
pub mod pull;
pub mod seen;
pub mod shelf;
pub mod socket;
pub mod store;
#[cfg(test)]
mod tests;
pub mod work;
