//! TLS, oldstyle and what else the handshake can be told, by nbdkit's command line: with real clients,
//! and in nbdkit's words.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    bench::{Place, Server, eventually, have, output, run},
    certificates::Authority,
    nbdkit::{errors, ours, theirs},
};

/// A file of keys.
fn keys(place: &Place) -> PathBuf {
    let path = place.path("keys.psk");
    fs::write(&path, "alice:00112233445566778899aabbccddeeff\n").expect("writes");
    path
}

/// A command that prints the size as Alice sees it: the shell takes the socket or the port from
/// what the server tells.
fn size_by_alice(psk: &Path) -> String {
    let at = "${unixsocket:+nbds+unix://alice@/?socket=$unixsocket&}";
    let or = "${port:+nbds://alice@localhost:$port/?}";
    format!("nbdinfo --size \"{at}{or}tls-psk-file={}\"", psk.display())
}

/// The same without TLS.
const SIZE_IN_THE_CLEAR: &str = "nbdinfo --size \
    \"${unixsocket:+nbd+unix:///?socket=$unixsocket}${port:+nbd://localhost:$port}\"";

fn text(path: &Path) -> &str {
    path.to_str().expect("unicode")
}

#[test]
fn keys_are_asked_for_and_the_uri_names_them() {
    if !have(&["nbdinfo"]) {
        return;
    }
    let place = Place::new();
    let psk = keys(&place);
    for transport in [&["-U", "-"][..], &["-i", "localhost", "-p", "0"]] {
        let with = |tls: &str, command: &str| {
            let mut words = vec!["-f", tls, "--tls-psk", text(&psk)];
            words.extend(transport);
            words.extend(["memory", "1M", "--run", command]);
            output(&mut ours(&place, &words))
        };
        let size = with("--tls=require", &size_by_alice(&psk));
        assert_eq!(
            String::from_utf8_lossy(&size.stdout),
            "1048576\n",
            "{size:?}"
        );
        // Plain text is turned away if TLS is a must, and served if it is an offer.
        let refused = with("--tls=require", SIZE_IN_THE_CLEAR);
        assert!(!refused.status.success(), "{refused:?}");
        for command in [SIZE_IN_THE_CLEAR, &size_by_alice(&psk)] {
            let served = with("--tls=on", command);
            let told = String::from_utf8_lossy(&served.stdout);
            assert_eq!(told, "1048576\n", "{served:?}");
        }
    }
    fs::remove_file(psk).expect("removes");
}

#[test]
fn blkit_serve_encrypts_when_it_is_given_keys() {
    if !have(&["nbdinfo"]) {
        return;
    }
    let place = Place::new();
    let psk = keys(&place);
    for transport in [&["-U", "-"][..], &["-p", "0"]] {
        let with = |command: &str| {
            let mut words = vec!["serve", "--tls-psk", text(&psk)];
            words.extend(transport);
            words.extend(["memory", "1M", "--run", command]);
            output(&mut place.blkit(&words))
        };
        let size = with(&size_by_alice(&psk));
        assert_eq!(
            String::from_utf8_lossy(&size.stdout),
            "1048576\n",
            "{size:?}"
        );
        let plain = with(SIZE_IN_THE_CLEAR);
        assert!(!plain.status.success(), "{plain:?}");
    }
    let wrong = output(&mut place.blkit(&["serve", "--tls-psk", "/no/such.psk", "null", "1M"]));
    assert_eq!(wrong.status.code(), Some(1));
    assert!(
        errors(&wrong).contains("/no/such.psk: No such file or directory"),
        "{wrong:?}"
    );
    fs::remove_file(psk).expect("removes");
}

#[test]
fn variables_are_nbdkits() {
    if !have(&["nbdkit"]) {
        return;
    }
    let place = Place::new();
    let psk = keys(&place);
    let shown = |command: &mut Command| {
        let text = run(command);
        // The one thing that is by chance.
        let at = text.find("socket=/tmp/nbdkit").expect("a socket") + "socket=/tmp/nbdkit".len();
        format!("{}{}", &text[..at], &text[at + 6..])
    };
    let words = [
        "-f",
        "-U",
        "-",
        "--tls=require",
        "--tls-psk",
        text(&psk),
        "null",
        "size=1M",
        "--run",
        "echo $uri $tls $tls_psk $tls_certificates",
    ];
    let mut told = shown(&mut theirs(&place, &words));
    if !told.contains("tls-psk-file") {
        // Before 1.40 the file was neither part of the URI nor a variable.
        let with = format!("/socket&tls-psk-file={0} 2 {0}", psk.display());
        told = told.replacen("/socket 2", &with, 1);
    }
    assert_eq!(shown(&mut ours(&place, &words)), told);
    fs::remove_file(psk).expect("removes");
}

#[test]
fn what_cannot_be_encrypted_is_not_served() {
    let place = Place::new();
    let psk = keys(&place);
    let empty = place.path("empty");
    fs::create_dir(&empty).expect("creates");
    for (words, told) in [
        (
            &["--tls=on", "--tls-psk=/no/such.psk"][..],
            "nbdkit: error: /no/such.psk: No such file or directory",
        ),
        (
            &["--tls=on", "--tls-certificates", text(&empty)],
            "ca-cert.pem: No such file or directory",
        ),
        (
            &["--tls-certificates", text(&empty)],
            "ca-cert.pem: No such file or directory",
        ),
        (
            &[
                "--tls=require",
                "--tls-psk",
                text(&psk),
                "--tls-priority=NORMAL:+FOO",
            ],
            "nbdkit: error: TLS priority \"NORMAL:+FOO\"",
        ),
    ] {
        let mut words = words.to_vec();
        words.extend(["null", "1M", "--run", "echo served"]);
        let output = output(&mut ours(&place, &words));
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        assert!(output.stdout.is_empty(), "{words:?}: {output:?}");
        assert!(errors(&output).contains(told), "{words:?}: {output:?}");
    }
    fs::remove_dir(empty).expect("removes");
    fs::remove_file(psk).expect("removes");
}

#[test]
fn without_certificates_it_is_told_in_the_same_words() {
    if !have(&["nbdkit"]) {
        return;
    }
    let place = Place::new();
    for tls in ["--tls=on", "--tls=require"] {
        let words = [
            "-f",
            "-U",
            "-",
            tls,
            "null",
            "size=1M",
            "--run",
            "echo served",
        ];
        let [ours, theirs] = [ours(&place, &words), theirs(&place, &words)].map(|mut command| {
            // Nobody's certificates.
            let output = output(command.env("HOME", "/nonexistent"));
            (output.status.code(), output.stdout.clone(), errors(&output))
        });
        assert_eq!(ours, theirs, "{tls}");
    }
}

#[test]
fn keys_that_only_root_may_read_serve_a_server_that_is_not() {
    if !have(&["nbdinfo"]) {
        return;
    }
    if !rustix_is_root() {
        println!("SKIP: only root can give privileges up");
        return;
    }
    let place = Place::new();
    let psk = keys(&place);
    let size = size_by_alice(&psk);
    fs::set_permissions(&psk, fs::Permissions::from_mode(0o600)).expect("sets");
    let words = [
        "-f",
        "-u",
        "nobody",
        "--tls=require",
        "--tls-psk",
        text(&psk),
        "memory",
        "1M",
        "--run",
        // The second client comes when the server has looked at the files as another user.
        &format!("{size} && {size}"),
    ];
    let output = output(&mut ours(&place, &words));
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(told, "1048576\n1048576\n", "{output:?}");
    assert!(
        errors(&output).contains("may no longer be read"),
        "{output:?}"
    );
    fs::remove_file(psk).expect("removes");
}

fn rustix_is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn the_handshake_is_as_old_as_it_is_told() {
    if !have(&["nbdkit", "nbdinfo"]) {
        return;
    }
    let place = Place::new();
    for option in ["-o", "--no-sr", "--mask-handshake=0", "--mask-handshake=1"] {
        let words = [
            "-f",
            "-U",
            "-",
            option,
            "memory",
            "1M",
            "--run",
            "nbdinfo \"$uri\"",
        ];
        let [ours, theirs] = [ours(&place, &words), theirs(&place, &words)].map(|mut command| {
            let told = run(&mut command);
            let kept = |line: &&str| {
                let line = line.trim();
                [
                    "protocol:",
                    "export-size:",
                    "can_",
                    "is_",
                    "contexts:",
                    "base:",
                ]
                .iter()
                .any(|start| line.starts_with(start))
            };
            told.lines()
                .filter(kept)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        });
        assert!(!ours.is_empty());
        assert_eq!(ours, theirs, "{option}");
    }
    // Newer than the nbdkit of some systems.
    let words = [
        "-f",
        "-U",
        "-",
        "--no-mc",
        "memory",
        "1M",
        "--run",
        "nbdinfo \"$uri\"",
    ];
    let told = run(&mut ours(&place, &words));
    assert!(
        told.contains("protocol:") && !told.contains("base:allocation"),
        "{told}"
    );
}

/// The directories `server` and `client`, with their certificates.
fn certificates(place: &Place) {
    let authority = Authority::new("CA");
    let alice = authority.issue_client(5, "alice");
    for (from, to) in [(authority.server(), "server"), (alice, "client")] {
        fs::create_dir(place.path(to)).expect("creates");
        for file in fs::read_dir(from).expect("reads") {
            let file = file.expect("reads");
            let to = place.path(to).join(file.file_name());
            fs::copy(file.path(), to).expect("copies");
        }
    }
}

/// The servers that know TLS, each with what it is told for certificates.
fn servers_with_certificates(place: &Place) -> Vec<(&'static str, Command)> {
    let mut servers = Vec::new();
    let options = [
        "--tls=require",
        "--tls-verify-peer",
        "--tls-certificates=server",
    ];
    let mut blkit = place.blkit(&["nbdkit", "-f", "-U", "a"]);
    blkit.args(options).args(["file", "disk.img"]);
    servers.push(("blkit", blkit));
    if have(&["nbdkit"]) {
        let mut nbdkit = place.command("nbdkit");
        nbdkit.args(["-f", "-U", "a"]).args(options);
        nbdkit.args(["file", "disk.img"]);
        servers.push(("nbdkit", nbdkit));
    }
    if have(&["qemu-nbd"]) {
        let mut qemu = place.command("qemu-nbd");
        let socket = place.path("a");
        qemu.args(["--persistent", "--object"])
            .arg("tls-creds-x509,id=t,endpoint=server,dir=server,verify-peer=on")
            .args([
                "--tls-creds",
                "t",
                "-k",
                text(&socket),
                "-f",
                "raw",
                "disk.img",
            ]);
        servers.push(("qemu-nbd", qemu));
    }
    servers
}

#[test]
fn an_encrypted_server_is_a_source() {
    if !have(&["nbdcopy", "nbdinfo"]) {
        return;
    }
    let place = Place::new();
    certificates(&place);
    let disk = place.noise("disk.img", 3 << 20);
    for (name, mut command) in servers_with_certificates(&place) {
        let mut server = command.spawn().expect("starts");
        eventually(name, || place.path("a").exists());
        let uri = "nbds+unix:///?socket=a&tls-certificates=client";
        let more = "connections=2";
        for (words, good) in [
            (&[uri, more][..], true),
            (&["nbd", "socket=a", "tls-certificates=client"], true),
            (
                &["nbd", "socket=a", "tls=require", "tls-certificates=client"],
                true,
            ),
            (
                &["nbds+unix:///?socket=a&tls-certificates=client&tls-hostname=localhost"],
                true,
            ),
            (
                &["nbds+unix:///?socket=a&tls-certificates=client&tls-hostname=other"],
                false,
            ),
            (&["nbd", "socket=a"], false),
        ] {
            let b = place.serve_here(words);
            let copied = output(place.command("nbdcopy").args([&b.uri, "copy.img"]));
            assert_eq!(
                copied.status.success(),
                good,
                "{name} {words:?}: {copied:?}"
            );
            if good {
                let copy = fs::read(place.path("copy.img")).expect("reads");
                assert!(copy == fs::read(&disk).expect("reads"), "{name} {words:?}");
            }
            b.stop();
        }
        server.kill().expect("kills");
        server.wait().expect("waits");
        // The server of the next round makes it again.
        let _ = fs::remove_file(place.path("a"));
    }
    let refused = output(&mut place.blkit(&["serve", "nbds://localhost?tls-certificates=none"]));
    assert_eq!(refused.status.code(), Some(1));
    assert!(errors(&refused).contains("none/ca-cert.pem"), "{refused:?}");
}

#[test]
fn keys_lead_to_an_encrypted_server() {
    if !have(&["nbdcopy"]) {
        return;
    }
    let place = Place::new();
    let psk = keys(&place);
    let disk = place.noise("disk.img", 3 << 20);
    let words = ["serve", "-U", "a", "--tls-psk", text(&psk), "./disk.img"];
    let a = Server::start(&mut place.blkit(&words));
    for (user, good) in [("alice", true), ("eve", false)] {
        let user = format!("tls-username={user}");
        let words = ["nbd", "socket=a", "tls-psk=keys.psk", &user];
        if !good {
            let refused = output(place.blkit(&["serve", "-U", "b"]).args(words));
            assert!(errors(&refused).contains("no user \"eve\""), "{refused:?}");
            continue;
        }
        let b = place.serve_here(&words);
        run(place.command("nbdcopy").args([&b.uri, "copy.img"]));
        let copy = fs::read(place.path("copy.img")).expect("reads");
        assert!(copy == fs::read(&disk).expect("reads"));
        b.stop();
    }
    a.stop();
}
