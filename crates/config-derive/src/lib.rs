//! The derive macros of `blkit-config`; use them through that crate, which documents them.
//!
//! A macro only reads names, doc comments and attributes and writes calls to the library, so the
//! rules (what repeats, what is required, how text is read) live in traits there, resolved by
//! the compiler from the field's type, and not in guesses about the spelling of the type.
//!
//! Contract: a wrong attribute is a compile error at its place; nothing is silently ignored.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod attr;
mod choice;
mod config;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Derives `config::Config` for a struct with named fields.
#[proc_macro_derive(Config, attributes(config))]
pub fn derive_config(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    config::expand(&input)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Derives `config::Choice`, `config::Value` and `Display` for an enum of unit variants.
#[proc_macro_derive(Choice, attributes(config))]
pub fn derive_choice(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    choice::expand(&input)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}
