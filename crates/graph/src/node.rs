//! What the builder puts around every node: its name on errors, and a gate where it needs one.
//!
//! A gate stands directly above the node that asks for it, not above the whole chain: a filter
//! over a serial source may then still have many requests of its own in flight, and a filter that
//! turns one request into several cannot get around the source's rule.

use std::sync::Arc;

use block::{
    Device, Exports, Gate, OpenContext, RangeLock, Reactor, Result, Source, ThreadModel,
    reactor::Local,
};

/// A node of the built graph.
pub(crate) struct Node {
    inner: Arc<dyn Source>,
    name: Arc<str>,
    model: ThreadModel,
    gate: Gating,
}

/// How the requests of a node are held back.
enum Gating {
    /// Not at all.
    Open,
    /// One at a time on each opened device.
    PerDevice,
    /// One at a time over all devices.
    Shared(RangeLock),
}

impl Node {
    /// Wraps `inner`, whose requests are gated if it is stricter than `below`, which is already
    /// enforced by what lies below it.
    pub(crate) fn wrap(inner: Arc<dyn Source>, name: &str, below: ThreadModel) -> Arc<dyn Source> {
        let model = inner.thread_model();
        let gate = match model {
            _ if model >= below => Gating::Open,
            ThreadModel::Parallel => Gating::Open,
            ThreadModel::SerializeRequests => Gating::PerDevice,
            // One connection at a time is the export's to see to; a device has one client then,
            // but a filter may open several.
            ThreadModel::SerializeAllRequests | ThreadModel::SerializeConnections => {
                Gating::Shared(RangeLock::default())
            }
        };
        Arc::new(Node {
            inner,
            name: name.into(),
            model: model.min(below),
            gate,
        })
    }
}

impl Source for Node {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn thread_model(&self) -> ThreadModel {
        self.model
    }

    fn ready(&self) -> Result<()> {
        self.inner.ready().map_err(|e| e.in_node(&self.name))
    }

    fn start<'a>(&'a self, reactor: &'a Reactor) -> Local<'a, Result<()>> {
        Box::pin(async move {
            let started = self.inner.start(reactor).await;
            started.map_err(|e| e.in_node(&self.name))
        })
    }

    fn preconnect<'a>(&'a self, cx: &'a OpenContext) -> Local<'a, Result<()>> {
        Box::pin(async move {
            let asked = self.inner.preconnect(cx).await;
            asked.map_err(|e| e.in_node(&self.name))
        })
    }

    fn exports<'a>(&'a self, cx: &'a OpenContext) -> Local<'a, Result<Exports>> {
        Box::pin(async move {
            let listed = self.inner.exports(cx).await;
            listed.map_err(|e| e.in_node(&self.name))
        })
    }

    fn open<'a>(&'a self, cx: &'a OpenContext) -> Local<'a, Result<Arc<dyn Device>>> {
        Box::pin(async move {
            let opened = self.inner.open(cx).await;
            let device = opened.map_err(|e| e.in_node(&self.name))?;
            Ok(match &self.gate {
                Gating::Open => device,
                Gating::PerDevice => Gate::wrap(device, RangeLock::default()),
                Gating::Shared(lock) => Gate::wrap(device, lock.clone()),
            })
        })
    }

    fn stop<'a>(&'a self, reactor: &'a Reactor) -> Local<'a, ()> {
        self.inner.stop(reactor)
    }
}
