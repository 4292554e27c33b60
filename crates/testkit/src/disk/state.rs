//! The bytes of a simulated disk: what reads find, what is durable, and every version between.

use std::collections::{BTreeMap, BTreeSet};

use block::{ExtentFlags, ExtentList, Op};
use reactor::sim::Rng;

use super::SECTOR;

/// Number of a write, in the order of submission.
pub(super) type WriteId = u64;

/// The state of one sector, as extents report it.
pub(super) type Fact = ExtentFlags;

/// Live and durable images and what lies between them.
pub(super) struct State {
    live: Vec<u8>,
    facts: Vec<Fact>,
    durable: Vec<u8>,
    durable_facts: Vec<Fact>,
    /// Versions of each sector since it was last durable, oldest first.
    dirty: BTreeMap<u64, Vec<Version>>,
    /// Writes that have not completed.
    open: BTreeSet<WriteId>,
    next_write: WriteId,
    in_flight: usize,
    pub rng: Rng,
    pub poisoned: bool,
    /// Counts crashes: queues of an earlier life are dead.
    pub life: u64,
    pub requests: u64,
    pub flushes: u64,
    pub by_op: [u64; Op::COUNT],
    pub most_in_flight: usize,
    pub violations: u64,
}

struct Version {
    write: WriteId,
    bytes: Box<[u8]>,
    fact: Fact,
}

/// What a flush has to make durable: the writes that had completed when it was submitted.
pub(super) struct FlushPoint {
    open: BTreeSet<WriteId>,
    next: WriteId,
}

/// What happens to a range.
#[derive(Clone, Copy)]
pub(super) enum Change<'a> {
    /// These bytes are written.
    Bytes(&'a [u8]),
    /// Zeroes; whole sectors get this state.
    Zeroes(Fact),
    /// Whole sectors are filled with anything.
    Garbage,
}

impl State {
    pub fn new(size: u64, rng: Rng) -> State {
        let sectors = size.div_ceil(SECTOR) as usize;
        State {
            live: vec![0; size as usize],
            facts: vec![Fact::HOLE_ZERO; sectors],
            durable: vec![0; size as usize],
            durable_facts: vec![Fact::HOLE_ZERO; sectors],
            dirty: BTreeMap::new(),
            open: BTreeSet::new(),
            next_write: 0,
            in_flight: 0,
            rng,
            poisoned: false,
            life: 0,
            requests: 0,
            flushes: 0,
            by_op: [0; Op::COUNT],
            most_in_flight: 0,
            violations: 0,
        }
    }

    pub fn image(&self) -> &[u8] {
        &self.live
    }

    pub fn durable_image(&self) -> &[u8] {
        &self.durable
    }

    pub fn preset(&mut self, offset: u64, bytes: &[u8]) {
        let at = offset as usize..offset as usize + bytes.len();
        self.live[at.clone()].copy_from_slice(bytes);
        self.durable[at].copy_from_slice(bytes);
        for sector in sectors(offset, bytes.len() as u64) {
            self.facts[sector as usize] = Fact::DATA;
            self.durable_facts[sector as usize] = Fact::DATA;
        }
    }

    /// A request has arrived.
    pub fn arrived(&mut self, op: Op) {
        self.requests += 1;
        self.by_op[op as usize] += 1;
        self.in_flight += 1;
        self.most_in_flight = self.most_in_flight.max(self.in_flight);
    }

    /// A request is about to complete.
    pub fn left(&mut self) {
        self.in_flight -= 1;
    }

    /// A write begins.
    pub fn open_write(&mut self) -> WriteId {
        let id = self.next_write;
        self.next_write += 1;
        self.open.insert(id);
        id
    }

    /// A write is about to complete; with FUA what it wrote is durable then.
    pub fn close_write(&mut self, id: WriteId, offset: u64, len: u64, fua: bool) {
        self.open.remove(&id);
        if !fua {
            return;
        }
        for sector in sectors(offset, len) {
            let versions = self.dirty.get(&sector);
            let last = versions.and_then(|list| list.iter().rposition(|v| v.write == id));
            if let Some(last) = last {
                self.make_durable(sector, last);
            }
        }
    }

    /// Part of a write (or the like) becomes visible. It is not durable yet.
    pub fn apply(&mut self, id: WriteId, offset: u64, len: u64, change: Change) {
        let end = offset + len;
        for sector in sectors(offset, len) {
            let (from, to) = (sector * SECTOR, self.sector_end(sector));
            let (start, stop) = (from.max(offset), to.min(end));
            let whole = start == from && stop == to;
            let fact = &mut self.facts[sector as usize];
            let bytes = &mut self.live[start as usize..stop as usize];
            match change {
                Change::Bytes(new) => {
                    bytes.copy_from_slice(&new[(start - offset) as usize..][..bytes.len()]);
                    *fact = Fact::DATA;
                }
                Change::Zeroes(state) => {
                    bytes.fill(0);
                    if whole {
                        *fact = state;
                    }
                }
                Change::Garbage if whole => {
                    self.rng.fill(bytes);
                    *fact = Fact::HOLE;
                }
                Change::Garbage => continue,
            }
            let version = Version {
                write: id,
                bytes: self.live[from as usize..to as usize].into(),
                fact: *fact,
            };
            self.dirty.entry(sector).or_default().push(version);
        }
    }

    /// What a flush submitted now has to cover.
    pub fn flush_point(&self) -> FlushPoint {
        FlushPoint {
            open: self.open.clone(),
            next: self.next_write,
        }
    }

    /// A flush is about to complete: what it has to cover is durable, and nothing more.
    pub fn flush(&mut self, point: &FlushPoint) {
        let covered = |v: &Version| v.write < point.next && !point.open.contains(&v.write);
        let last: Vec<(u64, usize)> = self
            .dirty
            .iter()
            .filter_map(|(&sector, list)| Some((sector, list.iter().rposition(covered)?)))
            .collect();
        for (sector, last) in last {
            self.make_durable(sector, last);
        }
    }

    /// The power fails.
    pub fn crash(&mut self) {
        for (sector, mut list) in std::mem::take(&mut self.dirty) {
            let kept = self.rng.index(list.len() + 1);
            if kept < list.len() {
                self.store(sector, list.swap_remove(kept));
            }
        }
        self.live.copy_from_slice(&self.durable);
        self.facts.copy_from_slice(&self.durable_facts);
        self.open.clear();
        self.poisoned = false;
        self.life += 1;
    }

    /// Copies bytes out.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) {
        bytes.copy_from_slice(&self.live[offset as usize..][..bytes.len()]);
    }

    /// The state of a range.
    pub fn extents(&self, offset: u64, len: u64) -> ExtentList {
        let mut list = ExtentList::new();
        let end = offset + len;
        for sector in sectors(offset, len) {
            let (from, to) = (sector * SECTOR, self.sector_end(sector));
            let here = to.min(end) - from.max(offset);
            if !list.push(here, self.facts[sector as usize]) {
                break;
            }
        }
        list
    }

    fn make_durable(&mut self, sector: u64, last: usize) {
        let Some(list) = self.dirty.get_mut(&sector) else {
            return;
        };
        let version = list.drain(..=last).next_back();
        if list.is_empty() {
            self.dirty.remove(&sector);
        }
        if let Some(version) = version {
            self.store(sector, version);
        }
    }

    fn store(&mut self, sector: u64, version: Version) {
        let at = (sector * SECTOR) as usize;
        self.durable[at..at + version.bytes.len()].copy_from_slice(&version.bytes);
        self.durable_facts[sector as usize] = version.fact;
    }

    fn sector_end(&self, sector: u64) -> u64 {
        ((sector + 1) * SECTOR).min(self.live.len() as u64)
    }
}

/// The sectors a range touches.
fn sectors(offset: u64, len: u64) -> std::ops::Range<u64> {
    match len {
        0 => 0..0,
        _ => offset / SECTOR..(offset + len).div_ceil(SECTOR),
    }
}
