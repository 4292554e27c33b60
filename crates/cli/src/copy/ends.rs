//! What is copied from, and into what.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use block::{Error, ErrorKind, Result, Source};
use sources::{
    file::{FileConfig, Lock},
    nbd::NbdConfig,
};

use crate::tools::{Place, Started};

/// What is copied from.
pub enum From {
    Disk(End),
    /// Standard input.
    Stream,
}

/// Refuses to copy a file to itself, which would make it empty first.
///
/// # Errors
/// Both are the same file.
pub fn differ(source: &Place, destination: &Place) -> Result<()> {
    let found = |place: &Place, stream: &str| match place {
        Place::Word(word) if word == "-" => std::fs::metadata(stream).ok(),
        Place::Word(word) if uri_of(word).is_none() => std::fs::metadata(word).ok(),
        Place::Word(_) | Place::Command(_) => None,
    };
    let from = found(source, "/proc/self/fd/0");
    let into = found(destination, "/proc/self/fd/1");
    let (Some(from), Some(into)) = (from, into) else {
        return Ok(());
    };
    let kept = from.is_file() || from.file_type().is_block_device();
    if kept && (from.dev(), from.ino()) == (into.dev(), into.ino()) {
        let what = "source and destination are the same file";
        return Err(Error::new(ErrorKind::Config, what));
    }
    Ok(())
}

/// It is a regular file, or will be one.
pub fn is_regular(place: &Place) -> bool {
    let Place::Word(word) = place else {
        return false;
    };
    if word == "-" || word == "null:" || uri_of(word).is_some() {
        return false;
    }
    match std::fs::metadata(word) {
        Ok(found) => found.is_file(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// How patient we are with servers.
#[derive(Clone, Copy, Debug)]
pub struct Servers {
    /// Connections to each, if it allows several.
    pub connections: u32,
    /// Attempts to connect besides the first.
    pub retries: u32,
    /// How long a lost connection is made again.
    pub reconnect: Duration,
}

/// What is copied into.
pub enum Into {
    Disk(End),
    /// A regular file, to be made as long as the source.
    File(PathBuf),
    /// Standard output.
    Stream,
    Nothing,
}

/// A source, and the server that was started for it.
pub struct End {
    started: Option<Started>,
    source: Arc<dyn Source>,
    near: bool,
}

impl End {
    /// The server has to live as long as the source is used.
    pub fn into_parts(self) -> (Option<Started>, Arc<dyn Source>) {
        (self.started, self.source)
    }

    /// It is on this machine, and what is asked of it is mostly done at once.
    pub fn is_near(&self) -> bool {
        self.near
    }

    fn of_file(source: Arc<dyn Source>) -> End {
        End {
            started: None,
            source,
            near: true,
        }
    }

    fn of_uri(uri: String, servers: Servers) -> Result<End> {
        Ok(End {
            started: None,
            source: nbd(uri, servers)?,
            near: false,
        })
    }

    fn of_command(command: &[std::ffi::OsString], servers: Servers) -> Result<End> {
        let started = Started::new(command)?;
        let uri = started.uri();
        Ok(End {
            source: nbd(uri, servers)?,
            started: Some(started),
            near: false,
        })
    }
}

impl From {
    /// Opens nothing yet, but for the programs that are to be started.
    ///
    /// # Errors
    /// There is no such file, or the URI is wrong.
    pub fn new(place: &Place, servers: Servers) -> Result<From> {
        let word = match place {
            Place::Command(command) => {
                return Ok(From::Disk(End::of_command(command, servers)?));
            }
            Place::Word(word) => word,
        };
        if word == "-" {
            return Ok(From::Stream);
        }
        if let Some(uri) = uri_of(word) {
            return Ok(From::Disk(End::of_uri(uri, servers)?));
        }
        let path = Path::new(word);
        let found = std::fs::metadata(path).map_err(|error| Error::io(shown(path), error))?;
        if found.is_dir() {
            let what = format!("{}: is a directory", path.display());
            return Err(Error::new(ErrorKind::Config, what));
        }
        let source = sources::file::new(FileConfig {
            // Whoever else has it open is the user's business, as with any program that reads a file.
            lock: Lock::None,
            ..FileConfig::of(path)
        })?;
        Ok(From::Disk(End::of_file(source)))
    }
}

impl Into {
    /// See [`End::is_near`].
    pub fn is_near(&self) -> bool {
        match self {
            Into::Disk(end) => end.is_near(),
            Into::File(_) | Into::Stream | Into::Nothing => true,
        }
    }

    /// Opens and creates nothing yet, but for the programs that are to be started.
    ///
    /// # Errors
    /// The URI is wrong, or it is a directory.
    pub fn new(place: &Place, servers: Servers) -> Result<Into> {
        let word = match place {
            Place::Command(command) => {
                return Ok(Into::Disk(End::of_command(command, servers)?));
            }
            Place::Word(word) => word,
        };
        if word == "-" {
            return Ok(Into::Stream);
        }
        if word == "null:" {
            return Ok(Into::Nothing);
        }
        if let Some(uri) = uri_of(word) {
            return Ok(Into::Disk(End::of_uri(uri, servers)?));
        }
        let path = Path::new(word);
        match std::fs::metadata(path) {
            Ok(found) if found.file_type().is_block_device() => {
                let source = sources::file::new(FileConfig::of(path))?;
                Ok(Into::Disk(End::of_file(source)))
            }
            Ok(found) if found.is_file() => Ok(Into::File(path.to_owned())),
            Ok(_) => {
                let what = format!("{}: is no file and no block device", path.display());
                Err(Error::new(ErrorKind::Config, what))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Into::File(path.to_owned()))
            }
            Err(error) => Err(Error::io(shown(path), error)),
        }
    }
}

/// Makes a file of zeroes, of which nothing is allocated; what was in it is gone.
///
/// # Errors
/// What the system says.
pub fn create(path: &Path, size: u64) -> Result<Arc<dyn Source>> {
    File::create(path)
        .and_then(|file| file.set_len(size))
        .map_err(|error| Error::io(shown(path), error))?;
    existing(path)
}

/// A file that is written on.
///
/// # Errors
/// What the system says.
pub fn existing(path: &Path) -> Result<Arc<dyn Source>> {
    sources::file::new(FileConfig::of(path))
}

/// The same file for reading what has reached the disk: past the page cache where the file system
/// can (`direct`).
///
/// # Errors
/// What the system says.
pub fn medium(path: &Path, direct: bool) -> Result<Arc<dyn Source>> {
    sources::file::new(FileConfig {
        lock: Lock::None,
        direct,
        ..FileConfig::of(path)
    })
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// The word, if it is the URI of a server.
pub fn uri_of(word: &std::ffi::OsStr) -> Option<String> {
    let text = word.to_str()?;
    sources::nbd::is_uri(text).then(|| text.to_owned())
}

fn nbd(uri: String, servers: Servers) -> Result<Arc<dyn Source>> {
    let config = NbdConfig {
        connections: servers.connections,
        retry: servers.retries,
        reconnect_delay: servers.reconnect,
        ..NbdConfig::of_uri(uri)?
    };
    sources::nbd::new(config)
}
