//! nbdkit's fourth example: one disk in memory that all clients share, thrown away with the server.
//!
//! There it is a script in Perl, to show how such a thing is written; here it is what `memory` is,
//! under the name that command lines know.

use std::sync::Arc;

use block::{Result, Source};
use config::{Arg, Config, Size};

use crate::{
    memory::{self, Allocator},
    registry,
};

/// An empty disk in memory, shared by all clients: an example.
#[derive(Config, Debug, Clone, PartialEq, Eq)]
pub struct Example4Config {
    /// Size of the disk.
    pub size: Size,
}

/// The source. Its disk is empty.
///
/// # Errors
/// As those of [`memory`].
pub fn new(config: Example4Config) -> Result<Arc<dyn Source>> {
    let disk = memory::disk("example4", config.size.0, Allocator::Sparse, true)?;
    Ok(disk.source)
}

pub(crate) fn make(args: &[Arg]) -> Result<Arc<dyn Source>> {
    new(registry::parse(args)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;

    #[test]
    fn all_clients_share_the_disk() {
        let source = make(&[Arg::parse("size=1M")]).unwrap();
        assert_eq!(&**source.name(), "example4");
        let (one, two) = (Bench::open(source.clone()), Bench::open(source));
        one.write(4096, b"ours").unwrap();
        assert_eq!(two.read(4096, 4).unwrap(), b"ours");
        assert!(two.limits().multi_conn);
    }

    #[test]
    fn a_size_is_needed() {
        let error = make(&[]).err().expect("a size is needed").chain();
        assert!(
            error.starts_with("example4: size=<SIZE> is required"),
            "{error}"
        );
    }
}
