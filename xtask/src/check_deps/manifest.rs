//! Who depends on whom: the rules on packages, over what `cargo metadata` says.
//!
//! Cargo's own reading of the manifests, because inheritance from the workspace, renames,
//! targets and features make a dependency hard to see in the text.

use super::rules::{Check, Rule, is_in};
use super::{Report, SourceFile};
use serde::Deserialize;
use std::path::Path;

/// A package of the workspace.
#[derive(Debug)]
pub struct Package {
    /// Its name in the registry.
    pub name: String,
    /// What the rules call it: the path of its folder without `crates/`.
    pub folder: String,
    /// Its manifest.
    pub manifest: SourceFile,
    /// What it depends on.
    pub dependencies: Vec<Dependency>,
}

/// A dependency of a package.
#[derive(Debug, Deserialize)]
pub struct Dependency {
    /// The package's name in the registry.
    pub name: String,
    /// `dev`, `build`, or none for a normal one.
    pub kind: Option<String>,
    /// The name in the code, if it is another.
    pub rename: Option<String>,
    /// Its folder, if it is not from a registry.
    pub path: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Described>,
    workspace_root: String,
}

#[derive(Deserialize)]
struct Described {
    name: String,
    manifest_path: String,
    dependencies: Vec<Dependency>,
}

/// Reads the output of `cargo metadata`; `read` gives the text of a manifest.
pub fn parse(
    json: &[u8],
    read: &dyn Fn(&str) -> Result<String, String>,
) -> Result<Vec<Package>, String> {
    let metadata: Metadata =
        serde_json::from_slice(json).map_err(|error| format!("cargo metadata: {error}"))?;
    let root = Path::new(&metadata.workspace_root);
    let package = |described: Described| {
        let path = Path::new(&described.manifest_path);
        let below = path.strip_prefix(root).map_err(|error| error.to_string())?;
        let folder = below.parent().unwrap_or(Path::new("")).to_string_lossy();
        let folder = folder.strip_prefix("crates/").unwrap_or(&folder).to_owned();
        let text = read(&described.manifest_path)?;
        Ok(Package {
            name: described.name,
            folder,
            manifest: SourceFile {
                path: below.to_string_lossy().into_owned(),
                text,
            },
            dependencies: described.dependencies,
        })
    };
    metadata.packages.into_iter().map(package).collect()
}

/// Judges `packages`.
pub fn check(packages: &[Package], rules: &[Rule], report: &mut Report) {
    for package in packages {
        let mut known = false;
        for rule in rules {
            match &rule.check {
                Check::Imports { of, may } if is_in(of, &package.folder) => {
                    known = true;
                    imports(
                        package,
                        packages,
                        rule,
                        &|folder| may.contains(folder),
                        report,
                    );
                }
                Check::Packages { names, scope } if !scope.contains(&package.folder) => {
                    for dependency in shipped(package).filter(|other| is_in(names, &other.name)) {
                        fail(package, dependency, rule, &dependency.name, report);
                    }
                }
                _ => {}
            }
        }
        for rule in rules
            .iter()
            .filter(|rule| !known && matches!(rule.check, Check::Known))
        {
            let what = format!("no rule says what {} may import", package.folder);
            report.fail(rule, &package.manifest.path, 1, what);
        }
    }
}

/// Judges the dependencies of `package` on packages of ours.
fn imports(
    package: &Package,
    packages: &[Package],
    rule: &Rule,
    may: &dyn Fn(&str) -> bool,
    report: &mut Report,
) {
    for dependency in shipped(package) {
        let ours = packages.iter().find(|other| other.name == dependency.name);
        match ours {
            Some(other) if !may(&other.folder) => {
                fail(package, dependency, rule, &other.folder, report);
            }
            // Ours, but outside the workspace: no rule would look at it.
            None if dependency.path.is_some() => {
                fail(package, dependency, rule, &dependency.name, report);
            }
            _ => {}
        }
    }
}

/// The dependencies that become part of the product.
fn shipped(package: &Package) -> impl Iterator<Item = &Dependency> {
    package
        .dependencies
        .iter()
        .filter(|dependency| dependency.kind.as_deref() != Some("dev"))
}

fn fail(package: &Package, dependency: &Dependency, rule: &Rule, shown: &str, report: &mut Report) {
    let key = dependency.rename.as_deref().unwrap_or(&dependency.name);
    let line = line_of(&package.manifest.text, key, dependency.kind.as_deref());
    let what = format!("{} depends on {shown}", package.folder);
    report.fail(rule, &package.manifest.path, line, what);
}

/// The line of a dependency in the text of a manifest; 1 if it is written in a way we do not see.
fn line_of(text: &str, key: &str, kind: Option<&str>) -> usize {
    let wanted = if kind == Some("build") {
        "build-dependencies"
    } else {
        "dependencies"
    };
    let mut inside = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[') {
            let header = header.trim_end_matches(']');
            // Also [target.'cfg(...)'.dependencies] and [dependencies.name].
            let table = |header: &str| header.rsplit('.').next() == Some(wanted);
            inside = table(header);
            if header
                .rsplit_once('.')
                .is_some_and(|(before, name)| name == key && table(before))
            {
                return index + 1;
            }
        } else if inside && line.split(['.', '=', ' ']).next().map(unquoted) == Some(key) {
            return index + 1;
        }
    }
    1
}

fn unquoted(key: &str) -> &str {
    key.trim_matches('"')
}
