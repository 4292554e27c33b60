//! What is made is read by parsers of the tests' own, by the programs people use, and compared with
//! what nbdkit makes.

use std::{collections::HashSet, fs, path::Path, process::Command};

use ::config::Config;
use block::{Errno, Flags, Op, Support};
use proptest::prelude::*;
use reactor::DriverKind;
use testkit::MemoryDisk;

use super::*;
use crate::testing::{Bench, start};

const SECTOR: usize = 512;

/// A partition as a reader of the disk sees it.
#[derive(Debug, PartialEq)]
struct Seen {
    start: u64,
    sectors: u64,
    system: u8,
    kind: [u8; 16],
}

fn u32_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// The partitions of a boot record and of the chain that begins in it.
fn read_mbr(disk: &[u8]) -> Vec<Seen> {
    let mut found = Vec::new();
    // Where the record is, and where the extended partition begins.
    let mut next = Some((0, None));
    while let Some((record, base)) = next.take() {
        let sector = &disk[record as usize * SECTOR..][..SECTOR];
        assert_eq!(sector[510..], [0x55, 0xaa], "record at {record}");
        for entry in sector[446..510].chunks(16) {
            let (start, sectors) = (u32_at(entry, 8), u32_at(entry, 12));
            match entry[4] {
                0 if sectors == 0 => {}
                0x05 | 0x0f => {
                    let at = base.unwrap_or(0) + start;
                    assert!(at > record && at + sectors <= (disk.len() / SECTOR) as u64);
                    next = Some((at, base.or(Some(at))));
                }
                system => found.push(Seen {
                    start: record + start,
                    sectors,
                    system,
                    kind: [0; 16],
                }),
            }
        }
    }
    found
}

/// CRC-32 as the UEFI specification has it, one bit after the other.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

/// The partitions of a GPT, of which both copies are good and alike.
fn read_gpt(disk: &[u8]) -> Vec<Seen> {
    let last = (disk.len() / SECTOR - 1) as u64;
    let protective = read_mbr(disk);
    assert_eq!(
        (protective.len(), protective[0].system, protective[0].start),
        (1, 0xee, 1)
    );
    assert_eq!(protective[0].sectors, last);
    let copy = |at: u64, other: u64| {
        let mut header = disk[at as usize * SECTOR..][..92].to_vec();
        assert_eq!(&header[..8], b"EFI PART");
        let stored = u32_at(&header, 16) as u32;
        header[16..20].fill(0);
        assert_eq!(crc(&header), stored, "header at {at}");
        assert_eq!((u64_at(&header, 24), u64_at(&header, 32)), (at, other));
        let (count, size) = (u32_at(&header, 80) as usize, u32_at(&header, 84) as usize);
        assert!(count >= 128 && size == 128);
        let array = &disk[u64_at(&header, 72) as usize * SECTOR..][..count * size];
        assert_eq!(
            u64::from(crc(array)),
            u32_at(&header, 88),
            "entries of {at}"
        );
        (u64_at(&header, 40), u64_at(&header, 48), array)
    };
    let (first, end, array) = copy(1, last);
    assert_eq!(copy(last, 1), (first, end, array));
    let mut ids = HashSet::new();
    let mut found = Vec::new();
    for entry in array.chunks(128).filter(|entry| entry[..16] != [0; 16]) {
        assert!(
            ids.insert(entry[16..32].to_vec()),
            "every partition has a GUID of its own"
        );
        let (start, stop) = (u64_at(entry, 32), u64_at(entry, 40));
        assert!(first <= start && start <= stop && stop <= end);
        found.push(Seen {
            start,
            sectors: stop - start + 1,
            system: 0,
            kind: entry[..16].try_into().unwrap(),
        });
    }
    found
}

/// A disk of files in memory: the config's paths are only names.
fn disk_of(config: &PartitioningConfig, lengths: &[u64]) -> Bench {
    let layout = plan::layout(config, lengths).unwrap();
    let children = lengths.iter().enumerate().map(|(i, &length)| {
        let disk = MemoryDisk::new(length);
        disk.fill(0, &content(i, length));
        disk as Arc<dyn Device>
    });
    let device = regions::glue(&"partitioning".into(), layout, children.collect()).unwrap();
    Bench::of(start(DriverKind::Poll).unwrap(), device).unwrap()
}

fn content(file: usize, length: u64) -> Vec<u8> {
    (0..length)
        .map(|i| (i % 251) as u8 ^ (file as u8 + 1))
        .collect()
}

fn config_of(words: &[&str]) -> PartitioningConfig {
    let args: Vec<Arg> = words.iter().map(|word| Arg::parse(word)).collect();
    PartitioningConfig::from_args(&args).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_file_is_where_the_table_says(
        files in proptest::collection::vec((1..6000u64, 9..13u32, 1..=255u8), 1..9),
        kind in 0..3usize,
    ) {
        let kind = [None, Some(PartitionType::Mbr), Some(PartitionType::Gpt)][kind];
        let config = PartitioningConfig {
            files: files
                .iter()
                .enumerate()
                .map(|(i, &(_, alignment, id))| PartitionFile {
                    alignment: Alignment(1 << alignment),
                    // Those of extended partitions are refused by no one, and mean something else.
                    mbr_id: MbrId(if [0x05, 0x0f, 0xee].contains(&id) { 0x83 } else { id }),
                    type_guid: TypeGuid(Guid([id; 16])),
                    ..PartitionFile::new(format!("/dir/file{i}"))
                })
                .collect(),
            partition_type: kind,
        };
        let lengths: Vec<_> = files.iter().map(|file| file.0).collect();
        let bench = disk_of(&config, &lengths);
        let size = bench.limits().size;
        prop_assert_eq!(size % SECTOR as u64, 0);
        let disk = bench.read(0, size as usize).unwrap();
        let gpt = kind == Some(PartitionType::Gpt) || kind.is_none() && lengths.len() > 4;
        let seen = if gpt { read_gpt(&disk) } else { read_mbr(&disk) };
        prop_assert_eq!(seen.len(), lengths.len());
        let mut before = 0;
        for (i, seen) in seen.iter().enumerate() {
            let (length, file) = (lengths[i] as usize, &config.files[i]);
            prop_assert!(seen.start > before, "partitions overlap");
            before = seen.start + seen.sectors - 1;
            prop_assert_eq!(seen.start * 512 % file.alignment.0, 0);
            prop_assert_eq!(seen.sectors, lengths[i].div_ceil(512));
            let bytes = &disk[seen.start as usize * SECTOR..][..seen.sectors as usize * SECTOR];
            prop_assert!(bytes[..length] == content(i, lengths[i])[..]);
            prop_assert!(bytes[length..].iter().all(|&byte| byte == 0));
            match gpt {
                true => prop_assert_eq!(seen.kind, file.type_guid.0.0),
                false => prop_assert_eq!(seen.system, file.mbr_id.0),
            }
        }
    }
}

#[test]
fn parameters_apply_to_the_files_that_follow() {
    let swap = "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F";
    let guid = format!("type-guid={swap}");
    let words = [
        "a",
        "mbr-id=0x82",
        "file=b",
        "alignment=4k",
        &guid,
        "c",
        "mbr-id=default",
        "type_guid=default",
        "d",
        "partition-type=gpt",
    ];
    let config = config_of(&words);
    assert_eq!(config.partition_type, Some(PartitionType::Gpt));
    let each = |f: fn(&PartitionFile) -> String| config.files.iter().map(f).collect::<Vec<_>>();
    assert_eq!(each(|f| f.path.display().to_string()), ["a", "b", "c", "d"]);
    assert_eq!(
        each(|f| format!("{:#x}", f.mbr_id.0)),
        ["0x83", "0x82", "0x82", "0x83"]
    );
    assert_eq!(
        each(|f| f.alignment.0.to_string()),
        ["1048576", "1048576", "4096", "4096"]
    );
    let linux = each(|f| (f.type_guid.0 == Guid::LINUX).to_string());
    assert_eq!(linux, ["true", "true", "false", "true"]);
}

#[test]
fn bad_parameters_are_refused() {
    for (words, wanted) in [
        (&[][..], "partitioning: file=<FILE> is required"),
        (
            &["a", "alignment=100"],
            "partitioning: alignment=100: an alignment is a power of two",
        ),
        (
            &["a", "alignment=1536"],
            "partitioning: alignment=1536: an alignment is a power of two",
        ),
        (
            &["a", "alignment=2M"],
            "partitioning: alignment=2M: an alignment is a power of two",
        ),
        (
            &["a", "mbr-id=0x100"],
            "partitioning: mbr-id=0x100: out of range",
        ),
        (&["a", "mbr-id=xyz"], "partitioning: mbr-id=xyz: "),
        (
            &["a", "type-guid=foo"],
            "partitioning: type-guid=foo: a GUID is written like",
        ),
        (
            &["a", "partition-type=bsd"],
            "partitioning: partition-type=bsd: must be one of mbr, gpt",
        ),
        (&["a", "foo=1"], "partitioning: unknown parameter 'foo'"),
        (&["alignment=4k"], "partitioning: file=<FILE> is required"),
    ] {
        let args: Vec<Arg> = words.iter().map(|word| Arg::parse(word)).collect();
        let error = make(&args).err().expect("refused");
        assert!(error.chain().starts_with(wanted), "{}", error.chain());
    }
}

#[test]
fn what_has_no_place_is_an_error_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let (empty, big) = (dir.path().join("empty"), dir.path().join("big"));
    fs::write(&empty, []).unwrap();
    fs::File::create(&big).unwrap().set_len(3 << 40).unwrap();
    let failed = |path: &Path, more: &str| {
        let file = format!("file={}", path.display());
        let args = [Arg::parse(&file), Arg::parse(more)];
        new(PartitioningConfig::from_args(&args).unwrap())
            .unwrap()
            .ready()
    };
    let error = failed(&empty, "alignment=1M").unwrap_err();
    assert!(
        error
            .chain()
            .ends_with("zero-length partitions are not allowed"),
        "{}",
        error.chain()
    );
    let error = failed(&big, "partition-type=mbr").unwrap_err();
    assert_eq!(error.hint_text(), Some("use partition-type=gpt"));
    assert_eq!(error.kind(), ErrorKind::Config);
    failed(&big, "alignment=1M").unwrap();
    let error = failed(&dir.path().join("none"), "alignment=1M").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    // Sums that do not fit into 64 bits.
    let config = config_of(&["a", "b", "c"]);
    assert!(plan::layout(&config, &[1 << 62, 1 << 62, 1 << 62]).is_err());
    assert!(plan::layout(&config, &[i64::MAX as u64, 1, 1]).is_err());
}

#[test]
fn the_table_and_the_padding_cannot_be_changed() {
    let bench = disk_of(&config_of(&["a", "b"]), &[1000, 512]);
    assert_eq!(bench.limits().fua, Support::Native);
    let table = bench.read(0, 512).unwrap();
    bench.write(0, &table).unwrap();
    assert_eq!(bench.write(0, &[1; 512]).unwrap_err(), Errno::EIO);
    bench.plain(Op::WriteZeroes, 512, 512).unwrap();
    assert_eq!(
        bench.plain(Op::WriteZeroes, 0, 512).unwrap_err(),
        Errno::EIO
    );
    assert_eq!(bench.write(1 << 20, &[1; 1024]).unwrap_err(), Errno::EIO);
    bench
        .write_flagged(1 << 20, &[1; 1000], Flags::FUA)
        .unwrap();
    bench.write((1 << 20) + 1000, &[0; 24]).unwrap();
    assert_eq!(bench.write((1 << 20) + 1000, &[1]).unwrap_err(), Errno::EIO);
    assert_eq!(bench.read(1 << 20, 1000).unwrap(), [1; 1000]);
}

/// Files of these lengths in a directory, with their names.
fn files(dir: &Path, lengths: &[u64]) -> Vec<String> {
    let name = |i: usize| dir.join(format!("p{i}")).display().to_string();
    for (i, &length) in lengths.iter().enumerate() {
        fs::write(name(i), content(i, length)).unwrap();
    }
    (0..lengths.len()).map(name).collect()
}

fn served(words: &[&str]) -> Vec<u8> {
    let source = new(config_of(words)).unwrap();
    source.ready().unwrap();
    let bench = Bench::open(source);
    bench.read_all()
}

/// The program's output; `None`, with a note, if it is not there.
fn run(program: &str, args: &[&str]) -> Option<String> {
    match Command::new(program).args(args).output() {
        Ok(output) => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let (out, err) = (text(&output.stdout), text(&output.stderr));
            assert!(output.status.success(), "{program} {args:?}: {out}{err}");
            Some(out + &err)
        }
        Err(error) => {
            eprintln!("SKIP: no {program}: {error}");
            None
        }
    }
}

#[test]
fn an_mbr_is_the_one_nbdkit_makes() {
    if run("nbdkit", &["partitioning", "--version"]).is_none()
        || run("nbdcopy", &["--version"]).is_none()
    {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let names = files(dir.path(), &[100_007, 512, 300_000, 1, 70_001, 4096, 513]);
    let image = dir.path().join("image").display().to_string();
    for (count, first, middle) in [
        (1, "alignment=1M", "mbr-id=default"),
        (2, "mbr-id=0x82", "mbr-id=default"),
        (4, "alignment=512", "alignment=8192"),
        (5, "alignment=1M", "mbr-id=0x0c"),
        (7, "alignment=512", "alignment=4096"),
        (7, "alignment=2048", "mbr-id=7"),
    ] {
        let mut words = vec![first];
        for (i, name) in names[..count].iter().enumerate() {
            if i == 2 {
                words.push(middle);
            }
            words.push(name);
        }
        words.push("partition-type=mbr");
        let copy = format!("nbdcopy \"$uri\" {image}");
        let args = [
            &["-U", "-", "partitioning"][..],
            &words[..],
            &["--run", &copy],
        ]
        .concat();
        run("nbdkit", &args).unwrap();
        assert!(served(&words) == fs::read(&image).unwrap(), "{words:?}");
        fs::remove_file(&image).unwrap();
    }
}

#[test]
fn the_usual_programs_understand_the_tables() {
    let dir = tempfile::tempdir().unwrap();
    let lengths: Vec<u64> = (0..131).map(|i| 512 * (i % 3 + 1)).collect();
    let names = files(dir.path(), &lengths);
    let image = dir.path().join("image").display().to_string();
    for (count, kind) in [
        (1, "mbr"),
        (4, "mbr"),
        (6, "mbr"),
        (1, "gpt"),
        (6, "gpt"),
        (131, "gpt"),
    ] {
        let kind_word = format!("partition-type={kind}");
        let mut words = vec!["alignment=4096", kind_word.as_str()];
        words.extend(names[..count].iter().map(String::as_str));
        fs::write(&image, served(&words)).unwrap();
        if let Some(dump) = run("sfdisk", &["--dump", &image]) {
            let label = if kind == "gpt" {
                "label: gpt"
            } else {
                "label: dos"
            };
            assert!(dump.contains(label), "{dump}");
            let partitions = dump.lines().filter(|line| line.contains("start="));
            let extended = usize::from(kind == "mbr" && count > 4);
            assert_eq!(partitions.count(), count + extended, "{dump}");
        }
        if kind == "gpt"
            && let Some(verdict) = run("sgdisk", &["--verify", &image])
        {
            assert!(verdict.contains("No problems found"), "{verdict}");
        }
    }
}

#[test]
fn guids_stay_the_same() {
    let (one, two) = (config_of(&["/a/x", "/a/x"]), config_of(&["/b/x", "/a/x"]));
    let gpt = |config: &PartitioningConfig| {
        let config = PartitioningConfig {
            partition_type: Some(PartitionType::Gpt),
            ..config.clone()
        };
        disk_of(&config, &[1, 1]).read(0, 17 * 1024).unwrap()
    };
    assert_eq!(gpt(&one), gpt(&one));
    assert_ne!(gpt(&one)[1024 + 16..][..16], gpt(&two)[1024 + 16..][..16]);
    assert_eq!(
        gpt(&one)[1024 + 128 + 16..][..16],
        gpt(&two)[1024 + 128 + 16..][..16]
    );
}
