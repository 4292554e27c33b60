//! A stream with TLS over it.
//!
//! The session is a machine over bytes, so its work can be done on any thread. What takes longer
//! than the way to another thread and back is done there (the handshake, many records at once), and
//! the loop serves others meanwhile; what is small is done at once, in the same turn. While the
//! session is away, nobody can receive or send here, and who wants to waits for it.
//!
//! A turn's replies are still one batch: gathered, encrypted in one pass, sent by one system call.
//! What is gathered is copied, because records are made of bytes in a row that nobody changes; it is
//! counted as a copy, and so is what is received.
//!
//! *Bounds.* Ciphertext is received only when all plaintext was taken, one buffer at a time; and
//! sent one piece at a time. So a client that does not read, or sends without end, costs no more
//! than a few pieces beside the credits of its connection.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    rc::{Rc, Weak},
    task::{Poll, Waker},
};

use block::{Counters as Copies, Iov, Reactor, RecvBuf, SharedBuf, SharedMem};
use reactor::{SendBatch, Stream};
use tls::{Peer, Session};

use crate::{SMALL_BUFFER, Sizing};

/// Bytes that are encrypted or decrypted at once, in the loop: about as long as the way to another
/// thread and back takes.
const INLINE: usize = 32 << 10;

/// Bytes that are encrypted in one go on another thread.
const PIECE: usize = 256 << 10;

/// Ciphertext up to this length is copied to the batch's own memory.
const COPIED: usize = 16 << 10;

/// A stream with TLS over it.
pub struct Encrypted {
    reactor: Reactor,
    stream: Stream,
    /// Not here while another thread works with it.
    session: RefCell<Option<Session>>,
    /// It did not come back.
    lost: Cell<bool>,
    /// Who waits for it.
    waiting: RefCell<Vec<Waker>>,
    /// Where ciphertext is received.
    received: RefCell<Option<RecvBuf>>,
    sizing: Cell<Sizing>,
    /// The next batch to send from, empty.
    spare: RefCell<SendBatch>,
    this: Weak<Encrypted>,
}

/// A step of the handshake. The peer's first records may come right behind its last.
fn shake(session: &mut Session) {
    if session.handshake().is_ok_and(|done| done) {
        decrypt(session);
    }
}

/// What fails stays in the session, and is seen when all that came before was taken.
fn decrypt(session: &mut Session) {
    let _ = session.decrypt();
}

fn encrypt(session: &mut Session) {
    let _ = session.encrypt();
}

impl Encrypted {
    /// Runs the handshake on a stream. What fails is told to the peer first.
    pub(crate) async fn start(
        reactor: &Reactor,
        stream: Stream,
        session: Session,
    ) -> io::Result<(Rc<Encrypted>, Peer)> {
        let mut speaks = session.speaks_first();
        let encrypted = Rc::new_cyclic(|this| Encrypted {
            reactor: reactor.clone(),
            stream,
            session: RefCell::new(Some(session)),
            lost: Cell::new(false),
            waiting: RefCell::default(),
            received: RefCell::default(),
            sizing: Cell::default(),
            spare: RefCell::default(),
            this: this.clone(),
        });
        loop {
            if !std::mem::take(&mut speaks) && encrypted.feed().await? == 0 {
                let why = "the connection was closed during the TLS handshake";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
            }
            encrypted.work(true, shake).await?;
            encrypted.send_outgoing().await?;
            let session = encrypted.session.borrow();
            let Some(session) = &*session else { continue };
            if let Some(error) = session.failure() {
                return Err(io::Error::other(error.clone()));
            }
            if session.is_done() {
                let peer = session.peer();
                tracing::debug!("{}: {}", encrypted.stream.peer(), session.agreed());
                return Ok((encrypted.clone(), peer));
            }
        }
    }

    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }

    pub(crate) async fn recv(&self, mut buf: RecvBuf) -> (RecvBuf, io::Result<usize>) {
        assert!(buf.room() > 0, "a receive needs room");
        let received = self.receive(|bytes| buf.write(bytes)).await;
        (buf, received)
    }

    pub(crate) async fn recv_exact(&self, iov: Iov, mut at: usize) -> (Iov, io::Result<()>) {
        while at < iov.len() {
            let received = self.receive(|bytes| {
                let n = bytes.len().min(iov.len() - at);
                iov.write(at, &bytes[..n]);
                n
            });
            match received.await {
                Ok(0) => return (iov, Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(n) => at += n,
                Err(error) => return (iov, Err(error)),
            }
        }
        (iov, Ok(()))
    }

    /// Takes a batch that is encrypted in no time, if nothing stands in the way.
    pub(crate) fn try_send(&self, mut batch: SendBatch) -> Result<SendBatch, SendBatch> {
        let mut session = self.session.borrow_mut();
        let Some(session) = session.as_mut() else {
            return Err(batch);
        };
        if batch.len() > INLINE as u64 || !self.is_ready() {
            return Err(batch);
        }
        self.gather(session, &mut batch);
        encrypt(session);
        if session.failure().is_some() {
            self.stream.shutdown();
        }
        self.try_send_outgoing(session);
        batch.clear();
        Ok(batch)
    }

    /// Encrypts and sends a batch piece by piece. Ready when the stream has taken the last.
    pub(crate) async fn send(&self, mut batch: SendBatch) -> (SendBatch, io::Result<()>) {
        let sent = self.send_pieces(&mut batch).await;
        batch.clear();
        (batch, sent)
    }

    /// Ends the session, and says so to the client if it can be said without waiting.
    pub(crate) fn close(&self) {
        if let Some(session) = self.session.borrow_mut().as_mut() {
            session.close();
            if self.is_ready() {
                self.try_send_outgoing(session);
            }
        }
    }

    async fn send_pieces(&self, batch: &mut SendBatch) -> io::Result<()> {
        loop {
            self.present().await?;
            let gathered = match self.session.borrow_mut().as_mut() {
                Some(session) => self.gather(session, batch),
                None => continue,
            };
            if gathered == 0 {
                return Ok(());
            }
            self.work(gathered > INLINE, encrypt).await?;
            self.send_outgoing().await?;
            if let Some(error) = self.failure() {
                return Err(error);
            }
        }
    }

    /// Copies a piece of a batch to where it is encrypted. Returns its length.
    fn gather(&self, session: &mut Session, batch: &mut SendBatch) -> usize {
        let gathered = batch.drain_to(session.plaintext(), PIECE);
        self.count_copy(gathered);
        gathered
    }

    /// Sends what the session has to send.
    async fn send_outgoing(&self) -> io::Result<()> {
        self.present().await?;
        let batch = match self.session.borrow_mut().as_mut() {
            Some(session) => self.outgoing(session),
            None => return Ok(()),
        };
        let (spare, sent) = self.stream.send(batch).await;
        self.spare.replace(spare);
        sent
    }

    /// The same without waiting, on a stream that is ready.
    fn try_send_outgoing(&self, session: &mut Session) {
        let batch = self.outgoing(session);
        let (Ok(spare) | Err(spare)) = self.stream.try_send(batch);
        self.spare.replace(spare);
    }

    fn outgoing(&self, session: &mut Session) -> SendBatch {
        let mut batch = self.spare.take();
        let len = session.outgoing().len();
        if len <= COPIED {
            batch.push_head(session.outgoing());
            session.clear_outgoing();
        } else {
            let buf = SharedBuf::from_vec(session.take_outgoing());
            batch.push_mem(SharedMem::of_shared(buf, 0, len));
        }
        batch
    }

    /// The stream takes a batch at once.
    fn is_ready(&self) -> bool {
        // An empty one is given back at once, and only by a stream that would take another.
        self.stream.try_send(SendBatch::new()).is_ok()
    }

    /// Hands plaintext to `take`, which says how much of it it wanted. `Ok(0)` is the end.
    async fn receive(&self, mut take: impl FnMut(&[u8]) -> usize) -> io::Result<usize> {
        loop {
            self.present().await?;
            if let Some(session) = self.session.borrow_mut().as_mut() {
                if !session.received().is_empty() {
                    let n = take(session.received());
                    session.consume(n);
                    self.count_copy(n);
                    return Ok(n);
                }
                if session.is_closed() {
                    return Ok(0);
                }
            }
            if let Some(error) = self.failure() {
                tracing::debug!("{}: {error}", self.stream.peer());
                self.close();
                return Err(error);
            }
            let fed = self.feed().await?;
            if fed == 0 {
                return Ok(0);
            }
            self.work(fed > INLINE, decrypt).await?;
        }
    }

    /// Receives ciphertext and feeds it to the session. Returns how much; 0 is the end of the stream.
    async fn feed(&self) -> io::Result<usize> {
        let mut sizing = self.sizing.get();
        let known = self.received.take();
        let capacity = known.as_ref().map_or(SMALL_BUFFER, RecvBuf::capacity);
        let wanted = sizing.wanted(capacity);
        let buf = known.filter(|_| wanted == capacity).unwrap_or_else(|| {
            sizing.replaced();
            RecvBuf::new(self.reactor.chunk(wanted))
        });
        let room = buf.room();
        let (mut buf, received) = self.stream.recv(buf).await;
        let n = received?;
        sizing.received(n, room);
        self.sizing.set(sizing);
        self.present().await?;
        if let Some(session) = self.session.borrow_mut().as_mut() {
            if wanted < capacity {
                session.trim();
            }
            session.feed(buf.data());
        }
        buf.consume(n);
        buf.rewind();
        self.received.replace(Some(buf));
        Ok(n)
    }

    /// Works with the session: here, or on another thread if it is `much`.
    async fn work(&self, much: bool, work: fn(&mut Session)) -> io::Result<()> {
        self.present().await?;
        if !much {
            if let Some(session) = self.session.borrow_mut().as_mut() {
                work(session);
            }
            return Ok(());
        }
        let Some(mut session) = self.session.take() else {
            return Err(lost());
        };
        let job = self.reactor.cpu(move || {
            work(&mut session);
            session
        });
        // A task of its own: the session has to come back even if nobody waits here any more.
        let this = self.this.upgrade().expect("we are in it");
        self.reactor.spawn(async move {
            match job.await {
                Ok(session) => drop(this.session.replace(Some(session))),
                Err(_panicked) => this.lost.set(true),
            }
            let waiting = this.waiting.take();
            waiting.into_iter().for_each(Waker::wake);
        });
        self.present().await
    }

    /// Waits until the session is here.
    async fn present(&self) -> io::Result<()> {
        poll_fn(|cx| {
            if self.session.borrow().is_some() {
                return Poll::Ready(Ok(()));
            }
            if self.lost.get() {
                return Poll::Ready(Err(lost()));
            }
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.iter().any(|known| known.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    /// Why the session is over, if it is.
    fn failure(&self) -> Option<io::Error> {
        let session = self.session.borrow();
        let error = session.as_ref()?.failure()?.clone();
        Some(io::Error::other(error))
    }

    fn count_copy(&self, bytes: usize) {
        Copies::add(&self.reactor.counters().bytes_copied, bytes as u64);
    }
}

fn lost() -> io::Error {
    io::Error::other("a TLS session was lost in a failure")
}
