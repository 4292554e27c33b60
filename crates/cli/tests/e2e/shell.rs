//! `blkit shell` and `nbdsh` up to the interpreter, which is not ours. What the shell does is tested where it is
//! written, in `bindings/python/tests`.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use crate::{
    bench::{Place, have, output},
    info::called,
};

/// An interpreter of our own making.
fn interpreter(place: &Place, script: &str) -> PathBuf {
    let path = place.path("python");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("writes");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("may run");
    path
}

#[test]
fn the_interpreter_gets_the_words_as_they_are() {
    let place = Place::new();
    let script = "shift 2; echo \"$BLKIT_SHELL_NAME\"; printf '<%s>' \"$@\"; exit 7";
    let python = interpreter(&place, script);
    let words = ["-c", "print(1)\nprint('a b')", "--help", "-u", ""];
    let shown = "<-c><print(1)\nprint('a b')><--help><-u><>";
    for tool in ["nbdsh", "blkit shell", "blkit nbdsh"] {
        let mut command = match tool.strip_prefix("blkit ") {
            Some(name) => place.blkit(&[name]),
            None => called(&place, tool),
        };
        let told = output(command.args(words).env("BLKIT_PYTHON", &python));
        assert_eq!(told.status.code(), Some(7), "{told:?}");
        let text = String::from_utf8_lossy(&told.stdout);
        assert_eq!(text, format!("{tool}\n{shown}"));
    }
    fs::remove_file(python).expect("removes");
}

#[test]
fn what_is_missing_is_told() {
    let place = Place::new();
    let failed = |python: &str| {
        let mut command = called(&place, "nbdsh");
        let told = output(command.args(["-c", "1"]).env("BLKIT_PYTHON", python));
        assert_eq!(told.status.code(), Some(1), "{told:?}");
        assert!(told.stdout.is_empty(), "{told:?}");
        String::from_utf8_lossy(&told.stderr).into_owned()
    };
    let text = failed("/no/such/python");
    assert!(
        text.starts_with("nbdsh: there is no '/no/such/python'\nnbdsh: hint: install Python 3.11"),
        "{text}"
    );
    let file = place.path("plain");
    fs::write(&file, "no program").expect("writes");
    let text = failed(&file.to_string_lossy());
    assert!(text.starts_with("nbdsh: cannot run '"), "{text}");
    assert!(text.contains("Permission denied"), "{text}");
    fs::remove_file(file).expect("removes");
    if have(&["python3"]) {
        // Isolated: without any installed module. A module of this name in the current directory does not count.
        let python = interpreter(&place, "exec python3 -S \"$@\"");
        fs::create_dir(place.path("blkit")).expect("a folder");
        fs::write(place.path("blkit/shell.py"), "print('wrong')").expect("writes");
        let text = failed(&python.to_string_lossy());
        assert!(
            text.starts_with("nbdsh: the Python module blkit is not installed for /"),
            "{text}"
        );
        assert!(text.contains("\nnbdsh: hint: pip install blkit"), "{text}");
        fs::remove_dir_all(place.path("blkit")).expect("removes");
        fs::remove_file(python).expect("removes");
    }
}
