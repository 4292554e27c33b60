//! TLS, and what URIs and servers of our own may do.

use std::path::Path;

use rustix::io::Errno;

use super::{check_flags, check_tls};
use crate::{ALLOW_TRANSPORT_MASK, Handle, Result, TLS_DISABLE, error::Fault, state::Permitted};

impl Handle {
    /// `nbd_set_tls`: one of [`TLS_DISABLE`], [`TLS_ALLOW`](crate::TLS_ALLOW) and
    /// [`TLS_REQUIRE`](crate::TLS_REQUIRE).
    ///
    /// # Errors
    ///
    /// See the manual page.
    pub fn set_tls(&self, tls: i32) -> Result<()> {
        let shown = format_args!("tls={tls}");
        self.call("nbd_set_tls", Permitted::CREATED, shown, |inner| {
            check_tls(tls)?;
            if tls != TLS_DISABLE && !::tls::BUILT {
                return Err(Fault::of(::tls::Error::NotBuilt.to_string(), Errno::NOTSUP));
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
        set.or_else(::tls::running_user).ok_or_else(|| {
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
