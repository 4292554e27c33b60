//! Making a fresh disk with a file system for a client: what `tmpdisk` and `ondemand` have in common.
//!
//! By default the disk is a sparse file in which mkfs(8) makes a file system; with `command`, a shell
//! script makes it, with the parameters as variables. Programs run by way of the host, on its pool.

use std::{fs::File, path::Path};

use block::{Error, ErrorKind, OpenContext, Result, host::Command};

use crate::scratch;

/// How disks are made.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    /// In bytes; a script may see it as advice.
    pub size: u64,
    /// The type of file system.
    pub kind: String,
    pub label: Option<String>,
    /// A shell script instead of mkfs.
    pub command: Option<String>,
    /// More variables for the script.
    pub variables: Vec<(String, String)>,
}

impl Recipe {
    /// The parameters make sense.
    pub fn check(&self) -> Result<(), String> {
        for (at, (key, _)) in self.variables.iter().enumerate() {
            if self.command.is_none() {
                return Err(format!(
                    "unknown parameter '{key}' (without command= there is nobody to use it)"
                ));
            }
            if !key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                return Err(format!("'{key}' cannot be the name of a shell variable"));
            }
            if key == "disk" {
                return Err("disk is set by the server: the place of the new disk".into());
            }
            if self.variables[..at].iter().any(|(other, _)| other == key) {
                return Err(format!("{key} is given more than once"));
            }
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if !self.kind.bytes().all(plain) || !self.kind.starts_with(|c: char| c.is_alphanumeric()) {
            return Err(format!(
                "'{}' is no type of file system",
                self.kind.escape_debug()
            ));
        }
        Ok(())
    }

    /// Makes a disk at `disk`, where nothing is yet.
    pub async fn make(&self, cx: &OpenContext, disk: &Path) -> Result<()> {
        let place = disk.to_str().ok_or_else(|| {
            let what = format!("'{}' is not UTF-8", disk.display());
            Error::new(ErrorKind::Unsupported, what)
        })?;
        let (what, command) = match &self.command {
            Some(script) => ("the command that makes a disk", self.script(script, place)),
            None => {
                let (path, size) = (disk.to_owned(), self.size);
                scratch::blocking(&cx.reactor, move || empty(&path, size)).await?;
                ("mkfs", self.mkfs(place))
            }
        };
        let output = cx.host.spawn(&cx.reactor, command).await?;
        match output.code {
            Some(0) => Ok(()),
            code => Err(scratch::failed(what, code, &output.stderr)),
        }
    }

    fn script(&self, script: &str, disk: &str) -> Command {
        let own: [(&str, &str); 4] = [
            ("disk", disk),
            ("size", &self.size.to_string()),
            ("type", &self.kind),
            ("label", self.label.as_deref().unwrap_or_default()),
        ];
        let own = own.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let mut env = vec![("PATH".to_owned(), scratch::path_variable())];
        env.extend(self.variables.iter().cloned());
        env.extend(own);
        Command {
            argv: ["/bin/sh", "-c", script].map(str::to_owned).into(),
            env,
            ..Command::default()
        }
    }

    fn mkfs(&self, disk: &str) -> Command {
        let (force, label): (&[&str], _) = match self.kind.as_str() {
            "ext2" | "ext3" | "ext4" => (&["-F"], "-L"),
            "exfat" => (&[], "-L"),
            "msdos" => (&["-I"], "-n"),
            "ntfs" => (&["-Q", "-F"], "-n"),
            "xfs" => (&["-f"], "-L"),
            kind if kind.ends_with("fat") => (&["-I"], "-n"),
            _ => (&[], "-L"),
        };
        let mut argv = vec!["mkfs", "-t", &self.kind];
        argv.extend(force);
        if let Some(text) = &self.label {
            argv.extend([label, text]);
        }
        argv.push(disk);
        Command {
            argv: argv.into_iter().map(str::to_owned).collect(),
            env: vec![("PATH".into(), scratch::path_variable())],
            ..Command::default()
        }
    }
}

/// An empty, sparse file.
fn empty(path: &Path, size: u64) -> Result<()> {
    let made = File::create_new(path).and_then(|file| file.set_len(size));
    made.map_err(|error| {
        let what = format!("cannot make a file of {size} bytes at '{}'", path.display());
        Error::io(what, error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(kind: &str, label: Option<&str>) -> Recipe {
        Recipe {
            size: 4096,
            kind: kind.into(),
            label: label.map(str::to_owned),
            command: None,
            variables: Vec::new(),
        }
    }

    #[test]
    fn each_type_has_its_own_command_line() {
        for (kind, label, wanted) in [
            ("ext4", None, "mkfs -t ext4 -F /d"),
            ("ext2", Some("A"), "mkfs -t ext2 -F -L A /d"),
            ("vfat", Some("A"), "mkfs -t vfat -I -n A /d"),
            ("msdos", None, "mkfs -t msdos -I /d"),
            ("ntfs", Some("A"), "mkfs -t ntfs -Q -F -n A /d"),
            ("xfs", Some("A"), "mkfs -t xfs -f -L A /d"),
            ("btrfs", Some("A"), "mkfs -t btrfs -L A /d"),
            ("exfat", Some("A"), "mkfs -t exfat -L A /d"),
        ] {
            assert_eq!(recipe(kind, label).mkfs("/d").argv.join(" "), wanted);
        }
    }

    #[test]
    fn parameters_that_cannot_be_variables_are_refused() {
        let with = |keys: &[&str], command: Option<&str>| {
            Recipe {
                command: command.map(str::to_owned),
                variables: keys.iter().map(|k| (k.to_string(), "1".into())).collect(),
                ..recipe("ext4", None)
            }
            .check()
        };
        assert_eq!(with(&["os", "a_1"], Some("true")), Ok(()));
        for (keys, command, wanted) in [
            (&["os"][..], None, "unknown parameter 'os'"),
            (
                &["a-b"],
                Some("true"),
                "'a-b' cannot be the name of a shell variable",
            ),
            (
                &["a.b"],
                Some("true"),
                "'a.b' cannot be the name of a shell variable",
            ),
            (&["disk"], Some("true"), "disk is set by the server"),
            (&["a", "a"], Some("true"), "a is given more than once"),
        ] {
            let why = with(keys, command).unwrap_err();
            assert!(why.starts_with(wanted), "{why}");
        }
        for kind in ["", "-F", "../x", "a b"] {
            assert!(recipe(kind, None).check().is_err(), "{kind}");
        }
    }

    #[test]
    fn a_script_gets_its_variables() {
        let mut recipe = recipe("ext4", None);
        recipe.variables = vec![("os".into(), "debian".into())];
        let command = recipe.script("echo", "/d");
        assert_eq!(command.argv, ["/bin/sh", "-c", "echo"]);
        let get = |key: &str| {
            let mut found = command.env.iter().filter(|(k, _)| k == key);
            found.next_back().map(|(_, value)| value.as_str())
        };
        let wanted = [
            ("disk", "/d"),
            ("size", "4096"),
            ("type", "ext4"),
            ("os", "debian"),
        ];
        for (key, value) in wanted {
            assert_eq!(get(key), Some(value));
        }
        assert_eq!(
            get("label"),
            Some(""),
            "whatever the server's own environment has"
        );
    }
}
