//! `blkit-gates`: pieces of the request path, one at a time, to be counted and timed.
//!
//! **What.** Each workload does one thing per request: layers over a null device, the codecs of NBD,
//! a read of the RAM disk, a whole NBD session in memory. `cargo xtask gates` runs them under
//! callgrind and compares instructions and allocations per request with a baseline;
//! `cargo xtask bench micro` takes their CPU time.
//!
//! **Why so.** Instruction counts do not depend on the machine's load, so they can fail a test; times
//! cannot. The program does as many requests as it is told and nothing else that depends on that
//! number: running it with N and with 2N and subtracting leaves the requests.
#![warn(missing_docs)]

mod layers;
mod session;
mod turn;
mod workloads;

use std::{process::ExitCode, time::Duration};

use reactor::sim::{CountingAlloc, allocations as counted};
use rustix::time::ClockId;
use workloads::{WORKLOADS, Workload};

#[global_allocator]
static ALLOC: CountingAlloc = CountingAlloc;

const USAGE: &str = "\
usage: blkit-gates list                    names, and 0 where requests must not allocate
       blkit-gates run NAME REQUESTS       does the requests; for callgrind
       blkit-gates allocations NAME        prints allocations per 1000 requests in steady state
       blkit-gates time NAME               prints nanoseconds of CPU time per request, best of many
";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["list"] => list(),
        ["run", name, requests] => match (find(name), requests.parse()) {
            (Some(workload), Ok(requests)) => (workload.make)()(requests),
            _ => return usage(),
        },
        ["allocations", name] => match find(name) {
            Some(workload) => println!("{}", allocations(workload)),
            None => return usage(),
        },
        ["time", name] => match find(name) {
            Some(workload) => println!("{:.1}", time(workload)),
            None => return usage(),
        },
        _ => return usage(),
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprint!("{USAGE}");
    ExitCode::from(2)
}

fn find(name: &str) -> Option<&'static Workload> {
    WORKLOADS.iter().find(|workload| workload.name == name)
}

fn list() {
    for workload in WORKLOADS {
        println!(
            "{} {}",
            workload.name,
            if workload.may_allocate { "any" } else { "0" }
        );
    }
}

/// Allocations per 1000 requests, once pools and buffers have grown.
fn allocations(workload: &Workload) -> u64 {
    let mut run = (workload.make)();
    run(4096);
    let before = counted();
    run(1000);
    counted() - before
}

/// CPU time of a request in nanoseconds: the least of many rounds, because all else only adds.
fn time(workload: &Workload) -> f64 {
    const REQUESTS: u64 = 100_000;
    let mut run = (workload.make)();
    run(REQUESTS);
    let round = |_| {
        let start = thread_time();
        run(REQUESTS);
        (thread_time() - start).as_nanos() as f64 / REQUESTS as f64
    };
    (0..30).map(round).fold(f64::MAX, f64::min)
}

fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_runs_and_keeps_its_promise() {
        for workload in WORKLOADS {
            let per_1000 = allocations(workload);
            assert!(
                workload.may_allocate || per_1000 == 0,
                "{}: {per_1000}",
                workload.name
            );
        }
    }

    #[test]
    fn the_counter_counts() {
        let before = counted();
        std::hint::black_box(vec![1u8; 100]);
        assert!(counted() > before);
    }
}
