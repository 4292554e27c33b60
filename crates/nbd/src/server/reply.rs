//! Replies: the heads that go before data, and whole replies where there is no data.
//!
//! A head is built in place ([`Head`]) and never allocates; data is sent from wherever it lies,
//! right after its head. Which of the three forms is used follows from [`Mode`]:
//!
//! | reply | simple | structured | extended |
//! | --- | --- | --- | --- |
//! | success without data | simple reply | simple reply | chunk `NONE` |
//! | data of a read | simple reply, whole read only | chunk `OFFSET_DATA` | the same |
//! | hole | not possible | chunk `OFFSET_HOLE` | the same |
//! | error | simple reply, no text | chunk `ERROR` | the same |
//! | block status | not possible | chunk `BLOCK_STATUS` | chunk `BLOCK_STATUS_EXT` |
//!
//! Asking for what is "not possible" is a mistake of the driver and panics: the request would not
//! have passed [`check`](super::transmission::check).

use crate::proto::{self, Mode, limits};
use crate::wire::{Head, clip};

/// What the replies to one request have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyTo {
    /// Framing agreed on.
    pub mode: Mode,
    /// Cookie of the request.
    pub cookie: u64,
    /// Offset of the request; extended headers repeat it.
    pub offset: u64,
}

/// A piece of a device with the same status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Length in bytes.
    pub length: u64,
    /// Status flags, as the context defines them. Without extended headers only the lower 32 bits
    /// are sent.
    pub flags: u64,
}

impl ReplyTo {
    /// Success of a request that has no data: write, flush, trim, cache, write zeroes.
    #[inline]
    pub fn success(&self) -> Head {
        match self.mode {
            Mode::Simple | Mode::Structured => self.simple(0),
            Mode::Extended => self.none(),
        }
    }

    /// Head of `length` bytes of data read at `offset`, which must follow. `done` marks the last
    /// chunk of the reply. With [`Mode::Simple`] it must be the whole read, and is always the last.
    #[inline]
    pub fn data(&self, offset: u64, length: u32, done: bool) -> Head {
        match self.mode {
            Mode::Simple => {
                assert!(
                    done && offset == self.offset,
                    "simple replies are not fragmented"
                );
                self.simple(0)
            }
            Mode::Structured | Mode::Extended => {
                let kind = proto::REPLY_TYPE_OFFSET_DATA;
                self.chunk(kind, done, u64::from(length) + 8).u64(offset)
            }
        }
    }

    /// `length` zero bytes at `offset`, which are not sent. Not with [`Mode::Simple`].
    #[inline]
    pub fn hole(&self, offset: u64, length: u32, done: bool) -> Head {
        self.chunk(proto::REPLY_TYPE_OFFSET_HOLE, done, 12)
            .u64(offset)
            .u32(length)
    }

    /// The end of a reply in chunks, none of which was marked as the last. Not with
    /// [`Mode::Simple`].
    #[inline]
    pub fn none(&self) -> Head {
        self.chunk(proto::REPLY_TYPE_NONE, true, 0)
    }

    /// Failure, without a text. Ends the reply.
    ///
    /// `error` is one of the values of [`proto`] and not 0.
    pub fn failure(&self, error: u32) -> Head {
        assert_ne!(error, 0, "a failure needs an error");
        match self.mode {
            Mode::Simple => self.simple(error),
            Mode::Structured | Mode::Extended => self
                .chunk(proto::REPLY_TYPE_ERROR, true, 6)
                .u32(error)
                .u16(0),
        }
    }

    /// Failure, with a text for people where chunks can carry it. Ends the reply.
    pub fn failure_with_text(&self, error: u32, text: &str, out: &mut Vec<u8>) {
        let text = clip(text);
        if text.is_empty() || !self.mode.has_chunks() {
            out.extend_from_slice(&self.failure(error));
            return;
        }
        assert_ne!(error, 0, "a failure needs an error");
        let length = 6 + text.len() as u64;
        let head = self.chunk(proto::REPLY_TYPE_ERROR, true, length);
        out.extend_from_slice(&head.u32(error).u16(text.len() as u16));
        out.extend_from_slice(text.as_bytes());
    }

    /// Failure at `offset`, which lies in the request's range; more chunks may follow unless `done`.
    /// Not with [`Mode::Simple`].
    pub fn failure_at(&self, error: u32, offset: u64, text: &str, done: bool, out: &mut Vec<u8>) {
        assert_ne!(error, 0, "a failure needs an error");
        let text = clip(text);
        let length = 14 + text.len() as u64;
        let head = self.chunk(proto::REPLY_TYPE_ERROR_OFFSET, done, length);
        out.extend_from_slice(&head.u32(error).u16(text.len() as u16));
        out.extend_from_slice(text.as_bytes());
        out.extend_from_slice(&offset.to_be_bytes());
    }

    /// Block status of one context: `extents` from the request's offset on. Returns the number of
    /// descriptors written. 0 means that there were no extents, that nothing was written, and that
    /// the driver must report an error: a status without extents is not valid.
    ///
    /// What is written covers at most `length` bytes, the request's. Extents of length 0 are left
    /// out and neighbours with the same flags are joined. It stops short after one descriptor with
    /// `req_one`, after [`limits::MAX_DESCRIPTORS`], and, with 32-bit lengths, after an extent of
    /// 4 GiB or more: clients ask again from where a reply ends. Not with [`Mode::Simple`].
    #[must_use]
    pub fn block_status(
        &self,
        context: u32,
        extents: impl IntoIterator<Item = Extent>,
        length: u64,
        req_one: bool,
        done: bool,
        out: &mut Vec<u8>,
    ) -> usize {
        let start = out.len();
        let extended = self.mode.is_extended();
        // Counts are known at the end only; heads have a fixed length.
        let head_len = self.status_head(context, 0, done).len();
        out.resize(start + head_len, 0);
        let most = if req_one { 1 } else { limits::MAX_DESCRIPTORS };
        let mut count = 0;
        for extent in joined(extents, length) {
            if extended {
                out.extend_from_slice(&extent.length.to_be_bytes());
                out.extend_from_slice(&extent.flags.to_be_bytes());
            } else {
                let clamped = extent.length.min(LONGEST_32);
                out.extend_from_slice(&(clamped as u32).to_be_bytes());
                out.extend_from_slice(&(extent.flags as u32).to_be_bytes());
            }
            count += 1;
            if count == most || (!extended && extent.length > LONGEST_32) {
                break;
            }
        }
        if count == 0 {
            out.truncate(start);
        } else {
            let head = self.status_head(context, count, done);
            out[start..start + head_len].copy_from_slice(&head);
        }
        count
    }

    fn status_head(&self, context: u32, count: usize, done: bool) -> Head {
        if self.mode.is_extended() {
            let length = 8 + 16 * count as u64;
            let head = self.chunk(proto::REPLY_TYPE_BLOCK_STATUS_EXT, done, length);
            head.u32(context).u32(count as u32)
        } else {
            let length = 4 + 8 * count as u64;
            self.chunk(proto::REPLY_TYPE_BLOCK_STATUS, done, length)
                .u32(context)
        }
    }

    #[inline]
    fn simple(&self, error: u32) -> Head {
        Head::new()
            .u32(proto::SIMPLE_REPLY_MAGIC)
            .u32(error)
            .u64(self.cookie)
    }

    #[inline]
    fn chunk(&self, kind: u16, done: bool, length: u64) -> Head {
        let flags = if done { proto::REPLY_FLAG_DONE } else { 0 };
        match self.mode {
            Mode::Simple => panic!("chunks were not agreed on"),
            Mode::Structured => {
                let length = u32::try_from(length).expect("a chunk of at most 4 GiB - 9 bytes");
                let head = Head::new()
                    .u32(proto::STRUCTURED_REPLY_MAGIC)
                    .u16(flags)
                    .u16(kind);
                head.u64(self.cookie).u32(length)
            }
            Mode::Extended => {
                let head = Head::new()
                    .u32(proto::EXTENDED_REPLY_MAGIC)
                    .u16(flags)
                    .u16(kind);
                head.u64(self.cookie).u64(self.offset).u64(length)
            }
        }
    }
}

/// Longest extent sent with a 32-bit length: a multiple of the largest minimum block size, as every
/// descriptor must be one of the export's.
const LONGEST_32: u64 = (u32::MAX as u64) & !0xffff;

/// Joins neighbours with equal flags, drops empty extents, and cuts at `limit` bytes.
fn joined(extents: impl IntoIterator<Item = Extent>, limit: u64) -> impl Iterator<Item = Extent> {
    let mut left = limit;
    let cut = extents.into_iter().map_while(move |extent| {
        let length = extent.length.min(left);
        let more = left != 0;
        left -= length;
        more.then_some(Extent { length, ..extent })
    });
    let mut extents = cut.fuse();
    let mut held: Option<Extent> = None;
    std::iter::from_fn(move || {
        loop {
            match (extents.next(), held.as_mut()) {
                (Some(extent), _) if extent.length == 0 => {}
                (Some(extent), Some(last)) if extent.flags == last.flags => {
                    last.length += extent.length;
                }
                (Some(extent), Some(_)) => return held.replace(extent),
                (Some(extent), None) => held = Some(extent),
                (None, _) => return held.take(),
            }
        }
    })
}

#[cfg(test)]
#[path = "reply_tests.rs"]
mod tests;
