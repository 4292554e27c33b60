//! The driver's half of a split virtqueue.

use std::sync::atomic::{Ordering, fence};

use super::{ALIGNMENTS, ENTRIES, FLAGS, INDEX, NO_INTERRUPT, NO_NOTIFY};
use crate::{
    memory::Area,
    ring::{
        AddError, Buffer, DESC, DESC_INDIRECT, DESC_NEXT, DESC_WRITE, DriverRing, RingAreas,
        RingConfig, RingError, SetupError, Tables, Used, check_buffers, passed,
    },
};

/// What we know of a chain in flight, by its head.
#[derive(Clone, Copy, Debug, Default)]
struct Shadow {
    cookie: u64,
    /// Descriptors of the ring; 0 if it is not in flight.
    count: u16,
    /// Its writable bytes.
    room: u32,
}

/// The driver's half. See [`DriverRing`].
#[derive(Debug)]
pub struct Driver {
    descriptors: Area,
    driver: Area,
    device: Area,
    config: RingConfig,
    tables: Option<Tables>,
    /// For each descriptor the one after it, in the free list or in its chain.
    next: Box<[u16]>,
    free: u16,
    free_count: u16,
    shadow: Box<[Shadow]>,
    avail: u16,
    added: u16,
    last_used: u16,
    /// Chains the device may use.
    published: u16,
}

impl Driver {
    /// A queue from its beginning; the ring's memory is cleared. With `tables`, which needs the
    /// feature, chains of more than one buffer go through an indirect table.
    ///
    /// # Errors
    ///
    /// A size or an area that no split ring has.
    pub fn new(
        areas: RingAreas,
        config: RingConfig,
        tables: Option<Tables>,
    ) -> Result<Driver, SetupError> {
        super::check_size(config.size)?;
        let lengths = super::lengths(config.size);
        areas.check(lengths, ALIGNMENTS)?;
        if let Some(tables) = &tables {
            tables.check(config.size)?;
        }
        for (area, len) in [&areas.driver, &areas.device]
            .into_iter()
            .zip(&lengths[1..])
        {
            area.write(0, &vec![0; *len]);
        }
        Ok(Driver {
            descriptors: areas.descriptors,
            driver: areas.driver,
            device: areas.device,
            tables: tables.filter(|_| config.indirect),
            next: (1..=config.size).collect(),
            free: 0,
            free_count: config.size,
            shadow: vec![Shadow::default(); usize::from(config.size)].into(),
            avail: 0,
            added: 0,
            last_used: 0,
            published: 0,
            config,
        })
    }

    /// Writes a descriptor at an offset.
    #[inline]
    fn describe(area: &Area, at: usize, buffer: &Buffer, more: u16, next: u16) {
        let write = if buffer.writable { DESC_WRITE } else { 0 };
        Driver::store(area, at, buffer.address, buffer.len, write | more, next);
    }

    #[inline]
    fn store(area: &Area, at: usize, address: u64, len: u32, flags: u16, next: u16) {
        area.store64(at, address);
        let word = u64::from(len) | u64::from(flags) << 32 | u64::from(next) << 48;
        area.store64(at + 8, word);
    }

    /// Writes the chain into the table of the head and the ring's descriptor for it.
    fn add_table(&self, tables: &Tables, head: u16, buffers: &[Buffer]) {
        let start = Tables::length(head, tables.entries);
        for (n, buffer) in buffers.iter().enumerate() {
            let more = if n + 1 < buffers.len() { DESC_NEXT } else { 0 };
            Driver::describe(&tables.area, start + n * DESC, buffer, more, n as u16 + 1);
        }
        let (address, len) = (tables.guest + start as u64, buffers.len() * DESC);
        let at = usize::from(head) * DESC;
        Driver::store(&self.descriptors, at, address, len as u32, DESC_INDIRECT, 0);
    }

    fn add_chain(&self, head: u16, buffers: &[Buffer]) -> u16 {
        let (mut index, mut last) = (head, head);
        for (n, buffer) in buffers.iter().enumerate() {
            let next = self.next[usize::from(index)];
            let more = if n + 1 < buffers.len() { DESC_NEXT } else { 0 };
            Driver::describe(
                &self.descriptors,
                usize::from(index) * DESC,
                buffer,
                more,
                next,
            );
            (last, index) = (index, next);
        }
        last
    }
}

impl DriverRing for Driver {
    fn add(&mut self, buffers: &[Buffer], cookie: u64) -> Result<(), AddError> {
        let room = check_buffers(buffers)?;
        let tables = self.tables.as_ref();
        let tables = tables.filter(|t| buffers.len() > 1 && buffers.len() <= t.entries.into());
        if tables.is_none() && buffers.len() > usize::from(self.config.size) {
            return Err(AddError::TooLong(buffers.len()));
        }
        let count = if tables.is_some() {
            1
        } else {
            buffers.len() as u16
        };
        if count > self.free_count {
            return Err(AddError::Full);
        }
        let head = self.free;
        let last = match tables {
            Some(tables) => {
                self.add_table(tables, head, buffers);
                head
            }
            None => self.add_chain(head, buffers),
        };
        self.free = self.next[usize::from(last)];
        self.free_count -= count;
        self.shadow[usize::from(head)] = Shadow {
            cookie,
            count,
            room,
        };
        let slot = self.avail.wrapping_add(self.added) & (self.config.size - 1);
        self.driver.store16(ENTRIES + 2 * usize::from(slot), head);
        self.added += 1;
        Ok(())
    }

    fn publish(&mut self) -> bool {
        if self.added == 0 {
            return false;
        }
        let old = self.avail;
        self.avail = old.wrapping_add(self.added);
        self.published += std::mem::take(&mut self.added);
        self.driver.store16_release(INDEX, self.avail);
        fence(Ordering::SeqCst);
        if self.config.event_index {
            let event = self.device.load16(super::avail_event(self.config.size));
            passed(event, self.avail, old)
        } else {
            self.device.load16(FLAGS) & NO_NOTIFY == 0
        }
    }

    fn pop(&mut self) -> Result<Option<Used>, RingError> {
        let to = self.device.load16_acquire(INDEX);
        let count = to.wrapping_sub(self.last_used);
        if count == 0 {
            return Ok(None);
        }
        if count > self.published {
            let from = self.last_used;
            return Err(RingError::Jump { from, to });
        }
        let slot = usize::from(self.last_used & (self.config.size - 1));
        let at = ENTRIES + 8 * slot;
        let (id, written) = (self.device.load32(at), self.device.load32(at + 4));
        let head = u16::try_from(id).map_err(|_| RingError::Beyond(u16::MAX))?;
        let shadow = self.shadow.get_mut(usize::from(head));
        let shadow = shadow.ok_or(RingError::Beyond(head))?;
        if shadow.count == 0 {
            return Err(RingError::NotAvailable(head));
        }
        if written > shadow.room {
            let room = shadow.room;
            return Err(RingError::Length {
                wrote: written,
                room,
            });
        }
        let Shadow { cookie, count, .. } = std::mem::take(shadow);
        let mut last = head;
        for _ in 1..count {
            last = self.next[usize::from(last)];
        }
        self.next[usize::from(last)] = self.free;
        self.free = head;
        self.free_count += count;
        self.published -= 1;
        self.last_used = self.last_used.wrapping_add(1);
        Ok(Some(Used { cookie, written }))
    }

    fn disable_calls(&mut self) {
        // With an event index nothing is to do: it stays behind, and no call comes.
        if !self.config.event_index {
            self.driver.store16(FLAGS, NO_INTERRUPT);
        }
    }

    fn enable_calls(&mut self) -> Result<bool, RingError> {
        if self.config.event_index {
            let at = super::used_event(self.config.size);
            self.driver.store16(at, self.last_used);
        } else {
            self.driver.store16(FLAGS, 0);
        }
        fence(Ordering::SeqCst);
        Ok(self.device.load16_acquire(INDEX) != self.last_used)
    }

    fn in_flight(&self) -> u16 {
        self.published + self.added
    }
}
