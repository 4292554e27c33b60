//! Which seeds a test tries, and how a failing one is run again.
//!
//! `BLKIT_SEED=x` runs one seed, `BLKIT_SEEDS=n` runs `n` of them; by default each test says how
//! many. A failing seed is printed with the command that runs it again.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// The seeds of one test.
pub struct Seeds {
    test: &'static str,
    seeds: std::ops::Range<u64>,
}

impl Seeds {
    /// Seeds for the test of this name, `default` of them unless the environment says otherwise.
    pub fn of(test: &'static str, default: u64) -> Seeds {
        let number = |name| std::env::var(name).ok().map(|text| parse(name, &text));
        let seeds = match (number("BLKIT_SEED"), number("BLKIT_SEEDS")) {
            (Some(seed), _) => seed..seed.saturating_add(1),
            (None, n) => 0..n.unwrap_or(default),
        };
        Seeds { test, seeds }
    }

    /// Runs `f` for each seed. When one panics, prints how to run it again.
    pub fn run(self, mut f: impl FnMut(u64)) {
        for seed in self.seeds {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| f(seed))) {
                eprintln!(
                    "seed {seed} fails; again: BLKIT_SEED={seed} cargo test {}",
                    self.test
                );
                resume_unwind(panic);
            }
        }
    }
}

fn parse(name: &str, text: &str) -> u64 {
    let digits = text.trim();
    let number = match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => digits.parse(),
    };
    number.unwrap_or_else(|_| panic!("{name}={text} is not a number"))
}
