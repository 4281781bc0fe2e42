//! What there is one of in an index, by key; and the problems that people should know of.

use rusqlite::{OptionalExtension, params};

use super::{Index, IndexError};

/// Something that could not be done, until it could.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// What sort of thing it is; with `subject` it names the problem.
    pub kind: String,
    /// What it is about: a path or an id.
    pub subject: Vec<u8>,
    /// What people read.
    pub text: String,
}

impl Index {
    /// The value under a key.
    pub fn meta(&self, key: &str) -> Result<Option<Vec<u8>>, IndexError> {
        let mut statement = self.sql.prepare_cached("SELECT value FROM meta WHERE key = ?1")?;
        Ok(statement.query_row([key], |row| row.get(0)).optional()?)
    }

    /// Sets the value under a key, or removes it. Keys that begin with `index:` are the index's own.
    pub fn set_meta(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), IndexError> {
        match value {
            Some(value) => {
                let mut put = self.sql.prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")?;
                put.execute(params![key, value])?
            }
            None => self.sql.prepare_cached("DELETE FROM meta WHERE key = ?1")?.execute([key])?,
        };
        Ok(())
    }

    /// Records a problem in the place of one of this kind and subject.
    pub fn set_problem(&mut self, kind: &str, subject: &[u8], text: &str) -> Result<(), IndexError> {
        let mut put =
            self.sql.prepare_cached("INSERT OR REPLACE INTO problem (kind, subject, text) VALUES (?1, ?2, ?3)")?;
        put.execute(params![kind, subject, text])?;
        Ok(())
    }

    /// Forgets a problem.
    pub fn clear_problem(&mut self, kind: &str, subject: &[u8]) -> Result<(), IndexError> {
        let mut delete = self.sql.prepare_cached("DELETE FROM problem WHERE kind = ?1 AND subject = ?2")?;
        delete.execute(params![kind, subject])?;
        Ok(())
    }

    /// Whether there is a problem of a kind.
    pub fn has_problem(&self, kind: &str) -> Result<bool, IndexError> {
        let mut statement = self.sql.prepare_cached("SELECT 1 FROM problem WHERE kind = ?1 LIMIT 1")?;
        Ok(statement.exists([kind])?)
    }

    /// All problems, in the order of kind and subject.
    pub fn problems(&self) -> Result<Vec<Problem>, IndexError> {
        let mut statement =
            self.sql.prepare_cached("SELECT kind, subject, text FROM problem ORDER BY kind, subject")?;
        let rows = statement
            .query_map([], |row| Ok(Problem { kind: row.get(0)?, subject: row.get(1)?, text: row.get(2)? }))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
