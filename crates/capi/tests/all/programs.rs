//! The programs of `tests/c`: what they print with our library is what is written beside them,
//! which is what libnbd 1.24.4 makes them print; and where a libnbd is installed that is new enough,
//! it must make them print the same here.

use std::{ffi::OsString, fs, path::Path, process::Command};

use crate::lab::{Library, Place, Server, have, have_cc, ours, stdout_of, system, system_version};

/// Which libnbd prints the same, from this minor version on.
#[derive(Clone, Copy)]
pub enum Also {
    /// This and younger ones.
    Since(u32),
    /// None: the program shows where we differ.
    None,
}

/// What a program needs: its arguments, and what must live while it runs.
pub struct Setup {
    pub arguments: Vec<OsString>,
    pub _server: Option<Server>,
}

impl Setup {
    /// Nothing.
    fn alone() -> Setup {
        Setup {
            arguments: Vec::new(),
            _server: None,
        }
    }

    /// A server on a socket, which is the argument.
    fn nbdkit(place: &Place, words: &[&str]) -> Setup {
        Setup {
            _server: Some(place.nbdkit("s", words)),
            arguments: vec![place.path("s").into()],
        }
    }
}

/// A program, and how it is run.
pub struct Trial {
    /// Its file, and perhaps behind `_with_` the server it runs with.
    pub name: &'static str,
    pub also: Also,
    pub needs: &'static [&'static str],
    pub setup: fn(&Place) -> Setup,
}

/// Two exports with descriptions; what is called "three" is not there.
const TWO_EXPORTS: &[&str] = &[
    "eval",
    r#"list_exports=printf "INTERLEAVED\none\nfirst disk\ntwo\nsecond disk\n""#,
    r#"open=case "$3" in three) echo "ENOENT no such disk" >&2; exit 1;; esac; echo "$3""#,
    r#"get_size=case "$2" in one) echo 1M;; *) echo 2M;; esac"#,
    "pread=dd if=/dev/zero count=$3 iflag=count_bytes",
    r#"export_description=echo "the disk $2""#,
];

fn memory(place: &Place) -> Setup {
    Setup::nbdkit(place, &["memory", "1M"])
}

fn read_only(place: &Place) -> Setup {
    Setup::nbdkit(place, &["-r", "memory", "1M"])
}

fn larger_memory(place: &Place) -> Setup {
    Setup::nbdkit(place, &["memory", "4M"])
}

fn much_memory(place: &Place) -> Setup {
    Setup::nbdkit(place, &["memory", "200M"])
}

fn oldstyle(place: &Place) -> Setup {
    Setup::nbdkit(place, &["-o", "memory", "1M"])
}

fn no_options(place: &Place) -> Setup {
    Setup::nbdkit(place, &["--mask-handshake=0", "memory", "1M"])
}

fn simple_replies(place: &Place) -> Setup {
    Setup::nbdkit(place, &["--no-sr", "memory", "1M"])
}

fn qemu(place: &Place) -> Setup {
    let (image, socket) = (place.path("disk"), place.path("s"));
    fs::File::create(&image)
        .and_then(|file| file.set_len(1 << 20))
        .expect("a disk");
    let mut command = place.command("qemu-nbd");
    command
        .args(["-t", "-f", "raw", "-D", "a disk", "-k"])
        .arg(&socket)
        .arg(&image);
    Setup {
        _server: Some(Server::start(&mut command, || testkit::listens(&socket))),
        arguments: vec![socket.into()],
    }
}

fn two_exports(place: &Place) -> Setup {
    Setup::nbdkit(place, TWO_EXPORTS)
}

fn nothing(_: &Place) -> Setup {
    Setup::alone()
}

fn pattern_by_tcp(place: &Place) -> Setup {
    let (server, port) = place.nbdkit_tcp(&["pattern", "1M"]);
    Setup {
        _server: Some(server),
        arguments: vec![port.to_string().into()],
    }
}

fn qcow2(place: &Place) -> Setup {
    let image = place.path("image.qcow2");
    let mut create = place.command("qemu-img");
    create.args(["create", "-q", "-f", "qcow2"]).arg(&image);
    stdout_of(create.arg("1M"));
    Setup {
        arguments: vec![image.into()],
        _server: None,
    }
}

fn encrypted(place: &Place) -> Setup {
    let keys = place.path("keys.psk");
    fs::write(&keys, "alice:0123456789abcdef0123456789abcdef\n").expect("writes");
    let file = format!("--tls-psk={}", keys.display());
    let mut setup = Setup::nbdkit(place, &["--tls=require", &file, "memory", "1M"]);
    setup.arguments.push(keys.into());
    setup
}

const NBDKIT: &[&str] = &["cc", "nbdkit"];
const QEMU: &[&str] = &["cc", "qemu-nbd"];

/// A trial with nbdkit.
const fn trial(name: &'static str, also: Also, setup: fn(&Place) -> Setup) -> Trial {
    Trial {
        name,
        also,
        needs: NBDKIT,
        setup,
    }
}

/// A trial with qemu-nbd.
const fn qemu_trial(name: &'static str, also: Also) -> Trial {
    Trial {
        name,
        also,
        needs: QEMU,
        setup: qemu,
    }
}

/// All of them.
pub const TRIALS: &[Trial] = &[
    trial("seed", Also::Since(0), pattern_by_tcp),
    trial("aio", Also::Since(24), memory),
    trial("errors", Also::Since(24), read_only),
    trial("strict", Also::Since(24), read_only),
    trial("export", Also::Since(14), memory),
    trial("structured", Also::Since(14), memory),
    trial("status", Also::Since(14), memory),
    trial("status64", Also::Since(24), memory),
    trial("large", Also::Since(24), much_memory),
    trial("options", Also::Since(24), two_exports),
    trial("options_new", Also::Since(24), memory),
    trial("export_with_oldstyle", Also::Since(14), oldstyle),
    trial("status_with_oldstyle", Also::Since(14), oldstyle),
    trial("options_new_with_oldstyle", Also::Since(24), oldstyle),
    trial("export_with_no_options", Also::Since(14), no_options),
    trial(
        "structured_with_simple_replies",
        Also::Since(14),
        simple_replies,
    ),
    trial(
        "options_new_with_simple_replies",
        Also::Since(24),
        simple_replies,
    ),
    qemu_trial("export_with_qemu", Also::Since(14)),
    qemu_trial("status64_with_qemu", Also::Since(24)),
    qemu_trial("structured_with_qemu", Also::Since(14)),
    qemu_trial("options_new_with_qemu", Also::Since(24)),
    trial("config", Also::Since(14), nothing),
    trial("config_new", Also::Since(24), memory),
    trial("socket", Also::Since(14), memory),
    trial("uri", Also::Since(14), memory),
    trial("fork", Also::Since(14), memory),
    trial("threads", Also::Since(14), larger_memory),
    trial("threads_poll2", Also::None, larger_memory),
    trial("debug", Also::Since(14), memory),
    trial("null", Also::Since(14), memory),
    trial("null_all", Also::None, memory),
    trial("command", Also::Since(14), nothing),
    trial("die", Also::Since(14), nothing),
    trial("tls", Also::Since(14), encrypted),
    Trial {
        name: "activation",
        also: Also::Since(14),
        needs: &["cc", "qemu-nbd", "qemu-img"],
        setup: qcow2,
    },
];

/// What the program must print.
pub fn expected(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c");
    let file = folder.join(format!("{name}.expected"));
    fs::read_to_string(&file).unwrap_or_else(|why| panic!("{}: {why}", file.display()))
}

/// Runs a program with a library, perhaps below another program: what it prints.
pub fn printed(trial: &Trial, library: &Library, below: &[&str]) -> String {
    let place = Place::new();
    let file = trial.name.split("_with_").next().expect("a name");
    let program = place.compile(file, library, "program");
    let setup = (trial.setup)(&place);
    let mut command: Command = match below {
        [] => place.command(&program),
        [first, words @ ..] => {
            let mut command = place.command(first);
            command.args(words).arg(&program);
            command
        }
    };
    stdout_of(command.args(&setup.arguments))
}

fn run(name: &str) {
    let trial = TRIALS.iter().find(|trial| trial.name == name);
    let trial = trial.expect("a trial");
    if !have(trial.needs) {
        return;
    }
    let expected = expected(name);
    assert_eq!(printed(trial, ours(), &[]), expected, "ours");
    match (trial.also, system(), system_version()) {
        (Also::Since(since), Some(library), Some((1, minor))) if minor >= since => {
            assert_eq!(printed(trial, library, &[]), expected, "libnbd");
        }
        _ => {}
    }
}

macro_rules! tests {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            run(stringify!($name));
        })*

        #[test]
        fn every_program_is_tried() {
            let tried = [$(stringify!($name)),*];
            let listed: Vec<&str> = TRIALS.iter().map(|trial| trial.name).collect();
            assert_eq!(tried[..], listed[..]);
        }
    };
}

tests! {
    seed aio errors strict export structured status status64 large options options_new
    export_with_oldstyle status_with_oldstyle options_new_with_oldstyle export_with_no_options
    structured_with_simple_replies options_new_with_simple_replies export_with_qemu
    status64_with_qemu structured_with_qemu options_new_with_qemu config config_new
    socket uri fork threads threads_poll2 debug null null_all command die tls activation
}

/// What the system's libnbd cannot show, because it is older or missing, is told once.
#[test]
fn the_comparison_is_complete() {
    if !have_cc() {
        return;
    }
    match system_version() {
        None => println!("SKIP: libnbd's development files are not installed: nothing is compared"),
        Some((1, minor)) => {
            let unlike = |trial: &&Trial| matches!(trial.also, Also::Since(since) if since > minor);
            let left: Vec<&str> = TRIALS
                .iter()
                .filter(unlike)
                .map(|trial| trial.name)
                .collect();
            if !left.is_empty() {
                println!("SKIP: libnbd 1.{minor} is too old to compare {left:?}");
            }
        }
        Some(other) => panic!("libnbd {other:?}"),
    }
}
