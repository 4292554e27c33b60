//! What changes below a guest that runs: its disk's size, and who watches its memory.

use std::{
    io::Write,
    os::{fd::OwnedFd, unix::net::UnixStream},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use block::{Device, Event, EventHub, Limits, OpSet, Queue, Reactor, Result, Subscription};
use reactor::sealed_memory;
use testkit::MemoryDisk;
use virtio::{
    blk::{Operation, Status},
    memory::Region,
    ring::Buffer,
    vhost_user::{
        BackMessage, BackRequests, LogArea, Message, Outgoing, VringAddress,
        proto::{feature, protocol},
    },
};

use crate::{
    vhost_user_blk::{ALL, export, received},
    vhost_user_guests::{Guest, with_server},
};

const SIZE: u64 = 1 << 20;
const PAGE: u64 = 4096;

/// A disk that can have another size.
struct Elastic {
    size: AtomicU64,
    disk: Arc<MemoryDisk>,
    events: EventHub,
}

impl Elastic {
    fn set_size(&self, size: u64) {
        self.size.store(size, Ordering::SeqCst);
        self.events.emit(Event::Resized);
    }
}

impl Device for Elastic {
    fn limits(&self) -> Arc<Limits> {
        Arc::new(Limits::new(self.size.load(Ordering::SeqCst), OpSet::DISK))
    }

    fn open_queue(&self, reactor: &Reactor) -> Result<Rc<dyn Queue>> {
        self.disk.open_queue(reactor)
    }

    fn subscribe(&self, reactor: &Reactor, f: Box<dyn Fn(Event)>) -> Subscription {
        self.events.subscribe(reactor, f)
    }
}

fn elastic() -> Arc<Elastic> {
    Arc::new(Elastic {
        size: AtomicU64::new(SIZE / 2),
        disk: MemoryDisk::new(SIZE),
        events: EventHub::default(),
    })
}

/// Gives the back-end a channel, and returns the guest's end.
fn channel(guest: &mut Guest) -> UnixStream {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let message = Message::SetBackendReqFd(OwnedFd::from(theirs));
    guest.control.does(message);
    ours
}

/// The next request of the back-end, acknowledged.
fn told(mut channel: &UnixStream, machine: &mut BackRequests<OwnedFd>) -> BackMessage<OwnedFd> {
    let mut out: Vec<Outgoing<OwnedFd>> = Vec::new();
    loop {
        let mut bytes = vec![0; machine.wanted()];
        let n = received(channel, &mut bytes).expect("it is told");
        assert!(n > 0, "the channel is closed");
        let got = machine.input(&bytes[..n], [], &mut out).unwrap();
        if let Some(message) = got.1 {
            machine.done(Ok(()), &mut out);
            for message in out.drain(..) {
                channel.write_all(&message.bytes).unwrap();
            }
            return message;
        }
    }
}

#[test]
fn a_guest_is_told_of_another_size() {
    with_server(|served| {
        let disk = elastic();
        let export = export(disk.clone());
        let protocols = ALL | protocol::BACKEND_REQ;
        let mut guest = Guest::with_protocol(served.connect(&export), protocols);
        let channel = channel(&mut guest);
        let mut machine = BackRequests::new(true);
        assert_eq!(guest.control.config().capacity, SIZE / 2 / 512);
        for size in [SIZE, SIZE / 4] {
            disk.set_size(size);
            let message = told(&channel, &mut machine);
            assert!(matches!(message, BackMessage::ConfigChange), "{message:?}");
            assert_eq!(guest.control.config().capacity, size / 512);
        }
        // The rings know it, too.
        guest.submit(0, Operation::Flush);
        assert_eq!(guest.wait(), 0);
    });
}

#[test]
fn a_channel_that_nobody_reads_or_that_talks_nonsense_holds_up_nothing() {
    with_server(|served| {
        let disk = elastic();
        let export = export(disk.clone());
        let protocols = ALL | protocol::BACKEND_REQ;
        let mut guest = Guest::with_protocol(served.connect(&export), protocols);
        let silent = channel(&mut guest);
        for n in 1..200 {
            disk.set_size(n * 512);
            guest.id();
        }
        drop(silent);
        let mut liar = channel(&mut guest);
        liar.write_all(&[0xff; 64]).unwrap();
        disk.set_size(SIZE);
        guest.id();
        drop(liar);
        // Another one takes the place of the broken one.
        let good = channel(&mut guest);
        disk.set_size(SIZE / 2);
        let message = told(&good, &mut BackRequests::new(true));
        assert!(matches!(message, BackMessage::ConfigChange), "{message:?}");
    });
}

/// All of the guest's memory.
fn memory(guest: &Guest) -> Vec<u8> {
    let mut bytes = vec![0; guest.region.len() as usize];
    let area = guest.region.area(0, bytes.len()).unwrap();
    area.read(0, &mut bytes);
    bytes
}

/// Pages that are not alike.
fn changed(before: &[u8], now: &[u8]) -> Vec<u64> {
    let pages = before.chunks(PAGE as usize).zip(now.chunks(PAGE as usize));
    let numbered = (0..).zip(pages);
    numbered
        .filter(|(_, (before, now))| before != now)
        .map(|(page, _)| page)
        .collect()
}

#[test]
fn what_a_device_writes_is_in_the_log() {
    with_server(|served| {
        let disk = MemoryDisk::new(SIZE);
        disk.fill(0, &[0xa5; SIZE as usize]);
        let export = export(disk);
        let protocols = ALL | protocol::LOG_SHMFD;
        let mut guest = Guest::with_protocol(served.connect(&export), protocols);
        guest.id();
        // As QEMU does when a guest that runs is to be moved.
        let pages = guest.region.len() / PAGE;
        let file = sealed_memory("dirty", PAGE).unwrap();
        let log = Region::map(0, 0, &file, 0, PAGE).unwrap();
        let area = LogArea {
            size: PAGE,
            offset: 0,
        };
        guest.control.call(Message::SetLogBase(area, file));
        let features = guest.features() | feature::LOG_ALL;
        guest.control.does(Message::SetFeatures(features));
        guest.control.does(Message::SetVringAddr(VringAddress {
            index: 0,
            flags: 1,
            descriptors: 0,
            available: 0x4000,
            used: 0x8000,
            log: 0x8000,
        }));
        let (bits, area) = ((pages / 8) as usize, log.area(0, PAGE as usize).unwrap());
        for round in 0..8u64 {
            let before = memory(&guest);
            // Across pages, and not from their beginning.
            let at = 0x2_0000 + round * 3 * PAGE + 512 * round;
            let buffers = [(at, 1536), (at + 8 * PAGE, 3072)].map(|(address, len)| Buffer {
                address,
                len,
                writable: true,
            });
            guest.submit_with(1, Operation::Read(round * 4096), &buffers);
            assert_eq!(guest.wait(), 1);
            assert_eq!(guest.reply(1).status, Status::Ok);
            let mut marks = vec![0; bits];
            area.read(0, &mut marks);
            let is_marked = |page: u64| marks[(page / 8) as usize] & 1 << (page % 8) != 0;
            let written = changed(&before, &memory(&guest));
            assert!(written.contains(&(at / PAGE)), "data came");
            // The guest's own: it has written its descriptors and what is available.
            let own = [0, 0x4000 / PAGE];
            for page in written.iter().filter(|page| !own.contains(page)) {
                assert!(is_marked(*page), "page {page} was written");
            }
            assert!(!is_marked(pages - 1), "and not all of it is marked");
            area.write(0, &vec![0; bits]);
        }
        // Without the feature nothing is marked any more.
        let features = guest.features();
        guest.control.does(Message::SetFeatures(features));
        guest.id();
        let mut marks = vec![0; bits];
        area.read(0, &mut marks);
        assert!(marks.iter().all(|byte| *byte == 0), "it was switched off");
    });
}
