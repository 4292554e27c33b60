//! Where the files are, and whether they have changed.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{ClientConfig, Config, Error};

/// Further pairs of certificate and key that a directory may hold.
const FURTHER_PAIRS: u8 = 10;

/// The files that credentials are in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Files {
    /// An X.509 directory.
    X509(PathBuf),
    /// A file of pre-shared keys.
    Psk(PathBuf),
}

impl Files {
    /// Finds out which files a client's configuration means; `None` if there are none.
    pub fn of_client(config: &ClientConfig) -> Option<Files> {
        if let Some(path) = &config.psk {
            return Some(Files::Psk(path.clone()));
        }
        if let Some(path) = &config.certificates {
            return Some(Files::X509(path.clone()));
        }
        let has_some = |place: &PathBuf| ca(place).exists();
        places("libnbd").into_iter().find(has_some).map(Files::X509)
    }

    /// Finds out which files a server's configuration means.
    pub fn of(config: &Config) -> Result<Files, Error> {
        if let Some(path) = &config.psk {
            return Ok(Files::Psk(path.clone()));
        }
        if let Some(path) = &config.certificates {
            return Ok(Files::X509(path.clone()));
        }
        choose(places("nbdkit"))
    }

    /// Everything that is read, and what is read if it is there.
    fn all(&self) -> Vec<PathBuf> {
        match self {
            Files::Psk(path) => vec![path.clone()],
            Files::X509(directory) => {
                let mut all = vec![ca(directory), crl(directory)];
                for pair in pairs(directory) {
                    all.extend([pair.certificate, pair.key]);
                }
                all
            }
        }
    }

    /// This process may not read all of them.
    pub fn are_forbidden(&self) -> bool {
        let forbidden = |path: &PathBuf| {
            fs::File::open(path).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
        };
        self.all().iter().any(forbidden)
    }

    /// How the files look now. Another value means that something has changed.
    pub fn stamp(&self) -> Stamp {
        Stamp(self.all().iter().map(|path| look(path)).collect())
    }
}

/// How some files looked at a moment.
#[derive(Debug, PartialEq, Eq)]
pub struct Stamp(Vec<Option<Look>>);

/// File systems may give two changes the same time if they are nearer to each other than this, in
/// seconds. (Most have a clock of some milliseconds; the oldest one of two seconds.)
const CLOCK: i64 = 2;

impl Stamp {
    /// The last change is long enough ago that a later one cannot look the same.
    pub fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |now| now.as_secs() as i64);
        let latest = |look: &Look| look.3[0].max(look.3[2]);
        self.0
            .iter()
            .flatten()
            .all(|look| latest(look) + CLOCK < now)
    }
}

/// Device, inode, size, and the times of the last change of contents and of anything.
type Look = (u64, u64, u64, [i64; 4]);

fn look(path: &Path) -> Option<Look> {
    let found = fs::metadata(path).ok()?;
    let times = [
        found.mtime(),
        found.mtime_nsec(),
        found.ctime(),
        found.ctime_nsec(),
    ];
    Some((found.dev(), found.ino(), found.size(), times))
}

/// A certificate, its chain, and the key to it.
pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// The pairs a directory may have; only the first must be there.
pub fn pairs(directory: &Path) -> impl Iterator<Item = Pair> {
    let suffixes = (0..FURTHER_PAIRS).map(|n| format!("-{n}"));
    std::iter::once(String::new())
        .chain(suffixes)
        .map(|suffix| Pair {
            certificate: directory.join(format!("server-cert{suffix}.pem")),
            key: directory.join(format!("server-key{suffix}.pem")),
        })
}

/// The pair that a client proves itself by.
pub fn client_pair(directory: &Path) -> Pair {
    Pair {
        certificate: directory.join("client-cert.pem"),
        key: directory.join("client-key.pem"),
    }
}

/// The certificates of those who sign.
pub fn ca(directory: &Path) -> PathBuf {
    directory.join("ca-cert.pem")
}

/// What they have revoked.
pub fn crl(directory: &Path) -> PathBuf {
    directory.join("ca-crl.pem")
}

/// Reads a file that must be there.
pub fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|error| unusable(path, text_of(&error)))
}

/// An error about a file.
pub fn unusable(path: &Path, why: impl Into<String>) -> Error {
    Error::File {
        path: path.to_owned(),
        why: why.into(),
    }
}

/// The system's words without its number.
fn text_of(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

/// Where a program's credentials are by default.
fn places(program: &str) -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    default_places(
        program,
        rustix::process::geteuid().is_root(),
        home.as_deref(),
    )
}

fn default_places(program: &str, root: bool, home: Option<&Path>) -> Vec<PathBuf> {
    if root {
        return vec![Path::new("/etc/pki").join(program)];
    }
    let below = [".pki", ".config/pki"];
    home.map_or(Vec::new(), |home| {
        below.map(|place| home.join(place).join(program)).to_vec()
    })
}

fn choose(places: Vec<PathBuf>) -> Result<Files, Error> {
    let has_some = |place: &&PathBuf| place.join("server-cert.pem").exists();
    if let Some(place) = places.iter().find(has_some) {
        return Ok(Files::X509(place.clone()));
    }
    let names: Vec<_> = places
        .iter()
        .map(|place| place.display().to_string())
        .collect();
    Err(Error::NoCertificates(match names.is_empty() {
        true => "the home directory, as HOME is not set".into(),
        false => names.join(" or "),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_directories_are_nbdkits() {
        let home = tempfile::tempdir().unwrap();
        let places = default_places("nbdkit", false, Some(home.path()));
        assert_eq!(
            default_places("nbdkit", true, Some(home.path())),
            [Path::new("/etc/pki/nbdkit")]
        );
        let error = choose(places.clone()).unwrap_err();
        assert!(matches!(&error, Error::NoCertificates(all) if all.contains(" or ")));
        for place in places.iter().rev() {
            fs::create_dir_all(place).unwrap();
            fs::write(place.join("server-cert.pem"), "").unwrap();
            // The later ones of the list count only while the earlier are not there.
            assert_eq!(choose(places.clone()), Ok(Files::X509(place.clone())));
        }
        assert!(choose(default_places("nbdkit", false, None)).is_err());
    }

    #[test]
    fn keys_take_the_place_of_certificates() {
        let config = Config {
            certificates: Some("/c".into()),
            psk: Some("/p".into()),
            ..Config::default()
        };
        assert_eq!(Files::of(&config), Ok(Files::Psk("/p".into())));
    }

    #[test]
    fn stamps_see_every_file() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::X509(directory.path().to_owned());
        let mut last = files.stamp();
        assert_eq!(last, files.stamp());
        let names = [
            "ca-cert",
            "ca-crl",
            "server-cert",
            "server-key",
            "server-key-9",
        ];
        for name in names {
            let path = directory.path().join(format!("{name}.pem"));
            for contents in ["a", "bc"] {
                fs::write(&path, contents).unwrap();
                let now = files.stamp();
                assert_ne!(last, now, "{name}");
                assert!(!now.is_settled(), "it may change once more at this time");
                last = now;
            }
        }
    }
}
