//! What a back-end answers, typed.

use super::{
    assembler::{Frame, Outgoing},
    payload::{ConfigRange, InflightArea, VringFd, VringState},
    proto::{MAX_CONFIG, Request, flags},
    wire::{Put, Reader},
};

/// Which form a reply has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyKind {
    /// A number; of an acknowledgement, 0 for success.
    U64,
    /// A ring and where it stopped.
    VringState,
    /// Configuration space, or that there is none.
    Config,
    /// The log of requests in flight.
    Inflight,
    /// A number, and a descriptor unless bit 8 is set.
    U64WithFd,
    /// A descriptor.
    Fd,
    /// Anything.
    Bytes,
}

/// A reply of the back-end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply<F> {
    /// A number; of an acknowledgement, 0 for success.
    U64(u64),
    /// A ring and where it stopped.
    VringState(VringState),
    /// Configuration space; `None` if the range cannot be had.
    Config(Option<(ConfigRange, Vec<u8>)>),
    /// The log of requests in flight; without a descriptor there is none.
    Inflight(InflightArea, Option<F>),
    /// A number and perhaps a descriptor; bit 8 of the number is not in it.
    U64WithFd(u64, Option<F>),
    /// A descriptor, if there is one.
    Fd(Option<F>),
    /// Anything.
    Bytes(Vec<u8>),
}

impl<F> Reply<F> {
    /// The message to send in answer to `request`.
    ///
    /// # Panics
    /// If there are more bytes than one message takes.
    pub fn encode(self, request: Request) -> Outgoing<F> {
        let mut out = Vec::new();
        let mut fds = Vec::new();
        match self {
            Reply::U64(word) => drop(out.u64(word)),
            Reply::VringState(state) => state.put(&mut out),
            Reply::Config(None) => {}
            Reply::Config(Some((range, bytes))) => {
                assert!(bytes.len() <= MAX_CONFIG, "too much at once");
                range.put(&mut out);
                out.raw(&bytes);
            }
            Reply::Inflight(area, fd) => {
                area.put(&mut out);
                fds.extend(fd);
            }
            Reply::U64WithFd(word, fd) => {
                let none = if fd.is_none() { VringFd::<F>::NO_FD } else { 0 };
                out.u64(word | none);
                fds.extend(fd);
            }
            Reply::Fd(fd) => fds.extend(fd),
            Reply::Bytes(bytes) => drop(out.raw(&bytes)),
        }
        Outgoing::new(request.number(), flags::REPLY, &out, fds)
    }

    /// Reads a frame that should have this form. `None` if it has not.
    pub fn decode(kind: ReplyKind, frame: Frame<F>) -> Option<Reply<F>> {
        let mut reader = Reader(&frame.payload);
        let mut fds = frame.fds.into_iter();
        let reply = match kind {
            ReplyKind::U64 => {
                let word = reader.u64()?;
                Reply::U64(reader.end(word)?)
            }
            ReplyKind::VringState => {
                let state = VringState::read(&mut reader)?;
                Reply::VringState(reader.end(state)?)
            }
            ReplyKind::Config => Reply::Config(config(&mut reader)?),
            ReplyKind::Inflight => Reply::Inflight(InflightArea::read(&mut reader)?, fds.next()),
            ReplyKind::U64WithFd => {
                let word = reader.u64()?;
                let no_fd = VringFd::<F>::NO_FD;
                let fd = fds.next();
                (fd.is_some() == (word & no_fd == 0)).then_some(())?;
                Reply::U64WithFd(reader.end(word & !no_fd)?, fd)
            }
            ReplyKind::Fd => Reply::Fd(fds.next()),
            ReplyKind::Bytes => Reply::Bytes(reader.rest().to_vec()),
        };
        // A descriptor that nobody asked for.
        fds.next().is_none().then_some(reply)
    }
}

fn config(reader: &mut Reader<'_>) -> Option<Option<(ConfigRange, Vec<u8>)>> {
    if reader.0.is_empty() {
        return Some(None);
    }
    let range = ConfigRange::read(reader)?;
    let bytes = reader.rest();
    if range.size == 0 && bytes.is_empty() {
        return Some(None);
    }
    (bytes.len() == range.size as usize).then(|| Some((range, bytes.to_vec())))
}
