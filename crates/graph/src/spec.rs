//! From the words of a command line to a description of the graph: what it is made of, with each
//! node's own arguments. Nothing is opened here.
//!
//! One list of `key=value` words serves the whole chain, as users know it from nbdkit: the
//! outermost filter sees the keys first and takes those it knows, then the next, and the source
//! gets the rest. Bare values always go to the source. Where two nodes know the same key,
//! `NODE.key=value` says which one is meant.

use std::path::Path;

use block::{Error, ErrorKind, Result};
use config::{Arg, ConfigError, Schema};

use crate::registry::Registry;

/// One node: which kind, and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSpec {
    /// The kind of node, as registered.
    pub name: String,
    /// Its arguments, and nobody else's.
    pub args: Vec<Arg>,
}

/// A source and the filters in front of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphSpec {
    /// What produces the blocks.
    pub source: NodeSpec,
    /// What stands in front of it, outermost (closest to the client) first.
    pub filters: Vec<NodeSpec>,
}

impl Registry {
    /// Sorts the words of a command line to the nodes that know them.
    ///
    /// `source` is a registered source, or the path of a file or block device, which is then
    /// served by the `file` source: a word that is no registered name, and has a `/` or a `.` in
    /// it or names something that exists. `./memory` is therefore always a file.
    ///
    /// # Errors
    /// `Config`: a source or filter of unknown name, or a word that no node knows.
    pub fn resolve(&self, source: &str, filters: &[String], words: &[String]) -> Result<GraphSpec> {
        let mut args: Vec<Arg> = words.iter().map(|word| Arg::parse(word)).collect();
        let name = self.source_name(source, &mut args)?;
        let entries = filters
            .iter()
            .map(|filter| self.filter(filter))
            .collect::<Result<Vec<_>>>()?;
        let source = self.source(name)?;

        let mut nodes: Vec<NodeSpec> = Vec::with_capacity(entries.len() + 1);
        for entry in &entries {
            nodes.push(NodeSpec {
                name: entry.name.into(),
                args: take_keys(entry.name, entry.schema, &mut args),
            });
        }
        let mut last = take_addressed(source.name, source.schema, &mut args);
        last.extend(config::take(source.schema, &mut args));
        let mut schemas: Vec<&Schema> = entries.iter().map(|entry| entry.schema).collect();
        schemas.push(source.schema);
        config::refuse_leftover(&args, &schemas).map_err(config_error)?;
        Ok(GraphSpec {
            source: NodeSpec {
                name: source.name.into(),
                args: last,
            },
            filters: nodes,
        })
    }

    /// The registered source that the word `source` means; a path or a URI becomes the first argument.
    fn source_name<'a>(&self, source: &'a str, args: &mut Vec<Arg>) -> Result<&'a str> {
        if self.has_source(source) {
            return Ok(source);
        }
        if sources::nbd::is_uri(source) {
            args.insert(0, Arg::KeyValue("uri".into(), source.into()));
            return Ok("nbd");
        }
        if let Arg::KeyValue(key, _) = Arg::parse(source) {
            return Err(Error::new(
                ErrorKind::Config,
                format!("the source must come before its parameters, but '{key}=' is first"),
            )
            .hint(format!(
                "write: SOURCE {source}, or ./{source} for a file of that name"
            )));
        }
        let path = Path::new(source);
        if source.contains(['/', '.']) || path.symlink_metadata().is_ok() {
            let key = if path.is_dir() { "dir" } else { "file" };
            args.insert(0, Arg::KeyValue(key.into(), source.into()));
            return Ok("file");
        }
        self.source(source)?;
        Ok(source)
    }
}

/// The error of a configuration, as an error of the graph.
pub fn config_error(error: ConfigError) -> Error {
    let hint = error.hint();
    let wrapped = Error::new(ErrorKind::Config, error.kind.to_string());
    let wrapped = match error.node.as_str() {
        "" => wrapped,
        node => wrapped.in_node(&node.into()),
    };
    match hint {
        Some(hint) => wrapped.hint(hint),
        None => wrapped,
    }
}

/// What the filter `name` takes: the words addressed to it, and the keys it knows.
fn take_keys(name: &str, schema: &Schema, args: &mut Vec<Arg>) -> Vec<Arg> {
    let mut taken = take_addressed(name, schema, args);
    let known = |arg: &mut Arg| match arg {
        Arg::KeyValue(key, _) => schema.rest.is_some() || schema.find(key).is_some(),
        Arg::Bare(_) => false,
    };
    taken.extend(args.extract_if(.., known));
    taken
}

/// Removes the words of the form `NAME.key=value` whose key the schema knows, without `NAME.`.
fn take_addressed(name: &str, schema: &Schema, args: &mut Vec<Arg>) -> Vec<Arg> {
    let own_key = |key: &str| {
        let key = key.strip_prefix(name)?.strip_prefix('.')?;
        schema.find(key).map(|_| key.to_owned())
    };
    let addressed = |arg: &mut Arg| matches!(arg, Arg::KeyValue(key, _) if own_key(key).is_some());
    args.extract_if(.., addressed)
        .map(|arg| match arg {
            Arg::KeyValue(key, value) => Arg::KeyValue(own_key(&key).unwrap_or(key), value),
            bare @ Arg::Bare(_) => bare,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::registry;

    fn resolve(source: &str, filters: &[&str], words: &[&str]) -> Result<GraphSpec> {
        let own = |words: &[&str]| words.iter().map(|&word| word.into()).collect::<Vec<_>>();
        registry().resolve(source, &own(filters), &own(words))
    }

    fn words(node: &NodeSpec) -> Vec<String> {
        node.args.iter().map(Arg::to_string).collect()
    }

    #[test]
    fn filters_see_keys_first_and_bare_values_are_the_source_s() {
        let spec = resolve(
            "memory",
            &["shift", "slow"],
            &["1M", "by=512", "rdelay=1s", "label=x"],
        )
        .expect("resolves");
        assert_eq!(spec.source.name, "memory");
        assert_eq!(words(&spec.source), ["1M", "label=x"]);
        let names: Vec<&str> = spec.filters.iter().map(|node| &*node.name).collect();
        assert_eq!(names, ["shift", "slow"]);
        assert_eq!(words(&spec.filters[0]), ["by=512"]);
        assert_eq!(words(&spec.filters[1]), ["rdelay=1s"]);
    }

    #[test]
    fn an_addressed_key_goes_where_it_is_told() {
        // Both `shift` and the memory source know `size`.
        let plain = resolve("memory", &["shift"], &["size=1M"]).expect("resolves");
        assert_eq!(words(&plain.filters[0]), ["size=1M"]);
        assert!(plain.source.args.is_empty());
        let told = resolve("memory", &["shift"], &["memory.size=1M", "size=2M"]).expect("resolves");
        assert_eq!(words(&told.filters[0]), ["size=2M"]);
        assert_eq!(words(&told.source), ["size=1M"]);
        let twice = ["shift.size=3M", "memory.size=1M"];
        let told = resolve("memory", &["slow", "shift"], &twice).expect("resolves");
        assert_eq!(words(&told.filters[1]), ["size=3M"]);
        assert_eq!(words(&told.source), ["size=1M"]);
    }

    #[test]
    fn a_path_is_served_by_the_file_source() {
        for path in ["./memory", "disk.img", "/no/such/dir/disk"] {
            let spec = resolve(path, &[], &["label=x"]).expect("resolves");
            assert_eq!(spec.source.name, "file", "{path}");
            let first = format!("file={path}");
            assert_eq!(words(&spec.source), [first.as_str(), "label=x"]);
        }
        let spec = resolve("/", &[], &[]).expect("resolves");
        assert_eq!(words(&spec.source), ["dir=/"]);
        // Exists here, has no slash and no dot: the crate's own source folder.
        let spec = resolve("src", &[], &[]).expect("resolves");
        assert_eq!(words(&spec.source), ["dir=src"]);
    }

    #[test]
    fn mistakes_are_named_with_their_cure() {
        let error = resolve("memroy", &[], &["1M"]).expect_err("unknown source");
        assert_eq!(error.chain(), "unknown source 'memroy'");
        assert!(
            error
                .hint_text()
                .is_some_and(|h| h.contains("did you mean 'memory'?"))
        );
        let error = resolve("memory", &["slwo"], &[]).expect_err("unknown filter");
        assert_eq!(error.chain(), "unknown filter 'slwo'");
        let error = resolve("memory", &["slow"], &["1M", "sizee=1"]).expect_err("unknown key");
        assert_eq!(error.chain(), "memory: unknown parameter 'sizee'");
        assert_eq!(error.hint_text(), Some("did you mean 'size' of memory?"));
        let error = resolve("size=1M", &["slow"], &[]).expect_err("no source");
        assert!(error.chain().contains("must come before"), "{error:?}");
    }
}
