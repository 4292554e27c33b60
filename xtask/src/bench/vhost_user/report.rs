//! The report: every row with all that were compared, ratios, aims met and missed.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use super::rows::{Client, Contest, Disk, Row};
use crate::{
    bench::{machine, servers::Kind},
    tool,
};

/// Within this, two figures are equal.
const EQUAL: f64 = 0.05;

/// Who is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contestant {
    /// A server, with the client that it was asked by.
    Server(Kind, Client),
    /// A library.
    Library(Client),
}

impl Contestant {
    /// Name in tables.
    pub fn name(self) -> String {
        match self {
            Contestant::Server(kind, _) => kind.name().to_owned(),
            Contestant::Library(client) => client.name().to_owned(),
        }
    }

    fn is_ours(self) -> bool {
        matches!(
            self,
            Contestant::Server(Kind::Blkit, _) | Contestant::Library(Client::Ours)
        )
    }
}

/// One run, or the medians of several. CPU times are nanoseconds for each request, latencies
/// microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// Requests done.
    pub requests: f64,
    /// Requests per second.
    pub rate: f64,
    /// CPU time of the server.
    pub server_cpu: f64,
    /// CPU time of the client.
    pub client_cpu: f64,
    /// Median latency.
    pub p50: f64,
    /// Latency that 99 % stay below.
    pub p99: f64,
}

impl Sample {
    /// Medians, each of its own.
    pub fn middle(samples: &[Sample]) -> Sample {
        let of =
            |get: fn(&Sample) -> f64| tool::median(&samples.iter().map(get).collect::<Vec<_>>());
        Sample {
            requests: of(|s| s.requests),
            rate: of(|s| s.rate),
            server_cpu: of(|s| s.server_cpu),
            client_cpu: of(|s| s.client_cpu),
            p50: of(|s| s.p50),
            p99: of(|s| s.p99),
        }
    }
}

/// What came of a row.
pub type Result = BTreeMap<Contestant, Sample>;

/// All that will be told.
pub struct Report {
    seconds: f64,
    rounds: usize,
    peers: String,
    load_before: String,
    took: Duration,
    rows: Vec<(Row, Result)>,
    notes: Vec<String>,
    idle: Option<f64>,
}

/// One aim, and whether it was met.
struct Aim {
    met: bool,
    text: String,
}

impl Aim {
    fn tell(&self) -> String {
        match self.met {
            true => self.text.clone(),
            false => format!("**missed**: {}", self.text),
        }
    }
}

impl Report {
    /// Nothing measured yet.
    pub fn new(seconds: f64, rounds: usize, peers: String) -> Report {
        Report {
            seconds,
            rounds,
            peers,
            load_before: machine::load(),
            took: Duration::ZERO,
            rows: Vec::new(),
            notes: Vec::new(),
            idle: None,
        }
    }

    /// A row is done.
    pub fn add(&mut self, row: Row, result: Result) {
        self.rows.push((row, result));
    }

    /// Something to know.
    pub fn note(&mut self, note: String) {
        let note = note.trim().replace('\n', " ");
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// CPU seconds of a server that was asked nothing.
    pub fn idle(&mut self, seconds: f64) {
        self.idle = Some(seconds);
    }

    /// How long all of it took.
    pub fn took(&mut self, took: Duration) {
        self.took = took;
    }

    /// A row in short, for the terminal.
    pub fn summary(&self, row: &Row, result: &Result) -> String {
        let mut text = String::new();
        for (contestant, sample) in result {
            let missed = match aims(row, *contestant, result).iter().all(|aim| aim.met) {
                true => "",
                false => "  MISSED",
            };
            let _ = writeln!(
                text,
                "    {:<20} {:>9.0}/s {:>8.0} ns server {:>8.0} ns client{missed}",
                contestant.name(),
                sample.rate,
                sample.server_cpu,
                sample.client_cpu
            );
        }
        text
    }

    /// The whole report.
    pub fn markdown(&self) -> String {
        let mut text = String::from("# Benchmarks: vhost-user-blk, both ends\n\n");
        text.push_str(
            "Written by `cargo xtask bench vhost-user`; repeat it with that. `--rows TEXT` runs the \
             rows with TEXT in their name only, `--quick` a part.\n\n## Machine\n\n",
        );
        text.push_str(&machine::describe());
        text.push_str(&self.peers);
        let _ = writeln!(
            text,
            "- load averages before: {}; after (our own included): {}; it took {:.0} minutes\n",
            self.load_before,
            machine::load(),
            self.took.as_secs_f64() / 60.0
        );
        text.push_str(&self.method());
        text.push_str(&self.aims());
        let mut group = None;
        for (row, result) in &self.rows {
            let of = (row.contest, row.disk);
            if group != Some(of) {
                group = Some(of);
                text.push_str(&head(row));
            }
            lines(&mut text, row, result);
        }
        text
    }

    fn method(&self) -> String {
        let notes: String = self
            .notes
            .iter()
            .map(|note| format!("- {note}\n"))
            .collect();
        format!(
            "## Method\n\n\
             Each figure is the median of {} runs of {} s; those that are compared take turns, in an \
             order that turns too. Disks are 1024 MiB, files are written from end to end before and \
             lie in the page cache whole; places are random. Servers offer two queues. \
             qemu-storage-daemon has an I/O thread, and `aio=io_uring` for files; with several I/O \
             threads it refuses this export. *rust-vmm null* is `benches/null-vmm`: \
             vhost-user-backend and virtio-queue, every descriptor translated, no data touched.\n\n\
             - The load is `blkit-load disk`: one program that loads either library by path, or has \
             rings of its own. libblkio knows no in-flight log and no packed ring, so rows with those \
             have the load's own rings; servers that lack them are asked there without, and on split \
             rings. Rings have 512 descriptors, so that 128 requests of three fit.\n\
             - *server CPU*, *client CPU*: user and system time for each request. The server's is from \
             `/proc/PID/stat`, in ticks of 10 ms; the client's is the whole load's, its own work \
             included, which is the same with either library.\n\
             - Rows *on one CPU*: server and client have the first CPU only. Elsewhere the kernel puts \
             them where it likes; in a virtual machine the wake of a CPU that has gone idle costs tens \
             of microseconds, some of it charged to whoever wakes, and hides the rest. One CPU \
             shows what the programs themselves cost.\n\
             - A null disk of blkit, and of qemu-storage-daemon with `read-zeroes=on`, writes zeroes \
             into the guest's memory for a read: 4 KiB of them take about 60 ns here. Writes \
             touch no data.\n\
             - A difference of 5 % is none.\n{notes}\n",
            self.rounds, self.seconds
        )
    }

    fn aims(&self) -> String {
        let mut missed = String::new();
        let (mut met, mut all) = (0, 0);
        for (row, result) in &self.rows {
            for contestant in result.keys() {
                for aim in aims(row, *contestant, result) {
                    all += 1;
                    met += usize::from(aim.met);
                    if !aim.met {
                        let (name, who) = (row.name(), contestant.name());
                        let _ = writeln!(missed, "- {name}; {who}: {}", aim.text);
                    }
                }
            }
        }
        let idle = self.idle.map_or(String::new(), |seconds| {
            format!(
                " With a front-end that asks nothing our server used {:.0} ms of CPU in 3 s (aim: 0).",
                seconds * 1e3
            )
        });
        let list = match missed.is_empty() {
            true => String::new(),
            false => format!("Missed:\n\n{missed}"),
        };
        format!(
            "## Aims\n\n\
             Null, with all checks and the in-flight log: at most 120 ns of server CPU at depth 32 and \
             80 ns at depth 128. File in the page cache: at least twice the rate of \
             qemu-storage-daemon at depth 32. Depth 1: not slower than a peer. Our library: not more \
             CPU than libblkio.{idle} {met} of {all} met. {list}"
        )
    }
}

fn head(row: &Row) -> String {
    let (title, who) = match row.contest {
        Contest::Servers(client) => (format!("Servers, asked by {}", client.name()), "server"),
        Contest::Libraries => ("Libraries, on blkit's server".to_owned(), "library"),
        Contest::Files => ("Libraries, driver io_uring".to_owned(), "library"),
    };
    format!(
        "\n## {title}: {}\n\n\
         | what | {who} | rate | p50 us | p99 us | server CPU | client CPU | blkit's rate to this \
         | blkit's CPU to this | aim |\n\
         | --- | --- | --: | --: | --: | --: | --: | --: | --: | --- |\n",
        row.disk.name()
    )
}

/// The CPU time that the row compares.
fn cpu(row: &Row, sample: &Sample) -> f64 {
    match row.contest {
        Contest::Servers(_) => sample.server_cpu,
        _ => sample.client_cpu,
    }
}

fn ours(result: &Result) -> Option<&Sample> {
    let found = result.iter().find(|(contestant, _)| contestant.is_ours());
    found.map(|(_, sample)| sample)
}

fn lines(text: &mut String, row: &Row, result: &Result) {
    if result.is_empty() {
        let _ = writeln!(text, "| {} | not run |  |  |  |  |  |  |  |  |", row.what());
    }
    for (n, (contestant, sample)) in result.iter().enumerate() {
        let what = if n == 0 { row.what() } else { String::new() };
        let other = ours(result).filter(|_| !contestant.is_ours());
        let times = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.2}"));
        let server = match row.contest {
            Contest::Files => "-".to_owned(),
            _ => format!("{:.0} ns", sample.server_cpu),
        };
        let aims: Vec<String> = aims(row, *contestant, result)
            .iter()
            .map(Aim::tell)
            .collect();
        let _ = writeln!(
            text,
            "| {what} | {} | {:.0}/s | {:.1} | {:.1} | {server} | {:.0} ns | {} | {} | {} |",
            contestant.name(),
            sample.rate,
            sample.p50,
            sample.p99,
            sample.client_cpu,
            times(other.map(|ours| ours.rate / sample.rate)),
            times(other.map(|ours| cpu(row, ours) / cpu(row, sample).max(1e-9))),
            aims.join("; ")
        );
    }
}

/// What blkit is to reach in this row: by itself, or compared with one of the others.
fn aims(row: &Row, contestant: Contestant, result: &Result) -> Vec<Aim> {
    let Some(ours) = ours(result) else {
        return Vec::new();
    };
    if contestant.is_ours() {
        let logged = matches!(
            row.contest,
            Contest::Servers(Client::Ring { log: true, .. })
        );
        let most = match (row.disk, row.depth) {
            (Disk::Null, 32) if logged => 120.0,
            (Disk::Null, 128) if logged => 80.0,
            _ => return Vec::new(),
        };
        let used = ours.server_cpu;
        return vec![Aim {
            met: used <= most,
            text: format!("CPU {used:.0} ns (aim: at most {most} ns)"),
        }];
    }
    let theirs = &result[&contestant];
    let rate = |least: f64| {
        let ratio = ours.rate / theirs.rate;
        Aim {
            met: ratio >= least * (1.0 - EQUAL),
            text: format!("rate {ratio:.2} (aim: at least {least})"),
        }
    };
    match (row.contest, contestant) {
        (Contest::Servers(_), Contestant::Server(kind, _)) => {
            let daemon = matches!(kind, Kind::Daemon | Kind::NewerDaemon);
            match (row.depth, row.disk) {
                (1, _) => vec![rate(1.0)],
                (32, Disk::File) if daemon && row.block == 4096 && !row.write => vec![rate(2.0)],
                _ => Vec::new(),
            }
        }
        _ => {
            let ratio = ours.client_cpu / theirs.client_cpu;
            vec![Aim {
                met: ratio <= 1.0 + EQUAL,
                text: format!("CPU {ratio:.2} (aim: at most 1)"),
            }]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::rows;
    use super::*;

    fn find(text: &str) -> Row {
        let found = rows(false)
            .into_iter()
            .find(|row| row.name().contains(text));
        found.unwrap_or_else(|| panic!("no row {text}"))
    }

    fn sample(rate: f64, cpu: f64) -> Sample {
        Sample {
            rate,
            server_cpu: cpu,
            client_cpu: cpu,
            ..Sample::default()
        }
    }

    #[test]
    fn aims_are_judged_where_they_apply() {
        let of = |kind| Contestant::Server(kind, Client::LOGGED);
        let result = Result::from([
            (of(Kind::Blkit), sample(300.0, 119.0)),
            (of(Kind::Daemon), sample(100.0, 600.0)),
            (of(Kind::NullVmm), sample(500.0, 90.0)),
        ]);
        let judge = |row: &str, kind| {
            let aims = aims(&find(row), of(kind), &result);
            aims.iter().map(|aim| aim.met).collect::<Vec<_>>()
        };
        let null = "in-flight log, null: 4 KiB read, depth ";
        assert_eq!(judge(&format!("{null}32"), Kind::Blkit), [true]);
        assert_eq!(judge(&format!("{null}128"), Kind::Blkit), [false]);
        assert_eq!(judge(&format!("{null}1"), Kind::NullVmm), [false]);
        let file = "in-flight log, file in page cache: 4 KiB read, depth 32";
        assert_eq!(judge(file, Kind::Daemon), [true]);
        assert_eq!(judge(file, Kind::NullVmm), [] as [bool; 0]);
    }

    #[test]
    fn losing_rows_are_shown() {
        let mut report = Report::new(0.5, 3, String::new());
        let result = Result::from([
            (Contestant::Library(Client::Ours), sample(100.0, 9.0)),
            (Contestant::Library(Client::Theirs), sample(90.0, 8.0)),
        ]);
        report.add(
            find("io_uring, file in page cache: 4 KiB read, depth 32"),
            result,
        );
        let text = report.markdown();
        assert!(text.contains("0 of 1 met"), "{text}");
        assert!(text.contains("**missed**: CPU 1.12"), "{text}");
    }
}
