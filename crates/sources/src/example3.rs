//! nbdkit's third example: each client has an empty disk in memory to itself, which is thrown away when
//! it leaves.

use std::sync::Arc;

use block::{Device, Exports, Local, OpenContext, Result, Source};
use config::{Arg, Config, Size};

use crate::{
    memory::{self, Allocator},
    registry,
};

/// An empty disk in memory for each client, gone when the client is: an example.
#[derive(Config, Debug, Clone, PartialEq, Eq)]
pub struct Example3Config {
    /// Size of the disk.
    #[config(default = "100M")]
    pub size: Size,
}

/// The source.
///
/// # Errors
/// None: the signature is that of every source. Memory that cannot be had fails an open.
pub fn new(config: Example3Config) -> Result<Arc<dyn Source>> {
    Ok(Arc::new(Example3 {
        name: "example3".into(),
        size: config.size.0,
    }))
}

pub(crate) fn make(args: &[Arg]) -> Result<Arc<dyn Source>> {
    new(registry::parse(args)?)
}

struct Example3 {
    name: Arc<str>,
    size: u64,
}

impl Source for Example3 {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn exports<'a>(&'a self, _: &'a OpenContext) -> Local<'a, Result<Exports>> {
        Box::pin(async { Ok(Exports::single()) })
    }

    fn open<'a>(&'a self, cx: &'a OpenContext) -> Local<'a, Result<Arc<dyn Device>>> {
        // Connections are not equal: each sees what it wrote itself.
        let shared = false;
        Box::pin(async move {
            let disk = memory::disk(&self.name, self.size, Allocator::Sparse, shared)?;
            disk.source.open(cx).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;

    #[test]
    fn each_client_has_its_own_disk() {
        let source = make(&[]).unwrap();
        let (one, two) = (Bench::open(source.clone()), Bench::open(source));
        assert_eq!(one.limits().size, 100 << 20);
        assert!(!one.limits().multi_conn && !one.limits().read_only());
        one.write(4096, b"mine").unwrap();
        assert_eq!(one.read(4096, 4).unwrap(), b"mine");
        assert_eq!(two.read(4096, 4).unwrap(), [0; 4]);
    }

    #[test]
    fn the_size_can_be_chosen() {
        let bench = Bench::open(make(&[Arg::parse("size=1000")]).unwrap());
        assert_eq!(bench.limits().size, 1000);
        let error = make(&[Arg::parse("size=big")]).err().expect("not a size");
        assert!(
            error
                .chain()
                .starts_with("example3: size=big: not a number")
        );
        let error = make(&[Arg::parse("1M")]).err().expect("not magic");
        assert_eq!(error.chain(), "example3: '1M' is not of the form key=value");
    }
}
