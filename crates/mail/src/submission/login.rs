//! The token that a program must know to be heard, and AUTH PLAIN and LOGIN with it as the password.
//!
//! The loopback address is open to every user of a computer; the token is what makes the port one person's.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// A secret that programs on this computer are given as the password of the submission port; any user name will do.
#[derive(Clone)]
pub struct Token(Zeroizing<String>);

impl Token {
    /// Wraps a token; nothing if it is too short to be one.
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = Zeroizing::new(text.into());
        (text.len() >= 8).then_some(Self(text))
    }

    /// Whether a password is the token, without telling by the time it takes how much of it is right.
    fn is(&self, password: &[u8]) -> bool {
        let token = self.0.as_bytes();
        let mut differences = token.len() ^ password.len();
        for (index, byte) in password.iter().enumerate() {
            differences |= usize::from(byte ^ token[index % token.len()]);
        }
        differences == 0
    }

    /// Whether what came with AUTH PLAIN is right: `authorise NUL user NUL password`, in base64 (RFC 4616).
    pub(super) fn accepts_plain(&self, encoded: &str) -> Option<bool> {
        let decoded = Zeroizing::new(STANDARD.decode(encoded).ok()?);
        let mut parts = decoded.split(|b| *b == 0);
        let (_, _, password) = (parts.next()?, parts.next()?, parts.next()?);
        parts.next().is_none().then(|| self.is(password))
    }

    /// Whether a password that came with AUTH LOGIN is right.
    pub(super) fn accepts_password(&self, encoded: &str) -> Option<bool> {
        Some(self.is(&Zeroizing::new(STANDARD.decode(encoded).ok()?)))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_is_accepted() {
        assert!(Token::new("short").is_none());
        let token = Token::new("long-enough").unwrap();
        let plain = |text: &str| token.accepts_plain(&STANDARD.encode(text));
        assert_eq!(plain("\0ann\0long-enough"), Some(true));
        assert_eq!(plain("ann\0ann\0long-enough"), Some(true));
        for wrong in ["\0ann\0long-enoug", "\0ann\0long-enough!", "\0ann\0", "\0ann\0long-enoughlong-enough"] {
            assert_eq!(plain(wrong), Some(false), "{wrong:?}");
        }
        assert_eq!(plain("ann"), None);
        assert_eq!(plain("\0ann\0long-enough\0"), None);
        assert_eq!(token.accepts_plain("no base64!"), None);
        assert_eq!(token.accepts_password(&STANDARD.encode("long-enough")), Some(true));
        assert_eq!(token.accepts_password(""), Some(false));
    }
}
