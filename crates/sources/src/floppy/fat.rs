//! What lies where in the file system, and its tables (Microsoft FAT specification, chapters 3 to 6).
//!
//! Every directory and file is one run of clusters: first the root directory, then the other
//! directories, then the files. So a chain in the allocation table only counts up.

use std::{os::unix::ffi::OsStrExt, sync::Arc};

use block::{Error, ErrorKind, Result, SharedBuf};

use super::{
    FloppyConfig,
    names::{self, ATTR_ARCHIVE, ATTR_DIRECTORY, ATTR_LABEL, About, ENTRY, Name, Names},
    tree::{Kind, Tree},
};
use crate::{
    partition_table::{
        SECTOR,
        guid::Guid,
        mbr::{self, Entry},
        put,
    },
    regions::Layout,
};

/// The partition begins here, in sectors.
const START: u64 = 2048;

/// Sectors in front of the allocation tables.
const RESERVED: u64 = 32;

/// Sectors per cluster: 16 KiB.
const PER_CLUSTER: u64 = 32;

/// Bytes per cluster.
const CLUSTER: u64 = PER_CLUSTER * SECTOR;

/// The system byte of a FAT32 partition that is addressed by sectors.
const FAT32_LBA: u8 = 0x0c;

/// The most clusters there can be.
const CLUSTERS_MAX: u64 = 0x0fff_fff4;

/// The first cluster's number.
const FIRST: u64 = 2;

/// The end of a chain.
const END: u32 = 0x0fff_ffff;

/// Where everything is.
struct Plan {
    /// The names in each directory.
    names: Vec<Vec<Name>>,
    /// First cluster and number of clusters of each directory and of each file.
    dirs: Vec<(u64, u64)>,
    files: Vec<(u64, u64)>,
    used: u64,
    /// Clusters there are.
    clusters: u64,
    /// Sectors of one allocation table.
    table: u64,
    /// Sectors of the disk.
    total: u64,
}

/// The layout of the disk; the files are child 0, each of them from a multiple of 4 GiB on.
///
/// # Errors
/// FAT cannot hold it, or the size that was asked for cannot.
pub(super) fn layout(tree: &Tree, config: &FloppyConfig) -> Result<Layout> {
    let plan = plan(tree, config)?;
    let mut layout = Layout::default();
    layout.table(mbr::record(&[Entry {
        bootable: false,
        system: FAT32_LBA,
        start: START,
        sectors: plan.sectors(),
    }]));
    layout.pad_to(START * SECTOR);
    let boot = plan.boot_sector(config);
    let info = plan.info_sector();
    let front = [boot, info].concat();
    layout.table(front.clone());
    layout.pad_to((START + 6) * SECTOR);
    layout.table(front);
    let table = SharedBuf::from_vec(plan.allocation());
    put_tables(&mut layout, &plan, &table);
    for (dir, &(first, count)) in plan.dirs.iter().enumerate() {
        layout.table(plan.directory(tree, dir, config));
        layout.pad_to(plan.place(first + count));
    }
    for (file, &(first, count)) in plan.files.iter().enumerate() {
        layout.child(0, (file as u64) << 32, u64::from(tree.files[file].size));
        if count > 0 {
            layout.pad_to(plan.place(first + count));
        }
    }
    layout.pad_to(plan.total * SECTOR);
    Ok(layout)
}

/// Both copies of the allocation table, the same memory.
fn put_tables(layout: &mut Layout, plan: &Plan, table: &Arc<SharedBuf>) {
    for copy in 0..2 {
        layout.pad_to((START + RESERVED + copy * plan.table) * SECTOR);
        layout.shared_table(table);
    }
    layout.pad_to(plan.place(FIRST));
}

fn plan(tree: &Tree, config: &FloppyConfig) -> Result<Plan> {
    let mut next = FIRST;
    let mut take = |bytes: u64| {
        let count = bytes.div_ceil(CLUSTER);
        let first = if count == 0 { 0 } else { next };
        next += count;
        (first, count)
    };
    let (mut all, mut dirs) = (Vec::new(), Vec::new());
    for (i, dir) in tree.dirs.iter().enumerate() {
        let mut known = Names::default();
        let made = dir.entries.iter().map(|entry| known.add(&entry.name));
        let made: Vec<_> = made.collect::<Result<_>>()?;
        // The label in the root, `.` and `..` in the others.
        let own = if i == 0 { 1 } else { 2 };
        let entries = own + made.iter().map(Name::entries).sum::<usize>();
        names::check_length(entries)?;
        dirs.push(take((entries * ENTRY) as u64));
        all.push(made);
    }
    let files = tree
        .files
        .iter()
        .map(|file| take(u64::from(file.size)))
        .collect();
    let used = next - FIRST;
    let (clusters, table, total) = size(used, config.size.map(|size| size.0 / SECTOR))?;
    Ok(Plan {
        names: all,
        dirs,
        files,
        used,
        clusters,
        table,
        total,
    })
}

/// Clusters, sectors of an allocation table and sectors of the disk, of which `used` clusters are
/// in use, for a disk of `wanted` sectors.
fn size(used: u64, wanted: Option<u64>) -> Result<(u64, u64, u64)> {
    // Whole clusters, so that the data begin at one.
    let table = |clusters: u64| ((clusters + FIRST) * 4).div_ceil(CLUSTER) * PER_CLUSTER;
    let whole = |clusters| START + RESERVED + 2 * table(clusters) + clusters * PER_CLUSTER;
    let least = whole(used);
    let total = wanted.unwrap_or(least);
    if total < least {
        let what = format!(
            "the directory needs a disk of {} bytes, which is more than size= allows",
            least * SECTOR
        );
        return Err(Error::new(ErrorKind::Config, what));
    }
    // A few less than would fit without tables; then as many as do fit.
    let room = total.saturating_sub(whole(0));
    let mut clusters = room / PER_CLUSTER;
    while whole(clusters) > total {
        clusters -= (whole(clusters) - total).div_ceil(PER_CLUSTER);
    }
    let clusters = clusters.max(used);
    if total > mbr::MAX_SECTORS || clusters > CLUSTERS_MAX {
        let what = "the disk would be larger than FAT32 and MBR can be (about 2 TB)";
        return Err(Error::new(ErrorKind::Config, what));
    }
    Ok((clusters, table(clusters), total))
}

impl Plan {
    /// Sectors of the partition.
    fn sectors(&self) -> u64 {
        RESERVED + 2 * self.table + self.clusters * PER_CLUSTER
    }

    /// Where a cluster begins on the disk.
    fn place(&self, cluster: u64) -> u64 {
        let sector = START + RESERVED + 2 * self.table + (cluster - FIRST) * PER_CLUSTER;
        sector * SECTOR
    }

    fn boot_sector(&self, config: &FloppyConfig) -> Vec<u8> {
        let mut sector = vec![0; SECTOR as usize];
        put(&mut sector, 0, [0xeb, 0x58, 0x90]);
        put(&mut sector, 3, *b"MSWIN4.1");
        put(&mut sector, 11, (SECTOR as u16).to_le_bytes());
        sector[13] = PER_CLUSTER as u8;
        put(&mut sector, 14, (RESERVED as u16).to_le_bytes());
        sector[16] = 2; // allocation tables
        sector[21] = 0xf8; // a fixed disk
        put(&mut sector, 24, 63u16.to_le_bytes());
        put(&mut sector, 26, 255u16.to_le_bytes());
        put(&mut sector, 28, (START as u32).to_le_bytes());
        put(&mut sector, 32, (self.sectors() as u32).to_le_bytes());
        put(&mut sector, 36, (self.table as u32).to_le_bytes());
        put(&mut sector, 44, (FIRST as u32).to_le_bytes());
        put(&mut sector, 48, 1u16.to_le_bytes()); // the information sector
        put(&mut sector, 50, 6u16.to_le_bytes()); // the copy of both
        sector[64] = 0x80; // the first fixed disk
        sector[66] = 0x29; // the next three fields are there
        let id = Guid::derived(&[config.dir.as_os_str().as_bytes()]).0;
        put(&mut sector, 67, [id[0], id[1], id[2], id[3]]);
        put(&mut sector, 71, config.label.0);
        put(&mut sector, 82, *b"FAT32   ");
        put(&mut sector, 510, [0x55, 0xaa]);
        sector
    }

    fn info_sector(&self) -> Vec<u8> {
        let free = (self.clusters - self.used) as u32;
        let next = if free > 0 {
            (FIRST + self.used) as u32
        } else {
            u32::MAX
        };
        let mut sector = vec![0; SECTOR as usize];
        put(&mut sector, 0, *b"RRaA");
        put(&mut sector, 484, *b"rrAa");
        put(&mut sector, 488, free.to_le_bytes());
        put(&mut sector, 492, next.to_le_bytes());
        put(&mut sector, 508, [0, 0, 0x55, 0xaa]);
        sector
    }

    /// The allocation table, as far as clusters are in use.
    fn allocation(&self) -> Vec<u8> {
        let mut table = Vec::with_capacity((FIRST + self.used) as usize * 4);
        table.extend(0x0fff_fff8_u32.to_le_bytes());
        table.extend(END.to_le_bytes());
        for &(first, count) in self.dirs.iter().chain(&self.files).filter(|run| run.1 > 0) {
            for cluster in first + 1..first + count {
                table.extend((cluster as u32).to_le_bytes());
            }
            table.extend(END.to_le_bytes());
        }
        table
    }

    /// The entries of a directory.
    fn directory(&self, tree: &Tree, dir: usize, config: &FloppyConfig) -> Vec<u8> {
        let mut table = Vec::new();
        let about = |attributes, (first, _): (u64, u64), size, changed| About {
            attributes,
            cluster: first as u32,
            size,
            changed,
        };
        if dir == 0 {
            names::write(&mut table, config.label.0, about(ATTR_LABEL, (0, 0), 0, 0));
        } else {
            let parent = tree.dirs[dir].parent;
            // The root is called 0 here, wherever it is.
            let up = if parent == 0 {
                (0, 0)
            } else {
                self.dirs[parent]
            };
            for (name, run) in [(b".          ", self.dirs[dir]), (b"..         ", up)] {
                names::write(&mut table, *name, about(ATTR_DIRECTORY, run, 0, 0));
            }
        }
        for (entry, name) in tree.dirs[dir].entries.iter().zip(&self.names[dir]) {
            let about = match entry.kind {
                Kind::Dir(i) => about(ATTR_DIRECTORY, self.dirs[i], 0, entry.changed),
                Kind::File(i) => {
                    let size = tree.files[i].size;
                    about(ATTR_ARCHIVE, self.files[i], size, entry.changed)
                }
            };
            name.write(&mut table, about);
        }
        table
    }
}
