//! Disks for virtual machines: `blkit serve --vhost-user`.

use std::{
    fs,
    io::{Read, Write},
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::{
    bench::{Place, have, output, wait},
    raw::Raw,
};

/// A boot sector: the BIOS reads it from the disk and runs it. It reads the next sector, adds 1 to
/// its first byte, writes it back, and ends the machine with that byte.
const BOOT: &[u8] = &[
    0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0,
    0xfb, // cli; xor ax,ax; mov ds,ax; mov es,ax; sti
    0xb8, 0x01, 0x02, 0xb9, 0x02, 0x00, 0xb6, 0x00, // mov ax,0x0201; mov cx,2; mov dh,0
    0xbb, 0x00, 0x80, 0xcd, 0x13, // mov bx,0x8000; int 0x13
    0xfe, 0x06, 0x00, 0x80, // inc byte [0x8000]
    0xb8, 0x01, 0x03, 0xb9, 0x02, 0x00, 0xb6, 0x00, // mov ax,0x0301; mov cx,2; mov dh,0
    0xbb, 0x00, 0x80, 0xcd, 0x13, // mov bx,0x8000; int 0x13
    0xa0, 0x00, 0x80, 0xba, 0xf4, 0x00, 0xee, // mov al,[0x8000]; mov dx,0xf4; out dx,al
    0xf4, // hlt
];

/// A disk of 1 MiB that boots, with 20 in its second sector.
fn bootable(place: &Place) -> std::path::PathBuf {
    let mut image = vec![0; 1 << 20];
    image[..BOOT.len()].copy_from_slice(BOOT);
    image[510..512].copy_from_slice(&[0x55, 0xaa]);
    image[512] = 20;
    let path = place.path("disk.img");
    fs::write(&path, image).expect("writes");
    path
}

/// A machine that boots from the disk behind a socket.
fn boot(place: &Place, socket: &Path, device: &str) -> Child {
    let chardev = format!("socket,id=c,path={}", socket.display());
    let device = format!("vhost-user-blk-pci,chardev=c,bootindex=1,disable-legacy=on{device}");
    let mut command: Command = place.command("qemu-system-x86_64");
    command.args(["-machine", "pc,accel=tcg,memory-backend=m", "-m", "64"]);
    command.args(["-object", "memory-backend-memfd,id=m,size=64M,share=on"]);
    command.args(["-chardev", &chardev, "-device", &device]);
    command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=1"]);
    command.args([
        "-nodefaults",
        "-display",
        "none",
        "-no-reboot",
        "-net",
        "none",
    ]);
    command.stdin(Stdio::null()).spawn().expect("starts")
}

/// The byte that the machine ended with.
fn booted(mut qemu: Child) -> i32 {
    // isa-debug-exit: 2 * byte + 1.
    wait(&mut qemu).code().expect("it exits") / 2
}

#[test]
fn a_machine_boots_while_nbd_serves_the_same_disk() {
    if !have(&["qemu-system-x86_64"]) {
        return;
    }
    for driver in ["auto", "poll"] {
        let place = Place::new();
        let disk = bootable(&place);
        let words = ["--io", driver, "--sandbox", "disk.img", "--vhost-user", "v"];
        let server = place.serve_here(&words);
        assert_eq!(booted(boot(&place, &place.path("v"), "")), 21);
        assert_eq!(booted(boot(&place, &place.path("v"), ",packed=on")), 22);
        assert_eq!(booted(boot(&place, &place.path("v"), ",num-queues=4")), 23);
        let mut raw = Raw::connect(&place.path("s"));
        raw.ask_read(512, 1);
        assert_eq!(raw.answer(1), Ok(vec![23]));
        drop(raw);
        server.signal(reactor::process::TERMINATE);
        let path = place.path("v").display().to_string();
        let (status, errors, more) = server.end_with_output();
        assert!(status.success() && errors.is_empty(), "{errors}");
        assert_eq!(more.trim_end(), path, "the second line is its socket");
        assert_eq!(fs::read(disk).expect("reads")[512], 23);
        assert_eq!(place.names(), ["disk.img"], "nothing stays behind");
    }
}

#[test]
fn without_more_only_vhost_user_is_served() {
    let place = Place::new();
    let server = place.serve(&["null", "1M", "--vhost-user", "v,num-queues=2"]);
    assert_eq!(server.uri, place.path("v").display().to_string());
    assert_eq!(place.names(), ["v"]);
    // One that connects and says nothing does not keep the server.
    let silent = std::os::unix::net::UnixStream::connect(place.path("v")).expect("connects");
    server.stop();
    drop(silent);
    assert_eq!(place.names(), [""; 0]);
}

/// Starts the server with a socket as its descriptor 3, and variables of the shell in front.
fn hand_over(place: &Place, socket: OwnedFd, variables: &str, words: &[&str]) -> Child {
    let script = format!("exec 3<&0 </dev/null && {variables} exec \"$@\"");
    let mut command = place.command("sh");
    command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_blkit"), "serve"]);
    command.args(words).stdin(socket).spawn().expect("starts")
}

/// Asks the back-end for its features (GET_FEATURES), as a front-end does first.
fn answers(mut socket: &UnixStream) -> bool {
    let mut header = [1u32, 1, 0].map(u32::to_ne_bytes).concat();
    socket.write_all(&header).expect("sends");
    header.resize(20, 0);
    socket.read_exact(&mut header).is_ok()
}

#[test]
fn a_connected_socket_is_served_to_its_end() {
    let place = Place::new();
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let words = ["null", "1M", "--vhost-user", "fd=3"];
    let mut server = hand_over(&place, theirs.into(), "", &words);
    assert!(answers(&ours));
    drop(ours);
    assert!(wait(&mut server).success());
}

#[test]
fn listening_sockets_are_handed_over() {
    let cases = [
        ("", "fd=3"),
        ("LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=disk", "fd=disk"),
        ("LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=vhost-user", ""),
    ];
    for (variables, disk) in cases {
        let place = Place::new();
        let listener = UnixListener::bind(place.path("v")).expect("binds");
        let socket = listener.try_clone().expect("copies").into();
        let words = ["null", "1M", "--vhost-user", disk];
        let words = if disk.is_empty() { &words[..2] } else { &words };
        let variables = match variables {
            "" => String::new(),
            some => format!("export {some} &&"),
        };
        let mut server = hand_over(&place, socket, &variables, words);
        // It waits in the queue until the server is there.
        let front_end = UnixStream::connect(place.path("v")).expect("connects");
        assert!(answers(&front_end), "{variables}");
        let pid = server.id() as i32;
        reactor::process::send_signal(pid, reactor::process::TERMINATE).expect("sends");
        assert!(wait(&mut server).success());
        assert_eq!(place.names(), ["v"], "the file is not the server's");
    }
}

#[test]
fn sockets_that_are_handed_over_serve_nbd_unless_they_are_named() {
    let place = Place::new();
    let listener = UnixListener::bind(place.path("n")).expect("binds");
    let variables = "export LISTEN_PID=$$ LISTEN_FDS=1 &&";
    let words = ["null", "1M", "--vhost-user", "v"];
    let mut server = hand_over(&place, listener.into(), variables, &words);
    assert_eq!(Raw::connect(&place.path("n")).size, 1 << 20);
    let front_end = UnixStream::connect(place.path("v")).expect("connects");
    assert!(answers(&front_end));
    let pid = server.id() as i32;
    reactor::process::send_signal(pid, reactor::process::TERMINATE).expect("sends");
    assert!(wait(&mut server).success());
}

#[test]
fn what_cannot_be_handed_over_is_told() {
    let place = Place::new();
    for (words, told) in [
        (&["--vhost-user", "fd=77"][..], "fd=77: Bad file descriptor"),
        (&["--vhost-user", "fd=disk0"], "no socket of that name"),
        (
            &["--vhost-user", "v,num-queues=0"],
            "num-queues must be 1 to 256",
        ),
    ] {
        let words = [&["serve", "null", "1M"][..], words].concat();
        let output = output(&mut place.blkit(&words));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1));
        assert!(errors.contains(told), "{errors}");
    }
}

#[test]
fn a_server_that_was_killed_leaves_no_obstacle() {
    let place = Place::new();
    let words = ["null", "1M", "--vhost-user", "v"];
    let first = place.serve(&words);
    let refused = output(&mut place.blkit(&[&["serve"][..], &words].concat()));
    let errors = String::from_utf8_lossy(&refused.stderr);
    assert!(errors.contains("another server listens there"), "{errors}");
    drop(first);
    assert_eq!(place.names(), ["v"], "it had no time to remove it");
    let second = place.serve(&words);
    let front_end = UnixStream::connect(place.path("v")).expect("connects");
    assert!(answers(&front_end));
    second.stop();
    assert_eq!(place.names(), [""; 0]);
}

#[test]
fn a_disk_that_cannot_be_opened_keeps_the_server_from_starting() {
    let place = Place::new();
    fs::create_dir(place.path("d")).expect("makes");
    let words = ["serve", "./d", "--vhost-user", "v,export=nosuch"];
    let output = output(&mut place.blkit(&words));
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("nosuch"), "{errors}");
    assert_eq!(place.names(), ["d"]);
}

#[test]
fn a_command_is_told_of_the_socket() {
    let place = Place::new();
    let script = "test -S \"$vhostuser\" && test -z \"$uri\" && echo \"$vhostuser\"";
    let words = ["serve", "null", "1M", "--vhost-user", "-", "--run", script];
    let told = crate::bench::run(&mut place.blkit(&words));
    assert!(told.trim_end().ends_with("/socket"), "{told}");
    assert_eq!(place.names(), [""; 0]);
}

#[test]
fn the_program_of_that_name_keeps_the_conventions() {
    let place = Place::new();
    crate::bench::run(&mut place.blkit(&["link", "."]));
    let program = place.path("vhost-user-blk");
    let told = crate::bench::run(place.command(&program).arg("--print-capabilities"));
    let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    let features: Vec<_> = told["features"]
        .as_array()
        .expect("a list")
        .iter()
        .collect();
    assert_eq!(features, ["read-only", "blk-file"]);
    // The descriptor that management software looks for.
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../share/vhost-user/50-blkit-vhost-user-blk.json"
    );
    let text = fs::read_to_string(path).expect("reads");
    let descriptor: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(descriptor["type"], told["type"]);
    let binary = Path::new(descriptor["binary"].as_str().expect("a path"));
    assert!(binary.is_absolute() && binary.file_name() == program.file_name());
    assert!(descriptor["description"].is_string());

    place.sparse("disk.img", 1 << 20);
    let words = ["--socket-path=v", "--blk-file=disk.img", "--read-only"];
    let mut server = place.command(&program).args(words).spawn().expect("starts");
    crate::bench::eventually("it listens", || {
        UnixStream::connect(place.path("v")).is_ok()
    });
    let pid = server.id() as i32;
    reactor::process::send_signal(pid, reactor::process::TERMINATE).expect("sends");
    assert!(wait(&mut server).success());
    assert!(!place.path("v").exists());
}
