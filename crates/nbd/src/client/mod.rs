//! The client's side: haggling of options, then requests out and replies in.
//!
//! A driver feeds what it receives to [`Handshake::input`] and sends what the machine writes, until
//! [`Event::Connected`]; a client that chooses every option itself uses [`Haggling`] instead. From there [`encode_request`] makes the headers of requests, and
//! [`Replies`] tells where in the incoming stream which data lies. A hostile server can end the
//! connection, nothing more: everything it says is checked against what was asked.

mod haggling;
mod handshake;
mod options;
mod pending;
mod replies;
mod request;

pub use haggling::{Haggling, Info, Told, context_request, info_request};
pub use handshake::Handshake;
pub use options::{BlockSizeInfo, ClientOptions, Connected, Event, Failure, Goal, Tls};
pub use pending::Pending;
pub use replies::{Descriptors, Replies, Reply};
pub use request::{Request, encode_raw_request, encode_request, encode_status_request};
