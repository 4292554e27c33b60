//! The threads that disks live on.

use std::{
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use block::Errno;
use reactor::{DriverKind, Options, Reactors};

use crate::{
    error::{Error, Result},
    home::{self, Opening},
    port::Port,
    wait::{Promise, block_on_for, lock, promise},
};

/// Event loops, each on a thread of its own, on which disks live.
///
/// Most programs need none: disks are opened in a context of the process, which is made when the first
/// one is. A context of one's own can have another number of threads, and can be closed with all that
/// is in it. Clones are the same context.
///
/// *Dropped*, with the last clone and the last disk in it, it closes what is still closing, for at most
/// five seconds. [`Context::close`] tells how that went.
///
/// *After fork(2)* a child has none of the threads: what was opened before must not be used, nor
/// dropped, there. The context of the process is made anew in the child.
///
/// ```
/// # fn main() -> blkit::Result<()> {
/// let context = blkit::Context::builder().threads(1).build()?;
/// let disk = blkit::Disk::builder("memory").arg("1M").context(&context).open()?;
/// assert_eq!(disk.size(), 1 << 20);
/// context.close(std::time::Duration::from_secs(5))?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Context(Arc<Inner>);

struct Inner {
    /// Until it was closed.
    live: Mutex<Option<Live>>,
    threads: Vec<ThreadId>,
    next: AtomicUsize,
    /// The process that has the threads.
    process: u32,
}

/// What has to be ended.
struct Live {
    reactors: Reactors,
    ports: Vec<Weak<Port>>,
}

/// How event loops talk to the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Driver {
    /// io_uring, and epoll where io_uring is refused.
    #[default]
    Auto,
    /// io_uring, or an error.
    Uring,
    /// epoll and a pool of threads.
    Poll,
}

/// How to make a [`Context`].
#[derive(Clone, Debug, Default)]
pub struct ContextBuilder {
    threads: Option<usize>,
    driver: Driver,
}

/// Threads of the process's context, at most: each serves as many disks as there are.
const THREADS: usize = 4;

/// How long dropping waits.
const PATIENCE: Duration = Duration::from_secs(5);

static GLOBAL: Mutex<Option<Context>> = Mutex::new(None);

impl ContextBuilder {
    /// So many event loops, at least one [default: as many as there are processors, at most 4]. A disk
    /// lives on one of them.
    pub fn threads(mut self, threads: usize) -> ContextBuilder {
        self.threads = Some(threads.max(1));
        self
    }

    /// How they talk to the kernel.
    pub fn driver(mut self, driver: Driver) -> ContextBuilder {
        self.driver = driver;
        self
    }

    /// Starts the threads.
    ///
    /// # Errors
    /// The system gives no thread, or no ring.
    pub fn build(self) -> Result<Context> {
        let processors = || thread::available_parallelism().map_or(1, usize::from);
        let count = self.threads.unwrap_or_else(|| processors().min(THREADS));
        let options = Options {
            driver: match self.driver {
                Driver::Auto => DriverKind::Auto,
                Driver::Uring => DriverKind::Uring,
                Driver::Poll => DriverKind::Poll,
            },
            ..Options::default()
        };
        let reactors = Reactors::start(count, options)?;
        let (tell, told) = mpsc::channel();
        for i in 0..count {
            let tell = tell.clone();
            reactors.run_on(i, move |_| {
                // The receiver waits for it.
                let _ = tell.send(thread::current().id());
            });
        }
        drop(tell);
        Ok(Context(Arc::new(Inner {
            live: Mutex::new(Some(Live {
                reactors,
                ports: Vec::new(),
            })),
            threads: told.iter().collect(),
            next: AtomicUsize::new(0),
            process: std::process::id(),
        })))
    }
}

impl Context {
    /// A context of one's own.
    pub fn builder() -> ContextBuilder {
        ContextBuilder::default()
    }

    /// The context of the process. It is never closed by itself: what is open when the process ends
    /// was not flushed.
    ///
    /// # Errors
    /// As [`ContextBuilder::build`], when it is made.
    pub fn global() -> Result<Context> {
        let mut global = lock(&GLOBAL);
        if let Some(context) = &*global
            && context.0.process == std::process::id()
            && lock(&context.0.live).is_some()
        {
            return Ok(context.clone());
        }
        let made = Context::builder().build()?;
        let old = global.replace(made.clone());
        drop(global);
        drop(old);
        Ok(made)
    }

    /// Closes all disks that were opened here, as [`Disk::close`](crate::Disk::close) does, and ends
    /// the threads. What is not done in time is cut off.
    ///
    /// # Errors
    /// The first disk that could not be closed well, or in time.
    ///
    /// # Panics
    /// On one of the threads that it ends (in a waker).
    pub fn close(&self, patience: Duration) -> Result<()> {
        assert!(
            !self.0.is_inside(),
            "a context cannot be closed from inside"
        );
        let live = lock(&self.0.live).take();
        live.map_or(Ok(()), |live| live.end(patience))
    }

    /// Begins to open a disk.
    pub(crate) fn launch(&self, opening: Opening) -> Result<Opened> {
        let (promised, debt) = promise();
        let live = lock(&self.0.live);
        let Some(Live { reactors, .. }) = &*live else {
            return Err(Error::new(Errno::ESHUTDOWN, "the context is closed"));
        };
        let at = self.0.next.fetch_add(1, Ordering::Relaxed) % reactors.len();
        reactors.run_on(at, move |reactor| {
            reactor.spawn(home::serve(reactor.clone(), opening, debt));
        });
        Ok(promised)
    }

    /// Runs this on the first thread.
    #[cfg(test)]
    pub(crate) fn run(&self, f: impl FnOnce() + Send + 'static) {
        let live = lock(&self.0.live);
        live.as_ref()
            .expect("it is open")
            .reactors
            .run_on(0, |_| f());
    }

    /// A disk is open.
    pub(crate) fn adopt(&self, port: &Arc<Port>) {
        if let Some(live) = &mut *lock(&self.0.live) {
            live.ports.retain(|port| port.strong_count() > 0);
            live.ports.push(Arc::downgrade(port));
        }
    }
}

/// A disk that is being opened.
pub(crate) type Opened = Promise<Option<Result<Arc<Port>>>>;

impl Inner {
    fn is_inside(&self) -> bool {
        self.threads.contains(&thread::current().id())
    }
}

impl Live {
    fn end(self, patience: Duration) -> Result<()> {
        let until = Instant::now() + patience;
        let left = || until.saturating_duration_since(Instant::now());
        let begin = |port: Arc<Port>| {
            let (promised, debt) = promise();
            port.close(Some(debt));
            promised
        };
        let open = self.ports.iter().filter_map(Weak::upgrade);
        let closing: Vec<_> = open.map(begin).collect();
        let mut result = Ok(());
        for promised in closing {
            let closed = match block_on_for(promised, left()) {
                Some(closed) => closed.unwrap_or_else(|| Err(Error::closed())),
                None => Err(Error::new(
                    Errno::ETIMEDOUT,
                    "a disk was not closed in time",
                )),
            };
            result = result.and(closed);
        }
        self.reactors.stop(left());
        result
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let Some(live) = lock(&self.live).take() else {
            return;
        };
        if self.process != std::process::id() {
            // The threads are in another process: there is nobody to wait for.
            return std::mem::forget(live);
        }
        let end = move || {
            if let Err(error) = live.end(PATIENCE) {
                tracing::warn!("a context that was dropped: {error}");
            }
        };
        if self.is_inside() {
            // A thread cannot wait for itself.
            thread::spawn(end);
        } else {
            end();
        }
    }
}
