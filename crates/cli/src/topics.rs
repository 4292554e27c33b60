//! Lists and help, made from the registry: what can be built is what is explained.

use std::{io::Write, process::ExitCode};

use block::{Error, Result};
use config::Config as _;
use graph::{Entry, Registry};

use crate::{args, vhost_user::DiskConfig};

/// Prints a text on standard output. A reader that has seen enough (`| head`) is no error.
///
/// # Errors
/// Standard output cannot be written.
pub fn print(text: &str) -> Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::io("cannot write to standard output", error))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// The list of sources.
pub fn sources(registry: &Registry) -> String {
    list(registry.sources())
}

/// The list of filters.
pub fn filters(registry: &Registry) -> String {
    list(registry.filters())
}

/// The help about `topic`, or about the program and its lists.
///
/// # Errors
/// There is no such topic; the nearest one is named.
pub fn help(registry: &Registry, topic: Option<&str>) -> Result<String> {
    let Some(topic) = topic else {
        let program = args::command_help(None).unwrap_or_default();
        return Ok(format!(
            "{program}\nSources:\n{}\nFilters:\n{}",
            sources(registry),
            filters(registry)
        ));
    };
    // A source and a filter may have the same name: both are meant then.
    let mut texts: Vec<String> = args::command_help(Some(topic)).into_iter().collect();
    let source = registry.sources().iter().find(|entry| entry.name == topic);
    texts.extend(source.map(|entry| format!("Source {}", entry.schema.help())));
    let filter = registry.filters().iter().find(|entry| entry.name == topic);
    texts.extend(filter.map(|entry| format!("Filter {}", entry.schema.help())));
    let disk = DiskConfig::schema();
    if topic == disk.name {
        texts.push(format!("blkit serve --{topic}\n\n{}", disk.help()));
    }
    if texts.is_empty() {
        let commands = args::commands();
        let known = commands
            .iter()
            .map(String::as_str)
            .chain([disk.name])
            .chain(registry.sources().iter().map(|entry| entry.name))
            .chain(registry.filters().iter().map(|entry| entry.name));
        return Err(graph::unknown("topic", topic, known));
    }
    Ok(texts.join("\n"))
}

fn list<Make>(entries: &[Entry<Make>]) -> String {
    let width = entries
        .iter()
        .map(|entry| entry.name.len())
        .max()
        .unwrap_or(0);
    entries
        .iter()
        .map(|entry| (entry.name, entry.summary.trim_end_matches('.')))
        .map(|(name, summary)| format!("  {name:width$}  {summary}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_is_listed_and_explained() {
        let registry = Registry::standard();
        let all = help(&registry, None).expect("help");
        assert!(registry.sources().len() >= 7 && registry.filters().len() >= 6);
        let schemas = registry
            .sources()
            .iter()
            .map(|entry| (entry.name, entry.schema));
        let schemas = schemas.chain(registry.filters().iter().map(|e| (e.name, e.schema)));
        for (name, schema) in schemas {
            assert!(all.contains(&format!("  {name} ")), "{name}");
            assert_eq!(schema.problems(), Vec::<String>::new(), "{name}");
            let text = help(&registry, Some(name)).expect("help");
            for param in schema.params {
                assert!(text.contains(param.name), "{name}: {}", param.name);
            }
        }
    }

    #[test]
    fn an_unknown_topic_is_told_with_the_nearest() {
        let error = help(&Registry::standard(), Some("memroy")).expect_err("unknown");
        let hint = error.hint_text().expect("a hint");
        assert!(hint.starts_with("did you mean 'memory'?"), "{hint}");
    }
}
