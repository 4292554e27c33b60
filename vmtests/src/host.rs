//! The host's side: servers, the guest's boot, its output, its wishes.

use std::{
    collections::BTreeSet,
    env,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{
    guests::{GUESTS, Guest},
    inside::WISH,
};

/// What the host's side works with.
pub struct Lab {
    /// A folder for sockets and disks; gone at the end.
    pub folder: PathBuf,
    /// The program under test.
    pub blkit: PathBuf,
}

/// What the host does for a guest while it runs.
pub trait Services {
    /// More options for `vm run`.
    fn options(&self) -> Vec<String> {
        Vec::new()
    }

    /// Does what a case asks for.
    fn wish(&mut self, words: &[&str]) -> Result<()> {
        bail!("nobody serves '{}'", words.join(" "))
    }

    /// Called after the guest's end: what can only be seen then.
    fn after(&mut self) -> Result<()> {
        Ok(())
    }
}

/// No services.
pub struct Nothing;

impl Services for Nothing {}

/// Runs the cases with one of these words in their names, or all. Whether all went well.
pub fn run(words: &[String]) -> Result<bool> {
    let folder = tempfile::Builder::new()
        .prefix("blkit-vmtests.")
        .tempdir()?;
    let lab = Lab {
        folder: folder.path().to_owned(),
        blkit: program("BLKIT_PROGRAM")?,
    };
    let xtask = program("BLKIT_XTASK")?;
    let (mut good, mut found) = (true, false);
    for guest in GUESTS {
        let names: Vec<&str> = guest.cases.iter().map(|case| case.name).collect();
        let wanted = |name: &&str| words.is_empty() || words.iter().any(|word| name.contains(word));
        let names: Vec<&str> = names.into_iter().filter(wanted).collect();
        if !names.is_empty() {
            found = true;
            println!("guest {}", guest.name);
            good &= run_guest(guest, &names, &lab, &xtask)
                .with_context(|| format!("guest {}", guest.name))?;
        }
    }
    if !found {
        bail!("no case is called so");
    }
    Ok(good)
}

fn program(variable: &str) -> Result<PathBuf> {
    let program = env::var_os(variable);
    let program =
        program.with_context(|| format!("{variable} is not set: run `cargo xtask vm test`"))?;
    Ok(program.into())
}

fn run_guest(guest: &Guest, names: &[&str], lab: &Lab, xtask: &Path) -> Result<bool> {
    let mut services = (guest.services)(lab)?;
    let us = env::current_exe()?;
    let mut command = Command::new(xtask);
    command
        .args(["vm", "run", "--stdin", "--timeout", "300"])
        .args(guest.options);
    command.args(services.options());
    command
        .arg("--tool")
        .arg(&lab.blkit)
        .arg("--")
        .arg(us)
        .arg("inside")
        .args(names);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let judged = follow(&mut child, services.as_mut());
    // A guest that nobody follows any more goes on until its time is up; it shall not be waited for.
    if judged.is_err() {
        let _ = child.kill();
    }
    let status = child.wait()?;
    let judged = judged?;
    let mut good = status.success();
    for name in names.iter().filter(|name| !judged.contains(**name)) {
        println!("test {name} ... FAILED\n    the guest ended before ({status})");
        good = false;
    }
    services.after().context("after the guest's end")?;
    Ok(good)
}

/// Shows what the guest prints and does what it asks for; the cases that came to an end.
fn follow(child: &mut Child, services: &mut dyn Services) -> Result<BTreeSet<String>> {
    let mut input = child.stdin.take().context("no pipe")?;
    let output = BufReader::new(child.stdout.take().context("no pipe")?);
    let mut judged = BTreeSet::new();
    for line in output.split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        if let Some(wish) = line.strip_prefix(WISH) {
            let words: Vec<&str> = wish.split_whitespace().collect();
            let answer = match services.wish(&words) {
                Ok(()) => "done".to_owned(),
                Err(why) => format!("error {why:#}"),
            };
            writeln!(input, "{}", answer.replace('\n', " "))?;
            continue;
        }
        println!("{}", line.trim_end());
        let mut words = line.split(' ');
        if let (Some("test"), Some(name), Some("...")) = (words.next(), words.next(), words.next())
        {
            judged.insert(name.to_owned());
        }
    }
    Ok(judged)
}
