//! Reads `#[config(...)]` attributes and doc comments.

use proc_macro2::Span;
use quote::ToTokens;
use syn::{
    Attribute, Error, Expr, ExprLit, Lit, LitStr, Meta, Path, Result, meta::ParseNestedMeta,
};

/// What the attributes of a struct, a field, an enum or a variant say.
#[derive(Default)]
pub struct Attrs {
    pub doc: String,
    pub name: Option<LitStr>,
    pub aliases: Vec<LitStr>,
    pub default: Option<LitStr>,
    pub type_name: Option<LitStr>,
    pub check: Option<Path>,
    pub krate: Option<Path>,
    pub magic: Option<Span>,
    pub required: Option<Span>,
    pub rest: Option<Span>,
}

/// Reads the attributes; those not in `allowed` are refused.
pub fn read(attributes: &[Attribute], allowed: &[&str]) -> Result<Attrs> {
    let mut attrs = Attrs {
        doc: doc(attributes),
        ..Attrs::default()
    };
    for attribute in attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("config"))
    {
        attribute.parse_nested_meta(|meta| {
            let word = meta.path.to_token_stream().to_string();
            if !allowed.contains(&word.as_str()) {
                let known = allowed.join(", ");
                return Err(meta.error(format!("unknown attribute '{word}'; here: {known}")));
            }
            attrs.set(&word, &meta)
        })?;
    }
    Ok(attrs)
}

impl Attrs {
    fn set(&mut self, word: &str, meta: &ParseNestedMeta<'_>) -> Result<()> {
        match word {
            "alias" => {
                self.aliases.push(key(meta)?);
                Ok(())
            }
            "name" => once(&mut self.name, key(meta)?, meta),
            "default" => once(&mut self.default, meta.value()?.parse()?, meta),
            "value" => once(&mut self.type_name, meta.value()?.parse()?, meta),
            "check" => once(&mut self.check, meta.value()?.parse()?, meta),
            "crate" => once(&mut self.krate, meta.value()?.parse()?, meta),
            "magic" => once(&mut self.magic, meta.path.segments[0].ident.span(), meta),
            "required" => once(&mut self.required, meta.path.segments[0].ident.span(), meta),
            "rest" => once(&mut self.rest, meta.path.segments[0].ident.span(), meta),
            _ => Err(meta.error("unknown attribute")),
        }
    }

    /// The path of the library in the code we write.
    pub fn library(&self) -> Path {
        self.krate
            .clone()
            .unwrap_or_else(|| syn::parse_quote!(::config))
    }
}

fn once<T>(slot: &mut Option<T>, value: T, meta: &ParseNestedMeta<'_>) -> Result<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(meta.error("given twice")),
    }
}

/// A string that can be written as a key on a command line.
fn key(meta: &ParseNestedMeta<'_>) -> Result<LitStr> {
    let text: LitStr = meta.value()?.parse()?;
    let value = text.value();
    let good = value.starts_with(|c: char| c.is_ascii_alphanumeric())
        && value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if good {
        Ok(text)
    } else {
        Err(Error::new(
            text.span(),
            "a name is letters, digits, '.', '_' and '-'",
        ))
    }
}

/// The doc comment, its lines without the space after the slashes.
fn doc(attributes: &[Attribute]) -> String {
    let lines = attributes
        .iter()
        .filter_map(|attribute| match &attribute.meta {
            Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
                Expr::Lit(ExprLit {
                    lit: Lit::Str(text),
                    ..
                }) => Some(text.value()),
                _ => None,
            },
            _ => None,
        });
    let text: Vec<String> = lines.collect();
    // A block comment is one attribute of several lines.
    let lines: Vec<&str> = text
        .iter()
        .flat_map(|text| text.split('\n'))
        .map(str::trim)
        .collect();
    lines.join("\n").trim().to_owned()
}

/// `SomeName` or `some_name` as `some-name`; a run of capitals is one word (`HTTPSource`).
pub fn kebab(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut out = String::new();
    for (place, &letter) in letters.iter().enumerate() {
        if letter == '_' {
            out.push('-');
            continue;
        }
        let before = place.checked_sub(1).map(|before| letters[before]);
        let after_small = before.is_some_and(|c| c.is_lowercase() || c.is_ascii_digit());
        let ends_run = before.is_some_and(char::is_uppercase)
            && letters.get(place + 1).is_some_and(|c| c.is_lowercase());
        if letter.is_uppercase() && (after_small || ends_run) {
            out.push('-');
        }
        out.extend(letter.to_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use syn::parse_quote;

    #[test]
    fn names_become_kebab_case() {
        let table = [
            ("read_size", "read-size"),
            ("file", "file"),
            ("WriteThrough", "write-through"),
            ("HTTPSource", "http-source"),
            ("Luks", "luks"),
            ("Qcow2Image", "qcow2-image"),
            ("X", "x"),
        ];
        for (name, expected) in table {
            assert_eq!(kebab(name), expected);
        }
    }

    #[test]
    fn doc_comments_keep_their_paragraphs() {
        let field: syn::ItemStruct = parse_quote! {
            /// One
            /// line.
            ///
            /// Two.
            struct S;
        };
        assert_eq!(doc(&field.attrs), "One\nline.\n\nTwo.");
        let field: syn::ItemStruct = parse_quote! {
            #[doc = " A\n B\n"]
            struct S;
        };
        assert_eq!(doc(&field.attrs), "A\nB");
    }
}
