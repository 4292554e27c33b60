//! A kernel for the guest, and busybox, from Debian: fetched once, kept in the cache.
//!
//! apt does it, with a state of its own and as any user: nothing of the system is touched, and apt
//! checks signatures as always. [`KERNEL`] is the version that the tests were written with; Debian's
//! unstable suite moves, so when it has left the archive, the newest one is taken and told.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{told, unpack};
use crate::tool;

/// The kernel that is asked for first.
const KERNEL: &str = "7.2.13+deb14-cloud-amd64";

/// Names the newest kernel.
const NEWEST: &str = "linux-image-cloud-amd64";

const SUITE: &str = "sid";

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// What guests are made from.
pub struct Kernel {
    /// Its release, as `uname -r` says.
    pub release: String,
    folder: PathBuf,
}

impl Kernel {
    /// The ELF file of the kernel.
    pub fn vmlinux(&self) -> PathBuf {
        self.folder.join("vmlinux")
    }

    /// The folder of its modules.
    pub fn modules(&self) -> PathBuf {
        self.folder.join("usr/lib/modules").join(&self.release)
    }

    /// A static busybox.
    pub fn busybox(&self) -> PathBuf {
        self.folder.join("usr/bin/busybox")
    }
}

/// Where kernels are kept: `BLKIT_VM_CACHE`, or the user's cache.
fn cache() -> Result<PathBuf, String> {
    if let Some(folder) = std::env::var_os("BLKIT_VM_CACHE") {
        return Ok(folder.into());
    }
    let caches = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let caches = caches.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    Ok(caches
        .ok_or("neither HOME nor BLKIT_VM_CACHE is set")?
        .join("blkit/vm"))
}

/// The kernel from the cache, if one is there: the one asked for, or else any.
fn cached(cache: &Path) -> Option<Kernel> {
    let kernel = |release: String| {
        let folder = cache.join(&release);
        let kernel = Kernel { release, folder };
        kernel.vmlinux().is_file().then_some(kernel)
    };
    kernel(KERNEL.to_owned()).or_else(|| {
        let entries = fs::read_dir(cache).ok()?.flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names
            .filter_map(kernel)
            .max_by(|a, b| a.release.cmp(&b.release))
    })
}

/// Fetches the kernel unless it is in the cache. `Err` says why there is none: no apt, no network.
pub fn kernel() -> Result<Kernel, String> {
    let cache = cache()?;
    match cached(&cache) {
        Some(kernel) => Ok(kernel),
        None => fetch(&cache),
    }
}

fn fetch(cache: &Path) -> Result<Kernel, String> {
    if !tool::is_there("apt-get") || !tool::is_there("dpkg-deb") {
        return Err("the guest's kernel is fetched by apt-get, which is not here".into());
    }
    let apt = Apt::new(&cache.join("apt"))?;
    apt.get(&["update"], cache)?;
    let release = apt.release()?;
    eprintln!("fetching Debian's Linux {release}");
    if release != KERNEL {
        eprintln!("note: the tests were written with {KERNEL}, which Debian has no more");
    }
    let parts = ["binary", "modules", "base"].map(|part| format!("linux-{part}-{release}"));
    let mut words = vec!["download", "busybox-static"];
    words.extend(parts.iter().map(String::as_str));
    let loaded = cache.join(format!("{release}.{}", std::process::id()));
    let _ = fs::remove_dir_all(&loaded);
    fs::create_dir_all(&loaded).map_err(|why| told(&loaded, why))?;
    let made = apt
        .get(&words, &loaded)
        .and_then(|()| unpack(&loaded, &release));
    let folder = cache.join(&release);
    // Somebody else may have been quicker.
    if made.is_err() || fs::rename(&loaded, &folder).is_err() {
        let _ = fs::remove_dir_all(&loaded);
    }
    made?;
    cached(cache).ok_or_else(|| format!("{} has no kernel", folder.display()))
}

/// Unpacks the packages that lie in `folder`, and the kernel.
fn unpack(folder: &Path, release: &str) -> Result<(), String> {
    for entry in fs::read_dir(folder).map_err(|why| told(folder, why))? {
        let path = entry.map_err(|why| told(folder, why))?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            tool::output(Command::new("dpkg-deb").arg("-x").args([&path, folder]))?;
            let _ = fs::remove_file(&path);
        }
    }
    let image = folder.join("usr/lib/modules").join(release).join("vmlinuz");
    let image = fs::read(&image).map_err(|why| told(&image, why))?;
    let vmlinux = folder.join("vmlinux");
    fs::write(&vmlinux, unpack::kernel(&image)?).map_err(|why| told(&vmlinux, why))
}

/// apt with a state of its own.
struct Apt {
    configuration: PathBuf,
}

impl Apt {
    /// An archive that has stood still for a while will do: a version is asked for, not the latest.
    fn new(folder: &Path) -> Result<Apt, String> {
        for part in ["state/lists/partial", "cache/archives/partial"] {
            let part = folder.join(part);
            fs::create_dir_all(&part).map_err(|why| told(&part, why))?;
        }
        let put = |name: &str, text: String| {
            let path = folder.join(name);
            fs::write(&path, text).map_err(|why| told(&path, why))
        };
        put("status", String::new())?;
        let archive = archive();
        put(
            "sources.list",
            format!("deb [arch=amd64 signed-by={KEYRING}] {archive} {SUITE} main\n"),
        )?;
        let root = folder.display();
        put(
            "apt.conf",
            format!(
                "Dir::Etc {{ sourcelist \"{root}/sources.list\"; sourceparts \"/dev/null\"; \
                 preferencesparts \"/dev/null\"; parts \"/dev/null\"; main \"/dev/null\"; }};\n\
                 Dir::State \"{root}/state\"; Dir::State::status \"{root}/status\";\n\
                 Dir::Cache \"{root}/cache\"; Dir::Cache::pkgcache \"\"; \
                 Dir::Cache::srcpkgcache \"\";\n\
                 Acquire::GzipIndexes \"true\"; Acquire::Languages \"none\"; \
                 Acquire::Check-Valid-Until \"false\"; Acquire::Retries \"2\"; Acquire::http::Timeout \"30\";\n\
                 APT::Architecture \"amd64\"; APT::Sandbox::User \"\";\n"
            ),
        )?;
        Ok(Apt {
            configuration: folder.join("apt.conf"),
        })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", &self.configuration);
        command
    }

    fn get(&self, words: &[&str], folder: &Path) -> Result<(), String> {
        let mut command = self.command("apt-get");
        command.arg("-qq").args(words).current_dir(folder);
        tool::output(&mut command).map(drop)
    }

    /// The release that can be had: ours, or the newest.
    fn release(&self) -> Result<String, String> {
        let show = |package: &str| {
            let words = ["show", "--no-all-versions", package];
            tool::output(self.command("apt-cache").args(words))
        };
        if show(&format!("linux-binary-{KERNEL}")).is_ok() {
            return Ok(KERNEL.to_owned());
        }
        newest(&show(NEWEST)?).ok_or_else(|| format!("{NEWEST} does not name a kernel"))
    }
}

/// The release that the package of the newest kernel depends on.
fn newest(shown: &str) -> Option<String> {
    let line = shown
        .lines()
        .find_map(|line| line.strip_prefix("Depends: "))?;
    line.split(", ").find_map(|need| {
        let release = need.strip_prefix("linux-image-")?.split(' ').next()?;
        release
            .starts_with(|c: char| c.is_ascii_digit())
            .then(|| release.to_owned())
    })
}

/// The archive that this system uses (it may be a mirror that is near), or Debian's.
fn archive() -> String {
    let mut command = Command::new("apt-get");
    let sites = tool::output(command.args(["indextargets", "--format", "$(SITE)"]));
    let sites = sites.unwrap_or_default();
    let mut sites = sites.lines().map(|site| site.trim_end_matches('/'));
    sites
        .find(|site| site.ends_with("/debian"))
        .unwrap_or("http://deb.debian.org/debian")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_is_read() {
        let shown = "Package: linux-image-cloud-amd64\nDepends: linux-base-cloud-amd64 (= 7), \
                     linux-image-7.9.1+deb14-cloud-amd64 (= 7)\n";
        assert_eq!(newest(shown).as_deref(), Some("7.9.1+deb14-cloud-amd64"));
        assert_eq!(newest("Package: x\n"), None);
    }

    #[test]
    fn the_cache_prefers_our_kernel() {
        let cache = tempfile::tempdir().unwrap();
        assert!(cached(cache.path()).is_none());
        for release in ["9.0", KERNEL] {
            let folder = cache.path().join(release);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("vmlinux"), "").unwrap();
            assert_eq!(cached(cache.path()).unwrap().release, release);
        }
    }
}
