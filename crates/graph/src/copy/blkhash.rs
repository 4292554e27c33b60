//! The blkhash of a disk: a checksum that can be computed in parallel.
//!
//! The disk is cut to blocks, the last of which may be short. The digests of all blocks, one behind
//! the other, and behind them the disk's size in bytes (64 bits, little-endian) are digested once
//! more. So blocks are digested in any order, on the threads that compute, and zeroes cost no more
//! than the digest they have.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use block::{Error, ErrorKind, Iov, Op, Pool, Queue, QueueExt, Reactor, Remote, Request, Result};
use digest::DynDigest;

/// Which digest is made of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digest {
    /// MD5 (RFC 1321).
    Md5,
    /// SHA-1 (FIPS 180-4).
    Sha1,
    /// SHA-256 (FIPS 180-4).
    Sha256,
    /// SHA-512 (FIPS 180-4).
    Sha512,
}

/// How a disk is digested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlkHash {
    /// Of blocks, and of their digests.
    pub digest: Digest,
    /// Bytes of a block; a power of two. Of more than [`block::MAX_TRANSFER`], the disk is read in
    /// order.
    pub block: u64,
}

type State = Box<dyn DynDigest + Send>;

impl Digest {
    fn state(self) -> State {
        match self {
            Digest::Md5 => Box::new(md5::Md5::default()),
            Digest::Sha1 => Box::new(sha1::Sha1::default()),
            Digest::Sha256 => Box::new(sha2::Sha256::default()),
            Digest::Sha512 => Box::new(sha2::Sha512::default()),
        }
    }
}

/// Takes the parts of a disk in any order. Cloning gives another handle to the same.
#[derive(Clone)]
pub struct Hasher {
    reactor: Reactor,
    shared: Arc<Shared>,
}

struct Shared {
    how: BlkHash,
    /// The digest of a block of zeroes, once it is needed.
    zeroes: OnceLock<Vec<u8>>,
    /// The block that is begun, where blocks are longer than requests: they come in order then.
    large: Option<Mutex<Inner>>,
    outer: Mutex<Outer>,
}

/// What the digests go into.
struct Outer {
    state: State,
    /// Bytes of the disk that are in.
    end: u64,
    /// What comes later, by its place.
    later: BTreeMap<u64, Part>,
}

/// So many bytes of the disk, and what becomes of them.
struct Part {
    len: u64,
    what: What,
}

enum What {
    /// Digests of blocks, one behind the other.
    Digests(Vec<u8>),
    /// Blocks of zeroes.
    Zeroes,
}

impl Hasher {
    /// Of nothing so far.
    pub fn new(reactor: &Reactor, how: BlkHash) -> Hasher {
        let state = how.digest.state();
        let large = how.block > block::MAX_TRANSFER.into();
        Hasher {
            reactor: reactor.clone(),
            shared: Arc::new(Shared {
                how,
                zeroes: OnceLock::new(),
                large: large.then(|| Mutex::new(Inner::new(how))),
                outer: Mutex::new(Outer {
                    state,
                    end: 0,
                    later: BTreeMap::new(),
                }),
            }),
        }
    }

    /// Takes bytes, which begin at a block, and end at one or at the end of the disk. It begins at
    /// once; the future waits for the end.
    ///
    /// # Errors
    /// A thread has panicked.
    pub fn data(&self, offset: u64, bytes: Iov) -> impl Future<Output = Result<()>> + use<> {
        let mut request = self.reactor.request(Op::Write, offset, bytes.len() as u64);
        *request.data_mut() = bytes.into();
        let call = self.call(request);
        async { call.await.take_outcome().map_err(lost) }
    }

    /// The same for zeroes.
    ///
    /// # Errors
    /// A thread has panicked.
    pub async fn zeroes(&self, offset: u64, len: u64) -> Result<()> {
        let shared = self.shared.clone();
        let what = What::Zeroes;
        let job = move || shared.add(offset, Part { len, what });
        self.reactor.cpu(job).await.map_err(lost)
    }

    /// The hash of all of the disk, which had so many bytes.
    ///
    /// # Errors
    /// Not all of it was taken.
    pub fn finish(&self, size: u64) -> Result<String> {
        let mut outer = self.shared.outer();
        if let Some(open) = &self.shared.large {
            let mut inner = open.lock().unwrap_or_else(PoisonError::into_inner);
            inner.end_block(|| self.shared.zeroes());
            outer.state.update(&std::mem::take(&mut inner.digests));
        }
        if outer.end != size || !outer.later.is_empty() {
            let what = format!("the hash has {} of {size} bytes", outer.end);
            return Err(Error::new(ErrorKind::Internal, what));
        }
        outer.state.update(&size.to_le_bytes());
        let sum = outer.state.finalize_reset();
        Ok(sum.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

fn lost(error: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Internal, format!("cannot hash: {error}"))
}

/// Bytes that are hashed, as a queue that takes writes.
impl Queue for Hasher {
    fn submit(&self, request: Request) {
        let remote = request.into_remote(self.reactor.inbox());
        let shared = self.shared.clone();
        self.reactor.offload(Pool::Cpu, move || {
            shared.add(remote.offset(), shared.digest(&remote));
            remote.complete(Ok(()));
        });
    }
}

/// Bytes that are looked at at a time: they stay in the processor's nearest cache.
const STEP: usize = 16 << 10;

impl Shared {
    fn zeroes(&self) -> &[u8] {
        let (how, block) = (self.how, self.how.block);
        self.zeroes.get_or_init(|| digest_of_zeroes(how, block))
    }

    fn outer(&self) -> MutexGuard<'_, Outer> {
        self.outer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn digest(&self, remote: &Remote) -> Part {
        let digests = match &self.large {
            Some(open) => {
                let mut inner = open.lock().unwrap_or_else(PoisonError::into_inner);
                self.feed(&mut inner, remote);
                std::mem::take(&mut inner.digests)
            }
            None => {
                let mut inner = Inner::new(self.how);
                self.feed(&mut inner, remote);
                inner.end_block(|| self.zeroes());
                inner.digests
            }
        };
        Part {
            len: remote.len(),
            what: What::Digests(digests),
        }
    }

    fn feed(&self, inner: &mut Inner, remote: &Remote) {
        let mut buffer = [0; STEP];
        let mut at = 0;
        while at < remote.len() {
            let room = (remote.len() - at).min(inner.block - inner.filled);
            let bytes = &mut buffer[..room.min(STEP as u64) as usize];
            remote.read_data(at as usize, bytes);
            inner.feed(bytes);
            at += bytes.len() as u64;
            if inner.filled == inner.block {
                inner.end_block(|| self.zeroes());
            }
        }
    }

    fn add(&self, offset: u64, part: Part) {
        let mut guard = self.outer();
        let outer = &mut *guard;
        outer.later.insert(offset, part);
        while let Some(first) = outer.later.first_entry()
            && *first.key() == outer.end
        {
            let part = first.remove();
            outer.end += part.len;
            match part.what {
                What::Digests(digests) => outer.state.update(&digests),
                What::Zeroes => {
                    for _ in 0..part.len / self.how.block {
                        outer.state.update(self.zeroes());
                    }
                    let rest = digest_of_zeroes(self.how, part.len % self.how.block);
                    outer.state.update(&rest);
                }
            }
        }
    }
}

/// Makes digests of blocks.
struct Inner {
    state: State,
    block: u64,
    /// Bytes of the block that is begun, and how many of them, all zero, were not digested yet.
    filled: u64,
    blank: u64,
    digests: Vec<u8>,
}

impl Inner {
    fn new(how: BlkHash) -> Inner {
        Inner {
            state: how.digest.state(),
            block: how.block,
            filled: 0,
            blank: 0,
            digests: Vec::new(),
        }
    }

    /// Takes bytes of the block that is begun.
    fn feed(&mut self, bytes: &[u8]) {
        let blank = self.blank == self.filled && bytes.iter().fold(0, |all, byte| all | byte) == 0;
        self.filled += bytes.len() as u64;
        if blank {
            self.blank = self.filled;
        } else {
            self.feed_blank();
            self.state.update(bytes);
        }
    }

    fn feed_blank(&mut self) {
        while self.blank > 0 {
            let here = self.blank.min(STEP as u64);
            self.state.update(&[0; STEP][..here as usize]);
            self.blank -= here;
        }
    }

    /// The block that is begun, if one is, ends here. `zeroes` is the digest of one full of them.
    fn end_block<'a>(&mut self, zeroes: impl FnOnce() -> &'a [u8]) {
        if self.filled == 0 {
            return;
        }
        if self.blank == self.block {
            self.digests.extend_from_slice(zeroes());
        } else {
            self.feed_blank();
            let digest = self.state.finalize_reset();
            self.digests.extend_from_slice(&digest);
        }
        (self.filled, self.blank) = (0, 0);
    }
}

/// The digest of so many zeroes; nothing of none.
fn digest_of_zeroes(how: BlkHash, len: u64) -> Vec<u8> {
    let mut inner = Inner::new(how);
    (inner.filled, inner.blank) = (len, len);
    // Not the block whose digest is known.
    inner.block = u64::MAX;
    inner.end_block(|| &[]);
    inner.digests
}

#[cfg(test)]
mod tests {
    use testkit::SimLoop;

    use super::*;

    /// Puts a disk in, its pieces from behind, and the zeroes among them as such.
    fn hash(digest: Digest, block: u64, bytes: &[u8]) -> String {
        let made = SimLoop::new(1);
        let hasher = Hasher::new(made.reactor(), BlkHash { digest, block });
        let piece = (2 * block).max(64) as usize;
        let pieces: Vec<_> = bytes.chunks(piece).enumerate().collect();
        for (n, bytes) in pieces.into_iter().rev() {
            let offset = (n * piece) as u64;
            made.block_on(async {
                if bytes.iter().all(|byte| *byte == 0) {
                    return hasher.zeroes(offset, bytes.len() as u64).await;
                }
                let iov = Iov::of_chunk(made.reactor().chunk(bytes.len()), bytes.len());
                iov.write(0, bytes);
                hasher.data(offset, iov).await
            })
            .expect("hashes");
        }
        hasher.finish(bytes.len() as u64).expect("is complete")
    }

    #[test]
    fn a_disk_has_the_hash_that_others_find() {
        // What nbdcopy 1.24.4 prints.
        let of = |bytes: &[u8]| hash(Digest::Sha256, 65536, bytes);
        assert_eq!(
            of(b""),
            "af5570f5a1810b7af78caf4bc70a660f0df51e42baf91d4de5b2328de0e83dfc"
        );
        assert_eq!(
            of(b"hello"),
            "337355feb53a5309d5aba92796223c2c84ffab930e706c01fef573a2722545e6"
        );
        assert_eq!(
            of(&[0; 1000]),
            "d15d14a15a64638b2f6d69e11bd1e4a7262d12392309d5b9a9c963e81e8694f4"
        );
        assert_eq!(
            hash(Digest::Sha256, 1, b"hello"),
            "f5ee252e95401d5143ebd8e4d8de295bfebeebd0ea106eebc5d6a403e9f42acc"
        );
    }

    #[test]
    fn every_digest_and_size_is_the_same_as_elsewhere() {
        // The same again: data, zeroes across blocks, and a block that is not full.
        let mut bytes: Vec<u8> = (0..300_000_u32).map(|i| (i * 7 % 251) as u8).collect();
        bytes[70_000..270_000].fill(0);
        let table = [
            (Digest::Md5, 4096, "4c1ab0884ef345284db5b86875ef49b7"),
            (Digest::Md5, 65536, "c2b4798899a1de4e9fa93f71999be781"),
            (
                Digest::Sha1,
                65536,
                "5c7b3edaa2d5670caf7b2d04133dae5d1b389f90",
            ),
            (
                Digest::Sha1,
                262144,
                "752070cd25d3a49ecd696fd4af9ae0c914f61583",
            ),
            (
                Digest::Sha256,
                4096,
                "1aa09c56225021036a95f0dd23a3bcc0103f239d798825d7986f4e740875a6db",
            ),
            (
                Digest::Sha256,
                65536,
                "cf938a2c107a12d58e0587faebb591e99f45496ce0dfa81a686347ea7f15303b",
            ),
            (
                Digest::Sha512,
                4096,
                "cdef48dfea75d33ddaac8ffaa2dead0e590a102877f180fff520ea870fba14793c6ed42c0e036aca028d7dc1978a887a0c52b925639ca48efc5ebbf1e9a97b54",
            ),
            (
                Digest::Sha512,
                262144,
                "38dbc7ea6368c961be07cd7402163cdcfa37e4a29d4a7ac7702f8540d806538e15b3b190708377f5d38356fd2e6d5fd94c4644e77d676ae39e4f07dd5a7208c4",
            ),
        ];
        for (digest, block, sum) in table {
            assert_eq!(hash(digest, block, &bytes), sum, "{digest:?}/{block}");
        }
    }

    #[test]
    fn what_is_missing_is_told() {
        let made = SimLoop::new(1);
        let how = BlkHash {
            digest: Digest::Md5,
            block: 4096,
        };
        let hasher = Hasher::new(made.reactor(), how);
        made.block_on(hasher.zeroes(4096, 4096)).expect("hashes");
        let error = hasher.finish(8192).expect_err("the first block is missing");
        assert!(error.to_string().contains("0 of 8192"), "{error}");
    }
}
