//! `cargo xtask check-deps`: the architecture as a test.
//!
//! Arrows between crates, islands of unsafe code and limits of length are easy to state and
//! easy to lose, one small exception at a time. [`rules`] is the single list of them, each with
//! its reason; [`manifest`] judges who depends on whom, [`source`] what the code says. Both work
//! on text in memory; only this module reads files and runs cargo.
//!
//! Contract: prints each violation as `path:line: what (rule)` and then the broken rules'
//! reasons; exit code 1 if there is any. A file that cannot be read or parsed is a violation or
//! an error, never skipped.

mod manifest;
mod rules;
mod source;
#[cfg(test)]
mod tests;

use manifest::Package;
use rules::{RULES, Rule};
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Something that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// The file, from the root of the repository.
    pub path: String,
    /// The line, from 1.
    pub line: usize,
    /// What is there.
    pub what: String,
    /// The rule's name.
    pub rule: &'static str,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: {} ({})",
            self.path, self.line, self.what, self.rule
        )
    }
}

/// What was found: violations, and notes that do not fail.
#[derive(Debug, Default)]
pub struct Report {
    /// What breaks a rule.
    pub violations: Vec<Violation>,
    /// What comes near to breaking one.
    pub notes: Vec<Violation>,
}

/// A file of the repository.
#[derive(Debug)]
pub struct SourceFile {
    /// Its path, from the root of the repository, with `/`.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// Runs the checks on the repository.
pub fn run(words: &[String]) -> Result<ExitCode, String> {
    if let Some(word) = words.first() {
        return Err(format!("unexpected argument '{word}'"));
    }
    let root = root()?;
    let packages = packages(&root)?;
    let files = files(&root)?;
    let report = check(&packages, &files);
    for note in &report.notes {
        println!("note: {note}");
    }
    for violation in &report.violations {
        println!("{violation}");
    }
    let broken: BTreeSet<&str> = report.violations.iter().map(|found| found.rule).collect();
    for rule in RULES.iter().filter(|rule| broken.contains(rule.name)) {
        println!("{}: {}", rule.name, rule.why);
    }
    println!(
        "{} packages, {} files, {} rules: {} violations",
        packages.len(),
        files.len(),
        RULES.len(),
        report.violations.len()
    );
    Ok(if report.violations.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Judges packages and files by all rules.
pub fn check(packages: &[Package], files: &[SourceFile]) -> Report {
    let mut report = Report::default();
    manifest::check(packages, RULES, &mut report);
    source::check(files, RULES, &mut report);
    report.violations.sort();
    report.violations.dedup();
    report.notes.sort();
    report
}

impl Report {
    /// Adds a violation of `rule`.
    fn fail(&mut self, rule: &Rule, path: &str, line: usize, what: String) {
        self.violations.push(Violation {
            path: path.to_owned(),
            line,
            what,
            rule: rule.name,
        });
    }

    /// Adds a note about `rule`.
    fn note(&mut self, rule: &Rule, path: &str, line: usize, what: String) {
        self.notes.push(Violation {
            path: path.to_owned(),
            line,
            what,
            rule: rule.name,
        });
    }
}

/// The root of the repository: the folder above this package.
fn root() -> Result<PathBuf, String> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_owned)
        .ok_or_else(|| "xtask has no parent folder".to_owned())
}

/// The packages of the workspace, as cargo sees them.
fn packages(root: &Path) -> Result<Vec<Package>, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(root)
        .output()
        .map_err(|error| format!("cargo metadata: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "cargo metadata: {}",
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    manifest::parse(&output.stdout, &|path| read(Path::new(path)))
}

/// All Rust files of the repository.
fn files(root: &Path) -> Result<Vec<SourceFile>, String> {
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let fail = |error| format!("{}: {error}", folder.display());
        for entry in std::fs::read_dir(&folder).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            let kind = entry.file_type().map_err(fail)?;
            if kind.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if kind.is_file() && name.ends_with(".rs") {
                let below = path.strip_prefix(root).map_err(|error| error.to_string())?;
                let text = read(&path)?;
                files.push(SourceFile {
                    path: below.to_string_lossy().into_owned(),
                    text,
                });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}
