//! `stats`: counts requests, bytes, errors and latencies. A *hook*: it also sees completions.
//!
//! The data path does no atomic read-modify-write and touches no line that another CPU writes: each
//! reactor has a table of its own, which only it writes, and a reader adds the tables up. Latencies
//! are read off the turn's clock, so a request that begins and ends in one turn counts as 0.
//!
//! The report is logged when the server stops; [`StatsHandle::snapshot`] has it at any time.

use std::{
    fmt,
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use block::{
    Completed, Device, Filter, Inbox, Limits, Local, Next, Op, OpSet, OpenContext, Queue, Reactor,
    Request, Result, Tick, WrapDevice,
};
use config::Config;

/// Count requests, bytes, errors and latencies.
///
/// The figures are logged when the server stops.
#[derive(Config, Clone, Debug)]
pub struct StatsConfig;

/// The filter. See the [module](self).
pub struct Stats {
    name: Arc<str>,
    handle: StatsHandle,
}

impl From<StatsConfig> for Stats {
    fn from(_: StatsConfig) -> Stats {
        Stats {
            name: StatsConfig::schema().name.into(),
            handle: StatsHandle::default(),
        }
    }
}

impl Stats {
    /// Where to read the figures while the filter runs.
    pub fn handle(&self) -> StatsHandle {
        self.handle.clone()
    }
}

impl Filter for Stats {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn ops(&self) -> OpSet {
        OpSet::ALL
    }

    fn open<'a>(&'a self, cx: &'a OpenContext, next: Next) -> Local<'a, Result<Arc<dyn Device>>> {
        Box::pin(async move {
            let (device, handle) = (next.open(cx).await?, self.handle());
            let unchanged = |_: &mut Limits| {};
            Ok(WrapDevice::new(device, unchanged, move |reactor, next| {
                let counting = Rc::new(Counting {
                    table: handle.table(reactor),
                    reactor: reactor.clone(),
                });
                Ok(Rc::new(StatsQueue { next, counting }))
            }))
        })
    }

    fn stop<'a>(&'a self, _: &'a Reactor) -> Local<'a, ()> {
        Box::pin(async { tracing::info!(node = %self.name, "{}", self.handle.snapshot()) })
    }
}

struct StatsQueue {
    next: Rc<dyn Queue>,
    counting: Rc<Counting>,
}

impl Queue for StatsQueue {
    #[inline]
    fn submit(&self, mut req: Request) {
        let (counting, began) = (self.counting.clone(), self.counting.reactor.now());
        // Taken now: layers below may change the range.
        let (op, len) = (req.op(), req.len());
        req.on_complete(move |done| counting.count(op, len, began, done));
        self.next.submit(req);
    }
}

/// One reactor's side: its table and its clock.
struct Counting {
    table: Arc<Table>,
    reactor: Reactor,
}

impl Counting {
    #[inline]
    fn count(&self, op: Op, len: u64, began: Tick, done: &Completed) {
        let row = &self.table.0[op as usize];
        match done.error() {
            None => add(&row.bytes, if op.has_range() { len } else { 0 }),
            Some(_) => add(&row.errors, 1),
        }
        let nanos = self.reactor.now().0.saturating_sub(began.0);
        add(&row.latencies[bucket(nanos)], 1);
    }
}

/// Buckets of the latency histogram: bucket `n` counts latencies below 2^n ns (0 only for n = 0)
/// that the one before does not; the last has everything longer, from 9 minutes on.
pub const BUCKETS: usize = 41;

fn bucket(nanos: u64) -> usize {
    ((u64::BITS - nanos.leading_zeros()) as usize).min(BUCKETS - 1)
}

/// What one reactor counted. Aligned, so that no two tables share a cache line or its neighbour.
#[repr(align(128))]
struct Table([Row; Op::COUNT]);

struct Row {
    bytes: AtomicU64,
    errors: AtomicU64,
    latencies: [AtomicU64; BUCKETS],
}

impl Default for Row {
    fn default() -> Row {
        Row {
            bytes: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            latencies: [const { AtomicU64::new(0) }; BUCKETS],
        }
    }
}

/// Adds to a counter of which the caller is the only writer: a load and a store, no lock prefix.
#[inline]
fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed) + n, Ordering::Relaxed);
}

/// Reads the figures. Cheap to clone.
#[derive(Clone, Default)]
pub struct StatsHandle(Arc<Mutex<Tables>>);

/// The tables of all reactors that ever had a queue, each with the inbox of its reactor.
type Tables = Vec<(Arc<Inbox>, Arc<Table>)>;

impl StatsHandle {
    /// The table that this reactor writes. A reactor is known by its inbox, of which it has one.
    fn table(&self, reactor: &Reactor) -> Arc<Table> {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, table)) = tables
            .iter()
            .find(|(id, _)| Arc::ptr_eq(id, reactor.inbox()))
        {
            return table.clone();
        }
        let table = Arc::new(Table(Default::default()));
        tables.push((reactor.inbox().clone(), table.clone()));
        table
    }

    /// What was counted up to now, over all clients and reactors.
    pub fn snapshot(&self) -> Snapshot {
        let tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ops = Op::ALL.map(OpStats::new).to_vec();
        for (_, table) in tables.iter() {
            for (sum, row) in ops.iter_mut().zip(&table.0) {
                sum.bytes += row.bytes.load(Ordering::Relaxed);
                sum.errors += row.errors.load(Ordering::Relaxed);
                for (sum, n) in sum.latencies.iter_mut().zip(&row.latencies) {
                    *sum += n.load(Ordering::Relaxed);
                }
            }
        }
        Snapshot { ops }
    }
}

/// What was counted, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    ops: Vec<OpStats>,
}

/// What was counted of one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpStats {
    /// The operation.
    pub op: Op,
    /// Bytes of the requests that succeeded.
    pub bytes: u64,
    /// Requests that failed.
    pub errors: u64,
    /// How many requests took how long; see [`BUCKETS`].
    pub latencies: [u64; BUCKETS],
}

impl OpStats {
    fn new(op: Op) -> OpStats {
        OpStats {
            op,
            bytes: 0,
            errors: 0,
            latencies: [0; BUCKETS],
        }
    }

    /// Requests that completed, well or not.
    pub fn requests(&self) -> u64 {
        self.latencies.iter().sum()
    }

    /// A latency that this share of the requests (0 to 1) did not exceed: the upper end of the
    /// bucket it falls in. `None` if there were no requests.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let rank = (self.requests() as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        let reached = |n: &u64| {
            seen += n;
            seen >= rank
        };
        let bucket = self.latencies.iter().position(reached)?;
        Some(Duration::from_nanos((1_u64 << bucket) - 1))
    }
}

impl Snapshot {
    /// What was counted of an operation.
    pub fn of(&self, op: Op) -> &OpStats {
        &self.ops[op as usize]
    }

    /// The operations of which there were any.
    pub fn seen(&self) -> impl Iterator<Item = &OpStats> {
        self.ops.iter().filter(|op| op.requests() > 0)
    }
}

impl fmt::Display for Snapshot {
    /// One clause per operation, on one line: logs are read by line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.seen().next().is_none() {
            return f.write_str("no requests");
        }
        for (i, op) in self.seen().enumerate() {
            let quantile = |share| op.quantile(share).unwrap_or_default();
            write!(
                f,
                "{}{}: {} requests, {} bytes, {} errors, latency p50 <= {:?}, p99 <= {:?}",
                if i == 0 { "" } else { "; " },
                op.op,
                op.requests(),
                op.bytes,
                op.errors,
                quantile(0.5),
                quantile(0.99),
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_powers_of_two() {
        assert_eq!(
            [0, 1, 2, 3, 4, 1023, 1024].map(bucket),
            [0, 1, 2, 2, 3, 10, 11]
        );
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_upper_bounds() {
        let mut op = OpStats::new(Op::Read);
        assert_eq!(op.quantile(0.5), None);
        for nanos in [0, 100, 100, 5000] {
            op.latencies[bucket(nanos)] += 1;
        }
        let nanos = |share| op.quantile(share).map(|d| d.as_nanos());
        assert_eq!((nanos(0.25), nanos(0.5)), (Some(0), Some(127)));
        assert_eq!((nanos(0.99), nanos(0.0)), (Some(8191), Some(0)));
    }
}
