//! What can be wrong with a configuration.
//!
//! The message is one line that says where (the node) and what; the cure, where it is known, is
//! a second line by [`ConfigError::hint`]. Values come from outside, so they are shown with
//! control characters escaped and cut to a bounded length.

use crate::{Kind, Param, Schema};
use std::{fmt, path::PathBuf};

/// A configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{kind}", Prefix(node))]
pub struct ConfigError {
    /// The node whose configuration it is; empty if no node is meant.
    pub node: String,
    /// What is wrong. Boxed, so that the good case stays small to return.
    pub kind: Box<ErrorKind>,
}

/// What is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No node on the way knows the key.
    #[error("unknown parameter '{}'", shown(key))]
    Unknown {
        /// The key as given.
        key: String,
        /// The known key that looks most like it, if one is near enough.
        nearest: Option<Nearest>,
        /// The nodes that were asked.
        of: Vec<&'static str>,
    },
    /// The value is not one of the parameter's type.
    #[error("{key}={}: {why}", shown(value))]
    Bad {
        /// The parameter's key.
        key: &'static str,
        /// The value as given.
        value: String,
        /// Why it was refused.
        why: String,
        /// The parameter's type, for the hint.
        expected: Kind,
    },
    /// A required parameter was not given.
    #[error("{key}=<{type_name}> is required: {doc}")]
    Missing {
        /// The parameter's key.
        key: &'static str,
        /// The placeholder of its value.
        type_name: &'static str,
        /// The first paragraph of its documentation, as one line.
        doc: String,
    },
    /// The same key was given more than once and does not repeat.
    #[error("{key} is given more than once")]
    Duplicate {
        /// The parameter's key.
        key: &'static str,
    },
    /// A bare value, and no parameter to take it.
    #[error("'{}' is not of the form key=value", shown(value))]
    NoMagic {
        /// The bare value.
        value: String,
    },
    /// A file of parameters cannot be used.
    #[error("@{}: {why}", shown(&path.to_string_lossy()))]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The parameters are good one by one but not together.
    #[error("{why}")]
    Conflict {
        /// The rule that was broken.
        why: String,
    },
}

/// A known key that looks like an unknown one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nearest {
    /// The known key.
    pub key: &'static str,
    /// The node that knows it.
    pub node: &'static str,
}

impl ConfigError {
    /// An error of the node called `node`.
    pub fn new(node: impl Into<String>, kind: ErrorKind) -> Self {
        Self {
            node: node.into(),
            kind: Box::new(kind),
        }
    }

    /// The same error of another node: a graph may give its nodes names of their own.
    #[must_use]
    pub fn of_node(mut self, node: impl Into<String>) -> Self {
        self.node = node.into();
        self
    }

    /// How to cure it, in one line, where that is known.
    pub fn hint(&self) -> Option<String> {
        match &*self.kind {
            ErrorKind::Unknown {
                nearest: Some(nearest),
                of,
                ..
            } => Some(if of.len() > 1 {
                format!("did you mean '{}' of {}?", nearest.key, nearest.node)
            } else {
                format!("did you mean '{}'?", nearest.key)
            }),
            ErrorKind::Bad { expected, .. } => expected.grammar().map(str::to_owned),
            ErrorKind::Missing { key, type_name, .. } => Some(format!("add {key}=<{type_name}>")),
            ErrorKind::Duplicate { key } => Some(format!("keep one {key}=")),
            ErrorKind::NoMagic { .. } => Some("say which parameter it is for: key=value".into()),
            ErrorKind::Unknown { nearest: None, .. }
            | ErrorKind::File { .. }
            | ErrorKind::Conflict { .. } => None,
        }
    }

    pub(crate) fn bad(schema: &Schema, param: &Param, value: &str, why: String) -> Self {
        let kind = ErrorKind::Bad {
            key: param.name,
            value: value.to_owned(),
            why,
            expected: param.kind,
        };
        Self::new(schema.name, kind)
    }

    pub(crate) fn missing(schema: &Schema, param: &Param) -> Self {
        let kind = ErrorKind::Missing {
            key: param.name,
            type_name: param.type_name,
            doc: param.summary(),
        };
        Self::new(schema.name, kind)
    }
}

/// `text` as it may stand in a message: control characters escaped, bounded in length.
pub(crate) fn shown(text: &str) -> String {
    const MOST: usize = 80;
    let mut shown = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == MOST {
            shown.push_str("...");
            break;
        }
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// The node's name and a colon, or nothing.
struct Prefix<'a>(&'a str);

impl fmt::Display for Prefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            Ok(())
        } else {
            write!(f, "{}: ", self.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_value_stays_one_bounded_line() {
        let value = format!("a\nb\x1b[31m{}", "x".repeat(10_000));
        let error = ConfigError::new("", ErrorKind::NoMagic { value });
        let line = error.to_string();
        assert!(line.starts_with(r"'a\nb\u{1b}[31mxxx"), "{line}");
        assert!(
            line.len() < 200 && !line.contains('\n') && !line.contains('\x1b'),
            "{line}"
        );
    }

    #[test]
    fn the_node_stands_first_and_can_be_renamed() {
        let error = ConfigError::new("file", ErrorKind::Duplicate { key: "dir" });
        assert_eq!(error.to_string(), "file: dir is given more than once");
        assert_eq!(
            error.of_node("disk0").to_string(),
            "disk0: dir is given more than once"
        );
    }
}
