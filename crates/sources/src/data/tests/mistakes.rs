//! Programs with mistakes, and what is said about them.

use super::*;

fn refused(program: &str) -> String {
    let variables = [("bad", "1\n  ("), ("self", "1 $self"), ("ok", "1")];
    let value = |name: &str| {
        let found = variables.iter().find(|(known, _)| *known == name)?;
        Some(found.1.to_owned())
    };
    let outcome = Program::parse(program, &value, LONGEST).and_then(|program| {
        let measured = eval::measure(&program.root, &Machine);
        measured.map_err(|fault| located(fault, &program.texts))
    });
    match outcome {
        Ok(size) => panic!("{program}: not refused but {size} bytes"),
        Err(error) => error.chain(),
    }
}

#[test]
fn each_mistake_has_its_place_and_its_words() {
    let table = [
        ("256", "1, column 1: byte: 256: out of range (0 to 255)"),
        (
            "1\n 0x100",
            "2, column 2: byte: 0x100: out of range (0 to 255)",
        ),
        ("08", "1, column 1: byte: 08: '8' after the number"),
        ("1x", "1, column 1: byte: 1x: 'x' after the number"),
        ("1,2", "1, column 2: unexpected ','"),
        ("1 -1", "1, column 3: unexpected '-'"),
        ("foo", "1, column 1: unknown word 'foo'"),
        ("le8:1", "1, column 1: unknown word 'le8'"),
        ("le16 1", "1, column 1: 'le16' must be followed by ':'"),
        ("le16:", "1, column 6: le16: a number must follow"),
        ("le16:-1", "1, column 6: le16: a number must follow"),
        (
            "le16:65536",
            "1, column 6: le16: 65536: out of range (0 to 65535)",
        ),
        (
            "base64:a",
            "1, column 8: not valid base64: its length is not a multiple of 4",
        ),
        (
            "@-1",
            "1, column 1: @-1 must not be larger than the current offset 0",
        ),
        (
            "1 (2 @-2)",
            "1, column 6: @-2 must not be larger than the current offset 1",
        ),
        ("1 @^3", "1, column 5: @^3 must be a power of 2"),
        ("@^0", "1, column 3: @^0 must be a power of 2"),
        ("@", "1, column 2: @OFFSET: a number must follow"),
        ("@1Q", "1, column 2: @OFFSET: 1Q: unknown suffix 'Q'"),
        (
            "@8E",
            "1, column 2: @OFFSET: 8E: the size is larger than 2^63-1 bytes",
        ),
        (
            "@7E @+7E",
            "1, column 5: the data is larger than 2^63-1 bytes",
        ),
        (
            "1*7E*7E",
            "1, column 5: the data is larger than 2^63-1 bytes",
        ),
        (
            "(1 2)*7E",
            "1, column 6: the data is larger than 2^63-1 bytes",
        ),
        ("*3", "1, column 1: *N must follow an expression"),
        ("[1:2]", "1, column 1: [N:M] must follow an expression"),
        (r"-> \x", "1, column 1: -> must follow an expression"),
        (r"1 -> \x *3", "1, column 9: *N must follow an expression"),
        ("@5*3", "1, column 3: *N cannot be applied to an offset"),
        (
            r"@5 -> \x",
            "1, column 4: -> cannot be applied to an offset",
        ),
        ("1*", "1, column 3: *N: a number must follow"),
        ("1*x", "1, column 3: *N: a number must follow"),
        ("1[0]", "1, column 2: a slice has the form [N:M]"),
        ("1[0:1", "1, column 2: a slice has the form [N:M]"),
        (
            "(1 2)[2:1]",
            "1, column 6: [2:1] does not describe a valid slice of 2 bytes",
        ),
        (
            "(1 2)[1:3]",
            "1, column 6: [1:3] does not describe a valid slice of 2 bytes",
        ),
        (
            "(1 2)[3:]",
            "1, column 6: [3:] does not describe a valid slice of 2 bytes",
        ),
        (
            "<(printf abc)[2:8]",
            "1, column 14: [2:8] does not describe a valid slice of 3 bytes",
        ),
        (
            "(1 </dev/null)[2:]",
            "1, column 15: [2:] does not describe a valid slice of 1 bytes",
        ),
        (
            "</dev/zero[:5][2:9]",
            "1, column 15: [2:9] does not describe a valid slice of 5 bytes",
        ),
        (r"\x", r"1, column 1: \x is not defined"),
        (r"(1 -> \x) \x", r"1, column 11: \x is not defined"),
        (r"1 \", r"1, column 3: '\' without a name"),
        ("1 -> x", r"1, column 6: '->' must be followed by a \NAME"),
        ("1 $", "1, column 3: '$' without the name of a variable"),
        ("${v}", "1, column 1: '$' without the name of a variable"),
        ("$1", "1, column 1: '$' without the name of a variable"),
        ("$zzz", "1, column 1: $zzz: variable not found"),
        ("(1 2", "1, column 1: this '(' is never closed"),
        ("1 2)", "1, column 4: unmatched ')'"),
        ("\"abc", "1, column 1: this string is never closed"),
        ("\"\\", "1, column 1: this string is never closed"),
        (
            r#""a\1""#,
            "1, column 3: numeric and unicode escapes are not known; write \\xNN",
        ),
        (
            r#""a\x4""#,
            "1, column 3: \\x must be followed by exactly two hexadecimal digits",
        ),
        ("< f", "1, column 1: '<' without the name of a file"),
        ("<(foo", "1, column 1: this '<(' is never closed"),
        ("\u{e9}", "1, column 1: unexpected '\u{e9}'"),
        ("\"\u{e9}\" ]", "1, column 5: unexpected ']'"),
        (
            "<(exit 3)",
            "1, column 1: <(script): the script failed: exit status: 3",
        ),
        (
            "</nonexistent/file",
            "1, column 1: </nonexistent/file: No such file or directory",
        ),
        ("</", "1, column 1: </: Is a directory"),
    ];
    for (program, wanted) in table {
        let error = refused(program);
        let wanted = format!("data: line {wanted}");
        assert!(error.starts_with(&wanted), "{program}:\n{error}\n{wanted}");
    }
}

#[test]
fn a_mistake_in_a_variable_is_shown_there() {
    let error = refused("1 $bad");
    assert_eq!(
        error,
        "data: $bad, line 2, column 3: this '(' is never closed"
    );
    let error = refused("$self");
    assert!(
        error.contains("nested more than 200 levels deep"),
        "{error}"
    );
}

#[test]
fn depth_and_length_have_bounds() {
    let deep = |open: &str, close: &str, n: usize| open.repeat(n) + "1" + &close.repeat(n);
    // Nested, but one thing: it is flattened while it is parsed.
    assert_eq!(bytes_of(&deep("(", ")", 190), &[], &Machine), [1]);
    for program in [
        deep("(", ")", 10_000),
        deep("(@1", ")*2", 10_000),
        format!("(1 </dev/null 2){}", "[0:2]*2".repeat(10_000)),
        format!(r"(1 @1)->\a {}", r"(\a 1)->\a ".repeat(10_000)),
    ] {
        let error = refused(&program);
        assert!(error.contains("nested more than 200"), "{error}");
    }
    let error = Program::parse("1 $v", &|_| Some("$v".into()), 100).err();
    let error = error.expect("it never ends").chain();
    assert_eq!(
        error,
        "data: $v, line 1, column 1: the data, with its variables, is too long"
    );
    let error = Program::parse(&"1 ".repeat(100), &|_| None, 100).err();
    let error = error.expect("it is too long").chain();
    assert_eq!(
        error,
        "data: line 1, column 1: the data, with its variables, is too long"
    );
}

#[test]
fn the_words_must_go_together() {
    let refused = |words: &[&str]| {
        let words: Vec<Arg> = words.iter().map(|word| Arg::parse(word)).collect();
        let source = make(&words).err();
        source.expect("must be refused").chain()
    };
    let table: [(&[&str], &str); 7] = [
        (&[], "data: one of data, base64 and raw is required"),
        (
            &["1", "raw=x"],
            "data: only one of data, base64 and raw can be given",
        ),
        (
            &["1", "x-y=1"],
            "data: 'x-y' is neither a parameter nor a variable",
        ),
        (&["1", "x=1", "x=2"], "data: x is given more than once"),
        (
            &["base64=a"],
            "data: base64=: not valid base64: its length is not a multiple of 4",
        ),
        (
            &["1", "allocator=swap"],
            "data: allocator=swap: must be one of sparse, malloc, zstd",
        ),
        (
            &["(", "size=1"],
            "data: line 1, column 1: this '(' is never closed",
        ),
    ];
    for (words, wanted) in table {
        assert_eq!(refused(words), wanted);
    }
}
