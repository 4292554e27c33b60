//! Small servers on Unix sockets: each connection sends one message, ends its sending side, gets
//! one answer, and is closed. For control sockets of filters, not for blocks.

use std::{
    future::Future,
    io,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use block::{
    Error, Reactor, Result,
    host::{UnixHandler, Watch},
};
use reactor::{Io, Listener, SendBatch};

/// The longest message.
const MESSAGE_MAX: usize = 64 << 10;

/// How long a client may take to send its message, and to take its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Listens on `path`, which is removed when the watch is dropped.
pub(super) fn listen(reactor: &Reactor, path: &Path, handler: UnixHandler) -> Result<Watch> {
    let listener = Listener::bind_unix(path)?;
    let cannot = |error| Error::io(format!("cannot listen on '{}'", path.display()), error);
    let made = path.symlink_metadata().map_err(cannot)?;
    // The file goes with the task, and only if it is still this one.
    listener.keep_path();
    let file = SocketFile(path.to_owned(), (made.dev(), made.ino()));
    let (handler, reactor): (Rc<_>, _) = (Rc::new(handler), reactor.clone());
    Ok(super::cancel::spawn(&reactor.clone(), async move {
        let _file = file;
        loop {
            match listener.accept(&reactor).await {
                Ok(accepted) => {
                    let (handler, inner) = (handler.clone(), reactor.clone());
                    reactor.spawn(async move {
                        let served = serve(&inner, accepted.fd, &**handler);
                        if let Some(Err(error)) = in_time(&inner, served).await {
                            tracing::debug!("control connection: {error}");
                        }
                    });
                }
                Err(error) => return tracing::warn!("control socket: {error}"),
            }
        }
    }))
}

/// The socket's file; removed when dropped, unless another has taken its place.
struct SocketFile(PathBuf, (u64, u64));

impl Drop for SocketFile {
    fn drop(&mut self) {
        let now = self.0.symlink_metadata();
        if now.is_ok_and(|now| (now.dev(), now.ino()) == self.1) {
            let _ = std::fs::remove_file(&self.0);
        }
    }
}

async fn serve(
    reactor: &Reactor,
    fd: OwnedFd,
    handler: &dyn Fn(Vec<u8>) -> Vec<u8>,
) -> io::Result<()> {
    let io = Io::of(reactor);
    let shared = Arc::new(fd);
    let mut message = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let n = io.read_fd(&shared, &mut buffer).await?;
        if n == 0 {
            break;
        }
        message.extend_from_slice(&buffer[..n]);
        if message.len() > MESSAGE_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the message is too long",
            ));
        }
    }
    let answer = handler(message);
    let stream = io.stream(shared.try_clone()?)?;
    let mut batch = SendBatch::new();
    batch.push_head(&answer);
    stream.send(batch).await.1
}

/// The future's value, or `None` if it took too long.
async fn in_time<T>(reactor: &Reactor, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut deadline = pin!(reactor.sleep(PATIENCE));
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => deadline.as_mut().poll(cx).map(|()| None),
    })
    .await
}
