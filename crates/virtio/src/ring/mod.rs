//! Virtqueues: split and packed, the device's half and the driver's.
//!
//! **What.** [`split`] and [`packed`] each have a `Device` and a `Driver` (specification, 2.7 and 2.8).
//! [`DeviceRing`] and [`DriverRing`] are what the two formats share, for code that is generic over the
//! format; nothing here is `dyn`.
//!
//! **Why so.** The whole state of a queue is private; the ring in shared memory is only read to learn
//! what is new, each word once, and written to tell what is done. Work is done in batches: completions
//! are published by one store and decide about one call.
//!
//! **Contract.** What the ring itself says wrong (an index that jumps, a head in use, a loop) is a
//! [`RingError`]: that queue is broken and must be stopped, and gives nothing more. What is wrong
//! inside one chain (an address, the order, an indirect table) is a [`Fault`] of that chain.
//!
//! A device's turn:
//!
//! ```
//! use virtio::{blk, memory::Memory, ring::{Chain, DeviceRing, RingError}};
//!
//! /// Takes at most 32 requests, answers those that are done, says whether the guest wants a call.
//! fn turn<R: DeviceRing>(
//!     ring: &mut R, memory: &Memory, parser: &mut blk::Parser, chain: &mut Chain,
//! ) -> Result<bool, RingError> {
//!     ring.disable_kicks();
//!     for _ in 0..32 {
//!         let Some(token) = ring.pop(memory, chain)? else {
//!             // Nothing is there. If that is still so once kicks are wanted, the next one wakes us.
//!             if !ring.enable_kicks()? {
//!                 break;
//!             }
//!             ring.disable_kicks();
//!             continue;
//!         };
//!         let (pending, command) = parser.parse(memory, chain);
//!         let (status, written) = match command {
//!             // A server submits the command with `pending` and `token`, and comes back to the next
//!             // lines when it has completed, in whatever order, in whatever turn.
//!             Ok(blk::Command::Flush) => (blk::Status::Ok, 0),
//!             Ok(_) => (blk::Status::Unsupported, 0),
//!             Err(status) => (status, 0),
//!         };
//!         ring.push(token, pending.finish(memory, status, written));
//!     }
//!     // Once for all of the turn.
//!     Ok(ring.publish())
//! }
//! ```

mod chain;
pub mod packed;
pub mod split;

pub use chain::{Chain, Fault};

use std::sync::atomic::{AtomicU32, Ordering};

use crate::memory::{Area, Memory, RegionMap};

/// Descriptor flag: another descriptor follows.
pub const DESC_NEXT: u16 = 1;
/// Descriptor flag: the device writes.
pub const DESC_WRITE: u16 = 2;
/// Descriptor flag: a table of descriptors.
pub const DESC_INDIRECT: u16 = 4;

/// Feature bit: indirect descriptors.
pub const F_INDIRECT_DESC: u32 = 28;
/// Feature bit: event index.
pub const F_EVENT_IDX: u32 = 29;
/// Feature bit: version 1 of the specification; required here.
pub const F_VERSION_1: u32 = 32;
/// Feature bit: addresses go through a platform's translation.
pub const F_ACCESS_PLATFORM: u32 = 33;
/// Feature bit: packed ring.
pub const F_RING_PACKED: u32 = 34;
/// Feature bit: buffers are used in the order in which they were made available.
pub const F_IN_ORDER: u32 = 35;
/// Feature bit: a queue can be reset alone.
pub const F_RING_RESET: u32 = 40;

/// Descriptors of a queue at most.
pub const QUEUE_SIZE_MAX: u16 = 32768;

/// Bytes of a descriptor, in both formats.
const DESC: usize = 16;

/// The other side broke the ring. The queue must be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// More became available, or used, than the queue has.
    #[error("the ring's index jumped from {from} to {to}")]
    Jump {
        /// Our index.
        from: u16,
        /// What the ring says.
        to: u16,
    },
    /// A descriptor's number is not below the queue's size.
    #[error("descriptor {0} is beyond the queue")]
    Beyond(u16),
    /// A head became available while it was in use.
    #[error("descriptor {0} became available while in use")]
    InUse(u16),
    /// A chain is longer than the queue: it has a loop, or takes descriptors in use.
    #[error("a chain is longer than the queue")]
    Loop,
    /// The device used what was not available.
    #[error("buffer {0} was used without being available")]
    NotAvailable(u16),
    /// The queue was stopped.
    #[error("the queue was stopped")]
    Stopped,
    /// The device says it wrote more than there is room for.
    #[error("{wrote} bytes were written where {room} fit")]
    Length {
        /// What it says.
        wrote: u32,
        /// What there was.
        room: u32,
    },
}

/// Why a queue cannot be set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// 0, above 32768, or no power of two in a split ring.
    #[error("a queue cannot have {0} descriptors")]
    Size(u16),
    /// A part of the ring is not within one region of memory.
    #[error("a ring at {0:#x} is not within one region of memory")]
    Address(u64),
    /// A part of the ring is not aligned as its format wants it.
    #[error("a ring is not aligned")]
    Alignment,
    /// A part of the ring has too few bytes.
    #[error("a ring's memory is too short")]
    Short,
    /// A base that no queue of this size can have.
    #[error("the ring's base is beyond the queue")]
    Base,
    /// The in-flight log is not for this queue.
    #[error("the in-flight log does not fit the queue: {0}")]
    Inflight(&'static str),
}

/// What was agreed upon for a queue.
#[derive(Clone, Copy, Debug)]
pub struct RingConfig {
    /// Descriptors: 1 to 32768; a power of two in a split ring.
    pub size: u16,
    /// [`F_EVENT_IDX`].
    pub event_index: bool,
    /// [`F_INDIRECT_DESC`].
    pub indirect: bool,
    /// Descriptors of an indirect table at most: what one request may cost. The specification says
    /// the queue's size; Linux goes by its `seg_max` alone.
    pub table_max: u16,
}

impl RingConfig {
    /// A queue without features.
    pub fn new(size: u16) -> RingConfig {
        RingConfig {
            size,
            event_index: false,
            indirect: false,
            table_max: 1024,
        }
    }
}

/// What addresses of rings mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressKind {
    /// Addresses of the front-end's process, as vhost-user has them.
    User,
    /// Guest-physical addresses.
    Guest,
}

/// The three parts of a ring. Split: descriptor table, available ring, used ring. Packed: descriptor
/// ring, driver and device event suppression.
#[derive(Clone, Debug)]
pub struct RingAreas {
    /// Descriptors.
    pub descriptors: Area,
    /// What the driver writes.
    pub driver: Area,
    /// What the device writes.
    pub device: Area,
}

impl RingAreas {
    /// Finds the parts: `addresses` in the order of the fields, `lengths` from
    /// [`split::lengths`] or [`packed::lengths`].
    ///
    /// # Errors
    ///
    /// A part that is not mapped, or crosses regions.
    pub fn find(
        map: &RegionMap,
        kind: AddressKind,
        addresses: [u64; 3],
        lengths: [usize; 3],
    ) -> Result<RingAreas, SetupError> {
        let find = |part: usize| {
            let area = match kind {
                AddressKind::User => map.by_user(addresses[part], lengths[part]),
                AddressKind::Guest => map.by_guest(addresses[part], lengths[part]),
            };
            area.ok_or(SetupError::Address(addresses[part]))
        };
        Ok(RingAreas {
            descriptors: find(0)?,
            driver: find(1)?,
            device: find(2)?,
        })
    }

    fn check(&self, lengths: [usize; 3], alignments: [usize; 3]) -> Result<(), SetupError> {
        let parts = [&self.descriptors, &self.driver, &self.device];
        for (part, (length, alignment)) in parts.iter().zip(lengths.iter().zip(alignments)) {
            if part.len() < *length {
                return Err(SetupError::Short);
            }
            if !part.is_aligned(alignment) {
                return Err(SetupError::Alignment);
            }
        }
        Ok(())
    }
}

/// A chain that was taken and not yet pushed back. There is one for each, and it is used up.
///
/// A token of a queue that was stopped meanwhile does nothing.
#[derive(Debug)]
#[must_use = "a chain that is not pushed back is lost to the guest"]
pub struct Token {
    /// Split: the head. Packed: the buffer's id.
    id: u16,
    /// Packed: descriptors it took.
    slots: u16,
    /// Packed: the entry of the in-flight log.
    entry: u16,
    /// Which life of the queue it belongs to.
    life: u32,
}

impl Token {
    /// The head descriptor (split) or the buffer's id (packed).
    pub fn id(&self) -> u16 {
        self.id
    }
}

/// A number for each life of a queue.
fn new_life() -> u32 {
    static LIVES: AtomicU32 = AtomicU32::new(0);
    LIVES.fetch_add(1, Ordering::Relaxed)
}

/// The device's half of a queue.
pub trait DeviceRing {
    /// Takes the next chain, if there is one, into `chain`.
    ///
    /// # Errors
    ///
    /// The ring is broken, and stays so.
    fn pop(&mut self, memory: &Memory, chain: &mut Chain) -> Result<Option<Token>, RingError>;

    /// Takes the next chain that was in flight when the in-flight log's last user ended, in the order
    /// in which they were taken. Called until there is none, then [`DeviceRing::pop`]. A queue without
    /// a log has none.
    ///
    /// # Errors
    ///
    /// The ring is broken.
    fn resume(&mut self, memory: &Memory, chain: &mut Chain) -> Result<Option<Token>, RingError>;

    /// The same queue lies somewhere else from now on, as when the front-end maps memory anew. All that
    /// is in flight goes on.
    ///
    /// # Errors
    ///
    /// Areas that are none of this queue; then nothing has changed.
    fn relocate(&mut self, areas: RingAreas) -> Result<(), SetupError>;

    /// Takes back having taken these chains, which are all that are in flight: the queue's base goes
    /// back, so that its next life takes them again. After [`DeviceRing::publish`]. False, and nothing
    /// has changed, if chains behind one of them were pushed already: no base says that.
    fn untake(&mut self, tokens: &[&Token]) -> bool;

    /// Gives a chain back; `written` bytes of it were written, from its first writable one on. Chains
    /// come back in any order. The guest sees them after [`DeviceRing::publish`].
    fn push(&mut self, token: Token, written: u32);

    /// Shows the guest all that was pushed. Whether it wants to be called.
    #[must_use = "a guest that is not called may wait for ever"]
    fn publish(&mut self) -> bool;

    /// Asks for no kicks. A hint: kicks may come.
    fn disable_kicks(&mut self);

    /// Asks for a kick. True if chains are available already: then no kick may come for them.
    ///
    /// # Errors
    ///
    /// The ring is broken.
    fn enable_kicks(&mut self) -> Result<bool, RingError>;

    /// Chains taken and not pushed.
    fn in_flight(&self) -> u16;

    /// Where the queue stands, as GET_VRING_BASE tells it. Chains in flight are not given back by it:
    /// push and publish them first, or leave them to the in-flight log.
    fn base(&self) -> u32;

    /// Ends this life of the queue: nothing is taken any more, tokens are void. The base.
    fn stop(&mut self) -> u32;
}

/// A buffer of a chain, as a driver gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// The guest's address.
    pub address: u64,
    /// Bytes.
    pub len: u32,
    /// Whether the device writes.
    pub writable: bool,
}

/// Why a driver's chain was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// Not now: descriptors come back as chains are used.
    #[error("the queue is full")]
    Full,
    /// Never: more buffers than the queue, or an indirect table, can hold.
    #[error("a chain of {0} buffers does not fit the queue")]
    TooLong(usize),
    /// No buffers, one without bytes, a readable one behind a writable one, or more than 4 GiB.
    #[error("the buffers make no chain")]
    Malformed,
}

/// A chain that the device has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// What was given with it.
    pub cookie: u64,
    /// Bytes the device says it wrote; at most what the chain has room for.
    pub written: u32,
}

/// The driver's half of a queue.
pub trait DriverRing {
    /// Makes a chain available; the device sees it after [`DriverRing::publish`].
    ///
    /// # Errors
    ///
    /// As [`AddError`] says; [`AddError::Full`] alone goes away.
    fn add(&mut self, buffers: &[Buffer], cookie: u64) -> Result<(), AddError>;

    /// Shows the device all that was added. Whether it wants a kick.
    #[must_use = "a device that is not kicked may wait for ever"]
    fn publish(&mut self) -> bool;

    /// Takes the next used chain, if there is one.
    ///
    /// # Errors
    ///
    /// The device broke the ring.
    fn pop(&mut self) -> Result<Option<Used>, RingError>;

    /// Asks for no calls. A hint.
    fn disable_calls(&mut self);

    /// Asks for a call. True if used chains are there already.
    ///
    /// # Errors
    ///
    /// The device broke the ring.
    fn enable_calls(&mut self) -> Result<bool, RingError>;

    /// Chains added and not yet used.
    fn in_flight(&self) -> u16;
}

/// Checks a driver's chain; gives its writable bytes.
fn check_buffers(buffers: &[Buffer]) -> Result<u32, AddError> {
    let (mut total, mut room) = (0u32, 0);
    let mut writable = false;
    for buffer in buffers {
        if buffer.len == 0 || (writable && !buffer.writable) {
            return Err(AddError::Malformed);
        }
        writable = buffer.writable;
        total = total.checked_add(buffer.len).ok_or(AddError::Malformed)?;
        if writable {
            room += buffer.len;
        }
    }
    if buffers.is_empty() {
        return Err(AddError::Malformed);
    }
    Ok(room)
}

/// Room for a driver's indirect tables, one for each descriptor of the queue.
#[derive(Clone, Debug)]
pub struct Tables {
    /// The memory, of `size * entries * 16` bytes at least.
    pub area: Area,
    /// The guest's address of it.
    pub guest: u64,
    /// Descriptors of a table.
    pub entries: u16,
}

impl Tables {
    /// Bytes that tables of `entries` descriptors need for a queue of `size`.
    pub fn length(size: u16, entries: u16) -> usize {
        usize::from(size) * usize::from(entries) * DESC
    }

    fn check(&self, size: u16) -> Result<(), SetupError> {
        if self.area.len() < Tables::length(size, self.entries) {
            return Err(SetupError::Short);
        }
        if !self.area.is_aligned(DESC) {
            return Err(SetupError::Alignment);
        }
        Ok(())
    }
}

/// Whether an index passed the other side's event index on its way from `old` to `new`
/// (specification, 2.7.7.2 and 2.7.10).
#[inline]
fn passed(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests;
