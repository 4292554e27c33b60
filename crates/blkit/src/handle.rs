//! What blocking and async disks share: the way to the home thread, and one future for every request.

use std::{
    collections::VecDeque,
    future::Future,
    io::{IoSlice, IoSliceMut},
    pin::Pin,
    sync::Arc,
    task::{Poll, ready},
};

use block::{Flags, Op};

use crate::{
    buffer::Buffer,
    context::Context,
    error::{Error, Result},
    port::{Answer, Asked, Payload, Port, Reply, STAGE},
    types::Extent,
    wait::{Slot, promise},
};

/// An open disk: the last one closes it.
pub(crate) struct Handle {
    pub port: Arc<Port>,
    /// Its threads are there as long as the disk is.
    _context: Context,
}

/// Parts of a long transfer of borrowed memory that are under way at a time.
const WINDOW: usize = 4;

impl Handle {
    pub fn new(port: Arc<Port>, context: Context) -> Handle {
        context.adopt(&port);
        Handle {
            port,
            _context: context,
        }
    }

    /// Begins a request.
    pub fn call(&self, op: Op, flags: Flags, offset: u64, len: u64, payload: Payload) -> Call {
        let slot = self.port.slot();
        self.port.ask(Asked {
            op,
            flags,
            offset,
            len,
            payload,
            reply: Reply::slot(slot.clone()),
        });
        Call {
            slot: Some(slot),
            port: self.port.clone(),
            changes: op.modifies() || op == Op::Flush,
        }
    }

    /// Begins a transfer of one buffer.
    pub fn transfer(&self, op: Op, flags: Flags, buffer: Buffer, offset: u64) -> Call {
        let len = buffer.len() as u64;
        self.call(op, flags, offset, len, Payload::One(buffer))
    }

    /// Reads into borrowed memory: by way of buffers of our own, because what is borrowed may be gone
    /// before a request is over.
    pub async fn read(&self, bytes: &mut [u8], offset: u64) -> Result<()> {
        let begin = |len, offset| {
            let buffer = self.port.buffer(len);
            self.transfer(Op::Read, Flags::NONE, buffer, offset)
        };
        if bytes.len() <= STAGE {
            return self.arrived(begin(bytes.len(), offset).await, bytes);
        }
        let mut result = Ok(());
        let mut at = offset;
        let mut parts = bytes.chunks_mut(STAGE);
        let mut calls = VecDeque::with_capacity(WINDOW);
        loop {
            while calls.len() < WINDOW
                && result.is_ok()
                && let Some(part) = parts.next()
            {
                let (len, here) = (part.len(), at);
                calls.push_back((begin(len, here), part));
                at = at.saturating_add(len as u64);
            }
            let Some((call, part)) = calls.pop_front() else {
                return result;
            };
            result = result.and(self.arrived(call.await, part));
        }
    }

    fn arrived(&self, answer: Answer, bytes: &mut [u8]) -> Result<()> {
        answer.result?;
        let buffer = answer.payload.into_one();
        bytes.copy_from_slice(&buffer);
        self.port.keep(buffer);
        Ok(())
    }

    /// Writes borrowed memory, as [`Handle::read`].
    pub async fn write(&self, bytes: &[u8], offset: u64, flags: Flags) -> Result<()> {
        let begin = |bytes: &[u8], offset| {
            let mut buffer = self.port.buffer(bytes.len());
            buffer.copy_from_slice(bytes);
            self.transfer(Op::Write, flags, buffer, offset)
        };
        if bytes.len() <= STAGE {
            return self.written(begin(bytes, offset).await);
        }
        let mut result = Ok(());
        let mut at = offset;
        let mut parts = bytes.chunks(STAGE);
        let mut calls = VecDeque::with_capacity(WINDOW);
        loop {
            while calls.len() < WINDOW
                && result.is_ok()
                && let Some(part) = parts.next()
            {
                calls.push_back(begin(part, at));
                at = at.saturating_add(part.len() as u64);
            }
            let Some(call) = calls.pop_front() else {
                return result;
            };
            result = result.and(self.written(call.await));
        }
    }

    fn written(&self, answer: Answer) -> Result<()> {
        self.port.keep(answer.payload.into_one());
        answer.result
    }

    /// Reads into several pieces of memory, one behind the other on the disk.
    pub async fn read_vectored(&self, parts: &mut [IoSliceMut<'_>], offset: u64) -> Result<()> {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        if total > STAGE {
            let mut at = offset;
            for part in parts {
                self.read(part, at).await?;
                at = at.saturating_add(part.len() as u64);
            }
            return Ok(());
        }
        let buffer = self.port.buffer(total);
        let answer = self.transfer(Op::Read, Flags::NONE, buffer, offset).await;
        answer.result?;
        let buffer = answer.payload.into_one();
        let mut at = 0;
        for part in parts {
            let len = part.len();
            part.copy_from_slice(&buffer[at..at + len]);
            at += len;
        }
        self.port.keep(buffer);
        Ok(())
    }

    /// Writes several pieces of memory, one behind the other on the disk.
    pub async fn write_vectored(&self, parts: &[IoSlice<'_>], offset: u64) -> Result<()> {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        if total > STAGE {
            let mut at = offset;
            for part in parts {
                self.write(part, at, Flags::NONE).await?;
                at = at.saturating_add(part.len() as u64);
            }
            return Ok(());
        }
        let mut buffer = self.port.buffer(total);
        let mut at = 0;
        for part in parts {
            buffer[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        let answer = self.transfer(Op::Write, Flags::NONE, buffer, offset).await;
        self.written(answer)
    }

    /// A request without bytes.
    pub fn simple(&self, op: Op, flags: Flags, offset: u64, len: u64) -> Call {
        self.call(op, flags, offset, len, Payload::None)
    }

    /// What is known about a range, from its start.
    pub fn extents(
        &self,
        offset: u64,
        len: u64,
    ) -> impl Future<Output = Result<Vec<Extent>>> + Send + use<> {
        let call = self.simple(Op::Extents, Flags::NONE, offset, len);
        async {
            let answer = call.await;
            answer.result?;
            match answer.payload {
                Payload::Extents(extents) => Ok(extents),
                _ => Ok(Vec::new()),
            }
        }
    }

    /// Closes the disk for all who have it.
    pub fn close(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        let (promised, debt) = promise();
        self.port.close(Some(debt));
        async { promised.await.unwrap_or_else(|| Err(Error::closed())) }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.port.close(None);
    }
}

/// A request that is under way. Dropped, it leaves the request to itself.
pub(crate) struct Call {
    /// Until it was ready.
    slot: Option<Arc<Slot<Answer>>>,
    port: Arc<Port>,
    /// Its failure must not go unheard.
    changes: bool,
}

impl Future for Call {
    type Output = Answer;
    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Answer> {
        let slot = self
            .slot
            .as_ref()
            .expect("a request is not polled again once it was ready");
        let answer = ready!(slot.poll(cx));
        if let Some(slot) = self.slot.take() {
            self.port.recycle(slot);
        }
        Poll::Ready(answer)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take()
            && let Some(answer) = slot.leave()
            && let Err(error) = answer.result
            && self.changes
        {
            self.port.note(error);
        }
    }
}
