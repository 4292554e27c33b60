//! What the server said of the export.

use std::ffi::CStr;

use nbd::proto;
use rustix::io::Errno;

use crate::{
    Handle, MAX_REQUEST, Result, SIZE_MAXIMUM, SIZE_MINIMUM, SIZE_PAYLOAD, SIZE_PREFERRED,
    error::Fault, negotiation::Negotiation, state::Permitted,
};

type Answer<T> = std::result::Result<T, Fault>;

impl Negotiation {
    fn size_and_flags(&self, what: &str) -> Answer<(u64, u16)> {
        self.export.ok_or_else(|| {
            Fault::invalid(format!(
                "server has not returned {what}, you need to connect to the server first"
            ))
        })
    }

    fn flags(&self) -> Answer<u16> {
        self.size_and_flags("export flags").map(|(_, flags)| flags)
    }

    /// Size in bytes.
    pub fn size(&self) -> Answer<u64> {
        self.size_and_flags("export size").map(|(size, _)| size)
    }

    pub fn has(&self, flag: u16) -> Answer<bool> {
        let offered = self.flags()? & flag != 0;
        Ok(offered
            && match flag {
                proto::FLAG_SEND_DF => self.mode.has_chunks(),
                proto::FLAG_BLOCK_STATUS_PAYLOAD => self.mode.is_extended(),
                _ => true,
            })
    }

    /// One of the block sizes in bytes, or 0.
    pub fn block_size(&self, kind: i32) -> Answer<u32> {
        /// Longest payload for a server that told no limit (spec: Block size constraints).
        const USUAL: u32 = proto::limits::DEFAULT_MAX_PAYLOAD;
        /// Every server takes so much.
        const LEAST: u32 = 1 << 20;
        self.flags()?;
        let told =
            |size: fn(&nbd::client::BlockSizeInfo) -> u32| self.sizes.as_ref().map_or(0, size);
        Ok(match kind {
            SIZE_MINIMUM => told(|sizes| sizes.minimum),
            SIZE_PREFERRED => told(|sizes| sizes.preferred),
            SIZE_MAXIMUM => told(|sizes| sizes.maximum),
            SIZE_PAYLOAD => match told(|sizes| sizes.maximum) {
                0 => USUAL,
                maximum => maximum.clamp(LEAST, MAX_REQUEST as u32),
            },
            other => {
                let text = format!("size_type: invalid value for parameter: {other}");
                return Err(Fault::invalid(text));
            }
        })
    }
}

impl Handle {
    fn known<T>(
        &self,
        call: &'static str,
        ask: impl FnOnce(&Negotiation) -> Answer<T>,
    ) -> Result<T> {
        let none = format_args!("");
        self.call(
            call,
            Permitted::KNOWN,
            none,
            |inner| ask(&inner.negotiation),
        )
    }

    /// `nbd_is_read_only`.
    ///
    /// # Errors
    ///
    /// It is not known yet.
    pub fn is_read_only(&self) -> Result<bool> {
        self.known("nbd_is_read_only", |negotiation| {
            negotiation.has(proto::FLAG_READ_ONLY)
        })
    }

    /// `nbd_is_rotational`.
    ///
    /// # Errors
    ///
    /// It is not known yet.
    pub fn is_rotational(&self) -> Result<bool> {
        self.known("nbd_is_rotational", |negotiation| {
            negotiation.has(proto::FLAG_ROTATIONAL)
        })
    }

    /// `nbd_can_flush`.
    ///
    /// # Errors
    ///
    /// It is not known yet.
    pub fn can_flush(&self) -> Result<bool> {
        self.known("nbd_can_flush", |negotiation| {
            negotiation.has(proto::FLAG_SEND_FLUSH)
        })
    }

    /// `nbd_can_fua`.
    ///
    /// # Errors
    ///
    /// It is not known yet.
    pub fn can_fua(&self) -> Result<bool> {
        self.known("nbd_can_fua", |negotiation| {
            negotiation.has(proto::FLAG_SEND_FUA)
        })
    }

    /// `nbd_can_trim`.
    ///
    /// # Errors
    ///
    /// It is not known yet.
    pub fn can_trim(&self) -> Result<bool> {
        self.known("nbd_can_trim", |negotiation| {
            negotiation.has(proto::FLAG_SEND_TRIM)
        })
    }

    /// `nbd_can_zero`.
    ///
    /// # Errors
    ///
    /// It is not known yet.
    pub fn can_zero(&self) -> Result<bool> {
        self.known("nbd_can_zero", |negotiation| {
            negotiation.has(proto::FLAG_SEND_WRITE_ZEROES)
        })
    }

    /// `nbd_can_fast_zero`.
    ///
    /// # Errors
    ///
    /// It is not known yet.
    pub fn can_fast_zero(&self) -> Result<bool> {
        self.known("nbd_can_fast_zero", |negotiation| {
            negotiation.has(proto::FLAG_SEND_FAST_ZERO)
        })
    }

    /// `nbd_can_block_status_payload`.
    ///
    /// # Errors
    ///
    /// It is not known yet.
    pub fn can_block_status_payload(&self) -> Result<bool> {
        self.known("nbd_can_block_status_payload", |negotiation| {
            negotiation.has(proto::FLAG_BLOCK_STATUS_PAYLOAD)
        })
    }

    /// `nbd_can_df`.
    ///
    /// # Errors
    ///
    /// It is not known yet.
    pub fn can_df(&self) -> Result<bool> {
        self.known("nbd_can_df", |negotiation| {
            negotiation.has(proto::FLAG_SEND_DF)
        })
    }

    /// `nbd_can_multi_conn`.
    ///
    /// # Errors
    ///
    /// It is not known yet.
    pub fn can_multi_conn(&self) -> Result<bool> {
        self.known("nbd_can_multi_conn", |negotiation| {
            negotiation.has(proto::FLAG_CAN_MULTI_CONN)
        })
    }

    /// `nbd_can_cache`.
    ///
    /// # Errors
    ///
    /// It is not known yet.
    pub fn can_cache(&self) -> Result<bool> {
        self.known("nbd_can_cache", |negotiation| {
            negotiation.has(proto::FLAG_SEND_CACHE)
        })
    }
    /// `nbd_can_meta_context`: whether the server has selected the context.
    ///
    /// # Errors
    ///
    /// It was not asked, or has refused.
    pub fn can_meta_context(&self, name: &str) -> Result<bool> {
        let call = "nbd_can_meta_context";
        let shown = format_args!("metacontext={name:?}");
        self.call(call, Permitted::KNOWN, shown, |inner| {
            let wanted = !inner.settings().contexts.is_empty();
            if wanted && !inner.negotiation.contexts_known {
                let text = "need a successful server meta context request first";
                return Err(Fault::invalid(text));
            }
            let mut contexts = inner.negotiation.contexts.iter();
            Ok(contexts.any(|context| context.name == name))
        })
    }

    /// `nbd_get_protocol`: `oldstyle`, `newstyle` or `newstyle-fixed`.
    ///
    /// # Errors
    ///
    /// There was no connection.
    pub fn get_protocol(&self) -> Result<&'static CStr> {
        self.known("nbd_get_protocol", |negotiation| {
            let missing = || Fault::invalid("the server has not greeted yet");
            negotiation.protocol.ok_or_else(missing)
        })
    }

    /// `nbd_get_size`, in bytes.
    ///
    /// # Errors
    ///
    /// It is not known, or `EOVERFLOW`.
    pub fn get_size(&self) -> Result<i64> {
        self.known("nbd_get_size", |negotiation| {
            let size = negotiation.size()?;
            i64::try_from(size).map_err(|_| {
                let text = format!("server claims size {size} which does not fit in signed result");
                Fault::of(text, Errno::OVERFLOW)
            })
        })
    }

    /// `nbd_get_block_size`, in bytes; `kind` is one of [`SIZE_MINIMUM`], ... 0 means that it was not told.
    ///
    /// # Errors
    ///
    /// It is not known, or `kind` is none.
    pub fn get_block_size(&self, kind: i32) -> Result<i64> {
        self.known("nbd_get_block_size", |negotiation| {
            negotiation.block_size(kind).map(i64::from)
        })
    }

    /// `nbd_get_canonical_export_name`.
    ///
    /// # Errors
    ///
    /// The server did not tell it.
    pub fn get_canonical_export_name(&self) -> Result<String> {
        self.known("nbd_get_canonical_export_name", |negotiation| {
            negotiation.flags()?;
            let text = "server did not advertise a canonical name";
            let missing = || Fault::of(text, Errno::NOTSUP);
            negotiation.name.clone().ok_or_else(missing)
        })
    }

    /// `nbd_get_export_description`.
    ///
    /// # Errors
    ///
    /// The server did not tell it.
    pub fn get_export_description(&self) -> Result<String> {
        self.known("nbd_get_export_description", |negotiation| {
            negotiation.flags()?;
            let text = "server did not advertise a description";
            let missing = || Fault::of(text, Errno::NOTSUP);
            negotiation.description.clone().ok_or_else(missing)
        })
    }

    /// `nbd_get_tls_negotiated`.
    ///
    /// # Errors
    ///
    /// There was no connection.
    pub fn get_tls_negotiated(&self) -> Result<bool> {
        self.known("nbd_get_tls_negotiated", |negotiation| Ok(negotiation.tls))
    }

    /// `nbd_get_structured_replies_negotiated`.
    ///
    /// # Errors
    ///
    /// There was no connection.
    pub fn get_structured_replies_negotiated(&self) -> Result<bool> {
        self.known("nbd_get_structured_replies_negotiated", |negotiation| {
            Ok(negotiation.mode.has_chunks())
        })
    }

    /// `nbd_get_extended_headers_negotiated`.
    ///
    /// # Errors
    ///
    /// There was no connection.
    pub fn get_extended_headers_negotiated(&self) -> Result<bool> {
        self.known("nbd_get_extended_headers_negotiated", |negotiation| {
            Ok(negotiation.mode.is_extended())
        })
    }
}
