//! The derive macros, seen from a crate that uses them as every crate of the workspace does.

extern crate blkit_config as config;

use config::{
    Arg, Choice, ChoiceInfo, Config, ConfigError, ErrorKind, Kind, Nearest, Probability, Schema,
    Size, Value,
};
use std::path::PathBuf;
use std::time::Duration;

/// Serve a local file or block device.
///
/// With `dir`, each file of a directory is an export.
#[derive(Config, Debug, Clone, PartialEq)]
#[config(check = Self::file_or_dir)]
struct FileConfig {
    /// The file to serve.
    #[config(magic)]
    file: Option<PathBuf>,
    /// Bypass the page cache (O_DIRECT).
    #[config(default = "false")]
    direct: bool,
    /// Serve each file of this directory as an export.
    #[config(value = "DIR")]
    dir: Option<PathBuf>,
    /// Delay before each read.
    #[config(name = "rdelay", alias = "delay-read", alias = "wait", default = "0")]
    read_delay: Duration,
    /// How writes reach the disk.
    #[config(default = "write-back")]
    cache_mode: CacheMode,
}

impl FileConfig {
    fn file_or_dir(&self) -> Result<(), String> {
        match (&self.file, &self.dir) {
            (Some(_), Some(_)) => Err("file and dir cannot both be given".into()),
            _ => Ok(()),
        }
    }
}

/// When a write is done.
#[derive(Choice, Debug, Clone, Copy, PartialEq)]
enum CacheMode {
    /// When it is in the cache.
    WriteBack,
    /// When it is on the disk.
    #[config(alias = "sync")]
    WriteThrough,
    /// Whenever.
    #[config(name = "none")]
    Unsafe,
}

/// Every type.
#[derive(Config, Debug, PartialEq)]
#[config(name = "all.types")]
struct Everything {
    /// Text.
    text: String,
    /// A file.
    r#type: PathBuf,
    /// Bool.
    flag: bool,
    /// Numbers.
    a: u8,
    /// Numbers.
    b: u16,
    /// Numbers.
    c: u32,
    /// Numbers.
    d: u64,
    /// Numbers.
    e: i64,
    /// Numbers.
    f: usize,
    /// Numbers.
    g: f64,
    /// Size.
    size: Size,
    /// Delay.
    delay: Duration,
    /// Probability.
    rate: Probability,
    /// Choice.
    mode: CacheMode,
    /// None or one.
    maybe: Option<Size>,
    /// Many.
    many: Vec<Size>,
    /// Many, at least one.
    #[config(required)]
    some: Vec<String>,
    /// Many, with a default.
    #[config(default = "7")]
    seven: Vec<u8>,
    /// Anything else.
    #[config(rest)]
    vars: Vec<(String, String)>,
}

/// A node without parameters.
#[derive(Config, Debug, PartialEq)]
struct NullConfig;

fn args(words: &[&str]) -> Vec<Arg> {
    words.iter().map(|word| Arg::parse(word)).collect()
}

fn file(words: &[&str]) -> Result<FileConfig, ConfigError> {
    FileConfig::from_args(&args(words))
}

fn message(result: Result<impl std::fmt::Debug, ConfigError>) -> String {
    result.expect_err("must be refused").to_string()
}

#[test]
fn the_schema_says_everything() {
    let schema: &Schema = FileConfig::schema();
    assert_eq!(schema.name, "file");
    assert_eq!(schema.summary(), "Serve a local file or block device.");
    let names: Vec<_> = schema.params.iter().map(|param| param.name).collect();
    assert_eq!(names, ["file", "direct", "dir", "rdelay", "cache-mode"]);
    let of = |key: &str| schema.find(key).expect(key);
    assert!(of("file").magic && !of("file").required && !of("file").repeated);
    assert_eq!(
        (of("file").type_name, of("file").kind),
        ("FILE", Kind::Path)
    );
    assert_eq!(of("dir").type_name, "DIR");
    assert_eq!(of("delay_read").name, "rdelay");
    assert_eq!(of("wait").default, Some("0"));
    assert_eq!(of("cache_mode").type_name, "CACHE-MODE");
    let sync = ChoiceInfo {
        name: "write-through",
        aliases: &["sync"],
        doc: "When it is on the disk.",
    };
    assert_eq!(of("cache-mode").choices[1], sync);
    assert_eq!(schema.problems(), [""; 0]);
    let every = Everything::schema();
    assert_eq!(
        (every.name, every.rest),
        ("all.types", Some("Anything else."))
    );
    assert!(every.find("type").is_some_and(|param| param.required));
    assert!(
        every
            .find("some")
            .is_some_and(|param| param.required && param.repeated)
    );
    assert!(
        every
            .find("many")
            .is_some_and(|param| !param.required && param.repeated)
    );
    assert_eq!(every.problems(), [""; 0]);
}

#[test]
fn defaults_and_values() {
    let none = FileConfig {
        file: None,
        direct: false,
        dir: None,
        read_delay: Duration::ZERO,
        cache_mode: CacheMode::WriteBack,
    };
    assert_eq!(file(&[]), Ok(none.clone()));
    let given = FileConfig {
        file: Some("disk.img".into()),
        direct: true,
        dir: None,
        read_delay: Duration::from_millis(3),
        cache_mode: CacheMode::WriteThrough,
    };
    assert_eq!(
        file(&["disk.img", "direct=on", "delay_read=3ms", "cache_mode=sync"]),
        Ok(given)
    );
    let pairs = [("direct", "1"), ("cache-mode", "none")];
    let expected = FileConfig {
        direct: true,
        cache_mode: CacheMode::Unsafe,
        ..none
    };
    assert_eq!(FileConfig::from_pairs(pairs), Ok(expected));
    assert_eq!(NullConfig::from_args(&[]), Ok(NullConfig));
}

#[test]
fn every_type_is_read() {
    let words = [
        "text=a=b",
        "type=/t",
        "flag=y",
        "a=255",
        "b=0x10",
        "c=010",
        "d=18446744073709551615",
        "e=-5",
        "f=6",
        "g=1e-3",
        "size=1_M",
        "delay=2us",
        "rate=1/4",
        "mode=write_back",
        "maybe=1k",
        "many=1",
        "some=x",
        "many=2s",
        "some=y",
        "Other.key=1",
        "other=2",
    ];
    let expected = Everything {
        text: "a=b".into(),
        r#type: "/t".into(),
        flag: true,
        a: 255,
        b: 16,
        c: 8,
        d: u64::MAX,
        e: -5,
        f: 6,
        g: 0.001,
        size: Size(1 << 20),
        delay: Duration::from_micros(2),
        rate: Probability(0.25),
        mode: CacheMode::WriteBack,
        maybe: Some(Size(1024)),
        many: vec![Size(1), Size(1024)],
        some: vec!["x".into(), "y".into()],
        seven: vec![7],
        vars: vec![
            ("Other.key".into(), "1".into()),
            ("other".into(), "2".into()),
        ],
    };
    assert_eq!(Everything::from_args(&args(&words)), Ok(expected));
}

#[test]
fn bare_values_go_to_the_magic_parameter_and_the_last_wins() {
    let name = |words: &[&str]| file(words).unwrap().file.unwrap();
    assert_eq!(name(&["a"]), PathBuf::from("a"));
    assert_eq!(name(&["a", "b"]), PathBuf::from("b"));
    assert_eq!(name(&["file=a", "b"]), PathBuf::from("b"));
    assert_eq!(name(&["b", "file=a"]), PathBuf::from("a"));
    assert_eq!(name(&["./k=v"]), PathBuf::from("./k=v"));
    let error = NullConfig::from_args(&args(&["a"])).unwrap_err();
    assert_eq!(*error.kind, ErrorKind::NoMagic { value: "a".into() });
}

#[test]
fn errors_name_the_node_the_key_and_the_cure() {
    assert_eq!(
        message(file(&["direct=maybe"])),
        "file: direct=maybe: neither true nor false"
    );
    let hint = file(&["direct=maybe"]).unwrap_err().hint().unwrap();
    assert!(hint.contains("true") && hint.contains("off"), "{hint}");
    // A value that a later one replaces is still checked.
    assert_eq!(message(file(&["", "b"])), "file: file=: an empty file name");
    assert_eq!(
        message(file(&["direct=1", "direct=0"])),
        "file: direct is given more than once"
    );
    let twice = message(file(&["rdelay=1", "wait=2"]));
    assert_eq!(twice, "file: rdelay is given more than once");
    assert_eq!(
        message(file(&["a", "dir=b"])),
        "file: file and dir cannot both be given"
    );
    assert_eq!(
        message(file(&["cache-mode=fast"])),
        "file: cache-mode=fast: must be one of write-back, write-through, none"
    );
    let unknown = file(&["rdely=1"]).unwrap_err();
    let nearest = Some(Nearest {
        key: "rdelay",
        node: "file",
    });
    let kind = ErrorKind::Unknown {
        key: "rdely".into(),
        nearest,
        of: vec!["file"],
    };
    assert_eq!(*unknown.kind, kind);
    assert_eq!(unknown.hint().unwrap(), "did you mean 'rdelay'?");
}

#[test]
fn required_parameters_are_asked_for() {
    let missing = Everything::from_args(&[]).unwrap_err();
    assert_eq!(
        missing.to_string(),
        "all.types: text=<TEXT> is required: Text."
    );
    assert_eq!(missing.hint().unwrap(), "add text=<TEXT>");

    /// At least one.
    #[derive(Config, Debug)]
    struct ListConfig {
        /// A word.
        #[config(magic, required)]
        word: Vec<String>,
    }
    assert_eq!(
        message(ListConfig::from_args(&[])),
        "list: word=<TEXT> is required: A word."
    );
    assert_eq!(
        ListConfig::from_args(&args(&["a", "word=b", "c"]))
            .unwrap()
            .word,
        ["a", "b", "c"]
    );
}

#[test]
fn a_schema_that_lacks_documentation_is_found() {
    #[derive(Config, Debug)]
    #[allow(dead_code)]
    struct BadConfig {
        silent: bool,
        /// Said.
        #[config(default = "x")]
        wrong: u8,
        /// Said.
        mode: Quiet,
    }
    #[derive(Choice, Debug, Clone, Copy)]
    enum Quiet {
        On,
    }
    let schema = BadConfig::schema();
    assert_eq!(
        schema.undocumented(),
        ["bad", "bad: silent", "bad: mode=on"]
    );
    assert_eq!(schema.problems().len(), 4);
    assert_eq!(schema.problems()[3], "bad: default of wrong: not a number");
}

#[test]
fn choices_print_and_list() {
    assert_eq!(CacheMode::WriteThrough.to_string(), "write-through");
    assert_eq!(format!("{:>6}", CacheMode::Unsafe), "  none");
    assert_eq!(CacheMode::VARIANTS.len(), 3);
    for &(info, variant) in CacheMode::VARIANTS {
        assert_eq!(CacheMode::parse(info.name), Ok(variant));
        assert_eq!(variant.name(), info.name);
    }
}

#[test]
fn help_comes_from_the_declaration() {
    let expected = "\
file: Serve a local file or block device.

  With `dir`, each file of a directory is an export.

  file=FILE              The file to serve.
                         ['file=' may be left out]
  direct=BOOL            Bypass the page cache (O_DIRECT).
                         [default: false]
  dir=DIR                Serve each file of this directory as an export.
  rdelay=DELAY           Delay before each read.
                         [default: 0; also: delay-read, wait]
  cache-mode=CACHE-MODE  How writes reach the disk.
                         write-back: When it is in the cache.
                         write-through: When it is on the disk.
                         none: Whenever.
                         [default: write-back]
";
    assert_eq!(FileConfig::schema().help(), expected);
    assert_eq!(
        NullConfig::schema().help(),
        "null: A node without parameters.\n"
    );
}
