//! vhost-user-blk servers: disks on a Unix socket.
//!
//! **Contract.** A server must have protocol features, CONFIG and VERSION_1, and nothing else. Each of
//! its answers has a deadline. A thread watches the socket: when the server goes away, every queue
//! learns it, and its requests fail, or with `reconnect` go to the server that is there within so many
//! seconds. A server that breaks its rings is not asked again.

mod session;
mod watch;

use std::{
    ops::RangeInclusive,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, Weak},
    thread::JoinHandle,
    time::Duration,
};

use rustix::{
    event::{EventfdFlags, eventfd},
    io::Errno,
};
use virtio::vhost_user::{
    FrontEvent, MemoryRegion as SharedRegion, Message, VringAddress, VringFd, VringState,
    proto::{MAX_TABLE_REGIONS, feature, protocol},
};

use self::session::Session;
use super::virtio_blk::{Connector, Kick, Link, QueueSetup, RegionRules, To, Transport};
use crate::{Error, Kind, MemoryRegion, Property, Result, State, Value, error::invalid};

/// The driver `virtio-blk-vhost-user`, before it is connected.
pub(super) struct VhostUser {
    reconnect: i32,
    reply_timeout: i32,
}

impl Default for VhostUser {
    fn default() -> VhostUser {
        VhostUser {
            reconnect: 0,
            reply_timeout: 10_000,
        }
    }
}

const RULES: RegionRules = RegionRules {
    most: MAX_TABLE_REGIONS as u64,
    alignment: 1,
    granularity: 4096,
    needs_file: true,
};

impl Connector for VhostUser {
    fn name(&self) -> &'static str {
        "virtio-blk-vhost-user"
    }

    fn properties(&self) -> &'static [Property] {
        const OWN: &[Property] = &[
            // Seconds in which a server that went away must be back; 0: its requests fail at once.
            Property::write("reconnect", Kind::Int, State::Created),
            // Milliseconds that a server has for an answer on its socket.
            Property::write("reply-timeout", Kind::Int, State::Created),
        ];
        OWN
    }

    fn get(&self, name: &str) -> Value {
        Value::Int(match name {
            "reconnect" => self.reconnect,
            _ => self.reply_timeout,
        })
    }

    fn set(&mut self, name: &str, value: Value) -> Result<()> {
        match (name, value) {
            ("reconnect", Value::Int(seconds @ 0..)) => self.reconnect = seconds,
            ("reply-timeout", Value::Int(time @ 1..)) => self.reply_timeout = time,
            _ => return Err(invalid(format!("{name} cannot be so small"))),
        }
        Ok(())
    }

    fn takes_fd(&self) -> bool {
        false
    }

    fn regions(&self) -> RegionRules {
        RULES
    }

    fn connect(&mut self, to: To, link: &Arc<Link>) -> Result<Arc<Mutex<dyn Transport>>> {
        let To::Path(path) = to else {
            return Err(Error::new(Errno::NOENT, "fd property not supported"));
        };
        let patience = Duration::from_millis(self.reply_timeout as u64);
        let session = Session::connect(&path, patience)?;
        let reconnect = Duration::from_secs(self.reconnect as u64);
        Ok(Arc::new_cyclic(|this: &Weak<Mutex<Server>>| {
            Mutex::new(Server {
                this: this.clone(),
                path,
                patience,
                reconnect,
                link: link.clone(),
                features: session.limits().features,
                accepted: 0,
                queues: session.limits().queues,
                slots: session.limits().memory_slots,
                session: Some(session),
                regions: Vec::new(),
                watcher: None,
            })
        }))
    }
}

/// A server, there or away.
struct Server {
    this: Weak<Mutex<Server>>,
    path: String,
    patience: Duration,
    reconnect: Duration,
    link: Arc<Link>,
    features: u64,
    accepted: u64,
    queues: u16,
    slots: u64,
    /// `None` while it is away.
    session: Option<Session>,
    /// What is mapped, with files of our own.
    regions: Vec<(SharedRegion, OwnedFd)>,
    watcher: Option<(OwnedFd, JoinHandle<()>)>,
}

/// An eventfd that the server reads.
struct Bell(OwnedFd);

impl Kick for Bell {
    fn kick(&self) {
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

impl Server {
    fn session(&mut self) -> Result<&mut Session> {
        let text = "the vhost-user server is gone";
        let gone = || Error::new(Errno::NOTCONN, text);
        self.session.as_mut().ok_or_else(gone)
    }

    fn say(&mut self, message: Message<OwnedFd>) -> Result<()> {
        self.session()?.done(message)
    }

    /// Tells a server of all memory, or of the region that is new.
    fn tell_memory(&mut self, new: Option<usize>) -> Result<()> {
        let limits = self.session()?.limits();
        let one_by_one = limits.protocol & protocol::CONFIGURE_MEM_SLOTS != 0;
        let mut regions = Vec::new();
        for (n, (region, file)) in self.regions.iter().enumerate() {
            if !one_by_one || new.is_none_or(|new| new == n) {
                regions.push((*region, file.try_clone()?));
            }
        }
        if !one_by_one {
            return self.say(Message::SetMemTable(regions));
        }
        for (region, file) in regions {
            self.say(Message::AddMemReg(region, file))?;
        }
        Ok(())
    }

    /// Makes a new server what the old one was.
    fn restore(&mut self, session: Session) -> Result<()> {
        let limits = *session.limits();
        if self.accepted & !limits.features & !feature::PROTOCOL_FEATURES != 0
            || limits.queues < self.queues
            || (self.regions.len() as u64) > limits.memory_slots
        {
            let text = "the vhost-user server has less than the one before";
            return Err(Error::new(Errno::PROTO, text));
        }
        self.session = Some(session);
        let restored = self
            .say(Message::SetFeatures(self.accepted))
            .and_then(|()| self.tell_memory(None));
        if restored.is_err() {
            self.session = None;
        }
        restored
    }
}

impl Transport for Server {
    fn features(&self) -> u64 {
        self.features
    }

    fn max_queues(&self) -> u16 {
        self.queues
    }

    fn max_queue_size(&self) -> u16 {
        virtio::ring::QUEUE_SIZE_MAX
    }

    fn read_config(&mut self, offset: u32, into: &mut [u8]) -> Result<()> {
        self.session()?.config(offset, into)
    }

    fn accept(&mut self, features: u64) -> Result<()> {
        self.accepted = features | feature::PROTOCOL_FEATURES;
        self.say(Message::SetFeatures(self.accepted))
    }

    fn regions(&self) -> RegionRules {
        RegionRules {
            most: self.slots,
            ..RULES
        }
    }

    fn addresses(&self) -> RangeInclusive<u64> {
        0..=(1 << 47) - 1
    }

    fn map(&mut self, iova: u64, region: &MemoryRegion) -> Result<()> {
        let file = region
            .file()
            .ok_or_else(|| invalid("a region needs a file"))?;
        let shared = SharedRegion {
            guest_addr: iova,
            size: region.len as u64,
            // Rings have such addresses; any will do that are nobody else's.
            user_addr: iova,
            mmap_offset: region.fd_offset as u64,
        };
        self.regions.push((shared, file.try_clone_to_owned()?));
        let told = match self.session.is_some() {
            true => self.tell_memory(Some(self.regions.len() - 1)),
            // A server that comes back is told of all.
            false => Ok(()),
        };
        if told.is_err() {
            self.regions.pop();
        }
        told
    }

    fn unmap(&mut self, iova: u64, _: &MemoryRegion) {
        let at = self
            .regions
            .iter()
            .position(|(region, _)| region.guest_addr == iova);
        let Some(at) = at else { return };
        let (region, _) = self.regions.swap_remove(at);
        let Ok(session) = self.session() else { return };
        // An error ends the session, which is watched.
        let _ = match session.limits().protocol & protocol::CONFIGURE_MEM_SLOTS {
            0 => self.tell_memory(None),
            _ => session.done(Message::RemMemReg(region)),
        };
    }

    fn setup_queue(&mut self, index: u16, setup: &QueueSetup<'_>) -> Result<Box<dyn Kick>> {
        let state = |num| VringState {
            index: index.into(),
            num,
        };
        let fd = |fd| VringFd {
            index: index as u8,
            fd: Some(fd),
        };
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let call = setup.call.try_clone_to_owned()?;
        self.say(Message::SetVringNum(state(setup.size.into())))?;
        self.say(Message::SetVringBase(state(setup.base)))?;
        self.say(Message::SetVringAddr(VringAddress {
            index: index.into(),
            flags: 0,
            descriptors: setup.descriptors,
            used: setup.device,
            available: setup.driver,
            log: 0,
        }))?;
        self.say(Message::SetVringCall(fd(call)))?;
        self.say(Message::SetVringKick(fd(bell.try_clone()?)))?;
        self.say(Message::SetVringEnable(state(1)))?;
        Ok(Box::new(Bell(bell)))
    }

    fn start(&mut self) -> Result<()> {
        let socket = self.session()?.socket().try_clone_to_owned()?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC)?;
        let (this, link) = (self.this.clone(), self.link.clone());
        let stopped = stop.try_clone()?;
        let watcher = std::thread::Builder::new().name("blkio-watch".into());
        let watcher = watcher.spawn(move || watch::run(&this, &link, socket, &stopped))?;
        self.watcher = Some((stop, watcher));
        Ok(())
    }

    fn stop_queue(&mut self, index: u16) {
        if let Some(session) = &mut self.session {
            let state = VringState {
                index: index.into(),
                num: 0,
            };
            let _ = session.call(Message::GetVringBase(state), |event| {
                matches!(event, FrontEvent::VringBase(..)).then_some(())
            });
        }
    }

    fn close(&mut self) -> Option<JoinHandle<()>> {
        for index in 0..self.queues {
            match self.watcher {
                Some(_) => self.stop_queue(index),
                None => break,
            }
        }
        self.session = None;
        let (stop, watcher) = self.watcher.take()?;
        // An event counter that is not full takes this.
        let _ = rustix::io::write(stop.as_fd(), &1u64.to_ne_bytes());
        Some(watcher)
    }

    fn distrust(&mut self) {
        self.session = None;
    }
}
