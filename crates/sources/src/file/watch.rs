//! Seeing that somebody has resized a file that is open here: truncate(1), or a volume that grows.
//!
//! The kernel tells of it by the same event as of any write (inotify(7), IN_MODIFY), and most writes
//! are our own. So the watch is for one event: the size is looked at, and only [`PAUSE`] later is the
//! watch put on again, and the size looked at once more. A file at rest costs nothing and a resize of
//! it is seen at once; a file that is written to costs two looks in a second, and a resize of it is
//! seen within that second.
//!
//! Where there is no such event (block devices, and without /proc), the size is looked at every
//! [`INTERVAL`]. What another host does to a file of a network file system is seen when this host's
//! kernel learns of it and something here touches the file.

use std::{
    fs::File,
    future::poll_fn,
    mem::MaybeUninit,
    os::fd::{AsRawFd, OwnedFd},
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Poll, Waker},
    time::Duration,
};

use block::Reactor;
use reactor::Io;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use super::device::Length;

/// Between two watches for one event.
const PAUSE: Duration = Duration::from_secs(1);

/// Between two looks, where nothing tells.
const INTERVAL: Duration = Duration::from_secs(5);

/// Ends the task when dropped.
pub(super) struct End(Arc<Signal>);

#[derive(Default)]
struct Signal {
    over: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Drop for End {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Release);
        let task = self.0.task().take();
        task.into_iter().for_each(Waker::wake);
    }
}

impl Signal {
    fn task(&self) -> std::sync::MutexGuard<'_, Option<Waker>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something to happen; `None` if it is over before.
    async fn unless<T>(&self, something: impl Future<Output = T>) -> Option<T> {
        let mut something = pin!(something);
        poll_fn(|cx| {
            *self.task() = Some(cx.waker().clone());
            if self.over.load(Ordering::Acquire) {
                return Poll::Ready(None);
            }
            something.as_mut().poll(cx).map(Some)
        })
        .await
    }
}

/// Watches the length of a file on this reactor, until `End` or until the loop ends.
pub(super) fn start(length: &Arc<Length>, reactor: &Reactor) -> End {
    let signal = Arc::new(Signal::default());
    let (length, over, home) = (length.clone(), signal.clone(), reactor.clone());
    reactor.spawn(async move {
        let _over = watch(&length, &over, &home).await;
    });
    End(signal)
}

async fn watch(length: &Arc<Length>, over: &Signal, reactor: &Reactor) -> Option<()> {
    let events = match length.block_device {
        true => None,
        false => Events::new(),
    };
    loop {
        // First the watch, then the look: what happens between the two is seen twice, never missed.
        let asked = events.as_ref().filter(|events| events.ask(&length.file));
        look(length, over, reactor).await?;
        match asked {
            None => over.unless(reactor.sleep(INTERVAL)).await?,
            Some(events) => {
                over.unless(events.wait(reactor)).await?;
                look(length, over, reactor).await?;
                over.unless(reactor.sleep(PAUSE)).await?;
            }
        }
    }
}

/// Asking for the size may wait for the file system.
async fn look(length: &Arc<Length>, over: &Signal, reactor: &Reactor) -> Option<()> {
    let length = length.clone();
    let looked = reactor.blocking(move || length.look());
    // A pool that is closed ends the watch too.
    over.unless(looked).await?.ok()
}

/// Events of one file.
struct Events(Arc<OwnedFd>);

impl Events {
    /// `None` if the system has none left.
    fn new() -> Option<Events> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
        fd.ok().map(|fd| Events(Arc::new(fd)))
    }

    /// Asks for the next event of the file. False if there will be none.
    fn ask(&self, file: &File) -> bool {
        // By its descriptor: the path may be another file's by now.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let what = WatchFlags::MODIFY | WatchFlags::ONESHOT;
        inotify::add_watch(&self.0, path, what).is_ok()
    }

    /// Waits for it.
    async fn wait(&self, reactor: &Reactor) {
        if Io::of(reactor).readable(&self.0).await.is_err() {
            return;
        }
        let mut buffer = [MaybeUninit::uninit(); 1024];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        // The event, and that the watch is gone.
        while reader.next().is_ok() {}
    }
}
