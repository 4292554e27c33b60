//! What an interrupted copy has done, in a small file, for the next one to go on.
//!
//! The file says which source and which destination it is about, how large they are, and which
//! ranges are done. It is written when these have been flushed, to a new file that takes the old
//! one's place, so it is true whenever the copy is cut short, also by a loss of power. When the copy
//! is complete, the file goes away.
//!
//! A source or destination that is a file is known by its number on its file system; a source also by
//! when it was last changed. Of servers and commands there is nothing to know but the words that name
//! them.

use std::{
    fmt::Write as _,
    fs::{self, File, Metadata},
    io::{self, Read, Write},
    ops::Range,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use block::{Error, ErrorKind, Result};

use super::{ends, options::Resume};
use crate::tools::Place;

/// Behind the destination's name.
const SUFFIX: &str = ".blkit-resume";

/// The first line.
const MAGIC: &str = "blkit copy, what is done, version 1";

/// The last line.
const END: &str = "end";

/// Longest file that is read, in bytes.
const MOST: u64 = 16 << 20;

/// The file of one copy.
#[derive(Clone)]
pub struct Ledger {
    path: PathBuf,
    size: u64,
    /// What it is about, in lines.
    about: [String; 4],
}

/// Where the file of a destination is, unless it is named.
pub fn beside(destination: &Path) -> PathBuf {
    let mut path = destination.as_os_str().to_owned();
    path.push(SUFFIX);
    path.into()
}

/// Where the file is, if there is to be one.
///
/// # Errors
/// There is no place beside the destination.
pub fn place(resume: &Resume, destination: &Place) -> Result<Option<PathBuf>> {
    match (resume, destination) {
        (Resume::Off, _) => Ok(None),
        (Resume::File(path), _) => Ok(Some(path.clone())),
        (Resume::Beside, Place::Word(word)) if ends::is_regular(destination) => {
            Ok(Some(beside(Path::new(word))))
        }
        (Resume::Beside, _) => {
            let what = "--resume needs a name (--resume=FILE) unless the destination is a file";
            Err(Error::new(ErrorKind::Config, what))
        }
    }
}

impl Ledger {
    /// For a copy of so many bytes. Both ends have to be there.
    ///
    /// # Errors
    /// They cannot be looked at.
    pub fn new(path: PathBuf, source: &Place, destination: &Place, size: u64) -> Result<Ledger> {
        let about = [
            MAGIC.to_owned(),
            format!("source {}", identity(source, true)?),
            format!("destination {}", identity(destination, false)?),
            format!("size {size}"),
        ];
        Ok(Ledger { path, size, about })
    }

    /// What is done already; `None`: there is no file, so the copy begins anew.
    ///
    /// # Errors
    /// The file is about something else, or is none of ours.
    pub fn load(&self) -> Result<Option<Vec<Range<u64>>>> {
        let cannot = |error| Error::io(self.path.display().to_string(), error);
        let mut text = String::new();
        match File::open(&self.path) {
            Ok(file) => file.take(MOST).read_to_string(&mut text).map_err(cannot)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(cannot(error)),
        };
        let refused = |why: &str| {
            let what = format!("cannot resume from {}: {why}", self.path.display());
            let hint = "remove that file to copy everything again";
            Err(Error::new(ErrorKind::Config, what).hint(hint))
        };
        let mut lines = text.lines();
        let names = ["kind of file", "source", "destination", "size"];
        for (about, name) in self.about.iter().zip(names) {
            if lines.next() != Some(about) {
                return refused(&format!("its {name} is another one"));
            }
        }
        match ranges(lines, self.size) {
            Some(done) => Ok(Some(done)),
            None => refused("it is damaged"),
        }
    }

    /// Writes what is done, in order. Blocks.
    ///
    /// # Errors
    /// What the system says; the old file is still there then.
    pub fn save(&self, done: &[Range<u64>]) -> Result<()> {
        let mut text = self.about.join("\n");
        for range in done {
            let _ = write!(text, "\ndone {} {}", range.start, range.end);
        }
        text.push('\n');
        text.push_str(END);
        text.push('\n');
        let mut fresh = self.path.as_os_str().to_owned();
        fresh.push(".new");
        let fresh = PathBuf::from(fresh);
        let write = || {
            let mut file = File::create(&fresh)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&fresh, &self.path)?;
            let parent = self
                .path
                .parent()
                .filter(|path| !path.as_os_str().is_empty());
            File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
        };
        write().map_err(|error| Error::io(self.path.display().to_string(), error))
    }

    /// The copy is complete.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove(&self) -> Result<()> {
        forget(&self.path)
    }
}

/// Removes a file that is of no use any more, if it is there.
///
/// # Errors
/// What the system says.
pub fn forget(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(path.display().to_string(), error))
        }
        _ => Ok(()),
    }
}

/// The ranges of a file, which have to be as we wrote them.
fn ranges<'a>(lines: impl Iterator<Item = &'a str>, size: u64) -> Option<Vec<Range<u64>>> {
    let mut done: Vec<Range<u64>> = Vec::new();
    let mut ended = false;
    for line in lines {
        if ended {
            return None;
        }
        if line == END {
            ended = true;
            continue;
        }
        let (start, end) = line.strip_prefix("done ")?.split_once(' ')?;
        let range = start.parse().ok()?..end.parse().ok()?;
        let behind = done.last().is_none_or(|last| last.end < range.start);
        if range.is_empty() || range.end > size || !behind {
            return None;
        }
        done.push(range);
    }
    ended.then_some(done)
}

/// Which thing it is, in one line; `content`: and whether it is still the same inside.
fn identity(place: &Place, content: bool) -> Result<String> {
    let word = match place {
        Place::Command(words) => return Ok(format!("command {words:?}")),
        Place::Word(word) if ends::uri_of(word).is_some() => return Ok(format!("uri {word:?}")),
        Place::Word(word) => word,
    };
    let found: Metadata =
        fs::metadata(word).map_err(|error| Error::io(word.to_string_lossy(), error))?;
    if found.file_type().is_block_device() {
        return Ok(format!("device {}", found.rdev()));
    }
    let mut text = format!("file {} {} {}", found.dev(), found.ino(), found.len());
    if content {
        let _ = write!(text, " {}.{:09}", found.mtime(), found.mtime_nsec());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(path: &Path) -> Place {
        Place::Word(path.into())
    }

    #[test]
    fn what_was_done_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["a", "b", "c"] {
            fs::write(path(name), "12345678").unwrap();
        }
        let state = path("state");
        let ledger = |from: &str, to: &str, size| {
            Ledger::new(state.clone(), &word(&path(from)), &word(&path(to)), size).unwrap()
        };
        let first = ledger("a", "b", 8);
        assert_eq!(first.load().unwrap(), None);
        let done = vec![0..2, 3..5, 7..8];
        first.save(&done).unwrap();
        assert_eq!(ledger("a", "b", 8).load().unwrap(), Some(done));
        let refused = |ledger: Ledger| ledger.load().unwrap_err().to_string();
        assert!(refused(ledger("c", "b", 8)).contains("its source is another one"));
        assert!(refused(ledger("a", "c", 8)).contains("its destination is another one"));
        assert!(refused(ledger("a", "b", 9)).contains("its size is another one"));
        fs::write(path("a"), "12345679").unwrap();
        let later = File::options().write(true).open(path("a")).unwrap();
        later
            .set_modified(std::time::SystemTime::UNIX_EPOCH)
            .unwrap();
        assert!(refused(ledger("a", "b", 8)).contains("its source is another one"));
        let now = ledger("a", "b", 8);
        now.remove().unwrap();
        assert_eq!(now.load().unwrap(), None);
        fs::write(&state, "something else").unwrap();
        assert!(refused(now).contains("kind of file"));
    }

    #[test]
    fn a_damaged_file_is_refused() {
        let found = |text: &str| ranges(text.lines(), 100);
        assert_eq!(found("done 0 5\ndone 6 100\nend"), Some(vec![0..5, 6..100]));
        assert_eq!(found("end"), Some(vec![]));
        for wrong in [
            "",
            "done 0 5",
            "done 0 101\nend",
            "done 5 5\nend",
            "done 6 5\nend",
            "done 0 5\ndone 5 6\nend",
            "done 4 5\ndone 0 1\nend",
            "done 0 5\nend\ndone 6 7",
            "done 0 x\nend",
            "done -1 5\nend",
            "more 0 5\nend",
        ] {
            assert_eq!(found(wrong), None, "{wrong}");
        }
    }
}
