//! What lies where on a disk of partitions.
//!
//! An MBR has room for four partitions. With more, the first three are primary, the fourth is an
//! extended partition, and in it each further file is preceded by a boot record of its own, which
//! points to the file and to the next such record.

use std::os::unix::ffi::OsStrExt;

use block::{Error, ErrorKind, Result};

use super::config::{Guid, PartitionFile, PartitionType, PartitioningConfig};
use crate::{
    partition_table::{
        SECTOR, gpt,
        mbr::{self, Entry},
        sectors,
    },
    regions::Layout,
};

/// Primary partitions before an extended one.
const PRIMARIES: usize = 3;

/// A file and its place, in sectors.
struct Placed<'a> {
    file: &'a PartitionFile,
    index: usize,
    length: u64,
    start: u64,
    sectors: u64,
}

impl Placed<'_> {
    fn end(&self) -> u64 {
        self.start + self.sectors
    }

    /// Its entry, counted from sector `base`.
    fn entry(&self, base: u64) -> Entry {
        Entry {
            bootable: self.index == 0,
            system: self.file.mbr_id.0,
            start: self.start - base,
            sectors: self.sectors,
        }
    }
}

/// The layout of a disk of files of these lengths.
///
/// # Errors
/// `Config`: a file is empty, or they do not fit the table that was asked for, or no disk at all.
pub(super) fn layout(config: &PartitioningConfig, lengths: &[u64]) -> Result<Layout> {
    let empty = lengths.iter().position(|&length| length == 0);
    if let Some(index) = empty {
        let path = config.files[index].path.display();
        let what = format!("'{path}' is empty: zero-length partitions are not allowed");
        return Err(Error::new(ErrorKind::Config, what));
    }
    let total: u128 = lengths.iter().map(|&length| u128::from(length)).sum();
    // With alignment and tables it will be a little more; no sum below can overflow.
    if total > i64::MAX as u128 {
        let what = "all files together are larger than a disk can be (2^63-1 bytes)";
        return Err(Error::new(ErrorKind::Config, what));
    }
    let as_mbr = Mbr::plan(config, lengths);
    let fits = as_mbr.end <= mbr::MAX_SECTORS;
    match config.partition_type {
        Some(PartitionType::Mbr) if !fits => {
            let what = format!(
                "an MBR partition table allows a disk of about 2 TB, but {} partition(s) take \
                 {total} bytes",
                lengths.len()
            );
            Err(Error::new(ErrorKind::Config, what).hint("use partition-type=gpt"))
        }
        Some(PartitionType::Mbr) => Ok(as_mbr.layout()),
        None if fits && lengths.len() <= 4 => Ok(as_mbr.layout()),
        _ => Ok(gpt_layout(config, lengths)),
    }
}

/// Places a file at the first aligned sector from `at` on.
fn place<'a>(config: &'a PartitioningConfig, lengths: &[u64], index: usize, at: u64) -> Placed<'a> {
    let file = &config.files[index];
    Placed {
        file,
        index,
        length: lengths[index],
        start: at.next_multiple_of(file.alignment.0 / SECTOR),
        sectors: sectors(lengths[index]),
    }
}

fn put(layout: &mut Layout, placed: &Placed<'_>) {
    layout.pad_to(placed.start * SECTOR);
    layout.child(placed.index, 0, placed.length);
    layout.pad_to(placed.end() * SECTOR);
}

struct Mbr<'a> {
    primaries: Vec<Placed<'a>>,
    /// The sector of each one's boot record, and the partition.
    logicals: Vec<(u64, Placed<'a>)>,
    /// The disk's size in sectors.
    end: u64,
}

impl<'a> Mbr<'a> {
    fn plan(config: &'a PartitioningConfig, lengths: &[u64]) -> Mbr<'a> {
        let primaries = match lengths.len() {
            n @ 0..=4 => n,
            _ => PRIMARIES,
        };
        let mut plan = Mbr {
            primaries: Vec::new(),
            logicals: Vec::new(),
            end: 1,
        };
        for index in 0..lengths.len() {
            if index < primaries {
                let placed = place(config, lengths, index, plan.end);
                plan.end = placed.end();
                plan.primaries.push(placed);
            } else {
                let record = plan.end;
                let placed = place(config, lengths, index, record + 1);
                plan.end = placed.end();
                plan.logicals.push((record, placed));
            }
        }
        plan
    }

    fn layout(&self) -> Layout {
        let mut layout = Layout::default();
        let mut entries: Vec<_> = self.primaries.iter().map(|p| p.entry(0)).collect();
        let extended = self.logicals.first().map(|(record, _)| *record);
        entries.extend(extended.map(|start| pointer(start, self.end - start)));
        layout.table(mbr::record(&entries));
        self.primaries.iter().for_each(|p| put(&mut layout, p));
        for (i, (record, placed)) in self.logicals.iter().enumerate() {
            let mut entries = vec![placed.entry(*record)];
            // The next record is counted from the first.
            let next = self.logicals.get(i + 1).zip(extended);
            entries.extend(
                next.map(|((next, placed), first)| pointer(next - first, placed.end() - next)),
            );
            layout.pad_to(record * SECTOR);
            layout.table(mbr::record(&entries));
            put(&mut layout, placed);
        }
        layout
    }
}

/// The entry of an extended partition.
fn pointer(start: u64, sectors: u64) -> Entry {
    Entry {
        bootable: false,
        system: mbr::EXTENDED,
        start,
        sectors,
    }
}

fn gpt_layout(config: &PartitioningConfig, lengths: &[u64]) -> Layout {
    let mut at = gpt::first_usable(lengths.len());
    let mut all = Vec::with_capacity(lengths.len());
    for index in 0..lengths.len() {
        let placed = place(config, lengths, index, at);
        at = placed.end();
        all.push(placed);
    }
    let partitions: Vec<_> = all.iter().map(partition).collect();
    let ids: Vec<_> = partitions.iter().map(|p| &p.id.0[..]).collect();
    let total = at + gpt::backup_sectors(lengths.len());
    let (front, back) = gpt::tables(Guid::derived(&ids), &partitions, total);
    let mut layout = Layout::default();
    layout.table(front);
    all.iter().for_each(|placed| put(&mut layout, placed));
    layout.table(back);
    layout
}

fn partition(placed: &Placed<'_>) -> gpt::Partition {
    let path = &placed.file.path;
    let place = (placed.index as u64).to_le_bytes();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    gpt::Partition {
        kind: placed.file.type_guid.0,
        id: Guid::derived(&[path.as_os_str().as_bytes(), &place]),
        start: placed.start,
        sectors: placed.sectors,
        name: name.into_owned(),
        bootable: placed.index == 0,
    }
}
