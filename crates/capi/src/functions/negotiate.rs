//! What is negotiated, set before connecting.

use crate::param::Text;

api! {
    nbd_set_export_name(h, export_name: Text) -> () { h.set_export_name(export_name) }
    nbd_get_export_name(h) -> String { h.get_export_name() }
    nbd_set_request_block_size(h, request: bool) -> () { h.set_request_block_size(request) }
    nbd_get_request_block_size(h) -> bool { Ok(h.get_request_block_size()) }
    nbd_set_full_info(h, request: bool) -> () { h.set_full_info(request) }
    nbd_get_full_info(h) -> bool { Ok(h.get_full_info()) }
    nbd_set_request_extended_headers(h, request: bool) -> () {
        h.set_request_extended_headers(request)
    }
    nbd_get_request_extended_headers(h) -> bool { Ok(h.get_request_extended_headers()) }
    nbd_set_request_structured_replies(h, request: bool) -> () {
        h.set_request_structured_replies(request)
    }
    nbd_get_request_structured_replies(h) -> bool { Ok(h.get_request_structured_replies()) }
    nbd_set_request_meta_context(h, request: bool) -> () { h.set_request_meta_context(request) }
    nbd_get_request_meta_context(h) -> bool { Ok(h.get_request_meta_context()) }
    nbd_set_handshake_flags(h, flags: u32) -> () { h.set_handshake_flags(flags) }
    nbd_get_handshake_flags(h) -> u32 { Ok(h.get_handshake_flags()) }
    nbd_set_pread_initialize(h, request: bool) -> () { h.set_pread_initialize(request) }
    nbd_get_pread_initialize(h) -> bool { Ok(h.get_pread_initialize()) }
    nbd_set_strict_mode(h, flags: u32) -> () { h.set_strict_mode(flags) }
    nbd_get_strict_mode(h) -> u32 { Ok(h.get_strict_mode()) }
    nbd_add_meta_context(h, name: Text) -> () { h.add_meta_context(name) }
    nbd_get_nr_meta_contexts(h) -> isize { Ok(h.get_nr_meta_contexts()?.cast_signed()) }
    nbd_get_meta_context(h, i: usize) -> String { h.get_meta_context(i) }
    nbd_clear_meta_contexts(h) -> () { h.clear_meta_contexts() }
}
