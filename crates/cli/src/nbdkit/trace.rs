//! The debug lines of `-v` about every layer: each is wrapped in one that tells what passes. Scripts
//! look for these lines, so their words are nbdkit's.
//!
//! Lines begin with the plugin's name: `memory[3]: ` on the control path, the number being the
//! connection's, and `memory.0: ` on the data path, the number being the event loop's.

use std::{rc::Rc, sync::Arc};

use block::{
    Access, Device, Event, Exports, Flags, Limits, Local, Op, OpenContext, Queue, RangeLock,
    Reactor, Request, Result, Source, Subscription, ThreadModel,
};

use super::messages;

/// What is told, and how the layers are called.
#[derive(Clone)]
pub struct Tracing {
    /// The plugin's name.
    pub plugin: Arc<str>,
    /// All layers, the outermost first.
    pub layers: Arc<[String]>,
    /// `-D nbdkit.backend.controlpath`.
    pub control: bool,
    /// `-D nbdkit.backend.datapath`.
    pub data: bool,
}

impl Tracing {
    /// The layer called `name`, telling.
    pub fn around(&self, name: &str, inner: Arc<dyn Source>) -> Arc<dyn Source> {
        Arc::new(Traced {
            outermost: self.layers.first().is_some_and(|first| first == name),
            name: name.into(),
            tracing: self.clone(),
            inner,
        })
    }

    fn control(&self, client: u64, text: &str) {
        if self.control {
            messages::debug_in(&format!("{}[{client}]: ", self.plugin), text);
        }
    }

    /// The questions about an opened disk, in their order.
    fn questions(&self, client: u64, limits: &Limits) {
        let writable = !limits.read_only();
        let asked = [
            ("get_size", true),
            ("can_write", true),
            ("can_zero", writable),
            ("can_fast_zero", writable),
            ("can_trim", writable),
            ("can_fua", writable),
            ("can_flush", true),
            ("is_rotational", true),
            ("can_multi_conn", true),
            ("can_cache", true),
            ("can_extents", true),
            ("block_size", true),
        ];
        for (question, _) in asked.iter().filter(|(_, asked)| *asked) {
            for layer in self.layers.iter() {
                self.control(client, &format!("{layer}: {question}"));
            }
        }
    }
}

struct Traced {
    name: Arc<str>,
    /// The first to be asked.
    outermost: bool,
    tracing: Tracing,
    inner: Arc<dyn Source>,
}

impl Source for Traced {
    fn name(&self) -> &Arc<str> {
        self.inner.name()
    }

    fn thread_model(&self) -> ThreadModel {
        self.inner.thread_model()
    }

    fn ready(&self) -> Result<()> {
        self.inner.ready()?;
        messages::debug(&format!("{}: get_ready", self.name));
        Ok(())
    }

    fn start<'a>(&'a self, reactor: &'a Reactor) -> Local<'a, Result<()>> {
        Box::pin(async move {
            self.inner.start(reactor).await?;
            messages::debug(&format!("{}: after_fork", self.name));
            Ok(())
        })
    }

    fn preconnect<'a>(&'a self, cx: &'a OpenContext) -> Local<'a, Result<()>> {
        self.tracing
            .control(cx.client.id, &format!("{}: preconnect", self.name));
        self.inner.preconnect(cx)
    }

    fn exports<'a>(&'a self, cx: &'a OpenContext) -> Local<'a, Result<Exports>> {
        Box::pin(async move {
            let (client, how) = (cx.client.id, how(cx));
            self.tracing
                .control(client, &format!("{}: list_exports {how}", self.name));
            let exports = self.inner.exports(cx).await?;
            let count = exports.list.len();
            self.tracing.control(
                client,
                &format!("{}: list_exports returned {count} names", self.name),
            );
            Ok(exports)
        })
    }

    fn open<'a>(&'a self, cx: &'a OpenContext) -> Local<'a, Result<Arc<dyn Device>>> {
        Box::pin(async move {
            let (client, name) = (cx.client.id, &self.name);
            let read_only = u8::from(cx.access == Access::ReadOnly);
            let tls = u8::from(cx.client.tls);
            let text = format!(
                "{name}: open readonly={read_only} exportname=\"{}\" tls={tls}",
                cx.export.escape_debug()
            );
            self.tracing.control(client, &text);
            let device = self.inner.open(cx).await?;
            let handle = Arc::as_ptr(&device).cast::<()>();
            self.tracing
                .control(client, &format!("{name}: open returned handle {handle:p}"));
            if self.outermost {
                for layer in self.tracing.layers.iter().rev() {
                    let text = format!("{layer}: prepare readonly={read_only}");
                    self.tracing.control(client, &text);
                }
                self.tracing.questions(client, &device.limits());
            }
            Ok(Arc::new(TracedDevice {
                client,
                outermost: self.outermost,
                name: name.clone(),
                tracing: self.tracing.clone(),
                inner: device,
            }) as Arc<dyn Device>)
        })
    }

    fn stop<'a>(&'a self, reactor: &'a Reactor) -> Local<'a, ()> {
        messages::debug(&format!("{}: cleanup", self.name));
        self.inner.stop(reactor)
    }
}

fn how(cx: &OpenContext) -> String {
    let read_only = u8::from(cx.access == Access::ReadOnly);
    format!("readonly={read_only} tls={}", u8::from(cx.client.tls))
}

struct TracedDevice {
    client: u64,
    outermost: bool,
    name: Arc<str>,
    tracing: Tracing,
    inner: Arc<dyn Device>,
}

impl Device for TracedDevice {
    fn limits(&self) -> Arc<Limits> {
        self.inner.limits()
    }

    fn subscribe(&self, reactor: &Reactor, f: Box<dyn Fn(Event)>) -> Subscription {
        self.inner.subscribe(reactor, f)
    }

    fn block_lock(&self) -> Option<RangeLock> {
        self.inner.block_lock()
    }

    fn open_queue(&self, reactor: &Reactor) -> Result<Rc<dyn Queue>> {
        let next = self.inner.open_queue(reactor)?;
        if !self.tracing.data {
            return Ok(next);
        }
        Ok(Rc::new(TracedQueue {
            prefix: format!("{}.{}: ", self.tracing.plugin, reactor.index()),
            name: self.name.clone(),
            next,
        }))
    }

    fn close<'a>(&'a self, reactor: &'a Reactor) -> Local<'a, Result<()>> {
        if self.outermost {
            for layer in self.tracing.layers.iter() {
                self.tracing
                    .control(self.client, &format!("{layer}: finalize"));
            }
        }
        self.tracing
            .control(self.client, &format!("{}: close", self.name));
        self.inner.close(reactor)
    }
}

struct TracedQueue {
    prefix: String,
    name: Arc<str>,
    next: Rc<dyn Queue>,
}

impl Queue for TracedQueue {
    fn submit(&self, req: Request) {
        messages::debug_in(&self.prefix, &describe(&self.name, &req));
        self.next.submit(req);
    }
}

/// A request in nbdkit's words.
fn describe(layer: &str, req: &Request) -> String {
    let has = |flag| u8::from(req.flags().contains(flag));
    let place = format!("count={} offset={}", req.len(), req.offset());
    let fua = has(Flags::FUA);
    match req.op() {
        Op::Read => format!("{layer}: pread {place}"),
        Op::Write => format!("{layer}: pwrite {place} fua={fua}"),
        Op::Flush => format!("{layer}: flush"),
        Op::WriteZeroes => format!(
            "{layer}: zero {place} may_trim={} fua={fua} fast={}",
            1 - has(Flags::NO_HOLE),
            has(Flags::FAST_ZERO)
        ),
        Op::Discard => format!("{layer}: trim {place} fua={fua}"),
        Op::Extents => format!("{layer}: extents {place} req_one={}", has(Flags::REQ_ONE)),
        Op::Cache => format!("{layer}: cache {place}"),
        other => format!("{layer}: {other} {place}"),
    }
}
