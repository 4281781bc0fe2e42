//! What kind of file system is simulated, and how it loses power.

/// What a power loss does to changes of names that were not synced.
///
/// In both models a file whose content was not synced may afterwards have its old content, none, a part, or all of it,
/// and its attributes may be old or new, independently of any name.
/// In both, syncing a file does not make its name durable, though most file systems would.
/// In both a rename may be undone but never loses both names, and an exchange happened or did not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CrashModel {
    /// A journal for the whole file system, as ext4, XFS and btrfs have: some prefix of all changes survives,
    /// and syncing one directory makes durable all that was changed before, anywhere.
    #[default]
    OrderedMetadata,
    /// Each directory's changes survive as a prefix of their own, and a file's end may be filled with zeroes.
    /// Syncing a directory makes durable only its own entries, and what those of another cannot be parted from.
    Anything,
}

/// What a simulated file system can and cannot do; by default all that Linux does.
#[derive(Clone, Debug)]
pub struct SimOptions {
    /// What a power loss does.
    pub crash_model: CrashModel,
    /// Bytes of content it holds; `None` for no limit.
    pub capacity: Option<u64>,
    /// Whether a freed inode number is given to the next new object, as ext4 does.
    pub reuse_inodes: bool,
    /// Whether names that differ only in case are one name. Cases are folded as Unicode has it.
    pub case_insensitive: bool,
    /// Bytes that no new name may contain (`EINVAL`).
    pub forbidden_bytes: Vec<u8>,
    /// Names that no new object may have (`EINVAL`).
    pub forbidden_names: Vec<Vec<u8>>,
    /// Greatest length of a name in bytes (`ENAMETOOLONG`).
    pub max_name: usize,
    /// Whether exchange is `Unsupported`.
    pub no_exchange: bool,
    /// Whether there is no birth time.
    pub no_btime: bool,
    /// Whether there are no extended attributes.
    pub no_xattrs: bool,
    /// Whether syncing everything at once is `Unsupported`.
    pub no_sync_all: bool,
    /// Times are rounded down to multiples of this many nanoseconds: 2,000,000,000 for FAT.
    pub time_granularity: i64,
}

impl Default for SimOptions {
    fn default() -> Self {
        Self {
            crash_model: CrashModel::default(),
            capacity: None,
            reuse_inodes: true,
            case_insensitive: false,
            forbidden_bytes: Vec::new(),
            forbidden_names: Vec::new(),
            max_name: 255,
            no_exchange: false,
            no_btime: false,
            no_xattrs: false,
            no_sync_all: false,
            time_granularity: 1,
        }
    }
}
