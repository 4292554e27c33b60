//! Queues: where requests go in and completions come out.

use std::{
    collections::VecDeque,
    mem::MaybeUninit,
    os::fd::{AsRawFd, RawFd},
    time::{Duration, Instant},
};

use rustix::io::Errno;

use crate::{
    Completion, Error, Result, Zone,
    drivers::DriverQueue,
    error::invalid,
    request::{Data, Op, Request, ZoneAction},
    wait::Wait,
};

/// Completions that the caller has not fetched.
pub(crate) type Done = VecDeque<Completion>;

/// A way into a disk, for one thread at a time.
///
/// Requests may begin at once; [`Queue::do_io`] makes sure that they do. There is no order among
/// requests in flight. Dropping a queue waits for what the kernel still does with the memory of its
/// requests; their completions are lost.
pub struct Queue {
    driver: DriverQueue,
    done: Done,
    /// Requests whose completions were not fetched.
    outstanding: usize,
    read_only: bool,
    poll: bool,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Queue { outstanding, .. } = self;
        write!(f, "Queue({outstanding} outstanding)")
    }
}

impl Queue {
    pub(crate) fn new(driver: DriverQueue, read_only: bool, poll: bool) -> Queue {
        Queue {
            driver,
            done: Done::with_capacity(64),
            outstanding: 0,
            read_only,
            poll,
        }
    }

    /// Whether it is a poll queue.
    pub fn is_poll(&self) -> bool {
        self.poll
    }

    /// Requests whose completions were not fetched.
    pub fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Reads `len` bytes from byte `start` on.
    ///
    /// # Safety
    ///
    /// `buffer` has `len` writable bytes, which nobody else uses until the request completes.
    pub unsafe fn read(
        &mut self,
        start: u64,
        buffer: *mut u8,
        len: usize,
        user_data: usize,
        flags: u32,
    ) {
        let data = Data::Buffer(buffer);
        self.submit(Op::Read, start, len as u64, data, user_data, flags);
    }

    /// Writes `len` bytes from byte `start` on.
    ///
    /// # Safety
    ///
    /// `buffer` has `len` readable bytes, which nobody writes until the request completes.
    pub unsafe fn write(
        &mut self,
        start: u64,
        buffer: *const u8,
        len: usize,
        user_data: usize,
        flags: u32,
    ) {
        let data = Data::Buffer(buffer.cast_mut());
        self.submit(Op::Write, start, len as u64, data, user_data, flags);
    }

    /// Reads from byte `start` on into buffers.
    ///
    /// # Safety
    ///
    /// `vector` has `count` elements, each of them as [`Queue::read`] wants its buffer; array and
    /// buffers live until the request completes.
    pub unsafe fn readv(
        &mut self,
        start: u64,
        vector: *const libc::iovec,
        count: i32,
        user_data: usize,
        flags: u32,
    ) {
        // SAFETY: as the caller says.
        unsafe { self.submit_vector(Op::Read, start, vector, count, user_data, flags) }
    }

    /// Writes buffers from byte `start` on.
    ///
    /// # Safety
    ///
    /// As [`Queue::readv`], for [`Queue::write`].
    pub unsafe fn writev(
        &mut self,
        start: u64,
        vector: *const libc::iovec,
        count: i32,
        user_data: usize,
        flags: u32,
    ) {
        // SAFETY: as the caller says.
        unsafe { self.submit_vector(Op::Write, start, vector, count, user_data, flags) }
    }

    /// Makes `len` bytes from byte `start` on read as zeroes.
    pub fn write_zeroes(&mut self, start: u64, len: u64, user_data: usize, flags: u32) {
        self.submit(Op::WriteZeroes, start, len, Data::None, user_data, flags);
    }

    /// Says that `len` bytes from byte `start` on are not needed any more.
    pub fn discard(&mut self, start: u64, len: u64, user_data: usize, flags: u32) {
        self.submit(Op::Discard, start, len, Data::None, user_data, flags);
    }

    /// Makes all writes that have completed durable.
    pub fn flush(&mut self, user_data: usize, flags: u32) {
        self.submit(Op::Flush, 0, 0, Data::None, user_data, flags);
    }

    /// Reports zones from the one at byte `offset` on.
    ///
    /// # Safety
    ///
    /// `zones` has room for `count` zones, which nobody else uses until the request completes.
    pub unsafe fn report_zones(
        &mut self,
        offset: u64,
        zones: *mut Zone,
        count: u32,
        user_data: usize,
        flags: u32,
    ) {
        let data = Data::Zones(zones, count);
        self.submit(Op::ReportZones, offset, 0, data, user_data, flags);
    }

    /// Closes the zone at byte `offset`.
    pub fn close_zone(&mut self, offset: u64, user_data: usize, flags: u32) {
        self.zone(Op::Zone(ZoneAction::Close), offset, user_data, flags);
    }

    /// Makes the zone at byte `offset` full.
    pub fn finish_zone(&mut self, offset: u64, user_data: usize, flags: u32) {
        self.zone(Op::Zone(ZoneAction::Finish), offset, user_data, flags);
    }

    /// Opens the zone at byte `offset`.
    pub fn open_zone(&mut self, offset: u64, user_data: usize, flags: u32) {
        self.zone(Op::Zone(ZoneAction::Open), offset, user_data, flags);
    }

    /// Empties the zone at byte `offset`.
    pub fn reset_zone(&mut self, offset: u64, user_data: usize, flags: u32) {
        self.zone(Op::Zone(ZoneAction::Reset), offset, user_data, flags);
    }

    /// Closes all open zones.
    pub fn close_all_zones(&mut self, user_data: usize, flags: u32) {
        self.zone(Op::AllZones(ZoneAction::Close), 0, user_data, flags);
    }

    /// Makes all open and closed zones full.
    pub fn finish_all_zones(&mut self, user_data: usize, flags: u32) {
        self.zone(Op::AllZones(ZoneAction::Finish), 0, user_data, flags);
    }

    /// Opens all closed zones.
    pub fn open_all_zones(&mut self, user_data: usize, flags: u32) {
        self.zone(Op::AllZones(ZoneAction::Open), 0, user_data, flags);
    }

    /// Empties all zones.
    pub fn reset_all_zones(&mut self, user_data: usize, flags: u32) {
        self.zone(Op::AllZones(ZoneAction::Reset), 0, user_data, flags);
    }

    /// Submits what was not yet, and fetches completions: `min` at least, waiting for them, and as many
    /// as there is room for at most. Returns their number; the first elements of `into` are theirs.
    ///
    /// `timeout` is the time to wait at most, and is what is left of it afterwards. With `signals`
    /// that is the mask of signals while waiting, and a signal that is handled ends the wait.
    ///
    /// # Errors
    ///
    /// EINVAL if `min` is more than there is room for or than there are requests; ETIME, and EINTR with
    /// `signals`: then nothing was fetched. ENOTSUP for `signals` with a poll queue.
    pub fn do_io(
        &mut self,
        into: &mut [Completion],
        min: usize,
        timeout: Option<&mut Duration>,
        signals: Option<&libc::sigset_t>,
    ) -> Result<usize> {
        // SAFETY: completions are written, and nothing else, and need no drop.
        let into = unsafe { &mut *(std::ptr::from_mut(into) as *mut [MaybeUninit<Completion>]) };
        self.do_io_uninit(into, min, timeout, signals)
    }

    /// As [`Queue::do_io`], into memory with no values yet. The first elements, as many as it says,
    /// have some afterwards.
    ///
    /// # Errors
    ///
    /// As [`Queue::do_io`].
    pub fn do_io_uninit(
        &mut self,
        into: &mut [MaybeUninit<Completion>],
        min: usize,
        timeout: Option<&mut Duration>,
        signals: Option<&libc::sigset_t>,
    ) -> Result<usize> {
        if min > into.len() {
            return Err(invalid(
                "min_completions must be less than or equal to max_completions",
            ));
        }
        if min > self.outstanding {
            return Err(invalid(
                "min_completions is larger than total outstanding requests",
            ));
        }
        if signals.is_some() && self.poll {
            let text = "blkioq_do_io_interruptible() is not supported on poll queues";
            return Err(Error::new(Errno::NOTSUP, text));
        }
        match timeout {
            Some(left) => {
                let begin = Instant::now();
                let wait = Wait::new(Some(*left), signals);
                let result = self.gather(min, &wait);
                *left = left.saturating_sub(begin.elapsed());
                result?;
            }
            None => self.gather(min, &Wait::new(None, signals))?,
        }
        let count = into.len().min(self.done.len());
        for (place, completion) in into.iter_mut().zip(self.done.drain(..count)) {
            place.write(completion);
        }
        self.outstanding -= count;
        self.driver.rest(!self.done.is_empty());
        Ok(count)
    }

    /// The descriptor that becomes readable when [`Queue::do_io`] should be called, or -1 for a poll
    /// queue. Eight bytes are to be read from it then; it does not block.
    pub fn completion_fd(&self) -> RawFd {
        match self.poll {
            true => -1,
            false => self.driver.completion_fd().as_raw_fd(),
        }
    }

    /// Whether that descriptor becomes readable at all; not at first. It may still, without.
    pub fn set_completion_fd_enabled(&mut self, enabled: bool) {
        if !self.poll {
            self.driver.set_completion_fd_enabled(enabled);
            self.driver.rest(!self.done.is_empty());
        }
    }

    fn gather(&mut self, min: usize, wait: &Wait<'_>) -> Result<()> {
        if min == 0 {
            self.driver.kick(&mut self.done);
            self.driver.reap(&mut self.done);
            return Ok(());
        }
        self.driver.reap(&mut self.done);
        while self.done.len() < min {
            let more = min - self.done.len();
            self.driver.wait(more, wait, &mut self.done)?;
        }
        self.driver.kick(&mut self.done);
        Ok(())
    }

    fn zone(&mut self, op: Op, offset: u64, user_data: usize, flags: u32) {
        self.submit(op, offset, 0, Data::None, user_data, flags);
    }

    /// # Safety
    ///
    /// As [`Queue::readv`].
    unsafe fn submit_vector(
        &mut self,
        op: Op,
        start: u64,
        vector: *const libc::iovec,
        count: i32,
        user_data: usize,
        flags: u32,
    ) {
        let Ok(count) = u32::try_from(count) else {
            let text = c"iovcnt must be non-negative and fit in a signed 32-bit integer";
            return self.refuse(user_data, Errno::INVAL, Some(text));
        };
        let mut len = 0u64;
        for n in 0..count as usize {
            // SAFETY: the caller's array has `count` elements.
            let part = unsafe { (*vector.add(n)).iov_len } as u64;
            match len.checked_add(part) {
                Some(sum) => len = sum,
                None => return self.refuse(user_data, Errno::INVAL, Some(c"iovec is too long")),
            }
        }
        let data = Data::Vector(vector, count);
        self.submit(op, start, len, data, user_data, flags);
    }

    #[inline]
    fn submit(&mut self, op: Op, start: u64, len: u64, data: Data, user_data: usize, flags: u32) {
        if let Some(text) = Request::check_flags(op, flags) {
            return self.refuse(user_data, Errno::INVAL, Some(text));
        }
        if self.read_only && !matches!(op, Op::Read | Op::Flush | Op::ReportZones) {
            return self.refuse(user_data, Errno::BADF, Some(c"device is read-only"));
        }
        self.outstanding += 1;
        let request = Request {
            op,
            flags,
            start,
            len,
            data,
            user_data,
        };
        self.driver.submit(request, &mut self.done);
    }

    fn refuse(&mut self, user_data: usize, errno: Errno, text: Option<&'static std::ffi::CStr>) {
        self.outstanding += 1;
        let ret = -errno.raw_os_error();
        self.done.push_back(Completion::new(user_data, ret, text));
    }
}
