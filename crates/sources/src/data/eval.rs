//! From tree to bytes: only what is asked for, and only what is not zero.
//!
//! First the tree is measured, which reads files and runs scripts; then it is written. Writing works on
//! windows: a slice asks the node below for a part of its bytes and for nothing else, so a slice of
//! something huge costs what the slice has. Zeroes are told to the sink as lengths.
//!
//! A group whose offset moves may leave gaps and write places twice, and its gaps are zeroes, also
//! where something was before. So its range is cleared first; a small one is put together in a buffer,
//! which the sink then sees once. A repeat of something small is written from a tile of many copies.

use block::Errno;

use super::{
    ast::{At, Fault, Kind, Layout, Node, too_large},
    load::Outside,
    optimise::check_slice,
};

/// Bytes of a tile, and the most bytes that are put together before they are written.
const TILE: u64 = 64 << 10;

/// Where bytes go.
pub(super) trait Sink {
    /// Small writes, and writes over what is there, cost nothing extra.
    const RANDOM: bool = false;

    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), Errno>;
    fn zero(&mut self, at: u64, len: u64) -> Result<(), Errno>;
    /// Writes what is kept back: nothing more comes.
    fn finish(&mut self) -> Result<(), Errno> {
        Ok(())
    }
}

/// Bytes of a node. Reads everything outside that is part of it.
pub(super) fn measure(node: &Node, outside: &dyn Outside) -> Result<u64, Fault> {
    if let Some(size) = node.known_size() {
        return Ok(size);
    }
    let size = match &node.kind {
        Kind::External(external) => {
            let blob = outside.read(node.at, external)?;
            external.content.get_or_init(|| blob).len()
        }
        Kind::Group(items) => {
            let mut layout = Layout::default();
            for item in items {
                let size = measure(item, outside)?;
                layout.place(item, size)?;
            }
            layout.end
        }
        Kind::Name(shared) => measure(&shared.node, outside)?,
        Kind::Repeat(inner, count) => measure(inner, outside)?
            .checked_mul(*count)
            .ok_or_else(|| too_large(node.at))?,
        Kind::Slice(inner, from, to) => {
            let size = measure(inner, outside)?;
            check_slice(node.at, *from, *to, size)?;
            to.unwrap_or(size) - from
        }
        Kind::Bytes(_) | Kind::Fill(..) | Kind::Move(_) => unreachable!("its size is known"),
    };
    node.set_size(size)
}

/// Writes bytes `0..to` of a measured tree to the start of the sink, in at most so many `steps`.
pub(super) fn write<S: Sink>(node: &Node, to: u64, sink: &mut S, steps: u64) -> Result<(), Fault> {
    let mut writer = Writer { steps };
    let emitted = writer.emit(node, 0, to, sink, 0);
    let result = emitted.and_then(|()| Ok(sink.finish()?));
    result.map_err(|stop| match stop {
        Stop::Steps(at) => Fault::new(at, "the data takes too many steps to make"),
        Stop::Sink(errno) => Fault {
            cause: Some(std::io::Error::from_raw_os_error(errno.get())),
            ..Fault::new(node.at, "the data cannot be kept in memory")
        },
    })
}

/// Why writing ended early.
enum Stop {
    Steps(At),
    Sink(Errno),
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Stop {
        Stop::Sink(errno)
    }
}

struct Writer {
    steps: u64,
}

impl Writer {
    /// Writes bytes `from..to` of a node to `dest..`.
    fn emit<S: Sink>(
        &mut self,
        node: &Node,
        from: u64,
        to: u64,
        sink: &mut S,
        dest: u64,
    ) -> Result<(), Stop> {
        if from == to {
            return Ok(());
        }
        self.steps = self.steps.checked_sub(1).ok_or(Stop::Steps(node.at))?;
        match &node.kind {
            Kind::Bytes(bytes) => Ok(sink.write(dest, &bytes[from as usize..to as usize])?),
            Kind::Fill(0, _) => Ok(sink.zero(dest, to - from)?),
            Kind::Fill(byte, _) => {
                let tile = vec![*byte; (to - from).min(TILE) as usize];
                self.tiled(node.at, &tile, 0, to - from, sink, dest)
            }
            Kind::Move(_) => Ok(()),
            Kind::External(external) => {
                let blob = external.content.get().expect("the tree has been measured");
                let mut at = dest;
                let written = blob.each(from, to, |piece| match piece {
                    Ok(bytes) => {
                        sink.write(at, bytes)?;
                        at += bytes.len() as u64;
                        Ok(())
                    }
                    Err(zeroes) => {
                        sink.zero(at, zeroes)?;
                        at += zeroes;
                        Ok(())
                    }
                });
                written.map_err(Stop::Sink)
            }
            Kind::Group(items) => self.group(items, from, to, sink, dest),
            Kind::Name(shared) => self.emit(&shared.node, from, to, sink, dest),
            Kind::Repeat(inner, _) => self.repeat(inner, from, to, sink, dest),
            Kind::Slice(inner, start, _) => self.emit(inner, start + from, start + to, sink, dest),
        }
    }

    fn group<S: Sink>(
        &mut self,
        items: &[Node],
        from: u64,
        to: u64,
        sink: &mut S,
        dest: u64,
    ) -> Result<(), Stop> {
        if items.iter().any(Node::is_move) {
            if !S::RANDOM && to - from <= TILE {
                let mut buffer = Buffer::new(to - from);
                self.items(items, from, to, &mut buffer, 0)?;
                return Ok(sink.write(dest, &buffer.0)?);
            }
            sink.zero(dest, to - from)?;
        }
        self.items(items, from, to, sink, dest)
    }

    fn items<S: Sink>(
        &mut self,
        items: &[Node],
        from: u64,
        to: u64,
        sink: &mut S,
        dest: u64,
    ) -> Result<(), Stop> {
        let mut layout = Layout::default();
        for item in items {
            let size = item.size();
            let start = layout
                .place(item, size)
                .expect("the layout was good when it was measured");
            let (low, high) = (start.max(from), (start + size).min(to));
            if low < high {
                let place = dest + (low - from);
                self.emit(item, low - start, high - start, sink, place)?;
            }
        }
        Ok(())
    }

    fn repeat<S: Sink>(
        &mut self,
        inner: &Node,
        from: u64,
        to: u64,
        sink: &mut S,
        dest: u64,
    ) -> Result<(), Stop> {
        let one = inner.size();
        if one <= TILE && (to - from) > one {
            let copies = (TILE / one).min((to - from).div_ceil(one) + 1);
            let mut buffer = Buffer::new(one);
            self.emit(inner, 0, one, &mut buffer, 0)?;
            let tile = buffer.0.repeat(copies as usize);
            return self.tiled(inner.at, &tile, from % one, to - from, sink, dest);
        }
        let (mut at, mut dest) = (from, dest);
        while at < to {
            let skip = at % one;
            let n = (one - skip).min(to - at);
            self.emit(inner, skip, skip + n, sink, dest)?;
            (at, dest) = (at + n, dest + n);
        }
        Ok(())
    }

    /// Writes `len` bytes of a tile that follows itself without end, from byte `skip` of it.
    fn tiled<S: Sink>(
        &mut self,
        at: At,
        tile: &[u8],
        skip: u64,
        len: u64,
        sink: &mut S,
        dest: u64,
    ) -> Result<(), Stop> {
        if tile.iter().all(|byte| *byte == 0) {
            return Ok(sink.zero(dest, len)?);
        }
        let (mut skip, mut done) = (skip as usize, 0);
        while done < len {
            self.steps = self.steps.checked_sub(1).ok_or(Stop::Steps(at))?;
            let n = (len - done).min((tile.len() - skip) as u64);
            sink.write(dest + done, &tile[skip..skip + n as usize])?;
            (skip, done) = (0, done + n);
        }
        Ok(())
    }
}

/// A few bytes that are put together.
pub(super) struct Buffer(pub Vec<u8>);

impl Buffer {
    pub fn new(len: u64) -> Buffer {
        Buffer(vec![0; len as usize])
    }
}

impl Sink for Buffer {
    const RANDOM: bool = true;

    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.0[at as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn zero(&mut self, at: u64, len: u64) -> Result<(), Errno> {
        self.0[at as usize..][..len as usize].fill(0);
        Ok(())
    }
}
