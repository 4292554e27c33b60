//! Where requests leave the caller's thread, and where their answers go.
//!
//! A port is one lock around a list. Requests of any thread are put there, many at a time if there are
//! many, and the disk's home thread is woken once; it takes all that there are (see `home`). In the
//! steady state nothing on this way allocates: lists, slots and buffers are used again.
//!
//! *Contract.* Everything that was asked is answered exactly once: a reply that is dropped says that
//! the disk is gone. What is under way at a time is bounded by what callers have out: one request for
//! each waiting thread or future, and the depth of each queue.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
};

use block::{Flags, Op};

use crate::{
    buffer::{Buffer, Lent},
    error::{Error, Result},
    queue::Ring,
    types::{Extent, Limits},
    wait::{Debt, Slot, lock},
};

/// One request.
pub(crate) struct Asked {
    pub op: Op,
    pub flags: Flags,
    pub offset: u64,
    pub len: u64,
    pub payload: Payload,
    pub reply: Reply,
}

impl Asked {
    /// Answers without having done anything.
    ///
    /// # Errors
    /// Nobody waits for it.
    pub fn refuse(self, error: Error) -> Result<(), Answer> {
        self.reply.send(Answer {
            result: Err(error),
            payload: self.payload,
        })
    }

    /// Answers that the disk is closed.
    fn close(self) {
        // Nobody may be waiting.
        let _ = self.refuse(Error::closed());
    }
}

/// The memory of a request.
#[derive(Default)]
pub(crate) enum Payload {
    #[default]
    None,
    One(Buffer),
    Many(Vec<Buffer>),
    /// What was found.
    Extents(Vec<Extent>),
}

impl Payload {
    /// The buffer it went with.
    pub fn into_one(self) -> Buffer {
        match self {
            Payload::One(buffer) => buffer,
            _ => Buffer::default(),
        }
    }

    pub fn into_many(self) -> Vec<Buffer> {
        match self {
            Payload::Many(buffers) => buffers,
            _ => Vec::new(),
        }
    }

    pub fn lend(self) -> LentPayload {
        match self {
            Payload::None | Payload::Extents(_) => LentPayload::None,
            Payload::One(buffer) => LentPayload::One(buffer.lend()),
            Payload::Many(buffers) => {
                LentPayload::Many(buffers.into_iter().map(Buffer::lend).collect())
            }
        }
    }
}

/// The memory of a request that is under way.
pub(crate) enum LentPayload {
    None,
    One(Lent),
    Many(Vec<Lent>),
}

impl LentPayload {
    pub fn reclaim(self) -> Payload {
        match self {
            LentPayload::None => Payload::None,
            LentPayload::One(lent) => Payload::One(lent.reclaim()),
            LentPayload::Many(lent) => Payload::Many(lent.into_iter().map(Lent::reclaim).collect()),
        }
    }
}

/// How a request ended, and what it brings back.
pub(crate) struct Answer {
    pub result: Result<()>,
    pub payload: Payload,
}

/// Where an answer goes.
pub(crate) struct Reply(Option<To>);

enum To {
    Slot(Arc<Slot<Answer>>),
    Ring(Arc<Ring>, u64),
}

impl Reply {
    pub fn slot(slot: Arc<Slot<Answer>>) -> Reply {
        Reply(Some(To::Slot(slot)))
    }

    pub fn ring(ring: Arc<Ring>, token: u64) -> Reply {
        Reply(Some(To::Ring(ring, token)))
    }

    /// Answers.
    ///
    /// # Errors
    /// Nobody waits for it: the answer is given back.
    pub fn send(mut self, answer: Answer) -> Result<(), Answer> {
        self.to(answer)
    }

    fn to(&mut self, answer: Answer) -> Result<(), Answer> {
        match self.0.take() {
            Some(To::Slot(slot)) => slot.fill(answer),
            Some(To::Ring(ring, token)) => ring.push(token, answer),
            None => Ok(()),
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if self.0.is_some() {
            // Nobody may be waiting.
            let _ = self.to(Answer {
                result: Err(Error::closed()),
                payload: Payload::None,
            });
        }
    }
}

/// What is asked of a disk's home thread.
pub(crate) struct Port {
    mail: Mutex<Mail>,
    /// As the disk last said.
    limits: Mutex<Arc<Limits>>,
    unheard: Mutex<Option<Error>>,
    slots: Mutex<Vec<Arc<Slot<Answer>>>>,
    buffers: Mutex<Vec<Buffer>>,
}

#[derive(Default)]
struct Mail {
    asked: Vec<Asked>,
    /// Of the home thread.
    waker: Option<Waker>,
    /// Nothing more is taken.
    closed: bool,
    /// Whoever wants to know how closing went.
    closing: Vec<Debt<Result<()>>>,
    /// How it went.
    ended: Option<Result<()>>,
}

/// Wakes the home thread.
fn wake(mut mail: MutexGuard<'_, Mail>) {
    let waker = mail.waker.take();
    drop(mail);
    if let Some(waker) = waker {
        waker.wake();
    }
}

fn pay(debts: impl IntoIterator<Item = Debt<Result<()>>>, result: &Result<()>) {
    for debt in debts {
        // Nobody may be waiting.
        let _ = debt.pay(result.clone());
    }
}

/// What the home thread finds.
pub(crate) enum Found {
    /// Requests.
    Requests,
    /// No more, and there will not be any: the disk is to be closed.
    End,
}

/// Slots and buffers that are kept for use again.
const KEEP: usize = 64;

/// The longest buffer that is kept for use again, in bytes; all of them are as long.
pub(crate) const STAGE: usize = 1 << 20;

impl Port {
    pub fn new(limits: Limits) -> Arc<Port> {
        Arc::new(Port {
            mail: Mutex::default(),
            limits: Mutex::new(Arc::new(limits)),
            unheard: Mutex::default(),
            slots: Mutex::default(),
            buffers: Mutex::default(),
        })
    }

    /// Hands one request over.
    pub fn ask(&self, asked: Asked) {
        let mut mail = lock(&self.mail);
        if mail.closed {
            drop(mail);
            return asked.close();
        }
        mail.asked.push(asked);
        wake(mail);
    }

    /// Hands requests over, in order; none is left.
    pub fn ask_all(&self, asked: &mut Vec<Asked>) {
        let mut mail = lock(&self.mail);
        if mail.closed {
            drop(mail);
            let all = asked.drain(..);
            return all.for_each(Asked::close);
        }
        mail.asked.append(asked);
        wake(mail);
    }

    /// No more requests: the disk is closed once all are answered. Closed twice, both are told.
    pub fn close(&self, told: Option<Debt<Result<()>>>) {
        let mut mail = lock(&self.mail);
        mail.closed = true;
        if let Some(result) = mail.ended.clone() {
            drop(mail);
            pay(told, &result);
            return;
        }
        mail.closing.extend(told);
        wake(mail);
    }

    /// On the home thread: swaps what was asked into `into`, which is empty.
    pub fn poll(&self, into: &mut Vec<Asked>, cx: &mut Context<'_>) -> Poll<Found> {
        let mut mail = lock(&self.mail);
        if !mail.asked.is_empty() {
            std::mem::swap(&mut mail.asked, into);
            return Poll::Ready(Found::Requests);
        }
        if mail.closed {
            return Poll::Ready(Found::End);
        }
        mail.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The disk was closed: tells who wants to know.
    pub fn ended(&self, result: Result<()>) {
        let mut mail = lock(&self.mail);
        let told = std::mem::take(&mut mail.closing);
        mail.ended = Some(result.clone());
        drop(mail);
        pay(told, &result);
    }

    /// The home thread is going: what was not looked at is refused.
    pub fn abandon(&self) {
        let mut mail = lock(&self.mail);
        mail.closed = true;
        let (asked, closing) = (
            std::mem::take(&mut mail.asked),
            std::mem::take(&mut mail.closing),
        );
        let waker = mail.waker.take();
        let result = mail.ended.get_or_insert_with(|| Err(Error::closed()));
        let result = result.clone();
        drop(mail);
        drop(waker);
        asked.into_iter().for_each(Asked::close);
        pay(closing, &result);
    }

    /// The failure of a change that nobody waited for: the next flush tells it.
    pub fn note(&self, error: Error) {
        lock(&self.unheard).get_or_insert(error);
    }

    /// What the next flush has to tell.
    pub fn take_unheard(&self) -> Option<Error> {
        lock(&self.unheard).take()
    }

    pub fn limits(&self) -> Arc<Limits> {
        lock(&self.limits).clone()
    }

    pub fn set_limits(&self, limits: Limits) {
        *lock(&self.limits) = Arc::new(limits);
    }

    pub fn slot(&self) -> Arc<Slot<Answer>> {
        lock(&self.slots).pop().unwrap_or_default()
    }

    /// Takes a slot back whose answer was taken.
    pub fn recycle(&self, slot: Arc<Slot<Answer>>) {
        let mut slots = lock(&self.slots);
        if slots.len() < KEEP && Arc::strong_count(&slot) == 1 {
            slots.push(slot);
        }
    }

    /// A buffer of this length, at most [`STAGE`].
    pub fn buffer(&self, len: usize) -> Buffer {
        let kept = {
            let mut buffers = lock(&self.buffers);
            let found = buffers.iter().rposition(|kept| kept.capacity() >= len);
            found.map(|at| buffers.swap_remove(at))
        };
        let capacity = || len.next_power_of_two().clamp(4096, STAGE.max(len));
        let mut buffer = kept.unwrap_or_else(|| Buffer::new(capacity()));
        buffer.set_len(len);
        buffer
    }

    /// Takes a buffer back.
    pub fn keep(&self, buffer: Buffer) {
        let mut buffers = lock(&self.buffers);
        let held: usize = buffers.iter().map(Buffer::capacity).sum();
        let fits = held + buffer.capacity() <= 8 * STAGE;
        if buffer.capacity() > 0 && buffers.len() < KEEP && fits {
            buffers.push(buffer);
        }
    }
}
