//! One device's copy of a vault: the local folder, and the index beside it.

pub mod dir_listing;
pub mod fs;
pub mod index;
pub mod lock;
pub mod real_fs;
