//! A program's own disk, and how the block layer reaches it.

use std::{io, rc::Rc, sync::Arc};

use block::{
    Errno, Event, EventHub, Flags, IoError, Limits as BlockLimits, Op, OpSet, Outcome, Pool, Queue,
    Reactor, Remote, Request, Subscription, Support,
};

/// A disk that a program makes itself, to serve it to others.
///
/// The calls come from threads of a pool, several at a time, and may wait. A range is never empty,
/// always inside the disk, and a multiple of [`Device::block_size`]. What a call panics about fails
/// its request with EIO. An error without a number of the system's is EIO, too.
///
/// *Durability.* What was written need not be durable until [`Device::flush`] has returned `Ok`; then
/// everything must be that was written by calls that had returned when it was called.
pub trait Device: Send + Sync + 'static {
    /// Size in bytes: a multiple of the block size.
    fn size(&self) -> u64;

    /// Fills `bytes` from `offset` on.
    ///
    /// # Errors
    /// They cannot be read.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;

    /// What else the device can do [default: nothing, it is read-only].
    fn abilities(&self) -> Abilities {
        Abilities::default()
    }

    /// Bytes of a block, a power of two [default: 512].
    fn block_size(&self) -> u32 {
        512
    }

    /// Writes all of `bytes` at `offset`. Needs [`Abilities::write`].
    ///
    /// # Errors
    /// They cannot be written; what is there then is for the device to say.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let _ = (bytes, offset);
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    /// Makes durable what was written. Needs [`Abilities::flush`].
    ///
    /// # Errors
    /// It may not be durable: the device must go on failing then, until that is repaired.
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    /// Makes a range read as zeroes; `unmap` allows to free its space. Needs
    /// [`Abilities::write_zeroes`].
    ///
    /// # Errors
    /// As [`Device::write_at`].
    fn write_zeroes(&self, len: u64, offset: u64, unmap: bool) -> io::Result<()> {
        let _ = (len, offset, unmap);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The contents of a range are of no use any more. Needs [`Abilities::discard`].
    ///
    /// # Errors
    /// As [`Device::write_at`].
    fn discard(&self, len: u64, offset: u64) -> io::Result<()> {
        let _ = (len, offset);
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// What a [`Device`] can do besides reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// [`Device::write_at`]. Without it the device is read-only, whatever else it can do.
    pub write: bool,
    /// [`Device::flush`]. A device that is written to without a cache needs none.
    pub flush: bool,
    /// [`Device::write_zeroes`]. Without it zeroes are written.
    pub write_zeroes: bool,
    /// [`Device::discard`].
    pub discard: bool,
}

impl Abilities {
    /// [`Abilities::write`] and [`Abilities::flush`].
    pub fn writable() -> Abilities {
        Abilities {
            write: true,
            flush: true,
            ..Abilities::default()
        }
    }
}

/// The program's device as one of the block layer's.
pub(super) struct Served<D> {
    device: Arc<D>,
    events: EventHub,
}

impl<D: Device> Served<D> {
    pub fn new(device: Arc<D>, events: EventHub) -> Served<D> {
        Served { device, events }
    }
}

impl<D: Device> block::Device for Served<D> {
    fn limits(&self) -> Arc<BlockLimits> {
        let can = self.device.abilities();
        let block = self.device.block_size().max(1);
        let size = self.device.size() / u64::from(block) * u64::from(block);
        let mut limits = BlockLimits::new(size, OpSet::NONE);
        limits.min_block = block;
        limits.preferred_block = block.max(4096);
        limits.multi_conn = true;
        limits.set(Op::Read, Support::Native);
        if can.write {
            let zeroes = match can.write_zeroes {
                true => Support::Native,
                false => Support::Emulated,
            };
            limits.set(Op::Write, Support::Native);
            limits.set(Op::WriteZeroes, zeroes);
            // Without a cache nothing is left to flush, and every write is durable.
            limits.set(Op::Flush, Support::Native);
            limits.fua = match can.flush {
                true => Support::Emulated,
                false => Support::Native,
            };
            if can.discard {
                limits.set(Op::Discard, Support::Native);
            }
        }
        Arc::new(limits)
    }

    fn subscribe(&self, reactor: &Reactor, f: Box<dyn Fn(Event)>) -> Subscription {
        self.events.subscribe(reactor, f)
    }

    fn open_queue(&self, reactor: &Reactor) -> block::Result<Rc<dyn Queue>> {
        Ok(Rc::new(Calls {
            device: self.device.clone(),
            reactor: reactor.clone(),
        }))
    }
}

/// Calls the program, each time on a thread that may wait.
struct Calls<D> {
    device: Arc<D>,
    reactor: Reactor,
}

impl<D: Device> Queue for Calls<D> {
    fn submit(&self, req: Request) {
        let mut remote = req.into_remote(self.reactor.inbox());
        let device = self.device.clone();
        self.reactor.offload(Pool::Blocking, move || {
            let outcome = call(&*device, &mut remote);
            remote.complete(outcome);
        });
    }
}

/// One request, as one call.
fn call<D: Device>(device: &D, remote: &mut Remote) -> Outcome {
    let (op, offset, len) = (remote.op(), remote.offset(), remote.len());
    let done = match op {
        Op::Read => {
            let mut bytes = vec![0; len as usize];
            let read = device.read_at(&mut bytes, offset);
            if read.is_ok() {
                remote.give(bytes);
            }
            read
        }
        Op::Write => {
            let mut bytes = vec![0; len as usize];
            remote.read_data(0, &mut bytes);
            device.write_at(&bytes, offset)
        }
        Op::WriteZeroes => {
            let unmap = !remote.flags().contains(Flags::NO_HOLE);
            device.write_zeroes(len, offset, unmap)
        }
        Op::Discard => device.discard(len, offset),
        Op::Flush if device.abilities().flush => device.flush(),
        Op::Flush => Ok(()),
        _ => return Err(Errno::ENOTSUP.into()),
    };
    done.map_err(|error| IoError::from(errno(&error)))
}

/// The number of an error; what a kind stands for, if it has none.
fn errno(error: &io::Error) -> Errno {
    if let Some(number) = error.raw_os_error() {
        return Errno::new(number);
    }
    match error.kind() {
        io::ErrorKind::Unsupported => Errno::ENOTSUP,
        io::ErrorKind::ReadOnlyFilesystem => Errno::EROFS,
        io::ErrorKind::StorageFull => Errno::ENOSPC,
        io::ErrorKind::InvalidInput => Errno::EINVAL,
        io::ErrorKind::OutOfMemory => Errno::ENOMEM,
        io::ErrorKind::TimedOut => Errno::ETIMEDOUT,
        _ => Errno::EIO,
    }
}
