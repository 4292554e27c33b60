//! What a peer did that the protocol forbids.

use super::proto::{MAX_FDS, MAX_PAYLOAD};

/// A breach of the protocol that no reply can tell of, or after which no byte can be trusted. It
/// ends one connection and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// The header has another version than 1.
    #[error("a message of version {0}, where 1 is spoken")]
    Version(u32),
    /// A reply where a request is due, or the other way round.
    #[error("message {request} has the wrong direction (flags {flags:#x})")]
    Direction {
        /// The request in the header.
        request: u32,
        /// Its flags.
        flags: u32,
    },
    /// The payload is longer than anything that makes sense.
    #[error("message {request} comes with {size} bytes, and {MAX_PAYLOAD} are the most")]
    PayloadTooLong {
        /// The request in the header.
        request: u32,
        /// The size in the header.
        size: u32,
    },
    /// More descriptors than any message has.
    #[error("a message comes with more than {MAX_FDS} descriptors")]
    TooManyDescriptors,
    /// A request that could not be done, and that asked for no acknowledgement.
    #[error("request {request} cannot be done, and asks for no reply: {why}")]
    Untold {
        /// The request.
        request: u32,
        /// Why it cannot be done.
        why: super::Refused,
    },
    /// A reply to something that was not asked.
    #[error("a reply to request {0} was not expected")]
    UnexpectedReply(u32),
    /// A reply that has not the form that its request wants.
    #[error("a malformed reply to request {0}")]
    MalformedReply(u32),
    /// The back-end lacks what there is no way without.
    #[error("the back-end does not offer {0}")]
    Lacking(&'static str),
}
