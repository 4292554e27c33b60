//! The rows of the table: which disk, socket, client and pattern.

use super::servers::Disk;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Client {
    /// `blkit-load`.
    Load,
    /// fio's nbd engine.
    Fio,
    /// nbdcopy.
    Nbdcopy,
}

impl Client {
    /// Name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Client::Load => "load",
            Client::Fio => "fio",
            Client::Nbdcopy => "nbdcopy",
        }
    }
}

/// One measurement, of all servers.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What is served.
    pub disk: Disk,
    /// TCP loopback; else a Unix socket.
    pub tcp: bool,
    /// Who asks.
    pub client: Client,
    /// Writes; else reads.
    pub write: bool,
    /// At random places; else one after the other.
    pub random: bool,
    /// Bytes of a request.
    pub block: u64,
    /// Requests in flight on each connection.
    pub depth: u32,
    /// Connections.
    pub connections: u32,
    /// The client asks for structured replies.
    pub structured: bool,
    /// Server and client share the first CPU; else they run where the kernel puts them.
    pub one_cpu: bool,
    /// Part of `--quick`.
    pub quick: bool,
}

impl Row {
    /// What is done, without the disk and the socket.
    pub fn what(&self) -> String {
        let order = if self.random { "random" } else { "sequential" };
        let verb = if self.write { "write" } else { "read" };
        let size = match self.block {
            block if block >= 1 << 20 => format!("{} MiB", block >> 20),
            block => format!("{} KiB", block >> 10),
        };
        if self.client == Client::Nbdcopy {
            return format!(
                "nbdcopy, whole disk {}",
                if self.write { "in" } else { "out" }
            );
        }
        let mut text = format!("{size} {order} {verb}, depth {}", self.depth);
        if self.connections > 1 {
            text.push_str(&format!(", {} connections", self.connections));
        }
        if self.disk == Disk::Null && !self.write {
            text.push_str(if self.structured {
                ", structured"
            } else {
                ", simple replies"
            });
        }
        if self.one_cpu {
            text.push_str(", on one CPU");
        }
        if self.client != Client::Load {
            text.push_str(&format!(", {}", self.client.name()));
        }
        text
    }

    /// All of it: what `--rows` looks in.
    pub fn name(&self) -> String {
        let socket = if self.tcp { "tcp" } else { "unix" };
        format!("{socket}, {}: {}", self.disk.name(), self.what())
    }

    /// A bare copy is a measure for this row.
    pub fn has_copy(&self) -> bool {
        self.block >= 1 << 20 && self.client == Client::Load
    }

    /// Rates are shown in MB/s, not in requests per second.
    pub fn is_bulk(&self) -> bool {
        self.block >= 64 << 10 || self.client == Client::Nbdcopy
    }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const DISKS: [Disk; 4] = [Disk::Null, Disk::Memory, Disk::Tmpfs, Disk::File];

fn row(disk: Disk, write: bool, block: u64, depth: u32) -> Row {
    Row {
        disk,
        tcp: false,
        client: Client::Load,
        write,
        random: block < MIB,
        block,
        depth,
        connections: 1,
        // A null disk answers holes to those who take them: no comparison for reads.
        structured: disk != Disk::Null,
        one_cpu: false,
        quick: false,
    }
}

/// How many rows to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Two minutes.
    Quick,
    /// Less than half an hour.
    Default,
    /// Every combination: hours.
    Full,
}

/// The rows, those of one group of servers (socket and disk) together.
pub fn rows(extent: Extent) -> Vec<Row> {
    let mut rows = if extent == Extent::Full {
        full()
    } else {
        selection()
    };
    if extent == Extent::Quick {
        rows.retain(|row| row.quick);
    }
    rows.sort_by_key(|row| (row.tcp, row.disk));
    rows
}

fn selection() -> Vec<Row> {
    let mut rows = Vec::new();
    for disk in DISKS {
        for write in [false, true] {
            for depth in [1, 32] {
                let quick = disk != Disk::Tmpfs;
                rows.push(Row {
                    quick,
                    ..row(disk, write, 4 * KIB, depth)
                });
            }
            if disk != Disk::Tmpfs {
                rows.push(Row {
                    one_cpu: true,
                    ..row(disk, write, 4 * KIB, 1)
                });
                rows.push(Row {
                    connections: 4,
                    ..row(disk, write, 4 * KIB, 32)
                });
                rows.push(row(disk, write, 64 * KIB, 32));
                rows.push(row(disk, write, MIB, 1));
                rows.push(Row {
                    quick: disk == Disk::Memory,
                    ..row(disk, write, MIB, 4)
                });
            }
        }
        rows.push(row(disk, false, 4 * KIB, 4));
        if disk == Disk::Null {
            rows.push(Row {
                structured: true,
                ..row(disk, false, 4 * KIB, 32)
            });
        }
    }
    for disk in [Disk::Memory, Disk::File] {
        for write in [false, true] {
            rows.push(Row {
                random: false,
                ..row(disk, write, 4 * KIB, 32)
            });
            rows.push(row(disk, write, MIB, 32));
        }
        rows.push(row(disk, false, 64 * KIB, 1));
        rows.push(Row {
            connections: 4,
            ..row(disk, false, MIB, 4)
        });
    }
    rows.extend(tcp());
    rows.extend(other_clients());
    rows
}

fn tcp() -> Vec<Row> {
    let mut rows = Vec::new();
    for disk in [Disk::Null, Disk::Memory, Disk::File] {
        for write in [false, true] {
            for depth in [1, 32] {
                rows.push(Row {
                    tcp: true,
                    ..row(disk, write, 4 * KIB, depth)
                });
            }
            if disk != Disk::Null {
                rows.push(Row {
                    tcp: true,
                    ..row(disk, write, MIB, 4)
                });
            }
        }
    }
    rows.push(Row {
        tcp: true,
        ..row(Disk::Memory, false, 64 * KIB, 32)
    });
    rows
}

fn other_clients() -> Vec<Row> {
    let mut rows = Vec::new();
    for disk in [Disk::Null, Disk::Memory, Disk::File] {
        for write in [false, true] {
            for depth in [1, 32] {
                let quick = disk == Disk::File && depth == 32;
                let fio = row(disk, write, 4 * KIB, depth);
                rows.push(Row {
                    client: Client::Fio,
                    structured: true,
                    quick,
                    ..fio
                });
            }
            if disk != Disk::Null {
                let copy = row(disk, write, 256 * KIB, 64);
                let quick = disk == Disk::File && !write;
                rows.push(Row {
                    client: Client::Nbdcopy,
                    quick,
                    ..copy
                });
            }
        }
        if disk != Disk::Null {
            rows.push(Row {
                client: Client::Fio,
                ..row(disk, false, MIB, 4)
            });
        }
    }
    let copy = row(Disk::File, false, 256 * KIB, 64);
    rows.push(Row {
        client: Client::Nbdcopy,
        tcp: true,
        ..copy
    });
    rows
}

fn full() -> Vec<Row> {
    let mut rows = selection();
    for disk in DISKS {
        for (write, random) in [(false, true), (true, true), (false, false), (true, false)] {
            for block in [4 * KIB, 64 * KIB, MIB] {
                for (depth, connections) in [(1, 1), (4, 1), (32, 1), (1, 4), (4, 4), (32, 4)] {
                    for tcp in [false, true] {
                        let base = row(disk, write, block, depth);
                        let more = Row {
                            random,
                            connections,
                            tcp,
                            ..base
                        };
                        let known = |row: &Row| {
                            *row == Row {
                                quick: row.quick,
                                ..more.clone()
                            }
                        };
                        if !rows.iter().any(known) {
                            rows.push(more);
                        }
                    }
                }
            }
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn rows_differ_and_groups_stay_together() {
        for extent in [Extent::Quick, Extent::Default, Extent::Full] {
            let rows = rows(extent);
            let names: BTreeSet<_> = rows.iter().map(Row::name).collect();
            assert_eq!(names.len(), rows.len(), "{extent:?}");
            let mut groups: Vec<_> = rows.iter().map(|row| (row.tcp, row.disk)).collect();
            groups.dedup();
            let different: BTreeSet<_> = groups.iter().collect();
            assert_eq!(different.len(), groups.len());
        }
        assert!(rows(Extent::Quick).len() <= 24);
        assert!((80..130).contains(&rows(Extent::Default).len()));
    }
}
