//! Small samples that break each rule, and some that look as if they did.

use super::manifest::{self, Package};
use super::rules::RULES;
use super::{Report, SourceFile, check};
use std::collections::BTreeSet;

/// A workspace of `folders`, in which the first depends on `dependencies` (`kind:name`).
fn packages(folders: &[&str], dependencies: &[&str]) -> Vec<Package> {
    let entries: Vec<serde_json::Value> = folders
        .iter()
        .enumerate()
        .map(|(index, folder)| {
            let of_it = if index == 0 { dependencies } else { &[] };
            let place = if *folder == "xtask" {
                "xtask".into()
            } else {
                format!("crates/{folder}")
            };
            serde_json::json!({
                "name": package_name(folder),
                "manifest_path": format!("/repo/{place}/Cargo.toml"),
                "dependencies": of_it.iter().map(|text| dependency(text)).collect::<Vec<_>>(),
            })
        })
        .collect();
    let json = serde_json::json!({ "packages": entries, "workspace_root": "/repo" });
    let text = "[package]\nname = \"x\"\n\n[dependencies]\nblock.workspace = true\n\
        tokio = \"1\"\nsources = { path = \"../sources\" }\n[build-dependencies]\nnbd.workspace = true\n";
    manifest::parse(json.to_string().as_bytes(), &|_| Ok(text.to_owned())).expect("a sample")
}

fn package_name(folder: &str) -> String {
    if folder == "xtask" {
        folder.to_owned()
    } else {
        format!("blkit-{folder}")
    }
}

fn dependency(text: &str) -> serde_json::Value {
    let (kind, name) = text.split_once(':').expect("kind:name");
    let kind = if kind == "normal" { None } else { Some(kind) };
    match name.strip_prefix('@') {
        Some(other) => serde_json::json!({ "name": other, "kind": kind }),
        None => serde_json::json!({
            "name": package_name(name), "kind": kind, "rename": name, "path": "/repo/x",
        }),
    }
}

fn file(path: &str, text: &str) -> SourceFile {
    SourceFile {
        path: path.to_owned(),
        text: text.to_owned(),
    }
}

fn lines(report: &Report) -> Vec<String> {
    report.violations.iter().map(ToString::to_string).collect()
}

/// The violations of one file.
fn of_file(path: &str, text: &str) -> Vec<String> {
    lines(&check(&[], &[file(path, text)]))
}

/// The violations of the first of `folders`, if it has these dependencies.
fn of_package(folders: &[&str], dependencies: &[&str]) -> Vec<String> {
    lines(&check(&packages(folders, dependencies), &[]))
}

#[test]
fn a_package_may_import_what_its_rule_says() {
    let good: &[(&[&str], &[&str])] = &[
        (&["block"], &["normal:@thiserror"]),
        (
            &["block", "testkit"],
            &["dev:testkit", "dev:@tokio", "dev:@libc"],
        ),
        (&["config", "config-derive"], &["normal:config-derive"]),
        (
            &["filters", "block", "config"],
            &["normal:block", "normal:config"],
        ),
        (
            &["reactor", "block"],
            &["normal:block", "normal:@tokio", "normal:@libc"],
        ),
        (
            &["source-http", "block", "reactor"],
            &["normal:block", "normal:reactor", "normal:@tokio"],
        ),
        (
            &["graph", "source-http", "exports"],
            &["normal:source-http", "normal:exports"],
        ),
        (
            &["cli", "sources", "reactor", "nbd"],
            &["normal:sources", "normal:reactor", "normal:nbd"],
        ),
        (&["xtask"], &["normal:@syn"]),
    ];
    for (folders, dependencies) in good {
        assert_eq!(
            of_package(folders, dependencies),
            [""; 0],
            "{folders:?} {dependencies:?}"
        );
    }
}

/// Packages that break a rule: the folders, the dependencies of the first, the rule.
const BAD_PACKAGES: &[(&[&str], &[&str], &str)] = &[
    (&["block", "config"], &["normal:config"], "block-alone"),
    (&["config", "block"], &["normal:block"], "config-low"),
    (&["nbd", "block"], &["normal:block"], "protocols-alone"),
    (&["virtio", "block"], &["build:block"], "protocols-alone"),
    (&["tls", "block"], &["normal:block"], "tls-alone"),
    (&["transport", "nbd"], &["normal:nbd"], "transport-imports"),
    (&["reactor", "nbd"], &["normal:nbd"], "reactor-imports"),
    (&["filters", "reactor"], &["normal:reactor"], "filters-pure"),
    (&["formats", "sources"], &["normal:sources"], "filters-pure"),
    (
        &["sources", "exports"],
        &["normal:exports"],
        "sources-imports",
    ),
    (
        &["sources", "filters"],
        &["normal:filters"],
        "sources-imports",
    ),
    (
        &["source-ssh", "sources"],
        &["normal:sources"],
        "heavy-sources",
    ),
    (&["plugins", "graph"], &["normal:graph"], "heavy-sources"),
    (
        &["exports", "sources"],
        &["normal:sources"],
        "exports-imports",
    ),
    (&["graph", "nbd"], &["normal:nbd"], "graph-imports"),
    (&["graph", "cli"], &["normal:cli"], "graph-imports"),
    (&["blkit", "cli"], &["normal:cli"], "faces-imports"),
    (&["capi", "sources"], &["normal:sources"], "capi-imports"),
    (
        &["capi-blkit", "exports"],
        &["normal:exports"],
        "capi-blkit-imports",
    ),
    (
        &["capi-blkio", "handle"],
        &["normal:handle"],
        "capi-blkio-imports",
    ),
    (
        &["bindings/python", "nbd"],
        &["normal:nbd"],
        "python-imports",
    ),
    (&["handle"], &["normal:@pyo3"], "pyo3-named-places"),
    (&["handle", "block"], &["normal:block"], "handle-imports"),
    (&["blkio", "reactor"], &["normal:reactor"], "blkio-imports"),
    (&["cli", "testkit"], &["normal:testkit"], "cli-imports"),
    (
        &["testkit", "sources"],
        &["normal:sources"],
        "testkit-imports",
    ),
    (&["vmtests", "xtask"], &["normal:xtask"], "tools-imports"),
    (&["xtask", "block"], &["normal:block"], "xtask-alone"),
    (&["novelty"], &[], "crate-has-rule"),
    (&["sources"], &["normal:@tokio"], "tokio-named-places"),
    (&["exports"], &["normal:@tokio-util"], "tokio-named-places"),
    (&["exports"], &["normal:@openssl"], "openssl-named-places"),
    (&["sources"], &["normal:@rustls"], "openssl-named-places"),
    (&["filters"], &["normal:@libc"], "no-system-calls"),
    (&["nbd"], &["build:@rustix"], "no-system-calls"),
    // A path outside the workspace.
    (&["block"], &["normal:elsewhere"], "block-alone"),
];

#[test]
fn a_package_may_not_import_more() {
    for (folders, dependencies, rule) in BAD_PACKAGES {
        let found = check(&packages(folders, dependencies), &[]).violations;
        let rules: Vec<&str> = found.iter().map(|found| found.rule).collect();
        assert_eq!(rules, [*rule], "{folders:?} {dependencies:?}: {found:?}");
    }
}

#[test]
fn a_violation_says_where() {
    assert_eq!(
        of_package(&["exports", "sources"], &["normal:sources"]),
        ["crates/exports/Cargo.toml:7: exports depends on sources (exports-imports)"]
    );
    assert_eq!(
        of_package(&["exports"], &["normal:@tokio"]),
        ["crates/exports/Cargo.toml:6: exports depends on tokio (tokio-named-places)"]
    );
    assert_eq!(
        of_package(&["virtio", "nbd"], &["build:nbd"]),
        ["crates/virtio/Cargo.toml:9: virtio depends on nbd (protocols-alone)"]
    );
    assert_eq!(
        of_file("crates/cli/src/a.rs", "fn f() {}\n\nfn g() { unsafe {} }\n"),
        ["crates/cli/src/a.rs:3: unsafe code outside its islands (unsafe-islands)"]
    );
}

/// Files that break a rule: the path, the text, the rule.
const BAD_FILES: &[(&str, &str, &str)] = &[
    ("crates/filters/src/a.rs", "use std::fs;", "filters-no-io"),
    (
        "crates/filters/src/a.rs",
        "use std::{io, net::TcpStream};",
        "filters-no-io",
    ),
    (
        "crates/filters/src/a.rs",
        "use std::{self as s};",
        "filters-no-io",
    ),
    ("crates/filters/src/a.rs", "use std as s;", "filters-no-io"),
    ("crates/filters/src/a.rs", "use std::*;", "filters-no-io"),
    (
        "crates/filters/src/a.rs",
        "use std::os::unix;",
        "filters-no-io",
    ),
    (
        "crates/filters/src/a.rs",
        "use reactor::Io;",
        "filters-no-io",
    ),
    (
        "crates/filters/src/a.rs",
        "extern crate libc;",
        "filters-no-io",
    ),
    (
        "crates/formats/src/a.rs",
        "fn f() { ::std::thread::sleep(x) }",
        "filters-no-io",
    ),
    (
        "crates/formats/src/a.rs",
        "fn f(x: std::process::Child) {}",
        "filters-no-io",
    ),
    (
        "crates/formats/src/a.rs",
        "fn f() { assert!(g(std::fs::read(x))) }",
        "filters-no-io",
    ),
    (
        "crates/formats/src/a.rs",
        "#[cfg(not(test))] mod m { use std::fs; }",
        "filters-no-io",
    ),
    (
        "crates/formats/src/a.rs",
        "#[cfg(any(test, unix))] mod m { use std::fs; }",
        "filters-no-io",
    ),
    (
        "crates/nbd/src/a.rs",
        "fn f(s: &std::net::TcpStream) {}",
        "sans-io",
    ),
    (
        "crates/block/src/a.rs",
        "use std::thread::spawn;",
        "sans-io",
    ),
    (
        "crates/cli/src/a.rs",
        "use reactor::uring::Ring;",
        "cli-reactor",
    ),
    ("crates/cli/src/a.rs", "unsafe fn f() {}", "unsafe-islands"),
    (
        "crates/cli/src/a.rs",
        "unsafe impl Send for A {}",
        "unsafe-islands",
    ),
    (
        "crates/cli/src/a.rs",
        "unsafe extern \"C\" {}",
        "unsafe-islands",
    ),
    (
        "crates/cli/src/a.rs",
        "#[unsafe(no_mangle)] fn f() {}",
        "unsafe-islands",
    ),
    (
        "crates/cli/src/a.rs",
        "fn f() { m!(unsafe { g() }) }",
        "unsafe-islands",
    ),
    (
        "crates/cli/src/a.rs",
        "#[cfg(test)] mod tests { fn f() { unsafe {} } }",
        "unsafe-islands",
    ),
    (
        "crates/cli/tests/a.rs",
        "fn f() { unsafe {} }",
        "unsafe-islands",
    ),
    (
        "crates/block/src/limits.rs",
        "fn f() { unsafe {} }",
        "unsafe-islands",
    ),
    (
        "crates/exports/src/nbd/a.rs",
        "fn f() { unsafe {} }",
        "unsafe-islands",
    ),
    ("crates/cli/src/a.rs", "fn f( {}", "parses"),
];

#[test]
fn code_may_not_break_the_rules() {
    for (path, text, rule) in BAD_FILES {
        let found = check(&[], &[file(path, text)]).violations;
        let rules: Vec<&str> = found.iter().map(|found| found.rule).collect();
        assert_eq!(rules, [*rule], "{path}: {text}: {found:?}");
    }
}

#[test]
fn what_only_looks_bad_is_good() {
    let good = [
        (
            "crates/filters/src/a.rs",
            "// std::fs\n/// std::fs unsafe\nfn f() -> &str { \"std::fs\" }",
        ),
        (
            "crates/filters/src/a.rs",
            "use std::{io, collections::*}; use core::net::IpAddr;",
        ),
        (
            "crates/filters/src/a.rs",
            "fn f() { let libc = 1; g(libc); m!(libc, fs::x) }",
        ),
        (
            "crates/filters/src/a.rs",
            "use std::netlike::A; use crate::std::fs;",
        ),
        (
            "crates/filters/src/a.rs",
            "#[cfg(test)] mod tests { use std::fs; }",
        ),
        (
            "crates/filters/src/a.rs",
            "#[cfg(all(unix, test))] use std::fs;",
        ),
        (
            "crates/filters/src/a.rs",
            "#[test] fn f() { std::fs::read(x); }",
        ),
        ("crates/filters/tests/a.rs", "use std::fs;"),
        ("crates/sources/src/a.rs", "use std::fs;"),
        ("crates/nbd/src/a.rs", "use std::net::IpAddr;"),
        ("crates/cli/src/a.rs", "#![forbid(unsafe_code)]"),
        ("crates/block/src/request.rs", "fn f() { unsafe {} }"),
        ("crates/block/src/data/pool.rs", "fn f() { unsafe {} }"),
        ("crates/reactor/src/a.rs", "fn f() { unsafe {} }"),
        ("crates/exports/src/ublk/a.rs", "fn f() { unsafe {} }"),
    ];
    for (path, text) in good {
        assert_eq!(of_file(path, text), [""; 0], "{text}");
    }
}

#[test]
fn test_modules_in_files_of_their_own_are_tests() {
    let bad = "use std::fs;";
    let files = [
        file(
            "crates/filters/src/lib.rs",
            "#[cfg(test)] mod check; mod map;",
        ),
        file("crates/filters/src/check.rs", bad),
        file("crates/filters/src/check/more.rs", bad),
        file(
            "crates/filters/src/map.rs",
            "#[cfg(test)] #[path = \"odd.rs\"] mod t; mod real;",
        ),
        file("crates/filters/src/odd.rs", bad),
        file("crates/filters/src/map/real.rs", bad),
    ];
    let found = lines(&check(&[], &files));
    assert_eq!(
        found,
        ["crates/filters/src/map/real.rs:1: names std::fs (filters-no-io)"]
    );
}

/// A function of `lines` lines.
fn function(lines: usize) -> String {
    format!("fn long() {{\n{}}}\n", "    step();\n".repeat(lines - 2))
}

#[test]
fn functions_are_short() {
    let path = "crates/cli/src/a.rs";
    let found =
        "crates/cli/src/a.rs:1: function long has 71 lines, the most is 70 (function-length)";
    assert_eq!(of_file(path, &function(71)), [found]);
    assert_eq!(of_file(path, &function(70)), [""; 0]);
    let documented = format!("/// One.\n/// Two.\n#[inline]\npub {}", function(70));
    assert_eq!(of_file(path, &documented), [""; 0]);
    for around in ["impl A {\n", "trait A {\n", "mod m {\n", "fn outer() {\n"] {
        let text = format!("{around}{}}}\n", function(71));
        let found = of_file(path, &text);
        assert!(
            found
                .iter()
                .any(|line| line.contains("function long has 71 lines")),
            "{around}"
        );
    }
    for test in ["#[cfg(test)]\nmod tests {\n", "#[cfg(test)]\nimpl A {\n"] {
        assert_eq!(
            of_file(path, &format!("{test}{}}}\n", function(71))),
            [""; 0]
        );
    }
    assert_eq!(
        of_file(path, &format!("#[test]\n{}", function(200))),
        [""; 0]
    );
    assert_eq!(of_file("crates/cli/tests/a.rs", &function(200)), [""; 0]);
}

#[test]
fn files_are_short() {
    let path = "crates/cli/src/a.rs";
    let of = |lines: usize| check(&[], &[file(path, &"\n".repeat(lines))]);
    assert!(of(500).notes.is_empty());
    let report = of(501);
    assert!(report.violations.is_empty());
    assert_eq!(
        report.notes[0].to_string(),
        format!("{path}:501: 501 lines, 500 are wanted (file-length)")
    );
    assert!(of(1000).violations.is_empty());
    assert_eq!(
        lines(&of(1001)),
        [format!(
            "{path}:1001: 1001 lines, the most is 1000 (file-length)"
        )]
    );
}

#[test]
fn every_rule_is_broken_by_a_sample_and_has_a_reason() {
    let mut broken: BTreeSet<&str> = BAD_PACKAGES.iter().map(|(_, _, rule)| *rule).collect();
    broken.extend(BAD_FILES.iter().map(|(_, _, rule)| *rule));
    // These have tests of their own above.
    broken.extend(["function-length", "file-length"]);
    let named: BTreeSet<&str> = RULES.iter().map(|rule| rule.name).collect();
    assert_eq!(broken, named);
    assert_eq!(named.len(), RULES.len(), "names are unique");
    assert!(RULES.iter().all(|rule| rule.why.len() > 10));
}
