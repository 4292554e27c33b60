//! What is where on an export, in the words of a metadata context.

use std::collections::BTreeMap;

use block::{Device, Error, ErrorKind, Extent, ExtentList, Op, QueueExt, Reactor, Result};

use crate::tools::json_string;

/// Bytes that are asked about at once.
const STEP: u64 = 1 << 40;

/// The runs of equal state, from start to end.
///
/// # Errors
/// The server does not know the context, or cannot answer.
pub async fn runs(reactor: &Reactor, device: &dyn Device, context: &str) -> Result<Vec<Extent>> {
    let limits = device.limits();
    let is_base = context == nbd::proto::CONTEXT_BASE_ALLOCATION;
    let known = is_base || limits.contexts.iter().any(|name| **name == *context);
    if !known || !limits.offered().contains(Op::Extents) {
        let what = format!("--map: server does not support metadata context \"{context}\"");
        return Err(Error::new(ErrorKind::Unsupported, what));
    }
    let queue = device.open_queue(reactor)?;
    let mut runs: Vec<Extent> = Vec::new();
    let mut offset = 0;
    while offset < limits.size {
        let len = STEP.min(limits.size - offset).min(limits.max_range);
        let mut done = queue.call(reactor.request(Op::Extents, offset, len)).await;
        let outcome = done.take_outcome();
        outcome.map_err(|error| Error::new(ErrorKind::Io, format!("block status: {error}")))?;
        let block::Data::Extents(list) = done.data() else {
            return Err(Error::new(ErrorKind::Format, "no extents in the answer"));
        };
        offset += add(&mut runs, list, context, len)?;
    }
    Ok(runs)
}

/// Adds what is told, neighbours of one state as one. Returns how far it reaches.
fn add(runs: &mut Vec<Extent>, list: &ExtentList, context: &str, len: u64) -> Result<u64> {
    let mut reach = 0;
    for extent in list.context(context).unwrap_or_default() {
        let here = extent.len.min(len - reach);
        reach += here;
        match runs.last_mut() {
            Some(last) if last.flags == extent.flags => last.len += here,
            _ if here > 0 => runs.push(Extent {
                len: here,
                ..*extent
            }),
            _ => {}
        }
    }
    match reach {
        0 => Err(Error::new(
            ErrorKind::Format,
            format!("the server tells nothing about context \"{context}\""),
        )),
        _ => Ok(reach),
    }
}

/// One line for each run.
pub fn text(context: &str, runs: &[Extent]) -> String {
    let mut offset = 0;
    let mut text = String::new();
    for run in runs {
        let line = format!("{offset:>10}  {:>10}  {:>3}", run.len, run.flags);
        text.push_str(&with(line, "  ", words(context, run.flags)));
        offset += run.len;
    }
    text
}

/// The same in JSON.
pub fn json(context: &str, runs: &[Extent]) -> String {
    let mut offset = 0;
    let mut items = Vec::new();
    for run in runs {
        let words = described(context, run.flags);
        let (len, kind) = (run.len, run.flags);
        items.push(format!(
            "{{ \"offset\": {offset}, \"length\": {len}, \"type\": {kind}{words}}}"
        ));
        offset += len;
    }
    list(&items)
}

/// How much there is of each state.
pub fn totals(runs: &[Extent]) -> BTreeMap<u64, u64> {
    let mut totals = BTreeMap::new();
    for run in runs {
        *totals.entry(run.flags).or_default() += run.len;
    }
    totals
}

/// One line for each state.
pub fn totals_text(context: &str, totals: &BTreeMap<u64, u64>, size: u64) -> String {
    totals
        .iter()
        .map(|(&kind, &sum)| {
            let percent = 100.0 * sum as f64 / size as f64;
            let line = format!("{sum:>10} {percent:>5.1}% {kind:>3}");
            with(line, " ", words(context, kind))
        })
        .collect()
}

/// The same in JSON.
pub fn totals_json(context: &str, totals: &BTreeMap<u64, u64>, size: u64) -> String {
    if totals.is_empty() {
        return "[]\n".into();
    }
    let items: Vec<String> = totals
        .iter()
        .map(|(&kind, &sum)| {
            let percent = general(100.0 * sum as f64 / size as f64);
            let words = described(context, kind);
            format!("{{ \"size\": {sum}, \"percent\": {percent}, \"type\": {kind}{words} }}")
        })
        .collect();
    list(&items)
}

fn with(line: String, between: &str, words: Option<String>) -> String {
    match words {
        Some(words) => format!("{line}{between}{words}\n"),
        None => format!("{line}\n"),
    }
}

fn described(context: &str, kind: u64) -> String {
    let words = words(context, kind);
    words.map_or(String::new(), |words| {
        format!(", \"description\": {}", json_string(&words))
    })
}

fn list(items: &[String]) -> String {
    format!("[\n{}\n]\n", items.join(",\n"))
}

/// What a state of a context means.
fn words(context: &str, kind: u64) -> Option<String> {
    let words = match (context, kind) {
        (nbd::proto::CONTEXT_BASE_ALLOCATION, 0) => "data",
        (nbd::proto::CONTEXT_BASE_ALLOCATION, 1) => "hole",
        (nbd::proto::CONTEXT_BASE_ALLOCATION, 2) => "zero",
        (nbd::proto::CONTEXT_BASE_ALLOCATION, 3) => "hole,zero",
        ("qemu:allocation-depth", 0) => "absent",
        ("qemu:allocation-depth", 1) => "local",
        ("qemu:allocation-depth", depth) => return Some(format!("backing depth {depth}")),
        (bitmap, 0) if bitmap.starts_with("qemu:dirty-bitmap:") => "clean",
        (bitmap, 1) if bitmap.starts_with("qemu:dirty-bitmap:") => "dirty",
        _ => return None,
    };
    Some(words.to_owned())
}

/// Six significant digits, as printf's `%g`.
fn general(number: f64) -> String {
    if number == 0.0 {
        return "0".into();
    }
    let exponent = number.abs().log10().floor() as i32;
    if !(-4..6).contains(&exponent) {
        let text = format!("{number:.5e}");
        let (digits, power) = text.split_once('e').expect("there is an exponent");
        let power: i32 = power.parse().expect("a number");
        let sign = if power < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", shortened(digits), power.abs());
    }
    let decimals = usize::try_from(5 - exponent).unwrap_or(0);
    shortened(&format!("{number:.decimals$}")).to_owned()
}

/// Without zeroes at the end of a fraction.
fn shortened(digits: &str) -> &str {
    match digits.contains('.') {
        true => digits.trim_end_matches('0').trim_end_matches('.'),
        false => digits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = nbd::proto::CONTEXT_BASE_ALLOCATION;

    fn extent(len: u64, flags: u64) -> Extent {
        Extent { len, flags }
    }

    #[test]
    fn lines_are_nbdinfos() {
        let runs = [extent(65536, 0), extent(983_040, 3), extent(1, 9)];
        let expected = "         0       65536    0  data\n     65536      983040    3  hole,zero\n   \
                        1048576           1    9\n";
        assert_eq!(text(BASE, &runs), expected);
        let expected = "[\n{ \"offset\": 0, \"length\": 65536, \"type\": 0, \"description\": \"data\"},\n\
                        { \"offset\": 65536, \"length\": 983040, \"type\": 3, \"description\": \"hole,zero\"}\n]\n";
        assert_eq!(json(BASE, &runs[..2]), expected);
        let sums = totals(&[extent(65536, 0), extent(917_504, 3), extent(65536, 0)]);
        let expected = "    131072  12.5%   0 data\n    917504  87.5%   3 hole,zero\n";
        assert_eq!(totals_text(BASE, &sums, 1 << 20), expected);
        let expected = "[\n{ \"size\": 131072, \"percent\": 12.5, \"type\": 0, \"description\": \"data\" },\n\
                        { \"size\": 917504, \"percent\": 87.5, \"type\": 3, \"description\": \"hole,zero\" }\n]\n";
        assert_eq!(totals_json(BASE, &sums, 1 << 20), expected);
        assert_eq!(
            (text(BASE, &[]).as_str(), json(BASE, &[]).as_str()),
            ("", "[\n\n]\n")
        );
    }

    #[test]
    fn neighbours_of_one_state_are_one() {
        let mut runs = Vec::new();
        let mut list = ExtentList::new();
        for (len, flags) in [(4, 0), (8, 3), (100, 3)] {
            list.push(len, block::ExtentFlags(flags));
        }
        assert_eq!(add(&mut runs, &list, BASE, 20).unwrap(), 20);
        let more = ExtentList::one(5, block::ExtentFlags(3));
        assert_eq!(add(&mut runs, &more, BASE, 5).unwrap(), 5);
        assert_eq!(runs, [extent(4, 0), extent(21, 3)]);
        assert!(add(&mut runs, &more, "other", 5).is_err());
    }

    #[test]
    fn numbers_are_as_short_as_printf_makes_them() {
        let table = [
            (100.0, "100"),
            (6.25, "6.25"),
            (100.0 / 3.0, "33.3333"),
            (0.0001, "0.0001"),
            (0.000_012_345_678, "1.23457e-05"),
            (0.0, "0"),
        ];
        for (number, text) in table {
            assert_eq!(general(number), text);
        }
    }

    #[test]
    fn states_have_words() {
        assert_eq!(words("qemu:dirty-bitmap:b", 1).as_deref(), Some("dirty"));
        assert_eq!(
            words("qemu:allocation-depth", 3).as_deref(),
            Some("backing depth 3")
        );
        assert_eq!(words("other:context", 0), None);
    }
}
