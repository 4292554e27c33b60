//! `#[derive(Choice)]`.

use crate::attr::{self, kebab};
use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt;
use syn::punctuated::Punctuated;
use syn::{Data, DeriveInput, Error, Fields, LitStr, Path, Result, Token, Variant};

/// The code of the implementations.
pub fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let attrs = attr::read(&input.attrs, &["value", "crate"])?;
    let library = attrs.library();
    let variants = match &input.data {
        Data::Enum(data) if !data.variants.is_empty() => &data.variants,
        _ => {
            return Err(Error::new_spanned(
                &input.ident,
                "Choice is for enums with variants",
            ));
        }
    };
    let Texts {
        entries,
        infos,
        arms,
    } = texts(variants, &library)?;
    let ident = &input.ident;
    let type_name = attrs.type_name.as_ref().map_or_else(
        || kebab(&ident.unraw().to_string()).to_uppercase(),
        LitStr::value,
    );
    Ok(quote! {
        #[automatically_derived]
        impl #library::Choice for #ident {
            const VARIANTS: &'static [(#library::ChoiceInfo, Self)] = &[#(#entries),*];

            fn name(self) -> &'static str {
                match self { #(#arms),* }
            }
        }

        #[automatically_derived]
        impl #library::Value for #ident {
            const TYPE: &'static str = #type_name;
            const KIND: #library::Kind = #library::Kind::Choice;
            const CHOICES: &'static [#library::ChoiceInfo] = &[#(#infos),*];

            fn parse(text: &str) -> ::core::result::Result<Self, ::std::string::String> {
                #library::choice_from(text)
            }
        }

        #[automatically_derived]
        impl ::core::fmt::Display for #ident {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.pad(#library::Choice::name(*self))
            }
        }
    })
}

/// The code for the variants: each in three forms.
#[derive(Default)]
struct Texts {
    /// `(info, Self::Variant)`.
    entries: Vec<TokenStream>,
    /// `ChoiceInfo { .. }`.
    infos: Vec<TokenStream>,
    /// `Self::Variant => "name"`.
    arms: Vec<TokenStream>,
}

fn texts(variants: &Punctuated<Variant, Token![,]>, library: &Path) -> Result<Texts> {
    let mut texts = Texts::default();
    let mut names: Vec<String> = Vec::new();
    for variant in variants {
        if !matches!(variant.fields, Fields::Unit) {
            return Err(Error::new_spanned(variant, "a choice has no fields"));
        }
        let attrs = attr::read(&variant.attrs, &["name", "alias"])?;
        let (ident, aliases, doc) = (&variant.ident, &attrs.aliases, &attrs.doc);
        let name = attrs.name.as_ref().map(LitStr::value);
        let name = name.unwrap_or_else(|| kebab(&ident.unraw().to_string()));
        for text in std::iter::once(name.clone()).chain(aliases.iter().map(LitStr::value)) {
            let plain = text.replace('_', "-");
            if names.contains(&plain) {
                return Err(Error::new_spanned(
                    ident,
                    format!("the name '{text}' is taken"),
                ));
            }
            names.push(plain);
        }
        let info =
            quote!(#library::ChoiceInfo { name: #name, aliases: &[#(#aliases),*], doc: #doc });
        texts.entries.push(quote!((#info, Self::#ident)));
        texts.infos.push(info);
        texts.arms.push(quote!(Self::#ident => #name));
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use syn::parse_quote;

    #[test]
    fn wrong_uses_are_refused() {
        let table: Vec<(DeriveInput, &str)> = vec![
            (
                parse_quote!(
                    struct S {
                        a: u8,
                    }
                ),
                "enums with variants",
            ),
            (
                parse_quote!(
                    enum E {}
                ),
                "enums with variants",
            ),
            (
                parse_quote!(
                    enum E {
                        A(u8),
                    }
                ),
                "no fields",
            ),
            (
                parse_quote!(
                    enum E {
                        #[config(magic)]
                        A,
                    }
                ),
                "unknown attribute 'magic'",
            ),
            (
                parse_quote!(
                    enum E {
                        A,
                        #[config(alias = "a")]
                        B,
                    }
                ),
                "'a' is taken",
            ),
            (
                parse_quote!(
                    enum E {
                        A_B,
                        #[config(name = "a-b")]
                        C,
                    }
                ),
                "'a-b' is taken",
            ),
        ];
        for (input, expected) in table {
            let text = quote!(#input).to_string();
            let message = expand(&input).expect_err("must be refused").to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }
}
