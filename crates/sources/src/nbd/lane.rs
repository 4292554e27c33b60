//! One connection: requests out, and what happens to them when it is lost.
//!
//! A lane outlives its connections. While one is up, requests are sent as they come, in one send for
//! each turn. When it is lost, what was in flight waits with what comes meanwhile, for as long as
//! [`Settings::reconnect_delay`] says; a new connection gets all of it again, in the order in which
//! it was submitted. That is right for every request: each says the same when it is done twice, and
//! the caller has heard of none of them. A flush that is repeated covers, as ever, what was answered
//! before; whether the server still has that is the server's promise, so reconnecting is for servers
//! that lose no answered write when they start again (those with their data in the page cache do
//! not). It is also for servers that end with their connections: one that goes on by itself could
//! carry out a request of the lost connection after its repetition, and no client can know.

use std::{
    cell::{Cell, RefCell, RefMut},
    collections::VecDeque,
    rc::{Rc, Weak},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use block::{
    Data, Doorbell, Errno, ExtentFlags, ExtentList, Flags, IoError, Iov, Op, Outcome, Parked,
    Piece, Reactor, Request, Segments, Tick,
};
use nbd::{
    Mode,
    client::{Connected, Pending, Request as Wire, encode_request},
    proto,
};
use reactor::{SendBatch, Stream};

use super::{
    Settings, Target,
    dial::{Dialed, Server},
    receive,
};

/// Longest wait between two attempts to connect again.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// See the [module](self).
pub(super) struct Lane {
    pub reactor: Reactor,
    pub target: Arc<Target>,
    pub settings: Settings,
    state: RefCell<State>,
    armed: Cell<bool>,
    /// For tasks.
    me: Weak<Lane>,
}

/// What is to become of requests.
enum Phase {
    /// They are sent.
    Up,
    /// They wait, until then.
    Away(Tick),
    /// They fail, like this.
    Failing(IoError),
}

pub(super) struct State {
    phase: Phase,
    /// We have said goodbye.
    leaving: bool,
    stream: Stream,
    mode: Mode,
    /// Keeps the server alive, if it is our child.
    server: Option<Server>,
    /// The context's number, if there are extents.
    allocation: Option<u32>,
    slots: Vec<Option<Sent>>,
    free: Vec<u32>,
    submitted: u64,
    waiting: VecDeque<Parked>,
    out: SendBatch,
    sending: bool,
}

/// A request in flight.
pub(super) struct Sent {
    pub pending: Pending,
    pub request: Request,
    /// Its place among all.
    number: u64,
    pub found: Found,
    pub outcome: Outcome,
}

/// What a request has found so far.
pub(super) enum Found {
    Nothing,
    /// All of a read, in memory of our choice.
    Whole(Segments),
    /// A read's bytes gather here, as its chunks come.
    Gathering(Iov),
    Extents(ExtentList),
}

impl Lane {
    /// Serves requests over a connection that has been agreed on.
    pub fn start(
        reactor: &Reactor,
        target: Arc<Target>,
        settings: Settings,
        dialed: Dialed,
        connected: &Connected,
    ) -> Rc<Lane> {
        let lane = Rc::new_cyclic(|me| Lane {
            me: me.clone(),
            reactor: reactor.clone(),
            target,
            settings,
            state: RefCell::new(State {
                phase: Phase::Up,
                leaving: false,
                stream: dialed.stream,
                mode: connected.mode,
                server: dialed.server,
                allocation: allocation(connected),
                slots: Vec::new(),
                free: Vec::new(),
                submitted: 0,
                waiting: VecDeque::new(),
                out: SendBatch::new(),
                sending: false,
            }),
            armed: Cell::new(false),
        });
        reactor.spawn(lane.clone().live());
        lane
    }

    /// Takes a request, which completes when the server has answered or is given up.
    pub fn submit(self: &Rc<Self>, request: Request) {
        let mut state = self.state.borrow_mut();
        match &state.phase {
            Phase::Up => {
                state.encode(request);
                drop(state);
                self.arm();
            }
            Phase::Away(_) => state.waiting.push_back(park(request)),
            Phase::Failing(error) => request.complete(Err(error.clone())),
        }
    }

    /// Requests without an answer.
    pub fn in_flight(&self) -> usize {
        let state = self.state.borrow();
        state.slots.len() - state.free.len()
    }

    /// Says goodbye, and ends.
    pub async fn leave(self: Rc<Self>) {
        let (stream, server) = {
            let mut state = self.state.borrow_mut();
            if std::mem::replace(&mut state.leaving, true) {
                return;
            }
            let goodbye = Wire {
                command: proto::CMD_DISC,
                flags: 0,
                cookie: 0,
                offset: 0,
                length: 0,
            };
            let head = encode_request(state.mode, &goodbye).expect("it fits");
            state.out.push_head(&head);
            let up = matches!(state.phase, Phase::Up);
            (up.then(|| state.stream.clone()), state.server.take())
        };
        if let Some(stream) = stream {
            self.clone().send_out().await;
            // A server that is gone already has heard enough.
            let _ = stream.flush().await;
            stream.shutdown();
        }
        if let Some(server) = server {
            server.end(&self.reactor);
        }
    }

    /// For the receiver. Not to be held over anything that waits.
    pub fn state(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }

    /// The whole reply has come.
    pub fn finish(&self, cookie: u64) {
        let Some(sent) = self.state.borrow_mut().take(cookie) else {
            return;
        };
        let Sent {
            mut request,
            found,
            outcome,
            ..
        } = sent;
        if outcome.is_err() {
            return request.complete(outcome);
        }
        match found {
            Found::Nothing => request.done(),
            Found::Whole(segments) => request.give(segments),
            Found::Gathering(iov) => {
                let mut segments = Segments::new();
                iov.shared().for_each(|mem| segments.push(Piece::Mem(mem)));
                request.give(segments);
            }
            Found::Extents(mut extents) => {
                extents.truncate(request.len());
                *request.data_mut() = Data::Extents(extents);
                request.done();
            }
        }
    }

    /// The lane's life: one connection after the other.
    async fn live(self: Rc<Self>) {
        loop {
            let (stream, mode) = {
                let state = self.state.borrow();
                (state.stream.clone(), state.mode)
            };
            let why = receive::run(&self, &stream, mode).await;
            stream.shutdown();
            if self.state.borrow().leaving {
                return self.fail_all(IoError::from(Errno::ESHUTDOWN));
            }
            tracing::debug!("{}: {why}", self.target.name);
            let lost = IoError::because(Errno::EIO, &self.target.name, why);
            if self.settings.reconnect_delay.is_zero() {
                self.target.gone.store(true, Ordering::Relaxed);
                return self.fail_all(lost);
            }
            self.hold();
            match self.connect_again(lost).await {
                Some((dialed, connected)) => self.go_on(dialed, &connected),
                None => return,
            }
        }
    }

    /// From now on requests wait; first of all those that were in flight.
    fn hold(&self) {
        let mut state = self.state.borrow_mut();
        let until = self.reactor.now().after(self.settings.reconnect_delay);
        state.phase = Phase::Away(until);
        state.out.clear();
        let in_flight = state.take_all();
        for request in in_flight.into_iter().rev() {
            state.waiting.push_front(park(request));
        }
    }

    /// Tries until it is connected with the same disk. `None`: it is another one, or we are leaving.
    async fn connect_again(&self, lost: IoError) -> Option<(Dialed, Connected)> {
        let mut pause = Duration::from_millis(20);
        loop {
            let attempt = self.target.connect(&self.reactor).await;
            if self.state.borrow().leaving {
                self.fail_all(IoError::from(Errno::ESHUTDOWN));
                return None;
            }
            match attempt {
                Ok((dialed, connected)) => match self.target.is_same(&connected) {
                    Ok(()) => return Some((dialed, connected)),
                    Err(why) => {
                        tracing::warn!("{}: {why}", self.target.name);
                        self.target.gone.store(true, Ordering::Relaxed);
                        self.fail_all(IoError::because(Errno::EIO, &self.target.name, why));
                        return None;
                    }
                },
                Err(error) => tracing::debug!("{}: {}", self.target.name, error.chain()),
            }
            let until = match self.state.borrow().phase {
                Phase::Away(until) => Some(until),
                _ => None,
            };
            if let Some(until) = until {
                if self.reactor.now() >= until {
                    self.fail_all(lost.clone());
                } else {
                    pause = pause.min(until.since(self.reactor.now()));
                }
            }
            self.reactor.sleep(pause).await;
            pause = (pause.max(Duration::from_millis(1)) * 2).min(MAX_PAUSE);
        }
    }

    /// Connected again: everything that waits is sent.
    fn go_on(self: &Rc<Self>, dialed: Dialed, connected: &Connected) {
        let mut state = self.state.borrow_mut();
        state.phase = Phase::Up;
        state.stream = dialed.stream;
        state.server = dialed.server;
        state.mode = connected.mode;
        state.allocation = allocation(connected);
        let waiting = std::mem::take(&mut state.waiting);
        for request in waiting.into_iter().filter_map(Parked::take) {
            state.encode(request);
        }
        drop(state);
        self.arm();
    }

    /// Everything fails, and what comes later does.
    fn fail_all(&self, error: IoError) {
        let (in_flight, waiting) = {
            let mut state = self.state.borrow_mut();
            state.phase = Phase::Failing(error.clone());
            (state.take_all(), std::mem::take(&mut state.waiting))
        };
        let waiting = waiting.into_iter().filter_map(Parked::take);
        in_flight
            .into_iter()
            .chain(waiting)
            .for_each(|request| request.complete(Err(error.clone())));
    }

    fn arm(self: &Rc<Self>) {
        if !self.armed.replace(true) {
            self.reactor.at_end_of_turn(self.clone());
        }
    }

    async fn send_out(self: Rc<Self>) {
        loop {
            let (batch, stream) = {
                let mut state = self.state.borrow_mut();
                if state.out.is_empty() {
                    state.sending = false;
                    return;
                }
                state.sending = true;
                (std::mem::take(&mut state.out), state.stream.clone())
            };
            // A failure ends receiving too, and is dealt with there.
            let (spare, _) = stream.send(batch).await;
            let mut state = self.state.borrow_mut();
            if state.out.is_empty() {
                state.out = spare;
            }
        }
    }
}

/// The turn's requests go out together.
impl Doorbell for Lane {
    fn ring(&self) {
        self.armed.set(false);
        let mut state = self.state.borrow_mut();
        if state.sending || state.out.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut state.out);
        match state.stream.try_send(batch) {
            Ok(spare) => state.out = spare,
            Err(batch) => {
                // An older one is on its way: a task waits for it.
                state.out = batch;
                state.sending = true;
                drop(state);
                if let Some(lane) = self.me.upgrade() {
                    self.reactor.spawn(lane.send_out());
                }
            }
        }
    }
}

impl State {
    /// The request in flight with this cookie.
    pub fn sent(&mut self, cookie: u64) -> Option<&mut Sent> {
        self.slots.get_mut(usize::try_from(cookie).ok()?)?.as_mut()
    }

    /// The number of `base:allocation`, if it was selected.
    pub fn allocation(&self) -> Option<u32> {
        self.allocation
    }

    fn take(&mut self, cookie: u64) -> Option<Sent> {
        let sent = self.slots.get_mut(usize::try_from(cookie).ok()?)?.take()?;
        self.free.push(cookie as u32);
        Some(sent)
    }

    /// All that is in flight, in the order in which it was submitted.
    fn take_all(&mut self) -> Vec<Request> {
        let mut all: Vec<Sent> = self.slots.drain(..).flatten().collect();
        self.free.clear();
        all.sort_by_key(|sent| sent.number);
        all.into_iter().map(|sent| sent.request).collect()
    }

    fn encode(&mut self, request: Request) {
        let Some(command) = command(request.op()) else {
            return request.fail(Errno::ENOTSUP);
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u32
        });
        let wire = Wire {
            command,
            flags: flags(request.flags()),
            cookie: slot.into(),
            offset: request.offset(),
            length: request.len(),
        };
        let Some(head) = encode_request(self.mode, &wire) else {
            // Limits see to it; a server that was exchanged for an older one may say less.
            self.free.push(slot);
            return request.fail(Errno::EOVERFLOW);
        };
        self.out.push_head(&head);
        if let (Op::Write, Some(iov)) = (request.op(), request.data().as_iov()) {
            iov.shared().for_each(|mem| self.out.push_mem(mem));
        }
        self.submitted += 1;
        self.slots[slot as usize] = Some(Sent {
            pending: Pending::new(&wire, u32::from(self.allocation.is_some())),
            found: match request.op() {
                Op::Extents => Found::Extents(ExtentList::new()),
                _ => Found::Nothing,
            },
            request,
            number: self.submitted,
            outcome: Ok(()),
        });
    }
}

impl Sent {
    /// Extents that the server told of.
    pub fn extents(&mut self, told: nbd::client::Descriptors<'_>) {
        if let Found::Extents(list) = &mut self.found {
            for extent in told {
                // A list that is full is a shorter answer, which is allowed.
                list.push(extent.length, ExtentFlags(extent.flags));
            }
        }
    }
}

fn allocation(connected: &Connected) -> Option<u32> {
    let mut contexts = connected.contexts.iter();
    let found = contexts.find(|context| context.name == proto::CONTEXT_BASE_ALLOCATION);
    found.map(|context| context.id)
}

fn park(request: Request) -> Parked {
    request.park(|request| request.fail(Errno::ECANCELED))
}

const fn command(op: Op) -> Option<u16> {
    Some(match op {
        Op::Read => proto::CMD_READ,
        Op::Write => proto::CMD_WRITE,
        Op::Flush => proto::CMD_FLUSH,
        Op::Discard => proto::CMD_TRIM,
        Op::WriteZeroes => proto::CMD_WRITE_ZEROES,
        Op::Cache => proto::CMD_CACHE,
        Op::Extents => proto::CMD_BLOCK_STATUS,
        _ => return None,
    })
}

fn flags(flags: Flags) -> u16 {
    [
        (Flags::FUA, proto::CMD_FLAG_FUA),
        (Flags::NO_HOLE, proto::CMD_FLAG_NO_HOLE),
        (Flags::FAST_ZERO, proto::CMD_FLAG_FAST_ZERO),
        (Flags::REQ_ONE, proto::CMD_FLAG_REQ_ONE),
    ]
    .into_iter()
    .filter(|(flag, _)| flags.contains(*flag))
    .fold(0, |all, (_, wire)| all | wire)
}
