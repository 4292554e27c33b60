//! Tests inside a Linux guest: `cargo xtask vm test [CASE...]`.
//!
//! One program with both ends. On the host, [`guests`] says which guests there are and what each
//! tries; [`host`] starts the servers that a guest needs, boots it with this very program, and shows
//! what it prints. In the guest, [`inside`] runs the cases, one after the other. A case may ask the
//! host for something (the disk grows, the server dies): a line to it, and a line back.
//!
//! Correctness only: under emulation a time says nothing.

mod cases;
mod disk;
mod guests;
mod host;
mod inside;
mod load;

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let good = match words.split_first() {
        Some((word, cases)) if word == "inside" => inside::run(cases),
        _ => host::run(&words),
    };
    match good {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            println!("error: {why:#}");
            ExitCode::FAILURE
        }
    }
}
