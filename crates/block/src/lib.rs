//! The block layer of blkit: the meeting place of every source of blocks and every export.
//!
//! No I/O, no system calls, no hidden globals. Sources and filters implement [`Source`],
//! [`Filter`], [`Device`] and [`Queue`]; exports make [`Request`]s and submit them; a [`Reactor`]
//! is the handle to the loop they run on.
//!
//! | module | what |
//! | --- | --- |
//! | [`op`] | operations, their sets and flags |
//! | [`request`] | the request, its completion frames, splitting, parking, journeys to other threads |
//! | [`data`] | who owns the bytes |
//! | [`queue`], [`device`], [`filter`] | the traits |
//! | [`limits`], [`extents`], [`error`] | plain data |
//! | [`normalize`] | alignment, splitting and emulation under a layer that needs them |
//! | [`range_lock`], [`gate`] | who may run at the same time |
//! | [`reactor`], [`inbox`], [`host`] | the loop, other threads, the process |

pub mod data;
pub mod device;
pub mod error;
pub mod events;
pub mod extents;
pub mod filter;
pub mod gate;
pub mod host;
pub mod inbox;
pub mod limits;
pub mod normalize;
pub mod op;
pub mod queue;
pub mod range_lock;
pub mod reactor;
pub mod request;

pub use data::{
    Chunk, ChunkPool, Data, Iov, OwnedBuf, Piece, Pin, RecvBuf, Segment, Segments, SharedBuf,
    SharedMem,
};
pub use device::{Access, Client, Device, Export, Exports, OpenContext, Source, ThreadModel};
pub use error::{Errno, Error, ErrorKind, IoError, Outcome, Result};
pub use events::{Event, EventHub, Subscription};
pub use extents::{Extent, ExtentFlags, ExtentList};
pub use filter::{Filter, Filtered, Next, WrapDevice};
pub use gate::Gate;
pub use host::Host;
pub use inbox::{Inbox, Unpark};
pub use limits::{Limits, MAX_TRANSFER, Support};
pub use normalize::Normalize;
pub use op::{Flags, Op, OpSet};
pub use queue::{Call, Queue, QueueExt};
pub use range_lock::RangeLock;
pub use reactor::{Doorbell, Job, JobReply, Local, Pool, Reactor, ReactorOps, Sleep, Tick};
pub use request::{CancelGroup, Completed, Counters, Parked, Remote, Request, Split, Ticket};
