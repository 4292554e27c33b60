//! The bytes of a connection: a socket, and TLS over it if there is.
//!
//! Received bytes gather in one buffer, and payload of reads goes past it to where it belongs. What is sent is
//! taken from where it lies. The socket is non-blocking, so that a caller's own loop can drive it.

use std::{
    io::{IoSlice, IoSliceMut},
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use rustix::{
    io::Errno,
    net::{self, SendAncillaryBuffer, SendFlags, Shutdown},
};
use tls::Session;

use crate::error::Fault;

/// Bytes received at once, at most, besides payload that goes straight to its place.
const BUFFER: usize = 64 << 10;

/// Bytes received at once when a long payload is expected: so that little of it has to be copied.
const PEEK: usize = 4 << 10;

/// Bytes encrypted at once, at most.
const SEALED: usize = 256 << 10;

/// What a receive brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    /// So many bytes went to the place given, the rest to the buffer.
    Some {
        /// Bytes of payload.
        direct: usize,
        /// There may be more at once.
        full: bool,
    },
    /// Nothing at the moment.
    Nothing,
    /// The server sends no more.
    End,
}

/// See the [module](self).
pub(crate) struct Wire {
    socket: Arc<OwnedFd>,
    tls: Option<Session>,
    /// `input[start..end]` was received and not consumed; without TLS only.
    input: Vec<u8>,
    start: usize,
    end: usize,
    /// Ciphertext to be sent from `sealed_at` on.
    sealed: Vec<u8>,
    sealed_at: usize,
    /// The socket took no more when we sent last.
    pub blocked: bool,
    /// Nothing more will be sent.
    finished: bool,
}

impl Wire {
    pub fn new(socket: Arc<OwnedFd>) -> Wire {
        Wire {
            socket,
            tls: None,
            input: Vec::new(),
            start: 0,
            end: 0,
            sealed: Vec::new(),
            sealed_at: 0,
            blocked: false,
            finished: false,
        }
    }

    pub fn socket(&self) -> &Arc<OwnedFd> {
        &self.socket
    }

    /// Bytes of memory for buffers.
    pub fn memory(&self) -> usize {
        self.input.capacity() + self.sealed.capacity()
    }

    pub fn is_secure(&self) -> bool {
        self.tls.as_ref().is_some_and(Session::is_done)
    }

    /// Received bytes that were not consumed.
    pub fn received(&self) -> &[u8] {
        match &self.tls {
            Some(session) if session.is_done() => session.received(),
            Some(_) => &[],
            None => &self.input[self.start..self.end],
        }
    }

    pub fn consume(&mut self, n: usize) {
        match &mut self.tls {
            Some(session) => session.consume(n),
            None => {
                self.start += n;
                if self.start == self.end {
                    (self.start, self.end) = (0, 0);
                }
            }
        }
    }

    /// Receives once. Payload that is due may be given a place, if nothing is buffered; it is used without TLS.
    /// `long`: a long payload is to be expected.
    pub fn receive(&mut self, direct: Option<&mut [u8]>, long: bool) -> Result<Came, Fault> {
        let size = if long { PEEK } else { BUFFER };
        if self.start != 0 {
            self.input.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.input.len() < self.end + size {
            self.input.resize(self.end + size, 0);
        }
        let free = &mut self.input[self.end..self.end + size];
        let fd = self.socket.as_fd();
        let (result, wanted) = match direct {
            Some(place) if self.tls.is_none() => {
                let wanted = place.len();
                let mut places = [IoSliceMut::new(place), IoSliceMut::new(free)];
                (rustix::io::readv(fd, &mut places), wanted)
            }
            _ => (rustix::io::read(fd, free), 0),
        };
        let n = match result {
            Ok(0) => return Ok(Came::End),
            Ok(n) => n,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Came::Nothing),
            Err(error) => return Err(Fault::of("recv", error)),
        };
        let direct = n.min(wanted);
        let buffered = n - direct;
        match &mut self.tls {
            None => self.end += buffered,
            Some(session) => {
                session.feed(&self.input[..buffered]);
                if session.is_done() {
                    session.decrypt().map_err(of_tls)?;
                }
            }
        }
        Ok(Came::Some {
            direct,
            full: n == wanted + size,
        })
    }

    /// The peer said by TLS that it sends no more.
    pub fn is_closed(&self) -> bool {
        self.tls.as_ref().is_some_and(Session::is_closed)
    }

    /// Starts TLS. What was received and not consumed came in the clear.
    pub fn start_tls(&mut self, session: Session) -> Result<(), Fault> {
        if !self.received().is_empty() {
            let text = "handshake: the server sent plain text after it agreed to TLS";
            return Err(Fault::of(text, Errno::PROTO));
        }
        self.tls = Some(session);
        Ok(())
    }

    /// Goes on with the TLS handshake; true when it is done. The rest of it may still be to be sent.
    pub fn handshake(&mut self) -> Result<bool, Fault> {
        let Some(session) = &mut self.tls else {
            return Ok(true);
        };
        let result = session.handshake();
        self.sealed.extend_from_slice(session.outgoing());
        session.clear_outgoing();
        match result {
            // What came behind the handshake in the same segment.
            Ok(true) => session.decrypt().map(|()| true).map_err(of_tls),
            Ok(false) => Ok(false),
            Err(error) => {
                // It says to the server why.
                let _ = self.send(&[]);
                Err(of_tls(error))
            }
        }
    }

    /// Sends what it can of these, and says how many bytes were taken. Taken bytes may still have to be
    /// sent, if there is TLS: see [`Wire::is_flushed`].
    pub fn send(&mut self, pieces: &[IoSlice<'_>]) -> Result<usize, Fault> {
        let Some(session) = &mut self.tls else {
            return self.push(pieces);
        };
        let mut taken = 0;
        if self.sealed_at == self.sealed.len() {
            (self.sealed_at, taken) = (0, 0);
            self.sealed.clear();
            for piece in pieces {
                let piece = &piece[..piece.len().min(SEALED - taken)];
                session.plaintext().extend_from_slice(piece);
                taken += piece.len();
            }
            if taken != 0 {
                session.encrypt().map_err(of_tls)?;
            }
            self.sealed.extend_from_slice(session.outgoing());
            session.clear_outgoing();
        }
        while self.sealed_at < self.sealed.len() && !self.blocked {
            let sealed = std::mem::take(&mut self.sealed);
            let result = self.push(&[IoSlice::new(&sealed[self.sealed_at..])]);
            self.sealed = sealed;
            match result? {
                0 => break,
                n => self.sealed_at += n,
            }
        }
        Ok(taken)
    }

    /// Everything that was taken is sent.
    pub fn is_flushed(&self) -> bool {
        self.sealed_at == self.sealed.len()
    }

    fn push(&mut self, pieces: &[IoSlice<'_>]) -> Result<usize, Fault> {
        let fd = self.socket.as_fd();
        let flags = SendFlags::NOSIGNAL;
        let result = match pieces {
            [] => return Ok(0),
            [one] => net::send(fd, one, flags),
            many => net::sendmsg(fd, many, &mut SendAncillaryBuffer::default(), flags),
        };
        match result {
            Ok(n) => {
                // Where less was taken, there is no room: no need to be told so again.
                self.blocked = n < pieces.iter().map(|piece| piece.len()).sum();
                Ok(n)
            }
            Err(Errno::AGAIN) => {
                self.blocked = true;
                Ok(0)
            }
            Err(Errno::INTR) => Ok(0),
            Err(error) => Err(Fault::of("send", error)),
        }
    }

    /// Says to the server that nothing more comes.
    pub fn finish(&mut self) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        if let Some(session) = &mut self.tls {
            session.close();
            self.sealed.extend_from_slice(session.outgoing());
            session.clear_outgoing();
            // A server that is gone needs no goodbye.
            let _ = self.send(&[]);
        }
        let _ = net::shutdown(self.socket.as_fd(), Shutdown::Write);
    }
}

fn of_tls(error: tls::Error) -> Fault {
    Fault::plain(error.to_string())
}
