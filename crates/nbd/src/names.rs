//! The protocol's numbers by the names that the specification gives them, for messages.

use std::borrow::Cow;

use crate::proto;

/// An option, such as `NBD_OPT_GO`.
pub fn option(option: u32) -> Cow<'static, str> {
    Cow::Borrowed(match option {
        proto::OPT_EXPORT_NAME => "NBD_OPT_EXPORT_NAME",
        proto::OPT_ABORT => "NBD_OPT_ABORT",
        proto::OPT_LIST => "NBD_OPT_LIST",
        proto::OPT_PEEK_EXPORT => "NBD_OPT_PEEK_EXPORT",
        proto::OPT_STARTTLS => "NBD_OPT_STARTTLS",
        proto::OPT_INFO => "NBD_OPT_INFO",
        proto::OPT_GO => "NBD_OPT_GO",
        proto::OPT_STRUCTURED_REPLY => "NBD_OPT_STRUCTURED_REPLY",
        proto::OPT_LIST_META_CONTEXT => "NBD_OPT_LIST_META_CONTEXT",
        proto::OPT_SET_META_CONTEXT => "NBD_OPT_SET_META_CONTEXT",
        proto::OPT_EXTENDED_HEADERS => "NBD_OPT_EXTENDED_HEADERS",
        _ => return unknown(option),
    })
}

/// A reply to an option, such as `NBD_REP_ACK`.
pub fn option_reply(kind: u32) -> Cow<'static, str> {
    Cow::Borrowed(match kind {
        proto::REP_ACK => "NBD_REP_ACK",
        proto::REP_SERVER => "NBD_REP_SERVER",
        proto::REP_INFO => "NBD_REP_INFO",
        proto::REP_META_CONTEXT => "NBD_REP_META_CONTEXT",
        proto::REP_ERR_UNSUP => "NBD_REP_ERR_UNSUP",
        proto::REP_ERR_POLICY => "NBD_REP_ERR_POLICY",
        proto::REP_ERR_INVALID => "NBD_REP_ERR_INVALID",
        proto::REP_ERR_PLATFORM => "NBD_REP_ERR_PLATFORM",
        proto::REP_ERR_TLS_REQD => "NBD_REP_ERR_TLS_REQD",
        proto::REP_ERR_UNKNOWN => "NBD_REP_ERR_UNKNOWN",
        proto::REP_ERR_SHUTDOWN => "NBD_REP_ERR_SHUTDOWN",
        proto::REP_ERR_BLOCK_SIZE_REQD => "NBD_REP_ERR_BLOCK_SIZE_REQD",
        proto::REP_ERR_TOO_BIG => "NBD_REP_ERR_TOO_BIG",
        proto::REP_ERR_EXT_HEADER_REQD => "NBD_REP_ERR_EXT_HEADER_REQD",
        _ => return unknown(kind),
    })
}

fn unknown(number: u32) -> Cow<'static, str> {
    Cow::Owned(format!("unknown ({number:#x})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_name_of_its_own() {
        let names = |of: fn(u32) -> Cow<'static, str>, numbers: Vec<u32>| {
            let mut names: Vec<_> = numbers.into_iter().map(of).collect();
            let all = names.len();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), all);
            assert!(names.iter().all(|name| !name.contains("unknown")));
        };
        names(option, (1..=11).collect());
        let errors = (1..=10).map(|code| proto::REP_FLAG_ERROR | code);
        names(option_reply, (1..=4).chain(errors).collect());
        assert_eq!(option(99), "unknown (0x63)");
        assert_eq!(option_reply(0x8000_0063), "unknown (0x80000063)");
    }
}
