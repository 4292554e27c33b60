//! Other people's clients: what they say about what we serve, and what they verify.

use std::fs;

use serde_json::Value;

use crate::bench::{Place, have, output, run, told};

/// What nbdinfo says about the first export.
fn nbdinfo(place: &Place, uri: &str) -> Value {
    let text = run(place.command("nbdinfo").args(["--json", uri]));
    let json: Value = serde_json::from_str(&text).expect("JSON");
    json["exports"][0].clone()
}

#[test]
fn nbdinfo_sees_what_is_offered() {
    if !have(&["nbdinfo"]) {
        return;
    }
    let place = Place::new();
    let server = place.serve_here(&["memory", "10M"]);
    let export = nbdinfo(&place, &server.uri);
    assert_eq!(export["export-size"], 10 << 20);
    assert_eq!(export["is_read_only"], false);
    for can in [
        "can_flush",
        "can_fua",
        "can_multi_conn",
        "can_trim",
        "can_zero",
        "can_df",
    ] {
        assert_eq!(export[can], true, "{can}: {export}");
    }
    let contexts = export["contexts"].as_array().expect("contexts");
    assert!(contexts.contains(&"base:allocation".into()), "{export}");
    server.stop();

    let server = place.serve_here(&["-r", "memory", "10M"]);
    let export = nbdinfo(&place, &server.uri);
    assert_eq!(export["is_read_only"], true);
    for can in ["can_trim", "can_zero", "can_fua"] {
        assert_eq!(export[can], false, "{can}: {export}");
    }
    server.stop();
}

#[test]
fn nbdinfo_lists_a_directory() {
    if !have(&["nbdinfo"]) {
        return;
    }
    let place = Place::new();
    let images = place.path("images");
    fs::create_dir(&images).expect("creates");
    for (name, size) in [
        ("a.img", 1 << 20),
        ("b \u{e4}.img", 2 << 20),
        ("c", 3 << 20),
    ] {
        fs::File::create(images.join(name))
            .expect("creates")
            .set_len(size)
            .expect("sets");
    }
    fs::create_dir(images.join("no-disk")).expect("creates");
    let server = place.serve_here(&["-r", "images"]);
    let text = run(place
        .command("nbdinfo")
        .args(["--json", "--list", &server.uri]));
    let json: Value = serde_json::from_str(&text).expect("JSON");
    let exports = json["exports"].as_array().expect("a list");
    let mut listed: Vec<(String, u64)> = exports
        .iter()
        .map(|export| {
            let name = export["export-name"].as_str().expect("a name").to_owned();
            (name, export["export-size"].as_u64().expect("a size"))
        })
        .collect();
    listed.sort();
    let expected = [
        ("a.img", 1u64 << 20),
        ("b \u{e4}.img", 2 << 20),
        ("c", 3 << 20),
    ];
    assert_eq!(listed, expected.map(|(name, size)| (name.to_owned(), size)));
    // By name; and not by the name of something outside, or of no disk.
    let base = server.uri.replace("/?", "/c?");
    assert_eq!(
        run(place.command("nbdinfo").args(["--size", &base])),
        "3145728\n"
    );
    for name in ["nothing", "no-disk", "..%2Fimages%2Fc", "%2Fetc%2Fpasswd"] {
        let uri = server.uri.replace("/?", &format!("/{name}?"));
        let output = output(place.command("nbdinfo").args(["--size", &uri]));
        assert!(!output.status.success(), "{name}: {}", told(&output));
    }
    server.stop();
}

#[test]
fn nbdinfo_maps_holes() {
    if !have(&["nbdinfo"]) {
        return;
    }
    let place = Place::new();
    let disk = place.sparse("disk.img", 4 << 20);
    let file = fs::File::options().write(true).open(disk).expect("opens");
    std::os::unix::fs::FileExt::write_all_at(&file, &[1; 65536], 1 << 20).expect("writes");
    file.sync_all().expect("syncs");
    let server = place.serve_here(&["disk.img"]);
    let text = run(place
        .command("nbdinfo")
        .args(["--map", "--json", &server.uri]));
    let map: Value = serde_json::from_str(&text).expect("JSON");
    let extents = map.as_array().expect("a list");
    let mut offset = 0;
    for extent in extents {
        assert_eq!(extent["offset"], offset, "{text}");
        let length = extent["length"].as_u64().expect("a length");
        let overlaps = offset < (1 << 20) + 65536 && offset + length > 1 << 20;
        // Data must be told as data; a hole may be, on file systems that know none.
        assert!(!overlaps || extent["type"] == 0, "{text}");
        offset += length;
    }
    assert_eq!(offset, 4 << 20, "{text}");
    server.stop();
}

#[test]
fn qemu_img_compares_maps_and_converts() {
    if !have(&["qemu-img"]) {
        return;
    }
    let place = Place::new();
    place.noise("disk.img", 8 << 20);
    // qemu-img's own form of the address: its parser of URIs is another one.
    let uri = format!("nbd+unix:///?socket={}", place.path("s").display());
    let qemu = |words: &[&str]| run(place.command("qemu-img").args(words));
    // Our lock on a disk that may be written keeps everybody else out, QEMU too.
    let server = place.serve_here(&["-r", "disk.img"]);
    qemu(&["compare", "-f", "raw", "-F", "raw", "disk.img", &uri]);
    server.stop();
    let server = place.serve_here(&["disk.img"]);
    let info: Value = serde_json::from_str(&qemu(&["info", "--output=json", &uri])).expect("JSON");
    assert_eq!(info["virtual-size"], 8 << 20);
    let map: Value = serde_json::from_str(&qemu(&["map", "--output=json", &uri])).expect("JSON");
    let mapped: u64 = map
        .as_array()
        .expect("a list")
        .iter()
        .map(|extent| extent["length"].as_u64().expect("a length"))
        .sum();
    assert_eq!(mapped, 8 << 20);
    qemu(&["convert", "-f", "raw", "-O", "qcow2", &uri, "copy.qcow2"]);
    qemu(&[
        "compare",
        "-F",
        "qcow2",
        "-f",
        "raw",
        "disk.img",
        "copy.qcow2",
    ]);
    server.stop();

    // And in: into a disk of ours, then compared by bytes.
    place.sparse("target.img", 8 << 20);
    let server = place.serve_here(&["target.img"]);
    qemu(&[
        "convert",
        "-n",
        "-f",
        "qcow2",
        "-O",
        "raw",
        "copy.qcow2",
        &uri,
    ]);
    server.stop();
    let same = fs::read(place.path("disk.img")).expect("reads")
        == fs::read(place.path("target.img")).expect("reads");
    assert!(same, "the copy differs");
}

#[test]
fn cow_keeps_the_disk_and_shows_the_changes() {
    if !have(&["qemu-io"]) {
        return;
    }
    let place = Place::new();
    let disk = place.noise("disk.img", 4 << 20);
    let before = fs::read(&disk).expect("reads");
    let server = place.serve_here(&["--filter", "cow", "disk.img"]);
    let uri = format!("nbd+unix:///?socket={}", place.path("s").display());
    let io = |commands: &[&str]| {
        let mut command = place.command("qemu-io");
        command.args(["-f", "raw"]);
        commands.iter().for_each(|text| {
            command.args(["-c", text]);
        });
        run(command.arg(&uri))
    };
    io(&[
        "write -P 0xaa 100k 300k",
        "write -z 1M 64k",
        "discard 2M 64k",
        "flush",
    ]);
    let read = io(&["read -P 0xaa 100k 300k", "read -P 0 1M 64k"]);
    assert!(!read.contains("verification failed"), "{read}");
    server.stop();
    assert!(
        fs::read(&disk).expect("reads") == before,
        "the disk was changed"
    );
    assert_eq!(place.names(), ["disk.img"]);
}

#[test]
fn fio_verifies_what_it_wrote() {
    if !have(&["fio"]) {
        return;
    }
    let place = Place::new();
    let engines = run(place.command("fio").arg("--enghelp"));
    if !engines.split_whitespace().any(|engine| engine == "nbd") {
        println!("SKIP: this fio has no nbd engine");
        return;
    }
    place.sparse("disk.img", 16 << 20);
    for source in [
        &["disk.img"][..],
        &["memory", "16M"],
        &["--filter", "cow", "disk.img"],
    ] {
        let server = place.serve_here(source);
        let uri = format!("--uri=nbd+unix:///?socket={}", place.path("s").display());
        let mut fio = place.command("fio");
        fio.args([
            "--name=verify",
            "--ioengine=nbd",
            &uri,
            "--rw=randrw",
            "--bs=4k",
        ])
        .args([
            "--size=16M",
            "--iodepth=16",
            "--verify=crc32c",
            "--verify_fatal=1",
        ])
        .args([
            "--randseed=7",
            "--verify_state_save=0",
            "--output-format=terse",
        ]);
        let output = output(&mut fio);
        assert!(output.status.success(), "{source:?}: {}", told(&output));
        server.stop();
    }
}
