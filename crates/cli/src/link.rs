//! `blkit link`: the names of other tools, as links to this program, which behaves as it is called.

use std::{io, os::unix::fs::symlink, path::Path, process::ExitCode};

use block::{Error, ErrorKind, Result};

/// The names.
const NAMES: &[&str] = &[
    "nbdkit",
    "nbdinfo",
    "nbdcopy",
    "nbdfuse",
    "nbddump",
    "nbddiscard",
    "nbdzero",
    "nbdsh",
    "vhost-user-blk",
];

/// Makes the links in `directory`, and says which. A link to this program that is there already is
/// left alone.
///
/// # Errors
/// Something else has one of the names, or the directory cannot be written.
pub fn link(directory: &Path) -> Result<ExitCode> {
    let program = std::env::current_exe()
        .map_err(|error| Error::io("cannot find this program's own path", error))?;
    let mut text = String::new();
    for name in NAMES {
        let path = directory.join(name);
        let shown = path.display();
        match symlink(&program, &path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if std::fs::read_link(&path).ok().as_deref() != Some(&*program) {
                    let what = format!("'{shown}' is there already and is something else");
                    return Err(Error::new(ErrorKind::Busy, what)
                        .hint("remove it, or choose another directory"));
                }
            }
            Err(error) => return Err(Error::io(format!("cannot make the link '{shown}'"), error)),
        }
        text.push_str(&format!("{shown}\n"));
    }
    crate::topics::print(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_made_once_and_nothing_is_overwritten() {
        let directory = tempfile::tempdir().expect("a directory");
        link(directory.path()).expect("links");
        link(directory.path()).expect("links again");
        let path = directory.path().join("nbdkit");
        let program = std::env::current_exe().expect("a program");
        assert_eq!(std::fs::read_link(&path).expect("a link"), program);
        std::fs::remove_file(&path).expect("removes");
        std::fs::write(&path, "x").expect("writes");
        let error = link(directory.path()).expect_err("a file is there");
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert_eq!(std::fs::read(&path).expect("reads"), b"x");
        link(&directory.path().join("nosuch")).expect_err("no directory");
    }
}
