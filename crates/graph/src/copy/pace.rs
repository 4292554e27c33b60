//! How many bytes are on their way, and in how large pieces.
//!
//! Too few, and a far disk waits for us; too many, and memory falls out of the processor's cache
//! before it is used again. What is right is found out: when a round of pieces is done, there may be
//! twice as many bytes in the next, and if they come faster, it stays so. Where an answer takes its
//! time in any case, pieces are large too: servers work on a certain number of requests at once,
//! however large they are. Now and then it is tried again, since the disk may have changed its ways.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    task::{Poll, Waker},
    time::Duration,
};

use block::Tick;

/// What bounds it, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// On their way at first.
    pub first: u64,
    /// On their way at most.
    pub most: u64,
    /// A piece at first; a power of two.
    pub piece: u64,
    /// A piece at most; a power of two.
    pub largest: u64,
    /// A disk may be far: else what takes long is this machine's doing.
    pub may_be_far: bool,
}

pub struct Pace {
    bounds: Bounds,
    limit: Cell<u64>,
    piece: Cell<u64>,
    flying: Cell<u64>,
    round: Cell<Round>,
    /// Nobody knows yet whether the disks are far.
    fresh: Cell<bool>,
    waiting: RefCell<VecDeque<Waker>>,
}

/// What is measured.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    /// When it began; `None`: with the next piece that comes.
    since: Option<Tick>,
    /// What has come since.
    bytes: u64,
    /// The shortest time a piece took.
    shortest: Option<Duration>,
    /// Limit and piece before the last change, and what came then, in bytes per second.
    before: Option<(u64, u64, f64)>,
    /// What comes in it was partly begun before the last change.
    settling: bool,
    /// Nothing is tried before.
    rest: Tick,
}

/// A round is not shorter, for the clock's sake.
const ROUND: Duration = Duration::from_millis(5);

/// An answer that takes so long comes from afar.
const FAR: Duration = Duration::from_millis(2);

/// An answer that takes so long comes from afar even if the machine is busy.
const FAR_AWAY: Duration = Duration::from_millis(10);

/// On their way to near disks at most, in bytes: what looks like more speed would be chance.
const NEAR_MOST: u64 = 16 << 20;

/// What is worth its memory.
const GAIN: f64 = 1.1;

/// Until it is tried again.
const REST: Duration = Duration::from_secs(3);

impl Pace {
    pub fn new(bounds: Bounds) -> Pace {
        Pace {
            bounds,
            limit: Cell::new(bounds.first.min(bounds.most)),
            piece: Cell::new(bounds.piece),
            flying: Cell::new(0),
            round: Cell::default(),
            fresh: Cell::new(true),
            waiting: RefCell::default(),
        }
    }

    /// The disks turn out to be far: it begins with all that may be, so that a short copy is not
    /// over before the right measure is found.
    pub fn far(&self) {
        if self.fresh.replace(false) && self.bounds.may_be_far {
            self.limit.set(self.bounds.most);
            self.piece.set(self.bounds.largest);
            let settling = true;
            self.round.set(Round {
                settling,
                ..self.round.get()
            });
            self.wake_one();
        }
    }

    /// Waits until there is room for a piece: for so many bytes, until [`Pace::done`] gives it back.
    /// There may always be one.
    pub async fn start(&self) -> u64 {
        let room = poll_fn(|cx| {
            // It may have become another one meanwhile.
            let room = self.piece.get();
            let flying = self.flying.get();
            if flying > 0 && flying + room > self.limit.get() {
                self.waiting.borrow_mut().push_back(cx.waker().clone());
                return Poll::Pending;
            }
            self.flying.set(flying + room);
            Poll::Ready(room)
        })
        .await;
        // There may be more.
        self.wake_one();
        room
    }

    /// A piece is over, for which there was `room`; if it was one of data, how much came, and when it
    /// was begun.
    pub fn done(&self, room: u64, came: Option<(u64, Tick)>, now: Tick) {
        self.flying.set(self.flying.get() - room);
        if let Some((bytes, since)) = came
            && self.bounds.most > self.bounds.first
        {
            self.measure(bytes, since, now);
        }
        self.wake_one();
    }

    fn wake_one(&self) {
        if self.flying.get() < self.limit.get() {
            // Not under the borrow.
            let next = self.waiting.borrow_mut().pop_front();
            if let Some(next) = next {
                next.wake();
            }
        }
    }

    fn measure(&self, bytes: u64, begun: Tick, now: Tick) {
        let took = now.since(begun);
        if self.fresh.replace(false) && took >= FAR_AWAY {
            self.fresh.set(true);
            self.far();
        }
        let mut round = self.round.get();
        let since = *round.since.get_or_insert(now);
        round.bytes += bytes;
        round.shortest = Some(round.shortest.map_or(took, |least| least.min(took)));
        let long = now.since(since);
        // All that was on its way when the round began has come: so much comes in that time, be it
        // in one burst or evenly.
        if begun >= since && long >= ROUND {
            if now >= round.rest && !std::mem::take(&mut round.settling) {
                let rate = round.bytes as f64 / long.as_secs_f64();
                self.judge(&mut round, rate, now);
            }
            round = Round {
                since: Some(now),
                bytes: 0,
                shortest: None,
                ..round
            };
        }
        self.round.set(round);
    }

    /// Another round is over: did the last change help, and what comes next?
    fn judge(&self, round: &mut Round, rate: f64, now: Tick) {
        let (limit, piece) = (self.limit.get(), self.piece.get());
        if let Some((limit, piece, old)) = round.before.take()
            && rate < old * GAIN
        {
            self.limit.set(limit);
            self.piece.set(piece);
            round.rest = now.after(REST);
            return;
        }
        let far = round.shortest.is_some_and(|least| least >= FAR) && self.bounds.may_be_far;
        let next = match far {
            true => ((limit * 2).min(self.bounds.most), self.bounds.largest),
            false => (
                (limit * 2).min(self.bounds.most).min(NEAR_MOST).max(limit),
                piece,
            ),
        };
        if next == (limit, piece) {
            round.rest = now.after(REST);
            return;
        }
        self.limit.set(next.0);
        self.piece.set(next.1);
        round.before = Some((limit, piece, rate));
        round.settling = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A disk that needs `delay` for an answer, has `at_once` requests in hand, and moves `rate`
    /// bytes a second; what the pace comes to, whatever it tries now and then.
    fn after(bounds: Bounds, delay: Duration, at_once: usize, rate: u64) -> (u64, u64) {
        let pace = Pace::new(bounds);
        let mut now = Tick(0);
        let mut flying: VecDeque<(u64, Tick, Tick)> = VecDeque::new();
        let mut ends = VecDeque::from([Tick(0)]);
        let mut least = (u64::MAX, u64::MAX);
        for turn in 0..20_000 {
            while flying.is_empty() || pace.flying.get() + pace.piece.get() <= pace.limit.get() {
                let bytes = pace.piece.get();
                pace.flying.set(pace.flying.get() + bytes);
                let free = if ends.len() == at_once {
                    ends.pop_front()
                } else {
                    None
                };
                let answered = now.max(free.unwrap_or(now)).after(delay);
                let moves = Duration::from_nanos(bytes * 1_000_000_000 / rate);
                let end = answered.max(ends.back().map_or(now, |last| last.after(moves)));
                ends.push_back(end);
                if ends.len() > at_once.min(1000) {
                    ends.pop_front();
                }
                flying.push_back((bytes, now, end));
            }
            let (bytes, begun, end) = flying.pop_front().expect("there is one");
            now = end;
            pace.done(bytes, Some((bytes, begun)), now);
            if turn >= 10_000 {
                least = least.min((pace.limit.get(), pace.piece.get()));
            }
        }
        least
    }

    const BOUNDS: Bounds = Bounds {
        first: 4 * MIB,
        most: 64 * MIB,
        piece: MIB / 4,
        largest: MIB,
        may_be_far: true,
    };

    #[test]
    fn a_far_disk_gets_more_and_larger_pieces() {
        // 40 Gbit/s: never the limit.
        let far = after(BOUNDS, Duration::from_millis(20), 1000, 5 << 30);
        assert_eq!(far.0, 64 * MIB);
        // A server that has eight requests in hand gets them large.
        assert_eq!(after(BOUNDS, Duration::from_millis(20), 8, 5 << 30).1, MIB);
    }

    #[test]
    fn more_than_the_line_holds_is_not_sent() {
        // 4 ms are no great distance: it grows from 4 MiB, and then to no more than is of use.
        let (limit, _) = after(BOUNDS, Duration::from_millis(4), 1000, 2 << 30);
        assert!((8 * MIB..=16 * MIB).contains(&limit), "{limit}");
        // A near disk that is busy all the time gains nothing.
        let near = after(BOUNDS, Duration::from_micros(50), 1000, 2 << 30);
        assert_eq!(near, (4 * MIB, MIB / 4));
    }

    #[test]
    fn bounds_are_kept() {
        let fixed = Bounds {
            first: MIB,
            most: MIB,
            piece: MIB / 4,
            largest: MIB / 4,
            may_be_far: true,
        };
        assert_eq!(
            after(fixed, Duration::from_millis(20), 1000, 5 << 30),
            (MIB, MIB / 4)
        );
    }
}
