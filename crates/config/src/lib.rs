//! Typed configuration: one documented struct per node, and every face made from it.
//!
//! A source, filter, format or export declares one struct and derives [`Config`] on it. From the
//! field names, types and doc comments come the `key=value` words of the command line, their
//! defaults and their help text; the [`Schema`] also holds what a TOML reader, a JSON schema, a
//! man page or a shell completion needs.
//!
//! Why a crate of its own: sources and filters declare the structs, the graph and the command
//! line read them, so the trait must sit below all of them. It imports nothing of ours but its
//! derive macros and does no I/O.
//!
//! Contract: text from outside is checked here, once. Nothing in it panics, overflows or
//! allocates more than a small multiple of its own length; an error names the node, the key and
//! the reason in one line, and offers a cure by [`ConfigError::hint`].
//!
//! ```
//! # extern crate blkit_config as config;
//! use config::{Arg, Config, Size};
//! use std::{path::PathBuf, time::Duration};
//!
//! /// Serve a local file or block device.
//! #[derive(Config, Debug, Clone)]
//! struct FileConfig {
//!     /// The file to serve.
//!     #[config(magic)]
//!     file: Option<PathBuf>,
//!     /// Bypass the page cache (O_DIRECT).
//!     #[config(default = "false")]
//!     direct: bool,
//!     /// Largest read passed to the kernel.
//!     #[config(default = "1M")]
//!     max_read: Size,
//!     /// Delay before each read.
//!     #[config(name = "rdelay", alias = "delay-read", default = "0")]
//!     read_delay: Duration,
//! }
//!
//! let args: Vec<Arg> = ["disk.img", "max_read=64k", "rdelay=5ms"].map(Arg::parse).into();
//! let file = FileConfig::from_args(&args)?;
//! assert_eq!(file.max_read, Size(65536));
//! assert_eq!(file.read_delay, Duration::from_millis(5));
//!
//! let error = FileConfig::from_pairs([("dirct", "true")]).unwrap_err();
//! assert_eq!(error.to_string(), "file: unknown parameter 'dirct'");
//! assert_eq!(error.hint().as_deref(), Some("did you mean 'direct'?"));
//! # Ok::<(), config::ConfigError>(())
//! ```
//!
//! # Attributes
//!
//! On the struct: `name = "file"` (the node's name; otherwise the struct's name in kebab-case
//! without `Config`), `check = path` (a `fn(&Self) -> Result<(), String>` run on the finished
//! struct, for rules between fields), `crate = path` (where this crate is, if not `::config`).
//!
//! On a field: `name = "key"`, `alias = "other"` (may repeat), `default = "text"` (parsed as if
//! given), `magic` (takes bare values), `required` (a list must have an element),
//! `value = "FILE"` (placeholder in help), `rest` (a `Vec<(String, String)>` that takes every
//! key no other field knows; scripts and templates need it).
//!
//! On a variant of a [`Choice`]: `name = "text"`, `alias = "other"`.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

// The macros name this crate `::config`, as every crate of the workspace does.
extern crate self as config;

mod arg;
mod error;
pub mod grammar;
mod help;
mod schema;
mod value;
mod values;

pub use arg::{Arg, expand, refuse_leftover, take};
pub use config_derive::{Choice, Config};
pub use error::{ConfigError, ErrorKind, Nearest};
pub use schema::{ChoiceInfo, Kind, Param, Schema};
pub use value::{Choice, Field, Probability, Size, Value, choice_from};
pub use values::Values;

/// A node's configuration: a struct that knows its schema and builds itself from arguments.
///
/// Derive it; write it by hand only where the meaning of a parameter depends on its place.
pub trait Config: Sized {
    /// The description of the struct: its parameters in the order of the fields.
    fn schema() -> &'static Schema;

    /// Builds the struct from the words of a command line.
    ///
    /// A bare value goes to the magic parameter; given again, by key or bare, the last bare value
    /// or key wins unless the parameter repeats.
    ///
    /// # Errors
    /// An unknown key, a bad value, a missing required parameter, the same key given twice, a
    /// bare value without a magic parameter, or a rule of the struct's own `check`.
    fn from_args(args: &[Arg]) -> Result<Self, ConfigError>;

    /// Builds the struct from pairs of key and value.
    ///
    /// # Errors
    /// As [`Config::from_args`].
    fn from_pairs<K, V>(pairs: impl IntoIterator<Item = (K, V)>) -> Result<Self, ConfigError>
    where
        K: Into<String>,
        V: Into<String>,
    {
        let args: Vec<Arg> = pairs
            .into_iter()
            .map(|(key, value)| Arg::KeyValue(key.into(), value.into()))
            .collect();
        Self::from_args(&args)
    }
}
