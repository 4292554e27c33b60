//! The services of the process, for sources and filters, which touch no files, processes or
//! sockets of their own.
//!
//! One [`HostServices`] serves all reactors of a process. What blocks goes to the reactor's pool;
//! what waits does so on the reactor it was asked from, and ends when its [`Watch`] is dropped.

mod cancel;
mod scratch;
mod socket;
mod spawn;
mod watch;

use std::{
    path::Path,
    sync::{Arc, OnceLock},
};

use block::{
    Device, Host, Reactor, Result,
    host::{Command, Output, UnixHandler, Watch},
    reactor::Local,
};

/// Ends a client's connection by its number; at once, or after what is in flight.
type Disconnect = Box<dyn Fn(u64, bool) + Send + Sync>;

/// [`Host`] for a process of its own.
pub struct HostServices {
    shutdown: Box<dyn Fn() + Send + Sync>,
    disconnect: OnceLock<Disconnect>,
}

impl HostServices {
    /// Services of a process that `shutdown` asks to stop, from any thread.
    pub fn new(shutdown: impl Fn() + Send + Sync + 'static) -> Arc<HostServices> {
        Arc::new(HostServices {
            shutdown: Box::new(shutdown),
            disconnect: OnceLock::new(),
        })
    }

    /// Says how clients are disconnected: the server that knows them needs this host first. Later
    /// calls have no effect.
    pub fn set_disconnect(&self, disconnect: impl Fn(u64, bool) + Send + Sync + 'static) {
        let _ = self.disconnect.set(Box::new(disconnect));
    }
}

impl Host for HostServices {
    fn scratch<'a>(
        &'a self,
        reactor: &'a Reactor,
        size: u64,
    ) -> Local<'a, Result<Arc<dyn Device>>> {
        Box::pin(scratch::make(reactor, size))
    }

    fn file_exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn watch_file(&self, reactor: &Reactor, path: &Path, f: Box<dyn Fn()>) -> Result<Watch> {
        watch::file(reactor, path, f)
    }

    fn spawn<'a>(&'a self, reactor: &'a Reactor, command: Command) -> Local<'a, Result<Output>> {
        Box::pin(spawn::run(reactor, command))
    }

    fn listen_unix(&self, reactor: &Reactor, path: &Path, handler: UnixHandler) -> Result<Watch> {
        socket::listen(reactor, path, handler)
    }

    fn shutdown(&self) {
        (self.shutdown)();
    }

    fn disconnect(&self, client: u64, force: bool) {
        if let Some(disconnect) = self.disconnect.get() {
            disconnect(client, force);
        }
    }
}
