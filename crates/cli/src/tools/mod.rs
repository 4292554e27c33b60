//! What the tools that are clients have in common: the words that name a server or a source, the event
//! loop they run on, and how they tell what went wrong.

mod named;
mod server;
mod words;

use std::{future::Future, io::Write, process::ExitCode};

use block::{Error, Reactor, Result};
use reactor::{Loop, Options};

pub use graph::Disk;
pub use named::Named;
pub use server::{Place, Started, take_places};
pub use words::{Asked, LIBNBD, Mistake, listed, understood, version};

use crate::report::one_line;

/// Runs this on an event loop of its own, to its end.
///
/// # Errors
/// There is no loop to be had, and what `job` says.
pub fn run<T, F: Future<Output = Result<T>>>(job: impl FnOnce(Reactor) -> F) -> Result<T> {
    reactor::process::ignore_broken_pipes();
    let mut made = Loop::new(Options::default())?;
    let reactor = made.reactor().clone();
    let done = made.block_on(job(reactor));
    made.close(std::time::Duration::from_secs(5));
    done
}

/// Prints what was asked for.
pub fn print(name: &str, text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: cannot write: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Tells an error, in the way of these tools.
pub fn fail(name: &str, error: &Error) -> ExitCode {
    eprintln!("{name}: {}", one_line(&error.chain()));
    if let Some(hint) = error.hint_text() {
        eprintln!("{name}: hint: {}", one_line(hint));
    }
    ExitCode::FAILURE
}

/// A size for people: `1M`, `65536` as `64K`, and what is no whole number of a unit as it is.
pub fn human(size: u64) -> String {
    let mut size = size;
    for unit in ["", "K", "M", "G", "T", "P", "E"] {
        if size == 0 || !size.is_multiple_of(1024) {
            return format!("{size}{unit}");
        }
        size /= 1024;
    }
    format!("{size}Z")
}

/// A text as a JSON string (RFC 8259, section 7).
pub fn json_string(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            control if u32::from(control) < 0x20 || control == '\u{7f}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(control)));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_the_largest_unit_that_divides_them() {
        let table = [
            (0, "0"),
            (695, "695"),
            (1024, "1K"),
            (65536, "64K"),
            (1 << 20, "1M"),
            ((1 << 32) - 1, "4294967295"),
            (1 << 62, "4E"),
        ];
        for (size, text) in table {
            assert_eq!(human(size), text);
        }
    }

    #[test]
    fn strings_are_safe_in_json() {
        assert_eq!(
            json_string("a\"b\\c\n\u{e4}"),
            "\"a\\\"b\\\\c\\u000a\u{e4}\""
        );
    }
}
