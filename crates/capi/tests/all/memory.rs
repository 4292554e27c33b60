//! The programs once more, below valgrind: no leak, and no access to what is not theirs.

use crate::{
    lab::{have, ours},
    programs::{TRIALS, expected, printed},
};

/// Leaks of any kind but "still reachable" are errors, and errors end the program with 99.
const VALGRIND: &[&str] = &[
    "valgrind",
    "-q",
    "--leak-check=full",
    "--errors-for-leak-kinds=definite,indirect,possible",
    "--error-exitcode=99",
    concat!(
        "--suppressions=",
        env!("CARGO_MANIFEST_DIR"),
        "/tests/c/valgrind.supp"
    ),
];

/// Every fourth, so that a test runner with several threads shares the work.
fn below_valgrind(part: usize) {
    if !have(&["valgrind"]) {
        return;
    }
    for trial in TRIALS.iter().skip(part).step_by(4) {
        if have(trial.needs) {
            let text = printed(trial, ours(), VALGRIND);
            assert_eq!(text, expected(trial.name), "{}", trial.name);
        }
    }
}

#[test]
fn no_leaks_first_quarter() {
    below_valgrind(0);
}

#[test]
fn no_leaks_second_quarter() {
    below_valgrind(1);
}

#[test]
fn no_leaks_third_quarter() {
    below_valgrind(2);
}

#[test]
fn no_leaks_fourth_quarter() {
    below_valgrind(3);
}
