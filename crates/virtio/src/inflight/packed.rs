//! The log of a packed ring: it also keeps the descriptors, which the ring may have overwritten.

use super::{AT_COUNT, AT_VERSION, VERSION};
use crate::{memory::Area, ring::SetupError};

const AT_FREE: usize = 12;
const AT_OLD_FREE: usize = 14;
const AT_USED: usize = 16;
const AT_OLD_USED: usize = 18;
const AT_USED_WRAP: usize = 20;
const AT_OLD_USED_WRAP: usize = 21;
const HEAD: usize = 32;
/// One descriptor: inflight u8, a byte of padding, next u16, last u16, num u16, counter u64, id u16,
/// flags u16, len u32, addr u64.
const STATE: usize = 32;
const NEXT: usize = 2;
const LAST: usize = 4;
const NUM: usize = 6;
const COUNTER: usize = 8;
const ID: usize = 16;
const FLAGS: usize = 18;
const LEN: usize = 20;
const ADDRESS: usize = 24;

/// Bytes of the log.
pub(super) fn length(size: u16) -> usize {
    HEAD + usize::from(size) * STATE
}

fn state(entry: u16) -> usize {
    HEAD + usize::from(entry) * STATE
}

/// A descriptor as the log keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Logged {
    pub address: u64,
    pub len: u32,
    pub id: u16,
    pub flags: u16,
}

/// A chain that was in flight.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub entry: u16,
    pub descriptors: Vec<Logged>,
}

/// Where the used side of the ring stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub index: u16,
    pub wrap: bool,
}

/// The log of a packed ring.
#[derive(Debug)]
pub(crate) struct Packed {
    area: Area,
    size: u16,
    counter: u64,
    /// The free list, and chains: our own copy of what `next` says.
    next: Box<[u16]>,
    /// By head: the chain's last entry.
    last: Box<[u16]>,
    free: u16,
    /// The free list's head before the chain that is being taken.
    old_free: u16,
    /// Descriptors of the chain that is being taken.
    num: u16,
    /// Heads pushed and not yet published.
    batch: Vec<u16>,
    /// To be done again, the first one last.
    resume: Vec<Found>,
}

impl Packed {
    /// Opens a log. If it was used, also gives where the used side stands. `is_used` says of a place
    /// whether its descriptor is marked as used.
    pub fn open(
        area: Area,
        size: u16,
        is_used: impl FnOnce(Place) -> bool,
    ) -> Result<(Packed, Option<Place>), SetupError> {
        let was_used = super::check_head(&area, size, length(size))?;
        let mut log = Packed {
            area,
            size,
            counter: 0,
            next: (1..=size).collect(),
            last: vec![0; usize::from(size)].into(),
            free: 0,
            old_free: 0,
            num: 0,
            batch: Vec::with_capacity(size.into()),
            resume: Vec::new(),
        };
        if was_used {
            let place = log.recover(is_used)?;
            return Ok((log, Some(place)));
        }
        for entry in 0..size {
            log.area.store16(state(entry) + NEXT, entry + 1);
        }
        log.area.store16(AT_COUNT, size);
        Ok((log, None))
    }

    /// Begins a log that nobody used, at a place.
    pub fn begin(&mut self, place: Place) {
        self.store_used(AT_USED, AT_USED_WRAP, place);
        self.store_used(AT_OLD_USED, AT_OLD_USED_WRAP, place);
        self.area.store16_release(AT_VERSION, VERSION);
    }

    fn store_used(&self, index: usize, wrap: usize, place: Place) {
        self.area.store16_release(index, place.index);
        self.area.store8_release(wrap, u8::from(place.wrap));
    }

    fn load_used(&self, index: usize, wrap: usize) -> Result<Place, SetupError> {
        let (index, wrap) = (self.area.load16(index), self.area.load8(wrap));
        if index >= self.size || wrap > 1 {
            return Err(SetupError::Inflight("its used index is beyond the queue"));
        }
        Ok(Place {
            index,
            wrap: wrap == 1,
        })
    }

    /// Reads what is in flight, after it went forward or back to the last whole batch.
    fn recover(&mut self, is_used: impl FnOnce(Place) -> bool) -> Result<Place, SetupError> {
        let (new, old) = (
            self.load_used(AT_USED, AT_USED_WRAP)?,
            self.load_used(AT_OLD_USED, AT_OLD_USED_WRAP)?,
        );
        // The guest saw the batch, or it did not.
        let forward = new != old && is_used(old);
        let place = if forward { new } else { old };
        let free = self
            .area
            .load16(if forward { AT_FREE } else { AT_OLD_FREE });
        let free_entries = self.load_free(free)?;
        (self.free, self.old_free) = (free, free);
        let mut found = Vec::new();
        let mut owned = vec![false; usize::from(self.size)];
        for entry in &free_entries {
            self.area.store8(state(*entry), 0);
            owned[usize::from(*entry)] = true;
        }
        for entry in 0..self.size {
            if self.area.load8(state(entry)) == 1 && !owned[usize::from(entry)] {
                let counter = self.area.load64(state(entry) + COUNTER);
                found.push((counter, self.load_chain(entry, &mut owned)?));
            }
        }
        if owned.contains(&false) {
            return Err(SetupError::Inflight(
                "an entry of it is neither free nor in use",
            ));
        }
        found.sort_unstable_by_key(|&(counter, _)| counter);
        self.counter = found.last().map_or(0, |last| last.0.wrapping_add(1));
        self.resume = found.into_iter().rev().map(|(_, found)| found).collect();
        self.area.store16_release(AT_FREE, free);
        self.area.store16_release(AT_OLD_FREE, free);
        self.store_used(AT_USED, AT_USED_WRAP, place);
        self.store_used(AT_OLD_USED, AT_OLD_USED_WRAP, place);
        Ok(place)
    }

    /// The free list from its head on; its end is a number beyond the entries.
    fn load_free(&mut self, free: u16) -> Result<Vec<u16>, SetupError> {
        let mut entries = Vec::new();
        let mut entry = free;
        while entry < self.size {
            if entries.len() >= usize::from(self.size) {
                return Err(SetupError::Inflight("its free list has a loop"));
            }
            entries.push(entry);
            let next = self.area.load16(state(entry) + NEXT);
            self.next[usize::from(entry)] = next;
            entry = next;
        }
        Ok(entries)
    }

    fn load_chain(&mut self, head: u16, owned: &mut [bool]) -> Result<Found, SetupError> {
        const BROKEN: SetupError = SetupError::Inflight("a chain of it leads nowhere");
        let num = self.area.load16(state(head) + NUM);
        let last = self.area.load16(state(head) + LAST);
        let (mut entry, mut descriptors) = (head, Vec::new());
        for n in 0..num {
            // No entry belongs to two chains, so this ends.
            if entry >= self.size || std::mem::replace(&mut owned[usize::from(entry)], true) {
                return Err(BROKEN);
            }
            let at = state(entry);
            descriptors.push(Logged {
                address: self.area.load64(at + ADDRESS),
                len: self.area.load32(at + LEN),
                id: self.area.load16(at + ID),
                flags: self.area.load16(at + FLAGS),
            });
            if n + 1 == num {
                break;
            }
            let next = self.area.load16(at + NEXT);
            self.next[usize::from(entry)] = next;
            entry = next;
        }
        if num == 0 || entry != last {
            return Err(BROKEN);
        }
        self.last[usize::from(head)] = last;
        Ok(Found {
            entry: head,
            descriptors,
        })
    }

    /// Descriptors of all chains that are to be done again.
    pub fn descriptors(&self) -> usize {
        self.resume
            .iter()
            .map(|found| found.descriptors.len())
            .sum()
    }

    /// The next chain to be done again.
    pub fn resume(&mut self) -> Option<Found> {
        self.resume.pop()
    }

    /// A descriptor of the chain that is being taken.
    ///
    /// The caller counts: never more descriptors are in flight than the queue has.
    #[inline]
    pub fn add(&mut self, descriptor: Logged, last: bool) -> u16 {
        let head = self.old_free;
        if self.num == 0 {
            self.area.store64(state(head) + COUNTER, self.counter);
            self.counter = self.counter.wrapping_add(1);
            self.area.store8(state(head), 1);
        }
        self.num += 1;
        let (entry, at) = (self.free, state(self.free));
        self.area.store16(at + ID, descriptor.id);
        self.area.store16(at + FLAGS, descriptor.flags);
        self.area.store32(at + LEN, descriptor.len);
        self.area.store64(at + ADDRESS, descriptor.address);
        self.free = self.next[usize::from(entry)];
        if last {
            self.area.store16(state(head) + LAST, entry);
            self.area.store16(state(head) + NUM, self.num);
            self.last[usize::from(head)] = entry;
            (self.num, self.old_free) = (0, self.free);
            self.area.store16_release(AT_FREE, self.free);
            // From here on it is in flight.
            self.area.store16_release(AT_OLD_FREE, self.free);
        }
        head
    }

    /// The chain that is being taken turned out to be broken.
    #[cold]
    pub fn abandon(&mut self) {
        self.area.store8(state(self.old_free), 0);
        (self.num, self.free) = (0, self.old_free);
    }

    /// A chain was pushed.
    #[inline]
    pub fn push(&mut self, head: u16) {
        self.batch.push(head);
    }

    /// All that was pushed is about to be shown to the guest.
    pub fn before_publish(&mut self, place: Place) {
        for &head in &self.batch {
            let last = self.last[usize::from(head)];
            self.next[usize::from(last)] = self.free;
            self.area.store16(state(last) + NEXT, self.free);
            self.free = head;
        }
        self.area.store16_release(AT_FREE, self.free);
        self.store_used(AT_USED, AT_USED_WRAP, place);
    }

    /// The guest can see all that was pushed.
    pub fn after_publish(&mut self, place: Place) {
        for head in self.batch.drain(..) {
            self.area.store8_release(state(head), 0);
        }
        self.old_free = self.free;
        self.area.store16_release(AT_OLD_FREE, self.free);
        self.store_used(AT_OLD_USED, AT_OLD_USED_WRAP, place);
    }
}
