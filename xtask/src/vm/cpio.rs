//! Archives in the format of an initramfs: cpio, "newc" (kernel, `driver-api/early-userspace/buffer-format`).

use std::collections::BTreeSet;

const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const DEVICE: u32 = 0o020_000;

/// An archive that grows. Paths begin with `/`; folders on the way are made.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    inode: u32,
    there: BTreeSet<String>,
}

impl Archive {
    /// Adds a folder, unless it is there.
    pub fn folder(&mut self, path: &str) {
        if path.is_empty() || path == "/" || !self.there.insert(path.to_owned()) {
            return;
        }
        self.parent(path);
        self.entry(path, DIRECTORY | 0o755, &[], (0, 0));
    }

    /// Adds a file. The first one of a name stays: the kernel would take the last.
    pub fn file(&mut self, path: &str, mode: u32, data: &[u8]) {
        if self.there.insert(path.to_owned()) {
            self.parent(path);
            self.entry(path, REGULAR | mode, data, (0, 0));
        }
    }

    /// Adds a character device.
    pub fn device(&mut self, path: &str, mode: u32, major: u32, minor: u32) {
        if self.there.insert(path.to_owned()) {
            self.parent(path);
            self.entry(path, DEVICE | mode, &[], (major, minor));
        }
    }

    /// The archive, with its end.
    pub fn finish(mut self) -> Vec<u8> {
        self.inode = 0;
        self.entry("/TRAILER!!!", 0, &[], (0, 0));
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self.bytes
    }

    fn parent(&mut self, path: &str) {
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.folder(parent);
        }
    }

    fn entry(&mut self, path: &str, mode: u32, data: &[u8], device: (u32, u32)) {
        let name = path.trim_start_matches('/');
        let (links, size, length) = (1, data.len() as u32, name.len() as u32 + 1);
        self.inode += 1;
        // inode, mode, uid, gid, links, time, size, device of the file (2), device (2), name, checksum
        let fields = [
            self.inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, length, 0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Write,
        process::{Command, Stdio},
    };

    fn archive() -> Vec<u8> {
        let mut archive = Archive::default();
        archive.file("/a/b/file", 0o755, b"hello");
        archive.file("/a/b/file", 0o644, b"second");
        archive.folder("/a");
        archive.finish()
    }

    #[test]
    fn headers_and_padding() {
        let bytes = archive();
        assert_eq!(bytes.len() % 512, 0);
        assert_eq!(&bytes[..6], b"070701");
        // Mode of the first entry: the folder that nobody asked for by itself.
        assert_eq!(&bytes[14..22], b"000041ED");
        assert_eq!(&bytes[110..112], b"a\0");
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches("070701").count(), 4);
        assert!(text.contains("hello") && !text.contains("second"));
    }

    #[test]
    fn cpio_reads_it() {
        let there = Command::new("cpio").arg("--version").output().is_ok();
        if !there {
            println!("SKIP: cpio is not installed");
            return;
        }
        let mut child = Command::new("cpio")
            .args(["-it", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&archive()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "a\na/b\na/b/file\n"
        );
    }
}
