//! The device's half of a split virtqueue.

use std::sync::atomic::{Ordering, fence};

use super::{ALIGNMENTS, ENTRIES, FLAGS, INDEX, NO_INTERRUPT, NO_NOTIFY};
use crate::{
    inflight,
    memory::{Area, Memory},
    ring::{
        Chain, DESC, DESC_INDIRECT, DESC_NEXT, DESC_WRITE, DeviceRing, Fault, RingAreas,
        RingConfig, RingError, SetupError, Token, chain::TableKind, new_life, passed,
    },
};

/// The device's half. See [`DeviceRing`].
#[derive(Debug)]
pub struct Device {
    descriptors: Area,
    driver: Area,
    device: Area,
    config: RingConfig,
    /// The next entry of the available ring.
    next_avail: u16,
    /// The available index as it was read last.
    seen_avail: u16,
    /// The used index as the guest sees it.
    used: u16,
    /// Entries written behind it, not yet published.
    pending: u16,
    /// Heads in flight: a guest that gives one twice breaks the ring.
    taken: Box<[bool]>,
    in_flight: u16,
    /// Nothing was published in this life: what the guest waits for is not known.
    first: bool,
    error: Option<RingError>,
    life: u32,
    log: Option<inflight::Split>,
}

impl Device {
    /// A queue that begins at `base` (SET_VRING_BASE); the used index goes on where the ring says.
    ///
    /// # Errors
    ///
    /// A size, an area or a base that no split ring has.
    pub fn new(areas: RingAreas, config: RingConfig, base: u32) -> Result<Device, SetupError> {
        super::check_size(config.size)?;
        areas.check(super::lengths(config.size), ALIGNMENTS)?;
        let next_avail = u16::try_from(base).map_err(|_| SetupError::Base)?;
        let used = areas.device.load16(INDEX);
        Ok(Device {
            descriptors: areas.descriptors,
            driver: areas.driver,
            device: areas.device,
            next_avail,
            seen_avail: next_avail,
            used,
            pending: 0,
            taken: vec![false; usize::from(config.size)].into(),
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
        let (log, found) = inflight::Split::open(log, config.size, device.used)?;
        if log.was_used() {
            device.next_avail = device.used.wrapping_add(found);
            device.seen_avail = device.next_avail;
        }
        device.log = Some(log);
        Ok(device)
    }

    fn fail<T>(&mut self, error: RingError) -> Result<T, RingError> {
        self.error = Some(error);
        Err(error)
    }

    /// How many chains are available, at most the queue's size.
    #[inline]
    fn available(&mut self) -> Result<u16, RingError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let to = self.driver.load16_acquire(INDEX);
        let count = to.wrapping_sub(self.next_avail);
        if count > self.config.size {
            let from = self.next_avail;
            return self.fail(RingError::Jump { from, to });
        }
        self.seen_avail = to;
        Ok(count)
    }

    /// Copies the chain of a head.
    #[inline]
    fn walk(&mut self, memory: &Memory, head: u16, chain: &mut Chain) -> Result<(), RingError> {
        let size = self.config.size;
        chain.begin(2 * usize::from(size.max(self.config.table_max)));
        let mut index = head;
        for _ in 0..size {
            if index >= size {
                return self.fail(RingError::Beyond(index));
            }
            let at = usize::from(index) * DESC;
            let address = self.descriptors.load64(at);
            let word = self.descriptors.load64(at + 8);
            let (len, flags, next) = (word as u32, (word >> 32) as u16, (word >> 48) as u16);
            if flags & DESC_INDIRECT == 0 {
                chain.add(memory, address, len, flags & DESC_WRITE != 0);
            } else if !self.config.indirect {
                chain.fail(Fault::NotAgreed);
            } else if flags & DESC_NEXT != 0 {
                chain.fail(Fault::Nested);
            } else {
                let most = self.config.table_max;
                chain.add_table(memory, address, len, most, TableKind::Split);
            }
            if flags & DESC_NEXT == 0 {
                return Ok(());
            }
            index = next;
        }
        self.fail(RingError::Loop)
    }

    /// Notes that a head is in flight.
    #[inline]
    fn take(&mut self, head: u16) -> Token {
        self.taken[usize::from(head)] = true;
        self.in_flight += 1;
        Token {
            id: head,
            slots: 1,
            entry: head,
            life: self.life,
        }
    }
}

impl DeviceRing for Device {
    #[inline]
    fn pop(&mut self, memory: &Memory, chain: &mut Chain) -> Result<Option<Token>, RingError> {
        if self.next_avail == self.seen_avail && self.available()? == 0 {
            return Ok(None);
        }
        if let Some(error) = self.error {
            return Err(error);
        }
        let slot = usize::from(self.next_avail & (self.config.size - 1));
        let head = self.driver.load16(ENTRIES + 2 * slot);
        match self.taken.get(usize::from(head)) {
            None => return self.fail(RingError::Beyond(head)),
            Some(true) => return self.fail(RingError::InUse(head)),
            // So many are not all the guest's: it does not see yet that some are used.
            Some(false) if self.in_flight + self.pending >= self.config.size => {
                return self.fail(RingError::InUse(head));
            }
            Some(false) => {}
        }
        self.walk(memory, head, chain)?;
        if let Some(log) = &mut self.log {
            log.take(head);
        }
        self.next_avail = self.next_avail.wrapping_add(1);
        Ok(Some(self.take(head)))
    }

    fn resume(&mut self, memory: &Memory, chain: &mut Chain) -> Result<Option<Token>, RingError> {
        let Some(head) = self.log.as_mut().and_then(inflight::Split::resume) else {
            return Ok(None);
        };
        // What was taken since is none of the log's.
        if self.taken[usize::from(head)] {
            return self.fail(RingError::InUse(head));
        }
        self.walk(memory, head, chain)?;
        Ok(Some(self.take(head)))
    }

    fn relocate(&mut self, areas: RingAreas) -> Result<(), SetupError> {
        areas.check(super::lengths(self.config.size), ALIGNMENTS)?;
        self.descriptors = areas.descriptors;
        self.driver = areas.driver;
        self.device = areas.device;
        Ok(())
    }

    fn untake(&mut self, tokens: &[&Token]) -> bool {
        let count = self.next_avail.wrapping_sub(self.used);
        if self.pending != 0 || usize::from(count) != tokens.len() || count != self.in_flight {
            return false;
        }
        // Those behind the used index must be these very ones.
        let mut seen = vec![false; self.taken.len()];
        for n in 0..count {
            let slot = usize::from(self.used.wrapping_add(n) & (self.config.size - 1));
            let head = usize::from(self.driver.load16(ENTRIES + 2 * slot));
            let known = self.taken.get(head) == Some(&true);
            if !known || std::mem::replace(&mut seen[head], true) {
                return false;
            }
        }
        if let Some(log) = &mut self.log {
            tokens.iter().for_each(|token| log.push(token.id));
            log.publish(self.used);
        }
        self.taken.fill(false);
        self.next_avail = self.used;
        self.seen_avail = self.used;
        self.in_flight = 0;
        true
    }

    #[inline]
    fn push(&mut self, token: Token, written: u32) {
        if token.life != self.life {
            return;
        }
        let slot = self.used.wrapping_add(self.pending) & (self.config.size - 1);
        let at = ENTRIES + 8 * usize::from(slot);
        self.device.store32(at, u32::from(token.id));
        self.device.store32(at + 4, written);
        self.pending += 1;
        self.in_flight -= 1;
        self.taken[usize::from(token.id)] = false;
        if let Some(log) = &mut self.log {
            log.push(token.id);
        }
    }

    fn publish(&mut self) -> bool {
        if self.pending == 0 {
            return false;
        }
        let old = self.used;
        self.used = old.wrapping_add(self.pending);
        self.pending = 0;
        self.device.store16_release(INDEX, self.used);
        if let Some(log) = &mut self.log {
            log.publish(self.used);
        }
        // The index must be visible before the guest's wish is read: the guest does it the other way
        // round.
        fence(Ordering::SeqCst);
        let first = std::mem::replace(&mut self.first, false);
        if self.config.event_index {
            let event = self.driver.load16(super::used_event(self.config.size));
            first || passed(event, self.used, old)
        } else {
            self.driver.load16(FLAGS) & NO_INTERRUPT == 0
        }
    }

    fn disable_kicks(&mut self) {
        // With an event index nothing is to do: it stays behind, and no kick comes.
        if !self.config.event_index {
            self.device.store16(FLAGS, NO_NOTIFY);
        }
    }

    fn enable_kicks(&mut self) -> Result<bool, RingError> {
        if self.config.event_index {
            let at = super::avail_event(self.config.size);
            self.device.store16(at, self.next_avail);
        } else {
            self.device.store16(FLAGS, 0);
        }
        // The wish must be visible before the index is read again.
        fence(Ordering::SeqCst);
        Ok(self.available()? != 0)
    }

    fn in_flight(&self) -> u16 {
        self.in_flight
    }

    fn base(&self) -> u32 {
        u32::from(self.next_avail)
    }

    fn stop(&mut self) -> u32 {
        // Nothing is taken any more: what was seen and not taken is the next life's.
        self.seen_avail = self.next_avail;
        self.error = Some(RingError::Stopped);
        self.life = new_life();
        self.in_flight = 0;
        self.base()
    }
}
