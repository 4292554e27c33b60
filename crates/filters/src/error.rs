//! `error`: fails requests at random, to see what clients do then.
//!
//! A request that fails never reaches the disk. Each operation may have an error, a rate and a
//! trigger file of its own; what it lacks it takes from the general ones. Flushes always pass.
//! With `error-seed` the same requests fail in every run: each queue draws from a stream of its
//! own, numbered in the order in which queues are opened.

use std::{
    path::{Path, PathBuf},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use block::{
    Device, Errno, Filter, Host, IoError, Limits, Local, Next, Op, OpSet, OpenContext, Queue,
    Reactor, Request, Result, WrapDevice,
};
use config::{Choice, Config, Probability};

use crate::{rng::Rng, trigger::Trigger};

/// Fail requests at random.
#[derive(Config, Clone, Debug)]
pub struct ErrorConfig {
    /// The error that requests fail with.
    #[config(default = "EIO")]
    pub error: ErrorName,
    /// How many requests fail.
    #[config(default = "0")]
    pub error_rate: Probability,
    /// Fail requests only while this file exists.
    pub error_file: Option<PathBuf>,
    /// The error of reads.
    pub error_pread: Option<ErrorName>,
    /// How many reads fail.
    pub error_pread_rate: Option<Probability>,
    /// Fail reads only while this file exists.
    pub error_pread_file: Option<PathBuf>,
    /// The error of writes.
    pub error_pwrite: Option<ErrorName>,
    /// How many writes fail.
    pub error_pwrite_rate: Option<Probability>,
    /// Fail writes only while this file exists.
    pub error_pwrite_file: Option<PathBuf>,
    /// The error of trims.
    pub error_trim: Option<ErrorName>,
    /// How many trims fail.
    pub error_trim_rate: Option<Probability>,
    /// Fail trims only while this file exists.
    pub error_trim_file: Option<PathBuf>,
    /// The error of write zeroes.
    pub error_zero: Option<ErrorName>,
    /// How many write zeroes fail.
    pub error_zero_rate: Option<Probability>,
    /// Fail write zeroes only while this file exists.
    pub error_zero_file: Option<PathBuf>,
    /// The error of block status.
    pub error_extents: Option<ErrorName>,
    /// How many block status requests fail.
    pub error_extents_rate: Option<Probability>,
    /// Fail block status only while this file exists.
    pub error_extents_file: Option<PathBuf>,
    /// The error of cache (prefetch) requests.
    pub error_cache: Option<ErrorName>,
    /// How many cache requests fail.
    pub error_cache_rate: Option<Probability>,
    /// Fail cache requests only while this file exists.
    pub error_cache_file: Option<PathBuf>,
    /// Makes the choice of failing requests the same in every run. Not given: another each time.
    pub error_seed: Option<u64>,
}

/// An error that a client can be told of: the NBD protocol knows no others.
#[derive(Choice, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorName {
    /// Operation not permitted.
    #[config(name = "EPERM")]
    Perm,
    /// Input/output error.
    #[config(name = "EIO")]
    Io,
    /// Cannot allocate memory.
    #[config(name = "ENOMEM")]
    NoMem,
    /// Invalid argument.
    #[config(name = "EINVAL")]
    Inval,
    /// No space left on device.
    #[config(name = "ENOSPC")]
    NoSpc,
    /// The server is shutting down.
    #[config(name = "ESHUTDOWN")]
    Shutdown,
}

impl From<ErrorName> for Errno {
    fn from(name: ErrorName) -> Errno {
        match name {
            ErrorName::Perm => Errno::EPERM,
            ErrorName::Io => Errno::EIO,
            ErrorName::NoMem => Errno::ENOMEM,
            ErrorName::Inval => Errno::EINVAL,
            ErrorName::NoSpc => Errno::ENOSPC,
            ErrorName::Shutdown => Errno::ESHUTDOWN,
        }
    }
}

/// The filter. See the [module](self).
pub struct InjectErrors {
    name: Arc<str>,
    config: ErrorConfig,
    seed: u64,
    queues: Arc<AtomicU64>,
}

impl From<ErrorConfig> for InjectErrors {
    fn from(config: ErrorConfig) -> InjectErrors {
        InjectErrors {
            name: ErrorConfig::schema().name.into(),
            seed: config.error_seed.unwrap_or_else(Rng::any_seed),
            queues: Arc::default(),
            config,
        }
    }
}

impl Filter for InjectErrors {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn ops(&self) -> OpSet {
        OpSet::DISK
    }

    fn open<'a>(&'a self, cx: &'a OpenContext, next: Next) -> Local<'a, Result<Arc<dyn Device>>> {
        Box::pin(async move {
            let device = next.open(cx).await?;
            let rules = Op::ALL.map(|op| self.config.rule(op));
            let (name, host) = (self.name.clone(), cx.host.clone());
            let (seed, queues) = (self.seed, self.queues.clone());
            let unchanged = |_: &mut Limits| {};
            Ok(WrapDevice::new(device, unchanged, move |reactor, next| {
                Ok(Rc::new(ErrorQueue {
                    next,
                    name: name.clone(),
                    rng: Rng::new(seed, queues.fetch_add(1, Ordering::Relaxed)),
                    rules: arm(&rules, &host, reactor)?,
                }))
            }))
        })
    }
}

/// What happens to one operation.
#[derive(Clone)]
struct Rule {
    errno: Errno,
    rate: f64,
    file: Option<PathBuf>,
}

impl ErrorConfig {
    /// The operation's own settings, completed by the general ones; `None` if it never fails.
    fn rule(&self, op: Op) -> Option<Rule> {
        let (error, rate, file) = match op {
            Op::Read => (
                self.error_pread,
                self.error_pread_rate,
                &self.error_pread_file,
            ),
            Op::Write => (
                self.error_pwrite,
                self.error_pwrite_rate,
                &self.error_pwrite_file,
            ),
            Op::Discard => (self.error_trim, self.error_trim_rate, &self.error_trim_file),
            Op::WriteZeroes => (self.error_zero, self.error_zero_rate, &self.error_zero_file),
            Op::Extents => (
                self.error_extents,
                self.error_extents_rate,
                &self.error_extents_file,
            ),
            Op::Cache => (
                self.error_cache,
                self.error_cache_rate,
                &self.error_cache_file,
            ),
            _ => return None,
        };
        let rate = rate.unwrap_or(self.error_rate).0;
        (rate > 0.0).then(|| Rule {
            errno: error.unwrap_or(self.error).into(),
            rate,
            file: file.clone().or_else(|| self.error_file.clone()),
        })
    }
}

struct ErrorQueue {
    next: Rc<dyn Queue>,
    name: Arc<str>,
    rng: Rng,
    rules: [Option<Armed>; Op::COUNT],
}

/// A rule on one reactor.
struct Armed {
    errno: Errno,
    rate: f64,
    active: Trigger,
}

impl Queue for ErrorQueue {
    fn submit(&self, req: Request) {
        match &self.rules[req.op() as usize] {
            Some(rule) if rule.active.is_on() && self.rng.chance(rule.rate) => {
                let error = IoError::because(rule.errno, &self.name, "injected error");
                req.complete(Err(error));
            }
            _ => self.next.submit(req),
        }
    }
}

/// Watches the files of the rules, each file once.
fn arm(
    rules: &[Option<Rule>; Op::COUNT],
    host: &Arc<dyn Host>,
    reactor: &Reactor,
) -> Result<[Option<Armed>; Op::COUNT]> {
    let mut watched: Vec<(&Path, Trigger)> = Vec::new();
    let mut armed = [const { None }; Op::COUNT];
    for (slot, rule) in armed.iter_mut().zip(rules) {
        let Some(rule) = rule else { continue };
        let file = rule.file.as_deref();
        let known = file.and_then(|file| watched.iter().find(|(other, _)| *other == file));
        let active = match known {
            Some((_, trigger)) => trigger.clone(),
            None => Trigger::while_exists(host, reactor, file)?,
        };
        watched.extend(file.map(|file| (file, active.clone())));
        *slot = Some(Armed {
            errno: rule.errno,
            rate: rule.rate,
            active,
        });
    }
    Ok(armed)
}
