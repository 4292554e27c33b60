//! The front-end against the back-end, and against answers that no back-end should give.

use super::{
    Backend, ConfigRange, DeviceState, Event, Frame, FrontEvent, Frontend, InflightArea, Iotlb,
    LogArea, MemoryRegion, Message, Offer, Outgoing, Reply, ReplyKind, Ticket, Violation,
    VringAddress, VringFd, VringState, Wants,
    assembler::Assembler,
    fuzzing,
    proto::{Request, feature, protocol},
};

type Out = Vec<Outgoing<u32>>;

const WANTS: Wants = Wants {
    protocol: u64::MAX,
    required: protocol::CONFIG,
};

fn whole(sent: Outgoing<u32>, replies: bool) -> Frame<u32> {
    let mut assembler = Assembler::new(replies);
    let frame = assembler.input(&mut &sent.bytes[..], sent.fds).unwrap();
    frame.expect("one message")
}

#[test]
fn every_message_round_trips() {
    let state = VringState { index: 3, num: 4 };
    let region = MemoryRegion {
        guest_addr: 1,
        size: 2,
        user_addr: 3,
        mmap_offset: 4,
    };
    let iotlb = Iotlb {
        iova: 1,
        size: 2,
        user_addr: 3,
        permissions: 3,
        kind: 2,
    };
    let endian = Message::SetVringEndian(state);
    let more = vec![
        endian,
        Message::SendRarp(u64::MAX),
        Message::NetSetMtu(1500),
        Message::IotlbMsg(iotlb),
        Message::CreateCryptoSession(vec![1; 1200]),
        Message::CloseCryptoSession(7),
        Message::PostcopyAdvise,
        Message::PostcopyListen,
        Message::PostcopyEnd,
        Message::GpuSetSocket(6),
        Message::GetSharedObject([9; 16]),
        Message::GetShmemConfig,
        Message::SetMemTable((0..8).map(|n| (region, n)).collect()),
        Message::SetVringCall(VringFd {
            index: 255,
            fd: None,
        }),
    ];
    let mut seen: Vec<Request> = Vec::new();
    for message in numbered().into_iter().chain(more) {
        seen.push(message.request());
        for need in [false, true] {
            let frame = whole(message.clone().encode(need), false);
            assert_eq!(
                (frame.flags, frame.request),
                (if need { 9 } else { 1 }, message.request().number())
            );
            assert_eq!(Message::decode(frame).as_ref(), Ok(&message));
        }
    }
    let missing: Vec<_> = Request::ALL.iter().filter(|r| !seen.contains(r)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The session of the fuzzer, with numbers for descriptors.
fn numbered() -> Vec<Message<u32>> {
    let number = |message: Message<()>| {
        let sent = message.encode(false);
        let fds = (0..sent.fds.len() as u32).collect();
        let sent = Outgoing {
            bytes: sent.bytes,
            fds,
        };
        Message::decode(whole(sent, false)).expect("ours")
    };
    fuzzing::session().into_iter().map(number).collect()
}

#[test]
fn every_reply_round_trips() {
    let range = ConfigRange {
        offset: 4,
        size: 3,
        flags: 0,
    };
    let area = InflightArea {
        mmap_size: 1,
        mmap_offset: 2,
        queues: 3,
        queue_size: 4,
    };
    let state = VringState { index: 1, num: 2 };
    for (kind, reply) in [
        (ReplyKind::U64, Reply::U64(u64::MAX)),
        (ReplyKind::VringState, Reply::VringState(state)),
        (ReplyKind::Config, Reply::Config(None)),
        (
            ReplyKind::Config,
            Reply::Config(Some((range, vec![1, 2, 3]))),
        ),
        (ReplyKind::Inflight, Reply::Inflight(area, Some(1))),
        (ReplyKind::Inflight, Reply::Inflight(area, None)),
        (ReplyKind::U64WithFd, Reply::U64WithFd(0, Some(1))),
        (ReplyKind::U64WithFd, Reply::U64WithFd(3, None)),
        (ReplyKind::Fd, Reply::Fd(Some(1))),
        (ReplyKind::Fd, Reply::Fd(None)),
        (ReplyKind::Bytes, Reply::Bytes(vec![1; 2056])),
    ] {
        let mut frame = whole(reply.clone().encode(Request::GetFeatures), true);
        assert_eq!(Reply::decode(kind, frame.clone()), Some(reply.clone()));
        frame.fds.extend([7, 8]);
        assert_eq!(Reply::decode(kind, frame.clone()), None, "{kind:?}");
        frame.fds.clear();
        frame.payload.push(0);
        let longer = Reply::decode(kind, frame);
        // What comes beside a descriptor means nothing.
        let free = kind == ReplyKind::Fd;
        assert!(free || longer != Some(reply), "{kind:?}");
    }
}

/// Both ends, and the split in which bytes pass between them.
struct Pair {
    front: Frontend<u32>,
    back: Backend<u32>,
    to_back: Out,
    to_front: Out,
    split: usize,
    /// What the back-end's driver did.
    did: Vec<String>,
    events: Vec<FrontEvent<u32>>,
}

impl Pair {
    fn new(offer: Offer, wants: Wants, split: usize) -> Pair {
        let mut to_back = Out::new();
        let front = Frontend::new(wants, &mut to_back);
        Pair {
            front,
            back: Backend::new(offer),
            to_back,
            to_front: Out::new(),
            split,
            did: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Passes bytes until nobody says anything.
    fn run(&mut self) {
        while !self.to_back.is_empty() || !self.to_front.is_empty() {
            for mut sent in std::mem::take(&mut self.to_back) {
                for piece in sent.bytes.chunks(self.split) {
                    let fds = sent.fds.drain(..);
                    let got = self.back.input(piece, fds, &mut self.to_front);
                    let (n, event) = got.expect("a careful front-end");
                    assert_eq!(n, piece.len());
                    if let Some(event) = event {
                        self.driver(event);
                    }
                }
            }
            for mut sent in std::mem::take(&mut self.to_front) {
                for piece in sent.bytes.chunks(self.split) {
                    let fds = sent.fds.drain(..);
                    let got = self.front.input(piece, fds, &mut self.to_back);
                    let (n, event) = got.expect("a careful back-end");
                    assert_eq!(n, piece.len());
                    self.events.extend(event);
                }
            }
        }
        assert_eq!(self.front.outstanding(), 0);
    }

    fn driver(&mut self, event: Event<u32>) {
        let out = &mut self.to_front;
        let text = format!("{event:?}");
        let name: String = text.chars().take_while(|c| c.is_alphabetic()).collect();
        match event {
            Event::StopVring { .. } => self.back.answer_vring_base(3, out),
            Event::GetConfig(range) if range.offset > 0 => self.back.answer_config(None, out),
            Event::GetConfig(range) => {
                let bytes = vec![5; range.size as usize];
                self.back.answer_config(Some(&bytes), out);
            }
            Event::GetInflightFd(area) => self.back.answer_inflight(Some((area, 42)), out),
            Event::SetDeviceState(_, fd) => self.back.answer_device_state(Ok(Some(fd)), out),
            Event::CheckDeviceState => self.back.answer_check(Ok(()), out),
            _ => self.back.done(Ok(()), out).expect("a success"),
        }
        self.did.push(name);
    }

    fn call(&mut self, message: Message<u32>) -> Ticket {
        self.front.call(message, &mut self.to_back)
    }
}

/// With every protocol feature, and with none but the one that is required.
fn offers() -> [Offer; 2] {
    let full = Offer {
        protocol: fuzzing::offer().protocol & !protocol::GPA_ADDRESSES,
        ..fuzzing::offer()
    };
    let bare = Offer {
        protocol: protocol::CONFIG,
        ..full
    };
    [full, bare]
}

#[test]
fn both_ends_agree_in_any_split() {
    for (offer, split) in offers()
        .into_iter()
        .flat_map(|o| [1, 5, 12, 4096].map(|s| (o, s)))
    {
        let mut pair = Pair::new(offer, WANTS, split);
        pair.run();
        let agreed = *pair.front.limits().expect("connected");
        assert_eq!(pair.events, [FrontEvent::Connected(agreed)]);
        assert_eq!(agreed.protocol, offer.protocol);
        assert_eq!(pair.back.protocol(), offer.protocol);
        let queues = if offer.protocol & protocol::MQ != 0 {
            4
        } else {
            1
        };
        let slots = if queues == 4 { 12 } else { 8 };
        assert_eq!((agreed.queues, agreed.memory_slots), (queues, slots));
        pair.events.clear();

        let used = feature::VERSION_1 | feature::PROTOCOL_FEATURES;
        let region = |n: u64| MemoryRegion {
            guest_addr: n << 20,
            size: 1 << 16,
            user_addr: n << 20,
            mmap_offset: 0,
        };
        let regions = vec![(region(0), 1), (region(1), 2)];
        let mut messages = vec![Message::SetFeatures(used)];
        messages.extend(pair.front.memory(regions).expect("slots"));
        let state = |num| VringState { index: 0, num };
        let fd = VringFd {
            index: 0,
            fd: Some(3),
        };
        messages.extend([
            Message::SetVringNum(state(64)),
            Message::SetVringBase(state(0)),
            Message::SetVringAddr(VringAddress {
                index: 0,
                flags: 0,
                descriptors: 0,
                used: 0x2000,
                available: 0x1000,
                log: 0,
            }),
            Message::SetVringCall(fd),
            Message::SetVringKick(fd),
            Message::SetVringEnable(state(1)),
        ]);
        let tickets: Vec<_> = messages
            .into_iter()
            .map(|message| pair.call(message))
            .collect();
        pair.run();
        let done = |ticket| FrontEvent::Done(ticket, Ok(()));
        let expected: Vec<_> = tickets.into_iter().map(done).collect();
        assert_eq!(pair.events, expected, "all done, in order");
        assert!(pair.back.is_started(0));
        assert_eq!(pair.did.last().map(String::as_str), Some("SetVringEnable"));
        pair.events.clear();

        let range = |offset| ConfigRange {
            offset,
            size: 60,
            flags: 0,
        };
        let config = pair.call(Message::GetConfig(range(0)));
        let beyond = pair.call(Message::GetConfig(range(240)));
        let stop = pair.call(Message::GetVringBase(state(0)));
        pair.run();
        assert_eq!(
            pair.events,
            [
                FrontEvent::Config(config, Some(vec![5; 60])),
                FrontEvent::Config(beyond, None),
                FrontEvent::VringBase(stop, state(3)),
            ]
        );
        assert!(!pair.back.is_started(0));
    }
}

#[test]
fn the_rest_of_what_a_disk_says() {
    let mut pair = Pair::new(offers()[0], WANTS, 7);
    pair.run();
    pair.events.clear();
    let area = InflightArea {
        mmap_size: 0,
        mmap_offset: 0,
        queues: 1,
        queue_size: 128,
    };
    let log = LogArea { size: 9, offset: 0 };
    let save = DeviceState {
        direction: 0,
        phase: 0,
    };
    let state = |index| VringState { index, num: 64 };
    let inflight = pair.call(Message::GetInflightFd(area));
    let logged = pair.call(Message::SetLogBase(log, 8));
    let saved = pair.call(Message::SetDeviceStateFd(save, 11));
    let checked = pair.call(Message::CheckDeviceState);
    let status = pair.call(Message::SetStatus(7));
    let asked = pair.call(Message::GetStatus);
    let refused = pair.call(Message::SetVringNum(state(4)));
    let reset = pair.call(Message::ResetDevice);
    pair.run();
    assert_eq!(
        pair.events,
        [
            FrontEvent::Inflight(inflight, Some((area, 42))),
            FrontEvent::Number(logged, 0),
            FrontEvent::DeviceState(saved, Ok(Some(11))),
            FrontEvent::Number(checked, 0),
            FrontEvent::Done(status, Ok(())),
            FrontEvent::Number(asked, 7),
            FrontEvent::Done(refused, Err(1)),
            FrontEvent::Done(reset, Ok(())),
        ]
    );
}

#[test]
fn what_there_is_no_way_without_is_named() {
    let lacks = |features: u64, protocol: u64| {
        let mut out = Out::new();
        let mut front = Frontend::new(WANTS, &mut out);
        let features = Reply::<u32>::U64(features).encode(Request::GetFeatures);
        front.input(&features.bytes, [], &mut out)?;
        let protocol = Reply::<u32>::U64(protocol).encode(Request::GetProtocolFeatures);
        front.input(&protocol.bytes, [], &mut out).map(drop)
    };
    assert_eq!(lacks(1, 0), Err(Violation::Lacking("protocol features")));
    let bare = feature::PROTOCOL_FEATURES;
    assert_eq!(lacks(bare, 1), Err(Violation::Lacking("CONFIG")));
    assert_eq!(lacks(bare, protocol::CONFIG), Ok(()));
}

#[test]
fn replies_answer_what_was_asked() {
    let connected = |answers: &[(Request, u64)]| {
        let mut out = Out::new();
        let mut front = Frontend::new(WANTS, &mut out);
        for (request, word) in answers {
            let reply = Reply::<u32>::U64(*word).encode(*request);
            front.input(&reply.bytes, [], &mut out)?;
        }
        Ok::<_, Violation>(front)
    };
    let features = (Request::GetFeatures, feature::PROTOCOL_FEATURES);
    let bare = (Request::GetProtocolFeatures, protocol::CONFIG);
    let unexpected = |request: Request| Violation::UnexpectedReply(request.number());
    let fails = |answers: &[(Request, u64)]| connected(answers).expect_err("a violation");
    assert_eq!(fails(&[bare]), unexpected(Request::GetProtocolFeatures));
    let twice = [features, bare, features, features];
    assert_eq!(fails(&twice), unexpected(Request::GetFeatures));
    let rings = (
        Request::GetProtocolFeatures,
        protocol::CONFIG | protocol::MQ,
    );
    let none = [features, rings, (Request::GetQueueNum, 0)];
    assert_eq!(fails(&none), Violation::Lacking("a single ring"));

    let mut out = Out::new();
    let mut front = connected(&[features, bare, features]).expect("connected");
    front.call(
        Message::GetVringBase(VringState { index: 0, num: 0 }),
        &mut out,
    );
    let short = Reply::<u32>::U64(1).encode(Request::GetVringBase);
    let mut bytes = short.bytes.clone();
    bytes.truncate(16);
    bytes[8] = 4;
    let malformed = Violation::MalformedReply(Request::GetVringBase.number());
    assert_eq!(front.input(&bytes, [], &mut out), Err(malformed));
    assert_eq!(front.wanted(), 0);
    assert_eq!(front.input(&short.bytes, [], &mut out), Ok((0, None)));
}
