//! Other people's binaries on our library: `LD_LIBRARY_PATH` puts it before libblkio's.
//!
//! Each test also looks whether the loader really took ours.

use std::{fs, process::Command};

use crate::{
    lab::{Place, have, ours, output, stdout_of},
    programs::Driver,
};

/// A program that gets our library, and whose loader tells what it loads.
fn swapped(place: &Place, program: &str) -> Command {
    let mut command = place.command(program);
    command
        .env("LD_LIBRARY_PATH", &ours().lib)
        .env("LD_DEBUG", "files")
        .env("LD_DEBUG_OUTPUT", place.path("loader"));
    command
}

/// Asserts that what ran last in `place` had our library.
fn assert_ours(place: &Place) {
    let ours = ours().lib.join("libblkio.so.1");
    let wanted = format!("calling init: {}", ours.display());
    let loader = place.path("loader");
    let folder = loader.parent().expect("a folder");
    let loaded = fs::read_dir(folder).expect("lists").any(|entry| {
        let entry = entry.expect("an entry");
        let is_told = entry.file_name().to_string_lossy().starts_with("loader.");
        is_told && fs::read_to_string(entry.path()).is_ok_and(|text| text.contains(&wanted))
    });
    assert!(loaded, "nobody loaded {}", ours.display());
}

/// Bytes that repeat at no power of two.
fn noise(size: usize) -> Vec<u8> {
    (0..size)
        .map(|i| ((i * 7 + i / 251) % 253) as u8 + 1)
        .collect()
}

/// The words for a driver: its name, and its path.
fn words(driver: Driver, place: &Place) -> (String, String, Option<crate::lab::Server>) {
    let (words, server) = driver.setup(place);
    let word = |at: usize| words[at].to_str().expect("UTF-8").to_owned();
    (word(0), word(1), server)
}

/// Copies in and out by way of nbdkit's plugin.
fn nbdkits_plugin(driver: Driver) {
    if !have(&["cc", "nbdkit", "nbdcopy"]) || !driver.is_there() {
        return;
    }
    let place = Place::new();
    let probe = output(place.command("nbdkit").args(["--dump-plugin", "blkio"]));
    if !probe.status.success() {
        println!("SKIP: nbdkit has no plugin blkio");
        return;
    }
    let (driver, path, _server) = words(driver, &place);
    let bytes = noise(crate::lab::SIZE);
    fs::write(place.path("in"), &bytes).expect("writes");
    // The copier needs no swapped library; the server between has ours.
    let plain = "env -u LD_LIBRARY_PATH -u LD_DEBUG nbdcopy";
    let job = format!("{plain} in \"$uri\" && {plain} \"$uri\" out");
    let mut command = swapped(&place, "nbdkit");
    command.args([
        "-U",
        "-",
        "blkio",
        &driver,
        &format!("path={path}"),
        "--run",
        &job,
    ]);
    stdout_of(&mut command);
    assert!(fs::read(place.path("out")).expect("reads") == bytes);
    assert_ours(&place);
}

#[test]
fn nbdkits_plugin_with_io_uring() {
    nbdkits_plugin(Driver::IoUring);
}

#[test]
fn nbdkits_plugin_with_vhost_user() {
    nbdkits_plugin(Driver::VhostUser);
}

/// Copies and checks by way of QEMU's drivers.
fn qemus_driver(driver: Driver) {
    if !have(&["cc", "qemu-img", "qemu-io"]) || !driver.is_there() {
        return;
    }
    let place = Place::new();
    let (driver, path, _server) = words(driver, &place);
    let key = if driver == "io_uring" {
        "filename"
    } else {
        "path"
    };
    let options = format!("driver={driver},{key}={path},cache.direct=off");
    let probe = output(
        place
            .command("qemu-img")
            .args(["info", "--image-opts", &options]),
    );
    if String::from_utf8_lossy(&probe.stderr).contains("Unknown driver") {
        println!("SKIP: QEMU has no driver {driver}");
        return;
    }
    let bytes = noise(crate::lab::SIZE);
    fs::write(place.path("in"), &bytes).expect("writes");
    let mut write = swapped(&place, "qemu-img");
    write.args([
        "convert",
        "-n",
        "-f",
        "raw",
        "--target-image-opts",
        "in",
        &options,
    ]);
    stdout_of(&mut write);
    let mut read = swapped(&place, "qemu-img");
    read.args(["convert", "-O", "raw", "--image-opts", &options, "out"]);
    stdout_of(&mut read);
    assert!(fs::read(place.path("out")).expect("reads") == bytes);
    let mut io = swapped(&place, "qemu-io");
    io.args(["--image-opts", &options]);
    for job in [
        "write -P 7 64k 128k",
        "write -z 96k 32k",
        "flush",
        "read -P 7 64k 32k",
        "read -P 0 96k 32k",
    ] {
        io.args(["-c", job]);
    }
    let said = stdout_of(&mut io);
    assert!(!said.contains("failed"), "{said}");
    assert_ours(&place);
}

#[test]
fn qemus_driver_with_io_uring() {
    qemus_driver(Driver::IoUring);
}

#[test]
fn qemus_driver_with_vhost_user() {
    qemus_driver(Driver::VhostUser);
}
