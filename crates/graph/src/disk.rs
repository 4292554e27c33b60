//! A source that one program uses by itself, without clients: opened, read and written, closed.

use std::sync::Arc;

use crate::HostServices;
use block::{
    Access, Client, Data, Device, Error, ErrorKind, Normalize, Op, OpenContext, QueueExt, Reactor,
    Result, Source,
};

/// A source that one program uses by itself, without clients.
pub struct Disk {
    source: Arc<dyn Source>,
    device: Arc<dyn Device>,
}

impl Disk {
    /// Opens an export of a source that nobody has started.
    ///
    /// # Errors
    /// What the source says.
    pub async fn open(
        reactor: &Reactor,
        source: Arc<dyn Source>,
        export: &str,
        access: Access,
    ) -> Result<Disk> {
        source.ready()?;
        source.start(reactor).await?;
        let context = OpenContext {
            client: Arc::new(Client::default()),
            export: export.into(),
            access,
            reactor: reactor.clone(),
            host: HostServices::new(|| {}),
        };
        match source.open(&context).await {
            Ok(device) => Ok(Disk {
                source,
                device: Normalize::wrap(device),
            }),
            Err(error) => {
                source.stop(reactor).await;
                Err(error)
            }
        }
    }

    /// The disk itself; takes any request its size allows.
    pub fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// Reads so many bytes from the start.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn head(&self, reactor: &Reactor, len: u64) -> Result<Vec<u8>> {
        if len == 0 {
            return Ok(Vec::new());
        }
        let mut request = reactor.request(Op::Read, 0, len);
        *request.data_mut() = Data::Wanted;
        let mut done = self.device.open_queue(reactor)?.call(request).await;
        let cannot = |error| Error::new(ErrorKind::Io, format!("read at offset 0: {error}"));
        done.take_outcome().map_err(cannot)?;
        match std::mem::take(done.data_mut()) {
            Data::Given(segments) => Ok(segments.to_vec()),
            _ => Err(Error::new(ErrorKind::Format, "a read without data")),
        }
    }

    /// Closes it, and stops the source.
    ///
    /// # Errors
    /// What was written may not have reached the disk.
    pub async fn close(self, reactor: &Reactor) -> Result<()> {
        let closed = self.device.close(reactor).await;
        self.source.stop(reactor).await;
        closed
    }
}
