//! Where a message lies while it comes in: in memory while it is small, else in a temporary file.
//!
//! The file has no other life: it goes with the value, unless the queue moves it to a place of its own.
//! Making it durable is the queue's, which alone knows where it will stay.

use std::io;
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempPath};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

/// A message that comes in.
pub struct Spool {
    directory: PathBuf,
    memory: Vec<u8>,
    file: Option<(File, TempPath)>,
}

/// A message that has come in.
#[derive(Debug)]
pub enum Spooled {
    /// A small one.
    Memory(Vec<u8>),
    /// A larger one. Its path can be persisted, which moves the file out of the spool.
    File(TempPath),
}

impl Spool {
    /// The size up to which a message stays in memory.
    pub const IN_MEMORY: usize = 64 << 10;

    /// Begins a message; a file, if one is needed, will be made in `directory`.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), memory: Vec::new(), file: None }
    }

    /// The buffer to append to before [`Self::settle`].
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.memory
    }

    /// Writes what has gathered, if it is too much to be kept in memory.
    pub(super) async fn settle(&mut self) -> io::Result<()> {
        if self.memory.len() <= Self::IN_MEMORY {
            return Ok(());
        }
        if self.file.is_none() {
            // The file can be read by its owner alone.
            let (file, path) = NamedTempFile::with_prefix_in("incoming-", &self.directory)?.into_parts();
            self.file = Some((File::from_std(file), path));
        }
        if let Some((file, _)) = &mut self.file {
            file.write_all(&self.memory).await?;
            self.memory.clear();
        }
        Ok(())
    }

    /// Ends the message.
    pub(super) async fn finish(mut self) -> io::Result<Spooled> {
        match self.file {
            None => Ok(Spooled::Memory(self.memory)),
            Some((ref mut file, _)) => {
                file.write_all(&self.memory).await?;
                // Errors of writes that went on in the background are told here.
                file.flush().await?;
                let (_, path) = self.file.take().ok_or(io::ErrorKind::NotFound)?;
                Ok(Spooled::File(path))
            }
        }
    }
}

impl Spooled {
    /// The whole message in memory, for small uses and tests.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        match self {
            Self::Memory(bytes) => Ok(bytes.clone()),
            Self::File(path) => std::fs::read(path),
        }
    }
}
