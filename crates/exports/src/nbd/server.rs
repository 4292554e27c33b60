//! The server: accepts connections, spreads them over reactors, knows them all, stops them.

use std::{
    collections::HashMap,
    future::Future,
    os::fd::OwnedFd,
    pin::pin,
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Poll, Waker},
    time::Duration,
};

use block::{Host, Inbox, RangeLock, Reactor, Source, ThreadModel};
use reactor::Listener;

use super::{Options, admission::Admission, session::Session};

/// An NBD server for one source. Shared by all reactors.
pub struct Server {
    pub(super) source: Arc<dyn Source>,
    pub(super) host: Arc<dyn Host>,
    pub(super) options: Options,
    /// Held by the one connection that is served, if the source wants one at a time.
    pub(super) turn: Option<RangeLock>,
    stopping: AtomicBool,
    next_id: AtomicU64,
    next_home: AtomicUsize,
    pub(super) counters: Counters,
    connections: Mutex<Connections>,
}

#[derive(Default)]
struct Connections {
    open: HashMap<u64, Arc<Control>>,
    /// Woken whenever a connection ends, and when the server stops.
    watchers: Vec<Waker>,
}

/// Events counted since the start. What clients provoke is counted, not logged.
#[derive(Default)]
pub(super) struct Counters {
    pub accepted: AtomicU64,
    pub refused: AtomicU64,
    pub timeouts: AtomicU64,
    pub violations: AtomicU64,
    pub tls_failures: AtomicU64,
    pub request_errors: AtomicU64,
}

impl Counters {
    pub fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a server has counted since its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections turned away: too many, or the source refused.
    pub refused: u64,
    /// Handshakes that took too long.
    pub timeouts: u64,
    /// Connections closed for a violation of the protocol.
    pub violations: u64,
    /// Clients that TLS did not let in.
    pub tls_failures: u64,
    /// Requests answered with an error.
    pub request_errors: u64,
}

impl Server {
    /// A server of `source`. Nothing listens yet.
    pub fn new(source: Arc<dyn Source>, host: Arc<dyn Host>, options: Options) -> Arc<Server> {
        let one = source.thread_model() == ThreadModel::SerializeConnections;
        Arc::new(Server {
            source,
            host,
            options,
            turn: one.then(RangeLock::new),
            stopping: AtomicBool::new(false),
            next_id: AtomicU64::new(1),
            next_home: AtomicUsize::new(0),
            counters: Counters::default(),
            connections: Mutex::default(),
        })
    }

    /// Accepts on `listener` until the server stops, and sends the connections round robin to the
    /// reactors behind `homes`.
    pub async fn accept_loop(
        self: &Arc<Server>,
        reactor: &Reactor,
        listener: Listener,
        homes: &[Arc<Inbox>],
    ) {
        let (listener, admission) = (Rc::new(listener), Admission::of(reactor));
        loop {
            let accepted = {
                let mut accept = pin!(admission.admit(reactor, listener.accept(reactor)));
                std::future::poll_fn(|cx| {
                    if self.watch(cx.waker(), || self.is_stopping()) {
                        return Poll::Ready(None);
                    }
                    accept.as_mut().poll(cx).map(Some)
                })
                .await
            };
            match accepted {
                None => return,
                Some(Ok(accepted)) => self.welcome(accepted.fd, accepted.peer, homes),
                Some(Err(error)) => {
                    tracing::warn!("cannot accept a connection: {error}");
                    reactor.sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn welcome(self: &Arc<Server>, fd: OwnedFd, peer: String, homes: &[Arc<Inbox>]) {
        Counters::add(&self.counters.accepted);
        if self.connections() >= self.options.max_connections {
            Counters::add(&self.counters.refused);
            return;
        }
        let home = self.next_home.fetch_add(1, Ordering::Relaxed) % homes.len();
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let control = Arc::new(Control::default());
        self.lock().open.insert(id, control.clone());
        // Ends with the closure or the task, whichever is dropped.
        let member = Membership {
            server: self.clone(),
            id,
            control,
        };
        homes[home].run(move |reactor| member.serve(reactor, fd, peer));
    }

    /// Serves one connected socket on this reactor, such as an inherited one.
    pub fn serve_socket(self: &Arc<Server>, reactor: &Reactor, fd: OwnedFd, peer: String) {
        self.welcome(fd, peer, std::slice::from_ref(reactor.inbox()));
    }

    /// Serves one connected stream on this reactor, to its end: for streams that are no sockets.
    pub async fn serve_stream(self: &Arc<Server>, reactor: &Reactor, stream: reactor::Stream) {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let control = Arc::new(Control::default());
        self.lock().open.insert(id, control.clone());
        let member = Membership {
            server: self.clone(),
            id,
            control,
        };
        let peer = stream.peer();
        Session::new(reactor, &member, peer).run(stream).await;
    }

    /// Stops: nothing more is accepted; connections answer what is in flight and close.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        let connections = self.lock();
        connections
            .open
            .values()
            .for_each(|control| control.ask(Ask::Finish));
        connections.watchers.iter().for_each(Waker::wake_by_ref);
    }

    /// Closes all connections at once.
    pub fn abort(&self) {
        self.stop();
        self.lock()
            .open
            .values()
            .for_each(|control| control.ask(Ask::Close));
    }

    /// Ends one client's connection: after what is in flight, or at once if `force`. Returns false
    /// if there is no such client.
    pub fn disconnect(&self, client: u64, force: bool) -> bool {
        let control = self.lock().open.get(&client).cloned();
        let ask = if force { Ask::Close } else { Ask::Finish };
        control.is_some_and(|control| {
            control.ask(ask);
            true
        })
    }

    /// Waits until no connection is open.
    pub async fn drained(&self) {
        std::future::poll_fn(|cx| {
            match self.watch(cx.waker(), || false) || self.connections() > 0 {
                true => Poll::Pending,
                false => Poll::Ready(()),
            }
        })
        .await;
    }

    /// Open connections.
    pub fn connections(&self) -> usize {
        self.lock().open.len()
    }

    /// What was counted so far.
    pub fn stats(&self) -> Stats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters {
            accepted,
            refused,
            timeouts,
            violations,
            tls_failures,
            request_errors,
        } = &self.counters;
        Stats {
            accepted: get(accepted),
            refused: get(refused),
            timeouts: get(timeouts),
            violations: get(violations),
            tls_failures: get(tls_failures),
            request_errors: get(request_errors),
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Has `waker` woken when a connection ends or the server stops; says what `now` says then.
    fn watch(&self, waker: &Waker, now: impl FnOnce() -> bool) -> bool {
        let mut connections = self.lock();
        if !connections
            .watchers
            .iter()
            .any(|known| known.will_wake(waker))
        {
            connections.watchers.push(waker.clone());
        }
        now()
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place in the server's list; gives it up when dropped.
pub(super) struct Membership {
    pub server: Arc<Server>,
    pub id: u64,
    pub control: Arc<Control>,
}

impl Membership {
    fn serve(self, reactor: &Reactor, fd: OwnedFd, peer: String) {
        let stream = match reactor::Io::of(reactor).stream(fd) {
            Ok(stream) => stream,
            Err(error) => return tracing::debug!("connection {}: {error}", self.id),
        };
        let reactor = reactor.clone();
        reactor.clone().spawn(async move {
            Session::new(&reactor, &self, peer).run(stream).await;
        });
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut connections = self.server.lock();
        connections.open.remove(&self.id);
        let watchers = std::mem::take(&mut connections.watchers);
        drop(connections);
        watchers.into_iter().for_each(Waker::wake);
    }
}

/// What a connection is asked to do, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Ask {
    /// Go on.
    Nothing,
    /// Answer what is in flight, then close.
    Finish,
    /// Close now.
    Close,
}

/// How other threads reach a connection.
#[derive(Default)]
pub(super) struct Control {
    ask: AtomicU8,
    task: Mutex<Option<Waker>>,
}

impl Control {
    pub fn asked(&self) -> Ask {
        match self.ask.load(Ordering::Acquire) {
            0 => Ask::Nothing,
            1 => Ask::Finish,
            _ => Ask::Close,
        }
    }

    fn ask(&self, ask: Ask) {
        self.ask.fetch_max(ask as u8, Ordering::AcqRel);
        let task = self
            .task
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(task) = task {
            task.wake();
        }
    }

    /// The connection's task says how to wake it, once, before it first looks.
    pub fn attach(&self, waker: &Waker) {
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
    }
}
