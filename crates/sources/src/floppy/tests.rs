//! The disk is read by a FAT reader of the tests' own, and by the programs people use.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};

use block::{Access, Errno, ErrorKind, ExtentFlags, Op};

use super::*;
use crate::testing::Bench;

fn u16_at(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap()))
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

/// A FAT32 file system.
struct Fat<'a> {
    volume: &'a [u8],
    table: &'a [u8],
    data: usize,
    cluster: usize,
}

impl Fat<'_> {
    /// The file system in the first partition; its structure is checked.
    fn of(disk: &[u8]) -> Fat<'_> {
        assert_eq!(disk[510..512], [0x55, 0xaa]);
        assert_eq!(disk[446 + 4], 0x0c);
        let (start, sectors) = (u32_at(disk, 446 + 8), u32_at(disk, 446 + 12));
        let volume = &disk[start * 512..(start + sectors) * 512];
        assert_eq!(volume[510..512], [0x55, 0xaa]);
        assert_eq!(
            (u16_at(volume, 11), volume[16], u16_at(volume, 17)),
            (512, 2, 0)
        );
        assert_eq!((u32_at(volume, 28), u32_at(volume, 32)), (start, sectors));
        let (reserved, size) = (u16_at(volume, 14) * 512, u32_at(volume, 36) * 512);
        assert_eq!(
            volume[..1024],
            volume[6 * 512..][..1024],
            "the copy of the boot sector"
        );
        let table = &volume[reserved..][..size];
        assert!(
            table == &volume[reserved + size..][..size],
            "both tables are alike"
        );
        let fat = Fat {
            volume,
            table,
            data: reserved + 2 * size,
            cluster: usize::from(volume[13]) * 512,
        };
        let clusters = (volume.len() - fat.data) / fat.cluster;
        assert!((clusters + 2) * 4 <= size, "the table is long enough");
        let entries = table.chunks(4).skip(2).take(clusters);
        let free = entries.filter(|entry| **entry == [0; 4]).count();
        assert_eq!(
            u32_at(volume, 512 + 488),
            free,
            "free clusters of the information sector"
        );
        fat
    }

    fn chain(&self, first: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut next = first;
        while (2..0x0fff_fff8).contains(&next) {
            let at = self.data + (next - 2) * self.cluster;
            bytes.extend_from_slice(&self.volume[at..at + self.cluster]);
            next = u32_at(self.table, next * 4) & 0x0fff_ffff;
            assert_ne!(next, 0, "a chain leads to a free cluster");
        }
        bytes
    }

    /// All files below a directory, by their paths; a directory is `None`.
    fn walk(&self, first: usize, path: &str, found: &mut BTreeMap<String, Option<Vec<u8>>>) {
        let mut long: Vec<u16> = Vec::new();
        for entry in self
            .chain(first)
            .chunks(32)
            .take_while(|entry| entry[0] != 0)
        {
            if entry[11] == 0x0f {
                let places = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
                let units = places.map(|at| u16_at(entry, at) as u16);
                let units = units.into_iter().take_while(|&unit| unit != 0);
                drop(long.splice(0..0, units.collect::<Vec<_>>()));
                continue;
            }
            let cluster = u16_at(entry, 20) << 16 | u16_at(entry, 26);
            let short = String::from_utf8(entry[..11].to_vec()).unwrap();
            let name = match long.is_empty() {
                false => String::from_utf16(&std::mem::take(&mut long)).unwrap(),
                true => match short[8..].trim_end() {
                    "" => short[..8].trim_end().to_owned(),
                    extension => format!("{}.{extension}", short[..8].trim_end()),
                },
            };
            match entry[11] {
                0x08 => assert_eq!((path, &short[..]), ("", "NBDKITFLOPY")),
                _ if name == "." => assert_eq!(cluster, first),
                _ if name == ".." => {}
                0x10 => {
                    let path = format!("{path}/{name}");
                    self.walk(cluster, &path, found);
                    assert!(found.insert(path, None).is_none());
                }
                0x20 => {
                    let size = u32_at(entry, 28);
                    assert_eq!(size == 0, cluster == 0);
                    let mut bytes = self.chain(cluster);
                    assert_eq!(bytes.len(), size.next_multiple_of(self.cluster));
                    assert!(bytes.drain(size..).all(|byte| byte == 0));
                    assert!(
                        found
                            .insert(format!("{path}/{name}"), Some(bytes))
                            .is_none()
                    );
                }
                other => panic!("attributes {other:#x} of {name}"),
            }
        }
    }
}

fn content(seed: usize, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (i.wrapping_mul(seed + 7) >> 3) as u8 ^ seed as u8)
        .collect()
}

/// A directory with all kinds of names and sizes, and what is in it.
fn sample() -> (tempfile::TempDir, BTreeMap<String, Option<Vec<u8>>>) {
    let dir = tempfile::tempdir().unwrap();
    let mut all = BTreeMap::new();
    for path in ["/sub", "/sub/deeper and longer", "/EMPTY.DIR"] {
        fs::create_dir(dir.path().join(&path[1..])).unwrap();
        all.insert(path.to_owned(), None);
    }
    let mut files: Vec<(String, usize)> = [
        ("/README.TXT", 100),
        ("/readme.text", 0),
        (
            "/A file with a long name, longer than two entries.html",
            16_384,
        ),
        ("/exactly13.cha", 16_385),
        ("/.hidden", 40_000),
        ("/\u{e4}\u{f6}\u{fc} \u{1f600}", 3),
        ("/sub/x", 1),
        ("/sub/deeper and longer/big", 1_000_000),
    ]
    .map(|(path, size)| (path.to_owned(), size))
    .into();
    // More than a cluster of entries, and more files than a reactor keeps open.
    files.extend((0..300).map(|i| (format!("/sub/some file with a name {i}"), i)));
    for (i, (path, size)) in files.into_iter().enumerate() {
        fs::write(dir.path().join(&path[1..]), content(i, size)).unwrap();
        all.insert(path, Some(content(i, size)));
    }
    std::os::unix::fs::symlink("README.TXT", dir.path().join("link")).unwrap();
    (dir, all)
}

fn made(dir: &Path, words: &[&str]) -> Result<Arc<dyn Source>> {
    let place = dir.display().to_string();
    let words = [&[place.as_str()], words].concat();
    let source = make(
        &words
            .iter()
            .map(|word| Arg::parse(word))
            .collect::<Vec<_>>(),
    )?;
    source.ready().map(|()| source)
}

fn served(dir: &Path, words: &[&str]) -> Vec<u8> {
    let bench = Bench::open(made(dir, words).unwrap());
    bench.read_all()
}

#[test]
fn every_file_is_found_again() {
    let (dir, wanted) = sample();
    for words in [&[][..], &["size=40M"]] {
        let disk = served(dir.path(), words);
        if !words.is_empty() {
            assert_eq!(disk.len(), 40 << 20);
        }
        let mut found = BTreeMap::new();
        Fat::of(&disk).walk(2, "", &mut found);
        let names = |map: &BTreeMap<String, _>| map.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&found), names(&wanted));
        assert!(found == wanted);
    }
}

#[test]
fn the_usual_programs_find_no_fault() {
    let (dir, wanted) = sample();
    let out = tempfile::tempdir().unwrap();
    let volume = out.path().join("volume");
    for words in [&[][..], &["size=2G"]] {
        let bench = Bench::open(made(dir.path(), words).unwrap());
        let size = bench.limits().size;
        let file = fs::File::create(&volume).unwrap();
        // What is not there is zero anyway.
        let least = size.min(8 << 20) as usize;
        fs::write(&volume, bench.read(1 << 20, least - (1 << 20)).unwrap()).unwrap();
        file.set_len(size - (1 << 20)).unwrap();
        match Command::new("/usr/sbin/fsck.fat")
            .arg("-nv")
            .arg(&volume)
            .output()
        {
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                assert!(output.status.success(), "{text}");
            }
            Err(error) => eprintln!("SKIP: no fsck.fat: {error}"),
        }
    }
    let target = out.path().join("copied");
    fs::create_dir(&target).unwrap();
    let mut copy = Command::new("mcopy");
    copy.args(["-s", "-n", "-Q", "-i"])
        .arg(&volume)
        .arg("::/")
        .arg(&target);
    copy.env("MTOOLS_SKIP_CHECK", "1").env("LC_ALL", "C.UTF-8");
    let output = match copy.output() {
        Ok(output) => output,
        Err(error) => return eprintln!("SKIP: no mtools: {error}"),
    };
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for (path, bytes) in &wanted {
        // Its locale decides what mtools makes of other letters.
        if let Some(bytes) = bytes
            && path.is_ascii()
        {
            assert!(
                fs::read(target.join(&path[1..])).unwrap() == *bytes,
                "{path}"
            );
        }
    }
}

#[test]
fn clients_read_only_and_holes_are_seen() {
    let dir = tempfile::tempdir().unwrap();
    let sparse = fs::File::create(dir.path().join("SPARSE")).unwrap();
    sparse.set_len(8 << 20).unwrap();
    let bench = Bench::open_as(made(dir.path(), &["size=64M"]).unwrap(), Access::ReadWrite);
    let limits = bench.limits();
    assert!(limits.read_only() && limits.multi_conn && !limits.support(Op::Cache).is_offered());
    assert_eq!(bench.write(1 << 20, &[1]).unwrap_err(), Errno::ENOTSUP);
    let list = bench.extents(0, 64 << 20).unwrap();
    assert_eq!(list.covered(), 64 << 20);
    let holes = list
        .allocation()
        .iter()
        .filter(|e| ExtentFlags(e.flags).is_hole());
    assert!(holes.map(|e| e.len).sum::<u64>() > 60 << 20);
}

#[test]
fn a_file_that_changed_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["A", "B", "C"] {
        fs::write(dir.path().join(name), [7; 100]).unwrap();
    }
    let bench = Bench::open(made(dir.path(), &[]).unwrap());
    fs::write(dir.path().join("A"), [7; 99]).unwrap();
    fs::remove_file(dir.path().join("B")).unwrap();
    let end = bench.limits().size;
    let place = |file: u64| end - (3 - file) * 16_384;
    for (file, why) in [
        (0, "has changed since the start"),
        (1, "No such file or directory"),
    ] {
        let error = bench.read(place(file), 100).unwrap_err();
        assert_eq!(error, Errno::EIO);
        assert!(error.detail().unwrap().why.contains(why), "{error}");
    }
    assert_eq!(bench.read(place(2), 100).unwrap(), [7; 100]);
}

#[test]
fn the_time_of_a_file_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = fs::File::create(dir.path().join("A")).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000))
        .unwrap();
    let disk = served(dir.path(), &[]);
    let fat = Fat::of(&disk);
    let root = fat.chain(2);
    // 2023-11-14 22:13:20 in UTC.
    let (date, time) = (43 << 9 | 11 << 5 | 14, 22 << 11 | 13 << 5 | 10);
    assert_eq!(
        (u16_at(&root, 32 + 24), u16_at(&root, 32 + 22)),
        (date, time)
    );
}

#[test]
fn what_fat_cannot_hold_is_an_error_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let fails = |words: &[&str], wanted: &str| {
        let error = made(dir.path(), words).err().expect(wanted);
        assert!(error.chain().contains(wanted), "{}", error.chain());
        error.kind()
    };
    fs::write(dir.path().join("Makefile"), []).unwrap();
    assert_eq!(
        fails(&["size=1M"], "which is more than size= allows"),
        ErrorKind::Config
    );
    fails(&["size=3T"], "larger than FAT32 and MBR can be");
    made(dir.path(), &["size=1T"]).unwrap();
    fails(
        &["label=too long a label"],
        "floppy: label=too long a label: a label has 1 to 11",
    );
    fails(&["label=a/b"], "floppy: label=a/b: ");
    fs::write(dir.path().join("makefile"), []).unwrap();
    fails(&[], "differ in case only");
    fs::remove_file(dir.path().join("makefile")).unwrap();
    let big = fs::File::create(dir.path().join("big")).unwrap();
    big.set_len(1 << 32).unwrap();
    fails(&[], "is too large for FAT (4 GiB)");
    big.set_len((1 << 32) - 1).unwrap();
    made(dir.path(), &[]).unwrap();
    let gone = made(&dir.path().join("none"), &[]).err().unwrap();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    let file = made(&dir.path().join("Makefile"), &[]).err().unwrap();
    assert!(file.chain().ends_with("is not a directory"));
    assert!(
        make(&[])
            .err()
            .unwrap()
            .chain()
            .starts_with("floppy: dir=<DIR> is required")
    );
}
