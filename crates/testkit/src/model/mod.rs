//! The checker: any device is an array of bytes, with facts about its extents.
//!
//! For each byte the model keeps every write that may be the one a read finds. A write is one of
//! them from its submission on; it is out once another write that was submitted after it had
//! completed has completed itself. So requests in flight that overlap may mix byte by byte, as the
//! contract allows, and nothing else may. The same rule with "made durable" in place of "completed"
//! says what a crash may leave.
//!
//! *What it checks.* Reads give one of the admissible bytes. What a quiet read found, later reads
//! find too. Extents start at the request, cover at least something and not more than was asked, and
//! what they call zero reads as zero. After a failed flush no flush succeeds. After a crash each
//! byte has a value not older than the last acknowledged flush or FUA.
//!
//! *Cost.* Bytes are not stored but computed (see [`content`]); ranges with the same history share
//! one list. A request costs about as much as copying its bytes.

pub mod content;
mod history;

use std::{collections::BTreeMap, fmt};

use block::{Errno, Extent, ExtentFlags, ExtentList, Flags, Op};
use reactor::sim::mix;

use content::Content;
use history::{History, Moment};

/// The contract was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Violation {}

/// The model of one device. See the [module](self).
pub struct Model {
    history: History,
    /// What is in flight, by the moment it was submitted.
    in_flight: BTreeMap<Moment, InFlight>,
    now: Moment,
    /// Errors are part of the test: a write that failed may have been done, in part or not at all.
    tolerant: bool,
    /// A flush failed at this moment: no later one may succeed.
    flush_failed: Option<Moment>,
    checked: u64,
    digest: u64,
}

struct InFlight {
    op: Op,
    offset: u64,
    len: u64,
    flags: Flags,
    /// Index of the write, for what modifies.
    write: Option<usize>,
}

/// One request in flight, as the model knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token(Moment);

/// What a request found.
pub enum Found<'a> {
    /// Nothing: it was not asked to.
    Nothing,
    /// A read's bytes.
    Bytes(&'a [u8]),
    /// What an extents query found.
    Extents(&'a ExtentList),
}

impl Model {
    /// A device of `size` bytes that reads as zeroes.
    pub fn zeroed(size: u64) -> Model {
        Model::with(size, Content::Zero)
    }

    /// A device with these bytes.
    pub fn of(bytes: &[u8]) -> Model {
        Model::with(bytes.len() as u64, Content::seen(0, bytes))
    }

    fn with(size: u64, content: Content) -> Model {
        Model {
            history: History::new(size, content),
            in_flight: BTreeMap::new(),
            now: 1,
            tolerant: false,
            flush_failed: None,
            checked: 0,
            digest: 0,
        }
    }

    /// Accepts failing requests.
    pub fn tolerant(mut self) -> Model {
        self.tolerant = true;
        self
    }

    /// Size of the device in bytes.
    pub fn size(&self) -> u64 {
        self.history.size()
    }

    /// Requests that were checked to their end.
    pub fn checked(&self) -> u64 {
        self.checked
    }

    /// All completions so far, as one number.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// A request is about to be submitted.
    pub fn begin(&mut self, op: Op, offset: u64, len: u64, flags: Flags) -> Token {
        let at = self.tick();
        let content = match op {
            Op::Write => Some(Content::Pattern(at)),
            Op::WriteZeroes => Some(Content::Zero),
            Op::Discard | Op::SecureErase => Some(Content::Any),
            _ => None,
        };
        let write = content.map(|content| {
            let floor = self.oldest();
            self.history.begin(offset, len, content, at, floor)
        });
        let request = InFlight {
            op,
            offset,
            len,
            flags,
            write,
        };
        self.in_flight.insert(at, request);
        Token(at)
    }

    /// The bytes a write carries: unique to it, and to each position.
    pub fn fill(&self, token: Token, offset: u64, bytes: &mut [u8]) {
        Content::Pattern(token.0).fill(offset, bytes);
    }

    /// A request has completed. Tokens from before a crash are ignored.
    pub fn end(
        &mut self,
        token: Token,
        outcome: Result<(), Errno>,
        found: Found,
    ) -> Result<(), Violation> {
        let Some(request) = self.in_flight.remove(&token.0) else {
            return Ok(());
        };
        let now = self.tick();
        self.checked += 1;
        let code = outcome.err().map_or(0, Errno::get) as u64;
        let story = [request.op as u64, request.offset, request.len, code];
        for word in story {
            self.digest = mix(self.digest ^ word);
        }
        self.checked_end(&request, token.0, now, outcome, found)
            .map_err(|why| {
                let InFlight {
                    op,
                    offset,
                    len,
                    flags,
                    ..
                } = request;
                Violation(format!("{op} {offset}+{len} {flags:?}: {why}"))
            })
    }

    fn checked_end(
        &mut self,
        request: &InFlight,
        begun: Moment,
        now: Moment,
        outcome: Result<(), Errno>,
        found: Found,
    ) -> Result<(), String> {
        let (offset, len) = (request.offset, request.len);
        if let Some(write) = request.write {
            let fua = request.flags.contains(Flags::FUA);
            self.history.end(write, now, outcome.is_ok(), fua);
        }
        if let Err(errno) = outcome {
            if request.op == Op::Flush && errno != Errno::ENOTSUP {
                self.flush_failed.get_or_insert(now);
            }
            let slow_zero = errno == Errno::ENOTSUP && request.flags.contains(Flags::FAST_ZERO);
            return match self.tolerant || slow_zero {
                true => Ok(()),
                false => Err(format!("failed with {errno:?}")),
            };
        }
        match (request.op, found) {
            (Op::Read, Found::Bytes(bytes)) if bytes.len() as u64 == len => {
                self.history.check_read(offset, bytes, begun)?;
                if self.is_quiet(offset, len, begun) {
                    self.history.observe(offset, bytes, begun, now);
                }
                Ok(())
            }
            (Op::Read, Found::Bytes(bytes)) => Err(format!("gave {} bytes", bytes.len())),
            (Op::Read, _) => Err("gave no bytes".into()),
            (Op::Extents, Found::Extents(list)) => {
                self.check_extents(offset, len, list, begun, now)
            }
            (Op::Extents, _) => Err("gave no extents".into()),
            (Op::Flush, _) => {
                if self.flush_failed.is_some_and(|failed| failed < begun) {
                    return Err("succeeded although a flush before it had failed".into());
                }
                self.history.flushed(begun);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn check_extents(
        &mut self,
        offset: u64,
        len: u64,
        list: &ExtentList,
        begun: Moment,
        now: Moment,
    ) -> Result<(), String> {
        let covered = list.covered();
        if covered > len || (covered == 0 && len > 0) {
            return Err(format!(
                "extents cover {covered} bytes: {:?}",
                list.allocation()
            ));
        }
        let mut at = offset;
        for &Extent { len, flags } in list.allocation() {
            if len == 0 {
                return Err("an extent is empty".into());
            }
            if ExtentFlags(flags).is_zero() {
                self.history
                    .check_zero(at, len, begun)
                    .map_err(|why| format!("{at}+{len} is called zero, but {why}"))?;
                if self.is_quiet(at, len, begun) {
                    self.history.observe_zero(at, len, begun, now);
                }
            }
            at += len;
        }
        Ok(())
    }

    /// The power has failed: what is in flight is given up, and later completions of it ignored.
    pub fn crash(&mut self) {
        let now = self.tick();
        for (_, request) in std::mem::take(&mut self.in_flight) {
            if let Some(write) = request.write {
                self.history.end(write, now, false, false);
            }
        }
        self.flush_failed = None;
    }

    /// After a crash: these bytes were found. From here on they are what the device holds.
    pub fn recovered(&mut self, image: &[u8]) -> Result<(), Violation> {
        assert!(self.in_flight.is_empty(), "a crash gives everything up");
        self.history
            .check_recovered(image)
            .map_err(|why| Violation(format!("after the crash {why}")))?;
        self.history = History::new(image.len() as u64, Content::seen(0, image));
        Ok(())
    }

    /// Nothing that modifies the range was in flight since `begun`.
    fn is_quiet(&self, offset: u64, len: u64, begun: Moment) -> bool {
        !self.history.changed_since(offset, len, begun)
    }

    fn oldest(&self) -> Moment {
        self.in_flight.keys().next().copied().unwrap_or(self.now)
    }

    fn tick(&mut self) -> Moment {
        self.now += 1;
        self.now
    }
}

#[cfg(test)]
mod tests;
