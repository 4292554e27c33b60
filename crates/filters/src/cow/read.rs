//! Operations that look: read, cache, extents.
//!
//! A request on blocks of one state goes down as it is; others are cut where the state changes.

use std::{ops::Range, rc::Rc};

use block::{Data, ExtentFlags, ExtentList, Flags, IoError, Op, QueueExt, Request};

use super::{
    lower::{Lower, range},
    map::State,
};

/// Blocks that one extents query looks at: an answer may cover less than was asked for, and a
/// longer look would hold up the reactor.
const EXTENTS_BLOCKS: u64 = 1 << 20;

impl Lower {
    pub fn read(self: &Rc<Self>, req: Request) {
        if self.on_read.is_on() && self.has_base_blocks(&req) {
            let this = self.clone();
            return self.reactor.spawn(async move {
                let blocks = this.overlay.blocks(&range(&req));
                // If copying fails the read may still succeed, and if not it says why.
                let _ = this.copy_up(blocks, || req.is_cancelled()).await;
                this.read_as_is(req);
            });
        }
        self.read_as_is(req);
    }

    fn read_as_is(&self, req: Request) {
        let range = range(&req);
        if let Some(state) = self.overlay.one_state(&range) {
            return self.read_run(state, req);
        }
        let split = req.split();
        for (state, run) in self.overlay.byte_runs(range.clone()) {
            let part = split.part(run.start - range.start, run.end - run.start);
            self.read_run(state, part);
        }
    }

    fn read_run(&self, state: State, req: Request) {
        match state {
            State::Base => self.base.submit(req),
            State::Overlay => self.over.submit(req),
            State::Zero => req.give_zeroes(),
        }
    }

    fn has_base_blocks(&self, req: &Request) -> bool {
        let mut runs = self.overlay.runs(self.overlay.blocks(&range(req)));
        runs.any(|(state, _)| state == State::Base)
    }

    /// Copies to the overlay if that is asked for; else has the base bring its blocks nearer. The
    /// overlay's own are near enough.
    pub fn cache(self: &Rc<Self>, req: Request) {
        let this = self.clone();
        self.reactor.spawn(async move {
            let outcome = match this.on_cache {
                true => {
                    let blocks = this.overlay.blocks(&range(&req));
                    this.copy_up(blocks, || req.is_cancelled()).await
                }
                false => this.cache_base(&req).await,
            };
            req.complete(outcome);
        });
    }

    async fn cache_base(&self, req: &Request) -> Result<(), IoError> {
        for (state, run) in self.overlay.byte_runs(range(req)) {
            if req.is_cancelled() {
                break;
            }
            if state == State::Base {
                let cache = self
                    .reactor
                    .request(Op::Cache, run.start, run.end - run.start);
                self.base.call(cache).await.take_outcome()?;
            }
        }
        Ok(())
    }

    /// Puts the answer together: the base's own for its blocks, what the map says for the others.
    pub fn extents(self: &Rc<Self>, mut req: Request) {
        let this = self.clone();
        self.reactor.spawn(async move {
            let most = EXTENTS_BLOCKS * this.overlay.block();
            let asked = req.offset()..req.end().min(req.offset().saturating_add(most));
            match this.extents_of(asked, req.flags()).await {
                Ok(list) => {
                    *req.data_mut() = Data::Extents(list);
                    req.done();
                }
                Err(error) => req.complete(Err(error)),
            }
        });
    }

    async fn extents_of(&self, asked: Range<u64>, flags: Flags) -> Result<ExtentList, IoError> {
        let mut list = ExtentList::new();
        for (state, run) in self.overlay.byte_runs(asked) {
            let len = run.end - run.start;
            let whole = match state {
                State::Overlay => list.push(len, ExtentFlags::DATA),
                State::Zero => list.push(len, ExtentFlags::HOLE_ZERO),
                State::Base => self.base_extents(run, flags, &mut list).await?,
            };
            // With one more run there may be two extents: the first is all that was asked for.
            if !whole || (flags.contains(Flags::REQ_ONE) && list.allocation().len() > 1) {
                break;
            }
        }
        Ok(list)
    }

    /// Adds what the base says of a range. False if that, or the room in the list, ended early.
    async fn base_extents(
        &self,
        run: Range<u64>,
        flags: Flags,
        list: &mut ExtentList,
    ) -> Result<bool, IoError> {
        let len = run.end - run.start;
        if !self.base_ops.contains(Op::Extents) {
            return Ok(list.push(len, ExtentFlags::DATA));
        }
        let mut query = self.reactor.request(Op::Extents, run.start, len);
        query.set_flags(flags);
        let mut answer = self.base.call(query).await;
        answer.take_outcome()?;
        let Data::Extents(found) = answer.data_mut() else {
            return Ok(list.push(len, ExtentFlags::DATA));
        };
        found.truncate(len);
        let mut extents = found.allocation().iter();
        let room = extents.all(|extent| list.push(extent.len, ExtentFlags(extent.flags)));
        Ok(room && found.covered() == len)
    }
}
