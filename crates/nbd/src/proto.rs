//! The numbers of the NBD protocol, and our own limits on what a peer may ask for.
//!
//! The names are those of the spec without the `NBD_` prefix. They are plain integers and not
//! enums, because a peer may send any value: code matches on those it knows and refuses the rest.

/// First 8 bytes of every greeting: `NBDMAGIC` (spec: Handshake).
pub const INIT_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// Second 8 bytes of a newstyle greeting, and start of every option: `IHAVEOPT`.
pub const OPT_MAGIC: u64 = 0x4948_4156_454f_5054;
/// Second 8 bytes of an oldstyle greeting (`cliserv_magic`).
pub const OLDSTYLE_MAGIC: u64 = 0x0000_4202_8186_1253;
/// Start of every reply to an option.
pub const REP_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Start of a compact request.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// Start of an extended request.
pub const EXTENDED_REQUEST_MAGIC: u32 = 0x21e4_1c71;
/// Start of a simple reply.
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// Start of a structured reply chunk.
pub const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;
/// Start of an extended reply chunk.
pub const EXTENDED_REPLY_MAGIC: u32 = 0x6e8a_278c;

/// Length of a newstyle greeting: two magics and the handshake flags.
pub const GREETING_LEN: usize = 18;
/// Length of an oldstyle greeting: two magics, size, flags and 124 zero bytes.
pub const OLDSTYLE_LEN: usize = 152;
/// Length of an option's header: magic, option, length of the data.
pub const OPTION_HEADER_LEN: usize = 16;
/// Length of an option reply's header: magic, option, reply type, length of the data.
pub const OPTION_REPLY_HEADER_LEN: usize = 20;
/// Length of a compact request header.
pub const REQUEST_LEN: usize = 28;
/// Length of an extended request header.
pub const EXTENDED_REQUEST_LEN: usize = 32;
/// Length of a simple reply header.
pub const SIMPLE_REPLY_LEN: usize = 16;
/// Length of a structured reply chunk's header.
pub const STRUCTURED_REPLY_LEN: usize = 20;
/// Length of an extended reply chunk's header.
pub const EXTENDED_REPLY_LEN: usize = 32;
/// Zero bytes after the answer to `OPT_EXPORT_NAME`, unless `FLAG_C_NO_ZEROES` was sent.
pub const EXPORT_NAME_PADDING: usize = 124;

/// How requests and replies are framed in the transmission phase, as haggled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Compact requests, simple replies.
    #[default]
    Simple,
    /// Compact requests; reads are answered in structured chunks.
    Structured,
    /// Extended requests and extended reply chunks only; 64-bit lengths.
    Extended,
}

impl Mode {
    /// Whether replies may come in chunks: holes, error texts, block status.
    pub const fn has_chunks(self) -> bool {
        !matches!(self, Mode::Simple)
    }

    /// Whether headers are extended.
    pub const fn is_extended(self) -> bool {
        matches!(self, Mode::Extended)
    }
}

/// Handshake flag, server: options other than `OPT_EXPORT_NAME` get replies.
pub const FLAG_FIXED_NEWSTYLE: u16 = 1 << 0;
/// Handshake flag, server: can leave out the 124 zero bytes.
pub const FLAG_NO_ZEROES: u16 = 1 << 1;
/// Client flag: understands fixed newstyle.
pub const FLAG_C_FIXED_NEWSTYLE: u32 = 1 << 0;
/// Client flag: does not want the 124 zero bytes.
pub const FLAG_C_NO_ZEROES: u32 = 1 << 1;

/// Transmission flag: always set.
pub const FLAG_HAS_FLAGS: u16 = 1 << 0;
/// Transmission flag: writes are refused.
pub const FLAG_READ_ONLY: u16 = 1 << 1;
/// Transmission flag: `CMD_FLUSH` is supported.
pub const FLAG_SEND_FLUSH: u16 = 1 << 2;
/// Transmission flag: `CMD_FLAG_FUA` is supported.
pub const FLAG_SEND_FUA: u16 = 1 << 3;
/// Transmission flag: the medium rotates (seeks cost).
pub const FLAG_ROTATIONAL: u16 = 1 << 4;
/// Transmission flag: `CMD_TRIM` is supported.
pub const FLAG_SEND_TRIM: u16 = 1 << 5;
/// Transmission flag: `CMD_WRITE_ZEROES` and `CMD_FLAG_NO_HOLE` are supported.
pub const FLAG_SEND_WRITE_ZEROES: u16 = 1 << 6;
/// Transmission flag: `CMD_FLAG_DF` is supported; only with reply chunks.
pub const FLAG_SEND_DF: u16 = 1 << 7;
/// Transmission flag: flush and FUA on one connection cover all connections.
pub const FLAG_CAN_MULTI_CONN: u16 = 1 << 8;
/// Transmission flag: reserved for the experimental resize extension.
pub const FLAG_SEND_RESIZE: u16 = 1 << 9;
/// Transmission flag: `CMD_CACHE` is supported.
pub const FLAG_SEND_CACHE: u16 = 1 << 10;
/// Transmission flag: `CMD_FLAG_FAST_ZERO` is supported; only with `FLAG_SEND_WRITE_ZEROES`.
pub const FLAG_SEND_FAST_ZERO: u16 = 1 << 11;
/// Transmission flag: `CMD_BLOCK_STATUS` takes a payload that names contexts; only with extended
/// headers and at least one selected context.
pub const FLAG_BLOCK_STATUS_PAYLOAD: u16 = 1 << 12;

/// Option: choose an export, without the chance of an error reply.
pub const OPT_EXPORT_NAME: u32 = 1;
/// Option: end the session.
pub const OPT_ABORT: u32 = 2;
/// Option: list the exports.
pub const OPT_LIST: u32 = 3;
/// Option: withdrawn; never used.
pub const OPT_PEEK_EXPORT: u32 = 4;
/// Option: upgrade to TLS.
pub const OPT_STARTTLS: u32 = 5;
/// Option: describe an export.
pub const OPT_INFO: u32 = 6;
/// Option: choose an export and enter the transmission phase.
pub const OPT_GO: u32 = 7;
/// Option: use structured replies.
pub const OPT_STRUCTURED_REPLY: u32 = 8;
/// Option: list the metadata contexts of an export.
pub const OPT_LIST_META_CONTEXT: u32 = 9;
/// Option: select metadata contexts of an export.
pub const OPT_SET_META_CONTEXT: u32 = 10;
/// Option: use extended headers.
pub const OPT_EXTENDED_HEADERS: u32 = 11;

/// Option reply: done, or accepted.
pub const REP_ACK: u32 = 1;
/// Option reply: one export.
pub const REP_SERVER: u32 = 2;
/// Option reply: one fact about an export.
pub const REP_INFO: u32 = 3;
/// Option reply: one metadata context.
pub const REP_META_CONTEXT: u32 = 4;
/// Bit that every error reply has.
pub const REP_FLAG_ERROR: u32 = 1 << 31;
/// Option error: option not known.
pub const REP_ERR_UNSUP: u32 = REP_FLAG_ERROR | 1;
/// Option error: forbidden by the server's configuration.
pub const REP_ERR_POLICY: u32 = REP_FLAG_ERROR | 2;
/// Option error: malformed.
pub const REP_ERR_INVALID: u32 = REP_FLAG_ERROR | 3;
/// Option error: not supported on this platform or build.
pub const REP_ERR_PLATFORM: u32 = REP_FLAG_ERROR | 4;
/// Option error: TLS first.
pub const REP_ERR_TLS_REQD: u32 = REP_FLAG_ERROR | 5;
/// Option error: no such export.
pub const REP_ERR_UNKNOWN: u32 = REP_FLAG_ERROR | 6;
/// Option error: the server is shutting down.
pub const REP_ERR_SHUTDOWN: u32 = REP_FLAG_ERROR | 7;
/// Option error: the client must ask for `INFO_BLOCK_SIZE`.
pub const REP_ERR_BLOCK_SIZE_REQD: u32 = REP_FLAG_ERROR | 8;
/// Option error: request or reply too large.
pub const REP_ERR_TOO_BIG: u32 = REP_FLAG_ERROR | 9;
/// Option error: extended headers are needed, or already in force.
pub const REP_ERR_EXT_HEADER_REQD: u32 = REP_FLAG_ERROR | 10;

/// Info: size and transmission flags.
pub const INFO_EXPORT: u16 = 0;
/// Info: canonical name.
pub const INFO_NAME: u16 = 1;
/// Info: description.
pub const INFO_DESCRIPTION: u16 = 2;
/// Info: minimum, preferred and maximum block size.
pub const INFO_BLOCK_SIZE: u16 = 3;

/// Command: read.
pub const CMD_READ: u16 = 0;
/// Command: write.
pub const CMD_WRITE: u16 = 1;
/// Command: disconnect.
pub const CMD_DISC: u16 = 2;
/// Command: flush.
pub const CMD_FLUSH: u16 = 3;
/// Command: trim (discard).
pub const CMD_TRIM: u16 = 4;
/// Command: cache (prefetch).
pub const CMD_CACHE: u16 = 5;
/// Command: write zeroes.
pub const CMD_WRITE_ZEROES: u16 = 6;
/// Command: block status.
pub const CMD_BLOCK_STATUS: u16 = 7;

/// Command flag: the data is on stable storage before the reply.
pub const CMD_FLAG_FUA: u16 = 1 << 0;
/// Command flag of write zeroes: do not make a hole.
pub const CMD_FLAG_NO_HOLE: u16 = 1 << 1;
/// Command flag of read: at most one content chunk.
pub const CMD_FLAG_DF: u16 = 1 << 2;
/// Command flag of block status: one extent per context.
pub const CMD_FLAG_REQ_ONE: u16 = 1 << 3;
/// Command flag of write zeroes: fail rather than be slow.
pub const CMD_FLAG_FAST_ZERO: u16 = 1 << 4;
/// Command flag, extended headers only: the length is that of a payload that follows.
pub const CMD_FLAG_PAYLOAD_LEN: u16 = 1 << 5;

/// Reply flag: last chunk of this reply.
pub const REPLY_FLAG_DONE: u16 = 1 << 0;
/// Chunk: nothing; ends a reply.
pub const REPLY_TYPE_NONE: u16 = 0;
/// Chunk: data at an offset.
pub const REPLY_TYPE_OFFSET_DATA: u16 = 1;
/// Chunk: zeroes at an offset.
pub const REPLY_TYPE_OFFSET_HOLE: u16 = 2;
/// Chunk: block status with 32-bit lengths.
pub const REPLY_TYPE_BLOCK_STATUS: u16 = 5;
/// Chunk: block status with 64-bit lengths; extended headers only.
pub const REPLY_TYPE_BLOCK_STATUS_EXT: u16 = 6;
/// Bit that every error chunk has.
pub const REPLY_TYPE_FLAG_ERROR: u16 = 1 << 15;
/// Chunk: the request failed.
pub const REPLY_TYPE_ERROR: u16 = REPLY_TYPE_FLAG_ERROR | 1;
/// Chunk: the request failed at an offset.
pub const REPLY_TYPE_ERROR_OFFSET: u16 = REPLY_TYPE_FLAG_ERROR | 2;

/// The context every server with block status has.
pub const CONTEXT_BASE_ALLOCATION: &str = "base:allocation";
/// Status flag of `base:allocation`: not allocated.
pub const STATE_HOLE: u32 = 1 << 0;
/// Status flag of `base:allocation`: reads as zeroes.
pub const STATE_ZERO: u32 = 1 << 1;

/// Error value: operation not permitted.
pub const EPERM: u32 = 1;
/// Error value: input/output error.
pub const EIO: u32 = 5;
/// Error value: out of memory.
pub const ENOMEM: u32 = 12;
/// Error value: invalid argument.
pub const EINVAL: u32 = 22;
/// Error value: no space left.
pub const ENOSPC: u32 = 28;
/// Error value: too large to send in one piece.
pub const EOVERFLOW: u32 = 75;
/// Error value: not supported; only for fast zeroes.
pub const ENOTSUP: u32 = 95;
/// Error value: the server is shutting down.
pub const ESHUTDOWN: u32 = 108;

/// Our bounds on what a peer may send. Each is at least what the spec asks of a server.
pub mod limits {
    /// Longest string, in bytes (spec: Conventions).
    pub const MAX_STRING: usize = 4096;
    /// Most option data that is kept in memory. More is skipped and answered `REP_ERR_TOO_BIG`.
    pub const MAX_OPTION_DATA: u32 = 64 << 10;
    /// Most option data that is skipped. More ends the connection.
    pub const MAX_OPTION_SKIP: u32 = 64 << 20;
    /// Most options in one connection. More ends the connection.
    pub const MAX_OPTIONS: u32 = 1024;
    /// Most queries in one metadata option. More is answered `REP_ERR_TOO_BIG`.
    pub const MAX_QUERIES: u32 = 1024;
    /// Most metadata contexts that one client may select. More is answered `REP_ERR_TOO_BIG`.
    pub const MAX_CONTEXTS: usize = 64;
    /// Default for the longest read or write (spec: Block size constraints).
    pub const DEFAULT_MAX_PAYLOAD: u32 = 32 << 20;
    /// Longest payload of a refused request that the server reads and drops. More ends the
    /// connection.
    pub const MAX_PAYLOAD_SKIP: u64 = 128 << 20;
    /// Most descriptors in one block status chunk (spec: `NBD_CMD_BLOCK_STATUS`).
    pub const MAX_DESCRIPTORS: usize = 1 << 20;
    /// Most exports that a client takes from one list.
    pub const MAX_EXPORTS: usize = 10_000;
    /// Most error chunks in one reply.
    pub const MAX_ERROR_CHUNKS: u32 = 1024;
    /// Longest payload of an error chunk: error, length, message, and room for trailing fields.
    pub const MAX_ERROR_CHUNK: u64 = 8 << 10;
}
