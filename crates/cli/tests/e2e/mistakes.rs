//! What is wrong is told in one line, with the cure where it is known; the status is 1, and
//! nothing is left behind.

use std::{
    fs::{self, Permissions},
    net::TcpListener,
    os::unix::{fs::PermissionsExt, net::UnixListener, process::CommandExt},
    process::Command,
};

use crate::bench::{Place, output, told};

/// Runs a command that must fail as mistakes do; its error line and its hint.
fn mistake(command: &mut Command) -> (String, String) {
    let output = output(command);
    assert_eq!(
        output.status.code(),
        Some(1),
        "{command:?}: {}",
        told(&output)
    );
    assert!(output.stdout.is_empty(), "{command:?}: {}", told(&output));
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    let lines: Vec<&str> = text.lines().collect();
    assert!((1..=2).contains(&lines.len()), "{command:?}: {text}");
    let error = lines[0].strip_prefix("blkit: error: ");
    let error = error.unwrap_or_else(|| panic!("{command:?}: {text}"));
    let hint = lines
        .get(1)
        .map(|line| line.strip_prefix("hint: ").expect("a hint"));
    (error.to_owned(), hint.unwrap_or_default().to_owned())
}

#[test]
fn unknown_words_are_told_with_the_nearest_known_one() {
    let place = Place::new();
    for (words, error, hint) in [
        (
            &["serve", "--read-onyl", "null"][..],
            "'--read-onyl'",
            "did you mean '--read-only'?",
        ),
        (&["sevre", "null"], "'sevre'", "did you mean 'serve'?"),
        (
            &["serve", "memroy", "1M"],
            "unknown source 'memroy'",
            "did you mean 'memory'?",
        ),
        (
            &["serve", "--filter", "dellay", "null"],
            "unknown filter 'dellay'",
            "'delay'",
        ),
        (
            &["serve", "memory", "1M", "sizze=2"],
            "memory: unknown parameter 'sizze'",
            "'size'",
        ),
        (
            &["serve", "--filter", "delay", "null", "rdelya=1"],
            "'rdelya'",
            "'rdelay' of delay",
        ),
        (
            &["help", "memroy"],
            "unknown topic 'memroy'",
            "did you mean 'memory'?",
        ),
        (
            &["serve", "no-such-thing"],
            "unknown source 'no-such-thing'",
            "known sources: ",
        ),
        (&["serve", "size=1M"], "must come before", "SOURCE size=1M"),
        (&[], "what is to be done", "blkit help"),
        (&["serve"], "<SOURCE>", "blkit help serve"),
    ] {
        let told = mistake(&mut place.blkit(words));
        assert!(
            told.0.contains(error) && told.1.contains(hint),
            "{words:?}: {told:?}"
        );
    }
    assert_eq!(place.names(), [""; 0]);
}

#[test]
fn bad_values_are_told_with_their_key() {
    let place = Place::new();
    for (words, error) in [
        (&["serve", "memory", "many"][..], "memory: size=many: "),
        (&["serve", "memory", "size=10X"], "memory: size=10X: "),
        (&["serve", "memory", "8E"], "memory: size=8E: "),
        (&["serve", "memory"], "memory: size=<SIZE> is required"),
        (
            &["serve", "--filter", "delay", "null", "rdelay=soon"],
            "delay: rdelay=soon: ",
        ),
        (&["serve", "-p", "65536", "null"], "65536"),
        (&["serve", "-p", "nbd", "null"], "nbd"),
        (&["serve", "-t", "0", "null"], "0"),
        (&["serve", "--io", "fast", "null"], "auto, uring or poll"),
        (&["serve", "--handshake-timeout", "soon", "null"], "soon"),
        (&["serve", "-i", "nowhere", "null"], "nowhere"),
        (
            &["serve", "-U", "s", "-p", "1", "null"],
            "cannot be used with",
        ),
    ] {
        let told = mistake(&mut place.blkit(words));
        assert!(told.0.contains(error), "{words:?}: {told:?}");
    }
    assert_eq!(place.names(), [""; 0]);
}

#[test]
fn files_that_cannot_be_served_are_named() {
    let place = Place::new();
    for words in [
        ["serve", "-U", "s", "./nothing.img"],
        ["serve", "-U", "s", "/nowhere/disk"],
    ] {
        let told = mistake(&mut place.blkit(&words));
        assert!(told.0.starts_with("file: "), "{told:?}");
        assert!(
            told.0.contains(words[3].trim_start_matches("./")),
            "{told:?}"
        );
        assert!(told.0.contains("No such file"), "{told:?}");
    }
    let told = mistake(&mut place.blkit(&["serve", "-U", "s", "/dev/tty"]));
    assert!(told.0.starts_with("file: "), "{told:?}");
    assert_eq!(place.names(), [""; 0]);
}

#[test]
fn a_file_of_others_is_refused() {
    let place = Place::new();
    let disk = place.sparse("disk.img", 4096);
    fs::set_permissions(&disk, Permissions::from_mode(0o000)).expect("sets the mode");
    let here = disk.parent().expect("a directory");
    fs::set_permissions(here, Permissions::from_mode(0o777)).expect("sets the mode");
    let mut command = place.blkit(&["serve", "-U", "s", "disk.img"]);
    if rustix::process::geteuid().is_root() {
        // Root may read everything: nobody tries.
        command.uid(65534).gid(65534);
        let blkit = command.get_program().to_owned();
        if Command::new(blkit)
            .arg("--version")
            .uid(65534)
            .gid(65534)
            .output()
            .is_err()
        {
            println!("SKIP: an unprivileged user cannot run the built program");
            return;
        }
    }
    let told = mistake(&mut command);
    assert!(
        told.0.contains("disk.img") && told.0.contains("Permission denied"),
        "{told:?}"
    );
    assert_eq!(place.names(), ["disk.img"]);
}

#[test]
fn addresses_in_use_are_named() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = taken.local_addr().expect("an address").port().to_string();
    let words = ["serve", "-i", "127.0.0.1", "-p", &port, "null"];
    let told = mistake(&mut place.blkit(&words));
    assert!(told.0.contains(&format!("127.0.0.1:{port}")), "{told:?}");
    assert!(
        told.0.contains("in use") && told.1.contains("-p 0"),
        "{told:?}"
    );

    let server = place.serve_here(&["null"]);
    let told = mistake(&mut place.blkit(&["serve", "-U", "s", "null"]));
    assert!(told.0.contains("address already in use"), "{told:?}");
    assert!(told.1.contains("another server"), "{told:?}");
    assert_eq!(
        place.names(),
        ["s"],
        "the other server's socket is still there"
    );
    server.stop();
    assert_eq!(place.names(), [""; 0]);
}

#[test]
fn a_stale_socket_is_not_touched() {
    let place = Place::new();
    drop(UnixListener::bind(place.path("s")).expect("binds"));
    let told = mistake(&mut place.blkit(&["serve", "-U", "s", "null"]));
    assert!(told.0.contains("address already in use"), "{told:?}");
    assert!(told.1.contains("no server answers"), "{told:?}");
    assert_eq!(place.names(), ["s"]);
}

#[test]
fn sockets_that_cannot_be_made_are_told() {
    let place = Place::new();
    let long = "x".repeat(108);
    let told = mistake(&mut place.blkit(&["serve", "-U", &long, "null"]));
    assert!(
        told.0.contains("108 bytes") && told.0.contains("107"),
        "{told:?}"
    );
    let told = mistake(&mut place.blkit(&["serve", "-U", "none/s", "null"]));
    assert!(
        told.0.contains("none/s") && told.0.contains("No such file"),
        "{told:?}"
    );
    // 192.0.2.1 is nobody's (RFC 5737).
    let told = mistake(&mut place.blkit(&["serve", "-i", "192.0.2.1", "-p", "0", "null"]));
    assert!(told.0.contains("192.0.2.1"), "{told:?}");
    assert_eq!(place.names(), [""; 0]);
}

#[test]
fn a_server_that_cannot_say_it_is_ready_leaves_nothing() {
    let place = Place::new();
    let words = ["serve", "-U", "s", "--pid-file", "none/pid", "null"];
    let told = mistake(&mut place.blkit(&words));
    assert!(told.0.contains("none/pid"), "{told:?}");
    assert_eq!(place.names(), [""; 0]);
    // The same in the child of --run: told once, and the command is not run.
    let words = [
        "serve",
        "--pid-file",
        "none/pid",
        "--run",
        "touch ran",
        "null",
    ];
    let told = mistake(&mut place.blkit(&words));
    assert!(told.0.contains("none/pid"), "{told:?}");
    assert_eq!(place.names(), [""; 0]);
}

#[test]
fn hostile_names_cannot_break_the_line() {
    let place = Place::new();
    let told = mistake(&mut place.blkit(&["serve", "a\nb\x1b[31m.img"]));
    assert!(told.0.contains(r"a\nb\u{1b}[31m.img"), "{told:?}");
}
