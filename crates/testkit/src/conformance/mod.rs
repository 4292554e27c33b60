//! The suite every device must pass, chosen by its [`Limits`].
//!
//! Each check opens a device of its own, uses it, closes it, and leaves the reactor clean: no
//! request or buffer out, none dropped. It is run twice: against the device itself, with requests
//! that respect its limits, and against [`Normalize`] over it, with any request.
//!
//! Requests beyond the end are the export's job and not made here. A zero-length request may be
//! served or refused with `EINVAL`.

mod checks;

use std::{future::Future, rc::Rc, sync::Arc};

use block::{
    Completed, Data, Flags, Iov, Limits, Normalize, Op, Queue, QueueExt, Reactor, Request, Support,
};
use reactor::sim::SimLoop;

use crate::workload::assert_quiet;

/// A loop that can drive a test.
pub trait Drive {
    /// The reactor that tests run on.
    fn reactor(&self) -> &Reactor;
    /// Runs the loop until the future is done.
    fn block_on<T>(&mut self, future: impl Future<Output = T>) -> T;
}

impl Drive for SimLoop {
    fn reactor(&self) -> &Reactor {
        SimLoop::reactor(self)
    }

    fn block_on<T>(&mut self, future: impl Future<Output = T>) -> T {
        SimLoop::block_on(self, future)
    }
}

impl Drive for reactor::Loop {
    fn reactor(&self) -> &Reactor {
        reactor::Loop::reactor(self)
    }

    fn block_on<T>(&mut self, future: impl Future<Output = T>) -> T {
        reactor::Loop::block_on(self, future)
    }
}

/// What a check works with.
pub(crate) struct Bench {
    pub reactor: Reactor,
    pub device: Arc<dyn block::Device>,
    pub queue: Rc<dyn Queue>,
    pub limits: Arc<Limits>,
}

/// The form of a request's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The callee picks.
    Wanted,
    /// One piece; registered if the reactor's memory is.
    One,
    /// Several pieces, out of order.
    Many,
}

/// Runs the suite. `make` gives a fresh device each time. Panics at the first failure; returns the
/// names of the checks that applied.
pub fn run(
    make: impl Fn(&Reactor) -> Arc<dyn block::Device>,
    drive: &mut impl Drive,
) -> Vec<&'static str> {
    let mut ran = Vec::new();
    for normalised in [false, true] {
        for &(name, applies, check) in checks::ALL {
            let reactor = drive.reactor().clone();
            let mut device = make(&reactor);
            if normalised {
                device = Normalize::wrap(device);
            }
            let limits = device.limits();
            limits.assert_valid();
            assert_eq!(
                limits,
                device.limits(),
                "limits do not change by themselves"
            );
            if !applies(&limits) {
                continue;
            }
            let queue = device.open_queue(&reactor).expect("a queue opens");
            let bench = Bench {
                reactor: reactor.clone(),
                device: device.clone(),
                queue,
                limits,
            };
            eprintln!(
                "conformance: {name}{}",
                if normalised { ", normalised" } else { "" }
            );
            drive.block_on(check(bench));
            let closed = drive.block_on(device.close(&reactor));
            assert!(closed.is_ok(), "{name}: closing failed: {closed:?}");
            drop(device);
            assert_quiet(&reactor);
            ran.push(name);
        }
    }
    ran
}

impl Bench {
    /// The unit that requests of this device are made of, at least a sector where it fits.
    pub fn block(&self) -> u64 {
        u64::from(self.limits.min_block)
            .max(512)
            .min(self.limits.size)
    }

    /// The longest transfer worth testing.
    pub fn most(&self) -> u64 {
        let most = u64::from(self.limits.max_transfer)
            .min(self.limits.size)
            .min(4 << 20);
        most & !(u64::from(self.limits.min_block) - 1)
    }

    pub fn native(&self, op: Op) -> bool {
        self.limits.support(op) == Support::Native
    }

    /// A request of `len` bytes without data.
    pub fn request(&self, op: Op, offset: u64, len: u64, flags: Flags) -> Request {
        let mut req = self.reactor.request(op, offset, len);
        req.set_flags(flags);
        req
    }

    /// Memory of a form, as the limits allow. `None` for [`Form::Wanted`].
    pub fn memory(&self, form: Form, len: usize) -> Option<Iov> {
        let block = self.limits.min_block as usize;
        match form {
            Form::Wanted => None,
            Form::Many if self.limits.memory_align == 1 && len >= 2 * block => {
                let cut = len / 2 / block * block;
                let whole = Iov::of_chunk(self.reactor.chunk(len), len);
                Some(whole.pieces([(cut, len - cut), (0, cut)]))
            }
            _ => Some(Iov::of_chunk(self.reactor.chunk(len), len)),
        }
    }

    pub async fn call(&self, op: Op, offset: u64, len: u64, flags: Flags) -> Completed {
        self.queue.call(self.request(op, offset, len, flags)).await
    }

    /// A request that must succeed.
    pub async fn must(&self, op: Op, offset: u64, len: u64, flags: Flags) -> Completed {
        let done = self.call(op, offset, len, flags).await;
        assert!(
            done.error().is_none(),
            "{op} {offset}+{len} {flags:?}: {:?}",
            done.error()
        );
        done
    }

    /// Reads, in a form.
    pub async fn read(&self, form: Form, offset: u64, len: u64) -> Vec<u8> {
        let mut req = self.request(Op::Read, offset, len, Flags::NONE);
        let memory = self.memory(form, len as usize);
        *req.data_mut() = memory.clone().map_or(Data::Wanted, Data::Iov);
        let done = self.queue.call(req).await;
        assert!(
            done.error().is_none(),
            "read {offset}+{len} {form:?}: {:?}",
            done.error()
        );
        let mut bytes = vec![0; len as usize];
        done.data().read(&mut bytes);
        if let Some(memory) = memory {
            assert_eq!(memory.to_vec(), bytes, "the caller's own memory is filled");
        }
        bytes
    }

    /// Writes, in a form.
    pub async fn write(&self, form: Form, offset: u64, bytes: &[u8], flags: Flags) {
        let len = bytes.len() as u64;
        let mut req = self.request(Op::Write, offset, len, flags);
        let form = if form == Form::Wanted {
            Form::One
        } else {
            form
        };
        let memory = self.memory(form, bytes.len()).expect("a form with memory");
        memory.write(0, bytes);
        *req.data_mut() = memory.clone().into();
        let done = self.queue.call(req).await;
        assert!(
            done.error().is_none(),
            "write {offset}+{len} {flags:?}: {:?}",
            done.error()
        );
        assert_eq!(memory.to_vec(), bytes, "a write leaves its bytes alone");
    }
}
