//! What only the inside shows: the order of requests below, completed by hand; allocations; threads
//! that go.

mod allocations;
mod order;

use std::{
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use block::{Access, Device, Errno, Op};
use testkit::{DeviceSource, Step, StepDevice};

use crate::{AsyncDisk, Context, Disk, handle::Handle, home::Opening, wait::block_on};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Opens a device as if it were a source.
fn open(context: &Context, device: Arc<dyn Device>) -> Disk {
    let opening = Opening {
        source: DeviceSource::new(device),
        export: String::new(),
        access: Access::ReadWrite,
    };
    let opened = block_on(context.launch(opening).expect("a context"));
    let port = opened.expect("a thread").expect("opens");
    Disk::of(Arc::new(Handle::new(port, context.clone())))
}

fn context() -> Context {
    Context::builder().threads(1).build().expect("a context")
}

/// A disk whose requests the test completes, and the async face of it.
fn steps() -> (Arc<StepDevice>, AsyncDisk) {
    let device = StepDevice::new(1 << 20);
    let disk = open(&context(), device.clone());
    (device, disk.to_async())
}

/// The next request, which comes soon.
fn next(device: &StepDevice) -> Step {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(step) = device.next() {
            return step;
        }
        assert!(Instant::now() < until, "a request comes");
        thread::sleep(Duration::from_millis(1));
    }
}

fn expect(device: &StepDevice, op: Op) -> Step {
    let step = next(device);
    assert_eq!(step.remote.op(), op);
    step
}

/// What was asked for up to now has reached the device.
fn settle(context: &Context) {
    for _ in 0..3 {
        on_thread(context, || ());
    }
}

/// Runs this on the context's first thread.
fn on_thread<T: Send + 'static>(context: &Context, f: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = mpsc::channel();
    context.run(move || {
        // The receiver waits for it.
        let _ = tell.send(f());
    });
    told.recv_timeout(PATIENCE).expect("it runs")
}

fn eio() -> block::Outcome {
    Err(Errno::EIO.into())
}
