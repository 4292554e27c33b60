//! GUIDs as GPT writes them.

use config::Value;

/// A GUID, in the order of bytes it has on the disk: the first three fields are little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// A partition with a Linux file system.
    pub const LINUX: Guid = Guid([
        0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d,
        0xe4,
    ]);

    /// A GUID that follows from these bytes: the same disk has the same GUIDs whenever it is served.
    pub(crate) fn derived(parts: &[&[u8]]) -> Guid {
        // FNV-1a with 128 bits. The length of each part goes in too, so that no two lists are alike.
        const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
        let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
        let mut add = |byte: u8| hash = (hash ^ u128::from(byte)).wrapping_mul(PRIME);
        for part in parts {
            (part.len() as u64)
                .to_le_bytes()
                .into_iter()
                .for_each(&mut add);
            part.iter().copied().for_each(&mut add);
        }
        let mut bytes = hash.to_le_bytes();
        // RFC 9562: version 8, made by a rule of its own.
        bytes[7] = bytes[7] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Guid(bytes)
    }
}

impl Value for Guid {
    const TYPE: &'static str = "GUID";

    /// Reads a GUID, in braces or not.
    fn parse(text: &str) -> Result<Guid, String> {
        let why = "a GUID is written like 0FC63DAF-8483-4772-8E79-3D69D8477DE4";
        let inner = text.strip_prefix('{').and_then(|t| t.strip_suffix('}'));
        let text = inner.unwrap_or(text).as_bytes();
        if text.len() != 36 {
            return Err(why.into());
        }
        // Where each byte on the disk stands in the text.
        const PLACES: [usize; 16] = [6, 4, 2, 0, 11, 9, 16, 14, 19, 21, 24, 26, 28, 30, 32, 34];
        let digit = |at: usize| (text[at] as char).to_digit(16).ok_or(why);
        let mut bytes = [0; 16];
        for (byte, at) in bytes.iter_mut().zip(PLACES) {
            *byte = (digit(at)? << 4 | digit(at + 1)?) as u8;
        }
        match [8, 13, 18, 23].into_iter().all(|at| text[at] == b'-') {
            true => Ok(Guid(bytes)),
            false => Err(why.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guids_are_read_and_refused() {
        let linux = "0FC63DAF-8483-4772-8E79-3D69D8477DE4";
        assert_eq!(Guid::parse(linux), Ok(Guid::LINUX));
        assert_eq!(
            Guid::parse(&format!("{{{}}}", linux.to_lowercase())),
            Ok(Guid::LINUX)
        );
        for bad in [
            "",
            "{}",
            "0FC63DAF",
            "0FC63DAF-8483-4772-8E79-3D69D8477DE",
            "0FC63DAF+8483-4772-8E79-3D69D8477DE4",
            "0FC63DAF-8483-4772-8E79-3D69D8477DEG",
            "{0FC63DAF-8483-4772-8E79-3D69D8477DE4",
            "0FC63DAF-8483-4772-8E79-3D69D8477D\u{e4}",
        ] {
            assert!(Guid::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn derived_guids_differ() {
        let of = |parts: &[&[u8]]| Guid::derived(parts);
        assert_eq!(of(&[b"a", b"b"]), of(&[b"a", b"b"]));
        assert_ne!(of(&[b"ab", b""]), of(&[b"a", b"b"]));
        assert_eq!(of(&[b"a"]).0[7] >> 4, 8);
        assert_eq!(of(&[b"a"]).0[8] >> 6, 2);
    }
}
