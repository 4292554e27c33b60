//! What a front-end may say, typed.

use super::{
    assembler::{Frame, Outgoing},
    backend::Refused,
    payload::{
        ConfigRange, DeviceState, InflightArea, Iotlb, LogArea, MemoryRegion, VringAddress,
        VringFd, VringState,
    },
    proto::{MAX_CONFIG, MAX_TABLE_REGIONS, Request},
    reply::ReplyKind,
    wire::{Put, Reader},
};

/// A request of the front-end with its payload and descriptors.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is described by its Request")]
pub enum Message<F> {
    GetFeatures,
    SetFeatures(u64),
    SetOwner,
    ResetOwner,
    SetMemTable(Vec<(MemoryRegion, F)>),
    SetLogBase(LogArea, F),
    SetLogFd(F),
    SetVringNum(VringState),
    SetVringAddr(VringAddress),
    SetVringBase(VringState),
    GetVringBase(VringState),
    SetVringKick(VringFd<F>),
    SetVringCall(VringFd<F>),
    SetVringErr(VringFd<F>),
    GetProtocolFeatures,
    SetProtocolFeatures(u64),
    GetQueueNum,
    SetVringEnable(VringState),
    SendRarp(u64),
    NetSetMtu(u64),
    SetBackendReqFd(F),
    IotlbMsg(Iotlb),
    SetVringEndian(VringState),
    /// What comes behind the range is room for the answer, and means nothing.
    GetConfig(ConfigRange),
    SetConfig(ConfigRange, Vec<u8>),
    /// The parameters as they are.
    CreateCryptoSession(Vec<u8>),
    CloseCryptoSession(u64),
    PostcopyAdvise,
    PostcopyListen,
    PostcopyEnd,
    GetInflightFd(InflightArea),
    SetInflightFd(InflightArea, F),
    GpuSetSocket(F),
    ResetDevice,
    VringKick(VringState),
    GetMaxMemSlots,
    AddMemReg(MemoryRegion, F),
    RemMemReg(MemoryRegion),
    SetStatus(u64),
    GetStatus,
    GetSharedObject([u8; 16]),
    SetDeviceStateFd(DeviceState, F),
    CheckDeviceState,
    GetShmemConfig,
}

impl<F> Message<F> {
    /// Which request it is.
    pub fn request(&self) -> Request {
        match self {
            Message::GetFeatures => Request::GetFeatures,
            Message::SetFeatures(_) => Request::SetFeatures,
            Message::SetOwner => Request::SetOwner,
            Message::ResetOwner => Request::ResetOwner,
            Message::SetMemTable(_) => Request::SetMemTable,
            Message::SetLogBase(..) => Request::SetLogBase,
            Message::SetLogFd(_) => Request::SetLogFd,
            Message::SetVringNum(_) => Request::SetVringNum,
            Message::SetVringAddr(_) => Request::SetVringAddr,
            Message::SetVringBase(_) => Request::SetVringBase,
            Message::GetVringBase(_) => Request::GetVringBase,
            Message::SetVringKick(_) => Request::SetVringKick,
            Message::SetVringCall(_) => Request::SetVringCall,
            Message::SetVringErr(_) => Request::SetVringErr,
            Message::GetProtocolFeatures => Request::GetProtocolFeatures,
            Message::SetProtocolFeatures(_) => Request::SetProtocolFeatures,
            Message::GetQueueNum => Request::GetQueueNum,
            Message::SetVringEnable(_) => Request::SetVringEnable,
            Message::SendRarp(_) => Request::SendRarp,
            Message::NetSetMtu(_) => Request::NetSetMtu,
            Message::SetBackendReqFd(_) => Request::SetBackendReqFd,
            Message::IotlbMsg(_) => Request::IotlbMsg,
            Message::SetVringEndian(_) => Request::SetVringEndian,
            _ => self.late_request(),
        }
    }

    /// The younger half of the table.
    fn late_request(&self) -> Request {
        match self {
            Message::GetConfig(_) => Request::GetConfig,
            Message::SetConfig(..) => Request::SetConfig,
            Message::CreateCryptoSession(_) => Request::CreateCryptoSession,
            Message::CloseCryptoSession(_) => Request::CloseCryptoSession,
            Message::PostcopyAdvise => Request::PostcopyAdvise,
            Message::PostcopyListen => Request::PostcopyListen,
            Message::PostcopyEnd => Request::PostcopyEnd,
            Message::GetInflightFd(_) => Request::GetInflightFd,
            Message::SetInflightFd(..) => Request::SetInflightFd,
            Message::GpuSetSocket(_) => Request::GpuSetSocket,
            Message::ResetDevice => Request::ResetDevice,
            Message::VringKick(_) => Request::VringKick,
            Message::GetMaxMemSlots => Request::GetMaxMemSlots,
            Message::AddMemReg(..) => Request::AddMemReg,
            Message::RemMemReg(_) => Request::RemMemReg,
            Message::SetStatus(_) => Request::SetStatus,
            Message::GetStatus => Request::GetStatus,
            Message::GetSharedObject(_) => Request::GetSharedObject,
            Message::SetDeviceStateFd(..) => Request::SetDeviceStateFd,
            Message::CheckDeviceState => Request::CheckDeviceState,
            Message::GetShmemConfig => Request::GetShmemConfig,
            _ => unreachable!("the older half is in the other table"),
        }
    }

    /// The message to send; `need_reply` asks for an acknowledgement, and must not be set unless
    /// REPLY_ACK was agreed on.
    ///
    /// # Panics
    /// If there are more regions, or bytes of configuration, than one message takes.
    pub fn encode(self, need_reply: bool) -> Outgoing<F> {
        let request = self.request();
        let (payload, fds) = self.parts();
        let flags = match need_reply {
            true => super::proto::flags::NEED_REPLY,
            false => 0,
        };
        Outgoing::new(request.number(), flags, &payload, fds)
    }

    /// Payload and descriptors.
    fn parts(self) -> (Vec<u8>, Vec<F>) {
        let mut out = Vec::new();
        let mut fds = Vec::new();
        match self {
            Message::SetFeatures(word)
            | Message::SetProtocolFeatures(word)
            | Message::SendRarp(word)
            | Message::NetSetMtu(word)
            | Message::CloseCryptoSession(word)
            | Message::SetStatus(word) => drop(out.u64(word)),
            Message::SetVringNum(state)
            | Message::SetVringBase(state)
            | Message::GetVringBase(state)
            | Message::SetVringEnable(state)
            | Message::SetVringEndian(state)
            | Message::VringKick(state) => state.put(&mut out),
            Message::SetVringKick(ring)
            | Message::SetVringCall(ring)
            | Message::SetVringErr(ring) => {
                out.u64(ring.word());
                fds.extend(ring.fd);
            }
            Message::SetLogFd(fd) | Message::SetBackendReqFd(fd) | Message::GpuSetSocket(fd) => {
                fds.push(fd);
            }
            Message::SetMemTable(table) => {
                assert!(table.len() <= MAX_TABLE_REGIONS, "a table has 8 regions");
                out.u32(table.len() as u32).u32(0);
                for (region, fd) in table {
                    region.put(&mut out);
                    fds.push(fd);
                }
            }
            Message::SetLogBase(area, fd) => {
                area.put(&mut out);
                fds.push(fd);
            }
            Message::SetVringAddr(address) => address.put(&mut out),
            Message::IotlbMsg(iotlb) => iotlb.put(&mut out),
            other => other.late_parts(&mut out, &mut fds),
        }
        (out, fds)
    }

    /// The younger half again.
    fn late_parts(self, out: &mut Vec<u8>, fds: &mut Vec<F>) {
        match self {
            Message::GetConfig(range) => {
                assert!(range.size as usize <= MAX_CONFIG, "too much at once");
                range.put(out);
                out.resize(out.len() + range.size as usize, 0);
            }
            Message::SetConfig(range, bytes) => {
                assert!(bytes.len() <= MAX_CONFIG, "too much at once");
                range.put(out);
                out.raw(&bytes);
            }
            Message::CreateCryptoSession(bytes) => drop(out.raw(&bytes)),
            Message::GetInflightFd(area) => area.put(out),
            Message::SetInflightFd(area, fd) => {
                area.put(out);
                fds.push(fd);
            }
            Message::AddMemReg(region, fd) => {
                region.put(out.u64(0));
                fds.push(fd);
            }
            Message::RemMemReg(region) => region.put(out.u64(0)),
            Message::GetSharedObject(id) => drop(out.raw(&id)),
            Message::SetDeviceStateFd(state, fd) => {
                out.u32(state.direction).u32(state.phase);
                fds.push(fd);
            }
            // The others are nothing but their number.
            _ => {}
        }
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// [`Refused::Unknown`], or [`Refused::Malformed`] if the payload or the number of descriptors
    /// is not what this request has. The descriptors are dropped then.
    pub fn decode(frame: Frame<F>) -> Result<Message<F>, Refused> {
        let request = Request::of(frame.request).ok_or(Refused::Unknown)?;
        parse(request, frame).ok_or(Refused::Malformed)
    }
}

impl Request {
    /// The reply that this request has of its own, acknowledged or not.
    pub const fn reply(self) -> Option<ReplyKind> {
        Some(match self {
            Request::GetFeatures
            | Request::GetProtocolFeatures
            | Request::GetQueueNum
            | Request::SetLogBase
            | Request::GetMaxMemSlots
            | Request::GetStatus
            | Request::CheckDeviceState
            // An acknowledgement, asked for or not.
            | Request::PostcopyEnd => ReplyKind::U64,
            Request::GetVringBase => ReplyKind::VringState,
            Request::GetConfig => ReplyKind::Config,
            Request::GetInflightFd => ReplyKind::Inflight,
            Request::SetDeviceStateFd => ReplyKind::U64WithFd,
            Request::PostcopyAdvise | Request::GetSharedObject => ReplyKind::Fd,
            Request::CreateCryptoSession | Request::GetShmemConfig => ReplyKind::Bytes,
            _ => return None,
        })
    }
}

/// The only descriptor of a message.
fn one<F>(fds: Vec<F>) -> Option<F> {
    let mut fds = fds.into_iter();
    match (fds.next(), fds.next()) {
        (Some(fd), None) => Some(fd),
        _ => None,
    }
}

fn none<F, T>(fds: &[F], value: T) -> Option<T> {
    fds.is_empty().then_some(value)
}

fn word(payload: &[u8]) -> Option<u64> {
    let mut reader = Reader(payload);
    let word = reader.u64()?;
    reader.end(word)
}

fn state(payload: &[u8]) -> Option<VringState> {
    let mut reader = Reader(payload);
    let state = VringState::read(&mut reader)?;
    reader.end(state)
}

fn vring_fd<F>(payload: &[u8], fds: Vec<F>) -> Option<VringFd<F>> {
    let word = word(payload)?;
    let fd = match word & VringFd::<F>::NO_FD {
        0 => Some(one(fds)?),
        _ => none(&fds, None)?,
    };
    Some(VringFd {
        index: word as u8,
        fd,
    })
}

fn table<F>(payload: &[u8], fds: Vec<F>) -> Option<Vec<(MemoryRegion, F)>> {
    let mut reader = Reader(payload);
    let count = reader.u32()? as usize;
    reader.u32()?;
    if count > MAX_TABLE_REGIONS || count != fds.len() {
        return None;
    }
    // The whole structure, with room for 8, is understood too.
    let len = |regions: usize| regions * MemoryRegion::LEN;
    if ![len(count), len(MAX_TABLE_REGIONS)].contains(&reader.0.len()) {
        return None;
    }
    let with = |fd| Some((MemoryRegion::read(&mut reader)?, fd));
    fds.into_iter().map(with).collect()
}

fn parse<F>(request: Request, frame: Frame<F>) -> Option<Message<F>> {
    let Frame { payload, fds, .. } = frame;
    let payload = &payload[..];
    let mut reader = Reader(payload);
    let message = match request {
        Request::SetMemTable => Message::SetMemTable(table(payload, fds)?),
        Request::SetVringKick => Message::SetVringKick(vring_fd(payload, fds)?),
        Request::SetVringCall => Message::SetVringCall(vring_fd(payload, fds)?),
        Request::SetVringErr => Message::SetVringErr(vring_fd(payload, fds)?),
        // What these carry beside their descriptor, if anything, means nothing.
        Request::SetLogFd => Message::SetLogFd(one(fds)?),
        Request::SetBackendReqFd => Message::SetBackendReqFd(one(fds)?),
        Request::GpuSetSocket => Message::GpuSetSocket(one(fds)?),
        Request::SetLogBase => {
            let area = LogArea::read(&mut reader)?;
            Message::SetLogBase(reader.end(area)?, one(fds)?)
        }
        Request::SetInflightFd => {
            let area = InflightArea::read(&mut reader)?;
            Message::SetInflightFd(area, one(fds)?)
        }
        Request::AddMemReg => {
            reader.u64()?;
            let region = MemoryRegion::read(&mut reader)?;
            Message::AddMemReg(reader.end(region)?, one(fds)?)
        }
        Request::RemMemReg => {
            reader.u64()?;
            let region = MemoryRegion::read(&mut reader)?;
            // Old front-ends send its descriptor along, and the back-end closes it.
            (fds.len() <= 1).then_some(())?;
            Message::RemMemReg(reader.end(region)?)
        }
        Request::SetDeviceStateFd => {
            let (direction, phase) = (reader.u32()?, reader.u32()?);
            let state = DeviceState { direction, phase };
            Message::SetDeviceStateFd(reader.end(state)?, one(fds)?)
        }
        _ => return none(&fds, parse_plain(request, payload)?),
    };
    Some(message)
}

/// Messages without descriptors.
fn parse_plain<F>(request: Request, payload: &[u8]) -> Option<Message<F>> {
    let mut reader = Reader(payload);
    let message = match request {
        Request::SetFeatures => Message::SetFeatures(word(payload)?),
        Request::SetProtocolFeatures => Message::SetProtocolFeatures(word(payload)?),
        Request::SendRarp => Message::SendRarp(word(payload)?),
        Request::NetSetMtu => Message::NetSetMtu(word(payload)?),
        Request::CloseCryptoSession => Message::CloseCryptoSession(word(payload)?),
        Request::SetStatus => Message::SetStatus(word(payload)?),
        Request::SetVringNum => Message::SetVringNum(state(payload)?),
        Request::SetVringBase => Message::SetVringBase(state(payload)?),
        Request::GetVringBase => Message::GetVringBase(state(payload)?),
        Request::SetVringEnable => Message::SetVringEnable(state(payload)?),
        Request::SetVringEndian => Message::SetVringEndian(state(payload)?),
        Request::VringKick => Message::VringKick(state(payload)?),
        Request::SetVringAddr => {
            let address = VringAddress::read(&mut reader)?;
            Message::SetVringAddr(reader.end(address)?)
        }
        Request::IotlbMsg => Message::IotlbMsg(Iotlb::read(&mut reader)?),
        Request::GetInflightFd => Message::GetInflightFd(InflightArea::read(&mut reader)?),
        Request::GetSharedObject => {
            let id = reader.take()?;
            Message::GetSharedObject(reader.end(id)?)
        }
        Request::GetConfig => {
            let range = ConfigRange::read(&mut reader)?;
            (range.size as usize <= MAX_CONFIG).then_some(())?;
            matches!(reader.0.len(), n if n == 0 || n == range.size as usize).then_some(())?;
            Message::GetConfig(range)
        }
        Request::SetConfig => {
            let range = ConfigRange::read(&mut reader)?;
            let bytes = reader.rest();
            (bytes.len() <= MAX_CONFIG && bytes.len() == range.size as usize).then_some(())?;
            Message::SetConfig(range, bytes.to_vec())
        }
        Request::CreateCryptoSession => Message::CreateCryptoSession(payload.to_vec()),
        _ => return parse_bare(request),
    };
    Some(message)
}

/// Messages that are nothing but their number. A payload there means nothing.
fn parse_bare<F>(request: Request) -> Option<Message<F>> {
    Some(match request {
        Request::GetFeatures => Message::GetFeatures,
        Request::SetOwner => Message::SetOwner,
        Request::ResetOwner => Message::ResetOwner,
        Request::GetProtocolFeatures => Message::GetProtocolFeatures,
        Request::GetQueueNum => Message::GetQueueNum,
        Request::PostcopyAdvise => Message::PostcopyAdvise,
        Request::PostcopyListen => Message::PostcopyListen,
        Request::PostcopyEnd => Message::PostcopyEnd,
        Request::ResetDevice => Message::ResetDevice,
        Request::GetMaxMemSlots => Message::GetMaxMemSlots,
        Request::GetStatus => Message::GetStatus,
        Request::CheckDeviceState => Message::CheckDeviceState,
        Request::GetShmemConfig => Message::GetShmemConfig,
        _ => return None,
    })
}
