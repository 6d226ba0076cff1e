//! JSON texts as values: what MySQL keeps of one, so that MariaDB's text can be
//! compared with it. Pure.
//!
//! The order of keys and spaces do not count, of a key given twice the last one
//! does. Numbers: 64-bit integers exactly, all others as the double nearest.
//! What is not JSON is compared byte by byte.

use serde_json::Value;
use sha2::{Digest, Sha256};

/// Takes a text's value into the hash. Two texts add the same if and only if
/// they have the same value.
pub fn update(hash: &mut Sha256, text: &[u8]) {
    match serde_json::from_slice::<Value>(text) {
        Ok(value) => {
            hash.update([1]);
            put(hash, &value);
        }
        Err(_) => {
            hash.update([2]);
            put_bytes(hash, text);
        }
    }
}

fn put_bytes(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

/// serde_json refuses more than 128 levels, so this does not overflow.
fn put(hash: &mut Sha256, value: &Value) {
    match value {
        Value::Null => hash.update(b"n"),
        Value::Bool(b) => hash.update(if *b { b"t" } else { b"f" }),
        Value::Number(n) => {
            if let Some(n) = n.as_i64() {
                hash.update(b"i");
                hash.update(n.to_le_bytes());
            } else if let Some(n) = n.as_u64() {
                hash.update(b"u");
                hash.update(n.to_le_bytes());
            } else {
                hash.update(b"d");
                let n = n.as_f64().unwrap_or_default();
                hash.update(n.to_bits().to_le_bytes());
            }
        }
        Value::String(text) => {
            hash.update(b"s");
            put_bytes(hash, text.as_bytes());
        }
        Value::Array(items) => {
            hash.update(b"[");
            hash.update((items.len() as u64).to_le_bytes());
            items.iter().for_each(|item| put(hash, item));
        }
        Value::Object(items) => {
            hash.update(b"{");
            hash.update((items.len() as u64).to_le_bytes());
            // Sorted: the map is one of a tree.
            for (key, item) in items {
                put_bytes(hash, key.as_bytes());
                put(hash, item);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(text: &str) -> Vec<u8> {
        let mut hash = Sha256::new();
        update(&mut hash, text.as_bytes());
        hash.finalize().to_vec()
    }

    #[test]
    fn values_count_and_texts_do_not() {
        let equal = [
            (r#"{"a":1,"bb":[1,2]}"#, r#"{ "bb": [1, 2], "a": 1 }"#),
            (r#"{"a":1,"a":2}"#, r#"{"a": 2}"#),
            ("1e2", "100.0"),
            (r#""A""#, r#""\u0041""#),
            ("0.1234567890123456789", "0.12345678901234568"),
        ];
        for (a, b) in equal {
            assert_eq!(digest(a), digest(b), "{a} {b}");
        }
        let different = [
            ("1", "1.0"),
            ("[1,2]", "[2,1]"),
            (r#"["a","b"]"#, r#"["a\",\"b"]"#),
            ("null", r#""null""#),
            ("0.1", "0.10000000000000002"),
            ("18446744073709551615", "18446744073709551614"),
            ("{]", "{ ]"),
        ];
        for (a, b) in different {
            assert_ne!(digest(a), digest(b), "{a} {b}");
        }
    }
}
