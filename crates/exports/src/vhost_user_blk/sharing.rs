//! Who may attach: how many front-ends a disk has, and which of them may write.
//!
//! A front-end that may not attach is turned away at once, and a line in the log says why. One that
//! comes while the one before it is just ending (a virtual machine that was restarted) waits for that,
//! within reason: what the former had in flight must not land after what the latter writes.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
    time::Duration,
};

use block::{Error, ErrorKind, Reactor, Result};
use reactor::FdRemote;

/// Who may attach to a disk that can be written, at the same time. A read-only disk has any number of
/// front-ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// One front-end.
    #[default]
    Exclusive,
    /// The first may write; those that come while it is there can read.
    OneWriter,
    /// All may write: for guests with a file system made for that.
    Shared,
}

/// How long a newcomer waits for the end of the one before.
const PATIENCE: Duration = Duration::from_secs(10);

/// All front-ends of an export.
#[derive(Default)]
pub(super) struct Seats(Mutex<State>);

#[derive(Default)]
struct State {
    seated: Vec<Seated>,
    next: u64,
    /// Somebody waits for a writer's end.
    waiting: bool,
    stopping: bool,
    /// Woken whenever something changes.
    watchers: Vec<Waker>,
}

struct Seated {
    id: u64,
    writes: bool,
    ending: bool,
    socket: FdRemote,
}

/// A front-end's place. Given up when dropped.
pub(super) struct Seat {
    seats: Arc<Seats>,
    id: u64,
    /// It may write.
    pub(super) writes: bool,
}

/// What a newcomer is told.
enum Verdict {
    Seat(Seat),
    Wait,
    No(&'static str),
}

impl Seats {
    /// A place for a newcomer.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`]: it may not attach now.
    pub(super) async fn take(
        self: &Arc<Seats>,
        reactor: &Reactor,
        socket: &FdRemote,
        sharing: Sharing,
        most: usize,
    ) -> Result<Seat> {
        let no = |why| {
            let error = Error::new(
                ErrorKind::Busy,
                format!("a front-end is turned away: {why}"),
            );
            tracing::warn!("{}", error.chain());
            error
        };
        let _place = match self.judge(sharing, most, socket, false) {
            Verdict::Seat(seat) => return Ok(seat),
            Verdict::No(why) => return Err(no(why)),
            Verdict::Wait => Waiting::new(self),
        };
        let mut patience = pin!(reactor.sleep(PATIENCE));
        let verdict = poll_fn(|cx| {
            self.watch(cx.waker());
            match self.judge(sharing, most, socket, true) {
                Verdict::Wait => patience
                    .as_mut()
                    .poll(cx)
                    .map(|()| Verdict::No("the one before it does not end")),
                verdict => Poll::Ready(verdict),
            }
        });
        match verdict.await {
            Verdict::Seat(seat) => Ok(seat),
            Verdict::No(why) => Err(no(why)),
            Verdict::Wait => unreachable!("it has waited"),
        }
    }

    /// Seats a newcomer, if that can be.
    fn judge(
        self: &Arc<Seats>,
        sharing: Sharing,
        most: usize,
        socket: &FdRemote,
        waited: bool,
    ) -> Verdict {
        let mut state = self.lock();
        if state.stopping {
            return Verdict::No("the server is stopping");
        }
        if state.seated.len() >= most {
            return Verdict::No("there are too many");
        }
        if waited && socket.is_hung_up() {
            return Verdict::No("it has gone");
        }
        let writer = match sharing {
            Sharing::Shared => None,
            Sharing::Exclusive | Sharing::OneWriter => state.seated.iter().find(|one| one.writes),
        };
        let writes = match writer {
            None => true,
            Some(writer) if writer.is_ending() && (waited || !state.waiting) => {
                return Verdict::Wait;
            }
            Some(_) if sharing == Sharing::OneWriter => false,
            Some(_) => return Verdict::No("the disk is in use, and not shared"),
        };
        let id = state.next;
        state.next += 1;
        state.seated.push(Seated {
            id,
            writes,
            ending: false,
            socket: socket.clone(),
        });
        Verdict::Seat(Seat {
            seats: self.clone(),
            id,
            writes,
        })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.lock().seated.len()
    }

    /// Nobody attaches any more, and those that are there end.
    pub(super) fn stop(&self) {
        self.change(|state| state.stopping = true);
    }

    /// Whether [`Seats::stop`] was called.
    pub(super) fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    /// Ready when [`Seats::stop`] was called.
    pub(super) async fn stopped(&self) {
        poll_fn(|cx| {
            self.watch(cx.waker());
            match self.is_stopping() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }

    /// Ready when nobody is there.
    pub(super) async fn empty(&self) {
        poll_fn(|cx| {
            self.watch(cx.waker());
            match self.len() {
                0 => Poll::Ready(()),
                _ => Poll::Pending,
            }
        })
        .await;
    }

    fn watch(&self, waker: &Waker) {
        let mut state = self.lock();
        if !state.watchers.iter().any(|known| known.will_wake(waker)) {
            state.watchers.push(waker.clone());
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let watchers = {
            let mut state = self.lock();
            change(&mut state);
            std::mem::take(&mut state.watchers)
        };
        watchers.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seated {
    /// It is ending, or is about to find out that it has to.
    fn is_ending(&self) -> bool {
        self.ending || self.socket.is_hung_up()
    }
}

impl Seat {
    /// Its connection is over; what it had in flight is not.
    pub(super) fn ends(&self) {
        self.seats.change(|state| {
            let own = state.seated.iter_mut().find(|one| one.id == self.id);
            own.into_iter().for_each(|own| own.ending = true);
        });
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats
            .change(|state| state.seated.retain(|one| one.id != self.id));
    }
}

/// The one that waits.
struct Waiting<'s>(&'s Seats);

impl Waiting<'_> {
    fn new(seats: &Seats) -> Waiting<'_> {
        seats.lock().waiting = true;
        Waiting(seats)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.change(|state| state.waiting = false);
    }
}
