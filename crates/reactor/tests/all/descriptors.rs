//! Descriptors through Unix sockets.

use std::{
    io::{ErrorKind, IoSlice, Read, Seek, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use reactor::{FdStream, Io, Loop};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

crate::on_both! {
    bytes_and_descriptors_come_together
    a_receive_waits_and_may_be_dropped
    too_many_descriptors_are_all_closed
    a_full_socket_is_waited_for
    only_unix_sockets_carry_descriptors
}

fn pair(turns: &Loop) -> (FdStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let io = Io::of(turns.reactor());
    (io.fd_stream(ours.into()).unwrap(), theirs)
}

/// A file without a name, with these bytes.
fn file(bytes: &[u8]) -> std::fs::File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

fn text(fd: OwnedFd) -> String {
    let mut text = String::new();
    std::fs::File::from(fd).read_to_string(&mut text).unwrap();
    text
}

fn bytes_and_descriptors_come_together(mut turns: Loop) {
    let (ours, theirs) = pair(&turns);
    let theirs = Io::of(turns.reactor()).fd_stream(theirs.into()).unwrap();
    turns.block_on(async {
        let (one, two) = (file(b"one"), file(b"two"));
        ours.send(b"head", &[one.as_fd(), two.as_fd()])
            .await
            .unwrap();
        ours.send(b"rest", &[]).await.unwrap();
        drop((one, two));
        let (mut buf, mut fds) = ([0; 2], Vec::new());
        assert_eq!(theirs.recv(&mut buf, &mut fds).await.unwrap(), 2);
        assert_eq!((&buf, fds.len()), (b"he", 2));
        let flags = rustix::io::fcntl_getfd(&fds[0]).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        let texts: Vec<String> = fds.drain(..).map(text).collect();
        assert_eq!(texts, ["one", "two"]);
        let mut buf = [0; 6];
        let mut got = 0;
        while got < 6 {
            got += theirs.recv(&mut buf[got..], &mut fds).await.unwrap();
        }
        assert_eq!((&buf, fds.len()), (b"adrest", 0));
        ours.shutdown();
        assert_eq!(theirs.recv(&mut buf, &mut fds).await.unwrap(), 0);
        let gone = theirs.send(b"x", &[]).await.unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::BrokenPipe);
    });
}

fn a_receive_waits_and_may_be_dropped(mut turns: Loop) {
    let (ours, mut theirs) = pair(&turns);
    let (mut buf, mut fds) = ([0; 8], Vec::new());
    let none = ours.try_recv(&mut buf, &mut fds).unwrap_err();
    assert_eq!(none.kind(), ErrorKind::WouldBlock);
    let reactor = turns.reactor().clone();
    turns.block_on(async {
        let mut receive = Box::pin(ours.recv(&mut buf, &mut fds));
        let waits = std::future::poll_fn(|cx| {
            std::task::Poll::Ready(receive.as_mut().poll(cx).is_pending())
        });
        assert!(waits.await);
        drop(receive);
        theirs.write_all(b"later").unwrap();
        reactor.sleep(Duration::from_millis(2)).await;
        assert_eq!(ours.recv(&mut buf, &mut fds).await.unwrap(), 5);
    });
}

/// The number of descriptors this process has open on one file.
fn open_on(file: &std::fs::File) -> usize {
    let name = |path: std::path::PathBuf| std::fs::read_link(path).ok();
    let own = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file));
    let own = name(own.into()).unwrap();
    let all = std::fs::read_dir("/proc/self/fd").unwrap();
    all.filter(|entry| name(entry.as_ref().unwrap().path()).as_ref() == Some(&own))
        .count()
}

fn too_many_descriptors_are_all_closed(turns: Loop) {
    for count in [9, 10, 200] {
        let (ours, theirs) = pair(&turns);
        let file = file(b"many");
        let fds: Vec<BorrowedFd<'_>> = (0..count).map(|_| file.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(200))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        let bytes = [IoSlice::new(b"x")];
        sendmsg(&theirs, &bytes, &mut control, SendFlags::empty()).unwrap();
        let (mut buf, mut got) = ([0; 8], Vec::new());
        let error = ours.try_recv(&mut buf, &mut got).unwrap_err();
        assert_eq!((error.kind(), got.len()), (ErrorKind::InvalidData, 0));
        assert_eq!(open_on(&file), 1, "of {count} none is left");
    }
}

fn a_full_socket_is_waited_for(mut turns: Loop) {
    let (ours, theirs) = pair(&turns);
    let theirs = Io::of(turns.reactor()).fd_stream(theirs.into()).unwrap();
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
    let reactor = turns.reactor().clone();
    let (sent, last) = (bytes.clone(), file(b"last"));
    turns.reactor().spawn(async move {
        ours.send(&sent, &[]).await.unwrap();
        ours.send(b"!", &[last.as_fd()]).await.unwrap();
    });
    turns.block_on(async {
        reactor.sleep(Duration::from_millis(5)).await;
        let (mut all, mut fds) = (Vec::new(), Vec::new());
        let mut buf = vec![0; 65536];
        while all.len() <= bytes.len() {
            let n = theirs.recv(&mut buf, &mut fds).await.unwrap();
            assert!(n > 0, "the end came early");
            all.extend_from_slice(&buf[..n]);
        }
        assert_eq!(all.pop(), Some(b'!'));
        assert!(all == bytes);
        assert_eq!(fds.len(), 1);
        assert_eq!(text(fds.remove(0)), "last");
    });
}

fn only_unix_sockets_carry_descriptors(turns: Loop) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let refused = Io::of(turns.reactor()).fd_stream(tcp.into());
    assert_eq!(refused.err().unwrap().kind(), ErrorKind::InvalidInput);
}
