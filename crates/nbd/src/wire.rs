//! Big-endian reading and writing, and the small buffer that headers are built in.

use crate::proto::limits::MAX_STRING;

/// A header ready to be sent: at most 64 bytes, kept in place, so that building one never
/// allocates.
#[derive(Clone, Copy)]
pub struct Head {
    bytes: [u8; Head::CAPACITY],
    len: u8,
}

impl Head {
    /// Most bytes a head can hold.
    pub const CAPACITY: usize = 64;

    pub(crate) const fn new() -> Head {
        Head {
            bytes: [0; Head::CAPACITY],
            len: 0,
        }
    }

    /// The bytes to send.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Number of bytes to send.
    #[inline]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there is nothing to send; never so for a head made by this crate.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    pub(crate) fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        let start = usize::from(self.len);
        self.bytes[start..start + N].copy_from_slice(&bytes);
        self.len += N as u8;
    }

    #[inline]
    pub(crate) fn u16(mut self, value: u16) -> Head {
        self.put(value.to_be_bytes());
        self
    }

    #[inline]
    pub(crate) fn u32(mut self, value: u32) -> Head {
        self.put(value.to_be_bytes());
        self
    }

    #[inline]
    pub(crate) fn u64(mut self, value: u64) -> Head {
        self.put(value.to_be_bytes());
        self
    }
}

impl AsRef<[u8]> for Head {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl std::ops::Deref for Head {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Head({:02x?})", self.as_slice())
    }
}

/// Takes fields off the front of a slice; `None` when the slice is too short.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    /// A string with its length before it, as the spec's Conventions allow it.
    pub(crate) fn string(&mut self) -> Option<&'a str> {
        let len = usize::try_from(self.u32()?).ok()?;
        string(self.bytes(len)?)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Checks what the spec demands of every string: at most 4096 bytes of UTF-8 without NUL.
pub(crate) fn string(bytes: &[u8]) -> Option<&str> {
    if bytes.len() > MAX_STRING || bytes.contains(&0) {
        return None;
    }
    std::str::from_utf8(bytes).ok()
}

/// Cuts a text of ours to what the spec allows for a string, at a character's edge. NUL, which may
/// stand in a name we were given, ends it.
pub(crate) fn clip(text: &str) -> &str {
    let text = text.split('\0').next().unwrap_or_default();
    &text[..text.floor_char_boundary(MAX_STRING)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_holds_its_fields_in_network_order() {
        let head = Head::new()
            .u16(0x0102)
            .u32(0x0304_0506)
            .u64(0x0708_090a_0b0c_0d0e);
        assert_eq!(
            head.as_slice(),
            [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]
        );
        assert_eq!(head.len(), 14);
        assert!(!head.is_empty() && Head::new().is_empty());
    }

    #[test]
    fn reader_never_reads_past_the_end() {
        let mut reader = Reader(&[0, 0, 0, 3, b'a', b'b']);
        assert_eq!(reader.string(), None);
        let mut reader = Reader(&[0, 0, 0, 2, b'a', b'b', 9]);
        assert_eq!(reader.string(), Some("ab"));
        assert_eq!(reader.u16(), None);
        assert_eq!(reader.0, [9]);
        assert_eq!(Reader(&[0xff; 4]).string(), None);
    }

    #[test]
    fn strings_are_bounded_utf8_without_nul() {
        assert!(string(&[b'x'; 4096]).is_some());
        assert!(string(&[b'x'; 4097]).is_none());
        assert!(string(b"a\0b").is_none());
        assert!(string(&[0xff]).is_none());
        assert_eq!(clip("ab\0c"), "ab");
        assert_eq!(clip(&"é".repeat(3000)).len(), 4096);
        assert_eq!(clip(&format!("x{}", "é".repeat(3000))).len(), 4095);
    }
}
