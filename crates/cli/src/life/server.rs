//! The serving process itself: loops, server, signals, and the way out.

use std::{
    any::Any, future::Future, os::fd::OwnedFd, pin::pin, process::ExitCode, sync::Arc, task::Poll,
    thread::available_parallelism, time::Duration,
};

use block::{Error, Inbox, Reactor, Result, Source};
use exports::nbd::{Options, Server};
use graph::HostServices;
use reactor::{
    DriverKind, Io, Listener, Loop, Reactors,
    process::{self, Signals},
};

use super::{
    disks::{Disk, Plan},
    listen::Endpoints,
    sandbox,
    stop::Stop,
};

/// How long clients get for what is in flight when the server stops.
const DRAIN: Duration = Duration::from_secs(30);

/// How long connections that were cut off get to go, and loops to end.
const CLOSE: Duration = Duration::from_secs(5);

/// What is served, to whom, and what happens when clients may connect.
pub struct Service {
    /// Settings of the export.
    pub export: Options,
    /// Event loops; one for each CPU if not given.
    pub threads: Option<usize>,
    /// How to talk to the kernel.
    pub io: DriverKind,
    /// The process gives up what no server needs, see [`sandbox`].
    pub sandbox: bool,
    /// A command owns the terminal: its keys do not end the server.
    pub captive: bool,
    /// Disks for virtual machines.
    pub disks: Vec<Plan>,
    /// Who is served.
    pub clients: Clients,
    /// Called when clients may connect; what it returns is kept until the end.
    pub ready: Box<dyn FnOnce() -> Result<Box<dyn Any>>>,
}

/// Who is served.
pub enum Clients {
    /// Whoever connects.
    Many,
    /// One, on these two descriptors; the process ends with it.
    One {
        /// Requests come from here.
        input: OwnedFd,
        /// Replies go here.
        output: OwnedFd,
    },
}

/// Serves until asked to stop.
///
/// # Errors
/// It cannot start.
pub fn run(
    mut service: Service,
    source: Arc<dyn Source>,
    mut endpoints: Endpoints,
) -> Result<ExitCode> {
    if service.sandbox {
        sandbox::enter()?;
    }
    let signals = Signals::new(process::TERMINATION)
        .map_err(|error| Error::io("cannot make a signalfd", error))?;
    let listeners = listeners(&mut endpoints)?;
    let threads = service
        .threads
        .unwrap_or_else(|| available_parallelism().map_or(1, usize::from));
    let settings = reactor::Options {
        driver: service.io,
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
    let server = Server::new(source.clone(), host.clone(), service.export);
    host.set_disconnect({
        let server = Arc::downgrade(&server);
        move |client, force| {
            if let Some(server) = server.upgrade() {
                server.disconnect(client, force);
            }
        }
    });
    let mut life = Life {
        reactor: main.reactor().clone(),
        source,
        host,
        server,
        disks: Vec::new(),
        homes: (0..others.len()).map(|i| others.inbox(i).clone()).collect(),
        stop,
        captive: service.captive,
        clients: service.clients,
    };
    life.watch_signals(signals);
    let served = main.block_on(life.serve(listeners, &mut service.disks, service.ready));
    drop(life);
    others.stop(CLOSE);
    main.close(CLOSE);
    // Files go last: whoever waits for that knows that the process is done.
    drop((endpoints, service.disks));
    served.map(|_until_now| ExitCode::SUCCESS)
}

fn listeners(endpoints: &mut Endpoints) -> Result<Vec<Listener>> {
    let sockets = endpoints.take_sockets().into_iter();
    sockets.map(Listener::from_fd).collect()
}

/// What the serving process is made of.
struct Life {
    reactor: Reactor,
    source: Arc<dyn Source>,
    host: Arc<HostServices>,
    server: Arc<Server>,
    disks: Vec<Arc<Disk>>,
    homes: Vec<Arc<Inbox>>,
    stop: Stop,
    captive: bool,
    clients: Clients,
}

impl Life {
    /// From start to stop of the source. `announce` is called when clients may connect; what it
    /// returns is kept until the end.
    async fn serve<T>(
        &mut self,
        listeners: Vec<Listener>,
        disks: &mut [Plan],
        announce: impl FnOnce() -> Result<T>,
    ) -> Result<Option<T>> {
        let asked = self.stop.requested(1);
        match first(self.source.start(&self.reactor), asked).await {
            First::Left(started) => started?,
            // Told to stop before it began: nothing was promised to anybody.
            First::Right(()) => return Ok(None),
        }
        let opened = self.open_disks(disks).await;
        if opened.is_err() {
            self.drain().await;
            return opened.map(|()| None);
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
            match std::mem::replace(&mut self.clients, Clients::Many) {
                Clients::Many => self.stop.requested(1).await,
                Clients::One { input, output } => self.serve_one(input, output).await?,
            }
        }
        self.drain().await;
        announced.map(Some)
    }

    /// Opens the disks of virtual machines, and listens for these.
    async fn open_disks(&mut self, plans: &mut [Plan]) -> Result<()> {
        for plan in plans {
            let listeners = listeners(&mut plan.endpoints)?;
            let host = self.host.clone();
            let disk = Disk::open(&self.reactor, &self.source, host, plan).await?;
            self.disks.push(disk.clone());
            for listener in listeners {
                let (disk, reactor) = (disk.clone(), self.reactor.clone());
                let homes = self.homes.clone();
                self.reactor.spawn(async move {
                    disk.accept_loop(&reactor, listener, &homes).await;
                });
            }
            if let Some(fd) = plan.connected.take() {
                let (reactor, stop) = (self.reactor.clone(), self.stop.clone());
                let homes = self.homes.clone();
                self.reactor.spawn(async move {
                    if let Err(error) = disk.serve_socket(&reactor, fd, &homes).await {
                        tracing::warn!("{}", error.chain());
                    }
                    // It was all there was to do.
                    stop.request();
                });
            }
        }
        Ok(())
    }

    /// Serves one client to its end, unless asked to stop before.
    async fn serve_one(&self, input: OwnedFd, output: OwnedFd) -> Result<()> {
        let stream = Io::of(&self.reactor)
            .stream_pair(input, output)
            .map_err(|error| Error::io("cannot serve standard input and output", error))?;
        let client = self.server.serve_stream(&self.reactor, stream);
        let stop = self.stop.clone();
        let server = self.server.clone();
        // Asked to stop, the server tells the connection; it ends by itself then.
        self.reactor.spawn(async move {
            stop.requested(1).await;
            server.stop();
        });
        client.await;
        Ok(())
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
        for disk in &self.disks {
            disk.stop();
        }
        for disk in &self.disks {
            let patience = first(self.stop.requested(2), self.reactor.sleep(DRAIN));
            if let First::Right(_) = first(disk.drained(), patience).await {
                tracing::warn!("a request of a virtual machine does not end in time");
            } else if let Err(error) = disk.close(&self.reactor).await {
                tracing::warn!("{}", error.chain());
            }
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
