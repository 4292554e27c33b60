//! The tree of a program: what its nodes are, how large, and how they are shown.
//!
//! A node knows its size as soon as it can be known: at once, unless a file or a script is part of it;
//! then after it was measured. Names are resolved while parsing, so a name is a reference to the node
//! it was given to, which makes the tree a graph without cycles: small, however much it stands for.

use std::{
    collections::HashSet,
    path::PathBuf,
    ptr,
    sync::{Arc, OnceLock},
};

use block::ErrorKind;

use super::load::Blob;

/// How deep expressions may stand in one another, names and variables included.
pub(super) const MAX_DEPTH: u16 = 200;

/// The largest disk, in bytes.
pub(super) const MAX_SIZE: u64 = i64::MAX as u64;

/// A place in a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At {
    /// Which text: 0 is the program, the others are variables.
    pub text: u32,
    /// Byte of the text.
    pub offset: u32,
}

/// What is wrong, and where.
#[derive(Debug)]
pub(super) struct Fault {
    pub at: At,
    /// What kind of failure it is, unless the cause says.
    pub kind: ErrorKind,
    pub why: String,
    pub cause: Option<std::io::Error>,
}

impl Fault {
    /// A mistake in the program.
    pub fn new(at: At, why: impl Into<String>) -> Fault {
        Fault {
            at,
            kind: ErrorKind::Config,
            why: why.into(),
            cause: None,
        }
    }
}

/// One expression.
#[derive(Debug)]
pub(super) struct Node {
    pub at: At,
    pub kind: Kind,
    depth: u16,
    size: OnceLock<u64>,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// Bytes as they are.
    Bytes(Vec<u8>),
    /// So many times one byte.
    Fill(u8, u64),
    /// Moves the offset. Has no bytes; only stands in a group.
    Move(Move),
    /// A file or a script.
    External(Box<External>),
    /// Items written one after the other, from offset 0.
    Group(Vec<Node>),
    /// What a name was given to.
    Name(Arc<Shared>),
    /// So many times the same.
    Repeat(Box<Node>, u64),
    /// From byte, to byte (`None`: the end).
    Slice(Box<Node>, u64, Option<u64>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    To(u64),
    Forward(u64),
    Back(u64),
    Align(u64),
}

/// A named expression.
#[derive(Debug)]
pub(super) struct Shared {
    pub name: String,
    pub node: Node,
}

/// Bytes from outside, or a slice of them.
#[derive(Debug)]
pub(super) struct External {
    pub what: What,
    pub from: u64,
    pub to: Option<u64>,
    /// Set when it has been read.
    pub content: OnceLock<Blob>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    File(PathBuf),
    Script(String),
}

impl Node {
    /// A node of a size that is known, or `None` if something outside has to be read first.
    ///
    /// # Errors
    /// Too deep, or too large.
    pub fn new(at: At, kind: Kind, size: Option<u64>) -> Result<Node, Fault> {
        let below = match &kind {
            Kind::Group(items) => items.iter().map(|item| item.depth).max().unwrap_or(0),
            Kind::Name(shared) => shared.node.depth,
            Kind::Repeat(inner, _) | Kind::Slice(inner, ..) => inner.depth,
            Kind::Bytes(_) | Kind::Fill(..) | Kind::Move(_) | Kind::External(_) => 0,
        };
        if below >= MAX_DEPTH {
            return Err(too_deep(at));
        }
        let node = Node {
            at,
            kind,
            depth: below + 1,
            size: OnceLock::new(),
        };
        if let Some(size) = size {
            node.set_size(size)?;
        }
        Ok(node)
    }

    /// Bytes, if that is known yet. If it is from the start, nothing outside is needed.
    pub fn known_size(&self) -> Option<u64> {
        self.size.get().copied()
    }

    /// Bytes of a node that has been measured.
    pub fn size(&self) -> u64 {
        *self.size.get().expect("the tree has been measured")
    }

    pub fn set_size(&self, size: u64) -> Result<u64, Fault> {
        if size > MAX_SIZE {
            return Err(too_large(self.at));
        }
        Ok(*self.size.get_or_init(|| size))
    }

    pub fn is_move(&self) -> bool {
        matches!(self.kind, Kind::Move(_))
    }
}

pub(super) fn too_deep(at: At) -> Fault {
    Fault::new(at, format!("nested more than {MAX_DEPTH} levels deep"))
}

pub(super) fn too_large(at: At) -> Fault {
    Fault::new(at, "the data is larger than 2^63-1 bytes")
}

/// Where the items of a group go.
#[derive(Default)]
pub(super) struct Layout {
    /// Where the next item begins.
    pub offset: u64,
    /// The highest offset so far: the size of the group, in the end.
    pub end: u64,
}

impl Layout {
    /// The range of an item of this size. A move has none, and moves.
    pub fn place(&mut self, item: &Node, size: u64) -> Result<u64, Fault> {
        let (from, at) = (self.offset, item.at);
        let next = match item.kind {
            Kind::Move(Move::To(offset)) => Some(offset),
            Kind::Move(Move::Forward(by)) => from.checked_add(by),
            Kind::Move(Move::Back(by)) => Some(from.checked_sub(by).ok_or_else(|| {
                let why = format!("@-{by} must not be larger than the current offset {from}");
                Fault::new(at, why)
            })?),
            Kind::Move(Move::Align(to)) => from.checked_next_multiple_of(to),
            _ => from.checked_add(size),
        };
        self.offset = next
            .filter(|next| *next <= MAX_SIZE)
            .ok_or_else(|| too_large(at))?;
        self.end = self.end.max(self.offset);
        Ok(from)
    }
}

/// The tree in lines, in nbdkit's form: what `-D data.AST=1` prints. A named expression stands where
/// it is first used, followed by its name.
pub(super) fn render(root: &Node) -> Vec<String> {
    let mut lines = Vec::new();
    match &root.kind {
        Kind::Group(_) => show(root, 0, &mut lines, &mut HashSet::new()),
        _ => {
            lines.push("(".to_owned());
            show(root, 1, &mut lines, &mut HashSet::new());
            lines.push(")".to_owned());
        }
    }
    lines
}

fn show(node: &Node, level: usize, lines: &mut Vec<String>, seen: &mut HashSet<*const Shared>) {
    let indent = "    ".repeat(level);
    match &node.kind {
        Kind::Bytes(bytes) => lines.push(format!("{indent}\"{}\"", escaped(bytes))),
        Kind::Fill(byte, count) => lines.push(format!("{indent}fill({byte}*{count})")),
        Kind::Move(Move::To(n)) => lines.push(format!("{indent}@{n}")),
        Kind::Move(Move::Forward(n)) => lines.push(format!("{indent}@+{n}")),
        Kind::Move(Move::Back(n)) => lines.push(format!("{indent}@-{n}")),
        Kind::Move(Move::Align(n)) => lines.push(format!("{indent}@^{n}")),
        Kind::External(external) => {
            let window = match (external.from, external.to) {
                (0, None) => String::new(),
                (from, None) => format!("[{from}:]"),
                (from, Some(to)) => format!("[{from}:{to}]"),
            };
            lines.push(format!("{indent}{}{window}", external.what));
        }
        Kind::Group(items) => {
            lines.push(format!("{indent}("));
            for item in items {
                show(item, level + 1, lines, seen);
            }
            lines.push(format!("{indent})"));
        }
        Kind::Name(shared) => {
            if seen.insert(ptr::from_ref(&**shared)) {
                show(&shared.node, level, lines, seen);
                append(lines, &format!(" -> \\{}", shared.name));
            }
            lines.push(format!("{indent}\\{}", shared.name));
        }
        Kind::Repeat(inner, count) => {
            show(inner, level, lines, seen);
            append(lines, &format!(" *{count}"));
        }
        Kind::Slice(inner, from, to) => {
            show(inner, level, lines, seen);
            let to = to.map(|to| to.to_string()).unwrap_or_default();
            append(lines, &format!("[{from}:{to}]"));
        }
    }
}

fn append(lines: &mut [String], text: &str) {
    lines.last_mut().expect("a node has a line").push_str(text);
}

fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => text.extend(['\\', byte.into()]),
            b' '..=b'~' => text.push(byte.into()),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text
}

impl std::fmt::Display for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            What::File(path) => write!(f, "<{}", path.display()),
            // A script may have many lines; this is one.
            What::Script(script) => write!(f, "<({})", script.escape_debug()),
        }
    }
}
