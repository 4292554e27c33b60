//! How many requests a second each face does: `cargo run --release -p blkit --example rates [SOURCE
//! [WORD ...]]` [default: a disk in memory]. One thread asks, one serves.

use std::time::{Duration, Instant};

use blkit::{Buffer, Context, Disk};

const LEN: usize = 4096;
const TIME: Duration = Duration::from_secs(2);

/// Calls `f`, which does so many requests, for a while; requests a second.
fn rate(mut f: impl FnMut() -> u64) -> f64 {
    let warm = Instant::now();
    while warm.elapsed() < TIME / 4 {
        f();
    }
    let (began, mut done) = (Instant::now(), 0);
    while began.elapsed() < TIME {
        done += f();
    }
    done as f64 / began.elapsed().as_secs_f64()
}

fn tell(name: &str, rate: f64) {
    println!(
        "{name:<40} {:>8.1} k/s {:>8.2} us each",
        rate / 1e3,
        1e6 / rate
    );
}

fn main() -> blkit::Result<()> {
    let mut words = std::env::args().skip(1);
    let context = Context::builder().threads(1).build()?;
    let builder = match words.next() {
        Some(source) => words.fold(Disk::builder(source), blkit::Builder::arg),
        None => Disk::builder("memory").arg("64M"),
    };
    let disk = builder.context(&context).open()?;
    let blocks = disk.size() / LEN as u64;
    let mut next = 0;
    let mut place = || {
        next = (next + 7919) % blocks;
        next * LEN as u64
    };

    let mut bytes = [0; LEN];
    tell(
        "blocking reads, one thread",
        rate(|| disk.read_at(&mut bytes, place()).map_or(0, |()| 1)),
    );

    for depth in [1, 8, 32, 128] {
        let mut queue = disk.queue(depth);
        let mut free: Vec<_> = (0..depth).map(|_| Buffer::new(LEN)).collect();
        let mut done = Vec::new();
        let each = rate(|| {
            while let Some(buffer) = free.pop() {
                queue.read(0, buffer, place()).expect("there is room");
            }
            let taken = queue.wait((depth / 2).max(1), &mut done);
            free.extend(done.drain(..).map(|completion| completion.buffer));
            taken as u64
        });
        tell(&format!("queue of {depth}"), each);
    }

    let mut all = vec![0; 32 << 20];
    all.truncate(all.len().min(disk.size() as usize));
    let each = rate(|| disk.read_at(&mut all, 0).map_or(0, |()| 1));
    println!(
        "blocking reads of {} MiB: {:.2} GB/s",
        all.len() >> 20,
        each * all.len() as f64 / 1e9
    );
    disk.close()?;
    context.close(TIME)
}
