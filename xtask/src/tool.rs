//! What several chores need: the repository's root, cargo, and programs whose output is wanted.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the repository")
        .to_owned()
}

/// The packages of programs that chores run, always selected together: the features of what they
/// share depend on the selection, and a different one would be built again from the ground.
const MEASURED: &[&str] = &[
    "blkit-cli",
    "blkit-load",
    "blkit-gates",
    "blkit-fuzz-runner",
    "blkit-vmtests",
];

/// How to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Quick to build: for checks.
    Release,
    /// What packagers build: for times.
    Dist,
}

/// Builds one of the programs, with all its features, and returns where it is.
///
/// `BLKIT_PROGRAMS` may name a folder that has such programs already, as a packager's build does:
/// then nothing is built.
pub fn build(bin: &str, profile: Profile) -> Result<PathBuf, String> {
    if let Some(programs) = std::env::var_os("BLKIT_PROGRAMS") {
        let program = Path::new(&programs).join(bin);
        return match program.is_file() {
            true => Ok(program),
            false => Err(format!("BLKIT_PROGRAMS: there is no {}", program.display())),
        };
    }
    let name = match profile {
        Profile::Release => "release",
        Profile::Dist => "dist",
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--profile", name, "--bin", bin])
        .args(selection(bin, profile))
        .args(["--message-format", "json-render-diagnostics"])
        .current_dir(root())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo build --bin {bin} failed"));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    executable(&text, bin).ok_or_else(|| format!("cargo did not say where {bin} is"))
}

/// Which packages to build for a program, and with which features. What is measured is built without
/// the fuzz runner, whose features cost time on the data path.
fn selection(bin: &str, profile: Profile) -> Vec<&str> {
    let program = if bin == "blkit" { "blkit-cli" } else { bin };
    if !MEASURED.iter().any(|package| package.ends_with(program)) {
        return vec!["-p", program];
    }
    let packages = MEASURED.iter().filter(|package| {
        profile == Profile::Release || !["blkit-fuzz-runner", "blkit-vmtests"].contains(package)
    });
    let mut words: Vec<&str> = packages.flat_map(|package| ["-p", package]).collect();
    words.extend(["--features", "blkit-cli/tls"]);
    words
}

/// Finds a program in cargo's messages.
fn executable(messages: &str, bin: &str) -> Option<PathBuf> {
    messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let wanted = message["reason"] == "compiler-artifact" && message["target"]["name"] == bin;
        wanted
            .then(|| message["executable"].as_str().map(PathBuf::from))
            .flatten()
    })
}

/// Runs a program to its end and returns its standard output.
pub fn output(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(format!("{name}: {}: {}", output.status, why.trim()))
}

/// Whether a program can be started.
pub fn is_there(program: &str) -> bool {
    let mut command = Command::new(program);
    command
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.stdin(Stdio::null()).status().is_ok()
}

/// The middle of the values, or the mean of the two in the middle; 0 without any.
pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let n = values.len();
    match n {
        0 => 0.0,
        _ if n % 2 == 1 => values[n / 2],
        _ => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0]), 3.0);
        assert_eq!(median(&[9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), 3.0);
    }

    #[test]
    fn programs_are_found_in_messages() {
        let messages = "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"a\"},\
                        \"executable\":null}\nnot json\n\
                        {\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"b\"},\
                        \"executable\":\"/x/b\"}\n";
        assert_eq!(executable(messages, "b"), Some(PathBuf::from("/x/b")));
        assert_eq!(executable(messages, "a"), None);
    }

    #[test]
    fn a_failing_program_is_told() {
        assert!(output(Command::new("sh").args(["-c", "echo no >&2; exit 3"])).is_err());
        assert_eq!(
            output(Command::new("sh").args(["-c", "echo yes"])).unwrap(),
            "yes\n"
        );
    }
}
