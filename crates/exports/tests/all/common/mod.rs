//! An NBD client as a device, so that the suites of the test kit run through a server: each queue
//! is a connection. Plain and slow on purpose; the tests are about the other end.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    io,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use block::{
    Data, Device, Doorbell, Errno, Error, ErrorKind, ExtentFlags, ExtentList, Flags, IoError,
    Limits, Local, Op, OpSet, Outcome, Piece, Queue, Reactor, RecvBuf, Request, Result, Segments,
    SharedBuf, SharedMem, Support,
};
use nbd::{
    client::{
        ClientOptions, Connected, Event, Goal, Handshake, Pending, Replies, Reply, Request as Wire,
        encode_request,
    },
    errno::linux_errno,
    proto,
};
use reactor::{SendBatch, Stream};

/// Makes a connection on a reactor.
pub type Connect = Arc<dyn Fn(&Reactor) -> io::Result<Stream> + Send + Sync>;

/// A disk behind an NBD server.
pub struct NbdDisk {
    connect: Connect,
    options: ClientOptions,
    limits: Arc<Limits>,
    open: Arc<AtomicUsize>,
}

impl NbdDisk {
    /// Asks the server what the export is like, and leaves again.
    pub async fn probe(
        reactor: &Reactor,
        connect: Connect,
        options: ClientOptions,
    ) -> Arc<NbdDisk> {
        let stream = connect(reactor).expect("the server is there");
        let (connected, _) = shake(reactor, &stream, options.clone())
            .await
            .expect("it speaks NBD");
        let request = Wire {
            command: proto::CMD_DISC,
            flags: 0,
            cookie: 0,
            offset: 0,
            length: 0,
        };
        let goodbye = encode_request(connected.mode, &request).expect("it fits");
        let mut batch = SendBatch::new();
        batch.push_head(&goodbye);
        stream.send(batch).await.1.expect("it still listens");
        stream.flush().await.expect("it still listens");
        let limits = Arc::new(limits_of(&connected));
        Arc::new(NbdDisk {
            connect,
            options,
            limits,
            open: Arc::default(),
        })
    }
}

fn limits_of(connected: &Connected) -> Limits {
    let has = |flag| connected.flags & flag != 0;
    let mut ops = OpSet::of(&[Op::Read]);
    let writable = !has(proto::FLAG_READ_ONLY);
    for (offered, op) in [
        (writable, Op::Write),
        (has(proto::FLAG_SEND_FLUSH), Op::Flush),
        (writable && has(proto::FLAG_SEND_TRIM), Op::Discard),
        (
            writable && has(proto::FLAG_SEND_WRITE_ZEROES),
            Op::WriteZeroes,
        ),
        (has(proto::FLAG_SEND_CACHE), Op::Cache),
        (!connected.contexts.is_empty(), Op::Extents),
    ] {
        if offered {
            ops = ops.with(op);
        }
    }
    let mut limits = Limits::new(connected.size, ops);
    if has(proto::FLAG_SEND_FUA) {
        limits.fua = Support::Native;
    }
    limits.fast_zero = has(proto::FLAG_SEND_FAST_ZERO);
    limits.multi_conn = has(proto::FLAG_CAN_MULTI_CONN);
    if !connected.mode.is_extended() {
        limits.max_range = u64::from(u32::MAX) & !0xffff;
    }
    limits
}

/// Haggles. Returns what was agreed on and what was received beyond.
pub async fn shake(
    reactor: &Reactor,
    stream: &Stream,
    options: ClientOptions,
) -> Result<(Connected, RecvBuf)> {
    let fail = |why: String| Error::new(ErrorKind::Io, why);
    let mut machine = Handshake::new(options).map_err(|e| fail(e.to_string()))?;
    let mut buf = RecvBuf::new(reactor.chunk(64 << 10));
    loop {
        buf.rewind();
        let (back, received) = stream.recv(buf).await;
        buf = back;
        if received.as_ref().map_or(0, |n| *n) == 0 {
            return Err(fail(format!("the server left: {received:?}")));
        }
        loop {
            let mut out = Vec::new();
            let step = machine.input(buf.data(), &mut out);
            send(stream, out).await;
            let (n, event) = step.map_err(|e| fail(e.to_string()))?;
            buf.consume(n);
            match event {
                Some(Event::Connected(connected)) => return Ok((connected, buf)),
                Some(Event::Info(connected)) => return Ok((connected, buf)),
                Some(Event::Finished) => return Err(fail("finished without an export".into())),
                Some(_) => {}
                None => break,
            }
        }
    }
}

/// Sends bytes.
pub async fn send(stream: &Stream, bytes: Vec<u8>) {
    if !bytes.is_empty() {
        let mut batch = SendBatch::new();
        push(&mut batch, bytes);
        let _ = stream.send(batch).await;
    }
}

fn push(batch: &mut SendBatch, bytes: Vec<u8>) {
    let len = bytes.len();
    batch.push_mem(SharedMem::of_shared(SharedBuf::from_vec(bytes), 0, len));
}

impl Device for NbdDisk {
    fn limits(&self) -> Arc<Limits> {
        self.limits.clone()
    }

    fn open_queue(&self, reactor: &Reactor) -> Result<Rc<dyn Queue>> {
        let stream = (self.connect)(reactor).map_err(|e| Error::io("cannot connect", e))?;
        let conn = Rc::new(Conn {
            reactor: reactor.clone(),
            stream,
            state: RefCell::default(),
            armed: Cell::new(false),
            offered: self.limits.offered(),
            open: self.open.clone(),
        });
        self.open.fetch_add(1, Ordering::SeqCst);
        reactor.spawn(conn.clone().receive(self.options.clone()));
        Ok(Rc::new(NbdQueue(conn)))
    }

    fn close<'a>(&'a self, reactor: &'a Reactor) -> Local<'a, Result<()>> {
        Box::pin(async move {
            while self.open.load(Ordering::SeqCst) > 0 {
                reactor.sleep(Duration::from_millis(1)).await;
            }
            Ok(())
        })
    }
}

struct NbdQueue(Rc<Conn>);

struct Conn {
    reactor: Reactor,
    stream: Stream,
    state: RefCell<State>,
    armed: Cell<bool>,
    offered: OpSet,
    open: Arc<AtomicUsize>,
}

#[derive(Default)]
struct State {
    connected: Option<Connected>,
    backlog: VecDeque<Request>,
    in_flight: HashMap<u64, Sent>,
    next: u64,
    out: SendBatch,
    sending: bool,
    leaving: bool,
    dead: bool,
}

struct Sent {
    pending: Pending,
    request: Request,
    bytes: Vec<u8>,
    extents: ExtentList,
    outcome: Outcome,
}

impl Queue for NbdQueue {
    fn submit(&self, req: Request) {
        if !self.0.offered.contains(req.op()) {
            return req.fail(Errno::ENOTSUP);
        }
        let mut state = self.0.state.borrow_mut();
        if state.dead {
            return req.fail(Errno::ESHUTDOWN);
        }
        if state.connected.is_none() {
            return state.backlog.push_back(req);
        }
        self.0.encode(&mut state, req);
        drop(state);
        self.0.arm();
    }
}

impl Drop for NbdQueue {
    fn drop(&mut self) {
        let mut state = self.0.state.borrow_mut();
        state.leaving = true;
        if state.connected.is_some() {
            self.0.goodbye(&mut state);
            drop(state);
            self.0.arm();
        }
    }
}

impl Conn {
    fn goodbye(&self, state: &mut State) {
        let mode = state.connected.as_ref().expect("connected").mode;
        let request = Wire {
            command: proto::CMD_DISC,
            flags: 0,
            cookie: 0,
            offset: 0,
            length: 0,
        };
        state
            .out
            .push_head(&encode_request(mode, &request).expect("it fits"));
    }

    fn encode(&self, state: &mut State, request: Request) {
        let connected = state.connected.as_ref().expect("connected");
        let mut flags = 0;
        for (flag, wire) in [
            (Flags::FUA, proto::CMD_FLAG_FUA),
            (Flags::NO_HOLE, proto::CMD_FLAG_NO_HOLE),
            (Flags::FAST_ZERO, proto::CMD_FLAG_FAST_ZERO),
            (Flags::REQ_ONE, proto::CMD_FLAG_REQ_ONE),
        ] {
            if request.flags().contains(flag) {
                flags |= wire;
            }
        }
        let command = match request.op() {
            Op::Read => proto::CMD_READ,
            Op::Write => proto::CMD_WRITE,
            Op::Flush => proto::CMD_FLUSH,
            Op::Discard => proto::CMD_TRIM,
            Op::WriteZeroes => proto::CMD_WRITE_ZEROES,
            Op::Cache => proto::CMD_CACHE,
            Op::Extents => proto::CMD_BLOCK_STATUS,
            _ => return request.fail(Errno::ENOTSUP),
        };
        let (offset, length) = (request.offset(), request.len());
        state.next += 1;
        let wire = Wire {
            command,
            flags,
            cookie: state.next,
            offset,
            length,
        };
        let pending = Pending::new(&wire, connected.contexts.len() as u32);
        let head = encode_request(connected.mode, &wire).expect("limits say it fits");
        state.out.push_head(&head);
        let mut bytes = Vec::new();
        match request.op() {
            Op::Write => push(
                &mut state.out,
                request.data().as_iov().expect("bytes").to_vec(),
            ),
            Op::Read => bytes = vec![0xee; length as usize],
            _ => {}
        }
        let sent = Sent {
            pending,
            request,
            bytes,
            extents: ExtentList::new(),
            outcome: Ok(()),
        };
        state.in_flight.insert(state.next, sent);
    }

    fn arm(self: &Rc<Self>) {
        if !self.armed.replace(true) {
            self.reactor.at_end_of_turn(Rc::new(Bell(self.clone())));
        }
    }

    async fn send_out(self: Rc<Self>) {
        loop {
            let batch = {
                let mut state = self.state.borrow_mut();
                if state.out.is_empty() {
                    state.sending = false;
                    return;
                }
                std::mem::take(&mut state.out)
            };
            let _ = self.stream.send(batch).await;
        }
    }

    async fn receive(self: Rc<Self>, options: ClientOptions) {
        match shake(&self.reactor, &self.stream, options).await {
            Ok((connected, buf)) => {
                let mut replies = Replies::new(connected.mode);
                {
                    let mut state = self.state.borrow_mut();
                    state.connected = Some(connected);
                    for request in std::mem::take(&mut state.backlog) {
                        self.encode(&mut state, request);
                    }
                    if state.leaving {
                        self.goodbye(&mut state);
                    }
                }
                self.arm();
                self.replies(&mut replies, buf).await;
            }
            Err(error) => eprintln!("client: {}", error.chain()),
        }
        let mut state = self.state.borrow_mut();
        state.dead = true;
        let lost = std::mem::take(&mut state.in_flight);
        let backlog = std::mem::take(&mut state.backlog);
        drop(state);
        lost.into_values()
            .for_each(|sent| sent.request.fail(Errno::ESHUTDOWN));
        backlog
            .into_iter()
            .for_each(|request| request.fail(Errno::ESHUTDOWN));
        self.open.fetch_sub(1, Ordering::SeqCst);
    }

    async fn replies(&self, replies: &mut Replies, mut buf: RecvBuf) {
        // Where the next bytes of a read belong: cookie, offset, how many, whether the reply ends.
        let mut filling: Option<(u64, u64, u64, bool)> = None;
        loop {
            while self.reply(replies, &mut buf, &mut filling) {}
            if !buf.rewind() && buf.room() == 0 {
                buf.move_to(self.reactor.chunk(64 << 10));
            }
            let (back, received) = self.stream.recv(buf).await;
            buf = back;
            if received.unwrap_or(0) == 0 {
                return;
            }
        }
    }

    /// Handles what is in the buffer; false when more must come.
    fn reply(
        &self,
        replies: &mut Replies,
        buf: &mut RecvBuf,
        filling: &mut Option<(u64, u64, u64, bool)>,
    ) -> bool {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        if let Some((cookie, offset, left, last)) = *filling {
            let sent = state
                .in_flight
                .get_mut(&cookie)
                .expect("checked by the parser");
            let n = left.min(buf.data().len() as u64);
            let at = (offset - sent.request.offset()) as usize;
            sent.bytes[at..at + n as usize].copy_from_slice(&buf.data()[..n as usize]);
            buf.consume(n as usize);
            *filling = (n < left).then_some((cookie, offset + n, left - n, last));
            if filling.is_none() && last {
                finish(state, cookie);
            }
            return filling.is_none();
        }
        let in_flight = &mut state.in_flight;
        let step = replies.input(buf.data(), |cookie| {
            in_flight.get_mut(&cookie).map(|s| &mut s.pending)
        });
        let (n, reply) = step.expect("our server keeps to the protocol");
        let mut ended = None;
        let more = reply.is_some();
        match reply {
            None => {}
            Some(Reply::Data {
                cookie,
                offset,
                length,
                last,
            }) => {
                *filling = Some((cookie, offset, length, last));
            }
            Some(Reply::Hole {
                cookie,
                offset,
                length,
                last,
            }) => {
                let sent = state
                    .in_flight
                    .get_mut(&cookie)
                    .expect("checked by the parser");
                let at = (offset - sent.request.offset()) as usize;
                sent.bytes[at..at + length as usize].fill(0);
                ended = last.then_some(cookie);
            }
            Some(Reply::BlockStatus {
                cookie,
                extents,
                last,
                ..
            }) => {
                let sent = state
                    .in_flight
                    .get_mut(&cookie)
                    .expect("checked by the parser");
                extents.for_each(|e| {
                    sent.extents.push(e.length, ExtentFlags(e.flags));
                });
                ended = last.then_some(cookie);
            }
            Some(Reply::Error {
                cookie,
                error,
                last,
                ..
            }) => {
                let sent = state
                    .in_flight
                    .get_mut(&cookie)
                    .expect("checked by the parser");
                sent.outcome = Err(IoError::from(Errno::new(linux_errno(error))));
                ended = last.then_some(cookie);
            }
            Some(Reply::Done { cookie }) => ended = Some(cookie),
        }
        buf.consume(n);
        if let Some(cookie) = ended {
            finish(state, cookie);
        }
        more || n > 0
    }
}

fn finish(state: &mut State, cookie: u64) {
    let mut sent = state
        .in_flight
        .remove(&cookie)
        .expect("checked by the parser");
    if sent.outcome.is_err() {
        return sent.request.complete(sent.outcome);
    }
    match sent.request.op() {
        Op::Read => {
            let len = sent.bytes.len();
            let mem = SharedMem::of_shared(SharedBuf::from_vec(sent.bytes), 0, len);
            let mut found = Segments::new();
            found.push(Piece::Mem(mem));
            sent.request.give(found);
        }
        Op::Extents => {
            *sent.request.data_mut() = Data::Extents(sent.extents);
            sent.request.done();
        }
        _ => sent.request.done(),
    }
}

struct Bell(Rc<Conn>);

impl Doorbell for Bell {
    fn ring(&self) {
        self.0.armed.set(false);
        if !std::mem::replace(&mut self.0.state.borrow_mut().sending, true) {
            self.0.reactor.spawn(self.0.clone().send_out());
        }
    }
}

/// Options of a client that goes for the default export.
pub fn options(mode: nbd::Mode, contexts: &[&str]) -> ClientOptions {
    ClientOptions {
        goal: Goal::Go,
        mode,
        contexts: contexts.iter().map(|c| c.to_string()).collect(),
        ..ClientOptions::default()
    }
}
