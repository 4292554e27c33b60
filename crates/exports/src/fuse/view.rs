//! What is there to see: one file, and the directory it may be in.

use std::time::Duration;

use super::proto::{Fields, PAGE, Put, ROOT};

/// The mount point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A file: the disk itself.
    File,
    /// A directory with the disk as its only file.
    Directory {
        /// The file's name.
        name: String,
    },
}

/// What the kernel keeps of the disk's contents in its page cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cache {
    /// Until the file is opened again, which shows what others have written.
    #[default]
    WhileOpen,
    /// For as long as there is memory: nobody else writes to the disk.
    Keep,
    /// Until the file's size is another.
    Auto,
    /// Nothing: every read and write reaches the disk.
    Nothing,
}

/// How the disk looks as a file.
#[derive(Clone, Debug)]
pub struct View {
    /// File or directory.
    pub shape: Shape,
    /// Owner of everything.
    pub uid: u32,
    /// Group of everything.
    pub gid: u32,
    /// The file's permission bits; those of writing are taken away if it is read-only.
    pub permissions: u32,
    /// Nobody writes.
    pub read_only: bool,
    /// What the kernel keeps.
    pub cache: Cache,
    /// How long the kernel believes sizes and other attributes.
    pub attr_timeout: Duration,
    /// How long it believes that the file is there.
    pub entry_timeout: Duration,
    /// How long it believes that others are not; zero: not at all.
    pub negative_timeout: Duration,
    /// All times of the file, since 1970.
    pub time: Duration,
}

impl Default for View {
    /// A file that its owner, root, reads and writes, with libfuse's timeouts.
    fn default() -> View {
        View {
            shape: Shape::File,
            uid: 0,
            gid: 0,
            permissions: 0o666,
            read_only: false,
            cache: Cache::default(),
            attr_timeout: Duration::from_secs(1),
            entry_timeout: Duration::from_secs(1),
            negative_timeout: Duration::ZERO,
            time: Duration::ZERO,
        }
    }
}

/// What the disk can do, and how large it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// In bytes.
    pub size: u64,
    /// Reads and writes of so many bytes are served best.
    pub block: u32,
    /// It can be written.
    pub writes: bool,
    /// It can be flushed.
    pub flushes: bool,
    /// It can write zeroes.
    pub zeroes: bool,
    /// It knows what is allocated.
    pub extents: bool,
}

/// The file's number, if it is in a directory.
const INSIDE: u64 = 2;

const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;

/// What a number names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    Directory,
    File,
}

/// One name in the directory.
struct Entry<'a> {
    name: &'a [u8],
    number: u64,
    node: Node,
    /// A name for the directory itself or the one above.
    dots: bool,
}

impl View {
    /// What a number names, if anything.
    pub(super) fn node(&self, number: u64) -> Option<Node> {
        match (&self.shape, number) {
            (Shape::File, ROOT) | (Shape::Directory { .. }, INSIDE) => Some(Node::File),
            (Shape::Directory { .. }, ROOT) => Some(Node::Directory),
            _ => None,
        }
    }

    /// A name in the directory.
    pub(super) fn is_named(&self, name: &[u8]) -> bool {
        matches!(&self.shape, Shape::Directory { name: known } if known.as_bytes() == name)
    }

    /// Whether the file may be written.
    pub(super) fn writable(&self, disk: &Disk) -> bool {
        disk.writes && !self.read_only
    }

    /// `struct fuse_attr_out`.
    pub(super) fn put_attr_out(&self, node: Node, disk: &Disk, out: &mut Vec<u8>) {
        out.u64(self.attr_timeout.as_secs())
            .u32(self.attr_timeout.subsec_nanos())
            .u32(0);
        self.put_attr(node, disk, out);
    }

    /// `struct fuse_entry_out` of the file in the directory.
    pub(super) fn put_entry_out(&self, disk: &Disk, out: &mut Vec<u8>) {
        self.put_entry(INSIDE, Node::File, disk, out);
    }

    /// `struct fuse_entry_out` that says there is no such file; the kernel will remember that.
    pub(super) fn put_no_entry(&self, out: &mut Vec<u8>) {
        let timeout = self.negative_timeout;
        out.u64(0).u64(0).u64(timeout.as_secs()).u64(0);
        out.u32(timeout.subsec_nanos()).u32(0).zeroes(ATTR);
    }

    fn put_entry(&self, number: u64, node: Node, disk: &Disk, out: &mut Vec<u8>) {
        // No generation: numbers are never used again.
        out.u64(number).u64(0);
        out.u64(self.entry_timeout.as_secs())
            .u64(self.attr_timeout.as_secs());
        out.u32(self.entry_timeout.subsec_nanos())
            .u32(self.attr_timeout.subsec_nanos());
        self.put_attr(node, disk, out);
    }

    /// `struct fuse_attr`.
    fn put_attr(&self, node: Node, disk: &Disk, out: &mut Vec<u8>) {
        let number = match (node, &self.shape) {
            (Node::File, Shape::Directory { .. }) => INSIDE,
            _ => ROOT,
        };
        let (size, blocks, mode, links) = match node {
            Node::Directory => (0, 0, S_IFDIR | 0o555, 2),
            Node::File => (disk.size, blocks(disk), self.mode(disk), 1),
        };
        out.u64(number).u64(size).u64(blocks);
        for _ in ["access", "modification", "change"] {
            out.u64(self.time.as_secs());
        }
        for _ in ["access", "modification", "change"] {
            out.u32(self.time.subsec_nanos());
        }
        out.u32(mode).u32(links).u32(self.uid).u32(self.gid);
        // No device; no flags.
        out.u32(0).u32(disk.block.clamp(PAGE, 1 << 20)).u32(0);
    }

    fn mode(&self, disk: &Disk) -> u32 {
        let writing = if self.writable(disk) { 0 } else { 0o222 };
        S_IFREG | (self.permissions & 0o777 & !writing)
    }

    /// Entries of the directory from the given position on, as many as `room` bytes hold: of
    /// `struct fuse_dirent`, or of `struct fuse_direntplus` if `plus`.
    pub(super) fn put_entries(
        &self,
        disk: &Disk,
        from: u64,
        room: usize,
        plus: bool,
        out: &mut Vec<u8>,
    ) {
        let Shape::Directory { name } = &self.shape else {
            return;
        };
        let entry = |name, number, node, dots| Entry {
            name,
            number,
            node,
            dots,
        };
        let entries = [
            entry(&b"."[..], ROOT, Node::Directory, true),
            entry(b"..", ROOT, Node::Directory, true),
            entry(name.as_bytes(), INSIDE, Node::File, false),
        ];
        let end = out.len() + room;
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        for (at, entry) in entries.iter().enumerate().skip(from) {
            let len = DIRENT + entry.name.len();
            let len = len.next_multiple_of(8) + if plus { ENTRY } else { 0 };
            if out.len() + len > end {
                return;
            }
            let begin = out.len();
            if plus && entry.dots {
                // The kernel knows them, and counts no reference.
                out.zeroes(ENTRY);
            } else if plus {
                self.put_entry(entry.number, entry.node, disk, out);
            }
            let kind = match entry.node {
                Node::Directory => S_IFDIR >> 12,
                Node::File => S_IFREG >> 12,
            };
            out.u64(entry.number).u64(at as u64 + 1);
            out.u32(entry.name.len() as u32).u32(kind);
            out.extend_from_slice(entry.name);
            out.resize(begin + len, 0);
        }
    }
}

/// `struct fuse_attr`, `struct fuse_entry_out` and `struct fuse_dirent`, in bytes.
const ATTR: usize = 88;
const ENTRY: usize = 40 + ATTR;
const DIRENT: usize = 24;

/// How many sectors are said to be allocated. Nobody knows, but programs look for holes only in a
/// file that has fewer than its size needs, and take one that has none for a single hole.
fn blocks(disk: &Disk) -> u64 {
    let all = disk.size.div_ceil(512);
    match disk.extents {
        true => all.saturating_sub(1).max(1).min(all),
        false => all,
    }
}

/// `struct fuse_statfs_out`: a file system that is full.
pub(super) fn put_statfs(disk: &Disk, out: &mut Vec<u8>) {
    let blocks = disk.size.div_ceil(u64::from(PAGE));
    // Blocks free, free for users; files, files free.
    out.u64(blocks).u64(0).u64(0).u64(1).u64(0);
    // Block size, longest name, fragment size, and what is kept for later.
    out.u32(PAGE).u32(255).u32(PAGE).zeroes(28);
}

/// The name in a LOOKUP: it ends with a NUL.
pub(super) fn name_of(mut body: Fields<'_>) -> Option<&[u8]> {
    let len = body.0.iter().position(|byte| *byte == 0)?;
    body.bytes(len)
}
