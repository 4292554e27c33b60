//! Whole disks, out and in.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use crate::bench::{Place, have, output, program, run, told};

#[test]
fn nbdcopy_reads_and_writes_all_of_it() {
    if !have(&["nbdcopy"]) {
        return;
    }
    let place = Place::new();
    // No multiple of any block size.
    place.noise("disk.img", (4 << 20) + 12345);
    let server = place.serve_here(&["disk.img"]);
    run(place.command("nbdcopy").args([&server.uri, "out.img"]));
    server.stop();
    place.sparse("in.img", (4 << 20) + 12345);
    let server = place.serve_here(&["in.img"]);
    run(place
        .command("nbdcopy")
        .args(["--flush", "disk.img", &server.uri]));
    server.stop();
    let original = fs::read(place.path("disk.img")).expect("reads");
    for copy in ["out.img", "in.img"] {
        assert!(
            fs::read(place.path(copy)).expect("reads") == original,
            "{copy} differs"
        );
    }
}

/// A real file system of real files goes through a server and back, and is still sound.
#[test]
fn a_file_system_survives_the_journey() {
    if !have(&["mke2fs", "e2fsck", "nbdcopy", "cmp"]) {
        return;
    }
    let place = Place::new();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the folder of crates");
    let sources = sources.to_str().expect("UTF-8");
    // Most of it holes either way; large, it takes minutes on a slow machine.
    let size = match std::env::var_os("BLKIT_TEST_FULL") {
        Some(_) => 2u64 << 30,
        None => 256 << 20,
    };
    place.sparse("disk.img", size);
    run(place
        .command(program("mke2fs"))
        .args(["-q", "-t", "ext4", "-d", sources, "disk.img"]));

    let server = place.serve_here(&["-r", "disk.img"]);
    run(place.command("nbdcopy").args([&server.uri, "out.img"]));
    server.stop();
    run(place.command("cmp").args(["disk.img", "out.img"]));

    place.sparse("in.img", size);
    let server = place.serve_here(&["in.img"]);
    run(place
        .command("nbdcopy")
        .args(["--flush", "disk.img", &server.uri]));
    server.stop();
    run(place.command("cmp").args(["disk.img", "in.img"]));
    for copy in ["out.img", "in.img"] {
        let output = output(place.command(program("e2fsck")).args(["-f", "-n", copy]));
        assert!(output.status.success(), "{copy}: {}", told(&output));
        let allocated = fs::metadata(place.path(copy)).expect("exists").blocks() * 512;
        assert!(
            allocated < size / 2,
            "{copy} is not sparse any more: {allocated} bytes"
        );
    }
}
