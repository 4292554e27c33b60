//! Partition tables, made in memory: MBR with its chain of logical partitions, and GPT.
//!
//! Sectors have 512 bytes. Addresses in cylinders, heads and sectors are the highest there are, as for
//! any disk that is too large for them: whoever reads the table takes the logical addresses.

pub(crate) mod gpt;
pub(crate) mod guid;
pub(crate) mod mbr;

/// Bytes per sector.
pub(crate) const SECTOR: u64 = 512;

/// Puts bytes at a place in a table.
pub(crate) fn put<const N: usize>(table: &mut [u8], at: usize, bytes: [u8; N]) {
    table[at..at + N].copy_from_slice(&bytes);
}

/// Sectors that hold this many bytes.
pub(crate) fn sectors(bytes: u64) -> u64 {
    bytes.div_ceil(SECTOR)
}
