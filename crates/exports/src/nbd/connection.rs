//! A connection in the transmission phase: its credits, and its way out.
//!
//! Replies are gathered while a turn lasts and handed to the stream at its end, as one batch. While
//! an older batch is still being sent, a task waits that exists only until it has.
//! Credits come back when the stream takes a reply, not when it is made. It takes one batch at a
//! time, so a client that does not read makes the server hold at most twice its credits.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::pin,
    rc::{Rc, Weak},
    sync::Arc,
    task::{Poll, Waker},
};

use block::{Device, Doorbell, Queue, Reactor};
use nbd::{
    proto::Mode,
    server::{Context, Negotiated, Served},
};
use reactor::SendBatch;
use transport::Transport;

use super::{
    server::{Ask, Counters, Membership},
    session::Session,
};

pub(super) struct Connection {
    pub reactor: Reactor,
    pub queue: Rc<dyn Queue>,
    pub served: Cell<Served>,
    pub contexts: Vec<Context>,
    pub transport: Transport,
    server: Arc<super::Server>,
    control: Arc<super::server::Control>,
    out: RefCell<Out>,
    bell: Cell<Bell>,
    /// Nothing can be sent any more; replies are discarded.
    broken: Cell<bool>,
    /// Requests and bytes taken in and not yet answered and sent.
    used: Cell<Credits>,
    /// The reader waits for credits, or for the last of them.
    waiting: Cell<bool>,
    reader: RefCell<Option<Waker>>,
    this: Weak<Connection>,
    _events: block::Subscription,
}

/// What a turn gathered.
struct Out {
    batch: SendBatch,
    /// Credits that come back when the stream takes the batch.
    credits: Credits,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Bell {
    /// Nothing to send.
    Still,
    /// Rings at the end of the turn.
    Armed,
    /// A task is sending; it will look again when done.
    Sending,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Credits {
    pub requests: u32,
    pub bytes: u64,
}

impl Connection {
    pub fn new(
        session: &Session<'_>,
        transport: Transport,
        queue: Rc<dyn Queue>,
        device: &Arc<dyn Device>,
        negotiated: Negotiated,
    ) -> Rc<Connection> {
        let Membership {
            server, control, ..
        } = session.member;
        let socket = transport.stream();
        socket.set_buffers(server.options.send_buffer, 0);
        socket.set_nodelay(true);
        if server.options.keep_alive {
            socket.set_keepalive(true);
        }
        Rc::new_cyclic(|this: &Weak<Connection>| {
            // The size a client may address follows the device's. (Telling the client needs the
            // protocol's resize extension, which is not stable.)
            let (weak, resized) = (this.clone(), device.clone());
            let events = device.subscribe(
                session.reactor,
                Box::new(move |_| {
                    if let Some(conn) = weak.upgrade() {
                        let size = resized.limits().size;
                        conn.served.set(Served {
                            size,
                            ..conn.served.get()
                        });
                    }
                }),
            );
            Connection {
                reactor: session.reactor.clone(),
                queue,
                served: Cell::new(negotiated.served),
                contexts: negotiated.contexts,
                transport,
                server: server.clone(),
                control: control.clone(),
                out: RefCell::new(Out {
                    batch: SendBatch::new(),
                    credits: Credits::default(),
                }),
                bell: Cell::new(Bell::Still),
                broken: Cell::new(false),
                used: Cell::new(Credits::default()),
                waiting: Cell::new(false),
                reader: RefCell::new(None),
                this: this.clone(),
                _events: events,
            }
        })
    }

    pub fn mode(&self) -> Mode {
        self.served.get().mode
    }

    pub fn counters(&self) -> &Counters {
        &self.server.counters
    }

    /// What this connection is asked to do; a broken one has to close.
    pub fn asked(&self) -> Ask {
        if self.broken.get() {
            Ask::Close
        } else {
            self.control.asked()
        }
    }

    /// There is room for one more request with so many bytes of data.
    #[inline]
    pub fn has_credit(&self, bytes: u64) -> bool {
        let (used, options) = (self.used.get(), &self.server.options);
        used.requests < options.max_requests
            && (used.requests == 0 || used.bytes + bytes <= options.max_bytes)
    }

    #[inline]
    pub fn take_credit(&self, bytes: u64) {
        let Credits {
            requests,
            bytes: used,
        } = self.used.get();
        self.used.set(Credits {
            requests: requests + 1,
            bytes: used + bytes,
        });
    }

    /// Waits until there is room. The reader's only other wait besides the socket.
    pub async fn credit(&self, bytes: u64) {
        self.wait_until(|conn| conn.has_credit(bytes)).await;
    }

    /// Waits until answers with at most so many bytes are left for the stream to take.
    pub async fn unsent(&self, most: u64) {
        self.wait_until(|conn| conn.out.borrow().credits.bytes <= most)
            .await;
    }

    /// Waits until everything taken in is answered and sent, or cannot be sent any more.
    pub async fn drain(&self) {
        if self.control.asked() == Ask::Close {
            self.break_off();
        }
        self.wait_until(|conn| conn.used.get().requests == 0).await;
        let mut flush = pin!(self.transport.stream().flush());
        std::future::poll_fn(|cx| match self.asked() {
            Ask::Close => Poll::Ready(()),
            _ => flush.as_mut().poll(cx).map(drop),
        })
        .await;
    }

    async fn wait_until(&self, ready: impl Fn(&Connection) -> bool) {
        std::future::poll_fn(|cx| {
            if self.control.asked() == Ask::Close {
                self.break_off();
            }
            if ready(self) {
                self.waiting.set(false);
                return Poll::Ready(());
            }
            self.waiting.set(true);
            let mut reader = self.reader.borrow_mut();
            if !reader
                .as_ref()
                .is_some_and(|known| known.will_wake(cx.waker()))
            {
                *reader = Some(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// Writes a reply behind those of the same turn; `bytes` is what its request took from the
    /// credits.
    #[inline]
    pub fn reply(self: &Rc<Self>, bytes: u64, write: impl FnOnce(&mut SendBatch)) {
        let credits = Credits { requests: 1, bytes };
        if self.broken.get() {
            return self.release(credits);
        }
        let mut out = self.out.borrow_mut();
        write(&mut out.batch);
        out.credits.requests += 1;
        out.credits.bytes += bytes;
        drop(out);
        if self.bell.get() == Bell::Still {
            self.bell.set(Bell::Armed);
            self.reactor.at_end_of_turn(self.clone());
        }
    }

    /// Gives up the stream: nothing more is received or sent, replies are discarded.
    pub fn break_off(&self) {
        if !self.broken.replace(true) {
            self.transport.stream().shutdown();
            let mut out = self.out.borrow_mut();
            out.batch.clear();
            let credits = std::mem::take(&mut out.credits);
            drop(out);
            self.release(credits);
        }
    }

    /// Gives credits back.
    pub fn release(&self, credits: Credits) {
        let used = self.used.get();
        let requests = used.requests - credits.requests;
        self.used.set(Credits {
            requests,
            bytes: used.bytes - credits.bytes,
        });
        if self.waiting.get()
            && let Some(reader) = &*self.reader.borrow()
        {
            reader.wake_by_ref();
        }
    }

    fn send(&self) {
        let mut out = self.out.borrow_mut();
        if out.batch.is_empty() {
            return self.bell.set(Bell::Still);
        }
        match self.transport.try_send(std::mem::take(&mut out.batch)) {
            Ok(spare) => {
                out.batch = spare;
                let credits = std::mem::take(&mut out.credits);
                drop(out);
                self.bell.set(Bell::Still);
                self.release(credits);
            }
            Err(batch) => {
                out.batch = batch;
                drop(out);
                self.bell.set(Bell::Sending);
                let this = self.this.upgrade().expect("whoever rings it holds it");
                self.reactor.spawn(this.send_rest());
            }
        }
    }

    /// An older batch is still being sent: waits for it, and goes on until all is taken.
    async fn send_rest(self: Rc<Self>) {
        let mut spare = SendBatch::new();
        loop {
            let (batch, credits) = {
                let mut out = self.out.borrow_mut();
                if out.batch.is_empty() {
                    return self.bell.set(Bell::Still);
                }
                let batch = std::mem::replace(&mut out.batch, spare);
                (batch, std::mem::take(&mut out.credits))
            };
            let sent;
            (spare, sent) = self.transport.send(batch).await;
            self.release(credits);
            if sent.is_err() {
                self.break_off();
            }
        }
    }
}

impl Doorbell for Connection {
    fn ring(&self) {
        self.send();
    }
}
