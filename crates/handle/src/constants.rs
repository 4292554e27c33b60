//! The numbers of `libnbd.h`, without its prefix.

/// Do not start TLS.
pub const TLS_DISABLE: i32 = 0;
/// Start TLS if the server can.
pub const TLS_ALLOW: i32 = 1;
/// Start TLS or fail.
pub const TLS_REQUIRE: i32 = 2;

/// Block size: every offset and length is a multiple of it.
pub const SIZE_MINIMUM: i32 = 0;
/// Block size: multiples of it are efficient.
pub const SIZE_PREFERRED: i32 = 1;
/// Block size: the longest read or write the server takes.
pub const SIZE_MAXIMUM: i32 = 2;
/// Block size: the longest write that is sent, unless [`STRICT_PAYLOAD`] is off.
pub const SIZE_PAYLOAD: i32 = 3;

/// On stable storage before the reply.
pub const CMD_FLAG_FUA: u32 = 1 << 0;
/// Zero: do not make a hole.
pub const CMD_FLAG_NO_HOLE: u32 = 1 << 1;
/// Read: in one piece.
pub const CMD_FLAG_DF: u32 = 1 << 2;
/// Block status: one extent for each context.
pub const CMD_FLAG_REQ_ONE: u32 = 1 << 3;
/// Zero: fail rather than be slow.
pub const CMD_FLAG_FAST_ZERO: u32 = 1 << 4;
/// The length is that of the payload; set by the handle where it belongs.
pub const CMD_FLAG_PAYLOAD_LEN: u32 = 1 << 5;
/// All of them.
pub const CMD_FLAG_MASK: u32 = 0x3f;

/// Fixed newstyle: options get replies.
pub const HANDSHAKE_FLAG_FIXED_NEWSTYLE: u32 = 1 << 0;
/// No padding after `NBD_OPT_EXPORT_NAME`.
pub const HANDSHAKE_FLAG_NO_ZEROES: u32 = 1 << 1;
/// All of them.
pub const HANDSHAKE_FLAG_MASK: u32 = 3;

/// Refuse commands that the server does not offer.
pub const STRICT_COMMANDS: u32 = 1 << 0;
/// Refuse flags that are unknown or do not belong to the command.
pub const STRICT_FLAGS: u32 = 1 << 1;
/// Refuse what lies beyond the end of the export.
pub const STRICT_BOUNDS: u32 = 1 << 2;
/// Refuse lengths of 0.
pub const STRICT_ZERO_SIZE: u32 = 1 << 3;
/// Refuse what is not aligned to the minimum block size.
pub const STRICT_ALIGN: u32 = 1 << 4;
/// Refuse writes longer than [`SIZE_PAYLOAD`].
pub const STRICT_PAYLOAD: u32 = 1 << 5;
/// Set or clear [`CMD_FLAG_PAYLOAD_LEN`] as the protocol wants it.
pub const STRICT_AUTO_FLAG: u32 = 1 << 6;
/// All of them.
pub const STRICT_MASK: u32 = 0x7f;

/// URIs may name TCP.
pub const ALLOW_TRANSPORT_TCP: u32 = 1 << 0;
/// URIs may name Unix sockets.
pub const ALLOW_TRANSPORT_UNIX: u32 = 1 << 1;
/// URIs may name vsock.
pub const ALLOW_TRANSPORT_VSOCK: u32 = 1 << 2;
/// URIs may name SSH.
pub const ALLOW_TRANSPORT_SSH: u32 = 1 << 3;
/// All of them.
pub const ALLOW_TRANSPORT_MASK: u32 = 0xf;

/// Shutdown: forget the commands that were not sent yet.
pub const SHUTDOWN_ABANDON_PENDING: u32 = 1 << 16;
/// All of them.
pub const SHUTDOWN_MASK: u32 = 1 << 16;

/// Wait until the descriptor can be read.
pub const AIO_DIRECTION_READ: u32 = 1;
/// Wait until the descriptor can be written.
pub const AIO_DIRECTION_WRITE: u32 = 2;
/// Wait for either.
pub const AIO_DIRECTION_BOTH: u32 = 3;

/// A chunk of data.
pub const READ_DATA: u32 = 1;
/// A hole: zeroes.
pub const READ_HOLE: u32 = 2;
/// An error at an offset.
pub const READ_ERROR: u32 = 3;

/// Longest read or write, in bytes.
pub const MAX_REQUEST: u64 = 64 << 20;
