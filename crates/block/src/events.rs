//! Events of a device: it grew, its limits changed, it is gone.

use std::{
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{inbox::Inbox, reactor::Reactor};

/// Something about a device changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// [`crate::Limits::size`] is another now.
    Resized,
    /// Another limit changed.
    LimitsChanged,
    /// The device will not come back: requests fail from here on.
    Gone,
}

/// Tells the subscribers of one device, each on its own reactor.
#[derive(Clone, Default)]
pub struct EventHub(Arc<Hub>);

#[derive(Default)]
struct Hub {
    next: AtomicU64,
    subscribers: Mutex<Vec<Subscriber>>,
}

struct Subscriber {
    id: u64,
    home: Arc<Inbox>,
}

/// Ends the subscription when dropped.
#[must_use = "dropping a subscription ends it"]
pub struct Subscription(#[allow(dead_code, reason = "held for its Drop")] Option<Active>);

struct Active {
    hub: Arc<Hub>,
    id: u64,
    reactor: Reactor,
}

impl Subscription {
    /// A subscription to a device on which nothing ever changes.
    pub fn none() -> Subscription {
        Subscription(None)
    }
}

impl EventHub {
    /// Calls `f` on `reactor` for every event from now on.
    pub fn subscribe(&self, reactor: &Reactor, f: Box<dyn Fn(Event)>) -> Subscription {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let key = (Arc::as_ptr(&self.0) as usize, id);
        reactor.listeners().borrow_mut().insert(key, Rc::from(f));
        self.0.lock().push(Subscriber {
            id,
            home: reactor.inbox().clone(),
        });
        Subscription(Some(Active {
            hub: self.0.clone(),
            id,
            reactor: reactor.clone(),
        }))
    }

    /// Tells all subscribers. From any thread.
    pub fn emit(&self, event: Event) {
        let address = Arc::as_ptr(&self.0) as usize;
        for subscriber in self.0.lock().iter() {
            let key = (address, subscriber.id);
            // Holding the hub keeps its address, and so the key, from being used again meanwhile.
            let hub = self.0.clone();
            subscriber.home.run(move |reactor| {
                let _hub = hub;
                let listener = reactor.listeners().borrow().get(&key).cloned();
                if let Some(f) = listener {
                    f(event);
                }
            });
        }
    }
}

impl Hub {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Subscriber>> {
        self.subscribers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.hub.lock().retain(|s| s.id != self.id);
        let key = (Arc::as_ptr(&self.hub) as usize, self.id);
        // Out of the table first, then dropped: the callback may own other subscriptions.
        let callback = self.reactor.listeners().borrow_mut().remove(&key);
        drop(callback);
    }
}
