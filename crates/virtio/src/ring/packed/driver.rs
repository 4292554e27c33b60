//! The driver's half of a packed virtqueue.

use std::sync::atomic::{Ordering, fence};

use super::{ALIGNMENTS, AVAIL, Place, USED};
use crate::{
    memory::Area,
    ring::{
        AddError, Buffer, DESC, DESC_INDIRECT, DESC_NEXT, DESC_WRITE, DriverRing, RingAreas,
        RingConfig, RingError, SetupError, Tables, Used, check_buffers,
    },
};

/// What we know of a chain in flight, by its id.
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
    ring: Area,
    driver: Area,
    device: Area,
    config: RingConfig,
    tables: Option<Tables>,
    ids: Vec<u16>,
    shadow: Box<[Shadow]>,
    avail: Place,
    used: Place,
    /// The first descriptor that is not published: its place, and its second word.
    held: Option<(Place, u64)>,
    pending: u16,
    /// Chains that are not published.
    added: u16,
    free: u16,
    /// Chains the device may use.
    published: u16,
}

impl Driver {
    /// A queue from its beginning; the ring's memory is cleared. With `tables`, which needs the
    /// feature, chains of more than one buffer go through an indirect table.
    ///
    /// # Errors
    ///
    /// A size or an area that no packed ring has.
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
        areas.descriptors.write(0, &vec![0; lengths[0]]);
        areas.driver.store32(0, 0);
        areas.device.store32(0, 0);
        Ok(Driver {
            ring: areas.descriptors,
            driver: areas.driver,
            device: areas.device,
            tables: tables.filter(|_| config.indirect),
            ids: (0..config.size).rev().collect(),
            shadow: vec![Shadow::default(); usize::from(config.size)].into(),
            avail: Place::START,
            used: Place::START,
            held: None,
            pending: 0,
            added: 0,
            free: config.size,
            published: 0,
            config,
        })
    }

    /// Writes the next descriptor of the ring; the very first one gets its flags in the end.
    #[inline]
    fn put(&mut self, address: u64, len: u32, id: u16, flags: u16) {
        let at = self.avail.offset();
        let flags = flags | self.avail.available();
        self.ring.store64(at, address);
        let word = super::word(len, id, flags);
        match self.held {
            None => self.held = Some((self.avail, word)),
            Some(_) => self.ring.store64(at + 8, word),
        }
        self.avail = self.avail.advance(1, self.config.size);
        self.pending += 1;
    }

    /// Writes a chain into the table of an id. Where it is, and its length.
    fn fill_table(tables: &Tables, id: u16, buffers: &[Buffer]) -> (u64, u32) {
        let start = Tables::length(id, tables.entries);
        for (n, buffer) in buffers.iter().enumerate() {
            let at = start + n * DESC;
            let flags = if buffer.writable { DESC_WRITE } else { 0 };
            tables.area.store64(at, buffer.address);
            let word = super::word(buffer.len, 0, flags);
            tables.area.store64(at + 8, word);
        }
        (tables.guest + start as u64, (buffers.len() * DESC) as u32)
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
        if count > self.free {
            return Err(AddError::Full);
        }
        // As many ids as descriptors: one is free.
        let id = self.ids.pop().ok_or(AddError::Full)?;
        match tables {
            Some(tables) => {
                let (address, len) = Driver::fill_table(tables, id, buffers);
                self.put(address, len, id, DESC_INDIRECT);
            }
            None => {
                for (n, buffer) in buffers.iter().enumerate() {
                    let write = if buffer.writable { DESC_WRITE } else { 0 };
                    let more = if n + 1 < buffers.len() { DESC_NEXT } else { 0 };
                    self.put(buffer.address, buffer.len, id, write | more);
                }
            }
        }
        self.shadow[usize::from(id)] = Shadow {
            cookie,
            count,
            room,
        };
        self.free -= count;
        self.added += 1;
        Ok(())
    }

    fn publish(&mut self) -> bool {
        let Some((place, word)) = self.held.take() else {
            return false;
        };
        self.published += std::mem::take(&mut self.added);
        self.ring.store64_release(place.offset() + 8, word);
        fence(Ordering::SeqCst);
        let count = std::mem::take(&mut self.pending);
        let (size, event_index) = (self.config.size, self.config.event_index);
        super::wants_event(&self.device, event_index, self.avail, count, size)
    }

    fn pop(&mut self) -> Result<Option<Used>, RingError> {
        // What is not published cannot be used, whatever the ring says.
        if self.published == 0 {
            return Ok(None);
        }
        let word = self.ring.load64_acquire(self.used.offset() + 8);
        let (len, id, flags) = (word as u32, (word >> 32) as u16, super::flags(word));
        if flags & (AVAIL | USED) != self.used.used() {
            return Ok(None);
        }
        let shadow = self.shadow.get_mut(usize::from(id));
        let shadow = shadow.ok_or(RingError::Beyond(id))?;
        if shadow.count == 0 {
            return Err(RingError::NotAvailable(id));
        }
        // The length says nothing unless the device wrote.
        let written = if flags & DESC_WRITE != 0 { len } else { 0 };
        if written > shadow.room {
            let room = shadow.room;
            return Err(RingError::Length {
                wrote: written,
                room,
            });
        }
        let Shadow { cookie, count, .. } = std::mem::take(shadow);
        self.ids.push(id);
        self.free += count;
        self.published -= 1;
        self.used = self.used.advance(count, self.config.size);
        Ok(Some(Used { cookie, written }))
    }

    fn disable_calls(&mut self) {
        super::want_no_events(&self.driver);
    }

    fn enable_calls(&mut self) -> Result<bool, RingError> {
        super::want_events(&self.driver, self.config.event_index, self.used);
        fence(Ordering::SeqCst);
        let flags = super::flags(self.ring.load64_acquire(self.used.offset() + 8));
        Ok(self.published != 0 && flags & (AVAIL | USED) == self.used.used())
    }

    fn in_flight(&self) -> u16 {
        self.published + self.added
    }
}
