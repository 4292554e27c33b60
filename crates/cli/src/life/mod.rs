//! The life of a serving process, for every name the program is called by: `listen` binds, `captive`
//! runs a command while the server runs in the child, `server` serves, `stop` is the wish to stop,
//! `pid_file` says who serves, `tls` reads the certificates.

pub mod captive;
pub mod listen;
pub mod pid_file;
pub mod server;
mod stop;
pub mod tls;
