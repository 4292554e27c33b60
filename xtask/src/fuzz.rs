//! `cargo xtask fuzz [OPTION...]`: the fuzz targets over their corpus and seeded mutations of it, on
//! the stable toolchain.
//!
//! A front for `fuzz/runner`, which has the options (`--seconds 20`, `--seed N`, `--target NAME`,
//! `--write-corpus`): this program builds when the parts do not, so it cannot contain them.

use std::process::{Command, ExitCode};

use crate::tool;

/// Builds the runner and runs it.
pub fn run(words: &[String]) -> Result<ExitCode, String> {
    let program = tool::build("blkit-fuzz-runner", tool::Profile::Release)?;
    let status = Command::new(&program)
        .args(["--dir".into(), tool::root().join("fuzz")])
        .args(words)
        .status()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
