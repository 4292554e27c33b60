//! The FUSE kernel protocol as far as a disk needs it: numbers and layouts of `linux/fuse.h`,
//! protocol 7.23 (Linux 3.15) and later; fuse(4).
//!
//! Integers are in the byte order of the machine. All structures are made of fixed fields without
//! padding of the compiler's, so they are read and written field by field.

/// The major version that is spoken.
pub const MAJOR: u32 = 7;

/// The newest minor version whose additions are known here.
pub const MINOR: u32 = 39;

/// The oldest minor version that is spoken: its INIT answer has the size all later ones have.
pub const OLDEST_MINOR: u32 = 23;

/// `struct fuse_in_header`, in bytes.
pub const IN_HEADER: usize = 40;

/// `struct fuse_out_header`, in bytes.
pub const OUT_HEADER: usize = 16;

/// `struct fuse_write_in`, in bytes.
pub const WRITE_IN: usize = 40;

/// What stands before a write's payload, in bytes.
pub const WRITE_HEAD: usize = IN_HEADER + WRITE_IN;

/// Least room that a read of the device must offer, in bytes (FUSE_MIN_READ_BUFFER).
pub const MIN_READ_BUFFER: usize = 8192;

/// The root's number (FUSE_ROOT_ID).
pub const ROOT: u64 = 1;

/// The kernel's unit for `max_pages`, in bytes: pages of all machines are multiples.
pub const PAGE: u32 = 4096;

/// What a request asks for (`enum fuse_opcode`): those that are known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of linux/fuse.h")]
pub enum Opcode {
    Lookup,
    Forget,
    GetAttr,
    SetAttr,
    Open,
    Read,
    Write,
    StatFs,
    Release,
    Fsync,
    Flush,
    Init,
    OpenDir,
    ReadDir,
    ReleaseDir,
    FsyncDir,
    Access,
    Interrupt,
    Destroy,
    NotifyReply,
    BatchForget,
    Fallocate,
    ReadDirPlus,
    Lseek,
    SyncFs,
}

const OPCODES: [(u32, Opcode); 25] = [
    (1, Opcode::Lookup),
    (2, Opcode::Forget),
    (3, Opcode::GetAttr),
    (4, Opcode::SetAttr),
    (14, Opcode::Open),
    (15, Opcode::Read),
    (16, Opcode::Write),
    (17, Opcode::StatFs),
    (18, Opcode::Release),
    (20, Opcode::Fsync),
    (25, Opcode::Flush),
    (26, Opcode::Init),
    (27, Opcode::OpenDir),
    (28, Opcode::ReadDir),
    (29, Opcode::ReleaseDir),
    (30, Opcode::FsyncDir),
    (34, Opcode::Access),
    (36, Opcode::Interrupt),
    (38, Opcode::Destroy),
    (41, Opcode::NotifyReply),
    (42, Opcode::BatchForget),
    (43, Opcode::Fallocate),
    (44, Opcode::ReadDirPlus),
    (46, Opcode::Lseek),
    (50, Opcode::SyncFs),
];

impl Opcode {
    /// By its number.
    pub fn of(number: u32) -> Option<Opcode> {
        let at = OPCODES
            .binary_search_by_key(&number, |known| known.0)
            .ok()?;
        Some(OPCODES[at].1)
    }

    /// Its number.
    pub fn number(self) -> u32 {
        let known = OPCODES.iter().find(|known| known.1 == self);
        known.map_or(0, |known| known.0)
    }
}

/// INIT flags (FUSE_ASYNC_READ and so on).
pub mod init {
    #![allow(missing_docs, reason = "the names are those of linux/fuse.h")]
    pub const ASYNC_READ: u64 = 1 << 0;
    pub const ATOMIC_O_TRUNC: u64 = 1 << 3;
    pub const BIG_WRITES: u64 = 1 << 5;
    pub const AUTO_INVAL_DATA: u64 = 1 << 12;
    pub const DO_READDIRPLUS: u64 = 1 << 13;
    pub const READDIRPLUS_AUTO: u64 = 1 << 14;
    pub const ASYNC_DIO: u64 = 1 << 15;
    pub const PARALLEL_DIROPS: u64 = 1 << 18;
    pub const MAX_PAGES: u64 = 1 << 22;
    pub const INIT_EXT: u64 = 1 << 30;
    pub const DIRECT_IO_ALLOW_MMAP: u64 = 1 << 36;
}

/// Flags of an OPEN's answer.
pub mod fopen {
    #![allow(missing_docs, reason = "the names are those of linux/fuse.h")]
    pub const DIRECT_IO: u32 = 1 << 0;
    pub const KEEP_CACHE: u32 = 1 << 1;
    pub const NOFLUSH: u32 = 1 << 5;
    pub const PARALLEL_DIRECT_WRITES: u32 = 1 << 6;
}

/// Bits of `fuse_setattr_in.valid`.
pub mod fattr {
    #![allow(missing_docs, reason = "the names are those of linux/fuse.h")]
    pub const MODE: u32 = 1 << 0;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
}

/// fallocate(2)'s modes.
pub mod falloc {
    #![allow(missing_docs, reason = "the names are those of linux/falloc.h")]
    pub const KEEP_SIZE: u32 = 1;
    pub const PUNCH_HOLE: u32 = 2;
    pub const ZERO_RANGE: u32 = 16;
}

/// lseek(2)'s directions that reach a file system.
pub mod seek {
    #![allow(missing_docs, reason = "the names are those of unistd.h")]
    pub const DATA: u32 = 3;
    pub const HOLE: u32 = 4;
}

/// Error numbers as Linux has them.
pub mod errno {
    #![allow(missing_docs, reason = "the names are those of errno.h")]
    pub const EPERM: i32 = 1;
    pub const ENOENT: i32 = 2;
    pub const EINTR: i32 = 4;
    pub const EIO: i32 = 5;
    pub const ENXIO: i32 = 6;
    pub const EBADF: i32 = 9;
    pub const EACCES: i32 = 13;
    pub const EINVAL: i32 = 22;
    pub const ENOSPC: i32 = 28;
    pub const ENOSYS: i32 = 38;
    pub const EPROTO: i32 = 71;
    pub const EOPNOTSUPP: i32 = 95;
}

/// What is wrong with a packet: whoever sent it is no FUSE kernel side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Shorter than a header.
    #[error("a request of {0} bytes has no whole header")]
    Short(usize),
    /// The header tells another length than there is.
    #[error("a request of {there} bytes says it has {told}")]
    Length {
        /// What there is, in bytes.
        there: usize,
        /// What is told.
        told: u32,
    },
}

/// What every request begins with (`struct fuse_in_header`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What is asked, by number.
    pub opcode: u32,
    /// Names the request.
    pub unique: u64,
    /// Which file.
    pub node: u64,
}

impl Header {
    /// Reads the header of a whole packet.
    ///
    /// # Errors
    /// The packet is not what it says it is.
    pub fn parse(packet: &[u8]) -> Result<Header, Violation> {
        let mut fields = Fields(packet);
        let parsed = (|| {
            let (told, opcode) = (fields.u32()?, fields.u32()?);
            let (unique, node) = (fields.u64()?, fields.u64()?);
            // User, group, process, extensions.
            fields.skip(16)?;
            Some((
                told,
                Header {
                    opcode,
                    unique,
                    node,
                },
            ))
        })();
        let (told, header) = parsed.ok_or(Violation::Short(packet.len()))?;
        if told as usize != packet.len() {
            let there = packet.len();
            return Err(Violation::Length { there, told });
        }
        Ok(header)
    }
}

/// Reads fields one after the other; `None` when there are no more.
#[derive(Clone, Copy)]
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    /// So many bytes.
    pub fn bytes(&mut self, n: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(bytes)
    }

    /// Leaves out so many bytes.
    pub fn skip(&mut self, n: usize) -> Option<()> {
        self.bytes(n).map(drop)
    }

    /// The next 4 bytes.
    pub fn u32(&mut self) -> Option<u32> {
        Some(u32::from_ne_bytes(self.bytes(4)?.try_into().ok()?))
    }

    /// The next 8 bytes.
    pub fn u64(&mut self) -> Option<u64> {
        Some(u64::from_ne_bytes(self.bytes(8)?.try_into().ok()?))
    }
}

/// Writes fields one after the other.
pub trait Put {
    /// 2 bytes.
    fn u16(&mut self, value: u16) -> &mut Self;
    /// 4 bytes.
    fn u32(&mut self, value: u32) -> &mut Self;
    /// 8 bytes.
    fn u64(&mut self, value: u64) -> &mut Self;
    /// Zero bytes.
    fn zeroes(&mut self, n: usize) -> &mut Self;
}

impl Put for Vec<u8> {
    fn u16(&mut self, value: u16) -> &mut Self {
        self.extend_from_slice(&value.to_ne_bytes());
        self
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.extend_from_slice(&value.to_ne_bytes());
        self
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.extend_from_slice(&value.to_ne_bytes());
        self
    }

    fn zeroes(&mut self, n: usize) -> &mut Self {
        self.resize(self.len() + n, 0);
        self
    }
}

/// An answer's header: `body` bytes follow it. `error` is 0 or a positive error number.
pub fn out_header(unique: u64, error: i32, body: usize) -> [u8; OUT_HEADER] {
    let len = u32::try_from(OUT_HEADER + body).unwrap_or(u32::MAX);
    let mut bytes = [0; OUT_HEADER];
    bytes[..4].copy_from_slice(&len.to_ne_bytes());
    bytes[4..8].copy_from_slice(&(-told(error)).to_ne_bytes());
    bytes[8..].copy_from_slice(&unique.to_ne_bytes());
    bytes
}

/// An error number that may be told. The kernel takes none from 512 on, and understands ENOSYS as
/// "never ask for that again": after it, an fsync(2) would always succeed.
fn told(error: i32) -> i32 {
    match error {
        0..512 => error,
        _ => errno::EIO,
    }
}

/// A device's error number that may be told.
pub fn of_device(error: i32) -> i32 {
    match error {
        errno::ENOSYS | ..=0 => errno::EIO,
        error => told(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opcodes_are_sorted_and_found() {
        assert!(OPCODES.is_sorted_by_key(|known| known.0));
        for (number, opcode) in OPCODES {
            assert_eq!(
                (Opcode::of(number), opcode.number()),
                (Some(opcode), number)
            );
        }
        assert_eq!(Opcode::of(0), None);
        assert_eq!(Opcode::of(u32::MAX), None);
    }

    #[test]
    fn errors_stay_in_the_kernels_range() {
        let error = |error| i32::from_ne_bytes(out_header(1, error, 0)[4..8].try_into().unwrap());
        assert_eq!(
            [error(0), error(28), error(511), error(512), error(-3)],
            [0, -28, -511, -5, -5]
        );
        assert_eq!([of_device(38), of_device(28), of_device(0)], [5, 28, 5]);
    }

    #[test]
    fn a_header_says_how_long_its_packet_is() {
        let mut packet = Vec::new();
        packet.u32(44).u32(15).u64(7).u64(2).zeroes(16).u32(9);
        let header = Header {
            opcode: 15,
            unique: 7,
            node: 2,
        };
        assert_eq!(Header::parse(&packet), Ok(header));
        let there = packet.len() - 1;
        assert_eq!(
            Header::parse(&packet[..there]),
            Err(Violation::Length { there, told: 44 })
        );
        assert_eq!(Header::parse(&packet[..39]), Err(Violation::Short(39)));
    }
}
