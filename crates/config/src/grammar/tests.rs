//! Tables of what each grammar takes and refuses.

use super::*;
use proptest::prelude::*;

#[test]
fn sizes() {
    let good: &[(&str, u64)] = &[
        ("0", 0),
        ("1", 1),
        ("010", 8),
        ("0x10", 16),
        ("0X10", 16),
        ("0x1b", 27),
        ("0x1E", 30),
        ("0x1_E", 1 << 60),
        ("0x1_b", 1),
        ("010k", 8192),
        ("1b", 1),
        ("1B", 1),
        ("1s", 512),
        ("1S", 512),
        ("1k", 1024),
        ("1K", 1024),
        ("1M", 1 << 20),
        ("1m", 1 << 20),
        ("1G", 1 << 30),
        ("1T", 1 << 40),
        ("1P", 1 << 50),
        ("1E", 1 << 60),
        ("1e", 1 << 60),
        ("1_M", 1 << 20),
        ("7E", 7 << 60),
        ("0k", 0),
        ("-0", 0),
        ("+1", 1),
        (" 1", 1),
        ("\t1", 1),
        ("9223372036854775807", SIZE_MAX),
        ("18014398509481983s", 9_223_372_036_854_775_296),
        ("0x7fffffffffffffff", SIZE_MAX),
    ];
    for &(text, bytes) in good {
        assert_eq!(size(text), Ok(bytes), "{text:?}");
    }
    let bad = [
        "",
        " ",
        "k",
        "_1",
        "1_",
        "1__M",
        "1 ",
        "1 M",
        "08",
        "0x",
        "0xg",
        "0b1",
        "1.5k",
        "1.0",
        "1MB",
        "1KiB",
        "1kk",
        "-1",
        "-1k",
        "8E",
        "9223372036854775808",
        "18446744073709551616",
        "18014398509481984s",
        "99999999999999999999999",
        "0x8000000000000000",
        "--1",
        "+-1",
        "1\u{3bc}",
        "\u{661}",
        "- 1",
        "1_-",
        "max",
        "1\0",
    ];
    for text in bad {
        assert!(size(text).is_err(), "{text:?} gave {:?}", size(text));
    }
}

#[test]
fn integers() {
    let u32_max = i128::from(u32::MAX);
    let good = [
        ("10", 10),
        ("0x10", 16),
        ("010", 8),
        ("+1", 1),
        (" 1", 1),
        ("0X1f", 31),
        ("4294967295", 4_294_967_295),
    ];
    for (text, number) in good {
        assert_eq!(integer(text, 0, u32_max), Ok(number), "{text:?}");
    }
    let bad = [
        "",
        "08",
        "-1",
        "-0",
        "1 ",
        "4294967296",
        "99999999999999999999999",
        "0x",
        "0b1",
        "1k",
        "1_000",
        "1.0",
        "--1",
        "- 1",
        "one",
    ];
    for text in bad {
        assert!(integer(text, 0, u32_max).is_err(), "{text:?}");
    }
    let (min, max) = (i128::from(i64::MIN), i128::from(i64::MAX));
    assert_eq!(integer("-9223372036854775808", min, max), Ok(min));
    assert_eq!(integer("-0x8000000000000000", min, max), Ok(min));
    assert!(integer("-9223372036854775809", min, max).is_err());
    assert!(integer("9223372036854775808", min, max).is_err());
    assert_eq!(
        integer("18446744073709551615", 0, u64::MAX.into()),
        Ok(u64::MAX.into())
    );
    assert!(integer("18446744073709551616", 0, u64::MAX.into()).is_err());
}

#[test]
fn booleans() {
    for text in ["1", "true", "t", "yes", "y", "on", "TRUE", "Yes", "oN"] {
        assert_eq!(boolean(text), Ok(true), "{text:?}");
    }
    for text in ["0", "false", "f", "no", "n", "off", "FALSE", "No", "oFf"] {
        assert_eq!(boolean(text), Ok(false), "{text:?}");
    }
    for text in ["", " 1", "2", "tr", "01", "true ", "enable"] {
        assert!(boolean(text).is_err(), "{text:?}");
    }
}

#[test]
fn delays() {
    let good = [
        ("0", 0),
        ("1", 1_000_000_000),
        ("1s", 1_000_000_000),
        ("1ms", 1_000_000),
        ("1us", 1_000),
        ("1\u{3bc}s", 1_000),
        ("1\u{b5}s", 1_000),
        ("1ns", 1),
        ("1.5s", 1_500_000_000),
        (".5", 500_000_000),
        ("5.", 5_000_000_000),
        ("1e3ms", 1_000_000_000),
        ("1e-3", 1_000_000),
        ("1E+1ms", 10_000_000),
        ("+1", 1_000_000_000),
        (" 1", 1_000_000_000),
        ("-0", 0),
        ("0.1", 100_000_000),
        ("100ms", 100_000_000),
        ("1e-400", 0),
        ("4294967295", 4_294_967_295_000_000_000),
    ];
    for (text, nanoseconds) in good {
        assert_eq!(
            delay(text),
            Ok(Duration::from_nanos(nanoseconds)),
            "{text:?}"
        );
    }
    let bad = [
        "",
        "s",
        "ms",
        ".",
        ".s",
        "e3",
        "1e",
        "1es",
        "-1",
        "-1ms",
        "0x10",
        "inf",
        "nan",
        "1 ms",
        "1S",
        "1MS",
        "1m",
        "1h",
        "4294967296",
        "1e400",
        "1e10",
        "1.2.3",
        "1s ",
        "1,5",
    ];
    for text in bad {
        assert!(delay(text).is_err(), "{text:?} gave {:?}", delay(text));
    }
}

#[test]
fn probabilities() {
    let good = [
        ("0", 0.0),
        ("1", 1.0),
        ("0.1", 0.1),
        ("1e-1", 0.1),
        ("10%", 0.1),
        ("1:10", 0.1),
        ("1/10", 0.1),
        ("2", 2.0),
        ("250%", 2.5),
        ("3/2", 1.5),
        ("+1", 1.0),
        (" 1", 1.0),
        ("-0.0", 0.0),
        ("1e-400", 0.0),
        ("0/7", 0.0),
        ("0.5:2", 0.25),
    ];
    for (text, number) in good {
        assert_eq!(probability(text), Ok(number), "{text:?}");
        assert!(
            probability(text).is_ok_and(f64::is_sign_positive),
            "{text:?}"
        );
    }
    let bad = [
        "",
        "%",
        ":",
        "1:",
        "/2",
        "1:0",
        "0/0",
        "-1",
        "-5%",
        "1:-2",
        "inf",
        "nan",
        "1e400",
        "1 %",
        "1%%",
        "1:2:3",
        "1/2%",
        "0x1p-1",
        "1e308/1e-308",
        "ten",
    ];
    for text in bad {
        assert!(
            probability(text).is_err(),
            "{text:?} gave {:?}",
            probability(text)
        );
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in ".{0,40}") {
        let _ = (size(&text), integer(&text, -7, 7), boolean(&text));
        let _ = (delay(&text), probability(&text), number(&text));
    }

    #[test]
    fn near_misses_do_not_panic(text in "[ +-]{0,2}[0-9.xXe_]{0,12}[bskMGTPEm%:/usn]{0,3}") {
        let _ = (size(&text), integer(&text, -7, 7), delay(&text), probability(&text));
    }

    #[test]
    fn decimal_sizes_come_back(bytes in 1..=SIZE_MAX) {
        prop_assert_eq!(size(&bytes.to_string()), Ok(bytes));
        prop_assert_eq!(size(&format!("{bytes:#x}")), Ok(bytes));
    }
}
