//! The committed corpus, and a bounded number of mutations of it, as plain tests.

use std::path::Path;

use fuzz_runner::{
    TARGETS,
    mutate::{Random, mutate},
};

#[test]
fn corpus_and_mutations() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus");
    for target in TARGETS {
        let mut paths: Vec<_> = std::fs::read_dir(root.join(target.name))
            .unwrap_or_else(|error| panic!("the corpus of {}: {error}", target.name))
            .map(|entry| entry.unwrap().path())
            .collect();
        paths.sort();
        let inputs: Vec<_> = paths
            .iter()
            .map(|path| std::fs::read(path).unwrap())
            .collect();
        assert!(!inputs.is_empty(), "the corpus of {} is empty", target.name);
        inputs.iter().for_each(|input| (target.run)(input));
        let mut random = Random::new(2026);
        for _ in 0..2000 {
            let (one, other) = (random.below(inputs.len()), random.below(inputs.len()));
            (target.run)(&mutate(&mut random, &inputs[one], &inputs[other]));
        }
    }
}
