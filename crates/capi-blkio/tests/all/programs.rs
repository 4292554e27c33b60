//! The programs of `tests/c`, with each driver that works on any machine. Beside each lies what
//! libblkio 1.5.0 makes it print; ours must print the same, but for [`DIFFERENCES`]. Where that
//! libblkio is installed, it must print the same here, too. And once more below valgrind.

use std::{ffi::OsString, fs, path::Path};

use crate::lab::{Library, Place, Server, have, have_io_uring, ours, stdout_of, system};

/// Where we differ on purpose.
struct Difference {
    program: &'static str,
    driver: Driver,
    theirs: &'static str,
    ours: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    IoUring,
    VhostUser,
}
use Driver::{IoUring, VhostUser};

/// The reasons stand in docs/libblkio.md.
const DIFFERENCES: &[Difference] = &[
    // One answer for all drivers, and all calls that need a started disk.
    Difference {
        program: "life",
        driver: IoUring,
        theirs: "blkio_map_mem_region (b, &region) = ENODEV [Device must be connected]",
        ours: "blkio_map_mem_region (b, &region) = EBUSY [Device must be started]",
    },
    // Discarding works on files,
    Difference {
        program: "requests",
        driver: IoUring,
        theirs: "write zeroes: 0\ndiscard: EOPNOTSUPP [no text]",
        ours: "write zeroes: 0\ndiscard: 0",
    },
    // and not for those who may only read.
    Difference {
        program: "requests",
        driver: IoUring,
        theirs: "discard: EOPNOTSUPP [no text]",
        ours: "discard: EBADF [device is read-only]",
    },
    // Closed on exec, as the manual says.
    Difference {
        program: "regions",
        driver: IoUring,
        theirs: "fcntl (r.fd, F_GETFD) : -1 = 0",
        ours: "fcntl (r.fd, F_GETFD) : -1 = 1",
    },
    Difference {
        program: "regions",
        driver: VhostUser,
        theirs: "fcntl (r.fd, F_GETFD) : -1 = 0",
        ours: "fcntl (r.fd, F_GETFD) : -1 = 1",
    },
    // What is missing is said.
    Difference {
        program: "regions",
        driver: VhostUser,
        theirs: "blkio_map_mem_region (b, &s) = EIO [Bad file descriptor (os error 9)]",
        ours: "blkio_map_mem_region (b, &s) = EINVAL [the memory region must have a file descriptor]",
    },
];

/// Programs that libblkio can run, too.
const COMPARED: &[&str] = &[
    "seed",
    "data",
    "life",
    "queues",
    "regions",
    "requests",
    "event",
    "null",
    "properties",
];

/// Leaks of any kind but "still reachable" are errors, and errors end the program with 99.
const VALGRIND: &[&str] = &[
    "valgrind",
    "-q",
    "--leak-check=full",
    "--errors-for-leak-kinds=definite,indirect,possible",
    "--error-exitcode=99",
];

impl Driver {
    fn file(self) -> &'static str {
        match self {
            IoUring => "io_uring",
            VhostUser => "vhost_user",
        }
    }

    /// What the program is told, and what must live while it runs.
    pub fn setup(self, place: &Place) -> (Vec<OsString>, Option<Server>) {
        let disk = place.disk(b"hello");
        match self {
            IoUring => (vec!["io_uring".into(), disk.into()], None),
            VhostUser => {
                let (server, socket) = place.storage_daemon(&disk);
                let words = vec!["virtio-blk-vhost-user".into(), socket.into()];
                (words, Some(server))
            }
        }
    }

    pub fn is_there(self) -> bool {
        match self {
            IoUring => have_io_uring(),
            VhostUser if !blkio::DRIVERS.contains(&"virtio-blk-vhost-user") => {
                println!("SKIP: there is no such driver yet");
                false
            }
            VhostUser => have(&["qemu-storage-daemon"]),
        }
    }
}

fn recorded(program: &str, driver: Driver) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c");
    let file = folder.join(format!("{program}.{}.expected", driver.file()));
    fs::read_to_string(&file).unwrap_or_else(|why| panic!("{}: {why}", file.display()))
}

/// What ours must print.
fn expected(program: &str, driver: Driver) -> String {
    let mut text = recorded(program, driver);
    let ours = DIFFERENCES
        .iter()
        .filter(|it| it.program == program && it.driver == driver);
    for it in ours {
        assert!(
            text.contains(it.theirs),
            "{program}: not there: {}",
            it.theirs
        );
        text = text.replace(it.theirs, it.ours);
    }
    text
}

/// Runs a program with a library, perhaps below another program: what it prints.
fn printed(program: &str, driver: Driver, library: &Library, below: &[&str]) -> String {
    let place = Place::new();
    let file = place.compile(program, library);
    let (words, server) = driver.setup(&place);
    let mut command = match below {
        [] => place.command(&file),
        [first, words @ ..] => {
            let mut command = place.command(first);
            command.args(words).arg(&file);
            command
        }
    };
    command.args(words);
    if let Some(server) = server.as_ref().filter(|_| program == "dead") {
        command.arg(server.id().to_string());
    }
    stdout_of(&mut command)
}

fn run(program: &str, driver: Driver) {
    if !have(&["cc"]) || !driver.is_there() {
        return;
    }
    let ours = printed(program, driver, ours(), &[]);
    assert_same(&expected(program, driver), &ours);
    if let Some(library) = system().filter(|_| COMPARED.contains(&program)) {
        let theirs = printed(program, driver, library, &[]);
        assert_same(&recorded(program, driver), &theirs);
    }
}

/// Asserts that a program printed what it must. Where a failure had no text, it may have one.
fn assert_same(expected: &str, printed: &str) {
    let same = |expected: &str, printed: &str| match expected.strip_suffix("[no text]") {
        Some(start) => printed.starts_with(start),
        None => expected == printed,
    };
    let (mut left, mut right) = (expected.lines(), printed.lines());
    let mut wrong = String::new();
    for line in 1.. {
        match (left.next(), right.next()) {
            (None, None) => break,
            (Some(left), Some(right)) if same(left, right) => {}
            (left, right) => {
                let (left, right) = (left.unwrap_or("(end)"), right.unwrap_or("(end)"));
                wrong += &format!("{line}: {left}\n   is {right}\n");
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "what is printed is not what was expected:\n{wrong}"
    );
}

macro_rules! tests {
    ($($test:ident = $program:literal, $driver:expr;)*) => {
        $(#[test]
        fn $test() {
            run($program, $driver);
        })*

        #[test]
        fn every_program_is_tried() {
            let mut tried: Vec<&str> = vec![$($program),*];
            tried.sort_unstable();
            tried.dedup();
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c");
            let files = fs::read_dir(folder).expect("lists");
            let mut there: Vec<String> = files
                .filter_map(|file| file.expect("lists").file_name().into_string().ok())
                .filter_map(|name| name.strip_suffix(".c").map(str::to_owned))
                .collect();
            there.sort_unstable();
            assert_eq!(tried, there);
        }
    };
}

tests! {
    seed_with_io_uring = "seed", IoUring;
    seed_with_vhost_user = "seed", VhostUser;
    data_with_io_uring = "data", IoUring;
    data_with_vhost_user = "data", VhostUser;
    life_with_io_uring = "life", IoUring;
    life_with_vhost_user = "life", VhostUser;
    queues_with_io_uring = "queues", IoUring;
    queues_with_vhost_user = "queues", VhostUser;
    regions_with_io_uring = "regions", IoUring;
    regions_with_vhost_user = "regions", VhostUser;
    requests_with_io_uring = "requests", IoUring;
    requests_with_vhost_user = "requests", VhostUser;
    events_with_io_uring = "event", IoUring;
    events_with_vhost_user = "event", VhostUser;
    null_with_io_uring = "null", IoUring;
    null_with_vhost_user = "null", VhostUser;
    properties_with_io_uring = "properties", IoUring;
    properties_with_vhost_user = "properties", VhostUser;
    what_libblkio_does_not_survive_with_io_uring = "better", IoUring;
    what_libblkio_does_not_survive_with_vhost_user = "better", VhostUser;
    null_everywhere = "null_all", IoUring;
    a_server_that_dies = "dead", VhostUser;
}

/// All but the one that would take minutes there and has nothing of its own.
fn below_valgrind(driver: Driver) {
    if !have(&["cc", "valgrind"]) || !driver.is_there() {
        return;
    }
    for program in COMPARED.iter().filter(|it| **it != "properties") {
        let text = printed(program, driver, ours(), VALGRIND);
        assert_same(&expected(program, driver), &text);
    }
    let better = printed("better", driver, ours(), VALGRIND);
    assert_same(&expected("better", driver), &better);
}

#[test]
fn no_leaks_with_io_uring() {
    below_valgrind(IoUring);
}

#[test]
fn no_leaks_with_vhost_user() {
    below_valgrind(VhostUser);
}

/// The program that stands in the documentation.
#[test]
fn the_documented_program_reads() {
    if !have(&["cc"]) || !have_io_uring() {
        return;
    }
    let page = include_str!("../../../../docs/libblkio.md");
    let (_, program) = page.split_once("```c\n").expect("a program");
    let (program, _) = program.split_once("```").expect("its end");
    let place = Place::new();
    fs::write(place.path("documented.c"), program).expect("writes");
    let file = place.compile_file(&place.path("documented.c"), ours());
    let disk = place.disk(b"hello");
    let said = stdout_of(place.command(file).arg("io_uring").arg(disk));
    assert_eq!(said, "hello\n");
}

#[test]
fn the_comparison_is_complete() {
    if system().is_none() {
        println!("SKIP: libblkio 1.5 is not installed: what is recorded of it is not compared");
    }
}
