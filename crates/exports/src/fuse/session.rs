//! One descriptor of a mount on one loop: packets in, requests down, answers out.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::Arc,
    task::{Poll, Waker},
};

use block::{
    Completed, Data, Errno, ExtentFlags, Flags, Op, Queue, QueueExt, Reactor, RecvBuf, Request,
    Subscription, Ticket,
};
use reactor::SendBatch;

use super::{
    machine::{Agreed, Command, MAX_WRITE, Machine, Step, found, written},
    proto::{Violation, WRITE_HEAD, errno, of_device, out_header},
    server::{Counters, Fuse},
};

/// Takes answers. Each is one packet.
pub trait Answers {
    /// Sends all of the batch, here and now. What cannot be sent is nobody's any more.
    fn answer(&self, batch: &SendBatch);
}

/// See the [module](self).
pub struct Session {
    fuse: Arc<Fuse>,
    reactor: Reactor,
    queue: Rc<dyn Queue>,
    machine: RefCell<Machine>,
    answers: Rc<dyn Answers>,
    batch: RefCell<SendBatch>,
    /// Answers of the machine's own.
    words: RefCell<Vec<u8>>,
    /// What can be interrupted.
    tickets: RefCell<HashMap<u64, Asked>>,
    used: Cell<Used>,
    /// What was agreed on is known to the mount.
    told: Cell<bool>,
    reader: RefCell<Option<Waker>>,
    events: RefCell<Subscription>,
}

/// Requests that are not answered, and their bytes.
#[derive(Clone, Copy, Default)]
struct Used {
    requests: u32,
    bytes: u64,
}

/// A request that is not answered yet.
struct Asked {
    /// None for one that is made of several steps: it looks at the mark between them.
    ticket: Option<Ticket>,
    interrupted: bool,
}

/// What is needed to answer one request.
#[derive(Clone, Copy)]
struct Answer {
    unique: u64,
    /// What it took from the bounds.
    bytes: u32,
}

impl Session {
    /// On this loop. `agreed`: by another descriptor of the same mount.
    ///
    /// # Errors
    /// The device does not open a queue here.
    pub fn new(
        fuse: &Arc<Fuse>,
        reactor: &Reactor,
        answers: Rc<dyn Answers>,
        agreed: Option<Agreed>,
    ) -> block::Result<Rc<Session>> {
        let queue = fuse.device().open_queue(reactor)?;
        let session = Rc::new(Session {
            fuse: fuse.clone(),
            reactor: reactor.clone(),
            queue,
            machine: RefCell::new(fuse.machine(agreed)),
            answers,
            batch: RefCell::default(),
            words: RefCell::default(),
            tickets: RefCell::default(),
            used: Cell::default(),
            told: Cell::new(agreed.is_some()),
            reader: RefCell::default(),
            events: RefCell::new(Subscription::none()),
        });
        let (weak, device) = (Rc::downgrade(&session), fuse.device().clone());
        *session.events.borrow_mut() = fuse.device().subscribe(
            reactor,
            Box::new(move |_| {
                if let Some(session) = weak.upgrade() {
                    let size = device.limits().size;
                    session.machine.borrow_mut().resize(size);
                }
            }),
        );
        Ok(session)
    }

    /// Takes the packet that is all of the buffer's data. Returns the bytes that are read or written
    /// for it, and whether it was the last one.
    ///
    /// # Errors
    /// It is no packet.
    pub fn packet(self: &Rc<Self>, buf: &mut RecvBuf) -> Result<(u64, bool), Violation> {
        let mut words = self.words.take();
        words.clear();
        let step = self.machine.borrow_mut().input(buf.data(), &mut words)?;
        if !words.is_empty() {
            self.send(|batch| batch.push_head(&words));
        }
        self.words.replace(words);
        let mut bytes = 0;
        let mut last = false;
        match step {
            Step::Serve { unique, command } => bytes = self.serve(unique, command, buf),
            Step::Interrupt { unique } => self.interrupt(unique),
            Step::Destroy => last = true,
            Step::Answer => self.tell_agreed(),
            Step::Nothing => {}
        }
        buf.consume(buf.data().len());
        Ok((bytes, last))
    }

    /// Lets the other descriptors begin, once.
    fn tell_agreed(&self) {
        if !self.told.get()
            && let Some(agreed) = self.machine.borrow().agreed()
        {
            self.told.set(true);
            self.fuse.agree(agreed);
        }
    }

    /// Waits until there is room for one more request of any size.
    pub async fn room(&self) {
        self.wait_until(|used| {
            let bounds = self.fuse.bounds();
            used.requests == 0
                || (used.requests < bounds.requests
                    && used.bytes + u64::from(MAX_WRITE) <= bounds.bytes)
        })
        .await;
    }

    /// Waits until every request is answered.
    pub async fn idle(&self) {
        self.wait_until(|used| used.requests == 0).await;
    }

    async fn wait_until(&self, ready: impl Fn(Used) -> bool) {
        std::future::poll_fn(|cx| {
            if ready(self.used.get()) {
                return Poll::Ready(());
            }
            *self.reader.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn serve(self: &Rc<Self>, unique: u64, command: Command, buf: &mut RecvBuf) -> u64 {
        let bytes = match command {
            Command::Read { len, .. } | Command::Write { len, .. } => len,
            _ => 0,
        };
        let used = self.used.get();
        self.used.set(Used {
            requests: used.requests + 1,
            bytes: used.bytes + u64::from(bytes),
        });
        let answer = Answer { unique, bytes };
        match command {
            Command::Read { offset, len } => {
                let mut req = self.reactor.request(Op::Read, offset, len.into());
                *req.data_mut() = Data::Wanted;
                self.submit(answer, req, |session, answer, done| {
                    session.read_done(answer, done);
                });
            }
            Command::Write { offset, len } => {
                buf.consume(WRITE_HEAD);
                let mut req = self.reactor.request(Op::Write, offset, len.into());
                *req.data_mut() = Data::Iov(buf.take(len as usize).into());
                self.submit(answer, req, move |session, answer, _| {
                    session.fuse.wrote();
                    session.say(answer, &written(len));
                });
            }
            Command::Zero { offset, len, keep } => {
                let mut req = self.reactor.request(Op::WriteZeroes, offset, len);
                req.set_flags(if keep { Flags::NO_HOLE } else { Flags::NONE });
                self.submit(answer, req, |session, answer, _| {
                    session.fuse.wrote();
                    session.say(answer, &[]);
                });
            }
            Command::Flush { closing } => self.flush(answer, closing),
            Command::Seek { offset, data } => self.seek(answer, offset, data),
        }
        bytes.into()
    }

    /// Submits a request; `then` answers if it was done.
    fn submit(
        self: &Rc<Self>,
        answer: Answer,
        mut req: Request,
        then: impl FnOnce(&Session, Answer, &mut Completed) + 'static,
    ) {
        self.can_be_interrupted(answer, Some(req.ticket()));
        let session = self.clone();
        req.on_complete(move |done| match done.error().map(block::IoError::errno) {
            None => then(&session, answer, done),
            Some(error) => session.refuse(answer, error),
        });
        self.queue.submit(req);
    }

    fn can_be_interrupted(&self, answer: Answer, ticket: Option<Ticket>) {
        let asked = Asked {
            ticket,
            interrupted: false,
        };
        self.tickets.borrow_mut().insert(answer.unique, asked);
    }

    fn read_done(&self, answer: Answer, done: &mut Completed) {
        let Data::Given(found) = std::mem::take(done.data_mut()) else {
            // It was asked for nothing else.
            return self.refuse(answer, Errno::EIO);
        };
        self.end(answer);
        self.send(|batch| {
            batch.push_head(&out_header(answer.unique, 0, found.len() as usize));
            batch.push_segments(found);
        });
    }

    /// Makes durable what was written. A flush that has failed once fails for ever: what it was to
    /// cover may be lost, and nobody can tell what was.
    fn flush(self: &Rc<Self>, answer: Answer, closing: bool) {
        if let Some(error) = self.fuse.failed_flush() {
            return self.refuse(answer, error);
        }
        let Some(covered) = self.fuse.to_flush(closing) else {
            return self.say(answer, &[]);
        };
        let mut req = self.reactor.request(Op::Flush, 0, 0);
        self.can_be_interrupted(answer, Some(req.ticket()));
        let session = self.clone();
        req.on_complete(move |done| {
            let error = done.error().map(block::IoError::errno);
            session.fuse.flushed(covered, error);
            match error {
                None => session.say(answer, &[]),
                Some(error) => session.refuse(answer, error),
            }
        });
        self.queue.submit(req);
    }

    /// Finds data or a hole, step by step.
    fn seek(self: &Rc<Self>, answer: Answer, offset: u64, data: bool) {
        let (size, knows) = {
            let machine = self.machine.borrow();
            (machine.size(), machine.knows_extents())
        };
        if !knows {
            // All is data, up to the hole that every file ends with.
            let at = if data { offset } else { size };
            return self.say(answer, &found(at));
        }
        self.can_be_interrupted(answer, None);
        let session = self.clone();
        self.reactor.spawn(async move {
            match session.sought(answer.unique, offset, size, data).await {
                Ok(at) => session.say(answer, &found(at)),
                Err(error) => session.refuse(answer, error),
            }
        });
    }

    async fn sought(&self, unique: u64, offset: u64, size: u64, data: bool) -> Result<u64, Errno> {
        let mut at = offset;
        while at < size {
            if self.is_interrupted(unique) {
                return Err(Errno::new(errno::EINTR));
            }
            let req = self.reactor.request(Op::Extents, at, size - at);
            let done = self.queue.call(req).await;
            if let Some(error) = done.error() {
                return Err(error.errno());
            }
            let before = at;
            let list = done.data().as_extents();
            for extent in list.map(|list| list.allocation()).unwrap_or_default() {
                if ExtentFlags(extent.flags).is_zero() != data {
                    return Ok(at.min(size));
                }
                at = at.saturating_add(extent.len);
            }
            if at == before {
                return Err(Errno::EIO);
            }
        }
        match data {
            true => Err(Errno::new(errno::ENXIO)),
            false => Ok(size),
        }
    }

    fn is_interrupted(&self, unique: u64) -> bool {
        let tickets = self.tickets.borrow();
        tickets.get(&unique).is_some_and(|asked| asked.interrupted)
    }

    /// A layer that holds the request back gives it up; what is on its way goes on.
    fn interrupt(&self, unique: u64) {
        let mut tickets = self.tickets.borrow_mut();
        let Some(asked) = tickets.get_mut(&unique) else {
            return;
        };
        asked.interrupted = true;
        let ticket = asked.ticket.take();
        drop(tickets);
        if let Some(ticket) = ticket {
            ticket.cancel();
        }
    }

    /// Answers with a success and these bytes.
    fn say(&self, answer: Answer, body: &[u8]) {
        self.end(answer);
        self.send(|batch| {
            batch.push_head(&out_header(answer.unique, 0, body.len()));
            batch.push_head(body);
        });
    }

    /// Answers with an error.
    fn refuse(&self, answer: Answer, error: Errno) {
        Counters::add(&self.fuse.counters().errors);
        let error = match self.end(answer) {
            true => errno::EINTR,
            false => of_device(error.get()),
        };
        self.send(|batch| batch.push_head(&out_header(answer.unique, error, 0)));
    }

    /// A request ends. Returns whether it was interrupted.
    fn end(&self, answer: Answer) -> bool {
        let asked = self.tickets.borrow_mut().remove(&answer.unique);
        let used = self.used.get();
        self.used.set(Used {
            requests: used.requests - 1,
            bytes: used.bytes - u64::from(answer.bytes),
        });
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        asked.is_some_and(|asked| asked.interrupted)
    }

    fn send(&self, write: impl FnOnce(&mut SendBatch)) {
        Counters::add(&self.fuse.counters().answers);
        let mut batch = self.batch.take();
        write(&mut batch);
        self.answers.answer(&batch);
        batch.clear();
        self.batch.replace(batch);
    }
}
