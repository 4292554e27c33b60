//! What the handshake tells to whoever debugs it (`tracing`, level debug). Scripts that read the
//! debug lines of nbdkit look for these words.

use tracing::debug;

use super::export::{Context, ExportInfo, Refused};
use super::options::{ContextRequest, OpenRequest, Purpose};
use super::{Event, answer::option_of};
use crate::{names, proto};

const WHERE: &str = "newstyle negotiation";

pub(super) fn greeting(flags: u16) {
    debug!("{WHERE}: flags: global {flags:#x}");
}

pub(super) fn client_flags(flags: u32) {
    debug!("{WHERE}: client flags: {flags:#x}");
}

/// An option that the driver has to answer.
pub(super) fn event(event: &Event) {
    match event {
        Event::List => debug!("{WHERE}: NBD_OPT_LIST: advertising exports"),
        Event::Open(request) => requested(option_of(request.purpose), &request.name),
        Event::MetaContext(request) => contexts(request),
        Event::StartTls => debug!("{WHERE}: NBD_OPT_STARTTLS: client requested TLS"),
        Event::Abort => debug!("client sent NBD_OPT_ABORT to abort the connection"),
    }
}

fn requested(option: u32, export: &str) {
    let option = names::option(option);
    debug!("{WHERE}: {option}: client requested export '{export}'");
}

fn contexts(request: &ContextRequest) {
    let option = request.option();
    requested(option, &request.name);
    let (option, verb) = (
        names::option(option),
        if request.list { "query" } else { "set" },
    );
    debug!("{WHERE}: {option}: {verb} count: {}", request.queries.len());
    for query in &request.queries {
        debug!("{WHERE}: {option}: {verb} {query}");
    }
}

/// Replies of another kind were agreed on.
pub(super) fn upgrade(option: u32) {
    let what = match option {
        proto::OPT_STRUCTURED_REPLY => "structured replies",
        _ => "extended headers",
    };
    let option = names::option(option);
    debug!("{WHERE}: {option}: client requested {what}");
}

pub(super) fn context(option: u32, context: &Context, id: u32) {
    let option = names::option(option);
    debug!("{WHERE}: {option}: replying with {} id {id}", context.name);
}

/// All about an export that was granted.
pub(super) fn granted(request: &OpenRequest, flags: u16, info: &ExportInfo) {
    debug!("{WHERE}: flags: export {flags:#x}");
    if request.purpose == Purpose::ExportName {
        return;
    }
    let option = names::option(option_of(request.purpose));
    if request.wants.block_size && info.block_sizes.is_none() {
        debug!("{WHERE}: {option}: NBD_INFO_BLOCK_SIZE: no block size information to send");
    }
    if request.wants.description && info.description.is_empty() {
        debug!("{WHERE}: {option}: NBD_INFO_DESCRIPTION: no description to send");
    }
}

pub(super) fn refused(option: u32, refused: &Refused) {
    debug!("{WHERE}: {}: {}", names::option(option), refused.text);
}

/// The last reply to an option.
pub(super) fn reply(option: u32, kind: u32) {
    debug!(
        "replying to {} with {}",
        names::option(option),
        names::option_reply(kind)
    );
}
