//! Device to device: pairing two computers, and the authenticated connection between them.
