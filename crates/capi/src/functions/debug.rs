//! Debugging messages, and counters.

use crate::param::Debug;

api! {
    nbd_set_debug(h, debug: bool) -> () { h.set_debug(debug) }
    nbd_get_debug(h) -> bool { Ok(h.get_debug()) }
    nbd_set_debug_callback(h, debug: Debug) -> () { h.set_debug_callback(debug) }
    nbd_clear_debug_callback(h) -> () { h.clear_debug_callback() }
    nbd_stats_bytes_sent(h) -> u64 { Ok(h.stats_bytes_sent()) }
    nbd_stats_chunks_sent(h) -> u64 { Ok(h.stats_chunks_sent()) }
    nbd_stats_bytes_received(h) -> u64 { Ok(h.stats_bytes_received()) }
    nbd_stats_chunks_received(h) -> u64 { Ok(h.stats_chunks_received()) }
}
