//! A disk whose bytes a short program on the command line gives: nbdkit's language of the same name.
//!
//! ```text
//! data    := item*                      white space separates; '#' begins a comment
//! item    := 0..255 | le16:N be32:N ... | "string" | base64:CHARS
//!          | <FILE | <(SCRIPT) | ( data ) | \NAME | $VARIABLE
//!          | @N | @+N | @-N | @^ALIGN
//!          | item*N | item[k:m] | item -> \NAME
//! ```
//!
//! The work is done in steps, a module each: `parse` makes a tree (`ast`), which `optimise` keeps small
//! while it grows; `load` reads files and runs scripts; `eval` writes the bytes, by way of `fill`, to
//! the store of [`crate::memory`].
//!
//! *Why so.* The tree stands for bytes without holding them, so a program may describe a disk of
//! 2^63 - 1 bytes, or a slice of something that has no end, and cost what its own bytes cost.
//!
//! *Contract.* Making the source parses and finds the mistakes of the program; files and scripts are
//! read in [`Source::ready`]. A mistake is one line with its place. Then it is a disk of `memory`.

mod ast;
mod eval;
mod fill;
pub mod fuzzing;
mod load;
mod optimise;
mod parse;

use std::sync::Arc;

use block::{Error, ErrorKind, Result, Source};
use config::{Arg, Config, Size};

use crate::{
    base64,
    memory::{self, Allocator, Disk},
    prepared, registry,
};
use ast::{At, Fault, Node};
use fill::Filler;
use load::{Machine, Outside};
use parse::Text;

/// A disk with bytes that are given on the command line.
///
/// The bytes are those of a program, for example '0x55*4 @0x1fe le16:0xaa55' or '<file1 @^512 <file2'.
/// Then it is a disk in memory: it can be written to, and is forgotten when the server stops.
#[derive(Config, Debug, Clone, PartialEq, Eq)]
#[config(check = Self::consistent)]
pub struct DataConfig {
    /// The program.
    #[config(magic)]
    pub data: Option<String>,
    /// The bytes, in base64.
    pub base64: Option<String>,
    /// The bytes, as they are.
    pub raw: Option<String>,
    /// Size of the disk: the data is cut, or followed by zeroes. That of the data, if not given.
    pub size: Option<Size>,
    /// How the bytes are kept, as for a memory disk: `sparse`, `malloc[,mlock=true]` or `zstd`.
    #[config(default = "sparse")]
    pub allocator: Allocator,
    /// What `$NAME` means in the program; other names are those of the environment.
    #[config(rest)]
    pub variables: Vec<(String, String)>,
}

/// The most bytes of text a program may have, with its variables wherever they are used.
const LONGEST: usize = 64 << 20;

/// Far more than any disk that fits in memory needs, and still an end.
const STEPS: u64 = 1 << 36;

impl DataConfig {
    fn consistent(&self) -> Result<(), String> {
        let given = [&self.data, &self.base64, &self.raw];
        match given.iter().filter(|given| given.is_some()).count() {
            1 => {}
            0 => return Err("one of data, base64 and raw is required".into()),
            _ => return Err("only one of data, base64 and raw can be given".into()),
        }
        for (place, (name, _)) in self.variables.iter().enumerate() {
            if !parse::is_variable(name) {
                return Err(format!("'{name}' is neither a parameter nor a variable"));
            }
            if self.variables[..place]
                .iter()
                .any(|(other, _)| other == name)
            {
                return Err(format!("{name} is given more than once"));
            }
        }
        Ok(())
    }

    fn variable(&self, name: &str) -> Option<String> {
        let given = self.variables.iter().find(|(given, _)| given == name);
        let given = given.map(|(_, value)| value.clone());
        given.or_else(|| std::env::var(name).ok())
    }
}

/// The source.
///
/// # Errors
/// `Config`, if there is a mistake in the program; the others come from [`Source::ready`].
pub fn new(config: DataConfig) -> Result<Arc<dyn Source>> {
    let program = Program::of(&config)?;
    let (size, allocator) = (config.size.map(|size| size.0), config.allocator);
    Ok(prepared::source("data", move || {
        program.disk(size, allocator, &Machine)
    }))
}

pub(crate) fn make(args: &[Arg]) -> Result<Arc<dyn Source>> {
    new(registry::parse(args)?)
}

/// The optimised tree of the program, in the lines nbdkit prints for `-D data.AST=1`.
///
/// # Errors
/// A mistake in the program.
pub fn ast(config: &DataConfig) -> Result<Vec<String>> {
    Ok(ast::render(&Program::of(config)?.root))
}

/// A program without mistakes of its own.
struct Program {
    texts: Vec<Text>,
    root: Node,
}

impl Program {
    fn of(config: &DataConfig) -> Result<Program> {
        if let Some(program) = &config.data {
            return Program::parse(program, &|name| config.variable(name), LONGEST);
        }
        let bytes = match (&config.base64, &config.raw) {
            (Some(text), _) => base64::decode(text)
                .map_err(|why| of_node(Error::new(ErrorKind::Config, format!("base64=: {why}"))))?,
            (None, raw) => raw.clone().unwrap_or_default().into_bytes(),
        };
        let root = optimise::bytes(At { text: 0, offset: 0 }, bytes);
        let texts = Vec::new();
        match root {
            Ok(root) => Ok(Program { texts, root }),
            Err(fault) => Err(located(fault, &texts)),
        }
    }

    fn parse(program: &str, variables: parse::Variables<'_>, most: usize) -> Result<Program> {
        match parse::parse(program, variables, most) {
            (texts, Ok(root)) => Ok(Program { texts, root }),
            (texts, Err(fault)) => Err(located(fault, &texts)),
        }
    }

    /// Reads what is outside, and makes the disk.
    fn disk(&self, size: Option<u64>, allocator: Allocator, outside: &dyn Outside) -> Result<Disk> {
        let fault = |fault| located(fault, &self.texts);
        let data = eval::measure(&self.root, outside).map_err(fault)?;
        let size = size.unwrap_or(data);
        let disk = memory::disk("data", size, allocator, true)?;
        let memory = match allocator {
            Allocator::Sparse => memory::available(),
            Allocator::Malloc { .. } | Allocator::Zstd => None,
        };
        let mut filler = Filler::new(&*disk.store, size, memory.unwrap_or(u64::MAX));
        eval::write(&self.root, data.min(size), &mut filler, STEPS).map_err(fault)?;
        Ok(disk)
    }
}

/// A fault with its place in words.
fn located(fault: Fault, texts: &[Text]) -> Error {
    let place = texts.get(fault.at.text as usize).map(|text| {
        let (before, _) = text
            .text
            .split_at_checked(fault.at.offset as usize)
            .unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        let variable = text.variable.as_ref().map(|name| format!("${name}, "));
        let variable = variable.unwrap_or_default();
        format!("{variable}line {line}, column {column}: ")
    });
    let what = format!("{}{}", place.unwrap_or_default(), fault.why);
    of_node(match fault.cause {
        Some(cause) => Error::io(what, cause),
        None => Error::new(fault.kind, what),
    })
}

fn of_node(error: Error) -> Error {
    error.in_node(&"data".into())
}

#[cfg(test)]
mod tests;
