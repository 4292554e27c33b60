//! Header, library and list of symbols agree, with each other and with libblkio.

use std::{collections::BTreeSet, fs, path::Path};

use crate::lab::{Library, Place, have, ours, stdout_of, system};

type Symbols = BTreeSet<String>;

/// What a library exports, with versions if there are any.
fn exported(library: &Path) -> Symbols {
    let place = Place::new();
    let mut nm = place.command("nm");
    let text = stdout_of(nm.args(["-D", "--defined-only"]).arg(library));
    let names = text.lines().filter_map(|line| line.split(' ').nth(2));
    names.map(str::to_owned).collect()
}

/// What the list of the repository says.
fn list() -> Symbols {
    let script = include_str!("../../libblkio.map");
    let names = script.lines().filter_map(|line| {
        let name = line.trim().strip_suffix(';')?;
        name.starts_with("blkio").then(|| name.to_owned())
    });
    names.collect()
}

#[test]
fn only_the_list_is_exported() {
    if !have(&["cc", "nm"]) {
        return;
    }
    let list = list();
    assert_eq!(list.len(), 45);
    assert_eq!(exported(&ours().lib.join("libblkio.so.1")), list);
}

#[test]
fn the_list_is_libblkios() {
    if !have(&["nm"]) {
        return;
    }
    let Some(system) = system() else {
        println!("SKIP: libblkio 1.5 is not installed");
        return;
    };
    assert_eq!(exported(&system.lib.join("libblkio.so.1")), list());
}

/// A program that takes each function with its type, and looks at sizes and places of fields.
const TYPES: &str = include_str!("types.c");

fn compiles_with(library: &Library) {
    let place = Place::new();
    let source = place.path("types.c");
    fs::write(&source, TYPES).expect("writes");
    let program = place.compile_file(&source, library);
    stdout_of(&mut place.command(program));
}

#[test]
fn the_header_has_libblkios_types() {
    if !have(&["cc"]) {
        return;
    }
    compiles_with(ours());
    match system() {
        Some(system) => compiles_with(system),
        None => println!("SKIP: libblkio 1.5 is not installed"),
    }
    let listed = list();
    let taken = listed.iter().filter(|name| !name.ends_with('_'));
    for name in taken {
        assert!(TYPES.contains(&format!("= {name};")), "{name}");
    }
}

#[test]
fn c_plus_plus_takes_the_header() {
    if !have(&["c++"]) {
        return;
    }
    let place = Place::new();
    let source = place.path("plus.cc");
    let text = "#include <blkio.h>\nint main () { return blkio_get_error_msg ()[0]; }\n";
    fs::write(&source, text).expect("writes");
    let mut command = place.command("c++");
    command.args(["-Wall", "-Wextra", "-Werror", "-o"]);
    command
        .arg(place.path("plus"))
        .arg("-I")
        .arg(&ours().include);
    command
        .arg(&source)
        .arg("-L")
        .arg(&ours().lib)
        .arg("-lblkio");
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
        stdout_of(command.args(words).arg("blkio"))
    };
    assert_eq!(ask(&["--modversion"]).trim(), "1.5.0");
    let include = format!("-I{}", ours().include.display());
    assert_eq!(ask(&["--cflags"]).trim(), include);
    assert!(ask(&["--libs"]).contains("-lblkio"));
}
