//! A connection to a server, with calls that wait for their answer, and not for ever.

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, Shutdown, recvmsg, sendmsg, shutdown,
    },
};
use virtio::vhost_user::{
    ConfigRange, FrontEvent, Frontend, Limits, Message, Outgoing, Wants,
    proto::{MAX_FDS, protocol},
};

use crate::{Error, Result};

/// A connection on which features are agreed.
pub(super) struct Session {
    socket: UnixStream,
    frontend: Frontend<OwnedFd>,
    limits: Limits,
    patience: Duration,
}

fn broken(what: impl std::fmt::Display) -> Error {
    Error::new(Errno::PROTO, format!("the vhost-user server: {what}"))
}

impl Session {
    pub fn connect(path: &str, patience: Duration) -> Result<Session> {
        let socket = UnixStream::connect(path)?;
        socket.set_nonblocking(true)?;
        let wants = Wants {
            protocol: protocol::MQ
                | protocol::REPLY_ACK
                | protocol::CONFIG
                | protocol::CONFIGURE_MEM_SLOTS,
            required: protocol::CONFIG,
        };
        let mut out = Vec::new();
        let frontend = Frontend::new(wants, &mut out);
        let limits = Limits {
            features: 0,
            protocol: 0,
            queues: 1,
            memory_slots: 0,
        };
        let mut session = Session {
            socket,
            frontend,
            limits,
            patience,
        };
        let connected = |event| match event {
            FrontEvent::Connected(limits) => Some(limits),
            _ => None,
        };
        session.limits = session.exchange(out, connected)?;
        Ok(session)
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Says something and waits for its event.
    pub fn call<T>(
        &mut self,
        message: Message<OwnedFd>,
        answer: impl FnMut(FrontEvent<OwnedFd>) -> Option<T>,
    ) -> Result<T> {
        let mut out = Vec::new();
        self.frontend.call(message, &mut out);
        self.exchange(out, answer)
    }

    /// Says something that has no answer but that it is done.
    pub fn done(&mut self, message: Message<OwnedFd>) -> Result<()> {
        let request = message.request();
        let done = self.call(message, |event| match event {
            FrontEvent::Done(_, result) => Some(result),
            _ => None,
        })?;
        done.map_err(|number| {
            let text = format!("the vhost-user server refuses {request:?} ({number})");
            Error::new(Errno::IO, text)
        })
    }

    /// Reads configuration space; what the server does not have is 0.
    pub fn config(&mut self, offset: u32, into: &mut [u8]) -> Result<()> {
        // QEMU's server has 60 bytes, and refuses to give more: the fields of the features used.
        const USED: u32 = 60;
        let size = (into.len() as u32).min(USED.saturating_sub(offset));
        let range = ConfigRange {
            offset,
            size,
            flags: 0,
        };
        let bytes = self.call(Message::GetConfig(range), |event| match event {
            FrontEvent::Config(_, bytes) => Some(bytes),
            _ => None,
        })?;
        let bytes = bytes.ok_or_else(|| broken("has no configuration"))?;
        into.fill(0);
        let len = bytes.len().min(into.len());
        into[..len].copy_from_slice(&bytes[..len]);
        Ok(())
    }

    fn exchange<T>(
        &mut self,
        out: Vec<Outgoing<OwnedFd>>,
        mut answer: impl FnMut(FrontEvent<OwnedFd>) -> Option<T>,
    ) -> Result<T> {
        let result = self.try_exchange(out, &mut answer);
        if result.is_err() {
            // Who watches it sees that.
            let _ = shutdown(&self.socket, Shutdown::Both);
        }
        result
    }

    fn try_exchange<T>(
        &mut self,
        mut out: Vec<Outgoing<OwnedFd>>,
        answer: &mut impl FnMut(FrontEvent<OwnedFd>) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + self.patience;
        loop {
            for message in out.drain(..) {
                self.send(&message, deadline)?;
            }
            let mut bytes = [0; 4096 + 12];
            let wanted = self.frontend.wanted().min(bytes.len());
            let (count, fds) = self.receive(&mut bytes[..wanted], deadline)?;
            let mut rest = &bytes[..count];
            let mut fds = Some(fds);
            while !rest.is_empty() {
                let taken = self
                    .frontend
                    .input(rest, fds.take().unwrap_or_default(), &mut out);
                let (used, event) = taken.map_err(broken)?;
                rest = &rest[used..];
                if let Some(event) = event {
                    return answer(event).ok_or_else(|| broken("gives another answer"));
                }
            }
        }
    }

    fn until(&self, flags: PollFlags, deadline: Instant) -> Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        let time = Timespec::try_from(left).map_err(|_| Error::from(Errno::INVAL))?;
        let mut fds = [PollFd::new(&self.socket, flags)];
        match poll(&mut fds, Some(&time)) {
            Ok(0) => {
                let text = "the vhost-user server does not answer";
                Err(Error::new(Errno::TIMEDOUT, text))
            }
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn send(&self, message: &Outgoing<OwnedFd>, deadline: Instant) -> Result<()> {
        let fds: Vec<_> = message.fds.iter().map(|fd| fd.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut sent = 0;
        while sent < message.bytes.len() {
            let mut control = SendAncillaryBuffer::new(&mut space);
            if sent == 0 && !fds.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(&fds));
            }
            let bytes = [IoSlice::new(&message.bytes[sent..])];
            match sendmsg(&self.socket, &bytes, &mut control, SendFlags::NOSIGNAL) {
                Ok(count) => sent += count,
                Err(Errno::AGAIN) => self.until(PollFlags::OUT, deadline)?,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::system("the vhost-user server", errno)),
            }
        }
        Ok(())
    }

    fn receive(&self, into: &mut [u8], deadline: Instant) -> Result<(usize, Vec<OwnedFd>)> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        loop {
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut bytes = [IoSliceMut::new(into)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            match recvmsg(&self.socket, &mut bytes, &mut control, flags) {
                Ok(message) if message.bytes == 0 => {
                    let text = "the vhost-user server has closed the connection";
                    return Err(Error::new(Errno::CONNRESET, text));
                }
                Ok(message) => {
                    let mut fds = Vec::new();
                    for part in control.drain() {
                        if let RecvAncillaryMessage::ScmRights(rights) = part {
                            fds.extend(rights);
                        }
                    }
                    return Ok((message.bytes, fds));
                }
                Err(Errno::AGAIN) => self.until(PollFlags::IN, deadline)?,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::system("the vhost-user server", errno)),
            }
        }
    }
}

/// Also what others have of the socket ends, so that they learn it.
impl Drop for Session {
    fn drop(&mut self) {
        let _ = shutdown(&self.socket, Shutdown::Both);
    }
}
