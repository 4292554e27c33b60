//! The device's half of a packed virtqueue.

use std::sync::atomic::{Ordering, fence};

use super::{ALIGNMENTS, AVAIL, Place, USED};
use crate::{
    inflight,
    memory::{Area, Memory},
    ring::{
        Chain, DESC_INDIRECT, DESC_NEXT, DESC_WRITE, DeviceRing, Fault, RingAreas, RingConfig,
        RingError, SetupError, Token, chain::TableKind, new_life,
    },
};

/// The device's half. See [`DeviceRing`].
#[derive(Debug)]
pub struct Device {
    ring: Area,
    driver: Area,
    device: Area,
    config: RingConfig,
    avail: Place,
    used: Place,
    /// The first used descriptor that is not published: its place, and its second word.
    held: Option<(Place, u64)>,
    /// Descriptors behind the published ones.
    pending: u16,
    /// Descriptors of all chains in flight.
    slots: u16,
    in_flight: u16,
    first: bool,
    error: Option<RingError>,
    life: u32,
    log: Option<inflight::Packed>,
}

impl Device {
    /// A queue that begins at `base` (SET_VRING_BASE): bits 0 to 14 the next available descriptor, 15
    /// its wrap counter, 16 to 30 the next used one, 31 its wrap counter; [`super::START`] for a new
    /// one. Front-ends that leave the upper half 0 mean the lower one, as nothing was in flight when
    /// the ring was stopped.
    ///
    /// # Errors
    ///
    /// A size, an area or a base that no packed ring has.
    pub fn new(areas: RingAreas, config: RingConfig, base: u32) -> Result<Device, SetupError> {
        super::check_size(config.size)?;
        areas.check(super::lengths(config.size), ALIGNMENTS)?;
        let avail = Place::parse(base as u16, config.size)?;
        let used = match (base >> 16) as u16 {
            0 => avail,
            bits => Place::parse(bits, config.size)?,
        };
        Ok(Device {
            ring: areas.descriptors,
            driver: areas.driver,
            device: areas.device,
            avail,
            used,
            held: None,
            pending: 0,
            slots: 0,
            in_flight: 0,
            first: true,
            error: None,
            life: new_life(),
            log: None,
            config,
        })
    }

    /// As [`Device::new`], with an in-flight log. What the log says was in flight comes out of
    /// [`DeviceRing::resume`] first; the base is the log's.
    ///
    /// # Errors
    ///
    /// As [`Device::new`], and a log that is not for this queue.
    pub fn with_log(
        areas: RingAreas,
        config: RingConfig,
        base: u32,
        log: Area,
    ) -> Result<Device, SetupError> {
        let mut device = Device::new(areas, config, base)?;
        let (mut log, place) = inflight::Packed::open(log, config.size, |place| {
            let place = Place::of(place);
            let word = device.ring.load64_acquire(place.offset() + 8);
            super::flags(word) & (AVAIL | USED) == place.used()
        })?;
        match place {
            None => log.begin(device.used.into()),
            Some(place) => {
                device.used = Place::of(place);
                // At most the queue's size: no descriptor of the log belongs to two chains.
                let slots = log.descriptors() as u16;
                device.avail = device.used.advance(slots, config.size);
                device.scrub(slots);
            }
        }
        device.log = Some(log);
        Ok(device)
    }

    /// Makes the descriptors in flight look taken. A batch that was being written when the end came
    /// has descriptors that look used behind the first one, which does not.
    fn scrub(&self, slots: u16) {
        let mut place = self.used;
        for _ in 0..slots {
            let word = self.ring.load64(place.offset() + 8) as u32;
            let word = super::word(word, 0, place.available());
            self.ring.store64(place.offset() + 8, word);
            place = place.advance(1, self.config.size);
        }
        fence(Ordering::SeqCst);
    }

    fn fail<T>(&mut self, error: RingError) -> Result<T, RingError> {
        self.error = Some(error);
        Err(error)
    }

    #[inline]
    fn begin(&self, chain: &mut Chain) {
        let most = self.config.size.max(self.config.table_max);
        chain.begin(2 * usize::from(most));
    }

    #[inline]
    fn add(&self, memory: &Memory, chain: &mut Chain, address: u64, len: u32, flags: u16) {
        if flags & DESC_INDIRECT == 0 {
            chain.add(memory, address, len, flags & DESC_WRITE != 0);
        } else if !self.config.indirect {
            chain.fail(Fault::NotAgreed);
        } else if flags & DESC_NEXT != 0 {
            chain.fail(Fault::Nested);
        } else {
            let most = self.config.table_max;
            chain.add_table(memory, address, len, most, TableKind::Packed);
        }
    }

    #[inline]
    fn take(&mut self, id: u16, slots: u16, entry: u16) -> Token {
        self.slots += slots;
        self.in_flight += 1;
        Token {
            id,
            slots,
            entry,
            life: self.life,
        }
    }

    /// The second word of the next descriptor, if it is available.
    #[inline]
    fn next(&self) -> Option<u64> {
        let word = self.ring.load64_acquire(self.avail.offset() + 8);
        let here = super::flags(word) & (AVAIL | USED) == self.avail.available();
        here.then_some(word)
    }
}

impl Place {
    fn of(place: inflight::Place) -> Place {
        Place {
            index: place.index,
            wrap: place.wrap,
        }
    }
}

impl From<Place> for inflight::Place {
    fn from(place: Place) -> inflight::Place {
        inflight::Place {
            index: place.index,
            wrap: place.wrap,
        }
    }
}

impl DeviceRing for Device {
    #[inline]
    fn pop(&mut self, memory: &Memory, chain: &mut Chain) -> Result<Option<Token>, RingError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let Some(mut word) = self.next() else {
            return Ok(None);
        };
        self.begin(chain);
        let (mut place, mut slots, mut entry) = (self.avail, 0, 0);
        // Descriptors come back when the guest sees them used: no more than the others are taken.
        let most = self.config.size - self.slots - self.pending;
        loop {
            if slots >= most {
                if let (Some(log), 1..) = (&mut self.log, slots) {
                    log.abandon();
                }
                return self.fail(RingError::Loop);
            }
            slots += 1;
            let address = self.ring.load64(place.offset());
            let (len, id, flags) = (word as u32, (word >> 32) as u16, super::flags(word));
            self.add(memory, chain, address, len, flags);
            place = place.advance(1, self.config.size);
            let last = flags & DESC_NEXT == 0;
            if let Some(log) = &mut self.log {
                let logged = inflight::Logged {
                    address,
                    len,
                    id,
                    flags,
                };
                entry = log.add(logged, last);
            }
            if last {
                self.avail = place;
                return Ok(Some(self.take(id, slots, entry)));
            }
            word = self.ring.load64(place.offset() + 8);
        }
    }

    fn resume(&mut self, memory: &Memory, chain: &mut Chain) -> Result<Option<Token>, RingError> {
        let Some(found) = self.log.as_mut().and_then(inflight::Packed::resume) else {
            return Ok(None);
        };
        self.begin(chain);
        for one in &found.descriptors {
            self.add(memory, chain, one.address, one.len, one.flags);
        }
        let id = found.descriptors.last().map_or(0, |last| last.id);
        let slots = found.descriptors.len() as u16;
        Ok(Some(self.take(id, slots, found.entry)))
    }

    fn relocate(&mut self, areas: RingAreas) -> Result<(), SetupError> {
        areas.check(super::lengths(self.config.size), ALIGNMENTS)?;
        self.ring = areas.descriptors;
        self.driver = areas.driver;
        self.device = areas.device;
        Ok(())
    }

    fn untake(&mut self, tokens: &[&Token]) -> bool {
        if self.pending != 0 || usize::from(self.in_flight) != tokens.len() {
            return false;
        }
        // The chains from the used place on must be these very ones: their descriptors are untouched.
        let mut wanted: Vec<(u16, u16)> = tokens.iter().map(|one| (one.id, one.slots)).collect();
        let mut found = Vec::with_capacity(wanted.len());
        let (mut place, mut length) = (self.used, 0);
        for _ in 0..self.slots {
            let word = self.ring.load64(place.offset() + 8);
            length += 1;
            if super::flags(word) & DESC_NEXT == 0 {
                found.push(((word >> 32) as u16, std::mem::take(&mut length)));
            }
            place = place.advance(1, self.config.size);
        }
        wanted.sort_unstable();
        found.sort_unstable();
        if wanted != found {
            return false;
        }
        if let Some(log) = &mut self.log {
            tokens.iter().for_each(|token| log.push(token.entry));
            log.before_publish(self.used.into());
            log.after_publish(self.used.into());
        }
        self.avail = self.used;
        (self.slots, self.in_flight) = (0, 0);
        true
    }

    #[inline]
    fn push(&mut self, token: Token, written: u32) {
        if token.life != self.life {
            return;
        }
        let place = self.used;
        let flags = place.used() | if written != 0 { DESC_WRITE } else { 0 };
        let word = super::word(written, token.id, flags);
        match self.held {
            // The guest looks at the first one first.
            None => self.held = Some((place, word)),
            Some(_) => self.ring.store64(place.offset() + 8, word),
        }
        self.used = place.advance(token.slots, self.config.size);
        self.pending += token.slots;
        self.slots -= token.slots;
        self.in_flight -= 1;
        if let Some(log) = &mut self.log {
            log.push(token.entry);
        }
    }

    fn publish(&mut self) -> bool {
        let Some((place, word)) = self.held.take() else {
            return false;
        };
        if let Some(log) = &mut self.log {
            log.before_publish(self.used.into());
        }
        self.ring.store64_release(place.offset() + 8, word);
        if let Some(log) = &mut self.log {
            log.after_publish(self.used.into());
        }
        // The flags must be visible before the guest's wish is read.
        fence(Ordering::SeqCst);
        let count = std::mem::take(&mut self.pending);
        let (size, event_index) = (self.config.size, self.config.event_index);
        let wants = super::wants_event(&self.driver, event_index, self.used, count, size);
        let first = std::mem::replace(&mut self.first, false);
        wants || (first && event_index)
    }

    fn disable_kicks(&mut self) {
        super::want_no_events(&self.device);
    }

    fn enable_kicks(&mut self) -> Result<bool, RingError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        super::want_events(&self.device, self.config.event_index, self.avail);
        fence(Ordering::SeqCst);
        Ok(self.next().is_some())
    }

    fn in_flight(&self) -> u16 {
        self.in_flight
    }

    fn base(&self) -> u32 {
        u32::from(self.avail.bits()) | u32::from(self.used.bits()) << 16
    }

    fn stop(&mut self) -> u32 {
        self.error = Some(RingError::Stopped);
        self.life = new_life();
        self.in_flight = 0;
        self.slots = 0;
        self.base()
    }
}
