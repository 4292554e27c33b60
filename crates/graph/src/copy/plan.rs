//! Which piece comes next: from start to end, and from what the source knows about itself.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    sync::Arc,
};

use block::{Data, Device, Limits, Op, Queue, QueueExt, RangeLock, Reactor};

use super::{CopyOptions, scan::Run};

/// Bytes whose state is asked at once. The answer may be shorter.
const WINDOW: u64 = 1 << 32;

/// Zeroes in one request: short enough to see progress.
const ZEROES: u64 = 128 << 20;

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
    size: u64,
    request: u64,
    zeroes: u64,
    window: u64,
    /// The source can be asked, and has not failed to answer.
    extents: Cell<bool>,
    known: RefCell<Known>,
    /// Held by whoever asks the source.
    asking: RangeLock,
}

#[derive(Default)]
struct Known {
    /// Where the first run begins.
    offset: u64,
    runs: VecDeque<Run>,
}

impl Plan {
    pub fn new(
        source: &Limits,
        destination: Option<&Arc<dyn Device>>,
        options: &CopyOptions,
    ) -> Plan {
        let zeroes = destination.map_or(u64::MAX, |disk| disk.limits().max_range);
        Plan {
            size: source.size,
            request: options.request_size,
            zeroes: zeroes.min(ZEROES),
            window: source.max_range.min(WINDOW),
            extents: Cell::new(options.extents && source.offered().contains(Op::Extents)),
            known: RefCell::default(),
            asking: RangeLock::new(),
        }
    }

    /// The next piece; `None` at the end.
    pub async fn next(&self, reactor: &Reactor, source: &dyn Queue) -> Option<Next> {
        if let Some(next) = self.take() {
            return Some(next);
        }
        let _asking = self.asking.exclusive(0..1).await;
        loop {
            // Somebody else may have asked meanwhile.
            if let Some(next) = self.take() {
                return Some(next);
            }
            let offset = self.known.borrow().offset;
            if offset >= self.size {
                return None;
            }
            let runs = self.ask(reactor, source, offset).await;
            self.known.borrow_mut().runs.extend(runs);
        }
    }

    fn take(&self) -> Option<Next> {
        let mut known = self.known.borrow_mut();
        let offset = known.offset;
        let run = known.runs.front_mut()?;
        let most = match run.zero {
            true => self.zeroes,
            // Up to where the next one would begin on a disk of equal pieces.
            false => self.request - offset % self.request,
        };
        let len = run.len.min(most);
        let zero = run.zero;
        run.len -= len;
        if run.len == 0 {
            known.runs.pop_front();
        }
        known.offset += len;
        Some(Next { offset, len, zero })
    }

    /// Runs from here on, at least one.
    async fn ask(&self, reactor: &Reactor, source: &dyn Queue, offset: u64) -> Vec<Run> {
        let window = self.window.min(self.size - offset);
        let all = vec![Run {
            len: window,
            zero: false,
        }];
        if !self.extents.get() {
            return all;
        }
        let mut done = source
            .call(reactor.request(Op::Extents, offset, window))
            .await;
        let told = match (done.take_outcome(), done.data()) {
            (Ok(()), Data::Extents(list)) => runs(list.allocation(), window),
            (Ok(()), _) => Vec::new(),
            (Err(error), _) => {
                tracing::warn!("everything is read: the source cannot tell what is zero: {error}");
                Vec::new()
            }
        };
        if told.is_empty() {
            self.extents.set(false);
            return all;
        }
        told
    }
}

/// Extents as runs, neighbours of one kind as one, cut to `window` bytes.
fn runs(extents: &[block::Extent], window: u64) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut left = window;
    for extent in extents {
        let len = extent.len.min(left);
        left -= len;
        let zero = block::ExtentFlags(extent.flags).is_zero();
        match runs.last_mut() {
            _ if len == 0 => {}
            Some(last) if last.zero == zero => last.len += len,
            _ => runs.push(Run { len, zero }),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use block::Extent;

    use super::*;

    #[test]
    fn extents_become_runs() {
        let extent = |len, flags| Extent { len, flags };
        let told = [extent(10, 0), extent(5, 1), extent(7, 3), extent(100, 2)];
        let expected = [
            Run {
                len: 15,
                zero: false,
            },
            Run {
                len: 85,
                zero: true,
            },
        ];
        assert_eq!(runs(&told, 100), expected);
        assert_eq!(runs(&[], 100), []);
    }
}
