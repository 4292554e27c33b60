//! The end that has the guest, or is one: a program that drives a disk of a vhost-user server.
//!
//! [`Frontend`] agrees with the back-end on features by itself and says [`FrontEvent::Connected`];
//! from then on [`Frontend::call`] takes any message, several at a time, and each has its event, in
//! order. Nothing is required but what there is no way without: protocol features, and those its
//! user says ([`Wants::required`]). A back-end without REPLY_ACK gets a question after each message
//! that has no reply: it answers in order, so that the answer says the message was handled. What it
//! thinks of the message stays unknown then; it ends the connection if it cannot go on.
//!
//! Deadlines are the driver's: a back-end that does not answer is told from a slow one by patience
//! alone.

use std::collections::VecDeque;

use super::{
    Violation,
    assembler::{Assembler, Frame, Outgoing},
    message::Message,
    payload::{InflightArea, MemoryRegion, VringState},
    proto::{MAX_TABLE_REGIONS, MAX_VRINGS, Request, feature, protocol},
    reply::{Reply, ReplyKind},
    wire::Reader,
};

/// What the user of a front-end can do, and must have.
#[derive(Clone, Copy, Debug)]
pub struct Wants {
    /// Protocol features it can use, as bits of [`protocol`].
    pub protocol: u64,
    /// Those it cannot go without; for a disk [`protocol::CONFIG`].
    pub required: u64,
}

/// What the back-end can do, and what was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Features of the device that there are; say with [`Message::SetFeatures`] which are used, and
    /// add [`feature::PROTOCOL_FEATURES`].
    pub features: u64,
    /// Protocol features agreed on.
    pub protocol: u64,
    /// Number of rings, 1 to 256; 1 if the back-end does not tell.
    pub queues: u16,
    /// Most regions of memory.
    pub memory_slots: u64,
}

/// Names a message that was sent, to know its event again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(u64);

/// What the back-end answered.
#[derive(Debug, PartialEq, Eq)]
pub enum FrontEvent<F> {
    /// Features are agreed on. The first event.
    Connected(Limits),
    /// The message was handled. An error is the number of the back-end's acknowledgement; without
    /// REPLY_ACK there is none.
    Done(Ticket, Result<(), u64>),
    /// A number that was asked for.
    Number(Ticket, u64),
    /// Configuration space; `None` if the back-end has not that much.
    Config(Ticket, Option<Vec<u8>>),
    /// The ring has stopped, and would go on here.
    VringBase(Ticket, VringState),
    /// A log of requests in flight, if the back-end has one.
    Inflight(Ticket, Option<(InflightArea, F)>),
    /// Moving the device's state goes through this descriptor, or through the one that was given; an
    /// error is the back-end's number.
    DeviceState(Ticket, Result<Option<F>, u64>),
    /// A descriptor, if there is one.
    Fd(Ticket, Option<F>),
    /// Bytes of a message that is not of this kind of device.
    Bytes(Ticket, Vec<u8>),
}

/// What comes next from the back-end.
#[derive(Clone, Copy, Debug)]
enum Expected {
    /// Steps of the beginning.
    Features,
    Protocol,
    Queues,
    Slots,
    Settled,
    /// A reply of this form.
    Reply(Ticket, Request, ReplyKind),
    /// An acknowledgement.
    Ack(Ticket, Request),
    /// The answer to a question that was asked only to know the message before it handled.
    Barrier(Ticket),
}

/// The front-end's end of a connection.
#[derive(Debug)]
pub struct Frontend<F> {
    wants: Wants,
    limits: Limits,
    connected: bool,
    assembler: Assembler<F>,
    expected: VecDeque<Expected>,
    next: u64,
    failed: bool,
}

impl<F> Frontend<F> {
    /// Begins a session.
    pub fn new(wants: Wants, out: &mut Vec<Outgoing<F>>) -> Frontend<F> {
        out.push(Message::GetFeatures.encode(false));
        Frontend {
            wants,
            limits: Limits {
                features: 0,
                protocol: 0,
                queues: 1,
                memory_slots: MAX_TABLE_REGIONS as u64,
            },
            connected: false,
            assembler: Assembler::new(true),
            expected: VecDeque::from([Expected::Features]),
            next: 0,
            failed: false,
        }
    }

    /// How many bytes to receive at once, at most. See the contract of the [module](super).
    pub fn wanted(&self) -> usize {
        match self.failed {
            true => 0,
            false => self.assembler.wanted(),
        }
    }

    /// What was agreed on, once it is.
    pub fn limits(&self) -> Option<&Limits> {
        self.connected.then_some(&self.limits)
    }

    /// Number of answers that are to come.
    pub fn outstanding(&self) -> usize {
        self.expected.len()
    }

    /// Says something. Its event comes after those of all messages before.
    ///
    /// # Panics
    /// Before [`FrontEvent::Connected`], and for a message that needs a protocol feature that was not
    /// agreed on.
    pub fn call(&mut self, message: Message<F>, out: &mut Vec<Outgoing<F>>) -> Ticket {
        assert!(self.connected, "features are not agreed on yet");
        let request = message.request();
        let needed = request.needs();
        assert!(self.has(needed), "{request:?} was not agreed on");
        let ticket = Ticket(self.next);
        self.next += 1;
        if let Some(kind) = request.reply() {
            out.push(message.encode(false));
            let reply = Expected::Reply(ticket, request, kind);
            self.expected.push_back(reply);
        } else if self.has(protocol::REPLY_ACK) {
            out.push(message.encode(true));
            self.expected.push_back(Expected::Ack(ticket, request));
        } else {
            out.push(message.encode(false));
            out.push(Message::GetFeatures.encode(false));
            self.expected.push_back(Expected::Barrier(ticket));
        }
        ticket
    }

    /// The messages that tell the back-end of the guest's memory: region by region if it can take
    /// them so, else all at once. `None` if there are more than it has slots for.
    pub fn memory(&self, regions: Vec<(MemoryRegion, F)>) -> Option<Vec<Message<F>>> {
        if regions.len() as u64 > self.limits.memory_slots {
            return None;
        }
        if !self.has(protocol::CONFIGURE_MEM_SLOTS) {
            return Some(vec![Message::SetMemTable(regions)]);
        }
        let add = |(region, fd)| Message::AddMemReg(region, fd);
        Some(regions.into_iter().map(add).collect())
    }

    /// Takes bytes from the back-end, with the descriptors that came with the first of them. Returns
    /// how many were consumed, and an event if one stopped it; without one all were.
    ///
    /// # Errors
    /// A [`Violation`], after which the machine consumes nothing.
    pub fn input(
        &mut self,
        bytes: &[u8],
        fds: impl IntoIterator<Item = F>,
        out: &mut Vec<Outgoing<F>>,
    ) -> Result<(usize, Option<FrontEvent<F>>), Violation> {
        let mut rest = bytes;
        let mut fds = Some(fds);
        while !self.failed && !rest.is_empty() {
            let step = match fds.take() {
                Some(fds) => self.assembler.input(&mut rest, fds),
                None => self.assembler.input(&mut rest, []),
            };
            let event = step.and_then(|frame| match frame {
                Some(frame) => self.frame(frame, out),
                None => Ok(None),
            });
            match event {
                Ok(None) => {}
                Ok(event) => return Ok((bytes.len() - rest.len(), event)),
                Err(violation) => {
                    self.failed = true;
                    return Err(violation);
                }
            }
        }
        Ok((bytes.len() - rest.len(), None))
    }

    fn ask(&mut self, message: Message<F>, expected: Expected, out: &mut Vec<Outgoing<F>>) {
        out.push(message.encode(false));
        self.expected.push_back(expected);
    }

    fn has(&self, bits: u64) -> bool {
        self.limits.protocol & bits == bits
    }

    fn frame(
        &mut self,
        frame: Frame<F>,
        out: &mut Vec<Outgoing<F>>,
    ) -> Result<Option<FrontEvent<F>>, Violation> {
        let number = frame.request;
        let unexpected = Violation::UnexpectedReply(number);
        let expected = self.expected.pop_front().ok_or(unexpected)?;
        if expected.request().number() != number {
            return Err(unexpected);
        }
        let malformed = Violation::MalformedReply(number);
        let event = match expected {
            Expected::Reply(ticket, _, kind) => {
                let reply = Reply::decode(kind, frame).ok_or(malformed)?;
                reply_event(ticket, reply)
            }
            Expected::Ack(ticket, _) => {
                let word = word(frame).ok_or(malformed)?;
                FrontEvent::Done(ticket, if word == 0 { Ok(()) } else { Err(word) })
            }
            Expected::Barrier(ticket) => {
                word(frame).ok_or(malformed)?;
                FrontEvent::Done(ticket, Ok(()))
            }
            step => {
                let word = word(frame).ok_or(malformed)?;
                return self.step(step, word, out);
            }
        };
        Ok(Some(event))
    }

    /// The beginning, step by step.
    fn step(
        &mut self,
        step: Expected,
        word: u64,
        out: &mut Vec<Outgoing<F>>,
    ) -> Result<Option<FrontEvent<F>>, Violation> {
        match step {
            Expected::Features => {
                self.limits.features = word;
                if word & feature::PROTOCOL_FEATURES == 0 {
                    return Err(Violation::Lacking("protocol features"));
                }
                self.ask(Message::GetProtocolFeatures, Expected::Protocol, out);
            }
            Expected::Protocol => {
                if self.wants.required & !word != 0 {
                    return Err(Violation::Lacking(name_of(self.wants.required & !word)));
                }
                let mut agreed = word & (self.wants.protocol | self.wants.required);
                if agreed & protocol::INFLIGHT_SHMFD == 0 {
                    agreed &= !protocol::GET_VRING_BASE_INFLIGHT;
                }
                self.limits.protocol = agreed;
                out.push(Message::SetProtocolFeatures(agreed).encode(false));
                if agreed & protocol::MQ != 0 {
                    self.ask(Message::GetQueueNum, Expected::Queues, out);
                }
                if agreed & protocol::CONFIGURE_MEM_SLOTS != 0 {
                    self.ask(Message::GetMaxMemSlots, Expected::Slots, out);
                }
                out.push(Message::SetOwner.encode(false));
                self.ask(Message::GetFeatures, Expected::Settled, out);
            }
            Expected::Queues if word == 0 => return Err(Violation::Lacking("a single ring")),
            Expected::Queues => self.limits.queues = word.min(MAX_VRINGS.into()) as u16,
            Expected::Slots => self.limits.memory_slots = word,
            _ => {
                self.limits.features = word;
                self.connected = true;
                return Ok(Some(FrontEvent::Connected(self.limits)));
            }
        }
        Ok(None)
    }
}

impl Expected {
    fn request(&self) -> Request {
        match self {
            Expected::Features | Expected::Settled | Expected::Barrier(_) => Request::GetFeatures,
            Expected::Protocol => Request::GetProtocolFeatures,
            Expected::Queues => Request::GetQueueNum,
            Expected::Slots => Request::GetMaxMemSlots,
            Expected::Reply(_, request, _) | Expected::Ack(_, request) => *request,
        }
    }
}

impl Request {
    /// Protocol features without which this request must not be sent.
    pub const fn needs(self) -> u64 {
        match self {
            Request::GetQueueNum => protocol::MQ,
            Request::SetLogBase => protocol::LOG_SHMFD,
            Request::SendRarp => protocol::RARP,
            Request::NetSetMtu => protocol::NET_MTU,
            Request::SetBackendReqFd => protocol::BACKEND_REQ,
            Request::SetVringEndian => protocol::CROSS_ENDIAN,
            Request::GetConfig | Request::SetConfig => protocol::CONFIG,
            Request::CreateCryptoSession | Request::CloseCryptoSession => protocol::CRYPTO_SESSION,
            Request::PostcopyAdvise | Request::PostcopyListen | Request::PostcopyEnd => {
                protocol::PAGEFAULT
            }
            Request::GetInflightFd | Request::SetInflightFd => protocol::INFLIGHT_SHMFD,
            Request::ResetDevice => protocol::RESET_DEVICE,
            Request::VringKick => protocol::INBAND_NOTIFICATIONS,
            Request::GetMaxMemSlots | Request::AddMemReg | Request::RemMemReg => {
                protocol::CONFIGURE_MEM_SLOTS
            }
            Request::SetStatus | Request::GetStatus => protocol::STATUS,
            Request::GetSharedObject => protocol::SHARED_OBJECT,
            Request::SetDeviceStateFd | Request::CheckDeviceState => protocol::DEVICE_STATE,
            Request::GetShmemConfig => protocol::SHMEM_MAP,
            _ => 0,
        }
    }
}

fn word<F>(frame: Frame<F>) -> Option<u64> {
    let mut reader = Reader(&frame.payload);
    let word = reader.u64()?;
    reader.end(word).filter(|_| frame.fds.is_empty())
}

fn reply_event<F>(ticket: Ticket, reply: Reply<F>) -> FrontEvent<F> {
    match reply {
        Reply::U64(word) => FrontEvent::Number(ticket, word),
        Reply::VringState(state) => FrontEvent::VringBase(ticket, state),
        Reply::Config(config) => FrontEvent::Config(ticket, config.map(|(_, bytes)| bytes)),
        Reply::Inflight(area, fd) => FrontEvent::Inflight(ticket, fd.map(|fd| (area, fd))),
        Reply::U64WithFd(0, fd) => FrontEvent::DeviceState(ticket, Ok(fd)),
        Reply::U64WithFd(word, _) => FrontEvent::DeviceState(ticket, Err(word)),
        Reply::Fd(fd) => FrontEvent::Fd(ticket, fd),
        Reply::Bytes(bytes) => FrontEvent::Bytes(ticket, bytes),
    }
}

/// The name of the lowest of these protocol features.
fn name_of(bits: u64) -> &'static str {
    const NAMES: [&str; 23] = [
        "MQ",
        "LOG_SHMFD",
        "RARP",
        "REPLY_ACK",
        "NET_MTU",
        "BACKEND_REQ",
        "CROSS_ENDIAN",
        "CRYPTO_SESSION",
        "PAGEFAULT",
        "CONFIG",
        "BACKEND_SEND_FD",
        "HOST_NOTIFIER",
        "INFLIGHT_SHMFD",
        "RESET_DEVICE",
        "INBAND_NOTIFICATIONS",
        "CONFIGURE_MEM_SLOTS",
        "STATUS",
        "XEN_MMAP",
        "SHARED_OBJECT",
        "DEVICE_STATE",
        "GET_VRING_BASE_INFLIGHT",
        "GPA_ADDRESSES",
        "SHMEM_MAP",
    ];
    let name = NAMES.get(bits.trailing_zeros() as usize);
    name.copied().unwrap_or("an unknown protocol feature")
}
