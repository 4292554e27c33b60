//! Exports: how others reach a source of blocks. One module each.
//!
//! An export pulls: it takes a request off its socket or ring only while it has credits for it, so
//! back-pressure reaches the peer by itself and nothing here grows without bound. It checks each
//! request once, at this edge; what lies below asserts.
#![deny(unsafe_code)]

pub mod fuse;
pub mod nbd;
pub mod vhost_user_blk;
