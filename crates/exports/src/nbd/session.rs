//! One client from hello to goodbye.

use std::{cell::RefCell, future::Future, pin::pin, sync::Arc, task::Poll};

use block::{
    Access, Client, Device, Normalize, OpenContext, Reactor, RecvBuf, range_lock::RangeGuard,
};
use nbd::server::Negotiated;
use reactor::Stream;
use tracing::Instrument;
use transport::{SMALL_BUFFER, Transport};

use super::{
    admission::Admission,
    connection::Connection,
    haggle::{Haggled, haggle},
    reader,
    server::{Ask, Counters, Membership},
};

pub(super) struct Session<'a> {
    pub reactor: &'a Reactor,
    pub member: &'a Membership,
    /// As far as it is known: TLS tells more.
    client: RefCell<Arc<Client>>,
}

impl<'a> Session<'a> {
    pub fn new(reactor: &'a Reactor, member: &'a Membership, peer: String) -> Session<'a> {
        let client = Client {
            id: member.id,
            peer,
            ..Client::default()
        };
        Session {
            reactor,
            member,
            client: RefCell::new(Arc::new(client)),
        }
    }

    /// What an open of this export needs to know.
    pub fn context(&self, export: &str) -> OpenContext {
        let access = match self.member.server.options.read_only {
            true => Access::ReadOnly,
            false => Access::ReadWrite,
        };
        OpenContext {
            client: self.client.borrow().clone(),
            export: export.into(),
            access,
            reactor: self.reactor.clone(),
            host: self.member.server.host.clone(),
        }
    }

    /// TLS was started, and the client has said who it is.
    pub fn identify(&self, peer: tls::Peer) {
        let mut client = self.client.borrow_mut();
        *client = Arc::new(Client {
            tls: true,
            identity: peer.identity,
            issuer: peer.issuer,
            ..Client::clone(&client)
        });
    }

    /// Opens the device behind an export, ready for any request its size allows.
    pub async fn open(&self, export: &str) -> block::Result<Arc<dyn Device>> {
        let device = self
            .member
            .server
            .source
            .open(&self.context(export))
            .await?;
        Ok(Normalize::wrap(device))
    }

    /// Serves the client on `stream` until it or we leave.
    pub async fn run(self, stream: Stream) {
        let admission = Admission::of(self.reactor);
        let newcomer = self.receive_client(stream);
        let Some((_turn, haggled)) = admission.admit(self.reactor, newcomer).await else {
            return;
        };
        let Haggled {
            device,
            negotiated,
            transport,
            buf,
        } = haggled;
        let served = admission.serve();
        self.transmit(transport, &device, negotiated, buf).await;
        drop(served);
        if let Err(error) = device.close(self.reactor).await {
            tracing::warn!(
                "client {}: closing its device: {}",
                self.member.id,
                error.chain()
            );
        }
    }

    /// From hello to an agreement, and the client's turn if the source wants one at a time.
    async fn receive_client(&self, stream: Stream) -> Option<(Option<RangeGuard>, Haggled)> {
        std::future::poll_fn(|cx| {
            self.member.control.attach(cx.waker());
            Poll::Ready(())
        })
        .await;
        tracing::debug!("accepted connection");
        let server = &self.member.server;
        let turn = match &server.turn {
            Some(lock) => Some(lock.exclusive(0..1).await),
            None => None,
        };
        if let Err(error) = server.source.preconnect(&self.context("")).await {
            Counters::add(&server.counters.refused);
            tracing::debug!("client {}: refused: {}", self.member.id, error.chain());
            return None;
        }
        let buf = RecvBuf::new(self.reactor.chunk(SMALL_BUFFER));
        let haggled = self.haggle_in_time(stream, buf).await?;
        Some((turn, haggled))
    }

    async fn haggle_in_time(&self, stream: Stream, buf: RecvBuf) -> Option<Haggled> {
        let server = &self.member.server;
        let mut deadline = pin!(self.reactor.sleep(server.options.handshake_timeout));
        // What is logged meanwhile says which client it is about.
        let span = tracing::debug_span!("client", id = self.member.id);
        let mut haggling = pin!(haggle(self, Transport::Plain(stream), buf).instrument(span));
        std::future::poll_fn(|cx| {
            if self.member.control.asked() != Ask::Nothing {
                return Poll::Ready(None);
            }
            if let Poll::Ready(done) = haggling.as_mut().poll(cx) {
                return Poll::Ready(done);
            }
            deadline.as_mut().poll(cx).map(|()| {
                Counters::add(&server.counters.timeouts);
                None
            })
        })
        .await
    }

    async fn transmit(
        &self,
        transport: Transport,
        device: &Arc<dyn Device>,
        negotiated: Negotiated,
        buf: RecvBuf,
    ) {
        let queue = match device.open_queue(self.reactor) {
            Ok(queue) => queue,
            Err(error) => {
                return tracing::warn!("client {}: {}", self.member.id, error.chain());
            }
        };
        let conn = Connection::new(self, transport, queue, device, negotiated);
        reader::run(&conn, buf).await;
        conn.drain().await;
        conn.transport.close();
    }
}
