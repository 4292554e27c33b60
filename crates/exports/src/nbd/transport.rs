//! What a connection's bytes go through: the stream as it is, or TLS over it.
//!
//! Both keep the promises of [`Stream`]: sending is queued, receiving is exclusive. There is one
//! sender at a time.

use std::{io, rc::Rc};

use block::{Iov, RecvBuf};
use reactor::{SendBatch, Stream};

use super::encrypted::Encrypted;

#[derive(Clone)]
pub(super) enum Transport {
    Plain(Stream),
    Tls(Rc<Encrypted>),
}

impl Transport {
    /// The stream below.
    pub fn stream(&self) -> &Stream {
        match self {
            Transport::Plain(stream) => stream,
            Transport::Tls(encrypted) => encrypted.stream(),
        }
    }

    /// As [`Stream::recv`].
    #[inline]
    pub async fn recv(&self, buf: RecvBuf) -> (RecvBuf, io::Result<usize>) {
        match self {
            Transport::Plain(stream) => stream.recv(buf).await,
            Transport::Tls(encrypted) => encrypted.recv(buf).await,
        }
    }

    /// As [`Stream::recv_exact`].
    #[inline]
    pub async fn recv_exact(&self, iov: Iov, at: usize) -> (Iov, io::Result<()>) {
        match self {
            Transport::Plain(stream) => stream.recv_exact(iov, at).await,
            Transport::Tls(encrypted) => encrypted.recv_exact(iov, at).await,
        }
    }

    /// As [`Stream::try_send`]; also gives the batch back if encrypting it is work for another
    /// thread.
    #[inline]
    pub fn try_send(&self, batch: SendBatch) -> Result<SendBatch, SendBatch> {
        match self {
            Transport::Plain(stream) => stream.try_send(batch),
            Transport::Tls(encrypted) => encrypted.try_send(batch),
        }
    }

    /// As [`Stream::send`].
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
