//! Descriptors that give and take whole packets: `/dev/fuse`, or a socket of that kind (SOCK_SEQPACKET)
//! in a test.
//!
//! One read is one packet and one write is one packet, so nothing is gathered: a packet is read when
//! it is wanted and written when it is there. Both are done right away on the loop, because neither
//! waits: a read that finds nothing says so (O_NONBLOCK), and what is written is taken at once.

use std::{
    cell::RefCell,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    rc::Rc,
    sync::Arc,
};

use block::RecvBuf;

use crate::{
    batch::SendBatch,
    io::Io,
    sys::{self, IOV_MAX, MAX_RW},
};

/// A descriptor of packets. Cheap to clone; stays on its loop's thread.
#[derive(Clone)]
pub struct Packets(Rc<Inner>);

struct Inner {
    fd: Arc<OwnedFd>,
    io: Io,
    ranges: RefCell<Vec<libc::iovec>>,
}

impl Io {
    /// Takes over a descriptor of packets, and makes it one that does not wait.
    ///
    /// # Errors
    /// What fcntl(2) says.
    pub fn packets(&self, fd: OwnedFd) -> io::Result<Packets> {
        let flags = rustix::fs::fcntl_getfl(&fd)?;
        rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK)?;
        Ok(Packets(Rc::new(Inner {
            fd: Arc::new(fd),
            io: self.clone(),
            ranges: RefCell::default(),
        })))
    }
}

impl Packets {
    /// The next packet, into the spare room, if there is one now (else `WouldBlock`); `Ok(0)` is the
    /// end of a socket. A packet that the room is too small for is lost, or an error, as the
    /// descriptor has it. Panics if there is no room.
    ///
    /// # Errors
    /// What the system says.
    pub fn try_recv(&self, buf: &mut RecvBuf) -> io::Result<usize> {
        assert!(buf.room() > 0, "a packet needs room");
        let range = libc::iovec {
            iov_base: buf.spare_ptr().cast(),
            iov_len: buf.room().min(MAX_RW),
        };
        loop {
            // SAFETY: the buffer's spare room, which is ours until the call returns.
            let result = unsafe { sys::readv(self.0.fd.as_raw_fd(), &[range], None, 0) };
            if result == -libc::EINTR {
                continue;
            }
            let n = sys::check(result)?;
            buf.filled(n);
            return Ok(n);
        }
    }

    /// Waits until there may be a packet.
    ///
    /// # Errors
    /// What the system says.
    pub async fn readable(&self) -> io::Result<()> {
        self.0.io.readable(&self.0.fd).await
    }

    /// Waits for the next packet; see [`Packets::try_recv`].
    ///
    /// # Errors
    /// What the system says.
    pub async fn recv(&self, buf: &mut RecvBuf) -> io::Result<usize> {
        loop {
            match self.try_recv(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable().await?,
                received => return received,
            }
        }
    }

    /// Sends all of the batch as one packet, here and now.
    ///
    /// # Errors
    /// What the system says; nothing was sent then.
    pub fn send(&self, batch: &SendBatch) -> io::Result<()> {
        let mut ranges = self.0.ranges.borrow_mut();
        let gathered;
        if (batch.window(&mut ranges) as u64) < batch.len() {
            // More pieces than one call takes.
            debug_assert!(ranges.len() == IOV_MAX, "packets are small");
            gathered = batch.to_vec();
            ranges.clear();
            ranges.push(libc::iovec {
                iov_base: gathered.as_ptr().cast_mut().cast(),
                iov_len: gathered.len(),
            });
        }
        loop {
            // SAFETY: ranges of the batch, or of the copy, which live until the call returns.
            let result = unsafe { sys::writev(self.0.fd.as_raw_fd(), &ranges, None, 0) };
            if result == -libc::EINTR {
                continue;
            }
            ranges.clear();
            return match sys::check(result)? {
                sent if sent as u64 == batch.len() => Ok(()),
                _ => Err(io::ErrorKind::WriteZero.into()),
            };
        }
    }

    /// The descriptor.
    pub fn fd(&self) -> impl AsFd + '_ {
        &*self.0.fd
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DriverKind, Loop, Options};
    use block::{ChunkPool, SharedMem};
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SocketFlags::CLOEXEC;
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).expect("a pair")
    }

    #[test]
    fn packets_come_one_by_one_on_both_drivers() {
        for driver in [DriverKind::Auto, DriverKind::Poll] {
            let options = Options {
                driver,
                ..Options::default()
            };
            let mut turns = Loop::new(options).expect("a loop");
            let (ours, theirs) = pair();
            let io = Io::of(turns.reactor());
            let packets = io.packets(ours).expect("packets");
            let theirs = io.packets(theirs).expect("packets");
            let pool = ChunkPool::default();
            let sender = theirs.clone();
            let reactor = turns.reactor().clone();
            turns.reactor().spawn(async move {
                // Later than the other end begins to wait.
                reactor.sleep(std::time::Duration::from_millis(5)).await;
                let mut batch = SendBatch::new();
                batch.push_head(b"one");
                sender.send(&batch).expect("sends");
                batch.push_mem(SharedMem::of_static(b"two"));
                sender.send(&batch).expect("sends");
            });
            let seen = turns.block_on(async {
                let mut seen = Vec::new();
                let mut buf = RecvBuf::new(pool.take(4096));
                for _ in 0..2 {
                    let n = packets.recv(&mut buf).await.expect("a packet");
                    seen.push(buf.take(n).to_vec());
                }
                seen
            });
            assert_eq!(seen, [&b"one"[..], b"onetwo"]);
            let mut many = SendBatch::new();
            (0..IOV_MAX + 7).for_each(|_| many.push_mem(SharedMem::of_static(b"x")));
            packets.send(&many).expect("sends");
            let mut buf = RecvBuf::new(pool.take(4096));
            let n = turns.block_on(theirs.recv(&mut buf)).expect("one");
            assert_eq!((n, buf.data().len()), (IOV_MAX + 7, IOV_MAX + 7));
            let mut small = RecvBuf::new(pool.take(16));
            let none = theirs.try_recv(&mut small).expect_err("no more");
            assert_eq!(none.kind(), io::ErrorKind::WouldBlock);
            drop(packets);
            let end = turns.block_on(theirs.recv(&mut small));
            assert_eq!(end.expect("an end"), 0);
        }
    }
}
