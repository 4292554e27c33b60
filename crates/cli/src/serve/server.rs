//! The serving process itself: loops, server, signals, and the way out.

use std::{
    future::Future,
    io::{PipeWriter, Write},
    path::{Path, PathBuf},
    pin::pin,
    process::ExitCode,
    sync::Arc,
    task::Poll,
    thread::available_parallelism,
    time::Duration,
};

use block::{Error, Inbox, Reactor, Result, Source};
use exports::nbd::{Options, Server};
use graph::{Built, HostServices};
use reactor::{
    Io, Listener, Loop, Reactors,
    process::{self, Signals},
};

use super::{listen::Endpoints, stop::Stop};
use crate::args::ServeArgs;

/// How long clients get for what is in flight when the server stops.
const DRAIN: Duration = Duration::from_secs(30);

/// How long connections that were cut off get to go, and loops to end.
const CLOSE: Duration = Duration::from_secs(5);

/// Who is told that clients may connect.
pub enum Announce {
    /// Whoever reads standard output: the URI.
    Uri,
    /// The process that runs the command.
    Pipe(PipeWriter),
}

/// Serves until asked to stop.
///
/// # Errors
/// It cannot start.
pub fn run(
    options: &ServeArgs,
    built: Built,
    mut endpoints: Endpoints,
    announce: Announce,
) -> Result<ExitCode> {
    let signals = Signals::new(process::TERMINATION)
        .map_err(|error| Error::io("cannot make a signalfd", error))?;
    let listeners = endpoints
        .take_sockets()
        .into_iter()
        .map(Listener::from_fd)
        .collect::<Result<Vec<_>>>()?;
    let threads = match options.threads {
        Some(threads) => usize::from(threads),
        None => available_parallelism().map_or(1, usize::from),
    };
    let settings = reactor::Options {
        driver: options.io,
        ..reactor::Options::default()
    };
    let mut main = Loop::new(settings.clone())?;
    let others = Reactors::start_beside(Some(&main), threads.saturating_sub(1), settings)?;
    tracing::debug!("{} event loops, driver {}", others.len(), main.driver());

    let stop = Stop::default();
    let host = HostServices::new({
        let stop = stop.clone();
        move || stop.request()
    });
    let server = Server::new(built.source.clone(), host.clone(), export_options(options));
    host.set_disconnect({
        let server = Arc::downgrade(&server);
        move |client, force| {
            if let Some(server) = server.upgrade() {
                server.disconnect(client, force);
            }
        }
    });
    let life = Life {
        reactor: main.reactor().clone(),
        source: built.source,
        server,
        homes: (0..others.len()).map(|i| others.inbox(i).clone()).collect(),
        stop,
        captive: matches!(announce, Announce::Pipe(_)),
    };
    life.watch_signals(signals);
    let served = main.block_on(life.serve(listeners, || announce.tell(options, &endpoints)));
    drop(life);
    others.stop(CLOSE);
    main.close(CLOSE);
    // Files go last: whoever waits for that knows that the process is done.
    drop(endpoints);
    served.map(|_pid_file| ExitCode::SUCCESS)
}

fn export_options(options: &ServeArgs) -> Options {
    Options {
        read_only: options.read_only,
        handshake_timeout: options.handshake_timeout,
        max_connections: usize::try_from(options.max_connections).unwrap_or(usize::MAX),
        ..Options::default()
    }
}

/// What the serving process is made of.
struct Life {
    reactor: Reactor,
    source: Arc<dyn Source>,
    server: Arc<Server>,
    homes: Vec<Arc<Inbox>>,
    stop: Stop,
    /// A command owns the terminal.
    captive: bool,
}

impl Life {
    /// From start to stop of the source. `announce` is called when clients may connect; what it
    /// returns is kept until the end.
    async fn serve<T>(
        &self,
        listeners: Vec<Listener>,
        announce: impl FnOnce() -> Result<T>,
    ) -> Result<Option<T>> {
        let asked = self.stop.requested(1);
        match first(self.source.start(&self.reactor), asked).await {
            First::Left(started) => started?,
            // Told to stop before it began: nothing was promised to anybody.
            First::Right(()) => return Ok(None),
        }
        for listener in listeners {
            let (server, reactor, homes) = (
                self.server.clone(),
                self.reactor.clone(),
                self.homes.clone(),
            );
            self.reactor.spawn(async move {
                server.accept_loop(&reactor, listener, &homes).await;
            });
        }
        let announced = announce();
        if announced.is_ok() {
            self.stop.requested(1).await;
        }
        self.drain().await;
        announced.map(Some)
    }

    /// Lets clients have their answers, then closes what is left and stops the source.
    async fn drain(&self) {
        self.server.stop();
        let patience = first(self.stop.requested(2), self.reactor.sleep(DRAIN));
        if let First::Right(_) = first(self.server.drained(), patience).await {
            tracing::warn!("{} connections are cut off", self.server.connections());
            self.server.abort();
            first(self.server.drained(), self.reactor.sleep(CLOSE)).await;
        }
        let patience = first(self.stop.requested(2), self.reactor.sleep(DRAIN));
        if let First::Right(_) = first(self.source.stop(&self.reactor), patience).await {
            tracing::warn!("{} did not stop in time", self.source.name());
        }
        let stats = self.server.stats();
        tracing::debug!("served: {stats:?}");
    }

    /// Turns signals into wishes to stop.
    fn watch_signals(&self, signals: Signals) {
        let (stop, captive) = (self.stop.clone(), self.captive);
        let io = Io::of(&self.reactor);
        self.reactor.spawn(async move {
            loop {
                if let Err(error) = io.readable(signals.fd()).await {
                    return tracing::debug!("signals are not read any more: {error}");
                }
                while let Ok(Some(received)) = signals.take() {
                    // The terminal's keys are for the command; its end ends the server.
                    if captive && received.from_kernel {
                        continue;
                    }
                    tracing::debug!("signal {}: stopping", received.signal);
                    stop.request();
                }
            }
        });
    }
}

impl Announce {
    /// Clients may connect. Returns the pid file, which goes when it is dropped.
    fn tell(self, options: &ServeArgs, endpoints: &Endpoints) -> Result<Option<PidFile>> {
        let pid_file = options
            .pid_file
            .as_deref()
            .map(PidFile::write)
            .transpose()?;
        // A reader that is gone is no reason not to serve.
        let _ = match self {
            Announce::Uri => {
                let mut out = std::io::stdout().lock();
                writeln!(out, "{}", endpoints.uri()).and_then(|()| out.flush())
            }
            Announce::Pipe(mut pipe) => pipe.write_all(b"."),
        };
        Ok(pid_file)
    }
}

/// A file with this process's number; removed when dropped.
struct PidFile(PathBuf);

impl PidFile {
    fn write(path: &Path) -> Result<PidFile> {
        let text = format!("{}\n", std::process::id());
        std::fs::write(path, text).map_err(|error| {
            Error::io(
                format!("cannot write the pid file '{}'", path.display()),
                error,
            )
        })?;
        Ok(PidFile(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Not if it is another's by now, nor if it was never a file, such as /dev/stderr.
        let ours = std::fs::symlink_metadata(&self.0).is_ok_and(|file| file.is_file())
            && std::fs::read_to_string(&self.0)
                .is_ok_and(|text| text.trim() == std::process::id().to_string());
        if ours {
            let _ = std::fs::remove_file(&self.0);
        }
    }
}

/// Which of two was ready first.
enum First<A, B> {
    Left(A),
    Right(B),
}

/// Waits for the first of two; the other is dropped.
async fn first<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> First<A, B> {
    let (mut a, mut b) = (pin!(a), pin!(b));
    std::future::poll_fn(|cx| {
        if let Poll::Ready(value) = a.as_mut().poll(cx) {
            return Poll::Ready(First::Left(value));
        }
        b.as_mut().poll(cx).map(First::Right)
    })
    .await
}
