//! The same programs, given to the real `nbdkit data`.

use std::process::Command;

use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};

use super::{TABLE, hex, model};

/// What nbdkit serves for a program; `Err` with what it says instead.
fn nbdkit(program: &str, variables: &[(String, String)]) -> Result<Vec<u8>, String> {
    let mut last = String::new();
    // A client that comes too early finds no socket; it happens on a busy machine.
    for _ in 0..5 {
        let mut command = Command::new("nbdkit");
        command
            .args(["-U", "-", "data"])
            .arg(format!("data={program}"));
        for (name, value) in variables {
            command.arg(format!("{name}={value}"));
        }
        command.args(["--run", "nbdcopy \"$uri\" -"]);
        let output = command.output().map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        last = String::from_utf8_lossy(&output.stderr).into_owned();
        if !last.contains("nbd_connect") {
            break;
        }
    }
    Err(last)
}

/// Whether there is an nbdkit to compare with, and a client for it.
fn is_there() -> bool {
    match nbdkit("1 (2 3)*2 le16:4", &[]) {
        Ok(bytes) if bytes == [1, 2, 3, 2, 3, 4, 0] => true,
        other => {
            eprintln!("SKIP: no nbdkit data and nbdcopy to compare with: {other:?}");
            false
        }
    }
}

#[test]
fn nbdkit_serves_the_same_bytes() {
    if !is_there() {
        return;
    }
    for (program, wanted) in TABLE {
        match nbdkit(program, &[]) {
            Ok(bytes) => assert_eq!(hex(&bytes), *wanted, "{program}"),
            Err(why) => eprintln!("SKIP: nbdkit refuses {program}: {why}"),
        }
    }
}

#[test]
fn nbdkit_serves_the_same_bytes_of_random_programs() {
    if !is_there() {
        return;
    }
    let (mut runner, strategy) = (TestRunner::deterministic(), model::items());
    let mut compared = 0;
    while compared < 15 {
        let items = strategy
            .new_tree(&mut runner)
            .expect("it generates")
            .current();
        let mut model = model::Model {
            old: true,
            ..Default::default()
        };
        let Some((text, wanted)) = model.program(&items) else {
            continue;
        };
        // What is nearly nothing proves nothing.
        if wanted.len() < 20 {
            continue;
        }
        let served = nbdkit(&text, &model.variables);
        assert!(
            served.as_deref() == Ok(&wanted[..]),
            "{text}\n{:?}\n{served:?}",
            model.variables
        );
        compared += 1;
    }
}
