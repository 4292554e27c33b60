//! What was agreed on with the server, and what a refusal means.

use std::ffi::CStr;

use nbd::{
    client::{BlockSizeInfo, Haggling, Info},
    proto::{self, Mode},
    server::{BlockSizes, Context},
};
use rustix::io::Errno;

use crate::{
    CompletionCallback, ContextCallback, HANDSHAKE_FLAG_FIXED_NEWSTYLE, ListCallback, error::Fault,
};

/// What the caller asked for in opt mode.
pub(crate) enum Ask {
    Go,
    Info,
    StartTls,
    ExtendedHeaders,
    StructuredReply,
    List(ListCallback),
    ListContexts(ContextCallback, Vec<String>),
    SetContexts(ContextCallback, Vec<String>),
}

/// An option of the caller's that is under way.
pub(crate) struct Asked {
    pub ask: Ask,
    pub completion: Option<CompletionCallback>,
    /// Exports or contexts told.
    pub count: u32,
}

/// What was agreed on, and what is known of the export.
#[derive(Default)]
pub(crate) struct Negotiation {
    pub haggling: Haggling,
    pub asked: Option<Asked>,
    /// How the caller's last option ended, for the one who waits for it.
    pub result: Option<Result<u32, Fault>>,
    pub protocol: Option<&'static CStr>,
    /// TLS runs.
    pub tls: bool,
    /// Client flags that were sent.
    pub flags: u32,
    pub mode: Mode,
    pub contexts: Vec<Context>,
    /// The contexts are what the server said, or there was nothing to ask.
    pub contexts_known: bool,
    /// Size and transmission flags.
    pub export: Option<(u64, u16)>,
    pub sizes: Option<BlockSizeInfo>,
    pub name: Option<String>,
    pub description: Option<String>,
}

impl Negotiation {
    pub fn is_fixed(&self) -> bool {
        self.flags & HANDSHAKE_FLAG_FIXED_NEWSTYLE != 0
    }

    /// Forgets what was told of an export.
    pub fn forget_export(&mut self) {
        self.export = None;
        self.sizes = None;
        self.name = None;
        self.description = None;
    }

    pub fn forget_contexts(&mut self) {
        self.contexts.clear();
        self.contexts_known = false;
    }

    pub fn set_export(&mut self, size: u64, flags: u16) -> Result<(), Fault> {
        if flags == 0 {
            return Err(Fault::invalid("handshake: invalid eflags == 0 from server"));
        }
        self.export = Some((size, flags));
        Ok(())
    }

    pub fn info(&mut self, info: Info) -> Result<(), Fault> {
        match info {
            Info::Export { size, flags } => self.set_export(size, flags)?,
            Info::Name(name) => self.name = Some(name),
            Info::Description(text) => self.description = Some(text),
            Info::BlockSizes(told) => {
                // Sizes that break the rules are none, as in libnbd.
                let BlockSizeInfo {
                    minimum,
                    preferred,
                    maximum,
                } = told;
                if BlockSizes::new(minimum, preferred, maximum).is_some() {
                    self.sizes = Some(told);
                }
            }
            Info::Other(_) => {}
        }
        Ok(())
    }
}

pub(crate) fn no_tls(why: &str) -> Fault {
    let text = format!("handshake: {why}, but handle TLS setting is 'require' (2)");
    Fault::of(text, Errno::NOTSUP)
}

/// What a refusal of an export means, in libnbd's words.
pub(crate) fn refusal(code: u32, text: &str, export: &str) -> Fault {
    let (what, errno) = match code {
        proto::REP_ERR_UNSUP => (
            "the operation is not supported by the server".into(),
            Some(Errno::NOTSUP),
        ),
        proto::REP_ERR_POLICY => ("server policy prevents the operation".into(), None),
        proto::REP_ERR_INVALID => (
            "the server rejected this operation as invalid".into(),
            Some(Errno::INVAL),
        ),
        proto::REP_ERR_PLATFORM => (
            "the operation is not supported by the server platform".into(),
            None,
        ),
        proto::REP_ERR_TLS_REQD => (
            "the server requires TLS encryption first".into(),
            Some(Errno::NOTSUP),
        ),
        proto::REP_ERR_UNKNOWN => (
            format!("the server has no export named '{export}'"),
            Some(Errno::NOENT),
        ),
        proto::REP_ERR_SHUTDOWN => ("the server is shutting down".into(), Some(Errno::SHUTDOWN)),
        proto::REP_ERR_BLOCK_SIZE_REQD => (
            "the server requires specific block sizes".into(),
            Some(Errno::INVAL),
        ),
        proto::REP_ERR_TOO_BIG => (
            "the operation is too large to process".into(),
            Some(Errno::INVAL),
        ),
        _ => (
            format!("handshake: unknown reply from the server: {code:#x}"),
            None,
        ),
    };
    let text = match text {
        "" => what,
        text => format!("{what}: {text}"),
    };
    Fault::new(text, errno.map_or(0, Errno::raw_os_error))
}
