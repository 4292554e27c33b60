//! For unit tests: a source on a real loop, used like a client would.

use std::{cell::RefCell, path::Path, rc::Rc, sync::Arc, time::Duration};

use block::{
    Access, Data, Device, Error, ErrorKind, ExtentList, Flags, Host, IoError, Iov, Limits, Local,
    Op, OpenContext, Queue, QueueExt, Reactor, Request, Result, Source,
    host::{Command, Output, UnixHandler, Watch},
};
use reactor::{DriverKind, Loop, Options};
use testkit::TestHost;

/// A loop with an open device.
pub(crate) struct Bench {
    /// Emptied when the bench goes.
    run: RefCell<Option<Loop>>,
    device: Option<Arc<dyn Device>>,
    queue: Option<Rc<dyn Queue>>,
}

/// A context for a client on this loop.
pub(crate) fn context(run: &Loop, export: &str, access: Access) -> OpenContext {
    let mut cx = TestHost::new().context(run.reactor());
    cx.export = export.into();
    cx.access = access;
    cx
}

/// A host that can run programs, and nothing else.
pub(crate) struct ProgramHost;

impl Host for ProgramHost {
    fn spawn<'a>(&'a self, reactor: &'a Reactor, command: Command) -> Local<'a, Result<Output>> {
        Box::pin(async move {
            let ran = reactor.blocking(move || {
                std::process::Command::new(&command.argv[0])
                    .args(&command.argv[1..])
                    .envs(command.env)
                    .output()
            });
            let output = ran.await.expect("no panic");
            let output = output.map_err(|e| Error::io("cannot run a program", e))?;
            Ok(Output {
                code: output.status.code(),
                stdout: output.stdout,
                stderr: output.stderr,
            })
        })
    }

    fn scratch<'a>(&'a self, _: &'a Reactor, _: u64) -> Local<'a, Result<Arc<dyn Device>>> {
        Box::pin(async { Err(unsupported()) })
    }

    fn watch_file(&self, _: &Reactor, _: &Path, _: Box<dyn Fn()>) -> Result<Watch> {
        Err(unsupported())
    }

    fn file_exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn listen_unix(&self, _: &Reactor, _: &Path, _: UnixHandler) -> Result<Watch> {
        Err(unsupported())
    }

    fn shutdown(&self) {}

    fn disconnect(&self, _: u64, _: bool) {}
}

fn unsupported() -> Error {
    Error::new(ErrorKind::Unsupported, "this host only runs programs")
}

/// A loop on this driver; `None`, with a note, where the kernel forbids it.
pub(crate) fn start(driver: DriverKind) -> Option<Loop> {
    let options = Options {
        driver,
        ..Options::default()
    };
    match Loop::new(options) {
        Ok(run) => Some(run),
        Err(error) if driver == DriverKind::Uring => {
            eprintln!("SKIP: io_uring refused: {}", error.chain());
            None
        }
        Err(error) => panic!("{}", error.chain()),
    }
}

/// Opens an export on a loop of its own that can run programs.
pub(crate) fn open_alone(source: &dyn Source, export: &str) -> Result<Arc<dyn Device>> {
    let mut run = start(DriverKind::Poll).expect("a loop starts");
    let mut cx = context(&run, export, Access::ReadWrite);
    cx.host = Arc::new(ProgramHost);
    let opened = run.block_on(source.open(&cx));
    drop(cx);
    run.close(Duration::from_secs(5));
    opened
}

/// Runs the suite that every device must pass against what `open` opens, on every driver.
pub(crate) fn conform(open: impl Fn() -> Arc<dyn Device>) {
    for driver in [DriverKind::Uring, DriverKind::Poll] {
        let Some(mut run) = start(driver) else {
            continue;
        };
        let ran = testkit::conformance::run(|_| open(), &mut run);
        assert!(ran.len() > 10, "only {ran:?}");
        run.close(Duration::from_secs(5));
    }
}

impl Bench {
    /// Opens the default export for a client that may write.
    pub fn open(source: Arc<dyn Source>) -> Bench {
        Bench::open_as(source, Access::ReadWrite)
    }

    /// Opens the default export.
    pub fn open_as(source: Arc<dyn Source>, access: Access) -> Bench {
        Bench::try_open(&*source, "", access).expect("the source opens")
    }

    /// Opens an export on a loop of its own.
    pub fn try_open(source: &dyn Source, export: &str, access: Access) -> Result<Bench> {
        let run = start(DriverKind::Auto).expect("a loop starts");
        Bench::on(run, source, export, access)
    }

    /// Opens an export on this loop.
    pub fn on(run: Loop, source: &dyn Source, export: &str, access: Access) -> Result<Bench> {
        Bench::with_host(run, source, export, access, TestHost::new())
    }

    /// Opens an export on this loop, with this host.
    pub fn with_host(
        mut run: Loop,
        source: &dyn Source,
        export: &str,
        access: Access,
        host: Arc<dyn Host>,
    ) -> Result<Bench> {
        let mut cx = context(&run, export, access);
        cx.host = host;
        let device = run.block_on(source.open(&cx))?;
        device.limits().assert_valid();
        Bench::of(run, device)
    }

    /// Uses a device on this loop.
    pub fn of(run: Loop, device: Arc<dyn Device>) -> Result<Bench> {
        let queue = device.open_queue(run.reactor())?;
        Ok(Bench {
            run: RefCell::new(Some(run)),
            device: Some(device),
            queue: Some(queue),
        })
    }

    pub fn limits(&self) -> Arc<Limits> {
        self.device.as_ref().unwrap().limits()
    }

    pub fn with<T>(&self, f: impl FnOnce(&mut Loop, &dyn Queue) -> T) -> T {
        let mut run = self.run.borrow_mut();
        f(run.as_mut().unwrap(), &**self.queue.as_ref().unwrap())
    }

    fn call(&self, op: Op, at: u64, len: u64, flags: Flags, data: Data) -> Result<Data, IoError> {
        self.with(|run, queue| {
            let mut req: Request = run.reactor().request(op, at, len);
            req.set_flags(flags);
            *req.data_mut() = data;
            let mut done = run.block_on(queue.call(req));
            done.take_outcome()?;
            Ok(std::mem::take(done.data_mut()))
        })
    }

    /// Reads once, into memory of the callee: for bytes that change by themselves.
    pub fn given(&self, at: u64, len: usize) -> Result<Vec<u8>, IoError> {
        let given = self.call(Op::Read, at, len as u64, Flags::NONE, Data::Wanted)?;
        Ok(given.as_given().expect("a wanted read is given").to_vec())
    }

    /// Reads twice, once into memory of the callee and once into memory of the caller: both must
    /// give the same.
    pub fn read(&self, at: u64, len: usize) -> Result<Vec<u8>, IoError> {
        let given = self.given(at, len)?;
        let iov = self.memory(&vec![0xee; len]);
        let filled = self.call(Op::Read, at, len as u64, Flags::NONE, iov.into())?;
        assert!(filled.as_iov().unwrap().to_vec() == given, "{at}+{len}");
        Ok(given)
    }

    /// Reads the whole disk.
    pub fn read_all(&self) -> Vec<u8> {
        const STEP: u64 = 4 << 20;
        let size = self.limits().size;
        let steps = (0..size).step_by(STEP as usize);
        let read = |at| self.read(at, STEP.min(size - at) as usize).unwrap();
        steps.flat_map(read).collect()
    }

    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<(), IoError> {
        self.write_flagged(at, bytes, Flags::NONE)
    }

    pub fn write_flagged(&self, at: u64, bytes: &[u8], flags: Flags) -> Result<(), IoError> {
        let iov = self.memory(bytes);
        self.call(Op::Write, at, bytes.len() as u64, flags, iov.into())
            .map(drop)
    }

    pub fn plain(&self, op: Op, at: u64, len: u64) -> Result<(), IoError> {
        self.flagged(op, at, len, Flags::NONE)
    }

    pub fn flagged(&self, op: Op, at: u64, len: u64, flags: Flags) -> Result<(), IoError> {
        self.call(op, at, len, flags, Data::None).map(drop)
    }

    pub fn extents(&self, at: u64, len: u64) -> Result<ExtentList, IoError> {
        self.extents_flagged(at, len, Flags::NONE)
    }

    pub fn extents_flagged(&self, at: u64, len: u64, f: Flags) -> Result<ExtentList, IoError> {
        let found = self.call(Op::Extents, at, len, f, Data::None)?;
        Ok(found.as_extents().expect("extents were found").clone())
    }

    /// Memory of this reactor with these bytes.
    pub fn memory(&self, bytes: &[u8]) -> Iov {
        self.with(|run, _| {
            let iov = Iov::of_chunk(run.reactor().chunk(bytes.len()), bytes.len());
            iov.write(0, bytes);
            iov
        })
    }
}

/// Nothing may be left behind.
impl Drop for Bench {
    fn drop(&mut self) {
        drop((self.queue.take(), self.device.take()));
        let run = self.run.get_mut().take().unwrap();
        if !std::thread::panicking() {
            let reactor = run.reactor();
            assert_eq!(reactor.requests_live(), 0, "requests are out");
            assert_eq!(reactor.counters().dropped.get(), 0, "requests were dropped");
            assert_eq!(reactor.chunks().live(), 0, "chunks are out");
        }
        run.close(Duration::from_secs(5));
    }
}
