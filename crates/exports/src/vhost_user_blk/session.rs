//! One connection: what the front-end says, and what is done about it.

use std::{
    cell::RefCell,
    future::poll_fn,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    pin::pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Poll,
};

use block::{Error, ErrorKind, Inbox, Job, Reactor, Result, Subscription};
use reactor::FdStream;
use virtio::{
    blk::{Config, Parser, SECTOR, feature, has},
    vhost_user::{
        Backend, ConfigRange, Event, Outgoing, Refused, Violation, VringFd, VringSetup,
        proto::{MAX_PAYLOAD, protocol},
    },
};

use super::{
    Export,
    channel::Channel,
    memory::GuestSpace,
    remote::{Durability, Remote, Shared},
    sharing::Seat,
    vring::{End, Parts, Vring},
};

/// Serves one front-end until it goes, and ends what it had in flight.
pub(super) async fn serve(
    export: &Arc<Export>,
    reactor: &Reactor,
    stream: FdStream,
    homes: &[Arc<Inbox>],
    seat: Seat,
) -> Result<()> {
    let mut session = Session::new(export, reactor, stream, homes, &seat);
    let result = session.run().await;
    seat.ends();
    let how = match result {
        Ok(Gone::Stopped) => End::Leave,
        _ => End::Abandon,
    };
    session.end_all(how).await;
    session.shared.close(&session.homes).await;
    session.stream.shutdown();
    result.map(drop)
}

/// Why a connection is over.
enum Gone {
    /// The front-end closed it.
    Closed,
    /// We were asked to stop.
    Stopped,
}

/// The descriptors of a ring, and the ring if it runs.
#[derive(Default)]
struct Slot {
    call: Option<OwnedFd>,
    err: Option<OwnedFd>,
    running: Option<Remote>,
}

struct Session {
    shared: Arc<Shared>,
    /// Where the rings run: ring `i` on reactor `i` modulo their number.
    homes: Vec<Arc<Inbox>>,
    stream: FdStream,
    backend: Backend<OwnedFd>,
    config: Config,
    read_only: bool,
    space: GuestSpace,
    slots: Vec<Slot>,
    reactor: Reactor,
    /// Where the front-end is told of changes.
    channel: Rc<RefCell<Option<Channel>>>,
    /// Keeps the disk's size what it is.
    _events: Subscription,
}

type Out = Vec<Outgoing<OwnedFd>>;

impl Session {
    fn new(
        export: &Arc<Export>,
        reactor: &Reactor,
        stream: FdStream,
        homes: &[Arc<Inbox>],
        seat: &Seat,
    ) -> Session {
        let limits = export.device.limits();
        let read_only = !seat.writes || export.options.is_read_only(&limits);
        let offer = export.options.offer(&limits, read_only);
        let shared = Arc::new(Shared {
            export: export.clone(),
            id: export.options.id(),
            socket: stream.remote(),
            capacity: AtomicU64::new(limits.size / SECTOR),
            write_through: AtomicBool::new(true),
            durability: Durability::of(&limits),
        });
        let channel: Rc<RefCell<Option<Channel>>> = Rc::default();
        let (told, by) = (shared.clone(), channel.clone());
        let events = export.device.subscribe(
            reactor,
            Box::new(move |_| {
                let capacity = told.export.device.limits().size / SECTOR;
                // Rings know before the guest does.
                let changed = told.capacity.swap(capacity, Ordering::AcqRel) != capacity;
                if let (true, Some(channel)) = (changed, &*by.borrow()) {
                    channel.config_changed();
                }
            }),
        );
        Session {
            config: export.options.config(&limits),
            shared,
            homes: homes.to_vec(),
            stream,
            backend: Backend::new(offer),
            read_only,
            space: GuestSpace::default(),
            slots: (0..offer.queues).map(|_| Slot::default()).collect(),
            reactor: reactor.clone(),
            channel,
            _events: events,
        }
    }

    async fn run(&mut self) -> Result<Gone> {
        let lost = |error| Error::io("the connection to a vhost-user front-end failed", error);
        let broke = |violation| {
            Error::new(
                ErrorKind::Format,
                "a vhost-user front-end broke the protocol",
            )
            .caused_by(violation)
        };
        let (mut buf, mut fds) = ([0; MAX_PAYLOAD], Vec::new());
        let mut out = Out::new();
        loop {
            // No more than one message, so that its descriptors are its own.
            let wanted = self.backend.wanted();
            let Some(n) = self.receive(&mut buf[..wanted], &mut fds).await else {
                return Ok(Gone::Stopped);
            };
            let n = match n.map_err(lost)? {
                0 => return Ok(Gone::Closed),
                n => n,
            };
            let step = self.backend.input(&buf[..n], fds.drain(..), &mut out);
            let done = match step {
                Ok((_, Some(event))) => self.handle(event, &mut out).await,
                other => other.map(drop),
            };
            // What was answered before a breach may be told.
            for message in out.drain(..) {
                let fds: Vec<BorrowedFd<'_>> = message.fds.iter().map(AsFd::as_fd).collect();
                self.stream.send(&message.bytes, &fds).await.map_err(lost)?;
            }
            done.map_err(broke)?;
        }
    }

    /// Receives; `None` if the export stops.
    async fn receive(
        &self,
        buf: &mut [u8],
        fds: &mut Vec<OwnedFd>,
    ) -> Option<std::io::Result<usize>> {
        let mut stopped = pin!(self.shared.export.seats.stopped());
        let mut received = pin!(self.stream.recv(buf, fds));
        poll_fn(|cx| match stopped.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => received.as_mut().poll(cx).map(Some),
        })
        .await
    }

    /// All rings end, at the same time.
    async fn end_all(&mut self, how: End) {
        let running = self.slots.iter_mut().filter_map(|slot| slot.running.take());
        let ending: Vec<Job<u32>> = running.map(|ring| ring.end(how)).collect();
        for job in ending {
            // A reactor that is gone runs no ring.
            let _ = job.await;
        }
    }

    /// Asks all rings that run, and waits until all have answered.
    async fn ask_all<T: Send + 'static>(
        &self,
        mut ask: impl FnMut(u16, &Remote) -> Job<T>,
    ) -> Vec<T> {
        let mut asked = Vec::new();
        for (index, slot) in (0..).zip(&self.slots) {
            asked.extend(slot.running.as_ref().map(|ring| ask(index, ring)));
        }
        let mut answers = Vec::new();
        for job in asked {
            answers.extend(job.await);
        }
        answers
    }

    /// Does what the machine wants, and answers it.
    async fn handle(&mut self, event: Event<OwnedFd>, out: &mut Out) -> Result<(), Violation> {
        let result = match event {
            Event::StopVring {
                index,
                keep_inflight,
            } => {
                let keep = keep_inflight && self.space.has_inflight();
                let base = match self.slots[usize::from(index)].running.take() {
                    Some(ring) => ring.end(End::Base { keep }).await.unwrap_or(0),
                    None => 0,
                };
                self.backend.answer_vring_base(base, out);
                return Ok(());
            }
            Event::GetConfig(range) => {
                self.tell_config(&range, out);
                return Ok(());
            }
            Event::GetInflightFd(area) => {
                let log = GuestSpace::make_inflight(self.backend.features(), &area);
                self.backend.answer_inflight(log, out);
                return Ok(());
            }
            Event::SetInflightFd(area, fd) => {
                self.space.set_inflight(self.backend.features(), &area, &fd)
            }
            Event::SetConfig(range, bytes) => self.set_config(&range, &bytes),
            Event::SetMemTable(regions) => {
                let replaced = self.space.replace(&regions);
                self.relocated(replaced).await
            }
            Event::AddMemRegion(region, fd) => {
                let added = self.space.add(&region, &fd);
                self.relocated(added).await
            }
            Event::RemMemRegion(region) => {
                let removed = self.space.remove(&region);
                self.relocated(removed).await
            }
            Event::StartVring(setup, kick) => self.start(&setup, kick).await,
            Event::MoveVring(setup) => self.move_ring(&setup).await,
            Event::SetLogBase(area, fd) => {
                let set = self.space.set_log(&area, &fd);
                self.logging_changed(set).await
            }
            Event::SetLogFd(fd) => {
                self.space.set_log_event(fd);
                self.logging_changed(Ok(())).await
            }
            Event::SetFeatures(features) => {
                self.space.set_features(features);
                self.features_changed(features);
                self.logging_changed(Ok(())).await
            }
            Event::ResetDevice => {
                self.end_all(End::Abandon).await;
                self.slots.fill_with(Slot::default);
                self.space.forget_inflight();
                Ok(())
            }
            Event::SetStatus(_) => Ok(()),
            other => self.signals(other).await,
        };
        self.backend.done(result, out)
    }

    /// Descriptors of rings, and the like.
    async fn signals(&mut self, event: Event<OwnedFd>) -> Result<(), Refused> {
        let done = match event {
            Event::ReplaceKick(VringFd { index, fd }) => {
                self.at(index, move |ring| ring.set_kick(fd)).await
            }
            Event::SetVringCall(VringFd { index, fd }) => {
                self.slots[usize::from(index)].call = copy(&fd)?;
                self.at(index, move |ring| ring.set_call(fd)).await
            }
            Event::SetVringErr(VringFd { index, fd }) => {
                self.slots[usize::from(index)].err = copy(&fd)?;
                self.at(index, move |ring| ring.set_err(fd)).await
            }
            Event::SetVringEnable { index, enabled } => {
                let set = move |ring: &Vring| {
                    ring.set_enabled(enabled);
                    Ok(())
                };
                self.at(index, set).await
            }
            Event::SetBackendReqFd(fd) => {
                let acks = self.backend.protocol() & protocol::REPLY_ACK != 0;
                let channel = Channel::open(&self.reactor, fd, acks)?;
                self.channel.replace(Some(channel));
                Ok(())
            }
            // Of features that are not offered.
            _ => return Err(Refused::Unsupported),
        };
        done.map_err(|error| {
            tracing::debug!("{}", error.chain());
            Refused::Failed
        })
    }

    /// Does something with a ring if it runs.
    async fn at(
        &self,
        index: impl Into<usize>,
        ask: impl FnOnce(&Vring) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        match &self.slots[index.into()].running {
            None => Ok(()),
            // One whose reactor is gone is none.
            Some(ring) => ring.ask(|ring| ask(ring)).await.unwrap_or(Ok(())),
        }
    }

    /// The guest can choose between a cache and none (CONFIG_WCE); without FLUSH there is none
    /// (virtio 1.3, 5.2.6.2).
    fn features_changed(&self, features: u64) {
        let through = !has(features, feature::FLUSH) || self.config.writeback == 0;
        self.shared.write_through.store(through, Ordering::Release);
    }

    fn tell_config(&mut self, range: &ConfigRange, out: &mut Out) {
        let mut bytes = vec![0; range.size as usize];
        let config = Config {
            capacity: self.shared.capacity(),
            ..self.config
        };
        let found = config.read(range.offset, &mut bytes);
        self.backend.answer_config(found.map(|()| &bytes[..]), out);
    }

    fn set_config(&mut self, range: &ConfigRange, bytes: &[u8]) -> Result<(), Refused> {
        let features = self.backend.features();
        if !self.config.write(features, range.offset, bytes) {
            return Err(Refused::Unsupported);
        }
        self.features_changed(features);
        Ok(())
    }

    async fn start(&mut self, setup: &VringSetup, kick: Option<OwnedFd>) -> Result<(), Refused> {
        let ring = self.space.ring(setup).ok_or(Refused::Failed)?;
        let slot = &self.slots[usize::from(setup.index)];
        let parts = Parts {
            shared: self.shared.clone(),
            ring,
            size: setup.size,
            memory: self.space.memory(),
            parser: Parser::new(self.config, setup.features, self.read_only),
            kick,
            call: copy(&slot.call)?,
            err: copy(&slot.err)?,
            enabled: setup.enabled,
            logging: self.space.log_parts(setup),
        };
        let home = &self.homes[usize::from(setup.index) % self.homes.len()];
        let started = Remote::start(home, parts).await;
        let ring = started.map_err(|error| {
            tracing::warn!("a ring of a guest cannot run: {}", error.chain());
            Refused::Failed
        })?;
        self.slots[usize::from(setup.index)].running = Some(ring);
        Ok(())
    }

    /// Memory has changed: rings that run are looked for in it again. The guest's addresses stay what
    /// they are, whatever the front-end's are; a ring that is not in it any more stops, alone.
    async fn relocated(&self, changed: Result<(), Refused>) -> Result<(), Refused> {
        changed?;
        self.ask_all(|index, ring| {
            let setup = self.backend.vring(index).ok();
            let areas = setup.and_then(|setup| self.space.areas(&setup));
            let memory = self.space.memory();
            ring.ask(move |ring| ring.relocate(memory, areas))
        })
        .await;
        Ok(())
    }

    /// A ring has other addresses, or is logged now, or is not.
    async fn move_ring(&self, setup: &VringSetup) -> Result<(), Refused> {
        let Some(ring) = &self.slots[usize::from(setup.index)].running else {
            return Ok(());
        };
        let (memory, areas) = (self.space.memory(), self.space.areas(setup));
        let logging = self.space.log_parts(setup);
        let moved =
            ring.ask(move |ring| ring.relocate(memory, areas) && ring.set_log(logging).is_ok());
        match moved.await {
            Ok(true) => Ok(()),
            _ => Err(Refused::Failed),
        }
    }

    /// What is logged, or where, has changed.
    async fn logging_changed(&self, changed: Result<(), Refused>) -> Result<(), Refused> {
        changed?;
        let set = self.ask_all(|index, ring| {
            let setup = self.backend.vring(index).ok();
            let logging = setup.and_then(|setup| self.space.log_parts(&setup));
            ring.ask(move |ring| ring.set_log(logging))
        });
        match set.await.into_iter().all(|set| set.is_ok()) {
            true => Ok(()),
            false => Err(Refused::Failed),
        }
    }
}

fn copy(fd: &Option<OwnedFd>) -> Result<Option<OwnedFd>, Refused> {
    let copied = fd.as_ref().map(OwnedFd::try_clone).transpose();
    copied.map_err(|_| Refused::Failed)
}
