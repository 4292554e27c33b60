//! Options of the command line: pairs of `--name value`.
//!
//! A command takes what it knows and then calls [`Args::finish`], so that a mistyped name is an
//! error and not a measurement of something else.

use std::{collections::BTreeMap, str::FromStr};

use anyhow::{Context, Result, anyhow, bail};

/// Options that were not taken yet.
pub struct Args(BTreeMap<String, String>);

impl Args {
    /// Splits words into pairs.
    pub fn parse(words: &[String]) -> Result<Args> {
        let mut pairs = BTreeMap::new();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let name = word
                .strip_prefix("--")
                .with_context(|| format!("unexpected '{word}'"))?;
            let value = words
                .next()
                .with_context(|| format!("--{name} needs a value"))?;
            if pairs.insert(name.to_owned(), value.clone()).is_some() {
                bail!("--{name} was given twice");
            }
        }
        Ok(Args(pairs))
    }

    /// Takes an option.
    pub fn take<T: FromStr>(&mut self, name: &str) -> Result<Option<T>>
    where
        T::Err: std::fmt::Display,
    {
        let parse = |text: String| {
            text.parse()
                .map_err(|error| anyhow!("--{name} {text}: {error}"))
        };
        self.0.remove(name).map(parse).transpose()
    }

    /// Takes an option, or a default.
    pub fn or<T: FromStr>(&mut self, name: &str, default: T) -> Result<T>
    where
        T::Err: std::fmt::Display,
    {
        Ok(self.take(name)?.unwrap_or(default))
    }

    /// Takes a size in bytes: a number, perhaps with `k`, `m` or `g`.
    pub fn size(&mut self, name: &str) -> Result<Option<u64>> {
        let text: Option<String> = self.take(name)?;
        text.map(|text| size(&text).with_context(|| format!("--{name} {text}: not a size")))
            .transpose()
    }

    /// Takes a switch: `0` or `1`.
    pub fn switch(&mut self, name: &str) -> Result<bool> {
        Ok(self.or(name, 0u8)? != 0)
    }

    /// Takes one of several words; the first is the default.
    pub fn word<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Result<T> {
        let Some(given) = self.take::<String>(name)? else {
            return Ok(words[0].1);
        };
        let found = words.iter().find(|(word, _)| *word == given);
        found.map(|(_, value)| *value).with_context(|| {
            let all: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            format!("--{name} {given}: one of {}", all.join(", "))
        })
    }

    /// Fails if something was not taken.
    pub fn finish(&self) -> Result<()> {
        match self.0.keys().next() {
            Some(name) => bail!("unknown option --{name}"),
            None => Ok(()),
        }
    }
}

fn size(text: &str) -> Option<u64> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &[&str]) -> Result<Args> {
        Args::parse(
            &words
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn sizes_have_units() {
        let mut given = args(&["--a", "4k", "--b", "17", "--c", "2G", "--d", "1t"]).unwrap();
        assert_eq!(given.size("a").unwrap(), Some(4096));
        assert_eq!(given.size("b").unwrap(), Some(17));
        assert_eq!(given.size("c").unwrap(), Some(2 << 30));
        assert_eq!(given.size("x").unwrap(), None);
        assert!(given.size("d").is_err());
    }

    #[test]
    fn what_is_unknown_is_refused() {
        assert!(args(&["x"]).is_err());
        assert!(args(&["--x"]).is_err());
        assert!(args(&["--x", "1", "--x", "2"]).is_err());
        let mut given = args(&["--depth", "3", "--dephts", "3"]).unwrap();
        assert_eq!(given.or("depth", 1).unwrap(), 3);
        assert!(given.finish().is_err());
        let mut given = args(&["--rw", "read"]).unwrap();
        assert!(given.word("rw", &[("write", 1)]).is_err());
    }
}
