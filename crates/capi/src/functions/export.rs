//! What was negotiated, and what the server says of the export.

use std::ffi::{CStr, c_int};

use crate::param::Text;

api! {
    nbd_get_protocol(h) -> &'static CStr { h.get_protocol() }
    nbd_get_tls_negotiated(h) -> bool { h.get_tls_negotiated() }
    nbd_get_extended_headers_negotiated(h) -> bool { h.get_extended_headers_negotiated() }
    nbd_get_structured_replies_negotiated(h) -> bool { h.get_structured_replies_negotiated() }
    nbd_get_canonical_export_name(h) -> String { h.get_canonical_export_name() }
    nbd_get_export_description(h) -> String { h.get_export_description() }
    nbd_get_size(h) -> i64 { h.get_size() }
    nbd_get_block_size(h, size_type: c_int) -> i64 { h.get_block_size(size_type) }
    nbd_is_read_only(h) -> bool { h.is_read_only() }
    nbd_is_rotational(h) -> bool { h.is_rotational() }
    nbd_can_flush(h) -> bool { h.can_flush() }
    nbd_can_fua(h) -> bool { h.can_fua() }
    nbd_can_trim(h) -> bool { h.can_trim() }
    nbd_can_zero(h) -> bool { h.can_zero() }
    nbd_can_fast_zero(h) -> bool { h.can_fast_zero() }
    nbd_can_block_status_payload(h) -> bool { h.can_block_status_payload() }
    nbd_can_df(h) -> bool { h.can_df() }
    nbd_can_multi_conn(h) -> bool { h.can_multi_conn() }
    nbd_can_cache(h) -> bool { h.can_cache() }
    nbd_can_meta_context(h, metacontext: Text) -> bool { h.can_meta_context(metacontext) }
}
