//! What is known about an export, and how it is told.

use nbd::{Mode, client::Connected, proto, uri::Uri};

use crate::{
    report::one_line,
    tools::{human, json_string},
};

/// One thing that an export or its server may have or be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ability {
    /// What every export that can be connected to has.
    Any,
    /// Not read-only.
    Write,
    /// The connection is encrypted.
    Tls,
    /// Replies come in chunks.
    Structured,
    /// Lengths have 64 bits.
    Extended,
    /// A transmission flag.
    Flag(u16),
}

/// Names without what may stand between their words, and what they mean.
const NAMES: &[(&str, Ability)] = &[
    ("connect", Ability::Any),
    ("read", Ability::Any),
    ("write", Ability::Write),
    ("tls", Ability::Tls),
    ("structured-reply", Ability::Structured),
    ("structured-replies", Ability::Structured),
    ("structured", Ability::Structured),
    ("sr", Ability::Structured),
    ("extended-headers", Ability::Extended),
    ("extended-header", Ability::Extended),
    ("extended", Ability::Extended),
    ("eh", Ability::Extended),
    (
        "block-status-payload",
        Ability::Flag(proto::FLAG_BLOCK_STATUS_PAYLOAD),
    ),
    ("read-only", Ability::Flag(proto::FLAG_READ_ONLY)),
    ("rotational", Ability::Flag(proto::FLAG_ROTATIONAL)),
    ("cache", Ability::Flag(proto::FLAG_SEND_CACHE)),
    ("df", Ability::Flag(proto::FLAG_SEND_DF)),
    ("fast-zero", Ability::Flag(proto::FLAG_SEND_FAST_ZERO)),
    ("flush", Ability::Flag(proto::FLAG_SEND_FLUSH)),
    ("fua", Ability::Flag(proto::FLAG_SEND_FUA)),
    ("multi-conn", Ability::Flag(proto::FLAG_CAN_MULTI_CONN)),
    ("trim", Ability::Flag(proto::FLAG_SEND_TRIM)),
    ("zero", Ability::Flag(proto::FLAG_SEND_WRITE_ZEROES)),
];

impl Ability {
    /// By one of its names: case, `-` and `_` do not matter.
    pub fn named(name: &str) -> Option<Ability> {
        let plain = |name: &str| name.to_lowercase().replace(['-', '_', ' '], "");
        let wanted = plain(name);
        let found = NAMES.iter().find(|(known, _)| plain(known) == wanted);
        found.map(|(_, ability)| *ability)
    }

    /// One name of each.
    pub fn all() -> impl Iterator<Item = &'static str> {
        let mut seen: Vec<Ability> = Vec::new();
        NAMES.iter().filter_map(move |(name, ability)| {
            if *ability != Ability::Any && seen.contains(ability) {
                return None;
            }
            seen.push(*ability);
            Some(*name)
        })
    }

    /// Whether an export has it.
    pub fn is_of(self, connected: &Connected) -> bool {
        match self {
            Ability::Any => true,
            Ability::Write => connected.flags & proto::FLAG_READ_ONLY == 0,
            Ability::Tls => connected.tls,
            Ability::Structured => connected.mode != Mode::Simple,
            Ability::Extended => connected.mode.is_extended(),
            Ability::Flag(flag) => connected.flags & flag != 0,
        }
    }
}

/// An export and its server, as far as they were looked at.
pub struct Export {
    /// Its name.
    pub name: String,
    /// As it was listed, or told.
    pub description: Option<String>,
    /// What was agreed on.
    pub connected: Connected,
    /// Names of all metadata contexts.
    pub contexts: Vec<String>,
    /// The way to it.
    pub uri: Uri,
    /// What is in it.
    pub content: Option<String>,
}

/// Abilities in the order of the listing, by the names they have there.
const LISTED: &[(&str, u16)] = &[
    ("is_rotational", proto::FLAG_ROTATIONAL),
    ("is_read_only", proto::FLAG_READ_ONLY),
    ("can_block_status_payload", proto::FLAG_BLOCK_STATUS_PAYLOAD),
    ("can_cache", proto::FLAG_SEND_CACHE),
    ("can_df", proto::FLAG_SEND_DF),
    ("can_fast_zero", proto::FLAG_SEND_FAST_ZERO),
    ("can_flush", proto::FLAG_SEND_FLUSH),
    ("can_fua", proto::FLAG_SEND_FUA),
    ("can_multi_conn", proto::FLAG_CAN_MULTI_CONN),
    ("can_trim", proto::FLAG_SEND_TRIM),
    ("can_zero", proto::FLAG_SEND_WRITE_ZEROES),
];

impl Export {
    fn listed(&self) -> impl Iterator<Item = (&'static str, bool)> {
        let flags = self.connected.flags;
        LISTED
            .iter()
            .map(move |&(name, flag)| (name, flags & flag != 0))
    }

    /// Block sizes, if the server told them.
    fn block_sizes(&self) -> Vec<(&'static str, u64)> {
        let Some(sizes) = self.connected.block_sizes else {
            return Vec::new();
        };
        vec![
            ("block_size_minimum", sizes.minimum.into()),
            ("block_size_preferred", sizes.preferred.into()),
            ("block_size_maximum", sizes.maximum.into()),
        ]
    }

    /// For people.
    pub fn text(&self, color: bool) -> String {
        let paint = |code: &str| {
            if color {
                format!("\x1b[{code}m")
            } else {
                String::new()
            }
        };
        let mut text = format!("{}export=\"{}\":\n", paint("1;35"), one_line(&self.name));
        let mut line = |name: &str, value: &str| {
            text.push_str(&format!("\t{name}: {}\n", one_line(value)));
        };
        if let Some(description) = &self.description {
            line("description", description);
        }
        line("export-size", &with_human(self.connected.size));
        if let Some(content) = &self.content {
            line("content", content);
        }
        text.push_str(&paint("0"));
        text.push_str(&format!("\turi: {}\n", self.uri));
        if !self.contexts.is_empty() {
            text.push_str("\tcontexts:\n");
            for context in &self.contexts {
                text.push_str(&format!("\t\t{}\n", one_line(context)));
            }
        }
        for (name, yes) in self.listed() {
            let line = format!("\t{name}: {yes}\n");
            match name.starts_with("can_") {
                true => {
                    let code = if yes { "22;32" } else { "22;31" };
                    text.push_str(&format!("{}{line}{}", paint(code), paint("0")));
                }
                false => text.push_str(&line),
            }
        }
        for (name, size) in self.block_sizes() {
            text.push_str(&format!("\t{name}: {}\n", with_human(size)));
        }
        text
    }

    /// As an object of a JSON list.
    pub fn json(&self) -> String {
        let mut members = vec![("export-name", json_string(&self.name))];
        if let Some(description) = &self.description {
            members.push(("description", json_string(description)));
        }
        if let Some(content) = &self.content {
            members.push(("content", json_string(content)));
        }
        members.push(("uri", json_string(&self.uri.to_string())));
        if !self.contexts.is_empty() {
            let names: Vec<String> = self
                .contexts
                .iter()
                .map(|name| format!("\t\t{}", json_string(name)))
                .collect();
            members.push(("contexts", format!("[\n{}\n\t]", names.join(",\n"))));
        }
        members.extend(self.listed().map(|(name, yes)| (name, yes.to_string())));
        let sizes = self.block_sizes().into_iter();
        members.extend(sizes.map(|(name, size)| (name, size.to_string())));
        members.push(("export-size", self.connected.size.to_string()));
        members.push(("export-size-str", json_string(&human(self.connected.size))));
        let lines: Vec<String> = members
            .iter()
            .map(|(name, value)| format!("\t\"{name}\": {value}"))
            .collect();
        format!("\t{{\n{}\n\t}}", lines.join(",\n"))
    }
}

fn with_human(size: u64) -> String {
    let short = human(size);
    match short == size.to_string() {
        true => short,
        false => format!("{size} ({short})"),
    }
}

/// What a connection says about its server, in front of the exports.
pub fn server_text(connected: &Connected) -> String {
    let tls = if connected.tls { "with" } else { "without" };
    let packets = match connected.mode {
        Mode::Simple => "simple",
        Mode::Structured => "structured",
        Mode::Extended => "extended",
    };
    format!("protocol: newstyle-fixed {tls} TLS, using {packets} packets\n")
}

/// The same with exports, in JSON.
pub fn server_json(connected: &Connected, exports: &[Export]) -> String {
    let exports: Vec<String> = exports.iter().map(Export::json).collect();
    format!(
        "{{\n\"protocol\": \"newstyle-fixed\",\n\"TLS\": {},\n\"structured\": {},\n\
         \"extended\": {},\n\"exports\": [\n{} ]\n}}\n",
        connected.tls,
        connected.mode != Mode::Simple,
        connected.mode.is_extended(),
        exports.join(",\n"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abilities_have_many_names() {
        assert_eq!(Ability::named("Fast_Zero"), Ability::named("fastzero"));
        assert_eq!(Ability::named("SR"), Some(Ability::Structured));
        assert_eq!(Ability::named("fly"), None);
        let all: Vec<_> = Ability::all().collect();
        assert!(all.contains(&"connect") && all.contains(&"read") && !all.contains(&"sr"));
    }

    #[test]
    fn sizes_are_told_twice_where_they_are_round() {
        assert_eq!(with_human(1 << 20), "1048576 (1M)");
        assert_eq!(with_human(695), "695");
    }
}
