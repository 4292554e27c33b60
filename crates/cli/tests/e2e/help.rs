//! Help and lists.

use crate::bench::{Place, run};

#[test]
fn help_names_everything_and_exits_with_success() {
    let place = Place::new();
    let all = run(&mut place.blkit(&["help"]));
    for word in [
        "serve",
        "Sources:",
        "memory",
        "Filters:",
        "cow",
        "Exit status",
    ] {
        assert!(all.contains(word), "{word}: {all}");
    }
    let serve = run(&mut place.blkit(&["help", "serve"]));
    assert_eq!(serve, run(&mut place.blkit(&["serve", "--help"])));
    for word in [
        "--run",
        "--unix",
        "--port",
        "--filter",
        "Exit status",
        "Examples",
    ] {
        assert!(serve.contains(word), "{word}: {serve}");
    }
    let memory = run(&mut place.blkit(&["help", "memory"]));
    assert!(memory.contains("size=SIZE"), "{memory}");
    let version = run(&mut place.blkit(&["--version"]));
    assert_eq!(version, format!("blkit {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn lists_have_one_line_for_each() {
    let place = Place::new();
    for (command, names) in [
        (
            "sources",
            &[
                "blkio",
                "data",
                "example1",
                "example2",
                "example3",
                "example4",
                "file",
                "floppy",
                "full",
                "info",
                "iso",
                "linuxdisk",
                "memory",
                "null",
                "ondemand",
                "ones",
                "partitioning",
                "pattern",
                "random",
                "sparse-random",
                "split",
                "tmpdisk",
                "zero",
            ][..],
        ),
        (
            "filters",
            &["cow", "delay", "error", "offset", "readonly", "stats"],
        ),
    ] {
        let list = run(&mut place.blkit(&[command]));
        let firsts: Vec<&str> = list
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        for name in names {
            assert!(firsts.contains(name), "{name}: {list}");
        }
        assert!(
            list.lines().all(|line| line.split_whitespace().count() > 1),
            "{list}"
        );
    }
}
