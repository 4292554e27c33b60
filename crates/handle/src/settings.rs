//! What can be set before connecting, and what can be asked at any time.

use std::{
    ffi::CStr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use nbd::{proto::limits, uri::Uri};
use rustix::io::Errno;

use crate::{
    ALLOW_TRANSPORT_MASK, DebugCallback, HANDSHAKE_FLAG_MASK, Handle, Result, STRICT_MASK,
    TLS_DISABLE, TLS_REQUIRE,
    error::Fault,
    inner::Inner,
    state::Permitted,
    uri::{ANY_TLS, Place},
};

/// All that a caller can set.
pub(crate) struct Settings {
    pub name: String,
    pub export: String,
    pub block_size: bool,
    pub full_info: bool,
    pub tls: i32,
    pub tls_certificates: Option<PathBuf>,
    pub tls_psk_file: Option<PathBuf>,
    pub tls_username: Option<String>,
    pub tls_hostname: Option<String>,
    pub tls_priority: Option<String>,
    pub tls_verify_peer: bool,
    pub extended_headers: bool,
    pub structured_replies: bool,
    pub request_meta_context: bool,
    pub handshake_flags: u32,
    pub pread_initialize: bool,
    pub strict: u32,
    pub opt_mode: bool,
    pub contexts: Vec<String>,
    pub uri_transports: u32,
    pub uri_tls: i32,
    pub uri_tls_priority: bool,
    pub uri_local_file: bool,
    pub socket_activation_name: String,
}

/// The next handle's number.
static NUMBER: AtomicU64 = AtomicU64::new(1);

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            name: format!("nbd{}", NUMBER.fetch_add(1, Relaxed)),
            export: String::new(),
            block_size: true,
            full_info: false,
            tls: TLS_DISABLE,
            tls_certificates: None,
            tls_psk_file: None,
            tls_username: None,
            tls_hostname: None,
            tls_priority: None,
            tls_verify_peer: true,
            extended_headers: true,
            structured_replies: true,
            request_meta_context: true,
            handshake_flags: HANDSHAKE_FLAG_MASK,
            pread_initialize: true,
            strict: STRICT_MASK,
            opt_mode: false,
            contexts: Vec::new(),
            uri_transports: ALLOW_TRANSPORT_MASK,
            uri_tls: ANY_TLS,
            uri_tls_priority: false,
            uri_local_file: false,
            socket_activation_name: String::new(),
        }
    }
}

impl Settings {
    /// What TLS to a server is configured with.
    pub fn tls_config(&self, place: Option<&Place>) -> tls::ClientConfig {
        let host = place.and_then(|place| match place {
            Place::Tcp { host, .. } => Some(host.clone()),
            Place::Unix(_) | Place::Vsock { .. } => None,
        });
        tls::ClientConfig {
            certificates: self.tls_certificates.clone(),
            psk: self.tls_psk_file.clone(),
            username: self.tls_username.clone(),
            hostname: self.tls_hostname.clone().or(host),
            verify_peer: self.tls_verify_peer,
            priority: self.tls_priority.clone(),
        }
    }
}

fn check_tls(tls: i32) -> std::result::Result<(), Fault> {
    match tls {
        TLS_DISABLE..=TLS_REQUIRE => Ok(()),
        other => Err(Fault::invalid(format!(
            "tls: invalid value for parameter: {other}"
        ))),
    }
}

pub(crate) fn check_flags(name: &str, flags: u32, mask: u32) -> std::result::Result<(), Fault> {
    match flags & !mask {
        0 => Ok(()),
        _ => Err(Fault::invalid(format!(
            "{name}: invalid value for flag: {flags:#x}"
        ))),
    }
}

fn check_name(what: &str, name: &str) -> std::result::Result<(), Fault> {
    match name.len() {
        0..=limits::MAX_STRING => Ok(()),
        _ => Err(Fault::of(
            format!("{what} name too long for NBD protocol"),
            Errno::NAMETOOLONG,
        )),
    }
}

/// Debugging, names, and facts about the library.
impl Handle {
    /// `nbd_create`: a handle that is not connected. `LIBNBD_DEBUG=1` in the environment switches
    /// debugging on.
    ///
    /// # Errors
    ///
    /// None at present.
    pub fn new() -> Result<Handle> {
        let debug = std::env::var_os("LIBNBD_DEBUG").is_some_and(|value| value == "1");
        Ok(Handle::with(Settings::default(), debug))
    }

    /// `nbd_set_debug`.
    ///
    /// # Errors
    ///
    /// None.
    pub fn set_debug(&self, debug: bool) -> Result<()> {
        self.shared.debug.store(debug, Relaxed);
        Ok(())
    }

    /// `nbd_get_debug`.
    pub fn get_debug(&self) -> bool {
        self.shared.debug.load(Relaxed)
    }

    /// `nbd_set_debug_callback`. Replaces, and drops, an earlier one.
    ///
    /// # Errors
    ///
    /// None but inside of a callback.
    pub fn set_debug_callback(&self, callback: DebugCallback) -> Result<()> {
        self.replace_debug_callback("nbd_set_debug_callback", Some(callback))
    }

    /// `nbd_clear_debug_callback`.
    ///
    /// # Errors
    ///
    /// None but inside of a callback.
    pub fn clear_debug_callback(&self) -> Result<()> {
        self.replace_debug_callback("nbd_clear_debug_callback", None)
    }

    fn replace_debug_callback(
        &self,
        call: &'static str,
        callback: Option<DebugCallback>,
    ) -> Result<()> {
        let none = format_args!("");
        let old = self.call(call, Permitted::ALWAYS, none, |inner| {
            Ok(std::mem::replace(&mut inner.debug_callback, callback))
        })?;
        // Freed without the lock.
        drop(old);
        Ok(())
    }

    /// `nbd_set_handle_name`.
    ///
    /// # Errors
    ///
    /// None.
    pub fn set_handle_name(&self, name: &str) -> Result<()> {
        self.shared.settings().name = name.to_owned();
        Ok(())
    }

    /// `nbd_get_handle_name`.
    ///
    /// # Errors
    ///
    /// None.
    pub fn get_handle_name(&self) -> Result<String> {
        Ok(self.shared.settings().name.clone())
    }

    /// `nbd_get_handle_size`: about how many bytes of memory the handle takes.
    ///
    /// # Errors
    ///
    /// None but inside of a callback.
    pub fn get_handle_size(&self) -> Result<usize> {
        let none = format_args!("");
        self.call("nbd_get_handle_size", Permitted::ALWAYS, none, |inner| {
            let buffer = inner.wire.as_ref().map_or(0, |wire| wire.memory());
            Ok(size_of::<Handle>() + size_of::<Settings>() + size_of::<Inner>() + buffer)
        })
    }

    /// `nbd_stats_bytes_sent`.
    pub fn stats_bytes_sent(&self) -> u64 {
        self.shared.bytes_sent.load(Relaxed)
    }

    /// `nbd_stats_chunks_sent`.
    pub fn stats_chunks_sent(&self) -> u64 {
        self.shared.chunks_sent.load(Relaxed)
    }

    /// `nbd_stats_bytes_received`.
    pub fn stats_bytes_received(&self) -> u64 {
        self.shared.bytes_received.load(Relaxed)
    }

    /// `nbd_stats_chunks_received`.
    pub fn stats_chunks_received(&self) -> u64 {
        self.shared.chunks_received.load(Relaxed)
    }

    /// `nbd_supports_tls`.
    pub fn supports_tls(&self) -> bool {
        tls::BUILT
    }

    /// `nbd_supports_vsock`.
    pub fn supports_vsock(&self) -> bool {
        true
    }

    /// `nbd_supports_uri`.
    pub fn supports_uri(&self) -> bool {
        true
    }

    /// `nbd_is_uri`: whether a word looks like an NBD URI.
    ///
    /// # Errors
    ///
    /// None.
    pub fn is_uri(&self, word: &str) -> Result<bool> {
        Ok(Uri::is_meant(word))
    }

    /// `nbd_connection_state`: the state, for people. Needs no lock.
    pub fn connection_state(&self) -> &'static CStr {
        self.shared.state().words()
    }
}

/// What is asked of the server.
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

/// TLS, and what URIs may do.
impl Handle {
    /// `nbd_set_tls`: one of [`TLS_DISABLE`], [`TLS_ALLOW`](crate::TLS_ALLOW) and
    /// [`TLS_REQUIRE`].
    ///
    /// # Errors
    ///
    /// See the manual page.
    pub fn set_tls(&self, tls: i32) -> Result<()> {
        let shown = format_args!("tls={tls}");
        self.call("nbd_set_tls", Permitted::CREATED, shown, |inner| {
            check_tls(tls)?;
            if tls != TLS_DISABLE && !tls::BUILT {
                return Err(Fault::of(tls::Error::NotBuilt.to_string(), Errno::NOTSUP));
            }
            inner.settings().tls = tls;
            Ok(())
        })
    }

    /// `nbd_get_tls`.
    pub fn get_tls(&self) -> i32 {
        self.shared.settings().tls
    }

    /// `nbd_set_tls_certificates`.
    ///
    /// # Errors
    ///
    /// See the manual page.
    pub fn set_tls_certificates(&self, directory: &Path) -> Result<()> {
        self.call(
            "nbd_set_tls_certificates",
            Permitted::CREATED,
            format_args!("directory={directory:?}"),
            |inner| {
                inner.settings().tls_certificates = Some(directory.to_owned());
                Ok(())
            },
        )
    }

    /// `nbd_set_tls_psk_file`.
    ///
    /// # Errors
    ///
    /// See the manual page.
    pub fn set_tls_psk_file(&self, file: &Path) -> Result<()> {
        self.call(
            "nbd_set_tls_psk_file",
            Permitted::CREATED,
            format_args!("file={file:?}"),
            |inner| {
                inner.settings().tls_psk_file = Some(file.to_owned());
                Ok(())
            },
        )
    }

    /// `nbd_set_tls_verify_peer`.
    ///
    /// # Errors
    ///
    /// See the manual page.
    pub fn set_tls_verify_peer(&self, verify: bool) -> Result<()> {
        self.call(
            "nbd_set_tls_verify_peer",
            Permitted::CREATED,
            format_args!("verify={verify:?}"),
            |inner| {
                inner.settings().tls_verify_peer = verify;
                Ok(())
            },
        )
    }

    /// `nbd_get_tls_verify_peer`.
    pub fn get_tls_verify_peer(&self) -> bool {
        self.shared.settings().tls_verify_peer
    }

    /// `nbd_set_tls_username`.
    ///
    /// # Errors
    ///
    /// See the manual page.
    pub fn set_tls_username(&self, username: &str) -> Result<()> {
        self.call(
            "nbd_set_tls_username",
            Permitted::CREATED,
            format_args!("username={username:?}"),
            |inner| {
                inner.settings().tls_username = Some(username.to_owned());
                Ok(())
            },
        )
    }

    /// `nbd_get_tls_username`: the one that was set, or who runs this program.
    ///
    /// # Errors
    ///
    /// The environment does not say who that is.
    pub fn get_tls_username(&self) -> Result<String> {
        let set = self.shared.settings().tls_username.clone();
        set.or_else(tls::running_user).ok_or_else(|| {
            let fault = Fault::of("neither LOGNAME nor USER is set", Errno::NOENT);
            fault.in_call("nbd_get_tls_username")
        })
    }

    /// `nbd_set_tls_hostname`.
    ///
    /// # Errors
    ///
    /// See the manual page.
    pub fn set_tls_hostname(&self, hostname: &str) -> Result<()> {
        self.call(
            "nbd_set_tls_hostname",
            Permitted::CREATED,
            format_args!("hostname={hostname:?}"),
            |inner| {
                inner.settings().tls_hostname =
                    Some(hostname.to_owned()).filter(|name| !name.is_empty());
                Ok(())
            },
        )
    }

    /// `nbd_get_tls_hostname`.
    ///
    /// # Errors
    ///
    /// None.
    pub fn get_tls_hostname(&self) -> Result<String> {
        Ok(self
            .shared
            .settings()
            .tls_hostname
            .clone()
            .unwrap_or_default())
    }

    /// `nbd_set_tls_priority`.
    ///
    /// # Errors
    ///
    /// See the manual page.
    pub fn set_tls_priority(&self, priority: &str) -> Result<()> {
        self.call(
            "nbd_set_tls_priority",
            Permitted::CREATED,
            format_args!("priority={priority:?}"),
            |inner| {
                inner.settings().tls_priority = Some(priority.to_owned());
                Ok(())
            },
        )
    }

    /// `nbd_get_tls_priority`.
    ///
    /// # Errors
    ///
    /// None.
    pub fn get_tls_priority(&self) -> Result<String> {
        Ok(self
            .shared
            .settings()
            .tls_priority
            .clone()
            .unwrap_or_else(|| "NORMAL".into()))
    }

    /// `nbd_set_uri_allow_transports`.
    ///
    /// # Errors
    ///
    /// See the manual page.
    pub fn set_uri_allow_transports(&self, mask: u32) -> Result<()> {
        self.call(
            "nbd_set_uri_allow_transports",
            Permitted::CREATED,
            format_args!("mask={mask:?}"),
            |inner| {
                check_flags("mask", mask, ALLOW_TRANSPORT_MASK)?;
                inner.settings().uri_transports = mask;
                Ok(())
            },
        )
    }

    /// `nbd_set_uri_allow_tls`.
    ///
    /// # Errors
    ///
    /// See the manual page.
    pub fn set_uri_allow_tls(&self, tls: i32) -> Result<()> {
        self.call(
            "nbd_set_uri_allow_tls",
            Permitted::CREATED,
            format_args!("tls={tls:?}"),
            |inner| {
                check_tls(tls)?;
                inner.settings().uri_tls = tls;
                Ok(())
            },
        )
    }

    /// `nbd_set_uri_allow_tls_priority`.
    ///
    /// # Errors
    ///
    /// See the manual page.
    pub fn set_uri_allow_tls_priority(&self, allow: bool) -> Result<()> {
        self.call(
            "nbd_set_uri_allow_tls_priority",
            Permitted::CREATED,
            format_args!("allow={allow:?}"),
            |inner| {
                inner.settings().uri_tls_priority = allow;
                Ok(())
            },
        )
    }

    /// `nbd_set_uri_allow_local_file`.
    ///
    /// # Errors
    ///
    /// See the manual page.
    pub fn set_uri_allow_local_file(&self, allow: bool) -> Result<()> {
        self.call(
            "nbd_set_uri_allow_local_file",
            Permitted::CREATED,
            format_args!("allow={allow:?}"),
            |inner| {
                inner.settings().uri_local_file = allow;
                Ok(())
            },
        )
    }

    /// `nbd_set_socket_activation_name`.
    ///
    /// # Errors
    ///
    /// See the manual page.
    pub fn set_socket_activation_name(&self, name: &str) -> Result<()> {
        let shown = format_args!("socket_name={name:?}");
        let call = "nbd_set_socket_activation_name";
        self.call(call, Permitted::CREATED, shown, |inner| {
            if name.len() > 32 {
                let text = "socket activation name should be <= 32 characters";
                return Err(Fault::of(text, Errno::NAMETOOLONG));
            }
            if !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                let text =
                    "socket activation name should contain only alphanumeric ASCII characters";
                return Err(Fault::invalid(text));
            }
            inner.settings().socket_activation_name = name.to_owned();
            Ok(())
        })
    }

    /// `nbd_get_socket_activation_name`.
    ///
    /// # Errors
    ///
    /// None.
    pub fn get_socket_activation_name(&self) -> Result<String> {
        Ok(self.shared.settings().socket_activation_name.clone())
    }
}
