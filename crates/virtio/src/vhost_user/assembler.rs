//! Messages in one piece: bytes and descriptors come in any pieces, whole frames go out.

use super::{
    Violation,
    proto::{HEADER_LEN, MAX_FDS, MAX_PAYLOAD, flags},
    wire::{Put, Reader},
};

/// A message in one piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<F> {
    /// The request's number.
    pub request: u32,
    /// The header's flags.
    pub flags: u32,
    /// What follows the header.
    pub payload: Vec<u8>,
    /// Descriptors that came with it, at most [`MAX_FDS`].
    pub fds: Vec<F>,
}

/// A message to send: the bytes, and descriptors that go with the first of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing<F> {
    /// Header and payload.
    pub bytes: Vec<u8>,
    /// At most [`MAX_FDS`] descriptors, to be sent with the first byte.
    pub fds: Vec<F>,
}

impl<F> Outgoing<F> {
    pub(super) fn new(request: u32, more_flags: u32, payload: &[u8], fds: Vec<F>) -> Outgoing<F> {
        debug_assert!(payload.len() <= MAX_PAYLOAD && fds.len() <= MAX_FDS);
        let mut bytes = Vec::with_capacity(HEADER_LEN + payload.len());
        bytes.u32(request).u32(flags::VERSION | more_flags);
        bytes.u32(payload.len() as u32).raw(payload);
        Outgoing { bytes, fds }
    }

    /// An acknowledgement: 0 for success. For requests of any number.
    pub(super) fn acknowledgement(request: u32, result: u64) -> Outgoing<F> {
        Outgoing::new(request, flags::REPLY, &result.to_ne_bytes(), Vec::new())
    }
}

#[derive(Clone, Copy, Debug)]
struct Header {
    request: u32,
    flags: u32,
    size: usize,
}

/// Puts messages together.
#[derive(Debug)]
pub(super) struct Assembler<F> {
    header: Option<Header>,
    partial: Vec<u8>,
    fds: Vec<F>,
    /// What the reply bit of every message must be.
    replies: bool,
}

impl<F> Assembler<F> {
    /// One that takes replies, or requests.
    pub(super) fn new(replies: bool) -> Assembler<F> {
        Assembler {
            header: None,
            partial: Vec::new(),
            fds: Vec::new(),
            replies,
        }
    }

    /// How many bytes the header, or the payload, still wants; never 0.
    pub(super) fn wanted(&self) -> usize {
        self.header.map_or(HEADER_LEN, |header| header.size) - self.partial.len()
    }

    /// Whether nothing of a message has come yet.
    pub(super) fn is_between(&self) -> bool {
        self.header.is_none() && self.partial.is_empty() && self.fds.is_empty()
    }

    /// Takes bytes up to the end of one message. `fds` came with the first of them.
    pub(super) fn input(
        &mut self,
        bytes: &mut &[u8],
        fds: impl IntoIterator<Item = F>,
    ) -> Result<Option<Frame<F>>, Violation> {
        for fd in fds {
            if self.fds.len() == MAX_FDS {
                return Err(Violation::TooManyDescriptors);
            }
            self.fds.push(fd);
        }
        loop {
            let n = self.wanted().min(bytes.len());
            let (head, rest) = bytes.split_at(n);
            self.partial.extend_from_slice(head);
            *bytes = rest;
            match self.header {
                None if self.partial.len() == HEADER_LEN => {
                    let header = self.parse()?;
                    self.partial.clear();
                    self.header = Some(header);
                }
                None => return Ok(None),
                Some(_) => {}
            }
            let Some(header) = self.header else { continue };
            if self.partial.len() == header.size {
                self.header = None;
                return Ok(Some(Frame {
                    request: header.request,
                    flags: header.flags,
                    payload: std::mem::take(&mut self.partial),
                    fds: std::mem::take(&mut self.fds),
                }));
            }
            if bytes.is_empty() {
                return Ok(None);
            }
        }
    }

    fn parse(&self) -> Result<Header, Violation> {
        let mut reader = Reader(&self.partial);
        let mut word = || reader.u32().expect("a header has three words");
        let (request, flags, size) = (word(), word(), word());
        if flags & flags::VERSION_MASK != flags::VERSION {
            return Err(Violation::Version(flags & flags::VERSION_MASK));
        }
        if (flags & flags::REPLY != 0) != self.replies {
            return Err(Violation::Direction { request, flags });
        }
        match usize::try_from(size) {
            Ok(len) if len <= MAX_PAYLOAD => Ok(Header {
                request,
                flags,
                size: len,
            }),
            _ => Err(Violation::PayloadTooLong { request, size }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(request: u32, payload: &[u8], fds: Vec<u32>) -> Outgoing<u32> {
        Outgoing::new(request, 0, payload, fds)
    }

    #[test]
    fn any_split_gives_the_same_messages() {
        let first = one(5, &[7; 40], vec![1, 2]);
        let second = one(3, &[], vec![]);
        for split in 1..first.bytes.len() {
            let mut assembler = Assembler::new(false);
            let mut got = Vec::new();
            for message in [&first, &second] {
                let mut fds = message.fds.clone();
                for piece in message.bytes.chunks(split) {
                    let mut rest = piece;
                    got.extend(assembler.input(&mut rest, fds.drain(..)).unwrap());
                    assert!(rest.is_empty());
                }
            }
            assert_eq!(got.len(), 2, "pieces of {split}");
            assert_eq!((got[0].request, &got[0].payload[..]), (5, &[7; 40][..]));
            assert_eq!((&got[0].fds[..], got[1].fds.len()), (&[1, 2][..], 0));
            assert!(assembler.is_between());
        }
    }

    #[test]
    fn one_call_ends_with_one_message() {
        let mut bytes = one(3, &[], vec![]).bytes;
        bytes.extend(one(1, &[], vec![]).bytes);
        let mut assembler = Assembler::<u32>::new(false);
        let mut rest = &bytes[..];
        assert_eq!(assembler.wanted(), HEADER_LEN);
        let frame = assembler.input(&mut rest, []).unwrap().unwrap();
        assert_eq!((frame.request, rest.len()), (3, HEADER_LEN));
    }

    #[test]
    fn headers_are_judged_before_anything_is_kept() {
        let header = |flags: u32, size: u32| {
            let mut bytes = Vec::new();
            bytes.u32(1).u32(flags).u32(size);
            bytes
        };
        let judge = |bytes: &[u8]| Assembler::<u32>::new(false).input(&mut &bytes[..], []);
        assert_eq!(judge(&header(2, 0)), Err(Violation::Version(2)));
        let direction = Violation::Direction {
            request: 1,
            flags: 5,
        };
        assert_eq!(judge(&header(5, 0)), Err(direction));
        let long = |size| Violation::PayloadTooLong { request: 1, size };
        assert_eq!(judge(&header(1, 4097)), Err(long(4097)));
        assert_eq!(judge(&header(1, u32::MAX)), Err(long(u32::MAX)));
        assert_eq!(judge(&header(1, 4096)), Ok(None));
        let mut assembler = Assembler::new(false);
        assert_eq!(assembler.input(&mut &[1u8][..], 0..8), Ok(None));
        let more = assembler.input(&mut &[0u8][..], [8]);
        assert_eq!(more, Err(Violation::TooManyDescriptors));
    }
}
