//! What the lock protects: the connection and its commands.

use std::{
    collections::VecDeque,
    fmt,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use nbd::client::Replies;
use rustix::io::Errno;

use crate::{
    AIO_DIRECTION_BOTH, AIO_DIRECTION_READ, AIO_DIRECTION_WRITE, DebugCallback,
    child::Child,
    dial::Dialing,
    error::Fault,
    flight::Flight,
    negotiation::Negotiation,
    settings::Settings,
    state::State,
    transmit::{Outgoing, Payload},
    uri::Place,
    wire::Wire,
};

/// What can be had without the lock.
pub(crate) struct Shared {
    settings: Mutex<Settings>,
    pub debug: AtomicBool,
    /// State and direction, for those who only look.
    published: AtomicU16,
    /// The thread that has the lock, 0 for none.
    pub holder: AtomicUsize,
    pub bytes_sent: AtomicU64,
    pub chunks_sent: AtomicU64,
    pub bytes_received: AtomicU64,
    pub chunks_received: AtomicU64,
}

impl Shared {
    pub fn new(settings: Settings, debug: bool) -> Shared {
        Shared {
            settings: Mutex::new(settings),
            debug: AtomicBool::new(debug),
            published: AtomicU16::new(0),
            holder: AtomicUsize::new(0),
            bytes_sent: AtomicU64::new(0),
            chunks_sent: AtomicU64::new(0),
            bytes_received: AtomicU64::new(0),
            chunks_received: AtomicU64::new(0),
        }
    }

    /// Never held while anything else is done.
    pub fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn state(&self) -> State {
        State::of(self.published.load(Relaxed) as u8)
    }

    pub fn direction(&self) -> u32 {
        (self.published.load(Relaxed) >> 8).into()
    }

    pub fn received(&self, bytes: usize) {
        self.bytes_received.fetch_add(bytes as u64, Relaxed);
    }

    pub fn chunk_received(&self) {
        self.chunks_received.fetch_add(1, Relaxed);
    }
}

/// See the [module](self).
pub(crate) struct Inner {
    pub shared: Arc<Shared>,
    /// The C function under way, for messages.
    pub call: &'static str,
    pub state: State,
    pub wire: Option<Wire>,
    pub dialing: Option<Dialing>,
    pub child: Option<Child>,
    /// Where the server is, as far as a URI can say it.
    pub place: Option<Place>,
    pub negotiation: Negotiation,
    pub replies: Replies,
    pub flight: Flight,
    /// Payload of a read that is under way.
    pub payload: Option<Payload>,
    pub queue: VecDeque<Outgoing>,
    /// The server was told that we leave.
    pub leaving: bool,
    pub debug_callback: Option<DebugCallback>,
    pub waiting: Waiting,
}

/// Who sleeps until something happens.
#[derive(Default)]
pub(crate) struct Waiting {
    /// One thread polls for all that wait for a command.
    pub leader: bool,
    /// Threads that leave the polling to it.
    pub followers: usize,
    /// Wakes it.
    pub kick: Option<Arc<OwnedFd>>,
    /// It does not poll for room to send.
    pub only_reads: bool,
    /// Another thread has done what it waits for, or may have.
    pub changed: bool,
}

impl Inner {
    pub fn new(shared: Arc<Shared>) -> Inner {
        Inner {
            shared,
            call: "nbd_create",
            state: State::Created,
            wire: None,
            dialing: None,
            child: None,
            place: None,
            negotiation: Negotiation::default(),
            replies: Replies::new(nbd::Mode::Simple),
            flight: Flight::default(),
            payload: None,
            queue: VecDeque::new(),
            leaving: false,
            debug_callback: None,
            waiting: Waiting::default(),
        }
    }

    pub fn settings(&self) -> MutexGuard<'_, Settings> {
        self.shared.settings()
    }

    pub fn wire(&mut self) -> Result<&mut Wire, Fault> {
        let missing = || Fault::invalid("connection is not in a connected state");
        self.wire.as_mut().ok_or_else(missing)
    }

    /// The socket, connected or not yet.
    pub fn socket(&self) -> Option<Arc<OwnedFd>> {
        let dialing = || self.dialing.as_ref()?.socket().cloned();
        let wire = self.wire.as_ref().map(|wire| wire.socket().clone());
        wire.or_else(dialing)
    }

    /// A line for debugging, if that is wanted.
    pub fn debug(&mut self, text: fmt::Arguments<'_>) {
        if !self.shared.debug.load(Relaxed) {
            return;
        }
        match &mut self.debug_callback {
            Some(callback) => {
                callback(self.call, &text.to_string());
            }
            None => {
                let name = self.settings().name.clone();
                eprintln!("libnbd: debug: {name}: {}: {text}", self.call);
            }
        }
    }

    /// What the caller of poll(2) should wait for.
    pub fn direction(&self) -> u32 {
        match self.state {
            State::Created | State::Negotiating | State::Closed | State::Dead => 0,
            State::Connecting => AIO_DIRECTION_WRITE,
            State::OptAbort => AIO_DIRECTION_WRITE,
            _ if !self.is_sending() => AIO_DIRECTION_READ,
            state if state.is_connected() => AIO_DIRECTION_BOTH,
            _ => AIO_DIRECTION_WRITE,
        }
    }

    /// Something is left to be sent.
    pub fn is_sending(&self) -> bool {
        let flushed = self.wire.as_ref().is_none_or(Wire::is_flushed);
        !self.queue.is_empty() || !flushed
    }

    /// Lets those see the state who do not take the lock.
    pub fn publish(&mut self) {
        if self.state.is_connected() {
            let partly = self.payload.is_some()
                || self
                    .wire
                    .as_ref()
                    .is_some_and(|wire| !wire.received().is_empty());
            self.state = match (self.is_sending(), partly) {
                (true, _) => State::Sending,
                (_, true) => State::Receiving,
                _ => State::Ready,
            };
        }
        let state = self.state as u16;
        let published = state | (self.direction() as u16) << 8;
        self.shared.published.store(published, Relaxed);
    }

    /// The descriptor can be read, or written, or has an error.
    pub fn notify(&mut self, readable: bool, writable: bool) -> Result<(), Fault> {
        if self.direction() == 0 {
            let event = i32::from(!readable);
            let state = self.state.name();
            let text = format!("external event {event} is invalid in state {state}");
            return Err(Fault::invalid(text));
        }
        let result = match self.state {
            State::Connecting => self.dial_on(),
            _ => self.step(readable, writable),
        };
        match result {
            // There is nobody to be told any more that we leave.
            Err(_) if self.state == State::OptAbort => {
                self.end(State::Closed);
                Ok(())
            }
            result => result.inspect_err(|_| self.fail()),
        }
    }

    fn step(&mut self, readable: bool, writable: bool) -> Result<(), Fault> {
        if writable && let Some(wire) = &mut self.wire {
            wire.blocked = false;
        }
        if readable && self.state != State::OptAbort {
            self.read()?;
        }
        self.flush()
    }

    /// After a fault of the connection: nothing can be done any more, except where a TCP server was not reached.
    pub fn fail(&mut self) {
        if self.state != State::Created {
            self.end(State::Dead);
        }
    }

    /// The connection is over. Commands that were not answered fail.
    pub fn end(&mut self, state: State) {
        self.state = state;
        self.wire = None;
        self.dialing = None;
        self.payload = None;
        self.queue.clear();
        self.publish();
        self.abandon_option();
        self.flight.abandon(|_| true);
    }

    /// The server sends no more.
    pub fn ended(&mut self) -> Result<(), Fault> {
        let partly = self.payload.is_some()
            || self
                .wire
                .as_ref()
                .is_some_and(|wire| !wire.received().is_empty());
        if self.state.is_connected() && !partly {
            self.end(State::Closed);
            return Ok(());
        }
        Err(Fault::plain("recv: server disconnected unexpectedly"))
    }

    /// The transmission phase begins.
    pub fn enter(&mut self) {
        self.replies = Replies::new(self.negotiation.mode);
        self.state = State::Ready;
        if let Some((size, flags)) = self.negotiation.export {
            self.debug(format_args!("exportsize: {size} eflags: {flags:#x}"));
        }
    }

    /// Starts TLS with what the caller has set.
    pub fn start_tls(&mut self) -> Result<(), Fault> {
        let config = self.settings().tls_config(self.place.as_ref());
        let of_tls = |error: tls::Error| match error {
            tls::Error::NotBuilt => Fault::of(error.to_string(), Errno::NOTSUP),
            error => Fault::plain(error.to_string()),
        };
        let session = tls::Connector::new(config).map_err(of_tls)?;
        let session = session.connect().map_err(of_tls)?;
        self.wire()?.start_tls(session)?;
        self.state = State::TlsHandshake;
        self.go_on_with_tls()
    }

    /// Goes on with the handshake of TLS.
    pub fn go_on_with_tls(&mut self) -> Result<(), Fault> {
        if self.wire()?.handshake()? {
            self.tls_started()?;
        }
        Ok(())
    }
}
