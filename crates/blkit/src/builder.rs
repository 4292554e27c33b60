//! What is to be opened.

use std::{path::Path, sync::Arc};

use block::{Access, Errno};

use crate::{
    aio::AsyncDisk,
    context::{Context, Opened},
    disk::Disk,
    error::{Error, Result},
    handle::Handle,
    home::Opening,
    wait::block_on,
};

/// Says what to open, and how.
///
/// The words are those of blkit's command line: `blkit sources` and `blkit filters` list what there
/// is, `blkit help NAME` the parameters.
///
/// ```
/// # fn main() -> blkit::Result<()> {
/// let disk = blkit::Disk::builder("memory")
///     .arg("64M")
///     .filter("offset")
///     .param("offset", "1M")
///     .read_only(true)
///     .open()?;
/// assert_eq!(disk.size(), 63 << 20);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "nothing is opened yet"]
pub struct Builder {
    source: String,
    words: Vec<String>,
    filters: Vec<String>,
    export: String,
    read_only: bool,
    context: Option<Context>,
}

impl Builder {
    pub(crate) fn new(source: impl Into<String>) -> Builder {
        Builder {
            source: source.into(),
            words: Vec::new(),
            filters: Vec::new(),
            export: String::new(),
            read_only: false,
            context: None,
        }
    }

    /// A file or block device, whatever its name looks like.
    ///
    /// # Errors
    /// The path is not valid UTF-8.
    pub(crate) fn of_path(path: &Path) -> Result<Builder> {
        let text = path.to_str().ok_or_else(|| {
            let what = format!("'{}' is not valid UTF-8", path.display());
            Error::new(Errno::EINVAL, what)
        })?;
        Ok(Builder::new("file").param("file", text))
    }

    /// A word behind the source: a value, or `KEY=VALUE`.
    pub fn arg(mut self, word: impl Into<String>) -> Builder {
        self.words.push(word.into());
        self
    }

    /// A parameter of the source or of a filter. `NODE.KEY` says whose, where several know the key.
    pub fn param(self, key: &str, value: impl std::fmt::Display) -> Builder {
        self.arg(format!("{key}={value}"))
    }

    /// Puts a filter in front of the source; the first one is the outermost.
    pub fn filter(mut self, name: impl Into<String>) -> Builder {
        self.filters.push(name.into());
        self
    }

    /// Which export to open, of a source that has several [default: its default].
    pub fn export(mut self, name: impl Into<String>) -> Builder {
        self.export = name.into();
        self
    }

    /// Only reads [default: writes, if the source can].
    pub fn read_only(mut self, yes: bool) -> Builder {
        self.read_only = yes;
        self
    }

    /// Where the disk lives [default: the context of the process].
    pub fn context(mut self, context: &Context) -> Builder {
        self.context = Some(context.clone());
        self
    }

    /// Opens it, and waits for that.
    ///
    /// # Errors
    /// There is no such source, it does not know a parameter, or what it says when it is opened.
    pub fn open(self) -> Result<Disk> {
        let (context, opened) = self.begin()?;
        finish(context, block_on(opened)).map(Disk::of)
    }

    /// Opens it, for async code. Dropped before it is ready, it opens nothing that stays open.
    ///
    /// # Errors
    /// As [`Builder::open`].
    pub async fn open_async(self) -> Result<AsyncDisk> {
        let (context, opened) = self.begin()?;
        finish(context, opened.await).map(AsyncDisk::of)
    }

    /// Only reads, if it is so or if it was said before.
    pub(crate) fn read_only_if(mut self, yes: bool) -> Builder {
        self.read_only |= yes;
        self
    }

    /// What is to be opened.
    pub(crate) fn opening(self) -> Result<Opening> {
        let registry = graph::Registry::standard();
        let spec = registry.resolve(&self.source, &self.filters, &self.words)?;
        Ok(Opening {
            source: registry.build(&spec)?.source,
            export: self.export,
            access: match self.read_only {
                true => Access::ReadOnly,
                false => Access::ReadWrite,
            },
        })
    }

    fn begin(mut self) -> Result<(Context, Opened)> {
        let context = self.context.take();
        let opening = self.opening()?;
        let context = match context {
            Some(context) => context,
            None => Context::global()?,
        };
        let opened = context.launch(opening)?;
        Ok((context, opened))
    }
}

fn finish(context: Context, opened: Option<Result<Arc<crate::port::Port>>>) -> Result<Arc<Handle>> {
    let port =
        opened.unwrap_or_else(|| Err(Error::new(Errno::ESHUTDOWN, "the context was closed")))?;
    Ok(Arc::new(Handle::new(port, context)))
}
