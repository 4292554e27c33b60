//! Lines of sixteen bytes, in hexadecimal and as text; lines that repeat are left out.
//!
//! As nbddump does it: zeroes that a dump begins with in the middle of a disk are left out too, as if
//! more of them stood above; the first line of a disk and its last are told in any case.

use std::io::{self, Write};

/// Bytes in a line.
const LINE: usize = 16;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Writes bytes as they come; each line begins a multiple of sixteen behind the first byte.
pub struct Hex<W> {
    out: W,
    color: bool,
    /// Where the line begins.
    at: u64,
    line: [u8; LINE],
    filled: usize,
    /// The line above, told or left out; zeroes in front of the first.
    last: [u8; LINE],
    /// Lines are being left out.
    squashing: bool,
    /// A line that ends here is told in any case: it is the disk's last.
    end: u64,
    text: Vec<u8>,
}

impl<W: Write> Hex<W> {
    /// For bytes from `at` on, of a disk that ends at `end`.
    pub fn new(out: W, color: bool, at: u64, end: u64) -> Hex<W> {
        Hex {
            out,
            color,
            at,
            line: [0; LINE],
            filled: 0,
            last: [0; LINE],
            squashing: false,
            end,
            text: Vec::new(),
        }
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn bytes(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let here = bytes.len().min(LINE - self.filled);
            let (now, later) = bytes.split_at(here);
            self.line[self.filled..self.filled + here].copy_from_slice(now);
            self.filled += here;
            bytes = later;
            if self.filled == LINE {
                self.tell()?;
            }
        }
        Ok(())
    }

    /// Adds zeroes, however many.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn zeroes(&mut self, len: u64) -> io::Result<()> {
        const ZEROES: [u8; LINE] = [0; LINE];
        let begun = match self.filled {
            0 => 0,
            filled => len.min((LINE - filled) as u64),
        };
        self.bytes(&ZEROES[..begun as usize])?;
        let (lines, rest) = ((len - begun) / LINE as u64, (len - begun) % LINE as u64);
        // What lies between the first line of zeroes and the last is never told.
        match lines {
            0 => {}
            1 => self.bytes(&ZEROES)?,
            _ => {
                self.bytes(&ZEROES)?;
                if lines > 2 {
                    self.leave_out(lines - 2)?;
                }
                self.bytes(&ZEROES)?;
            }
        }
        self.bytes(&ZEROES[..rest as usize])
    }

    /// Ends the last line.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(mut self) -> io::Result<()> {
        if self.filled > 0 {
            self.tell()?;
        }
        self.out.flush()
    }

    fn tell(&mut self) -> io::Result<()> {
        let filled = std::mem::take(&mut self.filled);
        // What a short line lacks counts as zeroes.
        self.line[filled..].fill(0);
        let begin = self.at;
        self.at += filled as u64;
        if self.line == self.last && begin > 0 && self.at < self.end {
            return self.leave_out(0);
        }
        self.squashing = false;
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        match self.color {
            true => colored(&mut text, begin, &self.line[..filled]),
            false => plain(&mut text, begin, &self.line[..filled]),
        }
        self.out.write_all(&text)?;
        self.text = text;
        self.last = self.line;
        Ok(())
    }

    /// So many lines more are as the one above.
    fn leave_out(&mut self, lines: u64) -> io::Result<()> {
        self.at += lines * LINE as u64;
        if self.squashing {
            return Ok(());
        }
        self.squashing = true;
        let star = if self.color { "\u{2606}\n" } else { "*\n" };
        self.out.write_all(star.as_bytes())
    }
}

fn pair(text: &mut Vec<u8>, byte: u8) {
    let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
    text.extend([DIGITS[high], DIGITS[low], b' ']);
}

/// What stands in for the bytes that a short line lacks.
fn missing(text: &mut Vec<u8>, filled: usize) {
    // It comes with the ninth byte.
    let gap = usize::from(filled <= LINE / 2);
    text.resize(text.len() + 3 * (LINE - filled) + gap, b' ');
}

fn is_printable(byte: u8) -> bool {
    byte == b' ' || byte.is_ascii_graphic()
}

fn plain(text: &mut Vec<u8>, at: u64, bytes: &[u8]) {
    text.extend(format!("{at:010x}: ").bytes());
    for (i, &byte) in bytes.iter().enumerate() {
        if i == LINE / 2 {
            text.push(b' ');
        }
        pair(text, byte);
    }
    missing(text, bytes.len());
    text.push(b'|');
    text.extend(
        bytes
            .iter()
            .map(|&byte| if is_printable(byte) { byte } else { b'.' }),
    );
    text.resize(text.len() + LINE - bytes.len(), b' ');
    text.extend(b"|\n");
}

const DIM: &[u8] = b"\x1b[22;90m";

fn colored(text: &mut Vec<u8>, at: u64, bytes: &[u8]) {
    text.extend(b"\x1b[22;32m");
    text.extend(format!("{at:010x}").bytes());
    text.extend(DIM);
    text.extend(b": ");
    for (i, &byte) in bytes.iter().enumerate() {
        if i == LINE / 2 {
            text.push(b' ');
        }
        text.extend(if byte == 0 { DIM } else { b"\x1b[1;34m" });
        pair(text, byte);
    }
    text.extend(DIM);
    missing(text, bytes.len());
    text.extend("\u{2502}".bytes());
    for &byte in bytes {
        match byte {
            byte if byte.is_ascii_alphanumeric() => {
                text.extend(b"\x1b[1;31m");
                text.push(byte);
            }
            byte if is_printable(byte) => {
                text.extend(b"\x1b[1;35m");
                text.push(byte);
            }
            _ => {
                text.extend(DIM);
                text.extend("\u{b7}".bytes());
            }
        }
    }
    text.extend(DIM);
    text.resize(text.len() + LINE - bytes.len(), b' ');
    text.extend("\u{2502}\n\x1b[0m".bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(at: u64, end: u64, add: impl FnOnce(&mut Hex<&mut Vec<u8>>)) -> String {
        let mut out = Vec::new();
        let mut hex = Hex::new(&mut out, false, at, end);
        add(&mut hex);
        hex.finish().expect("a vector takes all");
        String::from_utf8(out).expect("text")
    }

    const ZERO: &str = "00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00 |................|\n";

    #[test]
    fn short_lines_keep_their_columns() {
        let lines = [
            (
                1,
                "61                                               |a               |",
            ),
            (
                8,
                "61 61 61 61 61 61 61 61                          |aaaaaaaa        |",
            ),
            (
                9,
                "61 61 61 61 61 61 61 61  61                      |aaaaaaaaa       |",
            ),
            (
                16,
                "61 61 61 61 61 61 61 61  61 61 61 61 61 61 61 61 |aaaaaaaaaaaaaaaa|",
            ),
        ];
        for (len, line) in lines {
            let text = told(1, 1 + len as u64, |hex| {
                hex.bytes(&vec![b'a'; len]).unwrap();
            });
            assert_eq!(text, format!("0000000001: {line}\n"));
        }
        assert_eq!(told(0, 0, |_| {}), "");
    }

    #[test]
    fn zeroes_are_the_same_however_they_come() {
        for len in 0..100u64 {
            for before in [0, 1, 15, 16, 17] {
                let end = before + len + 3;
                let one = told(0, end, |hex| {
                    hex.bytes(&vec![1; before as usize]).unwrap();
                    hex.zeroes(len).unwrap();
                    hex.bytes(&[2; 3]).unwrap();
                });
                let other = told(0, end, |hex| {
                    hex.bytes(&vec![1; before as usize]).unwrap();
                    (0..len).for_each(|_| hex.bytes(&[0]).unwrap());
                    hex.bytes(&[2; 3]).unwrap();
                });
                assert_eq!(one, other, "{before} {len}");
            }
        }
    }

    #[test]
    fn huge_holes_cost_nothing_and_the_last_line_is_told() {
        let size = i64::MAX as u64 - 15;
        let text = told(0, size, |hex| hex.zeroes(size).unwrap());
        let last = size - 16;
        assert_eq!(text, format!("0000000000: {ZERO}*\n{last:010x}: {ZERO}"));
        // Cut short, the end is not the disk's.
        for len in [17, 48, 50] {
            let text = told(0, size, |hex| hex.zeroes(len).unwrap());
            assert_eq!(text, format!("0000000000: {ZERO}*\n"));
        }
        let text = told(5, size, |hex| hex.zeroes(48).unwrap());
        assert_eq!(text, "*\n");
    }

    #[test]
    fn each_kind_of_byte_has_its_color() {
        let mut out = Vec::new();
        let mut hex = Hex::new(&mut out, true, 0, 4);
        hex.bytes(b" a\n\0").unwrap();
        hex.finish().unwrap();
        let expected = "\x1b[22;32m0000000000\x1b[22;90m: \x1b[1;34m20 \x1b[1;34m61 \x1b[1;34m0a \
             \x1b[22;90m00 \x1b[22;90m                                     \u{2502}\x1b[1;35m \
             \x1b[1;31ma\x1b[22;90m\u{b7}\x1b[22;90m\u{b7}\x1b[22;90m            \u{2502}\n\x1b[0m";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
