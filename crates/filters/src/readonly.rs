//! `readonly`: refuses whatever would change the disk, always or while a file exists.
//!
//! Without `readonly-file` it is the shortest of filters: it names the operations it lets through,
//! and the framework masks and refuses the others, so a client sees a read-only disk. With it the
//! disk stays writable in the client's eyes, and is frozen and thawed while in use.

use std::{path::PathBuf, rc::Rc, sync::Arc};

use block::{
    Device, Errno, Filter, Limits, Local, Next, Op, OpSet, OpenContext, Queue, Request, Result,
    WrapDevice,
};
use config::Config;

use crate::trigger::Trigger;

/// Refuse whatever would change the disk.
#[derive(Config, Clone, Debug)]
pub struct ReadonlyConfig {
    /// Refuse changes only while this file exists.
    pub readonly_file: Option<PathBuf>,
}

/// The filter. See the [module](self).
pub struct Readonly {
    name: Arc<str>,
    config: ReadonlyConfig,
}

impl From<ReadonlyConfig> for Readonly {
    fn from(config: ReadonlyConfig) -> Readonly {
        Readonly {
            name: ReadonlyConfig::schema().name.into(),
            config,
        }
    }
}

impl Filter for Readonly {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn ops(&self) -> OpSet {
        match self.config.readonly_file {
            None => OpSet::READ_ONLY.with(Op::Flush),
            Some(_) => OpSet::DISK,
        }
    }

    fn open<'a>(&'a self, cx: &'a OpenContext, next: Next) -> Local<'a, Result<Arc<dyn Device>>> {
        Box::pin(async move {
            let device = next.open(cx).await?;
            let Some(file) = self.config.readonly_file.clone() else {
                return Ok(device);
            };
            let host = cx.host.clone();
            let unchanged = |_: &mut Limits| {};
            Ok(WrapDevice::new(device, unchanged, move |reactor, next| {
                let frozen = Trigger::new(&host, reactor, &file)?;
                Ok(Rc::new(Freezable { next, frozen }))
            }))
        })
    }
}

struct Freezable {
    next: Rc<dyn Queue>,
    frozen: Trigger,
}

impl Queue for Freezable {
    fn submit(&self, req: Request) {
        if req.op().modifies() && self.frozen.is_on() {
            return req.fail(Errno::EROFS);
        }
        self.next.submit(req);
    }
}
