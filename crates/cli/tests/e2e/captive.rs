//! `--run`: a command and its server.

use std::{
    fs,
    io::{Read, Write},
    process::Stdio,
};

use crate::bench::{Place, eventually, have, output, run, told, wait};

fn status(place: &Place, words: &[&str]) -> Option<i32> {
    output(place.blkit(&["serve"]).args(words)).status.code()
}

#[test]
fn the_status_is_the_command_s() {
    let place = Place::new();
    assert_eq!(status(&place, &["null", "--run", "exit 0"]), Some(0));
    assert_eq!(status(&place, &["null", "--run", "exit 7"]), Some(7));
    assert_eq!(status(&place, &["null", "--run", "kill -9 $$"]), Some(137));
    assert_eq!(
        status(&place, &["null", "--run", "no-such-program-here"]),
        Some(127)
    );
    assert_eq!(place.names(), [""; 0]);
}

#[test]
fn the_variables_say_where_the_server_is() {
    let place = Place::new();
    let show = r#"printf '%s\n' "$uri" "$nbd" "$port" "$unixsocket"; test -S "$unixsocket""#;
    let output = run(&mut place.blkit(&["serve", "null", "--run", show]));
    let lines: Vec<&str> = output.lines().collect();
    let [uri, nbd, port, socket] = lines[..] else {
        panic!("{output}");
    };
    assert_eq!(uri, format!("nbd+unix:///?socket={socket}"));
    assert_eq!(nbd, uri);
    assert_eq!(port, "");
    assert!(
        socket.starts_with(&place.path("").display().to_string()),
        "{socket}"
    );
    assert_eq!(place.names(), [""; 0], "the private socket is gone");

    let show = r#"printf '%s\n' "$uri" "$port" "[$unixsocket]""#;
    let output = run(&mut place.blkit(&["serve", "-p", "0", "null", "--run", show]));
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[0], format!("nbd://localhost:{}", lines[1]));
    assert_eq!(lines[2], "[]");
    // Shell variables, not exported ones.
    let exported = run(&mut place.blkit(&["serve", "null", "--run", "env"]));
    assert!(
        !exported
            .lines()
            .any(|line| line.starts_with("uri=") || line.starts_with("nbd="))
    );
}

#[test]
fn standard_streams_are_the_command_s() {
    let place = Place::new();
    let mut child = place
        .blkit(&["serve", "null", "--run", "cat; echo done >&2"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(b"through\n").expect("writes");
    drop(stdin);
    let output = child.wait_with_output().expect("ends");
    assert!(output.status.success(), "{}", told(&output));
    assert_eq!(output.stdout, b"through\n");
    assert_eq!(output.stderr, b"done\n");
}

#[test]
fn the_command_begins_with_clean_signals_and_descriptors() {
    let place = Place::new();
    // Read by cat: bash would show its own.
    let show = "cat /proc/self/status; ls /proc/self/fd";
    let output = run(&mut place.blkit(&["serve", "null", "--run", show]));
    let mask = |name: &str| {
        let line = output
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .expect("a mask");
        u64::from_str_radix(line.trim(), 16).expect("hexadecimal")
    };
    // SIGHUP 1, SIGINT 2, SIGQUIT 3, SIGPIPE 13, SIGTERM 15, SIGCHLD 17.
    let ours = [1, 2, 3, 13, 15, 17]
        .iter()
        .fold(0u64, |set, signal| set | 1 << (signal - 1));
    assert_eq!(mask("SigBlk:") & ours, 0);
    assert_eq!(mask("SigIgn:") & ours, 0);
    // What the test itself was given may be there too.
    let numbers =
        |text: &str| -> Vec<u32> { text.lines().filter_map(|line| line.parse().ok()).collect() };
    let plain = run(place.command("sh").args(["-c", show]));
    assert_eq!(numbers(&output), numbers(&plain));
}

#[test]
fn a_signal_reaches_the_command() {
    let place = Place::new();
    let wait_for_it = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child = place
        .blkit(&["serve", "null", "--run", wait_for_it])
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut line = [0; 6];
    let stdout = child.stdout.as_mut().expect("a pipe");
    stdout.read_exact(&mut line).expect("reads");
    assert_eq!(&line, b"ready\n");
    reactor::process::send_signal(child.id() as i32, reactor::process::TERMINATE).expect("sends");
    assert_eq!(wait(&mut child).code(), Some(5));
    assert_eq!(place.names(), [""; 0]);
}

#[test]
fn a_dead_server_is_told_by_the_status() {
    let place = Place::new();
    let kill = "kill -9 $(cat pid)";
    let words = ["serve", "--pid-file", "pid", "null", "--run", kill];
    let output = output(&mut place.blkit(&words));
    assert_eq!(output.status.code(), Some(137), "{}", told(&output));
    // The pid file is the dead one's; the private directory is not left.
    assert_eq!(place.names(), ["pid"]);
}

#[test]
fn the_server_does_not_outlive_a_killed_parent() {
    let place = Place::new();
    let script = "echo $$ > command; echo ready; exec sleep 1000";
    let words = ["serve", "--pid-file", "pid", "null", "--run", script];
    let mut child = place
        .blkit(&words)
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut line = [0; 6];
    let stdout = child.stdout.as_mut().expect("a pipe");
    stdout.read_exact(&mut line).expect("reads");
    let number = |name: &str| -> i32 {
        let text = fs::read_to_string(place.path(name)).expect("a file with a number");
        text.trim().parse().expect("a number")
    };
    let command = number("command");
    assert_ne!(
        number("pid"),
        child.id() as i32,
        "the command has the original process"
    );
    child.kill().expect("kills");
    child.wait().expect("ends");
    eventually("the server cleans up", || place.names() == ["command"]);
    // The command is nobody's now.
    reactor::process::send_signal(command, reactor::process::TERMINATE).expect("ends it");
}

#[test]
fn peers_can_be_the_command() {
    if !have(&["nbdinfo"]) {
        return;
    }
    let place = Place::new();
    let words = [
        "serve",
        "memory",
        "10M",
        "--run",
        r#"nbdinfo --size "$uri""#,
    ];
    assert_eq!(run(&mut place.blkit(&words)), "10485760\n");
    let words = [
        "serve",
        "-p",
        "0",
        "memory",
        "10M",
        "--run",
        r#"nbdinfo --size "$nbd""#,
    ];
    assert_eq!(run(&mut place.blkit(&words)), "10485760\n");
    let fails = [
        "serve",
        "memory",
        "10M",
        "--run",
        r#"nbdinfo --size "$uri/x" 2>/dev/null"#,
    ];
    assert_ne!(status(&place, &fails[1..]), Some(0));
    assert_eq!(place.names(), [""; 0]);
}
