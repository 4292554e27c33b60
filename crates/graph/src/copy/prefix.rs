//! How far pieces that are done in any order are done without a gap, and what is done behind it.

use std::{collections::BTreeMap, ops::Range};

/// See the [module](self).
#[derive(Default)]
pub struct Prefix {
    end: u64,
    total: u64,
    /// What is done behind a gap: ends by starts. Neighbours are one, so there are as many at most
    /// as pieces on their way and windows of the plan.
    later: BTreeMap<u64, u64>,
}

impl Prefix {
    /// A piece is done. Pieces do not overlap.
    pub fn add(&mut self, offset: u64, len: u64) {
        self.total += len;
        let end = self.later.remove(&(offset + len)).unwrap_or(offset + len);
        match self.later.range_mut(..offset).next_back() {
            Some((_, before)) if *before == offset => *before = end,
            _ => drop(self.later.insert(offset, end)),
        }
        while let Some(first) = self.later.first_entry()
            && *first.key() <= self.end
        {
            self.end = first.remove();
        }
    }

    /// Everything before this is done.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Bytes that are done.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// All that is done, in order.
    pub fn done(&self) -> Vec<Range<u64>> {
        let later = self.later.iter().map(|(start, end)| *start..*end);
        let all = std::iter::once(0..self.end).chain(later);
        all.filter(|range| !range.is_empty()).collect()
    }

    /// What is missing of a disk of `size` bytes, in order.
    pub fn missing(&self, size: u64) -> Vec<Range<u64>> {
        let starts = std::iter::once(self.end).chain(self.later.values().copied());
        let ends = self.later.keys().copied().chain([size]);
        let gaps = starts.zip(ends).map(|(start, end)| start..end);
        gaps.filter(|range| !range.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_closed_in_any_order() {
        let mut prefix = Prefix::default();
        prefix.add(10, 10);
        prefix.add(30, 5);
        assert_eq!((prefix.end(), prefix.total()), (0, 15));
        assert_eq!(prefix.done(), [10..20, 30..35]);
        assert_eq!(prefix.missing(40), [0..10, 20..30, 35..40]);
        prefix.add(0, 10);
        assert_eq!(prefix.end(), 20);
        prefix.add(20, 10);
        assert_eq!((prefix.end(), prefix.total()), (35, 35));
        assert_eq!(prefix.missing(35), []);
        for offset in [40, 60, 50, 70] {
            prefix.add(offset, 10);
        }
        assert_eq!(prefix.later.len(), 1, "neighbours are one");
        assert_eq!(
            (prefix.done(), prefix.missing(100)),
            (vec![0..35, 40..80], vec![35..40, 80..100])
        );
        prefix.add(35, 5);
        assert_eq!((prefix.end(), prefix.later.len()), (80, 0));
    }
}
