//! Serving disks to virtual machines by vhost-user-blk: any source, or a [`Device`] of the program's own.
//!
//! What a virtual machine or a program with libblkio connects to is a Unix socket; the data is in
//! memory that both share. Programs that used libvhost-user or the crate `vhost-user-backend` for this
//! say here what a read and a write do, and nothing else:
//!
//! ```
//! use std::{io, sync::Mutex};
//! use blkit::serve::{self, Abilities, Device};
//!
//! struct Ram(Mutex<Vec<u8>>);
//!
//! impl Device for Ram {
//!     fn size(&self) -> u64 {
//!         1 << 20
//!     }
//!     fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
//!         let (at, disk) = (offset as usize, self.0.lock().unwrap());
//!         bytes.copy_from_slice(&disk[at..at + bytes.len()]);
//!         Ok(())
//!     }
//!     fn abilities(&self) -> Abilities {
//!         Abilities::writable()
//!     }
//!     fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
//!         let (at, mut disk) = (offset as usize, self.0.lock().unwrap());
//!         disk[at..at + bytes.len()].copy_from_slice(bytes);
//!         Ok(())
//!     }
//! }
//!
//! # fn main() -> blkit::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! # let socket = folder.path().join("disk.sock");
//! let server = serve::vhost_user(&socket).serial("ram").device(Ram(vec![0; 1 << 20].into()))?;
//! // qemu-system-x86_64 ... -chardev socket,id=c,path=disk.sock -device vhost-user-blk-pci,chardev=c
//! server.close(std::time::Duration::from_secs(5))?;
//! # Ok(())
//! # }
//! ```

mod device;

use std::{
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use block::{Errno, Event, EventHub, Inbox, Reactor};
use exports::vhost_user_blk::{Export, Options};
use reactor::{Listener, Reactors};

pub use device::{Abilities, Device};
pub use exports::vhost_user_blk::Sharing;

use crate::{
    builder::Builder,
    error::{Error, Result},
    home::Opening,
    wait::{Debt, Promise, block_on, block_on_for, promise},
};

/// A server of vhost-user-blk that will listen on the Unix socket `path`. The socket's file is made when
/// it is started, and removed when it ends.
pub fn vhost_user(path: impl AsRef<Path>) -> VhostUser {
    VhostUser {
        path: path.as_ref().to_owned(),
        threads: 1,
        options: Options::default(),
    }
}

/// How a disk is served by vhost-user-blk. See [`vhost_user`].
#[derive(Clone, Debug)]
#[must_use = "nothing is served yet"]
pub struct VhostUser {
    path: PathBuf,
    threads: usize,
    options: Options,
}

/// How long dropping a server waits.
const PATIENCE: Duration = Duration::from_secs(5);

impl VhostUser {
    /// Queues that a front-end may use, 1 to 256 [default: 1].
    pub fn queues(mut self, queues: u16) -> VhostUser {
        self.options.queues = queues;
        self
    }

    /// Threads that the queues are spread over, at least one [default: 1].
    pub fn threads(mut self, threads: usize) -> VhostUser {
        self.threads = threads.max(1);
        self
    }

    /// Bytes of a logical block, a power of two from 512 on [default: 512, or the device's].
    pub fn block_size(mut self, bytes: u32) -> VhostUser {
        self.options.block_size = bytes;
        self
    }

    /// The serial number that guests see; 20 bytes of it.
    pub fn serial(mut self, serial: impl Into<String>) -> VhostUser {
        self.options.serial = serial.into();
        self
    }

    /// Nobody may write.
    pub fn read_only(mut self, yes: bool) -> VhostUser {
        self.options.read_only = yes;
        self
    }

    /// Who may attach at the same time, if the disk can be written [default: one].
    pub fn sharing(mut self, sharing: Sharing) -> VhostUser {
        self.options.sharing = sharing;
        self
    }

    /// Serves the program's own device, on threads of its own.
    ///
    /// # Errors
    /// An option or the device's block size is impossible; the socket or threads cannot be made.
    pub fn device(mut self, device: impl Device) -> Result<Server> {
        let block = device.block_size();
        if !block.is_power_of_two() || block > 1 << 20 {
            let what =
                format!("a block of {block} bytes: it must be a power of two, at most 1 MiB");
            return Err(Error::new(Errno::EINVAL, what));
        }
        self.options.block_size = self.options.block_size.max(block);
        let events = EventHub::default();
        let device = device::Served::new(Arc::new(device), events.clone());
        self.start(Disk::Device(Arc::new(device)), events)
    }

    /// Serves a disk of blkit's: any source, with any filters.
    ///
    /// # Errors
    /// As [`Builder::open`], and [`VhostUser::device`].
    pub fn disk(self, disk: Builder) -> Result<Server> {
        let opening = disk.read_only_if(self.options.read_only).opening()?;
        self.start(Disk::Opening(opening), EventHub::default())
    }

    fn start(self, disk: Disk, events: EventHub) -> Result<Server> {
        let size = self.options.block_size;
        if !(1..=256).contains(&self.options.queues) || !size.is_power_of_two() || size < 512 {
            let what = "1 to 256 queues, and blocks of a power of two from 512 on";
            return Err(Error::new(Errno::EINVAL, what));
        }
        let listener = Listener::bind_unix(&self.path)?;
        let reactors = Reactors::start(self.threads, reactor::Options::default())?;
        let homes: Vec<Arc<Inbox>> = (0..reactors.len())
            .map(|at| reactors.inbox(at).clone())
            .collect();
        let ((started, told), (ended, end)) = (promise(), promise());
        reactors.run_on(0, move |reactor| {
            let reactor = reactor.clone();
            let serving = Serving {
                disk,
                options: self.options,
                listener,
                homes,
            };
            let own = reactor.clone();
            reactor.spawn(async move { serving.run(&own, told, end).await });
        });
        let gone = || Err(Error::closed());
        let export = block_on(started).unwrap_or_else(gone);
        match export {
            Ok(export) => Ok(Server(Some(Live {
                reactors,
                export,
                ended,
                events,
            }))),
            Err(error) => {
                reactors.stop(PATIENCE);
                Err(error)
            }
        }
    }
}

/// What is served.
enum Disk {
    Device(Arc<dyn block::Device>),
    Opening(Opening),
}

/// A server on its first reactor.
struct Serving {
    disk: Disk,
    options: Options,
    listener: Listener,
    homes: Vec<Arc<Inbox>>,
}

impl Serving {
    async fn run(self, reactor: &Reactor, told: Debt<Result<Arc<Export>>>, end: Debt<Result<()>>) {
        let opened = match self.disk {
            Disk::Device(device) => Ok((device, None)),
            Disk::Opening(it) => {
                let opened = graph::Disk::open(reactor, it.source, &it.export, it.access).await;
                opened.map(|disk| (disk.device().clone(), Some(disk)))
            }
        };
        let (device, disk) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                // Whoever started it waits.
                let _ = told.pay(Err(error.into()));
                return;
            }
        };
        let export = Export::new(device, self.options);
        // As above.
        let _ = told.pay(Ok(export.clone()));
        export
            .accept_loop(reactor, self.listener, &self.homes)
            .await;
        pin!(export.drained()).await;
        let closed = match disk {
            Some(disk) => disk.close(reactor).await.map_err(Error::from),
            None => Ok(()),
        };
        // Nobody may wait any more.
        let _ = end.pay(closed);
    }
}

/// A disk that is being served. Dropped, it ends as with [`Server::close`], for at most five seconds.
pub struct Server(Option<Live>);

struct Live {
    reactors: Reactors,
    export: Arc<Export>,
    ended: Promise<Option<Result<()>>>,
    events: EventHub,
}

impl Server {
    /// Front-ends that are attached.
    pub fn connections(&self) -> usize {
        self.0.as_ref().map_or(0, |live| live.export.connections())
    }

    /// The program's device has another size now: front-ends are told.
    pub fn resized(&self) {
        if let Some(live) = &self.0 {
            live.events.emit(Event::Resized);
        }
    }

    /// Ends: nobody attaches any more, what is in flight is answered, and connections end. What is not
    /// done in time is cut off.
    ///
    /// # Errors
    /// It did not end in time, or the disk could not be closed well.
    pub fn close(mut self, patience: Duration) -> Result<()> {
        self.end(patience)
    }

    fn end(&mut self, patience: Duration) -> Result<()> {
        let Some(live) = self.0.take() else {
            return Ok(());
        };
        live.export.stop();
        let ended = match block_on_for(live.ended, patience) {
            Some(ended) => ended.unwrap_or_else(|| Err(Error::closed())),
            None => Err(Error::new(
                Errno::ETIMEDOUT,
                "the server did not end in time",
            )),
        };
        live.reactors.stop(Duration::from_millis(100));
        ended
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.end(PATIENCE) {
            tracing::warn!("a server that was dropped: {error}");
        }
    }
}
