//! `-o`: the options that libfuse takes, as far as they mean something here.

use std::time::Duration;

use exports::fuse::{Cache, View};
use reactor::fuse::is_general;

/// What `-o` has said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FuseOptions {
    /// For every file system, such as `noexec`.
    pub general: Vec<String>,
    /// For FUSE in the kernel, such as `allow_other`.
    pub kernel: Vec<String>,
    /// What mount tables name as the source.
    pub source: Option<String>,
    /// The second half of the file system's type.
    pub subtype: Option<String>,
    /// How far the kernel reads ahead, in bytes.
    pub read_ahead: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    umask: Option<u32>,
    cache: Option<Cache>,
    attr_timeout: Option<Duration>,
    entry_timeout: Option<Duration>,
    negative_timeout: Option<Duration>,
}

/// Options that only steer libfuse's threads and tables.
const WITHOUT_EFFECT: &[&str] = &[
    "clone_fd",
    "max_idle_threads",
    "max_threads",
    "noforget",
    "remember",
    "debug",
    "no_rofd_flush",
    "noauto_cache",
    // It is done anyway.
    "auto_unmount",
    "ac_attr_timeout",
];

impl FuseOptions {
    /// Adds a list with commas.
    ///
    /// # Errors
    /// One of them is unknown, or its value is wrong.
    pub fn add(&mut self, list: &str) -> Result<(), String> {
        list.split(',')
            .filter(|option| !option.is_empty())
            .try_for_each(|option| self.one(option))
    }

    fn one(&mut self, option: &str) -> Result<(), String> {
        if is_general(option) {
            self.general.push(option.to_owned());
            return Ok(());
        }
        let (key, value) = match option.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (option, None),
        };
        let unknown = || format!("unknown option(s): `-o {option}'");
        let value = |what: &str| value.ok_or_else(|| format!("-o {key} needs {what}"));
        let wrong = |what: &str| format!("-o {option}: not {what}");
        match key {
            "allow_other" | "default_permissions" if key == option => {
                self.kernel.push(option.to_owned());
            }
            "max_read" => {
                let most: u32 = value("a number")?.parse().map_err(|_| wrong("a number"))?;
                self.kernel.push(format!("max_read={most}"));
            }
            "max_readahead" => {
                let most: u32 = value("a number")?.parse().map_err(|_| wrong("a number"))?;
                self.read_ahead = Some(most.into());
            }
            "kernel_cache" if key == option => self.cache = Some(Cache::Keep),
            "auto_cache" if key == option => self.cache = Some(Cache::Auto),
            "direct_io" if key == option => self.cache = Some(Cache::Nothing),
            "fsname" => self.source = Some(value("a name")?.to_owned()),
            "subtype" => self.subtype = Some(value("a name")?.to_owned()),
            "uid" => {
                self.uid = Some(value("a number")?.parse().map_err(|_| wrong("a number"))?);
            }
            "gid" => {
                self.gid = Some(value("a number")?.parse().map_err(|_| wrong("a number"))?);
            }
            "umask" => {
                let mask = u32::from_str_radix(value("an octal number")?, 8);
                self.umask = Some(mask.map_err(|_| wrong("an octal number"))?);
            }
            "attr_timeout" => self.attr_timeout = Some(seconds(value("seconds")?, option)?),
            "entry_timeout" => self.entry_timeout = Some(seconds(value("seconds")?, option)?),
            "negative_timeout" => {
                self.negative_timeout = Some(seconds(value("seconds")?, option)?);
            }
            key if WITHOUT_EFFECT.contains(&key) => {}
            _ => return Err(unknown()),
        }
        Ok(())
    }

    /// The mount is to be read-only.
    pub fn read_only(&self) -> bool {
        let last = self
            .general
            .iter()
            .rfind(|option| *option == "ro" || *option == "rw");
        last.is_some_and(|option| option == "ro")
    }

    /// Changes what the file looks like.
    pub fn apply(&self, view: &mut View) {
        view.uid = self.uid.unwrap_or(view.uid);
        view.gid = self.gid.unwrap_or(view.gid);
        if let Some(mask) = self.umask {
            view.permissions = 0o777 & !mask;
        }
        view.cache = self.cache.unwrap_or(view.cache);
        view.attr_timeout = self.attr_timeout.unwrap_or(view.attr_timeout);
        view.entry_timeout = self.entry_timeout.unwrap_or(view.entry_timeout);
        view.negative_timeout = self.negative_timeout.unwrap_or(view.negative_timeout);
    }

    /// The list.
    pub fn usage(name: &str) -> String {
        let mut text = format!("usage: {name} [options] <mountpoint>\n\nFUSE options:\n");
        for (option, what) in [
            ("allow_other", "allow access by all users"),
            ("default_permissions", "the kernel checks permissions"),
            (
                "auto_unmount",
                "insist on unmounting when the process is killed",
            ),
            ("", "(done anyway where fusermount3 is installed)"),
            (
                "kernel_cache",
                "cache files in kernel, also while they are closed",
            ),
            ("auto_cache", "the same, until the size changes"),
            ("direct_io", "cache nothing in kernel"),
            ("max_read=N", "largest read request, in bytes"),
            (
                "max_readahead=N",
                "how far the kernel reads ahead, in bytes (root)",
            ),
            ("umask=M", "set file permissions (octal)"),
            ("uid=N", "set file owner"),
            ("gid=N", "set file group"),
            ("attr_timeout=T", "cache timeout for attributes (1.0s)"),
            ("entry_timeout=T", "cache timeout for names (1.0s)"),
            (
                "negative_timeout=T",
                "cache timeout for missing names (0.0s)",
            ),
            ("fsname=NAME", "source in mount tables (blkit)"),
            ("subtype=NAME", "type in mount tables (blkit: fuse.blkit)"),
            (
                "ro, noexec, noatime, ...",
                "options of every file system, mount(8)",
            ),
        ] {
            text.push_str(&format!("    -o {option:<25} {what}\n"));
        }
        text.push_str(&format!(
            "\nTaken, and without effect: {}.\n",
            WITHOUT_EFFECT.join(", ")
        ));
        text
    }
}

fn seconds(text: &str, option: &str) -> Result<Duration, String> {
    let seconds: Option<f64> = text.parse().ok();
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("-o {option}: not a number of seconds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(list: &str) -> Result<FuseOptions, String> {
        let mut options = FuseOptions::default();
        options.add(list).map(|()| options)
    }

    #[test]
    fn options_are_sorted_by_who_they_are_for() {
        let options = read("allow_other,ro,uid=5,umask=077,kernel_cache,,max_threads=3").unwrap();
        assert_eq!(options.general, ["ro"]);
        assert_eq!(options.kernel, ["allow_other"]);
        assert!(options.read_only() && !read("ro,rw").unwrap().read_only());
        let mut view = View::default();
        options.apply(&mut view);
        assert_eq!((view.uid, view.gid, view.permissions), (5, 0, 0o700));
        assert_eq!(view.cache, Cache::Keep);
        let mut view = View::default();
        read("attr_timeout=0.5,negative_timeout=2")
            .unwrap()
            .apply(&mut view);
        assert_eq!(view.attr_timeout, Duration::from_millis(500));
        assert_eq!(view.negative_timeout, Duration::from_secs(2));
    }

    #[test]
    fn what_means_nothing_here_is_refused() {
        for wrong in [
            "modules=subdir",
            "allow_root",
            "uid=x",
            "uid",
            "umask=9",
            "attr_timeout=-1",
            "kernel_cache=1",
            "max_read=",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
