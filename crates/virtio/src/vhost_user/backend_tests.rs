//! The back-end against messages in every order.

use super::{
    Backend, ConfigRange, Event, Frame, InflightArea, LogArea, MemoryRegion, Message, Offer,
    Outgoing, Refused, Reply, ReplyKind, Violation, VringAddress, VringFd, VringSetup, VringState,
    assembler::Assembler,
    fuzzing,
    proto::{Request, feature, protocol},
};

type Out = Vec<Outgoing<u32>>;

const USED: u64 = feature::VERSION_1 | feature::PROTOCOL_FEATURES;

fn region(guest_addr: u64, user_addr: u64) -> MemoryRegion {
    MemoryRegion {
        guest_addr,
        size: 0x10000,
        user_addr,
        mmap_offset: 0x1000,
    }
}

fn state(index: u32, num: u32) -> VringState {
    VringState { index, num }
}

fn address(index: u32, at: u64) -> VringAddress {
    VringAddress {
        index,
        flags: 0,
        descriptors: at,
        used: at + 0x2000,
        available: at + 0x1000,
        log: 0,
    }
}

fn kick(index: u8, fd: Option<u32>) -> Message<u32> {
    Message::SetVringKick(VringFd { index, fd })
}

/// A reply in one piece.
fn frame(reply: Outgoing<u32>) -> Frame<u32> {
    let mut assembler = Assembler::new(true);
    let mut bytes = &reply.bytes[..];
    let frame = assembler.input(&mut bytes, reply.fds).unwrap();
    frame.expect("one message")
}

struct Session {
    backend: Backend<u32>,
    out: Out,
}

impl Session {
    fn new(offer: Offer) -> Session {
        Session {
            backend: Backend::new(offer),
            out: Vec::new(),
        }
    }

    /// One after protocol features and owner.
    fn begun(protocol: u64) -> Session {
        let mut session = Session::new(fuzzing::offer());
        assert_eq!(
            session.say(Message::SetProtocolFeatures(protocol)),
            Ok(None)
        );
        assert_eq!(session.say(Message::SetOwner), Ok(None));
        session
    }

    /// One with a ring that can be started.
    fn configured(protocol: u64, features: u64) -> Session {
        let mut session = Session::begun(protocol);
        session.does(Message::SetFeatures(features));
        let table = vec![(region(0, 0x70000), 5), (region(0x10000, 0x10000), 6)];
        session.does(Message::SetMemTable(table));
        for message in [
            Message::SetVringNum(state(1, 64)),
            Message::SetVringAddr(address(1, 0x12000)),
            Message::SetVringBase(state(1, 9)),
        ] {
            assert_eq!(session.say(message), Ok(None));
        }
        session
    }

    fn say(&mut self, message: Message<u32>) -> Result<Option<Event<u32>>, Violation> {
        let sent = message.encode(self.backend.protocol() & protocol::REPLY_ACK != 0);
        let (n, event) = self.backend.input(&sent.bytes, sent.fds, &mut self.out)?;
        assert_eq!(n, sent.bytes.len());
        Ok(event)
    }

    /// Says something that becomes an event, which the driver does.
    fn does(&mut self, message: Message<u32>) -> Event<u32> {
        let event = self.say(message).unwrap().expect("an event");
        self.backend.done(Ok(()), &mut self.out).unwrap();
        event
    }

    /// The only reply that was sent.
    fn reply(&mut self, kind: ReplyKind) -> Reply<u32> {
        assert_eq!(self.out.len(), 1);
        let frame = frame(self.out.pop().unwrap());
        Reply::decode(kind, frame).expect("of the right form")
    }

    /// Says something that is refused, with an acknowledgement.
    fn refused(&mut self, message: Message<u32>) {
        self.out.clear();
        assert_eq!(self.say(message), Ok(None));
        assert_eq!(self.reply(ReplyKind::U64), Reply::U64(1));
    }

    /// Says something that is done at once, with an acknowledgement.
    fn accepted(&mut self, message: Message<u32>) {
        self.out.clear();
        assert_eq!(self.say(message), Ok(None));
        assert_eq!(self.reply(ReplyKind::U64), Reply::U64(0));
    }
}

#[test]
fn a_whole_session_in_any_split() {
    for split in [1, 2, 3, 7, 11, 12, 13, 40, 4096] {
        let mut backend = Backend::new(fuzzing::offer());
        let mut out = Out::new();
        let mut events = 0;
        for message in fuzzing::session() {
            let request = message.request();
            let sent = message.encode(true);
            let mut fds: Vec<u32> = (0..sent.fds.len() as u32).collect();
            for piece in sent.bytes.chunks(split) {
                let (n, event) = backend.input(piece, fds.drain(..), &mut out).unwrap();
                assert_eq!(n, piece.len());
                let Some(event) = event else { continue };
                events += 1;
                match event {
                    Event::StopVring { .. } => backend.answer_vring_base(3, &mut out),
                    Event::GetConfig(_) => backend.answer_config(Some(&[1; 60]), &mut out),
                    Event::GetInflightFd(area) => {
                        backend.answer_inflight(Some((area, 8)), &mut out);
                    }
                    Event::SetDeviceState(..) => backend.answer_device_state(Ok(None), &mut out),
                    Event::CheckDeviceState => backend.answer_check(Ok(()), &mut out),
                    _ => backend.done(Ok(()), &mut out).unwrap(),
                }
            }
            assert!(backend.is_between());
            let acked = backend.protocol() & protocol::REPLY_ACK != 0;
            let replies = usize::from(acked || request.reply().is_some());
            assert_eq!(out.len(), replies, "{request:?}");
            for reply in out.drain(..) {
                let got = Reply::decode(request.reply().unwrap_or(ReplyKind::U64), frame(reply));
                let failed = matches!(got, Some(Reply::U64(1)) | None);
                assert!(!failed, "{request:?}: {got:?}");
            }
        }
        assert_eq!(events, 23, "split {split}");
    }
}

#[test]
fn a_ring_starts_when_all_is_known_and_not_before() {
    let mut session = Session::new(fuzzing::offer());
    session
        .say(Message::SetProtocolFeatures(protocol::REPLY_ACK))
        .unwrap();
    session.refused(kick(0, Some(9)));
    session.accepted(Message::SetVringNum(state(0, 64)));
    session.accepted(Message::SetVringAddr(address(0, 0x70000)));
    session.refused(kick(0, Some(9)));
    session.does(Message::SetMemTable(vec![(region(0, 0x70000), 5)]));
    session.refused(kick(0, Some(9)));
    session.does(Message::SetFeatures(feature::PROTOCOL_FEATURES));
    session.accepted(Message::SetOwner);
    // VERSION_1 is required.
    session.refused(kick(0, Some(9)));
    session.does(Message::SetFeatures(USED));
    let started = session.does(kick(0, Some(9)));
    let setup = VringSetup {
        index: 0,
        size: 64,
        features: USED,
        descriptors: 0,
        available: 0x1000,
        used: 0x2000,
        base: 0,
        log: None,
        enabled: false,
    };
    assert_eq!(started, Event::StartVring(setup, Some(9)));
    assert!(session.backend.is_started(0) && !session.backend.is_started(1));
}

#[test]
fn a_running_ring_is_not_reconfigured() {
    let mut session = Session::configured(protocol::REPLY_ACK, USED);
    let Event::StartVring(setup, None) = session.does(kick(1, None)) else {
        panic!("a start")
    };
    assert_eq!((setup.descriptors, setup.base), (0x12000, 9));
    session.refused(Message::SetVringNum(state(1, 128)));
    session.refused(Message::SetVringBase(state(1, 0)));
    session.refused(Message::SetFeatures(USED | feature::RING_PACKED));
    session.refused(Message::SetProtocolFeatures(0));
    session.refused(Message::SetVringAddr(address(1, 0xff000)));
    let again = session.does(kick(1, Some(4)));
    let other = VringFd {
        index: 1,
        fd: Some(4),
    };
    assert_eq!(again, Event::ReplaceKick(other));
    session.does(Message::SetFeatures(USED | feature::LOG_ALL));
    let mut logged = address(1, 0x12000);
    (logged.flags, logged.log) = (VringAddress::LOG, 0x5000);
    let moved = session.does(Message::SetVringAddr(logged));
    let Event::MoveVring(setup) = moved else {
        panic!("{moved:?}")
    };
    assert_eq!(setup.log, Some(0x5000));
}

#[test]
fn a_stopped_ring_goes_on_where_it_was() {
    let mut session = Session::configured(0, USED);
    session.out.clear();
    // Not started: what was set.
    assert_eq!(session.say(Message::GetVringBase(state(1, 0))), Ok(None));
    let reply = session.reply(ReplyKind::VringState);
    assert_eq!(reply, Reply::VringState(state(1, 9)));
    session.does(kick(1, Some(1)));
    let stop = session.say(Message::GetVringBase(state(1, 0))).unwrap();
    let stopping = Event::StopVring {
        index: 1,
        keep_inflight: false,
    };
    assert_eq!(stop, Some(stopping));
    assert_eq!(session.backend.wanted(), 0);
    let none = session.backend.input(&[1], [], &mut session.out);
    assert_eq!(none, Ok((0, None)), "nothing is consumed meanwhile");
    session.backend.answer_vring_base(77, &mut session.out);
    let reply = session.reply(ReplyKind::VringState);
    assert_eq!(reply, Reply::VringState(state(1, 77)));
    let Event::StartVring(setup, _) = session.does(kick(1, Some(1))) else {
        panic!("a start")
    };
    assert_eq!(setup.base, 77);
}

#[test]
fn rings_are_enabled_unless_the_front_end_says_when() {
    let mut old = Session::configured(0, feature::VERSION_1);
    let Event::StartVring(setup, _) = old.does(kick(1, None)) else {
        panic!("a start")
    };
    assert!(setup.enabled);
    let mut new = Session::configured(0, USED);
    let on = new.does(Message::SetVringEnable(state(1, 1)));
    let enable = Event::SetVringEnable {
        index: 1,
        enabled: true,
    };
    assert_eq!(on, enable);
    assert!(new.backend.vring(1).unwrap().enabled);
}

#[test]
fn packed_rings_have_other_parts() {
    let packed = USED | feature::RING_PACKED;
    let mut session = Session::configured(protocol::REPLY_ACK, packed);
    session.accepted(Message::SetVringNum(state(1, 65)));
    session.accepted(Message::SetVringBase(state(1, 0x8000_8000)));
    let mut place = address(1, 0x12000);
    place.used = 0x1_fffc;
    session.accepted(Message::SetVringAddr(place));
    let Event::StartVring(setup, _) = session.does(kick(1, None)) else {
        panic!("a start")
    };
    assert!(setup.packed());
    assert_eq!(
        (setup.size, setup.used, setup.base),
        (65, 0x1_fffc, 0x8000_8000)
    );

    let mut split = Session::configured(protocol::REPLY_ACK, USED);
    split.accepted(Message::SetVringNum(state(1, 65)));
    split.refused(kick(1, None));
    split.accepted(Message::SetVringNum(state(1, 64)));
    split.accepted(Message::SetVringAddr(place));
    split.refused(kick(1, None));
    split.accepted(Message::SetVringAddr(address(1, 0x12008)));
    split.refused(kick(1, None));
    split.accepted(Message::SetVringAddr(address(1, 0x12010)));
    split.accepted(Message::SetVringBase(state(1, 0x1_0000)));
    split.refused(kick(1, None));
    assert_eq!(split.backend.vring(1), Err(Refused::BadVring));
}

#[test]
fn guest_addresses_are_taken_as_they_are() {
    let bits = protocol::REPLY_ACK | protocol::GPA_ADDRESSES;
    let mut session = Session::configured(bits, USED);
    session.accepted(Message::SetVringAddr(address(1, 0x4000)));
    assert_eq!(session.backend.vring(1).unwrap().descriptors, 0x4000);
    session.accepted(Message::SetVringAddr(address(1, 0x70000)));
    assert_eq!(session.backend.vring(1), Err(Refused::BadAddress));
}

#[test]
fn memory_comes_and_goes() {
    let bits = protocol::REPLY_ACK | protocol::CONFIGURE_MEM_SLOTS;
    let mut session = Session::begun(bits);
    for n in 0..12 {
        session.does(Message::AddMemReg(region(n << 20, n << 20), 1));
    }
    session.refused(Message::AddMemReg(region(13 << 20, 13 << 20), 1));
    session.refused(Message::RemMemReg(region(13 << 20, 13 << 20)));
    let gone = session.does(Message::RemMemReg(region(3 << 20, 3 << 20)));
    assert_eq!(gone, Event::RemMemRegion(region(3 << 20, 3 << 20)));
    session.refused(Message::AddMemReg(region(2 << 20, 13 << 20), 1));
    // A driver that cannot map it: it is not there.
    session.out.clear();
    session
        .say(Message::AddMemReg(region(3 << 20, 3 << 20), 1))
        .unwrap();
    session
        .backend
        .done(Err(Refused::Failed), &mut session.out)
        .unwrap();
    assert_eq!(session.reply(ReplyKind::U64), Reply::U64(1));
    assert_eq!(session.backend.regions().len(), 11);
    // A new table replaces all; one that overlaps replaces nothing.
    let overlap = vec![(region(0, 0), 1), (region(0x8000, 0x20000), 2)];
    session.refused(Message::SetMemTable(overlap));
    assert_eq!(session.backend.regions().len(), 11);
    session.does(Message::SetMemTable(vec![(region(0, 0), 1)]));
    assert_eq!(session.backend.regions(), [region(0, 0)]);
}

#[test]
fn what_cannot_be_told_ends_the_connection() {
    let untold = |message: Message<u32>, why| {
        let request = message.request().number();
        let mut session = Session::begun(0);
        let violation = Violation::Untold { request, why };
        assert_eq!(session.say(message), Err(violation));
        assert_eq!(session.backend.wanted(), 0);
        assert_eq!(session.out, []);
    };
    untold(Message::SetVringNum(state(4, 1)), Refused::NoSuchVring);
    untold(Message::SetVringNum(state(0, 0)), Refused::BadVring);
    untold(Message::SetVringNum(state(0, 1025)), Refused::BadVring);
    untold(Message::GetVringBase(state(4, 0)), Refused::NoSuchVring);
    untold(Message::GetQueueNum, Refused::NotNegotiated);
    untold(Message::PostcopyAdvise, Refused::Unsupported);
    untold(Message::SendRarp(0), Refused::Unsupported);
    untold(Message::SetFeatures(1), Refused::BadFeatures);
    untold(Message::SetProtocolFeatures(1 << 60), Refused::BadFeatures);
    let alone = protocol::GET_VRING_BASE_INFLIGHT;
    untold(Message::SetProtocolFeatures(alone), Refused::BadFeatures);

    // The dirty log has a reply, but none that tells a failure.
    let mut session = Session::begun(protocol::LOG_SHMFD | protocol::REPLY_ACK);
    let log = LogArea { size: 1, offset: 0 };
    session.say(Message::SetLogBase(log, 3)).unwrap();
    let failed = session.backend.done(Err(Refused::Failed), &mut session.out);
    assert!(matches!(failed, Err(Violation::Untold { request: 6, .. })));
}

#[test]
fn every_request_that_is_not_known_is_answered() {
    let mut session = Session::begun(protocol::REPLY_ACK);
    session.out.clear();
    for number in (45..300).chain([0, u32::MAX]) {
        let unknown = Outgoing::<u32>::new(number, 8, &[1; 100], vec![1, 2, 3]);
        let (_, none) = session
            .backend
            .input(&unknown.bytes, unknown.fds, &mut session.out)
            .unwrap();
        assert_eq!(none, None);
        let reply = session.out.pop().unwrap();
        assert_eq!(reply, Outgoing::acknowledgement(number, 1));
    }
}

#[test]
fn descriptors_are_as_many_as_the_message_has() {
    let mut session = Session::begun(protocol::REPLY_ACK);
    session.out.clear();
    let word = |word: u64| word.to_ne_bytes();
    // A number of a ring, with and without the bit for no descriptor.
    for (request, payload, fds) in [
        (Request::SetVringCall, word(0), vec![]),
        (Request::SetVringCall, word(0), vec![1, 2]),
        (Request::SetVringCall, word(0x100), vec![1]),
        (Request::SetVringNum, word(0), vec![1]),
        (Request::SetOwner, word(0), vec![1]),
        (Request::SetMemTable, word(2), vec![1]),
        (Request::SetMemTable, word(0), vec![1]),
    ] {
        let sent = Outgoing::new(request.number(), 8, &payload, fds);
        let got = session
            .backend
            .input(&sent.bytes, sent.fds, &mut session.out);
        assert_eq!(got, Ok((20, None)));
        assert_eq!(session.reply(ReplyKind::U64), Reply::U64(1), "{request:?}");
    }
}

#[test]
fn errors_of_replies_have_the_form_of_the_reply() {
    let all = fuzzing::offer().protocol;
    let mut session = Session::begun(all);
    session.out.clear();
    let range = ConfigRange {
        offset: 250,
        size: 60,
        flags: 0,
    };
    let event = session.say(Message::GetConfig(range)).unwrap();
    assert_eq!(event, Some(Event::GetConfig(range)));
    session.backend.answer_config(None, &mut session.out);
    assert_eq!(session.out[0].bytes.len(), 12, "size 0 says that it failed");
    assert_eq!(session.reply(ReplyKind::Config), Reply::Config(None));
    let area = InflightArea {
        mmap_size: 0,
        mmap_offset: 0,
        queues: 5,
        queue_size: 64,
    };
    assert_eq!(session.say(Message::GetInflightFd(area)), Ok(None));
    let Reply::Inflight(none, None) = session.reply(ReplyKind::Inflight) else {
        panic!("no log")
    };
    assert_eq!(none.mmap_size, 0);
    session.refused(Message::SetInflightFd(area, 1));
    let load = super::DeviceState {
        direction: 2,
        phase: 0,
    };
    session.say(Message::SetDeviceStateFd(load, 1)).unwrap();
    let reply = session.reply(ReplyKind::U64WithFd);
    assert_eq!(reply, Reply::U64WithFd(1, None));
}

#[test]
fn a_reset_forgets_the_rings_and_keeps_the_session() {
    let bits = protocol::RESET_DEVICE | protocol::STATUS;
    for reset in [Message::ResetDevice, Message::SetStatus(0)] {
        let mut session = Session::configured(bits, USED);
        session.does(Message::SetStatus(15));
        session.does(kick(1, Some(1)));
        assert_eq!(session.does(reset), Event::ResetDevice);
        assert!(!session.backend.is_started(1));
        assert_eq!(session.backend.vring(1), Err(Refused::NotConfigured));
        assert_eq!(session.backend.regions().len(), 2);
        session.out.clear();
        session.say(Message::GetStatus).unwrap();
        assert_eq!(session.reply(ReplyKind::U64), Reply::U64(0));
    }
}

#[test]
fn seeds_keep_their_promises() {
    fuzzing::seeds()
        .iter()
        .for_each(|seed| fuzzing::fuzz_backend(seed));
}
