//! Files as the partitions of one disk: the partition table is made up, the rest is the files.
//!
//! | module | what |
//! | --- | --- |
//! | `config` | the parameters, some of which apply to the files that follow |
//! | `plan` | what lies where |
//!
//! *Contract.* The layout follows from the sizes of the files and from the parameters alone, and an MBR
//! is the same, byte for byte, as nbdkit makes it. The table is made when a client comes, from the
//! sizes the files then have. GUIDs follow from the path of the file, so that they stay the same.

mod config;
mod plan;

use std::{path::PathBuf, sync::Arc};

use ::config::Arg;
use block::{Device, Error, ErrorKind, Exports, Local, OpenContext, Result, Source};

pub use self::config::{
    Alignment, Guid, MbrId, PartitionFile, PartitionType, PartitioningConfig, TypeGuid,
};
use crate::{
    file,
    regions::{self, Files},
    registry,
};

/// The source. Opens nothing yet.
///
/// # Errors
/// `Config`, if there is no file; `Io`, if a relative path cannot be made absolute because the
/// current directory is gone.
pub fn new(mut config: PartitioningConfig) -> Result<Arc<dyn Source>> {
    let name: Arc<str> = "partitioning".into();
    if config.files.is_empty() {
        let what = "file=<FILE> is required: the file of the first partition";
        return Err(Error::new(ErrorKind::Config, what).in_node(&name));
    }
    for file in &mut config.files {
        file.path = file::absolute(&file.path).map_err(|e| e.in_node(&name))?;
    }
    let paths = config.files.iter().map(|file| &file.path);
    let files = Files::new(&name, paths)?;
    Ok(Arc::new(Partitioning {
        name,
        config,
        files,
    }))
}

pub(crate) fn make(args: &[Arg]) -> Result<Arc<dyn Source>> {
    new(registry::parse(args)?)
}

struct Partitioning {
    name: Arc<str>,
    config: PartitioningConfig,
    files: Files,
}

impl Source for Partitioning {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn ready(&self) -> Result<()> {
        self.files.ready()?;
        let lengths = self.files.lengths()?;
        plan::layout(&self.config, &lengths)
            .map(drop)
            .map_err(|e| e.in_node(&self.name))
    }

    fn exports<'a>(&'a self, _: &'a OpenContext) -> Local<'a, Result<Exports>> {
        Box::pin(async { Ok(Exports::single()) })
    }

    fn open<'a>(&'a self, cx: &'a OpenContext) -> Local<'a, Result<Arc<dyn Device>>> {
        Box::pin(async move {
            let files = self.files.open(cx).await?;
            let lengths: Vec<_> = files.iter().map(|file| file.limits().size).collect();
            let layout = plan::layout(&self.config, &lengths).map_err(|e| e.in_node(&self.name))?;
            regions::glue(&self.name, layout, files)
        })
    }
}

impl PartitionFile {
    /// A file as a partition with nothing special.
    pub fn new(path: impl Into<PathBuf>) -> PartitionFile {
        PartitionFile {
            path: path.into(),
            alignment: Alignment(1 << 20),
            mbr_id: MbrId(0x83),
            type_guid: TypeGuid(Guid::LINUX),
        }
    }
}

#[cfg(test)]
mod tests;
