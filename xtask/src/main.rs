//! Chores of the repository: `cargo xtask NAME [ARGUMENT...]`.
//!
//! Rust and not shell, so that they need nothing installed but the pinned toolchain and have
//! tests of their own. Each chore is a module with `run`; [`COMMANDS`] lists them.

#![forbid(unsafe_code)]

mod bench;
mod capi;
mod check_deps;
mod fuzz;
mod gates;
mod go;
mod python;
mod soak;
mod tool;
mod vm;
mod without_io_uring;

use std::process::ExitCode;

/// A chore.
struct Command {
    name: &'static str,
    about: &'static str,
    /// Takes the words after the name. `Err` is a failure to do the work, not its verdict.
    run: fn(&[String]) -> Result<ExitCode, String>,
}

const COMMANDS: &[Command] = &[
    Command {
        name: "check-deps",
        about: "check imports, unsafe code and lengths against the rules of the house",
        run: check_deps::run,
    },
    Command {
        name: "gates",
        about: "instructions and allocations per request against the baseline (--update)",
        run: gates::run,
    },
    Command {
        name: "fuzz",
        about: "fuzz targets over corpus and mutations, stable toolchain (--seconds 20)",
        run: fuzz::run,
    },
    Command {
        name: "bench",
        about: "measure beside the peers: nbd, tls, vhost-user, micro",
        run: bench::run,
    },
    Command {
        name: "capi",
        about: "the C libraries: libnbd, libblkio, libblkit (--release, --no-tls, --install PREFIX)",
        run: capi::run,
    },
    Command {
        name: "go",
        about: "tests of the Go binding, over the C library (--release, --no-tls)",
        run: go::run,
    },
    Command {
        name: "soak",
        about: "many or hostile clients: connections, connects, hostile",
        run: soak::run,
    },
    Command {
        name: "python",
        about: "build the Python modules and run their tests (--wheel: with maturin)",
        run: python::run,
    },
    Command {
        name: "vm",
        about: "a command in a throw-away Linux guest: prepare, run, test",
        run: vm::run,
    },
    Command {
        name: "without-io-uring",
        about: "run a command with io_uring forbidden, as containers do",
        run: without_io_uring::run,
    },
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let Some((name, rest)) = words.split_first() else {
        eprint!("{}", usage());
        return ExitCode::from(2);
    };
    if matches!(name.as_str(), "help" | "-h" | "--help") {
        print!("{}", usage());
        return ExitCode::SUCCESS;
    }
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        eprint!("xtask: unknown command '{name}'\n{}", usage());
        return ExitCode::from(2);
    };
    (command.run)(rest).unwrap_or_else(|why| {
        eprintln!("xtask {name}: {why}");
        ExitCode::from(2)
    })
}

fn usage() -> String {
    let mut text = String::from("usage: cargo xtask COMMAND [ARGUMENT...]\n\n");
    for command in COMMANDS {
        text.push_str(&format!("  {:<16} {}\n", command.name, command.about));
    }
    text
}
