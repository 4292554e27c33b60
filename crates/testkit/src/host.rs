//! What a source or filter finds around it in tests: a host, a context to open with, a device that
//! is a source, and a disk in memory.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use block::{
    Access, Client, Data, Device, Error, ErrorKind, Event, EventHub, Exports, ExtentFlags,
    ExtentList, Host, Limits, Local, Op, OpSet, OpenContext, Queue, Reactor, Request, Result,
    SharedBuf, SharedMem, Source, Support,
    host::{Command, Output, UnixHandler, Watch},
};

type MakeScratch = dyn Fn(u64) -> Arc<dyn Device> + Send + Sync;

/// A host without a process around it: scratch space is in memory, files exist because the test
/// says so, programs and sockets there are none.
pub struct TestHost {
    scratch: Box<MakeScratch>,
    files: Mutex<BTreeSet<PathBuf>>,
    changed: EventHub,
    calls: Mutex<Vec<Call>>,
}

/// What a [`TestHost`] was asked to do to the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// [`Host::shutdown`].
    Shutdown,
    /// [`Host::disconnect`], of this client, forced or not.
    Disconnect(u64, bool),
}

impl TestHost {
    /// A host whose scratch devices are [`MemoryDisk`]s.
    pub fn new() -> Arc<TestHost> {
        TestHost::with_scratch(|size| MemoryDisk::new(size))
    }

    /// A host whose scratch devices, of the size given, are made by `make`.
    pub fn with_scratch(
        make: impl Fn(u64) -> Arc<dyn Device> + Send + Sync + 'static,
    ) -> Arc<TestHost> {
        Arc::new(TestHost {
            scratch: Box::new(make),
            files: Mutex::default(),
            changed: EventHub::default(),
            calls: Mutex::default(),
        })
    }

    /// Makes a file appear or go. Whoever watches it is told, each on its own reactor.
    pub fn set_file(&self, path: impl Into<PathBuf>, exists: bool) {
        let path = path.into();
        let changed = match exists {
            true => lock(&self.files).insert(path),
            false => lock(&self.files).remove(&path),
        };
        if changed {
            self.changed.emit(Event::LimitsChanged);
        }
    }

    /// What was asked for up to now.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.calls).clone()
    }

    /// The context of a client that may write, on this reactor, with this host.
    pub fn context(self: &Arc<TestHost>, reactor: &Reactor) -> OpenContext {
        OpenContext {
            client: Arc::new(Client::default()),
            export: "".into(),
            access: Access::ReadWrite,
            reactor: reactor.clone(),
            host: self.clone(),
        }
    }
}

impl Host for TestHost {
    fn scratch<'a>(&'a self, _: &'a Reactor, size: u64) -> Local<'a, Result<Arc<dyn Device>>> {
        Box::pin(async move { Ok((self.scratch)(size)) })
    }

    fn watch_file(&self, reactor: &Reactor, _: &Path, f: Box<dyn Fn()>) -> Result<Watch> {
        // Any change wakes every watch: a watch may always call once too often.
        let subscription = self.changed.subscribe(reactor, Box::new(move |_| f()));
        Ok(Watch(Some(Box::new(subscription))))
    }

    fn file_exists(&self, path: &Path) -> bool {
        lock(&self.files).contains(path)
    }

    fn spawn<'a>(&'a self, _: &'a Reactor, command: Command) -> Local<'a, Result<Output>> {
        let why = format!("no programs in tests: {:?}", command.argv);
        Box::pin(async { Err(Error::new(ErrorKind::Unsupported, why)) })
    }

    fn listen_unix(&self, _: &Reactor, path: &Path, _: UnixHandler) -> Result<Watch> {
        let why = format!("no sockets in tests: {}", path.display());
        Err(Error::new(ErrorKind::Unsupported, why))
    }

    fn shutdown(&self) {
        lock(&self.calls).push(Call::Shutdown);
    }

    fn disconnect(&self, client: u64, force: bool) {
        lock(&self.calls).push(Call::Disconnect(client, force));
    }
}

/// A source with one export, which opens the same device for everybody.
pub struct DeviceSource {
    name: Arc<str>,
    device: Arc<dyn Device>,
}

impl DeviceSource {
    /// A source of this device.
    pub fn new(device: Arc<dyn Device>) -> Arc<DeviceSource> {
        Arc::new(DeviceSource {
            name: "device".into(),
            device,
        })
    }
}

impl Source for DeviceSource {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn exports<'a>(&'a self, _: &'a OpenContext) -> Local<'a, Result<Exports>> {
        Box::pin(async { Ok(Exports::single()) })
    }

    fn open<'a>(&'a self, _: &'a OpenContext) -> Local<'a, Result<Arc<dyn Device>>> {
        Box::pin(async { Ok(self.device.clone()) })
    }
}

/// A disk in memory that does everything a disk does, at once: the plain thing to put a layer on.
pub struct MemoryDisk {
    bytes: Arc<SharedBuf>,
    limits: Arc<Limits>,
}

impl MemoryDisk {
    /// A disk of `size` zero bytes.
    pub fn new(size: u64) -> Arc<MemoryDisk> {
        let mut limits = Limits::new(size, OpSet::DISK);
        limits.fua = Support::Native;
        limits.fast_zero = true;
        limits.multi_conn = true;
        MemoryDisk::with(limits)
    }

    /// A disk with these limits. Nothing enforces them.
    pub fn with(limits: Limits) -> Arc<MemoryDisk> {
        let bytes = SharedBuf::zeroed(limits.size as usize).expect("a test's disk fits in memory");
        Arc::new(MemoryDisk {
            bytes,
            limits: Arc::new(limits),
        })
    }

    /// All bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.bytes.len()];
        self.bytes.read(0, &mut bytes);
        bytes
    }

    /// Fills a range behind every layer's back.
    pub fn fill(&self, at: u64, bytes: &[u8]) {
        self.bytes.write(at as usize, bytes);
    }
}

impl Device for MemoryDisk {
    fn limits(&self) -> Arc<Limits> {
        self.limits.clone()
    }

    fn open_queue(&self, reactor: &Reactor) -> Result<Rc<dyn Queue>> {
        Ok(Rc::new(MemoryQueue {
            bytes: self.bytes.clone(),
            reactor: reactor.clone(),
        }))
    }
}

struct MemoryQueue {
    bytes: Arc<SharedBuf>,
    reactor: Reactor,
}

impl Queue for MemoryQueue {
    fn submit(&self, mut req: Request) {
        let (at, len) = (req.offset() as usize, req.len() as usize);
        match req.op() {
            Op::Read => match req.data().as_iov() {
                Some(iov) => {
                    let found = SharedMem::of_shared(self.bytes.clone(), at, len);
                    iov.write_mem(0, &found, 0, len);
                }
                None => {
                    // A copy: what is given must not change any more.
                    let mut chunk = self.reactor.chunk(len);
                    let bytes = chunk.as_mut_slice().expect("a fresh chunk has one owner");
                    self.bytes.read(at, &mut bytes[..len]);
                    *req.data_mut() = Data::Given(SharedMem::of_chunk(chunk, len).into());
                }
            },
            Op::Write => {
                let data = req.data().as_iov().expect("a write carries bytes");
                data.read_shared(0, &self.bytes, at, len);
            }
            Op::WriteZeroes | Op::Discard => self.bytes.zero(at, len),
            Op::Extents => {
                *req.data_mut() = Data::Extents(ExtentList::one(len as u64, ExtentFlags::DATA));
            }
            Op::GetId => *req.data_mut() = Data::Id(*b"memory-disk\0\0\0\0\0\0\0\0\0"),
            _ => {}
        }
        req.done();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
