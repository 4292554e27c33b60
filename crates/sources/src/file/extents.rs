//! Where the holes of a file are: lseek(2) with SEEK_DATA and SEEK_HOLE, on the pool, because a file
//! system may have to read its own tables for the answer.
//!
//! The offset of the file description moves, which nobody looks at: all I/O here names its offset. A
//! file may change while it is looked at; then the answer is old, as any answer is, but it always
//! covers whole blocks and never goes back.

use std::os::fd::BorrowedFd;

use block::{Errno, ExtentFlags, ExtentList, Outcome};
use rustix::{
    fs::{SeekFrom, seek},
    io,
};

/// Extents per answer: about 30 ms of work at the most.
const MOST: usize = 16_384;

/// The extents of a range, in whole blocks of so many bytes. The answer may end early; with `one` it is
/// a single extent. `cannot` is told of a file system that has no answers: all is data then.
pub(crate) fn find(
    file: BorrowedFd<'_>,
    block: u64,
    (offset, len): (u64, u64),
    one: bool,
    cannot: &dyn Fn(),
) -> Result<ExtentList, block::IoError> {
    let (mut at, end) = (offset, offset + len);
    let mut list = ExtentList::new();
    let most = if one { 1 } else { MOST };
    while at < end && list.allocation().len() < most {
        let data = match seek(file, SeekFrom::Data(at)) {
            Ok(data) => (data - data % block).clamp(at, end),
            // Nothing but a hole from here on, or the file has become shorter.
            Err(io::Errno::NXIO) => end,
            Err(error) => {
                unknown(error, cannot)?;
                list.push(end - at, ExtentFlags::DATA);
                break;
            }
        };
        list.push(data - at, ExtentFlags::HOLE_ZERO);
        at = data;
        if at >= end || list.allocation().len() >= most {
            break;
        }
        let hole = match seek(file, SeekFrom::Hole(at)) {
            // If the data has gone meanwhile, one block of it keeps us going.
            Ok(hole) => hole.max(at + 1).next_multiple_of(block).min(end),
            Err(io::Errno::NXIO) => end,
            Err(error) => {
                unknown(error, cannot)?;
                end
            }
        };
        list.push(hole - at, ExtentFlags::DATA);
        at = hole;
    }
    Ok(list)
}

/// A file system that cannot tell: all is data then, and it is not asked again.
fn unknown(error: io::Errno, cannot: &dyn Fn()) -> Outcome {
    match error {
        io::Errno::INVAL | io::Errno::NOTSUP | io::Errno::NOSYS => {
            cannot();
            Ok(())
        }
        _ => Err(Errno::new(error.raw_os_error()).into()),
    }
}
