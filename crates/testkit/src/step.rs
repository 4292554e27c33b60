//! A device whose requests the test completes by hand, when and how it likes.

use std::{
    collections::VecDeque,
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use block::{Device, Limits, Op, OpSet, Queue, Reactor, Remote, Request, Result};

/// A device that only collects: every request becomes a [`Step`].
pub struct StepDevice {
    limits: Arc<Limits>,
    steps: Arc<Mutex<VecDeque<Step>>>,
}

/// One request that reached the device and waits to be completed.
pub struct Step {
    /// The reactor it came from.
    pub reactor: usize,
    /// The request. Travels by [`Remote`], so that the test may hold it anywhere.
    pub remote: Remote,
}

impl StepDevice {
    /// A device of `size` bytes that does everything a disk does.
    pub fn new(size: u64) -> Arc<StepDevice> {
        StepDevice::with(Limits::new(size, OpSet::DISK))
    }

    /// A device with these limits.
    pub fn with(limits: Limits) -> Arc<StepDevice> {
        Arc::new(StepDevice {
            limits: Arc::new(limits),
            steps: Arc::default(),
        })
    }

    /// The oldest request that is waiting.
    pub fn next(&self) -> Option<Step> {
        self.lock().pop_front()
    }

    /// The oldest request, which must be there and be `op` of this range.
    pub fn expect(&self, op: Op, offset: u64, len: u64) -> Step {
        let step = self.next().expect("a request is waiting");
        let is = (step.remote.op(), step.remote.offset(), step.remote.len());
        assert_eq!(is, (op, offset, len), "another request was expected");
        step
    }

    /// How many are waiting.
    pub fn waiting(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Step>> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Step {
    /// Completes it well; a read gives bytes of this value.
    pub fn done(mut self, byte: u8) {
        if self.remote.op() == Op::Read {
            self.remote.give(vec![byte; self.remote.len() as usize]);
        }
        self.remote.complete(Ok(()));
    }

    /// Fails it.
    pub fn fail(self, errno: block::Errno) {
        self.remote.complete(Err(errno.into()));
    }
}

impl Device for StepDevice {
    fn limits(&self) -> Arc<Limits> {
        self.limits.clone()
    }

    fn open_queue(&self, reactor: &Reactor) -> Result<Rc<dyn Queue>> {
        Ok(Rc::new(StepQueue {
            steps: self.steps.clone(),
            reactor: reactor.clone(),
        }))
    }
}

struct StepQueue {
    steps: Arc<Mutex<VecDeque<Step>>>,
    reactor: Reactor,
}

impl Queue for StepQueue {
    fn submit(&self, req: Request) {
        let step = Step {
            reactor: self.reactor.index(),
            remote: req.into_remote(self.reactor.inbox()),
        };
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        steps.push_back(step);
    }
}
