//! The initramfs of a guest: init, busybox, modules, the command and its libraries.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    closure::{Finder, LIBRARIES},
    cpio::Archive,
    debian::Kernel,
    modules::Modules,
    told,
};

const INIT: &str = include_str!("init.sh");

/// Options that modules are loaded with: no devices that nobody asked for.
const MODULE_OPTIONS: &[(&str, &str)] = &[("null_blk", "nr_devices=0")];

/// What a guest consists of.
pub struct Contents<'a> {
    /// The command: a program of the host (or of `root`), or `sh` and whatever busybox has.
    pub command: &'a [String],
    /// More programs, in the guest's PATH by their names.
    pub programs: &'a [String],
    /// Files: the host's path and the guest's.
    pub files: &'a [(PathBuf, String)],
    /// Variables of the environment, `NAME=VALUE`.
    pub variables: &'a [String],
    /// Modules to load.
    pub modules: &'a [String],
    /// A folder that looks like `/`, where programs and libraries are looked up before the host's.
    pub root: Option<&'a Path>,
}

impl Contents<'_> {
    /// The archive. Not compressed: the guest would unpack it emulated.
    pub fn archive(&self, kernel: &Kernel) -> Result<Vec<u8>, String> {
        let mut archive = Archive::default();
        let mut finder = Finder::new(self.root);
        archive.device("/dev/console", 0o600, 5, 1);
        archive.file("/init", 0o755, INIT.as_bytes());
        archive.file("/bin/busybox", 0o755, &read(&kernel.busybox())?);
        for (name, text) in [
            ("passwd", "root:x:0:0:root:/root:/bin/sh\n"),
            ("group", "root:x:0:\n"),
            ("hosts", "127.0.0.1 localhost\n::1 localhost\n"),
        ] {
            archive.file(&format!("/etc/{name}"), 0o644, text.as_bytes());
        }
        self.add_modules(&mut archive, kernel)?;
        for program in self.programs {
            add_program(&mut archive, &mut finder, program)?;
        }
        for (from, to) in self.files {
            let content = read(from)?;
            finder.add(from, &content)?;
            archive.file(to, 0o755, &content);
        }
        let script = self.script(&mut archive, &mut finder)?;
        archive.file("/command", 0o755, script.as_bytes());
        for (path, file) in finder.found() {
            archive.file(&path, 0o755, &read(file)?);
        }
        Ok(archive.finish())
    }

    fn add_modules(&self, archive: &mut Archive, kernel: &Kernel) -> Result<(), String> {
        let mut order = String::new();
        for module in Modules::find(&kernel.modules())?.load_order(self.modules)? {
            let options = MODULE_OPTIONS.iter().find(|(name, _)| *name == module.name);
            let options = options.map_or("", |(_, options)| options);
            order.push_str(&format!("{} {options}\n", module.name));
            archive.file(&format!("/modules/{}.ko", module.name), 0o644, &module.data);
        }
        archive.file("/modules/order", 0o644, order.as_bytes());
        Ok(())
    }

    /// The script that is the command.
    fn script(&self, archive: &mut Archive, finder: &mut Finder) -> Result<String, String> {
        let (program, arguments) = self.command.split_first().ok_or("no command")?;
        let program = match finder.program(program) {
            // Busybox has it, and with fewer libraries.
            _ if matches!(program.as_str(), "sh" | "/bin/sh") => "sh".into(),
            Ok(_) => add_program(archive, finder, program)?,
            Err(why) if program.contains('/') => return Err(why),
            Err(_) => program.clone(),
        };
        let mut script = format!("#!/bin/sh\nexport LD_LIBRARY_PATH={LIBRARIES}\n");
        for variable in self.variables {
            let (name, value) = variable.split_once('=').ok_or("--env wants NAME=VALUE")?;
            script.push_str(&format!("export {name}={}\n", quoted(value)));
        }
        script.push_str(&format!("exec {}", quoted(&program)));
        for argument in arguments {
            script.push_str(&format!(" {}", quoted(argument)));
        }
        script.push('\n');
        Ok(script)
    }
}

/// Adds a program with its libraries; its path in the guest.
fn add_program(
    archive: &mut Archive,
    finder: &mut Finder,
    program: &str,
) -> Result<String, String> {
    let file = finder.program(program)?;
    let content = read(&file)?;
    finder.add(&file, &content)?;
    let name = Path::new(program)
        .file_name()
        .ok_or("a program without a name")?;
    let path = format!("/programs/{}", name.to_string_lossy());
    archive.file(&path, 0o755, &content);
    Ok(path)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|why| told(path, why))
}

/// A word as the shell takes it.
pub fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted() {
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }

    #[test]
    fn the_command_keeps_its_words() {
        let contents = Contents {
            command: &["sh".into(), "-c".into(), "echo $A; exit 3".into()],
            programs: &[],
            files: &[],
            variables: &["A=1 2".into()],
            modules: &[],
            root: None,
        };
        let mut archive = Archive::default();
        let script = contents
            .script(&mut archive, &mut Finder::new(None))
            .unwrap();
        assert!(script.contains("export A='1 2'\n"), "{script}");
        assert!(
            script.ends_with("exec 'sh' '-c' 'echo $A; exit 3'\n"),
            "{script}"
        );
    }
}
