//! A source with one disk for everybody: any export name opens it, as with nbdkit's sources of this
//! kind.
//!
//! Such a disk has fixed limits and keeps its state, if it has any, behind its queues. A client that
//! may only read gets a view of the same disk in which modifying operations are not offered.

use std::{rc::Rc, sync::Arc};

use block::{
    Access, Device, Errno, Exports, Limits, Local, Op, OpSet, OpenContext, Queue, Reactor, Request,
    Result, Source, WrapDevice,
};

/// A source called `name` whose one disk has these limits and queues.
pub(crate) fn source<Q>(name: &str, limits: Limits, queue: Q) -> Arc<dyn Source>
where
    Q: Fn(&Reactor) -> Rc<dyn Queue> + Send + Sync + 'static,
{
    let device = device(limits, queue);
    Arc::new(Single {
        name: name.into(),
        read_only: read_only(device.clone()),
        device,
    })
}

/// A device with these limits and queues: for sources that have another one for each client.
pub(crate) fn device<Q>(limits: Limits, queue: Q) -> Arc<dyn Device>
where
    Q: Fn(&Reactor) -> Rc<dyn Queue> + Send + Sync + 'static,
{
    Arc::new(Disk {
        limits: Arc::new(limits),
        queue,
    })
}

/// What is left of a device's abilities for a client that may only read.
pub(crate) const READ_ONLY: OpSet = OpSet::READ_ONLY.with(Op::Flush);

struct Single {
    name: Arc<str>,
    device: Arc<dyn Device>,
    read_only: Arc<dyn Device>,
}

impl Source for Single {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn exports<'a>(&'a self, _: &'a OpenContext) -> Local<'a, Result<Exports>> {
        Box::pin(async { Ok(Exports::single()) })
    }

    fn open<'a>(&'a self, cx: &'a OpenContext) -> Local<'a, Result<Arc<dyn Device>>> {
        let device = match cx.access {
            Access::ReadOnly => &self.read_only,
            Access::ReadWrite => &self.device,
        };
        Box::pin(async move { Ok(device.clone()) })
    }
}

/// A disk whose limits never change.
struct Disk<Q> {
    limits: Arc<Limits>,
    queue: Q,
}

impl<Q> Device for Disk<Q>
where
    Q: Fn(&Reactor) -> Rc<dyn Queue> + Send + Sync + 'static,
{
    fn limits(&self) -> Arc<Limits> {
        self.limits.clone()
    }

    fn open_queue(&self, reactor: &Reactor) -> Result<Rc<dyn Queue>> {
        Ok((self.queue)(reactor))
    }
}

/// The same device without what modifies it.
pub(crate) fn read_only(device: Arc<dyn Device>) -> Arc<dyn Device> {
    if device.limits().read_only() {
        return device;
    }
    WrapDevice::new(
        device,
        |limits: &mut Limits| limits.mask(READ_ONLY),
        |_: &Reactor, next| Ok(Rc::new(Reader(next)) as Rc<dyn Queue>),
    )
}

/// The same device, for one connection only: not to be spread over several.
pub(crate) fn one_connection(device: Arc<dyn Device>) -> Arc<dyn Device> {
    WrapDevice::new(
        device,
        |limits: &mut Limits| limits.multi_conn = false,
        |_: &Reactor, next| Ok(next),
    )
}

struct Reader(Rc<dyn Queue>);

impl Queue for Reader {
    fn submit(&self, req: Request) {
        if req.op().modifies() {
            req.fail(Errno::ENOTSUP);
        } else {
            self.0.submit(req);
        }
    }
}
