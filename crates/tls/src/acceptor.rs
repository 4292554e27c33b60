//! The credentials of a server, kept fresh.

use std::sync::{Mutex, PoisonError};

use openssl::ssl::{Ssl, SslContext};

use crate::{
    Config, Error, Session, context,
    files::{Files, Stamp},
    priority::Policy,
    session::Side,
};

/// What a server proves itself by and whom it lets in. Shared by all threads; see the
/// [crate](crate) for its promises.
pub struct Acceptor {
    files: Files,
    policy: Policy,
    verify_peer: bool,
    current: Mutex<Current>,
}

/// What the files said when they looked like that.
struct Current {
    stamp: Stamp,
    /// Had they been changed again right after that, they could look the same.
    settled: bool,
    context: Result<SslContext, Error>,
}

impl Acceptor {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// [`Error::NoCertificates`], [`Error::Priority`], [`Error::File`]: what a server should not be
    /// started with.
    pub fn new(config: Config) -> Result<Acceptor, Error> {
        let policy = Policy::parse(config.priority.as_deref().unwrap_or("NORMAL"))?;
        let files = Files::of(&config)?;
        let stamp = files.stamp();
        let settled = stamp.is_settled();
        let context = context::server(&files, &policy, config.verify_peer)?;
        Ok(Acceptor {
            files,
            policy,
            verify_peer: config.verify_peer,
            current: Mutex::new(Current {
                stamp,
                settled,
                context: Ok(context),
            }),
        })
    }

    /// A session for a client that is about to start TLS. Looks at the files, and reads them again
    /// if they have changed: not for a thread that must not wait.
    ///
    /// # Errors
    ///
    /// The files were changed, and cannot be used. That is logged once for every change.
    pub fn accept(&self) -> Result<Session, Error> {
        let context = self.context()?;
        Session::new(Ssl::new(&context)?, Side::Server)
    }

    fn context(&self) -> Result<SslContext, Error> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = self.files.stamp();
        if stamp != current.stamp || !current.settled {
            let settled = stamp.is_settled();
            let context = context::server(&self.files, &self.policy, self.verify_peer);
            if context.is_err() && current.context.is_ok() && self.files.are_forbidden() {
                // A server that gave its privileges up: not a change of the credentials.
                tracing::warn!("TLS credentials may no longer be read: those that are known stay");
                current.stamp = stamp;
                current.settled = true;
                return current.context.clone();
            }
            match (&context, &current.context) {
                (Err(error), Err(known)) if error == known => {}
                (Err(error), _) => tracing::error!("TLS is refused until this is mended: {error}"),
                (Ok(_), _) if stamp != current.stamp => {
                    tracing::info!("TLS credentials were read again");
                }
                (Ok(_), _) => {}
            }
            *current = Current {
                stamp,
                settled,
                context,
            };
        }
        current.context.clone()
    }
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acceptor")
            .field("files", &self.files)
            .field("verify_peer", &self.verify_peer)
            .finish_non_exhaustive()
    }
}
