//! The entry points for the fuzz targets, also run by this crate's own tests.
//!
//! Messages of the fuzzer's choice go to a back-end, whose driver answers at once. Promised are: no
//! panic, replies only where one is due and of the right form, events that hold what their
//! documentation says, and that every descriptor is given to somebody or closed.

use std::{cell::Cell, rc::Rc};

use super::{
    Backend, Event, InflightArea, MemoryRegion, Message, Offer, Outgoing, Refused, VringAddress,
    VringFd, VringSetup, VringState,
    proto::{HEADER_LEN, MAX_FDS, MAX_PAYLOAD, Request, feature, flags, protocol},
};

/// A descriptor that is counted.
#[derive(Debug)]
pub struct Token(Rc<Cell<usize>>);

impl Token {
    fn new(open: &Rc<Cell<usize>>) -> Token {
        open.set(open.get() + 1);
        Token(open.clone())
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// All that a disk offers.
pub fn offer() -> Offer {
    use protocol::*;
    Offer {
        features: feature::VERSION_1 | feature::LOG_ALL | feature::RING_PACKED | 1 << 29,
        required: feature::VERSION_1,
        protocol: MQ
            | LOG_SHMFD
            | REPLY_ACK
            | BACKEND_REQ
            | CONFIG
            | INFLIGHT_SHMFD
            | RESET_DEVICE
            | INBAND_NOTIFICATIONS
            | CONFIGURE_MEM_SLOTS
            | STATUS
            | DEVICE_STATE
            | GET_VRING_BASE_INFLIGHT
            | GPA_ADDRESSES,
        queues: 4,
        max_queue_size: 1024,
        memory_slots: 12,
    }
}

/// Pieces, each with two bytes before it: the number of descriptors that come with it, and its
/// length.
pub fn fuzz_backend(data: &[u8]) {
    let open = Rc::new(Cell::new(0));
    let mut backend = Backend::new(offer());
    let mut out = Vec::new();
    let mut stream = data;
    while let Some(([fds, len], rest)) = stream.split_first_chunk::<2>() {
        let (piece, rest) = rest.split_at(usize::from(*len).min(rest.len()));
        stream = rest;
        let mut piece = piece;
        let mut fds: Vec<Token> = (0..fds % 16).map(|_| Token::new(&open)).collect();
        while !piece.is_empty() {
            assert!((1..=MAX_PAYLOAD).contains(&backend.wanted()));
            let Ok((n, event)) = backend.input(piece, fds.drain(..), &mut out) else {
                assert_eq!(backend.wanted(), 0, "it goes on after a violation");
                drop((backend, out));
                assert_eq!(open.get(), 0, "a descriptor leaked");
                return;
            };
            piece = &piece[n..];
            assert!(event.is_some() || piece.is_empty(), "bytes left over");
            if let Some(event) = event {
                assert_eq!(backend.wanted(), 0, "an answer is due");
                if answer(&mut backend, event, &mut out).is_err() {
                    return;
                }
            }
        }
        out.drain(..).for_each(|reply| well_formed(&reply));
    }
    drop((backend, out));
    assert_eq!(open.get(), 0, "a descriptor leaked");
}

fn well_formed(reply: &Outgoing<Token>) {
    let word = |at: usize| -> [u8; 4] { reply.bytes[at..at + 4].try_into().expect("4 bytes") };
    let size = u32::from_ne_bytes(word(8)) as usize;
    assert_eq!(reply.bytes.len(), HEADER_LEN + size);
    assert!(size <= MAX_PAYLOAD && reply.fds.len() <= MAX_FDS);
    assert_eq!(u32::from_ne_bytes(word(4)), flags::VERSION | flags::REPLY);
}

/// What a driver does that succeeds, except where an address ends in 7.
fn answer(
    backend: &mut Backend<Token>,
    event: Event<Token>,
    out: &mut Vec<Outgoing<Token>>,
) -> Result<(), super::Violation> {
    let fails = |region: &MemoryRegion| region.guest_addr & 15 == 7;
    let mut result = Ok(());
    match event {
        Event::StopVring { index, .. } => {
            assert!(backend.is_started(index));
            backend.answer_vring_base(u32::from(index) + 7, out);
            assert!(!backend.is_started(index));
            return Ok(());
        }
        Event::GetConfig(range) => {
            let bytes = vec![7; range.size as usize];
            backend.answer_config((range.offset == 0).then_some(&bytes), out);
            return Ok(());
        }
        Event::GetInflightFd(area) => {
            assert!(area.queues >= 1 && area.queue_size >= 1);
            backend.answer_inflight(None, out);
            return Ok(());
        }
        Event::SetDeviceState(_, fd) => {
            backend.answer_device_state(Ok(Some(fd)), out);
            return Ok(());
        }
        Event::CheckDeviceState => {
            backend.answer_check(Err(Refused::Failed), out);
            return Ok(());
        }
        Event::StartVring(setup, _) | Event::MoveVring(setup) => runs(backend, &setup),
        Event::SetMemTable(regions) if regions.iter().any(|(region, _)| fails(region)) => {
            result = Err(Refused::Failed);
        }
        Event::AddMemRegion(region, _) if fails(&region) => result = Err(Refused::Failed),
        Event::SetConfig(range, bytes) => assert_eq!(range.size as usize, bytes.len()),
        Event::VringKick(index) => assert!(backend.is_started(index)),
        _ => {}
    }
    backend.done(result, out)
}

/// A ring that may be run lies in the memory that was told.
fn runs(backend: &Backend<Token>, setup: &VringSetup) {
    assert!(setup.index < offer().queues && (1..=1024).contains(&setup.size));
    assert!(setup.features & feature::VERSION_1 != 0);
    assert!(setup.packed() || setup.size.is_power_of_two());
    let inside = |address: u64, len: u64| {
        backend.regions().iter().any(|region| {
            address >= region.guest_addr
                && address - region.guest_addr <= region.size
                && region.size - (address - region.guest_addr) >= len
        })
    };
    let n = u64::from(setup.size);
    assert!(inside(setup.descriptors, 16 * n));
    let (available, used) = match setup.packed() {
        true => (4, 4),
        false => (4 + 2 * n, 4 + 8 * n),
    };
    assert!(inside(setup.available, available) && inside(setup.used, used));
}

/// A session of a careful front-end: one message of each kind that a disk knows.
pub fn session() -> Vec<Message<()>> {
    let used = feature::VERSION_1 | feature::PROTOCOL_FEATURES | 1 << 29;
    let mut session = introduction();
    session.push(Message::SetFeatures(used));
    session.extend(memory());
    session.extend(ring(used));
    let save = super::DeviceState {
        direction: 0,
        phase: 0,
    };
    session.extend([
        Message::SetDeviceStateFd(save, ()),
        Message::CheckDeviceState,
        Message::ResetOwner,
        Message::ResetDevice,
    ]);
    session
}

fn introduction() -> Vec<Message<()>> {
    let range = |size| super::ConfigRange {
        offset: 0,
        size,
        flags: 0,
    };
    vec![
        Message::GetFeatures,
        Message::GetProtocolFeatures,
        Message::SetProtocolFeatures(offer().protocol & !protocol::GPA_ADDRESSES),
        Message::GetQueueNum,
        Message::GetMaxMemSlots,
        Message::SetOwner,
        Message::SetBackendReqFd(()),
        Message::GetConfig(range(60)),
        Message::SetConfig(range(1), vec![1]),
        Message::SetStatus(3),
        Message::GetStatus,
    ]
}

fn memory() -> Vec<Message<()>> {
    let region = |n: u64| MemoryRegion {
        guest_addr: n << 20,
        size: 1 << 16,
        user_addr: 0x7000_0000 + (n << 20),
        mmap_offset: 0,
    };
    let area = InflightArea {
        mmap_size: 4096,
        mmap_offset: 0,
        queues: 1,
        queue_size: 64,
    };
    vec![
        Message::SetMemTable(vec![(region(0), ()), (region(1), ())]),
        Message::AddMemReg(region(2), ()),
        Message::RemMemReg(region(2)),
        Message::GetInflightFd(area),
        Message::SetInflightFd(area, ()),
    ]
}

/// A ring's life, with the dirty log.
fn ring(used: u64) -> Vec<Message<()>> {
    let state = |index, num| VringState { index, num };
    let fd = VringFd {
        index: 0,
        fd: Some(()),
    };
    let address = |flags| VringAddress {
        index: 0,
        flags,
        descriptors: 0x7000_0000,
        used: 0x7000_2000,
        available: 0x7000_1000,
        log: 0x2000,
    };
    let log = super::LogArea {
        size: 4096,
        offset: 0,
    };
    vec![
        Message::SetVringCall(fd),
        Message::SetVringErr(fd),
        Message::SetVringNum(state(0, 64)),
        Message::SetVringBase(state(0, 0)),
        Message::SetVringAddr(address(0)),
        Message::SetVringKick(fd),
        Message::SetVringEnable(state(0, 1)),
        Message::VringKick(state(0, 0)),
        Message::SetLogBase(log, ()),
        Message::SetLogFd(()),
        Message::SetFeatures(used | feature::LOG_ALL),
        Message::SetVringAddr(address(VringAddress::LOG)),
        Message::GetVringBase(state(0, 0)),
    ]
}

/// Seeds for the corpus: whole sessions, in one piece each message, in small pieces, and with
/// requests that no disk knows.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for split in [255, 200, 64, 40, 20, 12, 5] {
        let mut seed = Vec::new();
        for message in session() {
            pieces(&message.encode(true), split, &mut seed);
        }
        seeds.push(seed);
    }
    let mut strangers = Vec::new();
    for message in session().into_iter().take(3) {
        pieces(&message.encode(false), 255, &mut strangers);
    }
    for request in Request::ALL.iter().map(|r| r.number()).chain([0, 45, 9999]) {
        let message = Outgoing::<()>::new(request, flags::NEED_REPLY, &[0; 40], vec![()]);
        pieces(&message, 255, &mut strangers);
    }
    seeds.push(strangers);
    seeds
}

fn pieces(message: &Outgoing<()>, split: usize, seed: &mut Vec<u8>) {
    let mut fds = message.fds.len() as u8;
    for piece in message.bytes.chunks(split) {
        seed.extend([fds, piece.len() as u8]);
        seed.extend(piece);
        fds = 0;
    }
}
