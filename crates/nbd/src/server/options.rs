//! Taking the data of options apart.
//!
//! Each parser sees the whole data of one option, at most
//! [`MAX_OPTION_DATA`](limits::MAX_OPTION_DATA) bytes, and must use all of it: trailing bytes make
//! the option invalid. Errors are the reply to send.

use crate::proto::{self, limits};
use crate::wire::{Reader, string};

use super::export::Refused;

/// What a client wants to do with an export it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// `OPT_INFO`: look at it only.
    Info,
    /// `OPT_GO`: use it; can be told why not.
    Go,
    /// `OPT_EXPORT_NAME`: use it; a failure closes the connection.
    ExportName,
}

/// Facts that the client asked for beside size and flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// `INFO_NAME`.
    pub name: bool,
    /// `INFO_DESCRIPTION`.
    pub description: bool,
    /// `INFO_BLOCK_SIZE`; with `OPT_GO` also a promise to keep to them.
    pub block_size: bool,
}

/// A client asks for an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenRequest {
    /// Name as given; empty for the default export.
    pub name: String,
    /// To look or to use.
    pub purpose: Purpose,
    /// What it wants to be told.
    pub wants: Wants,
}

/// A client asks for the metadata contexts of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextRequest {
    /// Name of the export as given.
    pub name: String,
    /// Only to list them (`OPT_LIST_META_CONTEXT`); otherwise to select.
    pub list: bool,
    /// What it is looking for. Matching them is the machine's work; the driver may use them to
    /// save itself a long list.
    pub queries: Vec<String>,
}

impl ContextRequest {
    /// The option that asked.
    pub(super) const fn option(&self) -> u32 {
        if self.list {
            proto::OPT_LIST_META_CONTEXT
        } else {
            proto::OPT_SET_META_CONTEXT
        }
    }

    /// Whether a context of this name is meant by any query.
    ///
    /// To list, no query at all means every context, and a query that ends in a colon means all
    /// contexts that start with it (`base:`, `qemu:dirty-bitmap:`). To select, only whole names
    /// count (spec: Metadata querying).
    pub fn matches(&self, context: &str) -> bool {
        if self.list && self.queries.is_empty() {
            return true;
        }
        self.queries.iter().any(|query| {
            query == context || (self.list && query.ends_with(':') && context.starts_with(query))
        })
    }
}

/// Data of `OPT_INFO` and `OPT_GO`: name, number of information requests, the requests.
pub(super) fn open(data: &[u8], purpose: Purpose) -> Result<OpenRequest, Refused> {
    let mut reader = Reader(data);
    let name = reader.string().ok_or(BAD_NAME)?;
    let count = reader.u16().ok_or(SHORT)?;
    let mut wants = Wants::default();
    for _ in 0..count {
        match reader.u16().ok_or(SHORT)? {
            proto::INFO_NAME => wants.name = true,
            proto::INFO_DESCRIPTION => wants.description = true,
            proto::INFO_BLOCK_SIZE => wants.block_size = true,
            // The export's size is told anyhow, and what is unknown must be ignored.
            _ => {}
        }
    }
    if !reader.is_empty() {
        return Err(TRAILING);
    }
    Ok(OpenRequest {
        name: name.to_owned(),
        purpose,
        wants,
    })
}

/// Data of `OPT_EXPORT_NAME`: the name and nothing else.
pub(super) fn export_name(data: &[u8]) -> Option<OpenRequest> {
    let name = string(data)?.to_owned();
    Some(OpenRequest {
        name,
        purpose: Purpose::ExportName,
        wants: Wants::default(),
    })
}

/// Data of the metadata options: name, number of queries, the queries.
pub(super) fn contexts(data: &[u8], list: bool) -> Result<ContextRequest, Refused> {
    let mut reader = Reader(data);
    let name = reader.string().ok_or(BAD_NAME)?.to_owned();
    let count = reader.u32().ok_or(SHORT)?;
    if count > limits::MAX_QUERIES {
        return Err(TOO_MANY_QUERIES);
    }
    let mut queries = Vec::new();
    for _ in 0..count {
        let query = reader.string().ok_or(BAD_QUERY)?;
        match query.split_once(':') {
            Some((namespace, _)) if !namespace.is_empty() => queries.push(query.to_owned()),
            _ => return Err(NO_NAMESPACE),
        }
    }
    if !reader.is_empty() {
        return Err(TRAILING);
    }
    Ok(ContextRequest {
        name,
        list,
        queries,
    })
}

const fn invalid(text: &'static str) -> Refused {
    Refused {
        code: proto::REP_ERR_INVALID,
        text: std::borrow::Cow::Borrowed(text),
    }
}

const BAD_NAME: Refused =
    invalid("the export name does not fit, is longer than 4096 bytes or is not UTF-8 without NUL");
const BAD_QUERY: Refused =
    invalid("a query does not fit, is longer than 4096 bytes or is not UTF-8 without NUL");
const NO_NAMESPACE: Refused = invalid("a query must start with a namespace and a colon");
const SHORT: Refused = invalid("the option's data is too short");
const TRAILING: Refused = invalid("the option's data is too long");
const TOO_MANY_QUERIES: Refused = Refused {
    code: proto::REP_ERR_TOO_BIG,
    text: std::borrow::Cow::Borrowed("too many queries in one option"),
};

#[cfg(test)]
mod tests {
    use super::*;

    fn request(list: bool, queries: &[&str]) -> ContextRequest {
        let queries = queries.iter().map(|query| query.to_string()).collect();
        ContextRequest {
            name: String::new(),
            list,
            queries,
        }
    }

    #[test]
    fn queries_match_as_the_spec_says() {
        assert!(request(true, &[]).matches("base:allocation"));
        assert!(!request(false, &[]).matches("base:allocation"));
        assert!(request(true, &["base:"]).matches("base:allocation"));
        assert!(!request(false, &["base:"]).matches("base:allocation"));
        assert!(request(false, &["x:y", "base:allocation"]).matches("base:allocation"));
        assert!(!request(true, &["base:alloc"]).matches("base:allocation"));
        assert!(request(true, &["qemu:dirty-bitmap:"]).matches("qemu:dirty-bitmap:a"));
        assert!(!request(true, &["qemu:"]).matches("base:allocation"));
    }

    #[test]
    fn open_ignores_unknown_information() {
        let data = b"\0\0\0\x01a\0\x04\0\x00\0\x01\0\x03\x12\x34";
        let parsed = open(data, Purpose::Go).unwrap();
        assert_eq!(parsed.name, "a");
        assert_eq!(
            parsed.wants,
            Wants {
                name: true,
                description: false,
                block_size: true
            }
        );
    }

    #[test]
    fn malformed_data_is_refused() {
        let table: [(&[u8], &Refused); 6] = [
            (b"", &BAD_NAME),
            (b"\0\0\0\x02a", &BAD_NAME),
            (b"\0\0\0\x01\xff\0\0", &BAD_NAME),
            (b"\0\0\0\x01a\0", &SHORT),
            (b"\0\0\0\x01a\0\x02\0\x01", &SHORT),
            (b"\0\0\0\x01a\0\x01\0\x01\0", &TRAILING),
        ];
        for (data, expected) in table {
            assert_eq!(
                open(data, Purpose::Info).as_ref(),
                Err(expected),
                "{data:?}"
            );
        }
        let table: [(&[u8], &Refused); 7] = [
            (b"\0\0\x10\x01", &BAD_NAME),
            (b"\0\0\0\0", &SHORT),
            (b"\0\0\0\0\0\0\x04\x01", &TOO_MANY_QUERIES),
            (b"\0\0\0\0\xff\xff\xff\xff", &TOO_MANY_QUERIES),
            (b"\0\0\0\0\0\0\0\x01\0\0\0\x09base:", &BAD_QUERY),
            (b"\0\0\0\0\0\0\0\x01\0\0\0\x02ab", &NO_NAMESPACE),
            (b"\0\0\0\0\0\0\0\x01\0\0\0\x02:a", &NO_NAMESPACE),
        ];
        for (data, expected) in table {
            assert_eq!(contexts(data, true).as_ref(), Err(expected), "{data:?}");
        }
        assert_eq!(contexts(b"\0\0\0\0\0\0\0\0x", false), Err(TRAILING));
    }
}
