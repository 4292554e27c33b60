//! `nbdinfo`, beside the real one.

use std::{
    os::unix::fs::symlink,
    process::{Command, Output},
};

use crate::bench::{Place, Server, have, output, run};

/// Our program called by a tool's name.
pub fn called(place: &Place, name: &str) -> Command {
    let link = place.path(name);
    if !link.exists() {
        symlink(env!("CARGO_BIN_EXE_blkit"), &link).expect("links");
    }
    place.command(link.to_str().expect("unicode"))
}

fn nbdinfo(place: &Place, words: &[&str]) -> Output {
    output(called(place, "nbdinfo").args(words))
}

/// What older releases of the real one do not tell, or tell otherwise.
fn is_newer(line: &str) -> bool {
    [
        "block_status_payload",
        "\"extended\"",
        "block_size_preferred",
        "block_size_maximum",
    ]
    .iter()
    .any(|new| line.contains(new))
}

fn same_lines(ours: &Output, theirs: &Output, of: &[&str]) {
    let lines = |output: &Output| -> Vec<String> {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines = text.lines().filter(|line| !is_newer(line));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(
        ours.status.code(),
        theirs.status.code(),
        "{of:?}: {ours:?} {theirs:?}"
    );
    assert_eq!(lines(ours), lines(theirs), "{of:?}");
}

const QUESTIONS: &[&[&str]] = &[
    &[],
    &["--json"],
    &["--no-content"],
    &["--size"],
    &["--map"],
    &["--map", "--json"],
    &["--map", "--totals"],
    &["--map", "--totals", "--json"],
    &["--list"],
    &["--list", "--json"],
    &["--can", "connect"],
    &["--can", "multi-conn"],
    &["--is", "read-only"],
    &["--can", "structured-reply"],
    &["--can", "write"],
];

#[test]
fn it_tells_what_nbdinfo_tells() {
    if !have(&["nbdkit", "nbdinfo", "file"]) {
        return;
    }
    let place = Place::new();
    let disk = place.noise("disk.img", 100 << 10);
    let file = std::fs::File::options()
        .write(true)
        .open(&disk)
        .expect("opens");
    file.set_len(8 << 20).expect("a hole behind");
    // The same kinds of packets for both: the real one may not know extended headers.
    let servers: [&[&str]; 3] = [
        &["file", "disk.img"],
        &["-r", "file", "disk.img"],
        &["null", "0"],
    ];
    for words in servers {
        let socket = place.path("a");
        let mut nbdkit = place.command("nbdkit");
        let mut server = nbdkit
            .args(["-f", "-U"])
            .arg(&socket)
            .args(words)
            .spawn()
            .expect("starts");
        crate::bench::eventually("nbdkit", || testkit::listens(&socket));
        let uri = format!("nbd+unix:///?socket={}", socket.display());
        for question in QUESTIONS {
            let asked = [question, &[uri.as_str()][..]].concat();
            let theirs = output(place.command("nbdinfo").args(&asked));
            same_lines(&nbdinfo(&place, &asked), &theirs, &asked);
        }
        server.kill().expect("kills");
        server.wait().expect("waits");
        let _ = std::fs::remove_file(socket);
    }
}

#[test]
fn it_tells_what_only_newer_ones_know() {
    let place = Place::new();
    place.sparse("disk.img", 1 << 20);
    let a = Server::start(place.blkit(&["serve", "-U", "a"]).arg("disk.img"));
    let told = run(called(&place, "nbdinfo").arg(&a.uri));
    let first = "protocol: newstyle-fixed without TLS, using extended packets\nexport=\"\":\n\
                 \texport-size: 1048576 (1M)\n";
    assert!(told.starts_with(first), "{told}");
    assert!(
        told.contains("\tcan_block_status_payload: true\n"),
        "{told}"
    );
    assert!(told.contains(&format!("\turi: {}\n", a.uri)), "{told}");
    let told = run(called(&place, "nbdinfo").args(["--json", &a.uri]));
    let json: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(json["extended"], true);
    assert_eq!(json["exports"][0]["export-size-str"], "1M");
    assert_eq!(json["exports"][0]["contexts"][0], "base:allocation");
    assert_eq!(
        run(called(&place, "nbdinfo").args(["--uri", &a.uri])).trim(),
        a.uri
    );
    for (words, status) in [
        (["--has", "extended-headers"], 0),
        (["--has", "TLS"], 2),
        (["--hasnt", "tls"], 0),
        (["--cannot", "flush"], 2),
    ] {
        let told = nbdinfo(&place, &[words[0], words[1], &a.uri]);
        assert_eq!(told.status.code(), Some(status), "{words:?}");
        assert!(told.stdout.is_empty() && told.stderr.is_empty(), "{told:?}");
    }
    a.stop();
}

#[test]
fn a_server_in_brackets_ends_with_it() {
    let place = Place::new();
    let blkit = env!("CARGO_BIN_EXE_blkit");
    let words = [
        "--size", "--", "[", blkit, "nbdkit", "-P", "pid", "memory", "3M", "]",
    ];
    let told = nbdinfo(&place, &words);
    assert_eq!(
        String::from_utf8_lossy(&told.stdout),
        "3145728\n",
        "{told:?}"
    );
    ended(&place);
    // Whatever the tool says no to.
    let words = [
        "--map=no:such",
        "--",
        "[",
        blkit,
        "nbdkit",
        "-P",
        "pid",
        "null",
        "]",
    ];
    let told = nbdinfo(&place, &words);
    assert_eq!(told.status.code(), Some(1));
    ended(&place);
}

/// The server that wrote the file `pid` is gone.
pub fn ended(place: &Place) {
    let pid = std::fs::read_to_string(place.path("pid")).expect("a pid file");
    let process = std::path::Path::new("/proc").join(pid.trim());
    assert!(!process.exists(), "{}", process.display());
    std::fs::remove_file(place.path("pid")).expect("removes");
}

#[test]
fn mistakes_say_nothing_on_standard_output() {
    let place = Place::new();
    let table: [(&[&str], &str); 5] = [
        (
            &["nbd+unix:///?socket=none"],
            "nbdinfo: nbd: cannot connect to none",
        ),
        (&["/etc/passwd"], "is not an NBD URI"),
        (
            &["--can", "fly", "nbd://x"],
            "unknown --can/--is/--has option: fly",
        ),
        (&["--", "[", "/no/such", "]"], "nbdinfo: "),
        (&[], "--map[=CONTEXT]"),
    ];
    for (words, text) in table {
        let told = nbdinfo(&place, words);
        assert_eq!(told.status.code(), Some(1), "{told:?}");
        let errors = String::from_utf8_lossy(&told.stderr);
        assert!(told.stdout.is_empty() && errors.contains(text), "{told:?}");
    }
}
