//! What is tried.

pub mod nbd;
pub mod vhost_user;
pub mod vsock;
