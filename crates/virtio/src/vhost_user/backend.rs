//! The end that has the device.
//!
//! [`Backend`] checks what the front-end says, keeps what was agreed on, and turns into an [`Event`]
//! what its driver has to do: map memory, run a ring, stop it. Each event wants one answer; the
//! documentation of its variants says which. Rings are handed out only when all about them is known
//! and checked, with the guest's addresses; sizes, addresses and bases make no events of their own.

mod answers;
mod requests;

use super::{
    Violation,
    assembler::{Assembler, Outgoing},
    memory_table::MemoryTable,
    message::Message,
    payload::{ConfigRange, DeviceState, InflightArea, LogArea, MemoryRegion, VringFd},
    proto::{MAX_VRINGS, Request, feature, flags, protocol},
    reply::Reply,
    vring::{Shared, Vring},
};

pub use super::vring::VringSetup;

/// Why a request cannot be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// There is no such request.
    #[error("unknown request")]
    Unknown,
    /// The payload, or the number of descriptors, is not what the request has.
    #[error("malformed payload or wrong number of descriptors")]
    Malformed,
    /// Not something this back-end does.
    #[error("not supported")]
    Unsupported,
    /// It belongs to a feature that was not agreed on.
    #[error("the feature it belongs to was not negotiated")]
    NotNegotiated,
    /// Features that were not offered, or that cannot change now.
    #[error("features that were not offered, or change while a ring runs")]
    BadFeatures,
    /// There is no such ring.
    #[error("no such ring")]
    NoSuchVring,
    /// A size or a base that a ring cannot have.
    #[error("a size or base that a ring cannot have")]
    BadVring,
    /// A part of a ring that is misaligned, or not in one region of memory.
    #[error("a ring's address is misaligned or outside of the memory")]
    BadAddress,
    /// A ring was to be started before owner, features, size and addresses were set.
    #[error("the ring is not configured")]
    NotConfigured,
    /// That cannot be changed while the ring runs.
    #[error("the ring is running")]
    Running,
    /// A region without bytes, or beyond the end of all addresses.
    #[error("a region of memory that cannot be")]
    BadRegion,
    /// Regions overlap.
    #[error("regions of memory overlap")]
    Overlap,
    /// There is no such region.
    #[error("no such region of memory")]
    NoSuchRegion,
    /// More regions than there are slots.
    #[error("no slot for one more region of memory")]
    NoSlot,
    /// The driver of the machine could not do it.
    #[error("it failed")]
    Failed,
}

/// What a back-end offers.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// Features of the device and its rings. That there are protocol features is added.
    pub features: u64,
    /// Those of them that a front-end must take before a ring starts; [`feature::VERSION_1`] for a
    /// device that knows no older rings.
    pub required: u64,
    /// Protocol features, as bits of [`protocol`].
    pub protocol: u64,
    /// Number of rings, 1 to 256.
    pub queues: u16,
    /// Most descriptors of a ring, at most 32768.
    pub max_queue_size: u16,
    /// Most regions of memory.
    pub memory_slots: u16,
}

/// Something the driver must do. Unless said otherwise the answer is [`Backend::done`].
#[derive(Debug, PartialEq, Eq)]
pub enum Event<F> {
    /// These features are used. While rings run, only [`feature::LOG_ALL`] changes.
    SetFeatures(u64),
    /// Map these regions instead of all others. They do not overlap. If that fails, nothing may have
    /// changed. Afterwards look at running rings again ([`Backend::vring`]): one whose addresses are
    /// gone has to stop.
    SetMemTable(Vec<(MemoryRegion, F)>),
    /// Map one more.
    AddMemRegion(MemoryRegion, F),
    /// Unmap this one, when no request uses it any more. Look at running rings again.
    RemMemRegion(MemoryRegion),
    /// Log writes to guest memory here, where [`feature::LOG_ALL`] is on. A failure ends the
    /// connection: there is no reply that tells it.
    SetLogBase(LogArea, F),
    /// Signal this when something was logged.
    SetLogFd(F),
    /// Run this ring, from now on, and look at once whether there is something in it. Without a
    /// descriptor it has to be polled.
    StartVring(VringSetup, Option<F>),
    /// The same ring is kicked by another descriptor from now on.
    ReplaceKick(VringFd<F>),
    /// A running ring has other addresses, or logs now.
    MoveVring(VringSetup),
    /// Signal this when requests of the ring are done.
    SetVringCall(VringFd<F>),
    /// Signal this when the ring is broken.
    SetVringErr(VringFd<F>),
    /// A ring is to take requests, or not to.
    SetVringEnable {
        /// The ring.
        index: u16,
        /// Whether it takes requests.
        enabled: bool,
    },
    /// Stop this ring; answer with [`Backend::answer_vring_base`] when none of its requests uses the
    /// guest's memory any more.
    StopVring {
        /// The ring.
        index: u16,
        /// Do not wait for requests in flight: they stay in their log.
        keep_inflight: bool,
    },
    /// The ring has something new.
    VringKick(u16),
    /// The channel for requests of ours: see [`BackChannel`](super::BackChannel).
    SetBackendReqFd(F),
    /// Read configuration space; answer with [`Backend::answer_config`].
    GetConfig(ConfigRange),
    /// Write configuration space.
    SetConfig(ConfigRange, Vec<u8>),
    /// Make a log of requests in flight; answer with [`Backend::answer_inflight`].
    GetInflightFd(InflightArea),
    /// Use this log of requests in flight for rings that start from now on.
    SetInflightFd(InflightArea, F),
    /// Stop all rings; forget them, their descriptors and all of the device's state.
    ResetDevice,
    /// The device's status byte is now this. 0 comes as [`Event::ResetDevice`].
    SetStatus(u8),
    /// Move the device's state; answer with [`Backend::answer_device_state`].
    SetDeviceState(DeviceState, F),
    /// Whether moving it went well; answer with [`Backend::answer_check`].
    CheckDeviceState,
}

/// What becomes true when the driver says that an event is done.
#[derive(Debug)]
enum Apply {
    Nothing,
    Features(u64),
    Memory(MemoryTable),
    AddRegion(MemoryRegion),
    RemRegion(MemoryRegion),
    Start(u16),
    Enable(u16, bool),
    Reset,
    Status(u8),
}

/// What the driver owes an answer to.
#[derive(Debug)]
struct Due {
    asked: Asked,
    answer: Answer,
}

#[derive(Debug)]
enum Answer {
    Done(Apply),
    VringBase(u16),
    Config(ConfigRange),
    Inflight,
    DeviceState,
    Check,
}

/// A request under way.
#[derive(Clone, Copy, Debug)]
struct Asked {
    request: u32,
    /// An acknowledgement is wanted.
    ack: bool,
}

/// The back-end's end of a connection. Feed it what comes from the front-end, answer its events.
#[derive(Debug)]
pub struct Backend<F> {
    offer: Offer,
    assembler: Assembler<F>,
    due: Option<Due>,
    failed: bool,
    owned: bool,
    /// Agreed on; `None` before SET_FEATURES.
    features: Option<u64>,
    protocol: u64,
    status: u8,
    memory: MemoryTable,
    vrings: Vec<Vring>,
}

impl<F> Backend<F> {
    /// A machine at the start of a connection.
    ///
    /// # Panics
    /// If the offer is none that a back-end can make.
    pub fn new(offer: Offer) -> Backend<F> {
        assert!((1..=MAX_VRINGS).contains(&offer.queues), "1 to 256 rings");
        assert!((1..=32768).contains(&offer.max_queue_size), "ring size");
        let offer = Offer {
            features: offer.features | feature::PROTOCOL_FEATURES,
            ..offer
        };
        Backend {
            offer,
            assembler: Assembler::new(false),
            due: None,
            failed: false,
            owned: false,
            features: None,
            protocol: 0,
            status: 0,
            memory: MemoryTable::default(),
            vrings: vec![Vring::default(); offer.queues.into()],
        }
    }

    /// How many bytes to receive at once, at most; 0 while an answer is due. See the contract of the
    /// [module](super).
    pub fn wanted(&self) -> usize {
        match self.due.is_some() || self.failed {
            true => 0,
            false => self.assembler.wanted(),
        }
    }

    /// Whether the connection may end here without a message being cut.
    pub fn is_between(&self) -> bool {
        self.assembler.is_between() && self.due.is_none()
    }

    /// Protocol features agreed on.
    pub fn protocol(&self) -> u64 {
        self.protocol
    }

    /// Features agreed on; 0 before they are.
    pub fn features(&self) -> u64 {
        self.features.unwrap_or(0)
    }

    /// The guest's memory, in the order of its addresses.
    pub fn regions(&self) -> &[MemoryRegion] {
        self.memory.regions()
    }

    /// Whether this ring was started and not stopped.
    pub fn is_started(&self, index: u16) -> bool {
        self.vrings
            .get(usize::from(index))
            .is_some_and(|v| v.started)
    }

    /// A ring as it is configured now.
    ///
    /// # Errors
    /// What it lacks.
    pub fn vring(&self, index: u16) -> Result<VringSetup, Refused> {
        let vring = self
            .vrings
            .get(usize::from(index))
            .ok_or(Refused::NoSuchVring)?;
        let features = self.features.ok_or(Refused::NotConfigured)?;
        if !self.owned || self.offer.required & !features != 0 {
            return Err(Refused::NotConfigured);
        }
        vring.setup(
            index,
            &Shared {
                memory: &self.memory,
                features,
                protocol: self.protocol,
            },
        )
    }

    /// Takes bytes from the front-end, with the descriptors that came with the first of them, and
    /// adds replies to `out`. Returns how many bytes were consumed, and an event if one stopped it.
    /// Without an event all were consumed, except while an answer is due, when none are.
    ///
    /// # Errors
    /// A [`Violation`], after which the machine consumes nothing. What is in `out` may be sent.
    pub fn input(
        &mut self,
        bytes: &[u8],
        fds: impl IntoIterator<Item = F>,
        out: &mut Vec<Outgoing<F>>,
    ) -> Result<(usize, Option<Event<F>>), Violation> {
        let mut rest = bytes;
        let mut fds = Some(fds);
        while self.wanted() > 0 && !rest.is_empty() {
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

    fn frame(
        &mut self,
        frame: super::Frame<F>,
        out: &mut Vec<Outgoing<F>>,
    ) -> Result<Option<Event<F>>, Violation> {
        let wants = frame.flags & flags::NEED_REPLY != 0;
        let mut asked = Asked {
            request: frame.request,
            ack: wants && self.protocol & protocol::REPLY_ACK != 0,
        };
        let handled = Message::decode(frame).and_then(|message| self.handle(message));
        match handled {
            Ok(Handled::Done) => {
                // SET_PROTOCOL_FEATURES is the first that may be acknowledged.
                asked.ack |= wants && self.protocol & protocol::REPLY_ACK != 0;
                self.acknowledge(asked, out);
                Ok(None)
            }
            Ok(Handled::Reply(reply)) => {
                out.push(reply.encode(known(asked)));
                Ok(None)
            }
            Ok(Handled::Event(event, answer)) => {
                self.due = Some(Due { asked, answer });
                Ok(Some(event))
            }
            Err(why) => self.refuse(asked, why, out).map(|()| None),
        }
    }
}

/// What became of a request.
enum Handled<F> {
    /// It is done, and may be acknowledged.
    Done,
    /// It has this reply.
    Reply(Reply<F>),
    /// The driver has to do it.
    Event(Event<F>, Answer),
}

impl<F> Handled<F> {
    /// The driver does it, and then this holds.
    fn event(event: Event<F>, apply: Apply) -> Handled<F> {
        Handled::Event(event, Answer::Done(apply))
    }
}

/// A request that was understood.
fn known(asked: Asked) -> Request {
    Request::of(asked.request).expect("only known requests are handled")
}
