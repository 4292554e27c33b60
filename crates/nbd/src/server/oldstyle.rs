//! The oldstyle handshake: no haggling at all (spec: Oldstyle negotiation).
//!
//! The server sends one greeting, and the transmission phase begins. There are no names, so it is
//! the default export that is served; no options, so there is no TLS and no way to refuse with a
//! reply: a server that cannot serve closes the connection. Some clients speak nothing else.

use super::export::{BlockSizePolicy, ExportInfo, Negotiated, ServerOptions, TlsMode};
use super::transmission::Served;
use crate::Violation;
use crate::proto::{self, Mode};

/// What to send to a client that was just accepted, and what is agreed on by that.
///
/// # Errors
///
/// [`Violation::TlsRequired`] if `options` demand TLS, and [`Violation::ExportRefused`] if they
/// demand a client that asks for block sizes and the export has some: close the connection.
pub fn oldstyle(
    options: &ServerOptions,
    info: &ExportInfo,
) -> Result<([u8; proto::OLDSTYLE_LEN], Negotiated), Violation> {
    if options.tls == TlsMode::Required {
        return Err(Violation::TlsRequired);
    }
    let minimum = info.block_sizes.map_or(1, |sizes| sizes.minimum());
    if minimum > 1 && options.block_size_policy == BlockSizePolicy::Refuse {
        return Err(Violation::ExportRefused);
    }
    let aligned = options.block_size_policy != BlockSizePolicy::Relax;
    let served = Served::new(info, Mode::Simple, 0, aligned);
    let mut bytes = [0; proto::OLDSTYLE_LEN];
    bytes[..8].copy_from_slice(&proto::INIT_MAGIC.to_be_bytes());
    bytes[8..16].copy_from_slice(&proto::OLDSTYLE_MAGIC.to_be_bytes());
    bytes[16..24].copy_from_slice(&info.size.to_be_bytes());
    // 32 bits of flags, of which the upper half is never used.
    bytes[24..28].copy_from_slice(&u32::from(served.flags).to_be_bytes());
    let negotiated = Negotiated {
        name: String::new(),
        mode: Mode::Simple,
        served,
        contexts: Vec::new(),
        block_sizes_known: false,
        tls: false,
    };
    Ok((bytes, negotiated))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::BlockSizes;

    #[test]
    fn the_greeting_is_152_bytes() {
        let info = ExportInfo {
            flags: u16::MAX,
            ..ExportInfo::new(0x0123_4567_89ab_cdef, "never told")
        };
        let (bytes, negotiated) = oldstyle(&ServerOptions::default(), &info).unwrap();
        assert_eq!(bytes.len(), 152);
        assert_eq!(
            &bytes[..24],
            b"NBDMAGIC\0\0\x42\x02\x81\x86\x12\x53\x01\x23\x45\x67\x89\xab\xcd\xef"
        );
        // Nothing that needs haggling: no DF, no payload of block status.
        let not = proto::FLAG_SEND_DF | proto::FLAG_BLOCK_STATUS_PAYLOAD;
        let flags = !not;
        assert_eq!(bytes[24..28], u32::from(flags).to_be_bytes());
        assert_eq!(bytes[28..], [0; 124]);
        assert_eq!(negotiated.served.flags, flags);
        assert_eq!(negotiated.mode, Mode::Simple);
        assert!(negotiated.contexts.is_empty() && !negotiated.tls);
    }

    #[test]
    fn what_cannot_be_refused_politely_is_not_served() {
        let mut info = ExportInfo::new(1 << 20, "");
        let tls = |tls| ServerOptions {
            tls,
            ..ServerOptions::default()
        };
        let required = oldstyle(&tls(TlsMode::Required), &info);
        assert_eq!(required.unwrap_err(), Violation::TlsRequired);
        assert!(oldstyle(&tls(TlsMode::Offered), &info).is_ok());

        info.block_sizes = BlockSizes::new(512, 512, 512);
        let policy = |block_size_policy| ServerOptions {
            block_size_policy,
            ..ServerOptions::default()
        };
        let refused = oldstyle(&policy(BlockSizePolicy::Refuse), &info);
        assert_eq!(refused.unwrap_err(), Violation::ExportRefused);
        for (lenience, minimum) in [(BlockSizePolicy::Relax, 1), (BlockSizePolicy::Enforce, 512)] {
            let (_, negotiated) = oldstyle(&policy(lenience), &info).unwrap();
            assert_eq!(negotiated.served.min_block, minimum);
        }
    }
}
