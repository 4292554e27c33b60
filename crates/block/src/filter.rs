//! Filters: what stands in front of a source and changes what passes.
//!
//! A filter names the operations it understands. Every other one is masked from the limits and
//! refused with `ENOTSUP` by [`Filtered`]: forwarding what one does not understand corrupts disks
//! (a secure erase through a copy-on-write layer, a zone append past an offset).

use std::{rc::Rc, sync::Arc};

use crate::{
    device::{Device, Exports, OpenContext, Source, ThreadModel},
    error::{Errno, Outcome, Result},
    events::{Event, Subscription},
    limits::Limits,
    normalize::Normalize,
    op::OpSet,
    queue::Queue,
    range_lock::RangeLock,
    reactor::{Local, Reactor},
    request::Request,
};

/// What stands in front of a source.
///
/// Only `name`, `ops` and `open` are always needed; the rest passes on to what lies below.
pub trait Filter: Send + Sync + 'static {
    /// The node's name, for logs and errors.
    fn name(&self) -> &Arc<str>;

    /// All operations it understands.
    fn ops(&self) -> OpSet;

    /// How much may happen at once, given what the source below allows.
    fn thread_model(&self, below: ThreadModel) -> ThreadModel {
        below
    }

    /// See [`Source::ready`]; what lies below was asked first.
    fn ready(&self) -> Result<()> {
        Ok(())
    }

    /// See [`Source::start`]; what lies below has started.
    fn start<'a>(&'a self, reactor: &'a Reactor) -> Local<'a, Result<()>> {
        let _ = reactor;
        Box::pin(async { Ok(()) })
    }

    /// See [`Source::preconnect`].
    fn preconnect<'a>(&'a self, cx: &'a OpenContext, next: Next) -> Local<'a, Result<()>> {
        Box::pin(async move { next.preconnect(cx).await })
    }

    /// See [`Source::exports`].
    fn exports<'a>(&'a self, cx: &'a OpenContext, next: Next) -> Local<'a, Result<Exports>> {
        Box::pin(async move { next.exports(cx).await })
    }

    /// Opens a device for a client. `next` may be opened never, once, many times, now or later.
    fn open<'a>(&'a self, cx: &'a OpenContext, next: Next) -> Local<'a, Result<Arc<dyn Device>>>;

    /// See [`Source::stop`]; what lies below stops afterwards.
    fn stop<'a>(&'a self, reactor: &'a Reactor) -> Local<'a, ()> {
        let _ = reactor;
        Box::pin(async {})
    }
}

/// What lies below a filter.
#[derive(Clone)]
pub struct Next(Arc<dyn Source>);

impl Next {
    /// Over this source.
    pub fn new(source: Arc<dyn Source>) -> Next {
        Next(source)
    }

    /// The source's name.
    pub fn name(&self) -> &Arc<str> {
        self.0.name()
    }

    /// Opens a device below, normalised: aligned, split and emulated as its limits ask.
    pub async fn open(&self, cx: &OpenContext) -> Result<Arc<dyn Device>> {
        let device = self.0.open(cx).await?;
        Ok(Normalize::wrap(device))
    }

    /// See [`Source::preconnect`].
    pub async fn preconnect(&self, cx: &OpenContext) -> Result<()> {
        self.0.preconnect(cx).await
    }

    /// See [`Source::exports`].
    pub async fn exports(&self, cx: &OpenContext) -> Result<Exports> {
        self.0.exports(cx).await
    }
}

/// A filter in front of a source is a source.
pub struct Filtered<F>(pub F, pub Next);

impl<F: Filter> Source for Filtered<F> {
    fn name(&self) -> &Arc<str> {
        self.0.name()
    }

    fn thread_model(&self) -> ThreadModel {
        let below = self.1.0.thread_model();
        self.0.thread_model(below).min(below)
    }

    fn ready(&self) -> Result<()> {
        self.1.0.ready()?;
        self.0.ready().map_err(|e| e.in_node(self.0.name()))
    }

    fn start<'a>(&'a self, reactor: &'a Reactor) -> Local<'a, Result<()>> {
        Box::pin(async move {
            self.1.0.start(reactor).await?;
            self.0
                .start(reactor)
                .await
                .map_err(|e| e.in_node(self.0.name()))
        })
    }

    fn preconnect<'a>(&'a self, cx: &'a OpenContext) -> Local<'a, Result<()>> {
        self.0.preconnect(cx, self.1.clone())
    }

    fn exports<'a>(&'a self, cx: &'a OpenContext) -> Local<'a, Result<Exports>> {
        self.0.exports(cx, self.1.clone())
    }

    fn open<'a>(&'a self, cx: &'a OpenContext) -> Local<'a, Result<Arc<dyn Device>>> {
        Box::pin(async move {
            let opened = self.0.open(cx, self.1.clone()).await;
            let device = opened.map_err(|e| e.in_node(self.0.name()))?;
            Ok(Arc::new(Masked {
                device,
                ops: self.0.ops(),
            }) as Arc<dyn Device>)
        })
    }

    fn stop<'a>(&'a self, reactor: &'a Reactor) -> Local<'a, ()> {
        Box::pin(async move {
            self.0.stop(reactor).await;
            self.1.0.stop(reactor).await;
        })
    }
}

/// A device whose other operations are refused.
struct Masked {
    device: Arc<dyn Device>,
    ops: OpSet,
}

impl Device for Masked {
    fn limits(&self) -> Arc<Limits> {
        let mut limits = self.device.limits();
        if limits.offered().and(self.ops) != limits.offered() {
            Arc::make_mut(&mut limits).mask(self.ops);
        }
        limits
    }

    fn subscribe(&self, reactor: &Reactor, f: Box<dyn Fn(Event)>) -> Subscription {
        self.device.subscribe(reactor, f)
    }

    fn block_lock(&self) -> Option<RangeLock> {
        self.device.block_lock()
    }

    fn open_queue(&self, reactor: &Reactor) -> Result<Rc<dyn Queue>> {
        let next = self.device.open_queue(reactor)?;
        Ok(Rc::new(MaskedQueue {
            next,
            ops: self.ops,
        }))
    }

    fn close<'a>(&'a self, reactor: &'a Reactor) -> Local<'a, Result<()>> {
        self.device.close(reactor)
    }
}

struct MaskedQueue {
    next: Rc<dyn Queue>,
    ops: OpSet,
}

impl Queue for MaskedQueue {
    #[inline]
    fn submit(&self, req: Request) {
        if self.ops.contains(req.op()) {
            self.next.submit(req);
        } else {
            req.fail(Errno::ENOTSUP);
        }
    }
}

/// The device of a *map* filter: `limits` rewrites the limits of `device`, `rewrite` looks at each
/// request and lets it go on, perhaps changed, or refuses it.
///
/// `rewrite` may also watch the completion ([`Request::on_complete`]); whatever needs state of its
/// reactor takes [`WrapDevice`].
///
/// ```
/// use std::sync::Arc;
/// use blkit_block::{Device, Errno, Limits, Op, Request, filter::map};
///
/// fn write_once(device: Arc<dyn Device>, boundary: u64) -> Arc<dyn Device> {
///     let refuse = move |req: &mut Request| match req.op().modifies() && req.offset() < boundary {
///         true => Err(Errno::EPERM.into()),
///         false => Ok(()),
///     };
///     map(device, |_: &mut Limits| {}, refuse)
/// }
/// ```
pub fn map<L, R>(device: Arc<dyn Device>, limits: L, rewrite: R) -> Arc<dyn Device>
where
    L: Fn(&mut Limits) + Send + Sync + 'static,
    R: Fn(&mut Request) -> Outcome + Clone + Send + Sync + 'static,
{
    WrapDevice::new(device, limits, move |_, next| {
        Ok(Rc::new(Mapped {
            next,
            rewrite: rewrite.clone(),
        }))
    })
}

struct Mapped<R> {
    next: Rc<dyn Queue>,
    rewrite: R,
}

impl<R: Fn(&mut Request) -> Outcome> Queue for Mapped<R> {
    #[inline]
    fn submit(&self, mut req: Request) {
        match (self.rewrite)(&mut req) {
            Ok(()) => self.next.submit(req),
            refused => req.complete(refused),
        }
    }
}

/// The device of a filter of the *map* or *hook* size: limits and queue are those below, rewritten.
///
/// ```
/// use std::{rc::Rc, sync::Arc};
/// use blkit_block::{Device, Limits, Queue, Request, WrapDevice};
///
/// struct Shift(Rc<dyn Queue>, u64);
/// impl Queue for Shift {
///     fn submit(&self, mut req: Request) {
///         req.set_offset(req.offset() + self.1);
///         self.0.submit(req)
///     }
/// }
/// fn shift(device: Arc<dyn Device>, by: u64) -> Arc<dyn Device> {
///     WrapDevice::new(device, move |limits: &mut Limits| limits.size -= by, move |_, next| {
///         Ok(Rc::new(Shift(next, by)))
///     })
/// }
/// ```
pub struct WrapDevice<L, Q> {
    device: Arc<dyn Device>,
    limits: L,
    queue: Q,
}

impl<L, Q> WrapDevice<L, Q>
where
    L: Fn(&mut Limits) + Send + Sync + 'static,
    Q: Fn(&Reactor, Rc<dyn Queue>) -> Result<Rc<dyn Queue>> + Send + Sync + 'static,
{
    /// `limits` rewrites the limits of `device`, `queue` makes a queue over one of its queues.
    #[allow(clippy::new_ret_no_self)]
    pub fn new(device: Arc<dyn Device>, limits: L, queue: Q) -> Arc<dyn Device> {
        Arc::new(WrapDevice {
            device,
            limits,
            queue,
        })
    }
}

impl<L, Q> Device for WrapDevice<L, Q>
where
    L: Fn(&mut Limits) + Send + Sync + 'static,
    Q: Fn(&Reactor, Rc<dyn Queue>) -> Result<Rc<dyn Queue>> + Send + Sync + 'static,
{
    fn limits(&self) -> Arc<Limits> {
        let mut limits = self.device.limits();
        (self.limits)(Arc::make_mut(&mut limits));
        limits
    }

    fn subscribe(&self, reactor: &Reactor, f: Box<dyn Fn(Event)>) -> Subscription {
        self.device.subscribe(reactor, f)
    }

    fn block_lock(&self) -> Option<RangeLock> {
        self.device.block_lock()
    }

    fn open_queue(&self, reactor: &Reactor) -> Result<Rc<dyn Queue>> {
        (self.queue)(reactor, self.device.open_queue(reactor)?)
    }

    fn close<'a>(&'a self, reactor: &'a Reactor) -> Local<'a, Result<()>> {
        self.device.close(reactor)
    }
}
