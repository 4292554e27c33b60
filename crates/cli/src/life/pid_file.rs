//! A file with this process's number, for whoever waits for it or wants to stop it.

use std::path::{Path, PathBuf};

use block::{Error, Result};

/// The file; removed when dropped.
pub struct PidFile(PathBuf);

impl PidFile {
    /// Writes the file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(path: &Path) -> Result<PidFile> {
        let text = format!("{}\n", std::process::id());
        std::fs::write(path, text).map_err(|error| {
            let what = format!("cannot write the pid file '{}'", path.display());
            Error::io(what, error)
        })?;
        Ok(PidFile(path.to_owned()))
    }

    /// Leaves the file where it is.
    pub fn keep(mut self) {
        self.0 = PathBuf::new();
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Not if it is another's by now, nor if it was never a file, such as /dev/stderr.
        let ours = std::fs::symlink_metadata(&self.0).is_ok_and(|file| file.is_file())
            && std::fs::read_to_string(&self.0)
                .is_ok_and(|text| text.trim() == std::process::id().to_string());
        if ours {
            let _ = std::fs::remove_file(&self.0);
        }
    }
}
