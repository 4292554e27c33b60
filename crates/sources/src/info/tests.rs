//! Each mode, from the client's side.

use super::*;
use crate::testing::Bench;
use block::{Access, Client, Limits};
use testkit::{SimLoop, TestHost};

fn source(mode: Mode) -> Arc<dyn Source> {
    fn clock() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::new(0x5d8f_24c7, 271_361_999)
    }
    with_clock(InfoConfig { mode }, clock).unwrap()
}

fn open(mode: Mode, export: &str) -> Result<Bench> {
    Bench::try_open(&*source(mode), export, Access::ReadWrite)
}

/// All of the disk.
fn contents(bench: &Bench) -> Vec<u8> {
    bench.read(0, bench.limits().size as usize).unwrap()
}

/// Limits and contents of the disk of a client with this address.
fn of_peer(peer: &str) -> (Arc<Limits>, Vec<u8>) {
    let run = crate::testing::start(reactor::DriverKind::Poll).unwrap();
    let mut run = run;
    let mut cx = TestHost::new().context(run.reactor());
    cx.client = Arc::new(Client {
        peer: peer.into(),
        ..Client::default()
    });
    let device = run.block_on(source(Mode::Address).open(&cx)).unwrap();
    drop(cx);
    let bench = Bench::of(run, device).unwrap();
    (bench.limits(), contents(&bench))
}

#[test]
fn the_name_is_the_disk() {
    let bench = open(Mode::ExportName, "hello").unwrap();
    assert_eq!(contents(&bench), b"hello");
    assert_eq!(bench.read(1, 3).unwrap(), b"ell");
    let limits = bench.limits();
    assert!(limits.read_only() && limits.multi_conn);
    assert_eq!(bench.write(0, b"x").unwrap_err(), Errno::ENOTSUP);
    let list = bench.extents(1, 4).unwrap();
    assert_eq!((list.covered(), list.all_zero()), (4, false));
    assert_eq!(open(Mode::ExportName, "").unwrap().limits().size, 0);
}

#[test]
fn base64_is_decoded() {
    for (name, wanted) in [
        ("", &b""[..]),
        ("aGVsbG8=", b"hello"),
        ("aGVsbG8h", b"hello!"),
        ("YQ==", b"a"),
        ("YW Jj\nZA==\n", b"abcd"),
        ("AP+/+w==", b"\0\xff\xbf\xfb"),
    ] {
        let bench = open(Mode::Base64ExportName, name).unwrap();
        assert_eq!(contents(&bench), wanted, "{name:?}");
    }
    for name in [
        "YQ",
        "YQ=",
        "Y",
        "=",
        "====",
        "YQ==YQ==",
        "YQ=x",
        "YW_j",
        "!!!!",
        "\u{e4}===",
    ] {
        let error = open(Mode::Base64ExportName, name).err().expect(name);
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let start = "info: the export's name is not valid base64";
        assert!(error.chain().starts_with(start), "{}", error.chain());
    }
}

#[test]
fn paths_of_sockets_are_not_told() {
    for (peer, wanted) in [
        ("127.0.0.1:1234", "127.0.0.1:1234"),
        ("[::1]:58912", "[::1]:58912"),
        ("unix", "unix"),
        ("/run/secret/socket", "unix"),
        ("pipe", "pipe"),
        ("", "unix"),
    ] {
        let (limits, told) = of_peer(peer);
        assert_eq!(String::from_utf8(told).unwrap(), wanted);
        assert!(!limits.multi_conn, "each connection has its own");
    }
}

#[test]
fn time_is_seconds_and_microseconds() {
    let bench = open(Mode::Time, "").unwrap();
    // The example of nbdkit's manual page.
    let wanted = [0, 0, 0, 0, 0x5d, 0x8f, 0x24, 0xc7, 0, 4, 0x24, 1];
    assert_eq!(contents(&bench), wanted);
    assert_eq!(bench.read(4, 5).unwrap(), wanted[4..9]);
    let limits = bench.limits();
    assert!(limits.read_only() && !limits.multi_conn);
    assert!(!bench.extents(0, 12).unwrap().all_zero());
    fn unset() -> SystemTime {
        SystemTime::UNIX_EPOCH - Duration::from_secs(1)
    }
    let config = InfoConfig { mode: Mode::Time };
    let unset = Bench::open(with_clock(config, unset).unwrap());
    assert_eq!(contents(&unset), [0; 12]);
    let system = Bench::open(make(&[Arg::parse("time")]).unwrap());
    let told = system.given(0, 8).unwrap().try_into().unwrap();
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    assert!(now.abs_diff(u64::from_be_bytes(told)) < 60);
}

/// In virtual time: what is told is exact.
#[test]
fn uptime_and_conntime_go_on() {
    for (mode, wanted) in [(Mode::Uptime, 3_000_250), (Mode::ConnTime, 1_000_250)] {
        let run = SimLoop::new(1);
        let reactor = run.reactor().clone();
        let info = source(mode);
        let told = run.block_on(async {
            info.start(&reactor).await.unwrap();
            reactor.sleep(Duration::from_secs(2)).await;
            let cx = TestHost::new().context(&reactor);
            let device = info.open(&cx).await.unwrap();
            let queue = device.open_queue(&reactor).unwrap();
            reactor.sleep(Duration::from_micros(1_000_250)).await;
            let mut req = reactor.request(Op::Read, 0, 12);
            *req.data_mut() = block::Data::Wanted;
            let done = block::QueueExt::call(&*queue, req).await;
            done.data().as_given().unwrap().to_vec()
        });
        let seconds = u64::from_be_bytes(told[..8].try_into().unwrap());
        let micros = u32::from_be_bytes(told[8..].try_into().unwrap());
        assert_eq!(seconds * 1_000_000 + u64::from(micros), wanted, "{mode:?}");
    }
}

#[test]
fn the_version_is_told() {
    let bench = open(Mode::Version, "").unwrap();
    assert_eq!(contents(&bench), env!("CARGO_PKG_VERSION").as_bytes());
}

#[test]
fn modes_are_words() {
    let mode = |words: &[&str]| {
        let args: Vec<Arg> = words.iter().map(|word| Arg::parse(word)).collect();
        registry::parse::<InfoConfig>(&args).map(|config| config.mode)
    };
    assert_eq!(mode(&[]).unwrap(), Mode::ExportName);
    assert_eq!(mode(&["conntime"]).unwrap(), Mode::ConnTime);
    assert_eq!(
        mode(&["mode=base64exportname"]).unwrap(),
        Mode::Base64ExportName
    );
    let error = mode(&["foo"]).unwrap_err().chain();
    assert!(
        error.starts_with("info: mode=foo: must be one of exportname, base64exportname, address"),
        "{error}"
    );
}
