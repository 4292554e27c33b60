//! Unix sockets on which descriptors come along with bytes (SCM_RIGHTS, unix(7)): vhost-user.
//!
//! Such protocols are small talk before the work begins, so nothing is batched: a receive is tried
//! here and now, and waits only if there is nothing; and so is a send. What matters is that no
//! descriptor is lost or kept: each that arrives has an owner at once, which closes it unless somebody
//! takes it, and more than [`FdStream::MAX_FDS`] with one receive are an error, with all of them
//! closed.
//!
//! The kernel says which descriptors came with a receive, not at which of its bytes. Who has to know
//! receives no more than up to the end of one message.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    rc::Rc,
    sync::Arc,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
        SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, recvmsg, sendmsg, sockopt,
    },
};

use crate::io::Io;

/// A connected Unix stream socket that carries descriptors. Cheap to clone; stays on its loop's
/// thread.
#[derive(Clone)]
pub struct FdStream(Rc<Inner>);

struct Inner {
    fd: Arc<OwnedFd>,
    io: Io,
}

impl Io {
    /// Takes over a connected Unix stream socket.
    ///
    /// # Errors
    /// `InvalidInput` if it is something else; else what the system says.
    pub fn fd_stream(&self, fd: OwnedFd) -> io::Result<FdStream> {
        if sockopt::socket_domain(&fd)? != AddressFamily::UNIX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(FdStream(Rc::new(Inner {
            fd: Arc::new(fd),
            io: self.clone(),
        })))
    }
}

impl FdStream {
    /// Most descriptors that go or come with one call.
    pub const MAX_FDS: usize = 8;

    /// Receives what there is now, at most `buf`, and the descriptors that came with it, which are
    /// added to `fds`. `Ok(0)` is the end. `WouldBlock` if there is nothing. Panics if there is no
    /// room.
    ///
    /// # Errors
    /// `InvalidData` if more descriptors came than [`FdStream::MAX_FDS`]; all of them are closed, and
    /// the bytes are lost, so close the stream. Else what the system says.
    pub fn try_recv(&self, buf: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
        assert!(!buf.is_empty(), "a receive needs room");
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FdStream::MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
            let mut room = [IoSliceMut::new(buf)];
            match recvmsg(&self.0.fd, &mut room, &mut control, flags) {
                Err(Errno::INTR) => {}
                received => break received?,
            }
        };
        let before = fds.len();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(more) = message {
                fds.extend(more);
            }
        }
        // The kernel closes those that found no room, and says that there were some. Alignment may
        // leave room for one more than was asked for.
        let most = before + FdStream::MAX_FDS;
        if received.flags.contains(ReturnFlags::CTRUNC) || fds.len() > most {
            fds.truncate(before);
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "more descriptors than a message may have",
            ));
        }
        Ok(received.bytes)
    }

    /// Waits for bytes; see [`FdStream::try_recv`]. Dropped while it waits, it has taken nothing.
    ///
    /// # Errors
    /// As [`FdStream::try_recv`].
    pub async fn recv(&self, buf: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
        loop {
            match self.try_recv(buf, fds) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.0.io.readable(&self.0.fd).await?;
                }
                received => return received,
            }
        }
    }

    /// Sends all bytes, and descriptors with the first of them. A send that is dropped may have sent
    /// a part; close such a stream.
    ///
    /// # Errors
    /// What the system says; `BrokenPipe` if nobody is there any more.
    ///
    /// # Panics
    /// If there are no bytes, or more descriptors than [`FdStream::MAX_FDS`].
    pub async fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        assert!(!bytes.is_empty(), "descriptors go with a byte");
        assert!(fds.len() <= FdStream::MAX_FDS, "too many descriptors");
        let (mut bytes, mut fds) = (bytes, fds);
        while !bytes.is_empty() {
            match self.try_send(bytes, fds) {
                Ok(sent) => {
                    // They went with the first bytes, however few.
                    bytes = &bytes[sent..];
                    fds = &[];
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.0.io.writable(&self.0.fd).await?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn try_send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<usize, Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FdStream::MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            let pushed = control.push(SendAncillaryMessage::ScmRights(fds));
            assert!(pushed, "there is room for all");
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        sendmsg(&self.0.fd, &[IoSlice::new(bytes)], &mut control, flags)
    }

    /// Ends both directions: a receive that waits ends.
    pub fn shutdown(&self) {
        // Not connected any more: then there is nothing to end.
        let _ = rustix::net::shutdown(&self.0.fd, Shutdown::Both);
    }
}

/// What other threads may do with a stream.
#[derive(Clone)]
pub struct FdRemote(Arc<OwnedFd>);

impl FdStream {
    /// A handle for other threads. The descriptor is open for as long as it lives.
    pub fn remote(&self) -> FdRemote {
        FdRemote(self.0.fd.clone())
    }
}

impl FdRemote {
    /// As [`FdStream::shutdown`].
    pub fn shutdown(&self) {
        // Not connected any more: then there is nothing to end.
        let _ = rustix::net::shutdown(&self.0, Shutdown::Both);
    }

    /// Whether the other end has gone, even if there is something left to receive.
    pub fn is_hung_up(&self) -> bool {
        let gone = PollFlags::HUP | PollFlags::RDHUP | PollFlags::ERR;
        let mut fds = [PollFd::new(&self.0, PollFlags::RDHUP)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let ready = rustix::event::poll(&mut fds, Some(&now));
        ready.is_ok_and(|n| n > 0) && fds[0].revents().intersects(gone)
    }
}

impl AsFd for FdStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}
