//! The source that a tool's words name: a server's URI or a command in brackets, as libnbd's tools
//! have it, and beyond them a file or any source of blkit, with its parameters.

use std::{ffi::OsString, sync::Arc};

use block::{Error, ErrorKind, Result, Source};
use config::Arg;
use graph::Registry;

use super::{Place, Started};
use crate::parameters;

/// A source, and the server that was started for it.
pub struct Named {
    /// Nobody has started it yet.
    pub source: Arc<dyn Source>,
    /// Has to live as long as the source is used.
    _started: Option<Started>,
}

impl Named {
    /// Opens nothing yet, but for the program that is to be started. With `reading`, a file need not
    /// be ours alone: whoever else has it open is the user's business, as with any program that reads
    /// a file.
    ///
    /// # Errors
    /// There is no such source, or it does not know these parameters.
    pub fn new(places: &[Place], filters: &[String], reading: bool) -> Result<Named> {
        let (started, first, rest) = match places {
            [Place::Command(command)] => {
                let started = Started::new(command)?;
                let uri = started.uri();
                (Some(started), uri, Vec::new())
            }
            [Place::Word(first), rest @ ..] => (None, text(first)?, parameters(rest)?),
            _ => {
                let what = "nothing may stand beside a command in brackets";
                return Err(Error::new(ErrorKind::Config, what));
            }
        };
        let registry = Registry::standard();
        let mut spec = registry.resolve(&first, filters, &rest)?;
        if reading && spec.source.name == "file" {
            // In front: what the user says of it counts.
            let free = Arg::KeyValue("lock".into(), "none".into());
            let told = |arg: &Arg| matches!(arg, Arg::KeyValue(key, _) if key == "lock");
            if !spec.source.args.iter().any(told) {
                spec.source.args.push(free);
            }
        }
        Ok(Named {
            source: registry.build(&spec)?.source,
            _started: started,
        })
    }
}

fn parameters(places: &[Place]) -> Result<Vec<String>> {
    let words = places.iter().map(|place| match place {
        Place::Word(word) => text(word),
        Place::Command(_) => {
            let what = "nothing may stand beside a command in brackets";
            Err(Error::new(ErrorKind::Config, what))
        }
    });
    let words = words.collect::<Result<Vec<_>>>()?;
    parameters::expand(&words).map_err(graph::config_error)
}

fn text(word: &OsString) -> Result<String> {
    let shown = || format!("'{}' is not valid UTF-8", word.display());
    let text = word.to_str().map(str::to_owned);
    text.ok_or_else(|| Error::new(ErrorKind::Config, shown()))
}
