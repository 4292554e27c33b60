//! An async lock over byte ranges.
//!
//! Taken only by what must not overlap: allocating writes of a copy-on-write layer, unaligned
//! read-modify-write. Fair: who asked first gets an overlapping range first, so nobody starves.
//! Waiting works across reactors, because a waiter is a [`Waker`].

use std::{
    collections::VecDeque,
    future::Future,
    ops::Range,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
};

/// The lock. Cloning gives another handle to the same lock.
#[derive(Clone, Default)]
pub struct RangeLock(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    next: u64,
    /// Held and waited for, in the order of asking. Short: bounded by the requests in flight.
    entries: VecDeque<Entry>,
}

struct Entry {
    id: u64,
    range: Range<u64>,
    exclusive: bool,
    held: bool,
    waker: Option<Waker>,
}

impl Entry {
    fn conflicts(&self, other: &Entry) -> bool {
        (self.exclusive || other.exclusive)
            && self.range.start < other.range.end
            && other.range.start < self.range.end
    }
}

impl RangeLock {
    /// A lock that nobody holds.
    pub fn new() -> RangeLock {
        RangeLock::default()
    }

    /// Waits until nobody else holds any byte of `range`.
    pub fn exclusive(&self, range: Range<u64>) -> Acquire {
        self.acquire(range, true)
    }

    /// Waits until nobody holds any byte of `range` exclusively.
    pub fn shared(&self, range: Range<u64>) -> Acquire {
        self.acquire(range, false)
    }

    /// Holds the range beside others, if nobody holds or waits for any byte of it exclusively.
    pub fn try_shared(&self, range: Range<u64>) -> Option<RangeGuard> {
        self.try_acquire(range, false)
    }

    /// Holds the range alone, if nobody holds or waits for any byte of it.
    pub fn try_exclusive(&self, range: Range<u64>) -> Option<RangeGuard> {
        self.try_acquire(range, true)
    }

    fn try_acquire(&self, range: Range<u64>, exclusive: bool) -> Option<RangeGuard> {
        let mut state = self.lock();
        let (id, held) = (state.next, true);
        let entry = Entry {
            id,
            range,
            exclusive,
            held,
            waker: None,
        };
        if state.entries.iter().any(|other| other.conflicts(&entry)) {
            return None;
        }
        state.next += 1;
        state.entries.push_back(entry);
        drop(state);
        Some(RangeGuard {
            lock: self.clone(),
            id,
        })
    }

    fn acquire(&self, range: Range<u64>, exclusive: bool) -> Acquire {
        let mut state = self.lock();
        let id = state.next;
        state.next += 1;
        let mut entry = Entry {
            id,
            range,
            exclusive,
            held: false,
            waker: None,
        };
        entry.held = !state.entries.iter().any(|other| other.conflicts(&entry));
        state.entries.push_back(entry);
        drop(state);
        Acquire {
            guard: Some(RangeGuard {
                lock: self.clone(),
                id,
            }),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn release(&self, id: u64) {
        let mut state = self.lock();
        let Some(at) = state.entries.iter().position(|e| e.id == id) else {
            return;
        };
        state.entries.remove(at);
        let mut wakers = Vec::new();
        for i in at..state.entries.len() {
            let entry = &state.entries[i];
            if !entry.held
                && !state
                    .entries
                    .range(..i)
                    .any(|earlier| earlier.conflicts(entry))
            {
                let entry = &mut state.entries[i];
                entry.held = true;
                wakers.extend(entry.waker.take());
            }
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// A range that is held. Dropping it lets the next one in.
pub struct RangeGuard {
    lock: RangeLock,
    id: u64,
}

impl Drop for RangeGuard {
    fn drop(&mut self) {
        self.lock.release(self.id);
    }
}

/// Waits for a range. Dropping it gives up the place in the queue.
#[must_use = "a lock is held only once it is awaited"]
pub struct Acquire {
    guard: Option<RangeGuard>,
}

impl Future for Acquire {
    type Output = RangeGuard;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<RangeGuard> {
        let guard = self.guard.take().expect("not polled after it was ready");
        let mut state = guard.lock.lock();
        let entry = state
            .entries
            .iter_mut()
            .find(|e| e.id == guard.id)
            .expect("it is in the queue");
        if entry.held {
            drop(state);
            return Poll::Ready(guard);
        }
        entry.waker = Some(cx.waker().clone());
        drop(state);
        self.guard = Some(guard);
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(acquire: &mut Acquire) -> Option<RangeGuard> {
        match Pin::new(acquire).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(guard) => Some(guard),
            Poll::Pending => None,
        }
    }

    #[test]
    fn overlapping_ranges_wait_in_order() {
        let lock = RangeLock::new();
        let first = poll(&mut lock.exclusive(0..10)).unwrap();
        let mut second = lock.exclusive(5..15);
        let mut third = lock.shared(12..20);
        let apart = poll(&mut lock.exclusive(30..40)).unwrap();
        assert!(poll(&mut second).is_none());
        assert!(
            poll(&mut third).is_none(),
            "behind the second, which overlaps it"
        );
        drop(first);
        let second = poll(&mut second).unwrap();
        assert!(poll(&mut third).is_none());
        drop((second, apart));
        let third = poll(&mut third).unwrap();
        assert!(poll(&mut lock.shared(0..100)).is_some(), "readers share");
        drop(third);
    }

    #[test]
    fn giving_up_lets_the_next_in() {
        let lock = RangeLock::new();
        let held = poll(&mut lock.shared(0..10)).unwrap();
        let waiting = lock.exclusive(0..10);
        let mut reader = lock.shared(0..10);
        assert!(poll(&mut reader).is_none());
        drop(waiting);
        assert!(poll(&mut reader).is_some());
        drop(held);
        assert!(lock.lock().entries.is_empty());
    }

    #[test]
    fn trying_never_waits() {
        let lock = RangeLock::new();
        let alone = lock.try_exclusive(0..10).unwrap();
        assert!(lock.try_exclusive(9..20).is_none() && lock.try_shared(0..1).is_none());
        assert!(
            lock.try_exclusive(10..20).is_some(),
            "the range is half open"
        );
        drop(alone);
        let _shared = lock.try_shared(0..10).unwrap();
        assert!(lock.try_exclusive(0..10).is_none());
        assert!(lock.try_shared(0..10).is_some());
    }
}
