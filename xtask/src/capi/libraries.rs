//! The C libraries: what each is called, and whose place it takes.

use std::path::{Path, PathBuf};

use crate::tool;

/// A C library.
#[derive(Debug, PartialEq, Eq)]
pub struct Library {
    /// What it is called on the command line, and without `.so`.
    pub name: &'static str,
    /// What the loader looks for.
    pub soname: &'static str,
    /// Its header, in `include` of the package.
    pub header: &'static str,
    /// What pkg-config knows it by,
    pc: &'static str,
    /// says about it,
    description: &'static str,
    /// and answers for its version: that of the library whose interface it is, or ours.
    version: &'static str,
    /// Cargo's package.
    pub package: &'static str,
    /// Its folder in `crates`.
    folder: &'static str,
    /// It has the feature `tls`.
    pub tls: bool,
}

/// In place of libnbd.
pub static LIBNBD: Library = Library {
    name: "libnbd",
    soname: "libnbd.so.0",
    header: "libnbd.h",
    pc: "libnbd",
    description: "NBD client library, of blkit",
    version: "1.24.4",
    package: "blkit-capi",
    folder: "capi",
    tls: true,
};

/// In place of libblkio.
pub static LIBBLKIO: Library = Library {
    name: "libblkio",
    soname: "libblkio.so.1",
    header: "blkio.h",
    pc: "blkio",
    description: "Block device I/O library, of blkit",
    version: "1.5.0",
    package: "blkit-capi-blkio",
    folder: "capi-blkio",
    tls: false,
};

/// Of our own: programs serve disks.
static LIBBLKIT: Library = Library {
    name: "libblkit",
    soname: "libblkit.so.0",
    header: "blkit.h",
    pc: "libblkit",
    description: "Disks of programs for virtual machines",
    version: env!("CARGO_PKG_VERSION"),
    package: "blkit-capi-blkit",
    folder: "capi-blkit",
    tls: false,
};

/// All of them.
pub static ALL: [&Library; 3] = [&LIBNBD, &LIBBLKIO, &LIBBLKIT];

impl Library {
    /// Where header and linker script are.
    pub fn source(&self) -> PathBuf {
        tool::root().join("crates").join(self.folder)
    }

    /// What cargo calls the library of the package.
    pub fn target(&self) -> String {
        self.package.replace('-', "_")
    }

    /// The name of the file for pkg-config.
    pub fn pc(&self) -> String {
        format!("{}.pc", self.pc)
    }

    /// The text of that file.
    pub fn describe(&self, prefix: &Path, libdir: &Path) -> String {
        format!(
            "prefix={}\nlibdir={}\nincludedir=${{prefix}}/include\n\n\
             Name: {}\n\
             Description: {}\n\
             Version: {}\n\
             Cflags: -I${{includedir}}\n\
             Libs: -L${{libdir}} -l{}\n",
            prefix.display(),
            libdir.display(),
            self.pc,
            self.description,
            self.version,
            self.name.trim_start_matches("lib"),
        )
    }
}
