//! The requests, one by one: what is checked, what is kept, what becomes an event.

use super::{Answer, Apply, Backend, Event, Handled, Refused};
use crate::vhost_user::{
    memory_table::MemoryTable,
    message::Message,
    payload::{InflightArea, MemoryRegion, VringAddress, VringFd, VringState},
    proto::{feature, protocol},
    reply::Reply,
    vring::Vring,
};

impl<F> Backend<F> {
    pub(super) fn handle(&mut self, message: Message<F>) -> Result<Handled<F>, Refused> {
        match message {
            Message::GetFeatures => Ok(number(self.offer.features)),
            Message::SetFeatures(features) => self.set_features(features),
            Message::GetProtocolFeatures => Ok(number(self.offer.protocol)),
            Message::SetProtocolFeatures(set) => self.set_protocol(set),
            Message::SetOwner => {
                self.owned = true;
                Ok(Handled::Done)
            }
            // Of old, and ignored by everybody (spec: RESET_OWNER).
            Message::ResetOwner => Ok(Handled::Done),
            Message::GetQueueNum => {
                self.agreed(protocol::MQ)?;
                Ok(number(self.offer.queues.into()))
            }
            Message::SetMemTable(table) => self.set_memory(table),
            Message::GetMaxMemSlots => {
                self.agreed(protocol::CONFIGURE_MEM_SLOTS)?;
                Ok(number(self.offer.memory_slots.into()))
            }
            Message::AddMemReg(region, fd) => self.add_region(region, fd),
            Message::RemMemReg(region) => self.rem_region(region),
            Message::SetVringNum(state) => self.set_size(state),
            Message::SetVringAddr(address) => self.set_address(address),
            Message::SetVringBase(state) => {
                self.stopped(state.index)?.base = state.num;
                Ok(Handled::Done)
            }
            Message::GetVringBase(state) => self.stop(state.index),
            Message::SetVringKick(kick) => self.start(kick),
            Message::SetVringCall(call) => {
                self.exists(call.index.into())?;
                Ok(Handled::event(Event::SetVringCall(call), Apply::Nothing))
            }
            Message::SetVringErr(err) => {
                self.exists(err.index.into())?;
                Ok(Handled::event(Event::SetVringErr(err), Apply::Nothing))
            }
            Message::SetVringEnable(state) => self.enable(state),
            Message::VringKick(state) => self.kick(state),
            other => self.handle_rest(other),
        }
    }

    /// What is not about memory and rings.
    fn handle_rest(&mut self, message: Message<F>) -> Result<Handled<F>, Refused> {
        let (event, answer) = match message {
            Message::GetStatus => {
                self.agreed(protocol::STATUS)?;
                return Ok(number(self.status.into()));
            }
            Message::SetStatus(status) => {
                self.agreed(protocol::STATUS)?;
                match u8::try_from(status).map_err(|_| Refused::Malformed)? {
                    0 => (Event::ResetDevice, Answer::Done(Apply::Reset)),
                    status => (
                        Event::SetStatus(status),
                        Answer::Done(Apply::Status(status)),
                    ),
                }
            }
            Message::ResetDevice => {
                self.agreed(protocol::RESET_DEVICE)?;
                (Event::ResetDevice, Answer::Done(Apply::Reset))
            }
            Message::GetConfig(range) => {
                self.agreed(protocol::CONFIG)?;
                (Event::GetConfig(range), Answer::Config(range))
            }
            Message::SetConfig(range, bytes) => {
                self.agreed(protocol::CONFIG)?;
                let event = Event::SetConfig(range, bytes);
                (event, Answer::Done(Apply::Nothing))
            }
            Message::GetInflightFd(area) => {
                self.check_inflight(&area)?;
                (Event::GetInflightFd(area), Answer::Inflight)
            }
            Message::SetInflightFd(area, fd) => {
                self.check_inflight(&area)?;
                if area.mmap_size == 0 || area.mmap_offset.checked_add(area.mmap_size).is_none() {
                    return Err(Refused::Malformed);
                }
                let event = Event::SetInflightFd(area, fd);
                (event, Answer::Done(Apply::Nothing))
            }
            Message::SetLogBase(area, fd) => {
                self.agreed(protocol::LOG_SHMFD)?;
                if area.offset.checked_add(area.size).is_none() {
                    return Err(Refused::Malformed);
                }
                (Event::SetLogBase(area, fd), Answer::Done(Apply::Nothing))
            }
            Message::SetLogFd(fd) => (Event::SetLogFd(fd), Answer::Done(Apply::Nothing)),
            Message::SetBackendReqFd(fd) => {
                self.agreed(protocol::BACKEND_REQ)?;
                (Event::SetBackendReqFd(fd), Answer::Done(Apply::Nothing))
            }
            Message::SetDeviceStateFd(state, fd) => {
                self.agreed(protocol::DEVICE_STATE)?;
                // All that is defined (spec: Migrating back-end state).
                if state.direction > 1 || state.phase != 0 {
                    return Err(Refused::Unsupported);
                }
                (Event::SetDeviceState(state, fd), Answer::DeviceState)
            }
            Message::CheckDeviceState => {
                self.agreed(protocol::DEVICE_STATE)?;
                (Event::CheckDeviceState, Answer::Check)
            }
            // Networks, graphics, cryptography, post-copy, translated addresses, shared objects.
            _ => return Err(Refused::Unsupported),
        };
        Ok(Handled::Event(event, answer))
    }

    fn agreed(&self, bit: u64) -> Result<(), Refused> {
        match self.protocol & bit != 0 {
            true => Ok(()),
            false => Err(Refused::NotNegotiated),
        }
    }

    fn runs(&self) -> bool {
        self.vrings.iter().any(|vring| vring.started)
    }

    fn set_features(&mut self, features: u64) -> Result<Handled<F>, Refused> {
        let changed = self.features() ^ features;
        let fixed = self.runs() && changed & !feature::LOG_ALL != 0;
        if features & !self.offer.features != 0 || fixed {
            return Err(Refused::BadFeatures);
        }
        let event = Event::SetFeatures(features);
        Ok(Handled::event(event, Apply::Features(features)))
    }

    pub(super) fn take_features(&mut self, features: u64) {
        self.features = Some(features);
        // Who knows no SET_VRING_ENABLE has its rings enabled (spec: Ring states).
        if features & feature::PROTOCOL_FEATURES == 0 {
            self.vrings
                .iter_mut()
                .for_each(|vring| vring.enabled = true);
        }
    }

    fn set_protocol(&mut self, set: u64) -> Result<Handled<F>, Refused> {
        let lonely =
            set & protocol::GET_VRING_BASE_INFLIGHT != 0 && set & protocol::INFLIGHT_SHMFD == 0;
        if set & !self.offer.protocol != 0 || lonely || (self.runs() && set != self.protocol) {
            return Err(Refused::BadFeatures);
        }
        self.protocol = set;
        Ok(Handled::Done)
    }

    fn set_memory(&mut self, regions: Vec<(MemoryRegion, F)>) -> Result<Handled<F>, Refused> {
        if regions.len() > usize::from(self.offer.memory_slots) {
            return Err(Refused::NoSlot);
        }
        let table = MemoryTable::of(regions.iter().map(|(region, _)| *region))?;
        let event = Event::SetMemTable(regions);
        Ok(Handled::event(event, Apply::Memory(table)))
    }

    fn add_region(&mut self, region: MemoryRegion, fd: F) -> Result<Handled<F>, Refused> {
        self.agreed(protocol::CONFIGURE_MEM_SLOTS)?;
        if self.memory.len() >= usize::from(self.offer.memory_slots) {
            return Err(Refused::NoSlot);
        }
        self.memory.check(&region)?;
        let event = Event::AddMemRegion(region, fd);
        Ok(Handled::event(event, Apply::AddRegion(region)))
    }

    fn rem_region(&mut self, asked: MemoryRegion) -> Result<Handled<F>, Refused> {
        self.agreed(protocol::CONFIGURE_MEM_SLOTS)?;
        let region = self.memory.find(&asked).ok_or(Refused::NoSuchRegion)?;
        let event = Event::RemMemRegion(region);
        Ok(Handled::event(event, Apply::RemRegion(region)))
    }

    /// The number of a ring that there is.
    fn exists(&self, index: u32) -> Result<u16, Refused> {
        match u16::try_from(index) {
            Ok(index) if index < self.offer.queues => Ok(index),
            _ => Err(Refused::NoSuchVring),
        }
    }

    fn stopped(&mut self, index: u32) -> Result<&mut Vring, Refused> {
        let index = self.exists(index)?;
        let vring = &mut self.vrings[usize::from(index)];
        match vring.started {
            true => Err(Refused::Running),
            false => Ok(vring),
        }
    }

    fn set_size(&mut self, state: VringState) -> Result<Handled<F>, Refused> {
        let most = self.offer.max_queue_size;
        let vring = self.stopped(state.index)?;
        match u16::try_from(state.num) {
            Ok(size) if (1..=most).contains(&size) => vring.size = size,
            _ => return Err(Refused::BadVring),
        }
        Ok(Handled::Done)
    }

    /// While a ring runs, this turns its part of the dirty log on and off.
    fn set_address(&mut self, address: VringAddress) -> Result<Handled<F>, Refused> {
        let index = self.exists(address.index)?;
        if address.flags & !VringAddress::LOG != 0 {
            return Err(Refused::Malformed);
        }
        let place = usize::from(index);
        let before = self.vrings[place].address.replace(address);
        if !self.vrings[place].started {
            return Ok(Handled::Done);
        }
        match self.vring(index) {
            Ok(setup) => Ok(Handled::event(Event::MoveVring(setup), Apply::Nothing)),
            Err(why) => {
                self.vrings[place].address = before;
                Err(why)
            }
        }
    }

    fn start(&mut self, kick: VringFd<F>) -> Result<Handled<F>, Refused> {
        let index = self.exists(kick.index.into())?;
        if self.vrings[usize::from(index)].started {
            return Ok(Handled::event(Event::ReplaceKick(kick), Apply::Nothing));
        }
        let setup = self.vring(index)?;
        let event = Event::StartVring(setup, kick.fd);
        Ok(Handled::event(event, Apply::Start(index)))
    }

    fn stop(&mut self, index: u32) -> Result<Handled<F>, Refused> {
        let index = self.exists(index)?;
        let vring = &self.vrings[usize::from(index)];
        if !vring.started {
            let state = VringState {
                index: index.into(),
                num: vring.base,
            };
            return Ok(Handled::Reply(Reply::VringState(state)));
        }
        let keep_inflight = self.protocol & protocol::GET_VRING_BASE_INFLIGHT != 0;
        let event = Event::StopVring {
            index,
            keep_inflight,
        };
        Ok(Handled::Event(event, Answer::VringBase(index)))
    }

    fn enable(&mut self, state: VringState) -> Result<Handled<F>, Refused> {
        // Wanted of the front-end is that it took PROTOCOL_FEATURES; old ones forget to say so, and
        // what they mean is clear.
        let index = self.exists(state.index)?;
        let enabled = match state.num {
            0 => false,
            1 => true,
            _ => return Err(Refused::Malformed),
        };
        let event = Event::SetVringEnable { index, enabled };
        Ok(Handled::event(event, Apply::Enable(index, enabled)))
    }

    fn kick(&mut self, state: VringState) -> Result<Handled<F>, Refused> {
        self.agreed(protocol::INBAND_NOTIFICATIONS)?;
        let index = self.exists(state.index)?;
        if !self.vrings[usize::from(index)].started {
            return Err(Refused::NotConfigured);
        }
        Ok(Handled::event(Event::VringKick(index), Apply::Nothing))
    }

    fn check_inflight(&self, area: &InflightArea) -> Result<(), Refused> {
        self.agreed(protocol::INFLIGHT_SHMFD)?;
        let queues = (1..=self.offer.queues).contains(&area.queues);
        let size = (1..=self.offer.max_queue_size).contains(&area.queue_size);
        match queues && size {
            true => Ok(()),
            false => Err(Refused::Malformed),
        }
    }

    /// What RESET_DEVICE leaves: the owner, the features and the memory.
    pub(super) fn reset(&mut self) {
        self.status = 0;
        self.vrings.fill(Vring::default());
        if let Some(features) = self.features {
            self.take_features(features);
        }
    }
}

fn number<F>(number: u64) -> Handled<F> {
    Handled::Reply(Reply::U64(number))
}
