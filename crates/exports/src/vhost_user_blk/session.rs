//! One connection: what the front-end says, and what is done about it.

use std::{
    cell::RefCell,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    rc::Rc,
    sync::Arc,
};

use block::{Error, ErrorKind, Queue, Reactor, Result, Subscription};
use reactor::{FdStream, Io, PeerEvent, sealed_memory};
use virtio::{
    blk::{Config, Parser, feature, has},
    inflight,
    memory::{Area, Memory, Region, RegionMap},
    ring::{
        AddressKind, F_EVENT_IDX, F_INDIRECT_DESC, F_RING_PACKED, RingAreas, RingConfig, packed,
        split,
    },
    vhost_user::{
        Backend, ConfigRange, Event, InflightArea, MemoryRegion, Outgoing, Refused, VringFd,
        VringSetup, proto::MAX_PAYLOAD,
    },
};

use super::{
    Export,
    vring::{Parts, Ring, Vring},
};

/// Serves one front-end until it goes, and ends what it had in flight.
pub(super) async fn serve(export: &Arc<Export>, reactor: &Reactor, stream: FdStream) -> Result<()> {
    let mut session = Session::new(export, reactor, stream)?;
    let result = session.run().await;
    for slot in &session.slots {
        if let Some(vring) = &slot.running {
            vring.abandon().await;
        }
    }
    result
}

/// The descriptors of a ring, and the ring if it runs.
#[derive(Default)]
struct Slot {
    call: Option<Rc<PeerEvent>>,
    err: Option<Rc<PeerEvent>>,
    running: Option<Rc<Vring>>,
}

/// A log of requests in flight, with room for each ring.
struct Log {
    region: Region,
    /// Bytes for each ring.
    each: usize,
    queues: u16,
    packed: bool,
    size: u16,
}

struct Session {
    export: Arc<Export>,
    reactor: Reactor,
    queue: Rc<dyn Queue>,
    stream: FdStream,
    backend: Backend<OwnedFd>,
    config: Rc<RefCell<Config>>,
    map: Arc<RegionMap>,
    slots: Vec<Slot>,
    log: Option<Log>,
    /// Keeps the disk's size in `config` what it is.
    _events: Subscription,
}

type Out = Vec<Outgoing<OwnedFd>>;

impl Session {
    fn new(export: &Arc<Export>, reactor: &Reactor, stream: FdStream) -> Result<Session> {
        let limits = export.device.limits();
        let offer = export.options.offer(&limits);
        let config = Rc::new(RefCell::new(export.options.config(&limits)));
        let (told, device) = (config.clone(), export.device.clone());
        let events = export.device.subscribe(
            reactor,
            Box::new(move |_| {
                told.borrow_mut().capacity = device.limits().size / virtio::blk::SECTOR;
            }),
        );
        Ok(Session {
            queue: export.device.open_queue(reactor)?,
            export: export.clone(),
            reactor: reactor.clone(),
            stream,
            backend: Backend::new(offer),
            config,
            map: Arc::default(),
            slots: (0..offer.queues).map(|_| Slot::default()).collect(),
            log: None,
            _events: events,
        })
    }

    async fn run(&mut self) -> Result<()> {
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
            let n = self.stream.recv(&mut buf[..wanted], &mut fds).await;
            let n = match n.map_err(lost)? {
                0 => return Ok(()),
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

    async fn stop_all(&mut self) {
        for slot in &mut self.slots {
            if let Some(vring) = slot.running.take() {
                vring.stop().await;
            }
        }
    }

    /// Does what the machine wants, and answers it.
    async fn handle(
        &mut self,
        event: Event<OwnedFd>,
        out: &mut Out,
    ) -> std::result::Result<(), virtio::vhost_user::Violation> {
        let result = match event {
            Event::StopVring { index, .. } => {
                let base = match self.slots[usize::from(index)].running.take() {
                    Some(vring) => vring.stop().await,
                    None => 0,
                };
                self.backend.answer_vring_base(base, out);
                return Ok(());
            }
            Event::GetConfig(range) => {
                let mut bytes = vec![0; range.size as usize];
                let config = *self.config.borrow();
                let found = config.read(range.offset, &mut bytes);
                self.backend.answer_config(found.map(|()| &bytes[..]), out);
                return Ok(());
            }
            Event::GetInflightFd(area) => {
                let log = self.make_log(&area);
                self.backend.answer_inflight(log, out);
                return Ok(());
            }
            Event::SetInflightFd(area, fd) => self.set_log(&area, &fd),
            Event::SetConfig(range, bytes) => self.set_config(&range, &bytes),
            Event::SetMemTable(regions) => self.set_memory(regions).await,
            Event::AddMemRegion(region, fd) => self.add_memory(&region, &fd).await,
            Event::RemMemRegion(region) => self.remove_memory(&region).await,
            Event::StartVring(setup, kick) => self.start(&setup, kick),
            Event::MoveVring(setup) => self.rebuild(setup.index, &setup).await,
            Event::ResetDevice => {
                self.stop_all().await;
                self.slots.fill_with(Slot::default);
                self.log = None;
                Ok(())
            }
            Event::SetFeatures(_) | Event::SetStatus(_) => Ok(()),
            other => self.signals(other),
        };
        self.backend.done(result, out)
    }

    /// Descriptors of rings, and the like.
    fn signals(&mut self, event: Event<OwnedFd>) -> std::result::Result<(), Refused> {
        match event {
            Event::ReplaceKick(VringFd { index, fd }) => {
                let kick = self.peer_event(fd)?;
                if let Some(vring) = &self.slots[usize::from(index)].running {
                    vring.set_kick(kick);
                }
            }
            Event::SetVringCall(VringFd { index, fd }) => {
                let call = self.peer_event(fd)?;
                let slot = &mut self.slots[usize::from(index)];
                slot.call = call.clone();
                if let Some(vring) = &slot.running {
                    vring.set_call(call);
                }
            }
            Event::SetVringErr(VringFd { index, fd }) => {
                let err = self.peer_event(fd)?;
                let slot = &mut self.slots[usize::from(index)];
                slot.err = err.clone();
                if let Some(vring) = &slot.running {
                    vring.set_err(err);
                }
            }
            Event::SetVringEnable { index, enabled } => {
                if let Some(vring) = &self.slots[usize::from(index)].running {
                    vring.set_enabled(enabled);
                }
            }
            Event::VringKick(index) => {
                if let Some(vring) = &self.slots[usize::from(index)].running {
                    vring.nudge();
                }
            }
            // Of features that are not offered.
            _ => return Err(Refused::Unsupported),
        }
        Ok(())
    }

    fn peer_event(
        &self,
        fd: Option<OwnedFd>,
    ) -> std::result::Result<Option<Rc<PeerEvent>>, Refused> {
        let Some(fd) = fd else { return Ok(None) };
        let event = Io::of(&self.reactor).peer_event(fd);
        event
            .map(|event| Some(Rc::new(event)))
            .map_err(|_| Refused::Failed)
    }

    /// The guest can choose between a cache and none (CONFIG_WCE); without FLUSH there is none
    /// (virtio 1.3, 5.2.6.2).
    fn write_through(&self) -> bool {
        !has(self.backend.features(), feature::FLUSH) || self.config.borrow().writeback == 0
    }

    fn set_config(
        &mut self,
        range: &ConfigRange,
        bytes: &[u8],
    ) -> std::result::Result<(), Refused> {
        let features = self.backend.features();
        if !self
            .config
            .borrow_mut()
            .write(features, range.offset, bytes)
        {
            return Err(Refused::Unsupported);
        }
        let on = self.write_through();
        for vring in self.slots.iter().filter_map(|slot| slot.running.as_ref()) {
            vring.set_write_through(on);
        }
        Ok(())
    }

    fn start(
        &mut self,
        setup: &VringSetup,
        kick: Option<OwnedFd>,
    ) -> std::result::Result<(), Refused> {
        let ring = self.make_ring(setup, setup.base).ok_or(Refused::Failed)?;
        let kick = self.peer_event(kick)?;
        let limits = self.export.device.limits();
        let config = *self.config.borrow();
        let read_only = self.export.options.is_read_only(&limits);
        let slot = &self.slots[usize::from(setup.index)];
        let (call, err) = (slot.call.clone(), slot.err.clone());
        let write_through = self.write_through();
        let slot = &mut self.slots[usize::from(setup.index)];
        slot.running = Some(Vring::start(Parts {
            reactor: self.reactor.clone(),
            queue: self.queue.clone(),
            ring,
            memory: Memory::new(self.map.clone()),
            parser: Parser::new(config, setup.features, read_only),
            config: self.config.clone(),
            id: self.export.options.id(),
            write_through,
            kick,
            call,
            err,
            enabled: setup.enabled,
            stream: self.stream.clone(),
        }));
        Ok(())
    }

    /// The ring where it lies now. `None` if it cannot be one.
    fn make_ring(&self, setup: &VringSetup, base: u32) -> Option<Ring> {
        let config = RingConfig {
            event_index: has(setup.features, F_EVENT_IDX),
            indirect: has(setup.features, F_INDIRECT_DESC),
            ..RingConfig::new(setup.size)
        };
        let lengths = match setup.packed() {
            true => packed::lengths(setup.size),
            false => split::lengths(setup.size),
        };
        let addresses = [setup.descriptors, setup.available, setup.used];
        let areas = RingAreas::find(&self.map, AddressKind::Guest, addresses, lengths).ok()?;
        let log = match &self.log {
            Some(log) => Some(log.of(setup)?),
            None => None,
        };
        let ring = match (setup.packed(), log) {
            (false, None) => split::Device::new(areas, config, base).map(Ring::Split),
            (false, Some(log)) => {
                split::Device::with_log(areas, config, base, log).map(Ring::Split)
            }
            (true, None) => packed::Device::new(areas, config, base).map(Ring::Packed),
            (true, Some(log)) => {
                packed::Device::with_log(areas, config, base, log).map(Ring::Packed)
            }
        };
        ring.inspect_err(|error| tracing::debug!("a ring of a guest cannot run: {error}"))
            .ok()
    }

    async fn set_memory(
        &mut self,
        regions: Vec<(MemoryRegion, OwnedFd)>,
    ) -> std::result::Result<(), Refused> {
        let mapped: std::result::Result<Vec<Region>, Refused> =
            regions.iter().map(|(region, fd)| map(region, fd)).collect();
        self.use_memory(mapped?).await
    }

    async fn add_memory(
        &mut self,
        region: &MemoryRegion,
        fd: &OwnedFd,
    ) -> std::result::Result<(), Refused> {
        let mut regions = self.map.regions().to_vec();
        regions.push(map(region, fd)?);
        self.use_map(regions)?;
        // All that was there is where it was.
        for vring in self.slots.iter().filter_map(|slot| slot.running.as_ref()) {
            vring.set_memory(Memory::new(self.map.clone()));
        }
        Ok(())
    }

    async fn remove_memory(&mut self, gone: &MemoryRegion) -> std::result::Result<(), Refused> {
        let mut regions = self.map.regions().to_vec();
        regions.retain(|region| region.guest() != gone.guest_addr);
        self.use_memory(regions).await
    }

    fn use_map(&mut self, regions: Vec<Region>) -> std::result::Result<(), Refused> {
        let map = RegionMap::new(regions).map_err(|_| Refused::Failed)?;
        self.map = Arc::new(map);
        Ok(())
    }

    /// Other memory; the rings that run are looked for in it again.
    async fn use_memory(&mut self, regions: Vec<Region>) -> std::result::Result<(), Refused> {
        self.use_map(regions)?;
        for index in 0..self.slots.len() as u16 {
            // The guest's addresses stay what they are, whatever the front-end's are.
            if self.slots[usize::from(index)].running.is_some()
                && let Ok(setup) = self.backend.vring(index)
            {
                // One that is not in it any more stops, alone.
                let _ = self.rebuild(index, &setup).await;
            }
        }
        Ok(())
    }

    async fn rebuild(&self, index: u16, setup: &VringSetup) -> std::result::Result<(), Refused> {
        let Some(vring) = &self.slots[usize::from(index)].running else {
            return Ok(());
        };
        let memory = Memory::new(self.map.clone());
        match vring
            .rebuild(memory, |base| self.make_ring(setup, base))
            .await
        {
            true => Ok(()),
            false => Err(Refused::Failed),
        }
    }

    /// A new log of requests in flight.
    fn make_log(&self, asked: &InflightArea) -> Option<(InflightArea, OwnedFd)> {
        let packed = has(self.backend.features(), F_RING_PACKED);
        let each = inflight::length(packed, asked.queue_size);
        let mmap_size = u64::from(asked.queues) * each as u64;
        let fd = sealed_memory("blkit-inflight", mmap_size).ok()?;
        let area = InflightArea {
            mmap_size,
            mmap_offset: 0,
            ..*asked
        };
        Some((area, fd))
    }

    fn set_log(&mut self, area: &InflightArea, fd: &OwnedFd) -> std::result::Result<(), Refused> {
        let packed = has(self.backend.features(), F_RING_PACKED);
        let each = inflight::length(packed, area.queue_size);
        if area.mmap_size < u64::from(area.queues) * each as u64 {
            return Err(Refused::Malformed);
        }
        let region = Region::map(0, 0, fd, area.mmap_offset, area.mmap_size);
        self.log = Some(Log {
            region: region.map_err(|_| Refused::Failed)?,
            each,
            queues: area.queues,
            packed,
            size: area.queue_size,
        });
        Ok(())
    }
}

impl Log {
    /// The part of one ring; `None` if it has none, or is another kind of ring.
    fn of(&self, setup: &VringSetup) -> Option<Area> {
        let fits =
            setup.index < self.queues && setup.packed() == self.packed && setup.size <= self.size;
        let offset = usize::from(setup.index) * self.each;
        fits.then(|| self.region.area(offset as u64, self.each))
            .flatten()
    }
}

fn map(region: &MemoryRegion, fd: &OwnedFd) -> std::result::Result<Region, Refused> {
    let MemoryRegion {
        guest_addr,
        size,
        user_addr,
        mmap_offset,
    } = *region;
    let mapped = Region::map(guest_addr, user_addr, fd, mmap_offset, size);
    mapped.map_err(|error| {
        tracing::debug!("memory of a guest cannot be mapped: {error}");
        Refused::Failed
    })
}
