//! The same names, for a program that is built without OpenSSL: there is no acceptor and no connector,
//! and so no session, and none of this is ever run.

use std::convert::Infallible;

use crate::{ClientConfig, Config, Error, Peer};

/// What a server proves itself by. There is none without OpenSSL.
#[derive(Debug)]
pub struct Acceptor(Infallible);

/// Whom a client trusts and who it is. There is none without OpenSSL.
#[derive(Debug)]
pub struct Connector(Infallible);

/// One connection's TLS. There is none without OpenSSL.
pub struct Session(Infallible);

impl Acceptor {
    /// Says that there is no TLS.
    ///
    /// # Errors
    ///
    /// Always [`Error::NotBuilt`].
    pub fn new(_config: Config) -> Result<Acceptor, Error> {
        Err(Error::NotBuilt)
    }

    /// See the crate with OpenSSL.
    ///
    /// # Errors
    ///
    /// None.
    pub fn accept(&self) -> Result<Session, Error> {
        match self.0 {}
    }
}

impl Connector {
    /// Says that there is no TLS.
    ///
    /// # Errors
    ///
    /// Always [`Error::NotBuilt`].
    pub fn new(_config: ClientConfig) -> Result<Connector, Error> {
        Err(Error::NotBuilt)
    }

    /// See the crate with OpenSSL.
    ///
    /// # Errors
    ///
    /// None.
    pub fn connect(&self) -> Result<Session, Error> {
        match self.0 {}
    }
}

/// Methods that nobody can call.
macro_rules! never {
    ($(fn $name:ident(&$($mutable:ident)?; $($arg:ty)?) $(-> $result:ty)?;)*) => {
        impl Session {
            $(
                /// See the crate with OpenSSL.
                #[allow(clippy::missing_errors_doc, reason = "there are none")]
                pub fn $name(& $($mutable)? self $(, _: $arg)?) $(-> $result)? {
                    match self.0 {}
                }
            )*
        }
    };
}

never! {
    fn speaks_first(&;) -> bool;
    fn feed(&mut; &[u8]);
    fn handshake(&mut;) -> Result<bool, Error>;
    fn decrypt(&mut;) -> Result<(), Error>;
    fn received(&;) -> &[u8];
    fn consume(&mut; usize);
    fn is_closed(&;) -> bool;
    fn plaintext(&mut;) -> &mut Vec<u8>;
    fn encrypt(&mut;) -> Result<(), Error>;
    fn is_done(&;) -> bool;
    fn failure(&;) -> Option<&Error>;
    fn close(&mut;);
    fn outgoing(&;) -> &[u8];
    fn clear_outgoing(&mut;);
    fn take_outgoing(&mut;) -> Vec<u8>;
    fn trim(&mut;);
    fn peer(&;) -> Peer;
    fn agreed(&;) -> String;
}
