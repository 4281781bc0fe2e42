//! One file per figure: what is measured, beside what, and which target of docs/benchmarks.md it speaks to.

pub(crate) mod behind;
pub(crate) mod big_file;
pub(crate) mod edit;
pub(crate) mod first;
pub(crate) mod join;
pub(crate) mod lost_index;
pub(crate) mod million;
pub(crate) mod noop;
pub(crate) mod profile;
pub(crate) mod prune;
pub(crate) mod rename_dir;
pub(crate) mod small_edit;
