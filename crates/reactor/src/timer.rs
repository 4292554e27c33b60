//! Timers: who is to be woken when.
//!
//! First in, first out among equals. A timer whose sleeper has gone is taken out, so that a deadline
//! that was met wakes nobody and an idle server stays asleep.

use std::{collections::BTreeMap, task::Waker};

use block::Tick;

/// The timers of one loop.
#[derive(Default)]
pub(crate) struct Timers {
    waiting: BTreeMap<(Tick, u64), Waker>,
    made: u64,
}

impl Timers {
    /// Wakes `waker` when `at` has come, once. Returns its number.
    pub(crate) fn insert(&mut self, at: Tick, waker: Waker) -> u64 {
        self.made += 1;
        self.waiting.insert((at, self.made), waker);
        self.made
    }

    /// Takes a timer out, if it has not gone off. Its waker may be the last thing that holds a
    /// task, so it is the caller's to drop.
    pub(crate) fn remove(&mut self, at: Tick, number: u64) -> Option<Waker> {
        self.waiting.remove(&(at, number))
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<Tick> {
        self.waiting.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes the next one out, if it is due.
    pub(crate) fn due(&mut self, now: Tick) -> Option<Waker> {
        let next = self.waiting.first_entry()?;
        (next.key().0 <= now).then(|| next.remove())
    }

    /// Takes all of them out.
    pub(crate) fn clear(&mut self) -> impl Sized + use<> {
        std::mem::take(&mut self.waiting)
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
        assert!(timers.due(Tick(2)).is_none());
        while let Some(waker) = timers.due(Tick(5)) {
            waker.wake();
        }
        assert_eq!(*seen.lock().unwrap(), [1, 4, 0, 2]);
        assert_eq!(timers.next(), Some(Tick(9)));
    }

    #[test]
    fn what_is_taken_out_is_not_waited_for() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut timers = Timers::default();
        let early = timers.insert(Tick(3), Arc::new(Note(0, seen.clone())).into());
        let late = timers.insert(Tick(5), Arc::new(Note(1, seen)).into());
        timers.remove(Tick(3), early);
        assert_eq!(timers.next(), Some(Tick(5)));
        assert!(timers.due(Tick(5)).is_some());
        timers.remove(Tick(5), late);
        assert_eq!(timers.next(), None);
    }
}
