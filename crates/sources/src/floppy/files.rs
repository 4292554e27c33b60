//! The contents of many files as one device: file number n begins at n times 4 GiB.
//!
//! There may be more files than a process may have open. So each reactor opens a file when it is read
//! from, and keeps those open that were read last; requests for a file that is being opened wait
//! for it. What is in flight keeps its file open by itself.

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc};

use block::{
    Device, Errno, Error, ErrorKind, IoError, Limits, Op, OpSet, Queue, Reactor, Request, Result,
};

use super::tree::File;
use crate::{file, scratch};

/// Files that a reactor keeps open.
const OPEN: usize = 32;

/// The device of these files.
pub(super) fn device(node: &Arc<str>, files: Vec<File>) -> Arc<dyn Device> {
    let mut limits = Limits::new((files.len() as u64) << 32, OPS);
    limits.multi_conn = true;
    Arc::new(Files {
        limits: Arc::new(limits),
        all: Arc::new(All {
            node: node.clone(),
            files,
        }),
    })
}

const OPS: OpSet = OpSet::of(&[Op::Read, Op::Extents, Op::Flush]);

struct Files {
    limits: Arc<Limits>,
    all: Arc<All>,
}

struct All {
    node: Arc<str>,
    files: Vec<File>,
}

impl Device for Files {
    fn limits(&self) -> Arc<Limits> {
        self.limits.clone()
    }

    fn open_queue(&self, reactor: &Reactor) -> Result<Rc<dyn Queue>> {
        Ok(Rc::new(FilesQueue(Rc::new(Shared {
            all: self.all.clone(),
            reactor: reactor.clone(),
            open: RefCell::default(),
            waiting: RefCell::default(),
        }))))
    }
}

struct FilesQueue(Rc<Shared>);

/// What the tasks that open files need too.
struct Shared {
    all: Arc<All>,
    reactor: Reactor,
    /// The files that are open, the one read last at the end.
    open: RefCell<Vec<(u32, Rc<dyn Queue>)>>,
    /// Requests for files that are being opened.
    waiting: RefCell<HashMap<u32, Vec<Request>>>,
}

impl Queue for FilesQueue {
    fn submit(&self, mut req: Request) {
        match req.op() {
            Op::Flush => return req.done(),
            op if !OPS.contains(op) => return req.fail(Errno::ENOTSUP),
            _ => {}
        }
        let number = (req.offset() >> 32) as u32;
        req.set_offset(req.offset() & u64::from(u32::MAX));
        if let Some(queue) = self.0.open(number) {
            return queue.submit(req);
        }
        let mut waiting = self.0.waiting.borrow_mut();
        if let Some(others) = waiting.get_mut(&number) {
            return others.push(req);
        }
        waiting.insert(number, vec![req]);
        drop(waiting);
        let shared = self.0.clone();
        self.0.reactor.spawn(async move {
            let opened = shared.begin(number).await;
            shared.opened(number, opened);
        });
    }
}

impl Shared {
    /// The way into a file that is open.
    fn open(&self, number: u32) -> Option<Rc<dyn Queue>> {
        let mut open = self.open.borrow_mut();
        let at = open.iter().rposition(|(other, _)| *other == number)?;
        let found = open.remove(at);
        open.push(found.clone());
        Some(found.1)
    }

    async fn begin(&self, number: u32) -> Result<Rc<dyn Queue>> {
        let all = self.all.clone();
        let device = scratch::blocking(&self.reactor, move || all.open(number)).await?;
        device.open_queue(&self.reactor)
    }

    fn opened(&self, number: u32, opened: Result<Rc<dyn Queue>>) {
        let waiting = self
            .waiting
            .borrow_mut()
            .remove(&number)
            .unwrap_or_default();
        match opened {
            Ok(queue) => {
                let mut open = self.open.borrow_mut();
                if open.len() >= OPEN {
                    open.remove(0);
                }
                open.push((number, queue.clone()));
                drop(open);
                waiting.into_iter().for_each(|req| queue.submit(req));
            }
            Err(error) => {
                let failed = IoError::because(Errno::EIO, &self.all.node, error.chain());
                waiting
                    .into_iter()
                    .for_each(|req| req.complete(Err(failed.clone())));
            }
        }
    }
}

impl All {
    /// Opens a file. Blocks.
    fn open(&self, number: u32) -> Result<Arc<dyn Device>> {
        let file = &self.files[number as usize];
        let device = file::reader(&file.path, &self.node)?;
        match device.limits().size == u64::from(file.size) {
            true => Ok(device),
            false => {
                let what = format!("'{}' has changed since the start", file.path.display());
                Err(Error::new(ErrorKind::Gone, what))
            }
        }
    }
}
