//! Files of pre-shared keys: lines `user:key`, as psktool(1) writes them.
//!
//! Empty lines, and lines that start with `#`, are left out. (GnuTLS takes a `#` for the start of a
//! name in hexadecimal digits; here a user who is commented out is out.)

use std::{collections::HashMap, path::Path};

use openssl::rand::rand_bytes;

use crate::{
    Error,
    files::{read, unusable},
};

/// Longest key in bytes (OpenSSL: `PSK_MAX_PSK_LEN` of its older releases).
const MAX_KEY: usize = 256;

/// Longest name of a user in bytes (OpenSSL: `PSK_MAX_IDENTITY_LEN` of its older releases).
const MAX_USER: usize = 128;

/// Length of the key that stands for unknown users, in bytes.
const DECOY: usize = 32;

/// Users and their keys.
pub struct Keys {
    users: ByUser,
    /// What unknown users are checked against. Nobody has it, so they fail where a wrong key does,
    /// and cannot find out who is known.
    decoy: [u8; DECOY],
}

impl Keys {
    /// Reads a file.
    pub fn load(path: &Path) -> Result<Keys, Error> {
        let bytes = read(path)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| unusable(path, "is not UTF-8"))?;
        let users =
            parse(text).map_err(|(line, why)| unusable(path, format!("line {line}: {why}")))?;
        if users.is_empty() {
            return Err(unusable(path, "there is no user in it"));
        }
        let mut decoy = [0; DECOY];
        rand_bytes(&mut decoy)?;
        Ok(Keys { users, decoy })
    }

    /// The key of a user that is in the file.
    pub fn of_known(&self, user: &str) -> Option<&[u8]> {
        self.users.get(user).map(|key| &**key)
    }

    /// The key of a user, and whether there is such a user.
    pub fn of(&self, user: Option<&str>) -> (&[u8], bool) {
        match user.and_then(|user| self.of_known(user)) {
            Some(key) => (key, true),
            None => (&self.decoy, false),
        }
    }
}

/// Keys by the names of their users.
type ByUser = HashMap<String, Box<[u8]>>;

/// Errors are the number of a line and what is wrong with it; keys are never part of them.
fn parse(text: &str) -> Result<ByUser, (usize, String)> {
    let mut users = HashMap::new();
    for (n, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |why: &str| (n + 1, why.to_owned());
        // A name may hold a colon, a key cannot.
        let (user, key) = line
            .trim_end()
            .rsplit_once(':')
            .ok_or_else(|| wrong("is not USER:KEY"))?;
        if user.is_empty() || user.len() > MAX_USER || user.contains('\0') {
            return Err(wrong("a user's name has 1 to 128 bytes"));
        }
        let key =
            hex(key).ok_or_else(|| wrong("a key has 1 to 256 bytes in hexadecimal digits"))?;
        if users.insert(user.to_owned(), key).is_some() {
            return Err(wrong(&format!("user {user:?} is there twice")));
        }
    }
    Ok(users)
}

fn hex(digits: &str) -> Option<Box<[u8]>> {
    let digits = digits.as_bytes();
    let good = digits.len().is_multiple_of(2) && (1..=MAX_KEY).contains(&(digits.len() / 2));
    let nibble = |digit: u8| char::from(digit).to_digit(16);
    let byte = |pair: &[u8]| Some((nibble(pair[0])? << 4 | nibble(pair[1])?) as u8);
    digits
        .chunks_exact(2)
        .map(byte)
        .collect::<Option<_>>()
        .filter(|_| good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_users_and_keys() {
        let text = "# staff\n\nalice:00ffA5\r\n#bob:1111\nde:mo:01\n";
        let users = parse(text).unwrap();
        assert_eq!(users.len(), 2);
        assert_eq!(*users["alice"], [0, 0xff, 0xa5]);
        assert_eq!(*users["de:mo"], [1]);
    }

    #[test]
    fn bad_lines_are_named_and_keys_are_not_told() {
        let long = format!("a:{}", "00".repeat(257));
        let name = format!("{}:00", "x".repeat(129));
        let table = [
            ("a:00\nsecret", 2, "USER:KEY"),
            ("a:", 1, "hexadecimal"),
            ("a:5ec", 1, "hexadecimal"),
            ("a:5ecre7", 1, "hexadecimal"),
            ("a:+1", 1, "hexadecimal"),
            (":5ec5", 1, "name"),
            ("a:00\nb:00\na:5ec5", 3, "twice"),
            (&long, 1, "256"),
            (&name, 1, "128"),
        ];
        for (text, line, why) in table {
            let (at, said) = parse(text).unwrap_err();
            assert_eq!(at, line, "{text}");
            assert!(said.contains(why) && !said.contains("5ec"), "{said}");
        }
    }

    #[test]
    fn unknown_users_get_a_key_nobody_has() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "alice:00").unwrap();
        let keys = Keys::load(file.path()).unwrap();
        assert_eq!(keys.of(Some("alice")), (&[0][..], true));
        let (decoy, known) = keys.of(Some("bob"));
        assert!(!known && decoy.len() == DECOY);
        assert_eq!(keys.of(None).0, decoy);
        assert_ne!(Keys::load(file.path()).unwrap().of(None).0, decoy);
        std::fs::write(&file, "# nobody\n").unwrap();
        let error = Keys::load(file.path()).err().unwrap();
        assert!(error.to_string().ends_with("there is no user in it"));
    }
}
