//! Random programs: the optimised, sparse evaluation against one that does what the manual says, byte
//! by byte.

use std::{collections::HashMap, fmt::Write as _};

use proptest::prelude::*;

use super::*;
use ast::{External, What};
use load::Blob;

/// An expression before its numbers are made to fit.
#[derive(Clone, Debug)]
pub(super) enum Item {
    Byte(u8, u8),
    Word(u8, u64),
    Text(Vec<u8>),
    Base64(Vec<u8>),
    Move(u8, u16),
    File(u8),
    Script(u8),
    Group(Vec<Item>),
    Variable(Vec<Item>),
    Repeat(Box<Item>, u16),
    Slice(Box<Item>, u16, u16),
    Define(Box<Item>, u8),
    Use(u8),
}

/// The largest program that is compared.
const LARGEST: usize = 1 << 20;

pub(super) fn items() -> impl Strategy<Value = Vec<Item>> {
    let leaf = prop_oneof![
        (any::<u8>(), any::<u8>()).prop_map(|(byte, form)| Item::Byte(byte, form)),
        (any::<u8>(), any::<u64>()).prop_map(|(form, value)| Item::Word(form, value)),
        prop::collection::vec(any::<u8>(), 0..12).prop_map(Item::Text),
        prop::collection::vec(any::<u8>(), 0..12).prop_map(Item::Base64),
        Just(Item::Byte(0, 0)),
        (any::<u8>(), 0u16..300).prop_map(|(form, by)| Item::Move(form, by)),
        (any::<u8>(), 0u16..300).prop_map(|(form, by)| Item::Move(form, by)),
        any::<u8>().prop_map(Item::File),
        any::<u8>().prop_map(Item::Script),
        any::<u8>().prop_map(Item::Use),
        any::<u8>().prop_map(Item::Use),
    ];
    let item = leaf.prop_recursive(6, 60, 6, |inner| {
        let count = prop_oneof![0u16..6, 0u16..6, 1000u16..60_000];
        let list = prop::collection::vec(inner.clone(), 0..6);
        prop_oneof![
            list.clone().prop_map(Item::Group),
            list.clone().prop_map(Item::Group),
            list.prop_map(Item::Variable),
            (inner.clone(), count).prop_map(|(item, n)| Item::Repeat(Box::new(item), n)),
            (inner.clone(), any::<u16>(), any::<u16>()).prop_map(|(item, k, m)| Item::Slice(
                Box::new(item),
                k,
                m
            )),
            (inner, any::<u8>()).prop_map(|(item, name)| Item::Define(Box::new(item), name)),
        ]
    });
    prop::collection::vec(item, 0..8)
}

/// Writes a program down and computes its bytes at the same time, so that every number can be made
/// one that fits.
#[derive(Default)]
pub(super) struct Model {
    pub variables: Vec<(String, String)>,
    pub scopes: Vec<HashMap<u8, Vec<u8>>>,
    /// Without what nbdkit 1.32 does not know, and without files and scripts.
    pub old: bool,
}

impl Model {
    /// A group's items. `None`: too large.
    pub fn group(&mut self, items: &[Item], text: &mut String) -> Option<Vec<u8>> {
        self.scopes.push(HashMap::new());
        let (mut bytes, mut offset) = (Vec::new(), 0);
        for item in items {
            text.push(' ');
            if let Item::Move(form, by) = item {
                offset = move_to(*form, (*by).into(), offset, text);
                bytes.resize(bytes.len().max(offset), 0);
                continue;
            }
            let part = self.item(item, text)?;
            let end = offset + part.len();
            if end > LARGEST {
                return None;
            }
            bytes.resize(bytes.len().max(end), 0);
            bytes[offset..end].copy_from_slice(&part);
            offset = end;
        }
        self.scopes.pop();
        Some(bytes)
    }

    fn item(&mut self, item: &Item, text: &mut String) -> Option<Vec<u8>> {
        Some(match item {
            Item::Byte(byte, form) => {
                match form % 3 {
                    0 => write!(text, "{byte}"),
                    1 => write!(text, "{byte:#x}"),
                    _ => write!(text, "0{byte:o}"),
                }
                .unwrap();
                vec![*byte]
            }
            Item::Word(form, value) => word(*form, *value, text),
            Item::Base64(bytes) if !self.old => {
                encode(bytes, text);
                bytes.clone()
            }
            Item::Text(bytes) | Item::Base64(bytes) => {
                text.push('"');
                bytes
                    .iter()
                    .for_each(|byte| write!(text, "\\x{byte:02x}").unwrap());
                text.push('"');
                bytes.clone()
            }
            Item::File(_) | Item::Script(_) if self.old => {
                return self.item(&Item::Byte(7, 0), text);
            }
            Item::File(n) => {
                write!(text, "<f{n}").unwrap();
                content(*n)
            }
            Item::Script(n) => {
                write!(text, "<( (f{n}))").unwrap();
                content(*n)
            }
            // Alone, where no offset is: nothing moves.
            Item::Move(..) => self.group(&[], text_in(text))?,
            Item::Group(items) => {
                text.push('(');
                let bytes = self.group(items, text)?;
                text.push(')');
                bytes
            }
            Item::Variable(items) => {
                let mut inner = String::new();
                let bytes = self.group(items, &mut inner)?;
                let name = format!("v{}", self.variables.len());
                write!(text, "${name}").unwrap();
                self.variables.push((name, inner));
                bytes
            }
            Item::Repeat(item, count) => {
                let bytes = self.item(item, text)?;
                write!(text, "*{count}").unwrap();
                if bytes.len() * usize::from(*count) > LARGEST {
                    return None;
                }
                bytes.repeat((*count).into())
            }
            Item::Slice(item, k, m) => {
                let bytes = self.item(item, text)?;
                let from = usize::from(*k) % (bytes.len() + 1);
                let to = from + usize::from(*m) % (bytes.len() - from + 1);
                match (from, to) {
                    (0, to) if k % 2 == 0 => write!(text, "[:{to}]"),
                    (from, to) if to == bytes.len() => write!(text, "[{from}:]"),
                    (from, to) => write!(text, "[{from}:{to}]"),
                }
                .unwrap();
                bytes[from..to].to_vec()
            }
            Item::Define(item, name) => {
                // In parentheses, because a definition is no expression.
                text.push('(');
                self.scopes.push(HashMap::new());
                let bytes = self.item(item, text)?;
                self.scopes.pop();
                write!(text, " -> \\n{} \\n{0})", name % 4).unwrap();
                bytes
            }
            Item::Use(name) => {
                let name = name % 4;
                let found = self.scopes.iter().rev().find_map(|scope| scope.get(&name));
                match found.cloned() {
                    Some(bytes) => {
                        write!(text, "\\n{name}").unwrap();
                        bytes
                    }
                    None => {
                        write!(text, "(1 2 3)").unwrap();
                        vec![1, 2, 3]
                    }
                }
            }
        })
    }

    /// A whole program.
    pub fn program(&mut self, items: &[Item]) -> Option<(String, Vec<u8>)> {
        let mut text = String::new();
        let bytes = self.defining(items, &mut text)?;
        Some((text, bytes))
    }

    /// As `group`, but definitions stand for themselves: what is named can be used afterwards.
    fn defining(&mut self, items: &[Item], text: &mut String) -> Option<Vec<u8>> {
        self.scopes.push(HashMap::new());
        let mut plain = Vec::new();
        for item in items {
            if let Item::Define(item, name) = item {
                text.push_str("\n ");
                let bytes = self.item(item, text)?;
                write!(text, " -> \\n{} ", name % 4).unwrap();
                self.scopes.last_mut().unwrap().insert(name % 4, bytes);
            } else {
                plain.push(item.clone());
            }
        }
        self.group(&plain, text)
    }
}

/// An empty group.
fn text_in(text: &mut String) -> &mut String {
    text.push_str("()");
    text
}

fn move_to(form: u8, by: usize, offset: usize, text: &mut String) -> usize {
    match form % 4 {
        0 => {
            write!(text, "@{by}").unwrap();
            by
        }
        1 => {
            write!(text, "@+{by}").unwrap();
            offset + by
        }
        2 => {
            let by = by % (offset + 1);
            write!(text, "@-{by}").unwrap();
            offset - by
        }
        _ => {
            let align = by.next_power_of_two();
            write!(text, "@^{align}").unwrap();
            offset.next_multiple_of(align)
        }
    }
}

fn word(form: u8, value: u64, text: &mut String) -> Vec<u8> {
    let bits = [16, 32, 64][usize::from(form / 2) % 3];
    let value = value & (u64::MAX >> (64 - bits));
    let mut bytes = value.to_le_bytes()[..bits / 8].to_vec();
    if form.is_multiple_of(2) {
        write!(text, "le{bits}:{value:#x} ").unwrap();
    } else {
        write!(text, "be{bits}:{value} ").unwrap();
        bytes.reverse();
    }
    bytes
}

fn encode(bytes: &[u8], text: &mut String) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    text.push_str("base64:");
    for group in bytes.chunks(3) {
        let mut three = [0; 3];
        three[..group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for digit in 0..4 {
            text.push(match digit <= group.len() {
                true => DIGITS[(bits >> (18 - 6 * digit)) as usize % 64].into(),
                false => '=',
            });
        }
    }
}

/// What a file or script of this number holds: some are empty, some zero, some larger than a piece.
fn content(n: u8) -> Vec<u8> {
    match n % 5 {
        0 => Vec::new(),
        1 => vec![0; 100 + usize::from(n)],
        2 => (0..=n).collect(),
        3 => (0..70_000u32).map(|i| (i / 7 % 251) as u8).collect(),
        _ => [vec![0; 65_536], vec![n; 10], vec![0; 3]].concat(),
    }
}

/// A world where files and scripts hold [`content`].
pub(super) struct Numbered;

impl Outside for Numbered {
    fn read(&self, _: At, external: &External) -> Result<Blob, Fault> {
        let name = match &external.what {
            What::File(path) => path.to_str().unwrap().to_owned(),
            What::Script(script) => script.trim_matches([' ', '(', ')']).to_owned(),
        };
        let bytes = content(name[1..].parse().unwrap());
        let from = external.from as usize;
        let to = external.to.map_or(bytes.len(), |to| to as usize);
        Ok(Blob::of(&bytes[from..to]))
    }
}

fn check(items: &[Item], store: Option<Allocator>) {
    let mut model = Model::default();
    let Some((text, wanted)) = model.program(items) else {
        return;
    };
    let variables: Vec<(&str, &str)> = model
        .variables
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let Some(allocator) = store else {
        let found = bytes_of(&text, &variables, &Numbered);
        assert!(found == wanted, "{text}\n{variables:?}");
        // A part of it is that part.
        let program = parsed(&text, &variables);
        eval::measure(&program.root, &Numbered).unwrap();
        let to = wanted.len() / 3;
        let mut part = Buffer::new(to as u64);
        eval::write(&program.root, to as u64, &mut part, STEPS).unwrap();
        assert!(
            part.0 == wanted[..to],
            "the first {to} of {text}\n{variables:?}"
        );
        return;
    };
    let size = wanted.len() as u64 + 1000;
    let disk = parsed(&text, &variables)
        .disk(Some(size), allocator, &Numbered)
        .unwrap();
    let mut read = Bench::open(disk.source).read(0, size as usize).unwrap();
    assert!(read.split_off(wanted.len()) == [0; 1000]);
    assert!(read == wanted, "{text}\n{variables:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn any_program_has_the_bytes_of_the_model(items in items()) {
        check(&items, None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(40) })]

    #[test]
    fn any_disk_has_the_bytes_of_the_model(items in items(), which in 0..3) {
        let allocators = [Allocator::Sparse, Allocator::Malloc { mlock: false }, Allocator::Zstd];
        check(&items, Some(allocators[which as usize]));
    }
}
