//! The addresses that a header field such as `To` names (RFC 5322, 3.4), for `sendmail -t`.
//!
//! Only the addresses are wanted, so display names, comments and the names of groups are passed over.
//! Programs write these fields by hand, so what is merely untidy is understood: empty places, a bare name such as
//! `root`, a name with a dot outside quotes.
//! What is no address is an error and not passed over: a mail must not go to all but one of those it was meant for.

use thiserror::Error;

use crate::address::{Address, AddressError};

/// The addresses of an unfolded or folded field body; names without a domain are at `origin`.
pub fn parse_address_list(body: &str, origin: &str) -> Result<Vec<Address>, AddressListError> {
    let mut addresses = Vec::new();
    let mut mailbox = Mailbox::default();
    let mut rest = body.chars();
    let mut in_group = false;
    let mut finish = |mailbox: &mut Mailbox| -> Result<(), AddressListError> {
        let text = mailbox.take_address();
        if !text.is_empty() {
            let address =
                Address::qualify(&text, origin).map_err(|source| AddressListError::Address { text, source })?;
            addresses.push(address);
        }
        Ok(())
    };
    while let Some(character) = rest.next() {
        if mailbox.angle.as_ref().is_some_and(|angle| angle.open) {
            match character {
                '>' => mailbox.close_angle(),
                '"' => mailbox.push_str(&quoted(&mut rest)?),
                '(' => comment(&mut rest)?,
                // A source route: only what follows it matters (RFC 5321, appendix C).
                ':' if mailbox.in_route() => mailbox.drop_route(),
                c if c.is_whitespace() => {}
                c => mailbox.push(c),
            }
            continue;
        }
        match character {
            ',' | ';' => {
                finish(&mut mailbox)?;
                in_group &= character == ',';
            }
            ':' if !in_group && mailbox.angle.is_none() => {
                // What stood before it was the name of a group.
                mailbox = Mailbox::default();
                in_group = true;
            }
            '<' if mailbox.angle.is_none() => mailbox.open_angle(),
            '"' => mailbox.push_str(&quoted(&mut rest)?),
            '(' => comment(&mut rest)?,
            c if c.is_whitespace() => mailbox.push(' '),
            c => mailbox.push(c),
        }
    }
    if mailbox.angle.as_ref().is_some_and(|angle| angle.open) {
        return Err(AddressListError::Open { what: '<' });
    }
    finish(&mut mailbox)?;
    Ok(addresses)
}

/// Why a list of addresses cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum AddressListError {
    /// One of the list is no address.
    #[error("{text:?} is no address")]
    Address {
        /// As it was written.
        text: String,
        /// Why not.
        #[source]
        source: AddressError,
    },
    /// A quote, comment or bracket is not closed.
    #[error("{what} is not closed")]
    Open {
        /// What opened it.
        what: char,
    },
}

/// What was read of one place in the list.
#[derive(Default)]
struct Mailbox {
    /// The words outside brackets: the address itself, or a display name before one in brackets.
    words: String,
    angle: Option<Angle>,
}

struct Angle {
    text: String,
    open: bool,
}

impl Mailbox {
    fn open_angle(&mut self) {
        self.angle = Some(Angle { text: String::new(), open: true });
    }

    fn close_angle(&mut self) {
        if let Some(angle) = &mut self.angle {
            angle.open = false;
        }
    }

    fn in_route(&self) -> bool {
        self.angle.as_ref().is_some_and(|angle| angle.text.starts_with('@'))
    }

    fn drop_route(&mut self) {
        if let Some(angle) = &mut self.angle {
            angle.text.clear();
        }
    }

    fn push(&mut self, character: char) {
        match &mut self.angle {
            Some(angle) if angle.open => angle.text.push(character),
            _ => self.words.push(character),
        }
    }

    fn push_str(&mut self, text: &str) {
        text.chars().for_each(|character| self.push(character));
    }

    /// The address, and an empty mailbox for what comes next.
    fn take_address(&mut self) -> String {
        let taken = std::mem::take(self);
        match taken.angle {
            Some(angle) => angle.text,
            None => tighten(taken.words.trim()),
        }
    }
}

/// Takes the spaces away that may stand around the `@` and the dots of an address without brackets.
fn tighten(words: &str) -> String {
    let mut tight = String::with_capacity(words.len());
    for word in words.split_whitespace() {
        let joins = tight.ends_with(['@', '.']) || word.starts_with(['@', '.']);
        if !tight.is_empty() && !joins {
            // A space inside quotes was one word when it was read; any other makes this no address.
            tight.push(' ');
        }
        tight.push_str(word);
    }
    tight
}

/// Reads a quoted string after its opening quote; quotes and backslashes are kept.
fn quoted(rest: &mut std::str::Chars<'_>) -> Result<String, AddressListError> {
    let mut text = String::from('"');
    while let Some(character) = rest.next() {
        match character {
            '\r' | '\n' => continue,
            _ => text.push(character),
        }
        match character {
            '"' => return Ok(text),
            '\\' => text.extend(rest.next()),
            _ => {}
        }
    }
    Err(AddressListError::Open { what: '"' })
}

/// Passes over a comment after its opening bracket; comments nest.
fn comment(rest: &mut std::str::Chars<'_>) -> Result<(), AddressListError> {
    let mut depth = 1_u32;
    while let Some(character) = rest.next() {
        match character {
            '(' => depth = depth.saturating_add(1),
            ')' => depth -= 1,
            '\\' => {
                rest.next();
            }
            _ => {}
        }
        if depth == 0 {
            return Ok(());
        }
    }
    Err(AddressListError::Open { what: '(' })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(body: &str) -> Vec<String> {
        parse_address_list(body, "laptop.test").unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_way_of_writing_an_address_is_understood() {
        for (body, addresses) in [
            ("ann@a.test", &["ann@a.test"][..]),
            (" Ann <ann@a.test>, bob@b.test ", &["ann@a.test", "bob@b.test"]),
            ("\"Last, First\" <ann@a.test>", &["ann@a.test"]),
            ("ann@a.test (Ann, of (A)), bob@b.test", &["ann@a.test", "bob@b.test"]),
            ("J. R. Doe <j@a.test>", &["j@a.test"]),
            ("team: ann@a.test, Bob <bob@b.test>;, carl@c.test", &["ann@a.test", "bob@b.test", "carl@c.test"]),
            ("undisclosed-recipients:;", &[]),
            ("<@relay.test,@b.test:ann@a.test>", &["ann@a.test"]),
            ("root, ,\r\n\tann@a.test,", &["root@laptop.test", "ann@a.test"]),
            ("\"a b\"@a.test", &["\"a b\"@a.test"]),
            ("<\"a,b> c\"@a.test>", &["\"a,b> c\"@a.test"]),
            ("ann @ a . test", &["ann@a.test"]),
            ("=?utf-8?q?Gr=C3=BCn?= <ann@a.test>", &["ann@a.test"]),
            ("", &[]),
        ] {
            assert_eq!(read(body), addresses, "{body:?}");
        }
    }

    #[test]
    fn what_is_no_address_is_an_error_and_not_left_out() {
        for body in
            ["ann@a.test, bob smith", "<ann@a.test", "\"open <a@b>", "(open a@b", "a@b@c", "ann@a.test bob@b.test"]
        {
            assert!(parse_address_list(body, "laptop.test").is_err(), "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn no_field_panics(body in "\\PC{0,60}|[a-z@<>,;:\"() \\\\\r\n.]{0,60}") {
            let _ = parse_address_list(&body, "laptop.test");
        }

        #[test]
        fn lists_of_addresses_are_read_back(names in proptest::collection::vec("[a-z]{1,8}(\\.[a-z]{1,4})?", 0..20)) {
            let written: Vec<String> = names.iter().map(|name| format!("{name}@example.org")).collect();
            prop_assert_eq!(read(&written.join(", ")), written.clone());
            let named: Vec<String> = written.iter().map(|a| format!("\"N, m\" (c) <{a}>")).collect();
            prop_assert_eq!(read(&named.join(",\r\n ")), written);
        }
    }
}
