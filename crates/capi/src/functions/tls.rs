//! TLS, set before connecting.

use std::ffi::c_int;

use crate::param::{File, Text};

api! {
    nbd_set_tls(h, tls: c_int) -> () { h.set_tls(tls) }
    nbd_get_tls(h) -> c_int { Ok(h.get_tls()) }
    nbd_set_tls_certificates(h, dir: File) -> () { h.set_tls_certificates(dir) }
    nbd_set_tls_verify_peer(h, verify: bool) -> () { h.set_tls_verify_peer(verify) }
    nbd_get_tls_verify_peer(h) -> bool { Ok(h.get_tls_verify_peer()) }
    nbd_set_tls_username(h, username: Text) -> () { h.set_tls_username(username) }
    nbd_get_tls_username(h) -> String { h.get_tls_username() }
    nbd_set_tls_hostname(h, hostname: Text) -> () { h.set_tls_hostname(hostname) }
    nbd_get_tls_hostname(h) -> String { h.get_tls_hostname() }
    nbd_set_tls_psk_file(h, filename: File) -> () { h.set_tls_psk_file(filename) }
    nbd_set_tls_priority(h, priority: Text) -> () { h.set_tls_priority(priority) }
    nbd_get_tls_priority(h) -> String { h.get_tls_priority() }
}
