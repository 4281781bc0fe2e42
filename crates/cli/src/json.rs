//! How things are written for scripts. Every object has `"schema": 1`; a field that is there keeps its meaning.

use packetboat_core::hex;
use packetboat_core::name::RelPath;
use serde_json::{Map, Value};

/// JSON text with a newline at its end.
pub(crate) fn text(value: &Value) -> String {
    format!("{value:#}\n")
}

/// Adds a path: as text under `key`, and under `key_bytes` in hexadecimal where it is not UTF-8.
pub(crate) fn insert_path(object: &mut Map<String, Value>, key: &str, path: &[u8]) {
    object.insert(key.to_owned(), String::from_utf8_lossy(path).into_owned().into());
    if std::str::from_utf8(path).is_err() {
        object.insert(format!("{key}_bytes"), hex::encode(path).into());
    }
}

/// An object with a path in it.
pub(crate) fn with_path(mut value: Value, path: &RelPath) -> Value {
    if let Value::Object(object) = &mut value {
        insert_path(object, "path", path.as_bytes());
    }
    value
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_that_are_not_utf8_carry_their_bytes() {
        let plain = with_path(json!({}), &RelPath::new("a/ü".as_bytes()).unwrap());
        assert_eq!(plain, json!({ "path": "a/ü" }));
        let odd = with_path(json!({}), &RelPath::new(b"a/\xff").unwrap());
        assert_eq!(odd, json!({ "path": "a/\u{fffd}", "path_bytes": "612fff" }));
    }
}
