//! The credentials of a client.

use std::net::IpAddr;

use openssl::{
    ssl::{Ssl, SslContext},
    x509::verify::X509CheckFlags,
};

use crate::{
    ClientConfig, Error, Session, context, files::Files, priority::Policy, running_user,
    session::Side,
};

/// Whom a client trusts and who it is. Shared by all threads; see the [crate](crate) for its
/// promises.
pub struct Connector {
    context: SslContext,
    /// Whose certificate is wanted.
    hostname: Option<String>,
    verified: bool,
}

impl Connector {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// [`Error::Priority`], [`Error::File`]: what a client should not be started with.
    pub fn new(config: ClientConfig) -> Result<Connector, Error> {
        let policy = Policy::parse(config.priority.as_deref().unwrap_or("NORMAL"))?;
        let files = Files::of_client(&config);
        let psk = matches!(files, Some(Files::Psk(_)));
        let user = config.username.or_else(running_user).unwrap_or_default();
        let verified = config.verify_peer && !psk;
        Ok(Connector {
            context: context::client(files.as_ref(), &policy, &user, verified)?,
            hostname: config.hostname,
            verified,
        })
    }

    /// A session for one connection.
    ///
    /// # Errors
    ///
    /// The name of the host is none.
    pub fn connect(&self) -> Result<Session, Error> {
        let mut ssl = Ssl::new(&self.context)?;
        if let Some(name) = &self.hostname {
            let address: Option<IpAddr> = name.parse().ok();
            if address.is_none() {
                // Servers with several certificates choose by this (RFC 6066, section 3).
                ssl.set_hostname(name)?;
            }
            if self.verified {
                let wanted = ssl.param_mut();
                wanted.set_hostflags(X509CheckFlags::NO_PARTIAL_WILDCARDS);
                match address {
                    Some(address) => wanted.set_ip(address)?,
                    None => wanted.set_host(name)?,
                }
            }
        }
        Session::new(ssl, Side::Client)
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector")
            .field("hostname", &self.hostname)
            .field("verified", &self.verified)
            .finish_non_exhaustive()
    }
}
