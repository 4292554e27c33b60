//! The rules of the house, in one table, each with its reason.
//!
//! A crate is named by its folder; a name that ends in `*` stands for all that start so. To
//! allow something new, change the table in the same commit and say why there.

/// A rule.
#[derive(Debug)]
pub struct Rule {
    /// What violations are tagged with.
    pub name: &'static str,
    /// What is checked.
    pub check: Check,
    /// Why we want it.
    pub why: &'static str,
}

/// What a rule checks. Dev-dependencies are free, and paths and function lengths do not count
/// in tests.
#[derive(Debug)]
pub enum Check {
    /// The crates `of` depend on no crate of ours but those in `may`.
    Imports { of: Names, may: Scope },
    /// Every package of the workspace has an `Imports` rule.
    Known,
    /// Only the crates in scope depend on these packages of others.
    Packages { names: Names, scope: Scope },
    /// The code of the crates `of` does not name these paths or anything below them.
    Paths { of: Names, never: Names },
    /// The word `unsafe` stands only in files whose path starts with one of these.
    Unsafe { islands: Names },
    /// No file is longer than `most` lines; one longer than `note` is noted.
    FileLines { note: usize, most: usize },
    /// No function is longer than `most` lines, from its signature to its closing brace.
    FunctionLines { most: usize },
    /// Every Rust file can be parsed: a file that cannot would escape the other rules.
    Parses,
}

/// A list of names.
pub type Names = &'static [&'static str];

/// Some of all crates.
#[derive(Debug)]
pub enum Scope {
    /// These.
    Only(Names),
    /// All others.
    AllBut(Names),
}

impl Scope {
    /// Whether `name` is in it.
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Scope::Only(names) => is_in(names, name),
            Scope::AllBut(names) => !is_in(names, name),
        }
    }
}

/// Whether one of `names` is `name`, or a pattern for it.
pub fn is_in(names: Names, name: &str) -> bool {
    names.iter().any(|known| match known.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == *known,
    })
}

use Check::{FileLines, FunctionLines, Imports, Known, Packages, Parses, Paths, Unsafe};
use Scope::{AllBut, Only};

/// The rules.
pub const RULES: &[Rule] = &[
    Rule {
        name: "block-alone",
        check: Imports {
            of: &["block"],
            may: Only(&[]),
        },
        why: "the block layer is the contract of all parts and must not know any of them",
    },
    Rule {
        name: "config-low",
        check: Imports {
            of: &["config"],
            may: Only(&["config-derive"]),
        },
        why: "sources and filters declare their configuration, so config lies below them",
    },
    Rule {
        name: "protocols-alone",
        check: Imports {
            of: &["nbd", "virtio", "config-derive"],
            may: Only(&[]),
        },
        why: "protocols are state machines over bytes: any program can use them without our block layer",
    },
    Rule {
        name: "tls-alone",
        check: Imports {
            of: &["tls"],
            may: Only(&[]),
        },
        why: "TLS is a machine over bytes, and a gate for one heavy dependency",
    },
    Rule {
        name: "handle-imports",
        check: Imports {
            of: &["handle"],
            may: Only(&["nbd", "tls"]),
        },
        why: "a handle drives the protocol with poll(2) on its caller's thread: no reactor, no blocks",
    },
    Rule {
        name: "blkio-imports",
        check: Imports {
            of: &["blkio"],
            may: Only(&["virtio"]),
        },
        why: "block I/O for programs runs on their own threads: no reactor, no blocks (RFC 0004)",
    },
    Rule {
        name: "reactor-imports",
        check: Imports {
            of: &["reactor"],
            may: Only(&["block"]),
        },
        why: "the reactor implements block's handle and knows nothing of what runs on it",
    },
    Rule {
        name: "transport-imports",
        check: Imports {
            of: &["transport"],
            may: Only(&["block", "reactor", "tls"]),
        },
        why: "both ends of a connection put TLS over a stream in the same way, in one place",
    },
    Rule {
        name: "filters-pure",
        check: Imports {
            of: &["filters", "formats"],
            may: Only(&["block", "config"]),
        },
        why: "filters and formats do no I/O of their own, so they run on every driver and in simulation",
    },
    Rule {
        name: "sources-imports",
        check: Imports {
            of: &["sources"],
            may: Only(&[
                "block",
                "reactor",
                "config",
                "nbd",
                "virtio",
                "tls",
                "transport",
                "blkio",
            ]),
        },
        why: "sources speak protocols as clients and never see who serves them",
    },
    Rule {
        name: "heavy-sources",
        check: Imports {
            of: &["source-*", "plugins"],
            may: Only(&["block", "reactor", "config"]),
        },
        why: "a gate for one heavy dependency or one foreign world, and nothing else",
    },
    Rule {
        name: "exports-imports",
        check: Imports {
            of: &["exports"],
            may: Only(&[
                "block",
                "reactor",
                "nbd",
                "virtio",
                "tls",
                "transport",
                "config",
            ]),
        },
        why: "exports serve any device and never know sources: the block layer is all between them",
    },
    Rule {
        name: "graph-imports",
        check: Imports {
            of: &["graph"],
            may: Only(&[
                "block", "reactor", "sources", "source-*", "filters", "formats", "plugins",
                "exports", "config",
            ]),
        },
        why: "the graph joins the parts and knows no protocol",
    },
    Rule {
        name: "faces-imports",
        check: Imports {
            of: &["blkit", "bindings*"],
            may: AllBut(&["cli", "capi", "capi-*", "testkit", "xtask"]),
        },
        why: "libraries stand beside the command line, not on it, and ship no test code",
    },
    Rule {
        name: "capi-imports",
        check: Imports {
            of: &["capi"],
            may: Only(&["handle"]),
        },
        why: "the C library is a thin, unsafe layer over a safe client, and knows nothing else",
    },
    Rule {
        name: "capi-blkit-imports",
        check: Imports {
            of: &["capi-blkit"],
            may: Only(&["blkit"]),
        },
        why: "a C library is a thin, unsafe layer over one other crate, and knows nothing else",
    },
    Rule {
        name: "capi-blkio-imports",
        check: Imports {
            of: &["capi-blkio"],
            may: Only(&["blkio"]),
        },
        why: "a C library is a thin, unsafe layer over one other crate, and knows nothing else",
    },
    Rule {
        name: "python-imports",
        check: Imports {
            of: &["bindings/python"],
            may: Only(&["handle", "blkit"]),
        },
        why: "the Python modules are faces of the handle and of the Rust API, and know no part behind them",
    },
    Rule {
        name: "cli-imports",
        check: Imports {
            of: &["cli"],
            may: AllBut(&["testkit", "xtask", "capi", "capi-*"]),
        },
        why: "the command line may use all parts, but ships no test code and no C library",
    },
    Rule {
        name: "cli-reactor",
        check: Paths {
            of: &["cli"],
            never: &[
                "reactor::driver",
                "reactor::drivers",
                "reactor::uring",
                "reactor::poll",
                "reactor::epoll",
                "reactor::sim",
                "reactor::ring",
                "reactor::sys",
            ],
        },
        why: "the command line picks a driver by option and leaves the inside of the reactor alone",
    },
    Rule {
        name: "testkit-imports",
        check: Imports {
            of: &["testkit"],
            may: Only(&["block", "reactor", "nbd", "virtio"]),
        },
        why: "the test kit lies below what it tests",
    },
    Rule {
        name: "tools-imports",
        check: Imports {
            of: &["benches*", "vmtests*", "fuzz*"],
            may: AllBut(&["xtask"]),
        },
        why: "measurements and whole-system tests look at every part",
    },
    Rule {
        name: "xtask-alone",
        check: Imports {
            of: &["xtask"],
            may: Only(&[]),
        },
        why: "the checker must build when the parts do not",
    },
    Rule {
        name: "crate-has-rule",
        check: Known,
        why: "a new crate says in this table what it may import; it exists only if it is useful \
              alone, an unsafe island, or a gate for a heavy dependency",
    },
    Rule {
        name: "tokio-named-places",
        check: Packages {
            names: &[
                "tokio",
                "tokio-*",
                "hyper",
                "hyper-*",
                "reqwest",
                "async-std",
                "smol",
            ],
            scope: Only(&["reactor", "source-*"]),
        },
        why: "one event loop: tokio lives behind the reactor's bridge and in the heavy sources",
    },
    Rule {
        name: "openssl-named-places",
        check: Packages {
            names: &["openssl", "openssl-*", "rustls", "rustls-*", "native-tls"],
            scope: Only(&["tls", "source-*"]),
        },
        why: "one library for TLS, behind one crate; sources of the net bring their own client",
    },
    Rule {
        name: "pyo3-named-places",
        check: Packages {
            names: &["pyo3", "pyo3-*"],
            scope: Only(&["bindings*"]),
        },
        why: "nobody builds PyO3 and its macros but who builds the Python modules",
    },
    Rule {
        name: "no-system-calls",
        check: Packages {
            names: &[
                "libc", "rustix", "nix", "io-uring", "mio", "socket2", "polling",
            ],
            scope: AllBut(&[
                "block",
                "config",
                "config-derive",
                "nbd",
                "filters",
                "formats",
            ]),
        },
        why: "these crates do no I/O, so they run on every driver, in simulation and under Miri",
    },
    Rule {
        name: "filters-no-io",
        check: Paths {
            of: &["filters", "formats"],
            never: &[
                "reactor",
                "tokio",
                "libc",
                "rustix",
                "std::net",
                "std::thread",
                "std::fs",
                "std::process",
                "std::os::unix::net",
                "std::os::unix::process",
            ],
        },
        why: "files, processes, sockets and threads come from the Host, never straight from the \
              system (addresses are data: core::net)",
    },
    Rule {
        name: "sans-io",
        check: Paths {
            of: &["block", "config", "nbd"],
            never: &[
                "tokio",
                "libc",
                "rustix",
                "std::fs",
                "std::process",
                "std::net::TcpStream",
                "std::net::TcpListener",
                "std::net::UdpSocket",
                "std::os::unix::net",
                "std::thread::spawn",
                "std::thread::Builder",
                "std::thread::sleep",
            ],
        },
        why: "the block layer and the protocol machines are driven by others and do no I/O",
    },
    Rule {
        name: "unsafe-islands",
        check: Unsafe {
            islands: &[
                "crates/block/src/request",
                "crates/block/src/data",
                "crates/reactor/",
                "crates/virtio/",
                "crates/blkio/",
                "crates/plugins/",
                "crates/capi/",
                "crates/capi-blkio/",
                "crates/capi-blkit/",
                "bindings/python/src/memory",
                "bindings/python/src/descriptor",
                "crates/exports/src/ublk",
                "crates/exports/src/vduse",
                "crates/exports/src/fuse",
                "crates/exports/src/vhost_user_blk/guest.rs",
                "crates/sources/src/blkio/arena.rs",
                "crates/sources/src/blkio/lane.rs",
                "fuzz/",
                "benches/",
            ],
        },
        why: "unsafe code stands in few named places that are reviewed and tested as such",
    },
    Rule {
        name: "file-length",
        check: FileLines {
            note: 500,
            most: 1000,
        },
        why: "a file can be read in one sitting: 500 lines wanted, 1000 the most",
    },
    Rule {
        name: "function-length",
        check: FunctionLines { most: 70 },
        why: "a function fits on a screen",
    },
    Rule {
        name: "parses",
        check: Parses,
        why: "a file that cannot be parsed escapes the other rules",
    },
];
