//! Files one after the other, as one disk.
//!
//! Each file is a device of the `file` source with all it can do, so unlike nbdkit's source of this
//! name there are flush, FUA, discard, write zeroes, block devices, and requests in parallel. Clients
//! may write if every file can be written to.

use std::{path::PathBuf, sync::Arc};

use block::{Device, Exports, Local, OpenContext, Result, Source};
use config::{Arg, Config};

use crate::{
    regions::{self, Files, Layout},
    registry,
};

/// Files or block devices, concatenated to one disk.
///
/// The files must keep their sizes while they are served.
#[derive(Config, Debug, Clone, PartialEq, Eq)]
pub struct SplitConfig {
    /// The next file of the disk.
    #[config(magic, required)]
    pub file: Vec<PathBuf>,
}

/// The source. Opens nothing yet.
///
/// # Errors
/// `Io`, if a relative path cannot be made absolute because the current directory is gone.
pub fn new(config: SplitConfig) -> Result<Arc<dyn Source>> {
    let name: Arc<str> = "split".into();
    let files = Files::new(&name, &config.file)?;
    Ok(Arc::new(Split { name, files }))
}

pub(crate) fn make(args: &[Arg]) -> Result<Arc<dyn Source>> {
    new(registry::parse(args)?)
}

struct Split {
    name: Arc<str>,
    files: Files,
}

impl Source for Split {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn ready(&self) -> Result<()> {
        self.files.ready()
    }

    fn exports<'a>(&'a self, _: &'a OpenContext) -> Local<'a, Result<Exports>> {
        Box::pin(async { Ok(Exports::single()) })
    }

    fn open<'a>(&'a self, cx: &'a OpenContext) -> Local<'a, Result<Arc<dyn Device>>> {
        Box::pin(async move {
            let files = self.files.open(cx).await?;
            let mut layout = Layout::default();
            for (index, file) in files.iter().enumerate() {
                layout.child(index, 0, file.limits().size);
            }
            regions::glue(&self.name, layout, files)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;
    use block::{Access, Errno, ErrorKind, Flags, Op, Support};
    use std::fs;

    fn files(dir: &tempfile::TempDir, lengths: &[usize]) -> Vec<PathBuf> {
        let path = |i: usize| dir.path().join(format!("part{i}"));
        for (i, &len) in lengths.iter().enumerate() {
            fs::write(path(i), vec![i as u8 + 1; len]).unwrap();
        }
        (0..lengths.len()).map(path).collect()
    }

    #[test]
    fn files_are_one_disk_that_can_do_what_files_can() {
        let dir = tempfile::tempdir().unwrap();
        let file = files(&dir, &[700, 0, 513, 4096]);
        let source = new(SplitConfig { file: file.clone() }).unwrap();
        source.ready().unwrap();
        let bench = Bench::open(source);
        let limits = bench.limits();
        assert_eq!((limits.size, limits.fua), (5309, Support::Native));
        assert!(limits.multi_conn && limits.support(Op::Discard).is_offered());
        let whole = [vec![1; 700], vec![3; 513], vec![4; 4096]].concat();
        assert_eq!(bench.read(0, 5309).unwrap(), whole);
        bench.write_flagged(600, &[7; 1000], Flags::FUA).unwrap();
        bench.plain(Op::WriteZeroes, 1500, 1000).unwrap();
        bench.plain(Op::Flush, 0, 0).unwrap();
        assert_eq!(fs::read(&file[2]).unwrap(), [7; 513]);
        let last = fs::read(&file[3]).unwrap();
        assert_eq!(last[..287], [7; 287]);
        assert_eq!(last[287..1287], [0; 1000]);
        assert_eq!(last[1287..], [4; 2809]);
        assert_eq!(bench.write(5308, &[1, 2]).unwrap_err(), Errno::EINVAL);
    }

    #[test]
    fn readers_read_and_one_file_may_be_there_twice() {
        let dir = tempfile::tempdir().unwrap();
        let file = files(&dir, &[100]);
        let twice = SplitConfig {
            file: vec![file[0].clone(), file[0].clone()],
        };
        let bench = Bench::open_as(new(twice.clone()).unwrap(), Access::ReadOnly);
        assert!(bench.limits().read_only());
        assert_eq!(bench.read(0, 200).unwrap(), [1; 200]);
        drop(bench);
        let bench = Bench::open(new(twice).unwrap());
        bench.write(199, &[5]).unwrap();
        assert_eq!(bench.read(99, 1).unwrap(), [5]);
    }

    #[test]
    fn what_cannot_be_opened_is_an_error_at_the_start() {
        let make = |words: &[&str]| make(&words.iter().map(|w| Arg::parse(w)).collect::<Vec<_>>());
        let error = make(&[]).err().unwrap();
        let wanted = "split: file=<FILE> is required: The next file of the disk.";
        assert_eq!(error.chain(), wanted);
        let source = make(&["/nonexistent/a", "file=/nonexistent/b"]).unwrap();
        let error = source.ready().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(
            error
                .chain()
                .starts_with("split: cannot open '/nonexistent/a': "),
            "{}",
            error.chain()
        );
    }
}
