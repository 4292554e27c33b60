//! Sources and devices: the control path.
//!
//! A [`Source`] is a configured node that opens devices for clients; a [`Device`] is one opened disk,
//! shared by all reactors; each reactor opens its own [`crate::Queue`] into it.

use std::sync::Arc;

use crate::{
    error::Result,
    events::{Event, Subscription},
    host::Host,
    limits::Limits,
    queue::Queue,
    range_lock::RangeLock,
    reactor::{Local, Reactor},
};

/// How much may happen at once in a source, strictest first. The words are nbdkit's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ThreadModel {
    /// One connection at a time.
    SerializeConnections,
    /// Many connections, one request at a time over all of them.
    SerializeAllRequests,
    /// Many connections, one request at a time on each.
    SerializeRequests,
    /// Anything at once.
    Parallel,
}

/// One configured producer of devices: a plugin in nbdkit's words.
///
/// The life of a source is `ready`, `start`, then any number of `preconnect`, `exports` and `open`,
/// then `stop`. Only `exports` and `open` are always needed.
pub trait Source: Send + Sync + 'static {
    /// The node's name, for logs and errors.
    fn name(&self) -> &Arc<str>;

    /// How much may happen at once.
    fn thread_model(&self) -> ThreadModel {
        ThreadModel::Parallel
    }

    /// Checks and claims what needs privileges. One thread exists, no ring, no pool; a fork and a
    /// change of user may follow.
    fn ready(&self) -> Result<()> {
        Ok(())
    }

    /// Threads and rings exist from here on.
    fn start<'a>(&'a self, reactor: &'a Reactor) -> Local<'a, Result<()>> {
        let _ = reactor;
        Box::pin(async { Ok(()) })
    }

    /// A client has connected: right after accept, before any handshake. An error refuses it.
    fn preconnect<'a>(&'a self, cx: &'a OpenContext) -> Local<'a, Result<()>> {
        let _ = cx;
        Box::pin(async { Ok(()) })
    }

    /// The exports a client may open.
    fn exports<'a>(&'a self, cx: &'a OpenContext) -> Local<'a, Result<Exports>>;

    /// Opens a device for a client, after handshake and TLS. Its limits are known on return.
    fn open<'a>(&'a self, cx: &'a OpenContext) -> Local<'a, Result<Arc<dyn Device>>>;

    /// The last device is closed; the process is going.
    fn stop<'a>(&'a self, reactor: &'a Reactor) -> Local<'a, ()> {
        let _ = reactor;
        Box::pin(async {})
    }
}

/// One opened disk. Shared by all reactors; may be one instance for all clients or one for each.
pub trait Device: Send + Sync + 'static {
    /// Size, block sizes, and what is supported how.
    fn limits(&self) -> Arc<Limits>;

    /// Tells `f`, on this reactor, when something about the device changes.
    fn subscribe(&self, reactor: &Reactor, f: Box<dyn Fn(Event)>) -> Subscription {
        let _ = (reactor, f);
        Subscription::none()
    }

    /// The lock under which [`crate::Normalize`] updates parts of blocks. Devices of one underlying
    /// object (a file opened for two clients) return the same one: else two of them that change
    /// different bytes of one block could lose an update. `None`: there is no other such device.
    fn block_lock(&self) -> Option<RangeLock> {
        None
    }

    /// This reactor's way in. Called on the reactor's thread.
    fn open_queue(&self, reactor: &Reactor) -> Result<std::rc::Rc<dyn Queue>>;

    /// After the last queue is gone: releases what is held, and reports errors that nobody has seen
    /// yet. Dropping a device without closing it is an abnormal end, and must not block.
    fn close<'a>(&'a self, reactor: &'a Reactor) -> Local<'a, Result<()>> {
        let _ = reactor;
        Box::pin(async { Ok(()) })
    }
}

/// What a client may do with what it opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only reading.
    ReadOnly,
    /// Reading and, if the device can, writing.
    ReadWrite,
}

/// Who is asking.
#[derive(Clone, Debug, Default)]
pub struct Client {
    /// Number of the connection in this process, from 1.
    pub id: u64,
    /// Where it comes from, for logs: an address, or `unix`.
    pub peer: String,
    /// The connection is encrypted.
    pub tls: bool,
    /// Who it proved to be: the PSK user or the certificate's distinguished name.
    pub identity: Option<String>,
    /// Who issued that certificate: a distinguished name.
    pub issuer: Option<String>,
}

/// Everything an open needs to know.
#[derive(Clone)]
pub struct OpenContext {
    /// Who is asking.
    pub client: Arc<Client>,
    /// The export's name; empty means the default.
    pub export: Arc<str>,
    /// What the client may do.
    pub access: Access,
    /// The reactor the client is served on.
    pub reactor: Reactor,
    /// Services of the process.
    pub host: Arc<dyn Host>,
}

/// One name a client may open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// The name; may be empty.
    pub name: String,
    /// For people.
    pub description: Option<String>,
}

/// The exports of a source.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Exports {
    /// The names on offer.
    pub list: Vec<Export>,
    /// What the empty name opens, if it does.
    pub default: Option<String>,
}

impl Exports {
    /// One export with the empty name: what a source with a single disk has.
    pub fn single() -> Exports {
        let list = vec![Export {
            name: String::new(),
            description: None,
        }];
        Exports {
            list,
            default: Some(String::new()),
        }
    }
}
