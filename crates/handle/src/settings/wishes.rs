//! What is asked of the server.

use nbd::proto::limits;

use super::{check_flags, check_name};
use crate::{HANDSHAKE_FLAG_MASK, Handle, Result, STRICT_MASK, error::Fault, state::Permitted};

impl Handle {
    /// `nbd_set_export_name`. Another name forgets what was told of the export.
    ///
    /// # Errors
    ///
    /// See the manual page.
    pub fn set_export_name(&self, name: &str) -> Result<()> {
        let shown = format_args!("export_name={name:?}");
        self.call(
            "nbd_set_export_name",
            Permitted::SETTING_UP,
            shown,
            |inner| {
                check_name("export", name)?;
                if inner.settings().export != name {
                    inner.settings().export = name.to_owned();
                    inner.negotiation.forget_export();
                    inner.negotiation.forget_contexts();
                }
                Ok(())
            },
        )
    }

    /// `nbd_get_export_name`.
    ///
    /// # Errors
    ///
    /// None.
    pub fn get_export_name(&self) -> Result<String> {
        Ok(self.shared.settings().export.clone())
    }

    /// `nbd_set_request_block_size`.
    ///
    /// # Errors
    ///
    /// See the manual page.
    pub fn set_request_block_size(&self, request: bool) -> Result<()> {
        self.call(
            "nbd_set_request_block_size",
            Permitted::SETTING_UP,
            format_args!("request={request:?}"),
            |inner| {
                inner.settings().block_size = request;
                Ok(())
            },
        )
    }

    /// `nbd_get_request_block_size`.
    pub fn get_request_block_size(&self) -> bool {
        self.shared.settings().block_size
    }

    /// `nbd_set_full_info`.
    ///
    /// # Errors
    ///
    /// See the manual page.
    pub fn set_full_info(&self, request: bool) -> Result<()> {
        self.call(
            "nbd_set_full_info",
            Permitted::SETTING_UP,
            format_args!("request={request:?}"),
            |inner| {
                inner.settings().full_info = request;
                Ok(())
            },
        )
    }

    /// `nbd_get_full_info`.
    pub fn get_full_info(&self) -> bool {
        self.shared.settings().full_info
    }

    /// `nbd_set_request_extended_headers`.
    ///
    /// # Errors
    ///
    /// See the manual page.
    pub fn set_request_extended_headers(&self, request: bool) -> Result<()> {
        self.call(
            "nbd_set_request_extended_headers",
            Permitted::CREATED,
            format_args!("request={request:?}"),
            |inner| {
                inner.settings().extended_headers = request;
                Ok(())
            },
        )
    }

    /// `nbd_get_request_extended_headers`.
    pub fn get_request_extended_headers(&self) -> bool {
        self.shared.settings().extended_headers
    }

    /// `nbd_set_request_structured_replies`.
    ///
    /// # Errors
    ///
    /// See the manual page.
    pub fn set_request_structured_replies(&self, request: bool) -> Result<()> {
        self.call(
            "nbd_set_request_structured_replies",
            Permitted::CREATED,
            format_args!("request={request:?}"),
            |inner| {
                inner.settings().structured_replies = request;
                Ok(())
            },
        )
    }

    /// `nbd_get_request_structured_replies`.
    pub fn get_request_structured_replies(&self) -> bool {
        self.shared.settings().structured_replies
    }

    /// `nbd_set_request_meta_context`.
    ///
    /// # Errors
    ///
    /// See the manual page.
    pub fn set_request_meta_context(&self, request: bool) -> Result<()> {
        self.call(
            "nbd_set_request_meta_context",
            Permitted::SETTING_UP,
            format_args!("request={request:?}"),
            |inner| {
                inner.settings().request_meta_context = request;
                Ok(())
            },
        )
    }

    /// `nbd_get_request_meta_context`.
    pub fn get_request_meta_context(&self) -> bool {
        self.shared.settings().request_meta_context
    }

    /// `nbd_set_handshake_flags`.
    ///
    /// # Errors
    ///
    /// See the manual page.
    pub fn set_handshake_flags(&self, flags: u32) -> Result<()> {
        self.call(
            "nbd_set_handshake_flags",
            Permitted::CREATED,
            format_args!("flags={flags:?}"),
            |inner| {
                check_flags("flags", flags, HANDSHAKE_FLAG_MASK)?;
                inner.settings().handshake_flags = flags;
                Ok(())
            },
        )
    }

    /// `nbd_get_handshake_flags`: what we are willing to use; once the server has greeted us, what was
    /// agreed on.
    pub fn get_handshake_flags(&self) -> u32 {
        self.shared.settings().handshake_flags
    }

    /// `nbd_set_pread_initialize`.
    ///
    /// # Errors
    ///
    /// See the manual page.
    pub fn set_pread_initialize(&self, request: bool) -> Result<()> {
        self.call(
            "nbd_set_pread_initialize",
            Permitted::ALWAYS,
            format_args!("request={request:?}"),
            |inner| {
                inner.settings().pread_initialize = request;
                Ok(())
            },
        )
    }

    /// `nbd_get_pread_initialize`.
    pub fn get_pread_initialize(&self) -> bool {
        self.shared.settings().pread_initialize
    }

    /// `nbd_set_strict_mode`.
    ///
    /// # Errors
    ///
    /// See the manual page.
    pub fn set_strict_mode(&self, flags: u32) -> Result<()> {
        self.call(
            "nbd_set_strict_mode",
            Permitted::ALWAYS,
            format_args!("flags={flags:?}"),
            |inner| {
                check_flags("flags", flags, STRICT_MASK)?;
                inner.settings().strict = flags;
                Ok(())
            },
        )
    }

    /// `nbd_get_strict_mode`.
    pub fn get_strict_mode(&self) -> u32 {
        self.shared.settings().strict
    }

    /// `nbd_set_opt_mode`.
    ///
    /// # Errors
    ///
    /// See the manual page.
    pub fn set_opt_mode(&self, enable: bool) -> Result<()> {
        self.call(
            "nbd_set_opt_mode",
            Permitted::CREATED,
            format_args!("enable={enable:?}"),
            |inner| {
                inner.settings().opt_mode = enable;
                Ok(())
            },
        )
    }

    /// `nbd_get_opt_mode`.
    pub fn get_opt_mode(&self) -> bool {
        self.shared.settings().opt_mode
    }

    /// `nbd_add_meta_context`.
    ///
    /// # Errors
    ///
    /// See the manual page.
    pub fn add_meta_context(&self, name: &str) -> Result<()> {
        let shown = format_args!("name={name:?}");
        self.call(
            "nbd_add_meta_context",
            Permitted::SETTING_UP,
            shown,
            |inner| {
                check_name("meta context", name)?;
                let mut settings = inner.settings();
                if settings.contexts.len() == limits::MAX_QUERIES as usize {
                    return Err(Fault::invalid("too many meta contexts"));
                }
                settings.contexts.push(name.to_owned());
                Ok(())
            },
        )
    }

    /// `nbd_get_nr_meta_contexts`.
    ///
    /// # Errors
    ///
    /// None.
    pub fn get_nr_meta_contexts(&self) -> Result<usize> {
        Ok(self.shared.settings().contexts.len())
    }

    /// `nbd_get_meta_context`.
    ///
    /// # Errors
    ///
    /// There is no such context.
    pub fn get_meta_context(&self, i: usize) -> Result<String> {
        let name = self.shared.settings().contexts.get(i).cloned();
        name.ok_or_else(|| {
            let fault = Fault::invalid("meta context request out of range");
            fault.in_call("nbd_get_meta_context")
        })
    }

    /// `nbd_clear_meta_contexts`.
    ///
    /// # Errors
    ///
    /// See the manual page.
    pub fn clear_meta_contexts(&self) -> Result<()> {
        let none = format_args!("");
        self.call(
            "nbd_clear_meta_contexts",
            Permitted::SETTING_UP,
            none,
            |inner| {
                inner.settings().contexts.clear();
                Ok(())
            },
        )
    }
}
