mod differential;
mod mistakes;
mod model;

use super::*;
use crate::testing::Bench;
use block::{Extent, ExtentList};
use eval::Buffer;

/// The bytes of a program, evaluated in memory.
fn bytes_of(program: &str, variables: &[(&str, &str)], outside: &dyn Outside) -> Vec<u8> {
    let program = parsed(program, variables);
    let size = eval::measure(&program.root, outside).map_err(|fault| fault.why);
    let size = size.expect("it can be measured");
    let mut buffer = Buffer::new(size);
    let written = eval::write(&program.root, size, &mut buffer, STEPS);
    written
        .map_err(|fault| fault.why)
        .expect("it can be written");
    buffer.0
}

fn parsed(program: &str, variables: &[(&str, &str)]) -> Program {
    let value = |name: &str| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.to_string())
    };
    match Program::parse(program, &value, LONGEST) {
        Ok(parsed) => parsed,
        Err(error) => panic!("{program}: {}", error.chain()),
    }
}

fn config(words: &[&str]) -> DataConfig {
    let words: Vec<Arg> = words.iter().map(|word| Arg::parse(word)).collect();
    DataConfig::from_args(&words).expect("the words are good")
}

fn open(words: &[&str]) -> Bench {
    let source = new(config(words)).expect("the program is good");
    source.ready().expect("everything is there");
    Bench::open(source)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Programs and their bytes, by hand. What nbdkit 1.32 knows too is also compared with it.
const TABLE: &[(&str, &str)] = &[
    ("", ""),
    ("1 2 3", "010203"),
    ("0x10 010 10 255", "10080aff"),
    ("1(2)3\"a\"4", "0102036104"),
    ("1 # 2\n3#4", "0103"),
    ("@5", "0000000000"),
    ("@5 1 @2", "000000000001"),
    ("1 @+5", "010000000000"),
    ("1 @-1", "01"),
    ("1 2 3 @-2 9", "010903"),
    ("1 @^4 2", "0100000002"),
    ("@^4 1", "01"),
    ("1 2 3 @0 0", "000203"),
    ("1 2 3 @0 (@2 5)", "000005"),
    ("(@2 1 @-2 5)*2", "000501000501"),
    ("(1 @^4)*2 2", "010000000100000002"),
    ("0 0 0 @1 7", "000700"),
    (
        "le16:1 be16:0x102 le32:1 be32:1",
        "010001020100000000000001",
    ),
    (
        "le64:0x0102030405060708 be64:0xffffffffffffffff",
        "0807060504030201ffffffffffffffff",
    ),
    ("le16:0x12 le16:010", "12000800"),
    (r#""abc""#, "616263"),
    (
        r#""\a\b\f\n\r\t\v\\\"\x41\q\?""#,
        "07080c0a0d090b5c2241713f",
    ),
    ("\"\u{e9}\"", "c3a9"),
    ("1*3", "010101"),
    ("1 * 3 * 2", "010101010101"),
    ("1 2*2", "010202"),
    ("(1 2)*2", "01020102"),
    ("1*0 2", "02"),
    ("()*5", ""),
    ("(1 2)*2[1:3]", "0201"),
    ("(1 2 3)[1:]", "0203"),
    ("(1 2 3)[:1]", "01"),
    ("(1 2 3) [:]", "010203"),
    ("(1 2)[1:1]", ""),
    ("(@5 1)[2:6]", "00000001"),
    ("(1*100 2*100)[99:101]", "0102"),
    ("(1 2 3)*1000[1:5]", "02030102"),
    ("(1 2 3)*1000[2999:]", "03"),
    (r"1 -> \x \x \x", "0101"),
    (r"1->\x 2->\x \x", "02"),
    (r"1 -> \x ( \x 2 -> \x \x ) \x", "010201"),
    (r"1 -> \x (\x) -> \y 2 -> \x \y", "01"),
    (r"(1 2) -> \a-b_c \a-b_c*2", "01020102"),
    (r"(1->\x)*3 2", "02"),
    ("<(echo hi)", "68690a"),
    ("<(printf '(%s)' a)*2", "286129286129"),
    ("<(printf abcdef)[2:4]", "6364"),
    ("<(while :; do printf x; done)[:5]", "7878787878"),
    ("</dev/zero[:3] 1", "00000001"),
    ("</dev/zero[2:5]*2 1", "00000000000001"),
    ("(1 </dev/null 2)[1:2]", "02"),
];

#[test]
fn the_bytes_are_those_computed_by_hand() {
    for (program, wanted) in TABLE {
        assert_eq!(hex(&bytes_of(program, &[], &Machine)), *wanted, "{program}");
    }
}

#[test]
fn what_newer_versions_know() {
    let table = [
        ("@1K 1", 1025, 1),
        ("1*1k", 1024, 1),
        ("1 @^4K 2", 4097, 2),
        ("(1*2K)[:1k]", 1024, 1),
        ("@+1_s 7", 513, 7),
    ];
    for (program, len, last) in table {
        let bytes = bytes_of(program, &[], &Machine);
        assert_eq!((bytes.len(), bytes.last()), (len, Some(&last)), "{program}");
    }
    let encoded = "base64:aGVsbG8= 1 base64:*0 base64:AQ==*2";
    assert_eq!(hex(&bytes_of(encoded, &[], &Machine)), "68656c6c6f010101");
}

#[test]
fn variables_are_groups_of_their_own() {
    let variables = [
        ("v", "1 2"),
        ("x", r"\x 2 -> \x"),
        ("e", ""),
        ("n", "$v $v"),
    ];
    let table = [
        ("$v*2", "01020102"),
        ("$v[1:]", "02"),
        (r"9 -> \x $x \x", "0909"),
        ("$e $n 3", "0102010203"),
        ("5 @+1 ($v)", "05000102"),
    ];
    for (program, wanted) in table {
        let bytes = bytes_of(program, &variables, &Machine);
        assert_eq!(hex(&bytes), wanted, "{program}");
    }
    let bench = open(&["$given 3", "given=1 2", "size=2"]);
    assert_eq!(bench.read(0, 2).unwrap(), [1, 2]);
    // Cargo sets it for every test.
    let path = std::env::var("CARGO_PKG_VERSION_MAJOR").expect("cargo runs this");
    let bench = open(&["$CARGO_PKG_VERSION_MAJOR"]);
    assert_eq!(bench.read(0, 1).unwrap(), [path.parse::<u8>().unwrap()]);
}

#[test]
fn the_three_forms_and_the_size() {
    for words in [
        ["\"123\"", "size=5"],
        ["base64=MTIz", "size=5"],
        ["raw=123", "size=5"],
    ] {
        let bench = open(&words);
        assert_eq!(bench.read(0, 5).unwrap(), *b"123\0\0");
        assert_eq!(bench.limits().size, 5);
        bench.write(2, b"xyz").unwrap();
        assert_eq!(bench.read(0, 5).unwrap(), *b"12xyz");
    }
    assert_eq!(open(&["raw=12345", "size=2"]).read(0, 2).unwrap(), *b"12");
    assert_eq!(open(&["raw="]).limits().size, 0);
    assert_eq!(open(&["1*1M", "size=0"]).limits().size, 0);
}

#[test]
fn every_allocator_holds_the_data() {
    for allocator in ["sparse", "malloc", "zstd"] {
        let allocator = format!("allocator={allocator}");
        let bench = open(&["(1 2 3)*50000 @+100000 0xff*200000", &allocator]);
        let read = bench.read(0, 450_000).unwrap();
        let wanted = |i: usize| match i {
            0..150_000 => (i % 3 + 1) as u8,
            150_000..250_000 => 0,
            _ => 0xff,
        };
        assert!(
            read.iter().enumerate().all(|(i, byte)| *byte == wanted(i)),
            "{allocator}"
        );
    }
}

/// The extents of the whole disk.
fn extents(bench: &Bench, size: u64) -> ExtentList {
    let mut all = ExtentList::new();
    while all.covered() < size {
        all.append(&bench.extents(all.covered(), size - all.covered()).unwrap());
    }
    all
}

#[test]
fn huge_disks_cost_what_their_bytes_cost() {
    let top = 0x7fff_ffff_ffff_fff0_u64;
    let bench = open(&["\"x\" @0x7ffffffffffffff0 \"end\""]);
    assert_eq!(bench.limits().size, top + 3);
    assert_eq!(bench.read(top, 3).unwrap(), *b"end");
    let list = extents(&bench, top + 3);
    let data: u64 = list
        .allocation()
        .iter()
        .filter(|e| e.flags == 0)
        .map(|e| e.len)
        .sum();
    assert!(data <= 2 * (64 << 10), "{list:?}");

    for (program, size) in [
        (r#""\x00"*1T"#, 1 << 40),
        ("0*7E", 7 << 60),
        ("(0 @+1M)*1M", (1 << 40) + (1 << 20)),
        ("(0*1000 (0 0)*1000)*1G", 3000 << 30),
        ("((@1E)*4 @+2)[5:]", (4 << 60) - 3),
    ] {
        let bench = open(&[program]);
        let hole = Extent {
            len: size,
            flags: 3,
        };
        assert_eq!(extents(&bench, size).allocation(), [hole], "{program}");
    }
    for (program, size, first) in [
        ("(1*7E)[1E:2E][:3]", 3, 1),
        ("((1 2)*1E)[999999999:][:1]", 1, 2),
        ("((1 @^1M) * 1T)[512P:][:4]", 4, 1),
        ("(5 0*1T 6)[0x10000000001:]", 1, 6),
    ] {
        let bytes = bytes_of(program, &[], &Machine);
        assert_eq!((bytes.len(), bytes[0]), (size, first), "{program}");
    }
    let bench = open(&["((1 @^1G) * 1000)"]);
    assert_eq!(bench.read(999 << 30, 2).unwrap(), [1, 0]);
}

#[test]
fn names_that_double_stay_small_where_they_are_not_asked_for() {
    let mut program = String::from(r"(1 2 3 @+5)->\a");
    for _ in 0..50 {
        program.push_str(r" (\a\a)->\a");
    }
    program.push_str(r" \a[100:104]");
    assert_eq!(bytes_of(&program, &[], &Machine), [0, 0, 0, 0]);
}

#[test]
fn a_disk_that_does_not_fit_in_memory_is_one_clear_error() {
    let program = parsed("(1 @^65536)*4G", &[]);
    let size = eval::measure(&program.root, &Machine).unwrap();
    let disk = memory::disk("data", size, Allocator::Sparse, true).unwrap();
    let mut filler = Filler::new(&*disk.store, size, 1 << 20);
    let fault = eval::write(&program.root, size, &mut filler, STEPS).unwrap_err();
    let error = located(fault, &program.texts).chain();
    let wanted = "data: line 1, column 12: the data cannot be kept in memory: Cannot allocate";
    assert!(error.starts_with(wanted), "{error}");
}

#[test]
fn files_are_read_when_the_server_gets_ready() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    let program = format!("1 <{} 2 <{0}[1:100]*2", file.display());
    let source = new(config(&[&program])).unwrap();
    assert!(source.ready().is_err(), "it is not there yet");
    // With a hole that is larger than a piece.
    let mut content = b"abc".to_vec();
    content.resize(200_000, 0);
    content.extend(b"xyz");
    std::fs::write(&file, &content).unwrap();
    source.ready().unwrap();
    std::fs::remove_file(&file).unwrap();
    let wanted = [&[1], &content[..], &[2], &content[1..100], &content[1..100]].concat();
    let bench = Bench::open(source);
    assert_eq!(bench.limits().size, wanted.len() as u64);
    assert!(bench.read(0, wanted.len()).unwrap() == wanted);
}

#[test]
fn what_is_read_once_is_the_same_everywhere() {
    let bytes = bytes_of(
        r"</dev/urandom[:512]*16 </dev/urandom[:8] -> \r \r \r",
        &[],
        &Machine,
    );
    let (sectors, tail) = bytes.split_at(512 * 16);
    assert!(sectors.chunks(512).all(|sector| *sector == sectors[..512]));
    assert_eq!(tail[..8], tail[8..]);
    assert_ne!(sectors[..8], tail[..8], "another expression reads again");
}

#[test]
fn the_tree_is_printed_as_nbdkit_prints_it() {
    let shown = |program: &str| ast(&config(&[program])).unwrap().join("\n");
    let program = r#"1 2 "abc"*3 (1*100)*1000 ( 0x55 0xAA )*2048 @^512"#;
    let wanted =
        "(\n    \"\\x01\\x02abcabcabc\"\n    fill(1*100000)\n    \"U\\xaa\" *2048\n    @^512\n)";
    assert_eq!(shown(program), wanted);
    let program = r"<f[1:2] <(a\nb)*2 (1 @-1 <g)->\x (\x @+3 \x)[2:]";
    let wanted = "(\n    <f[1:2]\n    <(a\\\\nb) *2\n    (\n        (\n            \"\\x01\"\n            @-1\n            \
                  <g\n        ) -> \\x\n        \\x\n        @+3\n        \\x\n    )[2:]\n)";
    assert_eq!(shown(program), wanted);
    assert_eq!(
        shown("1 (((2))) 0 0*3 (3 (4) ())"),
        "(\n    \"\\x01\\x02\\x00\\x00\\x00\\x00\\x03\\x04\"\n)"
    );
    assert_eq!(shown("0*1G (0 0)*1G @+5"), "(\n    fill(0*3221225477)\n)");
    assert_eq!(
        shown("((1 2)*1000)[3:5] (5*100)[7:] (<f[2:9])[1:3]"),
        "(\n    \"\\x02\\x01\"\n    fill(5*93)\n    <f[3:5]\n)"
    );
}

#[test]
fn random_bytes_keep_the_promises() {
    let mut state = 1u64;
    let alphabet: &[&str] = &[
        "1",
        "0",
        " ",
        "(",
        ")",
        "*",
        "3",
        "@",
        "+",
        "-",
        "^4",
        "[1:",
        "]",
        "\\a",
        "->",
        "$a",
        "$b",
        "\"x\"",
        "le16:",
        "<f",
        "<(",
        "#",
        "\n",
        "99999999999",
        "K",
        "base64:",
        "=",
        "\u{e9}",
        "\\",
        "E",
    ];
    for _ in 0..3000 {
        let mut program = String::new();
        for _ in 0..20 {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            program.push_str(alphabet[(state >> 33) as usize % alphabet.len()]);
        }
        fuzzing::fuzz(program.as_bytes());
    }
}
