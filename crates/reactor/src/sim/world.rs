//! Several simulated reactors under one clock and one seed.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    cmp::Reverse,
    collections::BinaryHeap,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use block::{Inbox, Local, Pool, Reactor, ReactorOps, Tick, Unpark};

use super::{
    arena::SimArena,
    rng::{Rng, mix},
};
use crate::executor::Executor;

/// Time that may pass during one turn.
const TURN: Duration = Duration::from_micros(1);
/// Time a pool's job may take.
const JOB: Duration = Duration::from_micros(50);
/// Rounds of completions and tasks in one turn.
const ROUNDS: usize = 16;
/// Steps after which a world that never comes to rest is given up.
const STEPS: u64 = 1 << 30;

/// Simulated reactors under one clock and one seed. See the [module](super).
pub struct SimWorld {
    shared: Rc<Shared>,
    nodes: Vec<Node>,
}

struct Node {
    reactor: Reactor,
    ops: Rc<SimOps>,
    dead: Cell<bool>,
}

/// What the reactors of one world share.
struct Shared {
    seed: u64,
    now: Cell<Tick>,
    rng: RefCell<Rng>,
    digest: Cell<u64>,
    due: RefCell<BinaryHeap<Reverse<Due>>>,
    made: Cell<u64>,
    steps: Cell<u64>,
}

/// Something that happens at its time; among equals in seeded order.
struct Due {
    at: Tick,
    tie: u64,
    number: u64,
    what: What,
}

enum What {
    Wake(Waker),
    Job(Box<dyn FnOnce() + Send>),
}

/// What one simulated reactor offers to its handle.
pub(crate) struct SimOps {
    shared: Rc<Shared>,
    executor: Executor,
}

impl SimWorld {
    /// The world of `seed`, with `n` reactors.
    pub fn new(seed: u64, n: usize) -> SimWorld {
        let shared = Rc::new(Shared {
            seed,
            now: Cell::new(Tick(0)),
            rng: RefCell::new(Rng::new(seed)),
            digest: Cell::new(mix(seed)),
            due: RefCell::default(),
            made: Cell::new(0),
            steps: Cell::new(0),
        });
        let nodes = (0..n)
            .map(|index| {
                let inbox = Arc::new(Inbox::new(Asleep));
                let ops = Rc::new(SimOps {
                    shared: shared.clone(),
                    executor: Executor::new(inbox.clone()),
                });
                Node {
                    reactor: Reactor::new(index, inbox, ops.clone()),
                    ops,
                    dead: Cell::new(false),
                }
            })
            .collect();
        SimWorld { shared, nodes }
    }

    /// The seed it was made from.
    pub fn seed(&self) -> u64 {
        self.shared.seed
    }

    /// One of its reactors.
    pub fn reactor(&self, index: usize) -> &Reactor {
        &self.nodes[index].reactor
    }

    /// All of its reactors.
    pub fn reactors(&self) -> impl ExactSizeIterator<Item = &Reactor> {
        self.nodes.iter().map(|node| &node.reactor)
    }

    /// The time.
    pub fn now(&self) -> Tick {
        self.shared.now.get()
    }

    /// All choices so far, as one number.
    pub fn digest(&self) -> u64 {
        self.shared.digest.get()
    }

    /// Adds something that was observed to the digest.
    pub fn note(&self, what: u64) {
        self.shared.note(0x6e6f_7465, what);
    }

    /// A generator of its own, seeded by the world.
    pub fn fork_rng(&self) -> Rng {
        self.shared.rng.borrow_mut().fork()
    }

    /// Tasks of one reactor that are not done.
    pub fn tasks(&self, index: usize) -> usize {
        self.nodes[index].ops.executor.len()
    }

    /// Lends `bytes` of "registered" memory to one reactor's chunks.
    pub fn register_memory(&self, index: usize, bytes: usize) {
        let arena = Box::new(SimArena::new(bytes));
        self.nodes[index].reactor.chunks().set_arena(arena);
    }

    /// Runs the world until `future`, on reactor `index`, is done. Panics if it never can be.
    pub fn block_on<T>(&self, index: usize, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        let waker = Waker::from(flag.clone());
        let mut context = Context::from_waker(&waker);
        loop {
            if flag.0.swap(false, Ordering::Relaxed) {
                self.nodes[index].reactor.begin_turn();
                if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
                    return value;
                }
            }
            let more = self.step();
            assert!(
                more || flag.0.load(Ordering::Relaxed),
                "nothing is left to do, but the future is not done (seed {})",
                self.shared.seed
            );
        }
    }

    /// Runs until nothing is left to do, neither now nor later.
    pub fn run_until_idle(&self) {
        while self.step() {}
    }

    /// Lets a time pass, and everything happen that falls into it.
    pub fn advance(&self, time: Duration) {
        let end = self.now().after(time);
        while self.has_work() || self.shared.next_due().is_some_and(|at| at <= end) {
            self.step();
        }
        self.shared.now.set(self.now().max(end));
    }

    /// Ends one reactor as if its thread had died: its tasks are dropped, its inbox is closed.
    pub fn kill(&self, index: usize) {
        let node = &self.nodes[index];
        node.reactor.inbox().close();
        node.ops.executor.clear(&node.reactor);
        node.dead.set(true);
    }

    fn has_work(&self) -> bool {
        self.nodes.iter().any(Node::has_work)
    }

    /// Does one thing: a turn of a reactor that has work, or the next thing that is due. False if
    /// there is nothing at all.
    fn step(&self) -> bool {
        let shared = &self.shared;
        shared.steps.set(shared.steps.get() + 1);
        assert!(
            shared.steps.get() < STEPS,
            "the world never comes to rest (seed {})",
            shared.seed
        );
        let busy = self.nodes.iter().filter(|node| node.has_work()).count();
        let due = shared.next_due().is_some_and(|at| at <= shared.now.get());
        let choices = busy + usize::from(due);
        if choices == 0 {
            let Some(at) = shared.next_due() else {
                return false;
            };
            shared.now.set(at.max(shared.now.get()));
            shared.happen();
            return true;
        }
        match shared.choose(1, choices) {
            choice if choice < busy => {
                let node = self.nodes.iter().filter(|node| node.has_work()).nth(choice);
                node.expect("counted above").turn(shared);
            }
            _ => shared.happen(),
        }
        true
    }
}

impl Drop for SimWorld {
    fn drop(&mut self) {
        // Tasks hold reactors, which hold the executor that holds the tasks.
        for node in &self.nodes {
            node.ops.executor.clear(&node.reactor);
        }
        for _ in 0..ROUNDS {
            for node in self.nodes.iter().filter(|node| !node.dead.get()) {
                node.reactor.run_inbox();
                node.reactor.run_completions();
                node.ops.executor.clear(&node.reactor);
            }
        }
        for node in &self.nodes {
            node.reactor.inbox().close();
        }
        self.shared.due.borrow_mut().clear();
    }
}

impl Node {
    fn has_work(&self) -> bool {
        !self.dead.get()
            && (self.reactor.inbox().has_mail()
                || self.reactor.has_completions()
                || self.reactor.has_doorbells()
                || self.ops.executor.has_ready())
    }

    fn turn(&self, shared: &Shared) {
        let reactor = &self.reactor;
        shared.note(2, reactor.index() as u64);
        shared.pass(TURN);
        reactor.begin_turn();
        let has_other = reactor.has_completions() || self.ops.executor.has_ready();
        if reactor.inbox().has_mail() && (!has_other || shared.choose(3, 4) > 0) {
            reactor.run_inbox();
        }
        for _ in 0..ROUNDS {
            let completed = reactor.run_completions();
            let polled = self
                .ops
                .executor
                .run_ready(reactor, &mut |n| shared.choose(4, n));
            if completed + polled == 0 {
                break;
            }
            shared.note(5, completed as u64);
        }
        reactor.ring_doorbells();
    }
}

impl Shared {
    /// One of `n`, by the seed; it goes into the digest.
    fn choose(&self, kind: u64, n: usize) -> usize {
        if n < 2 {
            return 0;
        }
        let choice = self.rng.borrow_mut().index(n);
        self.note(kind, choice as u64);
        choice
    }

    fn note(&self, kind: u64, what: u64) {
        let digest = self.digest.get().rotate_left(7) ^ mix(kind << 56 ^ what);
        self.digest.set(digest.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }

    fn pass(&self, most: Duration) {
        let time = self.rng.borrow_mut().delay(most);
        self.now.set(self.now.get().after(time));
    }

    fn next_due(&self) -> Option<Tick> {
        self.due.borrow().peek().map(|Reverse(due)| due.at)
    }

    fn plan(&self, at: Tick, what: What) {
        let number = self.made.get();
        self.made.set(number + 1);
        let tie = self.rng.borrow_mut().next_u64();
        let due = Due {
            at,
            tie,
            number,
            what,
        };
        self.due.borrow_mut().push(Reverse(due));
    }

    /// The next thing that is due happens.
    fn happen(&self) {
        let Some(Reverse(due)) = self.due.borrow_mut().pop() else {
            return;
        };
        self.note(6, due.number);
        self.note(7, due.at.0);
        match due.what {
            What::Wake(waker) => waker.wake(),
            // A job that panics ends its thread's work, not the world: `Job` tells its owner.
            What::Job(job) => drop(catch_unwind(AssertUnwindSafe(job))),
        }
    }
}

impl ReactorOps for SimOps {
    fn spawn(&self, task: Local<'static, ()>) {
        self.executor.spawn(task);
    }

    fn timer(&self, at: Tick, waker: Waker) -> u64 {
        // Never cancelled: a wake in vain is one more thing that callers must stand.
        self.shared.plan(at, What::Wake(waker));
        0
    }

    fn pool(&self, _: Pool, job: Box<dyn FnOnce() + Send>) {
        let delay = self.shared.rng.borrow_mut().delay(JOB);
        let at = self.shared.now.get().after(delay);
        self.shared.plan(at, What::Job(job));
    }

    fn clock(&self) -> Tick {
        self.shared.now.get()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Due) -> std::cmp::Ordering {
        (self.at, self.tie, self.number).cmp(&(other.at, other.tie, other.number))
    }
}

/// A simulated reactor needs no waking: the world looks at its inbox.
struct Asleep;

impl Unpark for Asleep {
    fn unpark(&self) {}
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn story(seed: u64) -> (Vec<u32>, u64) {
        let world = SimWorld::new(seed, 2);
        let seen = Rc::new(RefCell::new(Vec::new()));
        for i in 0..6 {
            let (seen, r) = (seen.clone(), world.reactor(i as usize % 2).clone());
            world.reactor(i as usize % 2).spawn(async move {
                let sum = r.cpu(move || i + 1).await.unwrap();
                r.sleep(Duration::from_secs(1)).await;
                seen.borrow_mut().push(sum);
            });
        }
        world.run_until_idle();
        let seen = seen.borrow().clone();
        (seen, world.digest())
    }

    #[test]
    fn same_seed_same_digest() {
        assert_eq!(story(5), story(5));
        let orders: std::collections::HashSet<_> = (0..20).map(|seed| story(seed).0).collect();
        assert!(orders.len() > 5, "seeds give different orders");
        let digests: std::collections::HashSet<_> = (0..20).map(|seed| story(seed).1).collect();
        assert_eq!(digests.len(), 20);
    }

    #[test]
    fn time_jumps_when_idle() {
        let world = SimWorld::new(1, 1);
        let r = world.reactor(0).clone();
        world.block_on(0, async {
            r.sleep(Duration::from_secs(3600)).await;
            assert!(r.now() >= Tick(3_600_000_000_000));
        });
        let before = world.now();
        world.advance(Duration::from_secs(1));
        assert!(world.now() >= before.after(Duration::from_secs(1)));
    }

    #[test]
    #[should_panic(expected = "seed 9")]
    fn a_future_that_cannot_finish_is_reported() {
        SimWorld::new(9, 1).block_on(0, std::future::pending::<()>());
    }

    #[test]
    fn a_job_that_panics_is_told() {
        let world = SimWorld::new(1, 1);
        let r = world.reactor(0).clone();
        let job = r.blocking(|| panic!("a job panics on purpose"));
        let result: Result<(), _> = world.block_on(0, job);
        assert!(result.is_err());
    }

    #[test]
    fn dead_reactors_take_no_mail() {
        let world = SimWorld::new(1, 2);
        let inbox = world.reactor(1).inbox().clone();
        assert!(inbox.run(|_| {}));
        world.kill(1);
        assert!(!inbox.run(|_| panic!("nobody reads it")));
        world.run_until_idle();
    }

    #[test]
    fn worlds_end_without_cycles() {
        let held = Rc::new(());
        let world = SimWorld::new(1, 1);
        let (hold, r) = (held.clone(), world.reactor(0).clone());
        world.reactor(0).spawn(async move {
            r.sleep(Duration::from_secs(1)).await;
            drop(hold);
        });
        world.advance(Duration::from_millis(1));
        drop(world);
        assert_eq!(Rc::strong_count(&held), 1);
    }

    #[test]
    fn registered_chunks_have_an_index() {
        let world = SimWorld::new(1, 1);
        world.register_memory(0, 64 << 10);
        assert!(world.reactor(0).chunk(4096).index().is_some());
        assert!(world.reactor(0).chunk(1 << 20).index().is_none());
    }
}
