//! A source whose disk is made before the first client comes: by reading files, running programs, or
//! taking a lot of memory.
//!
//! *Why.* Making a source opens nothing, and a failure to make the disk must stop the server, not
//! refuse its first client. So the disk is made in [`Source::ready`], once, while there is one thread
//! and all privileges. Who opens a client without having called `ready` has it made then.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use block::{Device, Exports, Local, OpenContext, Reactor, Result, Source};

use crate::memory::Disk;

/// A source called `name` whose disk `make` makes.
pub(crate) fn source(
    name: &str,
    make: impl Fn() -> Result<Disk> + Send + 'static,
) -> Arc<dyn Source> {
    Arc::new(Prepared {
        name: name.into(),
        make: Mutex::new(Some(make)),
        disk: OnceLock::new(),
    })
}

struct Prepared<F> {
    name: Arc<str>,
    /// Gone, with all it holds, when the disk is made.
    make: Mutex<Option<F>>,
    disk: OnceLock<Disk>,
}

impl<F: Fn() -> Result<Disk>> Prepared<F> {
    fn disk(&self) -> Result<&Disk> {
        if let Some(disk) = self.disk.get() {
            return Ok(disk);
        }
        let mut make = self.make.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(how) = &*make {
            let made = how().map_err(|error| error.in_node(&self.name))?;
            self.disk.get_or_init(|| made);
            *make = None;
        }
        Ok(self.disk.get().expect("made before its maker went"))
    }
}

impl<F: Fn() -> Result<Disk> + Send + 'static> Source for Prepared<F> {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn ready(&self) -> Result<()> {
        self.disk().map(drop)
    }

    fn start<'a>(&'a self, _: &'a Reactor) -> Local<'a, Result<()>> {
        Box::pin(async {
            let started = self.disk()?.store.started();
            started.map_err(|error| error.in_node(&self.name))
        })
    }

    fn exports<'a>(&'a self, cx: &'a OpenContext) -> Local<'a, Result<Exports>> {
        Box::pin(async { self.disk()?.source.exports(cx).await })
    }

    fn open<'a>(&'a self, cx: &'a OpenContext) -> Local<'a, Result<Arc<dyn Device>>> {
        Box::pin(async { self.disk()?.source.open(cx).await })
    }
}
