//! One ring that runs, on its reactor: when it is looked at, and how it ends.

use std::{
    cell::{Cell, RefCell},
    future::{pending, poll_fn},
    os::fd::OwnedFd,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

use block::{CancelGroup, Doorbell, Error, Queue, Reactor, Result, Tick};
use reactor::{Io, PeerEvent};
use virtio::{
    blk::Parser,
    memory::{DirtyLog, Memory},
    ring::{DeviceRing, RingAreas},
    sigbus,
};

use super::{
    dirty::Logging,
    guest::GuestMemory,
    remote::Shared,
    requests::{Core, Found, Rest, Ring, either, status},
};

/// How often a ring is looked at that has no kick descriptor.
const POLL: Duration = Duration::from_micros(200);

/// When it is said that a ring waits for its disk.
const LONG: Duration = Duration::from_secs(5);

/// What a ring works with. May cross threads.
pub(super) struct Parts {
    pub(super) shared: Arc<Shared>,
    pub(super) ring: Ring,
    pub(super) size: u16,
    pub(super) memory: Memory,
    pub(super) parser: Parser,
    pub(super) kick: Option<OwnedFd>,
    pub(super) call: Option<OwnedFd>,
    pub(super) err: Option<OwnedFd>,
    pub(super) enabled: bool,
    pub(super) logging: Option<LogParts>,
}

/// What [`Logging`] is made of. May cross threads.
pub(super) struct LogParts {
    pub(super) log: DirtyLog,
    pub(super) written: Vec<(u64, u64)>,
    pub(super) told: Option<OwnedFd>,
}

/// How a ring ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The front-end wants its base. What is given up is taken again later if the base can say so, or
    /// if `keep`, as it stays in the in-flight log; else it fails.
    Base { keep: bool },
    /// We go. What is given up is left to the next back-end.
    Leave,
    /// The front-end has gone. Nothing more is told: its next back-end does it again, as it is in the
    /// log, or behind the used index.
    Abandon,
}

/// A ring that runs. See the [module](self).
pub(super) struct Vring {
    pub(super) reactor: Reactor,
    pub(super) queue: Rc<dyn Queue>,
    pub(super) shared: Arc<Shared>,
    pub(super) core: RefCell<Core>,
    /// All its requests.
    pub(super) group: CancelGroup,
    kick: RefCell<Option<Rc<PeerEvent>>>,
    call: RefCell<Option<PeerEvent>>,
    err: RefCell<Option<PeerEvent>>,
    enabled: Cell<bool>,
    stopped: Cell<bool>,
    /// What is in flight was cancelled.
    pub(super) ending: Cell<bool>,
    /// The front-end has gone: nothing is told any more.
    pub(super) abandoned: Cell<bool>,
    /// Completions wait for the turn's end.
    pub(super) rung: Cell<bool>,
    /// There may be something new, whatever the kick says.
    nudged: Cell<bool>,
    /// It is looked at without kicks until then.
    busy_until: Cell<Tick>,
    cuts: Cell<usize>,
    task: RefCell<Option<Waker>>,
    /// Woken when nothing is in flight.
    pub(super) idle: RefCell<Option<Waker>>,
}

impl Vring {
    /// Runs a ring, from now on.
    ///
    /// # Errors
    /// The disk opens no queue; a descriptor that is none.
    pub(super) fn start(reactor: &Reactor, parts: Parts) -> Result<Rc<Vring>> {
        let queue = parts.shared.queue(reactor)?;
        let memory = GuestMemory::new(parts.memory);
        let rest = Rest::new(memory, parts.parser, parts.size);
        let vring = Rc::new(Vring {
            reactor: reactor.clone(),
            queue,
            core: RefCell::new(Core {
                ring: parts.ring,
                rest,
            }),
            group: reactor.cancel_group(),
            kick: RefCell::new(event(reactor, parts.kick)?.map(Rc::new)),
            call: RefCell::new(event(reactor, parts.call)?),
            err: RefCell::new(event(reactor, parts.err)?),
            shared: parts.shared,
            enabled: Cell::new(parts.enabled),
            stopped: Cell::new(false),
            ending: Cell::new(false),
            abandoned: Cell::new(false),
            rung: Cell::new(false),
            nudged: Cell::new(true),
            busy_until: Cell::default(),
            cuts: Cell::new(sigbus::cuts()),
            task: RefCell::default(),
            idle: RefCell::default(),
        });
        vring.set_log(parts.logging)?;
        vring.keep_busy();
        let running = vring.clone();
        reactor.spawn(async move { running.run().await });
        Ok(vring)
    }

    async fn run(self: Rc<Vring>) {
        loop {
            self.nudged.set(false);
            let runs = self.enabled.get() && !self.stopped.get();
            let busy = runs && self.is_busy();
            let found = match runs {
                true => self.visit(busy),
                false => Ok(Found::Nothing(0)),
            };
            self.look_for_cuts();
            match found {
                _ if self.stopped.get() => return,
                Err(error) => return self.break_off(&error),
                Ok(Found::More) => self.step_back().await,
                Ok(Found::Nothing(taken)) if busy => {
                    if taken > 0 {
                        self.keep_busy();
                    } else {
                        // Who fills the ring may need this very CPU.
                        std::thread::yield_now();
                    }
                    self.step_back().await;
                }
                Ok(Found::Nothing(_)) => {
                    if self.wait().await.is_err() {
                        return self.break_off(&"its kick descriptor cannot be waited for");
                    }
                    self.keep_busy();
                }
            }
        }
    }

    fn is_busy(&self) -> bool {
        self.busy_until.get() > self.reactor.now()
    }

    /// There was something: there may be more soon.
    fn keep_busy(&self) {
        let poll = self.shared.export.options.busy_poll;
        if !poll.is_zero() {
            self.busy_until.set(self.reactor.now().after(poll));
        }
    }

    /// Lets completions and other tasks run.
    async fn step_back(&self) {
        let mut given = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut given, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    /// Waits for a kick, or for [`Vring::nudge`].
    async fn wait(&self) -> std::io::Result<()> {
        let kick = self.kick.borrow().clone();
        let mut kicked = pin!(async {
            match &kick {
                Some(kick) => kick.wait().await,
                None if !self.enabled.get() => pending().await,
                None => {
                    self.reactor.sleep(POLL).await;
                    Ok(())
                }
            }
        });
        poll_fn(|cx| {
            if self.nudged.get() {
                return Poll::Ready(Ok(()));
            }
            *self.task.borrow_mut() = Some(cx.waker().clone());
            kicked.as_mut().poll(cx)
        })
        .await
    }

    /// There is something new: a kick in-band, another kick descriptor, the ring is enabled.
    pub(super) fn nudge(&self) {
        self.nudged.set(true);
        let task = self.task.borrow_mut().take();
        if let Some(task) = task {
            task.wake();
        }
    }

    /// The ring is broken: nothing more is taken, and the front-end is told.
    pub(super) fn break_off(&self, why: &dyn std::fmt::Display) {
        tracing::debug!("a ring of a guest is stopped: {why}");
        self.stopped.set(true);
        if let Some(err) = &*self.err.borrow() {
            err.signal();
        }
    }

    /// Memory that was cut off ends the connection.
    fn look_for_cuts(&self) {
        let cuts = sigbus::cuts();
        if self.cuts.replace(cuts) != cuts && self.core.borrow().rest.memory.map().was_cut() {
            self.break_off(&"the file of its memory was made shorter");
            self.shared.socket.shutdown();
        }
    }

    fn publish(&self) {
        let core = &mut *self.core.borrow_mut();
        let wanted = either!(&mut core.ring, ring => ring.publish());
        if let Some(logging) = &core.rest.logging {
            logging.ring_written();
            logging.tell();
        }
        if wanted && let Some(call) = &*self.call.borrow() {
            call.signal();
        }
    }

    /// Takes nothing more, and waits for what is in flight; what a layer holds back is given up.
    /// Returns where the ring would go on.
    pub(super) async fn end(self: Rc<Vring>, how: End) -> u32 {
        self.stopped.set(true);
        if how == End::Abandon {
            self.abandoned.set(true);
            either!(&mut self.core.borrow_mut().ring, ring => ring.stop());
        }
        self.nudge();
        self.ending.set(true);
        self.group.cancel();
        self.quiet().await;
        if how != End::Abandon {
            self.publish();
            self.settle(how);
            self.publish();
        }
        either!(&mut self.core.borrow_mut().ring, ring => ring.stop())
    }

    /// What becomes of the requests that were given up.
    fn settle(self: &Rc<Vring>, how: End) {
        let Core { ring, rest } = &mut *self.core.borrow_mut();
        let kept = std::mem::take(&mut rest.kept);
        let End::Base { keep } = how else { return };
        let tokens: Vec<_> = kept.iter().map(|answer| &answer.token).collect();
        if either!(ring, ring => ring.untake(&tokens)) || keep {
            return;
        }
        for answer in kept {
            let status = status(answer.error);
            either!(ring, ring => self.tell(ring, &rest.memory, answer, status));
        }
    }

    /// Waits until nothing is in flight.
    async fn quiet(&self) {
        let mut long = pin!(self.reactor.sleep(LONG));
        let mut said = false;
        poll_fn(|cx| {
            let used = self.core.borrow().rest.slots.used();
            if used == 0 {
                return Poll::Ready(());
            }
            *self.idle.borrow_mut() = Some(cx.waker().clone());
            if !said && long.as_mut().poll(cx).is_ready() {
                said = true;
                tracing::warn!("a guest's ring ends, and waits for {used} requests in its disk");
            }
            Poll::Pending
        })
        .await;
    }

    /// The ring lies somewhere else, in other memory. What is in flight goes on, in the memory it
    /// began with. False if there is no such ring; then it has stopped.
    pub(super) fn relocate(&self, memory: Memory, areas: Option<RingAreas>) -> bool {
        let moved = {
            let Core { ring, rest } = &mut *self.core.borrow_mut();
            rest.set_memory(GuestMemory::new(memory));
            areas.is_some_and(|areas| either!(ring, ring => ring.relocate(areas)).is_ok())
        };
        match moved {
            true => self.nudge(),
            false => self.break_off(&"its memory is gone"),
        }
        moved
    }

    /// Whether it takes requests.
    pub(super) fn set_enabled(&self, enabled: bool) {
        self.enabled.set(enabled);
        self.nudge();
    }

    pub(super) fn set_kick(&self, kick: Option<OwnedFd>) -> Result<()> {
        *self.kick.borrow_mut() = event(&self.reactor, kick)?.map(Rc::new);
        self.nudge();
        Ok(())
    }

    pub(super) fn set_call(&self, call: Option<OwnedFd>) -> Result<()> {
        let call = event(&self.reactor, call)?;
        // What was done before it came may have called nobody.
        if let Some(call) = &call {
            call.signal();
        }
        *self.call.borrow_mut() = call;
        Ok(())
    }

    pub(super) fn set_err(&self, err: Option<OwnedFd>) -> Result<()> {
        *self.err.borrow_mut() = event(&self.reactor, err)?;
        Ok(())
    }

    /// Logs what is written from now on; also what requests write that are in flight.
    pub(super) fn set_log(&self, parts: Option<LogParts>) -> Result<()> {
        let logging = match parts {
            None => None,
            Some(parts) => Some(Logging {
                log: parts.log,
                written: parts.written,
                told: event(&self.reactor, parts.told)?,
            }),
        };
        self.core.borrow_mut().rest.set_log(logging);
        Ok(())
    }
}

/// An event descriptor of the front-end's, for this reactor.
fn event(reactor: &Reactor, fd: Option<OwnedFd>) -> Result<Option<PeerEvent>> {
    let event = fd.map(|fd| Io::of(reactor).peer_event(fd)).transpose();
    event.map_err(|error| Error::io("a front-end's event descriptor is none", error))
}

impl Doorbell for Vring {
    fn ring(&self) {
        self.rung.set(false);
        if !self.stopped.get() {
            self.publish();
        }
    }
}
