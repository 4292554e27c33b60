//! The channel on which the back-end asks (spec: Back-end communication): that configuration space
//! has changed, which is how a guest learns of a disk's new size, and signals in-band.
//!
//! [`BackChannel`] is the back-end's end, [`BackRequests`] the front-end's.

use std::collections::VecDeque;

use super::{
    Violation,
    assembler::{Assembler, Frame, Outgoing},
    backend::Refused,
    payload::{Iotlb, ShmemMap, VringArea, VringState},
    proto::{BackRequest, flags},
    wire::{Put, Reader},
};

/// A request of the back-end with its payload and descriptors.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is described by its BackRequest")]
pub enum BackMessage<F> {
    IotlbMsg(Iotlb),
    ConfigChange,
    VringHostNotifier(VringArea, Option<F>),
    VringCall(VringState),
    VringErr(VringState),
    SharedObjectAdd([u8; 16]),
    SharedObjectRemove([u8; 16]),
    SharedObjectLookup([u8; 16]),
    ShmemMap(ShmemMap, F),
    ShmemUnmap(ShmemMap),
}

impl<F> BackMessage<F> {
    /// Which request it is.
    pub fn request(&self) -> BackRequest {
        match self {
            BackMessage::IotlbMsg(_) => BackRequest::IotlbMsg,
            BackMessage::ConfigChange => BackRequest::ConfigChange,
            BackMessage::VringHostNotifier(..) => BackRequest::VringHostNotifier,
            BackMessage::VringCall(_) => BackRequest::VringCall,
            BackMessage::VringErr(_) => BackRequest::VringErr,
            BackMessage::SharedObjectAdd(_) => BackRequest::SharedObjectAdd,
            BackMessage::SharedObjectRemove(_) => BackRequest::SharedObjectRemove,
            BackMessage::SharedObjectLookup(_) => BackRequest::SharedObjectLookup,
            BackMessage::ShmemMap(..) => BackRequest::ShmemMap,
            BackMessage::ShmemUnmap(_) => BackRequest::ShmemUnmap,
        }
    }

    /// The message to send; `need_reply` asks for an acknowledgement, and must not be set unless
    /// REPLY_ACK was agreed on.
    pub fn encode(self, need_reply: bool) -> Outgoing<F> {
        let request = self.request();
        let mut out = Vec::new();
        let mut fds = Vec::new();
        match self {
            BackMessage::ConfigChange => {}
            BackMessage::IotlbMsg(iotlb) => iotlb.put(&mut out),
            BackMessage::VringHostNotifier(area, fd) => {
                area.put(&mut out);
                fds.extend(fd);
            }
            BackMessage::VringCall(state) | BackMessage::VringErr(state) => state.put(&mut out),
            BackMessage::SharedObjectAdd(id)
            | BackMessage::SharedObjectRemove(id)
            | BackMessage::SharedObjectLookup(id) => drop(out.raw(&id)),
            BackMessage::ShmemMap(map, fd) => {
                map.put(&mut out);
                fds.push(fd);
            }
            BackMessage::ShmemUnmap(map) => map.put(&mut out),
        }
        let flags = if need_reply { flags::NEED_REPLY } else { 0 };
        Outgoing::new(request.number(), flags, &out, fds)
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// [`Refused::Unknown`] or [`Refused::Malformed`]. The descriptors are dropped then.
    pub fn decode(frame: Frame<F>) -> Result<BackMessage<F>, Refused> {
        let request = BackRequest::of(frame.request).ok_or(Refused::Unknown)?;
        parse(request, frame).ok_or(Refused::Malformed)
    }
}

fn parse<F>(request: BackRequest, frame: Frame<F>) -> Option<BackMessage<F>> {
    let mut reader = Reader(&frame.payload);
    let mut fds = frame.fds.into_iter();
    let message = match request {
        BackRequest::IotlbMsg => BackMessage::IotlbMsg(Iotlb::read(&mut reader)?),
        BackRequest::ConfigChange => {
            // A payload there means nothing.
            reader.rest();
            BackMessage::ConfigChange
        }
        BackRequest::VringHostNotifier => {
            BackMessage::VringHostNotifier(VringArea::read(&mut reader)?, fds.next())
        }
        BackRequest::VringCall => BackMessage::VringCall(VringState::read(&mut reader)?),
        BackRequest::VringErr => BackMessage::VringErr(VringState::read(&mut reader)?),
        BackRequest::SharedObjectAdd => BackMessage::SharedObjectAdd(reader.take()?),
        BackRequest::SharedObjectRemove => BackMessage::SharedObjectRemove(reader.take()?),
        BackRequest::SharedObjectLookup => BackMessage::SharedObjectLookup(reader.take()?),
        BackRequest::ShmemMap => BackMessage::ShmemMap(ShmemMap::read(&mut reader)?, fds.next()?),
        BackRequest::ShmemUnmap => BackMessage::ShmemUnmap(ShmemMap::read(&mut reader)?),
    };
    let whole = fds.next().is_none();
    reader.end(message).filter(|_| whole)
}

/// The front-end's acknowledgement of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackEvent {
    /// Of which.
    pub request: BackRequest,
    /// An error is the front-end's number.
    pub result: Result<(), u64>,
}

/// The back-end's end.
///
/// With acknowledgements there is one request of each kind under way at most, so that a front-end
/// that does not answer costs no memory: changes of configuration are one change until it does.
#[derive(Debug)]
pub struct BackChannel<F> {
    acks: bool,
    assembler: Assembler<F>,
    expected: VecDeque<BackRequest>,
    /// Configuration has changed again since the front-end was told.
    again: bool,
}

impl<F> BackChannel<F> {
    /// A channel; `acks` if REPLY_ACK was agreed on.
    pub fn new(acks: bool) -> BackChannel<F> {
        BackChannel {
            acks,
            assembler: Assembler::new(true),
            expected: VecDeque::new(),
            again: false,
        }
    }

    /// How many bytes to receive at once, at most. See the contract of the [module](super).
    pub fn wanted(&self) -> usize {
        self.assembler.wanted()
    }

    /// Tells the front-end that configuration space has changed.
    pub fn config_changed(&mut self, out: &mut Vec<Outgoing<F>>) {
        if self.expected.contains(&BackRequest::ConfigChange) {
            self.again = true;
        } else {
            self.ask(BackMessage::ConfigChange, out);
        }
    }

    /// Tells the front-end that requests of a ring are done, where signals are in-band. Never
    /// acknowledged: there may be very many.
    pub fn vring_call(&mut self, index: u16, out: &mut Vec<Outgoing<F>>) {
        let state = VringState {
            index: index.into(),
            num: 0,
        };
        out.push(BackMessage::VringCall(state).encode(false));
    }

    /// Tells the front-end that a ring is broken, where signals are in-band.
    pub fn vring_err(&mut self, index: u16, out: &mut Vec<Outgoing<F>>) {
        let state = VringState {
            index: index.into(),
            num: 0,
        };
        out.push(BackMessage::VringErr(state).encode(false));
    }

    fn ask(&mut self, message: BackMessage<F>, out: &mut Vec<Outgoing<F>>) {
        if self.acks {
            self.expected.push_back(message.request());
        }
        out.push(message.encode(self.acks));
    }

    /// Takes bytes from the front-end, and gives its acknowledgement if one is complete. Returns how
    /// many were consumed.
    ///
    /// # Errors
    /// A [`Violation`]: close the channel.
    pub fn input(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<Outgoing<F>>,
    ) -> Result<(usize, Option<BackEvent>), Violation> {
        let mut rest = bytes;
        let Some(frame) = self.assembler.input(&mut rest, [])? else {
            return Ok((bytes.len(), None));
        };
        let number = frame.request;
        let request = self.expected.pop_front();
        let request = request.filter(|request| request.number() == number);
        let request = request.ok_or(Violation::UnexpectedReply(number))?;
        let mut reader = Reader(&frame.payload);
        let word = reader.u64().and_then(|word| reader.end(word));
        let word = word.ok_or(Violation::MalformedReply(number))?;
        if request == BackRequest::ConfigChange && std::mem::take(&mut self.again) {
            self.ask(BackMessage::ConfigChange, out);
        }
        let result = if word == 0 { Ok(()) } else { Err(word) };
        let event = BackEvent { request, result };
        Ok((bytes.len() - rest.len(), Some(event)))
    }
}

/// The front-end's end.
#[derive(Debug)]
pub struct BackRequests<F> {
    acks: bool,
    assembler: Assembler<F>,
    /// The request to be answered, and whether it wants that.
    due: Option<(u32, bool)>,
}

impl<F> BackRequests<F> {
    /// A channel; `acks` if REPLY_ACK was agreed on.
    pub fn new(acks: bool) -> BackRequests<F> {
        BackRequests {
            acks,
            assembler: Assembler::new(false),
            due: None,
        }
    }

    /// How many bytes to receive at once, at most; 0 while an answer is due. See the contract of the
    /// [module](super).
    pub fn wanted(&self) -> usize {
        match self.due {
            Some(_) => 0,
            None => self.assembler.wanted(),
        }
    }

    /// Takes bytes from the back-end, with the descriptors that came with the first of them; each
    /// request wants [`BackRequests::done`]. Returns how many bytes were consumed. A request that
    /// cannot be understood is answered here, or skipped.
    ///
    /// # Errors
    /// A [`Violation`]: close the channel.
    pub fn input(
        &mut self,
        bytes: &[u8],
        fds: impl IntoIterator<Item = F>,
        out: &mut Vec<Outgoing<F>>,
    ) -> Result<(usize, Option<BackMessage<F>>), Violation> {
        if self.due.is_some() {
            return Ok((0, None));
        }
        let mut rest = bytes;
        let Some(frame) = self.assembler.input(&mut rest, fds)? else {
            return Ok((bytes.len(), None));
        };
        let used = bytes.len() - rest.len();
        let number = frame.request;
        let ack = self.acks && frame.flags & flags::NEED_REPLY != 0;
        match BackMessage::decode(frame) {
            Ok(message) => {
                self.due = Some((number, ack));
                Ok((used, Some(message)))
            }
            Err(_) => {
                if ack {
                    out.push(Outgoing::acknowledgement(number, 1));
                }
                Ok((used, None))
            }
        }
    }

    /// Answers the request.
    ///
    /// # Panics
    /// If none is due.
    pub fn done(&mut self, result: Result<(), Refused>, out: &mut Vec<Outgoing<F>>) {
        let (number, ack) = self.due.take().expect("a request is due");
        if ack {
            out.push(Outgoing::acknowledgement(number, result.is_err().into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All messages, as both ends see them.
    #[test]
    fn messages_round_trip() {
        let state = VringState { index: 3, num: 4 };
        let map = ShmemMap {
            id: 1,
            fd_offset: 2,
            shm_offset: 3,
            len: 4,
            flags: 1,
        };
        let iotlb = Iotlb {
            iova: 1,
            size: 2,
            user_addr: 3,
            permissions: 3,
            kind: 1,
        };
        let area = VringArea {
            word: 7,
            size: 8,
            offset: 9,
        };
        let all = [
            BackMessage::IotlbMsg(iotlb),
            BackMessage::ConfigChange,
            BackMessage::VringHostNotifier(area, Some(5)),
            BackMessage::VringCall(state),
            BackMessage::VringErr(state),
            BackMessage::SharedObjectAdd([1; 16]),
            BackMessage::SharedObjectRemove([2; 16]),
            BackMessage::SharedObjectLookup([3; 16]),
            BackMessage::ShmemMap(map, 9),
            BackMessage::ShmemUnmap(map),
        ];
        assert_eq!(all.len(), BackRequest::ALL.len());
        for (message, request) in all.into_iter().zip(BackRequest::ALL) {
            let sent = message.clone().encode(true);
            let mut front = BackRequests::new(true);
            let mut out = Vec::new();
            let mut got = None;
            let mut fds = sent.fds;
            for byte in sent.bytes.chunks(1) {
                got = front.input(byte, fds.drain(..), &mut out).unwrap().1;
            }
            assert_eq!(
                (got.as_ref(), message.request()),
                (Some(&message), *request)
            );
            assert_eq!((front.wanted(), out.len()), (0, 0));
            front.done(Ok(()), &mut out);
            assert_eq!(out, [Outgoing::acknowledgement(request.number(), 0)]);
        }
    }

    #[test]
    fn changes_are_one_until_the_front_end_answers() {
        let mut back = BackChannel::<u32>::new(true);
        let mut out = Vec::new();
        (0..1000).for_each(|_| back.config_changed(&mut out));
        assert_eq!(out.len(), 1);
        let answer = Outgoing::<u32>::acknowledgement(2, 0);
        let (n, event) = back.input(&answer.bytes, &mut out).unwrap();
        let acknowledged = BackEvent {
            request: BackRequest::ConfigChange,
            result: Ok(()),
        };
        assert_eq!((n, event), (answer.bytes.len(), Some(acknowledged)));
        assert_eq!(out.len(), 2, "and once more for those that came meanwhile");
        back.input(&answer.bytes, &mut out).unwrap();
        assert_eq!(out.len(), 2);
        let unexpected = back.input(&answer.bytes, &mut out);
        assert_eq!(unexpected, Err(Violation::UnexpectedReply(2)));
        let mut silent = BackChannel::<u32>::new(false);
        out.clear();
        silent.config_changed(&mut out);
        silent.config_changed(&mut out);
        assert_eq!(out.len(), 2, "nobody answers, nobody waits");
    }

    #[test]
    fn what_is_not_understood_is_answered_if_asked_for() {
        let mut front = BackRequests::<u32>::new(true);
        let mut out = Vec::new();
        let unknown = Outgoing::<u32>::new(77, flags::NEED_REPLY, &[1, 2], vec![]);
        let (n, none) = front.input(&unknown.bytes, [4], &mut out).unwrap();
        assert_eq!((n, none), (14, None));
        assert_eq!(out, [Outgoing::acknowledgement(77, 1)]);
        let short = Outgoing::<u32>::new(4, 0, &[1, 2], vec![]);
        assert_eq!(front.input(&short.bytes, [], &mut out).unwrap().1, None);
        assert_eq!(out.len(), 1);
    }
}
