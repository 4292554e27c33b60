//! `blkit-fuzz-runner`: the fuzz targets on the stable toolchain, for a bounded time.
//!
//! First every input of the corpus, then seeded mutations of them until the time is over, the
//! targets in turn. Finding something prints the input's place and how to run it again, and the exit
//! code is 1.
#![forbid(unsafe_code)]

use std::{
    panic::catch_unwind,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use fuzz_runner::{
    TARGETS, Target,
    mutate::{Random, mutate},
    seeds,
};

const USAGE: &str = "\
usage: blkit-fuzz-runner [--seconds S] [--seed N] [--target NAME] [--dir fuzz]
       blkit-fuzz-runner --write-corpus [--dir fuzz]
       blkit-fuzz-runner replay TARGET FILE...
";

struct Options {
    seconds: f64,
    seed: u64,
    target: Option<String>,
    dir: PathBuf,
    write_corpus: bool,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let result = match words.split_first() {
        Some((first, rest)) if first == "replay" => replay(rest),
        _ => options(&words).and_then(|options| {
            if options.write_corpus {
                write_corpus(&options.dir)
            } else {
                fuzz(&options)
            }
        }),
    };
    result.unwrap_or_else(|why| {
        eprintln!("blkit-fuzz-runner: {why}");
        ExitCode::from(2)
    })
}

fn options(words: &[String]) -> Result<Options, String> {
    let mut options = Options {
        seconds: 10.0,
        seed: 1,
        target: None,
        dir: "fuzz".into(),
        write_corpus: false,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--write-corpus" {
            options.write_corpus = true;
            continue;
        }
        let value = words.next().ok_or(USAGE)?;
        let bad = || format!("{word} {value}: not a number");
        match word.as_str() {
            "--seconds" => options.seconds = value.parse().map_err(|_| bad())?,
            "--seed" => options.seed = value.parse().map_err(|_| bad())?,
            "--target" => options.target = Some(value.clone()),
            "--dir" => options.dir = value.into(),
            _ => return Err(format!("unknown option {word}\n{USAGE}")),
        }
    }
    Ok(options)
}

fn find(name: &str) -> Result<&'static Target, String> {
    let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    TARGETS
        .iter()
        .find(|target| target.name == name)
        .ok_or_else(|| format!("no target '{name}'; there are {}", names.join(", ")))
}

fn replay(words: &[String]) -> Result<ExitCode, String> {
    let (name, files) = words.split_first().ok_or(USAGE)?;
    let target = find(name)?;
    for file in files {
        let input = std::fs::read(file).map_err(|error| format!("{file}: {error}"))?;
        (target.run)(&input);
        println!("{file}: passed");
    }
    Ok(ExitCode::SUCCESS)
}

fn write_corpus(dir: &Path) -> Result<ExitCode, String> {
    for target in TARGETS {
        let folder = dir.join("corpus").join(target.name);
        let fail = |error| format!("{}: {error}", folder.display());
        std::fs::create_dir_all(&folder).map_err(fail)?;
        let seeds = seeds::of(target.name);
        for seed in &seeds {
            let name = format!("{:016x}", hash(seed));
            std::fs::write(folder.join(name), seed).map_err(fail)?;
        }
        println!("{}: {} seeds", target.name, seeds.len());
    }
    Ok(ExitCode::SUCCESS)
}

/// The corpus of a target, in the order of names.
fn corpus(dir: &Path, target: &Target) -> Result<Vec<Vec<u8>>, String> {
    let folder = dir.join("corpus").join(target.name);
    let fail = |error| format!("{}: {error}", folder.display());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(fail)? {
        paths.push(entry.map_err(fail)?.path());
    }
    paths.sort();
    let inputs: Result<Vec<_>, _> = paths.iter().map(std::fs::read).collect();
    let inputs = inputs.map_err(fail)?;
    if inputs.is_empty() {
        return Err(format!("{}: the corpus is empty", folder.display()));
    }
    Ok(inputs)
}

fn fuzz(options: &Options) -> Result<ExitCode, String> {
    let chosen: Vec<&Target> = match &options.target {
        Some(name) => vec![find(name)?],
        None => TARGETS.iter().collect(),
    };
    let share = Duration::from_secs_f64(options.seconds / chosen.len() as f64);
    for target in chosen {
        let inputs = corpus(&options.dir, target)?;
        for input in &inputs {
            if let Some(found) = attempt(options, target, input)? {
                return Ok(found);
            }
        }
        let (end, mut mutations) = (Instant::now() + share, 0u64);
        let mut random = Random::new(options.seed);
        while Instant::now() < end {
            let (one, other) = (random.below(inputs.len()), random.below(inputs.len()));
            let input = mutate(&mut random, &inputs[one], &inputs[other]);
            if let Some(found) = attempt(options, target, &input)? {
                return Ok(found);
            }
            mutations += 1;
        }
        println!(
            "{}: {} inputs of the corpus and {mutations} mutations (seed {}) passed",
            target.name,
            inputs.len(),
            options.seed
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs one input; keeps it if it breaks a promise.
fn attempt(options: &Options, target: &Target, input: &[u8]) -> Result<Option<ExitCode>, String> {
    if catch_unwind(|| (target.run)(input)).is_ok() {
        return Ok(None);
    }
    let folder = options.dir.join("artifacts").join(target.name);
    let path = folder.join(format!("crash-{:016x}", hash(input)));
    let kept = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, input));
    kept.map_err(|error| format!("{}: {error}", path.display()))?;
    println!(
        "{}: FAILED; again with: cargo run -p blkit-fuzz-runner -- replay {} {}",
        target.name,
        target.name,
        path.display()
    );
    Ok(Some(ExitCode::FAILURE))
}

/// FNV-1a: names that do not change with the toolchain.
fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}
