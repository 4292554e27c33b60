//! What all devices of one file share, whoever opened them: whether a flush has failed, the flush that
//! is running, and what the file turned out not to be able to do.
//!
//! *Failed flush.* Once an fdatasync has failed, the file is *poisoned*: every later flush and FUA
//! write in this process fails with `EIO`, until no device on the file is open any more. The kernel
//! reports a lost write once and then forgets it; a database that is told "success" the second time
//! loses its data.
//!
//! *Group commit.* One fdatasync at a time runs per file. A flush that comes while one is running may
//! not join it (its writes may have come too late for it), so it waits for the next, together with
//! all others that have come meanwhile. This is also what makes failures exact: of two fdatasyncs at
//! the same time, only one would be told of the failure.

use std::{
    collections::HashMap,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use block::{Errno, Inbox, IoError, Outcome, Remote, Request};

/// Which file: the same however it is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// A regular file: device and inode number.
    File(u64, u64),
    /// A block device: its number.
    Device(u64),
}

/// The state of one file.
pub(super) struct Inode {
    key: Key,
    /// How the first fdatasync that failed did so.
    failed: OnceLock<Errno>,
    commit: Mutex<Commit>,
    /// fallocate(FALLOC_FL_PUNCH_HOLE).
    pub punch_hole: Ability,
    /// fallocate(FALLOC_FL_ZERO_RANGE).
    pub zero_range: Ability,
    /// BLKDISCARD.
    pub discard: Ability,
    /// lseek(SEEK_HOLE).
    pub seek_hole: Ability,
    /// For tests: how the next fdatasyncs end, last first.
    #[cfg(test)]
    pub faults: Mutex<Vec<Errno>>,
}

/// Something a file can do until it proves that it cannot.
#[derive(Default)]
pub(super) struct Ability {
    missing: AtomicBool,
}

/// The flushes of one file.
#[derive(Default)]
struct Commit {
    running: bool,
    /// For the next one. As many as there are requests in flight at most.
    waiting: Vec<Remote>,
}

/// The right to run the one fdatasync. It ends by [`Turn::end`]; dropped before that (its reactor
/// died), it fails those who wait, since nobody knows what became of it.
pub(super) struct Turn {
    inode: Arc<Inode>,
    over: bool,
}

impl Inode {
    /// The state of the file `key`, shared by everybody who has it open.
    pub fn of(key: Key) -> Arc<Inode> {
        let mut inodes = inodes();
        if let Some(inode) = inodes.get(&key).and_then(Weak::upgrade) {
            return inode;
        }
        let inode = Arc::new(Inode {
            key,
            failed: OnceLock::new(),
            commit: Mutex::default(),
            punch_hole: Ability::default(),
            zero_range: Ability::default(),
            discard: Ability::default(),
            seek_hole: Ability::default(),
            #[cfg(test)]
            faults: Mutex::default(),
        });
        inodes.insert(key, Arc::downgrade(&inode));
        inode
    }

    /// Why no flush can succeed any more, if so.
    #[inline]
    pub fn poison(&self, node: &Arc<str>) -> Outcome {
        match self.failed.get() {
            None => Ok(()),
            Some(errno) => Err(IoError::because(
                Errno::EIO,
                node,
                format!("writes were lost when an earlier flush failed: {errno}"),
            )),
        }
    }

    /// Takes note of how an fdatasync ended. Nothing is durable after one has failed, so a success
    /// that comes later is none.
    pub fn judge(&self, outcome: Outcome, node: &Arc<str>) -> Outcome {
        #[cfg(test)]
        let outcome = match self.faults.lock().unwrap().pop() {
            Some(errno) => Err(errno.into()),
            None => outcome,
        };
        if let Err(error) = &outcome {
            // Only the first counts.
            let _ = self.failed.set(error.errno());
            return outcome;
        }
        self.poison(node)
    }

    /// Takes note of how an FUA write ended. One that failed for want of space has lost nothing but
    /// itself: a page that could not be written back is still reported to the next flush, which
    /// has a file description of its own.
    pub fn judge_write(&self, outcome: Outcome, node: &Arc<str>) -> Outcome {
        match &outcome {
            Err(error) if [Errno::ENOSPC, Errno::EDQUOT].contains(&error.errno()) => outcome,
            _ => self.judge(outcome, node),
        }
    }

    /// A flush comes: gives it back with a turn if it may run now, else keeps it for the next turn.
    pub fn enter(self: &Arc<Self>, req: Request, home: &Arc<Inbox>) -> Option<(Request, Turn)> {
        let mut commit = self.commit();
        if commit.running {
            commit.waiting.push(req.into_remote(home));
            return None;
        }
        commit.running = true;
        drop(commit);
        let turn = Turn {
            inode: self.clone(),
            over: false,
        };
        Some((req, turn))
    }

    fn commit(&self) -> MutexGuard<'_, Commit> {
        self.commit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// The fdatasync has ended. Gives the turn back, and whom the next one serves, if anybody waits.
    pub fn end(mut self) -> Option<(Turn, Vec<Remote>)> {
        let mut commit = self.inode.commit();
        let waiting = std::mem::take(&mut commit.waiting);
        commit.running = !waiting.is_empty();
        drop(commit);
        if waiting.is_empty() {
            self.over = true;
            return None;
        }
        Some((self, waiting))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let mut commit = self.inode.commit();
        commit.running = false;
        let waiting = std::mem::take(&mut commit.waiting);
        drop(commit);
        let _ = self.inode.failed.set(Errno::ECANCELED);
        for remote in waiting {
            remote.complete(Err(Errno::EIO.into()));
        }
    }
}

impl Drop for Inode {
    fn drop(&mut self) {
        let mut inodes = inodes();
        // Somebody may have opened the file again meanwhile: then the entry is theirs.
        if inodes
            .get(&self.key)
            .is_some_and(|inode| inode.strong_count() == 0)
        {
            inodes.remove(&self.key);
        }
    }
}

impl Ability {
    /// Worth trying?
    pub fn may(&self) -> bool {
        !self.missing.load(Ordering::Relaxed)
    }

    /// It was tried and is not there.
    pub fn cannot(&self) {
        self.missing.store(true, Ordering::Relaxed);
    }
}

/// Every file that is open in this process, through whichever node: a failed flush concerns all.
fn inodes() -> MutexGuard<'static, HashMap<Key, Weak<Inode>>> {
    static INODES: LazyLock<Mutex<HashMap<Key, Weak<Inode>>>> = LazyLock::new(Mutex::default);
    INODES.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_stays_until_the_file_is_closed() {
        let (key, node) = (Key::File(u64::MAX, 1), Arc::<str>::from("file"));
        let (one, two) = (Inode::of(key), Inode::of(key));
        assert!(Arc::ptr_eq(&one, &two));
        assert!(one.judge(Ok(()), &node).is_ok());
        let first = one.judge(Err(Errno::ENOSPC.into()), &node).unwrap_err();
        assert_eq!(first, Errno::ENOSPC);
        for inode in [&one, &two] {
            assert_eq!(inode.judge(Ok(()), &node).unwrap_err(), Errno::EIO);
            assert_eq!(inode.judge_write(Ok(()), &node).unwrap_err(), Errno::EIO);
        }
        assert!(Inode::of(Key::File(u64::MAX, 2)).poison(&node).is_ok());
        drop((one, two));
        assert!(Inode::of(key).poison(&node).is_ok(), "a fresh start");
        assert!(!inodes().contains_key(&key), "no entry stays behind");
    }

    #[test]
    fn want_of_space_fails_only_the_write() {
        let (inode, node) = (Inode::of(Key::File(u64::MAX, 3)), Arc::<str>::from("file"));
        assert!(inode.judge_write(Err(Errno::ENOSPC.into()), &node).is_err());
        assert!(inode.poison(&node).is_ok());
        assert!(inode.judge_write(Err(Errno::EIO.into()), &node).is_err());
        assert!(inode.poison(&node).is_err());
    }
}
