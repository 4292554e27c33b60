//! Filters: masking, thread models, wrapped devices, and what each call passes on.

use blkit_block as block;
use std::{
    path::Path,
    rc::Rc,
    sync::{Arc, Mutex},
};

use block::{
    Access, Client, Device, Errno, Error, ErrorKind, Exports, Filter, Filtered, Flags, Host,
    Limits, Local, Next, Op, OpSet, OpenContext, Queue, QueueExt, Reactor, Request, Result, Source,
    Support, ThreadModel, WrapDevice,
    host::{Command, Output, UnixHandler, Watch},
};
use testkit::{SimDisk, SimDiskOptions, SimLoop, workload::assert_quiet};

/// A host that offers nothing.
struct NoHost;

impl Host for NoHost {
    fn scratch<'a>(&'a self, _: &'a Reactor, _: u64) -> Local<'a, Result<Arc<dyn Device>>> {
        Box::pin(async { Err(Error::new(ErrorKind::Unsupported, "no scratch space")) })
    }
    fn watch_file(&self, _: &Reactor, _: &Path, _: Box<dyn Fn()>) -> Result<Watch> {
        Err(Error::new(ErrorKind::Unsupported, "no files"))
    }
    fn file_exists(&self, _: &Path) -> bool {
        false
    }
    fn spawn<'a>(&'a self, _: &'a Reactor, _: Command) -> Local<'a, Result<Output>> {
        Box::pin(async { Err(Error::new(ErrorKind::Unsupported, "no processes")) })
    }
    fn listen_unix(&self, _: &Reactor, _: &Path, _: UnixHandler) -> Result<Watch> {
        Err(Error::new(ErrorKind::Unsupported, "no sockets"))
    }
    fn shutdown(&self) {}
    fn disconnect(&self, _: u64, _: bool) {}
}

type Calls = Arc<Mutex<Vec<&'static str>>>;

struct Disk {
    name: Arc<str>,
    model: ThreadModel,
    disk: Arc<SimDisk>,
    calls: Calls,
}

impl Source for Disk {
    fn name(&self) -> &Arc<str> {
        &self.name
    }
    fn thread_model(&self) -> ThreadModel {
        self.model
    }
    fn ready(&self) -> Result<()> {
        self.calls.lock().unwrap().push("disk ready");
        Ok(())
    }
    fn start<'a>(&'a self, _: &'a Reactor) -> Local<'a, Result<()>> {
        self.calls.lock().unwrap().push("disk start");
        Box::pin(async { Ok(()) })
    }
    fn exports<'a>(&'a self, _: &'a OpenContext) -> Local<'a, Result<Exports>> {
        Box::pin(async { Ok(Exports::single()) })
    }
    fn open<'a>(&'a self, cx: &'a OpenContext) -> Local<'a, Result<Arc<dyn Device>>> {
        let refuse = &*cx.export == "missing";
        Box::pin(async move {
            match refuse {
                true => Err(Error::new(ErrorKind::NotFound, "no such export")),
                false => Ok(self.disk.clone() as Arc<dyn Device>),
            }
        })
    }
    fn stop<'a>(&'a self, _: &'a Reactor) -> Local<'a, ()> {
        self.calls.lock().unwrap().push("disk stop");
        Box::pin(async {})
    }
}

struct Layer {
    name: Arc<str>,
    ops: OpSet,
    model: ThreadModel,
    calls: Calls,
}

impl Filter for Layer {
    fn name(&self) -> &Arc<str> {
        &self.name
    }
    fn ops(&self) -> OpSet {
        self.ops
    }
    fn thread_model(&self, _: ThreadModel) -> ThreadModel {
        self.model
    }
    fn ready(&self) -> Result<()> {
        self.calls.lock().unwrap().push("layer ready");
        Ok(())
    }
    fn start<'a>(&'a self, _: &'a Reactor) -> Local<'a, Result<()>> {
        self.calls.lock().unwrap().push("layer start");
        Box::pin(async { Ok(()) })
    }
    fn open<'a>(&'a self, cx: &'a OpenContext, next: Next) -> Local<'a, Result<Arc<dyn Device>>> {
        Box::pin(async move { next.open(cx).await })
    }
    fn stop<'a>(&'a self, _: &'a Reactor) -> Local<'a, ()> {
        self.calls.lock().unwrap().push("layer stop");
        Box::pin(async {})
    }
}

fn stack(ops: OpSet, models: [ThreadModel; 2]) -> (Filtered<Layer>, Arc<SimDisk>, Calls) {
    let calls = Calls::default();
    let mut options = SimDiskOptions::new(1 << 16, 1);
    options.limits.min_block = 512;
    let disk = SimDisk::new(options);
    let source = Disk {
        name: "disk".into(),
        model: models[1],
        disk: disk.clone(),
        calls: calls.clone(),
    };
    let layer = Layer {
        name: "layer".into(),
        ops,
        model: models[0],
        calls: calls.clone(),
    };
    (Filtered(layer, Next::new(Arc::new(source))), disk, calls)
}

fn context(reactor: &Reactor, export: &str) -> OpenContext {
    OpenContext {
        client: Arc::new(Client::default()),
        export: export.into(),
        access: Access::ReadWrite,
        reactor: reactor.clone(),
        host: Arc::new(NoHost),
    }
}

const BOTH: [ThreadModel; 2] = [ThreadModel::Parallel; 2];

#[test]
fn what_a_filter_does_not_understand_is_masked_and_refused() {
    let sim = SimLoop::new(1);
    let ops = OpSet::DISK.without(Op::Discard).without(Op::Flush);
    let (source, disk, _) = stack(ops, BOTH);
    let cx = context(sim.reactor(), "");
    let device = sim.block_on(source.open(&cx)).unwrap();
    let limits = device.limits();
    assert_eq!(limits.offered(), ops);
    assert_eq!(limits.min_block, 1, "normalised below the filter");
    let queue = device.open_queue(sim.reactor()).unwrap();
    for op in Op::ALL.into_iter().filter(|&op| !ops.contains(op)) {
        let done = sim.block_on(queue.call(sim.reactor().request(op, 0, 512)));
        assert!(*done.error().unwrap() == Errno::ENOTSUP, "{op}");
    }
    assert_eq!(disk.requests(), 0, "nothing got through");
    drop(queue);
    assert_quiet(sim.reactor());
}

#[test]
fn thread_models_merge_by_the_strictest() {
    use ThreadModel::*;
    let all = [
        SerializeConnections,
        SerializeAllRequests,
        SerializeRequests,
        Parallel,
    ];
    for layer in all {
        for below in all {
            let (source, ..) = stack(OpSet::DISK, [layer, below]);
            assert_eq!(
                source.thread_model(),
                layer.min(below),
                "{layer:?} over {below:?}"
            );
        }
    }
    assert!(SerializeConnections < Parallel);
}

#[test]
fn life_begins_below_and_ends_above() {
    let sim = SimLoop::new(1);
    let (source, _, calls) = stack(OpSet::DISK, BOTH);
    source.ready().unwrap();
    let r = sim.reactor().clone();
    sim.block_on(async {
        source.start(&r).await.unwrap();
        let cx = context(&r, "");
        source.preconnect(&cx).await.unwrap();
        assert_eq!(source.exports(&cx).await.unwrap(), Exports::single());
        source.stop(&r).await;
    });
    let expected = [
        "disk ready",
        "layer ready",
        "disk start",
        "layer start",
        "layer stop",
        "disk stop",
    ];
    assert_eq!(*calls.lock().unwrap(), expected);
}

#[test]
fn an_error_below_names_a_node() {
    let sim = SimLoop::new(1);
    let (source, ..) = stack(OpSet::DISK, BOTH);
    let cx = context(sim.reactor(), "missing");
    let error = sim.block_on(source.open(&cx)).err().unwrap();
    assert_eq!(
        (error.kind(), error.node()),
        (ErrorKind::NotFound, Some("layer"))
    );
}

#[test]
fn masking_flush_takes_emulated_fua_along() {
    let mut limits = Limits::new(4096, OpSet::DISK);
    limits.fua = Support::Emulated;
    limits.mask(OpSet::DISK.without(Op::Flush));
    assert_eq!(limits.fua, Support::None);
    limits.assert_valid();
}

/// Moves everything by a fixed distance: the filter of the documentation.
struct Shift(Rc<dyn Queue>, u64);

impl Queue for Shift {
    fn submit(&self, mut req: Request) {
        req.set_offset(req.offset() + self.1);
        self.0.submit(req);
    }
}

#[test]
fn wrapped_devices_rewrite_limits_and_requests() {
    let sim = SimLoop::new(1);
    let r = sim.reactor().clone();
    let disk = SimDisk::plain(8192);
    disk.preset(4096, b"shifted");
    let device = WrapDevice::new(
        disk.clone(),
        |limits| limits.size -= 4096,
        |_, next| Ok(Rc::new(Shift(next, 4096)) as Rc<dyn Queue>),
    );
    assert_eq!(device.limits().size, 4096);
    assert!(device.block_lock().is_some(), "the lock of what lies below");
    let queue = device.open_queue(&r).unwrap();
    let mut req = r.request(Op::Read, 0, 7);
    req.set_flags(Flags::NONE);
    *req.data_mut() = block::Data::Wanted;
    let done = sim.block_on(queue.call(req));
    assert_eq!(done.data().as_given().unwrap().to_vec(), b"shifted");
}
