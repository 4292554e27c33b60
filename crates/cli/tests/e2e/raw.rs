//! A client of a few lines, written from the protocol's text: for tests that need one request at a
//! chosen moment.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
};

use crate::bench::eventually;

/// NBD_CMD_FLAG_FUA.
pub const FUA: u16 = 1;
/// NBD_CMD_WRITE.
pub const WRITE: u16 = 1;
/// NBD_CMD_FLUSH.
pub const FLUSH: u16 = 3;

/// A connection in the transmission phase, with simple replies.
pub struct Raw {
    stream: UnixStream,
    pub size: u64,
}

impl Raw {
    pub fn connect(path: &Path) -> Raw {
        // The file of a socket is there before anybody listens on it.
        let mut stream = None;
        eventually("it connects", || {
            stream = UnixStream::connect(path).ok();
            stream.is_some()
        });
        let mut stream = stream.expect("it connected");
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting).expect("a greeting");
        assert_eq!(&greeting[..16], b"NBDMAGICIHAVEOPT");
        // NBD_FLAG_C_FIXED_NEWSTYLE and NBD_FLAG_C_NO_ZEROES, then NBD_OPT_EXPORT_NAME "".
        let mut hello = 3u32.to_be_bytes().to_vec();
        hello.extend_from_slice(b"IHAVEOPT");
        hello.extend_from_slice(&1u32.to_be_bytes());
        hello.extend_from_slice(&0u32.to_be_bytes());
        stream.write_all(&hello).expect("sends");
        let mut export = [0; 10];
        stream.read_exact(&mut export).expect("an export");
        let size = u64::from_be_bytes(export[..8].try_into().expect("8 bytes"));
        Raw { stream, size }
    }

    /// Sends a request to read; the answer is taken by [`Raw::answer`].
    pub fn ask_read(&mut self, offset: u64, length: u32) {
        self.send(&request(0, 0, COOKIE, offset, length));
    }

    /// Sends requests and payloads.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("sends");
    }

    /// The cookie of the next reply, which has no data: success is asserted.
    pub fn done(&mut self) -> u64 {
        let mut head = [0; 16];
        self.stream.read_exact(&mut head).expect("a reply");
        assert_eq!(head[..8], *b"gDf\x98\0\0\0\0");
        u64::from_be_bytes(head[8..].try_into().expect("8 bytes"))
    }

    /// The answer to the one request: its bytes, or the protocol's error number.
    pub fn answer(&mut self, length: usize) -> Result<Vec<u8>, u32> {
        let mut head = [0; 16];
        self.stream.read_exact(&mut head).expect("a reply");
        assert_eq!(head[..4], 0x6744_6698u32.to_be_bytes());
        assert_eq!(head[8..], COOKIE.to_be_bytes());
        match u32::from_be_bytes(head[4..8].try_into().expect("4 bytes")) {
            0 => {
                let mut bytes = vec![0; length];
                self.stream.read_exact(&mut bytes).expect("the data");
                Ok(bytes)
            }
            error => Err(error),
        }
    }

    /// Whether the server has closed the connection, in order or not.
    pub fn is_closed(&mut self) -> bool {
        !matches!(self.stream.read(&mut [0]), Ok(1))
    }
}

const COOKIE: u64 = 0x0102_0304_0506_0708;

/// A request's header.
pub fn request(flags: u16, command: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    let mut request = 0x2560_9513u32.to_be_bytes().to_vec();
    request.extend_from_slice(&flags.to_be_bytes());
    request.extend_from_slice(&command.to_be_bytes());
    request.extend_from_slice(&cookie.to_be_bytes());
    request.extend_from_slice(&offset.to_be_bytes());
    request.extend_from_slice(&length.to_be_bytes());
    request
}
