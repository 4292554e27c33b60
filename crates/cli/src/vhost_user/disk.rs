//! A disk for virtual machines, as a command line asks for it: `--vhost-user`.

use std::{io, os::fd::OwnedFd, path::PathBuf, time::Duration};

use block::{Error, ErrorKind, Result};
use config::{Arg, Choice, Config, Kind, Size};
use exports::vhost_user_blk;
use reactor::process;
use rustix::net::sockopt;

use crate::life::{
    activation::Named,
    disks::Plan,
    listen::{self, Endpoints},
};

/// A disk for virtual machines by vhost-user, on a Unix socket or on one that the parent made.
///
/// The first word is the path; a word without a value means KEY=true. Two commas stand for one.
#[derive(Config, Debug, Clone, PartialEq, Eq)]
#[config(name = "vhost-user", check = DiskConfig::consistent)]
pub struct DiskConfig {
    /// Listen on this Unix socket; '-' makes a private one.
    ///
    /// A socket file that a dead server left behind is replaced.
    #[config(magic)]
    pub path: Option<PathBuf>,
    /// A socket that this process got from its parent: a number, or a name in LISTEN_FDNAMES.
    ///
    /// One that listens is listened on; one that is connected is served to its end.
    #[config(value = "NUMBER|NAME")]
    pub fd: Option<String>,
    /// Which export of the source it is.
    #[config(default = "")]
    pub export: String,
    /// Virtqueues, 1 to 256, of which a front-end uses as many as it wants.
    #[config(default = "64")]
    pub num_queues: u16,
    /// The smallest piece a guest reads or writes.
    #[config(default = "512")]
    pub logical_block_size: Size,
    /// The serial number that a guest sees, of at most 20 bytes.
    #[config(default = "")]
    pub serial: String,
    /// Guests may only read.
    #[config(default = "false")]
    pub read_only: bool,
    /// How many front-ends may attach at a time, if they can write.
    #[config(default = "exclusive")]
    pub sharing: Sharing,
    /// Look at the rings again and again instead of sleeping: takes a CPU for each event loop.
    #[config(default = "false")]
    pub poll: bool,
}

/// How many front-ends may attach to a disk that can be written.
#[derive(Choice, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// One; others are turned away.
    Exclusive,
    /// The first may write, those that come while it is there can read.
    OneWriter,
    /// All may write: for guests with a file system made for that.
    Shared,
}

/// Where front-ends connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A socket in a directory of our own.
    Private,
    /// A socket of this path.
    Path(PathBuf),
    /// A descriptor of this number.
    Number(u32),
    /// A descriptor that is called so.
    Name(String),
}

impl Default for DiskConfig {
    /// Without a place.
    fn default() -> DiskConfig {
        let path = [Arg::Bare("-".to_owned())];
        let disk = DiskConfig::from_args(&path).expect("a path is enough");
        DiskConfig { path: None, ..disk }
    }
}

impl DiskConfig {
    /// Reads `PATH[,KEY=VALUE]...`.
    ///
    /// # Errors
    /// Why it cannot be one.
    pub fn parse(text: &str) -> std::result::Result<DiskConfig, String> {
        let words = words(text);
        let mut args = Vec::with_capacity(words.len());
        for (index, word) in words.iter().enumerate() {
            args.push(match Arg::parse(word) {
                Arg::Bare(word) if index > 0 => flag(word)?,
                arg => arg,
            });
        }
        DiskConfig::from_args(&args).map_err(|error| match error.hint() {
            Some(hint) => format!("{} ({hint})", error.kind),
            None => error.kind.to_string(),
        })
    }

    fn consistent(&self) -> std::result::Result<(), String> {
        if self.path.is_some() == self.fd.is_some() {
            return Err("one of a path and fd= is needed".into());
        }
        if !(1..=256).contains(&self.num_queues) {
            return Err("num-queues must be 1 to 256".into());
        }
        let block = self.logical_block_size.0;
        if !block.is_power_of_two() || !(512..=1 << 20).contains(&block) {
            return Err("logical-block-size must be a power of two from 512 to 1M".into());
        }
        if self.serial.len() > 20 {
            return Err("serial can have 20 bytes at most".into());
        }
        Ok(())
    }

    /// Where front-ends connect.
    pub fn place(&self) -> Place {
        match (&self.path, &self.fd) {
            (Some(path), _) if path.as_os_str() == "-" => Place::Private,
            (Some(path), _) => Place::Path(path.clone()),
            (None, fd) => {
                let fd = fd.as_deref().unwrap_or_default();
                fd.parse()
                    .map_or_else(|_| Place::Name(fd.to_owned()), Place::Number)
            }
        }
    }

    /// What guests are told of it. Nobody may write if `read_only`.
    pub fn options(&self, read_only: bool) -> vhost_user_blk::Options {
        vhost_user_blk::Options {
            queues: self.num_queues,
            block_size: self.logical_block_size.0 as u32,
            read_only: self.read_only || read_only,
            serial: self.serial.clone(),
            sharing: match self.sharing {
                Sharing::Exclusive => vhost_user_blk::Sharing::Exclusive,
                Sharing::OneWriter => vhost_user_blk::Sharing::OneWriter,
                Sharing::Shared => vhost_user_blk::Sharing::Shared,
            },
            busy_poll: match self.poll {
                true => Duration::MAX,
                false => Duration::ZERO,
            },
            ..vhost_user_blk::Options::default()
        }
    }
}

/// Binds what a disk's configuration asks for, or takes it from the sockets that are `inherited`.
/// Nobody may write if `read_only`.
///
/// # Errors
/// A path or descriptor that cannot be used, or is in use.
pub fn bind(disk: &DiskConfig, read_only: bool, inherited: &mut Vec<Named>) -> Result<Plan> {
    let endpoints = match disk.place() {
        Place::Private => listen::bind_private(std::env::temp_dir(), "blkit-")?,
        Place::Path(path) => listen::bind_unix_anew(&path)?,
        Place::Name(name) => {
            let Some(found) = inherited.iter().position(|(known, _)| *known == name) else {
                let what = format!("--vhost-user fd={name}: there is no socket of that name");
                return Err(Error::new(ErrorKind::Config, what)
                    .hint("give a number, or a name that stands in LISTEN_FDNAMES"));
            };
            let (name, socket) = inherited.remove(found);
            let cannot = |error| Error::io(format!("--vhost-user fd={name}"), error);
            return adopt(disk, read_only, socket).map_err(cannot);
        }
        Place::Number(number) => {
            let socket = process::inherited_descriptor(number);
            let plan = socket.and_then(|socket| adopt(disk, read_only, socket));
            return plan.map_err(|error| Error::io(format!("--vhost-user fd={number}"), error));
        }
    };
    Ok(Plan {
        export: disk.export.clone(),
        options: disk.options(read_only),
        endpoints,
        connected: None,
    })
}

/// A disk on a socket that is there already: it listens, or a front-end is connected.
///
/// # Errors
/// It is no socket.
pub fn adopt(disk: &DiskConfig, read_only: bool, socket: OwnedFd) -> io::Result<Plan> {
    let (mut endpoints, mut connected) = (Endpoints::default(), None);
    match sockopt::socket_acceptconn(&socket)? {
        true => endpoints = Endpoints::of_sockets(vec![socket]),
        false => connected = Some(socket),
    }
    Ok(Plan {
        export: disk.export.clone(),
        options: disk.options(read_only),
        endpoints,
        connected,
    })
}

/// The words between the commas.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut rest = text.chars().peekable();
    while let Some(next) = rest.next() {
        let last = words.last_mut().expect("there is one");
        match next {
            ',' if rest.next_if_eq(&',').is_some() => last.push(','),
            ',' => words.push(String::new()),
            other => last.push(other),
        }
    }
    words
}

/// A word that switches something on.
fn flag(word: String) -> std::result::Result<Arg, String> {
    let schema = DiskConfig::schema();
    match schema.find(&word) {
        Some(param) if param.kind == Kind::Boolean => Ok(Arg::KeyValue(word, "true".into())),
        Some(param) => Err(format!(
            "{word} needs a value: {word}=<{}>",
            param.type_name
        )),
        None => Err(format!("'{word}' is not of the form KEY=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> DiskConfig {
        DiskConfig::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"))
    }

    #[test]
    fn a_path_is_enough() {
        let disk = parse("/run/disk.sock");
        assert_eq!(disk.place(), Place::Path("/run/disk.sock".into()));
        let options = disk.options(false);
        assert_eq!((options.queues, options.block_size), (64, 512));
        assert!(!options.read_only && disk.options(true).read_only);
        assert_eq!(parse("-").place(), Place::Private);
    }

    #[test]
    fn everything_can_be_said() {
        let disk = parse(
            "a,,b,num-queues=4,logical-block-size=4k,serial=x y,read-only,export=e,poll,sharing=one-writer",
        );
        assert_eq!(disk.place(), Place::Path("a,b".into()));
        assert_eq!(disk.export, "e");
        let options = disk.options(false);
        assert_eq!((options.queues, options.block_size), (4, 4096));
        assert_eq!(options.serial, "x y");
        assert!(options.read_only && options.busy_poll == Duration::MAX);
        assert_eq!(options.sharing, vhost_user_blk::Sharing::OneWriter);
        assert_eq!(parse("fd=3").place(), Place::Number(3));
        assert_eq!(
            parse("fd=disk0,read-only=no").place(),
            Place::Name("disk0".into())
        );
        assert_eq!(
            parse("path=read-only").place(),
            Place::Path("read-only".into())
        );
    }

    #[test]
    fn mistakes_are_told() {
        for (text, why) in [
            ("", "an empty file name"),
            ("fd=3,path=/s", "one of a path and fd="),
            ("num-queues=2", "one of a path and fd="),
            ("/s,num-queues=0", "1 to 256"),
            ("/s,num-queues=257", "1 to 256"),
            ("/s,num-queues", "num-queues needs a value"),
            ("/s,logical-block-size=1000", "power of two"),
            ("/s,logical-block-size=256", "power of two"),
            ("/s,serial=123456789012345678901", "20 bytes"),
            ("/s,num-queue=2", "did you mean 'num-queues'"),
            ("/s,/t", "'/t' is not of the form"),
            ("/s,read-only=perhaps", "read-only"),
        ] {
            let told = DiskConfig::parse(text).expect_err(text);
            assert!(told.contains(why), "{text}: {told}");
        }
    }
}
