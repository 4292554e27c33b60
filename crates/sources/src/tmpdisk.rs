//! A fresh file system for every connection, gone when the connection is.
//!
//! *Contract.* The disk is made while the client waits for its open, on the pool. It has no name from
//! then on (see [`crate::scratch`]), so it is gone with its client even if the server is killed.
//! Nobody can ever see what was on it again, so there is nothing that a flush or FUA could save:
//! they succeed at once. Each connection has a disk of its own, so a client must not spread its
//! requests over several (multi-conn is not offered).

use std::{rc::Rc, sync::Arc};

use block::{
    Device, Exports, Flags, Limits, Local, Op, OpenContext, Queue, Reactor, Request, Result,
    Source, WrapDevice,
};
use config::{Arg, Config, Size};

use crate::{file, mkfs::Recipe, regions::as_allowed, registry, scratch};

/// A fresh file system for every client, which is gone when the client is.
///
/// Each client takes up to size bytes in TMPDIR (else /var/tmp) on the server.
#[derive(Config, Debug, Clone, PartialEq, Eq)]
#[config(check = TmpdiskConfig::check)]
pub struct TmpdiskConfig {
    /// Size of each disk; a command may make another.
    #[config(magic)]
    pub size: Size,
    /// Type of the file system, as mkfs -t takes it.
    #[config(name = "type", default = "ext4")]
    pub kind: String,
    /// Label of the file system.
    pub label: Option<String>,
    /// A shell script that makes the disk, instead of mkfs.
    ///
    /// It makes the file $disk, of $size bytes if it likes. All parameters are shell variables.
    pub command: Option<String>,
    /// Variables for the command.
    #[config(rest)]
    pub variables: Vec<(String, String)>,
}

impl TmpdiskConfig {
    fn check(&self) -> Result<(), String> {
        self.recipe().check()
    }

    fn recipe(&self) -> Recipe {
        Recipe {
            size: self.size.0,
            kind: self.kind.clone(),
            label: self.label.clone(),
            command: self.command.clone(),
            variables: self.variables.clone(),
        }
    }
}

/// The source. Makes nothing yet.
pub fn new(config: TmpdiskConfig) -> Arc<dyn Source> {
    Arc::new(Tmpdisk {
        name: "tmpdisk".into(),
        recipe: config.recipe(),
    })
}

pub(crate) fn make(args: &[Arg]) -> Result<Arc<dyn Source>> {
    Ok(new(registry::parse(args)?))
}

struct Tmpdisk {
    name: Arc<str>,
    recipe: Recipe,
}

impl Source for Tmpdisk {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn exports<'a>(&'a self, _: &'a OpenContext) -> Local<'a, Result<Exports>> {
        Box::pin(async { Ok(Exports::single()) })
    }

    fn open<'a>(&'a self, cx: &'a OpenContext) -> Local<'a, Result<Arc<dyn Device>>> {
        Box::pin(async move { self.fresh(cx).await.map_err(|e| e.in_node(&self.name)) })
    }
}

impl Tmpdisk {
    async fn fresh(&self, cx: &OpenContext) -> Result<Arc<dyn Device>> {
        let dir = scratch::blocking(&cx.reactor, || scratch::directory("tmpdisk-")).await?;
        let path = dir.path().join("disk");
        self.recipe.make(cx, &path).await?;
        let name = self.name.clone();
        let opened = scratch::blocking(&cx.reactor, move || {
            let file = scratch::open_made(&path)?;
            // Here the name goes, and all else that a command may have put there.
            drop(dir);
            file::device(file, &name)
        });
        let device = volatile(opened.await?);
        Ok(as_allowed(device, cx.access))
    }
}

/// The same device, of which nothing has to survive.
fn volatile(device: Arc<dyn Device>) -> Arc<dyn Device> {
    WrapDevice::new(
        device,
        |limits: &mut Limits| limits.multi_conn = false,
        |_: &Reactor, next| Ok(Rc::new(Volatile(next)) as Rc<dyn Queue>),
    )
}

struct Volatile(Rc<dyn Queue>);

impl Queue for Volatile {
    #[inline]
    fn submit(&self, mut req: Request) {
        if req.op() == Op::Flush {
            return req.done();
        }
        req.set_flags(req.flags().without(Flags::FUA));
        self.0.submit(req);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Bench, ProgramHost, conform, open_alone, start};
    use block::{Access, ErrorKind};
    use reactor::DriverKind;

    fn source(words: &[&str]) -> Arc<dyn Source> {
        make(
            &words
                .iter()
                .map(|word| Arg::parse(word))
                .collect::<Vec<_>>(),
        )
        .unwrap()
    }

    fn open(words: &[&str], access: Access) -> Result<Bench> {
        let run = start(DriverKind::Auto).unwrap();
        Bench::with_host(run, &*source(words), "", access, Arc::new(ProgramHost))
    }

    #[test]
    fn every_client_has_a_fresh_file_system() {
        let clients = ["one", "two"].map(|_| open(&["16M", "label=FRESH"], Access::ReadWrite));
        let [one, two] = clients.map(|client| client.expect("mkfs makes a disk"));
        assert_eq!(one.limits().size, 16 << 20);
        assert!(!one.limits().multi_conn && one.limits().fua.is_offered());
        // The superblock's magic number and label.
        assert_eq!(one.read(1024 + 56, 2).unwrap(), [0x53, 0xef]);
        assert_eq!(one.read(1024 + 120, 6).unwrap(), *b"FRESH\0");
        one.write_flagged(1024, &[7; 512], Flags::FUA).unwrap();
        one.plain(Op::Flush, 0, 0).unwrap();
        one.plain(Op::Discard, 4096, 1 << 20).unwrap();
        assert_eq!(one.read(1024, 512).unwrap(), [7; 512]);
        assert_eq!(two.read(1024 + 56, 2).unwrap(), [0x53, 0xef]);
    }

    #[test]
    fn a_command_makes_what_it_likes_and_nothing_is_left() {
        let out = tempfile::tempdir().unwrap();
        let place = format!("place={}", out.path().join("seen").display());
        let words = [
            "size=1K",
            "text=hello world",
            &place,
            r#"command=printf '%s %s %s' "$text" "$size" "$type" > "$disk"; echo "$disk" > "$place""#,
        ];
        let bench = open(&words, Access::ReadOnly).unwrap();
        assert!(bench.limits().read_only());
        assert_eq!(bench.read(0, 21).unwrap(), *b"hello world 1024 ext4");
        let disk = std::fs::read_to_string(out.path().join("seen")).unwrap();
        let disk = std::path::Path::new(disk.trim());
        assert!(disk.is_absolute() && !disk.exists() && !disk.parent().unwrap().exists());
    }

    #[test]
    fn it_is_a_disk() {
        let source = source(&["8M", r#"command=truncate -s $size "$disk""#]);
        conform(|| open_alone(&*source, "").unwrap());
    }

    #[test]
    fn failures_say_why() {
        for (words, wanted) in [
            (
                &["1M", "command=echo 'no such luck' >&2; exit 3"][..],
                "tmpdisk: the command that makes a disk failed (exit code 3): no such luck",
            ),
            (
                &["1M", "command=true"],
                "tmpdisk: cannot open the disk that was made at ",
            ),
            (&["1K"], "tmpdisk: mkfs failed (exit code 1): "),
            (&["1M", "type=nonesuch"], "tmpdisk: mkfs failed (exit code "),
        ] {
            let error = open(words, Access::ReadWrite).err().expect("it fails");
            assert!(error.chain().starts_with(wanted), "{}", error.chain());
        }
        let args = [Arg::parse("1M"), Arg::parse("lable=X")];
        let error = make(&args).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(
            error
                .chain()
                .starts_with("tmpdisk: unknown parameter 'lable'")
        );
        assert!(
            make(&[])
                .err()
                .unwrap()
                .chain()
                .starts_with("tmpdisk: size=<SIZE> is required")
        );
    }
}
