//! `#[derive(Config)]`.

use crate::attr::{self, Attrs, kebab};
use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt;
use syn::{Data, DeriveInput, Error, Field, Fields, Path, Result};

/// The code of the implementation.
pub fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let attrs = attr::read(&input.attrs, &["name", "check", "crate"])?;
    let fields = fields(input)?;
    let library = attrs.library();
    let name = node_name(input, &attrs)?;
    let (mut params, mut builds, mut rest) = (Vec::new(), Vec::new(), quote!(None));
    let (mut has_magic, mut has_rest, mut keys) = (false, false, Vec::<String>::new());
    for field in fields {
        let Some(ident) = &field.ident else { continue };
        let attrs = attr::read(&field.attrs, FIELD_ATTRIBUTES)?;
        if let Some(span) = attrs.rest {
            if std::mem::replace(&mut has_rest, true) {
                return Err(Error::new(span, "two fields take the rest"));
            }
            only_rest(&attrs)?;
            let doc = &attrs.doc;
            rest = quote!(Some(#doc));
            builds.push(quote!(#ident: values.rest()));
            continue;
        }
        if let Some(span) = attrs.magic
            && std::mem::replace(&mut has_magic, true)
        {
            return Err(Error::new(span, "two fields take bare values"));
        }
        if let (Some(span), Some(_)) = (attrs.required, &attrs.default) {
            return Err(Error::new(
                span,
                "a required parameter has no use for a default",
            ));
        }
        let key = field_key(field, &attrs, &mut keys)?;
        let place = params.len();
        params.push(param(field, &attrs, &key, &library));
        builds.push(quote!(#ident: values.field(#place)?));
    }
    let check = attrs
        .check
        .iter()
        .map(|path| quote!(values.checked(#path(&this))?;));
    let (ident, doc) = (&input.ident, &attrs.doc);
    Ok(quote! {
        #[automatically_derived]
        impl #library::Config for #ident {
            fn schema() -> &'static #library::Schema {
                const PARAMS: &[#library::Param] = &[#(#params),*];
                static SCHEMA: #library::Schema =
                    #library::Schema { name: #name, doc: #doc, params: PARAMS, rest: #rest };
                &SCHEMA
            }

            fn from_args(
                args: &[#library::Arg],
            ) -> ::core::result::Result<Self, #library::ConfigError> {
                #[allow(unused_mut, unused_variables)]
                let mut values = #library::Values::sort(Self::schema(), args)?;
                let this = Self { #(#builds),* };
                #(#check)*
                ::core::result::Result::Ok(this)
            }
        }
    })
}

const FIELD_ATTRIBUTES: &[&str] = &[
    "name", "alias", "default", "magic", "required", "value", "rest",
];

fn fields(input: &DeriveInput) -> Result<impl Iterator<Item = &Field>> {
    if !input.generics.params.is_empty() {
        return Err(Error::new_spanned(
            &input.generics,
            "Config is for structs without generics",
        ));
    }
    match &input.data {
        Data::Struct(data) if !matches!(data.fields, Fields::Unnamed(_)) => Ok(data.fields.iter()),
        _ => Err(Error::new_spanned(
            &input.ident,
            "Config is for structs with named fields",
        )),
    }
}

fn node_name(input: &DeriveInput, attrs: &Attrs) -> Result<String> {
    if let Some(name) = &attrs.name {
        return Ok(name.value());
    }
    let ident = input.ident.unraw().to_string();
    match ident.strip_suffix("Config").unwrap_or(&ident) {
        "" => Err(Error::new_spanned(
            &input.ident,
            "say the node's name: #[config(name = \"...\")]",
        )),
        name => Ok(kebab(name)),
    }
}

/// The key of a field; refuses one that an earlier field has.
fn field_key(field: &Field, attrs: &Attrs, keys: &mut Vec<String>) -> Result<String> {
    let ident = field
        .ident
        .as_ref()
        .map(|ident| ident.unraw().to_string())
        .unwrap_or_default();
    let name = attrs
        .name
        .as_ref()
        .map_or_else(|| kebab(&ident), syn::LitStr::value);
    let all = std::iter::once(name.clone()).chain(attrs.aliases.iter().map(syn::LitStr::value));
    for key in all {
        let plain = key.replace('_', "-");
        if keys.contains(&plain) {
            return Err(Error::new_spanned(
                &field.ident,
                format!("the key '{key}' is taken"),
            ));
        }
        if !key.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return Err(Error::new_spanned(
                &field.ident,
                "a key starts with a letter",
            ));
        }
        keys.push(plain);
    }
    Ok(name)
}

/// The expression that describes a field.
fn param(field: &Field, attrs: &Attrs, key: &str, library: &Path) -> TokenStream {
    let (ty, doc) = (&field.ty, &attrs.doc);
    let mut code = quote!(#library::Param::of::<#ty>(#key, #doc));
    if !attrs.aliases.is_empty() {
        let aliases = &attrs.aliases;
        code.extend(quote!(.aliases(&[#(#aliases),*])));
    }
    if let Some(default) = &attrs.default {
        code.extend(quote!(.default(#default)));
    }
    if let Some(type_name) = &attrs.type_name {
        code.extend(quote!(.type_name(#type_name)));
    }
    if attrs.magic.is_some() {
        code.extend(quote!(.magic()));
    }
    if attrs.required.is_some() {
        code.extend(quote!(.required()));
    }
    code
}

/// `rest` has no key, so nothing else can be said of it.
fn only_rest(attrs: &Attrs) -> Result<()> {
    let others = [&attrs.name, &attrs.default, &attrs.type_name];
    let literal = others
        .into_iter()
        .flatten()
        .chain(&attrs.aliases)
        .map(syn::LitStr::span)
        .next();
    match literal.or(attrs.magic).or(attrs.required) {
        Some(span) => Err(Error::new(span, "not together with 'rest'")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use syn::parse_quote;

    fn error(input: DeriveInput) -> String {
        expand(&input).expect_err("must be refused").to_string()
    }

    #[test]
    fn wrong_uses_are_refused() {
        let table: Vec<(DeriveInput, &str)> = vec![
            (
                parse_quote!(
                    enum E {
                        A,
                    }
                ),
                "structs with named fields",
            ),
            (
                parse_quote!(
                    struct S(u8);
                ),
                "structs with named fields",
            ),
            (
                parse_quote!(
                    struct S<T> {
                        a: T,
                    }
                ),
                "without generics",
            ),
            (
                parse_quote!(
                    struct Config {
                        a: u8,
                    }
                ),
                "say the node's name",
            ),
            (
                parse_quote!(
                    struct S {
                        #[config(magick)]
                        a: u8,
                    }
                ),
                "unknown attribute 'magick'",
            ),
            (
                parse_quote!(
                    struct S {
                        #[config(check = f)]
                        a: u8,
                    }
                ),
                "unknown attribute 'check'",
            ),
            (
                parse_quote!(
                    #[config(default = "1")]
                    struct S {
                        a: u8,
                    }
                ),
                "unknown attribute 'default'",
            ),
            (
                parse_quote!(
                    struct S {
                        #[config(magic, magic)]
                        a: u8,
                    }
                ),
                "given twice",
            ),
            (
                parse_quote!(
                    struct S {
                        #[config(name = "a", name = "b")]
                        a: u8,
                    }
                ),
                "given twice",
            ),
            (
                parse_quote!(
                    struct S {
                        #[config(name = "a b")]
                        a: u8,
                    }
                ),
                "a name is letters",
            ),
            (
                parse_quote!(
                    struct S {
                        #[config(name = "")]
                        a: u8,
                    }
                ),
                "a name is letters",
            ),
            (
                parse_quote!(
                    struct S {
                        #[config(name = "9")]
                        a: u8,
                    }
                ),
                "starts with a letter",
            ),
            (
                parse_quote!(
                    struct S {
                        #[config(default = 1)]
                        a: u8,
                    }
                ),
                "expected string literal",
            ),
            (
                parse_quote!(
                    struct S {
                        #[config(default)]
                        a: u8,
                    }
                ),
                "expected `=`",
            ),
            (
                parse_quote!(
                    struct S {
                        a_b: u8,
                        #[config(alias = "a-b")]
                        c: u8,
                    }
                ),
                "'a-b' is taken",
            ),
            (
                parse_quote!(
                    struct S {
                        #[config(magic)]
                        a: u8,
                        #[config(magic)]
                        b: u8,
                    }
                ),
                "two fields take bare values",
            ),
            (
                parse_quote!(
                    struct S {
                        #[config(rest)]
                        a: R,
                        #[config(rest)]
                        b: R,
                    }
                ),
                "two fields take the rest",
            ),
            (
                parse_quote!(
                    struct S {
                        #[config(rest, magic)]
                        a: R,
                    }
                ),
                "not together with 'rest'",
            ),
            (
                parse_quote!(
                    struct S {
                        #[config(rest, alias = "b")]
                        a: R,
                    }
                ),
                "not together",
            ),
            (
                parse_quote!(
                    struct S {
                        #[config(required, default = "1")]
                        a: u8,
                    }
                ),
                "no use for",
            ),
        ];
        for (input, expected) in table {
            let text = quote!(#input).to_string();
            let message = error(input);
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    #[test]
    fn the_library_can_be_elsewhere() {
        let code = expand(&parse_quote!(
            #[config(crate = a::b)]
            struct S {
                x: u8,
            }
        ))
        .unwrap();
        let code = code.to_string();
        assert!(code.contains("impl a :: b :: Config for S"), "{code}");
        assert!(!code.contains(":: config ::"), "{code}");
    }
}
