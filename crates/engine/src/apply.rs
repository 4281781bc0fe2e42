//! Placeholder until the apply branch lands.
use packetboat_core::store::Store;
use packetboat_replica::fs::Fs;
use packetboat_replica::index::Index;

use crate::Keys;
use crate::error::SyncError;
use crate::ignore_rules::IgnoreRules;
use crate::ports::Observer;
use crate::replica::{PlannedStep, Received};

pub(crate) struct Apply<'a> {
    pub(crate) fs: &'a dyn Fs,
    pub(crate) index: &'a mut Index,
    pub(crate) store: &'a dyn Store,
    pub(crate) keys: &'a Keys,
    pub(crate) rules: &'a IgnoreRules,
    pub(crate) threads: usize,
    pub(crate) now_ns: i64,
}
pub(crate) fn apply(_: Apply<'_>, _: &mut dyn Observer) -> Result<Received, SyncError> {
    Ok(Received::default())
}
pub(crate) fn recover_staging(_: &dyn Fs, _: &mut Index, _: i64) -> Result<(), SyncError> {
    Ok(())
}
pub(crate) fn planned_steps(_: &Index, _: &IgnoreRules) -> Result<Vec<PlannedStep>, SyncError> {
    Ok(Vec::new())
}
