//! `offset`: serves a part of what lies below. The smallest kind of filter, a *map*.
//!
//! Every range moves by the offset on its way down; nothing has to move back, because completions
//! and extents count from the start of their request. An offset that is no multiple of the
//! device's blocks is fine: what is opened below is normalised.

use std::sync::Arc;

use block::{
    Device, Error, ErrorKind, Filter, Limits, Local, Next, OpSet, OpenContext, Request, Result,
    filter::map,
};
use config::{Config, Size};

/// Serve a part of a disk.
#[derive(Config, Clone, Debug)]
pub struct OffsetConfig {
    /// First byte of the part.
    #[config(default = "0")]
    pub offset: Size,
    /// Length of the part. Not given: to the end of the disk.
    pub range: Option<Size>,
}

/// The filter. See the [module](self).
pub struct Offset {
    name: Arc<str>,
    config: OffsetConfig,
}

impl From<OffsetConfig> for Offset {
    fn from(config: OffsetConfig) -> Offset {
        Offset {
            name: OffsetConfig::schema().name.into(),
            config,
        }
    }
}

impl Filter for Offset {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn ops(&self) -> OpSet {
        OpSet::DISK
    }

    fn open<'a>(&'a self, cx: &'a OpenContext, next: Next) -> Local<'a, Result<Arc<dyn Device>>> {
        Box::pin(async move {
            let device = next.open(cx).await?;
            let (start, most) = self.window(device.limits().size)?;
            let shrink = move |limits: &mut Limits| {
                limits.size = limits.size.saturating_sub(start).min(most);
            };
            let shift = move |req: &mut Request| {
                if req.op().has_range() {
                    req.set_offset(req.offset() + start);
                }
                Ok(())
            };
            Ok(map(device, shrink, shift))
        })
    }
}

impl Offset {
    /// Where the part starts and how long it is at most, if a disk of `size` bytes holds it.
    fn window(&self, size: u64) -> Result<(u64, u64)> {
        let (start, range) = (self.config.offset.0, self.config.range.map(|range| range.0));
        let end = start.saturating_add(range.unwrap_or(0));
        if end > size {
            let why = format!("offset and range reach to {end}, but the disk ends at {size}");
            return Err(Error::new(ErrorKind::Config, why));
        }
        Ok((start, range.unwrap_or(u64::MAX)))
    }
}
