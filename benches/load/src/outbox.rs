//! Requests on their way out: headers in one buffer, payloads from one place in memory.
//!
//! Everything that is waiting goes out in one system call, without copying payloads. A send that
//! takes a part only is continued at the right byte.

use std::io::IoSlice;

use nbd::Head;
use rustix::{io::Errno, net::SendFlags};

use crate::net::Socket;

/// Slices in one system call.
const MOST_SLICES: usize = 128;

/// See the [module](self).
#[derive(Default)]
pub struct Outbox {
    heads: Vec<u8>,
    /// Where in `heads` a payload goes between, and how long it is.
    payloads: Vec<(usize, usize)>,
    /// Bytes of all this that were sent.
    sent: usize,
    /// System calls.
    pub calls: u64,
}

impl Outbox {
    /// Adds a request; `payload` bytes of the payload memory follow its header.
    #[inline]
    pub fn push(&mut self, head: &Head, payload: usize) {
        self.heads.extend_from_slice(head);
        if payload != 0 {
            self.payloads.push((self.heads.len(), payload));
        }
    }

    /// Nothing is waiting.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// Sends all that the socket takes without waiting. Returns whether nothing is left.
    pub fn flush(&mut self, socket: &Socket, payload: &[u8]) -> Result<bool, Errno> {
        while !self.is_empty() {
            self.calls += 1;
            let mut slices = [IoSlice::new(&[]); MOST_SLICES];
            let (count, bytes, all) = self.slices(payload, &mut slices);
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            let result = if count == 1 {
                rustix::net::send(socket, &slices[0], flags)
            } else {
                let mut control = rustix::net::SendAncillaryBuffer::default();
                rustix::net::sendmsg(socket, &slices[..count], &mut control, flags)
            };
            match result {
                Ok(n) if n == bytes && all => {
                    self.heads.clear();
                    self.payloads.clear();
                    self.sent = 0;
                }
                Ok(n) => self.sent += n,
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// What is not sent yet, as slices: how many, how many bytes, and whether that is all.
    fn slices<'a>(
        &'a self,
        payload: &'a [u8],
        into: &mut [IoSlice<'a>; MOST_SLICES],
    ) -> (usize, usize, bool) {
        let (mut skip, mut count, mut bytes, mut at) = (self.sent, 0, 0, 0);
        let mut add = |slice: &'a [u8]| {
            let skipped = skip.min(slice.len());
            skip -= skipped;
            let rest = &slice[skipped..];
            if rest.is_empty() {
                return true;
            }
            if count == MOST_SLICES {
                return false;
            }
            into[count] = IoSlice::new(rest);
            (count, bytes) = (count + 1, bytes + rest.len());
            true
        };
        let mut all = true;
        for (end, length) in &self.payloads {
            all = add(&self.heads[at..*end]) && add(&payload[..*length]);
            at = *end;
            if !all {
                break;
            }
        }
        all = all && add(&self.heads[at..]);
        (count, bytes, all)
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, os::fd::OwnedFd, os::unix::net::UnixStream};

    use nbd::{Mode, client, proto};

    use super::*;

    fn head(command: u16, cookie: u64, length: u64) -> Head {
        let request = client::Request {
            command,
            flags: 0,
            cookie,
            offset: 0,
            length,
        };
        client::encode_request(Mode::Simple, &request).unwrap()
    }

    #[test]
    fn partial_sends_go_on_at_the_right_byte() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let ours = Socket::from(OwnedFd::from(ours));
        let payload: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
        let (mut outbox, mut expected) = (Outbox::default(), Vec::new());
        for n in 0..200 {
            let write = n % 3 != 0;
            let length = if write { 500 * n as usize } else { 0 };
            let command = if write {
                proto::CMD_WRITE
            } else {
                proto::CMD_READ
            };
            let head = head(command, n, length as u64);
            outbox.push(&head, length);
            expected.extend_from_slice(&head);
            expected.extend_from_slice(&payload[..length]);
        }
        let mut got = vec![0; expected.len()];
        let mut at = 0;
        while !outbox.flush(&ours, &payload).unwrap() {
            let most = (at + 70_001).min(got.len());
            at += theirs.read(&mut got[at..most]).unwrap();
        }
        theirs.read_exact(&mut got[at..]).unwrap();
        assert!(got == expected);
        assert!(outbox.calls > 2 && outbox.is_empty());
    }
}
