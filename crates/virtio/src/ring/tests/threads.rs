//! Both halves on threads of their own, which sleep until they are told: a signal that is lost, or data
//! that is seen too late, ends in a timeout or a wrong byte.

use std::{
    sync::mpsc::{Receiver, Sender, channel},
    time::Duration,
};

use crate::{
    memory::Memory,
    rig::{DATA, Format, Packed, Rig, Split},
    ring::{AddError, Buffer, Chain, DeviceRing, DriverRing, RingConfig},
};

const PATIENCE: Duration = Duration::from_secs(60);

fn chains() -> u64 {
    if cfg!(miri) { 40 } else { 20_000 }
}

fn device<R: DeviceRing>(mut ring: R, memory: &Memory, kicks: &Receiver<()>, calls: &Sender<()>) {
    let (mut chain, mut done) = (Chain::new(), 0);
    ring.disable_kicks();
    while done < chains() {
        while let Some(token) = ring.pop(memory, &mut chain).unwrap() {
            let mut bytes = [0; 8];
            assert!(memory.read(chain.readable()[0].guest(), &mut bytes));
            assert_eq!(u64::from_le_bytes(bytes), done, "data of another chain");
            assert!(memory.write(chain.writable()[0].guest(), &(!done).to_le_bytes()));
            ring.push(token, 8);
            done += 1;
            if done % 3 == 0 && ring.publish() {
                let _ = calls.send(());
            }
        }
        if ring.publish() {
            let _ = calls.send(());
        }
        if done < chains() && !ring.enable_kicks().unwrap() {
            kicks.recv_timeout(PATIENCE).expect("a kick was lost");
        }
        ring.disable_kicks();
    }
}

fn driver<R: DriverRing>(mut ring: R, memory: &Memory, kicks: &Sender<()>, calls: &Receiver<()>) {
    let (mut next, mut done) = (0u64, 0);
    let place = |n: u64| DATA + n % 64 * 64;
    ring.disable_calls();
    while done < chains() {
        while next < chains() && next - done < 64 {
            let at = place(next);
            assert!(memory.write(at, &next.to_le_bytes()));
            let buffer = |address, writable| Buffer {
                address,
                len: 8,
                writable,
            };
            match ring.add(&[buffer(at, false), buffer(at + 8, true)], next) {
                Ok(()) => next += 1,
                Err(AddError::Full) => break,
                Err(error) => panic!("{error}"),
            }
            if next % 5 == 0 && ring.publish() {
                let _ = kicks.send(());
            }
        }
        if ring.publish() {
            let _ = kicks.send(());
        }
        while let Some(used) = ring.pop().unwrap() {
            assert_eq!((used.cookie, used.written), (done, 8));
            let mut bytes = [0; 8];
            assert!(memory.read(place(done) + 8, &mut bytes));
            assert_eq!(u64::from_le_bytes(bytes), !done);
            done += 1;
        }
        let room = next < chains() && ring.in_flight() == 0;
        if done < chains() && !room && !ring.enable_calls().unwrap() {
            calls.recv_timeout(PATIENCE).expect("a call was lost");
        }
        ring.disable_calls();
    }
}

fn threads<F: Format>()
where
    F::Device: Send,
    F::Driver: Send,
{
    for event_index in [false, true] {
        let rig = Rig::new(RingConfig {
            event_index,
            ..RingConfig::new(16)
        });
        let halves = (F::driver(&rig), F::device(&rig, F::START));
        let (kick, kicks) = channel();
        let (call, calls) = channel();
        let (ours, theirs) = (rig.memory.clone(), rig.memory.clone());
        std::thread::scope(|scope| {
            scope.spawn(move || device(halves.1, &theirs, &kicks, &call));
            driver(halves.0, &ours, &kick, &calls);
        });
    }
}

#[test]
fn split_halves_on_two_threads() {
    threads::<Split>();
}

#[test]
fn packed_halves_on_two_threads() {
    threads::<Packed>();
}
