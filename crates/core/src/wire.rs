//! The byte language of every Packetboat format: fixed bytes, minimal varints, length-prefixed strings.
//!
//! ```text
//! varint   LEB128, least significant group first, at most 10 bytes, no superfluous last byte
//! signed   zigzag, then varint
//! bytes    varint length, then that many bytes
//! ```
//!
//! Every value has one encoding, and [`Reader`] refuses all others, so that equal values are equal bytes.
//! A reader never allocates more than its input could hold: counts are checked against the bytes that remain.

use thiserror::Error;

/// Appends values to a growing buffer.
#[derive(Default, Debug)]
pub struct Writer {
    buffer: Vec<u8>,
}

impl Writer {
    /// An empty writer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.buffer.extend_from_slice(bytes);
        self
    }

    /// Appends one byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.buffer.push(value);
        self
    }

    /// Appends an unsigned number.
    pub fn varint(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.buffer.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.buffer.push(value as u8);
        self
    }

    /// Appends a signed number.
    pub fn signed(&mut self, value: i64) -> &mut Self {
        self.varint(((value << 1) ^ (value >> 63)) as u64)
    }

    /// Appends a length and that many bytes.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.varint(bytes.len() as u64).raw(bytes)
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Takes what was written.
    pub fn finish(self) -> Vec<u8> {
        self.buffer
    }
}

/// Takes values from the front of a byte slice.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes not yet read.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Takes exactly `len` bytes.
    pub fn raw(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    /// Takes a fixed-size array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        Ok(self.raw(N)?.try_into().expect("raw returned N bytes"))
    }

    /// Takes one byte.
    pub fn u8(&mut self) -> Result<u8, WireError> {
        Ok(self.raw(1)?[0])
    }

    /// Takes an unsigned number.
    pub fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.u8()?;
            let group = u64::from(byte & 0x7f);
            if shift == 63 && group > 1 {
                return Err(WireError::Overflow);
            }
            value |= group << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(WireError::NotCanonical);
                }
                return Ok(value);
            }
        }
        Err(WireError::Overflow)
    }

    /// Takes an unsigned number that must fit 32 bits.
    pub fn varint32(&mut self) -> Result<u32, WireError> {
        u32::try_from(self.varint()?).map_err(|_| WireError::Overflow)
    }

    /// Takes a signed number.
    pub fn signed(&mut self) -> Result<i64, WireError> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// Takes a length and that many bytes, at most `limit`.
    pub fn bytes(&mut self, limit: usize) -> Result<&'a [u8], WireError> {
        let len = self.varint()?;
        if len > limit as u64 {
            return Err(WireError::TooLong { limit });
        }
        self.raw(len as usize)
    }

    /// Takes a count of elements of which each occupies at least `element_bytes` bytes.
    pub fn count(&mut self, element_bytes: usize) -> Result<usize, WireError> {
        let count = self.varint()?;
        if count > (self.rest.len() / element_bytes.max(1)) as u64 {
            return Err(WireError::Truncated);
        }
        Ok(count as usize)
    }

    /// Ends reading; refuses bytes left over.
    pub fn finish(self) -> Result<(), WireError> {
        if self.rest.is_empty() { Ok(()) } else { Err(WireError::Trailing { count: self.rest.len() }) }
    }
}

/// Why bytes are not a value of the expected format.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WireError {
    /// The input ends inside a value.
    #[error("the data ends too early")]
    Truncated,
    /// A number is too large for its place.
    #[error("a number is out of range")]
    Overflow,
    /// A value is not in its one encoding.
    #[error("a value is not in canonical form")]
    NotCanonical,
    /// A string is longer than its place allows.
    #[error("a field is longer than {limit} bytes")]
    TooLong {
        /// Greatest length in bytes.
        limit: usize,
    },
    /// Bytes follow the last value.
    #[error("{count} bytes follow the end")]
    Trailing {
        /// How many.
        count: usize,
    },
    /// A tag, name or reference has no meaning here.
    #[error("invalid {what}")]
    Invalid {
        /// What was read.
        what: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip_at_every_width() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1u64 << shift) - 1, u64::MAX >> shift] {
                let mut writer = Writer::new();
                writer.varint(value).signed(value as i64).signed((value as i64).wrapping_neg());
                let bytes = writer.finish();
                let mut reader = Reader::new(&bytes);
                assert_eq!(reader.varint(), Ok(value));
                assert_eq!(reader.signed(), Ok(value as i64));
                assert_eq!(reader.signed(), Ok((value as i64).wrapping_neg()));
                reader.finish().unwrap();
            }
        }
    }

    #[test]
    fn padded_varints_are_refused() {
        assert_eq!(Reader::new(&[0x80, 0x00]).varint(), Err(WireError::NotCanonical));
        assert_eq!(Reader::new(&[0xff; 10]).varint(), Err(WireError::Overflow));
        assert_eq!(Reader::new(&[0xff; 3]).varint(), Err(WireError::Truncated));
    }

    #[test]
    fn a_count_cannot_exceed_what_the_input_could_hold() {
        assert_eq!(Reader::new(&[200, 1, 0, 0]).count(1), Err(WireError::Truncated));
    }
}
