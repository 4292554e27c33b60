//! Directory entries of FAT: a short name for everybody, and a long name in front of it for those who
//! know of such (Microsoft FAT specification, chapters 6 and 7).

use std::collections::{HashMap, HashSet};

use block::{Error, ErrorKind, Result};

use crate::partition_table::put;

/// Bytes per entry.
pub(super) const ENTRY: usize = 32;

/// UTF-16 units of a long name per entry.
const UNITS: usize = 13;

/// Where an entry of a long name has its units.
const PLACES: [usize; UNITS] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];

/// The most entries a directory can have.
const ENTRIES_MAX: usize = 65_536;

pub(super) const ATTR_DIRECTORY: u8 = 0x10;
pub(super) const ATTR_ARCHIVE: u8 = 0x20;
pub(super) const ATTR_LABEL: u8 = 0x08;
const ATTR_LONG_NAME: u8 = 0x0f;

/// What an entry says besides the name.
#[derive(Clone, Copy)]
pub(super) struct About {
    pub attributes: u8,
    /// The first cluster, 0 if there is none.
    pub cluster: u32,
    pub size: u32,
    /// Seconds since 1970.
    pub changed: i64,
}

/// The names of one directory.
#[derive(Default)]
pub(super) struct Names {
    short: HashSet<[u8; 11]>,
    /// In lower case: FAT does not tell them apart.
    long: HashSet<String>,
    /// The numbers that are taken behind a `~`.
    numbers: HashMap<Vec<u8>, u32>,
}

/// One name in both forms.
pub(super) struct Name {
    short: [u8; 11],
    /// Empty if the short name says it all.
    long: Vec<u16>,
}

impl Names {
    /// The name of one more thing in the directory.
    ///
    /// # Errors
    /// FAT cannot tell it from another.
    pub fn add(&mut self, name: &str) -> Result<Name> {
        if !self.long.insert(name.to_lowercase()) {
            let what =
                format!("'{name}' and another name differ in case only, and in FAT not at all");
            return Err(Error::new(ErrorKind::Unsupported, what));
        }
        if let Some(short) = exact(name).filter(|short| self.short.insert(*short)) {
            return Ok(Name {
                short,
                long: Vec::new(),
            });
        }
        let long = name.encode_utf16().collect();
        let (base, extension) = parts(name);
        let key = [&base[..base.len().min(6)], b".", &extension].concat();
        let number = self.numbers.entry(key).or_default();
        loop {
            *number += 1;
            let tail = format!("~{number}");
            let keep = base.len().min(8usize.saturating_sub(tail.len()));
            let mut short = [b' '; 11];
            let front = base[..keep].iter().chain(tail.as_bytes());
            short[..8]
                .iter_mut()
                .zip(front)
                .for_each(|(to, from)| *to = *from);
            short[8..]
                .iter_mut()
                .zip(&extension)
                .for_each(|(to, from)| *to = *from);
            if self.short.insert(short) {
                return Ok(Name { short, long });
            }
        }
    }
}

impl Name {
    /// Entries that it takes.
    pub fn entries(&self) -> usize {
        1 + self.long.len().div_ceil(UNITS)
    }

    /// Writes its entries behind `table`.
    pub fn write(&self, table: &mut Vec<u8>, about: About) {
        let pieces = self.long.chunks(UNITS).enumerate();
        let last = pieces.len();
        for (i, piece) in pieces.rev() {
            let mut entry = [0; ENTRY];
            entry[0] = (i as u8 + 1) | if i + 1 == last { 0x40 } else { 0 };
            entry[11] = ATTR_LONG_NAME;
            entry[13] = checksum(&self.short);
            // Behind a name that does not fill the entry: an end, then nothing.
            let units = piece
                .iter()
                .copied()
                .chain([0])
                .chain(std::iter::repeat(0xffff));
            for (at, unit) in PLACES.into_iter().zip(units) {
                put(&mut entry, at, unit.to_le_bytes());
            }
            table.extend(entry);
        }
        write(table, self.short, about);
    }
}

/// Fails if a directory is too long.
pub(super) fn check_length(entries: usize) -> Result<()> {
    match entries <= ENTRIES_MAX {
        true => Ok(()),
        false => {
            let what = format!("a directory needs {entries} entries, and FAT has {ENTRIES_MAX}");
            Err(Error::new(ErrorKind::Unsupported, what))
        }
    }
}

/// Writes one entry behind `table`.
pub(super) fn write(table: &mut Vec<u8>, name: [u8; 11], about: About) {
    let (date, time) = dos_time(about.changed);
    let mut entry = [0; ENTRY];
    put(&mut entry, 0, name);
    entry[11] = about.attributes;
    for (at, value) in [(14, time), (16, date), (18, date), (22, time), (24, date)] {
        put(&mut entry, at, value.to_le_bytes());
    }
    put(&mut entry, 20, ((about.cluster >> 16) as u16).to_le_bytes());
    put(&mut entry, 26, (about.cluster as u16).to_le_bytes());
    put(&mut entry, 28, about.size.to_le_bytes());
    table.extend(entry);
}

/// A character that a short name may have.
fn is_short(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"$%'-_@~`!(){}^#&".contains(&byte)
}

/// The short name of a name that is one.
fn exact(name: &str) -> Option<[u8; 11]> {
    let (base, extension) = match name.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (name, ""),
    };
    let good = |part: &str, most: usize| part.len() <= most && part.bytes().all(is_short);
    if base.is_empty() || !good(base, 8) || !good(extension, 3) {
        return None;
    }
    let mut short = [b' '; 11];
    short[..base.len()].copy_from_slice(base.as_bytes());
    short[8..][..extension.len()].copy_from_slice(extension.as_bytes());
    Some(short)
}

/// What is left of a name in short form: base and extension.
fn parts(name: &str) -> (Vec<u8>, Vec<u8>) {
    let name = name.trim_start_matches('.');
    let (base, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let strip = |part: &str, most: usize| {
        let kept = part.chars().filter(|c| !matches!(c, ' ' | '.'));
        kept.map(|c| match u8::try_from(c.to_ascii_uppercase()) {
            Ok(byte) if is_short(byte) => byte,
            _ => b'_',
        })
        .take(most)
        .collect::<Vec<_>>()
    };
    (strip(base, 8), strip(extension, 3))
}

/// Ties the entries of a long name to the short one.
fn checksum(short: &[u8; 11]) -> u8 {
    short
        .iter()
        .fold(0, |sum: u8, byte| sum.rotate_right(1).wrapping_add(*byte))
}

/// Date and time as FAT has them, in UTC: from 1980 to 2107, in steps of two seconds.
fn dos_time(seconds: i64) -> (u16, u16) {
    const FIRST: i64 = 315_532_800;
    const LAST: i64 = 4_354_819_198;
    let seconds = seconds.clamp(FIRST, LAST);
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant's civil_from_days, for days after 1970: years begin in March.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, over) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    let year = era * 400 + year + over;
    let date = (year - 1980) << 9 | month << 5 | day;
    let time = ((time / 3600) << 11) | ((time / 60 % 60) << 5) | (time % 60 / 2);
    (date as u16, time as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_made_and_unique() {
        let mut names = Names::default();
        for (name, wanted, long) in [
            ("README.TXT", "README  TXT", false),
            ("readme.txt2", "README~1TXT", true),
            ("A long name.text", "ALONGN~1TEX", true),
            ("A long name 2.text", "ALONGN~2TEX", true),
            (".profile", "PROFIL~1   ", true),
            ("a.b.c", "AB~1    C  ", true),
            ("x+y", "X_Y~1      ", true),
            ("\u{e4}\u{f6}", "__~1       ", true),
            ("lower", "LOWER~1    ", true),
            ("LOWER2", "LOWER2     ", false),
            ("dot.", "DOT~1      ", true),
            ("...", "~1         ", true),
        ] {
            let made = names.add(name).unwrap();
            assert_eq!(made.short.escape_ascii().to_string(), wanted, "{name}");
            assert_eq!(!made.long.is_empty(), long, "{name}");
        }
        assert!(names.add("ReadMe.txt").is_err());
    }

    #[test]
    fn many_alike_names_are_told_apart() {
        let mut names = Names::default();
        let mut seen = HashSet::new();
        for i in 0..2000 {
            let made = names.add(&format!("some long name {i}")).unwrap();
            assert!(seen.insert(made.short));
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let of = |seconds| {
            let (date, time) = dos_time(seconds);
            let (y, m, d) = (1980 + (date >> 9), date >> 5 & 15, date & 31);
            (y, m, d, time >> 11, time >> 5 & 63, (time & 31) * 2)
        };
        assert_eq!(of(0), (1980, 1, 1, 0, 0, 0));
        assert_eq!(of(951_782_399), (2000, 2, 28, 23, 59, 58));
        assert_eq!(of(951_782_400), (2000, 2, 29, 0, 0, 0));
        assert_eq!(of(1_700_000_000), (2023, 11, 14, 22, 13, 20));
        assert_eq!(of(i64::MAX), (2107, 12, 31, 23, 59, 58));
    }
}
