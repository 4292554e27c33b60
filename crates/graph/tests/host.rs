//! The services of the process, on both drivers.

use std::{
    cell::{Cell, RefCell},
    fs,
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::Path,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use blkit_graph::HostServices;
use block::{ErrorKind, Host, Reactor, host::Command};
use reactor::{DriverKind, Loop, Options};

/// Runs a test on each driver this host has.
fn on_each_driver(test: impl Fn(&mut Loop, Arc<HostServices>)) {
    for driver in [DriverKind::Uring, DriverKind::Poll] {
        let options = Options {
            driver,
            ..Options::default()
        };
        let mut this = match Loop::new(options) {
            Ok(this) => this,
            Err(error) if driver == DriverKind::Uring => {
                println!("SKIP: io_uring refused: {}", error.chain());
                continue;
            }
            Err(error) => panic!("{error:?}"),
        };
        test(&mut this, HostServices::new(|| {}));
        assert_eq!(this.close(Duration::from_secs(5)).leaked, 0);
    }
}

/// Waits until it is so, at most ten seconds.
async fn until(reactor: &Reactor, mut so: impl FnMut() -> bool) -> bool {
    for _ in 0..1000 {
        if so() {
            return true;
        }
        reactor.sleep(Duration::from_millis(10)).await;
    }
    false
}

fn command(argv: &[&str]) -> Command {
    Command {
        argv: argv.iter().map(|&word| word.into()).collect(),
        ..Command::default()
    }
}

#[test]
fn scratch_space_is_a_good_device() {
    on_each_driver(|this, host| {
        // The suite asks for a device where it cannot wait for one: they are made before.
        let reactor = this.reactor().clone();
        let make = || this.block_on(host.scratch(&reactor, (1 << 20) + 512));
        let devices: Vec<_> = std::iter::repeat_with(make).take(100).collect();
        let devices = RefCell::new(devices);
        let next = |_: &Reactor| {
            let device = devices.borrow_mut().pop().expect("one for each check");
            device.expect("scratch space")
        };
        let ran = testkit::conformance::run(next, this);
        assert!(ran.len() > 10, "{ran:?}");
    });
}

#[test]
fn scratch_space_has_no_name_and_no_bounds_of_its_own() {
    on_each_driver(|this, host| {
        let reactor = this.reactor().clone();
        let device = this
            .block_on(host.scratch(&reactor, 1 << 40))
            .expect("a sparse terabyte");
        assert_eq!(device.limits().size, 1 << 40);
        let error = this.block_on(host.scratch(&reactor, i64::MAX as u64)).err();
        let error = error.expect("longer than any file system's files");
        assert_eq!(error.kind(), ErrorKind::Exhausted, "{error:?}");
        assert!(
            error
                .hint_text()
                .is_some_and(|hint| hint.contains("TMPDIR"))
        );
    });
}

#[test]
fn a_watched_file_is_noticed_and_others_are_not() {
    on_each_driver(|this, host| {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("trigger");
        let reactor = this.reactor().clone();
        this.block_on(async {
            let calls = Rc::new(Cell::new(0));
            let counted = calls.clone();
            let call = move || counted.set(counted.get() + 1);
            let watch = host
                .watch_file(&reactor, &path, Box::new(call))
                .expect("watches");
            let seen = async |what: &str| {
                assert!(until(&reactor, || calls.take() > 0).await, "{what}");
                // The rest of the same change.
                reactor.sleep(Duration::from_millis(50)).await;
                calls.set(0);
            };
            fs::write(directory.path().join("other"), "x").expect("writes");
            reactor.sleep(Duration::from_millis(100)).await;
            assert_eq!(calls.get(), 0, "another file");
            assert!(!host.file_exists(&path));
            fs::write(&path, "x").expect("writes");
            seen("it appeared").await;
            assert!(host.file_exists(&path));
            fs::write(&path, "y").expect("writes");
            seen("it changed").await;
            fs::rename(directory.path().join("other"), &path).expect("renames");
            seen("it was replaced").await;
            fs::remove_file(&path).expect("removes");
            seen("it went").await;
            drop(watch);
            fs::write(&path, "z").expect("writes");
            reactor.sleep(Duration::from_millis(100)).await;
            assert_eq!(calls.get(), 0, "the watch has ended");
        });
        let nowhere = Path::new("/nowhere/trigger");
        assert!(host.watch_file(&reactor, nowhere, Box::new(|| {})).is_err());
        assert!(
            host.watch_file(&reactor, Path::new("/"), Box::new(|| {}))
                .is_err()
        );
    });
}

#[test]
fn programs_run_to_their_end() {
    on_each_driver(|this, host| {
        let reactor = this.reactor().clone();
        let mut run = |command: Command| this.block_on(host.spawn(&reactor, command));
        let mut echo = command(&["sh", "-c", "cat; echo \"$WORD\" >&2; exit 3"]);
        echo.stdin = b"through".to_vec();
        echo.env = vec![("WORD".into(), "a b".into())];
        let output = run(echo).expect("runs");
        assert_eq!(output.code, Some(3));
        assert_eq!(output.stdout, b"through");
        assert_eq!(output.stderr, b"a b\n");

        // More than pipes hold, in all directions, and input nobody reads.
        let mut much = command(&["sh", "-c", "cat; head -c 1000000 /dev/zero >&2"]);
        much.stdin = vec![7; 1_000_000];
        let output = run(much).expect("runs");
        assert_eq!(
            (output.stdout.len(), output.stderr.len()),
            (1_000_000, 1_000_000)
        );
        let mut unread = command(&["true"]);
        unread.stdin = vec![7; 1_000_000];
        assert_eq!(run(unread).expect("runs").code, Some(0));

        let killed = run(command(&["sh", "-c", "kill -9 $$"])).expect("runs");
        assert_eq!(killed.code, None);
        let error = run(command(&["/no/such/program"])).expect_err("is not there");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.chain().contains("/no/such/program"), "{error:?}");
        assert!(run(command(&[])).is_err());
    });
}

#[test]
fn a_program_that_takes_too_long_is_stopped() {
    on_each_driver(|this, host| {
        let reactor = this.reactor().clone();
        let began = Instant::now();
        let mut slow = command(&["sleep", "1000"]);
        slow.timeout = Some(Duration::from_millis(200));
        let error = this
            .block_on(host.spawn(&reactor, slow))
            .expect_err("takes too long");
        assert!(error.chain().contains("took too long"), "{error:?}");
        assert!(began.elapsed() < Duration::from_secs(60));
        // A grandchild that holds the pipes open is not waited for.
        let began = Instant::now();
        let daemon = command(&["sh", "-c", "sleep 600 & echo $!"]);
        let output = this.block_on(host.spawn(&reactor, daemon)).expect("runs");
        assert!(began.elapsed() < Duration::from_secs(60));
        let pid = String::from_utf8(output.stdout).expect("a number");
        let pid: i32 = pid.trim().parse().expect("a number");
        reactor::process::send_signal(pid, reactor::process::TERMINATE).expect("ends it");
    });
}

#[test]
fn programs_begin_with_clean_signals() {
    on_each_driver(|this, host| {
        let reactor = this.reactor().clone();
        let show = command(&["cat", "/proc/self/status"]);
        let output = this.block_on(host.spawn(&reactor, show)).expect("runs");
        let text = String::from_utf8(output.stdout).expect("text");
        let line = text.lines().find_map(|line| line.strip_prefix("SigBlk:"));
        assert_eq!(line.map(str::trim), Some("0000000000000000"), "{text}");
    });
}

#[test]
fn a_control_socket_answers_and_goes() {
    on_each_driver(|this, host| {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("control");
        let reactor = this.reactor().clone();
        let reverse = |mut message: Vec<u8>| {
            message.reverse();
            message
        };
        let watch = host
            .listen_unix(&reactor, &path, Box::new(reverse))
            .expect("listens");
        let client = |message: &'static [u8]| {
            let path = path.clone();
            reactor.blocking(move || {
                let mut stream = UnixStream::connect(path).expect("connects");
                // A message that is too long is not read to its end.
                let _ = stream.write_all(message);
                let _ = stream.shutdown(Shutdown::Write);
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).map(|_| answer)
            })
        };
        static LONG: [u8; 100_000] = [1; 100_000];
        let (short, long) = this.block_on(async {
            let short = client(b"pause")
                .await
                .expect("no panic")
                .expect("an answer");
            (short, client(&LONG).await.expect("no panic"))
        });
        assert_eq!(short, b"esuap");
        assert!(long.is_err() || long.is_ok_and(|answer| answer.is_empty()));
        assert!(
            host.listen_unix(&reactor, &path, Box::new(reverse))
                .is_err(),
            "in use"
        );
        drop(watch);
        this.block_on(async {
            assert!(until(&reactor, || !path.exists()).await, "the file goes");
        });
    });
}
