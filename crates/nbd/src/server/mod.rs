//! The server's side: haggling of options, then requests in and replies out.
//!
//! A driver sends [`Handshake::greeting`], feeds what it receives to [`Handshake::input`] and
//! answers the [`Event`]s, until [`Handshake::answer_open`] returns [`Negotiated`]. From there
//! [`transmission::parse_request`] and [`transmission::check`] take requests apart, and a
//! [`reply::ReplyTo`] writes the heads of replies. The machine is dropped by then: an idle
//! connection keeps `Negotiated` only. [`oldstyle`] stands for all of the handshake where clients
//! know no haggling.

mod answer;
mod export;
mod handshake;
mod oldstyle;
mod options;
pub mod reply;
mod request;
mod told;
pub mod transmission;

pub use export::{
    BlockSizePolicy, BlockSizes, Context, ExportInfo, Negotiated, Refused, ServerOptions, TlsMode,
};
pub use handshake::{Event, Handshake};
pub use oldstyle::oldstyle;
pub use options::{ContextRequest, OpenRequest, Purpose, Wants};
pub use transmission::Served;
