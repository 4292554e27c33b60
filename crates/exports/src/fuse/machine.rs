//! The file system's side of the protocol, as a machine over bytes: a packet in; an answer out, or
//! something to be done with the disk. Every bound is checked here, once.
//!
//! *Contract.* Whatever the bytes, no panic, and nothing that the disk cannot do: ranges lie inside
//! of it, a write's payload is as long as its range, and nothing is written to a disk that is
//! read-only. A packet that asks for an answer gets one, by [`Step::Answer`] or by whoever serves
//! the command.

use super::{
    proto::{
        Fields, Header, IN_HEADER, MAJOR, MIN_READ_BUFFER, MINOR, OLDEST_MINOR, OUT_HEADER, Opcode,
        PAGE, Put, Violation, WRITE_HEAD, errno, falloc, fattr, fopen, init, out_header, seek,
    },
    view::{Cache, Disk, Node, View, name_of, put_statfs},
};

/// The longest write, in bytes. Kernels grant 256 pages unless told otherwise.
pub const MAX_WRITE: u32 = 1 << 20;

/// The longest read, in bytes: 256 pages, where these are large.
pub const MAX_READ: u32 = 32 << 20;

/// Requests that nobody waits for (read-ahead, asynchronous direct I/O) and that the kernel sends
/// before answers come; past three quarters of it, it holds writers back.
const BACKGROUND: u16 = 128;

/// File handles: of files that are opened for reading only, and of the others.
const READER: u64 = 0;
const WRITER: u64 = 1;

/// What a packet comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The answer was written.
    Answer,
    /// There is nothing to say.
    Nothing,
    /// The disk is to do something, and the answer follows.
    Serve {
        /// Names the request.
        unique: u64,
        /// What is to be done.
        command: Command,
    },
    /// An answer is not waited for as long any more: the request should end soon.
    Interrupt {
        /// Names the request.
        unique: u64,
    },
    /// The file system was unmounted; the answer was written.
    Destroy,
}

/// Something the disk is to do. Ranges lie inside of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Answered by the bytes.
    Read {
        /// First byte.
        offset: u64,
        /// So many; never 0.
        len: u32,
    },
    /// Answered by [`written`].
    Write {
        /// First byte.
        offset: u64,
        /// So many, which stand in the packet behind [`WRITE_HEAD`]; never 0.
        len: u32,
    },
    /// Makes durable what was written; answered by nothing more than success.
    Flush {
        /// A file is closed: there is nothing to do unless something was written since.
        closing: bool,
    },
    /// Makes a range read as zeroes; answered likewise.
    Zero {
        /// First byte.
        offset: u64,
        /// So many; never 0.
        len: u64,
        /// It stays allocated.
        keep: bool,
    },
    /// Finds the next data or hole; answered by [`found`].
    Seek {
        /// From here on, which is inside of the disk.
        offset: u64,
        /// Data is looked for, and not a hole.
        data: bool,
    },
}

/// What was agreed on with the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The version is 7 and this.
    pub minor: u32,
    /// INIT's flags.
    pub flags: u64,
}

/// The machine, of one descriptor.
#[derive(Debug)]
pub struct Machine {
    view: View,
    disk: Disk,
    agreed: Option<Agreed>,
}

/// An answer, or an error number.
type Answered = Result<Step, i32>;

impl Machine {
    /// Before the first packet of a descriptor; `agreed` if another descriptor of the same mount has
    /// begun.
    pub fn new(view: View, disk: Disk, agreed: Option<Agreed>) -> Machine {
        Machine { view, disk, agreed }
    }

    /// Room that a packet may need, in bytes.
    pub const fn room() -> usize {
        let most = WRITE_HEAD + MAX_WRITE as usize;
        if most > MIN_READ_BUFFER {
            most
        } else {
            MIN_READ_BUFFER
        }
    }

    /// What was agreed on, once it was.
    pub fn agreed(&self) -> Option<Agreed> {
        self.agreed
    }

    /// The disk has another size now.
    pub fn resize(&mut self, size: u64) {
        self.disk.size = size;
    }

    /// Takes a packet; an answer to it is added to `out`.
    ///
    /// # Errors
    /// It is no packet: nothing more can be understood.
    pub fn input(&mut self, packet: &[u8], out: &mut Vec<u8>) -> Result<Step, Violation> {
        let header = Header::parse(packet)?;
        let begin = out.len();
        out.zeroes(OUT_HEADER);
        let body = Fields(&packet[IN_HEADER..]);
        let (step, error) = match self.request(&header, body, out) {
            Ok(step) => (step, 0),
            Err(error) => {
                out.truncate(begin + OUT_HEADER);
                (Step::Answer, error)
            }
        };
        if matches!(step, Step::Answer | Step::Destroy) {
            let len = out.len() - begin - OUT_HEADER;
            let head = out_header(header.unique, error, len);
            out[begin..begin + OUT_HEADER].copy_from_slice(&head);
        } else {
            out.truncate(begin);
        }
        Ok(step)
    }

    fn request(&mut self, header: &Header, body: Fields<'_>, out: &mut Vec<u8>) -> Answered {
        let Some(opcode) = Opcode::of(header.opcode) else {
            return Err(errno::ENOSYS);
        };
        match opcode {
            Opcode::Init => return self.init(body, out),
            Opcode::Forget | Opcode::BatchForget | Opcode::NotifyReply => {
                return Ok(Step::Nothing);
            }
            _ if self.agreed.is_none() => return Err(errno::EPROTO),
            _ => {}
        }
        let node = || self.view.node(header.node).ok_or(errno::ENOENT);
        let unique = header.unique;
        match opcode {
            Opcode::Interrupt => interrupt(body),
            Opcode::Destroy => Ok(Step::Destroy),
            Opcode::StatFs => {
                put_statfs(&self.disk, out);
                Ok(Step::Answer)
            }
            Opcode::SyncFs => Ok(self.flush(unique, false)),
            Opcode::Lookup => self.lookup(node()?, body, out),
            Opcode::GetAttr => {
                self.view.put_attr_out(node()?, &self.disk, out);
                Ok(Step::Answer)
            }
            Opcode::SetAttr => self.set_attr(node()?, body, out),
            Opcode::Access => self.access(node()?, body),
            Opcode::OpenDir if node()? == Node::Directory => {
                out.u64(0).u32(0).u32(0);
                Ok(Step::Answer)
            }
            Opcode::ReadDir | Opcode::ReadDirPlus if node()? == Node::Directory => {
                self.entries(opcode == Opcode::ReadDirPlus, body, out)
            }
            Opcode::ReleaseDir | Opcode::FsyncDir => Ok(Step::Answer),
            _ if node()? != Node::File => Err(errno::EINVAL),
            Opcode::Open => self.open(body, out),
            Opcode::Read => self.read(unique, body),
            Opcode::Write => self.write(unique, body, out),
            Opcode::Flush => self.close(unique, body),
            Opcode::Fsync => Ok(self.flush(unique, false)),
            Opcode::Release => Ok(Step::Answer),
            Opcode::Fallocate => self.allocate(unique, body),
            Opcode::Lseek => self.seek(unique, body),
            _ => Err(errno::EINVAL),
        }
    }

    fn init(&mut self, mut body: Fields<'_>, out: &mut Vec<u8>) -> Answered {
        let (major, minor, ahead, flags) = (|| {
            let (major, minor) = (body.u32()?, body.u32()?);
            let (ahead, low) = (body.u32()?, u64::from(body.u32()?));
            let high = match low & init::INIT_EXT {
                0 => 0,
                _ => u64::from(body.u32()?) << 32,
            };
            Some((major, minor, ahead, low | high))
        })()
        .ok_or(errno::EINVAL)?;
        if major > MAJOR {
            // The kernel asks again, in our version.
            out.u32(MAJOR).u32(MINOR).zeroes(56);
            return Ok(Step::Answer);
        }
        if major < MAJOR || minor < OLDEST_MINOR || self.agreed.is_some() {
            return Err(errno::EPROTO);
        }
        let flags = flags & self.wanted();
        out.u32(MAJOR).u32(MINOR).u32(ahead).u32(flags as u32);
        out.u16(BACKGROUND).u16(BACKGROUND / 4 * 3);
        // Times are exact to the nanosecond.
        out.u32(MAX_WRITE).u32(1);
        out.u16((MAX_WRITE / PAGE) as u16).u16(0);
        out.u32((flags >> 32) as u32).zeroes(28);
        self.agreed = Some(Agreed { minor, flags });
        Ok(Step::Answer)
    }

    /// INIT's flags that are of use.
    fn wanted(&self) -> u64 {
        // O_TRUNC with an OPEN, where it has no effect: a disk keeps its size.
        let always = init::ASYNC_READ
            | init::ATOMIC_O_TRUNC
            | init::BIG_WRITES
            | init::DO_READDIRPLUS
            | init::READDIRPLUS_AUTO
            | init::ASYNC_DIO
            | init::PARALLEL_DIROPS
            | init::MAX_PAGES;
        always
            | match self.view.cache {
                Cache::Auto => init::AUTO_INVAL_DATA,
                Cache::Nothing => init::INIT_EXT | init::DIRECT_IO_ALLOW_MMAP,
                Cache::WhileOpen | Cache::Keep => 0,
            }
    }

    fn lookup(&self, node: Node, body: Fields<'_>, out: &mut Vec<u8>) -> Answered {
        let name = name_of(body).ok_or(errno::EINVAL)?;
        if node != Node::Directory || !self.view.is_named(name) {
            if self.view.negative_timeout.is_zero() {
                return Err(errno::ENOENT);
            }
            self.view.put_no_entry(out);
        } else {
            self.view.put_entry_out(&self.disk, out);
        }
        Ok(Step::Answer)
    }

    /// Only what changes nothing is done: setting the size that there is.
    fn set_attr(&self, node: Node, mut body: Fields<'_>, out: &mut Vec<u8>) -> Answered {
        let (valid, size) = (|| {
            let valid = body.u32()?;
            // Padding, file handle.
            body.skip(12)?;
            Some((valid, body.u64()?))
        })()
        .ok_or(errno::EINVAL)?;
        let others = fattr::MODE | fattr::UID | fattr::GID;
        let same = valid & fattr::SIZE != 0 && size == self.disk.size && node == Node::File;
        if valid & others != 0 || !same || !self.view.writable(&self.disk) {
            return Err(errno::EPERM);
        }
        self.view.put_attr_out(node, &self.disk, out);
        Ok(Step::Answer)
    }

    fn access(&self, node: Node, mut body: Fields<'_>) -> Answered {
        const WRITE: u32 = 2;
        const EXECUTE: u32 = 1;
        let asked = body.u32().ok_or(errno::EINVAL)?;
        let refused = match node {
            Node::Directory => WRITE,
            Node::File if self.view.writable(&self.disk) => EXECUTE,
            Node::File => EXECUTE | WRITE,
        };
        match asked & refused {
            0 => Ok(Step::Answer),
            _ => Err(errno::EACCES),
        }
    }

    fn entries(&self, plus: bool, mut body: Fields<'_>, out: &mut Vec<u8>) -> Answered {
        let (from, room) = range(&mut body).ok_or(errno::EINVAL)?;
        let room = room.min(MAX_WRITE) as usize;
        self.view.put_entries(&self.disk, from, room, plus, out);
        Ok(Step::Answer)
    }

    fn open(&self, mut body: Fields<'_>, out: &mut Vec<u8>) -> Answered {
        /// O_WRONLY and O_RDWR.
        const WRITING: u32 = 3;
        let flags = body.u32().ok_or(errno::EINVAL)?;
        if flags & WRITING != 0 && !self.view.writable(&self.disk) {
            return Err(errno::EACCES);
        }
        let cache = match self.view.cache {
            Cache::WhileOpen => 0,
            Cache::Keep | Cache::Auto => fopen::KEEP_CACHE,
            Cache::Nothing => fopen::DIRECT_IO,
        };
        let (handle, flush) = match flags & WRITING {
            0 => (READER, fopen::NOFLUSH),
            _ => (WRITER, 0),
        };
        let cache = cache | flush | fopen::PARALLEL_DIRECT_WRITES;
        out.u64(handle).u32(cache).u32(0);
        Ok(Step::Answer)
    }

    fn read(&self, unique: u64, mut body: Fields<'_>) -> Answered {
        let (offset, len) = range(&mut body).ok_or(errno::EINVAL)?;
        if len > MAX_READ {
            return Err(errno::EINVAL);
        }
        let len = u64::from(len).min(self.disk.size.saturating_sub(offset)) as u32;
        if len == 0 {
            return Ok(Step::Answer);
        }
        let command = Command::Read { offset, len };
        Ok(Step::Serve { unique, command })
    }

    fn write(&self, unique: u64, mut body: Fields<'_>, out: &mut Vec<u8>) -> Answered {
        let (offset, len) = range(&mut body).ok_or(errno::EINVAL)?;
        // Flags, lock owner, flags, padding.
        body.skip(20).ok_or(errno::EINVAL)?;
        if body.0.len() != len as usize || len > MAX_WRITE {
            return Err(errno::EINVAL);
        }
        if !self.view.writable(&self.disk) {
            return Err(errno::EBADF);
        }
        if len == 0 {
            out.extend_from_slice(&written(0));
            return Ok(Step::Answer);
        }
        let left = self.disk.size.saturating_sub(offset);
        if left == 0 {
            return Err(errno::ENOSPC);
        }
        let len = u64::from(len).min(left) as u32;
        let command = Command::Write { offset, len };
        Ok(Step::Serve { unique, command })
    }

    /// Who has only read has nothing to wait for.
    fn close(&self, unique: u64, mut body: Fields<'_>) -> Answered {
        match body.u64().ok_or(errno::EINVAL)? {
            READER => Ok(Step::Answer),
            _ => Ok(self.flush(unique, true)),
        }
    }

    fn flush(&self, unique: u64, closing: bool) -> Step {
        if !self.view.writable(&self.disk) || !self.disk.flushes {
            return Step::Answer;
        }
        let command = Command::Flush { closing };
        Step::Serve { unique, command }
    }

    fn allocate(&self, unique: u64, mut body: Fields<'_>) -> Answered {
        let (offset, len, mode) = (|| {
            body.skip(8)?;
            Some((body.u64()?, body.u64()?, body.u32()?))
        })()
        .ok_or(errno::EINVAL)?;
        if !self.view.writable(&self.disk) {
            return Err(errno::EBADF);
        }
        let keep = match mode & !falloc::KEEP_SIZE {
            falloc::PUNCH_HOLE => false,
            falloc::ZERO_RANGE => true,
            // To allocate and leave the contents alone is not to be had from a disk.
            _ => return Err(errno::EOPNOTSUPP),
        };
        if !self.disk.zeroes {
            return Err(errno::EOPNOTSUPP);
        }
        if len == 0 {
            return Err(errno::EINVAL);
        }
        if offset > self.disk.size || len > self.disk.size - offset {
            return Err(errno::ENOSPC);
        }
        let command = Command::Zero { offset, len, keep };
        Ok(Step::Serve { unique, command })
    }

    fn seek(&self, unique: u64, mut body: Fields<'_>) -> Answered {
        let (offset, whence) = (|| {
            body.skip(8)?;
            Some((body.u64()?, body.u32()?))
        })()
        .ok_or(errno::EINVAL)?;
        let data = match whence {
            seek::DATA => true,
            seek::HOLE => false,
            _ => return Err(errno::EINVAL),
        };
        if offset >= self.disk.size {
            return Err(errno::ENXIO);
        }
        let command = Command::Seek { offset, data };
        Ok(Step::Serve { unique, command })
    }

    /// Whether the disk knows what is allocated; else all of it is data.
    pub fn knows_extents(&self) -> bool {
        self.disk.extents
    }

    /// How large the disk is, in bytes.
    pub fn size(&self) -> u64 {
        self.disk.size
    }
}

fn interrupt(mut body: Fields<'_>) -> Answered {
    let unique = body.u64().ok_or(errno::EINVAL)?;
    Ok(Step::Interrupt { unique })
}

/// Position and length behind a file handle: READ, WRITE and READDIR begin alike.
fn range(body: &mut Fields<'_>) -> Option<(u64, u32)> {
    body.skip(8)?;
    Some((body.u64()?, body.u32()?))
}

/// `struct fuse_write_out`: so many bytes were written.
pub fn written(len: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&len.to_ne_bytes());
    bytes
}

/// `struct fuse_lseek_out`: it is there.
pub fn found(offset: u64) -> [u8; 8] {
    offset.to_ne_bytes()
}
