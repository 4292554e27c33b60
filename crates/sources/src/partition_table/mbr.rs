//! The master boot record, and the extended boot records that chain logical partitions.

use super::{SECTOR, put};

/// The system byte of an extended partition that is addressed by sectors (LBA).
pub(crate) const EXTENDED: u8 = 0x0f;

/// The system byte of the one partition that covers a disk with a GPT.
pub(crate) const PROTECTIVE: u8 = 0xee;

/// The most sectors a disk may have.
pub(crate) const MAX_SECTORS: u64 = u32::MAX as u64;

/// One entry of a boot record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub bootable: bool,
    pub system: u8,
    /// First sector, from where the kind of entry counts.
    pub start: u64,
    pub sectors: u64,
}

/// A boot record with these entries, four at the most, which fit in 32 bits.
pub(crate) fn record(entries: &[Entry]) -> Vec<u8> {
    assert!(entries.len() <= 4, "a boot record has four entries");
    let mut sector = vec![0; SECTOR as usize];
    for (i, entry) in entries.iter().enumerate() {
        let at = 446 + 16 * i;
        let narrow = |n: u64| u32::try_from(n).expect("the size of the disk was checked");
        sector[at] = if entry.bootable { 0x80 } else { 0 };
        put(&mut sector, at + 1, [0xfe, 0xff, 0xff]);
        sector[at + 4] = entry.system;
        put(&mut sector, at + 5, [0xfe, 0xff, 0xff]);
        put(&mut sector, at + 8, narrow(entry.start).to_le_bytes());
        put(&mut sector, at + 12, narrow(entry.sectors).to_le_bytes());
    }
    put(&mut sector, 510, [0x55, 0xaa]);
    sector
}
