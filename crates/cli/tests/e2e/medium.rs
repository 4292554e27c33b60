//! Durability, as the kernel's file system sees it: by the clocks of the clients, the file was
//! synchronised between question and answer. Looks at both drivers, whatever calls they use.

use std::{
    collections::HashMap,
    fs, io,
    ops::RangeInclusive,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
};

use rustix::{
    fs::{FsWord, statfs},
    time::{ClockId, clock_gettime},
};

use crate::{
    bench::Place,
    raw::{FLUSH, FUA, Raw, WRITE, request},
};

const CLIENTS: u64 = 4;
const ROUNDS: u64 = 25;
const TRACING: &str = "/sys/kernel/tracing/instances";
/// statfs(2): EXT4_SUPER_MAGIC.
const EXT4: FsWord = 0xef53;

/// A span of time in microseconds of CLOCK_MONOTONIC.
type Span = RangeInclusive<u64>;

/// What was promised durable: from when on it may have become so, and when the client was told.
struct Promise {
    what: &'static str,
    span: Span,
}

#[test]
fn the_file_is_synchronised_between_question_and_answer() {
    for driver in ["auto", "poll"] {
        let place = Place::new();
        let disk = place.sparse("disk.img", 4 << 20);
        let trace = match Trace::of(&disk) {
            Ok(trace) => trace,
            Err(why) => return println!("SKIP: no trace of a file system: {why}"),
        };
        let server = place.serve_here(&["--io", driver, "--threads", "2", "disk.img"]);
        if driver == "auto" && !has_ring(server.pid()) {
            println!("SKIP: io_uring is refused here: only the poll driver is looked at");
            server.stop();
            continue;
        }
        let clients = (0..CLIENTS).map(|id| {
            let client = Raw::connect(&place.path("s"));
            thread::spawn(move || work(id, client))
        });
        let clients: Vec<_> = clients.collect();
        let promises: Vec<_> = clients
            .into_iter()
            .flat_map(|client| client.join().expect("a client"))
            .collect();
        let syncs = trace.syncs();
        server.stop();
        assert_eq!(promises.len() as u64, CLIENTS * ROUNDS * 2);
        for promise in &promises {
            assert!(
                kept(promise, &syncs),
                "{driver}: {} kept in no time: {:?}",
                promise.what,
                promise.span
            );
        }
        // That a promise can be broken: nothing is kept by what ended too late or began too early.
        let late = |by: i64| -> Vec<Span> {
            let shift = |at: &u64| at.saturating_add_signed(by);
            syncs
                .iter()
                .map(|s| shift(s.start())..=shift(s.end()))
                .collect()
        };
        for by in [3_600_000_000, -3_600_000_000] {
            assert!(!promises.iter().any(|promise| kept(promise, &late(by))));
        }
    }
}

/// Whether a process has an io_uring(7).
fn has_ring(pid: u32) -> bool {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("a process");
    open.flatten()
        .filter_map(|file| fs::read_link(file.path()).ok())
        .any(|to| to.as_os_str() == "anon_inode:[io_uring]")
}

/// Writes, forced writes and flushes in flight together; returns what was promised.
fn work(id: u64, mut client: Raw) -> Vec<Promise> {
    let mut promises = Vec::new();
    // A flush covers what was answered before it was asked for.
    let mut answered = now();
    for round in 0..ROUNDS {
        let offset = (id << 8 | round) << 12;
        let mut bytes = Vec::new();
        for (flags, cookie) in [(0, 1), (FUA, 2)] {
            bytes.extend(request(flags, WRITE, cookie, offset, 4096));
            bytes.extend([round as u8 + 1; 4096]);
        }
        bytes.extend(request(0, FLUSH, 3, 0, 0));
        let asked = now();
        client.send(&bytes);
        for _ in 0..3 {
            let cookie = client.done();
            let told = now();
            match cookie {
                2 => promises.push(Promise {
                    what: "a write with FUA",
                    span: asked..=told,
                }),
                3 => promises.push(Promise {
                    what: "a flush",
                    span: answered..=told,
                }),
                _ => {}
            }
        }
        answered = now();
    }
    promises
}

/// Whether the file was synchronised within the span. The trace's clock is cut to microseconds.
fn kept(promise: &Promise, syncs: &[Span]) -> bool {
    syncs
        .iter()
        .any(|sync| sync.start() + 1 >= *promise.span.start() && sync.end() <= promise.span.end())
}

fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
}

/// The kernel's trace of one file's synchronisations (tracefs, events ext4_sync_file_enter and
/// ext4_sync_file_exit).
struct Trace(PathBuf);

impl Trace {
    fn of(file: &Path) -> Result<Trace, String> {
        let told = |what: &Path, error: io::Error| format!("{}: {error}", what.display());
        let kind = statfs(file)
            .map_err(|error| told(file, error.into()))?
            .f_type;
        if kind != EXT4 {
            return Err(format!("{} is not on ext4", file.display()));
        }
        let number = file.metadata().map_err(|error| told(file, error))?.ino();
        let place = Path::new(TRACING).join(format!("blkit-{}", std::process::id()));
        fs::create_dir(&place).map_err(|error| told(&place, error))?;
        let trace = Trace(place);
        trace.set("trace_clock", "mono")?;
        for event in ["enter", "exit"] {
            let event = format!("events/ext4/ext4_sync_file_{event}");
            trace.set(&format!("{event}/filter"), &format!("ino == {number}"))?;
            trace.set(&format!("{event}/enable"), "1")?;
        }
        Ok(trace)
    }

    fn set(&self, name: &str, value: &str) -> Result<(), String> {
        let path = self.0.join(name);
        fs::write(&path, value).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// When the file was synchronised with success: lines such as
    /// `blkit-block-0-123 [001] ..... 77.000123: ext4_sync_file_exit: dev 254,0 ino 12 ret 0`.
    fn syncs(&self) -> Vec<Span> {
        let text = fs::read_to_string(self.0.join("trace")).expect("a trace");
        let (mut begun, mut syncs) = (HashMap::new(), Vec::new());
        for line in text.lines().filter(|line| line.contains("ext4_sync_file_")) {
            let (thread, rest) = line.split_once(" [").expect("a processor");
            let mut words = rest.split_whitespace();
            let time = words
                .find_map(|word| word.strip_suffix(':'))
                .expect("a time");
            let (seconds, micros) = time.split_once('.').expect("a fraction");
            let number = |text: &str| text.parse::<u64>().expect("a number");
            let at = number(seconds) * 1_000_000 + number(micros);
            if line.contains("_enter:") {
                begun.insert(thread.trim(), at);
            } else if let Some(begun) = begun.remove(thread.trim()) {
                assert!(line.ends_with("ret 0"), "{line}");
                syncs.push(begun..=at);
            }
        }
        assert!(!text.contains("LOST"), "the trace has all events");
        syncs
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // The kernel removes an instance with all that is in it.
        let _ = fs::remove_dir(&self.0);
    }
}
