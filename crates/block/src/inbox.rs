//! The inbox: how other threads reach a reactor.
//!
//! Posting is cheap when the reactor is awake (one lock, one flag) and wakes it once when it is not.
//! Mail is handled in order, a bounded batch per turn.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{reactor::Reactor, request::SentBody};

/// Wakes a sleeping reactor from any thread. Must not block.
pub trait Unpark: Send + Sync + 'static {
    /// Makes the reactor begin a turn soon.
    fn unpark(&self);
}

/// The mailbox of one reactor.
pub struct Inbox {
    mail: Mutex<VecDeque<Mail>>,
    /// Set from the first post until the reactor looks.
    pending: AtomicBool,
    closed: AtomicBool,
    unpark: Box<dyn Unpark>,
}

pub(crate) enum Mail {
    Completed(SentBody),
    Run(Box<dyn FnOnce(&Reactor) + Send>),
}

impl Inbox {
    /// A mailbox whose owner is woken by `unpark`.
    pub fn new(unpark: impl Unpark) -> Inbox {
        Inbox {
            mail: Mutex::default(),
            pending: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            unpark: Box::new(unpark),
        }
    }

    /// Runs `f` on the reactor's thread, soon. Returns false if the reactor is gone.
    pub fn run(&self, f: impl FnOnce(&Reactor) + Send + 'static) -> bool {
        self.post(Mail::Run(Box::new(f)))
    }

    /// Makes the reactor begin a turn, with or without mail.
    pub fn wake(&self) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            self.unpark.unpark();
        }
    }

    pub(crate) fn post(&self, mail: Mail) -> bool {
        let mut queue = self.lock();
        // Checked under the lock that `close` takes, so nothing is posted behind it.
        if self.closed.load(Ordering::Relaxed) {
            drop(queue);
            refuse(mail);
            return false;
        }
        queue.push_back(mail);
        drop(queue);
        self.wake();
        true
    }

    /// The owner looks: from now on the next post wakes again.
    pub(crate) fn acknowledge(&self) {
        self.pending.swap(false, Ordering::AcqRel);
    }

    /// Is there something to look at?
    pub fn has_mail(&self) -> bool {
        self.pending.load(Ordering::Acquire)
    }

    pub(crate) fn take(&self, most: usize, into: &mut Vec<Mail>) -> bool {
        let mut queue = self.lock();
        let n = most.min(queue.len());
        into.extend(queue.drain(..n));
        !queue.is_empty()
    }

    /// The reactor is going: later posts are refused, and what was not handled is given up.
    pub fn close(&self) {
        let mut queue = self.lock();
        self.closed.store(true, Ordering::Relaxed);
        let left = std::mem::take(&mut *queue);
        drop(queue);
        left.into_iter().for_each(refuse);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Mail>> {
        // Nothing that can panic runs under the lock.
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends mail that has no reader any more.
fn refuse(mail: Mail) {
    match mail {
        // The request belongs to a thread that is gone, and was leaked with its pool: it must not
        // be touched.
        Mail::Completed(body) => std::mem::forget(body),
        // A closure may cross threads, so it may end on any; a remote request in it goes home.
        Mail::Run(f) => drop(f),
    }
}
