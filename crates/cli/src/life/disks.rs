//! Disks for virtual machines: opened once, when the server starts, and served to the front-ends
//! that connect.

use std::{os::fd::OwnedFd, sync::Arc};

use block::{Access, Client, Device, Error, Host, Inbox, OpenContext, Reactor, Result, Source};
use exports::vhost_user_blk::{Export, Options};
use reactor::{Io, Listener};

use super::listen::Endpoints;

/// A disk that is to be served.
pub struct Plan {
    /// Which export of the source.
    pub export: String,
    /// What guests are told of it.
    pub options: Options,
    /// Where front-ends connect.
    pub endpoints: Endpoints,
    /// A front-end that is connected already.
    pub connected: Option<OwnedFd>,
}

/// A disk that is served.
pub struct Disk {
    device: Arc<dyn Device>,
    export: Arc<Export>,
}

impl Disk {
    /// Opens the disk, for as long as the server lives.
    ///
    /// # Errors
    /// What the source says.
    pub async fn open(
        reactor: &Reactor,
        source: &Arc<dyn Source>,
        host: Arc<dyn Host>,
        plan: &Plan,
    ) -> Result<Arc<Disk>> {
        let access = match plan.options.read_only {
            true => Access::ReadOnly,
            false => Access::ReadWrite,
        };
        let client = Client {
            peer: "vhost-user".to_owned(),
            ..Client::default()
        };
        let context = OpenContext {
            client: Arc::new(client),
            export: plan.export.as_str().into(),
            access,
            reactor: reactor.clone(),
            host,
        };
        let device = source.open(&context).await?;
        Ok(Arc::new(Disk {
            export: Export::new(device.clone(), plan.options.clone()),
            device,
        }))
    }

    /// Accepts on `listener` until the server stops, and spreads front-ends and their rings over the
    /// reactors behind `homes`.
    pub async fn accept_loop(&self, reactor: &Reactor, listener: Listener, homes: &[Arc<Inbox>]) {
        self.export.accept_loop(reactor, listener, homes).await;
    }

    /// Serves one connected socket on this reactor, to its end, and its rings on those of `homes`.
    ///
    /// # Errors
    /// It cannot be served.
    pub async fn serve_socket(
        &self,
        reactor: &Reactor,
        fd: OwnedFd,
        homes: &[Arc<Inbox>],
    ) -> Result<()> {
        let stream = Io::of(reactor)
            .fd_stream(fd)
            .map_err(|error| Error::io("this is no Unix socket", error))?;
        self.export.serve(reactor, stream, homes).await
    }

    /// Nothing more is accepted, and connections end.
    pub fn stop(&self) {
        self.export.stop();
    }

    /// Waits until no front-end is connected.
    pub async fn drained(&self) {
        self.export.drained().await;
    }

    /// Releases the device.
    ///
    /// # Errors
    /// What was written may not have reached the disk.
    pub async fn close(&self, reactor: &Reactor) -> Result<()> {
        self.device.close(reactor).await
    }
}
