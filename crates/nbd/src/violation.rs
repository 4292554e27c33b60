//! What a peer did that the protocol forbids.

/// A breach of the protocol after which no byte of the stream can be trusted, or which the spec
/// answers with a hard disconnect. It concerns one connection; a server counts it and closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// The greeting does not start with `NBDMAGIC`, or its second magic is unknown.
    #[error("the peer does not speak NBD: bad magic {0:#018x} in the greeting")]
    GreetingMagic(u64),
    /// The client set a flag that is unknown or was not offered.
    #[error("client flags {0:#010x} were not offered")]
    ClientFlags(u32),
    /// An option does not start with `IHAVEOPT`.
    #[error("bad magic {0:#018x} of an option")]
    OptionMagic(u64),
    /// An option's data is longer than what is worth skipping.
    #[error("option {option} comes with {length} bytes of data")]
    OptionTooLong {
        /// The option.
        option: u32,
        /// Length of its data.
        length: u32,
    },
    /// More than [`MAX_OPTIONS`](crate::proto::limits::MAX_OPTIONS).
    #[error("too many options")]
    TooManyOptions,
    /// An option other than `OPT_EXPORT_NAME` without fixed newstyle.
    #[error("option {0} needs fixed newstyle negotiation")]
    NotFixed(u32),
    /// `OPT_EXPORT_NAME` with a name too long, not UTF-8 or with a NUL.
    #[error("malformed export name")]
    BadExportName,
    /// `OPT_EXPORT_NAME` where TLS is required.
    #[error("the client must start TLS before it chooses an export")]
    TlsRequired,
    /// `OPT_EXPORT_NAME` after, or without required, extended headers.
    #[error("OPT_EXPORT_NAME cannot be used with extended headers")]
    ExportNameWithExtendedHeaders,
    /// `OPT_EXPORT_NAME` for an export that cannot be had. There is no error reply for it.
    #[error("the export asked for by OPT_EXPORT_NAME is not available")]
    ExportRefused,
    /// Plain bytes were sent between `OPT_STARTTLS` and the TLS handshake; someone may have put
    /// them there.
    #[error("plain text after STARTTLS")]
    PlainTextAfterStartTls,
    /// A request does not start with the magic agreed on.
    #[error("bad magic {0:#010x} of a request")]
    RequestMagic(u32),
    /// A request's payload is longer than what is worth skipping.
    #[error("a request comes with {0} bytes of payload")]
    PayloadTooLong(u64),
    /// A reply to an option has the wrong magic.
    #[error("bad magic {0:#018x} of an option reply")]
    OptionReplyMagic(u64),
    /// A reply to an option that was not sent, or of a type that does not fit.
    #[error("reply type {reply:#x} to option {option} was not expected")]
    OptionReply {
        /// The option named in the reply.
        option: u32,
        /// The type of the reply.
        reply: u32,
    },
    /// A reply to an option is too long or is malformed.
    #[error("malformed reply to option {0}")]
    OptionReplyData(u32),
    /// The server granted an export without saying its size.
    #[error("the server did not describe the export")]
    NoExportInfo,
    /// More replies to one option than a sane server sends.
    #[error("too many replies to option {0}")]
    TooManyReplies(u32),
    /// A reply has an unknown magic, or one that was not agreed on.
    #[error("bad magic {0:#010x} of a reply")]
    ReplyMagic(u32),
    /// A reply to no request that is in flight.
    #[error("reply with cookie {0:#x} to no request in flight")]
    Cookie(u64),
    /// A simple reply to a read although chunks were agreed on.
    #[error("simple reply to a read although structured replies were agreed on")]
    SimpleReplyToRead,
    /// A chunk that does not answer the command it claims to answer.
    #[error("reply chunk type {0:#x} was not expected")]
    ChunkType(u16),
    /// A chunk with a length that does not fit its type.
    #[error("reply chunk type {chunk:#x} has a bad length of {length}")]
    ChunkLength {
        /// Type of the chunk.
        chunk: u16,
        /// Length of its payload.
        length: u64,
    },
    /// A chunk beyond the range of its request, or more data than asked for.
    #[error("a reply chunk lies outside of the range asked for")]
    ChunkRange,
    /// More than one content chunk although `CMD_FLAG_DF` was set.
    #[error("a reply was fragmented although the request forbade it")]
    Fragmented,
    /// Success was reported before all data had come.
    #[error("a read ended {0} bytes short without an error")]
    ShortRead(u64),
    /// A block status with no extents, too many, or one of length 0.
    #[error("malformed block status")]
    BadStatus,
    /// More error chunks in one reply than a sane server sends.
    #[error("too many error chunks in one reply")]
    TooManyErrors,
    /// An error chunk with an error of 0, or an end without the flag for it.
    #[error("malformed error or end of a reply")]
    BadError,
}
