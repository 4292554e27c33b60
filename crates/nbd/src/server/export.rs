//! What the driver tells the handshake: the server's policy, and the export it opened; and what it
//! gets in the end.

use std::borrow::Cow;

use super::transmission::Served;
use crate::proto::{self, Mode, limits};

/// The policy of a server, the same for all its exports.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Offer fixed newstyle. Off, only `OPT_EXPORT_NAME` works; for tests of old clients.
    pub fixed_newstyle: bool,
    /// Offer to leave out the 124 zero bytes after `OPT_EXPORT_NAME`.
    pub no_zeroes: bool,
    /// Grant `OPT_STRUCTURED_REPLY`. Off (`--no-sr`), there is no block status either, unless
    /// extended headers are granted.
    pub structured_replies: bool,
    /// Grant `OPT_LIST_META_CONTEXT` and `OPT_SET_META_CONTEXT`. Off (`--no-mc`), they are unknown,
    /// as to a server of the time before them, and there is no block status.
    pub meta_contexts: bool,
    /// Grant `OPT_EXTENDED_HEADERS`.
    pub extended_headers: bool,
    /// Refuse clients without extended headers.
    pub require_extended_headers: bool,
    /// Answer `OPT_LIST`; off, it is refused by policy.
    pub list: bool,
    /// Whether `OPT_STARTTLS` is granted or demanded.
    pub tls: TlsMode,
    /// What to do with clients that never asked for block sizes.
    pub block_size_policy: BlockSizePolicy,
}

impl Default for ServerOptions {
    /// Everything that needs nothing from outside: no TLS, all else granted.
    fn default() -> ServerOptions {
        ServerOptions {
            fixed_newstyle: true,
            no_zeroes: true,
            structured_replies: true,
            meta_contexts: true,
            extended_headers: true,
            require_extended_headers: false,
            list: true,
            tls: TlsMode::Off,
            block_size_policy: BlockSizePolicy::Relax,
        }
    }
}

/// Spec: TLS support, Server-side requirements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// NOTLS: `OPT_STARTTLS` is refused by policy.
    #[default]
    Off,
    /// SELECTIVETLS: the client may upgrade. The driver refuses the exports that need it.
    Offered,
    /// FORCEDTLS: nothing but `OPT_STARTTLS` and `OPT_ABORT` is answered before the upgrade.
    Required,
}

/// A client that did not send `INFO_BLOCK_SIZE` has not promised to keep to a minimum block size
/// above 1 (spec: Block size constraints).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BlockSizePolicy {
    /// Let it send anything: [`Served::min_block`] is 1, and layers below read, modify and write.
    #[default]
    Relax,
    /// Serve it, and refuse its unaligned requests with `EINVAL`.
    Enforce,
    /// Turn it away with `REP_ERR_BLOCK_SIZE_REQD` if the export's minimum is above 1.
    Refuse,
}

/// Block size constraints that obey the spec (Block size constraints). All in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSizes {
    minimum: u32,
    preferred: u32,
    maximum: u32,
}

impl BlockSizes {
    /// Smallest `minimum`, and the default.
    pub const MIN_MINIMUM: u32 = 1;
    /// Largest `minimum`.
    pub const MAX_MINIMUM: u32 = 65536;
    /// Smallest `preferred`.
    pub const MIN_PREFERRED: u32 = 512;

    /// `None` unless `minimum` is a power of 2 from 1 to 65536, `preferred` a power of 2 of at
    /// least 512 and `minimum`, and `maximum` at least `preferred` and either a multiple of
    /// `minimum` or `u32::MAX`, which means no limit.
    pub const fn new(minimum: u32, preferred: u32, maximum: u32) -> Option<BlockSizes> {
        let minimum_ok = minimum.is_power_of_two() && minimum <= Self::MAX_MINIMUM;
        if !minimum_ok {
            return None;
        }
        let preferred_ok =
            preferred.is_power_of_two() && preferred >= Self::MIN_PREFERRED && preferred >= minimum;
        let maximum_ok =
            maximum >= preferred && (maximum == u32::MAX || maximum.is_multiple_of(minimum));
        if preferred_ok && maximum_ok {
            Some(BlockSizes {
                minimum,
                preferred,
                maximum,
            })
        } else {
            None
        }
    }

    /// Smallest length and alignment of a request.
    pub const fn minimum(self) -> u32 {
        self.minimum
    }

    /// Smallest length and alignment that is efficient.
    pub const fn preferred(self) -> u32 {
        self.preferred
    }

    /// Longest read or write; `u32::MAX` for no limit of the device.
    pub const fn maximum(self) -> u32 {
        self.maximum
    }
}

impl Default for BlockSizes {
    /// 1, 4096, and 32 MiB: what a client may count on (spec: Block size constraints).
    fn default() -> BlockSizes {
        BlockSizes {
            minimum: 1,
            preferred: 4096,
            maximum: limits::DEFAULT_MAX_PAYLOAD,
        }
    }
}

/// An export that the driver has opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportInfo {
    /// Size in bytes.
    pub size: u64,
    /// Transmission flags: what the export can do at best. `FLAG_HAS_FLAGS` is added, and
    /// `FLAG_SEND_DF`, `FLAG_SEND_FAST_ZERO` and `FLAG_BLOCK_STATUS_PAYLOAD` are taken away where
    /// what was agreed on does not allow them.
    pub flags: u16,
    /// Block sizes to tell; `None` tells nothing, and means those of [`BlockSizes::default`]
    /// without their maximum.
    pub block_sizes: Option<BlockSizes>,
    /// Longest read or write that is served, in bytes. The smallest of this,
    /// [`BlockSizes::maximum`] and [`limits::MAX_PAYLOAD_SKIP`] is enforced.
    pub max_payload: u32,
    /// Canonical name.
    pub name: String,
    /// Description for people; empty for none.
    pub description: String,
}

impl ExportInfo {
    /// An export of this size that can be read and written, and no more.
    pub fn new(size: u64, name: impl Into<String>) -> ExportInfo {
        ExportInfo {
            size,
            flags: proto::FLAG_HAS_FLAGS,
            block_sizes: Some(BlockSizes::default()),
            max_payload: limits::DEFAULT_MAX_PAYLOAD,
            name: name.into(),
            description: String::new(),
        }
    }
}

/// A metadata context: its name, and the number that stands for it in block status replies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// Number, unique among the contexts of an export.
    pub id: u32,
    /// Name, such as `base:allocation`.
    pub name: String,
}

/// Why an option is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// One of the `REP_ERR_` codes.
    pub code: u32,
    /// Text for people; cut to 4096 bytes when sent.
    pub text: Cow<'static, str>,
}

impl Refused {
    /// With one of the `REP_ERR_` codes of [`proto`] and a text for people.
    pub fn new(code: u32, text: impl Into<Cow<'static, str>>) -> Refused {
        Refused {
            code: code | proto::REP_FLAG_ERROR,
            text: text.into(),
        }
    }
}

/// What was agreed on. Enough to serve the transmission phase; the handshake can be dropped.
#[derive(Clone, Debug)]
pub struct Negotiated {
    /// Name of the export as the client gave it.
    pub name: String,
    /// Framing of requests and replies.
    pub mode: Mode,
    /// What requests are checked against.
    pub served: Served,
    /// Selected metadata contexts, at most [`limits::MAX_CONTEXTS`]. A context's place in this
    /// list is its bit in [`transmission::ContextSet`](super::transmission::ContextSet).
    pub contexts: Vec<Context>,
    /// The client asked for block sizes and must keep to them.
    pub block_sizes_known: bool,
    /// TLS was started.
    pub tls: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_sizes_obey_the_spec() {
        let good = [
            (1, 512, 512),
            (1, 4096, u32::MAX),
            (512, 512, 1024),
            (65536, 65536, 65536 * 3),
            (4096, 4096, u32::MAX),
            (1, 4096, 4097),
        ];
        for (minimum, preferred, maximum) in good {
            let sizes = BlockSizes::new(minimum, preferred, maximum).unwrap();
            assert_eq!(
                (sizes.minimum(), sizes.preferred(), sizes.maximum()),
                (minimum, preferred, maximum)
            );
        }
        let bad = [
            (0, 512, 512),
            (3, 512, 513),
            (131072, 131072, 131072),
            (1, 256, 512),
            (1, 513, 1024),
            (1024, 512, 1024),
            (512, 4096, 4095),
            (512, 4096, 4097),
            (1, 4096, 0),
        ];
        for (minimum, preferred, maximum) in bad {
            assert_eq!(BlockSizes::new(minimum, preferred, maximum), None);
        }
        let default = BlockSizes::default();
        assert_eq!(BlockSizes::new(1, 4096, 32 << 20), Some(default));
    }
}
