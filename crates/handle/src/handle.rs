//! The lock, and waiting without it.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    os::fd::{BorrowedFd, OwnedFd},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::Errno,
};

use crate::{
    AIO_DIRECTION_READ, AIO_DIRECTION_WRITE, Error, Result,
    error::Fault,
    inner::{Inner, Shared},
    settings::Settings,
    state::{Permitted, State},
};

/// One connection to an NBD server. See the [crate](crate).
///
/// Dropping it closes the connection at once, without a word to the server
/// ([`shutdown`](Handle::shutdown) is the polite way), and ends the child process if there is one:
/// that is waited for, at most some seconds.
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
    inner: Mutex<Inner>,
    /// Woken when the leader has done its turn.
    turned: Condvar,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.shared.settings().name.clone();
        f.debug_struct("Handle")
            .field("name", &name)
            .field("state", &self.connection_state())
            .finish_non_exhaustive()
    }
}

/// The lock, held.
pub(crate) struct Guard<'a> {
    /// `None` only while waiting.
    inner: Option<MutexGuard<'a, Inner>>,
    shared: &'a Shared,
}

impl Deref for Guard<'_> {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        self.inner.as_ref().expect("held")
    }
}

impl DerefMut for Guard<'_> {
    fn deref_mut(&mut self) -> &mut Inner {
        self.inner.as_mut().expect("held")
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if let Some(inner) = &mut self.inner {
            inner.publish();
            self.shared.holder.store(0, Relaxed);
        }
    }
}

/// What a sleeper waits for.
struct Wish {
    socket: Option<Arc<OwnedFd>>,
    kick: Option<Arc<OwnedFd>>,
    direction: u32,
}

/// What a sleeper was woken by.
#[derive(Clone, Copy, Default)]
struct Woken {
    readable: bool,
    writable: bool,
    broken: bool,
    kicked: bool,
    other: bool,
}

/// A number that only this thread has.
fn this_thread() -> usize {
    thread_local!(static MARK: u8 = const { 0 });
    MARK.with(|mark| std::ptr::from_ref(mark).addr())
}

/// Commands under way fail, and their callbacks hear of it.
impl Drop for Handle {
    fn drop(&mut self) {
        if let Ok(inner) = self.inner.get_mut() {
            inner.end(State::Closed);
        }
    }
}

impl Handle {
    pub(crate) fn with(settings: Settings, debug: bool) -> Handle {
        let shared = Arc::new(Shared::new(settings, debug));
        Handle {
            inner: Mutex::new(Inner::new(shared.clone())),
            shared,
            turned: Condvar::new(),
        }
    }

    /// Takes the lock for a call.
    pub(crate) fn lock(&self, call: &'static str) -> Result<Guard<'_>> {
        if self.shared.holder.load(Relaxed) == this_thread() {
            let text = "a callback cannot call functions on its own handle";
            return Err(Fault::of(text, Errno::DEADLK).in_call(call));
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.holder.store(this_thread(), Relaxed);
        inner.call = call;
        Ok(Guard {
            inner: Some(inner),
            shared: &self.shared,
        })
    }

    /// One call: the lock, the check of the state, the work.
    pub(crate) fn call<T>(
        &self,
        call: &'static str,
        permitted: Permitted,
        shown: fmt::Arguments<'_>,
        work: impl FnOnce(&mut Inner) -> std::result::Result<T, Fault>,
    ) -> Result<T> {
        let mut inner = self.lock(call)?;
        inner.debug(format_args!("enter: {shown}"));
        let result = permitted.check(inner.state).and_then(|()| work(&mut inner));
        let result = result.map_err(|fault| fault.in_call(call));
        self.leave(&mut inner, result.as_ref().err());
        result
    }

    /// Before the lock is given back: sleepers are told, and the debug log is.
    fn leave(&self, inner: &mut Inner, error: Option<&Error>) {
        inner.publish();
        // A leader that does not know of it would sleep on.
        let direction = inner.direction();
        let must_send = inner.waiting.only_reads && direction & AIO_DIRECTION_WRITE != 0;
        if inner.waiting.leader && (must_send || direction == 0 || inner.waiting.changed) {
            kick(inner);
        }
        inner.waiting.changed = false;
        match error {
            None => inner.debug(format_args!("leave:")),
            Some(error) => inner.debug(format_args!("leave: error=\"{error}\"")),
        }
    }

    /// Makes the connection progress until `done` has a result. Other threads may call meanwhile.
    pub(crate) fn wait<T>(
        &self,
        call: &'static str,
        mut done: impl FnMut(&mut Inner) -> Option<std::result::Result<T, Fault>>,
    ) -> Result<T> {
        let mut inner = self.lock(call)?;
        let result = loop {
            inner.call = call;
            if let Some(result) = done(&mut inner) {
                break result;
            }
            if inner.waiting.leader {
                inner = self.follow(inner);
                continue;
            }
            let wish = match self.wish(&mut inner, true) {
                Ok(wish) => wish,
                Err(fault) => break Err(fault),
            };
            inner.waiting.leader = true;
            inner.waiting.only_reads = wish.direction & AIO_DIRECTION_WRITE == 0;
            let woken;
            (inner, woken) = self.unlocked(inner, || sleep(&wish, None, -1));
            inner.waiting.leader = false;
            if inner.waiting.followers != 0 {
                self.turned.notify_all();
            }
            inner.call = call;
            if let Err(fault) = woken.and_then(|woken| act(&mut inner, woken)) {
                break Err(fault);
            }
        };
        let result = result.map_err(|fault| fault.in_call(call));
        self.leave(&mut inner, result.as_ref().err());
        result
    }

    /// Waits until the leader has done its turn.
    fn follow<'a>(&'a self, mut guard: Guard<'a>) -> Guard<'a> {
        guard.waiting.followers += 1;
        guard.publish();
        self.shared.holder.store(0, Relaxed);
        let inner = guard.inner.take().expect("held");
        let inner = self
            .turned
            .wait(inner)
            .unwrap_or_else(PoisonError::into_inner);
        self.shared.holder.store(this_thread(), Relaxed);
        guard.inner = Some(inner);
        guard.waiting.followers -= 1;
        guard
    }

    /// Gives the lock back while something is done.
    fn unlocked<'a, T>(&'a self, guard: Guard<'a>, work: impl FnOnce() -> T) -> (Guard<'a>, T) {
        drop(guard);
        let result = work();
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.holder.store(this_thread(), Relaxed);
        let guard = Guard {
            inner: Some(inner),
            shared: &self.shared,
        };
        (guard, result)
    }

    fn wish(&self, inner: &mut Inner, leader: bool) -> std::result::Result<Wish, Fault> {
        let direction = inner.direction();
        if direction == 0 {
            let text = format!("nothing to poll for in state {}", inner.state.name());
            return Err(Fault::invalid(text));
        }
        if leader && inner.waiting.kick.is_none() {
            let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
            let fd = eventfd(0, flags).map_err(|error| Fault::of("eventfd", error))?;
            inner.waiting.kick = Some(Arc::new(fd));
        }
        Ok(Wish {
            socket: inner.socket(),
            kick: inner.waiting.kick.clone().filter(|_| leader),
            direction,
        })
    }

    /// The body of `nbd_poll` and `nbd_poll2`.
    pub(crate) fn poll_once(
        &self,
        call: &'static str,
        other: Option<BorrowedFd<'_>>,
        timeout: i32,
    ) -> Result<bool> {
        let mut inner = self.lock(call)?;
        inner.debug(format_args!("enter: timeout={timeout}"));
        let result = match self.wish(&mut inner, false) {
            Err(fault) => Err(fault),
            Ok(wish) => {
                let woken;
                (inner, woken) = self.unlocked(inner, || sleep(&wish, other, timeout));
                inner.call = call;
                woken.and_then(|woken| {
                    let any = woken.readable || woken.writable || woken.broken;
                    // Another thread may have been quicker.
                    let gone = inner.direction() == 0;
                    inner.waiting.changed |= any;
                    match gone {
                        true => Ok(true),
                        false => act(&mut inner, woken).map(|()| any || woken.other),
                    }
                })
            }
        };
        let result = result.map_err(|fault| fault.in_call(call));
        self.leave(&mut inner, result.as_ref().err());
        result
    }
}

/// Does what the sleeper was woken for.
fn act(inner: &mut Inner, woken: Woken) -> std::result::Result<(), Fault> {
    if woken.kicked
        && let Some(kick) = &inner.waiting.kick
    {
        // Nothing to be read means that another was quicker.
        let _ = rustix::io::read(&**kick, &mut [0; 8]);
    }
    if inner.direction() == 0 {
        return Ok(());
    }
    if woken.readable || woken.broken {
        inner.notify(true, woken.writable || woken.broken)
    } else if woken.writable {
        inner.notify(false, true)
    } else {
        Ok(())
    }
}

fn kick(inner: &mut Inner) {
    if let Some(kick) = &inner.waiting.kick {
        // A full counter has woken it already.
        let _ = rustix::io::write(&**kick, &1u64.to_ne_bytes());
    }
}

/// poll(2) until something happens, or the time is over. Signals do not end it.
fn sleep(
    wish: &Wish,
    other: Option<BorrowedFd<'_>>,
    timeout: i32,
) -> std::result::Result<Woken, Fault> {
    let mut wanted = PollFlags::empty();
    wanted.set(PollFlags::IN, wish.direction & AIO_DIRECTION_READ != 0);
    wanted.set(PollFlags::OUT, wish.direction & AIO_DIRECTION_WRITE != 0);
    let until = u64::try_from(timeout)
        .ok()
        .map(|timeout| Instant::now() + Duration::from_millis(timeout));
    let mut fds = Vec::with_capacity(3);
    fds.extend(wish.socket.as_deref().map(|fd| PollFd::new(fd, wanted)));
    let others = fds.len();
    fds.extend(
        wish.kick
            .as_deref()
            .map(|fd| PollFd::new(fd, PollFlags::IN)),
    );
    fds.extend(other.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
    loop {
        let limit = until.map(|until| {
            let left = until.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        match poll(&mut fds, limit.as_ref()) {
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(Fault::of("poll", error)),
        }
    }
    let mut woken = Woken::default();
    if others == 1 {
        let events = fds[0].revents();
        woken.readable = events.intersects(PollFlags::IN | PollFlags::HUP);
        woken.writable = events.contains(PollFlags::OUT);
        woken.broken = events.intersects(PollFlags::ERR | PollFlags::NVAL);
    }
    let woken_by = |fd: Option<&PollFd<'_>>| fd.is_some_and(|fd| !fd.revents().is_empty());
    let kick = wish.kick.is_some();
    woken.kicked = kick && woken_by(fds.get(others));
    woken.other = other.is_some() && woken_by(fds.get(others + usize::from(kick)));
    Ok(woken)
}

const _: () = {
    const fn shared_by_threads<T: Send + Sync>() {}
    shared_by_threads::<Handle>();
};
