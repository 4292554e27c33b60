//! The functions, as the sections of `libnbd.h` have them.

mod aio;
mod connect;
mod data;
mod debug;
mod export;
mod life;
mod negotiate;
mod options;
mod tls;
mod uri;

use crate::Signature;

/// All functions.
pub fn signatures() -> impl Iterator<Item = &'static Signature> {
    [
        life::WITHOUT_HANDLE,
        life::SIGNATURES,
        debug::SIGNATURES,
        negotiate::SIGNATURES,
        tls::SIGNATURES,
        uri::SIGNATURES,
        connect::SIGNATURES,
        options::SIGNATURES,
        export::SIGNATURES,
        data::SIGNATURES,
        aio::SIGNATURES,
    ]
    .into_iter()
    .flatten()
}
