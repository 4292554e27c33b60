//! Option mode.

use std::ffi::c_int;

use crate::param::{Completion, Context, Export, Texts};

/// Counts are what the server sent in one negotiation: far from the end of an int.
fn count(told: u32) -> c_int {
    c_int::try_from(told).unwrap_or(c_int::MAX)
}

api! {
    nbd_set_opt_mode(h, enable: bool) -> () { h.set_opt_mode(enable) }
    nbd_get_opt_mode(h) -> bool { Ok(h.get_opt_mode()) }
    nbd_opt_go(h) -> () { h.opt_go() }
    nbd_opt_abort(h) -> () { h.opt_abort() }
    nbd_opt_starttls(h) -> bool { h.opt_starttls() }
    nbd_opt_extended_headers(h) -> bool { h.opt_extended_headers() }
    nbd_opt_structured_reply(h) -> bool { h.opt_structured_reply() }
    nbd_opt_list(h, list: Export) -> c_int { h.opt_list(list).map(count) }
    nbd_opt_info(h) -> () { h.opt_info() }
    nbd_opt_list_meta_context(h, context: Context) -> c_int {
        h.opt_list_meta_context(context).map(count)
    }
    nbd_opt_list_meta_context_queries(h, queries: Texts, context: Context) -> c_int {
        h.opt_list_meta_context_queries(&queries, context).map(count)
    }
    nbd_opt_set_meta_context(h, context: Context) -> c_int {
        h.opt_set_meta_context(context).map(count)
    }
    nbd_opt_set_meta_context_queries(h, queries: Texts, context: Context) -> c_int {
        h.opt_set_meta_context_queries(&queries, context).map(count)
    }
    nbd_aio_opt_go(h, completion: Completion) -> () { h.aio_opt_go(completion) }
    nbd_aio_opt_abort(h) -> () { h.aio_opt_abort() }
    nbd_aio_opt_starttls(h, completion: Completion) -> () { h.aio_opt_starttls(completion) }
    nbd_aio_opt_extended_headers(h, completion: Completion) -> () {
        h.aio_opt_extended_headers(completion)
    }
    nbd_aio_opt_structured_reply(h, completion: Completion) -> () {
        h.aio_opt_structured_reply(completion)
    }
    nbd_aio_opt_list(h, list: Export, completion: Completion) -> () {
        h.aio_opt_list(list, completion)
    }
    nbd_aio_opt_info(h, completion: Completion) -> () { h.aio_opt_info(completion) }
    nbd_aio_opt_list_meta_context(h, context: Context, completion: Completion) -> () {
        h.aio_opt_list_meta_context(context, completion)
    }
    nbd_aio_opt_list_meta_context_queries(
        h, queries: Texts, context: Context, completion: Completion
    ) -> () {
        h.aio_opt_list_meta_context_queries(&queries, context, completion)
    }
    nbd_aio_opt_set_meta_context(h, context: Context, completion: Completion) -> () {
        h.aio_opt_set_meta_context(context, completion)
    }
    nbd_aio_opt_set_meta_context_queries(
        h, queries: Texts, context: Context, completion: Completion
    ) -> () {
        h.aio_opt_set_meta_context_queries(&queries, context, completion)
    }
}
