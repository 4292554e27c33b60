//! Shows how far a copy is.

use std::{io::Write, os::fd::OwnedFd};

use block::{Error, Result};
use reactor::process;

use super::options::Progress;

/// See the [module](self).
pub struct Meter {
    bar: bool,
    lines: Option<OwnedFd>,
    told: Option<u64>,
}

/// Cells of the bar.
const BAR: usize = 64;

impl Meter {
    /// Shows nothing yet.
    ///
    /// # Errors
    /// The descriptor that was named is none of ours.
    pub fn new(progress: Progress) -> Result<Meter> {
        let lines = match progress {
            Progress::Lines(number) => Some(
                process::inherited_descriptor(number)
                    .map_err(|error| Error::io(format!("--progress={number}"), error))?,
            ),
            Progress::Off | Progress::Bar => None,
        };
        Ok(Meter {
            bar: progress == Progress::Bar,
            lines,
            told: None,
        })
    }

    /// There is something to be shown.
    pub fn shows(&self) -> bool {
        self.bar || self.lines.is_some()
    }

    /// So much is done, of so much.
    pub fn tell(&mut self, done: u64, size: u64) {
        let percent = match size {
            0 => 100,
            size => (u128::from(done) * 100 / u128::from(size)) as u64,
        };
        if self.told.replace(percent) == Some(percent) {
            return;
        }
        if let Some(lines) = &self.lines {
            let line = format!("{percent}/100\n");
            // Whoever read it may be gone; the copy goes on.
            let _ = rustix::io::write(lines, line.as_bytes());
        }
        if self.bar {
            let full = BAR * percent as usize / 100;
            let bar = format!("{}{}", "*".repeat(full), "-".repeat(BAR - full));
            let _ = write!(std::io::stderr(), "\r{percent:>3}% [{bar}]");
        }
    }

    /// Leaves the line of the bar.
    pub fn end_line(&self) {
        if self.bar {
            eprintln!();
        }
    }
}
