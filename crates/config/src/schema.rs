//! The description of a configuration struct, as data.
//!
//! Everything is `'static` and made at compile time by the derive macro: help text, completion,
//! man pages, TOML and JSON readers and the control API's schema all read it, none of them needs
//! the struct itself.

use crate::{Field, Value};

/// The description of one configuration struct.
#[derive(Debug, Clone)]
pub struct Schema {
    /// The node's name, as users write it.
    pub name: &'static str,
    /// What the node does: paragraphs separated by empty lines.
    pub doc: &'static str,
    /// The parameters, in the order of the fields.
    pub params: &'static [Param],
    /// What keys of no parameter mean, if the node takes them.
    pub rest: Option<&'static str>,
}

/// The description of one parameter.
#[derive(Debug, Clone)]
pub struct Param {
    /// The key. `-` and `_` in it are the same.
    pub name: &'static str,
    /// Other keys with the same meaning.
    pub aliases: &'static [&'static str],
    /// What it does: paragraphs separated by empty lines.
    pub doc: &'static str,
    /// The placeholder of its value in help, such as `SIZE`.
    pub type_name: &'static str,
    /// The type of its value, or of each value if it repeats.
    pub kind: Kind,
    /// The values it may have, if they can be listed.
    pub choices: &'static [ChoiceInfo],
    /// The value it has when it is not given, as text.
    pub default: Option<&'static str>,
    /// Whether it must be given.
    pub required: bool,
    /// Whether it takes bare values.
    pub magic: bool,
    /// Whether it may be given more than once, each value counting.
    pub repeated: bool,
    /// Tells whether a text is a value of its type, and if not, why.
    pub check: fn(&str) -> Result<(), String>,
}

/// One of the values of a parameter that can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChoiceInfo {
    /// The value's text.
    pub name: &'static str,
    /// Other texts with the same meaning.
    pub aliases: &'static [&'static str],
    /// What it means.
    pub doc: &'static str,
}

/// The type of a value: what a TOML or JSON reader, or a form, must know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// Any text.
    Text,
    /// The name of a file.
    Path,
    /// True or false.
    Boolean,
    /// An integer.
    Integer {
        /// The smallest.
        min: i128,
        /// The largest.
        max: i128,
    },
    /// A finite number.
    Number,
    /// A number of bytes.
    Size,
    /// A length of time.
    Duration,
    /// How often something happens.
    Probability,
    /// One of the choices.
    Choice,
}

impl Schema {
    /// The parameter that `key` means, by its name or an alias.
    pub fn find(&self, key: &str) -> Option<&'static Param> {
        self.position(key).map(|index| &self.params[index])
    }

    /// The place in `params` of the parameter that `key` means.
    pub fn position(&self, key: &str) -> Option<usize> {
        self.params
            .iter()
            .position(|param| param.keys().any(|known| same_key(known, key)))
    }

    /// The parameter that takes bare values.
    pub fn magic(&self) -> Option<&'static Param> {
        self.params.iter().find(|param| param.magic)
    }

    /// The first paragraph of the documentation, as one line.
    pub fn summary(&self) -> String {
        first_paragraph(self.doc)
    }

    /// What has no documentation: the node, parameters, choices. Empty in a good schema; every
    /// crate that declares one asserts so in its tests.
    pub fn undocumented(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if self.doc.trim().is_empty() {
            missing.push(self.name.to_owned());
        }
        if self.rest.is_some_and(|doc| doc.trim().is_empty()) {
            missing.push(format!("{}: other parameters", self.name));
        }
        for param in self.params {
            if param.doc.trim().is_empty() {
                missing.push(format!("{}: {}", self.name, param.name));
            }
            for choice in param
                .choices
                .iter()
                .filter(|choice| choice.doc.trim().is_empty())
            {
                missing.push(format!("{}: {}={}", self.name, param.name, choice.name));
            }
        }
        missing
    }

    /// What is wrong with the schema itself: missing documentation, a key that means two
    /// parameters, two magic parameters, a default that does not parse. Empty in a good schema.
    pub fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = self
            .undocumented()
            .into_iter()
            .map(|what| format!("no documentation: {what}"))
            .collect();
        let keys: Vec<&str> = self.params.iter().flat_map(Param::keys).collect();
        for (index, key) in keys.iter().enumerate() {
            if !crate::arg::is_key(key) {
                problems.push(format!("{}: '{key}' cannot be written as a key", self.name));
            }
            if keys[..index].iter().any(|earlier| same_key(earlier, key)) {
                problems.push(format!("{}: '{key}' means two parameters", self.name));
            }
        }
        if self.params.iter().filter(|param| param.magic).count() > 1 {
            problems.push(format!("{}: two magic parameters", self.name));
        }
        for param in self.params {
            if let Some(default) = param.default
                && let Err(why) = (param.check)(default)
            {
                problems.push(format!("{}: default of {}: {why}", self.name, param.name));
            }
        }
        problems
    }
}

impl Param {
    /// The description of a field of type `T`.
    pub const fn of<T: Field>(name: &'static str, doc: &'static str) -> Self {
        Self {
            name,
            aliases: &[],
            doc,
            type_name: T::Item::TYPE,
            kind: T::Item::KIND,
            choices: T::Item::CHOICES,
            default: None,
            required: T::REQUIRED,
            magic: false,
            repeated: T::REPEATED,
            check: check::<T::Item>,
        }
    }

    /// With other keys of the same meaning.
    #[must_use]
    pub const fn aliases(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    /// With the value it has when it is not given.
    #[must_use]
    pub const fn default(mut self, text: &'static str) -> Self {
        self.default = Some(text);
        self.required = false;
        self
    }

    /// With another placeholder in help.
    #[must_use]
    pub const fn type_name(mut self, type_name: &'static str) -> Self {
        self.type_name = type_name;
        self
    }

    /// Takes bare values.
    #[must_use]
    pub const fn magic(mut self) -> Self {
        self.magic = true;
        self
    }

    /// Must be given.
    #[must_use]
    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// The first paragraph of the documentation, as one line.
    pub fn summary(&self) -> String {
        first_paragraph(self.doc)
    }

    /// The name and the aliases.
    pub fn keys(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }
}

impl Kind {
    /// What a value of this type looks like, in one line; `None` if any text is one.
    pub const fn grammar(self) -> Option<&'static str> {
        match self {
            Kind::Text | Kind::Path | Kind::Choice => None,
            Kind::Boolean => Some("booleans: 1 true t yes y on, or 0 false f no n off"),
            Kind::Integer { .. } => Some("integers: 10, 0xa or 012 (a leading 0 means octal)"),
            Kind::Number => Some("numbers: 10, 0.5 or 1e-3"),
            Kind::Size => Some(
                "sizes: bytes, or a suffix of k M G T P E (powers of 1024), s (512), b (1): 64k, 10G",
            ),
            Kind::Duration => Some("delays: seconds, or a unit of s ms us ns: 0.5, 20ms"),
            Kind::Probability => Some("probabilities: 0.1, 10%, 1:10 or 1/10"),
        }
    }
}

/// Whether two keys are the same: `-` and `_` are.
pub(crate) fn same_key(a: &str, b: &str) -> bool {
    let plain = |byte: u8| if byte == b'_' { b'-' } else { byte };
    a.len() == b.len() && a.bytes().map(plain).eq(b.bytes().map(plain))
}

/// Whether `text` is a value of `T`.
fn check<T: Value>(text: &str) -> Result<(), String> {
    T::parse(text).map(drop)
}

fn first_paragraph(doc: &str) -> String {
    paragraphs(doc).next().unwrap_or_default()
}

/// The paragraphs of a documentation text, each as one line.
pub(crate) fn paragraphs(doc: &str) -> impl Iterator<Item = String> {
    doc.split("\n\n")
        .map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|text| !text.is_empty())
}
