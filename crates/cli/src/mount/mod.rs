//! `blkit mount`, or the program called as `nbdfuse`: a disk as a file.
//!
//! Options, messages and exit statuses are nbdfuse's of libnbd 1.24. The work is `exports::fuse`;
//! here are the mount point (`place`), the options (`options`, `fuse`), who unmounts for a process that
//! is killed (`guardian`), and the life of the mount: the
//! disk is opened first, so that nothing is mounted without one; the file is there when the pid file
//! is; and on the way out, the file goes from sight, what is in flight is answered, what was written
//! is made durable, and only then the process ends.

mod fuse;
mod guardian;
mod options;
mod place;

use std::{
    cell::RefCell,
    ffi::OsString,
    future::Future,
    io,
    os::fd::OwnedFd,
    pin::pin,
    process::ExitCode,
    sync::Arc,
    task::Poll,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use block::{Access, Error, ErrorKind, Reactor, Result, Source};
use exports::fuse::{Bounds, End, Fuse, Shape, View};
use reactor::{
    Io, Packets, Reactors,
    fuse::{Mount, Mounted, clone_fuse, mount_fuse},
    process::{self, Signals},
};

use crate::{
    life::pid_file::PidFile,
    tools::{self, Disk, Started, either},
};
use guardian::Guardian;
use options::{From, Options};

/// How long users of the file get to close it when the process is told to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// How far the kernel is to read ahead, in bytes: one request of the largest size.
const READ_AHEAD: u64 = 1 << 20;

/// Runs it; `name` is what it is called.
pub fn main(name: &str, words: Vec<OsString>) -> ExitCode {
    let asked = options::parse(name, words);
    let options = match tools::understood(name, options::usage, asked) {
        Ok(options) => options,
        Err(status) => return status,
    };
    crate::log::init(u8::from(options.verbose));
    match mount(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => tools::fail(name, &error),
    }
}

fn mount(options: Options) -> Result<()> {
    let cannot = |error| Error::io("cannot watch for signals", error);
    process::block_signals(process::TERMINATION).map_err(cannot)?;
    let signals = Signals::new(process::TERMINATION).map_err(cannot)?;
    let _guardian = Guardian::new(&options.point.path)?;
    let (started, source) = source(&options)?;
    let done = tools::run_on(loops(&options), async |reactor| {
        let life = Life {
            reactor: &reactor,
            options: &options,
            signals: &signals,
            pid_file: RefCell::default(),
        };
        life.run(source).await
    });
    drop(started);
    done
}

/// What is mounted, and the server that was started for it.
fn source(options: &Options) -> Result<(Option<Started>, Arc<dyn Source>)> {
    let registry = graph::Registry::standard();
    let build = |name: &str, words: &[String]| {
        let words = crate::parameters::expand(words).map_err(graph::config_error)?;
        let spec = registry.resolve(name, &options.filters, &words)?;
        registry.build(&spec).map(|built| built.source)
    };
    match &options.from {
        From::Source { name, words } => Ok((None, build(name, words)?)),
        From::Command(command) => {
            let started = Started::new(command)?;
            let words = [format!("connections={}", options.connections)];
            let source = build(&started.uri(), &words)?;
            Ok((Some(started), source))
        }
    }
}

/// The kind of event loop.
fn loops(options: &Options) -> reactor::Options {
    reactor::Options {
        driver: options.io,
        ..reactor::Options::default()
    }
}

struct Life<'a> {
    reactor: &'a Reactor,
    options: &'a Options,
    signals: &'a Signals,
    /// Once the file is there.
    pid_file: RefCell<Option<PidFile>>,
}

impl Life<'_> {
    async fn run(&self, source: Arc<dyn Source>) -> Result<()> {
        let access = match self.options.read_only {
            true => Access::ReadOnly,
            false => Access::ReadWrite,
        };
        let opened = Disk::open(self.reactor, source, "", access);
        let Some(disk) = either(opened, self.signal()).await else {
            return Err(Error::new(ErrorKind::Gone, "told to end"));
        };
        let disk = disk?;
        let fuse = Fuse::new(disk.device().clone(), self.view(), Bounds::default());
        let served = self.mounted(&fuse).await;
        let flushed = fuse.flush(self.reactor).await;
        drop(fuse);
        let closed = disk.close(self.reactor).await;
        served.and(flushed).and(closed)
    }

    /// What the file looks like.
    fn view(&self) -> View {
        let mut view = View {
            shape: self.options.point.shape.clone(),
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            read_only: self.options.read_only,
            time: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
            ..View::default()
        };
        self.options.fuse.apply(&mut view);
        view
    }

    /// From mounting to the end of the mount.
    async fn mounted(&self, fuse: &Arc<Fuse>) -> Result<()> {
        let (fd, mounted) = self.mount().await?;
        let served = self.serve(fuse, fd, &mounted).await;
        if !matches!(served, Ok(End::Unmounted)) {
            self.unmount(&mounted).await;
        }
        served.map(drop)
    }

    async fn mount(&self) -> Result<(OwnedFd, Arc<Mounted>)> {
        let (point, fuse) = (&self.options.point, &self.options.fuse);
        let named = |name: &Option<String>| name.clone().unwrap_or_else(|| "blkit".to_owned());
        let what = Mount {
            point: point.path.clone(),
            directory: matches!(point.shape, Shape::Directory { .. }),
            source: named(&fuse.source),
            subtype: named(&fuse.subtype),
            general: fuse.general.clone(),
            fuse: fuse.kernel.clone(),
        };
        let mounted = self.reactor.blocking(move || mount_fuse(&what));
        let mounted = mounted.await.map_err(io::Error::other).flatten();
        let (fd, mounted) = mounted.map_err(|error| {
            Error::io(
                format!("cannot mount over '{}'", point.path.display()),
                error,
            )
        })?;
        Ok((fd, Arc::new(mounted)))
    }

    /// Takes the file from everybody's sight; who has it open may go on. The kernel may ask us for
    /// something first, so another thread waits for it.
    async fn unmount(&self, mounted: &Arc<Mounted>) {
        let mounted = mounted.clone();
        if let Ok(Err(error)) = self.reactor.blocking(move || mounted.unmount()).await {
            tracing::debug!("it is not unmounted: {error}");
        }
    }

    async fn serve(&self, fuse: &Arc<Fuse>, fd: OwnedFd, mounted: &Arc<Mounted>) -> Result<End> {
        let packets = Io::of(self.reactor)
            .packets(fd)
            .map_err(|error| Error::io("cannot use /dev/fuse", error))?;
        let beside = reactor::Options {
            index: 1,
            ..loops(self.options)
        };
        let others = Reactors::start(self.options.threads - 1, beside)?;
        let end = {
            let mut serving = pin!(fuse.join().serve(self.reactor, packets.clone()));
            let mut beside = pin!(self.beside(fuse, &packets, mounted, &others));
            std::future::poll_fn(|cx| {
                if let Poll::Ready(end) = serving.as_mut().poll(cx) {
                    return Poll::Ready(end);
                }
                beside.as_mut().poll(cx).map(Err)
            })
            .await
        };
        fuse.stop();
        fuse.drained().await;
        others.stop(PATIENCE);
        end
    }

    /// What happens while the file is served: it gets ready; somebody wants an end. Comes back only
    /// with what goes wrong.
    async fn beside(
        &self,
        fuse: &Arc<Fuse>,
        packets: &Packets,
        mounted: &Arc<Mounted>,
        others: &Reactors,
    ) -> Error {
        if either(fuse.ready(), self.signal()).await.is_some() {
            if let Err(error) = self.is_ready(fuse, packets, mounted, others).await {
                return error;
            }
            self.signal().await;
        }
        tracing::debug!("told to end");
        self.unmount(mounted).await;
        either(self.signal(), self.reactor.sleep(PATIENCE)).await;
        fuse.stop();
        std::future::pending().await
    }

    async fn is_ready(
        &self,
        fuse: &Arc<Fuse>,
        packets: &Packets,
        mounted: &Arc<Mounted>,
        others: &Reactors,
    ) -> Result<()> {
        for i in 0..others.len() {
            let fd = clone_fuse(packets.fd())
                .map_err(|error| Error::io("cannot clone a descriptor of /dev/fuse", error))?;
            let seat = fuse.join();
            others.run_on(i, move |reactor| {
                let reactor = reactor.clone();
                reactor.clone().spawn(async move {
                    let served = match Io::of(&reactor).packets(fd) {
                        Ok(packets) => seat.serve(&reactor, packets).await,
                        Err(error) => Err(Error::io("cannot use /dev/fuse", error)),
                    };
                    if let Err(error) = served {
                        tracing::warn!("one event loop less: {}", error.chain());
                    }
                });
            });
        }
        let ahead = self.options.fuse.read_ahead.unwrap_or(READ_AHEAD);
        let mounted = mounted.clone();
        // It looks at the mount, so it waits for us.
        let _ = self
            .reactor
            .blocking(move || mounted.set_read_ahead(ahead))
            .await;
        let pid_file = self.options.pid_file.as_deref().map(PidFile::write);
        *self.pid_file.borrow_mut() = pid_file.transpose()?;
        Ok(())
    }

    async fn signal(&self) {
        tools::signal(self.reactor, self.signals).await;
    }
}
