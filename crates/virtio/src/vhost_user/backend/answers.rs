//! The driver's answers, and what the front-end is told.

use super::{Answer, Apply, Asked, Backend, Due, Refused, known};
use crate::vhost_user::{
    Violation,
    assembler::Outgoing,
    payload::{InflightArea, VringState},
    proto::Request,
    reply::{Reply, ReplyKind},
};

impl<F> Backend<F> {
    /// Answers an [`Event`](super::Event) that has no other answer.
    ///
    /// # Errors
    /// [`Violation::Untold`] if it failed and there is no reply to tell it: close the connection.
    ///
    /// # Panics
    /// If no such answer is due.
    pub fn done(
        &mut self,
        result: Result<(), Refused>,
        out: &mut Vec<Outgoing<F>>,
    ) -> Result<(), Violation> {
        let Some(Due {
            asked,
            answer: Answer::Done(apply),
        }) = self.due.take()
        else {
            panic!("no such answer is due")
        };
        match result {
            Ok(()) => {
                self.apply(apply);
                match Request::of(asked.request) {
                    Some(request @ Request::SetLogBase) => {
                        out.push(Reply::U64(0).encode(request));
                    }
                    _ => self.acknowledge(asked, out),
                }
                Ok(())
            }
            Err(why) => self.refuse(asked, why, out),
        }
    }

    /// Answers [`Event::StopVring`](super::Event::StopVring): the ring is stopped and would go on
    /// here.
    ///
    /// # Panics
    /// If no such answer is due.
    pub fn answer_vring_base(&mut self, base: u32, out: &mut Vec<Outgoing<F>>) {
        let due = self.due.take();
        let Some(Due {
            asked,
            answer: Answer::VringBase(index),
        }) = due
        else {
            panic!("no ring is to be stopped")
        };
        let vring = &mut self.vrings[usize::from(index)];
        vring.started = false;
        vring.base = base;
        let state = VringState {
            index: index.into(),
            num: base,
        };
        out.push(Reply::VringState(state).encode(known(asked)));
    }

    /// Answers [`Event::GetConfig`](super::Event::GetConfig); `None` if the range cannot be had.
    ///
    /// # Panics
    /// If no such answer is due, or there are more or less bytes than asked for.
    pub fn answer_config(&mut self, bytes: Option<&[u8]>, out: &mut Vec<Outgoing<F>>) {
        let due = self.due.take();
        let Some(Due {
            asked,
            answer: Answer::Config(range),
        }) = due
        else {
            panic!("no configuration is due")
        };
        let fits = |bytes: &[u8]| bytes.len() == range.size as usize;
        assert!(bytes.is_none_or(fits), "exactly the range asked for");
        let reply = Reply::Config(bytes.map(|bytes| (range, bytes.to_vec())));
        out.push(reply.encode(known(asked)));
    }

    /// Answers [`Event::GetInflightFd`](super::Event::GetInflightFd); `None` if there is no log.
    ///
    /// # Panics
    /// If no such answer is due.
    pub fn answer_inflight(&mut self, log: Option<(InflightArea, F)>, out: &mut Vec<Outgoing<F>>) {
        let due = self.due.take();
        let Some(Due {
            asked,
            answer: Answer::Inflight,
        }) = due
        else {
            panic!("no log of requests in flight is due")
        };
        out.push(inflight(log).encode(known(asked)));
    }

    /// Answers [`Event::SetDeviceState`](super::Event::SetDeviceState): a descriptor of ours if it is
    /// to be used instead of the one that was given.
    ///
    /// # Panics
    /// If no such answer is due.
    pub fn answer_device_state(
        &mut self,
        result: Result<Option<F>, Refused>,
        out: &mut Vec<Outgoing<F>>,
    ) {
        let due = self.due.take();
        let Some(Due {
            asked,
            answer: Answer::DeviceState,
        }) = due
        else {
            panic!("no device state is due")
        };
        let reply = match result {
            Ok(fd) => Reply::U64WithFd(0, fd),
            Err(_) => Reply::U64WithFd(1, None),
        };
        out.push(reply.encode(known(asked)));
    }

    /// Answers [`Event::CheckDeviceState`](super::Event::CheckDeviceState).
    ///
    /// # Panics
    /// If no such answer is due.
    pub fn answer_check(&mut self, result: Result<(), Refused>, out: &mut Vec<Outgoing<F>>) {
        let due = self.due.take();
        let Some(Due {
            asked,
            answer: Answer::Check,
        }) = due
        else {
            panic!("no check is due")
        };
        out.push(Reply::U64(result.is_err().into()).encode(known(asked)));
    }

    fn apply(&mut self, apply: Apply) {
        match apply {
            Apply::Nothing => {}
            Apply::Features(features) => self.take_features(features),
            Apply::Memory(table) => self.memory = table,
            Apply::AddRegion(region) => self.memory.insert(region),
            Apply::RemRegion(region) => self.memory.remove(&region),
            Apply::Start(index) => self.vrings[usize::from(index)].started = true,
            Apply::Enable(index, on) => self.vrings[usize::from(index)].enabled = on,
            Apply::Reset => self.reset(),
            Apply::Status(status) => self.status = status,
        }
    }

    /// Success, for a request that has no reply of its own.
    pub(super) fn acknowledge(&self, asked: Asked, out: &mut Vec<Outgoing<F>>) {
        if asked.ack {
            out.push(Outgoing::acknowledgement(asked.request, 0));
        }
    }

    /// Failure, by the reply of its own or by an acknowledgement.
    pub(super) fn refuse(
        &mut self,
        asked: Asked,
        why: Refused,
        out: &mut Vec<Outgoing<F>>,
    ) -> Result<(), Violation> {
        let untold = Violation::Untold {
            request: asked.request,
            why,
        };
        let Some((request, kind)) = Request::of(asked.request).and_then(|r| Some((r, r.reply()?)))
        else {
            if asked.ack {
                out.push(Outgoing::acknowledgement(asked.request, 1));
                return Ok(());
            }
            self.failed = true;
            return Err(untold);
        };
        let reply = match kind {
            ReplyKind::Config => Reply::Config(None),
            ReplyKind::Inflight => inflight(None),
            ReplyKind::U64WithFd => Reply::U64WithFd(1, None),
            ReplyKind::U64 if request == Request::CheckDeviceState => Reply::U64(1),
            // A number here would be taken for the truth.
            _ => {
                self.failed = true;
                return Err(untold);
            }
        };
        out.push(reply.encode(request));
        Ok(())
    }
}

fn inflight<F>(log: Option<(InflightArea, F)>) -> Reply<F> {
    match log {
        Some((area, fd)) => Reply::Inflight(area, Some(fd)),
        None => {
            let none = InflightArea {
                mmap_size: 0,
                mmap_offset: 0,
                queues: 0,
                queue_size: 0,
            };
            Reply::Inflight(none, None)
        }
    }
}
