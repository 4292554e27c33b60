//! The built program, as users and their tools meet it: every test starts `blkit` as a process of
//! its own in an empty directory, and asserts that the directory is empty again afterwards.
//!
//! Peers that are not installed make a test print `SKIP: reason` and pass.

mod bench;
mod captive;
#[path = "../../../tls/tests/all/certificates.rs"]
mod certificates;
mod copy;
mod copying;
mod differential;
mod discard;
mod dump;
mod durable;
mod help;
mod info;
mod life;
mod medium;
mod mistakes;
mod mount;
mod mounted;
mod nbdcopy;
mod nbdkit;
mod peers;
mod raw;
mod shell;
mod sources;
mod tls;
mod upstream;
mod vhost_user;
mod vsock;
