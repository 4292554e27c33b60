//! The log of written pages, for a guest that is moved while it runs.

use super::Area;

/// Bytes of a page of the log.
pub const DIRTY_PAGE: u64 = 4096;

/// A bitmap of guest pages (vhost-user's SET_LOG_BASE): bit `page % 8` of byte `page / 8`.
#[derive(Clone, Debug)]
pub struct DirtyLog {
    area: Area,
}

impl DirtyLog {
    /// A log in this memory.
    pub fn new(area: Area) -> DirtyLog {
        DirtyLog { area }
    }

    /// Notes that these bytes were written. What is beyond the log is beyond the guest's memory too,
    /// or the front-end's mistake.
    pub fn mark(&self, guest: u64, len: u64) {
        if len == 0 {
            return;
        }
        let pages = (self.area.len() as u64).saturating_mul(8);
        let last = guest.saturating_add(len - 1) / DIRTY_PAGE;
        for page in guest / DIRTY_PAGE..(last + 1).min(pages) {
            self.area.or8((page / 8) as usize, 1 << (page % 8));
        }
    }
}
