//! Header, library and table agree, with each other and with libnbd.

use std::{collections::BTreeSet, fmt::Write, fs, path::Path};

use blkit_capi::signatures;

use crate::lab::{Place, have, have_cc, ours, stdout_of, system};

/// Names with versions, as `nm` writes them: `nbd_pread@@LIBNBD_1.0`.
type Symbols = BTreeSet<String>;

/// What a library exports.
fn exported(library: &Path) -> Symbols {
    let place = Place::new();
    let text = stdout_of(
        place
            .command("nm")
            .args(["-D", "--defined-only"])
            .arg(library),
    );
    let names = text.lines().filter_map(|line| line.split(' ').nth(2));
    names.map(str::to_owned).collect()
}

/// What the table of the repository says.
fn table() -> Symbols {
    let script = include_str!("../../libnbd.map");
    let mut version = "";
    let mut symbols = Symbols::new();
    for line in script.lines().map(str::trim) {
        if let Some(node) = line.strip_suffix(" {") {
            version = node;
            symbols.insert(version.to_owned());
        } else if let Some(name) = line.strip_suffix(';')
            && name.starts_with("nbd_")
        {
            symbols.insert(format!("{name}@@{version}"));
        }
    }
    symbols
}

/// The node's number: 18 of `LIBNBD_1.18`.
fn minor(symbol: &str) -> u32 {
    let number = symbol.rsplit("LIBNBD_1.").next().expect("a version");
    number.parse().expect("a number")
}

#[test]
fn only_the_table_is_exported() {
    if !have(&["cc", "nm"]) {
        return;
    }
    let table = table();
    let functions = table.iter().filter(|name| name.starts_with("nbd_"));
    assert_eq!(functions.count(), 165);
    assert_eq!(exported(&ours().lib.join("libnbd.so.0")), table);
}

#[test]
fn the_table_is_libnbds() {
    if !have(&["nm"]) {
        return;
    }
    let Some(system) = system() else {
        println!("SKIP: libnbd's development files are not installed");
        return;
    };
    let theirs = exported(&system.lib.join("libnbd.so"));
    let youngest = theirs
        .iter()
        .map(|name| minor(name))
        .max()
        .expect("symbols");
    let known: Symbols = table()
        .into_iter()
        .filter(|name| minor(name) <= youngest)
        .collect();
    if youngest <= 24 {
        assert_eq!(theirs, known);
    } else {
        assert!(known.is_subset(&theirs), "{known:?} {theirs:?}");
    }
}

#[test]
fn the_table_has_what_is_written() {
    let written: BTreeSet<&str> = signatures().map(|signature| signature.name).collect();
    let table = table();
    let names: BTreeSet<&str> = table
        .iter()
        .filter_map(|name| Some(name.split_once("@@")?.0))
        .collect();
    assert_eq!(written, names);
    assert_eq!(signatures().count(), names.len());
}

/// A program that takes the address of every function with the type that the library gives it.
fn takes_addresses() -> String {
    let mut text = String::from(
        "#include <stdbool.h>\n#include <stdint.h>\n#include <sys/socket.h>\n\
         #include <sys/types.h>\n#include <libnbd.h>\n\
         int main (void)\n{\n  const void *all = 0;\n",
    );
    for signature in signatures() {
        let takes = match signature.takes {
            [] => "void".to_owned(),
            some => some.join(", "),
        };
        let (name, returns) = (signature.name, signature.returns);
        write!(
            text,
            "#ifdef LIBNBD_HAVE_{}\n  {{ {returns} (*f) ({takes}) = {name}; \
             all = (const void *) f > all ? (const void *) f : all; }}\n#else\n\
             #ifndef OLDER\n#error {name}\n#endif\n#endif\n",
            name.to_uppercase()
        )
        .expect("writes");
    }
    text + "  return all == 0;\n}\n"
}

#[test]
fn the_header_has_the_librarys_types() {
    if !have_cc() {
        return;
    }
    let place = Place::new();
    let source = place.path("addresses.c");
    fs::write(&source, takes_addresses()).expect("writes");
    let program = place.compile_file(&source, ours(), "addresses");
    stdout_of(&mut place.command(program));
}

#[test]
fn libnbds_header_has_the_librarys_types() {
    if !have_cc() {
        return;
    }
    let Some(system) = system() else {
        println!("SKIP: libnbd's development files are not installed");
        return;
    };
    let place = Place::new();
    let source = place.path("addresses.c");
    let text = format!("#define OLDER\n{}", takes_addresses());
    fs::write(&source, text).expect("writes");
    let program = place.compile_file(&source, system, "addresses");
    stdout_of(&mut place.command(program));
}

/// The value of each macro of a header, after the preprocessor.
fn constants(place: &Place, include: &Path) -> BTreeSet<(String, String)> {
    let mut command = place.command("cc");
    command.args(["-E", "-dM", "-I"]).arg(include);
    let text = stdout_of(command.arg(include.join("libnbd.h")));
    text.lines()
        .filter_map(|line| line.strip_prefix("#define LIBNBD_")?.split_once(' '))
        .filter(|(name, _)| !name.starts_with("HAVE_") && !name.contains("ATTRIBUTE"))
        .filter(|(name, _)| *name != "GCC_VERSION" && *name != "H")
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

#[test]
fn the_constants_are_libnbds() {
    if !have_cc() {
        return;
    }
    let Some(system) = system() else {
        println!("SKIP: libnbd's development files are not installed");
        return;
    };
    let place = Place::new();
    let (theirs, mine) = (
        constants(&place, &system.include),
        constants(&place, &ours().include),
    );
    let names: BTreeSet<&String> = mine.iter().map(|(name, _)| name).collect();
    // A newer libnbd may have more bits in a mask, and an older one fewer.
    let differ: Vec<_> = theirs
        .difference(&mine)
        .filter(|(name, _)| !name.ends_with("_MASK") || !names.contains(name))
        .collect();
    assert!(theirs.len() > 20, "{theirs:?}");
    assert!(differ.is_empty(), "{differ:?}");
}

#[test]
fn c_plus_plus_takes_the_header() {
    if !have(&["c++"]) {
        return;
    }
    let place = Place::new();
    let source = place.path("plus.cc");
    let text = "#include <libnbd.h>\nint main () { return nbd_get_errno (); }\n";
    fs::write(&source, text).expect("writes");
    let mut command = place.command("c++");
    command.args(["-Wall", "-Wextra", "-Werror", "-o"]);
    command
        .arg(place.path("plus"))
        .arg("-I")
        .arg(&ours().include);
    command.arg(&source).arg("-L").arg(&ours().lib).arg("-lnbd");
    command.arg(format!("-Wl,-rpath,{}", ours().lib.display()));
    stdout_of(&mut command);
    stdout_of(&mut place.command(place.path("plus")));
}

#[test]
fn pkg_config_finds_it() {
    if !have(&["pkg-config"]) {
        return;
    }
    let place = Place::new();
    let ask = |words: &[&str]| {
        let mut command = place.command("pkg-config");
        command.env("PKG_CONFIG_PATH", ours().lib.join("pkgconfig"));
        stdout_of(command.args(words).arg("libnbd"))
    };
    let version = ask(&["--modversion"]);
    assert!(version.starts_with("1.24."), "{version}");
    let include = format!("-I{}", ours().include.display());
    assert_eq!(ask(&["--cflags"]).trim(), include);
    assert!(ask(&["--libs"]).contains("-lnbd"));
}

#[test]
fn it_can_be_installed() {
    if !have(&["cc", "pkg-config"]) {
        return;
    }
    if std::env::var_os("BLKIT_CAPI").is_some() {
        println!("SKIP: BLKIT_CAPI says that nothing is built here");
        return;
    }
    let place = Place::new();
    let root = place.path("root");
    let mut install = place.command(env!("CARGO"));
    install.args(["run", "-q", "-p", "xtask", "--", "capi", "libnbd"]);
    install.args(["--install", "/opt/blkit", "--libdir", "/opt/blkit/lib64"]);
    install
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("DESTDIR", &root);
    stdout_of(&mut install);
    let mut flags = place.command("pkg-config");
    flags.env("PKG_CONFIG_PATH", root.join("opt/blkit/lib64/pkgconfig"));
    flags.env("PKG_CONFIG_SYSROOT_DIR", &root);
    let flags = stdout_of(flags.args(["--cflags", "--libs", "libnbd"]));
    let source = place.path("p.c");
    let text = "#include <libnbd.h>\nint main (void) { nbd_close (nbd_create ()); return 0; }\n";
    fs::write(&source, text).expect("writes");
    let mut compile = place.command("cc");
    compile
        .arg("-o")
        .arg(place.path("p"))
        .arg(&source)
        .args(flags.split_whitespace());
    stdout_of(&mut compile);
    let mut run = place.command(place.path("p"));
    stdout_of(run.env("LD_LIBRARY_PATH", root.join("opt/blkit/lib64")));
}
