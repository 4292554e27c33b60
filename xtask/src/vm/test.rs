//! `cargo xtask vm test`: builds the programs of `vmtests/` and runs them.

use std::process::{Command, ExitCode};

use super::debian;
use crate::tool::{self, Profile};

/// Runs the cases named, or all.
pub fn run(cases: &[String]) -> Result<ExitCode, String> {
    if let Err(why) = ready() {
        println!("SKIP: tests in a guest: {why}");
        return Ok(ExitCode::SUCCESS);
    }
    let us = std::env::current_exe().map_err(|why| format!("our own program: {why}"))?;
    let tests = tool::build("vmtests", Profile::Release)?;
    let status = Command::new(&tests)
        .args(cases)
        .env("BLKIT_XTASK", us)
        .env("BLKIT_PROGRAM", tool::build("blkit", Profile::Release)?)
        .status()
        .map_err(|why| format!("{}: {why}", tests.display()))?;
    Ok(ExitCode::from(
        u8::try_from(status.code().unwrap_or(1)).unwrap_or(1),
    ))
}

/// Whether guests can be run here.
fn ready() -> Result<(), String> {
    if !tool::is_there("qemu-system-x86_64") {
        return Err("qemu-system-x86_64 is not installed (qemu-system-x86)".into());
    }
    debian::kernel().map(drop)
}
