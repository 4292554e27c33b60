//! `delay`: makes a disk slow: a distant server, a race that is easier to hit.
//!
//! A request waits before it goes down, so the delay adds to what it takes below. While it waits it
//! is parked: a cancelled one leaves at once. Flushes are not delayed.

use std::{path::PathBuf, rc::Rc, sync::Arc, time::Duration};

use block::{
    Device, Errno, Event, Filter, Flags, Host, Limits, Local, Next, Op, OpSet, OpenContext, Queue,
    RangeLock, Reactor, Request, Result, Subscription,
};
use config::Config;

use crate::trigger::Trigger;

/// Delay requests.
#[derive(Config, Clone, Debug)]
pub struct DelayConfig {
    /// Delay of reads.
    #[config(alias = "delay-read", default = "0")]
    pub rdelay: Duration,
    /// Delay of writes, write zeroes and trims that have none of their own.
    #[config(default = "0")]
    pub wdelay: Duration,
    /// Delay of writes.
    pub delay_write: Option<Duration>,
    /// Delay of write zeroes.
    pub delay_zero: Option<Duration>,
    /// Delay of trims.
    pub delay_trim: Option<Duration>,
    /// Delay of block status.
    #[config(default = "0")]
    pub delay_extents: Duration,
    /// Delay of cache (prefetch) requests.
    #[config(default = "0")]
    pub delay_cache: Duration,
    /// Delay of a client's open.
    #[config(default = "0")]
    pub delay_open: Duration,
    /// Delay of a client's orderly close.
    #[config(default = "0")]
    pub delay_close: Duration,
    /// Delay fast zero requests like other write zeroes; false fails them at once.
    #[config(default = "true")]
    pub delay_fast_zero: bool,
    /// Delay requests only while this file exists.
    pub delay_trigger: Option<PathBuf>,
}

impl DelayConfig {
    /// How long an operation waits.
    pub fn of(&self, op: Op) -> Duration {
        match op {
            Op::Read => self.rdelay,
            Op::Write => self.delay_write.unwrap_or(self.wdelay),
            Op::WriteZeroes => self.delay_zero.unwrap_or(self.wdelay),
            Op::Discard => self.delay_trim.unwrap_or(self.wdelay),
            Op::Extents => self.delay_extents,
            Op::Cache => self.delay_cache,
            _ => Duration::ZERO,
        }
    }
}

/// The filter. See the [module](self).
pub struct Delay {
    name: Arc<str>,
    config: Arc<DelayConfig>,
}

impl From<DelayConfig> for Delay {
    fn from(config: DelayConfig) -> Delay {
        Delay {
            name: DelayConfig::schema().name.into(),
            config: Arc::new(config),
        }
    }
}

impl Filter for Delay {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn ops(&self) -> OpSet {
        OpSet::DISK
    }

    fn open<'a>(&'a self, cx: &'a OpenContext, next: Next) -> Local<'a, Result<Arc<dyn Device>>> {
        Box::pin(async move {
            cx.reactor.sleep(self.config.delay_open).await;
            let device = next.open(cx).await?;
            Ok(Arc::new(DelayedDevice {
                device,
                config: self.config.clone(),
                host: cx.host.clone(),
            }) as Arc<dyn Device>)
        })
    }
}

/// A device of its own and no [`block::WrapDevice`], because closing takes time too.
struct DelayedDevice {
    device: Arc<dyn Device>,
    config: Arc<DelayConfig>,
    host: Arc<dyn Host>,
}

impl Device for DelayedDevice {
    fn limits(&self) -> Arc<Limits> {
        let mut limits = self.device.limits();
        if !self.config.delay_fast_zero && limits.support(Op::WriteZeroes).is_offered() {
            // Worth offering: the answer comes at once.
            Arc::make_mut(&mut limits).fast_zero = true;
        }
        limits
    }

    fn subscribe(&self, reactor: &Reactor, f: Box<dyn Fn(Event)>) -> Subscription {
        self.device.subscribe(reactor, f)
    }

    fn block_lock(&self) -> Option<RangeLock> {
        self.device.block_lock()
    }

    fn open_queue(&self, reactor: &Reactor) -> Result<Rc<dyn Queue>> {
        let file = self.config.delay_trigger.as_deref();
        Ok(Rc::new(DelayQueue {
            next: self.device.open_queue(reactor)?,
            delays: Op::ALL.map(|op| self.config.of(op)),
            fast_zero: self.config.delay_fast_zero,
            active: Trigger::while_exists(&self.host, reactor, file)?,
            reactor: reactor.clone(),
        }))
    }

    fn close<'a>(&'a self, reactor: &'a Reactor) -> Local<'a, Result<()>> {
        Box::pin(async move {
            reactor.sleep(self.config.delay_close).await;
            self.device.close(reactor).await
        })
    }
}

struct DelayQueue {
    next: Rc<dyn Queue>,
    delays: [Duration; Op::COUNT],
    fast_zero: bool,
    active: Trigger,
    reactor: Reactor,
}

impl Queue for DelayQueue {
    fn submit(&self, req: Request) {
        let fast_zero = req.op() == Op::WriteZeroes && req.flags().contains(Flags::FAST_ZERO);
        if fast_zero && !self.fast_zero {
            return req.fail(Errno::ENOTSUP);
        }
        let delay = self.delays[req.op() as usize];
        if delay.is_zero() || !self.active.is_on() {
            return self.next.submit(req);
        }
        let (next, wait) = (self.next.clone(), self.reactor.sleep(delay));
        let parked = req.park(|req| req.fail(Errno::ECANCELED));
        self.reactor.spawn(async move {
            wait.await;
            if let Some(req) = parked.take() {
                next.submit(req);
            }
        });
    }
}
