//! Our sources beside those of nbdkit of the same name: size, flags, extents and bytes, as nbdinfo
//! and nbdcopy see them. What is different, and why, is in one table.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::bench::{Place, eventually, have, output, program, run, told};

/// One source with parameters that both sides understand.
struct Case {
    words: &'static [&'static str],
    /// What the client asks for.
    export: &'static str,
    /// What can be compared beside size and flags.
    same: Same,
}

#[derive(Clone, Copy, PartialEq)]
enum Same {
    /// Neither: another generator, or a clock.
    Limits,
    /// Which ranges are data, and which are holes.
    Extents,
    /// Every byte, but not where the holes are: a page of memory is of another length.
    Contents,
    /// Both.
    Bytes,
}

const fn case(words: &'static [&'static str], same: Same) -> Case {
    Case {
        words,
        export: "",
        same,
    }
}

const fn named(export: &'static str, words: &'static [&'static str]) -> Case {
    Case {
        words,
        export,
        same: Same::Bytes,
    }
}

/// Of the data source: a bit of everything that version 1.32 knows too.
const PROGRAM: &str = r#"0 1 2 0x55*3 (le16:258 "a\n\x41")*1000 -> \name \name[5:700]
    @0x8000 # far away
    (1 2 @^512)*3 <one[100:200] @+100000 <(echo hello) @-3 7"#;

const CASES: &[Case] = &[
    case(&["null"], Same::Bytes),
    case(&["null", "1M"], Same::Bytes),
    case(&["null", "size=1000001"], Same::Bytes),
    case(&["ones", "1M"], Same::Bytes),
    case(&["ones", "size=12345", "byte=0x5a"], Same::Bytes),
    case(&["zero"], Same::Bytes),
    case(&["full", "1M"], Same::Bytes),
    case(&["full", "0"], Same::Bytes),
    case(&["pattern", "1M"], Same::Bytes),
    case(&["pattern", "size=1000003"], Same::Bytes),
    case(&["pattern", "7"], Same::Bytes),
    case(&["random", "1M", "seed=1"], Same::Extents),
    case(&["random", "0"], Same::Extents),
    case(&["sparse-random", "10M", "percent=0"], Same::Bytes),
    case(
        &["sparse-random", "10M", "percent=100", "seed=5"],
        Same::Extents,
    ),
    case(
        &["sparse-random", "100M", "percent=30", "seed=5"],
        Same::Limits,
    ),
    case(&["memory", "1M"], Same::Bytes),
    case(&["memory", "1M", "allocator=malloc"], Same::Bytes),
    // Not memory with zstd: nbdkit 1.32 crashes when it is asked for the extents of an empty one.
    case(&["data", PROGRAM], Same::Contents),
    case(
        &["data", PROGRAM, "size=1M", "allocator=zstd"],
        Same::Contents,
    ),
    case(&["data", "raw=abc", "size=5"], Same::Contents),
    case(&["data", "base64=aGVsbG8="], Same::Contents),
    case(&["data", "$again 3 $again", "again=1 2"], Same::Contents),
    case(&["split", "one", "two", "one"], Same::Bytes),
    case(&["partitioning", "one", "two"], Same::Contents),
    case(
        &[
            "partitioning",
            "partition-type=mbr",
            "alignment=2048",
            "mbr-id=0x0c",
            "one",
            "mbr-id=default",
            "two",
            "three",
            "one",
            "two",
        ],
        Same::Contents,
    ),
    case(&["partitioning", "partition-type=gpt", "one"], Same::Limits),
    named("", &["info"]),
    named("hello", &["info"]),
    named("a%20name", &["info", "mode=exportname"]),
    named("aGVsbG8=", &["info", "base64exportname"]),
    case(&["info", "address"], Same::Bytes),
    case(&["info", "time"], Same::Extents),
    case(&["info", "uptime"], Same::Extents),
    case(&["info", "conntime"], Same::Extents),
    case(&["example1"], Same::Limits),
    case(&["example3", "size=1M"], Same::Bytes),
    case(&["example4", "size=1M"], Same::Bytes),
];

/// Everything that nbdinfo tells of an export and that has to be the same.
const KEYS: &[&str] = &[
    "export-size",
    "is_read_only",
    "is_rotational",
    "can_trim",
    "can_zero",
    "can_fast_zero",
    "can_fua",
    "can_flush",
    "can_multi_conn",
    "can_cache",
];

const FILES: &str = "the parts are files, with all that our files can do";

/// What is different on purpose: source, what nbdinfo calls it, nbdkit's answer and ours, why.
const DIFFERENCES: &[(&str, &str, bool, bool, &str)] = &[
    // Until nbdkit 1.48, which verifies writes as we do.
    ("pattern", "is_read_only", true, false, "before 1.48"),
    ("pattern", "can_zero", false, true, "before 1.48"),
    ("pattern", "can_fast_zero", false, true, "before 1.48"),
    (
        "example1",
        "can_cache",
        false,
        true,
        "costs nothing: all of it is in memory",
    ),
    ("example3", "can_trim", false, true, "it is our memory disk"),
    (
        "example3",
        "can_flush",
        false,
        true,
        "it is our memory disk",
    ),
    ("example3", "can_fua", false, true, "it is our memory disk"),
    (
        "example3",
        "can_cache",
        false,
        true,
        "it is our memory disk",
    ),
    ("example4", "can_trim", false, true, "it is our memory disk"),
    (
        "example4",
        "can_flush",
        false,
        true,
        "it is our memory disk",
    ),
    ("example4", "can_fua", false, true, "it is our memory disk"),
    (
        "example4",
        "can_cache",
        false,
        true,
        "it is our memory disk",
    ),
    (
        "example4",
        "can_multi_conn",
        false,
        true,
        "all clients share the disk",
    ),
    ("split", "can_flush", false, true, FILES),
    ("split", "can_fua", false, true, FILES),
    ("split", "can_trim", false, true, FILES),
    ("split", "can_multi_conn", false, true, FILES),
    ("partitioning", "can_trim", false, true, FILES),
];

/// The files that cases name.
fn prepare(place: &Place) {
    place.noise("one", 100_000);
    place.sparse("two", 1 << 20);
    place.noise("three", 512);
}

/// A running nbdkit on the socket `n`; killed in the end.
struct Nbdkit(Child);

impl Nbdkit {
    /// `None`, with a note, if it lacks this plugin.
    fn start(place: &Place, options: &[&str], words: &[&str]) -> Option<Nbdkit> {
        let mut dump = place.command(program("nbdkit"));
        let dump = output(dump.args([words[0], "--dump-plugin"]));
        if !dump.status.success() {
            println!("SKIP: nbdkit has no plugin {}: {}", words[0], told(&dump));
            return None;
        }
        let socket = place.path("n");
        let _ = fs::remove_file(&socket);
        let child = place
            .command(program("nbdkit"))
            .args(["-f", "--exit-with-parent", "-U", "n"])
            .args(options)
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("nbdkit starts");
        let started = Nbdkit(child);
        eventually("nbdkit listens", || testkit::listens(&socket));
        Some(started)
    }
}

impl Drop for Nbdkit {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a server shows of an export.
struct Shown {
    info: Value,
    map: Vec<(u64, u64)>,
    bytes: Vec<u8>,
}

impl Shown {
    fn of(place: &Place, socket: &str, export: &str) -> Shown {
        let path = place.path(socket);
        let uri = format!("nbd+unix:///{export}?socket={}", path.display());
        let json = |command: &mut Command| -> Value {
            serde_json::from_str(&run(command.arg(&uri))).expect("JSON")
        };
        let info = json(place.command("nbdinfo").arg("--json"));
        let map = json(place.command("nbdinfo").args(["--json", "--map"]));
        let mut runs = Vec::<(u64, u64)>::new();
        for extent in map.as_array().expect("a list") {
            let number = |key: &str| extent[key].as_u64().expect(key);
            match runs.last_mut() {
                Some(last) if last.1 == number("type") => last.0 += number("length"),
                _ => runs.push((number("length"), number("type"))),
            }
        }
        run(place.command("nbdcopy").args([&uri, "copy"]));
        let bytes = fs::read(place.path("copy")).expect("reads");
        fs::remove_file(place.path("copy")).expect("removes");
        Shown {
            info: info["exports"][0].clone(),
            map: runs,
            bytes,
        }
    }
}

fn compare(case: &Case, theirs: &Shown, ours: &Shown, read_only: bool) {
    let what = format!("{:?} {:?} read-only={read_only}", case.words, case.export);
    for key in KEYS {
        let (theirs, ours) = (&theirs.info[key], &ours.info[key]);
        let expected = DIFFERENCES.iter().any(|(source, flag, nbdkit, blkit, _)| {
            (source, flag) == (&case.words[0], key) && *theirs == *nbdkit && *ours == *blkit
        });
        assert!(
            theirs == ours || expected,
            "{what}: {key}: nbdkit {theirs}, blkit {ours}"
        );
    }
    if matches!(case.same, Same::Extents | Same::Bytes) {
        assert_eq!(theirs.map, ours.map, "{what}: extents");
    }
    if matches!(case.same, Same::Contents | Same::Bytes) {
        assert!(theirs.bytes == ours.bytes, "{what}: bytes");
    }
}

/// Every fourth case from the first that is meant: they take their time, and can be taken at once.
fn sources_are_those_of_nbdkit(first: usize) {
    if !have(&["nbdkit", "nbdinfo", "nbdcopy"]) {
        return;
    }
    for case in CASES.iter().skip(first).step_by(4) {
        for read_only in [false, true] {
            let place = Place::new();
            prepare(&place);
            let options: &[&str] = if read_only { &["-r"] } else { &[] };
            let Some(nbdkit) = Nbdkit::start(&place, options, case.words) else {
                break;
            };
            let theirs = Shown::of(&place, "n", case.export);
            drop(nbdkit);
            let server = place.serve_here(&[options, case.words].concat());
            let ours = Shown::of(&place, "s", case.export);
            server.stop();
            compare(case, &theirs, &ours, read_only);
        }
    }
}

#[test]
fn sources_are_those_of_nbdkit_first_quarter() {
    sources_are_those_of_nbdkit(0);
}

#[test]
fn sources_are_those_of_nbdkit_second_quarter() {
    sources_are_those_of_nbdkit(1);
}

#[test]
fn sources_are_those_of_nbdkit_third_quarter() {
    sources_are_those_of_nbdkit(2);
}

#[test]
fn sources_are_those_of_nbdkit_last_quarter() {
    sources_are_those_of_nbdkit(3);
}

/// The name of a differing flag that nobody knows would hide nothing and say something wrong.
#[test]
fn differences_are_of_cases() {
    for (source, flag, nbdkit, blkit, why) in DIFFERENCES {
        assert!(CASES.iter().any(|case| case.words[0] == *source));
        assert!(KEYS.contains(flag) && nbdkit != blkit && !why.is_empty());
    }
}

/// What the verifying sources are for: a copy of each to itself.
#[test]
fn verified_copies_go_through() {
    if !have(&["nbdcopy"]) {
        return;
    }
    let place = Place::new();
    for words in [
        &["pattern", "20M", "stride=4k", "upper=random"][..],
        &["random", "20M"],
        &["random", "20M", "fast=true"],
        &["sparse-random", "1G", "runlength=1M"],
        &[
            "sparse-random",
            "64M",
            "percent=50",
            "random-content=true",
            "blocksize=512",
        ],
    ] {
        let server = place.serve_here(words);
        run(place.command("nbdcopy").args([&server.uri, &server.uri]));
        server.stop();
    }
    // And of another disk, which does not.
    place.noise("disk.img", 1 << 20);
    let server = place.serve_here(&["random", "1M"]);
    let output = output(place.command("nbdcopy").args(["disk.img", &server.uri]));
    assert!(!output.status.success(), "{}", told(&output));
    server.stop();
}

#[test]
fn parameters_can_come_from_a_file() {
    if !have(&["nbdinfo"]) {
        return;
    }
    let place = Place::new();
    fs::create_dir(place.path("more")).expect("creates");
    fs::write(place.path("words"), "# a comment\n\n  byte=7\n@more/size\n").expect("writes");
    fs::write(place.path("more/size"), "size=3M\n").expect("writes");
    let server = place.serve_here(&["ones", "@./words"]);
    let size = run(place.command("nbdinfo").args(["--size", &server.uri]));
    assert_eq!(size, "3145728\n");
    server.stop();
    let output = output(&mut place.blkit(&["serve", "ones", "@./none"]));
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    let wanted = "blkit: error: @./none: No such file or directory";
    assert!(error.starts_with(wanted), "{error}");
}
