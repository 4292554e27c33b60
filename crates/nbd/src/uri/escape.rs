//! Percent-encoding (RFC 3986, section 2.1).

use std::path::Path;

/// Escapes everything that could be mistaken for a part of a URI. Slashes stay as they are.
///
/// ```
/// assert_eq!(nbd::uri::encode(b"/tmp/a b&c"), "/tmp/a%20b%26c");
/// ```
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            text.push(byte.into());
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// The path as a part of a URI.
pub fn encode_path(path: &Path) -> String {
    encode(path.as_os_str().as_encoded_bytes())
}

/// The bytes meant by a part of a URI; or where in it, and why, it is wrong.
pub(super) fn decode(text: &str) -> Result<Vec<u8>, (usize, &'static str)> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte != b'%' {
            decoded.push(byte);
            at += 1;
            continue;
        }
        let digit = |at: usize| {
            bytes
                .get(at)
                .and_then(|&digit| char::from(digit).to_digit(16))
        };
        let (Some(high), Some(low)) = (digit(at + 1), digit(at + 2)) else {
            return Err((at, "two hexadecimal digits must follow '%'"));
        };
        match (high * 16 + low) as u8 {
            0 => return Err((at, "a NUL byte cannot be part of any name")),
            byte => decoded.push(byte),
        }
        at += 3;
    }
    Ok(decoded)
}
