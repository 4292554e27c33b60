//! `blkit-load disk`: requests to a disk, through a library of libblkio's interface or through rings
//! of our own.
//!
//! **Why so.** The same program drives their library and ours, loaded by path, so that a difference
//! is the library's. libblkio has no in-flight log and no packed ring: for servers that offer them
//! there is a front-end on `virtio`'s own driver half.
//!
//! **Contract.** A [`Lane`] is one queue on one thread. A slot is in flight once at most, and its
//! buffer is touched only while it is not. Time is looked at once per batch.

mod blkio;
mod front;
mod pattern;

use std::{
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

use crate::{args::Args, engine::cpu_time, latency::Histogram};
use pattern::{Mix, Pattern, Stamp};

/// A disk that answers nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(20);

/// One queue.
trait Lane: Send {
    /// Begins a request of a whole buffer.
    fn submit(&mut self, slot: u32, write: bool, offset: u64) -> Result<()>;

    /// Waits until at least one is done; all that are, with how they ended.
    fn wait(&mut self, done: &mut Vec<(u32, bool)>) -> Result<()>;

    /// Puts bytes into the buffer of a slot that is not in flight.
    fn fill(&mut self, slot: u32, bytes: &[u8]);

    /// Copies them out.
    fn copy(&mut self, slot: u32, bytes: &mut [u8]);
}

/// A disk with its queues.
struct Disk {
    /// In bytes.
    size: u64,
    lanes: Vec<Box<dyn Lane>>,
    /// Said in the report.
    client: Value,
    /// What must stay open while the lanes are used.
    #[expect(dead_code, reason = "it is only kept")]
    session: Option<UnixStream>,
}

/// What both ways to a disk need to know.
struct Shape {
    queues: u16,
    depth: u32,
    block: u32,
    write: bool,
}

/// What to run.
struct Settings {
    shape: Shape,
    seconds: f64,
    count: Option<u64>,
    mix: Mix,
    random: bool,
    range: Option<u64>,
    verify: bool,
    seed: u64,
    /// How long the disk stays open at the end, in seconds.
    linger: f64,
}

impl Settings {
    fn take(args: &mut Args) -> Result<Settings> {
        let mixes = [
            ("read", Mix::Read),
            ("write", Mix::Write),
            ("mixed", Mix::Mixed),
        ];
        let mix = args.word("rw", &mixes)?;
        let verify = args.switch("verify")?;
        let settings = Settings {
            shape: Shape {
                queues: args.or("queues", 1)?,
                depth: args.or("depth", 32)?,
                block: u32::try_from(args.size("block-size")?.unwrap_or(4096))?,
                write: verify || mix != Mix::Read,
            },
            seconds: args.or("seconds", 1.0)?,
            count: args.take("count")?,
            mix,
            random: args.word("pattern", &[("random", true), ("sequential", false)])?,
            range: args.size("range")?,
            verify,
            seed: args.or("seed", 1)?,
            linger: args.or("linger", 0.0)?,
        };
        let Shape {
            queues,
            depth,
            block,
            ..
        } = settings.shape;
        ensure!((1..=64).contains(&queues), "--queues is 1 to 64");
        ensure!((1..=4096).contains(&depth), "--depth is 1 to 4096");
        ensure!(
            block >= 512 && block.is_multiple_of(512) && block <= 32 << 20,
            "--block-size is 512 to 32m, in whole sectors"
        );
        Ok(settings)
    }
}

/// What came of it, in one thread.
#[derive(Default)]
struct Totals {
    requests: u64,
    errors: u64,
    wrong: u64,
    waits: u64,
    latency: Histogram,
}

impl Totals {
    fn add(&mut self, one: &Totals) {
        self.requests += one.requests;
        self.errors += one.errors;
        self.wrong += one.wrong;
        self.waits += one.waits;
        self.latency.merge(&one.latency);
    }
}

/// Runs the load; reports.
pub fn run(args: &mut Args) -> Result<Value> {
    let settings = Settings::take(args)?;
    let open = args.word("client", &[("blkio", Way::Blkio), ("ring", Way::Ring)])?;
    let mut disk = match open {
        Way::Blkio => blkio::open(args, &settings.shape)?,
        Way::Ring => front::open(args, &settings.shape)?,
    };
    args.finish()?;
    let block = u64::from(settings.shape.block);
    let blocks = settings.range.unwrap_or(disk.size).min(disk.size) / block;
    let least = u64::from(settings.shape.queues) * u64::from(settings.shape.depth);
    ensure!(blocks >= least, "the disk has {blocks} blocks only");
    if settings.verify {
        prepare(&mut disk, &settings, blocks)?;
    }
    let (cpu_before, start) = (cpu_time(), Instant::now());
    let end = start + Duration::from_secs_f64(settings.seconds);
    let totals = all_lanes(&mut disk, |lane, n| {
        let mut pattern = settings.pattern(n, blocks);
        let quota = settings.count.unwrap_or(u64::MAX);
        drive(lane, &mut pattern, &settings, quota, end)
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let cpu = (cpu_time() - cpu_before).as_secs_f64();
    std::thread::sleep(Duration::from_secs_f64(settings.linger));
    Ok(report(&settings, &disk, &totals, seconds, cpu))
}

#[derive(Clone, Copy)]
enum Way {
    Blkio,
    Ring,
}

impl Settings {
    fn pattern(&self, lane: usize, blocks: u64) -> Pattern {
        let share = blocks / u64::from(self.shape.queues);
        Pattern {
            mix: if self.verify { Mix::Read } else { self.mix },
            random: self.random,
            block: u64::from(self.shape.block),
            blocks,
            next: share * lane as u64,
            state: (self.seed ^ lane as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        }
    }
}

/// Runs something on every lane, each on its own thread.
fn all_lanes(
    disk: &mut Disk,
    work: impl Fn(&mut dyn Lane, usize) -> Result<Totals> + Sync,
) -> Result<Totals> {
    let work = &work;
    let results: Vec<Result<Totals>> = std::thread::scope(|scope| {
        let threads: Vec<_> = disk
            .lanes
            .iter_mut()
            .enumerate()
            .map(|(n, lane)| scope.spawn(move || work(&mut **lane, n)))
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().expect("a load thread panicked")
        };
        threads.into_iter().map(join).collect()
    });
    let mut all = Totals::default();
    for totals in results {
        all.add(&totals?);
    }
    Ok(all)
}

/// Writes every block once, each with its own bytes.
fn prepare(disk: &mut Disk, settings: &Settings, blocks: u64) -> Result<()> {
    let queues = u64::from(settings.shape.queues);
    let totals = all_lanes(disk, |lane, n| {
        let mut pattern = Pattern {
            mix: Mix::Write,
            random: false,
            ..settings.pattern(n, blocks)
        };
        // The last lane takes what is left over.
        let share = blocks / queues;
        let rest = if n as u64 + 1 == queues {
            blocks % queues
        } else {
            0
        };
        let end = Instant::now() + Duration::from_secs(3600);
        drive(lane, &mut pattern, settings, share + rest, end)
    })?;
    ensure!(totals.errors == 0, "{} writes failed", totals.errors);
    Ok(())
}

/// Keeps a lane's slots in flight until the time is over or the quota is done.
fn drive(
    lane: &mut dyn Lane,
    pattern: &mut Pattern,
    settings: &Settings,
    quota: u64,
    end: Instant,
) -> Result<Totals> {
    let depth = settings.shape.depth;
    let mut totals = Totals::default();
    let mut stamp = Stamp::new(settings.seed, settings.shape.block as usize);
    let mut free: Vec<u32> = (0..depth).rev().collect();
    let mut now = Instant::now();
    let mut begun = vec![(now, 0, false); depth as usize];
    let mut done = Vec::with_capacity(depth as usize);
    let mut left = quota;
    loop {
        while left > 0
            && let Some(slot) = free.pop()
        {
            let (write, offset) = pattern.next();
            if settings.verify && write {
                lane.fill(slot, stamp.of(offset));
            }
            lane.submit(slot, write, offset)?;
            begun[slot as usize] = (now, offset, write);
            left -= 1;
        }
        if free.len() == depth as usize {
            return Ok(totals);
        }
        done.clear();
        lane.wait(&mut done)?;
        now = Instant::now();
        totals.waits += 1;
        for (slot, ok) in done.drain(..) {
            let (since, offset, write) = begun[slot as usize];
            totals.latency.add(now - since);
            totals.requests += 1;
            totals.errors += u64::from(!ok);
            if settings.verify && ok && !write {
                totals.wrong += u64::from(!stamp.is_in(offset, |bytes| lane.copy(slot, bytes)));
            }
            free.push(slot);
        }
        if now >= end {
            left = 0;
        }
    }
}

fn report(settings: &Settings, disk: &Disk, totals: &Totals, seconds: f64, cpu: f64) -> Value {
    let bytes = totals.requests as f64 * f64::from(settings.shape.block);
    let each = totals.requests.max(1) as f64;
    json!({
        "client": disk.client,
        "size": disk.size,
        "requests": totals.requests,
        "bytes": bytes,
        "seconds": seconds,
        "requests_per_second": totals.requests as f64 / seconds,
        "bytes_per_second": bytes / seconds,
        "client_cpu_seconds": cpu,
        "client_cpu_ns_per_request": cpu * 1e9 / each,
        "batch": totals.requests as f64 / totals.waits.max(1) as f64,
        "latency_us": {
            "p50": totals.latency.quantile_us(0.5),
            "p99": totals.latency.quantile_us(0.99),
            "p999": totals.latency.quantile_us(0.999),
        },
        "errors": totals.errors,
        "wrong": totals.wrong,
    })
}

/// Waits until a descriptor can be read.
fn readable(fd: impl std::os::fd::AsFd) -> Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    let limit = Timespec {
        tv_sec: PATIENCE.as_secs() as i64,
        tv_nsec: 0,
    };
    match rustix::io::retry_on_intr(|| poll(&mut fds, Some(&limit)))? {
        0 => bail!("the disk did not answer for {PATIENCE:?}"),
        _ => Ok(()),
    }
}
