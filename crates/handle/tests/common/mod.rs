//! Servers that say what a test wants.
#![allow(dead_code, reason = "not every test needs all of it")]

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use handle::{Handle, Result};

pub const SIZE: u64 = 1 << 20;
/// Every transmission flag but read-only.
pub const ALL: u16 = 0xfff & !2;
pub const ACK: u32 = 1;
pub const REP_INFO: u32 = 3;
pub const UNSUP: u32 = 0x8000_0001;
pub const UNKNOWN: u32 = 0x8000_0006;

/// The server's end of a connection.
pub struct Peer(pub UnixStream);

/// A request as it came.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub flags: u16,
    pub command: u16,
    pub cookie: u64,
    pub offset: u64,
    pub length: u64,
}

/// Runs a server in a thread of its own, and a handle connected to it, with what a test has set.
/// The server may end as it likes: its end of the connection is closed then.
pub fn serve(
    server: impl FnOnce(&mut Peer) -> io::Result<()> + Send + 'static,
) -> (UnixStream, JoinHandle<io::Result<()>>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let running = thread::spawn(move || server(&mut Peer(theirs)));
    (ours, running)
}

/// A handle that is connected to such a server.
pub fn connected(server: impl FnOnce(&mut Peer) -> io::Result<()> + Send + 'static) -> Handle {
    let handle = Handle::new().unwrap();
    connect(&handle, server).unwrap();
    handle
}

pub fn connect(
    handle: &Handle,
    server: impl FnOnce(&mut Peer) -> io::Result<()> + Send + 'static,
) -> Result<()> {
    let (ours, _running) = serve(server);
    handle
        .connect_socket(ours.into())
        .map_err(|refused| refused.error)
}

/// An option reply.
pub fn reply(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = 0x0003_e889_0455_65a9u64.to_be_bytes().to_vec();
    bytes.extend_from_slice(&option.to_be_bytes());
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&(data.len() as u32).to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

/// Size and flags of an export, in reply to an option.
pub fn export_info(option: u32, size: u64, flags: u16) -> Vec<u8> {
    let mut data = vec![0, 0];
    data.extend_from_slice(&size.to_be_bytes());
    data.extend_from_slice(&flags.to_be_bytes());
    reply(option, REP_INFO, &data)
}

/// A structured chunk.
pub fn chunk(flags: u16, kind: u16, cookie: u64, data: &[u8]) -> Vec<u8> {
    let mut bytes = 0x668e_33efu32.to_be_bytes().to_vec();
    bytes.extend_from_slice(&flags.to_be_bytes());
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&cookie.to_be_bytes());
    bytes.extend_from_slice(&(data.len() as u32).to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

/// Data at an offset.
pub fn data_chunk(flags: u16, cookie: u64, offset: u64, data: &[u8]) -> Vec<u8> {
    let payload = [&offset.to_be_bytes()[..], data].concat();
    chunk(flags, 1, cookie, &payload)
}

/// A simple reply.
pub fn simple(error: u32, cookie: u64) -> Vec<u8> {
    let mut bytes = 0x6744_6698u32.to_be_bytes().to_vec();
    bytes.extend_from_slice(&error.to_be_bytes());
    bytes.extend_from_slice(&cookie.to_be_bytes());
    bytes
}

impl Peer {
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    pub fn receive<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Greets as fixed newstyle does, and takes the client's flags.
    pub fn greet(&mut self) -> io::Result<u32> {
        self.send(b"NBDMAGICIHAVEOPT\0\x03")?;
        Ok(u32::from_be_bytes(self.receive()?))
    }

    /// The next option and its data.
    pub fn option(&mut self) -> io::Result<(u32, Vec<u8>)> {
        let head: [u8; 16] = self.receive()?;
        assert_eq!(head[..8], *b"IHAVEOPT");
        let number = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().unwrap());
        let mut data = vec![0; number(12) as usize];
        self.0.read_exact(&mut data)?;
        Ok((number(8), data))
    }

    /// Everything up to the transmission phase: extended headers are refused, structured replies and
    /// `base:allocation`, with number 7, granted.
    pub fn enter(&mut self, size: u64, flags: u16) -> io::Result<()> {
        self.greet()?;
        self.enter_from_here(size, flags)
    }

    pub fn enter_from_here(&mut self, size: u64, flags: u16) -> io::Result<()> {
        loop {
            let (option, _) = self.option()?;
            match option {
                8 => self.send(&reply(8, ACK, &[]))?,
                10 => {
                    let context = [&[0, 0, 0, 7][..], b"base:allocation"].concat();
                    self.send(&reply(10, 4, &context))?;
                    self.send(&reply(10, ACK, &[]))?;
                }
                6 | 7 => {
                    self.send(&export_info(option, size, flags))?;
                    self.send(&reply(option, ACK, &[]))?;
                    if option == 7 {
                        return Ok(());
                    }
                }
                2 => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => self.send(&reply(option, UNSUP, b"not here"))?,
            }
        }
    }

    /// The next request, in compact form, without its payload.
    pub fn request(&mut self) -> io::Result<Asked> {
        let head: [u8; 28] = self.receive()?;
        let long = |at: usize| u64::from_be_bytes(head[at..at + 8].try_into().unwrap());
        let short = |at: usize| u16::from_be_bytes(head[at..at + 2].try_into().unwrap());
        assert_eq!(head[..4], 0x2560_9513u32.to_be_bytes());
        Ok(Asked {
            flags: short(4),
            command: short(6),
            cookie: long(8),
            offset: long(16),
            length: u32::from_be_bytes(head[24..].try_into().unwrap()).into(),
        })
    }

    pub fn payload(&mut self, length: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length as usize];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Waits until the client is gone.
    pub fn rest(&mut self) -> io::Result<()> {
        self.0.read_to_end(&mut Vec::new()).map(drop)
    }
}

/// What happened, in order.
pub type Log = Arc<Mutex<Vec<String>>>;

/// Writes a line when it is dropped.
pub struct Freed(pub &'static str, pub Log);

impl Drop for Freed {
    fn drop(&mut self) {
        self.1.lock().unwrap().push(format!("free {}", self.0));
    }
}

/// What happened since the last time.
pub fn lines(log: &Log) -> Vec<String> {
    std::mem::take(&mut log.lock().unwrap())
}

/// What a call says.
pub fn message<T>(result: Result<T>) -> String {
    match result {
        Ok(_) => "no error".into(),
        Err(error) => error.to_string(),
    }
}

/// Answers every read with bytes of its offset, and all else with success.
pub fn obedient(peer: &mut Peer) -> io::Result<()> {
    loop {
        let asked = peer.request()?;
        match asked.command {
            0 => {
                let data = vec![(asked.offset >> 9) as u8; asked.length as usize];
                peer.send(&data_chunk(1, asked.cookie, asked.offset, &data))?;
            }
            1 => {
                peer.payload(asked.length)?;
                peer.send(&simple(0, asked.cookie))?;
            }
            2 => return Ok(()),
            _ => peer.send(&simple(0, asked.cookie))?,
        }
    }
}

/// A handle with an obedient server.
pub fn ready() -> Handle {
    connected(|peer| {
        peer.enter(SIZE, ALL)?;
        obedient(peer)
    })
}
