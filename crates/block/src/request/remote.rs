//! The only form of a request that may leave its thread.
//!
//! Inside it the frames and pins stay untouched: its safe surface is the operation, the range, the
//! bytes, and completing. Completing, or being dropped (a worker that panicked), posts it to its
//! home reactor's inbox; the frames run there.

use std::{ptr::NonNull, sync::Arc};

use super::{Body, Counters, Owned, Request};
use crate::{
    data::{Data, Piece, Segments, SharedBuf, SharedMem},
    error::{Errno, Outcome},
    extents::ExtentList,
    inbox::{Inbox, Mail},
    op::{Flags, Op},
};

/// A request on another thread.
#[must_use = "a remote request that is dropped completes with EIO"]
pub struct Remote {
    body: Option<NonNull<Body>>,
    home: Arc<Inbox>,
    found: Option<Found>,
    /// Bytes copied away from home, to be counted there.
    copied: u64,
}

/// What the worker found: in a form that may cross threads.
enum Found {
    Bytes(Arc<SharedBuf>),
    Extents(ExtentList),
}

/// A body on its way home, with its outcome.
pub(crate) struct SentBody {
    body: NonNull<Body>,
    outcome: Outcome,
    found: Option<Found>,
    copied: u64,
}

// SAFETY: while it is away only plain fields of the body are read (op, offset, len, flags) and its
// buffer's bytes are copied; reference counts, cells and frames are touched at home only. The
// request is in one place at a time, so there is no concurrent access.
unsafe impl Send for Remote {}
// SAFETY: as above.
unsafe impl Send for SentBody {}

impl Request {
    /// Leaves for another thread; `home` is this reactor's inbox. Panics while children share its
    /// data: they would touch it here while it is read there.
    pub fn into_remote(self, home: &Arc<Inbox>) -> Remote {
        assert_eq!(self.0.children, 0, "children are out");
        let body = self.into_body().as_ptr();
        Remote {
            body: Some(body),
            home: home.clone(),
            found: None,
            copied: 0,
        }
    }
}

impl Remote {
    fn body(&self) -> &Body {
        // SAFETY: `into_remote` made `self` the body's owner.
        unsafe { self.body.expect("present until it is sent home").as_ref() }
    }

    /// The operation.
    pub fn op(&self) -> Op {
        self.body().op
    }

    /// First byte of the range.
    pub fn offset(&self) -> u64 {
        self.body().offset
    }

    /// Length of the range in bytes.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.body().len
    }

    /// The modifiers.
    pub fn flags(&self) -> Flags {
        self.body().flags
    }

    /// Copies a write's bytes out, starting at `at`. Panics if it carries none or the range is
    /// outside.
    pub fn read_data(&self, at: usize, bytes: &mut [u8]) {
        self.body()
            .data
            .as_iov()
            .expect("a write carries bytes")
            .read(at, bytes);
    }

    /// Gives a read's bytes. Panics unless there are as many as were asked for.
    pub fn give(&mut self, bytes: Vec<u8>) {
        assert_eq!(
            bytes.len() as u64,
            self.len(),
            "as many bytes as were asked for"
        );
        match &self.body().data {
            Data::Iov(iov) => {
                iov.write(0, &bytes);
                self.copied += bytes.len() as u64;
            }
            _ => self.found = Some(Found::Bytes(SharedBuf::from_vec(bytes))),
        }
    }

    /// Gives what an extents query found.
    pub fn give_extents(&mut self, extents: ExtentList) {
        self.found = Some(Found::Extents(extents));
    }

    /// Completes: back to the home reactor.
    pub fn complete(mut self, outcome: Outcome) {
        self.send(outcome);
    }

    fn send(&mut self, outcome: Outcome) {
        if let Some(body) = self.body.take() {
            let sent = SentBody {
                body,
                outcome,
                found: self.found.take(),
                copied: self.copied,
            };
            // A reactor that is gone has leaked its pool: the memory stays valid, for nobody.
            self.home.post(Mail::Completed(sent));
        }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.send(Err(Errno::EIO.into()));
    }
}

impl SentBody {
    /// On the home thread: a request again, completed.
    pub(crate) fn arrive(self) {
        // SAFETY: `into_remote` gave up its ownership; it is sent once.
        let mut body = unsafe { Owned::from_ptr(self.body) };
        match self.found {
            Some(Found::Bytes(buf)) if self.outcome.is_ok() => {
                let len = buf.len();
                let mut segments = Segments::new();
                segments.push(Piece::Mem(SharedMem::of_shared(buf, 0, len)));
                body.data = Data::Given(segments);
            }
            Some(Found::Extents(list)) if self.outcome.is_ok() => body.data = Data::Extents(list),
            _ => {}
        }
        let request = Request::from_body(body);
        Counters::add(&request.counters().bytes_copied, self.copied);
        request.complete(self.outcome);
    }
}
