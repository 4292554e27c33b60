//! The command line of a tool: what it comes to, and what is wrong with it.

use std::process::ExitCode;

use super::print;
use crate::getopt::Spelling;

/// What a command line comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked<T> {
    /// Work.
    Options(T),
    /// Text to print.
    Text(String),
}

/// What is wrong with a command line.
#[derive(Debug, PartialEq, Eq)]
pub enum Mistake {
    /// Told, and the usage behind it.
    Usage(Option<String>),
    /// Told.
    Plain(String),
}

/// Prints what is to be printed; the rest is work.
///
/// # Errors
/// There is no work: the exit status.
pub fn understood<T>(
    name: &str,
    usage: fn(&str) -> String,
    asked: Result<Asked<T>, Mistake>,
) -> Result<T, ExitCode> {
    match asked {
        Ok(Asked::Options(options)) => return Ok(options),
        Ok(Asked::Text(text)) => return Err(print(name, &text)),
        Err(Mistake::Usage(text)) => {
            if let Some(text) = text {
                eprintln!("{name}: {text}");
            }
            eprint!("{}", usage(name));
        }
        Err(Mistake::Plain(text)) => eprintln!("{name}: {text}"),
    }
    Err(ExitCode::FAILURE)
}

/// The release of libnbd whose options and output these tools have.
pub const LIBNBD: &str = "1.24.4";

/// The version, of the tool and of the library that scripts think it is made of.
pub fn version(name: &str) -> String {
    format!("{name} {LIBNBD}\nlibnbd {LIBNBD}\n")
}

/// The long options, or the letters, one in a line, as completions ask for them. Options that only
/// completions know have `hidden` meanings.
pub fn listed<T: Copy>(spellings: &[Spelling<T>], hidden: fn(T) -> bool, long: bool) -> String {
    spellings
        .iter()
        .filter(|known| !hidden(known.means) && (known.name.len() > 1) == long)
        .map(|known| match long {
            true => format!("--{}\n", known.name),
            false => format!("-{}\n", known.name),
        })
        .collect()
}
