//! Services of the process, for sources and filters: they never touch files, processes, sockets or
//! threads of their own.

use std::{path::Path, sync::Arc, time::Duration};

use crate::{
    device::Device,
    error::Result,
    reactor::{Local, Reactor},
};

/// A program to run, and with what.
#[derive(Clone, Debug, Default)]
pub struct Command {
    /// Program and arguments; never a shell line.
    pub argv: Vec<String>,
    /// Variables added to the environment.
    pub env: Vec<(String, String)>,
    /// What it reads on its standard input.
    pub stdin: Vec<u8>,
    /// Killed when it takes longer.
    pub timeout: Option<Duration>,
}

/// What a program left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

/// Ends the watch when dropped.
#[must_use = "dropping a watch ends it"]
pub struct Watch(pub Option<Box<dyn std::any::Any>>);

/// Somebody connected to a socket made by [`Host::listen_unix`]: gets its bytes, returns the answer.
pub type UnixHandler = Box<dyn Fn(Vec<u8>) -> Vec<u8>>;

/// Services of the process.
pub trait Host: Send + Sync + 'static {
    /// A fresh, sparse, temporary device of `size` bytes that reads as zeroes; its space is given
    /// back when it is dropped. In `$TMPDIR`, else `/var/tmp`.
    fn scratch<'a>(&'a self, reactor: &'a Reactor, size: u64)
    -> Local<'a, Result<Arc<dyn Device>>>;

    /// Calls `f`, on this reactor, when the file appears, changes or goes.
    fn watch_file(&self, reactor: &Reactor, path: &Path, f: Box<dyn Fn()>) -> Result<Watch>;

    /// The file exists now. May wait for the file system, so it belongs to the control path: to
    /// opening, and to what [`Host::watch_file`] calls.
    fn file_exists(&self, path: &Path) -> bool;

    /// Runs a program to its end: clean signal mask, no inherited descriptors.
    fn spawn<'a>(&'a self, reactor: &'a Reactor, command: Command) -> Local<'a, Result<Output>>;

    /// Listens on a Unix socket; each connection sends one message and gets one answer.
    fn listen_unix(&self, reactor: &Reactor, path: &Path, handler: UnixHandler) -> Result<Watch>;

    /// Asks the process to stop serving, cleanly.
    fn shutdown(&self);

    /// Ends a client's connection: after what is in flight, or at once if `force`.
    fn disconnect(&self, client: u64, force: bool);
}
