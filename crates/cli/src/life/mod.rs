//! The life of a serving process, for every name the program is called by: `listen` binds, `activation`
//! takes over sockets that others have bound, `captive`
//! runs a command while the server runs in the child, `server` serves, `disks` are those of virtual
//! machines, `stop` is the wish to stop,
//! `pid_file` says who serves, `tls` reads the certificates,
//! `sandbox` takes away what a server needs not.

pub mod activation;
pub mod captive;
pub mod disks;
pub mod listen;
pub mod pid_file;
mod sandbox;
pub mod server;
mod stop;
pub mod tls;
