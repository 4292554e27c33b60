//! Timers: who is to be woken when.
//!
//! A binary heap, first in first out among equals, so that the simulated loop repeats itself. A
//! timer whose sleeper is gone wakes nobody and costs a few words until its time comes.

use std::{cmp::Reverse, collections::BinaryHeap, task::Waker};

use block::Tick;

/// The timers of one loop.
#[derive(Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<Entry>>,
    made: u64,
}

struct Entry {
    at: Tick,
    number: u64,
    waker: Waker,
}

impl Timers {
    /// Wakes `waker` when `at` has come, once.
    pub(crate) fn insert(&mut self, at: Tick, waker: Waker) {
        let number = self.made;
        self.made += 1;
        self.heap.push(Reverse(Entry { at, number, waker }));
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<Tick> {
        self.heap.peek().map(|Reverse(entry)| entry.at)
    }

    /// Wakes those that are due. Returns how many.
    pub(crate) fn fire(&mut self, now: Tick) -> usize {
        let mut fired = 0;
        while self.next().is_some_and(|at| at <= now) {
            if let Some(Reverse(entry)) = self.heap.pop() {
                entry.waker.wake();
                fired += 1;
            }
        }
        fired
    }

    /// Forgets all of them.
    pub(crate) fn clear(&mut self) {
        self.heap.clear();
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex},
        task::Wake,
    };

    use super::*;

    struct Note(u32, Arc<Mutex<Vec<u32>>>);
    impl Wake for Note {
        fn wake(self: Arc<Self>) {
            self.1.lock().unwrap().push(self.0);
        }
    }

    #[test]
    fn fires_by_time_then_in_order() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut timers = Timers::default();
        for (number, at) in [(0, 5), (1, 3), (2, 5), (3, 9), (4, 3)] {
            timers.insert(Tick(at), Arc::new(Note(number, seen.clone())).into());
        }
        assert_eq!(timers.next(), Some(Tick(3)));
        assert_eq!(timers.fire(Tick(2)), 0);
        assert_eq!(timers.fire(Tick(5)), 4);
        assert_eq!(*seen.lock().unwrap(), [1, 4, 0, 2]);
        assert_eq!(timers.next(), Some(Tick(9)));
    }
}
