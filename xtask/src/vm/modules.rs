//! Kernel modules and what they need: Debian's package has no `modules.dep` (its installation makes
//! it), so this reads the `.modinfo` of each module.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use super::unpack;

/// The modules of a kernel.
pub struct Modules {
    files: BTreeMap<String, PathBuf>,
    builtin: BTreeSet<String>,
}

/// A module to load.
pub struct Module {
    /// With `_`, as the kernel writes it.
    pub name: String,
    /// Its ELF file, unpacked.
    pub data: Vec<u8>,
}

impl Modules {
    /// Looks at `/lib/modules/VERSION`.
    pub fn find(folder: &Path) -> Result<Modules, String> {
        let mut files = BTreeMap::new();
        let mut folders = vec![folder.join("kernel")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).map_err(|why| super::told(&folder, why))? {
                let path = entry.map_err(|why| super::told(&folder, why))?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if let Some(name) = name_of(&path) {
                    files.insert(name, path);
                }
            }
        }
        let list = folder.join("modules.builtin");
        let list = fs::read_to_string(&list).map_err(|why| super::told(&list, why))?;
        let builtin = list.lines().filter_map(|line| name_of(Path::new(line)));
        Ok(Modules {
            files,
            builtin: builtin.collect(),
        })
    }

    /// The modules to load for `wanted`, in order, each once; what is built in needs none.
    pub fn load_order(&self, wanted: &[String]) -> Result<Vec<Module>, String> {
        let mut order = Vec::new();
        for name in wanted {
            self.add(&name.replace('-', "_"), &mut order, 0)?;
        }
        Ok(order)
    }

    fn add(&self, name: &str, order: &mut Vec<Module>, depth: u32) -> Result<(), String> {
        let known = order.iter().any(|module| module.name == name);
        if known || self.builtin.contains(name) {
            return Ok(());
        }
        if depth > 32 {
            return Err(format!("modules need each other in a circle: {name}"));
        }
        let file = self
            .files
            .get(name)
            .ok_or_else(|| format!("this kernel has no module {name}"))?;
        let data = unpack::file(file)?;
        let info = info(&data);
        for needed in &info.needs {
            self.add(needed, order, depth + 1)?;
        }
        // Better, but not needed.
        for before in info
            .before
            .iter()
            .filter(|name| self.files.contains_key(*name))
        {
            self.add(before, order, depth + 1)?;
        }
        order.push(Module {
            name: name.to_owned(),
            data,
        });
        Ok(())
    }
}

/// `x/virtio-blk.ko.xz`: `virtio_blk`.
fn name_of(path: &Path) -> Option<String> {
    let (name, _) = path.file_name()?.to_str()?.split_once(".ko")?;
    Some(name.replace('-', "_"))
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Info {
    needs: Vec<String>,
    before: Vec<String>,
}

/// Reads the words `depends=` and `softdep=pre:` of a module.
fn info(module: &[u8]) -> Info {
    let mut info = Info::default();
    let words = |text: &[u8], separator: char| -> Vec<String> {
        let text = String::from_utf8_lossy(text).replace('-', "_");
        let words = text.split(separator).filter(|word| !word.is_empty());
        words.map(str::to_owned).collect()
    };
    for entry in module.split(|byte| *byte == 0) {
        if let Some(text) = entry.strip_prefix(b"depends=") {
            info.needs.extend(words(text, ','));
        } else if let Some(text) = entry.strip_prefix(b"softdep=pre: ") {
            let mut names = words(text, ' ');
            names.truncate(
                names
                    .iter()
                    .position(|w| w.ends_with(':'))
                    .unwrap_or(names.len()),
            );
            info.before.extend(names);
        }
    }
    info
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modinfo() {
        let module = b"\x7fELF...\0license=GPL\0depends=vdpa,virtio-ring\0softdep=pre: crc32c \
                       aes-x post: later\0depends_not=x\0";
        let info = info(module);
        assert_eq!(info.needs, ["vdpa", "virtio_ring"]);
        assert_eq!(info.before, ["crc32c", "aes_x"]);
        assert_eq!(super::info(b"depends=\0"), Info::default());
    }

    #[test]
    fn names() {
        let name = |path: &str| name_of(Path::new(path));
        assert_eq!(
            name("kernel/drivers/block/virtio-blk.ko.xz").as_deref(),
            Some("virtio_blk")
        );
        assert_eq!(name("kernel/nbd.ko").as_deref(), Some("nbd"));
        assert_eq!(name("modules.order"), None);
    }

    #[test]
    fn needed_modules_come_first() {
        let folder = tempfile::tempdir().unwrap();
        let kernel = folder.path().join("kernel");
        fs::create_dir_all(kernel.join("x")).unwrap();
        fs::write(kernel.join("x/vhost-vdpa.ko"), b"\0depends=vhost,vdpa\0").unwrap();
        fs::write(kernel.join("vhost.ko"), b"\0depends=in,vdpa\0").unwrap();
        fs::write(kernel.join("vdpa.ko"), b"\0depends=\0").unwrap();
        fs::write(kernel.join("a.ko"), b"\0depends=b\0").unwrap();
        fs::write(kernel.join("b.ko"), b"\0depends=a\0").unwrap();
        fs::write(folder.path().join("modules.builtin"), "kernel/in.ko\n").unwrap();
        let modules = Modules::find(folder.path()).unwrap();
        let order = |name: &str| modules.load_order(&[name.to_owned()]);
        let names: Vec<String> = order("vhost-vdpa")
            .unwrap()
            .into_iter()
            .map(|module| module.name)
            .collect();
        assert_eq!(names, ["vdpa", "vhost", "vhost_vdpa"]);
        assert!(order("in").unwrap().is_empty());
        assert!(order("none").is_err());
        assert!(order("a").is_err());
    }
}
