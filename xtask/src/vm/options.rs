//! The words of `vm run`.

use std::path::PathBuf;

/// What a guest is made of.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub nvme: bool,
    pub zoned: bool,
    pub vfio: bool,
    pub vhost_user: Vec<VhostUser>,
    pub disks: Vec<PathBuf>,
    pub modules: Vec<String>,
    pub programs: Vec<String>,
    pub files: Vec<(PathBuf, String)>,
    pub root: Option<PathBuf>,
    pub variables: Vec<String>,
    pub cpus: u32,
    pub memory_mib: u32,
    pub seconds: u32,
    pub qemu: String,
    pub stdin: bool,
    pub verbose: bool,
    pub print: bool,
    pub command: Vec<String>,
}

/// A disk by vhost-user.
#[derive(Debug, PartialEq, Eq)]
pub struct VhostUser {
    pub socket: PathBuf,
    pub queues: u32,
    pub packed: bool,
    /// QEMU connects anew when the server went away.
    pub reconnect: bool,
}

/// Reads them.
pub fn parse(words: &[String]) -> Result<Options, String> {
    let mut options = Options {
        cpus: 1,
        memory_mib: 768,
        seconds: 120,
        qemu: "qemu-system-x86_64".into(),
        ..Options::default()
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || {
            words
                .next()
                .cloned()
                .ok_or_else(|| format!("{word} wants a value"))
        };
        match word.as_str() {
            "--" => {
                options.command = words.cloned().collect();
                break;
            }
            "--nvme" => options.nvme = true,
            "--zoned" => options.zoned = true,
            "--vfio" => options.vfio = true,
            "--stdin" => options.stdin = true,
            "--verbose" => options.verbose = true,
            "--print" => options.print = true,
            "--vhost-user" => options.vhost_user.push(vhost_user(&value()?)?),
            "--disk" => options.disks.push(value()?.into()),
            "--mod" => options.modules.push(value()?),
            "--tool" => options.programs.push(value()?),
            "--file" => options.files.push(file(&value()?)),
            "--root" => options.root = Some(value()?.into()),
            "--env" => options.variables.push(value()?),
            "--qemu" => options.qemu = value()?,
            "--smp" => options.cpus = number(&value()?)?,
            "--memory" => options.memory_mib = number(&value()?)?,
            "--timeout" => options.seconds = number(&value()?)?,
            _ => return Err(format!("unknown option '{word}'\n{}", super::USAGE)),
        }
    }
    if options.command.is_empty() {
        return Err(format!("no command\n{}", super::USAGE));
    }
    Ok(options)
}

fn number(word: &str) -> Result<u32, String> {
    let number = word.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("'{word}' is no number"))
}

fn file(word: &str) -> (PathBuf, String) {
    let (from, to) = word.split_once(':').unwrap_or((word, word));
    (from.into(), to.into())
}

fn vhost_user(word: &str) -> Result<VhostUser, String> {
    let mut parts = word.split(',');
    let mut disk = VhostUser {
        socket: parts.next().unwrap_or_default().into(),
        queues: 1,
        packed: false,
        reconnect: false,
    };
    for part in parts {
        match part.split_once('=') {
            Some(("queues", count)) => disk.queues = number(count)?,
            None if part == "packed" => disk.packed = true,
            None if part == "reconnect" => disk.reconnect = true,
            _ => return Err(format!("--vhost-user does not know '{part}'")),
        }
    }
    Ok(disk)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Options, String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        parse(&words)
    }

    #[test]
    fn words() {
        let options = parsed(
            "--nvme --vhost-user /s,queues=2,packed,reconnect --file /a:/b --file /c \
             --timeout 5 -- prog --nvme -- x",
        )
        .unwrap();
        assert!(options.nvme && !options.zoned);
        let disk = VhostUser {
            socket: "/s".into(),
            queues: 2,
            packed: true,
            reconnect: true,
        };
        assert_eq!(options.vhost_user, [disk]);
        assert_eq!(options.files[0], ("/a".into(), "/b".into()));
        assert_eq!(options.files[1], ("/c".into(), "/c".into()));
        assert_eq!(options.seconds, 5);
        assert_eq!(options.command, ["prog", "--nvme", "--", "x"]);
    }

    #[test]
    fn wrong_words_are_told() {
        assert!(parsed("--nvme").is_err());
        assert!(parsed("--smp 0 -- x").is_err());
        assert!(parsed("--what -- x").unwrap_err().contains("--what"));
        assert!(
            parsed("--vhost-user /s,fast -- x")
                .unwrap_err()
                .contains("fast")
        );
        assert!(parsed("--disk").is_err());
    }
}
