//! The command line, and how mistakes in it are told.
//!
//! clap reads it, but does not speak: its messages are turned into ours, so that every error of
//! the program looks the same and exits with the same status.

use std::{ffi::OsString, net::IpAddr, path::PathBuf, process::ExitCode, time::Duration};

use block::{Error, ErrorKind, Result};
use clap::{
    ArgAction, Args, CommandFactory, Parser, Subcommand,
    error::{ContextKind, ContextValue},
};

use crate::{life::tls::TlsMode, vhost_user::DiskConfig};

/// Makes any bytes a disk, and any disk reachable.
#[derive(Parser, Debug)]
#[command(
    name = "blkit",
    version,
    disable_help_subcommand = true,
    after_help = "Exit status: 0 after a clean stop, 1 for any error; with 'serve --run', that of \
                  the command.\n\
                  Environment: BLKIT_LOG sets what is logged (error, warn, info, debug, trace, or \
                  MODULE=LEVEL,...); TMPDIR is where private sockets and scratch space go; \
                  BLKIT_PYTHON is the interpreter of 'blkit shell'."
)]
pub struct Cli {
    /// Log more to standard error: once for debug, twice for trace
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Serve a source to NBD clients, and to virtual machines
    ///
    /// On standard output, one line tells the URI once clients may connect (not with --run); for a
    /// disk of virtual machines, the path of its socket.
    /// SIGTERM, SIGINT, SIGQUIT or SIGHUP stop the server: it answers what is in flight, for at
    /// most 30 seconds. A second signal stops it at once.
    Serve(Box<ServeArgs>),
    /// nbdkit's command line: what 'blkit nbdkit --help' lists
    #[command(disable_help_flag = true)]
    Nbdkit(ToolArgs),
    /// Tell about a server and its exports, as nbdinfo does: what 'blkit info --help' lists
    #[command(disable_help_flag = true)]
    Info(ToolArgs),
    /// Copy a disk to another, as nbdcopy does: what 'blkit copy --help' lists
    #[command(disable_help_flag = true)]
    Copy(ToolArgs),
    /// Print what is on a disk in hexadecimal, as nbddump does: what 'blkit dump --help' lists
    #[command(disable_help_flag = true)]
    Dump(ToolArgs),
    /// Discard what is on a disk, as nbddiscard does: what 'blkit discard --help' lists
    #[command(disable_help_flag = true)]
    Discard(ToolArgs),
    /// Zero a disk, as nbdzero does: what 'blkit zero --help' lists
    #[command(disable_help_flag = true)]
    Zero(ToolArgs),
    /// Mount a disk as a file, as nbdfuse does: what 'blkit mount --help' lists
    #[command(disable_help_flag = true)]
    Mount(ToolArgs),
    /// A Python shell for NBD, as nbdsh is: what 'blkit shell --help' lists
    #[command(disable_help_flag = true)]
    Shell(ToolArgs),
    /// A disk for virtual machines, by the conventions of vhost-user back-end programs: what 'blkit
    /// vhost-user-blk --help' lists
    #[command(disable_help_flag = true)]
    VhostUserBlk(ToolArgs),
    /// Make links in a directory to call this program by the names of the tools it replaces: nbdkit,
    /// nbdinfo, nbdcopy, nbdfuse, nbddump, nbddiscard, nbdzero, nbdsh, vhost-user-blk
    Link {
        /// The directory; it must exist
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// List the sources
    Sources,
    /// List the filters
    Filters,
    /// Explain a command, a source or a filter
    Help {
        /// A command, a source or a filter
        topic: Option<String>,
    },
}

impl Command {
    /// It reads its command line itself, and sees to its log.
    pub fn is_tool(&self) -> bool {
        use Command::{Copy, Discard, Dump, Info, Mount, Nbdkit, Shell, VhostUserBlk, Zero};
        matches!(
            self,
            Nbdkit(_)
                | Info(_)
                | Copy(_)
                | Mount(_)
                | Dump(_)
                | Discard(_)
                | Zero(_)
                | Shell(_)
                | VhostUserBlk(_)
        )
    }
}

/// The words of a tool that reads its command line itself.
#[derive(Args, Debug)]
pub struct ToolArgs {
    /// Options and the rest, as that tool takes them
    #[arg(
        value_name = "WORD",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub words: Vec<OsString>,
}

/// What to serve, to whom and how.
#[derive(Args, Debug)]
#[command(
    after_help = "Parameters: 'blkit help SOURCE' and 'blkit help FILTER' list them. Each filter, \
                  outermost first, takes the keys it knows, and the source gets the rest; \
                  NODE.KEY=VALUE says which one is meant.\n\n\
                  Examples:\n  \
                  blkit serve disk.img\n  \
                  blkit serve -U /tmp/ram.sock memory 1G\n  \
                  blkit serve --filter cow --filter delay disk.img rdelay=5ms\n  \
                  blkit serve -r /srv/images --run 'nbdinfo --list \"$uri\"'\n  \
                  blkit serve disk.img --vhost-user /run/disk.sock,num-queues=4\n\n\
                  Exit status: 0 after a clean stop, 1 for any error; with --run, that of the \
                  command (128+N if signal N killed it)."
)]
pub struct ServeArgs {
    /// A source ('blkit sources' lists them), the path of a file, directory or block device, or
    /// the URI of another server's export (nbd://...)
    #[arg(value_name = "SOURCE", required = true)]
    pub source: String,
    /// Parameters of the filters and the source; @PATH, with a '/' in it, reads more from a file
    #[arg(value_name = "KEY=VALUE|VALUE")]
    pub words: Vec<String>,

    /// Put a filter in front; the first one given is closest to the client
    #[arg(long = "filter", value_name = "NAME")]
    pub filters: Vec<String>,
    /// Clients may only read
    #[arg(short, long)]
    pub read_only: bool,

    /// Listen on a Unix socket; '-' makes a private one
    #[arg(short = 'U', long, value_name = "PATH", conflicts_with_all = ["port", "ip_addr"])]
    pub unix: Option<PathBuf>,
    /// Listen on this TCP port; 0 lets the system pick one
    #[arg(short, long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Listen on this address; may be repeated [default: 127.0.0.1 and ::1]
    #[arg(short, long, value_name = "ADDRESS")]
    pub ip_addr: Vec<IpAddr>,

    /// Serve a disk to virtual machines by vhost-user, on this Unix socket or on a descriptor (fd=N);
    /// 'blkit help vhost-user' lists the keys. NBD is served beside it only if one of the three
    /// options above is given. May be repeated
    #[arg(long, value_name = "PATH[,KEY=VALUE...]", value_parser = DiskConfig::parse)]
    pub vhost_user: Vec<DiskConfig>,

    /// Tell nothing on standard output
    #[arg(skip)]
    pub quiet: bool,

    #[command(flatten)]
    pub tls: TlsArgs,

    /// Run a shell command with $uri (also $nbd), $unixsocket, $port and $vhostuser set, serve while it
    /// runs, on a private Unix socket unless told otherwise, and exit with its status
    #[arg(long, value_name = "COMMAND")]
    pub run: Option<String>,
    /// Write the process number here once clients may connect; removed at exit
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Stop when the parent process ends
    #[arg(long)]
    pub exit_with_parent: bool,

    /// Give up, before the first client, what no server needs: to run programs, to gain privileges,
    /// to look into other processes, to change the system
    #[arg(long)]
    pub sandbox: bool,

    /// Event loops, each on a thread of its own [default: CPUs this process may use]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// How to talk to the kernel: auto takes io_uring, or poll where it is forbidden
    #[arg(long, value_name = "auto|uring|poll", default_value = "auto", value_parser = driver)]
    pub io: reactor::DriverKind,
    /// Drop clients that take longer to negotiate
    #[arg(long, value_name = "DELAY", default_value = "30s", value_parser = delay)]
    pub handshake_timeout: Duration,
    /// Serve at most so many clients at a time
    #[arg(long, value_name = "N", default_value_t = 65536,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: u32,
}

/// How connections are encrypted.
#[derive(Args, Debug)]
pub struct TlsArgs {
    /// Whether clients may (on) or must (require) use TLS [default: require if one of the next two
    /// is given, else off]
    #[arg(long = "tls", value_name = "off|on|require", value_parser = tls_mode)]
    mode: Option<TlsMode>,
    /// Directory with ca-cert.pem, server-cert.pem, server-key.pem, and ca-crl.pem if there is one
    #[arg(long = "tls-certificates", value_name = "DIR")]
    certificates: Option<PathBuf>,
    /// File of pre-shared keys: lines USER:KEY, the key in hexadecimal digits
    #[arg(long = "tls-psk", value_name = "FILE", conflicts_with = "certificates")]
    psk: Option<PathBuf>,
    /// Only clients with a certificate by our CA may come in
    #[arg(long = "tls-verify-peer")]
    verify_peer: bool,
    /// Versions and ciphers, as a GnuTLS priority string [default: NORMAL]
    #[arg(long = "tls-priority", value_name = "PRIORITY")]
    priority: Option<String>,
}

impl TlsArgs {
    /// Whether connections are encrypted.
    pub fn mode(&self) -> TlsMode {
        let named = self.certificates.is_some() || self.psk.is_some();
        self.mode.unwrap_or(match named {
            true => TlsMode::Require,
            false => TlsMode::Off,
        })
    }

    /// By what, and for whom.
    pub fn config(&self) -> tls::Config {
        tls::Config {
            certificates: self.certificates.clone(),
            psk: self.psk.clone(),
            verify_peer: self.verify_peer,
            priority: self.priority.clone(),
        }
    }
}

/// Why there is nothing to run.
pub enum Early {
    /// Help or version: printed on standard output.
    Text(String),
    /// A mistake.
    Mistake(Error),
}

impl Early {
    /// Prints the text; a mistake is the caller's to report.
    pub fn finish(self) -> Result<ExitCode> {
        match self {
            Early::Text(text) => crate::topics::print(&text),
            Early::Mistake(error) => Err(error),
        }
    }
}

/// Reads a command line.
///
/// # Errors
/// Help or version was asked for, or there is a mistake in it.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> std::result::Result<Cli, Early> {
    let parsed = Cli::try_parse_from(words);
    parsed.map_err(|error| early(&error, "'blkit help serve' lists the options"))
}

/// What clap found: help, or a mistake, for which `hint` is the cure if none is nearer.
pub fn early(error: &clap::Error, hint: &str) -> Early {
    use clap::error::ErrorKind::{
        DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion,
    };
    match error.kind() {
        DisplayHelp | DisplayVersion => Early::Text(error.render().to_string()),
        DisplayHelpOnMissingArgumentOrSubcommand => Early::Mistake(
            Error::new(ErrorKind::Config, "what is to be done?")
                .hint("'blkit help' lists the commands"),
        ),
        _ => Early::Mistake(mistake(error, hint)),
    }
}

/// The help text of the program, or of one of its commands; `None` if there is no such command.
pub fn command_help(name: Option<&str>) -> Option<String> {
    let mut root = Cli::command();
    // Builds the names that usage lines show, such as `blkit serve`.
    root.build();
    let command = match name {
        None => &mut root,
        Some(name) => root.find_subcommand_mut(name)?,
    };
    Some(command.render_long_help().to_string())
}

/// The names of the commands.
pub fn commands() -> Vec<String> {
    let root = Cli::command();
    root.get_subcommands()
        .map(|command| command.get_name().to_owned())
        .collect()
}

/// A mistake as an error of ours: its first line, and what was meant.
fn mistake(error: &clap::Error, hint: &str) -> Error {
    let text = error.to_string();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or("the command line is wrong");
    let mut what = first.strip_prefix("error: ").unwrap_or(first).to_owned();
    if what.ends_with(':') {
        // A list follows: what is missing.
        let list = lines.take_while(|line| !line.starts_with("Usage:"));
        what = format!("{what} {}", list.collect::<Vec<_>>().join(" "));
    }
    let mistake = Error::new(ErrorKind::Config, what);
    match suggestion(error) {
        Some(meant) => mistake.hint(format!("did you mean '{meant}'?")),
        None => mistake.hint(hint),
    }
}

fn suggestion(error: &clap::Error) -> Option<String> {
    let kinds = [
        ContextKind::SuggestedArg,
        ContextKind::SuggestedSubcommand,
        ContextKind::SuggestedValue,
    ];
    kinds.into_iter().find_map(|kind| match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(texts) => texts.first().cloned(),
        _ => None,
    })
}

fn delay(text: &str) -> std::result::Result<Duration, String> {
    config::grammar::delay(text)
}

fn tls_mode(text: &str) -> std::result::Result<TlsMode, String> {
    match text {
        "off" => Ok(TlsMode::Off),
        "on" => Ok(TlsMode::On),
        "require" => Ok(TlsMode::Require),
        _ => Err("must be off, on or require".to_owned()),
    }
}

fn driver(text: &str) -> std::result::Result<reactor::DriverKind, String> {
    let parsed: std::result::Result<reactor::DriverKind, _> = text.parse();
    parsed.map_err(|_| "must be auto, uring or poll".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(words: &[&str]) -> ServeArgs {
        let all = ["blkit", "serve"].iter().chain(words).map(OsString::from);
        match parse(all) {
            Ok(Cli {
                command: Command::Serve(options),
                ..
            }) => *options,
            Ok(other) => panic!("not serve: {other:?}"),
            Err(Early::Text(text)) => panic!("help: {text}"),
            Err(Early::Mistake(error)) => panic!("{error:?}"),
        }
    }

    fn wrong(words: &[&str]) -> Error {
        match parse(["blkit"].iter().chain(words).map(OsString::from)) {
            Err(Early::Mistake(error)) => error,
            Err(Early::Text(text)) => panic!("help: {text}"),
            Ok(cli) => panic!("accepted: {cli:?}"),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_may_stand_before_and_after_the_source() {
        let options = serve(&[
            "-r", "memory", "1M", "-U", "/s", "rdelay=1", "--filter", "delay",
        ]);
        assert!(options.read_only);
        assert_eq!(options.source, "memory");
        assert_eq!(options.words, ["1M", "rdelay=1"]);
        assert_eq!(options.filters, ["delay"]);
        assert_eq!(options.unix, Some("/s".into()));
        assert_eq!(options.handshake_timeout, Duration::from_secs(30));
    }

    #[test]
    fn credentials_are_there_to_be_asked_for() {
        assert_eq!(serve(&["null"]).tls.mode(), TlsMode::Off);
        assert_eq!(
            serve(&["--tls-psk", "/p", "null"]).tls.mode(),
            TlsMode::Require
        );
        let offered = serve(&["--tls", "on", "--tls-certificates", "/c", "null"]).tls;
        assert_eq!(offered.mode(), TlsMode::On);
        assert_eq!(offered.config().certificates, Some("/c".into()));
    }

    #[test]
    fn after_two_dashes_everything_is_a_word() {
        let options = serve(&["-p", "0", "--", "-odd.img", "-x"]);
        assert_eq!(options.source, "-odd.img");
        assert_eq!(options.words, ["-x"]);
        assert_eq!(options.port, Some(0));
    }

    #[test]
    fn a_mistake_is_one_line_and_names_what_was_meant() {
        let error = wrong(&["serve", "--read-onyl", "memory", "1M"]);
        assert!(error.chain().contains("'--read-onyl'"), "{error:?}");
        assert_eq!(error.hint_text(), Some("did you mean '--read-only'?"));
        let error = wrong(&["sevre"]);
        assert_eq!(error.hint_text(), Some("did you mean 'serve'?"));
        for words in [
            &["serve"][..],
            &["serve", "-p", "65536", "null"],
            &["serve", "-t", "0", "null"],
            &["serve", "--io", "fast", "null"],
            &["serve", "--handshake-timeout", "soon", "null"],
            &["serve", "-U", "/s", "-p", "1", "null"],
            &["serve", "-i", "nowhere", "null"],
            &["serve", "--tls", "maybe", "null"],
            &[
                "serve",
                "--tls-psk",
                "/p",
                "--tls-certificates",
                "/c",
                "null",
            ],
        ] {
            let error = wrong(words);
            assert!(!error.chain().contains('\n'), "{words:?}: {error:?}");
            assert!(!error.chain().starts_with("error"), "{words:?}: {error:?}");
        }
        assert!(wrong(&["serve"]).chain().contains("<SOURCE>"));
    }

    #[test]
    fn every_command_has_help() {
        for name in commands() {
            assert!(command_help(Some(&name)).is_some_and(|text| text.contains("Usage: blkit")));
        }
        assert!(command_help(None).is_some_and(|text| text.contains("Exit status")));
        assert!(command_help(Some("nothing")).is_none());
    }
}
