//! Disks that are glued from regions: parts of other devices, tables in memory, and padding.
//!
//! A [`Layout`] says what lies where; [`glue`] makes the device. A request that lies in one region goes
//! to its child as it is, with the offset moved; one that crosses a border is split there, and its
//! parts share its memory: no byte is copied on the way to a child, and a table is handed out as it
//! lies in memory.
//!
//! *Contract.* The disk can do what all of its children can. Tables and padding cannot be changed: a
//! write that would change one of their bytes fails with `EIO` before any of its parts is written, an
//! identical one passes, a discard leaves them as they are. A flush goes to every child and fails if
//! one of them fails; as each child remembers its failed flush, so does the disk.

use std::{rc::Rc, sync::Arc};

use block::{
    Access, Data, Device, Errno, Error, ErrorKind, ExtentFlags, Flags, IoError, Limits, Local,
    Normalize, Op, OpSet, OpenContext, Outcome, Queue, Reactor, Request, Result, SharedBuf,
    SharedMem, Source, Support,
};

use crate::{
    file::{self, FileSource},
    null::give_extents,
    single,
};

/// Regions that one extents query looks at: each may cost its child a system call.
const MOST: usize = 256;

/// Bytes compared per step.
const STEP: usize = 4096;

/// What lies where on a disk, from its front to its back without a gap.
#[derive(Default)]
pub(crate) struct Layout {
    regions: Vec<Region>,
    size: u64,
}

struct Region {
    start: u64,
    end: u64,
    content: Content,
}

enum Content {
    /// Bytes of a child, from `offset` on.
    Child { index: usize, offset: u64 },
    /// These bytes, all of them.
    Table(Arc<SharedBuf>),
    /// Zeroes.
    Padding,
}

impl Layout {
    /// Adds `len` bytes of a child, from `offset` on.
    pub fn child(&mut self, index: usize, offset: u64, len: u64) {
        self.push(len, Content::Child { index, offset });
    }

    /// Adds bytes that nobody can change.
    pub fn table(&mut self, bytes: Vec<u8>) {
        self.shared_table(&SharedBuf::from_vec(bytes));
    }

    /// Adds bytes that nobody can change, and that may be in several places.
    pub fn shared_table(&mut self, bytes: &Arc<SharedBuf>) {
        self.push(bytes.len() as u64, Content::Table(bytes.clone()));
    }

    /// Adds zeroes up to `end`, if there is room.
    pub fn pad_to(&mut self, end: u64) {
        self.push(end.saturating_sub(self.size), Content::Padding);
    }

    fn push(&mut self, len: u64, content: Content) {
        if len == 0 {
            return;
        }
        let start = self.size;
        // Too much is refused when the disk is made.
        self.size = self.size.saturating_add(len);
        self.regions.push(Region {
            start,
            end: self.size,
            content,
        });
    }

    /// The regions from the one that holds `offset` on.
    #[inline]
    fn at(&self, offset: u64) -> &[Region] {
        let first = self.regions.partition_point(|region| region.end <= offset);
        &self.regions[first..]
    }
}

/// The disk of this layout over these children. `node` is the name for errors.
///
/// # Errors
/// `Config`, if it would be larger than any disk can be.
pub(crate) fn glue(
    node: &Arc<str>,
    layout: Layout,
    children: Vec<Arc<dyn Device>>,
) -> Result<Arc<dyn Device>> {
    if layout.size > i64::MAX as u64 {
        let what = "all parts together are larger than a disk can be (2^63-1 bytes)";
        return Err(Error::new(ErrorKind::Config, what).in_node(node));
    }
    let children: Vec<_> = children.into_iter().map(Normalize::wrap).collect();
    let limits = Arc::new(limits(layout.size, &children));
    Ok(Arc::new(Glued {
        shared: Arc::new(Shared {
            node: node.clone(),
            layout,
            ops: limits.offered(),
        }),
        limits,
        children,
    }))
}

/// What all children can do.
fn limits(size: u64, children: &[Arc<dyn Device>]) -> Limits {
    let mut limits = Limits::new(size, OpSet::DISK.without(Op::GetId));
    limits.fua = Support::Native;
    limits.fast_zero = true;
    limits.multi_conn = true;
    for child in children {
        let below = child.limits();
        limits.mask(below.offered());
        if !below.fua.is_offered() {
            limits.fua = Support::None;
        }
        limits.fast_zero &= below.fast_zero;
        limits.multi_conn &= below.multi_conn;
        limits.rotational |= below.rotational;
        limits.preferred_block = limits.preferred_block.max(below.preferred_block);
    }
    limits
}

struct Glued {
    shared: Arc<Shared>,
    limits: Arc<Limits>,
    children: Vec<Arc<dyn Device>>,
}

/// What the queues need to know.
struct Shared {
    node: Arc<str>,
    layout: Layout,
    ops: OpSet,
}

impl Device for Glued {
    fn limits(&self) -> Arc<Limits> {
        self.limits.clone()
    }

    fn open_queue(&self, reactor: &Reactor) -> Result<Rc<dyn Queue>> {
        let children = self.children.iter().map(|child| child.open_queue(reactor));
        Ok(Rc::new(GluedQueue {
            shared: self.shared.clone(),
            children: children.collect::<Result<_>>()?,
        }))
    }

    /// Closes every child, whatever becomes of the others; the first error counts.
    fn close<'a>(&'a self, reactor: &'a Reactor) -> Local<'a, Result<()>> {
        Box::pin(async move {
            let mut outcome = Ok(());
            for child in &self.children {
                let closed = child.close(reactor).await;
                outcome = outcome.and(closed);
            }
            outcome
        })
    }
}

struct GluedQueue {
    shared: Arc<Shared>,
    children: Vec<Rc<dyn Queue>>,
}

impl Queue for GluedQueue {
    #[inline]
    fn submit(&self, req: Request) {
        let op = req.op();
        if !self.shared.ops.contains(op) {
            return req.fail(Errno::ENOTSUP);
        }
        if op == Op::Flush {
            return self.flush(req);
        }
        let regions = self.shared.layout.at(req.offset());
        match regions.first() {
            Some(region) if req.end() <= region.end => self.serve(region, req),
            Some(_) if req.end() <= self.shared.layout.size => self.split(regions, req),
            _ => req.fail(Errno::EINVAL),
        }
    }
}

impl GluedQueue {
    /// Serves a request over several regions.
    fn split(&self, regions: &[Region], req: Request) {
        let (start, end) = (req.offset(), req.end());
        let within = regions.iter().take_while(|region| region.start < end);
        if req.op().modifies() {
            let allowed = within
                .clone()
                .try_for_each(|region| self.shared.unchanged(region, &req));
            if allowed.is_err() {
                return req.complete(allowed);
            }
        }
        // An answer about extents may end early, and must not take for ever.
        let most = match req.op() {
            Op::Extents if req.flags().contains(Flags::REQ_ONE) => 1,
            Op::Extents => MOST,
            _ => usize::MAX,
        };
        let split = req.split();
        for region in within.take(most) {
            let (from, to) = (start.max(region.start), end.min(region.end));
            self.serve(region, split.part(from - start, to - from));
        }
    }

    /// Serves a request that lies in one region.
    #[inline]
    fn serve(&self, region: &Region, mut req: Request) {
        let at = req.offset() - region.start;
        match &region.content {
            Content::Child { index, offset } => {
                req.set_offset(offset + at);
                self.children[*index].submit(req);
            }
            _ if req.op().modifies() => {
                let outcome = self.shared.unchanged(region, &req);
                req.complete(outcome);
            }
            content => give(content, at, req),
        }
    }

    fn flush(&self, req: Request) {
        if let [child] = &self.children[..] {
            return child.submit(req);
        }
        let split = req.split();
        for child in &self.children {
            child.submit(split.part(0, 0));
        }
    }
}

/// Answers a question about a table or about padding.
fn give(content: &Content, at: u64, req: Request) {
    let len = req.len();
    match (req.op(), content) {
        (Op::Read, Content::Table(bytes)) => {
            req.give(SharedMem::of_shared(bytes.clone(), at as usize, len as usize).into());
        }
        (Op::Read, _) => req.give_zeroes(),
        (Op::Extents, Content::Table(_)) => give_extents(req, ExtentFlags::DATA),
        (Op::Extents, _) => give_extents(req, ExtentFlags::HOLE_ZERO),
        _ => req.done(),
    }
}

impl Shared {
    /// The request leaves this region as it is; or it is a child's, which decides itself.
    fn unchanged(&self, region: &Region, req: &Request) -> Outcome {
        if matches!(region.content, Content::Child { .. }) || req.op() == Op::Discard {
            return Ok(());
        }
        let (mut wanted, mut found) = ([0; STEP], [0; STEP]);
        let (mut at, end) = (req.offset().max(region.start), req.end().min(region.end));
        while at < end {
            let n = (end - at).min(STEP as u64) as usize;
            if let Content::Table(bytes) = &region.content {
                bytes.read((at - region.start) as usize, &mut found[..n]);
            }
            match (req.op(), req.data()) {
                (Op::WriteZeroes, _) => {}
                (_, Data::Iov(iov)) => iov.read((at - req.offset()) as usize, &mut wanted[..n]),
                _ => return Err(Errno::ENOTSUP.into()),
            }
            let differs = wanted[..n].iter().zip(&found).position(|(a, b)| a != b);
            if let Some(place) = differs {
                let what = match region.content {
                    Content::Padding => "padding",
                    _ => "a table",
                };
                let place = at + place as u64;
                let why = format!("a write would change {what} of the disk at offset {place}");
                return Err(IoError::because(Errno::EIO, &self.node, why));
            }
            at += n as u64;
        }
        Ok(())
    }
}

/// The files that a disk is made of, in order: what `split` and `partitioning` open.
pub(crate) struct Files(Vec<Arc<FileSource>>);

impl Files {
    /// Files at these paths, of the node called `node`. Opens nothing.
    pub fn new<'a>(
        node: &Arc<str>,
        paths: impl IntoIterator<Item = &'a std::path::PathBuf>,
    ) -> Result<Files> {
        let mut known: Vec<(&std::path::PathBuf, Arc<FileSource>)> = Vec::new();
        for path in paths {
            // A file that is there twice is opened once: its lock would keep us out.
            let same = known.iter().find(|(other, _)| *other == path);
            let source = match same {
                Some((_, source)) => source.clone(),
                None => Arc::new(FileSource::new(file::FileConfig::of(path), node)?),
            };
            known.push((path, source));
        }
        Ok(Files(known.into_iter().map(|(_, source)| source).collect()))
    }

    /// Checks that all can be opened.
    pub fn ready(&self) -> Result<()> {
        self.0.iter().try_for_each(|file| file.ready())
    }

    /// How long each is now, in bytes. May block.
    pub fn lengths(&self) -> Result<Vec<u64>> {
        self.0.iter().map(|file| file.length()).collect()
    }

    /// Opens all of them.
    pub async fn open(&self, cx: &OpenContext) -> Result<Vec<Arc<dyn Device>>> {
        let mut devices = Vec::with_capacity(self.0.len());
        for file in &self.0 {
            devices.push(file.open(cx).await?);
        }
        Ok(devices)
    }
}

/// A device as this client may use it.
pub(crate) fn as_allowed(device: Arc<dyn Device>, access: Access) -> Arc<dyn Device> {
    match access {
        Access::ReadWrite => device,
        Access::ReadOnly => single::read_only(device),
    }
}

#[cfg(test)]
mod tests;
