//! Zones of zoned disks.

/// A zone. Its layout is that of `struct blkio_zone` in C; all places and lengths are bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Zone {
    /// Where it begins.
    pub start: u64,
    /// Its length, with what cannot be used.
    pub len: u64,
    /// What can be used of it.
    pub capacity: u64,
    /// Where the next write goes.
    pub write_pointer: u64,
    /// 1 conventional, 2 sequential writes required, 3 preferred.
    pub zone_type: u8,
    /// 1 empty, 2 implicitly open, 3 explicitly open, 4 closed, 13 read-only, 14 full, 15 offline.
    pub zone_state: u8,
    /// 1: the disk wants it to be reset.
    pub reset: u8,
    reserved: [u8; 29],
}

const _: () = assert!(size_of::<Zone>() == 64, "as in C");
