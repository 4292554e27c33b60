//! Where the holes of a file are: lseek(2) with SEEK_DATA and SEEK_HOLE, on the pool, because a file
//! system may have to read its own tables for the answer.
//!
//! The offset of the file description moves, which nobody looks at: all I/O here names its offset. A
//! file may change while it is looked at; then the answer is old, as any answer is, but it always
//! covers whole blocks and never goes back.

use block::{Errno, ExtentFlags, ExtentList, Outcome};
use rustix::{
    fs::{SeekFrom, seek},
    io,
};

use super::device::OpenFile;

/// Extents per answer: about 30 ms of work at the most.
const MOST: usize = 16_384;

/// The extents of a range. The answer may end early; with `one` it is a single extent.
pub(super) fn find(
    file: &OpenFile,
    offset: u64,
    len: u64,
    one: bool,
) -> Result<ExtentList, block::IoError> {
    let (mut at, end) = (offset, offset + len);
    let block = u64::from(file.min_block);
    let mut list = ExtentList::new();
    let most = if one { 1 } else { MOST };
    while at < end && list.allocation().len() < most {
        let data = match seek(&file.data, SeekFrom::Data(at)) {
            Ok(data) => (data - data % block).clamp(at, end),
            // Nothing but a hole from here on, or the file has become shorter.
            Err(io::Errno::NXIO) => end,
            Err(error) => {
                unknown(file, error)?;
                list.push(end - at, ExtentFlags::DATA);
                break;
            }
        };
        list.push(data - at, ExtentFlags::HOLE_ZERO);
        at = data;
        if at >= end || list.allocation().len() >= most {
            break;
        }
        let hole = match seek(&file.data, SeekFrom::Hole(at)) {
            // If the data has gone meanwhile, one block of it keeps us going.
            Ok(hole) => hole.max(at + 1).next_multiple_of(block).min(end),
            Err(io::Errno::NXIO) => end,
            Err(error) => {
                unknown(file, error)?;
                end
            }
        };
        list.push(hole - at, ExtentFlags::DATA);
        at = hole;
    }
    Ok(list)
}

/// A file system that cannot tell: all is data then, and it is not asked again.
fn unknown(file: &OpenFile, error: io::Errno) -> Outcome {
    match error {
        io::Errno::INVAL | io::Errno::NOTSUP | io::Errno::NOSYS => {
            file.inode.seek_hole.cannot();
            Ok(())
        }
        _ => Err(Errno::new(error.raw_os_error()).into()),
    }
}
