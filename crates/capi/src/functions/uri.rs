//! URIs: what they may ask for, and what they say.

use std::ffi::c_int;

use crate::param::Text;

api! {
    nbd_set_uri_allow_transports(h, mask: u32) -> () { h.set_uri_allow_transports(mask) }
    nbd_set_uri_allow_tls(h, tls: c_int) -> () { h.set_uri_allow_tls(tls) }
    nbd_set_uri_allow_tls_priority(h, allow: bool) -> () { h.set_uri_allow_tls_priority(allow) }
    nbd_set_uri_allow_local_file(h, allow: bool) -> () { h.set_uri_allow_local_file(allow) }
    nbd_get_uri(h) -> String { h.get_uri() }
    nbd_is_uri(h, uri: Text) -> bool { h.is_uri(uri) }
}
