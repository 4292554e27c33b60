//! Socket activation (sd_listen_fds(3)): sockets that whoever started this process made for it.

use std::{env, ffi::OsString, os::fd::OwnedFd, os::unix::ffi::OsStrExt};

use reactor::daemon;

/// More than this is a mistake.
const MOST: u32 = 16;

/// What is handed over.
#[derive(Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// Nothing for this process; why.
    NotOurs(String),
    /// Sockets, by their names; one without a name has an empty one.
    Sockets(Vec<String>),
    /// More than anybody means, so many.
    TooMany(u32),
}

/// A socket and its name.
pub type Named = (String, OwnedFd);

/// What the environment says.
pub fn look() -> Activation {
    read(std::process::id(), |name| env::var_os(name))
}

/// Takes the sockets over.
///
/// # Errors
/// One of them is not open.
///
/// # Panics
/// If called twice.
pub fn take(names: Vec<String>) -> std::io::Result<Vec<Named>> {
    let sockets = daemon::inherited_descriptors(names.len() as u32)?;
    Ok(names.into_iter().zip(sockets).collect())
}

fn read(us: u32, variable: impl Fn(&str) -> Option<OsString>) -> Activation {
    let (Some(pid), Some(count)) = (variable("LISTEN_PID"), variable("LISTEN_FDS")) else {
        return Activation::None;
    };
    let number = |name: &str, text: &OsString| {
        let parsed = text.to_str().and_then(|text| text.parse::<u32>().ok());
        parsed.ok_or_else(|| {
            let shown = String::from_utf8_lossy(text.as_bytes());
            format!("malformed {name} environment variable (ignored): {shown}")
        })
    };
    let count = match (number("LISTEN_PID", &pid), number("LISTEN_FDS", &count)) {
        (Err(why), _) | (_, Err(why)) => return Activation::NotOurs(why),
        (Ok(pid), _) if pid != us => {
            return Activation::NotOurs("LISTEN_PID was not for us (ignored)".into());
        }
        (_, Ok(0)) => return Activation::None,
        (_, Ok(count)) if count > MOST => return Activation::TooMany(count),
        (_, Ok(count)) => count as usize,
    };
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let names = names.to_string_lossy().into_owned();
    let mut names: Vec<String> = names.split(':').map(str::to_owned).collect();
    names.resize(count, String::new());
    Activation::Sockets(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_believed_if_it_is_for_us() {
        let look = |pid: &str, count: &str, names: &str| {
            read(7, |name| {
                let text = match name {
                    "LISTEN_PID" => pid,
                    "LISTEN_FDS" => count,
                    _ => names,
                };
                (!text.is_empty()).then(|| text.into())
            })
        };
        assert_eq!(look("", "1", ""), Activation::None);
        assert_eq!(look("7", "", ""), Activation::None);
        assert_eq!(look("7", "0", ""), Activation::None);
        assert_eq!(look("7", "17", ""), Activation::TooMany(17));
        for (pid, count) in [("8", "1"), ("x", "1"), ("7", "-1")] {
            assert!(matches!(look(pid, count, ""), Activation::NotOurs(_)));
        }
        let names = |names: &[&str]| {
            Activation::Sockets(names.iter().map(|&name| name.to_owned()).collect())
        };
        assert_eq!(look("7", "2", ""), names(&["", ""]));
        assert_eq!(look("7", "2", "a:b"), names(&["a", "b"]));
        assert_eq!(look("7", "2", "a"), names(&["a", ""]));
        assert_eq!(look("7", "1", "a:b"), names(&["a"]));
    }
}
