//! Compressed things of a Debian kernel: modules, and the kernel itself.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

/// Reads a file; one that ends in `.xz`, `.zst` or `.gz` is decompressed.
pub fn file(path: &Path) -> Result<Vec<u8>, String> {
    let data = fs::read(path).map_err(|why| super::told(path, why))?;
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => through("xz", &data, true),
        Some("zst") => through("zstd", &data, true),
        Some("gz") => through("gzip", &data, true),
        _ => Ok(data),
    }
}

/// The ELF file in a bzImage (kernel, `arch/x86/boot`). QEMU enters it by its PVH note: no firmware, no decompressor
/// that would run emulated.
pub fn kernel(image: &[u8]) -> Result<Vec<u8>, String> {
    let bad = || "the kernel is no bzImage that can be unpacked".to_owned();
    let word = |at: usize| -> Option<usize> {
        let bytes = image.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_le_bytes(bytes) as usize)
    };
    // setup_sects, payload_offset, payload_length.
    let setup = match *image.get(0x1f1).ok_or_else(bad)? {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (setup + 1) * 512 + word(0x248).ok_or_else(bad)?;
    let length = word(0x24c).ok_or_else(bad)?;
    let payload = image.get(start..start + length).ok_or_else(bad)?;
    let tool = match payload {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        [0xfd, b'7', b'z', b'X', ..] => "xz",
        [0x02, 0x21, 0x4c, 0x18, ..] => "lz4",
        _ => "gzip",
    };
    // The size of the ELF file stands behind it, which these tools take for rubbish.
    let elf = through(tool, payload, false)?;
    let size = payload.last_chunk().map(|size| u32::from_le_bytes(*size));
    match elf.starts_with(b"\x7fELF") && size == u32::try_from(elf.len()).ok() {
        true => Ok(elf),
        false => Err(bad()),
    }
}

fn through(tool: &str, data: &[u8], whole: bool) -> Result<Vec<u8>, String> {
    let mut child = Command::new(tool)
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|why| format!("{tool}: {why}"))?;
    let mut input = child.stdin.take().expect("it is a pipe");
    let output = std::thread::scope(|scope| {
        // A tool that has enough closes its end.
        scope.spawn(move || drop(input.write_all(data)));
        child.wait_with_output()
    });
    let output = output.map_err(|why| format!("{tool}: {why}"))?;
    match output.status.success() || !whole {
        true => Ok(output.stdout),
        false => Err(format!("{tool} could not unpack")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_found_in_its_image() {
        let elf = [b"\x7fELF".as_slice(), &[7; 5000]].concat();
        let mut tool = Command::new("gzip");
        tool.arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = tool.spawn().unwrap();
        child.stdin.take().unwrap().write_all(&elf).unwrap();
        let mut payload = child.wait_with_output().unwrap().stdout;
        payload.extend_from_slice(&(elf.len() as u32).to_le_bytes());
        let mut image = vec![0; 3 * 512 + 100];
        image[0x1f1] = 2;
        image[0x248..0x24c].copy_from_slice(&100u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        image.extend_from_slice(&payload);
        assert_eq!(kernel(&image), Ok(elf));
        image.truncate(1640);
        assert!(kernel(&image).is_err());
        assert!(kernel(&[]).is_err());
    }
}
