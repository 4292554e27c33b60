//! What is in a directory, down to its last file.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use block::{Error, ErrorKind, Result};

/// The largest file FAT knows: 4 GiB less one byte.
const FILE_MAX: u64 = u32::MAX as u64;

/// A directory tree. The first directory is the root.
pub(super) struct Tree {
    pub dirs: Vec<Dir>,
    pub files: Vec<File>,
}

/// A directory.
pub(super) struct Dir {
    /// The directory it is in; the root is in itself.
    pub parent: usize,
    /// What is in it, in the order of the names.
    pub entries: Vec<Entry>,
    path: PathBuf,
}

/// What a directory has under a name.
pub(super) struct Entry {
    pub name: String,
    pub kind: Kind,
    /// When it was last changed, in seconds since 1970.
    pub changed: i64,
}

/// A place in one of the lists of the tree.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Dir(usize),
    File(usize),
}

/// A file.
pub(super) struct File {
    pub path: PathBuf,
    pub size: u32,
}

impl Tree {
    /// Looks at everything in `root`. Blocks.
    ///
    /// # Errors
    /// Something cannot be read, or is too large for FAT.
    pub fn scan(root: &Path) -> Result<Tree> {
        let mut tree = Tree {
            dirs: Vec::new(),
            files: Vec::new(),
        };
        tree.add_dir(0, root.to_owned());
        let mut next = 0;
        while next < tree.dirs.len() {
            tree.read(next)?;
            next += 1;
        }
        Ok(tree)
    }

    /// The files, in their order.
    pub fn into_files(self) -> Vec<File> {
        self.files
    }

    fn add_dir(&mut self, parent: usize, path: PathBuf) -> usize {
        self.dirs.push(Dir {
            parent,
            entries: Vec::new(),
            path,
        });
        self.dirs.len() - 1
    }

    fn read(&mut self, dir: usize) -> Result<()> {
        let path = self.dirs[dir].path.clone();
        let cannot = |e| Error::io(format!("cannot read '{}'", path.display()), e);
        let mut found = Vec::new();
        for entry in fs::read_dir(&path).map_err(cannot)? {
            let entry = entry.map_err(cannot)?;
            // Of the link, not of what it points to.
            let meta = entry.metadata().map_err(cannot)?;
            if meta.is_dir() || meta.is_file() {
                found.push((entry.file_name(), meta));
            }
        }
        found.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        for (name, meta) in found {
            let path = path.join(&name);
            let name = name.into_string().map_err(|_| {
                let what = format!("the name of '{}' is not UTF-8", path.display());
                Error::new(ErrorKind::Unsupported, what)
            })?;
            let kind = match meta.is_dir() {
                true => Kind::Dir(self.add_dir(dir, path)),
                false => Kind::File(self.add_file(path, meta.len())?),
            };
            self.dirs[dir].entries.push(Entry {
                name,
                kind,
                changed: meta.mtime(),
            });
        }
        Ok(())
    }

    fn add_file(&mut self, path: PathBuf, size: u64) -> Result<usize> {
        if size > FILE_MAX {
            let what = format!("'{}' is too large for FAT (4 GiB)", path.display());
            return Err(Error::new(ErrorKind::Config, what));
        }
        let size = size as u32;
        self.files.push(File { path, size });
        Ok(self.files.len() - 1)
    }
}
