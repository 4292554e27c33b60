//! The program under the name nbdkit: beside the real one where the answers are the same, alone where
//! ours is a newer version's or our own.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::MetadataExt,
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use crate::bench::{Place, eventually, have, output, run, told};

/// Our program, called `nbdkit`.
pub fn ours(place: &Place, words: &[&str]) -> Command {
    let name = place.path("bin/nbdkit");
    if !name.exists() {
        fs::create_dir_all(place.path("bin")).expect("a directory");
        run(&mut place.blkit(&["link", "bin"]));
    }
    let mut command = place.command(name);
    command.args(words);
    command
}

pub fn theirs(place: &Place, words: &[&str]) -> Command {
    let mut command = place.command("nbdkit");
    command.args(words);
    command
}

/// What a program said on standard error.
pub fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Stops the server whose number is in this file, and waits for its end.
fn stop(pid_file: &PathBuf) {
    let text = fs::read_to_string(pid_file).expect("a pid file");
    let pid: i32 = text.trim().parse().expect("a number");
    reactor::process::send_signal(pid, reactor::process::TERMINATE).expect("sends");
    let process = PathBuf::from(format!("/proc/{pid}"));
    eventually("the server ends", || !process.exists());
}

#[test]
fn mistakes_are_told_in_the_same_words_with_the_same_status() {
    if !have(&["nbdkit"]) {
        return;
    }
    let place = Place::new();
    for words in [
        &["--foo", "null"][..],
        &["-x", "null"],
        &["-U"],
        &["--filter"],
        &["--verbose=1", "null"],
        &["-s", "-p", "1", "null"],
        &["-s", "--run", "true", "null"],
        &["-o", "--tls=require", "null"],
        &["-f", "-u", "no-such-user", "-U", "-", "null"],
        &["-f", "-g", "no-such-group", "-U", "-", "null"],
        &["-D", "foo", "null"],
        &["-p", "no-such-service", "null"],
        &["-i", "no-such-host.invalid", "null"],
        &["memory"],
        &["null", "foo=1", "--run", "true"],
        &["null", "null=1", "--run", "true"],
        &["--tls=foo", "null"],
        &["-U", "/no/such/folder/s", "null"],
    ] {
        let told_by = |command: &mut Command| {
            let output = output(command);
            // The first line: usage texts and advice behind it are each program's own. Numbers
            // that could not be parsed are told twice by the older program.
            let text = errors(&output);
            let line = text.lines().rfind(|line| line.starts_with("nbdkit:"));
            let line = line.or(text.lines().next()).unwrap_or_default();
            let line = line.trim_start_matches("nbdkit: ").to_owned();
            (output.status.code(), line)
        };
        let expected = told_by(&mut theirs(&place, words));
        assert_eq!(expected.0, Some(1), "{words:?}");
        assert_eq!(told_by(&mut ours(&place, words)), expected, "{words:?}");
    }
}

#[test]
fn captive_commands_see_the_same_variables_and_statuses() {
    if !have(&["nbdkit"]) {
        return;
    }
    let place = Place::new();
    let show = r#"printf '%s\n' "$uri" "$nbd" "$port" "$unixsocket" "$exportname" "${tls-unset}""#;
    for words in [
        &["-U", "-", "null", "1M", "--run", show][..],
        &["-U", "-", "-e", "a b/c", "null", "1M", "--run", show],
        &["-U", "-", "null", "--run", "exit 3"],
        &["-U", "-", "null", "--run", "kill -9 $$"],
        &["-U", "-", "null", "--run", "exec false"],
        &["-U", "-", "null", "--run", "cat"],
    ] {
        let said = |command: &mut Command| {
            let output = output(command);
            let text = String::from_utf8(output.stdout).expect("text");
            // Six random letters.
            let mut parts = text.split("/tmp/nbdkit");
            let mut stable = parts.next().unwrap_or_default().to_owned();
            for part in parts {
                stable.push_str("/tmp/nbdkitXXXXXX");
                stable.push_str(part.get(6..).unwrap_or_default());
            }
            let killed = String::from_utf8(output.stderr).expect("text");
            (output.status.code(), stable, killed)
        };
        let expected = said(&mut theirs(&place, words));
        assert_eq!(said(&mut ours(&place, words)), expected, "{words:?}");
    }
}

#[test]
fn the_seeds_command_lines_work() {
    let place = Place::new();
    fs::write(place.path("disk.img"), vec![7; 1 << 20]).expect("writes");
    if have(&["qemu-img"]) {
        let words = ["file", "disk.img", "--run", "qemu-img info $nbd"];
        let info = run(&mut ours(&place, &words));
        assert!(
            info.contains("virtual size: 1 MiB (1048576 bytes)"),
            "{info}"
        );
    }
    if have(&["nbdinfo"]) {
        let words = ["memory", "1G", "--run", "nbdinfo --size \"$uri\""];
        assert_eq!(run(&mut ours(&place, &words)), "1073741824\n");
        // The names may be those of files.
        let file = "/usr/lib/x86_64-linux-gnu/nbdkit/plugins/nbdkit-memory-plugin.so";
        let words = [file, "1M", "2M", "--run", "nbdinfo --size \"$uri\""];
        assert_eq!(run(&mut ours(&place, &words)), "2097152\n");
    }
}

#[test]
fn it_goes_into_the_background_and_says_when_it_is_ready() {
    let place = Place::new();
    let socket = place.path("s").display().to_string();
    let words = ["-U", &socket, "-P", "pid", "memory", "1M"];
    let output = output(&mut ours(&place, &words));
    assert!(output.status.success(), "{}", told(&output));
    assert_eq!(told(&output), "exit status: 0\n");
    let pid_file = place.path("pid");
    eventually("the pid file is there", || {
        fs::read_to_string(&pid_file).is_ok_and(|text| text.ends_with('\n'))
    });
    let mut greeting = [0; 16];
    let mut client = UnixStream::connect(&socket).expect("it listens");
    client.read_exact(&mut greeting).expect("a greeting");
    assert_eq!(&greeting, b"NBDMAGICIHAVEOPT");
    let pid = fs::read_to_string(&pid_file)
        .expect("a number")
        .trim()
        .to_owned();
    let at = |what: &str| fs::read_link(format!("/proc/{pid}/{what}")).expect("a link");
    assert_eq!(at("cwd"), PathBuf::from("/"));
    for stream in ["fd/0", "fd/1", "fd/2"] {
        assert_eq!(at(stream), PathBuf::from("/dev/null"), "{stream}");
    }
    // A second server on the same socket is refused, and takes nothing away from the first.
    let second = ours(&place, &words).output().expect("runs");
    assert_eq!(second.status.code(), Some(1));
    assert_eq!(
        errors(&second),
        format!("nbdkit: {socket}: Address already in use\n")
    );
    stop(&pid_file);
    // Both stay: whoever made the names removes them.
    assert!(pid_file.exists() && place.path("s").exists());
}

#[test]
fn files_named_relative_to_the_first_directory_are_found_in_the_background() {
    if !have(&["nbdinfo"]) {
        return;
    }
    let place = Place::new();
    fs::create_dir(place.path("images")).expect("a directory");
    fs::write(place.path("images/a"), vec![1; 4096]).expect("writes");
    for words in [&["file", "images/a"][..], &["file", "dir=images"]] {
        let socket = place.path("s").display().to_string();
        let all = [&["-U", &socket, "-P", "pid"], words].concat();
        run(&mut ours(&place, &all));
        let pid_file = place.path("pid");
        eventually("the pid file is there", || {
            fs::read_to_string(&pid_file).is_ok_and(|text| text.ends_with('\n'))
        });
        let export = if words[1].starts_with("dir") { "a" } else { "" };
        let uri = format!("nbd+unix:///{export}?socket={socket}");
        assert_eq!(
            run(place.command("nbdinfo").args(["--size", &uri])),
            "4096\n"
        );
        stop(&pid_file);
        fs::remove_file(&socket).expect("it stayed");
        fs::remove_file(&pid_file).expect("it stayed");
    }
}

#[test]
fn one_client_is_served_on_standard_input_and_output() {
    let place = Place::new();
    let mut server = ours(&place, &["-s", "memory", "1M"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut to = server.stdin.take().expect("a pipe");
    let mut from = server.stdout.take().expect("a pipe");
    let mut greeting = [0; 18];
    from.read_exact(&mut greeting).expect("a greeting");
    let mut hello = 3u32.to_be_bytes().to_vec();
    hello.extend_from_slice(b"IHAVEOPT\0\0\0\x01\0\0\0\0");
    to.write_all(&hello).expect("sends");
    let mut export = [0; 10];
    from.read_exact(&mut export).expect("an export");
    assert_eq!(export[..8], (1u64 << 20).to_be_bytes());
    // The client goes away: so does the server.
    drop(to);
    let output = server.wait_with_output().expect("ends");
    assert!(output.status.success(), "{}", told(&output));
    assert_eq!(told(&output), "exit status: 0\n");
}

#[test]
fn every_layer_tells_what_passes_in_nbdkit_s_words() {
    if !have(&["qemu-io"]) {
        return;
    }
    let place = Place::new();
    let io = "qemu-io -f raw -c 'write -f 0 512' -c 'write -z 512 512' -c 'write -z -u 512 512' \
              -c 'discard 0 512' -c 'read 0 512' -c flush $nbd >/dev/null";
    let words = [
        "-v",
        "--filter=offset",
        "memory",
        "1M",
        "offset=4096",
        "--run",
        io,
    ];
    let output = output(&mut ours(&place, &words));
    assert!(output.status.success(), "{}", told(&output));
    let text = errors(&output);
    let mut at = 0;
    // In this order, whatever else stands between.
    for line in [
        "nbdkit: debug: nbdkit 1.48.1",
        "nbdkit: debug: offset: config key=offset, value=4096",
        "nbdkit: debug: memory: config key=",
        "nbdkit: debug: offset: config_complete",
        "nbdkit: debug: memory: config_complete",
        "nbdkit: debug: using thread model: parallel",
        "nbdkit: debug: memory: get_ready",
        "nbdkit: debug: offset: get_ready",
        "nbdkit: debug: bound to unix socket /tmp/nbdkit",
        "nbdkit: debug: memory: after_fork",
        "nbdkit: debug: offset: after_fork",
        "nbdkit: debug: accepted connection",
        "nbdkit: memory[1]: debug: offset: preconnect",
        "nbdkit: memory[1]: debug: memory: preconnect",
        "nbdkit: memory[1]: debug: newstyle negotiation: flags: global 0x3",
        "nbdkit: memory[1]: debug: newstyle negotiation: client flags: 0x",
        "_META_CONTEXT: client requested export ''",
        "nbdkit: memory[1]: debug: newstyle negotiation: NBD_OPT_SET_META_CONTEXT: set base:allocation",
        "nbdkit: memory[1]: debug: offset: open readonly=0 exportname=\"\" tls=0",
        "nbdkit: memory[1]: debug: memory: open readonly=0 exportname=\"\" tls=0",
        "nbdkit: memory[1]: debug: memory: open returned handle 0x",
        "nbdkit: memory[1]: debug: offset: open returned handle 0x",
        "nbdkit: memory[1]: debug: offset: get_size",
        "nbdkit: memory[1]: debug: memory: get_size",
        "nbdkit: memory[1]: debug: memory: can_write",
        "nbdkit: memory[1]: debug: newstyle negotiation: NBD_OPT_GO: client requested export ''",
        "nbdkit: memory[1]: debug: newstyle negotiation: flags: export 0x",
        "nbdkit: memory[1]: debug: replying to NBD_OPT_GO with NBD_REP_ACK",
        "debug: offset: pwrite count=512 offset=0 fua=1",
        "debug: memory: pwrite count=512 offset=4096 fua=1",
        "debug: memory: zero count=512 offset=4608 may_trim=0 fua=",
        "debug: memory: zero count=512 offset=4608 may_trim=1 fua=",
        "debug: memory: trim count=512 offset=4096 fua=",
        "debug: memory: pread count=512 offset=4096",
        "debug: memory: flush",
        "debug: client sent NBD_CMD_DISC, closing connection",
        "nbdkit: memory[1]: debug: offset: finalize",
        "nbdkit: memory[1]: debug: memory: finalize",
        "nbdkit: debug: offset: cleanup",
        "nbdkit: debug: memory: cleanup",
    ] {
        match text[at..].find(line) {
            Some(found) => at += found,
            None => panic!("'{line}' is missing, or too early:\n{text}"),
        }
    }
    // Two processes write then, in any order.
    assert!(text.contains("nbdkit: debug: forked into background (new pid = "));
    let quiet = [&["-D", "nbdkit.backend.datapath=0"][..], &words].concat();
    let output = ours(&place, &quiet).output().expect("runs");
    let text = errors(&output);
    assert!(
        text.contains(": open ") && !text.contains(": pwrite "),
        "{text}"
    );
}

#[test]
fn questions_are_answered_without_serving() {
    let place = Place::new();
    let ask = |words: &[&str]| run(&mut ours(&place, words));
    assert_eq!(ask(&["--version"]), "nbdkit 1.48.1\n");
    let version = "nbdkit 1.48.1\noffset 1.48.1\nmemory 1.48.1\n";
    assert_eq!(ask(&["-V", "--filter=offset", "memory"]), version);
    let config = ask(&["--dump-config"]);
    for line in [
        "name=nbdkit",
        "version=1.48.1",
        "version_minor=48",
        "host_os=linux-gnu",
    ] {
        assert!(
            config.lines().any(|known| known == line),
            "{line}: {config}"
        );
    }
    assert!(config.lines().is_sorted());
    let plugin = ask(&["--dump-plugin", "memory"]);
    for line in [
        "name=memory",
        "thread_model=parallel",
        "magic_config_key=size",
        "has_pwrite=1",
    ] {
        assert!(
            plugin.lines().any(|known| known == line),
            "{line}: {plugin}"
        );
    }
    assert!(ask(&["--help", "memory"]).contains("size=<SIZE> (required)"));
    assert!(ask(&["--help"]).contains("[-U|--unix SOCKET|-]"));
    if have(&["nbdkit"]) {
        // Ours is newer: it has all of theirs.
        for list in ["--short-options", "--long-options"] {
            let known = ask(&[list]);
            for option in run(&mut theirs(&place, &[list])).lines() {
                assert!(known.lines().any(|ours| ours == option), "{option}");
            }
        }
    }
}

#[test]
fn sockets_may_be_handed_over() {
    if !have(&["nbdinfo", "python3"]) {
        return;
    }
    let place = Place::new();
    // What systemd-socket-activate does, in a few words.
    let script = "import os, socket, sys\n\
                  s = socket.socket(socket.AF_UNIX)\n\
                  s.bind('s'); s.listen()\n\
                  os.dup2(s.fileno(), 3); os.set_inheritable(3, True)\n\
                  os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))\n\
                  os.execv(sys.argv[1], sys.argv[1:])\n";
    let program = ours(&place, &[]).get_program().to_owned();
    let mut server = place
        .command("python3")
        .args(["-c", script])
        .arg(program)
        .args(["memory", "3M"])
        .spawn()
        .expect("starts");
    // A file without a listener is there first.
    eventually("it listens", || {
        UnixStream::connect(place.path("s")).is_ok()
    });
    let uri = format!("nbd+unix:///?socket={}", place.path("s").display());
    let size = run(place.command("nbdinfo").args(["--size", &uri]));
    assert_eq!(size, "3145728\n");
    reactor::process::send_signal(server.id() as i32, reactor::process::TERMINATE).expect("sends");
    assert!(server.wait().expect("ends").success());
}

#[test]
fn privileges_are_given_up() {
    let place = Place::new();
    if fs::metadata("/proc/self").expect("proc").uid() != 0 {
        println!("SKIP: only root can become another user");
        return;
    }
    let show = "for p in $(cat /proc/$PPID/task/$PPID/children); do \
                test $p = $$ || cat /proc/$p/task/*/status; done | grep -E '^(Uid|Gid|Groups):'";
    let words = ["-u", "nobody", "-g", "12345", "memory", "1M", "--run", show];
    let text = run(&mut ours(&place, &words));
    // Every thread of the server, and nothing of root is left.
    assert!(text.contains("Gid:"), "{text}");
    for line in text.lines() {
        let mut ids = line.split_whitespace();
        let good = match ids.next() {
            Some("Uid:") => ids.all(|id| id != "0"),
            Some("Gid:") => ids.all(|id| id == "12345"),
            _ => ids.next().is_none(),
        };
        assert!(good, "{line}: {text}");
    }
    let error = "nbdkit: -u option: no one is not a valid user name or uid\n";
    let output = output(&mut ours(
        &place,
        &["-u", "no one", "null", "--run", "true"],
    ));
    assert_eq!(errors(&output), error);
}
