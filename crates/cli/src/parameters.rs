//! Files of parameters, which `@PATH` stands for on both command lines.

use std::{fs::File, io::Read, path::Path};

use config::{ConfigError, ErrorKind};

/// The words of a command line, with those of files in their places.
///
/// # Errors
/// `File`: a file cannot be used; see [`config::expand`].
pub fn expand(words: &[String]) -> Result<Vec<String>, ConfigError> {
    config::expand(words, &mut read)
}

/// The file that cannot be used, as nbdkit tells it.
pub fn told(error: &ConfigError) -> String {
    match &*error.kind {
        ErrorKind::File { path, why } => format!("cannot open {}: {why}", path.display()),
        _ => error.to_string(),
    }
}

/// The text of a file.
fn read(path: &Path) -> Result<String, String> {
    /// In bytes: more than any command line holds.
    const LONGEST: u64 = 4 << 20;
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST + 1).read_to_string(&mut text));
    match read {
        Ok(_) if text.len() as u64 > LONGEST => Err(format!("longer than {LONGEST} bytes")),
        Ok(_) => Ok(text),
        Err(error) => Err(error.to_string()),
    }
}
