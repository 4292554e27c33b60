//! The GUID partition table (UEFI specification 2.10, chapter 5): protective MBR, header and entries
//! at the front, entries and header again at the back.

use super::{
    SECTOR,
    guid::Guid,
    mbr::{self, Entry},
    put,
};

/// Bytes per entry.
const ENTRY: usize = 128;

/// Bytes of a header.
const HEADER: usize = 92;

/// The attribute of the partition that old firmware boots from.
const LEGACY_BOOT: u64 = 1 << 2;

/// One partition.
pub(crate) struct Partition {
    pub kind: Guid,
    pub id: Guid,
    /// Its first sector.
    pub start: u64,
    pub sectors: u64,
    /// For people; what does not fit is cut off.
    pub name: String,
    pub bootable: bool,
}

/// Entries that a table for so many partitions has: 128, or as many times 128 as are needed.
fn entries(partitions: usize) -> usize {
    partitions.max(1).next_multiple_of(128)
}

/// Sectors of the entries of a table for so many partitions.
fn entry_sectors(partitions: usize) -> u64 {
    (entries(partitions) * ENTRY) as u64 / SECTOR
}

/// The first sector behind the table at the front.
pub(crate) fn first_usable(partitions: usize) -> u64 {
    2 + entry_sectors(partitions)
}

/// Sectors of the table at the back.
pub(crate) fn backup_sectors(partitions: usize) -> u64 {
    1 + entry_sectors(partitions)
}

/// The tables at the front and at the back of a disk of so many sectors.
pub(crate) fn tables(disk: Guid, partitions: &[Partition], total: u64) -> (Vec<u8>, Vec<u8>) {
    let n = partitions.len();
    let mut array = vec![0; entries(n) * ENTRY];
    for (entry, partition) in array.chunks_exact_mut(ENTRY).zip(partitions) {
        fill(entry, partition);
    }
    let places = Places {
        disk,
        entries: entries(n) as u32,
        array_crc: crc32fast::hash(&array),
        first: first_usable(n),
        last: total - backup_sectors(n) - 1,
    };
    let mut front = mbr::record(&[Entry {
        bootable: false,
        system: mbr::PROTECTIVE,
        start: 1,
        sectors: (total - 1).min(mbr::MAX_SECTORS),
    }]);
    front.extend(places.header(1, total - 1, 2));
    front.extend_from_slice(&array);
    let mut back = array;
    back.extend(places.header(total - 1, 1, total - backup_sectors(n)));
    (front, back)
}

fn fill(entry: &mut [u8], partition: &Partition) {
    let attributes = if partition.bootable { LEGACY_BOOT } else { 0 };
    let last = partition.start + partition.sectors - 1;
    put(entry, 0, partition.kind.0);
    put(entry, 16, partition.id.0);
    put(entry, 32, partition.start.to_le_bytes());
    put(entry, 40, last.to_le_bytes());
    put(entry, 48, attributes.to_le_bytes());
    let mut at = 56;
    for character in partition.name.chars() {
        let mut units = [0; 2];
        let units = character.encode_utf16(&mut units);
        if at + 2 * units.len() > ENTRY {
            break;
        }
        for unit in units {
            put(entry, at, unit.to_le_bytes());
            at += 2;
        }
    }
}

/// What both headers say.
struct Places {
    disk: Guid,
    entries: u32,
    array_crc: u32,
    first: u64,
    last: u64,
}

impl Places {
    /// The header at sector `here`, whose twin is at `other` and whose entries begin at `array`.
    fn header(&self, here: u64, other: u64, array: u64) -> Vec<u8> {
        let mut header = vec![0; SECTOR as usize];
        put(&mut header, 0, *b"EFI PART");
        put(&mut header, 8, 0x0001_0000_u32.to_le_bytes());
        put(&mut header, 12, (HEADER as u32).to_le_bytes());
        put(&mut header, 24, here.to_le_bytes());
        put(&mut header, 32, other.to_le_bytes());
        put(&mut header, 40, self.first.to_le_bytes());
        put(&mut header, 48, self.last.to_le_bytes());
        put(&mut header, 56, self.disk.0);
        put(&mut header, 72, array.to_le_bytes());
        put(&mut header, 80, self.entries.to_le_bytes());
        put(&mut header, 84, (ENTRY as u32).to_le_bytes());
        put(&mut header, 88, self.array_crc.to_le_bytes());
        let crc = crc32fast::hash(&header[..HEADER]);
        put(&mut header, 16, crc.to_le_bytes());
        header
    }
}
