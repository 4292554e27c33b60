//! A read-only image of a directory that is made once, before the first client: the common part of
//! `iso`, `linuxdisk` and `floppy`.
//!
//! It is made when the source gets ready, with the privileges of the start and with its errors shown
//! at the start. Whoever opens a source that never got ready has it made then, on the pool.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use block::{Device, Error, ErrorKind, Exports, Local, OpenContext, Result, Source};

use crate::{scratch, single};

type Build = dyn Fn() -> Result<Arc<dyn Device>> + Send + Sync;

/// The source called `name` of what `build` makes.
pub(crate) fn source(
    name: &Arc<str>,
    build: impl Fn() -> Result<Arc<dyn Device>> + Send + Sync + 'static,
) -> Arc<dyn Source> {
    Arc::new(Image {
        name: name.clone(),
        shared: Arc::new(Shared {
            build: Box::new(build),
            made: Mutex::default(),
        }),
    })
}

struct Image {
    name: Arc<str>,
    shared: Arc<Shared>,
}

struct Shared {
    build: Box<Build>,
    /// Locked while it is made: who comes meanwhile waits, on the pool.
    made: Mutex<Option<Arc<dyn Device>>>,
}

impl Shared {
    fn device(&self) -> Result<Arc<dyn Device>> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(device) = &*made {
            return Ok(device.clone());
        }
        let device = single::read_only((self.build)()?);
        Ok(made.insert(device).clone())
    }
}

impl Source for Image {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn ready(&self) -> Result<()> {
        self.shared
            .device()
            .map(drop)
            .map_err(|e| e.in_node(&self.name))
    }

    fn exports<'a>(&'a self, _: &'a OpenContext) -> Local<'a, Result<Exports>> {
        Box::pin(async { Ok(Exports::single()) })
    }

    fn open<'a>(&'a self, cx: &'a OpenContext) -> Local<'a, Result<Arc<dyn Device>>> {
        Box::pin(async move {
            let shared = self.shared.clone();
            let device = scratch::blocking(&cx.reactor, move || shared.device()).await;
            device.map_err(|e| e.in_node(&self.name))
        })
    }
}

/// Fails unless this is a directory that can be read. Blocks.
pub(crate) fn check_directory(path: &Path) -> Result<()> {
    let cannot = |error| Error::io(format!("cannot read '{}'", path.display()), error);
    if !std::fs::metadata(path).map_err(cannot)?.is_dir() {
        let what = format!("'{}' is not a directory", path.display());
        return Err(Error::new(ErrorKind::Config, what));
    }
    std::fs::read_dir(path).map(drop).map_err(cannot)
}
