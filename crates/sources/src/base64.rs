//! Base64 as RFC 4648 section 4 has it, decoded: what `data` and `info` are given.

/// The bytes a text stands for. White space is skipped, so that lines may be broken; the padding must
/// be there.
pub(crate) fn decode(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut group, mut digits, mut padding) = (0u32, 0, 0);
    for character in text.bytes().filter(|byte| !byte.is_ascii_whitespace()) {
        let value = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' if digits >= 2 => {
                padding += 1;
                0
            }
            _ => return Err("not valid base64".into()),
        };
        if padding > 0 && character != b'=' {
            return Err("not valid base64: something follows the padding".into());
        }
        group = group << 6 | u32::from(value);
        digits += 1;
        if digits == 4 {
            bytes.extend_from_slice(&group.to_be_bytes()[1..4 - padding]);
            // After padding a digit is refused above, and more padding by its place.
            (group, digits) = (0, 0);
        }
    }
    match digits {
        0 => Ok(bytes),
        _ => Err("not valid base64: its length is not a multiple of 4".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn the_examples_of_the_rfc() {
        let table = [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9v YmE\n=", "fooba"),
            ("Zm9vYmFy", "foobar"),
        ];
        for (text, bytes) in table {
            assert_eq!(decode(text).as_deref(), Ok(bytes.as_bytes()), "{text}");
        }
        assert_eq!(decode("+/+/").unwrap(), [0xfb, 0xff, 0xbf]);
    }

    #[test]
    fn what_is_not_base64_is_refused() {
        for text in [
            "Z", "Zg", "Zg=", "Zg===", "Zg==Zg==", "=", "Z===", "Zm9v=", "Zm-v", "Zg=a",
        ] {
            assert!(decode(text).is_err(), "{text}");
        }
    }
}
