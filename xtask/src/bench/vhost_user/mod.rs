//! `cargo xtask bench vhost-user`: vhost-user-blk servers side by side, and libraries of libblkio's
//! interface side by side.
//!
//! Peers that the system has not are named by the environment: `BLKIT_BENCH_QSD`, a newer
//! qemu-storage-daemon; `BLKIT_BENCH_LIBBLKIO`, libblkio; `BLKIT_BENCH_OUR_LIBBLKIO`, a build of ours
//! that is there already. What is missing is told in the report.

mod report;
mod rows;
mod servers;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    process,
    servers::{Kind, Server},
};
use crate::tool;
use report::{Contestant, Report, Result as RowResult, Sample};
use rows::{Client, Contest, Disk, Row};
use servers::Lab;

struct Options {
    quick: bool,
    filter: Option<String>,
    seconds: f64,
    rounds: usize,
    output: Option<PathBuf>,
}

impl Options {
    fn parse(words: &[String]) -> Result<Options, String> {
        let mut options = Options {
            quick: false,
            filter: None,
            seconds: 0.5,
            rounds: 5,
            output: None,
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            let number = |text: &String| {
                let parsed = text.parse::<f64>();
                parsed.map_err(|_| format!("'{text}' is not a number"))
            };
            match word.as_str() {
                "--quick" => options.quick = true,
                "--rows" => options.filter = Some(value()?.clone()),
                "--seconds" => options.seconds = number(value()?)?.max(0.1),
                "--rounds" => options.rounds = number(value()?)?.max(1.0) as usize,
                "--output" => options.output = Some(value()?.into()),
                _ => return Err(format!("unknown option {word}\n{}", super::USAGE)),
            }
        }
        Ok(options)
    }
}

/// Runs the benchmark.
pub fn run(words: &[String]) -> Result<(), String> {
    let options = Options::parse(words)?;
    let mut rows = rows::rows(options.quick);
    if let Some(filter) = &options.filter {
        rows.retain(|row| row.name().contains(filter.as_str()));
    }
    if rows.is_empty() {
        return Err("no row has that in its name".into());
    }
    let lab = Lab::new()?;
    let mut report = Report::new(options.seconds, options.rounds, lab.peers());
    let (start, total) = (Instant::now(), rows.len());
    let mut bench = Bench {
        lab: &lab,
        options: &options,
        servers: Vec::new(),
        disk: None,
    };
    for (n, row) in rows.into_iter().enumerate() {
        let seconds = start.elapsed().as_secs_f64();
        eprintln!("[{}/{total}, {seconds:.0} s] {}", n + 1, row.name());
        bench.serve(&row, &mut report)?;
        let result = bench.one(&row, &mut report);
        eprint!("{}", report.summary(&row, &result));
        report.add(row, result);
    }
    if options.filter.is_none() {
        report.idle(bench.idle()?);
    }
    report.took(start.elapsed());
    let markdown = report.markdown();
    let partial = options.filter.is_some() || options.quick;
    let output = match &options.output {
        Some(path) => Some(path.clone()),
        // Parts would take the place of the whole.
        None if partial => None,
        None => Some(tool::root().join("docs/benchmarks-vhost-user.md")),
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

/// The servers that run now.
struct Bench<'a> {
    lab: &'a Lab,
    options: &'a Options,
    servers: Vec<Server>,
    disk: Option<Disk>,
}

const KINDS: [Kind; 4] = [Kind::Blkit, Kind::Daemon, Kind::NewerDaemon, Kind::NullVmm];

impl Bench<'_> {
    /// Sees to it that the row's servers run.
    fn serve(&mut self, row: &Row, report: &mut Report) -> Result<(), String> {
        if row.contest == Contest::Files || self.disk == Some(row.disk) {
            return Ok(());
        }
        self.servers.clear();
        self.disk = Some(row.disk);
        for kind in KINDS {
            match self.lab.start(kind, row.disk) {
                Ok(Some(server)) => self.servers.push(server),
                Ok(None) => report.note(format!("{}: not for a {}", kind.name(), row.disk.name())),
                Err(why) if kind == Kind::Blkit => return Err(why),
                Err(why) => report.note(why),
            }
        }
        Ok(())
    }

    /// One row: rounds of all that are compared, in alternation, the order turned by one each time.
    fn one(&self, row: &Row, report: &mut Report) -> RowResult {
        let all = self.contestants(row);
        let mut samples: BTreeMap<Contestant, Vec<Sample>> = BTreeMap::new();
        let mut given_up = Vec::new();
        for round in 0..self.options.rounds {
            for n in 0..all.len() {
                let contestant = all[(n + round) % all.len()];
                if given_up.contains(&contestant) {
                    continue;
                }
                match self.measure(row, contestant) {
                    Ok(sample) => samples.entry(contestant).or_default().push(sample),
                    Err(why) => {
                        // It would say the same again.
                        given_up.push(contestant);
                        report.note(format!("{}, {}: {why}", row.name(), contestant.name()));
                    }
                }
                // What one left in the caches and queues is not the next one's.
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        let middle = |(contestant, samples): (Contestant, Vec<Sample>)| {
            (contestant, Sample::middle(&samples))
        };
        samples.into_iter().map(middle).collect()
    }

    fn contestants(&self, row: &Row) -> Vec<Contestant> {
        let servers = self.servers.iter().map(|server| server.kind);
        match row.contest {
            Contest::Servers(client) => servers
                .filter(|kind| *kind != Kind::NullVmm || row.block <= 4096)
                .map(|kind| Contestant::Server(kind, best(client, kind)))
                .collect(),
            Contest::Libraries | Contest::Files => {
                vec![
                    Contestant::Library(Client::Ours),
                    Contestant::Library(Client::Theirs),
                ]
            }
        }
    }

    fn measure(&self, row: &Row, contestant: Contestant) -> Result<Sample, String> {
        let (kind, client) = match contestant {
            Contestant::Server(kind, client) => (kind, client),
            Contestant::Library(client) => (Kind::Blkit, client),
        };
        let mut command = self.lab.load(row, client, self.options.seconds);
        if row.contest == Contest::Files {
            self.lab.on_file(&mut command, row.disk);
            return sample(&mut command);
        }
        let server = self.servers.iter().find(|server| server.kind == kind);
        let server = server.ok_or("it does not run")?;
        Lab::on_server(&mut command, client, server);
        if row.one_cpu {
            process::pin(server.pid(), "0")?;
        }
        let before = server.cpu();
        let told = sample(&mut command);
        // What was in flight at the end is over, and threads of the session have ended.
        std::thread::sleep(Duration::from_millis(20));
        let used = server.cpu() - before;
        if row.one_cpu {
            process::pin(server.pid(), &process::all_cpus())?;
        }
        told.map(|told| Sample {
            server_cpu: used * 1e9 / told.requests.max(1.0),
            ..told
        })
    }

    /// CPU time of our server and its client in 3 s in which a front-end is there and asks nothing.
    fn idle(&mut self) -> Result<f64, String> {
        let row = rows::rows(true).remove(0);
        self.disk = None;
        self.serve(&row, &mut Report::new(0.0, 0, String::new()))?;
        let server = self.servers.first().ok_or("no server")?;
        let mut command = self.lab.load(&row, Client::LOGGED, 0.1);
        command.args(["--linger", "4"]);
        Lab::on_server(&mut command, Client::LOGGED, server);
        let mut load = command.spawn().map_err(|error| error.to_string())?;
        std::thread::sleep(Duration::from_millis(700));
        let before = server.cpu();
        std::thread::sleep(Duration::from_secs(3));
        let used = server.cpu() - before;
        load.wait().map_err(|error| error.to_string())?;
        Ok(used)
    }
}

/// The client that asks this server for most of what it should be asked for: only ours has an
/// in-flight log or packed rings.
fn best(client: Client, kind: Kind) -> Client {
    match client {
        Client::Ring { .. } if kind != Kind::Blkit => Client::Ring {
            log: false,
            packed: false,
        },
        client => client,
    }
}

/// Runs the load and reads what it prints.
fn sample(command: &mut Command) -> Result<Sample, String> {
    let text = tool::output(command)?;
    let told: Value =
        serde_json::from_str(&text).map_err(|error| format!("the load's report: {error}"))?;
    let number = |value: &Value, name: &str| {
        let found = value[name].as_f64();
        found.ok_or_else(|| format!("the load does not tell {name}"))
    };
    let errors = number(&told, "errors")? + number(&told, "wrong")?;
    if errors > 0.0 {
        return Err(format!("{errors} requests failed"));
    }
    Ok(Sample {
        requests: number(&told, "requests")?,
        rate: number(&told, "requests_per_second")?,
        server_cpu: 0.0,
        client_cpu: number(&told, "client_cpu_ns_per_request")?,
        p50: number(&told["latency_us"], "p50")?,
        p99: number(&told["latency_us"], "p99")?,
    })
}
