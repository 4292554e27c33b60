//! A disk whose contents tell about its client and its server: for testing clients, for measuring
//! latency, and for handing small disks over inside an export's name.
//!
//! Each client gets a disk of its own, made when it opens the export. The time modes are computed
//! anew by every read: to see one moment, read all 12 bytes at once. `uptime` and `conntime` are
//! taken from the reactor's clock, which no change of the system's time moves; `time` is the
//! system's, by the function given to [`with_clock`].

use std::{
    rc::Rc,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use block::{
    Device, Errno, Error, ErrorKind, Exports, ExtentFlags, Local, Op, OpenContext, Queue, Reactor,
    Request, Result, Segments, SharedBuf, SharedMem, Source, Tick,
};
use config::{Arg, Choice, Config};

use crate::{base64, blob, null::give_extents, registry, single};

/// A disk that tells about its client and its server, read-only.
#[derive(Config, Debug, Clone, PartialEq, Eq)]
pub struct InfoConfig {
    /// What the disk tells.
    #[config(magic, default = "exportname")]
    pub mode: Mode,
}

/// What an info disk tells.
#[derive(Choice, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The name of the export that the client asked for.
    #[config(name = "exportname")]
    ExportName,
    /// The bytes that the export's name is the base64 form of.
    #[config(name = "base64exportname")]
    Base64ExportName,
    /// The client's address and port; `unix` for any client on a Unix socket.
    Address,
    /// The time since 1970: seconds in 8 bytes, microseconds in 4, both big-endian.
    Time,
    /// The time since the server started, in the same form.
    Uptime,
    /// The time since the client opened the disk, in the same form.
    #[config(name = "conntime")]
    ConnTime,
    /// The version of blkit.
    Version,
}

/// The source.
///
/// # Errors
/// None: the signature is that of every source.
pub fn new(config: InfoConfig) -> Result<Arc<dyn Source>> {
    with_clock(config, SystemTime::now)
}

/// The source, with a wall clock of the caller's: simulations and tests have their own.
///
/// # Errors
/// None, as [`new`].
pub fn with_clock(config: InfoConfig, clock: fn() -> SystemTime) -> Result<Arc<dyn Source>> {
    Ok(Arc::new(Info {
        name: "info".into(),
        mode: config.mode,
        clock,
        started: OnceLock::new(),
    }))
}

pub(crate) fn make(args: &[Arg]) -> Result<Arc<dyn Source>> {
    new(registry::parse(args)?)
}

struct Info {
    name: Arc<str>,
    mode: Mode,
    clock: fn() -> SystemTime,
    started: OnceLock<Tick>,
}

impl Source for Info {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn start<'a>(&'a self, reactor: &'a Reactor) -> Local<'a, Result<()>> {
        self.started(reactor);
        Box::pin(async { Ok(()) })
    }

    fn exports<'a>(&'a self, _: &'a OpenContext) -> Local<'a, Result<Exports>> {
        Box::pin(async { Ok(Exports::single()) })
    }

    fn open<'a>(&'a self, cx: &'a OpenContext) -> Local<'a, Result<Arc<dyn Device>>> {
        let opened = self.device(cx).map_err(|error| error.in_node(&self.name));
        Box::pin(async { opened })
    }
}

impl Info {
    fn device(&self, cx: &OpenContext) -> Result<Arc<dyn Device>> {
        Ok(match self.mode {
            Mode::ExportName => fixed(cx.export.as_bytes().to_vec(), true),
            Mode::Base64ExportName => fixed(decode(&cx.export)?, true),
            // Each connection has an address of its own.
            Mode::Address => fixed(address(&cx.client.peer).into(), false),
            Mode::Version => fixed(env!("CARGO_PKG_VERSION").into(), true),
            Mode::Time => moving(Since::Epoch(self.clock)),
            Mode::Uptime => moving(Since::Tick(self.started(&cx.reactor))),
            Mode::ConnTime => moving(Since::Tick(cx.reactor.ops().clock())),
        })
    }

    /// When the server started: with the source, or where nobody starts sources, with its first
    /// client.
    fn started(&self, reactor: &Reactor) -> Tick {
        *self.started.get_or_init(|| reactor.ops().clock())
    }
}

/// A disk of these bytes.
fn fixed(bytes: Vec<u8>, multi_conn: bool) -> Arc<dyn Device> {
    let mut limits = blob::limits(bytes.len() as u64);
    limits.multi_conn = multi_conn;
    let bytes = SharedBuf::from_vec(bytes);
    single::device(limits, move |_| blob::queue(bytes.clone()))
}

/// A disk of a time that goes on: 12 bytes.
fn moving(since: Since) -> Arc<dyn Device> {
    single::device(blob::limits(LENGTH as u64), move |reactor| {
        Rc::new(TimeQueue {
            since,
            reactor: reactor.clone(),
        })
    })
}

/// What is told of a client's address. The paths of Unix sockets are nobody's business.
fn address(peer: &str) -> &str {
    match peer.parse::<std::net::SocketAddr>() {
        Ok(_) => peer,
        Err(_) if peer == "pipe" => peer,
        Err(_) => "unix",
    }
}

/// The bytes that an export's name stands for.
fn decode(name: &str) -> Result<Vec<u8>> {
    base64::decode(name).map_err(|why| {
        let what = format!("the export's name is {why}");
        Error::new(ErrorKind::NotFound, what)
    })
}

/// Length of a time, in bytes.
const LENGTH: usize = 12;

/// Where a time is counted from.
#[derive(Clone, Copy)]
enum Since {
    Epoch(fn() -> SystemTime),
    Tick(Tick),
}

struct TimeQueue {
    since: Since,
    reactor: Reactor,
}

impl Queue for TimeQueue {
    fn submit(&self, req: Request) {
        match req.op() {
            Op::Read => {
                let mut chunk = self.reactor.chunk(LENGTH);
                let bytes = chunk.as_mut_slice().expect("a fresh chunk has one owner");
                bytes[..LENGTH].copy_from_slice(&self.now());
                let all = SharedMem::of_chunk(chunk, LENGTH);
                let (at, len) = (req.offset() as usize, req.len() as usize);
                req.give(Segments::from(all.slice(at, len)));
            }
            Op::Cache => req.done(),
            Op::Extents => give_extents(req, ExtentFlags::DATA),
            _ => req.fail(Errno::ENOTSUP),
        }
    }
}

impl TimeQueue {
    fn now(&self) -> [u8; LENGTH] {
        let time = match self.since {
            // A clock before 1970 is not set.
            Since::Epoch(clock) => clock()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or(Duration::ZERO),
            Since::Tick(start) => self.reactor.ops().clock().since(start),
        };
        let mut bytes = [0; LENGTH];
        bytes[..8].copy_from_slice(&time.as_secs().to_be_bytes());
        bytes[8..].copy_from_slice(&time.subsec_micros().to_be_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests;
