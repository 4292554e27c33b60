//! Which writes each byte may show.

use std::collections::BTreeMap;

use super::content::Content;

/// A point in the order of submissions and completions.
pub(super) type Moment = u64;

/// One write, write zeroes or discard, or what a quiet read has seen.
pub(super) struct Write {
    content: Content,
    submitted: Moment,
    /// `Moment::MAX` while it is in flight.
    completed: Moment,
    /// It completed well, so it was done.
    certain: bool,
    /// It is certain to survive a crash.
    durable: bool,
}

/// Indices of writes that touched a range since it was last certain.
type Candidates = Vec<usize>;

pub(super) struct History {
    size: u64,
    writes: Vec<Write>,
    /// Ranges by their start; each reaches to the next.
    runs: BTreeMap<u64, Candidates>,
    /// Writes before this one are durable or have failed: flushes need not look at them.
    flushed: usize,
}

impl Write {
    /// Once `self` is done, a read or a crash cannot find `older`.
    fn supersedes(&self, older: &Write) -> bool {
        self.submitted > older.completed
    }
}

impl History {
    pub fn new(size: u64, content: Content) -> History {
        let first = Write {
            content,
            submitted: 0,
            completed: 0,
            certain: true,
            durable: true,
        };
        History {
            size,
            writes: vec![first],
            runs: BTreeMap::from([(0, vec![0])]),
            flushed: 1,
        }
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// A write begins. Nothing that began before `floor` is in flight.
    pub fn begin(
        &mut self,
        offset: u64,
        len: u64,
        content: Content,
        at: Moment,
        floor: Moment,
    ) -> usize {
        let id = self.writes.len();
        self.writes.push(Write {
            content,
            submitted: at,
            completed: Moment::MAX,
            certain: false,
            durable: false,
        });
        self.add(offset, len, id, floor);
        id
    }

    /// A write has completed.
    pub fn end(&mut self, id: usize, at: Moment, ok: bool, fua: bool) {
        let write = &mut self.writes[id];
        write.completed = at;
        write.certain = ok;
        write.durable = ok && fua;
    }

    /// A flush that was submitted at `begun` has succeeded.
    pub fn flushed(&mut self, begun: Moment) {
        for write in &mut self.writes[self.flushed..] {
            write.durable |= write.certain && write.completed < begun;
        }
        let done = |w: &Write| w.completed != Moment::MAX && (w.durable || !w.certain);
        while self.writes.get(self.flushed).is_some_and(done) {
            self.flushed += 1;
        }
    }

    /// A write to the range completed after `begun`, or is in flight.
    pub fn changed_since(&self, offset: u64, len: u64, begun: Moment) -> bool {
        self.each(offset, len).any(|(_, _, candidates)| {
            let late = |&id: &usize| self.writes[id].completed > begun;
            candidates.iter().any(late)
        })
    }

    /// May a read that was submitted at `begun` have found these bytes?
    pub fn check_read(&self, offset: u64, bytes: &[u8], begun: Moment) -> Result<(), String> {
        for (at, len, candidates) in self.each(offset, bytes.len() as u64) {
            let found = &bytes[(at - offset) as usize..][..len as usize];
            let alive = self.readable(candidates, begun);
            self.check(at, found, &alive)?;
        }
        Ok(())
    }

    /// May the range have been zero for a request that was submitted at `begun`?
    pub fn check_zero(&self, offset: u64, len: u64, begun: Moment) -> Result<(), String> {
        for (at, len, candidates) in self.each(offset, len) {
            let alive = self.readable(candidates, begun);
            let zero = |&id: &usize| matches!(self.writes[id].content, Content::Zero);
            if !alive.iter().any(zero) {
                self.check(at, &vec![0; len as usize], &alive)?;
            }
        }
        Ok(())
    }

    /// A quiet read has found these bytes: later ones find them too, unless they were discarded.
    pub fn observe(&mut self, offset: u64, bytes: &[u8], begun: Moment, now: Moment) {
        for (at, len) in self.doubtful(offset, bytes.len() as u64, begun, false) {
            let seen = &bytes[(at - offset) as usize..][..len as usize];
            self.know(at, len, Content::seen(at, seen), now);
        }
    }

    /// A quiet extents query has called the range zero.
    pub fn observe_zero(&mut self, offset: u64, len: u64, begun: Moment, now: Moment) {
        for (at, len) in self.doubtful(offset, len, begun, true) {
            self.know(at, len, Content::Zero, now);
        }
    }

    /// May a crash have left these bytes?
    pub fn check_recovered(&self, image: &[u8]) -> Result<(), String> {
        for (at, len, candidates) in self.each(0, self.size) {
            let lost = |id: usize| {
                candidates
                    .iter()
                    .any(|&w| self.writes[w].durable && self.writes[w].supersedes(&self.writes[id]))
            };
            let alive: Candidates = candidates.iter().copied().filter(|&id| !lost(id)).collect();
            self.check(at, &image[at as usize..(at + len) as usize], &alive)?;
        }
        Ok(())
    }

    /// Ranges whose bytes are known only to be one of several.
    fn doubtful(&self, offset: u64, len: u64, begun: Moment, discarded: bool) -> Vec<(u64, u64)> {
        self.each(offset, len)
            .filter_map(|(at, len, candidates)| {
                let alive = self.readable(candidates, begun);
                let any = |&id: &usize| matches!(self.writes[id].content, Content::Any);
                let has_any = alive.iter().any(any);
                let doubt = (alive.len() > 1 && !has_any) || (has_any && discarded);
                doubt.then_some((at, len))
            })
            .collect()
    }

    fn know(&mut self, offset: u64, len: u64, content: Content, now: Moment) {
        let id = self.begin(offset, len, content, now, 0);
        self.end(id, now, true, false);
    }

    /// The candidates that a read submitted at `begun` may find.
    fn readable(&self, candidates: &Candidates, begun: Moment) -> Candidates {
        let gone = |id: usize| {
            candidates.iter().any(|&w| {
                let write = &self.writes[w];
                write.certain && write.completed < begun && write.supersedes(&self.writes[id])
            })
        };
        candidates.iter().copied().filter(|&id| !gone(id)).collect()
    }

    /// Is each byte that of one of the candidates?
    fn check(&self, at: u64, found: &[u8], alive: &Candidates) -> Result<(), String> {
        let contents: Vec<&Content> = alive.iter().map(|&id| &self.writes[id].content).collect();
        if contents.iter().any(|c| matches!(c, Content::Any)) {
            return Ok(());
        }
        let mut expected = vec![0; found.len()];
        for content in &contents {
            content.fill(at, &mut expected);
            if expected == found {
                return Ok(());
            }
        }
        // None of them alone: byte by byte, then.
        let mut explained = vec![false; found.len()];
        for content in &contents {
            content.fill(at, &mut expected);
            for (i, (a, b)) in expected.iter().zip(found).enumerate() {
                explained[i] |= a == b;
            }
        }
        let Some(wrong) = explained.iter().position(|&good| !good) else {
            return Ok(());
        };
        let position = at + wrong as u64;
        let mut choices = Vec::new();
        for (&id, content) in alive.iter().zip(&contents) {
            let mut byte = [0];
            content.fill(position, &mut byte);
            choices.push(format!(
                "{:#04x} of write {}",
                byte[0], self.writes[id].submitted
            ));
        }
        Err(format!(
            "byte {position} is {:#04x}, not {}",
            found[wrong],
            choices.join(" or ")
        ))
    }

    /// Adds a write to the candidates of a range, and drops those that nobody can find any more.
    fn add(&mut self, offset: u64, len: u64, id: usize, floor: Moment) {
        if len == 0 {
            return;
        }
        self.cut(offset);
        self.cut(offset + len);
        let writes = &self.writes;
        for (_, candidates) in self.runs.range_mut(offset..offset + len) {
            let gone = |&old: &usize| {
                candidates.iter().any(|&w| {
                    let write = &writes[w];
                    write.durable && write.completed < floor && write.supersedes(&writes[old])
                })
            };
            let mut kept: Candidates = candidates
                .iter()
                .filter(|old| !gone(old))
                .copied()
                .collect();
            kept.push(id);
            *candidates = kept;
        }
        self.join(offset, offset + len);
    }

    /// Makes a run begin at `at`.
    fn cut(&mut self, at: u64) {
        if at < self.size && !self.runs.contains_key(&at) {
            let (_, before) = self.runs.range(..at).next_back().expect("runs begin at 0");
            let before = before.clone();
            self.runs.insert(at, before);
        }
    }

    /// Joins neighbours with the same history.
    fn join(&mut self, from: u64, to: u64) {
        let starts: Vec<u64> = self.runs.range(from..=to).map(|(&at, _)| at).collect();
        for at in starts {
            let before = self.runs.range(..at).next_back();
            if before.is_some_and(|(_, list)| *list == self.runs[&at]) {
                self.runs.remove(&at);
            }
        }
    }

    /// The runs of a range: start, length, candidates.
    fn each(&self, offset: u64, len: u64) -> impl Iterator<Item = (u64, u64, &Candidates)> {
        let end = offset + len;
        let first = self
            .runs
            .range(..=offset)
            .next_back()
            .map_or(0, |(&at, _)| at);
        let mut runs = self.runs.range(first..).peekable();
        std::iter::from_fn(move || {
            let (&at, candidates) = runs.next()?;
            let stop = runs.peek().map_or(self.size, |&(&next, _)| next).min(end);
            let start = at.max(offset);
            (start < stop).then(|| (start, stop - start, candidates))
        })
    }
}
