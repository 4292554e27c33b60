//! A program with all it needs to start: its loader and shared libraries.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use elf::{ElfBytes, abi, endian::AnyEndian};

use super::told;

/// Where a guest has its libraries; its `LD_LIBRARY_PATH`.
pub const LIBRARIES: &str = "/libraries";

/// Looks programs and libraries up in folders that look like `/`: the first one that has it gives it.
/// One set for all of a guest, so that there is one C library.
pub struct Finder {
    roots: Vec<PathBuf>,
    folders: Vec<PathBuf>,
    found: BTreeMap<String, PathBuf>,
}

/// What a program needs.
#[derive(Debug, Default)]
struct Needs {
    loader: Option<String>,
    libraries: Vec<String>,
    runpath: Vec<String>,
}

impl Finder {
    /// `root` comes before the host's `/`.
    pub fn new(root: Option<&Path>) -> Finder {
        let host = Path::new("/");
        let roots: Vec<PathBuf> = root.into_iter().chain([host]).map(Path::to_owned).collect();
        let usual = [
            "usr/lib/x86_64-linux-gnu",
            "usr/lib64",
            "usr/lib",
            "lib/x86_64-linux-gnu",
        ];
        let usual = usual.iter().chain(&["lib64", "lib", "usr/local/lib"]);
        let usual: Vec<&str> = usual.copied().collect();
        let folders = roots
            .iter()
            .flat_map(|root| usual.iter().map(|folder| root.join(folder)));
        Finder {
            folders: folders.collect(),
            roots,
            found: BTreeMap::new(),
        }
    }

    /// The file of a program: a path, or a name to look up.
    pub fn program(&self, name: &str) -> Result<PathBuf, String> {
        let folders = ["usr/bin", "usr/sbin", "bin", "sbin", "usr/local/bin"];
        let mut places: Vec<PathBuf> = Vec::new();
        for root in &self.roots {
            match name.contains('/') {
                true => places.push(root.join(name.trim_start_matches('/'))),
                false => places.extend(folders.iter().map(|folder| root.join(folder).join(name))),
            }
        }
        if name.contains('/') {
            places.push(name.into());
        }
        let found = places.into_iter().find(|place| place.is_file());
        found.ok_or_else(|| format!("{name}: no such program"))
    }

    /// Notes what an ELF file needs; `elf` is its content. Other files need nothing.
    pub fn add(&mut self, path: &Path, elf: &[u8]) -> Result<(), String> {
        let mut open = vec![(path.to_owned(), needs(elf)?)];
        while let Some((of, needs)) = open.pop() {
            if let Some(loader) = needs.loader {
                let file = self.program(&loader)?;
                self.found.insert(loader, file);
            }
            for name in needs.libraries {
                if self.found.contains_key(&name) {
                    continue;
                }
                let file = self
                    .library(&name, &of, &needs.runpath)
                    .ok_or_else(|| format!("{} needs {name}, which is not here", of.display()))?;
                let content = fs::read(&file).map_err(|why| told(&file, why))?;
                self.found.insert(name, file.clone());
                // A library's own idea of a loader is of no interest.
                let needs = Needs {
                    loader: None,
                    ..self::needs(&content)?
                };
                open.push((file, needs));
            }
        }
        Ok(())
    }

    /// What was noted: the guest's path and the host's.
    pub fn found(&self) -> impl Iterator<Item = (String, &Path)> {
        self.found
            .iter()
            .map(|(name, file)| match name.starts_with('/') {
                true => (name.clone(), file.as_path()),
                false => (format!("{LIBRARIES}/{name}"), file.as_path()),
            })
    }

    fn library(&self, name: &str, of: &Path, runpath: &[String]) -> Option<PathBuf> {
        let origin = of.parent()?.to_str()?;
        let own = runpath.iter().flat_map(|folder| {
            let folder = folder
                .replace("${ORIGIN}", origin)
                .replace("$ORIGIN", origin);
            let roots = self.roots.iter();
            let below = roots.map(move |root| match folder.starts_with(origin) {
                true => PathBuf::from(&folder),
                false => root.join(folder.trim_start_matches('/')),
            });
            below.collect::<Vec<_>>()
        });
        let mut folders = own.chain(self.folders.iter().cloned());
        folders.find_map(|folder| Some(folder.join(name)).filter(|file| file.is_file()))
    }
}

/// Reads what an ELF file names.
fn needs(content: &[u8]) -> Result<Needs, String> {
    let mut needs = Needs::default();
    if !content.starts_with(b"\x7fELF") {
        return Ok(needs);
    }
    let told = |why: elf::ParseError| format!("a program's ELF file: {why}");
    let file = ElfBytes::<AnyEndian>::minimal_parse(content).map_err(told)?;
    for segment in file.segments().iter().flat_map(|segments| segments.iter()) {
        if segment.p_type == abi::PT_INTERP {
            let name = file.segment_data(&segment).map_err(told)?;
            let name = String::from_utf8_lossy(name);
            needs.loader = Some(name.trim_end_matches('\0').to_owned());
        }
    }
    let common = file.find_common_data().map_err(told)?;
    let (Some(dynamic), Some(strings)) = (common.dynamic, common.dynsyms_strs) else {
        return Ok(needs);
    };
    for entry in dynamic.iter() {
        let text = || {
            strings
                .get(entry.d_val() as usize)
                .map(str::to_owned)
                .map_err(told)
        };
        match entry.d_tag {
            abi::DT_NEEDED => needs.libraries.push(text()?),
            abi::DT_RUNPATH | abi::DT_RPATH => {
                needs.runpath.extend(text()?.split(':').map(str::to_owned));
            }
            _ => {}
        }
    }
    Ok(needs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_libraries() {
        let us = std::env::current_exe().unwrap();
        let mut finder = Finder::new(None);
        finder.add(&us, &fs::read(&us).unwrap()).unwrap();
        let names: Vec<String> = finder.found().map(|(name, _)| name).collect();
        assert!(
            names.iter().any(|name| name.contains("ld-linux")),
            "{names:?}"
        );
        assert!(
            names.contains(&format!("{LIBRARIES}/libc.so.6")),
            "{names:?}"
        );
    }

    #[test]
    fn scripts_need_nothing_and_rubbish_is_told() {
        assert!(needs(b"#!/bin/sh\n").unwrap().libraries.is_empty());
        assert!(needs(b"\x7fELF\x02\x01").is_err());
        assert!(Finder::new(None).program("no-such-program").is_err());
    }
}
