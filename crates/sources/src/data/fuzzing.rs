//! For fuzz targets: a program of any bytes, with bounded output and nothing outside.

use block::Errno;

use super::{
    Program,
    ast::{self, At, External, Fault, What},
    eval::{self, Buffer, Sink},
    load::{Blob, Outside},
};

/// Bytes of a program.
const LONGEST: usize = 64 << 10;

/// Bytes of a disk that are compared.
const COMPARED: u64 = 64 << 10;

/// Steps of one evaluation.
const STEPS: u64 = 100_000;

/// The variables there are: one that uses names, one that uses itself, one with a mistake.
const VARIABLES: [(&str, &str); 3] = [("a", r"\a 1*3 -> \a \a"), ("b", "$b"), ("c", "(")];

/// Parses and evaluates. Promised are: no panic, errors of one line, and that the bytes do not depend
/// on the windows in which they are asked for.
///
/// # Panics
/// If a promise is broken.
pub fn fuzz(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let variable = |name: &str| {
        let found = VARIABLES.iter().find(|(known, _)| *known == name)?;
        Some(found.1.to_owned())
    };
    let program = match Program::parse(&text, &variable, LONGEST) {
        Ok(program) => program,
        Err(error) => return assert_one_line(&error.chain()),
    };
    assert!(!ast::render(&program.root).is_empty());
    let size = match eval::measure(&program.root, &Names) {
        Ok(size) => size,
        Err(fault) => return assert_one_line(&fault.why),
    };
    let mut bounded = Bounded {
        size,
        bytes: 1 << 22,
    };
    let outcome = eval::write(&program.root, size, &mut bounded, STEPS);
    if outcome.is_ok() && size <= COMPARED {
        compare(&program, size);
    }
}

fn compare(program: &Program, size: u64) {
    let bytes = |to: u64| {
        let mut buffer = Buffer::new(to);
        let outcome = eval::write(&program.root, to, &mut buffer, STEPS);
        outcome.is_ok().then_some(buffer.0)
    };
    let Some(whole) = bytes(size) else { return };
    for to in [size / 3, size / 2, size.saturating_sub(1)] {
        if let Some(part) = bytes(to) {
            assert_eq!(part, whole[..to as usize], "the first {to} bytes");
        }
    }
}

fn assert_one_line(text: &str) {
    assert!(!text.contains('\n'), "{text:?}");
}

/// A world in which every file and script holds its own name.
struct Names;

impl Outside for Names {
    fn read(&self, _: At, external: &External) -> Result<Blob, Fault> {
        let content = match &external.what {
            What::File(path) => path.as_os_str().as_encoded_bytes(),
            What::Script(script) => script.as_bytes(),
        };
        let len = content.len() as u64;
        let (from, to) = (external.from.min(len), external.to.unwrap_or(len).min(len));
        Ok(Blob::of(&content[from as usize..to as usize]))
    }
}

/// Checks ranges, keeps nothing, and has enough after some bytes.
struct Bounded {
    size: u64,
    bytes: u64,
}

impl Sink for Bounded {
    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.zero(at, bytes.len() as u64)?;
        let left = self.bytes.checked_sub(bytes.len() as u64);
        self.bytes = left.ok_or(Errno::ENOSPC)?;
        Ok(())
    }

    fn zero(&mut self, at: u64, len: u64) -> Result<(), Errno> {
        assert!(at <= self.size && len <= self.size - at, "{at}+{len}");
        Ok(())
    }
}
