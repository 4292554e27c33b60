//! A file whose existence switches something on and off while the server runs.
//!
//! Each queue watches for itself: the watch belongs to its reactor, so asking costs one plain load
//! and nothing is shared.

use std::{cell::Cell, path::Path, rc::Rc, sync::Arc};

use block::{Host, Reactor, Result, host::Watch};

/// On while a file exists, or for ever.
#[derive(Clone)]
pub(crate) struct Trigger {
    on: Rc<Cell<bool>>,
    _watch: Option<Rc<Watch>>,
}

impl Trigger {
    /// Always on, or always off.
    pub fn fixed(on: bool) -> Trigger {
        Trigger {
            on: Rc::new(Cell::new(on)),
            _watch: None,
        }
    }

    /// On while `path` exists.
    pub fn new(host: &Arc<dyn Host>, reactor: &Reactor, path: &Path) -> Result<Trigger> {
        let on = Rc::new(Cell::new(false));
        let update = {
            let (on, host, path) = (on.clone(), host.clone(), path.to_owned());
            move || on.set(host.file_exists(&path))
        };
        // First watch, then look: a change between the two is seen twice, never missed.
        let watch = host.watch_file(reactor, path, Box::new(update.clone()))?;
        update();
        Ok(Trigger {
            on,
            _watch: Some(Rc::new(watch)),
        })
    }

    /// On while the file exists; always on if none is named.
    pub fn while_exists(
        host: &Arc<dyn Host>,
        reactor: &Reactor,
        path: Option<&Path>,
    ) -> Result<Trigger> {
        path.map_or_else(
            || Ok(Trigger::fixed(true)),
            |path| Trigger::new(host, reactor, path),
        )
    }

    #[inline]
    pub fn is_on(&self) -> bool {
        self.on.get()
    }
}
