//! `blkit shell`, or the program called as `nbdsh`: the Python shell of the module `blkit`.
//!
//! The shell is Python; this replaces the process by an interpreter with it. `BLKIT_PYTHON` names another one than
//! `python3`.

use std::{ffi::OsString, io, os::unix::process::CommandExt, process::Command, process::ExitCode};

use block::{Error, ErrorKind};

use crate::tools;

/// Starts the shell, or says what is missing. Modules of our own never come from the current directory, those of the
/// user's code do, as with any `python3 -c`.
const PROGRAM: &str = r#"
import os, sys
name, here = os.environ["BLKIT_SHELL_NAME"], sys.path[:1] == [""]
missing = lambda what, hint: sys.exit("%s: %s\n%s: hint: %s" % (name, what, name, hint))
if sys.version_info < (3, 11):
    missing("Python 3.11 or newer is needed, %s is %d.%d" % (sys.executable, *sys.version_info[:2]),
            "set BLKIT_PYTHON to a newer interpreter")
if here:
    del sys.path[0]
try:
    from blkit.shell import main
except ModuleNotFoundError as error:
    if error.name not in ("blkit", "blkit.shell", "blkit._native"):
        raise
    missing("the Python module blkit is not installed for " + sys.executable,
            "pip install blkit, or set BLKIT_PYTHON to an interpreter that has it")
if here:
    sys.path.insert(0, "")
main()
"#;

/// Becomes the shell; `name` is what it is called.
pub fn main(name: &str, words: Vec<OsString>) -> ExitCode {
    let python = std::env::var_os("BLKIT_PYTHON").unwrap_or_else(|| "python3".into());
    let failed = Command::new(&python)
        .args(["-c", PROGRAM])
        .args(words)
        .env("BLKIT_SHELL_NAME", name)
        .exec();
    let hint = "install Python 3.11 or newer and its module blkit (pip install blkit), or set \
                BLKIT_PYTHON to an interpreter that has it";
    let error = match failed.kind() {
        io::ErrorKind::NotFound => {
            let what = format!("there is no '{}'", python.display());
            Error::new(ErrorKind::NotFound, what)
        }
        _ => Error::io(format!("cannot run '{}'", python.display()), failed),
    };
    tools::fail(name, &error.hint(hint))
}
