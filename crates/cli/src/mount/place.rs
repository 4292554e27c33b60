//! The mount point: a directory with the file in it, or a file that becomes the disk.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use exports::fuse::Shape;

/// The file's name, if none is given.
const DEFAULT_NAME: &str = "nbd";

/// A place that can be mounted over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPoint {
    /// A directory, or a file.
    pub path: PathBuf,
    /// What will be there.
    pub shape: Shape,
}

impl MountPoint {
    /// What a word means: a directory; a name in a directory; a file. `None` if it is none of them.
    pub fn new(word: &OsStr) -> Option<MountPoint> {
        let path = Path::new(word);
        let inside = |path: &Path, name: &str| {
            Some(MountPoint {
                path: std::path::absolute(path).ok()?,
                shape: Shape::Directory {
                    name: name.to_owned(),
                },
            })
        };
        if path.is_dir() {
            return inside(path, DEFAULT_NAME);
        }
        if path.is_file() {
            return Some(MountPoint {
                path: std::path::absolute(path).ok()?,
                shape: Shape::File,
            });
        }
        // A word without a slash is no name in a directory, but a directory that is missing.
        let (parent, name) = word.to_str()?.rsplit_once('/')?;
        let parent = Path::new(if parent.is_empty() { "/" } else { parent });
        let fits = !name.is_empty() && name.len() <= 255;
        (fits && !path.exists() && parent.is_dir()).then(|| inside(parent, name))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_names_and_files_are_told_apart() {
        let place = tempfile::tempdir().expect("a directory");
        let path = |name: &str| place.path().join(name);
        std::fs::write(path("file"), "x").expect("writes");
        let found = |path: &Path| MountPoint::new(path.as_os_str());
        let inside = |name: &str| {
            Some(MountPoint {
                path: place.path().to_owned(),
                shape: Shape::Directory { name: name.into() },
            })
        };
        assert_eq!(found(place.path()), inside("nbd"));
        assert_eq!(found(&path("disk.raw")), inside("disk.raw"));
        let naked = MountPoint {
            path: path("file"),
            shape: Shape::File,
        };
        assert_eq!(found(&path("file")), Some(naked));
        for none in ["nosuch/disk", "nosuch/", "file/x"] {
            assert_eq!(found(&path(none)), None, "{none}");
        }
        assert_eq!(MountPoint::new("nosuch".as_ref()), None);
    }
}
