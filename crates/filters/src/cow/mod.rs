//! `cow`: a writable disk over one that is never written: changes go to a temporary overlay.
//!
//! The overlay is a sparse [`block::Host::scratch`] device as large as the disk; a map says for each
//! block whether it is still in the disk below (the *base*), in the overlay, or trimmed. A block
//! moves to the overlay with the first write to it, together with what the write leaves of it.
//!
//! *Who shares what.* All clients of one export see one overlay, which lives until the server stops;
//! each client opens the base for itself, read-only.
//!
//! *Order.* A write to blocks that are all in the overlay goes straight down, without a lock. Every
//! change of the map (a first write, a trim, a copy on read) holds the range lock of its blocks, and
//! a block counts as being in the overlay only once its data is there. The base never changes, so
//! readers need no lock: what they see of a block that moves meanwhile is its old or its new
//! contents, as the order of overlapping requests allows.
//!
//! *Durability.* Changes do not outlive the process: the overlay is an unlinked temporary file. So a
//! flush, or a write with FUA, has nothing to make durable and costs nothing.

mod lower;
mod map;
mod modify;
mod overlay;
mod read;

use std::{
    collections::HashMap,
    path::PathBuf,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
};

use block::{
    Access, Device, Errno, Error, ErrorKind, Event, Filter, Host, Limits, Local, MAX_TRANSFER,
    Next, Op, OpSet, OpenContext, Queue, Reactor, Request, Result, Subscription, Support,
};
use config::{Config, Size, Value};

use crate::trigger::Trigger;
use lower::Lower;
use overlay::Overlay;

/// Keep changes in a temporary overlay; never write the disk itself.
#[derive(Config, Clone, Debug)]
#[config(check = Self::check_block_size)]
pub struct CowConfig {
    /// Size of the blocks that are copied: a power of two from 4K to 8M.
    #[config(default = "64K")]
    pub cow_block_size: Size,
    /// Copy blocks to the overlay when a client asks to have them cached (prefetched).
    #[config(default = "false")]
    pub cow_on_cache: bool,
    /// Copy blocks to the overlay when they are read: always, never, or while a file exists.
    #[config(default = "false")]
    pub cow_on_read: OnRead,
}

/// When reads copy blocks to the overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnRead {
    /// Never, or always.
    Fixed(bool),
    /// While this file exists.
    WhileExists(PathBuf),
}

impl Value for OnRead {
    const TYPE: &'static str = "BOOL|/PATH";

    fn parse(text: &str) -> std::result::Result<OnRead, String> {
        match text.starts_with('/') {
            true => PathBuf::parse(text).map(OnRead::WhileExists),
            false => bool::parse(text)
                .map(OnRead::Fixed)
                .map_err(|why| format!("{why}, and not an absolute path")),
        }
    }
}

impl CowConfig {
    fn check_block_size(&self) -> std::result::Result<(), String> {
        let size = self.cow_block_size.0;
        match size.is_power_of_two() && (4 << 10..=8 << 20).contains(&size) {
            true => Ok(()),
            false => Err("cow-block-size must be a power of two from 4K to 8M".into()),
        }
    }
}

/// Exports that may have an overlay at one time: a client can ask for names without end.
const MAX_OVERLAYS: usize = 1024;

/// The filter. See the [module](self).
pub struct Cow {
    name: Arc<str>,
    config: CowConfig,
    overlays: Mutex<HashMap<Arc<str>, Arc<Overlay>>>,
}

impl From<CowConfig> for Cow {
    fn from(config: CowConfig) -> Cow {
        Cow {
            name: CowConfig::schema().name.into(),
            config,
            overlays: Mutex::default(),
        }
    }
}

impl Filter for Cow {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn ops(&self) -> OpSet {
        OpSet::DISK
    }

    fn open<'a>(&'a self, cx: &'a OpenContext, next: Next) -> Local<'a, Result<Arc<dyn Device>>> {
        Box::pin(async move {
            let below = OpenContext {
                access: Access::ReadOnly,
                ..cx.clone()
            };
            let base = next.open(&below).await?;
            let export = export_name(cx, &next).await;
            let overlay = self.overlay(cx, &export, base.limits().size).await?;
            Ok(Arc::new(CowDevice {
                limits: Arc::new(self.limits(cx, &base.limits(), &overlay)),
                base,
                overlay,
                config: self.config.clone(),
                host: cx.host.clone(),
            }) as Arc<dyn Device>)
        })
    }

    fn stop<'a>(&'a self, reactor: &'a Reactor) -> Local<'a, ()> {
        Box::pin(async move {
            let overlays = std::mem::take(&mut *self.lock());
            for overlay in overlays.into_values() {
                if let Err(error) = overlay.device.close(reactor).await {
                    // Nothing in it was promised to last.
                    tracing::debug!(node = %self.name, "closing an overlay: {}", error.chain());
                }
            }
        })
    }
}

impl Cow {
    /// The export's overlay, made when it is first opened.
    async fn overlay(
        &self,
        cx: &OpenContext,
        export: &Arc<str>,
        size: u64,
    ) -> Result<Arc<Overlay>> {
        let known = {
            let overlays = self.lock();
            let known = overlays.get(export).cloned();
            if known.is_none() && overlays.len() >= MAX_OVERLAYS {
                let why = format!("{MAX_OVERLAYS} exports have an overlay already");
                return Err(Error::new(ErrorKind::Exhausted, why));
            }
            known
        };
        let overlay = match known {
            Some(overlay) => overlay,
            None => {
                let fresh = Overlay::new(cx, size, self.config.cow_block_size.0).await?;
                // Two clients may have been here at once: the first one's is everybody's.
                self.lock()
                    .entry(export.clone())
                    .or_insert(Arc::new(fresh))
                    .clone()
            }
        };
        if overlay.size != size {
            let was = overlay.size;
            let why = format!("the disk had {was} bytes when its overlay was made, now {size}");
            return Err(Error::new(ErrorKind::Unsupported, why));
        }
        Ok(overlay)
    }

    fn limits(&self, cx: &OpenContext, base: &Limits, overlay: &Overlay) -> Limits {
        let mut limits = base.clone();
        limits.size = overlay.size;
        let block = self.config.cow_block_size.0 as u32; // at most 8 MiB
        limits.preferred_block = limits.preferred_block.max(block);
        limits.max_transfer = MAX_TRANSFER;
        for op in [
            Op::Write,
            Op::Flush,
            Op::WriteZeroes,
            Op::Discard,
            Op::Extents,
        ] {
            limits.set(op, Support::Native);
        }
        if self.config.cow_on_cache {
            limits.set(Op::Cache, Support::Native);
        }
        limits.fua = Support::Native;
        limits.fast_zero = true;
        // One overlay for all, and a flush has nothing to do.
        limits.multi_conn = true;
        // What the base says of itself in other contexts is not true of this disk.
        limits.contexts.clear();
        if cx.access == Access::ReadOnly {
            limits.mask(OpSet::READ_ONLY.with(Op::Flush));
        }
        limits
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Arc<str>, Arc<Overlay>>> {
        // Nothing that can panic runs under the lock.
        self.overlays.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name whose overlay is meant: the default export may be opened by either of its names.
async fn export_name(cx: &OpenContext, next: &Next) -> Arc<str> {
    if !cx.export.is_empty() {
        return cx.export.clone();
    }
    let exports = next.exports(cx).await.unwrap_or_default();
    exports.default.map_or_else(|| cx.export.clone(), Arc::from)
}

struct CowDevice {
    base: Arc<dyn Device>,
    overlay: Arc<Overlay>,
    limits: Arc<Limits>,
    config: CowConfig,
    host: Arc<dyn Host>,
}

impl Device for CowDevice {
    fn limits(&self) -> Arc<Limits> {
        self.limits.clone()
    }

    fn subscribe(&self, reactor: &Reactor, f: Box<dyn Fn(Event)>) -> Subscription {
        // The overlay fixes the size, so all that can happen is that the base goes.
        let only_gone = move |event| match event {
            Event::Gone => f(event),
            Event::Resized | Event::LimitsChanged => {}
        };
        self.base.subscribe(reactor, Box::new(only_gone))
    }

    fn open_queue(&self, reactor: &Reactor) -> Result<Rc<dyn Queue>> {
        let on_read = match &self.config.cow_on_read {
            OnRead::Fixed(on) => Trigger::fixed(*on),
            OnRead::WhileExists(path) => Trigger::new(&self.host, reactor, path)?,
        };
        let lower = Lower {
            base: self.base.open_queue(reactor)?,
            base_ops: self.base.limits().offered(),
            over: self.overlay.device.open_queue(reactor)?,
            overlay: self.overlay.clone(),
            reactor: reactor.clone(),
            on_read,
            on_cache: self.config.cow_on_cache,
        };
        Ok(Rc::new(CowQueue {
            lower: Rc::new(lower),
            offered: self.limits.offered(),
        }))
    }

    fn close<'a>(&'a self, reactor: &'a Reactor) -> Local<'a, Result<()>> {
        self.base.close(reactor)
    }
}

struct CowQueue {
    lower: Rc<Lower>,
    /// Fewer than the filter's for a client that may only read.
    offered: OpSet,
}

impl Queue for CowQueue {
    fn submit(&self, req: Request) {
        if !self.offered.contains(req.op()) {
            return req.fail(Errno::ENOTSUP);
        }
        if req.op().has_range() && req.len() == 0 {
            return match req.op() {
                Op::Read => req.give_zeroes(),
                _ => req.done(),
            };
        }
        match req.op() {
            Op::Read => self.lower.read(req),
            Op::Write => self.lower.write(req),
            Op::Flush => req.done(),
            Op::WriteZeroes => self.lower.write_zeroes(req),
            Op::Discard => self.lower.discard(req),
            Op::Cache => self.lower.cache(req),
            Op::Extents => self.lower.extents(req),
            _ => self.lower.base.submit(req),
        }
    }
}
