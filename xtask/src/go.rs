//! `cargo xtask go [OPTION...]`: formatting, vet and tests of the Go binding.
//!
//! The C library is built first (`cargo xtask capi`, whose options these are), unless `BLKIT_CAPI`
//! names a folder that has it already. Nothing is fetched: the binding needs Go's own library alone.
//!
//! What Go's tests tell is told as cargo tells it: a line for each, and the output of those that
//! failed.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use serde_json::Value;

use crate::{capi, tool};

/// Checks and tests the binding.
pub fn run(words: &[String]) -> Result<ExitCode, String> {
    for program in ["go", "gofmt", "cc", "pkg-config"] {
        // Not all of them have the option that is passed, but all of them start.
        if !tool::is_there(program) {
            println!("SKIP: {program} is not installed");
            return Ok(ExitCode::SUCCESS);
        }
    }
    let setting = Setting::of(words)?;
    let unformatted = tool::output(setting.command("gofmt").args(["-l", "."]))?;
    if !unformatted.is_empty() {
        return Err(format!("gofmt would change:\n{}", unformatted.trim_end()));
    }
    let vet = setting.command("go").args(["vet", "./..."]).status();
    if !vet.map_err(|why| format!("go: {why}"))?.success() {
        return Err("go vet found something".to_owned());
    }
    // The library is not what Go's cache knows of: -count=1 has the tests run in any case.
    let mut child = setting
        .command("go")
        .args(["test", "-json", "-count=1", "-timeout=10m", "./..."])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|why| format!("go: {why}"))?;
    let mut report = Report::default();
    for line in BufReader::new(child.stdout.take().ok_or("go has no output")?).lines() {
        let line = line.map_err(|why| format!("go: {why}"))?;
        for told in report.take(&line) {
            println!("{told}");
        }
    }
    let ended = child.wait().map_err(|why| format!("go: {why}"))?;
    println!("{} tests passed", report.passed);
    Ok(match ended.success() && report.passed > 0 {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// What Go's programs run with.
struct Setting {
    environment: Vec<(&'static str, OsString)>,
}

impl Setting {
    fn of(words: &[String]) -> Result<Setting, String> {
        let mut environment = Vec::new();
        let folder = match std::env::var_os("BLKIT_CAPI") {
            Some(folder) if words.is_empty() => PathBuf::from(folder),
            Some(_) => return Err("BLKIT_CAPI has the library: there is nothing to build".into()),
            None => {
                let made = capi::make(&capi::LIBNBD, words)?;
                let linked = format!("{} {}", made.archive.display(), made.libraries.join(" "));
                environment.push(("LIBNBD_STATIC", linked.into()));
                let program = made.folder.with_file_name("blkit");
                if program.is_file() && std::env::var_os("BLKIT").is_none() {
                    environment.push(("BLKIT", program.into()));
                }
                made.folder
            }
        };
        environment.extend([
            ("GOFLAGS", "-mod=mod".into()),
            ("GOPROXY", "off".into()),
            ("CGO_ENABLED", "1".into()),
            ("CGO_CFLAGS", header_identity(&folder)?.into()),
            (
                "LD_LIBRARY_PATH",
                first_in("LD_LIBRARY_PATH", folder.clone())?,
            ),
            (
                "PKG_CONFIG_PATH",
                first_in("PKG_CONFIG_PATH", folder.join("pkgconfig"))?,
            ),
        ]);
        Ok(Setting { environment })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .envs(self.environment.iter().cloned())
            .current_dir(tool::root().join("bindings/go"));
        command
    }
}

/// A flag of the compiler that changes with the header, which Go's cache does not know of.
fn header_identity(folder: &Path) -> Result<String, String> {
    let path = folder.join("include/libnbd.h");
    let text = fs::read(&path).map_err(|why| format!("{}: {why}", path.display()))?;
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    Ok(format!("-O2 -g -DLIBNBD_H_IDENTITY={:#x}", hasher.finish()))
}

/// A list of folders of the environment, with this one before the others.
fn first_in(variable: &str, folder: PathBuf) -> Result<OsString, String> {
    let others = std::env::var_os(variable).unwrap_or_default();
    let others = std::env::split_paths(&others).filter(|path| !path.as_os_str().is_empty());
    std::env::join_paths(std::iter::once(folder).chain(others)).map_err(|why| why.to_string())
}

/// What `go test -json` has told so far.
#[derive(Default)]
struct Report {
    passed: usize,
    /// By package and test: what it printed.
    output: BTreeMap<(String, String), String>,
}

impl Report {
    /// Takes a line; what is to be printed for it.
    fn take(&mut self, line: &str) -> Vec<String> {
        let Ok(event) = serde_json::from_str::<Value>(line) else {
            // What the compiler says, for one.
            return vec![line.to_owned()];
        };
        let field = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        let (package, test) = (field("Package"), field("Test"));
        let key = (package.clone(), test.clone());
        if field("Action") == "output" {
            *self.output.entry(key).or_default() += &field("Output");
            return Vec::new();
        }
        let name = match package.rsplit_once('/') {
            Some((_, last)) => format!("go::{last}::{test}"),
            None => format!("go::{package}::{test}"),
        };
        let printed = match field("Action").as_str() {
            "pass" | "skip" | "fail" => self.output.remove(&key).unwrap_or_default(),
            _ => return Vec::new(),
        };
        // A part of a test is counted with it.
        let whole = !test.is_empty() && !test.contains('/');
        match field("Action").as_str() {
            "pass" if whole => {
                self.passed += 1;
                vec![format!("test {name} ... ok")]
            }
            "skip" if whole => vec![format!("test {name} ... ignored, {}", reason(&printed))],
            "fail" if whole => vec![printed, format!("test {name} ... FAILED")],
            "fail" => vec![printed],
            _ => Vec::new(),
        }
    }
}

/// Why a test was skipped: its last words, behind the place in the source.
fn reason(printed: &str) -> &str {
    let said = printed
        .lines()
        .rfind(|line| line.starts_with("    ") && line.contains(": "));
    said.and_then(|line| line.split_once(": "))
        .map_or("without a word", |(_, why)| why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_as_cargo_tells() {
        let mut report = Report::default();
        let mut take = |line: &str| report.take(line);
        let none = Vec::<String>::new();
        assert_eq!(take("# libnbd: error"), ["# libnbd: error"]);
        assert_eq!(
            take(r#"{"Action":"run","Package":"a/b","Test":"TestX"}"#),
            none
        );
        assert_eq!(
            take(r#"{"Action":"pass","Package":"a/b","Test":"TestX"}"#),
            ["test go::b::TestX ... ok"]
        );
        assert_eq!(
            take(r#"{"Action":"pass","Package":"a/b","Test":"TestX/part"}"#),
            none
        );
        let said =
            r#"{"Action":"output","Package":"a","Test":"T","Output":"    x.go:1: no nbdkit\n"}"#;
        assert_eq!(take(said), none);
        assert_eq!(
            take(r#"{"Action":"skip","Package":"a","Test":"T"}"#),
            ["test go::a::T ... ignored, no nbdkit"]
        );
        assert_eq!(take(said), none);
        assert_eq!(
            take(r#"{"Action":"fail","Package":"a","Test":"T"}"#),
            ["    x.go:1: no nbdkit\n", "test go::a::T ... FAILED"]
        );
        assert_eq!(take(r#"{"Action":"fail","Package":"a"}"#), [""]);
        assert_eq!(report.passed, 1);
    }
}
