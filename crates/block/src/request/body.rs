//! The pooled body of a request: its fields and its stack of completion frames.
//!
//! A frame is a closure moved into the body's tail room, with the functions that run or drop it.
//! Frames are pushed on the way down and run, last first, on the way up. Eight fit inline; beyond
//! that the full stack moves to the heap and a fresh one begins (closures are ordinary Rust values
//! and may be moved).

use std::{
    mem::{MaybeUninit, align_of, size_of},
    ptr::NonNull,
    rc::Rc,
};

use super::{Completed, child::ParentHold, pool::Core, ticket::TicketId};
use crate::{
    data::Data,
    error::Outcome,
    op::{Flags, Op},
};

/// Words of tail room for closures.
const WORDS: usize = 48;
/// Frames per stack.
const FRAMES: usize = 8;
/// Closures larger than this, in bytes, are boxed.
const INLINE_BYTES: usize = 64;

#[derive(Clone, Copy)]
struct Frame {
    /// Where the closure starts, in words.
    start: u16,
    run: unsafe fn(*mut u64, Completed),
    discard: unsafe fn(*mut u64),
}

/// The stack of completion frames.
struct Stack {
    frames: [MaybeUninit<Frame>; FRAMES],
    words: [MaybeUninit<u64>; WORDS],
    count: u8,
    top: u16,
    /// A full stack that lies below this one.
    below: Option<Box<Stack>>,
}

pub(super) struct Body {
    pub op: Op,
    pub flags: Flags,
    pub offset: u64,
    pub len: u64,
    pub data: Data,
    pub outcome: Outcome,
    /// Set while the body is out of the pool.
    pub core: Option<Rc<Core>>,
    /// What this request keeps from completing (it is a child that shares its parent's data).
    pub parent: Option<ParentHold>,
    /// Children that share this request's data and are still out.
    pub children: u32,
    /// It was completed while children were out: the last of them queues it.
    pub deferred: bool,
    /// Its own ticket, or its parent's.
    pub ticket: Option<TicketId>,
    stack: Stack,
}

impl Body {
    pub fn new() -> Body {
        Body {
            op: Op::Flush,
            flags: Flags::NONE,
            offset: 0,
            len: 0,
            data: Data::None,
            outcome: Ok(()),
            core: None,
            parent: None,
            children: 0,
            deferred: false,
            ticket: None,
            stack: Stack::new(),
        }
    }

    #[inline]
    pub fn push(&mut self, f: impl FnOnce(Completed) + 'static) {
        self.stack.push(f);
    }

    #[inline]
    pub fn has_frames(&self) -> bool {
        self.stack.count > 0 || self.stack.below.is_some()
    }

    /// Takes the top frame off. The caller must run it before anything else touches the stack.
    #[inline]
    pub fn pop(&mut self) -> Option<TopFrame> {
        self.stack.pop()
    }
}

impl Stack {
    fn new() -> Stack {
        Stack {
            frames: [MaybeUninit::uninit(); FRAMES],
            words: [MaybeUninit::uninit(); WORDS],
            count: 0,
            top: 0,
            below: None,
        }
    }

    #[inline]
    fn push<F: FnOnce(Completed) + 'static>(&mut self, f: F) {
        if size_of::<F>() > INLINE_BYTES || align_of::<F>() > align_of::<u64>() {
            let boxed: Box<dyn FnOnce(Completed)> = Box::new(f);
            self.push_inline(boxed);
        } else {
            self.push_inline(f);
        }
    }

    #[inline]
    fn push_inline<F: FnOnce(Completed) + 'static>(&mut self, f: F) {
        /// Runs the closure at `p`, which is moved out.
        unsafe fn run<F: FnOnce(Completed)>(p: *mut u64, done: Completed) {
            // SAFETY: `p` holds an `F` that was written by `push_inline` and is read only once.
            let f = unsafe { p.cast::<F>().read() };
            f(done);
        }
        /// Drops the closure at `p`.
        unsafe fn discard<F>(p: *mut u64) {
            // SAFETY: as in `run`.
            unsafe { p.cast::<F>().drop_in_place() }
        }
        let words = size_of::<F>().div_ceil(size_of::<u64>());
        if usize::from(self.count) == FRAMES || usize::from(self.top) + words > WORDS {
            self.spill();
        }
        let start = self.top;
        // SAFETY: start + words <= WORDS, the alignment of `F` is at most that of u64, and nothing
        // live is there.
        unsafe {
            self.words
                .as_mut_ptr()
                .add(usize::from(start))
                .cast::<F>()
                .write(f)
        };
        self.frames[usize::from(self.count)].write(Frame {
            start,
            run: run::<F>,
            discard: discard::<F>,
        });
        self.count += 1;
        self.top += words as u16;
    }

    #[cold]
    fn spill(&mut self) {
        let full = std::mem::replace(self, Stack::new());
        self.below = Some(Box::new(full));
    }

    #[inline]
    fn pop(&mut self) -> Option<TopFrame> {
        if self.count == 0 {
            *self = *self.below.take()?;
        }
        self.count -= 1;
        // SAFETY: frames below `count` (before the decrement) are initialised.
        let frame = unsafe { self.frames[usize::from(self.count)].assume_init() };
        self.top = frame.start;
        // SAFETY: `start` is inside `words`.
        let closure = unsafe { self.words.as_mut_ptr().add(usize::from(frame.start)).cast() };
        Some(TopFrame {
            closure,
            run: frame.run,
            discard: frame.discard,
        })
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        while let Some(frame) = self.pop() {
            // SAFETY: the closure is still in place and was not run.
            unsafe { (frame.discard)(frame.closure) }
        }
    }
}

/// A frame taken off its stack; its closure still lies in the body.
pub(super) struct TopFrame {
    closure: *mut u64,
    run: unsafe fn(*mut u64, Completed),
    discard: unsafe fn(*mut u64),
}

impl TopFrame {
    /// Runs the frame.
    ///
    /// # Safety
    /// The body it was popped from must still be there, its stack untouched since.
    #[inline]
    pub unsafe fn run(self, done: Completed) {
        // SAFETY: the closure is in place by the caller's promise, and consumed here once: `run`
        // moves it out before it does anything else.
        unsafe { (self.run)(self.closure, done) }
    }
}

/// The owner of a body. Not dropped by itself: a body ends in its pool or by [`Owned::free`].
pub(super) struct Owned(NonNull<Body>);

impl Owned {
    pub fn new(body: Body) -> Owned {
        Owned(NonNull::from(Box::leak(Box::new(body))))
    }

    /// The address, for children and journeys to other threads.
    pub fn as_ptr(&self) -> NonNull<Body> {
        self.0
    }

    /// Owns again what was given away as an address.
    ///
    /// # Safety
    /// `ptr` came from [`Owned::as_ptr`] and nobody else owns the body.
    #[inline]
    pub unsafe fn from_ptr(ptr: NonNull<Body>) -> Owned {
        Owned(ptr)
    }

    pub fn free(self) {
        // SAFETY: the body came from a box and `self` owns it.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

impl std::ops::Deref for Owned {
    type Target = Body;
    #[inline]
    fn deref(&self) -> &Body {
        // SAFETY: the body is valid for as long as it is owned.
        unsafe { self.0.as_ref() }
    }
}

impl std::ops::DerefMut for Owned {
    #[inline]
    fn deref_mut(&mut self) -> &mut Body {
        // SAFETY: as above, and owned exclusively.
        unsafe { self.0.as_mut() }
    }
}
