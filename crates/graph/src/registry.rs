//! Which sources and filters exist, and what each one's parameters are.
//!
//! One table for every face: the command line, help, completion and the builder read the same
//! entries, so a node that can be built can also be found and explained.

use std::sync::Arc;

use block::{Error, ErrorKind, Next, Result, Source};
use config::{Arg, Schema};

/// Makes a source from its arguments. Parses only: opens and starts nothing.
pub type MakeSource = fn(&[Arg]) -> Result<Arc<dyn Source>>;

/// Makes a filter over what lies below it from its arguments. Parses only.
pub type MakeFilter = fn(&[Arg], Next) -> Result<Arc<dyn Source>>;

/// A kind of node: its name, its parameters and how to make one.
#[derive(Clone, Copy)]
pub struct Entry<Make> {
    /// What users call it.
    pub name: &'static str,
    /// One line for lists.
    pub summary: &'static str,
    /// Its parameters.
    pub schema: &'static Schema,
    /// Makes one.
    pub make: Make,
}

/// A registered kind of source.
pub type SourceEntry = Entry<MakeSource>;

/// A registered kind of filter.
pub type FilterEntry = Entry<MakeFilter>;

/// All kinds of nodes that can be built.
#[derive(Clone, Default)]
pub struct Registry {
    sources: Vec<SourceEntry>,
    filters: Vec<FilterEntry>,
}

impl Registry {
    /// A registry of these kinds, each list in the order of names.
    pub fn new(mut sources: Vec<SourceEntry>, mut filters: Vec<FilterEntry>) -> Registry {
        sources.sort_by_key(|entry| entry.name);
        filters.sort_by_key(|entry| entry.name);
        Registry { sources, filters }
    }

    /// All kinds of nodes that come with the project.
    pub fn standard() -> Registry {
        let source = |entry: &sources::Entry| Entry {
            name: entry.name,
            summary: entry.summary,
            schema: entry.schema,
            make: entry.make,
        };
        let filter = |entry: &filters::Entry| Entry {
            name: entry.name,
            summary: entry.summary,
            schema: entry.schema,
            make: entry.make,
        };
        Registry::new(
            sources::registry().iter().map(source).collect(),
            filters::registry().iter().map(filter).collect(),
        )
    }

    /// The kinds of sources, by name.
    pub fn sources(&self) -> &[SourceEntry] {
        &self.sources
    }

    /// The kinds of filters, by name.
    pub fn filters(&self) -> &[FilterEntry] {
        &self.filters
    }

    /// The source called `name`.
    ///
    /// # Errors
    /// `Config`, naming the nearest one and listing all, if there is none.
    pub fn source(&self, name: &str) -> Result<&SourceEntry> {
        find(&self.sources, name).ok_or_else(|| unknown("source", name, names(&self.sources)))
    }

    /// The filter called `name`.
    ///
    /// # Errors
    /// As [`Registry::source`].
    pub fn filter(&self, name: &str) -> Result<&FilterEntry> {
        find(&self.filters, name).ok_or_else(|| unknown("filter", name, names(&self.filters)))
    }

    /// Whether `name` is a source.
    pub fn has_source(&self, name: &str) -> bool {
        find(&self.sources, name).is_some()
    }
}

/// The name of `known` that looks most like `name`, if it is near enough to be meant.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // The distance costs the product of the lengths, and no name of ours is this long.
    const LONGEST: usize = 64;
    if name.len() > LONGEST {
        return None;
    }
    let limit = 1 + name.len() / 4;
    known
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .filter(|&(distance, known)| distance <= limit && distance < known.len().min(name.len()))
        .min()
        .map(|(_, known)| known)
}

/// The error for a name that is not in a list of names: the nearest one, and all.
pub fn unknown<'a>(
    what: &str,
    name: &str,
    known: impl IntoIterator<Item = &'a str> + Clone,
) -> Error {
    let list: Vec<&str> = known.clone().into_iter().collect();
    let mut hint = match nearest(name, known) {
        Some(near) => format!("did you mean '{near}'? "),
        None => String::new(),
    };
    hint.push_str(&format!("known {what}s: {}", list.join(", ")));
    Error::new(
        ErrorKind::Config,
        format!("unknown {what} '{}'", name.escape_debug()),
    )
    .hint(hint)
}

fn find<'a, Make>(entries: &'a [Entry<Make>], name: &str) -> Option<&'a Entry<Make>> {
    entries.iter().find(|entry| entry.name == name)
}

fn names<Make>(entries: &[Entry<Make>]) -> impl Iterator<Item = &'static str> + Clone {
    entries.iter().map(|entry| entry.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_suggested_and_far_ones_are_not() {
        let known = ["file", "memory", "null", "pattern"];
        assert_eq!(nearest("memroy", known), Some("memory"));
        assert_eq!(nearest("fil", known), Some("file"));
        assert_eq!(nearest("patern", known), Some("pattern"));
        for far in ["", "x", "zero", "torrent", &"memory".repeat(100)] {
            assert_eq!(nearest(far, known), None, "{far}");
        }
    }

    #[test]
    fn an_unknown_name_is_one_line_with_all_names() {
        let error = unknown("source", "memroy\n", ["file", "memory"]);
        assert_eq!(error.chain(), "unknown source 'memroy\\n'");
        let hint = error.hint_text().expect("a hint");
        assert_eq!(hint, "did you mean 'memory'? known sources: file, memory");
        let error = unknown("filter", "zzzzzz", ["cow"]);
        assert_eq!(error.hint_text(), Some("known filters: cow"));
    }
}
