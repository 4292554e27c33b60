//! The words behind the options: the plugin's name, and the parameters of plugin and filters.
//!
//! A parameter is `key=value`; a bare value belongs to the plugin's magic key; `@FILE` stands for
//! the parameters in a file, one on each line. Given twice, the last one counts, unless the
//! parameter collects a list.

use std::{
    ffi::{OsStr, OsString},
    path::Path,
};

use block::{Error, Result};
use config::{Arg, Schema};
use graph::{GraphSpec, NodeSpec, Registry};

use super::options::{self, Mistake};
use crate::parameters;

/// Where the manual of the peer says that plugins are; only shown in messages.
pub const PLUGIN_FOLDER: &str = "/usr/lib/nbdkit/plugins";

/// Plugins of nbdkit that blkit does not have yet: known, so that nobody looks for a mistake.
const NOT_YET: &[&str] = &[
    "S3", "blkio", "cc", "cdi", "curl", "eval", "gcs", "golang", "guestfs", "libvirt", "lua",
    "nfs", "ocaml", "perl", "python", "rust", "sh", "ssh", "tcl", "torrent", "vddk", "vram",
];

/// The plugin that a word means.
///
/// # Errors
/// There is no such plugin.
pub fn plugin<'a>(registry: &'a Registry, word: &OsStr) -> Result<&'a str, Mistake> {
    let name = options::text(word)?;
    if let Some(entry) = find(&name, "plugin").and_then(|name| registry.source(&name).ok()) {
        return Ok(entry.name);
    }
    Err(not_found("plugin", &name, NOT_YET.contains(&name.as_str())))
}

/// The filter that a word means.
///
/// # Errors
/// There is no such filter.
pub fn filter<'a>(registry: &'a Registry, word: &OsStr) -> Result<&'a str, Mistake> {
    let name = options::text(word)?;
    if let Some(entry) = find(&name, "filter").and_then(|name| registry.filter(&name).ok()) {
        return Ok(entry.name);
    }
    Err(not_found("filter", &name, false))
}

/// The short name: of a word that is one, or of the path of a file called as nbdkit's are.
fn find(word: &str, kind: &str) -> Option<String> {
    if word.contains(['/', '.']) {
        let file = Path::new(word).file_name()?.to_str()?;
        let name = file.strip_prefix("nbdkit-")?;
        return Some(name.strip_suffix(&format!("-{kind}.so"))?.to_owned());
    }
    let mut bytes = word.bytes();
    let good = bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    good.then(|| word.to_owned())
}

fn not_found(kind: &str, name: &str, later: bool) -> Mistake {
    let shown = name.escape_debug();
    let why = if later {
        format!("blkit does not have this {kind} of nbdkit yet")
    } else if name.contains(['/', '.']) {
        format!("{kind}s that are shared objects cannot be loaded yet")
    } else {
        "No such file or directory".to_owned()
    };
    Mistake::Error(format!(
        "cannot open {kind} '{shown}': {PLUGIN_FOLDER}/nbdkit-{shown}-{kind}.so: {why}\n\
         Use 'nbdkit --help' or read the nbdkit(1) manual page for documentation."
    ))
}

/// The parameters: files are read, everything must be text.
///
/// # Errors
/// A file cannot be read, or a word is no text.
pub fn parameters(words: &[OsString]) -> Result<Vec<String>, Mistake> {
    let words: Vec<String> = words
        .iter()
        .map(|word| options::text(word))
        .collect::<Result<_, _>>()?;
    parameters::expand(&words).map_err(|error| Mistake::Error(parameters::told(&error)))
}

/// The graph that plugin, filters and parameters describe.
///
/// # Errors
/// A parameter that nobody knows, or one that is missing.
pub fn graph(
    registry: &Registry,
    plugin: &str,
    filters: &[&str],
    parameters: &[String],
) -> Result<GraphSpec, Mistake> {
    let filters: Vec<String> = filters.iter().map(|&name| name.to_owned()).collect();
    let spec = registry.resolve(plugin, &filters, parameters);
    let mut spec = spec.map_err(|error| Mistake::Error(told(&error)))?;
    let named = |error: Error| Mistake::Error(told(&error));
    for node in &mut spec.filters {
        prepare(
            registry.filter(&node.name).map_err(named)?.schema,
            &mut node.args,
        )?;
    }
    prepare(
        registry.source(&spec.source.name).map_err(named)?.schema,
        &mut spec.source.args,
    )?;
    Ok(spec)
}

/// The graph of a plugin and filters without parameters: for telling about them only.
pub fn bare_graph(plugin: &str, filters: &[&str]) -> GraphSpec {
    let node = |name: &str| NodeSpec {
        name: name.into(),
        args: Vec::new(),
    };
    GraphSpec {
        source: node(plugin),
        filters: filters.iter().map(|name| node(name)).collect(),
    }
}

/// Keeps what counts, and misses what is required.
fn prepare(schema: &Schema, args: &mut Vec<Arg>) -> Result<(), Mistake> {
    schema.keep_last(args);
    for param in schema.params.iter().filter(|param| param.required) {
        let given = args.iter().any(|arg| match arg {
            Arg::KeyValue(key, _) => schema
                .find(key)
                .is_some_and(|known| std::ptr::eq(known, param)),
            Arg::Bare(_) => param.magic,
        });
        if !given {
            return Err(Mistake::Error(format!(
                "you must specify {}=<{}> on the command line",
                param.name, param.type_name
            )));
        }
    }
    Ok(())
}

/// An error as nbdkit tells it: without the node, which is the plugin as a rule.
pub fn told(error: &Error) -> String {
    let chain = error.chain();
    let bare = error
        .node()
        .and_then(|node| chain.strip_prefix(node)?.strip_prefix(": "));
    bare.unwrap_or(&chain).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(mistake: Mistake) -> String {
        match mistake {
            Mistake::Error(text) | Mistake::Plain(text) | Mistake::Usage(text) => text,
        }
    }

    fn serve(words: &[&str]) -> Result<Vec<String>, String> {
        let registry = Registry::standard();
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let name = plugin(&registry, &words[0]).map_err(text)?;
        let given = parameters(&words[1..]).map_err(text)?;
        let spec = graph(&registry, name, &[], &given).map_err(text)?;
        Ok(spec.source.args.iter().map(Arg::to_string).collect())
    }

    #[test]
    fn the_last_of_a_parameter_counts() {
        assert_eq!(serve(&["memory", "1M", "2M"]).unwrap(), ["2M"]);
        assert_eq!(serve(&["memory", "size=1M", "2M"]).unwrap(), ["2M"]);
        assert_eq!(serve(&["memory", "2M", "size=1M"]).unwrap(), ["size=1M"]);
    }

    #[test]
    fn a_plugin_may_be_named_by_its_file() {
        let path = "/usr/lib/x86_64-linux-gnu/nbdkit/plugins/nbdkit-memory-plugin.so";
        assert_eq!(serve(&[path, "1M"]).unwrap(), ["1M"]);
        for wrong in [
            "./memory",
            "memory.so",
            "/a/nbdkit-nosuch-plugin.so",
            "nosuch",
            "-x",
            "",
        ] {
            let error = serve(&[wrong, "1M"]).unwrap_err();
            assert!(
                error.starts_with(&format!("cannot open plugin '{wrong}'")),
                "{error}"
            );
            assert!(error.ends_with("manual page for documentation."), "{error}");
        }
        assert!(
            serve(&["curl", "x"])
                .unwrap_err()
                .contains("does not have this plugin")
        );
    }

    #[test]
    fn mistakes_are_told_in_nbdkit_s_words() {
        let error = "you must specify size=<SIZE> on the command line";
        assert_eq!(serve(&["memory"]).unwrap_err(), error);
        assert_eq!(
            serve(&["memory", "1M", "foo=1"]).unwrap_err(),
            "unknown parameter 'foo'"
        );
    }

    #[test]
    fn files_of_parameters_are_read_relative_to_each_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("sub")).expect("a folder");
        std::fs::write(path("a"), "# sizes\n\n@sub/b\nsize=3M\n").expect("writes");
        std::fs::write(path("sub/b"), "size=1M\nsize=2M\n").expect("writes");
        let word = format!("@{}", path("a").display());
        let found = parameters(&[word.into()]).expect("reads");
        assert_eq!(found, ["size=1M", "size=2M", "size=3M"]);
        // Without a slash it is a value.
        assert_eq!(parameters(&["@a".into()]).expect("a value"), ["@a"]);

        std::fs::write(path("loop"), "@./loop\n").expect("writes");
        let word = format!("@{}", path("loop").display());
        let error = text(parameters(&[word.into()]).expect_err("endless"));
        assert!(error.contains("name each other more than"), "{error}");
        let error = text(parameters(&["@/no/such".into()]).expect_err("missing"));
        assert!(error.starts_with("cannot open /no/such: "), "{error}");
    }
}
