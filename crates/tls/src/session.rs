//! One connection's TLS: a machine over bytes.

use std::io::{self, Read, Write};

use openssl::ssl::{ErrorCode, Ssl, SslRef, SslStream};

use crate::{Error, Peer, context, name, reason};

/// Most plaintext one record carries, in bytes (RFC 8446, section 5.1).
const RECORD: usize = 16 << 10;

/// One connection's TLS, either side of it.
///
/// Ciphertext is [fed](Session::feed); then [`handshake`](Session::handshake) until it is done, and
/// [`decrypt`](Session::decrypt) from then on, take from it what is complete. Ciphertext to send
/// gathers and is [taken](Session::take_outgoing), in the order in which it was made, after any of
/// the calls, also one that failed: then it says to the peer why.
pub struct Session {
    stream: SslStream<Pipe>,
    side: Side,
    /// `plain[start..end]` was decrypted and not consumed.
    plain: Vec<u8>,
    start: usize,
    end: usize,
    gathered: Vec<u8>,
    done: bool,
    closed: bool,
    failed: Option<Error>,
}

/// Which end of the connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// The two directions of a connection, as OpenSSL sees them.
#[derive(Default)]
struct Pipe {
    incoming: Vec<u8>,
    at: usize,
    outgoing: Vec<u8>,
}

impl Read for Pipe {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let here = &self.incoming[self.at..];
        if here.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let n = here.len().min(buf.len());
        buf[..n].copy_from_slice(&here[..n]);
        self.at += n;
        if self.at == self.incoming.len() {
            self.incoming.clear();
            self.at = 0;
        }
        Ok(n)
    }
}

impl Write for Pipe {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.outgoing.extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Session {
    pub(crate) fn new(mut ssl: Ssl, side: Side) -> Result<Session, Error> {
        match side {
            Side::Client => ssl.set_connect_state(),
            Side::Server => ssl.set_accept_state(),
        }
        Ok(Session {
            side,
            stream: SslStream::new(ssl, Pipe::default())?,
            plain: Vec::new(),
            start: 0,
            end: 0,
            gathered: Vec::new(),
            done: false,
            closed: false,
            failed: None,
        })
    }

    /// The handshake begins on this side: it is called before anything was fed.
    pub fn speaks_first(&self) -> bool {
        self.side == Side::Client
    }

    /// Takes ciphertext from the peer, any piece of it. Nothing is done with it yet.
    pub fn feed(&mut self, ciphertext: &[u8]) {
        self.stream.get_mut().incoming.extend_from_slice(ciphertext);
    }

    /// Goes on with the handshake. Returns true when it is done; otherwise send what is there to
    /// send, and feed more. Asymmetric cryptography: about a millisecond of computing.
    ///
    /// # Errors
    ///
    /// One side does not let the other in. The session is over.
    pub fn handshake(&mut self) -> Result<bool, Error> {
        self.check()?;
        if self.done {
            return Ok(true);
        }
        match self.stream.do_handshake() {
            Ok(()) => {
                self.done = true;
                Ok(true)
            }
            Err(error) if wants_more(&error) => Ok(false),
            Err(error) => {
                let why = why_refused(self.stream.ssl(), self.side, &error);
                Err(self.fail(Error::Handshake(why)))
            }
        }
    }

    /// Decrypts all complete records that were fed. Computing: about a third of a nanosecond for a
    /// byte where the processor has AES, much more where not.
    ///
    /// # Errors
    ///
    /// A record was forged or damaged, or the peer says that something is wrong. The session is
    /// over; what was decrypted before can still be had.
    pub fn decrypt(&mut self) -> Result<(), Error> {
        self.check()?;
        assert!(self.done, "the handshake comes first");
        while !self.closed {
            if self.plain.len() < self.end + RECORD {
                self.plain.resize(self.end + RECORD, 0);
            }
            match self.stream.ssl_read(&mut self.plain[self.end..]) {
                Ok(n) => self.end += n,
                Err(error) if wants_more(&error) => return Ok(()),
                Err(error) if error.code() == ErrorCode::ZERO_RETURN => self.closed = true,
                Err(error) => return Err(self.fail(Error::Session(text(&error)))),
            }
        }
        Ok(())
    }

    /// Plaintext from the peer.
    pub fn received(&self) -> &[u8] {
        &self.plain[self.start..self.end]
    }

    /// Forgets so much of the plaintext. Panics if there is less.
    pub fn consume(&mut self, n: usize) {
        assert!(n <= self.end - self.start, "more than was received");
        self.start += n;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// The peer said that it sends no more.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Where plaintext for the peer is gathered before it is [encrypted](Session::encrypt).
    pub fn plaintext(&mut self) -> &mut Vec<u8> {
        &mut self.gathered
    }

    /// Encrypts what was gathered, in as few records as it takes, and forgets it.
    ///
    /// # Errors
    ///
    /// The session is over.
    pub fn encrypt(&mut self) -> Result<(), Error> {
        self.check()?;
        assert!(self.done, "the handshake comes first");
        let mut sent = 0;
        while sent < self.gathered.len() {
            match self.stream.ssl_write(&self.gathered[sent..]) {
                Ok(n) => sent += n,
                Err(error) => return Err(self.fail(Error::Session(text(&error)))),
            }
        }
        self.gathered.clear();
        Ok(())
    }

    /// The handshake is done.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Why the session is over, if it is.
    pub fn failure(&self) -> Option<&Error> {
        self.failed.as_ref()
    }

    /// Says to the peer that nothing more comes, so that it can tell this from a cut line. Nothing
    /// can be encrypted afterwards. Without effect on a session that is over.
    pub fn close(&mut self) {
        if self.done && self.failed.is_none() {
            // It fails where the peer is gone too, and then there is nobody to tell.
            let _ = self.stream.shutdown();
        }
    }

    /// Ciphertext to send.
    pub fn outgoing(&self) -> &[u8] {
        &self.stream.get_ref().outgoing
    }

    /// The ciphertext was copied to where it is sent from.
    pub fn clear_outgoing(&mut self) {
        self.stream.get_mut().outgoing.clear();
    }

    /// Ciphertext to send, with its memory.
    pub fn take_outgoing(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.stream.get_mut().outgoing)
    }

    /// Gives memory back that a quiet session does not need.
    pub fn trim(&mut self) {
        if self.start == self.end {
            self.plain = Vec::new();
        }
        if self.gathered.is_empty() {
            self.gathered = Vec::new();
        }
        let pipe = self.stream.get_mut();
        if pipe.outgoing.is_empty() {
            pipe.outgoing = Vec::new();
        }
        if pipe.incoming.is_empty() {
            pipe.incoming = Vec::new();
        }
    }

    /// Who the other end proved to be. Known when the handshake is done.
    pub fn peer(&self) -> Peer {
        if !self.done {
            return Peer::default();
        }
        let ssl = self.stream.ssl();
        if let Some(claim) = claim_of(ssl) {
            return Peer {
                identity: Some(claim.user.clone()),
                issuer: None,
            };
        }
        let certificate = ssl.peer_certificate();
        Peer {
            identity: certificate.as_ref().map(|c| name::text(c.subject_name())),
            issuer: certificate.as_ref().map(|c| name::text(c.issuer_name())),
        }
    }

    /// Version and suite that were agreed on, for logs: `TLSv1.3 TLS_AES_128_GCM_SHA256`.
    pub fn agreed(&self) -> String {
        let ssl = self.stream.ssl();
        let suite = ssl.current_cipher().map_or("", |cipher| cipher.name());
        format!("{} {suite}", ssl.version_str())
    }

    fn check(&self) -> Result<(), Error> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    fn fail(&mut self, error: Error) -> Error {
        self.failed = Some(error.clone());
        error
    }
}

fn wants_more(error: &openssl::ssl::Error) -> bool {
    error.code() == ErrorCode::WANT_READ
}

fn claim_of(ssl: &SslRef) -> Option<&context::Claim> {
    ssl.ex_data(context::claim().ok()?)
}

fn text(error: &openssl::ssl::Error) -> String {
    match error.ssl_error() {
        Some(stack) => reason(stack),
        None => error.to_string(),
    }
}

/// Why the other side was not let in. Only for our log: what it is told is one of TLS's alerts.
fn why_refused(ssl: &SslRef, side: Side, error: &openssl::ssl::Error) -> String {
    if let Some(claim) = claim_of(ssl) {
        return match claim.known {
            false => format!("there is no user {:?}", claim.user),
            true => format!("user {:?}: {}", claim.user, text(error)),
        };
    }
    let verified = ssl.verify_result();
    if verified != openssl::x509::X509VerifyResult::OK {
        let whose = match side {
            Side::Client => "server",
            Side::Server => "client",
        };
        return format!("the {whose}'s certificate: {}", verified.error_string());
    }
    text(error)
}
