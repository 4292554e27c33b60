//! A disk of this program's own, for virtual machines: `serve SOCKET [SIZE]`.
//!
//! ```text
//! cargo run --example serve -- /tmp/disk.sock &
//! nbdkit blkio virtio-blk-vhost-user path=/tmp/disk.sock --run 'nbdinfo "$uri"'
//! ```

use std::{
    env, io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use blkit::serve::{self, Abilities, Device};

/// A disk in memory, which remembers what is written to it until the program ends.
struct Ram(Mutex<Vec<u8>>);

impl Ram {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Device for Ram {
    fn size(&self) -> u64 {
        self.bytes().len() as u64
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let at = offset as usize;
        bytes.copy_from_slice(&self.bytes()[at..at + bytes.len()]);
        Ok(())
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            write_zeroes: true,
            ..Abilities::writable()
        }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let at = offset as usize;
        self.bytes()[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn write_zeroes(&self, len: u64, offset: u64, _unmap: bool) -> io::Result<()> {
        let at = offset as usize;
        self.bytes()[at..at + len as usize].fill(0);
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = env::args().skip(1);
    let socket = words.next().ok_or("usage: serve SOCKET [SIZE]")?;
    let size = words.next().map_or(Ok(64 << 20), |size| size.parse())?;
    let ram = Ram(Mutex::new(vec![0; size]));
    let server = serve::vhost_user(&socket).serial("ram").device(ram)?;
    println!("serving {size} bytes on {socket}, until a line is read");
    io::stdin().read_line(&mut String::new())?;
    server.close(Duration::from_secs(5))?;
    Ok(())
}
