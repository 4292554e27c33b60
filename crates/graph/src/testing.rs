//! Nodes for the tests of this crate: they have a schema and a thread model, and open nothing.

use std::sync::Arc;

use block::{
    Device, Error, ErrorKind, Exports, Next, OpenContext, Result, Source, ThreadModel,
    reactor::Local,
};
use config::{Choice, Config, Size};

use crate::{Entry, FilterEntry, Registry, SourceEntry, config_error};

/// A registry of small nodes: sources `memory` and `file`, filters `shift` and `slow`.
pub(crate) fn registry() -> Registry {
    let sources: Vec<SourceEntry> = vec![
        Entry {
            name: "memory",
            summary: "Memory.",
            schema: Memory::schema(),
            make: |args| {
                let memory = Memory::from_args(args).map_err(config_error)?;
                Ok(Fake::source("memory", memory.model.into()))
            },
        },
        Entry {
            name: "file",
            summary: "A file.",
            schema: File::schema(),
            make: |args| {
                File::from_args(args).map_err(config_error)?;
                Ok(Fake::source("file", ThreadModel::Parallel))
            },
        },
    ];
    let filters: Vec<FilterEntry> = vec![
        Entry {
            name: "shift",
            summary: "Shifts.",
            schema: Shift::schema(),
            make: |args, next| {
                Shift::from_args(args).map_err(config_error)?;
                Ok(Fake::filter("shift", next, ThreadModel::Parallel))
            },
        },
        Entry {
            name: "slow",
            summary: "Slows down.",
            schema: Slow::schema(),
            make: |args, next: Next| {
                Slow::from_args(args).map_err(config_error)?;
                Ok(Fake::filter("slow", next, ThreadModel::SerializeRequests))
            },
        },
    ];
    Registry::new(sources, filters)
}

/// Memory.
#[derive(Config)]
struct Memory {
    /// Size.
    #[config(magic)]
    #[allow(dead_code, reason = "only parsed")]
    size: Size,
    /// Label.
    #[allow(dead_code, reason = "only parsed")]
    label: Option<String>,
    /// Thread model.
    #[config(default = "parallel")]
    model: Model,
}

/// A file.
#[derive(Config)]
struct File {
    /// The file.
    #[config(magic)]
    #[allow(dead_code, reason = "only parsed")]
    file: Option<String>,
    /// A directory.
    #[allow(dead_code, reason = "only parsed")]
    dir: Option<String>,
    /// Label.
    #[allow(dead_code, reason = "only parsed")]
    label: Option<String>,
}

/// Shift.
#[derive(Config)]
struct Shift {
    /// By how much.
    #[allow(dead_code, reason = "only parsed")]
    by: Option<Size>,
    /// New size.
    #[allow(dead_code, reason = "only parsed")]
    size: Option<Size>,
}

/// Slow down.
#[derive(Config)]
struct Slow {
    /// Delay.
    #[allow(dead_code, reason = "only parsed")]
    rdelay: Option<String>,
}

/// Thread models.
#[derive(Choice, Clone, Copy)]
enum Model {
    /// Anything at once.
    Parallel,
    /// One request on each connection.
    Requests,
    /// One request.
    All,
    /// One connection.
    Connections,
}

impl From<Model> for ThreadModel {
    fn from(model: Model) -> ThreadModel {
        match model {
            Model::Parallel => ThreadModel::Parallel,
            Model::Requests => ThreadModel::SerializeRequests,
            Model::All => ThreadModel::SerializeAllRequests,
            Model::Connections => ThreadModel::SerializeConnections,
        }
    }
}

/// A source that refuses everything.
struct Fake {
    name: Arc<str>,
    model: ThreadModel,
    next: Option<Next>,
}

impl Fake {
    fn source(name: &str, model: ThreadModel) -> Arc<dyn Source> {
        Arc::new(Fake {
            name: name.into(),
            model,
            next: None,
        })
    }

    fn filter(name: &str, next: Next, model: ThreadModel) -> Arc<dyn Source> {
        Arc::new(Fake {
            name: name.into(),
            model,
            next: Some(next),
        })
    }
}

impl Source for Fake {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn thread_model(&self) -> ThreadModel {
        self.model
    }

    fn ready(&self) -> Result<()> {
        Err(Error::new(ErrorKind::Unsupported, "a fake is never ready"))
    }

    fn exports<'a>(&'a self, cx: &'a OpenContext) -> Local<'a, Result<Exports>> {
        Box::pin(async move {
            match &self.next {
                Some(next) => next.exports(cx).await,
                None => Ok(Exports::single()),
            }
        })
    }

    fn open<'a>(&'a self, _: &'a OpenContext) -> Local<'a, Result<Arc<dyn Device>>> {
        Box::pin(async { Err(Error::new(ErrorKind::Unsupported, "a fake opens nothing")) })
    }
}
