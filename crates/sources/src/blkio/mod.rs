//! A disk that the drivers of the crate `blkio` reach: io_uring, NVMe, vhost-user, vhost-vdpa, VFIO.
//!
//! | module | what |
//! | --- | --- |
//! | `instance` | one connected disk, for all clients: its limits, its queues, its end |
//! | `device` | the disk as the block layer knows it; who has which queue |
//! | `lane` | one reactor's queue: requests out, completions in |
//! | `arena` | memory that such a disk can reach |
//!
//! *Connected when a client comes*, and until the last one has gone; so the first client after a
//! server's end gets a new connection. Clients share it: some servers have one front-end at a time.
//!
//! *Queues.* Each reactor has a queue of its own, as far as the disk has so many; reactors beyond that
//! send their requests to one that has. What a turn gathered is submitted at its end; the queue's
//! descriptor wakes the reactor.
//!
//! *Durability.* A flush that failed stays failed, for as long as the disk is connected.

mod arena;
mod device;
mod instance;
mod lane;
#[cfg(test)]
mod tests;

use std::{
    path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use ::blkio::Blkio;
use block::{
    Access, Device, Error, ErrorKind, Exports, Local, OpenContext, RangeLock, Result, Source,
};
use config::{Arg, Config};

use crate::{registry, single};
use device::BlkioDevice;
use instance::Instance;

/// A disk by a driver of libblkio: io_uring, nvme-io_uring, virtio-blk-vhost-user,
/// virtio-blk-vhost-vdpa or virtio-blk-vfio-pci.
///
/// All other parameters are properties of the driver, as libblkio has them: path, fd, direct,
/// num-queues, num-entries, queue-size and so on.
#[derive(Config, Debug, Clone, PartialEq, Eq)]
pub struct BlkioConfig {
    /// The driver.
    #[config(magic)]
    pub driver: String,
    /// Tell a property's value (as a debug message) when the disk is connected.
    #[config(value = "PROPERTY")]
    pub get: Vec<String>,
    /// A property, and its value.
    #[config(rest)]
    pub properties: Vec<(String, String)>,
}

/// The source. Connects to nothing yet.
///
/// # Errors
/// `Config`, for an unknown driver, a property that it does not have, or one that cannot be set.
pub fn new(config: BlkioConfig) -> Result<Arc<dyn Source>> {
    let mut config = config;
    check(&config)?;
    for (key, value) in &mut config.properties {
        // Found from wherever the process goes.
        if key == "path"
            && let Ok(absolute) = path::absolute(&*value)
            && let Some(text) = absolute.to_str()
        {
            *value = text.to_owned();
        }
    }
    Ok(Arc::new(BlkioSource {
        name: "blkio".into(),
        config,
        shared: Mutex::default(),
        connecting: RangeLock::default(),
    }))
}

pub(crate) fn make(args: &[Arg]) -> Result<Arc<dyn Source>> {
    new(registry::parse(args)?)
}

/// Finds what can be found without a disk.
fn check(config: &BlkioConfig) -> Result<()> {
    let wrong = |text: String| Err(Error::new(ErrorKind::Config, text));
    let driver = match Blkio::new(&config.driver) {
        Ok(driver) => driver,
        Err(error) => {
            let text = format!("driver={}: {error}", config.driver);
            let known = ::blkio::DRIVERS.join(", ");
            return Err(Error::new(ErrorKind::Config, text).hint(format!("there are {known}")));
        }
    };
    for (at, (key, value)) in config.properties.iter().enumerate() {
        let Some(property) = driver.properties().find(|it| it.name == key) else {
            return wrong(format!("{key}={value}: Unknown property name"));
        };
        if property.writable.is_none() {
            return wrong(format!("{key}={value}: Property is read-only"));
        }
        if config.properties[..at]
            .iter()
            .any(|(other, _)| other == key)
        {
            return wrong(format!("{key} is given more than once"));
        }
    }
    Ok(())
}

struct BlkioSource {
    name: Arc<str>,
    config: BlkioConfig,
    /// The disk, while somebody has it.
    shared: Mutex<Weak<BlkioDevice>>,
    /// Held by the client that connects for all.
    connecting: RangeLock,
}

impl BlkioSource {
    fn shared(&self) -> MutexGuard<'_, Weak<BlkioDevice>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connected(&self) -> Option<Arc<BlkioDevice>> {
        self.shared().upgrade().filter(|device| !device.is_gone())
    }

    async fn connect(&self, cx: &OpenContext) -> Result<Arc<BlkioDevice>> {
        let config = self.config.clone();
        let access = cx.access;
        // A server may take its time to answer.
        let opened = cx.reactor.blocking(move || Instance::open(&config, access));
        let opened = match opened.await {
            Ok(opened) => opened?,
            Err(_) => return Err(Error::new(ErrorKind::Io, "the driver panicked")),
        };
        let device = Arc::new(BlkioDevice::new(opened));
        *self.shared() = Arc::downgrade(&device);
        Ok(device)
    }
}

impl Source for BlkioSource {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn exports<'a>(&'a self, _: &'a OpenContext) -> Local<'a, Result<Exports>> {
        Box::pin(async { Ok(Exports::single()) })
    }

    fn open<'a>(&'a self, cx: &'a OpenContext) -> Local<'a, Result<Arc<dyn Device>>> {
        Box::pin(async move {
            let _turn = self.connecting.exclusive(0..1).await;
            // One that was connected for reading is of no use to a client that may write.
            let fits = |device: &Arc<BlkioDevice>| {
                cx.access == Access::ReadOnly || !device.is_for_reading()
            };
            let device = match self.connected().filter(fits) {
                Some(device) => device,
                None => self.connect(cx).await?,
            };
            let device: Arc<dyn Device> = device;
            Ok(match cx.access {
                Access::ReadOnly => single::read_only(device),
                Access::ReadWrite => device,
            })
        })
    }
}
