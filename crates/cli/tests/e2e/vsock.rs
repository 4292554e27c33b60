//! Sockets of virtual machines. Most machines that run tests have no way from a vsock to itself; the
//! module `vsock_loopback` is that way.

use std::{fs, path::Path};

use crate::{
    bench::{Place, eventually, have, run},
    info::called,
    nbdkit::ours,
};

/// The port of NBD, for nobody chose another one.
const URI: &str = "nbd+vsock://1/";

#[test]
fn a_server_is_reached_over_vsock() {
    if !Path::new("/sys/module/vsock_loopback").exists() {
        println!("SKIP: this kernel has no vsock_loopback");
        return;
    }
    let place = Place::new();
    let words = ["-f", "--vsock", "-P", "pid", "memory", "3M"];
    let mut server = ours(&place, &words).spawn().expect("starts");
    eventually("the server", || place.path("pid").exists());
    let size = |mut command: std::process::Command| run(command.args(["--size", URI]));
    assert_eq!(size(called(&place, "nbdinfo")).trim(), "3145728");
    if have(&["nbdinfo"]) {
        assert_eq!(size(place.command("nbdinfo")).trim(), "3145728");
    }
    let disk = place.noise("disk.img", 3 << 20);
    run(called(&place, "nbdcopy").args(["disk.img", URI]));
    // As a source, too.
    let b = place.serve_here(&["nbd", "vsock=1", "connections=4"]);
    run(called(&place, "nbdcopy").args([&b.uri, "copy.img"]));
    b.stop();
    assert!(fs::read(disk).expect("reads") == fs::read(place.path("copy.img")).expect("reads"));
    server.kill().expect("kills");
    server.wait().expect("ends");
}
