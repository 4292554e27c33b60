//! `cargo xtask bench nbd`: servers in alternation over all rows, medians, a report.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use super::{
    clients::{Sample, copy, fill, measure},
    report::{Report, Result as RowResult},
    rows::{Client, Extent, Row, rows},
    servers::{Disk, Kind, SIZE, Server, World},
};
use crate::tool::{self, Profile};

struct Options {
    extent: Extent,
    filter: Option<String>,
    seconds: f64,
    rounds: usize,
    output: Option<PathBuf>,
    size: u64,
}

impl Options {
    fn parse(words: &[String]) -> Result<Options, String> {
        let mut options = Options {
            extent: Extent::Default,
            filter: None,
            seconds: 0.0,
            rounds: 0,
            output: None,
            size: SIZE,
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "--quick" => options.extent = Extent::Quick,
                "--full" => options.extent = Extent::Full,
                "--rows" => options.filter = Some(value()?.clone()),
                "--seconds" => options.seconds = parse(value()?)?,
                "--rounds" => options.rounds = parse::<usize>(value()?)?.max(1),
                "--size" => options.size = size(value()?)?,
                "--output" => options.output = Some(value()?.into()),
                _ => return Err(format!("unknown option {word}\n{}", super::USAGE)),
            }
        }
        let quick = options.extent == Extent::Quick;
        if options.seconds <= 0.0 {
            options.seconds = if quick { 0.5 } else { 1.0 };
        }
        if options.rounds == 0 {
            options.rounds = if quick { 2 } else { 3 };
        }
        Ok(options)
    }
}

/// A size in MiB, as bytes.
fn size(text: &str) -> Result<u64, String> {
    match parse(text)? {
        mib @ 1..=0x10_0000 => Ok(mib << 20),
        _ => Err(format!("a disk has 1 to 1048576 MiB, not {text}")),
    }
}

fn parse<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("'{text}' is not a number"))
}

/// Runs the benchmark.
pub fn run(words: &[String]) -> Result<(), String> {
    let options = Options::parse(words)?;
    let mut rows = rows(options.extent);
    if let Some(filter) = &options.filter {
        rows.retain(|row| row.name().contains(filter.as_str()));
    }
    if rows.is_empty() {
        return Err("no row has that in its name".into());
    }
    let world = world(options.size, Profile::Dist)?;
    let mut report = Report::new(options.seconds, options.rounds, options.size);
    let (start, total) = (Instant::now(), rows.len());
    let mut done = 0;
    while let Some(first) = rows.first() {
        let group = (first.tcp, first.disk);
        let count = rows
            .iter()
            .take_while(|row| (row.tcp, row.disk) == group)
            .count();
        let group_rows: Vec<Row> = rows.drain(..count).collect();
        let servers = start_all(&world, group.1, group.0, &mut report)?;
        for row in group_rows {
            done += 1;
            eprintln!(
                "[{done}/{total}, {:.0} s] {}",
                start.elapsed().as_secs_f64(),
                row.name()
            );
            if let Some(client) = missing(row.client) {
                report.skip(&row, format!("{client} is not installed"));
                continue;
            }
            let result = one(&world, &servers, &row, &options, &mut report)?;
            eprint!("{}", report.summary(&row, &result));
            report.add(row, result);
        }
    }
    report.took(start.elapsed());
    let markdown = report.markdown();
    let partial = options.filter.is_some() || options.extent == Extent::Quick;
    let output = match options.output {
        Some(path) => Some(path),
        // Parts would take the place of the whole.
        None if partial => None,
        None => Some(tool::root().join("docs/benchmarks.md")),
    };
    match output {
        None => println!("{markdown}"),
        Some(path) => {
            std::fs::write(&path, markdown).map_err(|e| format!("{}: {e}", path.display()))?;
            println!("{} is written", path.display());
        }
    }
    Ok(())
}

fn missing(client: Client) -> Option<&'static str> {
    let program = match client {
        Client::Load => return None,
        Client::Fio => "fio",
        Client::Nbdcopy => "nbdcopy",
    };
    (!tool::is_there(program)).then_some(program)
}

/// Builds the programs and a folder for the files of disks of `size` bytes.
pub fn world(size: u64, profile: Profile) -> Result<World, String> {
    let blkit = tool::build("blkit", profile)?;
    let load = tool::build("blkit-load", profile)?;
    let name = format!("blkit-bench-{}", std::process::id());
    let folder = std::env::temp_dir().join(&name);
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let tmpfs_file = PathBuf::from("/dev/shm").join(name);
    Ok(World {
        blkit,
        load,
        folder,
        tmpfs_file,
        size,
    })
}

/// Writes a file of data, so that it has no holes and lies in the page cache.
pub fn make_file(path: &std::path::Path, size: u64) -> Result<(), String> {
    use std::io::Write;
    let fail = |error| format!("{}: {error}", path.display());
    if path.exists() {
        return Ok(());
    }
    let mut file = std::fs::File::create(path).map_err(fail)?;
    let block: Vec<u8> = (0..1u32 << 20).map(|n| (n % 251) as u8 | 1).collect();
    for _ in 0..size >> 20 {
        file.write_all(&block).map_err(fail)?;
    }
    file.sync_all().map_err(fail)
}

/// Starts every server that can serve the disk.
fn start_all(
    world: &World,
    disk: Disk,
    tcp: bool,
    report: &mut Report,
) -> Result<Vec<Server>, String> {
    for file in [Disk::Tmpfs, disk]
        .into_iter()
        .filter_map(|disk| world.file(disk))
    {
        make_file(&file, world.size)?;
    }
    let mut servers = Vec::new();
    for kind in Kind::ALL {
        match Server::start(world, kind, disk, tcp) {
            Ok(Some(server)) => {
                if disk == Disk::Memory {
                    fill(world, &server)?;
                }
                servers.push(server);
            }
            Ok(None) => report.cannot(kind, disk),
            Err(why) if kind == Kind::Blkit => return Err(why),
            Err(why) => report.note(format!("{}: {why}", kind.name())),
        }
    }
    Ok(servers)
}

/// One row: rounds of all servers in alternation, the order turned by one each time.
fn one(
    world: &World,
    servers: &[Server],
    row: &Row,
    options: &Options,
    report: &mut Report,
) -> Result<RowResult, String> {
    let mut samples: BTreeMap<Kind, Vec<Sample>> = BTreeMap::new();
    for round in 0..options.rounds {
        for n in 0..servers.len() {
            let server = &servers[(n + round) % servers.len()];
            match measure(world, server, row, options.seconds) {
                Ok(sample) => samples.entry(server.kind).or_default().push(sample),
                Err(why) if server.kind == Kind::Blkit => return Err(why),
                Err(why) => report.note(format!("{}: {why}", row.name())),
            }
            // What one left in the caches and queues is not the next one's.
            std::thread::sleep(Duration::from_millis(20));
        }
        if row.has_copy() {
            let sample = copy(world, row, options.seconds)?;
            samples.entry(Kind::Copy).or_default().push(sample);
        }
    }
    Ok(samples
        .into_iter()
        .map(|(kind, samples)| (kind, middle(&samples)))
        .collect())
}

fn middle(samples: &[Sample]) -> Sample {
    let of = |get: fn(&Sample) -> f64| tool::median(&samples.iter().map(get).collect::<Vec<_>>());
    Sample {
        rate: of(|s| s.rate),
        bytes: of(|s| s.bytes),
        cpu: of(|s| s.cpu),
        p50: of(|s| s.p50),
        p99: of(|s| s.p99),
        client_cpu: of(|s| s.client_cpu),
        memory: of(|s| s.memory),
    }
}
