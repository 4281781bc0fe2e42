//! The header of a message: where it ends, what its fields are called, and how it is written again without some of them.
//!
//! Fields stay as bytes and are never put together anew, so a signature over them stays good.
//! A header ends at an empty line. Programs forget that line: whatever cannot be a field ends a header too.

use std::ops::Range;

/// A header that is being read, line by line.
#[derive(Default, Debug)]
pub(super) struct Collector {
    bytes: Vec<u8>,
    /// Where the first line begins that was not looked at.
    scanned: usize,
    fields: Vec<Field>,
    end: Option<End>,
}

/// One field with its continuation lines.
#[derive(Debug)]
struct Field {
    range: Range<usize>,
    colon: usize,
}

#[derive(Clone, Copy, Debug)]
struct End {
    /// Where the header ends, without the empty line.
    at: usize,
    /// Where what follows it begins.
    beyond: usize,
}

impl Collector {
    /// Takes whole or torn lines that end in CR LF.
    pub(super) fn push(&mut self, bytes: &[u8], unix_program: bool) {
        self.bytes.extend_from_slice(bytes);
        while self.end.is_none() {
            let Some(length) = self.bytes[self.scanned..].iter().position(|b| *b == b'\n') else { return };
            let line = self.scanned..self.scanned + length + 1;
            self.scanned = line.end;
            self.read_line(line, unix_program);
        }
    }

    fn read_line(&mut self, line: Range<usize>, unix_program: bool) {
        let text = &self.bytes[line.clone()];
        if text == b"\r\n" {
            self.end = Some(End { at: line.start, beyond: line.end });
        } else if let Some(field) = self.fields.last_mut()
            && matches!(text[0], b' ' | b'\t')
        {
            field.range.end = line.end;
        } else if let Some(colon) = colon(text) {
            self.fields.push(Field { colon: line.start + colon, range: line });
        } else if unix_program && line.start == 0 && (text.starts_with(b"From ") || text.starts_with(b">From ")) {
            // The first line of a mailbox file; it belongs to no message.
            self.bytes.drain(line.clone());
            self.scanned = 0;
        } else {
            self.end = Some(End { at: line.start, beyond: line.start });
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    /// Bytes held.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of the header alone.
    pub(super) fn header_len(&self) -> usize {
        self.end.map_or(self.bytes.len(), |end| end.at)
    }

    pub(super) fn has_blank_line(&self) -> bool {
        self.end.is_some_and(|end| end.beyond > end.at)
    }

    pub(super) fn is_without_fields(&self) -> bool {
        self.fields.is_empty()
    }

    /// What was read after the header.
    pub(super) fn beyond(&self) -> &[u8] {
        self.end.map_or(&[], |end| &self.bytes[end.beyond..])
    }

    /// The body of the first field of a name given in small letters, without the space around it.
    pub(super) fn value(&self, name: &str) -> Option<String> {
        self.values(name).next()
    }

    /// The bodies of all fields of a name.
    pub(super) fn values(&self, name: &str) -> impl Iterator<Item = String> {
        self.fields
            .iter()
            .filter(move |field| self.is_named(field, &[name]))
            .map(|field| String::from_utf8_lossy(&self.bytes[field.colon + 1..field.range.end]).trim().to_owned())
    }

    /// Writes the header, with its empty line if it has one, without the fields of some names.
    pub(super) fn write(&self, without: &[&str], out: &mut Vec<u8>) {
        for field in self.fields.iter().filter(|field| !self.is_named(field, without)) {
            out.extend_from_slice(&self.bytes[field.range.clone()]);
        }
        if self.has_blank_line() {
            out.extend_from_slice(b"\r\n");
        }
    }

    fn is_named(&self, field: &Field, names: &[&str]) -> bool {
        let name = self.bytes[field.range.start..field.colon].trim_ascii_end();
        names.iter().any(|wanted| name.eq_ignore_ascii_case(wanted.as_bytes()))
    }
}

/// Where the colon of a field is, if the line begins one (RFC 5322, 2.2 and 4.5).
fn colon(line: &[u8]) -> Option<usize> {
    let colon = line.iter().position(|b| *b == b':')?;
    let name = line[..colon].trim_ascii_end();
    (!name.is_empty() && name.iter().all(|b| matches!(b, 33..=126))).then_some(colon)
}
