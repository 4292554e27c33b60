//! The report: every row with every server, ratios, aims met and missed.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use super::{
    clients::Sample,
    machine,
    rows::{Client, Row},
    servers::{Disk, Kind},
};

/// What the servers of a row did.
pub type Result = BTreeMap<Kind, Sample>;

/// Within this, two figures are equal.
const EQUAL: f64 = 0.95;

/// All that will be told.
pub struct Report {
    seconds: f64,
    rounds: usize,
    size: u64,
    load_before: String,
    took: Duration,
    rows: Vec<(Row, Result)>,
    notes: Vec<String>,
}

/// One aim, and whether it was met.
#[derive(Clone, Debug, PartialEq)]
pub struct Aim {
    met: bool,
    text: String,
}

impl Report {
    /// Nothing measured yet.
    pub fn new(seconds: f64, rounds: usize, size: u64) -> Report {
        let load_before = machine::load();
        let took = Duration::ZERO;
        Report {
            seconds,
            rounds,
            size,
            load_before,
            took,
            rows: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// A row is done.
    pub fn add(&mut self, row: Row, result: Result) {
        self.rows.push((row, result));
    }

    /// A row was not run.
    pub fn skip(&mut self, row: &Row, why: String) {
        self.note(format!("{}: not run: {why}", row.name()));
    }

    /// A server has no such disk.
    pub fn cannot(&mut self, kind: Kind, disk: Disk) {
        self.note(format!(
            "{} has no disk of the kind '{}'",
            kind.name(),
            disk.name()
        ));
    }

    /// Something to know.
    pub fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// How long all of it took.
    pub fn took(&mut self, took: Duration) {
        self.took = took;
    }

    /// A row in short, for the terminal.
    pub fn summary(&self, row: &Row, result: &Result) -> String {
        let mut text = String::new();
        for (kind, sample) in result {
            let aims = aims(row, *kind, result);
            let missed = if aims.iter().any(|aim| !aim.met) {
                "  MISSED"
            } else {
                ""
            };
            let (name, rate) = (kind.name(), rate(row, sample));
            let _ = writeln!(
                text,
                "    {name:<18} {rate:>14} {:>9.2} us CPU{missed}",
                sample.cpu
            );
        }
        text
    }

    /// The whole report.
    pub fn markdown(&self) -> String {
        let mut text = String::from("# Benchmarks: NBD servers side by side\n\n");
        text.push_str("Written by `cargo xtask bench nbd`; repeat it with that. ");
        text.push_str(
            "`--rows TEXT` runs the rows with TEXT in their name only, `--quick` a part ",
        );
        text.push_str("in two minutes, `--full` every combination.\n\n## Machine\n\n");
        text.push_str(&machine::describe());
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
            let of = (row.tcp, row.disk);
            if group != Some(of) {
                group = Some(of);
                let socket = if row.tcp {
                    "TCP loopback"
                } else {
                    "Unix socket"
                };
                let _ = writeln!(text, "\n## {socket}, {}\n", row.disk.name());
                text.push_str("| what | server | rate | p50 us | p99 us | server CPU | peak MiB ");
                text.push_str("| blkit's rate to this | blkit's CPU to this | aim |\n");
                text.push_str("| --- | --- | --: | --: | --: | --: | --: | --: | --: | --- |\n");
            }
            lines(&mut text, row, result);
        }
        text
    }

    fn method(&self) -> String {
        let (seconds, rounds, size) = (self.seconds, self.rounds, self.size >> 20);
        let notes: String = self
            .notes
            .iter()
            .map(|note| format!("- {note}\n"))
            .collect();
        format!(
            "## Method\n\n\
             Each figure is the median of {rounds} runs of {seconds} s; the servers take turns, in an \
             order that turns too. All run unpinned with their defaults; clients and servers share \
             the cores, so a rate is what both together reach. In the rows *on one CPU* server and \
             client have the first CPU only: at depth 1 a wake of a sleeping CPU, dear in a virtual \
             machine, would hide the rest, and where the kernel puts the two decides the row. Disks are {size} MiB; memory disks and \
             files are written from end to end before, files lie in the page cache whole; \
             qemu-nbd runs with `--cache=writeback --aio=io_uring`, nbd-server has a \
             process for each client.\n\n\
             - *server CPU*: user and system time of the server and all its children, divided by \
             requests; where rates are in MB/s, by MiB. From `/proc/PID/stat`, in ticks of 10 ms: a \
             run of {seconds} s is exact to about 20 ms.\n\
             - *peak MiB*: `VmHWM`, begun anew for each run.\n\
             - The client is `blkit-load` (`benches/load`: all sends of a batch in one system call, \
             bulk receives, no copy, no allocation per request), or fio's nbd engine, or nbdcopy \
             (64 requests of 256 KiB, its defaults; out goes to `null:`, in comes from a file on \
             tmpfs).\n\
             - *bare socket copy*: two processes, the same kind of socket, blocks of the same size \
             sent from one piece of memory, `SO_SNDBUF` 2 MiB on the sending side as blkit sets it, \
             256 KiB of memory on the receiving side as `blkit-load` has.\n\
             - A null disk of blkit and of qemu-nbd answers reads with holes if the client knows \
             structured replies, and nbdkit with data. The rows with *simple replies* use a client \
             that does not ask for them, so that all send the zeroes.\n\
             - A difference of 5 % is none.\n{notes}\n"
        )
    }

    fn aims(&self) -> String {
        let mut missed = String::new();
        let (mut met, mut all) = (0, 0);
        for (row, result) in &self.rows {
            for kind in result.keys() {
                for aim in aims(row, *kind, result) {
                    all += 1;
                    met += usize::from(aim.met);
                    if !aim.met {
                        let (name, kind) = (row.name(), kind.name());
                        let _ = writeln!(missed, "- {name}; {kind}: {}", aim.text);
                    }
                }
            }
        }
        let list = if missed.is_empty() {
            String::new()
        } else {
            format!("Missed:\n\n{missed}")
        };
        format!(
            "## Aims\n\n\
             4 KiB with `blkit-load`, to nbdkit and qemu-nbd: at depth 32 at most 1/4 of the server \
             CPU and at least 3 times the rate, at depth 1 at most 1/2 of the CPU. 1 MiB: at least \
             90 % of the bare socket copy (from depth 4 on), and never below a peer. fio and nbdcopy: \
             no peer faster. {met} of {all} met. {list}"
        )
    }
}

fn lines(text: &mut String, row: &Row, result: &Result) {
    let ours = result.get(&Kind::Blkit);
    for (n, (kind, sample)) in result.iter().enumerate() {
        let what = if n == 0 { row.what() } else { String::new() };
        let micros = |value: f64| match value {
            0.0 => "-".into(),
            _ if value < 100.0 => format!("{value:.1}"),
            _ => format!("{value:.0}"),
        };
        let peer = ours.filter(|_| *kind != Kind::Blkit);
        let times = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.2}"));
        let aims: Vec<String> = aims(row, *kind, result).iter().map(Aim::tell).collect();
        let memory = if *kind == Kind::Copy {
            "-".into()
        } else {
            format!("{:.0}", sample.memory)
        };
        let _ = writeln!(
            text,
            "| {what} | {} | {} | {} | {} | {:.2} us | {memory} | {} | {} | {} |",
            kind.name(),
            rate(row, sample),
            micros(sample.p50),
            micros(sample.p99),
            sample.cpu,
            times(peer.map(|ours| ours.rate / sample.rate)),
            times(
                peer.filter(|_| sample.cpu > 0.0)
                    .map(|ours| ours.cpu / sample.cpu)
            ),
            aims.join("; ")
        );
    }
}

impl Aim {
    fn tell(&self) -> String {
        if self.met {
            self.text.clone()
        } else {
            format!("**missed**: {}", self.text)
        }
    }
}

fn rate(row: &Row, sample: &Sample) -> String {
    match row.is_bulk() {
        true => format!("{:.0} MB/s", sample.bytes / 1e6),
        false => format!("{:.0}/s", sample.rate),
    }
}

/// What blkit is to reach in this row, compared with one of the others.
pub fn aims(row: &Row, kind: Kind, result: &Result) -> Vec<Aim> {
    let (Some(ours), Some(theirs)) = (result.get(&Kind::Blkit), result.get(&kind)) else {
        return Vec::new();
    };
    if kind == Kind::Blkit {
        return Vec::new();
    }
    let (rate, cpu) = (ours.rate / theirs.rate, ours.cpu / theirs.cpu);
    let at_least = |most: f64| Aim {
        met: rate >= most,
        text: format!("rate {rate:.2} (aim: at least {most})"),
    };
    let at_most = |most: f64| Aim {
        met: cpu <= most,
        text: format!("CPU {cpu:.2} (aim: at most {most})"),
    };
    let rival = matches!(kind, Kind::Nbdkit | Kind::Qemu);
    match (row.client, row.block) {
        (Client::Fio | Client::Nbdcopy, _) => vec![at_least(EQUAL)],
        (Client::Load, block) if block >= 1 << 20 => match kind {
            Kind::Copy if row.depth >= 4 => vec![at_least(0.9)],
            Kind::Copy => Vec::new(),
            _ => vec![at_least(EQUAL)],
        },
        (Client::Load, 4096) if rival && row.connections == 1 => match row.depth {
            1 => vec![at_most(0.5)],
            32 => vec![at_most(0.25), at_least(3.0)],
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::{Extent, rows};
    use super::*;

    fn sample(rate: f64, cpu: f64) -> Sample {
        Sample {
            rate,
            cpu,
            bytes: rate * 4096.0,
            ..Sample::default()
        }
    }

    fn find(text: &str) -> Row {
        let found = rows(Extent::Default)
            .into_iter()
            .find(|row| row.name().contains(text));
        found.unwrap_or_else(|| panic!("no row {text}"))
    }

    #[test]
    fn aims_are_judged_where_they_apply() {
        let result = Result::from([
            (Kind::Blkit, sample(300.0, 2.0)),
            (Kind::Nbdkit, sample(90.0, 10.0)),
            (Kind::NbdServer, sample(400.0, 1.0)),
        ]);
        let row = find("memory: 4 KiB random read, depth 32");
        let met: Vec<bool> = aims(&row, Kind::Nbdkit, &result)
            .iter()
            .map(|a| a.met)
            .collect();
        assert_eq!(met, [true, true]);
        assert!(aims(&row, Kind::NbdServer, &result).is_empty());
        assert!(aims(&row, Kind::Blkit, &result).is_empty());
        let row = find("memory: 1 MiB sequential read, depth 4");
        assert!(!aims(&row, Kind::NbdServer, &result)[0].met);
        assert!(aims(&row, Kind::Nbdkit, &result)[0].met);
    }

    #[test]
    fn losing_rows_are_shown() {
        let mut report = Report::new(1.0, 3, 1 << 30);
        let row = find("unix, memory: 4 KiB random read, depth 32");
        let result = Result::from([
            (Kind::Blkit, sample(100.0, 9.0)),
            (Kind::Qemu, sample(90.0, 10.0)),
        ]);
        report.add(row, result);
        let text = report.markdown();
        assert!(text.contains("0 of 2 met"), "{text}");
        assert!(text.contains("**missed**: CPU 0.90") && text.contains("| qemu-nbd | 90/s |"));
    }
}
