//! What a device reads back from its own disk, which may have gone bad.

use packetboat_replica::index::fuzzing::Rows;

use crate::Outcome;

/// The rows of an index; the first byte says of which table.
pub fn index_rows(input: &[u8]) -> Outcome {
    thread_local! {
        static ROWS: Rows = Rows::new().expect("an index in memory needs nothing");
    }
    ROWS.with(|rows| rows.read(input)).into()
}

/// Inputs that are understood.
pub mod seeds {
    use super::Rows;

    /// A row of each table, bare and with all that it can hold.
    pub fn index_rows() -> Vec<Vec<u8>> {
        Rows::new().and_then(|rows| rows.samples()).expect("an index in memory needs nothing")
    }
}
