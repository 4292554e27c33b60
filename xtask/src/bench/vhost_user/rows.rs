//! The rows: which disk, who asks, how, and between whom the comparison is.

/// What a client's requests go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Disk {
    /// Reads as zeroes, forgets writes; touches no data where a server can do without.
    Null,
    /// A file in the page cache.
    File,
    /// A file on tmpfs.
    Tmpfs,
    /// A file, past the page cache.
    Direct,
}

impl Disk {
    /// Name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Disk::Null => "null",
            Disk::File => "file in page cache",
            Disk::Tmpfs => "file on tmpfs",
            Disk::Direct => "file, O_DIRECT",
        }
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Client {
    /// libblkio.
    Theirs,
    /// Our library of the same interface.
    Ours,
    /// Rings of `virtio`'s driver half, with the in-flight log or without.
    Ring {
        /// The front-end gives the server an in-flight log.
        log: bool,
        /// Packed rings; else split.
        packed: bool,
    },
}

impl Client {
    /// Rings with an in-flight log: what only our server has.
    pub const LOGGED: Client = Client::Ring {
        log: true,
        packed: false,
    };

    /// Name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Client::Theirs => "libblkio",
            Client::Ours => "blkit's libblkio",
            Client::Ring {
                log: false,
                packed: false,
            } => "own split ring",
            Client::Ring {
                log: true,
                packed: false,
            } => "own split ring, in-flight log",
            Client::Ring {
                log: false,
                packed: true,
            } => "own packed ring",
            Client::Ring {
                log: true,
                packed: true,
            } => "own packed ring, in-flight log",
        }
    }
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contest {
    /// All servers, with this client.
    Servers(Client),
    /// Both libraries on our server.
    Libraries,
    /// Both libraries on the io_uring driver: no server.
    Files,
}

/// One measurement, of all that are compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What is compared.
    pub contest: Contest,
    /// What is served, or opened.
    pub disk: Disk,
    /// Writes; else reads.
    pub write: bool,
    /// Bytes of a request; random places.
    pub block: u64,
    /// Requests in flight on each queue.
    pub depth: u32,
    /// Queues, each with a thread of the client.
    pub queues: u32,
    /// The client waits on the completion descriptor; else in its call.
    pub event: bool,
    /// Server and client share the first CPU.
    pub one_cpu: bool,
    /// Part of `--quick`.
    pub quick: bool,
}

impl Row {
    /// What is done, without what is compared.
    pub fn what(&self) -> String {
        let verb = if self.write { "write" } else { "read" };
        let mut text = format!("{} KiB {verb}, depth {}", self.block >> 10, self.depth);
        if self.queues > 1 {
            text.push_str(&format!(", {} queues", self.queues));
        }
        if self.event {
            text.push_str(", by completion descriptor");
        }
        if self.one_cpu {
            text.push_str(", on one CPU");
        }
        text
    }

    /// All of it: what `--rows` looks in.
    pub fn name(&self) -> String {
        let of = match self.contest {
            Contest::Servers(client) => format!("servers, {}", client.name()),
            Contest::Libraries => "libraries, vhost-user".to_owned(),
            Contest::Files => "libraries, io_uring".to_owned(),
        };
        format!("{of}, {}: {}", self.disk.name(), self.what())
    }
}

fn row(contest: Contest, disk: Disk, depth: u32) -> Row {
    Row {
        contest,
        disk,
        write: false,
        block: 4096,
        depth,
        queues: 1,
        event: false,
        one_cpu: false,
        quick: depth != 1,
    }
}

/// All rows, those that need the same servers together.
pub fn rows(quick: bool) -> Vec<Row> {
    let mut rows = [
        servers(Disk::Null),
        servers(Disk::File),
        libraries(),
        files(),
    ]
    .concat();
    if quick {
        rows.retain(|row| row.quick);
    }
    rows
}

fn servers(disk: Disk) -> Vec<Row> {
    let mut rows = Vec::new();
    let logged = Contest::Servers(Client::LOGGED);
    let theirs = Contest::Servers(Client::Theirs);
    for contest in [theirs, logged] {
        for depth in [1, 32, 128] {
            rows.push(row(contest, disk, depth));
            rows.push(Row {
                queues: 2,
                quick: false,
                ..row(contest, disk, depth)
            });
        }
        for (depth, write) in [
            (1, false),
            (32, false),
            (32, true),
            (128, false),
            (128, true),
        ] {
            rows.push(Row {
                one_cpu: true,
                write,
                ..row(contest, disk, depth)
            });
        }
        rows.push(Row {
            write: true,
            quick: false,
            ..row(contest, disk, 32)
        });
    }
    let packed = Contest::Servers(Client::Ring {
        log: true,
        packed: true,
    });
    for depth in [32, 128] {
        rows.push(Row {
            quick: disk == Disk::Null,
            one_cpu: true,
            ..row(packed, disk, depth)
        });
    }
    if disk == Disk::File {
        rows.push(Row {
            block: 64 << 10,
            quick: false,
            ..row(theirs, disk, 32)
        });
    }
    rows
}

fn libraries() -> Vec<Row> {
    let mut rows = Vec::new();
    for disk in [Disk::Null, Disk::File] {
        for depth in [1, 32, 128] {
            rows.push(row(Contest::Libraries, disk, depth));
        }
        rows.push(Row {
            write: true,
            quick: false,
            ..row(Contest::Libraries, disk, 32)
        });
        rows.push(Row {
            event: true,
            quick: false,
            ..row(Contest::Libraries, disk, 32)
        });
        rows.push(Row {
            queues: 2,
            quick: false,
            ..row(Contest::Libraries, disk, 32)
        });
    }
    rows
}

fn files() -> Vec<Row> {
    let mut rows = Vec::new();
    for disk in [Disk::File, Disk::Tmpfs, Disk::Direct] {
        for depth in [1, 32, 128] {
            rows.push(row(Contest::Files, disk, depth));
        }
        for depth in [1, 32] {
            rows.push(Row {
                write: true,
                quick: false,
                ..row(Contest::Files, disk, depth)
            });
        }
        rows.push(Row {
            event: true,
            quick: false,
            ..row(Contest::Files, disk, 32)
        });
        rows.push(Row {
            queues: 2,
            quick: false,
            ..row(Contest::Files, disk, 32)
        });
    }
    rows
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn rows_differ() {
        for quick in [true, false] {
            let rows = rows(quick);
            let names: BTreeSet<_> = rows.iter().map(Row::name).collect();
            assert_eq!(names.len(), rows.len());
        }
        assert!(super::rows(true).len() < 50);
    }

    #[test]
    fn every_aim_has_a_row() {
        let rows = rows(false);
        let has = |contest, disk, depth, queues| {
            rows.iter().any(|row| {
                (row.contest, row.disk, row.depth, row.queues) == (contest, disk, depth, queues)
            })
        };
        for disk in [Disk::Null, Disk::File] {
            for depth in [1, 32, 128] {
                for queues in [1, 2] {
                    assert!(has(Contest::Servers(Client::Theirs), disk, depth, queues));
                    assert!(has(Contest::Servers(Client::LOGGED), disk, depth, queues));
                }
            }
        }
    }
}
