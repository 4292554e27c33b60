//! The fuzz targets, and what is needed to run them with the stable toolchain.
//!
//! **What.** [`TARGETS`] names them. `fuzz/fuzz_targets/` hands the same functions to cargo-fuzz, and
//! `cargo xtask fuzz` runs them over the corpus and seeded mutations of it. [`seeds`] makes the corpus
//! from real sessions between our client and our server; [`mutate`] damages inputs.
//!
//! **Why so.** Coverage-guided fuzzing needs a nightly compiler and hours; a test run has the pinned
//! one and seconds. One list of targets serves both, so that neither can fall behind.
//!
//! **Contract.** A target panics if a promise is broken, and returns otherwise, whatever the bytes.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod client;
pub mod mutate;
pub mod seeds;
mod session;

/// A thing to throw bytes at.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Name, of the corpus's folder too.
    pub name: &'static str,
    /// Takes the bytes.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "nbd_handshake",
        run: nbd::fuzzing::fuzz_handshake,
    },
    Target {
        name: "nbd_transmission",
        run: nbd::fuzzing::fuzz_transmission,
    },
    Target {
        name: "nbd_client",
        run: client::run,
    },
    Target {
        name: "nbd_server_session",
        run: session::run,
    },
    Target {
        name: "fuse_machine",
        run: exports::fuse::fuzzing::fuzz_machine,
    },
    Target {
        name: "vhost_user_backend",
        run: virtio::vhost_user::fuzzing::fuzz_backend,
    },
    Target {
        name: "nbd_uri",
        run: nbd::fuzzing::fuzz_uri,
    },
    Target {
        name: "data_program",
        run: sources::data::fuzzing::fuzz,
    },
    Target {
        name: "virtio_ring",
        run: virtio::fuzzing::fuzz_ring,
    },
    Target {
        name: "virtio_blk_request",
        run: virtio::fuzzing::fuzz_blk_request,
    },
];

/// Runs the target of this name. For cargo-fuzz.
///
/// # Panics
///
/// If there is no such target, and if the target found something.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS
        .iter()
        .find(|target| target.name == name)
        .expect("a target of TARGETS");
    (target.run)(data);
}
