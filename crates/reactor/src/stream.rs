//! Connected streams: sockets, pipes, simulated connections.
//!
//! *Sending is queued.* [`Stream::send`] takes the batch and is ready as soon as the stream has
//! nothing older in flight: the bytes go to the kernel when the turn ends, together with whatever
//! else the loop submits, and a failure is told by the next call. That is what makes one system
//! call per request possible: reply, next receive and wait in one. [`Stream::flush`] waits until
//! the kernel has everything.
//!
//! *Receiving is exclusive.* One receive at a time per stream. A receive that is dropped may lose
//! the bytes it had got; close such a stream.
//!
//! *Closing.* The descriptor is closed when the last handle is gone and the kernel has no operation
//! on it any more; batches that were taken are still sent.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    rc::Rc,
    task::{Context, Poll, Waker},
};

use block::{Iov, RecvBuf};
use rustix::{
    fs::{FileType, OFlags, fcntl_getfl, fcntl_setfl, fstat},
    net::{Shutdown, SocketAddrAny, sockopt},
};

use crate::{
    batch::SendBatch,
    io::{Driver, Io, IoInner, Step},
    sys,
    table::{Key, Op},
};

/// A connected stream. Cheap to clone; stays on its loop's thread.
#[derive(Clone)]
pub struct Stream(Kind);

#[derive(Clone)]
enum Kind {
    Kernel(Rc<Sock>),
    Other(Rc<dyn Endpoint>),
}

/// A stream that is not the kernel's: the simulated loop's connections.
pub(crate) trait Endpoint {
    /// Receives into the spare room: `Ok(0)` is the end.
    fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut RecvBuf) -> Poll<io::Result<usize>>;
    /// Receives into `iov[at..]`: `Ok(0)` is the end.
    fn poll_fill(&self, cx: &mut Context<'_>, iov: &Iov, at: usize) -> Poll<io::Result<usize>>;
    /// Ready when it can take a batch, and once more to tell that it failed.
    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Takes a batch and gives an empty one for it. Called when ready only.
    fn take(&self, batch: SendBatch) -> SendBatch;
    /// Ready when everything taken is sent.
    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Ends both directions.
    fn shutdown(&self);
    /// Who is at the other end.
    fn peer(&self) -> String;
}

/// A stream of the kernel's.
pub(crate) struct Sock {
    io: Rc<IoInner>,
    recv: OwnedFd,
    /// Where to send, if that is another descriptor.
    send: Option<OwnedFd>,
    /// Socket calls can be used on: receiving, sending.
    sockets: (bool, bool),
    pub(crate) receiving: Cell<bool>,
    /// The receive buffer of the socket is thought to be empty.
    pub(crate) drained: Cell<bool>,
    /// Sends that are better not tried silently: the peer is slow.
    pub(crate) slow: Cell<u8>,
    out: RefCell<Out>,
    pub(crate) ready: Readiness,
}

#[derive(Default)]
struct Out {
    in_flight: bool,
    spare: Option<SendBatch>,
    waiting: Vec<Waker>,
    failed: Option<i32>,
}

/// What the poll driver knows about a stream.
#[derive(Default)]
pub(crate) struct Readiness {
    pub(crate) token: Cell<Option<usize>>,
    pub(crate) readable: Cell<bool>,
    pub(crate) writable: Cell<bool>,
    pub(crate) hung_up: Cell<bool>,
    pub(crate) recv: Cell<Option<Key>>,
    pub(crate) send: Cell<Option<Key>>,
}

/// How many sends a slow peer's stream waits before it tries a silent one again.
const SLOW_SENDS: u8 = 8;

impl Stream {
    pub(crate) fn new(
        io: &Rc<IoInner>,
        recv: OwnedFd,
        send: Option<OwnedFd>,
    ) -> io::Result<Stream> {
        let receives = is_socket(&recv)?;
        let sends = send.as_ref().map_or(Ok(receives), is_socket)?;
        let sock = Rc::new(Sock {
            io: io.clone(),
            recv,
            send,
            sockets: (receives, sends),
            receiving: Cell::new(false),
            drained: Cell::new(true),
            slow: Cell::new(0),
            out: RefCell::default(),
            ready: Readiness::default(),
        });
        // A ring waits for descriptors that wait; epoll needs such that do not.
        let nonblocking = matches!(io.driver, Driver::Poll(_));
        set_nonblocking(&sock.recv, nonblocking)?;
        if let Some(send) = &sock.send {
            set_nonblocking(send, nonblocking)?;
        }
        if let Driver::Poll(poller) = &io.driver {
            poller.add(&sock)?;
        }
        Ok(Stream(Kind::Kernel(sock)))
    }

    /// A simulated connection.
    #[allow(dead_code, reason = "made by the simulated loop")]
    pub(crate) fn of_endpoint(endpoint: Rc<dyn Endpoint>) -> Stream {
        Stream(Kind::Other(endpoint))
    }

    /// Receives at least one byte into the spare room. `Ok(0)` is the end of the stream. Panics if
    /// there is no room, or another receive is under way.
    pub async fn recv(&self, mut buf: RecvBuf) -> (RecvBuf, io::Result<usize>) {
        assert!(buf.room() > 0, "a receive needs room");
        let sock = match &self.0 {
            Kind::Kernel(sock) => sock,
            Kind::Other(end) => {
                let result = poll_fn(|cx| end.poll_recv(cx, &mut buf)).await;
                return (buf, result);
            }
        };
        let _one = Receiving::new(sock);
        let io = Io(sock.io.clone());
        let (Op::Recv(_, mut buf), result) = io.begin(Op::Recv(sock.clone(), buf)).await else {
            unreachable!("an operation comes back as it was begun")
        };
        let result = sys::check(result);
        if let Ok(n) = result {
            sock.drained.set(n < buf.room());
            buf.filled(n);
        }
        (buf, result)
    }

    /// Fills `iov` completely from byte `at` on. Fails with `UnexpectedEof` if the stream ends
    /// before. Panics if another receive is under way.
    pub async fn recv_exact(&self, iov: Iov, at: usize) -> (Iov, io::Result<()>) {
        assert!(at <= iov.len(), "outside the buffer");
        if at == iov.len() {
            return (iov, Ok(()));
        }
        let sock = match &self.0 {
            Kind::Kernel(sock) => sock,
            Kind::Other(end) => {
                let result = fill(&**end, &iov, at).await;
                return (iov, result);
            }
        };
        let _one = Receiving::new(sock);
        let io = Io(sock.io.clone());
        let (Op::Fill(_, iov, _), result) = io.begin(Op::Fill(sock.clone(), iov, at)).await else {
            unreachable!("an operation comes back as it was begun")
        };
        let result = match result {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            result => sys::check(result).map(drop),
        };
        (iov, result)
    }

    /// Says what the caller knows: the next receive will (not) have to wait. The stream finds out
    /// by itself when it was the last receive that emptied the socket.
    pub fn recv_hint(&self, empty: bool) {
        if let Kind::Kernel(sock) = &self.0 {
            sock.drained.set(empty);
        }
    }

    /// Sends everything, in order; see the [module](self) for when it is ready. Gives an empty
    /// batch back, not always the same. The error is that of this batch or of an older one, and
    /// stays: a stream that failed is shut down in both directions.
    pub async fn send(&self, batch: SendBatch) -> (SendBatch, io::Result<()>) {
        let mut batch = Some(batch);
        poll_fn(|cx| {
            let result = match self.poll_ready(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(result) => result,
            };
            let mut batch = batch.take().expect("polled until it was ready");
            match result {
                Ok(()) => batch = self.take(batch),
                Err(_) => batch.clear(),
            }
            Poll::Ready((batch, result))
        })
        .await
    }

    /// Sends without waiting: for doorbells. Takes the batch and gives an empty one, or gives the
    /// batch back (`Err`) because an older one is in flight; then a task awaits [`Stream::send`].
    /// On a stream that failed the batch is forgotten; receives end there.
    pub fn try_send(&self, mut batch: SendBatch) -> Result<SendBatch, SendBatch> {
        let mut cx = Context::from_waker(Waker::noop());
        let ready = match &self.0 {
            Kind::Kernel(sock) => sock.ready_now(),
            Kind::Other(end) => end.poll_ready(&mut cx),
        };
        match ready {
            Poll::Pending => Err(batch),
            Poll::Ready(Ok(())) => Ok(self.take(batch)),
            Poll::Ready(Err(_)) => {
                batch.clear();
                Ok(batch)
            }
        }
    }

    /// Waits until the kernel has everything that was to be sent.
    pub async fn flush(&self) -> io::Result<()> {
        poll_fn(|cx| match &self.0 {
            Kind::Kernel(sock) => sock.poll_ready(cx),
            Kind::Other(end) => end.poll_flush(cx),
        })
        .await
    }

    /// Ends both directions: a receive under way ends, and so does a send. What was sent before
    /// and the kernel can take at once still goes.
    pub fn shutdown(&self) {
        match &self.0 {
            Kind::Kernel(sock) => sock.shutdown(),
            Kind::Other(end) => end.shutdown(),
        }
    }

    /// Asks for socket buffers of these sizes, in bytes; the kernel may give less. 0 leaves one
    /// as it is.
    pub fn set_buffers(&self, send: usize, recv: usize) {
        let Kind::Kernel(sock) = &self.0 else { return };
        if send > 0 && sock.sockets.1 {
            let fd = sock.send_fd();
            let forced = sockopt::set_socket_send_buffer_size_force(fd, send);
            let _ = forced.or_else(|_| sockopt::set_socket_send_buffer_size(fd, send));
        }
        if recv > 0 && sock.sockets.0 {
            let forced = sockopt::set_socket_recv_buffer_size_force(&sock.recv, recv);
            let _ = forced.or_else(|_| sockopt::set_socket_recv_buffer_size(&sock.recv, recv));
        }
    }

    /// TCP only: send small segments at once (TCP_NODELAY, tcp(7)).
    pub fn set_nodelay(&self, on: bool) {
        if let Kind::Kernel(sock) = &self.0 {
            // Anything but TCP refuses, and has no delay either.
            let _ = sockopt::set_tcp_nodelay(sock.send_fd(), on);
        }
    }

    /// TCP only: find out when the other end is gone without a word (SO_KEEPALIVE, socket(7)).
    pub fn set_keepalive(&self, on: bool) {
        if let Kind::Kernel(sock) = &self.0 {
            // Anything but a socket refuses; other sockets take it without effect.
            let _ = sockopt::set_socket_keepalive(sock.send_fd(), on);
        }
    }

    /// Who is at the other end: `ADDRESS:PORT`, a socket's path, or `unix`, `pipe`.
    pub fn peer(&self) -> String {
        match &self.0 {
            Kind::Kernel(sock) if sock.sockets.0 => peer_of(sock.recv.as_fd()),
            Kind::Kernel(_) => "pipe".into(),
            Kind::Other(end) => end.peer(),
        }
    }

    /// Is it a Unix socket?
    pub fn is_unix(&self) -> bool {
        let Kind::Kernel(sock) = &self.0 else {
            return false;
        };
        sockopt::socket_domain(&sock.recv).is_ok_and(|d| d == rustix::net::AddressFamily::UNIX)
    }

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.0 {
            Kind::Kernel(sock) => sock.poll_ready(cx),
            Kind::Other(end) => end.poll_ready(cx),
        }
    }

    fn take(&self, batch: SendBatch) -> SendBatch {
        match &self.0 {
            _ if batch.is_empty() => batch,
            Kind::Kernel(sock) => Sock::take(sock, batch),
            Kind::Other(end) => end.take(batch),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Kind::Kernel(sock) = &self.0 {
            // The last handle, beside the send's own: closing waits for the send's end.
            if sock.out.borrow().in_flight && Rc::strong_count(sock) == 2 {
                sock.io.hurry.set(true);
            }
        }
    }
}

async fn fill(end: &dyn Endpoint, iov: &Iov, mut at: usize) -> io::Result<()> {
    while at < iov.len() {
        match poll_fn(|cx| end.poll_fill(cx, iov, at)).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => at += n,
        }
    }
    Ok(())
}

/// One receive at a time.
struct Receiving<'a>(&'a Sock);

impl<'a> Receiving<'a> {
    fn new(sock: &'a Sock) -> Receiving<'a> {
        assert!(!sock.receiving.replace(true), "one receive at a time");
        Receiving(sock)
    }
}

impl Drop for Receiving<'_> {
    fn drop(&mut self) {
        self.0.receiving.set(false);
    }
}

impl Sock {
    pub(crate) fn recv_raw(&self) -> RawFd {
        self.recv.as_raw_fd()
    }

    pub(crate) fn send_raw(&self) -> RawFd {
        self.send_fd().as_raw_fd()
    }

    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.recv.as_fd()).chain(self.send.as_ref().map(|fd| fd.as_fd()))
    }

    pub(crate) fn recv_is_socket(&self) -> bool {
        self.sockets.0
    }

    pub(crate) fn send_is_socket(&self) -> bool {
        self.sockets.1
    }

    fn send_fd(&self) -> BorrowedFd<'_> {
        self.send.as_ref().unwrap_or(&self.recv).as_fd()
    }

    /// Without registering anybody.
    fn ready_now(&self) -> Poll<io::Result<()>> {
        let out = self.out.borrow();
        match out.failed {
            Some(errno) => Poll::Ready(Err(io::Error::from_raw_os_error(errno))),
            None if out.in_flight => Poll::Pending,
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ready = self.ready_now();
        if ready.is_pending() {
            self.io.hurry.set(true);
            let mut out = self.out.borrow_mut();
            if !out.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                out.waiting.push(cx.waker().clone());
            }
        }
        ready
    }

    fn take(self: &Rc<Sock>, batch: SendBatch) -> SendBatch {
        let spare = {
            let mut out = self.out.borrow_mut();
            out.in_flight = true;
            out.spare.take()
        };
        self.io.begin(Op::Send(self.clone(), batch));
        spare.unwrap_or_default()
    }

    /// A send reports. `result` is a count, or a negative error number.
    pub(crate) fn sent(&self, batch: &mut SendBatch, silent: &mut bool, result: i32) -> Step {
        if std::mem::take(silent) && result != i32::MAX {
            self.slow.set(SLOW_SENDS);
        }
        match result {
            // A silent send that did not report: all of its window went, and its window was all.
            i32::MAX => Step::Done(0),
            n if n > 0 => {
                batch.advance(n as usize);
                if batch.is_sent() {
                    Step::Done(0)
                } else {
                    Step::Again
                }
            }
            0 => Step::Done(-libc::EPIPE),
            e if e == -libc::EAGAIN || e == -libc::EINTR => Step::Again,
            e => Step::Done(e),
        }
    }

    /// A send is over: its batch is the next one's spare.
    pub(crate) fn sent_all(&self, mut batch: SendBatch, result: i32) {
        batch.clear();
        let waiting = {
            let mut out = self.out.borrow_mut();
            out.in_flight = false;
            out.spare = Some(batch);
            if result < 0 {
                out.failed = Some(-result);
            }
            std::mem::take(&mut out.waiting)
        };
        if result < 0 {
            self.end_both();
        }
        if !waiting.is_empty() {
            self.wake(waiting);
        }
    }

    fn wake(&self, mut waiting: Vec<Waker>) {
        waiting.drain(..).for_each(Waker::wake);
        let mut out = self.out.borrow_mut();
        if out.waiting.is_empty() {
            out.waiting = waiting;
        }
    }

    /// A receive that fills a buffer reports.
    pub(crate) fn filled(iov: &Iov, at: &mut usize, result: i32) -> Step {
        match result {
            n if n > 0 => {
                *at += n as usize;
                if *at == iov.len() {
                    Step::Done(1)
                } else {
                    Step::Again
                }
            }
            e if e == -libc::EAGAIN || e == -libc::EINTR => Step::Again,
            end => Step::Done(end),
        }
    }

    fn shutdown(&self) {
        // What was queued in this turn has to reach the kernel first.
        if let Driver::Uring(uring) = &self.io.driver {
            uring.submit();
        }
        self.end_both();
    }

    fn end_both(&self) {
        // Not a socket, or not connected any more: then there is nothing to end.
        let _ = rustix::net::shutdown(&self.recv, Shutdown::Both);
        let _ = rustix::net::shutdown(self.send_fd(), Shutdown::Both);
    }
}

impl Drop for Sock {
    fn drop(&mut self) {
        if let Driver::Poll(poller) = &self.io.driver {
            poller.remove(self);
        }
    }
}

fn is_socket(fd: &OwnedFd) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(fstat(fd)?.st_mode) == FileType::Socket)
}

fn set_nonblocking(fd: &OwnedFd, on: bool) -> io::Result<()> {
    let old = fcntl_getfl(fd)?;
    let mut new = old;
    new.set(OFlags::NONBLOCK, on);
    if new != old {
        fcntl_setfl(fd, new)?;
    }
    Ok(())
}

/// Who is at the other end of a socket.
pub(crate) fn peer_of(fd: BorrowedFd<'_>) -> String {
    match rustix::net::getpeername(fd) {
        Ok(Some(address)) => name_of(&address),
        _ => "unix".into(),
    }
}

fn name_of(address: &SocketAddrAny) -> String {
    if let Ok(ip) = SocketAddr::try_from(address.clone()) {
        return ip.to_string();
    }
    match rustix::net::SocketAddrUnix::try_from(address.clone()) {
        Ok(unix) => match unix.path() {
            Some(path) => path.to_string_lossy().into_owned(),
            None => "unix".into(),
        },
        Err(_) => "socket".into(),
    }
}
