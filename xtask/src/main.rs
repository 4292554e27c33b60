//! Chores of the repository (being written).
fn main() {}
