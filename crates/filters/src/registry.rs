//! All filters by name: one table for the command line, help, completion and the graph.

use std::sync::{Arc, LazyLock};

use block::{Error, ErrorKind, Filter, Filtered, Next, Result, Source};
use config::{Arg, Config, ConfigError, Schema};

use crate::{
    cow::{Cow, CowConfig},
    delay::{Delay, DelayConfig},
    error::{ErrorConfig, InjectErrors},
    offset::{Offset, OffsetConfig},
    readonly::{Readonly, ReadonlyConfig},
    stats::{Stats, StatsConfig},
};

/// Makes a filter in front of what lies below, from its arguments. Opens and starts nothing.
///
/// # Errors
/// `Config`, if the arguments are not good.
pub type Make = fn(&[Arg], Next) -> Result<Arc<dyn Source>>;

/// A kind of filter: its name, its parameters and how to make one.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// What users call it.
    pub name: &'static str,
    /// One line for lists.
    pub summary: &'static str,
    /// Its parameters.
    pub schema: &'static Schema,
    /// Makes one.
    pub make: Make,
}

/// Every filter of this crate, by name.
pub fn registry() -> &'static [Entry] {
    static ENTRIES: LazyLock<Vec<Entry>> = LazyLock::new(|| {
        vec![
            Entry::of::<CowConfig, Cow>(),
            Entry::of::<DelayConfig, Delay>(),
            Entry::of::<ErrorConfig, InjectErrors>(),
            Entry::of::<OffsetConfig, Offset>(),
            Entry::of::<ReadonlyConfig, Readonly>(),
            Entry::of::<StatsConfig, Stats>(),
        ]
    });
    &ENTRIES
}

impl Entry {
    /// The entry of a filter that is made from its configuration.
    pub fn of<C: Config, F: Filter + From<C>>() -> Entry {
        let schema = C::schema();
        Entry {
            name: schema.name,
            summary: schema.doc.lines().next().unwrap_or_default(),
            schema,
            make: |args, next| {
                let config = C::from_args(args).map_err(refused)?;
                Ok(Arc::new(Filtered(F::from(config), next)))
            },
        }
    }
}

fn refused(error: ConfigError) -> Error {
    let refused = Error::new(ErrorKind::Config, error.kind.to_string())
        .in_node(&Arc::from(error.node.as_str()));
    match error.hint() {
        Some(hint) => refused.hint(hint),
        None => refused,
    }
}
