//! Drivers: what each kind of disk needs, behind one interface.
//!
//! The control path ([`Driver`]) is called seldom and is `dyn`. The data path ([`DriverQueue`]) is an
//! enum, and its drivers are generic inside: one `match` for each call.

pub(crate) mod io_uring;
pub(crate) mod vhost_user;
pub(crate) mod virtio_blk;

use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use crate::{
    Error, MemoryRegion, Property, Result, State, Value,
    queue::{Done, Queue},
    request::Request,
    wait::Wait,
};

/// The names of the drivers.
pub(crate) const NAMES: &[&str] = &["io_uring", "virtio-blk-vhost-user"];

/// A driver of this name.
pub(crate) fn create(name: &str) -> Result<Box<dyn Driver>> {
    match name {
        "io_uring" => Ok(Box::new(io_uring::IoUring::new()?)),
        "virtio-blk-vhost-user" => {
            let connector = vhost_user::VhostUser::default();
            Ok(Box::new(virtio_blk::VirtioBlk::new(connector)))
        }
        _ => Err(Error::new(Errno::NOENT, "Unknown driver name")),
    }
}

/// The queues that a driver starts with.
pub(crate) struct Queues {
    pub queues: Vec<Queue>,
    pub poll_queues: Vec<Queue>,
}

/// The control path of a driver. Called in the states that its [`Property`]s say; connecting and
/// starting is tried again after an error.
pub(crate) trait Driver: Send {
    /// Its name.
    fn name(&self) -> &'static str;

    /// All its properties, but `driver`.
    fn properties(&self) -> [&'static [Property]; 2];

    /// The value of a property of this name, which is readable in this state. Those that the device
    /// changes are read from it anew.
    fn get(&mut self, name: &str, state: State) -> Result<Value>;

    /// Sets a property that is writable now; the value is of its kind.
    fn set(&mut self, name: &str, value: Value) -> Result<()>;

    /// Reaches the device.
    fn connect(&mut self) -> Result<()>;

    /// Begins; the first queues.
    fn start(&mut self) -> Result<Queues>;

    /// One more queue. Only if it says `can-add-queues`.
    fn add_queue(&mut self, poll: bool) -> Result<Queue>;

    /// The device may use this memory from now on. No equal region is mapped.
    fn map(&mut self, region: &MemoryRegion) -> Result<()>;

    /// And not any more. An equal region is mapped.
    fn unmap(&mut self, region: &MemoryRegion);
}

/// The data path: the queue of one of the drivers.
pub(crate) enum DriverQueue {
    IoUring(io_uring::Queue),
    VirtioSplit(virtio_blk::Queue<virtio::ring::split::Driver>),
    VirtioPacked(virtio_blk::Queue<virtio::ring::packed::Driver>),
}

/// Calls the queue of whichever driver it is.
macro_rules! each {
    ($self:expr, $queue:ident => $call:expr) => {
        match $self {
            DriverQueue::IoUring($queue) => $call,
            DriverQueue::VirtioSplit($queue) => $call,
            DriverQueue::VirtioPacked($queue) => $call,
        }
    };
}

/// The methods that each driver's queue has.
impl DriverQueue {
    /// Takes a request. Never blocks; what completes at once goes to `done`.
    #[inline]
    pub fn submit(&mut self, request: Request, done: &mut Done) {
        each!(self, queue => queue.submit(request, done));
    }

    /// Shows the device what was submitted. Never blocks.
    #[inline]
    pub fn kick(&mut self, done: &mut Done) {
        each!(self, queue => queue.kick(done));
    }

    /// Takes what is completed. Never blocks.
    #[inline]
    pub fn reap(&mut self, done: &mut Done) {
        each!(self, queue => queue.reap(done));
    }

    /// Shows the device what was submitted, waits for completions, `more` of them if it can tell, and
    /// takes them; may return early with fewer or none. Only called with as many requests in flight.
    #[inline]
    pub fn wait(&mut self, more: usize, wait: &Wait<'_>, done: &mut Done) -> Result<()> {
        each!(self, queue => queue.wait(more, wait, done))
    }

    /// The caller goes away. `left`: there are completions that it has not fetched, so that an enabled
    /// completion descriptor must be readable.
    #[inline]
    pub fn rest(&mut self, left: bool) {
        each!(self, queue => queue.rest(left));
    }

    /// An eventfd that does not block.
    pub fn completion_fd(&self) -> BorrowedFd<'_> {
        each!(self, queue => queue.completion_fd())
    }

    /// Whether completions make it readable.
    pub fn set_completion_fd_enabled(&mut self, enabled: bool) {
        each!(self, queue => queue.set_completion_fd_enabled(enabled));
    }
}

/// The value of a property that is a number of queues.
fn queue_count(name: &str, count: i32) -> Result<i32> {
    match count {
        0.. => Ok(count),
        _ => {
            let text = format!("{name} must be equal to or greater than 0");
            Err(crate::error::invalid(text))
        }
    }
}
