//! Keeping a file out of the page cache, so that serving it once does not push out what other programs
//! have there.
//!
//! posix_fadvise(POSIX_FADV_DONTNEED) drops clean pages and begins to write dirty ones back. So what
//! was read or written is gathered to windows, and each window is told off twice: when it is full,
//! and again with the next one, when what was written has reached the disk. A flush ends a window too.
//! It is a hint: where nothing comes of it, nothing is lost.

use std::{
    num::NonZeroU64,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use block::{Op, Pool, Reactor, Request};
use rustix::fs::{Advice, fadvise};

use super::device::OpenFile;

/// Bytes per window.
const WINDOW: u64 = 8 << 20;

/// Ranges per window: requests all over the file do not meet.
const MOST: usize = 1024;

/// What is in the page cache because of us.
#[derive(Default)]
pub(super) struct Evict(Mutex<State>);

#[derive(Default)]
struct State {
    /// This window.
    fresh: Vec<Range<u64>>,
    bytes: u64,
    /// The window before, which has been told off once.
    old: Vec<Range<u64>>,
    running: bool,
}

/// Takes note of what the request brings into the cache, when it is done.
pub(super) fn watch(file: &Arc<OpenFile>, reactor: &Reactor, req: &mut Request) {
    let range = match req.op() {
        Op::Read | Op::Write => req.offset()..req.end(),
        Op::Flush => 0..0,
        _ => return,
    };
    let (file, reactor) = (file.clone(), reactor.clone());
    req.on_complete(move |_| note(&file, &reactor, range));
}

fn note(file: &Arc<OpenFile>, reactor: &Reactor, range: Range<u64>) {
    let Some(evict) = &file.evict else { return };
    let mut state = evict.state();
    let flush = range.is_empty();
    state.add(range);
    let full = state.bytes >= WINDOW || state.fresh.len() >= MOST;
    let due = full || flush && !(state.fresh.is_empty() && state.old.is_empty());
    if !due || state.running {
        return;
    }
    state.running = true;
    state.bytes = 0;
    let fresh = std::mem::take(&mut state.fresh);
    let old = std::mem::take(&mut state.old);
    drop(state);
    let file = file.clone();
    reactor.offload(Pool::Blocking, move || {
        for range in old.iter().chain(&fresh) {
            let len = NonZeroU64::new(range.end - range.start);
            // Advice that is not taken is no error.
            let _ = fadvise(&file.data, range.start, len, Advice::DontNeed);
        }
        if let Some(evict) = &file.evict {
            let mut state = evict.state();
            state.old = fresh;
            state.running = false;
        }
    });
}

impl Evict {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, range: Range<u64>) {
        self.bytes += range.end - range.start;
        let crowded = self.fresh.len() >= 2 * MOST;
        match self.fresh.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            // The pool does not keep up: these pages stay.
            _ if range.is_empty() || crowded => {}
            _ => self.fresh.push(range),
        }
    }
}
