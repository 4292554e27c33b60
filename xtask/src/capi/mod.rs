//! `cargo xtask capi [LIBRARY...] [OPTION...]`: the C libraries, with the symbols of those whose place
//! they take ([`libraries`]).
//!
//! A `cdylib` loses version nodes: rustc passes the linker a script of its own. So this builds static
//! libraries and links them with `cc`. What is made lies in `target/PROFILE/capi`, for libnbd:
//! `libnbd.so.0`, `libnbd.so`, `include/libnbd.h` and `pkgconfig/libnbd.pc`, which can be used from
//! there or installed. The last line of output is that folder.
//!
//! `CC`, `LDFLAGS` and `DESTDIR` are heeded as packagers expect. Linking happens only if something
//! changed, and files are replaced in one step: several of these may run at a time.

mod libraries;

use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use serde_json::Value;

use crate::tool;
use libraries::{ALL, Library};
pub use libraries::{LIBBLKIO, LIBNBD};

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    libraries: Vec<&'static Library>,
    profile: String,
    tls: bool,
    prefix: Option<PathBuf>,
    libdir: Option<PathBuf>,
}

/// A static library, and what must be linked with it.
#[derive(Debug, PartialEq, Eq)]
struct Built {
    archive: PathBuf,
    libraries: Vec<String>,
}

/// The library, made.
pub struct Made {
    /// What the head of this module tells of.
    pub folder: PathBuf,
    /// The library for static linking,
    pub archive: PathBuf,
    /// and what the system must add to it.
    pub libraries: Vec<String>,
}

/// Builds, links and installs.
pub fn run(words: &[String]) -> Result<ExitCode, String> {
    let wanted = parse(words)?;
    let mut last = None;
    for library in &wanted.libraries {
        last = Some(make_one(library, &wanted)?);
    }
    if let Some(made) = last {
        println!("{}", made.folder.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes one of them for another chore.
pub fn make(library: &'static Library, words: &[String]) -> Result<Made, String> {
    make_one(library, &parse(words)?)
}

fn make_one(library: &Library, wanted: &Wanted) -> Result<Made, String> {
    let built = build(library, wanted)?;
    let folder = built
        .archive
        .parent()
        .ok_or("the archive lies nowhere")?
        .join("capi");
    link(library, &built, &folder)?;
    let header = library.source().join("include").join(library.header);
    let include = folder.join("include");
    fs::create_dir_all(&include).map_err(|why| told(&include, &why))?;
    put(&include.join(library.header), &read(&header)?)?;
    let pkgconfig = folder.join("pkgconfig");
    fs::create_dir_all(&pkgconfig).map_err(|why| told(&pkgconfig, &why))?;
    let describes = library.describe(&folder, &folder);
    put(&pkgconfig.join(library.pc()), describes.as_bytes())?;
    if let Some(prefix) = &wanted.prefix {
        let libdir = wanted.libdir.clone().unwrap_or_else(|| prefix.join("lib"));
        let root = std::env::var_os("DESTDIR").map(PathBuf::from);
        install(library, &folder, prefix, &libdir, root.as_deref())?;
    }
    Ok(Made {
        folder,
        archive: built.archive,
        libraries: built.libraries,
    })
}

fn parse(words: &[String]) -> Result<Wanted, String> {
    let mut wanted = Wanted {
        libraries: Vec::new(),
        profile: "dev".to_owned(),
        tls: true,
        prefix: None,
        libdir: None,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || match words.next() {
            Some(value) => Ok(value.clone()),
            None => Err(format!("{word} needs a value")),
        };
        match word.as_str() {
            "--release" => wanted.profile = "release".to_owned(),
            "--profile" => wanted.profile = value()?,
            "--no-tls" => wanted.tls = false,
            "--install" => wanted.prefix = Some(absolute(value()?)?),
            "--libdir" => wanted.libdir = Some(absolute(value()?)?),
            name => match ALL.iter().find(|library| library.name == name) {
                Some(library) => wanted.libraries.push(library),
                None => return Err(format!("unexpected argument '{word}'\n{USAGE}")),
            },
        }
    }
    if wanted.libdir.is_some() && wanted.prefix.is_none() {
        return Err("--libdir says where --install installs to".to_owned());
    }
    if wanted.libraries.is_empty() {
        wanted.libraries.extend(&ALL);
    }
    Ok(wanted)
}

const USAGE: &str = "libraries: libnbd, libblkio, libblkit [default: all]\n\
                     options: [--release | --profile NAME] [--no-tls] \
                     [--install PREFIX [--libdir FOLDER]]";

/// What is installed is written into the .pc file: a relative path would mean another place there.
fn absolute(path: String) -> Result<PathBuf, String> {
    match Path::new(&path).is_absolute() {
        true => Ok(path.into()),
        false => Err(format!("{path} is not an absolute path")),
    }
}

/// Builds the static library.
fn build(library: &Library, wanted: &Wanted) -> Result<Built, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["rustc", "-p", library.package, "--lib"]);
    command.args(["--crate-type", "staticlib", "--profile", &wanted.profile]);
    if wanted.tls && library.tls {
        command.args(["--features", "tls"]);
    }
    let output = command
        .args(["--message-format", "json", "--"])
        .args(["--print", "native-static-libs"])
        .current_dir(tool::root())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cargo: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let messages: Vec<Value> = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    for rendered in complaints(&messages) {
        eprint!("{rendered}");
    }
    if !output.status.success() {
        return Err("cargo rustc failed".to_owned());
    }
    Ok(Built {
        archive: archive(library, &messages).ok_or("cargo did not say where the archive is")?,
        libraries: libraries(&messages).ok_or("rustc did not say what to link with")?,
    })
}

/// What the compiler complains of, as it writes it.
fn complaints(messages: &[Value]) -> impl Iterator<Item = &str> {
    messages
        .iter()
        .filter(|message| message["reason"] == "compiler-message")
        .map(|message| &message["message"])
        .filter(|message| message["level"] != "note")
        .filter_map(|message| message["rendered"].as_str())
}

/// Finds the static library in cargo's messages.
fn archive(library: &Library, messages: &[Value]) -> Option<PathBuf> {
    let target = library.target();
    messages
        .iter()
        .filter(|message| message["reason"] == "compiler-artifact")
        .filter(|message| message["target"]["name"] == target.as_str())
        .flat_map(|message| message["filenames"].as_array().into_iter().flatten())
        .filter_map(|file| file.as_str())
        .find(|path| path.ends_with(".a"))
        .map(PathBuf::from)
}

/// Finds what rustc says the system must add.
fn libraries(messages: &[Value]) -> Option<Vec<String>> {
    let words = messages
        .iter()
        .filter_map(|message| message["message"]["message"].as_str())
        .find_map(|text| text.strip_prefix("native-static-libs:"))?;
    Some(words.split_whitespace().map(str::to_owned).collect())
}

/// Links the shared library, unless it is what would be linked.
fn link(library: &Library, built: &Built, folder: &Path) -> Result<(), String> {
    let file = folder.join(library.soname);
    let linked = folder.join(format!(".{}.linked", library.name));
    let script = library.source().join(format!("{}.map", library.name));
    let flags = std::env::var("LDFLAGS").unwrap_or_default();
    let cc = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let state = [
        identity(&built.archive)?,
        identity(&script)?,
        built.libraries.join(" "),
        flags.clone(),
        cc.clone(),
    ]
    .join("\n");
    if file.exists() && fs::read_to_string(&linked).is_ok_and(|was| was == state) {
        return Ok(());
    }
    fs::create_dir_all(folder).map_err(|why| told(folder, &why))?;
    let new = folder.join(format!("{}.{}", library.soname, std::process::id()));
    let output = Command::new(&cc)
        .arg("-shared")
        .arg("-o")
        .arg(&new)
        .arg("-Wl,--whole-archive")
        .arg(&built.archive)
        .arg("-Wl,--no-whole-archive")
        .arg(format!("-Wl,--version-script={}", script.display()))
        .arg(format!("-Wl,-soname,{}", library.soname))
        .arg("-Wl,--gc-sections")
        .args(["-Wl,-z,relro,-z,now,-z,defs", "-Wl,--as-needed"])
        .args(&built.libraries)
        .args(flags.split_whitespace())
        .output()
        .map_err(|error| format!("{cc}: {error}"))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{cc}: {}\n{}", output.status, why.trim()));
    }
    fs::rename(&new, &file).map_err(|why| told(&file, &why))?;
    alias(library, folder)?;
    put(&linked, state.as_bytes())
}

/// What tells one version of a file from another.
fn identity(path: &Path) -> Result<String, String> {
    let is = fs::metadata(path).map_err(|why| told(path, &why))?;
    Ok(format!(
        "{} {} {} {}.{}",
        path.display(),
        is.ino(),
        is.len(),
        is.mtime(),
        is.mtime_nsec()
    ))
}

/// The name that the linker looks for.
fn alias(library: &Library, folder: &Path) -> Result<(), String> {
    let name = folder.join(format!("{}.so", library.name));
    let new = folder.join(format!("{}.so.{}", library.name, std::process::id()));
    symlink(library.soname, &new)
        .and_then(|()| fs::rename(&new, &name))
        .map_err(|why| told(&name, &why))
}

/// Copies what was built to where programs look for it.
fn install(
    library: &Library,
    folder: &Path,
    prefix: &Path,
    libdir: &Path,
    root: Option<&Path>,
) -> Result<(), String> {
    let below = |path: &Path| match root {
        Some(root) => root.join(path.strip_prefix("/").unwrap_or(path)),
        None => path.to_owned(),
    };
    let (include, lib) = (below(&prefix.join("include")), below(libdir));
    let pkgconfig = lib.join("pkgconfig");
    for folder in [&include, &pkgconfig] {
        fs::create_dir_all(folder).map_err(|why| told(folder, &why))?;
    }
    let header = folder.join("include").join(library.header);
    put(&include.join(library.header), &read(&header)?)?;
    put(
        &lib.join(library.soname),
        &read(&folder.join(library.soname))?,
    )?;
    alias(library, &lib)?;
    let describes = library.describe(prefix, libdir);
    put(&pkgconfig.join(library.pc()), describes.as_bytes())
}

/// Writes a file in one step: a program may have the one before open or mapped.
fn put(path: &Path, content: &[u8]) -> Result<(), String> {
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".{}", std::process::id()));
    let new = PathBuf::from(new);
    fs::write(&new, content)
        .and_then(|()| fs::rename(&new, path))
        .map_err(|why| told(path, &why))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|why| told(path, &why))
}

fn told(path: &Path, why: &std::io::Error) -> String {
    format!("{}: {why}", path.display())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn options() {
        let wanted = parse(&words(
            "libblkio --release --no-tls --install /usr --libdir /usr/lib64",
        ));
        let expected = Wanted {
            libraries: vec![&libraries::LIBBLKIO],
            profile: "release".to_owned(),
            tls: false,
            prefix: Some("/usr".into()),
            libdir: Some("/usr/lib64".into()),
        };
        assert_eq!(wanted, Ok(expected));
        let all = parse(&[]).expect("all of them").libraries;
        assert_eq!(all, ALL.to_vec());
        for wrong in [
            "libnbd.so",
            "--install",
            "--install usr",
            "--libdir /usr/lib",
            "--reelase",
        ] {
            assert!(parse(&words(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_cargo_says() {
        let messages = [
            json!({"reason": "compiler-artifact", "target": {"name": "blkit_nbd"},
                   "filenames": ["/x/libblkit_nbd.a"]}),
            json!({"reason": "compiler-message", "message": {"level": "note", "rendered": "n",
                   "message": "native-static-libs: -lgcc_s -lc"}}),
            json!({"reason": "compiler-message", "message": {"level": "warning",
                   "message": "unused", "rendered": "warning: unused\n"}}),
            json!({"reason": "compiler-artifact", "target": {"name": "blkit_capi"},
                   "filenames": ["/x/b.rmeta", "/x/libblkit_capi.a"]}),
        ];
        assert_eq!(
            archive(&LIBNBD, &messages),
            Some("/x/libblkit_capi.a".into())
        );
        assert_eq!(libraries(&messages), Some(words("-lgcc_s -lc")));
        assert_eq!(
            complaints(&messages).collect::<Vec<_>>(),
            ["warning: unused\n"]
        );
        assert_eq!((archive(&LIBNBD, &[]), libraries(&[])), (None, None));
    }

    #[test]
    fn pkg_config_knows_the_folders() {
        let text = LIBNBD.describe(Path::new("/usr"), Path::new("/usr/lib64"));
        assert!(text.starts_with("prefix=/usr\nlibdir=/usr/lib64\nincludedir=${prefix}/include\n"));
        assert!(text.contains("\nVersion: 1.24.4\n"));
    }
}
