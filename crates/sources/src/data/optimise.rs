//! The optimiser: makers of nodes that give the simplest node of the same meaning.
//!
//! *Why so.* The parser builds the tree from the leaves up, so an optimiser that looks at one node and
//! what is directly below sees everything, and a tree that is large only until it is optimised never
//! exists. What it does: literals that stand together become one; lists inside of lists are
//! flattened where that moves no offset; repeats of one byte, and everything that is known to be zero,
//! become fills; repeats of repeats, slices of slices and slices of constants become one.
//!
//! *Contract.* The bytes are those of the plain tree, and every mistake in the plain tree that does not
//! depend on something outside is found here.

use std::sync::Arc;

use super::ast::{At, MAX_SIZE};
use super::ast::{External, Fault, Kind, Layout, Move, Node, Shared, What, too_large};

/// Repeats of literals that stay this short, in bytes, become literals.
const UNROLL: u64 = 256;

/// Fills this short, in bytes, join a literal beside them.
const SHORT_FILL: u64 = 16;

/// Named literals this short, in bytes, are copied to where the name stands.
const INLINE: usize = 32;

/// Bytes as they are.
pub(super) fn bytes(at: At, bytes: Vec<u8>) -> Result<Node, Fault> {
    let len = bytes.len() as u64;
    Node::new(at, Kind::Bytes(bytes), Some(len))
}

/// So many times one byte.
pub(super) fn fill(at: At, byte: u8, count: u64) -> Result<Node, Fault> {
    Node::new(at, Kind::Fill(byte, count), Some(count))
}

/// A move of the offset.
pub(super) fn offset(at: At, to: Move) -> Result<Node, Fault> {
    Node::new(at, Kind::Move(to), Some(0))
}

/// A file or a script, all of it.
pub(super) fn external(at: At, what: What) -> Result<Node, Fault> {
    let external = External {
        what,
        from: 0,
        to: None,
        content: Default::default(),
    };
    Node::new(at, Kind::External(Box::new(external)), None)
}

/// A use of a name.
pub(super) fn name(at: At, shared: &Arc<Shared>) -> Result<Node, Fault> {
    match &shared.node.kind {
        Kind::Bytes(known) if known.len() <= INLINE => bytes(at, known.clone()),
        Kind::Fill(byte, count) => fill(at, *byte, *count),
        _ => Node::new(at, Kind::Name(shared.clone()), shared.node.known_size()),
    }
}

/// `node*count`.
pub(super) fn repeat(at: At, node: Node, count: u64) -> Result<Node, Fault> {
    if count == 0 || node.known_size() == Some(0) {
        return bytes(at, Vec::new());
    }
    if count == 1 {
        return Ok(node);
    }
    let total = |size: u64| size.checked_mul(count).ok_or_else(|| too_large(at));
    let size = node.known_size().map(total).transpose()?;
    match (&node.kind, size) {
        (Kind::Fill(byte, _), Some(size)) => return fill(at, *byte, size),
        (Kind::Bytes(known), Some(size)) => {
            if let Some(byte) = same(known) {
                return fill(at, byte, size);
            }
            if size <= UNROLL {
                return bytes(at, known.repeat(count as usize));
            }
        }
        _ => {}
    }
    let (inner, count) = match node {
        Node {
            kind: Kind::Repeat(inner, times),
            ..
        } => (inner, total(times)?),
        node => (Box::new(node), count),
    };
    Node::new(at, Kind::Repeat(inner, count), size)
}

/// `node[from:to]`.
pub(super) fn slice(at: At, node: Node, from: u64, to: Option<u64>) -> Result<Node, Fault> {
    let Some(size) = node.known_size() else {
        return slice_unknown(at, node, from, to);
    };
    check_slice(at, from, to, size)?;
    let to = to.unwrap_or(size);
    let len = to - from;
    if len == size {
        return Ok(node);
    }
    match &node.kind {
        Kind::Fill(byte, _) => return fill(at, *byte, len),
        Kind::Bytes(known) => return bytes(at, known[from as usize..to as usize].to_vec()),
        _ if len == 0 => return bytes(at, Vec::new()),
        Kind::Repeat(inner, _) if len <= UNROLL => {
            if let Kind::Bytes(known) = &inner.kind {
                let copies = known.iter().cycle();
                let start = (from % known.len() as u64) as usize;
                let taken = copies.skip(start).take(len as usize);
                return bytes(at, taken.copied().collect());
            }
        }
        _ => {}
    }
    match node {
        Node {
            kind: Kind::Slice(inner, start, _),
            ..
        } => Node::new(
            at,
            Kind::Slice(inner, start + from, Some(start + to)),
            Some(len),
        ),
        Node {
            kind: Kind::Repeat(inner, _),
            ..
        } if from / inner.size() == (to - 1) / inner.size() => {
            let skip = from % inner.size();
            slice(at, *inner, skip, Some(skip + len))
        }
        node => Node::new(at, Kind::Slice(Box::new(node), from, Some(to)), Some(len)),
    }
}

/// A slice of what has to be read first. Directly behind a file or script it says what is read, so
/// those may be endless.
fn slice_unknown(at: At, node: Node, from: u64, to: Option<u64>) -> Result<Node, Fault> {
    if to.is_some_and(|to| to < from) {
        return Err(bad_slice(at, from, to, None));
    }
    match node {
        Node {
            kind: Kind::External(mut external),
            ..
        } => {
            let shifted = |n: u64| external.from.checked_add(n).filter(|n| *n <= MAX_SIZE);
            let start = shifted(from).ok_or_else(|| too_large(at))?;
            let end = match to {
                Some(to) => Some(shifted(to).ok_or_else(|| too_large(at))?),
                None => external.to,
            };
            if let Some(most) = external.to
                && (start > most || end.is_some_and(|end| end > most))
            {
                return Err(bad_slice(at, from, to, Some(most - external.from)));
            }
            (external.from, external.to) = (start, end);
            Node::new(at, Kind::External(external), None)
        }
        node => Node::new(at, Kind::Slice(Box::new(node), from, to), None),
    }
}

/// A slice lies inside of what it is cut from.
pub(super) fn check_slice(at: At, from: u64, to: Option<u64>, size: u64) -> Result<(), Fault> {
    match from <= to.unwrap_or(size) && to.unwrap_or(from) <= size && from <= size {
        true => Ok(()),
        false => Err(bad_slice(at, from, to, Some(size))),
    }
}

pub(super) fn bad_slice(at: At, from: u64, to: Option<u64>, size: Option<u64>) -> Fault {
    let to = to.map(|to| to.to_string()).unwrap_or_default();
    let of = size.map(|size| format!(" of {size} bytes"));
    let of = of.unwrap_or_default();
    Fault::new(
        at,
        format!("[{from}:{to}] does not describe a valid slice{of}"),
    )
}

/// `( items )`.
pub(super) fn group(at: At, items: Vec<Node>) -> Result<Node, Fault> {
    let mut flat: Vec<Node> = Vec::with_capacity(items.len());
    for item in items {
        match item {
            // Without moves its offsets do not matter.
            Node {
                kind: Kind::Group(inner),
                ..
            } if !inner.iter().any(Node::is_move) => {
                inner
                    .into_iter()
                    .try_for_each(|item| join(&mut flat, item))?;
            }
            item => join(&mut flat, item)?,
        }
    }
    if flat.len() == 1 && !flat[0].is_move() {
        return Ok(flat.remove(0));
    }
    let mut layout = Some(Layout::default());
    for item in &flat {
        layout = match (layout, item.known_size()) {
            (Some(mut layout), Some(size)) => layout.place(item, size).map(|_| Some(layout))?,
            _ => None,
        };
    }
    let size = layout.map(|layout| layout.end);
    match size {
        Some(0) => bytes(at, Vec::new()),
        Some(size) if flat.iter().all(is_zero) => fill(at, 0, size),
        size => Node::new(at, Kind::Group(flat), size),
    }
}

/// Adds an item behind others, joined with the last one where both are literal.
pub(super) fn join(items: &mut Vec<Node>, item: Node) -> Result<(), Fault> {
    if !item.is_move() && item.known_size() == Some(0) || is_no_move(&item) {
        return Ok(());
    }
    let Some(last) = items.last_mut() else {
        items.push(item);
        return Ok(());
    };
    let at = last.at;
    let joined = match (&mut last.kind, &item.kind) {
        (Kind::Fill(a, n), Kind::Fill(b, m)) if a == b => {
            fill(at, *a, n.checked_add(*m).ok_or_else(|| too_large(at))?)?
        }
        (Kind::Bytes(known), Kind::Bytes(more)) => {
            let mut known = std::mem::take(known);
            known.extend_from_slice(more);
            bytes(at, known)?
        }
        (Kind::Bytes(known), Kind::Fill(byte, n)) if *n <= SHORT_FILL => {
            let mut known = std::mem::take(known);
            known.resize(known.len() + *n as usize, *byte);
            bytes(at, known)?
        }
        (Kind::Fill(byte, n), Kind::Bytes(more)) if *n <= SHORT_FILL => {
            let mut known = vec![*byte; *n as usize];
            known.extend_from_slice(more);
            bytes(at, known)?
        }
        _ => {
            items.push(item);
            return Ok(());
        }
    };
    *last = joined;
    Ok(())
}

/// The byte all of them are.
fn same(bytes: &[u8]) -> Option<u8> {
    let first = *bytes.first()?;
    bytes.iter().all(|byte| *byte == first).then_some(first)
}

fn is_zero(item: &Node) -> bool {
    match &item.kind {
        Kind::Bytes(bytes) => bytes.iter().all(|byte| *byte == 0),
        Kind::Fill(byte, _) => *byte == 0,
        kind => matches!(kind, Kind::Move(_)),
    }
}

fn is_no_move(item: &Node) -> bool {
    matches!(
        item.kind,
        Kind::Move(Move::Forward(0) | Move::Back(0) | Move::Align(1))
    )
}
