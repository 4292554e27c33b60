//! `cargo xtask bench nbd|tls|vhost-user|micro`: what blkit and its peers cost, side by side.
//!
//! **Why so.** Absolute figures drift with the machine and its neighbours, so every figure is taken
//! in one run beside those of the peers, in alternation, several times, and the median counts. CPU
//! per request stands beside the rate: on a machine whose clients and servers share the cores, the
//! rate alone shows who leaves more of them to the client. Nothing here fails a test: times are
//! reported, losing ones too.

mod clients;
mod machine;
mod micro;
mod nbd;
mod process;
mod report;
mod rows;
mod servers;
mod tls;
mod vhost_user;

use std::process::ExitCode;

pub use nbd::world;
pub use process::{cpu_ticks, memory_kib, pin};
pub use servers::{Disk, Kind, SIZE, Server, World};

const USAGE: &str = "\
usage: cargo xtask bench nbd [--quick | --full] [--rows TEXT] [--seconds S] [--rounds N]
                             [--size MIB] [--output FILE]
       cargo xtask bench tls [--output FILE]
       cargo xtask bench vhost-user [--quick] [--rows TEXT] [--seconds S] [--rounds N]
                             [--output FILE]
       cargo xtask bench micro [--output FILE]

Measures the `dist` build, which it makes, or the programs of the folder in BLKIT_PROGRAMS.";

/// Runs a benchmark.
pub fn run(words: &[String]) -> Result<ExitCode, String> {
    match words.split_first() {
        Some((name, rest)) if name == "nbd" => nbd::run(rest)?,
        Some((name, rest)) if name == "tls" => tls::run(rest)?,
        Some((name, rest)) if name == "vhost-user" => vhost_user::run(rest)?,
        Some((name, rest)) if name == "micro" => micro::run(rest)?,
        _ => return Err(USAGE.into()),
    }
    Ok(ExitCode::SUCCESS)
}
