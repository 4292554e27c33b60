//! Extents: which ranges of a device are allocated, which read as zeroes.
//!
//! Extents are (length, flags) pairs that follow one another from the start of the request they
//! answer, so a filter that shifts offsets has nothing to rewrite on the way up.

use std::sync::Arc;

/// State of an extent, as in the NBD specification's `base:allocation` context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ExtentFlags(pub u64);

impl ExtentFlags {
    /// Allocated, contents unknown.
    pub const DATA: ExtentFlags = ExtentFlags(0);
    /// Not allocated (NBD_STATE_HOLE).
    pub const HOLE: ExtentFlags = ExtentFlags(1);
    /// Reads as zeroes (NBD_STATE_ZERO).
    pub const ZERO: ExtentFlags = ExtentFlags(2);
    /// Not allocated and reads as zeroes.
    pub const HOLE_ZERO: ExtentFlags = ExtentFlags(3);

    /// Reads as zeroes?
    pub const fn is_zero(self) -> bool {
        self.0 & 2 != 0
    }

    /// Not allocated?
    pub const fn is_hole(self) -> bool {
        self.0 & 1 != 0
    }
}

/// One range with one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Length in bytes, never 0.
    pub len: u64,
    /// Its state, in the context's own bits.
    pub flags: u64,
}

/// The answer to [`crate::Op::Extents`]: one run of extents per context.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtentList {
    allocation: Vec<Extent>,
    others: Vec<(Arc<str>, Vec<Extent>)>,
}

impl ExtentList {
    /// The most extents one answer holds; a longer run is cut short, as the protocols allow.
    pub const MAX: usize = 1 << 16;

    /// Nothing yet.
    pub fn new() -> ExtentList {
        ExtentList::default()
    }

    /// One extent that covers all.
    pub fn one(len: u64, flags: ExtentFlags) -> ExtentList {
        let mut list = ExtentList::new();
        list.push(len, flags);
        list
    }

    /// Adds an extent behind; it merges with an equal neighbour, an empty one vanishes. Returns
    /// false, and adds nothing, when the list is full.
    pub fn push(&mut self, len: u64, flags: ExtentFlags) -> bool {
        push(&mut self.allocation, len, flags.0)
    }

    /// Adds an extent to the run of another context than `base:allocation`.
    pub fn push_in(&mut self, context: &Arc<str>, len: u64, flags: u64) -> bool {
        let at = self
            .others
            .iter()
            .position(|(name, _)| name == context)
            .unwrap_or_else(|| {
                self.others.push((context.clone(), Vec::new()));
                self.others.len() - 1
            });
        push(&mut self.others[at].1, len, flags)
    }

    /// The run of `base:allocation`.
    pub fn allocation(&self) -> &[Extent] {
        &self.allocation
    }

    /// The run of any context, if the device reported it.
    pub fn context(&self, name: &str) -> Option<&[Extent]> {
        if name == "base:allocation" {
            return Some(&self.allocation);
        }
        self.others
            .iter()
            .find(|(other, _)| &**other == name)
            .map(|(_, run)| run.as_slice())
    }

    /// How far the run of `base:allocation` reaches, in bytes.
    pub fn covered(&self) -> u64 {
        reach(&self.allocation)
    }

    /// Cuts every run to at most `len` bytes.
    pub fn truncate(&mut self, len: u64) {
        truncate(&mut self.allocation, len);
        self.others
            .iter_mut()
            .for_each(|(_, run)| truncate(run, len));
    }

    /// Forgets the first `len` bytes of every run.
    pub fn advance(&mut self, len: u64) {
        advance(&mut self.allocation, len);
        self.others
            .iter_mut()
            .for_each(|(_, run)| advance(run, len));
    }

    /// How far every run reaches, in bytes: behind that, what follows would be out of place.
    pub fn covered_by_all(&self) -> u64 {
        let others = self.others.iter().map(|(_, run)| reach(run));
        others.fold(self.covered(), u64::min)
    }

    /// Adds the runs of `other` behind; contexts that only one of them has are dropped. The caller
    /// sees to it that every run of `self` ends where `other` begins.
    pub fn append(&mut self, other: &ExtentList) {
        append(&mut self.allocation, &other.allocation);
        self.others
            .retain(|(name, _)| other.context(name).is_some());
        for (name, run) in &mut self.others {
            append(run, other.context(name).unwrap_or_default());
        }
    }

    /// `base:allocation` read as zeroes all along?
    pub fn all_zero(&self) -> bool {
        self.allocation
            .iter()
            .all(|e| ExtentFlags(e.flags).is_zero())
    }
}

fn push(run: &mut Vec<Extent>, len: u64, flags: u64) -> bool {
    if len == 0 {
        return true;
    }
    // A full run takes nothing more, not even by merging: what lies between may have been refused.
    if run.len() >= ExtentList::MAX {
        return false;
    }
    match run.last_mut().filter(|last| last.flags == flags) {
        Some(last) => last.len = last.len.saturating_add(len),
        None => run.push(Extent { len, flags }),
    }
    true
}

fn append(run: &mut Vec<Extent>, more: &[Extent]) {
    more.iter().all(|e| push(run, e.len, e.flags));
}

fn reach(run: &[Extent]) -> u64 {
    run.iter().fold(0, |sum, e| sum.saturating_add(e.len))
}

fn truncate(run: &mut Vec<Extent>, len: u64) {
    let mut left = len;
    run.retain_mut(|extent| {
        extent.len = extent.len.min(left);
        left -= extent.len;
        extent.len > 0
    });
}

fn advance(run: &mut Vec<Extent>, len: u64) {
    let mut skip = len;
    run.retain_mut(|extent| {
        let here = skip.min(extent.len);
        skip -= here;
        extent.len -= here;
        extent.len > 0
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_merge_append_and_truncate() {
        let mut list = ExtentList::one(10, ExtentFlags::DATA);
        list.push(5, ExtentFlags::DATA);
        list.push(0, ExtentFlags::HOLE);
        list.append(&ExtentList::one(7, ExtentFlags::HOLE_ZERO));
        assert_eq!(list.allocation().len(), 2);
        assert_eq!((list.covered(), list.all_zero()), (22, false));
        list.truncate(16);
        assert_eq!(list.allocation()[1], Extent { len: 1, flags: 3 });
        list.advance(14);
        assert_eq!(
            list.allocation(),
            [Extent { len: 1, flags: 0 }, Extent { len: 1, flags: 3 }]
        );
        list.truncate(1);
        assert_eq!(list.allocation().len(), 1);
    }

    #[test]
    fn lists_are_bounded() {
        let mut list = ExtentList::new();
        let added = (0..ExtentList::MAX as u64 + 9)
            .filter(|i| list.push(1, ExtentFlags(i % 2)))
            .count();
        assert_eq!(added, ExtentList::MAX);
    }

    #[test]
    fn other_contexts_are_kept_apart() {
        let depth: Arc<str> = "qemu:allocation-depth".into();
        let mut list = ExtentList::one(4, ExtentFlags::DATA);
        list.push_in(&depth, 4, 2);
        assert_eq!(
            list.context(&depth),
            Some(&[Extent { len: 4, flags: 2 }][..])
        );
        list.append(&ExtentList::one(4, ExtentFlags::DATA));
        assert_eq!(list.context(&depth), None, "one side does not know it");
    }
}
