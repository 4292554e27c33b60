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
    pin::pin,
    rc::{Rc, Weak},
    sync::{Arc, atomic::Ordering},
    task::{Poll, Waker},
    time::Duration,
};

use block::{Doorbell, Errno, IoError, Op, Parked, Reactor, Request, Tick};
use nbd::{
    Mode,
    client::{Connected, Request as Wire, encode_request},
    proto,
};
use reactor::SendBatch;
use transport::Transport;

use super::{
    Joined, Refused, Settings, Target,
    dial::{FAREWELL, Server},
    flight::{self, Sent},
    receive, within,
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
    /// Whoever waits for the lane to be told to leave, or for its end.
    watchers: RefCell<Vec<Waker>>,
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

/// Numbers and names of metadata contexts; `base:allocation` is `None`.
type Contexts = Vec<(u32, Option<Arc<str>>)>;

pub(super) struct State {
    phase: Phase,
    /// We have said goodbye.
    leaving: bool,
    /// Nothing more will happen.
    ended: bool,
    transport: Transport,
    mode: Mode,
    /// Keeps the server alive, if it is our child.
    server: Option<Server>,
    /// The metadata contexts, by the server's numbers.
    contexts: Contexts,
    slots: Vec<Option<Sent>>,
    free: Vec<u32>,
    submitted: u64,
    waiting: VecDeque<Parked>,
    out: SendBatch,
    sending: bool,
}

impl Lane {
    /// Serves requests over a connection that has been agreed on.
    pub fn start(
        reactor: &Reactor,
        target: Arc<Target>,
        settings: Settings,
        joined: Joined,
    ) -> Rc<Lane> {
        let Joined {
            transport,
            server,
            connected,
        } = joined;
        let lane = Rc::new_cyclic(|me| Lane {
            me: me.clone(),
            reactor: reactor.clone(),
            target,
            settings,
            state: RefCell::new(State {
                phase: Phase::Up,
                leaving: false,
                ended: false,
                transport,
                mode: connected.mode,
                server,
                contexts: contexts(&connected),
                slots: Vec::new(),
                free: Vec::new(),
                submitted: 0,
                waiting: VecDeque::new(),
                out: SendBatch::new(),
                sending: false,
            }),
            armed: Cell::new(false),
            watchers: RefCell::default(),
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
        let first = !std::mem::replace(&mut self.state.borrow_mut().leaving, true);
        if first {
            self.clone().say_goodbye().await;
            self.tell();
        }
        self.until(|state| state.ended).await;
    }

    async fn say_goodbye(self: Rc<Self>) {
        let (transport, server) = {
            let mut state = self.state.borrow_mut();
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
            (up.then(|| state.transport.clone()), state.server.take())
        };
        if let Some(transport) = transport {
            let goodbye = async {
                self.clone().send_out().await;
                transport.close();
                transport.stream().flush().await
            };
            // A server that is gone, or does not listen, has heard enough.
            let _ = within(&self.reactor, FAREWELL, goodbye).await;
            transport.stream().shutdown();
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
        let sent = self.state.borrow_mut().take(cookie);
        if let Some(sent) = sent {
            sent.complete();
        }
    }

    /// Wakes whoever watches.
    fn tell(&self) {
        let watchers = std::mem::take(&mut *self.watchers.borrow_mut());
        watchers.into_iter().for_each(Waker::wake);
    }

    /// Waits until the state is like this.
    async fn until(&self, so: impl Fn(&State) -> bool) {
        std::future::poll_fn(|cx| {
            if so(&self.state.borrow()) {
                return Poll::Ready(());
            }
            let mut watchers = self.watchers.borrow_mut();
            if !watchers.iter().any(|known| known.will_wake(cx.waker())) {
                watchers.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// What comes first: this, or that we leave.
    async fn unless_leaving<T>(&self, this: impl Future<Output = T>) -> Option<T> {
        let mut this = pin!(this);
        let mut leaving = pin!(self.until(|state| state.leaving));
        std::future::poll_fn(|cx| {
            if leaving.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            this.as_mut().poll(cx).map(Some)
        })
        .await
    }

    /// The lane's life, and its end.
    async fn live(self: Rc<Self>) {
        self.serve().await;
        self.state.borrow_mut().ended = true;
        self.tell();
    }

    /// Serves one connection after the other.
    async fn serve(self: &Rc<Self>) {
        loop {
            let (transport, mode) = {
                let state = self.state.borrow();
                (state.transport.clone(), state.mode)
            };
            let why = receive::run(self, &transport, mode).await;
            transport.stream().shutdown();
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
                Some(joined) => self.go_on(joined),
                None if self.state.borrow().leaving => {
                    return self.fail_all(IoError::from(Errno::ESHUTDOWN));
                }
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
    async fn connect_again(&self, lost: IoError) -> Option<Joined> {
        let mut pause = Duration::from_millis(20);
        loop {
            let attempt = self.target.connect(&self.reactor);
            match self.while_they_wait(attempt, &lost).await? {
                Ok(joined) => return Some(joined),
                Err(Refused::ForEver(error)) => {
                    let why = error.chain();
                    tracing::warn!("{why}");
                    self.target.gone.store(true, Ordering::Relaxed);
                    self.fail_all(IoError::because(Errno::EIO, &self.target.name, why));
                    return None;
                }
                Err(Refused::Now(error)) => tracing::debug!("{}", error.chain()),
            }
            let pausing = self.reactor.sleep(pause);
            self.while_they_wait(pausing, &lost).await?;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// Does this; when requests have waited long enough meanwhile, they fail. `None` if we leave.
    async fn while_they_wait<T>(&self, this: impl Future<Output = T>, lost: &IoError) -> Option<T> {
        let until = match self.state.borrow().phase {
            Phase::Away(until) => Some(until),
            Phase::Up | Phase::Failing(_) => None,
        };
        let mut this = pin!(self.unless_leaving(this));
        if let Some(until) = until {
            let left = until.since(self.reactor.now());
            if let Some(done) = within(&self.reactor, left, this.as_mut()).await {
                return done;
            }
            self.fail_all(lost.clone());
        }
        this.await
    }

    /// Connected again: everything that waits is sent.
    fn go_on(self: &Rc<Self>, joined: Joined) {
        let mut state = self.state.borrow_mut();
        state.phase = Phase::Up;
        state.transport = joined.transport;
        let old = std::mem::replace(&mut state.server, joined.server);
        state.mode = joined.connected.mode;
        state.contexts = contexts(&joined.connected);
        let waiting = std::mem::take(&mut state.waiting);
        for request in waiting.into_iter().filter_map(Parked::take) {
            state.encode(request);
        }
        drop(state);
        if let Some(server) = old {
            server.end(&self.reactor);
        }
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
            let (batch, transport) = {
                let mut state = self.state.borrow_mut();
                if state.out.is_empty() {
                    state.sending = false;
                    return;
                }
                state.sending = true;
                (std::mem::take(&mut state.out), state.transport.clone())
            };
            // A failure ends receiving too, and is dealt with there.
            let (spare, _) = transport.send(batch).await;
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
        match state.transport.try_send(batch) {
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

    /// The context with this number: `None` is not selected, and `Some(None)` is `base:allocation`.
    pub fn context(&self, id: u32) -> Option<Option<Arc<str>>> {
        let found = self.contexts.iter().find(|context| context.0 == id);
        found.map(|context| context.1.clone())
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
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u32
        });
        let Some(wire) = flight::wire(&request, slot.into()) else {
            self.free.push(slot);
            return request.fail(Errno::ENOTSUP);
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
        let contexts = self.contexts.len() as u32;
        let sent = Sent::new(request, &wire, contexts, self.submitted);
        self.slots[slot as usize] = Some(sent);
    }
}

fn contexts(connected: &Connected) -> Contexts {
    let contexts = connected.contexts.iter();
    contexts
        .map(|context| {
            let base = context.name == proto::CONTEXT_BASE_ALLOCATION;
            (context.id, (!base).then(|| context.name.as_str().into()))
        })
        .collect()
}

fn park(request: Request) -> Parked {
    request.park(|request| request.fail(Errno::ECANCELED))
}
