//! The driver's half against the device's, over random schedules, with a model of both.

use std::collections::{HashMap, VecDeque};

use crate::{
    memory::Memory,
    rig::{DATA, DATA_LEN, Format, Packed, Random, Rig, Split},
    ring::{AddError, Buffer, Chain, DeviceRing, DriverRing, RingConfig, Token},
};

/// What the driver gave.
#[derive(Clone, Debug)]
struct Given {
    cookie: u64,
    buffers: Vec<Buffer>,
}

impl Given {
    fn bytes(&self, writable: bool) -> u32 {
        let buffers = self.buffers.iter().filter(|b| b.writable == writable);
        buffers.map(|b| b.len).sum()
    }
}

fn pattern(cookie: u64, salt: u8, n: usize) -> Vec<u8> {
    (0..n)
        .map(|i| (cookie as u8).wrapping_mul(31) ^ salt ^ (i as u8))
        .collect()
}

struct World<F: Format> {
    rig: Rig,
    random: Random,
    driver: F::Driver,
    device: F::Device,
    chain: Chain,
    logged: bool,
    cookie: u64,
    /// Given, not yet shown.
    added: VecDeque<Given>,
    /// Shown, not yet taken.
    shown: VecDeque<Given>,
    /// Taken.
    taken: Vec<(Token, Given)>,
    /// The order in which chains were taken that are not published as used.
    order: Vec<u64>,
    pushed: VecDeque<(Given, u32)>,
    used: VecDeque<(Given, u32)>,
    device_sleeps: bool,
    driver_sleeps: bool,
    slots: HashMap<u64, u64>,
    free_slots: Vec<u64>,
    kicks: u64,
    calls: u64,
    done: u64,
}

/// Bytes of data of each chain; some lie across the border of two regions.
const SLOT: u64 = 512;

impl<F: Format> World<F> {
    fn new(config: RingConfig, logged: bool, seed: u64) -> World<F> {
        let rig = Rig::new(config);
        let driver = F::driver(&rig);
        let device = match logged {
            true => F::logged(&rig),
            false => F::device(&rig, F::START),
        };
        World {
            random: Random::new(seed),
            driver,
            device,
            chain: Chain::new(),
            logged,
            cookie: 0,
            added: VecDeque::new(),
            shown: VecDeque::new(),
            taken: Vec::new(),
            order: Vec::new(),
            pushed: VecDeque::new(),
            used: VecDeque::new(),
            device_sleeps: false,
            driver_sleeps: false,
            slots: HashMap::new(),
            // 100 is a prime to the border: one slot lies across it.
            free_slots: (0..2 * DATA_LEN / SLOT - 1)
                .map(|n| DATA + 100 + n * SLOT)
                .collect(),
            kicks: 0,
            calls: 0,
            done: 0,
            rig,
        }
    }

    fn memory(&self) -> Memory {
        self.rig.memory.clone()
    }

    fn add(&mut self) {
        let Some(slot) = self.free_slots.pop() else {
            return;
        };
        let most = u64::from(self.rig.config.size.min(12));
        let count = 1 + self.random.below(most);
        let readable = self.random.below(count + 1);
        let (mut at, mut buffers) = (slot, Vec::new());
        for n in 0..count {
            let len = 1 + self.random.below(40) as u32;
            buffers.push(Buffer {
                address: at,
                len,
                writable: n >= readable,
            });
            at += u64::from(len);
        }
        let given = Given {
            cookie: self.cookie,
            buffers,
        };
        let bytes = pattern(given.cookie, 1, given.bytes(false) as usize);
        assert!(self.memory().write(slot, &bytes));
        match self.driver.add(&given.buffers, given.cookie) {
            Ok(()) => {
                self.slots.insert(given.cookie, slot);
                self.cookie += 1;
                self.added.push_back(given);
            }
            Err(AddError::Full) => {
                assert!(self.driver.in_flight() > 0, "full, and nothing in flight");
                self.free_slots.push(slot);
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn show(&mut self) {
        let some = !self.added.is_empty();
        let kick = self.driver.publish();
        assert!(some || !kick, "a kick for nothing");
        self.shown.append(&mut self.added);
        self.kicks += u64::from(kick);
        if kick {
            self.device_sleeps = false;
        }
    }

    fn check_taken(&mut self, given: &Given) {
        assert_eq!(self.chain.fault(), None);
        assert_eq!(self.chain.readable_len(), given.bytes(false));
        assert_eq!(self.chain.writable_len(), given.bytes(true));
        let mut bytes = vec![0; given.bytes(false) as usize];
        let memory = self.memory();
        assert!(self.chain.take_front(&memory, &mut bytes));
        assert_eq!(bytes, pattern(given.cookie, 1, bytes.len()));
        let sum: u32 = self.chain.writable().iter().map(|s| s.len()).sum();
        assert_eq!(sum, given.bytes(true));
    }

    fn take(&mut self) {
        if self.device_sleeps {
            return;
        }
        let memory = self.memory();
        match self.device.pop(&memory, &mut self.chain).unwrap() {
            Some(token) => {
                let given = self.shown.pop_front().expect("nothing was shown");
                self.check_taken(&given);
                self.order.push(given.cookie);
                self.taken.push((token, given));
            }
            None => {
                assert!(self.shown.is_empty(), "a chain was not seen");
                if self.random.below(2) == 0 {
                    self.device_sleeps = !self.device.enable_kicks().unwrap();
                } else {
                    self.device.disable_kicks();
                }
            }
        }
    }

    fn push(&mut self) {
        if self.taken.is_empty() {
            return;
        }
        let which = self.random.below(self.taken.len() as u64) as usize;
        let (token, given) = self.taken.swap_remove(which);
        let room = given.bytes(true);
        let written = self.random.below(u64::from(room) + 1) as u32;
        let slot = self.slots[&given.cookie] + u64::from(given.bytes(false));
        let bytes = pattern(given.cookie, 2, written as usize);
        assert!(self.memory().write(slot, &bytes));
        self.device.push(token, written);
        self.pushed.push_back((given, written));
    }

    fn publish(&mut self) {
        let some = !self.pushed.is_empty();
        let call = self.device.publish();
        assert!(some || !call, "a call for nothing");
        for (given, _) in &self.pushed {
            self.order.retain(|cookie| *cookie != given.cookie);
        }
        self.used.append(&mut self.pushed);
        self.calls += u64::from(call);
        if call {
            self.driver_sleeps = false;
        }
    }

    fn reap(&mut self) {
        if self.driver_sleeps {
            return;
        }
        match self.driver.pop().unwrap() {
            Some(used) => {
                let (given, written) = self.used.pop_front().expect("nothing was used");
                assert_eq!((used.cookie, used.written), (given.cookie, written));
                let slot = self.slots.remove(&given.cookie).unwrap();
                let mut bytes = vec![0; written as usize];
                let start = slot + u64::from(given.bytes(false));
                assert!(self.memory().read(start, &mut bytes));
                assert_eq!(bytes, pattern(given.cookie, 2, bytes.len()));
                self.free_slots.push(slot);
                self.done += 1;
            }
            None => {
                assert!(self.used.is_empty(), "a used chain was not seen");
                if self.random.below(2) == 0 {
                    self.driver_sleeps = !self.driver.enable_calls().unwrap();
                } else {
                    self.driver.disable_calls();
                }
            }
        }
    }

    /// Stops the device where it stands, and begins another there.
    fn restart(&mut self) {
        while !self.taken.is_empty() {
            self.push();
        }
        self.publish();
        assert_eq!(self.device.in_flight(), 0);
        let base = self.device.stop();
        let memory = self.memory();
        assert!(self.device.pop(&memory, &mut self.chain).is_err());
        self.device = match self.logged {
            true => F::logged(&self.rig),
            false => F::device(&self.rig, base),
        };
        assert_eq!(self.device.base() as u16, base as u16);
        self.device_sleeps = false;
    }

    /// Ends the device without a word; the next one has the log.
    fn crash(&mut self) {
        let lost: Vec<_> = self.pushed.drain(..).map(|(given, _)| given).collect();
        let mut all: HashMap<_, _> = std::mem::take(&mut self.taken)
            .into_iter()
            .map(|(_, given)| given)
            .chain(lost)
            .map(|given| (given.cookie, given))
            .collect();
        self.device = F::logged(&self.rig);
        let memory = self.memory();
        for cookie in self.order.clone() {
            let token = F::resume(&mut self.device, &memory, &mut self.chain).unwrap();
            let given = all.remove(&cookie).unwrap();
            self.check_taken(&given);
            self.taken.push((token.expect("a chain was lost"), given));
        }
        assert!(all.is_empty());
        let more = F::resume(&mut self.device, &memory, &mut self.chain).unwrap();
        assert!(more.is_none(), "a chain came twice");
        self.device_sleeps = false;
    }

    fn step(&mut self) {
        match self.random.below(60) {
            0..16 => self.add(),
            16..22 => self.show(),
            22..36 => self.take(),
            36..46 => self.push(),
            46..50 => self.publish(),
            50..58 => self.reap(),
            58 if self.random.below(8) == 0 => self.restart(),
            59 if self.logged && self.random.below(4) == 0 => self.crash(),
            _ => {}
        }
    }

    /// Everything ends, and nobody sleeps through a signal.
    fn finish(&mut self) {
        self.show();
        for _ in 0..100_000 {
            self.take();
            self.push();
            if self.random.below(3) == 0 {
                self.publish();
            }
            self.reap();
            if self.done == self.cookie {
                assert_eq!((self.driver.in_flight(), self.device.in_flight()), (0, 0));
                return;
            }
        }
        panic!("stuck: {} of {} done", self.done, self.cookie);
    }
}

fn run<F: Format>(seed: u64, steps: u64) {
    let mut random = Random::new(seed ^ 0xabcd);
    let sizes: &[u16] = match F::PACKED {
        true => &[1, 2, 3, 5, 7, 8, 13, 64, 100],
        false => &[1, 2, 4, 8, 16, 64, 128],
    };
    let config = RingConfig {
        event_index: random.below(2) == 0,
        indirect: random.below(2) == 0,
        ..RingConfig::new(sizes[random.below(sizes.len() as u64) as usize])
    };
    let logged = random.below(2) == 0;
    let mut world = World::<F>::new(config, logged, seed);
    for _ in 0..steps {
        world.step();
    }
    world.finish();
    assert!(
        world.done > 0 || steps < 100,
        "nothing happened in {config:?}"
    );
}

fn seeds<F: Format>() {
    let (seeds, steps) = if cfg!(miri) { (4, 150) } else { (300, 2000) };
    for seed in 1..=seeds {
        let caught = std::panic::catch_unwind(|| run::<F>(seed, steps));
        assert!(caught.is_ok(), "seed {seed}");
    }
}

#[test]
fn split_halves_agree() {
    seeds::<Split>();
}

#[test]
fn packed_halves_agree() {
    seeds::<Packed>();
}

/// More chains than 16 bits count.
fn long<F: Format>(size: u16, chains: u64) {
    for event_index in [false, true] {
        let config = RingConfig {
            event_index,
            ..RingConfig::new(size)
        };
        let mut world = World::<F>::new(config, true, u64::from(size));
        while world.done < chains {
            for _ in 0..1 + world.random.below(3) {
                world.add();
            }
            world.show();
            for _ in 0..4 {
                world.take();
                world.push();
            }
            world.publish();
            for _ in 0..4 {
                world.reap();
            }
        }
        world.finish();
        assert!(world.kicks < world.done && world.calls < world.done);
    }
}

#[test]
#[cfg_attr(miri, ignore = "long")]
fn indices_wrap() {
    long::<Split>(4, 70_000);
    long::<Packed>(3, 70_000);
    // Chains have more than six descriptors on average.
    long::<Split>(32768, 70_000);
    long::<Packed>(32768, 12_000);
    long::<Packed>(32767, 12_000);
}

#[test]
fn suppressed_notifications_do_not_happen() {
    fn check<F: Format>(event_index: bool) {
        let config = RingConfig {
            event_index,
            ..RingConfig::new(16)
        };
        let mut world = World::<F>::new(config, false, 1);
        // The first call of a life is always made: what the guest waits for is not known.
        for round in 0..100 {
            world.device.disable_kicks();
            world.driver.disable_calls();
            world.add();
            world.show();
            world.take();
            world.push();
            world.publish();
            world.reap();
            assert!(world.calls <= 1 && world.kicks <= 1, "round {round}");
        }
        assert!(world.done > 50);
    }
    for event_index in [false, true] {
        check::<Split>(event_index);
        check::<Packed>(event_index);
    }
}

/// A device that ends at every access of memory there is while it works, and another one after it.
fn crash_everywhere<F: Format>() {
    use crate::memory::hook;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    struct End;
    let mut at = 0;
    loop {
        // Each access twice: the guest looks at once, or later.
        let (access, at_once) = (at / 2, at % 2 == 0);
        let config = RingConfig::new(8);
        let mut world = World::<F>::new(config, true, 5);
        let one = |address| Buffer {
            address,
            len: 8,
            writable: true,
        };
        for cookie in 0..5 {
            world.driver.add(&[one(DATA + cookie * 8)], cookie).unwrap();
        }
        let _ = world.driver.publish();
        let memory = world.memory();
        hook::set(Box::new(move |count| {
            if count == access {
                resume_unwind(Box::new(End));
            }
        }));
        let ended = catch_unwind(AssertUnwindSafe(|| {
            let (device, chain) = (&mut world.device, &mut Chain::new());
            let mut tokens = Vec::new();
            for _ in 0..4 {
                tokens.extend(device.pop(&memory, chain).unwrap());
            }
            device.push(tokens.remove(2), 8);
            let _ = device.publish();
            device.push(tokens.remove(1), 8);
            tokens.extend(device.pop(&memory, chain).unwrap());
            device.push(tokens.remove(0), 8);
            device.push(tokens.remove(1), 8);
            let _ = device.publish();
        }));
        hook::clear();
        let mut seen = Vec::new();
        let mut reap = |driver: &mut F::Driver| {
            while let Some(used) = driver.pop().unwrap() {
                seen.push(used.cookie);
            }
        };
        if at_once {
            reap(&mut world.driver);
        }
        let (mut device, mut chain) = (F::logged(&world.rig), Chain::new());
        let mut tokens = Vec::new();
        while let Some(token) = F::resume(&mut device, &memory, &mut chain).unwrap() {
            assert_eq!((chain.fault(), chain.writable_len()), (None, 8));
            tokens.push(token);
        }
        while let Some(token) = device.pop(&memory, &mut chain).unwrap() {
            assert_eq!((chain.fault(), chain.writable_len()), (None, 8));
            tokens.push(token);
        }
        while let Some(token) = tokens.pop() {
            device.push(token, 8);
            let _ = device.publish();
            reap(&mut world.driver);
        }
        reap(&mut world.driver);
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2, 3, 4], "ended at access {access}");
        if ended.is_ok() && !at_once {
            break;
        }
        at += 1;
    }
    assert!(at > 100, "only {at} tries");
}

#[test]
fn a_crash_anywhere_loses_and_doubles_nothing_split() {
    crash_everywhere::<Split>();
}

#[test]
fn a_crash_anywhere_loses_and_doubles_nothing_packed() {
    crash_everywhere::<Packed>();
}
