//! Doors for the fuzz targets: what two devices say before there is a session, and before a body.
//!
//! Compiled with the feature `fuzzing` alone, which nothing that is shipped asks for.

use crate::greeting::Greeting;
use crate::{bulk, pairing};

/// Reads a greeting, and says whether it was understood.
pub fn greeting(frame: &[u8]) -> bool {
    let read = Greeting::decode(frame);
    if let Ok(greeting) = &read {
        assert_eq!(greeting.encode(), frame, "a greeting has one encoding");
    }
    read.is_ok()
}

/// Reads a message of pairing, and says whether it was understood.
pub fn pairing_message(frame: &[u8]) -> bool {
    pairing::fuzz_messages(frame)
}

/// Reads what comes before a body, and says whether it was understood.
pub fn bulk_header(frame: &[u8]) -> bool {
    bulk::fuzz_headers(frame)
}
