//! A CD image (ISO 9660) of one or more directories, made by xorriso, genisoimage or mkisofs.
//!
//! The image is a temporary file without a name (see [`crate::scratch`]), made once at the start.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use block::{Device, Error, ErrorKind, Result, Source};
use config::{Arg, Config};

use crate::{file, image, registry, scratch};

/// The programs that can make an image, best first, as words of a shell.
const PROGRAMS: [(&str, &str); 3] = [
    ("xorriso", "xorriso -as mkisofs"),
    ("genisoimage", "genisoimage"),
    ("mkisofs", "mkisofs"),
];

/// A read-only CD image (ISO 9660) of directories.
///
/// It takes space in TMPDIR (else /var/tmp) on the server.
#[derive(Config, Debug, Clone, PartialEq, Eq)]
pub struct IsoConfig {
    /// A directory whose files are in the root directory of the image.
    ///
    /// Several directories are merged.
    #[config(magic, required, value = "DIR")]
    pub dir: Vec<PathBuf>,
    /// More parameters for the program, as words of a shell: '-JrT -V "My Disk"'.
    ///
    /// Without -J or -r the names of files are cut.
    pub params: Option<String>,
    /// The program that makes the image; xorriso, genisoimage or mkisofs if it is not given.
    pub prog: Option<String>,
}

/// The source. Makes nothing yet.
///
/// # Errors
/// `Io`, if a relative path cannot be made absolute because the current directory is gone.
pub fn new(config: IsoConfig) -> Result<Arc<dyn Source>> {
    let name: Arc<str> = "iso".into();
    let dirs = config.dir.iter().map(|dir| file::absolute(dir));
    let dirs: Vec<_> = dirs.collect::<Result<_>>().map_err(|e| e.in_node(&name))?;
    let node = name.clone();
    let build = move || {
        dirs.iter()
            .try_for_each(|dir| image::check_directory(dir))?;
        build(&config, &dirs, &node)
    };
    Ok(image::source(&name, build))
}

pub(crate) fn make(args: &[Arg]) -> Result<Arc<dyn Source>> {
    new(registry::parse(args)?)
}

fn build(config: &IsoConfig, dirs: &[PathBuf], node: &Arc<str>) -> Result<Arc<dyn Device>> {
    let program = program(config.prog.as_deref())?;
    let place = scratch::directory("iso-")?;
    let path = place.path().join("disk");
    let target = File::create_new(&path)
        .map_err(|e| Error::io(format!("cannot make '{}'", path.display()), e))?;
    let params = config.params.as_deref().unwrap_or_default();
    // The parameters are words of a shell, the directories are not.
    let script = format!("{program} -quiet {params} \"$@\"");
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &script, "sh"]).args(dirs).stdout(target);
    let output = scratch::run(&mut shell)?;
    if !output.status.success() {
        let what = format!("'{program}'");
        return Err(scratch::failed(&what, output.status.code(), &output.stderr));
    }
    let made = scratch::open_made(&path)?;
    drop(place);
    let device = file::device(made, node)?;
    match device.limits().size {
        0 => Err(Error::new(
            ErrorKind::Format,
            format!("'{program}' made an empty image"),
        )),
        _ => Ok(device),
    }
}

/// The program to run.
fn program(wanted: Option<&str>) -> Result<String> {
    if let Some(wanted) = wanted {
        return Ok(match PROGRAMS.iter().find(|(name, _)| *name == wanted) {
            Some((_, words)) => (*words).to_owned(),
            None => wanted.to_owned(),
        });
    }
    let path = scratch::path_variable();
    let here = |name: &str| {
        path.split(':')
            .any(|dir| Path::new(dir).join(name).is_file())
    };
    let found = PROGRAMS.iter().find(|(name, _)| here(name));
    found.map(|(_, words)| (*words).to_owned()).ok_or_else(|| {
        let what = "none of xorriso, genisoimage and mkisofs is installed";
        Error::new(ErrorKind::NotFound, what).hint("install xorriso, or name a program by prog=")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;
    use std::fs;

    fn made(words: &[&str]) -> Result<Arc<dyn Source>> {
        let source = make(
            &words
                .iter()
                .map(|word| Arg::parse(word))
                .collect::<Vec<_>>(),
        )?;
        source.ready().map(|()| source)
    }

    #[test]
    fn directories_become_a_cd() {
        if let Err(error) = program(None) {
            return eprintln!("SKIP: {}", error.chain());
        }
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(one.path().join("first file"), b"what is in the first file").unwrap();
        fs::write(two.path().join("second"), b"what is in the second file").unwrap();
        let dirs = [&one, &two].map(|dir| dir.path().display().to_string());
        let source = made(&[&dirs[0], &dirs[1], "params=-J -r -V 'MY DISK'"]).unwrap();
        let bench = Bench::open(source);
        assert!(bench.limits().read_only() && bench.limits().multi_conn);
        let image = bench.read_all();
        // The primary volume descriptor (ECMA-119, 8.4).
        assert_eq!(image[16 * 2048 + 1..][..5], *b"CD001");
        assert_eq!(image[16 * 2048 + 40..][..8], *b"MY DISK ");
        for text in [
            "what is in the first file",
            "what is in the second file",
            "first file",
        ] {
            let text = text.as_bytes();
            assert!(image.windows(text.len()).any(|part| part == text));
        }
    }

    #[test]
    fn failures_are_known_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().display().to_string();
        let error = made(&[&place, "prog=false"]).err().unwrap();
        assert_eq!(error.chain(), "iso: 'false' failed (exit code 1)");
        let error = made(&[&place, "prog=true"]).err().unwrap();
        assert_eq!(error.chain(), "iso: 'true' made an empty image");
        let error = made(&[&place, "prog=nonesuch-program"]).err().unwrap();
        let wanted = "iso: 'nonesuch-program' failed (exit code 127): ";
        assert!(error.chain().starts_with(wanted), "{}", error.chain());
        let error = made(&["/nonexistent"]).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let error = made(&["/etc/passwd"]).err().unwrap();
        assert_eq!(error.chain(), "iso: '/etc/passwd' is not a directory");
        assert!(
            made(&[])
                .err()
                .unwrap()
                .chain()
                .starts_with("iso: dir=<DIR> is required")
        );
    }
}
