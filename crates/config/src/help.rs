//! Help text, made from a schema: what `blkit help NODE` prints.

use crate::schema::paragraphs;
use crate::{Param, Schema};

/// Width of the text, in columns.
const WIDTH: usize = 80;
/// The widest left column; a longer one stands on a line of its own.
const LEFT_MOST: usize = 26;
/// The longest list of choices shown in place of the placeholder.
const CHOICES_MOST: usize = 20;

impl Schema {
    /// The help text: what the node does, then each parameter with its value, meaning, default
    /// and choices, aligned, at most 80 columns wide where words allow. Ends with a newline.
    pub fn help(&self) -> String {
        let mut out = format!("{}:", self.name);
        let mut first = true;
        for paragraph in paragraphs(self.doc) {
            let indent = if first { String::new() } else { " ".repeat(2) };
            if !first {
                out.push_str("\n\n");
            }
            let used = if first { self.name.len() + 2 } else { 2 };
            let lines = wrap(&paragraph, WIDTH.saturating_sub(used));
            out.push_str(if first { " " } else { &indent });
            out.push_str(&lines.join(&format!("\n{}", " ".repeat(used))));
            first = false;
        }
        out.push('\n');
        let mut rows: Vec<(String, Vec<String>)> = self.params.iter().map(row).collect();
        if let Some(doc) = self.rest {
            rows.push(("KEY=VALUE".into(), paragraphs(doc).collect()));
        }
        if rows.is_empty() {
            return out;
        }
        out.push('\n');
        let widths = rows.iter().map(|(left, _)| left.chars().count());
        let column = widths
            .filter(|&width| width <= LEFT_MOST)
            .max()
            .unwrap_or(LEFT_MOST);
        for (left, right) in &rows {
            push_row(&mut out, left, right, column);
        }
        out
    }
}

/// One parameter: `key=VALUE`, and the paragraphs beside it.
fn row(param: &Param) -> (String, Vec<String>) {
    let names: Vec<&str> = param.choices.iter().map(|choice| choice.name).collect();
    let joined = names.join("|");
    let value = if names.is_empty() || joined.len() > CHOICES_MOST {
        param.type_name
    } else {
        joined.as_str()
    };
    let mut text: Vec<String> = paragraphs(param.doc).collect();
    for choice in param.choices {
        let doc = paragraphs(choice.doc).next().unwrap_or_default();
        text.push(format!("{}: {doc}", choice.name));
    }
    let mut notes = Vec::new();
    if param.required {
        notes.push("required".to_owned());
    }
    if let Some(default) = param.default {
        notes.push(if default.is_empty() {
            "default: empty".to_owned()
        } else {
            format!("default: {default}")
        });
    }
    if param.repeated {
        notes.push("may be repeated".to_owned());
    }
    if param.magic {
        notes.push(format!("'{}=' may be left out", param.name));
    }
    if !param.aliases.is_empty() {
        notes.push(format!("also: {}", param.aliases.join(", ")));
    }
    if !notes.is_empty() {
        text.push(format!("[{}]", notes.join("; ")));
    }
    (format!("{}={value}", param.name), text)
}

/// Writes one row: the left text, then the right text wrapped in its column.
fn push_row(out: &mut String, left: &str, right: &[String], column: usize) {
    let margin = 2 + column + 2;
    let mut lines = right
        .iter()
        .flat_map(|text| wrap(text, WIDTH.saturating_sub(margin)));
    out.push_str("  ");
    out.push_str(left);
    let width = left.chars().count();
    if width <= column
        && let Some(line) = lines.next()
    {
        out.push_str(&" ".repeat(column - width + 2));
        out.push_str(&line);
    }
    for line in lines {
        out.push('\n');
        out.push_str(&" ".repeat(margin));
        out.push_str(&line);
    }
    out.push('\n');
}

/// Breaks `text` between words into lines of at most `width` columns; a longer word stays whole.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Size;

    #[test]
    fn help_is_aligned_and_complete() {
        const PARAMS: &[Param] = &[
            Param::of::<Size>("size", "The size of the disk.")
                .required()
                .magic(),
            Param::of::<bool>(
                "direct",
                "Bypass the page cache.\n\nNeeds aligned requests.",
            )
            .default("false")
            .aliases(&["o-direct"]),
            Param::of::<Vec<String>>("a-key-that-is-too-long-for-its-column", "Words."),
        ];
        let schema = Schema {
            name: "demo",
            doc: "Show help.\n\nMore about it.",
            params: PARAMS,
            rest: Some("Variables."),
        };
        let expected = "\
demo: Show help.

  More about it.

  size=SIZE    The size of the disk.
               [required; 'size=' may be left out]
  direct=BOOL  Bypass the page cache.
               Needs aligned requests.
               [default: false; also: o-direct]
  a-key-that-is-too-long-for-its-column=TEXT
               Words.
               [may be repeated]
  KEY=VALUE    Variables.
";
        assert_eq!(schema.help(), expected);
    }

    #[test]
    fn long_text_is_wrapped() {
        const PARAMS: &[Param] = &[Param::of::<String>(
            "key",
            "word word word word word word word \
            word word word word word word word word word word word word word word word word",
        )];
        let schema = Schema {
            name: "n",
            doc: "",
            params: PARAMS,
            rest: None,
        };
        let help = schema.help();
        assert!(help.lines().all(|line| line.len() <= WIDTH), "{help}");
        assert_eq!(help.matches("word").count(), 23);
        assert!(help.lines().count() > 3);
    }
}
