//! `cargo xtask capi [OPTION...]`: the C library, with the symbol versions of libnbd.
//!
//! A `cdylib` loses version nodes: rustc passes the linker a script of its own. So this builds a
//! static library and links it with `cc`. What is made lies in `target/PROFILE/capi`:
//! `libnbd.so.0`, `libnbd.so`, `include/libnbd.h` and `pkgconfig/libnbd.pc`, which can be used from
//! there or installed. The last line of output is that folder.
//!
//! `CC`, `LDFLAGS` and `DESTDIR` are heeded as packagers expect. Linking happens only if something
//! changed, and files are replaced in one step: several of these may run at a time.

use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use serde_json::Value;

use crate::tool;

/// The version of libnbd whose interface this is.
const VERSION: &str = "1.24.4";

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
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
    println!("{}", make(words)?.folder.display());
    Ok(ExitCode::SUCCESS)
}

/// The same for another chore.
pub fn make(words: &[String]) -> Result<Made, String> {
    let wanted = parse(words)?;
    let built = build(&wanted)?;
    let folder = built
        .archive
        .parent()
        .ok_or("the archive lies nowhere")?
        .join("capi");
    link(&built, &folder)?;
    let header = crate_folder().join("include/libnbd.h");
    let include = folder.join("include");
    fs::create_dir_all(&include).map_err(|why| told(&include, &why))?;
    put(&include.join("libnbd.h"), &read(&header)?)?;
    let pkgconfig = folder.join("pkgconfig");
    fs::create_dir_all(&pkgconfig).map_err(|why| told(&pkgconfig, &why))?;
    let describes = describe(&folder, &folder);
    put(&pkgconfig.join("libnbd.pc"), describes.as_bytes())?;
    if let Some(prefix) = &wanted.prefix {
        let libdir = wanted.libdir.clone().unwrap_or_else(|| prefix.join("lib"));
        let root = std::env::var_os("DESTDIR").map(PathBuf::from);
        install(&folder, prefix, &libdir, root.as_deref())?;
    }
    Ok(Made {
        folder,
        archive: built.archive,
        libraries: built.libraries,
    })
}

fn parse(words: &[String]) -> Result<Wanted, String> {
    let mut wanted = Wanted {
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
            _ => return Err(format!("unexpected argument '{word}'\n{USAGE}")),
        }
    }
    if wanted.libdir.is_some() && wanted.prefix.is_none() {
        return Err("--libdir says where --install installs to".to_owned());
    }
    Ok(wanted)
}

const USAGE: &str = "options: [--release | --profile NAME] [--no-tls] \
                     [--install PREFIX [--libdir FOLDER]]";

/// What is installed is written into libnbd.pc: a relative path would mean another place there.
fn absolute(path: String) -> Result<PathBuf, String> {
    match Path::new(&path).is_absolute() {
        true => Ok(path.into()),
        false => Err(format!("{path} is not an absolute path")),
    }
}

/// Builds the static library.
fn build(wanted: &Wanted) -> Result<Built, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["rustc", "-p", "blkit-capi", "--lib"]);
    command.args(["--crate-type", "staticlib", "--profile", &wanted.profile]);
    if wanted.tls {
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
        archive: archive(&messages).ok_or("cargo did not say where the archive is")?,
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
fn archive(messages: &[Value]) -> Option<PathBuf> {
    messages
        .iter()
        .filter(|message| message["reason"] == "compiler-artifact")
        .filter(|message| message["target"]["name"] == "blkit_capi")
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
fn link(built: &Built, folder: &Path) -> Result<(), String> {
    let library = folder.join("libnbd.so.0");
    let linked = folder.join(".linked");
    let script = crate_folder().join("libnbd.map");
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
    if library.exists() && fs::read_to_string(&linked).is_ok_and(|was| was == state) {
        return Ok(());
    }
    fs::create_dir_all(folder).map_err(|why| told(folder, &why))?;
    let new = folder.join(format!("libnbd.so.0.{}", std::process::id()));
    let output = Command::new(&cc)
        .arg("-shared")
        .arg("-o")
        .arg(&new)
        .arg("-Wl,--whole-archive")
        .arg(&built.archive)
        .arg("-Wl,--no-whole-archive")
        .arg(format!("-Wl,--version-script={}", script.display()))
        .args(["-Wl,-soname,libnbd.so.0", "-Wl,--gc-sections"])
        .args(["-Wl,-z,relro,-z,now,-z,defs", "-Wl,--as-needed"])
        .args(&built.libraries)
        .args(flags.split_whitespace())
        .output()
        .map_err(|error| format!("{cc}: {error}"))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{cc}: {}\n{}", output.status, why.trim()));
    }
    fs::rename(&new, &library).map_err(|why| told(&library, &why))?;
    alias(folder)?;
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

/// The name that `-lnbd` looks for.
fn alias(folder: &Path) -> Result<(), String> {
    let name = folder.join("libnbd.so");
    let new = folder.join(format!("libnbd.so.{}", std::process::id()));
    symlink("libnbd.so.0", &new)
        .and_then(|()| fs::rename(&new, &name))
        .map_err(|why| told(&name, &why))
}

/// The text of libnbd.pc.
fn describe(prefix: &Path, libdir: &Path) -> String {
    format!(
        "prefix={}\nlibdir={}\nincludedir=${{prefix}}/include\n\n\
         Name: libnbd\n\
         Description: NBD client library, of blkit\n\
         Version: {VERSION}\n\
         Cflags: -I${{includedir}}\n\
         Libs: -L${{libdir}} -lnbd\n",
        prefix.display(),
        libdir.display()
    )
}

/// Copies what was built to where programs look for it.
fn install(folder: &Path, prefix: &Path, libdir: &Path, root: Option<&Path>) -> Result<(), String> {
    let below = |path: &Path| match root {
        Some(root) => root.join(path.strip_prefix("/").unwrap_or(path)),
        None => path.to_owned(),
    };
    let (include, lib) = (below(&prefix.join("include")), below(libdir));
    let pkgconfig = lib.join("pkgconfig");
    for folder in [&include, &pkgconfig] {
        fs::create_dir_all(folder).map_err(|why| told(folder, &why))?;
    }
    put(
        &include.join("libnbd.h"),
        &read(&folder.join("include/libnbd.h"))?,
    )?;
    put(
        &lib.join("libnbd.so.0"),
        &read(&folder.join("libnbd.so.0"))?,
    )?;
    alias(&lib)?;
    let describes = describe(prefix, libdir);
    put(&pkgconfig.join("libnbd.pc"), describes.as_bytes())
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

fn crate_folder() -> PathBuf {
    tool::root().join("crates/capi")
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
            "--release --no-tls --install /usr --libdir /usr/lib64",
        ));
        let expected = Wanted {
            profile: "release".to_owned(),
            tls: false,
            prefix: Some("/usr".into()),
            libdir: Some("/usr/lib64".into()),
        };
        assert_eq!(wanted, Ok(expected));
        for wrong in [
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
        assert_eq!(archive(&messages), Some("/x/libblkit_capi.a".into()));
        assert_eq!(libraries(&messages), Some(words("-lgcc_s -lc")));
        assert_eq!(
            complaints(&messages).collect::<Vec<_>>(),
            ["warning: unused\n"]
        );
        assert_eq!((archive(&[]), libraries(&[])), (None, None));
    }

    #[test]
    fn pkg_config_knows_the_folders() {
        let text = describe(Path::new("/usr"), Path::new("/usr/lib64"));
        assert!(text.starts_with("prefix=/usr\nlibdir=/usr/lib64\nincludedir=${prefix}/include\n"));
        assert!(text.contains("\nVersion: 1.24.4\n"));
    }
}
