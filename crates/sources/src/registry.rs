//! The list of all sources, for command lines, help and builders of graphs.

use std::sync::{Arc, LazyLock};

use block::{Error, ErrorKind, Result, Source};
use config::{Arg, Config, ConfigError, Schema};

use crate::{
    blkio, data, example1, example2, example3, example4, file, floppy, full, info, iso, linuxdisk,
    memory, nbd, null, ondemand, ones, partitioning, pattern, random, sparse_random, split,
    tmpdisk, zero,
};

/// One kind of source.
#[derive(Clone, Copy)]
pub struct Entry {
    /// What users call it.
    pub name: &'static str,
    /// One line for lists.
    pub summary: &'static str,
    /// Its parameters.
    pub schema: &'static Schema,
    /// Makes one from its arguments; opens nothing.
    pub make: fn(&[Arg]) -> Result<Arc<dyn Source>>,
}

/// All sources, in the order of their names.
pub fn registry() -> &'static [Entry] {
    static ENTRIES: LazyLock<Vec<Entry>> = LazyLock::new(|| {
        let mut entries = vec![
            entry::<blkio::BlkioConfig>("A disk by one of libblkio's drivers", blkio::make),
            entry::<data::DataConfig>("Bytes given on the command line", data::make),
            entry::<example1::Example1Config>("Example: one empty partition", example1::make),
            entry::<example2::Example2Config>("Example: a file, read-only", example2::make),
            entry::<example3::Example3Config>("Example: a disk per client", example3::make),
            entry::<example4::Example4Config>("Example: a disk in memory", example4::make),
            entry::<file::FileConfig>("A local file, block device or directory", file::make),
            entry::<floppy::FloppyConfig>("A directory as a FAT32 disk", floppy::make),
            entry::<full::FullConfig>("A full disk: reads zeroes, refuses writes", full::make),
            entry::<info::InfoConfig>("Tells about client and server", info::make),
            entry::<iso::IsoConfig>("Directories as a CD image", iso::make),
            entry::<linuxdisk::LinuxdiskConfig>("A directory as a Linux disk", linuxdisk::make),
            entry::<memory::MemoryConfig>("A disk in memory", memory::make),
            entry::<nbd::NbdConfig>("The export of another NBD server", nbd::make),
            entry::<null::NullConfig>("Reads zeroes, forgets writes", null::make),
            entry::<ondemand::OndemandConfig>(
                "A file system for every export name",
                ondemand::make,
            ),
            entry::<ones::OnesConfig>("Reads one byte, forgets writes", ones::make),
            entry::<partitioning::PartitioningConfig>(
                "Files as the partitions of one disk",
                partitioning::make,
            ),
            entry::<pattern::PatternConfig>("Every 8 bytes hold their offset", pattern::make),
            entry::<random::RandomConfig>("Repeatable random bytes", random::make),
            entry::<sparse_random::SparseRandomConfig>(
                "Repeatable random bytes between holes",
                sparse_random::make,
            ),
            entry::<split::SplitConfig>("Files, one after the other", split::make),
            entry::<tmpdisk::TmpdiskConfig>("A fresh file system for every client", tmpdisk::make),
            entry::<zero::ZeroConfig>("A disk of no bytes", zero::make),
        ];
        entries.sort_by_key(|entry| entry.name);
        entries
    });
    &ENTRIES
}

/// Reads a configuration; what is wrong with it becomes an error of the control path.
pub(crate) fn parse<C: Config>(args: &[Arg]) -> Result<C> {
    C::from_args(args).map_err(|error: ConfigError| {
        let mut shown = Error::new(ErrorKind::Config, error.kind.to_string());
        if let Some(hint) = error.hint() {
            shown = shown.hint(hint);
        }
        shown.in_node(&error.node.into())
    })
}

fn entry<C: Config>(summary: &'static str, make: fn(&[Arg]) -> Result<Arc<dyn Source>>) -> Entry {
    let schema = C::schema();
    Entry {
        name: schema.name,
        summary,
        schema,
        make,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(name: &str) -> &'static Entry {
        registry()
            .iter()
            .find(|entry| entry.name == name)
            .expect(name)
    }

    #[test]
    fn every_source_is_documented_and_sorted() {
        let names: Vec<_> = registry().iter().map(|entry| entry.name).collect();
        assert!(names.is_sorted(), "{names:?}");
        for entry in registry() {
            assert_eq!(entry.schema.problems(), Vec::<String>::new());
            assert!(!entry.summary.is_empty() && entry.summary.len() < 60);
        }
    }

    #[test]
    fn bad_arguments_are_configuration_errors() {
        let error = (find("memory").make)(&[]).err().expect("a size is needed");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(
            error.chain().starts_with("memory: size="),
            "{}",
            error.chain()
        );
        let args = [Arg::parse("siez=1M")];
        let error = (find("memory").make)(&args).err().expect("unknown key");
        assert_eq!(error.hint_text(), Some("did you mean 'size'?"));
        let args = [Arg::parse("size=ten")];
        let error = (find("null").make)(&args).err().expect("not a size");
        assert!(
            error.chain().starts_with("null: size=ten: "),
            "{}",
            error.chain()
        );
    }
}
