//! One program for all of this crate's integration tests: it builds and links once.

#[path = "../../../tls/tests/all/certificates.rs"]
mod certificates;
mod common;
mod encrypted;
mod mounted;
mod peers;
mod sessions;
mod simulated;
mod suites;
mod vhost_user_blk;
mod vhost_user_guests;
mod vhost_user_moves;
mod vhost_user_sharing;
