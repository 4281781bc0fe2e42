//! Bytes as hexadecimal digits in lower case, which is how names and files say ids, keys and tokens.
//!
//! What is read is what is written: digits in upper case are refused, so nothing has two forms.

use std::fmt::Write;

/// The digits of bytes.
pub fn encode(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut digits, byte| {
        // A string takes whatever it is given.
        let _taken = write!(digits, "{byte:02x}");
        digits
    })
}

/// The bytes of digits, where there are just so many.
pub fn decode_exactly<const COUNT: usize>(digits: &str) -> Option<[u8; COUNT]> {
    let mut bytes = [0; COUNT];
    if digits.len() != COUNT * 2 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = value_of(pair[0])? << 4 | value_of(pair[1])?;
    }
    Some(bytes)
}

fn value_of(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_read_back_and_no_other_form_is() {
        assert_eq!(encode(b"\x00\xff\x1a"), "00ff1a");
        assert_eq!(decode_exactly("00ff"), Some([0, 255]));
        for other in ["0", "zz", "éé", "FF", "0x", " 0", "+1", "0000"] {
            assert_eq!(decode_exactly::<1>(other), None, "{other}");
        }
        assert_eq!(decode_exactly::<3>("00ff"), None);
    }
}
