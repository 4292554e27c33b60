//! The guest's side: runs cases, and says how they went.

use std::{
    io::{Write, stdin, stdout},
    panic::catch_unwind,
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::guests::GUESTS;

/// What a line to the host begins with.
pub const WISH: &str = "@host ";

/// Something to try.
pub struct Case {
    /// What it is called.
    pub name: &'static str,
    /// How it goes.
    pub run: fn() -> Result<()>,
}

/// Runs cases by name. Whether all went well.
pub fn run(names: &[String]) -> Result<bool> {
    let mut good = true;
    for name in names {
        let mut cases = GUESTS.iter().flat_map(|guest| guest.cases);
        let case = cases
            .find(|case| case.name == name)
            .context("no such case")?;
        let outcome = catch_unwind(case.run).unwrap_or_else(|_| bail!("it panicked"));
        match &outcome {
            Ok(()) => println!("test {name} ... ok"),
            Err(why) => println!("test {name} ... FAILED\n    {why:#}"),
        }
        good &= outcome.is_ok();
    }
    Ok(good)
}

/// Asks the host for something and waits until it is done.
pub fn ask_host(wish: &str) -> Result<()> {
    println!("{WISH}{wish}");
    stdout().flush()?;
    let mut answer = String::new();
    stdin().read_line(&mut answer)?;
    ensure!(answer.trim() == "done", "the host: {}", answer.trim());
    Ok(())
}

/// Waits for something, 30 seconds at most.
pub fn wait_for(what: &str, mut there: impl FnMut() -> bool) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(30);
    while !there() {
        ensure!(Instant::now() < end, "waited for {what}");
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Runs a program; its standard output.
pub fn output(words: &[&str]) -> Result<String> {
    let output = Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .output();
    let output = output.with_context(|| words[0].to_owned())?;
    let (said, told) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr),
    );
    ensure!(
        output.status.success(),
        "{}: {}: {said}{told}",
        words.join(" "),
        output.status
    );
    Ok(said)
}

/// A program that runs until it is dropped.
pub struct Running(Child);

impl Running {
    /// Starts it, and waits until `there` exists.
    pub fn start(words: &[&str], there: &str) -> Result<Running> {
        let child = Command::new(words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .spawn();
        let mut running = Running(child.with_context(|| words[0].to_owned())?);
        wait_for(there, || {
            Path::new(there).exists() || running.0.try_wait().is_ok_and(|ended| ended.is_some())
        })?;
        match running.0.try_wait()? {
            Some(status) => bail!("{} ended: {status}", words.join(" ")),
            None => Ok(running),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
