//! One client from hello to goodbye.

use std::{future::Future, pin::pin, sync::Arc, task::Poll};

use block::{Access, Client, Device, Normalize, OpenContext, Reactor, RecvBuf};
use nbd::server::Negotiated;
use reactor::Stream;

use super::{
    connection::Connection,
    haggle::{Haggled, haggle},
    reader,
    server::{Ask, Counters, Membership},
};

/// Receive buffer of a connection that is idle or in negotiation, in bytes.
pub(super) const SMALL_BUFFER: usize = 8 << 10;

pub(super) struct Session<'a> {
    pub reactor: &'a Reactor,
    pub member: &'a Membership,
    pub client: Arc<Client>,
}

impl<'a> Session<'a> {
    pub fn new(reactor: &'a Reactor, member: &'a Membership, peer: String) -> Session<'a> {
        let client = Client {
            id: member.id,
            peer,
            tls: false,
            identity: None,
        };
        Session {
            reactor,
            member,
            client: Arc::new(client),
        }
    }

    /// What an open of this export needs to know.
    pub fn context(&self, export: &str) -> OpenContext {
        let access = match self.member.server.options.read_only {
            true => Access::ReadOnly,
            false => Access::ReadWrite,
        };
        OpenContext {
            client: self.client.clone(),
            export: export.into(),
            access,
            reactor: self.reactor.clone(),
            host: self.member.server.host.clone(),
        }
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
        std::future::poll_fn(|cx| {
            self.member.control.attach(cx.waker());
            Poll::Ready(())
        })
        .await;
        let server = &self.member.server;
        let _turn = match &server.turn {
            Some(lock) => Some(lock.exclusive(0..1).await),
            None => None,
        };
        if let Err(error) = server.source.preconnect(&self.context("")).await {
            Counters::add(&server.counters.refused);
            return tracing::debug!("client {}: refused: {}", self.client.id, error.chain());
        }
        let buf = RecvBuf::new(self.reactor.chunk(SMALL_BUFFER));
        let Some(haggled) = self.haggle_in_time(&stream, buf).await else {
            return;
        };
        let Haggled {
            device,
            negotiated,
            buf,
        } = haggled;
        self.transmit(stream, &device, negotiated, buf).await;
        if let Err(error) = device.close(self.reactor).await {
            tracing::warn!(
                "client {}: closing its device: {}",
                self.client.id,
                error.chain()
            );
        }
    }

    async fn haggle_in_time(&self, stream: &Stream, buf: RecvBuf) -> Option<Haggled> {
        let server = &self.member.server;
        let mut deadline = pin!(self.reactor.sleep(server.options.handshake_timeout));
        let mut haggling = pin!(haggle(self, stream, buf));
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
        stream: Stream,
        device: &Arc<dyn Device>,
        negotiated: Negotiated,
        buf: RecvBuf,
    ) {
        let queue = match device.open_queue(self.reactor) {
            Ok(queue) => queue,
            Err(error) => {
                return tracing::warn!("client {}: {}", self.client.id, error.chain());
            }
        };
        let conn = Connection::new(self, stream, queue, device, negotiated);
        reader::run(&conn, buf).await;
        conn.drain().await;
    }
}
