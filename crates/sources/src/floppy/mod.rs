//! A FAT32 file system of a directory's contents, in the one partition of a disk: computed, not copied.
//!
//! | module | what |
//! | --- | --- |
//! | `tree` | what is in the directory |
//! | `names` | short and long names, directory entries |
//! | `fat` | boot sector, allocation tables, directories: what lies where |
//! | `files` | the contents: files that are opened when somebody reads them |
//!
//! *Contract.* The directory is looked at once, at the start; tables and directories are made in memory
//! then. The contents of files are read from the files themselves when a client reads them, a few of
//! them open at a time. A file that has gone or has another size by then cannot be read (`EIO`).
//! Whatever is no regular file or directory is left out.

mod fat;
mod files;
mod names;
mod tree;

use std::{path::PathBuf, sync::Arc};

use block::{Device, Result, Source};
use config::{Arg, Config, Size, Value};

use crate::{file, image, registry};

/// A read-only floppy disk, or rather a FAT32 disk, of a directory's contents.
///
/// The files are not copied: leave them alone while they are served.
#[derive(Config, Debug, Clone, PartialEq, Eq)]
pub struct FloppyConfig {
    /// The directory whose files are in the root directory of the disk.
    #[config(magic, value = "DIR")]
    pub dir: PathBuf,
    /// Label of the file system: up to 11 ASCII characters.
    #[config(default = "NBDKITFLOPY")]
    pub label: Label,
    /// Size of the whole disk; if it is not given, the disk is just large enough.
    pub size: Option<Size>,
}

/// The label of a FAT file system, filled up with spaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label(pub [u8; 11]);

impl Value for Label {
    const TYPE: &'static str = "LABEL";

    fn parse(text: &str) -> Result<Label, String> {
        let fits = |b: u8| (b' '..0x7f).contains(&b) && !b"\"*+,./:;<=>?[\\]|".contains(&b);
        if text.len() > 11 || text.is_empty() {
            return Err("a label has 1 to 11 characters".into());
        }
        if !text.bytes().all(fits) || text.starts_with(' ') {
            return Err("a label has ASCII letters, digits and few other characters".into());
        }
        let mut label = [b' '; 11];
        for (to, from) in label.iter_mut().zip(text.bytes()) {
            *to = from.to_ascii_uppercase();
        }
        Ok(Label(label))
    }
}

/// The source. Looks at nothing yet.
///
/// # Errors
/// `Io`, if a relative path cannot be made absolute because the current directory is gone.
pub fn new(mut config: FloppyConfig) -> Result<Arc<dyn Source>> {
    let name: Arc<str> = "floppy".into();
    config.dir = file::absolute(&config.dir).map_err(|e| e.in_node(&name))?;
    let node = name.clone();
    Ok(image::source(&name, move || build(&config, &node)))
}

pub(crate) fn make(args: &[Arg]) -> Result<Arc<dyn Source>> {
    new(registry::parse(args)?)
}

fn build(config: &FloppyConfig, node: &Arc<str>) -> Result<Arc<dyn Device>> {
    image::check_directory(&config.dir)?;
    let tree = tree::Tree::scan(&config.dir)?;
    let layout = fat::layout(&tree, config)?;
    let children = vec![files::device(node, tree.into_files())];
    crate::regions::glue(node, layout, children)
}

#[cfg(test)]
mod tests;
