//! What the code says: the rules on source files, over their syntax trees.
//!
//! Parsed, not searched as text: a word in a comment or a string is no violation, and a grouped
//! import or a macro's argument is no hiding place. Code of tests (`#[cfg(test)]`, `#[test]`,
//! `tests/`, `benches/`, and files declared as test modules) is free of the rules on paths and
//! function lengths, not of those on unsafe code and file lengths.

use super::rules::{Check, Names, Rule, is_in};
use super::{Report, SourceFile};
use proc_macro2::{Span, TokenStream, TokenTree};
use quote::ToTokens;
use std::collections::BTreeSet;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, ImplItem, Item, Meta, Token, TraitItem, UseTree};

/// Judges `files`.
pub fn check(files: &[SourceFile], rules: &[Rule], report: &mut Report) {
    let parsed: Vec<_> = files
        .iter()
        .map(|file| (file, syn::parse_file(&file.text)))
        .collect();
    let mut tests = BTreeSet::new();
    for (file, tree) in &parsed {
        if let Ok(tree) = tree {
            test_modules(
                &tree.items,
                &module_folder(&file.path),
                &file.path,
                &mut tests,
            );
        }
    }
    for (file, tree) in &parsed {
        let is_test = is_test_path(&file.path) || tests.iter().any(|test| below(&file.path, test));
        for rule in rules {
            match (&rule.check, tree) {
                (Check::FileLines { note, most }, _) => {
                    file_lines(file, *note, *most, rule, report);
                }
                (Check::Parses, Err(error)) => {
                    let what = format!("cannot be parsed: {error}");
                    report.fail(rule, &file.path, error.span().start().line.max(1), what);
                }
                (Check::Unsafe { islands }, Ok(tree))
                    if !islands.iter().any(|island| file.path.starts_with(island)) =>
                {
                    unsafe_words(tree.to_token_stream(), &mut |span| {
                        let what = "unsafe code outside its islands".to_owned();
                        report.fail(rule, &file.path, span.start().line, what);
                    });
                }
                (Check::Paths { of, never }, Ok(tree))
                    if !is_test && is_in(of, crate_of(&file.path)) =>
                {
                    visit_paths(file, tree, never, rule, report);
                }
                (Check::FunctionLines { most }, Ok(tree)) if !is_test => {
                    let mut found = Functions {
                        most: *most,
                        found: Vec::new(),
                    };
                    found.visit_file(tree);
                    for (line, what) in found.found {
                        report.fail(rule, &file.path, line, what);
                    }
                }
                _ => {}
            }
        }
    }
}

fn file_lines(file: &SourceFile, note: usize, most: usize, rule: &Rule, report: &mut Report) {
    let lines = file.text.lines().count();
    if lines > most {
        report.fail(
            rule,
            &file.path,
            most + 1,
            format!("{lines} lines, the most is {most}"),
        );
    } else if lines > note {
        report.note(
            rule,
            &file.path,
            note + 1,
            format!("{lines} lines, {note} are wanted"),
        );
    }
}

/// Calls `found` for each word `unsafe`, also in attributes and in the arguments of macros.
fn unsafe_words(tokens: TokenStream, found: &mut dyn FnMut(Span)) {
    for token in tokens {
        match token {
            TokenTree::Ident(word) if word == "unsafe" => found(word.span()),
            TokenTree::Group(group) => unsafe_words(group.stream(), found),
            _ => {}
        }
    }
}

fn visit_paths(
    file: &SourceFile,
    tree: &syn::File,
    never: Names,
    rule: &Rule,
    report: &mut Report,
) {
    let mut paths = Paths {
        never,
        found: Vec::new(),
    };
    paths.visit_file(tree);
    for (line, what) in paths.found {
        report.fail(rule, &file.path, line, what);
    }
}

/// Finds forbidden paths outside test code.
struct Paths {
    never: Names,
    found: Vec<(usize, String)>,
}

impl Paths {
    /// Judges a path that is written in full.
    fn judge(&mut self, segments: &[String], span: Span) {
        let path = segments.join("::");
        if self.never.iter().any(|never| starts_with(&path, never)) {
            self.found
                .push((span.start().line, format!("names {path}")));
        }
    }

    /// Judges each path of an import. `hides`: the name that comes of it is another, or unseen.
    fn imports(&mut self, tree: &UseTree, before: &mut Vec<String>) {
        match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.imports(&path.tree, before);
                before.pop();
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.imports(tree, before);
                }
            }
            UseTree::Name(name) => self.import(&name.ident.to_string(), false, before, tree.span()),
            UseTree::Rename(name) => {
                self.import(&name.ident.to_string(), true, before, tree.span())
            }
            UseTree::Glob(_) => self.import("self", true, before, tree.span()),
        }
    }

    fn import(&mut self, last: &str, hides: bool, before: &[String], span: Span) {
        let mut segments = before.to_vec();
        if last != "self" {
            segments.push(last.to_owned());
        }
        let path = segments.join("::");
        // After `use std::os;` or `use std as other;` or `use std::*;` a forbidden path can be
        // written so that we do not see it.
        let parent = self
            .never
            .iter()
            .any(|never| path != *never && starts_with(never, &path));
        if parent && (hides || segments.len() > 1) {
            self.found.push((
                span.start().line,
                format!("hides paths by importing {path}"),
            ));
        } else {
            self.judge(&segments, span);
        }
    }

    /// Judges the paths in tokens that are not parsed: the arguments of macros.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut segments: Vec<String> = Vec::new();
        let (mut start, mut colons) = (Span::call_site(), 0);
        for token in tokens {
            match token {
                TokenTree::Ident(word) => {
                    if colons != 2 {
                        self.end_path(&mut segments, start);
                    }
                    if segments.is_empty() {
                        start = word.span();
                    }
                    segments.push(word.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                other => {
                    self.end_path(&mut segments, start);
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
        }
        self.end_path(&mut segments, start);
    }

    fn end_path(&mut self, segments: &mut Vec<String>, start: Span) {
        // A single word is more often a variable than a crate.
        if segments.len() > 1 {
            self.judge(segments, start);
        }
        segments.clear();
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item(&mut self, item: &'ast Item) {
        if !only_in_tests(item_attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        if !matches!(item, ImplItem::Fn(function) if only_in_tests(&function.attrs)) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.imports(&item.tree, &mut Vec::new());
    }

    fn visit_item_extern_crate(&mut self, item: &'ast syn::ItemExternCrate) {
        self.import(
            &item.ident.to_string(),
            item.rename.is_some(),
            &[],
            item.span(),
        );
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string())
            .collect();
        if segments.len() > 1 {
            self.judge(&segments, path.span());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.visit_path(&call.path);
        self.tokens(call.tokens.clone());
    }
}

/// Finds functions that are too long, outside test code.
struct Functions {
    most: usize,
    found: Vec<(usize, String)>,
}

impl Functions {
    fn judge(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let first = signature.span().start().line;
        let lines = block.brace_token.span.close().end().line - first + 1;
        if lines > self.most {
            let (name, most) = (&signature.ident, self.most);
            self.found.push((
                first,
                format!("function {name} has {lines} lines, the most is {most}"),
            ));
        }
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item(&mut self, item: &'ast Item) {
        if only_in_tests(item_attributes(item)) {
            return;
        }
        if let Item::Fn(function) = item {
            self.judge(&function.sig, &function.block);
        }
        visit::visit_item(self, item);
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        if let ImplItem::Fn(function) = item {
            if only_in_tests(&function.attrs) {
                return;
            }
            self.judge(&function.sig, &function.block);
        }
        visit::visit_impl_item(self, item);
    }

    fn visit_trait_item(&mut self, item: &'ast TraitItem) {
        if let TraitItem::Fn(function) = item
            && let Some(block) = &function.default
        {
            self.judge(&function.sig, block);
        }
        visit::visit_trait_item(self, item);
    }
}

/// Whether `path` is `start` or below it, by whole segments.
fn starts_with(path: &str, start: &str) -> bool {
    path.strip_prefix(start)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// What the rules call the crate that a file belongs to.
fn crate_of(path: &str) -> &str {
    let inner = path.strip_prefix("crates/").unwrap_or(path);
    inner.split('/').next().unwrap_or(inner)
}

/// Whether a file is a test by its place: a folder of tests in a package.
fn is_test_path(path: &str) -> bool {
    path.split('/')
        .any(|part| matches!(part, "tests" | "benches" | "vmtests" | "fuzz"))
}

/// Whether code with these attributes exists only in tests.
fn only_in_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || (attribute.path().is_ident("cfg")
                && attribute
                    .parse_args::<Meta>()
                    .is_ok_and(|condition| needs_test(&condition)))
    })
}

/// Whether a condition can only hold in tests.
fn needs_test(condition: &Meta) -> bool {
    let Meta::List(list) = condition else {
        return condition.path().is_ident("test");
    };
    let Ok(parts) = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated) else {
        return false;
    };
    if list.path.is_ident("all") {
        parts.iter().any(needs_test)
    } else {
        list.path.is_ident("any") && !parts.is_empty() && parts.iter().all(needs_test)
    }
}

/// The folder in which the modules of a file lie.
fn module_folder(path: &str) -> String {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    match name {
        "lib.rs" | "main.rs" | "mod.rs" => folder.to_owned(),
        _ => format!("{folder}/{}", name.trim_end_matches(".rs")),
    }
}

/// Collects the files (without `.rs`) that are declared as modules only for tests.
fn test_modules(items: &[Item], folder: &str, path: &str, found: &mut BTreeSet<String>) {
    for item in items {
        let Item::Mod(module) = item else { continue };
        let inner = format!("{folder}/{}", module.ident);
        match &module.content {
            Some((_, items)) => test_modules(items, &inner, path, found),
            None if only_in_tests(&module.attrs) => {
                let other = module.attrs.iter().find_map(path_attribute);
                let beside = path.rsplit_once('/').map_or("", |(folder, _)| folder);
                found.insert(other.map_or(inner, |other| {
                    format!("{beside}/{}", other.trim_end_matches(".rs"))
                }));
            }
            None => {}
        }
    }
}

/// The value of `#[path = "..."]`.
fn path_attribute(attribute: &Attribute) -> Option<String> {
    let Meta::NameValue(pair) = &attribute.meta else {
        return None;
    };
    match &pair.value {
        syn::Expr::Lit(syn::ExprLit {
            lit: syn::Lit::Str(text),
            ..
        }) if pair.path.is_ident("path") => Some(text.value()),
        _ => None,
    }
}

/// Whether a file is the module `module` (a path without `.rs`) or one of its modules.
fn below(path: &str, module: &str) -> bool {
    path.strip_prefix(module)
        .is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

fn item_attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}
