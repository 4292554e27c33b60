//! nbdkit's second example: a local file, read-only.
//!
//! What `file` serves to a client that may only read; for anything else use that.

use std::{path::PathBuf, sync::Arc};

use block::{Access, Device, Exports, Local, OpenContext, Reactor, Result, Source};
use config::{Arg, Config};

use crate::{file, registry};

/// A local file, read-only: an example.
#[derive(Config, Debug, Clone, PartialEq, Eq)]
pub struct Example2Config {
    /// The file to serve.
    pub file: PathBuf,
}

/// The source. Opens nothing yet.
///
/// # Errors
/// As those of [`mod@file`].
pub fn new(config: Example2Config) -> Result<Arc<dyn Source>> {
    let file = file::new(file::FileConfig::of(&config.file))?;
    Ok(Arc::new(Example2 {
        name: "example2".into(),
        file,
    }))
}

pub(crate) fn make(args: &[Arg]) -> Result<Arc<dyn Source>> {
    new(registry::parse(args)?)
}

struct Example2 {
    name: Arc<str>,
    file: Arc<dyn Source>,
}

impl Source for Example2 {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn ready(&self) -> Result<()> {
        self.file.ready()
    }

    fn start<'a>(&'a self, reactor: &'a Reactor) -> Local<'a, Result<()>> {
        self.file.start(reactor)
    }

    fn exports<'a>(&'a self, cx: &'a OpenContext) -> Local<'a, Result<Exports>> {
        self.file.exports(cx)
    }

    fn open<'a>(&'a self, cx: &'a OpenContext) -> Local<'a, Result<Arc<dyn Device>>> {
        Box::pin(async move {
            let mut reader = cx.clone();
            reader.access = Access::ReadOnly;
            self.file.open(&reader).await
        })
    }

    fn stop<'a>(&'a self, reactor: &'a Reactor) -> Local<'a, ()> {
        self.file.stop(reactor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;
    use block::{Errno, ErrorKind};

    fn of(path: &std::path::Path) -> Arc<dyn Source> {
        make(&[Arg::parse(&format!("file={}", path.display()))]).unwrap()
    }

    #[test]
    fn a_file_can_be_read_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, b"some bytes").unwrap();
        let source = of(&path);
        source.ready().unwrap();
        let bench = Bench::open(source);
        assert_eq!(bench.limits().size, 10);
        assert!(bench.limits().read_only());
        assert_eq!(bench.read(5, 5).unwrap(), b"bytes");
        assert_eq!(bench.write(0, b"x").unwrap_err(), Errno::ENOTSUP);
        drop(bench);
        assert_eq!(std::fs::read(&path).unwrap(), b"some bytes");
    }

    #[test]
    fn a_file_is_needed() {
        let error = make(&[]).err().expect("a file is needed");
        assert!(
            error
                .chain()
                .starts_with("example2: file=<FILE> is required")
        );
        let dir = tempfile::tempdir().unwrap();
        let source = of(&dir.path().join("none"));
        let error = source.ready().expect_err("there is none");
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}
