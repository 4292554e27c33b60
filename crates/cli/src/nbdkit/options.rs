//! nbdkit's options: every spelling, what each value may be, and which exclude each other.
//!
//! The table is the contract: `--long-options`, `--short-options` and the parser read the same one.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
    time::Duration,
};

use config::grammar;

use super::messages::LogTo;
use crate::{
    getopt::{self, Item, Spelling},
    life::tls::TlsMode,
};

/// The options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opt {
    Ipv4Only,
    Ipv6Only,
    Debug,
    DumpConfig,
    DumpPlugin,
    ExitWithParent,
    ExportName,
    Filter,
    Foreground,
    Group,
    Help,
    IpAddr,
    KeepAlive,
    Log,
    LongOptions,
    MaskHandshake,
    Name,
    Newstyle,
    NoMetaContexts,
    NoStructuredReplies,
    Oldstyle,
    PidFile,
    Port,
    PrintUri,
    ReadOnly,
    Run,
    SelinuxLabel,
    ShortOptions,
    Single,
    Swap,
    Threads,
    Timeout,
    Tls,
    TlsCertificates,
    TlsPriority,
    TlsPsk,
    TlsVerifyPeer,
    Unix,
    User,
    Verbose,
    Version,
    Vsock,
}

/// All spellings: first the letters, then the words, each list in the order of `--help`.
pub const SPELLINGS: &[Spelling<Opt>] = &[
    Spelling::flag("4", Opt::Ipv4Only),
    Spelling::flag("6", Opt::Ipv6Only),
    Spelling::with("D", Opt::Debug),
    Spelling::with("e", Opt::ExportName),
    Spelling::flag("f", Opt::Foreground),
    Spelling::with("g", Opt::Group),
    Spelling::with("i", Opt::IpAddr),
    Spelling::flag("n", Opt::Newstyle),
    Spelling::flag("o", Opt::Oldstyle),
    Spelling::with("p", Opt::Port),
    Spelling::with("P", Opt::PidFile),
    Spelling::flag("r", Opt::ReadOnly),
    Spelling::flag("s", Opt::Single),
    Spelling::with("t", Opt::Threads),
    Spelling::with("u", Opt::User),
    Spelling::with("U", Opt::Unix),
    Spelling::flag("v", Opt::Verbose),
    Spelling::flag("V", Opt::Version),
    Spelling::flag("ipv4-only", Opt::Ipv4Only),
    Spelling::flag("ipv6-only", Opt::Ipv6Only),
    Spelling::with("debug", Opt::Debug),
    Spelling::flag("dump-config", Opt::DumpConfig),
    Spelling::flag("dump-plugin", Opt::DumpPlugin),
    Spelling::flag("exit-with-parent", Opt::ExitWithParent),
    Spelling::with("export", Opt::ExportName),
    Spelling::with("export-name", Opt::ExportName),
    Spelling::with("exportname", Opt::ExportName),
    Spelling::with("filter", Opt::Filter),
    Spelling::flag("foreground", Opt::Foreground),
    Spelling::flag("no-fork", Opt::Foreground),
    Spelling::with("group", Opt::Group),
    Spelling::flag("help", Opt::Help),
    Spelling::with("ip-addr", Opt::IpAddr),
    Spelling::with("ipaddr", Opt::IpAddr),
    Spelling::flag("keep-alive", Opt::KeepAlive),
    Spelling::flag("keepalive", Opt::KeepAlive),
    Spelling::with("log", Opt::Log),
    Spelling::flag("long-options", Opt::LongOptions),
    Spelling::with("mask-handshake", Opt::MaskHandshake),
    Spelling::with("name", Opt::Name),
    Spelling::flag("new-style", Opt::Newstyle),
    Spelling::flag("newstyle", Opt::Newstyle),
    Spelling::flag("no-mc", Opt::NoMetaContexts),
    Spelling::flag("no-meta-contexts", Opt::NoMetaContexts),
    Spelling::flag("no-sr", Opt::NoStructuredReplies),
    Spelling::flag("no-structured-replies", Opt::NoStructuredReplies),
    Spelling::flag("old-style", Opt::Oldstyle),
    Spelling::flag("oldstyle", Opt::Oldstyle),
    Spelling::with("pid-file", Opt::PidFile),
    Spelling::with("pidfile", Opt::PidFile),
    Spelling::with("port", Opt::Port),
    Spelling::flag("print-uri", Opt::PrintUri),
    Spelling::flag("print-url", Opt::PrintUri),
    Spelling::flag("read-only", Opt::ReadOnly),
    Spelling::flag("readonly", Opt::ReadOnly),
    Spelling::with("run", Opt::Run),
    Spelling::with("selinux-label", Opt::SelinuxLabel),
    Spelling::flag("short-options", Opt::ShortOptions),
    Spelling::flag("show-uri", Opt::PrintUri),
    Spelling::flag("show-url", Opt::PrintUri),
    Spelling::flag("single", Opt::Single),
    Spelling::flag("stdin", Opt::Single),
    Spelling::flag("swap", Opt::Swap),
    Spelling::with("threads", Opt::Threads),
    Spelling::with("time-out", Opt::Timeout),
    Spelling::with("timeout", Opt::Timeout),
    Spelling::with("tls", Opt::Tls),
    Spelling::with("tls-certificates", Opt::TlsCertificates),
    Spelling::with("tls-priority", Opt::TlsPriority),
    Spelling::with("tls-psk", Opt::TlsPsk),
    Spelling::flag("tls-verify-peer", Opt::TlsVerifyPeer),
    Spelling::with("unix", Opt::Unix),
    Spelling::with("user", Opt::User),
    Spelling::flag("verbose", Opt::Verbose),
    Spelling::flag("version", Opt::Version),
    Spelling::flag("vsock", Opt::Vsock),
];

/// What is to be done instead of serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Serve,
    Help,
    Version,
    DumpConfig,
    DumpPlugin,
    ShortOptions,
    LongOptions,
}

/// Which families of addresses to listen on, if no address is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Family {
    #[default]
    Both,
    V4,
    V6,
}

/// A debug flag: `NAME.FLAG=N`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebugFlag {
    pub name: String,
    pub flag: String,
    pub value: i64,
}

/// The whole command line.
#[derive(Clone, Debug)]
pub struct Options {
    pub mode: Mode,
    pub family: Family,
    pub debug: Vec<DebugFlag>,
    pub exit_with_parent: bool,
    /// As given by `-e`.
    pub export_name: OsString,
    pub filters: Vec<OsString>,
    pub foreground: bool,
    pub user: Option<OsString>,
    pub group: Option<OsString>,
    pub ip_addr: Option<OsString>,
    pub keep_alive: bool,
    pub log: LogTo,
    pub mask_handshake: u32,
    pub name: Option<String>,
    pub oldstyle: bool,
    pub meta_contexts: bool,
    pub structured_replies: bool,
    pub pid_file: Option<PathBuf>,
    pub port: Option<OsString>,
    pub print_uri: bool,
    pub read_only: bool,
    pub run: Option<OsString>,
    pub selinux_label: Option<OsString>,
    pub single: bool,
    pub swap: bool,
    /// 0: not given.
    pub threads: u32,
    /// `None`: not given.
    pub timeout: Option<Duration>,
    /// `None`: on if there are certificates.
    pub tls: Option<TlsMode>,
    pub tls_certificates: Option<PathBuf>,
    pub tls_priority: Option<String>,
    pub tls_psk: Option<PathBuf>,
    pub tls_verify_peer: bool,
    pub unix: Option<PathBuf>,
    pub verbose: bool,
    pub vsock: bool,
    /// The plugin's name, then its parameters.
    pub words: Vec<OsString>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            mode: Mode::Serve,
            family: Family::Both,
            debug: Vec::new(),
            exit_with_parent: false,
            export_name: OsString::new(),
            filters: Vec::new(),
            foreground: false,
            user: None,
            group: None,
            ip_addr: None,
            keep_alive: false,
            log: LogTo::Default,
            mask_handshake: u32::MAX,
            name: None,
            oldstyle: false,
            meta_contexts: true,
            structured_replies: true,
            pid_file: None,
            port: None,
            print_uri: false,
            read_only: false,
            run: None,
            selinux_label: None,
            single: false,
            swap: false,
            threads: 0,
            timeout: None,
            tls: None,
            tls_certificates: None,
            tls_priority: None,
            tls_psk: None,
            tls_verify_peer: false,
            unix: None,
            verbose: false,
            vsock: false,
            words: Vec::new(),
        }
    }
}

/// A mistake, and whether the usage is shown behind it.
#[derive(Debug, PartialEq, Eq)]
pub enum Mistake {
    /// Told as `nbdkit: TEXT`, then the usage.
    Usage(String),
    /// Told as `nbdkit: TEXT`.
    Plain(String),
    /// Told as `nbdkit: error: TEXT`.
    Error(String),
}

/// Reads a command line (without the program's name).
///
/// # Errors
/// The first mistake.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Options, Mistake> {
    let items = getopt::parse(words, SPELLINGS).map_err(Mistake::Usage)?;
    let mut options = Options::default();
    for item in items {
        match item {
            Item::Word(word) => options.words.push(word),
            Item::Option(opt, value) => options.take(opt, value)?,
        }
    }
    options.check()?;
    Ok(options)
}

impl Options {
    fn take(&mut self, opt: Opt, value: OsString) -> Result<(), Mistake> {
        match opt {
            Opt::Help => self.mode = Mode::Help,
            Opt::Version => self.mode = Mode::Version,
            Opt::DumpConfig => self.mode = Mode::DumpConfig,
            Opt::DumpPlugin => self.mode = Mode::DumpPlugin,
            Opt::LongOptions => self.mode = Mode::LongOptions,
            Opt::ShortOptions => self.mode = Mode::ShortOptions,
            Opt::Ipv4Only => self.family = Family::V4,
            Opt::Ipv6Only => self.family = Family::V6,
            Opt::ExitWithParent => self.exit_with_parent = true,
            Opt::Foreground => self.foreground = true,
            Opt::KeepAlive => self.keep_alive = true,
            Opt::Newstyle => self.oldstyle = false,
            Opt::Oldstyle => self.oldstyle = true,
            Opt::NoMetaContexts => self.meta_contexts = false,
            Opt::NoStructuredReplies => self.structured_replies = false,
            Opt::PrintUri => self.print_uri = true,
            Opt::ReadOnly => self.read_only = true,
            Opt::Single => self.single = true,
            Opt::Swap => self.swap = true,
            Opt::TlsVerifyPeer => self.tls_verify_peer = true,
            Opt::Verbose => self.verbose = true,
            Opt::Vsock => self.vsock = true,
            _ => self.take_value(opt, value)?,
        }
        Ok(())
    }

    fn take_value(&mut self, opt: Opt, value: OsString) -> Result<(), Mistake> {
        match opt {
            Opt::Debug => self.debug.push(debug_flag(&text(&value)?)?),
            Opt::ExportName => self.export_name = value,
            Opt::Filter => self.filters.push(value),
            Opt::Group => self.group = Some(value),
            Opt::User => self.user = Some(value),
            Opt::IpAddr => self.ip_addr = Some(value),
            Opt::Log => self.log = log_to(&value)?,
            Opt::MaskHandshake => self.mask_handshake = number("mask-handshake", &value)?,
            Opt::Name => self.name = Some(text(&value)?),
            Opt::PidFile => self.pid_file = Some(PathBuf::from(value)),
            Opt::Port => self.port = Some(value),
            Opt::Run => self.run = Some(value),
            Opt::SelinuxLabel => self.selinux_label = Some(value),
            Opt::Threads => self.threads = number("threads", &value)?,
            Opt::Timeout => self.timeout = timeout(&value)?,
            Opt::Tls => self.tls = Some(tls_mode(&value)?),
            Opt::TlsCertificates => self.tls_certificates = Some(PathBuf::from(value)),
            Opt::TlsPriority => self.tls_priority = Some(text(&value)?),
            Opt::TlsPsk => self.tls_psk = Some(PathBuf::from(value)),
            Opt::Unix => self.unix = Some(PathBuf::from(value)),
            _ => unreachable!("flags were taken before"),
        }
        Ok(())
    }

    /// The rules between options.
    fn check(&self) -> Result<(), Mistake> {
        let places = [
            self.port.is_some(),
            self.run.is_some(),
            self.single,
            self.unix.is_some(),
            self.vsock,
        ];
        let [port, run, single, unix, vsock] = places;
        let wrong = (self.mode == Mode::DumpPlugin && places.contains(&true))
            || (single && (port || run || unix || vsock))
            || (unix && (port || vsock));
        if wrong {
            return Err(Mistake::Plain(
                "--dump-plugin, -p, --run, -s, -U or --vsock options cannot be used in this \
                 combination"
                    .into(),
            ));
        }
        if self.oldstyle && self.tls == Some(TlsMode::Require) {
            let text = "cannot use oldstyle protocol (-o) and require TLS";
            return Err(Mistake::Plain(text.into()));
        }
        Ok(())
    }

    /// The value of a debug flag, or what it is without.
    pub fn debug_value(&self, name: &str, flag: &str, default: i64) -> i64 {
        let given = self.debug.iter().rev();
        let found = given
            .into_iter()
            .find(|one| one.name == name && one.flag == flag);
        found.map_or(default, |one| one.value)
    }
}

/// A value that must be text: everything but names of files.
pub fn text(value: &OsStr) -> Result<String, Mistake> {
    let text = value.to_str().map(str::to_owned);
    text.ok_or_else(|| {
        let shown = value.to_string_lossy();
        Mistake::Error(format!(
            "this value is not valid UTF-8: {}",
            shown.escape_debug()
        ))
    })
}

fn number(what: &str, value: &OsStr) -> Result<u32, Mistake> {
    let text = text(value)?;
    let parsed = grammar::integer(&text, 0, i128::from(u32::MAX));
    parsed.map(|n| n as u32).map_err(|_| {
        let shown = text.escape_debug();
        Mistake::Error(match text.trim().is_empty() {
            true => format!("{what}: empty string where we expected a number"),
            false => format!("{what}: could not parse number: \"{shown}\""),
        })
    })
}

fn timeout(value: &OsStr) -> Result<Option<Duration>, Mistake> {
    let text = text(value)?;
    let parsed = grammar::delay(&text);
    let parsed = parsed.map_err(|why| Mistake::Error(format!("--timeout={text}: {why}")))?;
    // None at all, as without the option.
    Ok((!parsed.is_zero()).then_some(parsed))
}

fn tls_mode(value: &OsStr) -> Result<TlsMode, Mistake> {
    let text = text(value)?;
    if text.eq_ignore_ascii_case("require") {
        return Ok(TlsMode::Require);
    }
    match grammar::boolean(&text) {
        Ok(true) => Ok(TlsMode::On),
        Ok(false) => Ok(TlsMode::Off),
        Err(_) => Err(Mistake::Error(format!(
            "could not decipher boolean ({})",
            text.escape_debug()
        ))),
    }
}

fn log_to(value: &OsStr) -> Result<LogTo, Mistake> {
    match value.to_str() {
        Some("default") => Ok(LogTo::Default),
        Some("stderr") => Ok(LogTo::Stderr),
        Some("syslog") => Ok(LogTo::Syslog),
        Some("null") => Ok(LogTo::Null),
        _ if value.as_encoded_bytes().starts_with(b"/") => Ok(LogTo::File(PathBuf::from(value))),
        _ => Err(Mistake::Plain(
            "--log must be \"default\", \"stderr\", \"syslog\", \"null\" or an absolute path"
                .into(),
        )),
    }
}

fn debug_flag(text: &str) -> Result<DebugFlag, Mistake> {
    let wrong = || Mistake::Plain("-D (Debug Flag) must have the format NAME.FLAG=N".into());
    let (key, value) = text.split_once('=').ok_or_else(wrong)?;
    let (name, flag) = key.split_once('.').ok_or_else(wrong)?;
    if name.is_empty() || flag.is_empty() {
        return Err(wrong());
    }
    let value = value.parse().map_err(|_| wrong())?;
    Ok(DebugFlag {
        name: name.into(),
        flag: flag.into(),
        value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Options, Mistake> {
        parse(words.iter().map(OsString::from))
    }

    fn good(words: &[&str]) -> Options {
        read(words).unwrap_or_else(|mistake| panic!("{words:?}: {mistake:?}"))
    }

    #[test]
    fn later_options_win_and_words_keep_their_order() {
        let options = good(&[
            "-4",
            "memory",
            "-6",
            "-o",
            "1M",
            "-n",
            "--filter=cow",
            "--filter",
            "ip",
        ]);
        assert_eq!(options.family, Family::V6);
        assert!(!options.oldstyle);
        assert_eq!(options.words, ["memory", "1M"]);
        assert_eq!(options.filters, ["cow", "ip"]);
        assert_eq!(good(&["--mask-handshake=0x1"]).mask_handshake, 1);
        assert_eq!(good(&["-t", "8"]).threads, 8);
        assert_eq!(
            good(&["--timeout=100ms"]).timeout,
            Some(Duration::from_millis(100))
        );
        assert_eq!(good(&["--timeout=0"]).timeout, None);
        assert_eq!(good(&["--tls=Require"]).tls, Some(TlsMode::Require));
        assert_eq!(good(&["--tls=1"]).tls, Some(TlsMode::On));
        let flag = &good(&["-D", "nbdkit.backend.datapath=0"]).debug[0];
        assert_eq!(
            (&*flag.name, &*flag.flag, flag.value),
            ("nbdkit", "backend.datapath", 0)
        );
    }

    #[test]
    fn places_exclude_each_other() {
        for words in [
            &["-s", "-p", "1"][..],
            &["-s", "--run", "x"],
            &["-s", "-U", "-"],
            &["-U", "-", "-p", "1"],
            &["-U", "-", "--vsock"],
            &["--dump-plugin", "-s"],
            &["--dump-plugin", "--run", "x"],
        ] {
            let mistake = read(words).expect_err("they exclude each other");
            let Mistake::Plain(text) = mistake else {
                panic!("{words:?}: {mistake:?}")
            };
            assert!(
                text.ends_with("cannot be used in this combination"),
                "{text}"
            );
        }
        for words in [
            &["-p", "0", "--run", "x"][..],
            &["-U", "-", "--run", "x"],
            &["--vsock", "-p", "1"],
        ] {
            good(words);
        }
    }

    #[test]
    fn bad_values_are_told_in_nbdkit_s_words() {
        let error = |text: &str| Mistake::Error(text.into());
        let empty = "threads: empty string where we expected a number";
        assert_eq!(read(&["-t", ""]).unwrap_err(), error(empty));
        assert_eq!(
            read(&["-t", "x"]).unwrap_err(),
            error("threads: could not parse number: \"x\"")
        );
        assert_eq!(
            read(&["--tls=foo"]).unwrap_err(),
            error("could not decipher boolean (foo)")
        );
        for words in [
            &["-D", "foo"][..],
            &["-D", "foo=1"],
            &["-D", "foo.bar=x"],
            &["-D", ".b=1"],
        ] {
            let text = "-D (Debug Flag) must have the format NAME.FLAG=N";
            assert_eq!(read(words).unwrap_err(), Mistake::Plain(text.into()));
        }
        assert!(matches!(read(&["--log=foo"]), Err(Mistake::Plain(_))));
        assert!(matches!(
            read(&["-o", "--tls=require"]),
            Err(Mistake::Plain(_))
        ));
        assert!(matches!(read(&["--nosuch"]), Err(Mistake::Usage(_))));
    }
}
