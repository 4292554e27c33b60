//! What a client asks of a server, and what it gets to know.

use crate::Violation;
use crate::names;
use crate::proto::Mode;
use crate::server::Context;

/// What to ask of a server.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Name of the export; empty for the default one.
    pub export: String,
    /// What to do there.
    pub goal: Goal,
    /// The best framing to ask for.
    pub mode: Mode,
    /// Metadata contexts to select, or, with [`Goal::ListContexts`], queries.
    pub contexts: Vec<String>,
    /// Whether to start TLS.
    pub tls: Tls,
    /// Ask for the canonical name and the description.
    pub full_info: bool,
    /// Ask for block sizes; a promise to keep to them.
    pub block_size: bool,
}

impl Default for ClientOptions {
    /// The default export, to be used, with the best framing, no contexts and no TLS.
    fn default() -> ClientOptions {
        ClientOptions {
            export: String::new(),
            goal: Goal::Go,
            mode: Mode::Extended,
            contexts: Vec::new(),
            tls: Tls::Off,
            full_info: false,
            block_size: true,
        }
    }
}

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Use the export.
    Go,
    /// Look at the export, then leave.
    Info,
    /// List the exports, then leave.
    List,
    /// List the metadata contexts of the export, then leave.
    ListContexts,
}

/// Whether to start TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// No.
    Off,
    /// If the server can.
    Try,
    /// Yes, or fail.
    Require,
}

/// News from the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Run the TLS handshake on the connection, then call
    /// [`Handshake::tls_started`](super::Handshake::tls_started).
    StartTls,
    /// One export of a list.
    Export {
        /// Name.
        name: String,
        /// Description; may be empty.
        description: String,
    },
    /// One metadata context of a list.
    Context(String),
    /// The export, with [`Goal::Info`]: send what is in `out`, then close.
    Info(Connected),
    /// The transmission phase has begun; bytes not yet consumed are replies.
    Connected(Connected),
    /// All was told: send what is in `out`, then close.
    Finished,
}

/// Block sizes as told by a server. [`BlockSizes::new`](crate::server::BlockSizes::new) says
/// whether they obey the spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSizeInfo {
    /// Smallest length and alignment, in bytes.
    pub minimum: u32,
    /// Smallest length and alignment that is efficient, in bytes.
    pub preferred: u32,
    /// Longest read or write, in bytes.
    pub maximum: u32,
}

/// An export, and what was agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected {
    /// Size in bytes.
    pub size: u64,
    /// Transmission flags.
    pub flags: u16,
    /// Block sizes, if told.
    pub block_sizes: Option<BlockSizeInfo>,
    /// Canonical name, if told.
    pub name: Option<String>,
    /// Description, if told.
    pub description: Option<String>,
    /// Framing of requests and replies.
    pub mode: Mode,
    /// Selected metadata contexts.
    pub contexts: Vec<Context>,
    /// TLS was started.
    pub tls: bool,
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The server broke the protocol.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The server said no.
    #[error("the server refused {} with {}{}{text}", names::option(*option), names::option_reply(*code), if text.is_empty() { "" } else { ": " })]
    Refused {
        /// The option.
        option: u32,
        /// One of the `REP_ERR_` codes.
        code: u32,
        /// The server's text for people; may be empty.
        text: String,
    },
    /// An oldstyle server, which knows no options and no export names.
    #[error("oldstyle servers are not supported")]
    Oldstyle,
    /// A server without fixed newstyle can do no more than enter an export.
    #[error("the server does not support fixed newstyle negotiation, which is needed here")]
    NotFixed,
    /// Something to be sent is too long for the protocol.
    #[error("the export name, or a metadata context, is longer than 4096 bytes or has a NUL")]
    BadName,
}
