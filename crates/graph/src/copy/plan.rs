//! Which piece comes next: from what the source knows about itself, mostly from start to end.
//!
//! The source is asked about several windows at a time, ahead of what is read, so that a far source
//! answers while others of its bytes are on their way. A piece comes from the first window that is
//! answered. At the start nothing is: if the first answer lets us wait, the first bytes are read
//! without it.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    ops::Range,
    rc::Rc,
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

use block::{Data, Device, Limits, Op, Queue, QueueExt, Reactor};

use super::{CopyOptions, scan::Run};

/// Bytes whose state is asked at once. The answer may be shorter.
const WINDOW: u64 = 1 << 32;

/// Windows that are asked about, or not used up, at a time.
const AHEAD: usize = 8;

/// Zeroes in one request: short enough to see progress.
const ZEROES: u64 = 128 << 20;

/// How long the first answer is waited for.
const PATIENCE: Duration = Duration::from_millis(3);

/// Bytes that are read without it.
const BLIND: u64 = 16 << 20;

/// A piece to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// Its place, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u64,
    /// Known to be zero.
    pub zero: bool,
}

pub struct Plan {
    reactor: Reactor,
    source: Rc<dyn Queue>,
    size: u64,
    zeroes: u64,
    window: u64,
    ahead: usize,
    /// Pieces begin and end at multiples of this.
    align: u64,
    /// The source can be asked, and has not failed to answer.
    extents: Cell<bool>,
    /// Zeroes that were read blindly are found again.
    finds: bool,
    far: Cell<bool>,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    /// What was not asked about yet.
    todo: VecDeque<Range<u64>>,
    /// What was, in order.
    windows: VecDeque<Window>,
    /// So much may be read before the first answer.
    blind: u64,
    answered: bool,
    waiting: Vec<Waker>,
}

struct Window {
    /// Where the question began: its name.
    asked: u64,
    /// What is not handed out yet.
    left: Range<u64>,
    /// What is left in runs, once it is known.
    runs: Option<VecDeque<Run>>,
}

impl Plan {
    /// For what is missing of a disk, in order.
    pub fn new(
        reactor: &Reactor,
        source: Rc<dyn Queue>,
        limits: &Limits,
        destination: Option<&Arc<dyn Device>>,
        missing: Vec<Range<u64>>,
        options: &CopyOptions,
    ) -> Rc<Plan> {
        let align = options.blkhash.map_or(1, |hash| hash.block);
        let zeroes = destination.map_or(u64::MAX, |disk| disk.limits().max_range);
        let whole = |bytes: u64| (bytes / align * align).max(align);
        let plan = Rc::new(Plan {
            reactor: reactor.clone(),
            source,
            size: limits.size,
            zeroes: whole(zeroes.min(ZEROES)),
            window: whole(limits.max_range.min(WINDOW)),
            // One after the other means in order, too.
            ahead: if options.requests == 1 { 1 } else { AHEAD },
            align,
            extents: Cell::new(options.extents && limits.offered().contains(Op::Extents)),
            finds: options.sparse.is_some() || destination.is_none(),
            far: Cell::new(false),
            state: RefCell::new(State {
                todo: missing.into(),
                ..State::default()
            }),
        });
        if plan.extents.get() && plan.ahead > 1 {
            reactor.spawn(plan.clone().lose_patience());
        }
        plan
    }

    /// The next piece, data of up to `request` bytes, a power of two; `None` at the end.
    pub async fn next(self: &Rc<Self>, request: u64) -> Option<Next> {
        poll_fn(|cx| {
            self.ask_ahead();
            let mut state = self.state.borrow_mut();
            if let Some(next) = state.take(request, self.zeroes) {
                return Poll::Ready(Some(next));
            }
            if state.windows.is_empty() {
                return Poll::Ready(None);
            }
            if !state
                .waiting
                .iter()
                .any(|known| known.will_wake(cx.waker()))
            {
                state.waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    /// The first answer has been waited for in vain.
    pub fn is_far(&self) -> bool {
        self.far.get()
    }

    async fn lose_patience(self: Rc<Self>) {
        self.reactor.sleep(PATIENCE).await;
        let mut state = self.state.borrow_mut();
        if !state.answered {
            self.far.set(true);
            if self.finds {
                state.blind = BLIND;
            }
            state.wake();
        }
    }

    fn ask_ahead(self: &Rc<Self>) {
        loop {
            let mut state = self.state.borrow_mut();
            if state.windows.len() >= self.ahead {
                return;
            }
            let Some(todo) = state.todo.front_mut() else {
                return;
            };
            let extents = self.extents.get();
            let most = if extents { self.window } else { u64::MAX };
            let range = todo.start..todo.end.min(todo.start.saturating_add(most));
            todo.start = range.end;
            if todo.is_empty() {
                state.todo.pop_front();
            }
            let data = Run {
                len: range.end - range.start,
                zero: false,
            };
            state.windows.push_back(Window {
                asked: range.start,
                left: range.clone(),
                runs: (!extents).then(|| VecDeque::from([data])),
            });
            drop(state);
            if extents {
                self.reactor.spawn(self.clone().ask(range));
            }
        }
    }

    async fn ask(self: Rc<Self>, range: Range<u64>) {
        let len = range.end - range.start;
        let question = self.reactor.request(Op::Extents, range.start, len);
        let mut done = self.source.call(question).await;
        let told = match (done.take_outcome(), done.data()) {
            (Ok(()), Data::Extents(list)) => runs(list.allocation(), len),
            (Ok(()), _) => Vec::new(),
            (Err(error), _) => {
                if self.extents.get() {
                    tracing::warn!(
                        "everything is read: the source cannot tell what is zero: {error}"
                    );
                }
                Vec::new()
            }
        };
        let mut told = whole_blocks(&told, range.clone(), self.align, self.size);
        if told.is_empty() {
            self.extents.set(false);
            told.push(Run { len, zero: false });
        }
        if let Some(rest) = self.state.borrow_mut().answer(&range, told) {
            self.reactor.spawn(self.clone().ask(rest));
        }
    }
}

impl State {
    fn take(&mut self, request: u64, zeroes: u64) -> Option<Next> {
        let known = self.windows.iter().position(|window| window.runs.is_some());
        if known.is_none() && self.blind == 0 {
            return None;
        }
        let at = known.unwrap_or(0);
        let window = self.windows.get_mut(at)?;
        let next = window.take(request, zeroes);
        if known.is_none() {
            self.blind = self.blind.saturating_sub(next.len);
        }
        if window.left.is_empty() {
            // An answer that is still to come finds it gone.
            self.windows.remove(at);
        }
        Some(next)
    }

    /// What was told about `range`, from its start on. Returns what is to be asked again.
    fn answer(&mut self, range: &Range<u64>, told: Vec<Run>) -> Option<Range<u64>> {
        self.answered = true;
        self.blind = 0;
        self.wake();
        let at = self.windows.iter().position(|w| w.asked == range.start)?;
        let mut window = self.windows.remove(at)?;
        let end = range.start + told.iter().map(|run| run.len).sum::<u64>();
        let rest = end.max(window.left.start)..window.left.end;
        let mut runs = VecDeque::from(told);
        let mut gone = window.left.start - range.start;
        while let Some(first) = runs.front_mut() {
            let here = gone.min(first.len);
            gone -= here;
            first.len -= here;
            if first.len > 0 {
                break;
            }
            runs.pop_front();
        }
        if !rest.is_empty() {
            self.windows.insert(
                at,
                Window {
                    asked: rest.start,
                    left: rest.clone(),
                    runs: None,
                },
            );
        }
        window.left.end = end;
        if !window.left.is_empty() {
            window.runs = Some(runs);
            self.windows.insert(at, window);
        }
        (!rest.is_empty()).then_some(rest)
    }

    fn wake(&mut self) {
        self.waiting.drain(..).for_each(Waker::wake);
    }
}

impl Window {
    /// Takes from its start; what is not known is data.
    fn take(&mut self, request: u64, zeroes: u64) -> Next {
        let offset = self.left.start;
        let mut run = Run {
            len: self.left.end - offset,
            zero: false,
        };
        if let Some(first) = self.runs.as_ref().and_then(VecDeque::front) {
            run = *first;
        }
        let most = match run.zero {
            true => zeroes,
            // Up to where the next one would begin on a disk of equal pieces.
            false => request - offset % request,
        };
        let len = run.len.min(most);
        self.left.start += len;
        if let Some(runs) = &mut self.runs
            && let Some(first) = runs.front_mut()
        {
            first.len -= len;
            if first.len == 0 {
                runs.pop_front();
            }
        }
        Next {
            offset,
            len,
            zero: run.zero,
        }
    }
}

/// Extents as runs, neighbours of one kind as one, cut to `window` bytes.
fn runs(extents: &[block::Extent], window: u64) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut left = window;
    for extent in extents {
        let len = extent.len.min(left);
        left -= len;
        push(&mut runs, len, block::ExtentFlags(extent.flags).is_zero());
    }
    runs
}

fn push(runs: &mut Vec<Run>, len: u64, zero: bool) {
    match runs.last_mut() {
        _ if len == 0 => {}
        Some(last) if last.zero == zero => last.len += len,
        _ => runs.push(Run { len, zero }),
    }
}

/// The same in blocks of `align` bytes, of a disk that ends at `size`: a block with data in it is
/// data. What is told of part of a block at the end is left out, or if there is no more, taken as
/// data.
fn whole_blocks(told: &[Run], range: Range<u64>, align: u64, size: u64) -> Vec<Run> {
    if align == 1 {
        return told.to_vec();
    }
    let down = |at: u64| if at == size { at } else { at - at % align };
    let mut whole = Vec::new();
    // Everything before `done` is in `whole`, everything before `at` was told.
    let (mut done, mut at) = (range.start, range.start);
    for run in told {
        let zero = at.next_multiple_of(align)..down(at + run.len);
        at += run.len;
        if run.zero && zero.start < zero.end {
            push(&mut whole, zero.start - done, false);
            push(&mut whole, zero.end - zero.start, true);
            done = zero.end;
        }
    }
    push(&mut whole, down(at).saturating_sub(done), false);
    if whole.is_empty() && at > range.start {
        push(&mut whole, align.min(range.end - range.start), false);
    }
    whole
}

#[cfg(test)]
mod tests {
    use block::Extent;

    use super::*;

    const fn data(len: u64) -> Run {
        Run { len, zero: false }
    }

    const fn zero(len: u64) -> Run {
        Run { len, zero: true }
    }

    #[test]
    fn extents_become_runs() {
        let extent = |len, flags| Extent { len, flags };
        let told = [extent(10, 0), extent(5, 1), extent(7, 3), extent(100, 2)];
        assert_eq!(runs(&told, 100), [data(15), zero(85)]);
        assert_eq!(runs(&[], 100), []);
    }

    #[test]
    fn blocks_are_not_torn_apart() {
        let whole = |told: &[Run], start, size| whole_blocks(told, start..size, 16, size);
        assert_eq!(
            whole(&[data(20), zero(40), data(4)], 0, 64),
            [data(32), zero(16), data(16)]
        );
        // A hole that is no whole block, twice.
        assert_eq!(whole(&[zero(15), data(2), zero(15)], 0, 32), [data(32)]);
        // The end of the disk is the end of a block.
        assert_eq!(whole(&[data(10), zero(30)], 0, 40), [data(16), zero(24)]);
        assert_eq!(whole(&[zero(5)], 32, 37), [zero(5)]);
        // A short answer: to the last whole block, or one as data.
        assert_eq!(whole(&[zero(40)], 0, 640), [zero(32)]);
        assert_eq!(whole(&[zero(20), data(20)], 0, 640), [zero(16), data(16)]);
        assert_eq!(whole(&[zero(4)], 0, 640), [data(16)]);
        assert_eq!(whole(&[], 0, 640), []);
    }

    fn window(range: Range<u64>) -> Window {
        Window {
            asked: range.start,
            left: range,
            runs: None,
        }
    }

    #[test]
    fn what_was_read_blindly_is_not_read_again() {
        let mut state = State {
            windows: [window(0..100), window(100..200)].into(),
            blind: 20,
            ..State::default()
        };
        let next = |state: &mut State| {
            let next = state.take(16, 50)?;
            Some((next.offset, next.len, next.zero))
        };
        assert_eq!(next(&mut state), Some((0, 16, false)));
        assert_eq!(next(&mut state), Some((16, 16, false)));
        assert_eq!(next(&mut state), None, "enough of that");
        // The second window is told first, and only half of it.
        assert_eq!(state.answer(&(100..200), vec![zero(60)]), Some(160..200));
        assert_eq!(next(&mut state), Some((100, 50, true)));
        assert_eq!(
            state.answer(&(0..100), vec![zero(24), data(24)]),
            Some(48..100)
        );
        assert_eq!(next(&mut state), Some((32, 16, false)));
        assert_eq!(next(&mut state), Some((150, 10, true)));
        assert_eq!(state.answer(&(48..100), vec![zero(52)]), None);
        assert_eq!(next(&mut state), Some((48, 50, true)));
        assert_eq!(next(&mut state), Some((98, 2, true)));
        assert_eq!(state.answer(&(160..200), vec![data(40)]), None);
        let rest: Vec<_> = std::iter::from_fn(|| next(&mut state)).collect();
        assert_eq!(rest, [(160, 16, false), (176, 16, false), (192, 8, false)]);
        assert!(state.windows.is_empty());
    }

    #[test]
    fn an_answer_that_comes_too_late_is_nothing() {
        let mut state = State {
            windows: [window(0..10)].into(),
            blind: 20,
            ..State::default()
        };
        assert!(state.take(16, 50).is_some());
        assert!(state.windows.is_empty());
        assert_eq!(state.answer(&(0..10), vec![data(4)]), None);
        assert!(state.windows.is_empty());
    }
}
