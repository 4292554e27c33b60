//! What a connection's bytes go through: the stream as it is, or TLS over it. Servers and clients
//! use the same.
//!
//! Both keep the promises of [`Stream`]: sending is queued, receiving is exclusive. There is one
//! sender at a time.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod encrypted;
mod sizing;

use std::{io, rc::Rc};

use block::{Iov, Reactor, RecvBuf};
use reactor::{SendBatch, Stream};
use tls::{Peer, Session};

pub use encrypted::Encrypted;
pub use sizing::{SMALL_BUFFER, Sizing};

/// The bytes of one connection.
#[derive(Clone)]
pub enum Transport {
    /// As they are.
    Plain(Stream),
    /// Encrypted on their way.
    Tls(Rc<Encrypted>),
}

impl Transport {
    /// Runs the TLS handshake of `session`, either side's, on a stream. Says who the peer is.
    ///
    /// # Errors
    /// The two sides do not agree, or the peer is gone. What fails is told to the peer first.
    pub async fn encrypt(
        reactor: &Reactor,
        stream: Stream,
        session: Session,
    ) -> io::Result<(Transport, Peer)> {
        let (encrypted, peer) = Encrypted::start(reactor, stream, session).await?;
        Ok((Transport::Tls(encrypted), peer))
    }

    /// The stream below.
    pub fn stream(&self) -> &Stream {
        match self {
            Transport::Plain(stream) => stream,
            Transport::Tls(encrypted) => encrypted.stream(),
        }
    }

    /// As [`Stream::recv`].
    ///
    /// # Errors
    /// Those of the stream, and those of the session.
    #[inline]
    pub async fn recv(&self, buf: RecvBuf) -> (RecvBuf, io::Result<usize>) {
        match self {
            Transport::Plain(stream) => stream.recv(buf).await,
            Transport::Tls(encrypted) => encrypted.recv(buf).await,
        }
    }

    /// As [`Stream::recv_exact`].
    ///
    /// # Errors
    /// Those of the stream, and those of the session.
    #[inline]
    pub async fn recv_exact(&self, iov: Iov, at: usize) -> (Iov, io::Result<()>) {
        match self {
            Transport::Plain(stream) => stream.recv_exact(iov, at).await,
            Transport::Tls(encrypted) => encrypted.recv_exact(iov, at).await,
        }
    }

    /// As [`Stream::try_send`]; also gives the batch back if encrypting it is work for another
    /// thread.
    ///
    /// # Errors
    /// The batch, which has to be [sent](Transport::send) then.
    #[inline]
    pub fn try_send(&self, batch: SendBatch) -> Result<SendBatch, SendBatch> {
        match self {
            Transport::Plain(stream) => stream.try_send(batch),
            Transport::Tls(encrypted) => encrypted.try_send(batch),
        }
    }

    /// As [`Stream::send`].
    ///
    /// # Errors
    /// Those of the stream, and those of the session.
    pub async fn send(&self, batch: SendBatch) -> (SendBatch, io::Result<()>) {
        match self {
            Transport::Plain(stream) => stream.send(batch).await,
            Transport::Tls(encrypted) => encrypted.send(batch).await,
        }
    }

    /// Says goodbye, where there is a word for it, behind what was sent.
    pub fn close(&self) {
        if let Transport::Tls(encrypted) = self {
            encrypted.close();
        }
    }
}
