//! A disk with one partition, which has an ext2, ext3 or ext4 file system of a directory's contents.
//!
//! mke2fs makes the file system, in a temporary file without a name (see [`crate::scratch`]); the GPT
//! around it is made in memory. If no size is given, it is estimated from what the directory
//! holds; if mke2fs finds it too small, it is tried again with more.

use std::{
    collections::HashSet,
    fs::{self, File, Metadata},
    hash::{BuildHasher, RandomState},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use block::{Device, Error, Result, Source};
use config::{Arg, Choice, Config, Kind, Value};

use crate::{
    file, image,
    partition_table::{SECTOR, gpt, guid::Guid, sectors},
    regions::{self, Layout},
    registry, scratch,
};

/// The partition begins here, in sectors: 1 MiB.
const START: u64 = 2048;

/// Sizes of file systems are multiples of this.
const UNIT: u64 = 1 << 20;

/// How often a size that was only estimated is raised.
const TRIES: usize = 6;

/// A read-only disk with a Linux file system of a directory's contents.
///
/// It takes space in TMPDIR (else /var/tmp) on the server.
#[derive(Config, Debug, Clone, PartialEq, Eq)]
pub struct LinuxdiskConfig {
    /// The directory whose files are in the root directory of the file system.
    #[config(magic, value = "DIR")]
    pub dir: PathBuf,
    /// Label of the file system.
    pub label: Option<String>,
    /// Type of the file system.
    #[config(name = "type", default = "ext2")]
    pub kind: Filesystem,
    /// Size of the file system, or with '+' in front the space that is free in it.
    ///
    /// If it is not given, the file system is just large enough.
    pub size: Option<DiskSize>,
}

/// The type of a Linux file system.
#[derive(Choice, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filesystem {
    /// Without a journal.
    Ext2,
    /// With a journal.
    Ext3,
    /// With a journal and extents.
    Ext4,
}

/// How large a file system becomes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskSize {
    /// This large.
    Total(u64),
    /// As large as it must be, and this much more.
    Free(u64),
}

impl Value for DiskSize {
    const TYPE: &'static str = "[+]SIZE";
    const KIND: Kind = Kind::Text;

    fn parse(text: &str) -> Result<DiskSize, String> {
        match text.strip_prefix('+') {
            Some(free) => config::grammar::size(free).map(DiskSize::Free),
            None => config::grammar::size(text).map(DiskSize::Total),
        }
    }
}

/// The source. Makes nothing yet.
///
/// # Errors
/// `Io`, if a relative path cannot be made absolute because the current directory is gone.
pub fn new(mut config: LinuxdiskConfig) -> Result<Arc<dyn Source>> {
    let name: Arc<str> = "linuxdisk".into();
    config.dir = file::absolute(&config.dir).map_err(|e| e.in_node(&name))?;
    let node = name.clone();
    let build = move || {
        image::check_directory(&config.dir)?;
        let filesystem = file::device(filesystem(&config)?, &node)?;
        partitioned(filesystem, &node)
    };
    Ok(image::source(&name, build))
}

pub(crate) fn make(args: &[Arg]) -> Result<Arc<dyn Source>> {
    new(registry::parse(args)?)
}

/// The disk around a file system.
fn partitioned(filesystem: Arc<dyn Device>, node: &Arc<str>) -> Result<Arc<dyn Device>> {
    let bytes = filesystem.limits().size;
    let end = START + sectors(bytes);
    let total = end + gpt::backup_sectors(1);
    // Every time another file system, so every time other GUIDs.
    let random = || {
        let number = || RandomState::new().hash_one(START).to_le_bytes();
        Guid::derived(&[&number(), &number()])
    };
    let partition = gpt::Partition {
        kind: Guid::LINUX,
        id: random(),
        start: START,
        sectors: sectors(bytes),
        name: String::new(),
        bootable: false,
    };
    let (front, back) = gpt::tables(random(), &[partition], total);
    let mut layout = Layout::default();
    layout.table(front);
    layout.pad_to(START * SECTOR);
    layout.child(0, 0, bytes);
    layout.pad_to(end * SECTOR);
    layout.table(back);
    regions::glue(node, layout, vec![filesystem])
}

/// Makes the file system. The file has no name any more.
fn filesystem(config: &LinuxdiskConfig) -> Result<File> {
    let place = scratch::directory("linuxdisk-")?;
    let path = place.path().join("disk");
    let needs = Needs::of(&config.dir)?;
    let (mut size, fixed) = match config.size {
        Some(DiskSize::Total(size)) => (size, true),
        Some(DiskSize::Free(free)) => (needs.size(config.kind, free), false),
        None => (needs.size(config.kind, 0), false),
    };
    for left in (0..TRIES).rev() {
        let made = mke2fs(config, &needs, &path, size);
        match made {
            Ok(()) => break,
            Err(error) if fixed || left == 0 => return Err(error),
            Err(_) => size = (size + size / 4).next_multiple_of(UNIT),
        }
    }
    scratch::open_made(&path)
}

fn mke2fs(config: &LinuxdiskConfig, needs: &Needs, path: &Path, size: u64) -> Result<()> {
    let sized = File::create(path).and_then(|file| file.set_len(size));
    sized.map_err(|e| {
        let what = format!("cannot make a file of {size} bytes at '{}'", path.display());
        Error::io(what, e)
    })?;
    let mut program = Command::new("mke2fs");
    program.args(["-q", "-F", "-m", "0", "-t", config.kind.name()]);
    program.arg("-N").arg(needs.inodes_of(size).to_string());
    if let Some(label) = &config.label {
        program.arg("-L").arg(label);
    }
    program.arg("-d").arg(&config.dir).arg(path);
    let output = scratch::run(&mut program)
        .map_err(|e| e.hint("the program mke2fs is in the package e2fsprogs"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(scratch::failed(
            "mke2fs",
            output.status.code(),
            &output.stderr,
        )),
    }
}

/// What a file system needs to hold a directory.
struct Needs {
    bytes: u64,
    inodes: u64,
}

/// Bytes per block: the largest that mke2fs takes by itself.
const BLOCK: u64 = 4096;

impl Needs {
    /// Looks at everything in the directory.
    fn of(dir: &Path) -> Result<Needs> {
        let mut needs = Needs {
            bytes: 0,
            inodes: 16,
        };
        let mut linked = HashSet::new();
        let mut left = vec![dir.to_owned()];
        while let Some(dir) = left.pop() {
            let cannot = |e| Error::io(format!("cannot read '{}'", dir.display()), e);
            let mut names = 0;
            for entry in fs::read_dir(&dir).map_err(cannot)? {
                let entry = entry.map_err(cannot)?;
                let meta = entry.metadata().map_err(cannot)?;
                names += 16 + entry.file_name().len() as u64;
                if meta.is_dir() {
                    left.push(entry.path());
                } else if meta.nlink() == 1 || linked.insert((meta.dev(), meta.ino())) {
                    needs.add(content(&meta));
                }
            }
            needs.add(names + BLOCK);
        }
        Ok(needs)
    }

    fn add(&mut self, bytes: u64) {
        self.inodes += 1;
        // One block in a thousand says where the others are.
        let blocks = bytes.div_ceil(BLOCK);
        self.bytes = self
            .bytes
            .saturating_add(blocks.saturating_add(blocks / 512) * BLOCK);
    }

    fn inodes_of(&self, size: u64) -> u64 {
        (self.inodes + self.inodes / 8)
            .saturating_add(size >> 14)
            .min(1 << 31)
    }

    /// The size of a file system that has `free` bytes left.
    fn size(&self, kind: Filesystem, free: u64) -> u64 {
        let held = self.bytes.saturating_add(free).min(1 << 60);
        // Bitmaps, group descriptors and the inodes that come with the size.
        let size = held + held / 32 + self.inodes * 320 + UNIT / 2;
        let journal = match (kind, size >> 20) {
            (Filesystem::Ext2, _) => 0,
            (_, 0..128) => 5 << 20,
            (_, 128..1024) => 17 << 20,
            (_, 1024..4096) => 65 << 20,
            _ => 1 << 30,
        };
        (size + journal).next_multiple_of(UNIT)
    }
}

/// Bytes of a file's contents, without its holes.
fn content(meta: &Metadata) -> u64 {
    let kind = meta.file_type();
    if kind.is_file() {
        // Small files may lie in their inode, and take no block.
        let taken = meta.blocks().saturating_mul(512).max(BLOCK);
        return meta.len().min(taken);
    }
    // A short link lies in its inode.
    if kind.is_symlink() && meta.len() >= 60 {
        meta.len()
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;
    use block::ErrorKind;

    fn made(words: &[&str]) -> Result<Arc<dyn Source>> {
        let source = make(
            &words
                .iter()
                .map(|word| Arg::parse(word))
                .collect::<Vec<_>>(),
        )?;
        source.ready().map(|()| source)
    }

    /// The partition of the disk, as a file of its own.
    fn partition(source: Arc<dyn Source>) -> tempfile::NamedTempFile {
        let bench = Bench::open(source);
        assert!(bench.limits().read_only() && bench.limits().multi_conn);
        let disk = bench.read_all();
        assert_eq!(disk[512..520], *b"EFI PART");
        let place =
            |at: usize| u64::from_le_bytes(disk[1024 + at..][..8].try_into().unwrap()) as usize;
        assert_eq!(disk[1024..1040], Guid::LINUX.0);
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), &disk[place(32) * 512..(place(40) + 1) * 512]).unwrap();
        file
    }

    fn e2(program: &str, args: &[&str]) -> Option<String> {
        let mut command = Command::new(program);
        match scratch::run(command.args(args)) {
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                assert!(output.status.success(), "{program}: {text}");
                Some(text)
            }
            Err(error) => {
                eprintln!("SKIP: {}", error.chain());
                None
            }
        }
    }

    #[test]
    fn a_directory_becomes_a_file_system() {
        let dir = tempfile::tempdir().unwrap();
        let big: Vec<u8> = (0..3_000_000).map(|i| (i % 251) as u8).collect();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/big"), &big).unwrap();
        for i in 0..500 {
            fs::write(dir.path().join(format!("small{i}")), b"x").unwrap();
        }
        std::os::unix::fs::symlink("sub/big", dir.path().join("link")).unwrap();
        let place = dir.path().display().to_string();
        for words in [
            &[place.as_str(), "label=ROOTFS"][..],
            &[&place, "type=ext4", "size=+16M", "label=ROOTFS"],
            &[&place, "type=ext3", "size=64M", "label=ROOTFS"],
        ] {
            let file = partition(made(words).unwrap());
            let image = file.path().display().to_string();
            if e2("e2fsck", &["-fn", &image]).is_none() {
                return;
            }
            let target = tempfile::NamedTempFile::new().unwrap();
            let out = target.path().display().to_string();
            e2("debugfs", &["-R", &format!("dump sub/big {out}"), &image]).unwrap();
            assert!(fs::read(&out).unwrap() == big);
            let about = e2("dumpe2fs", &["-h", &image]).unwrap();
            assert!(about.contains("ROOTFS"), "{about}");
            let number = |key: &str| {
                let line = about
                    .lines()
                    .find_map(|line| line.strip_prefix(key))
                    .expect(key);
                line.trim().parse::<u64>().unwrap()
            };
            let free = number("Free blocks:") * number("Block size:");
            match words.get(2) {
                Some(&"size=+16M") => assert!(free >= 16 << 20, "{free}"),
                Some(_) => assert_eq!(file.as_file().metadata().unwrap().len(), 64 << 20),
                None => assert!(free < 4 << 20, "{free}"),
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("big"), vec![1; 2 << 20]).unwrap();
        let place = dir.path().display().to_string();
        let error = made(&[&place, "size=1M"]).err().unwrap();
        assert!(
            error
                .chain()
                .starts_with("linuxdisk: mke2fs failed (exit code ")
        );
        let error = made(&["/nonexistent/dir"]).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let error = made(&[&place, "type=ext5"]).err().unwrap();
        assert!(
            error
                .chain()
                .starts_with("linuxdisk: type=ext5: must be one of ext2")
        );
        let error = made(&[&place, "size=+x"]).err().unwrap();
        assert!(
            error.chain().starts_with("linuxdisk: size=+x: "),
            "{}",
            error.chain()
        );
        assert!(
            made(&[])
                .err()
                .unwrap()
                .chain()
                .starts_with("linuxdisk: dir=<DIR> is required")
        );
    }
}
