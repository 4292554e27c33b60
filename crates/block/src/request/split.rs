//! Splitting: one request served by several, completing when all of them have.

use std::{cell::RefCell, rc::Rc};

use super::{Completed, Request};
use crate::{
    data::{Data, Segments},
    error::Outcome,
    extents::ExtentList,
};

/// A request that waits for its parts. The first error wins; what reads and extent queries found is
/// put together in order.
///
/// Make parts with [`Split::part`], front to back, then let go of the `Split`.
pub struct Split(Rc<State>);

struct State {
    inner: RefCell<Inner>,
}

struct Inner {
    parent: Option<Request>,
    outcome: Outcome,
    found: Vec<Data>,
}

impl Request {
    /// Begins to serve this request in parts.
    pub fn split(self) -> Split {
        let inner = Inner {
            parent: Some(self),
            outcome: Ok(()),
            found: Vec::new(),
        };
        Split(Rc::new(State {
            inner: RefCell::new(inner),
        }))
    }

    /// Two requests instead of this one: the first `len` bytes, and the rest.
    pub fn split_at(self, len: u64) -> (Request, Request) {
        let rest = self.len() - len;
        let split = self.split();
        (split.part(0, len), split.part(len, rest))
    }
}

impl Split {
    /// The next part: `len` bytes from `at`, relative to the whole request's start.
    pub fn part(&self, at: u64, len: u64) -> Request {
        let mut inner = self.0.inner.borrow_mut();
        let place = inner.found.len();
        inner.found.push(Data::None);
        let parent = inner
            .parent
            .as_mut()
            .expect("the parent is there until the split is over");
        let mut part = parent.child(parent.op(), at, len);
        drop(inner);
        let state = self.0.clone();
        part.intercept(move |done| state.part_done(place, done));
        part
    }
}

impl State {
    fn part_done(&self, place: usize, mut done: Completed) {
        let mut inner = self.inner.borrow_mut();
        match done.take_outcome() {
            Ok(()) => inner.found[place] = std::mem::take(done.data_mut()),
            Err(error) => {
                inner.outcome = std::mem::replace(&mut inner.outcome, Ok(())).and(Err(error))
            }
        }
        drop(inner);
        done.finish();
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // The last part has completed (or was dropped), and the splitter has let go.
        let inner = self.inner.get_mut();
        let Some(mut parent) = inner.parent.take() else {
            return;
        };
        let outcome = std::mem::replace(&mut inner.outcome, Ok(()));
        if outcome.is_ok() {
            gather(&mut parent, std::mem::take(&mut inner.found));
        }
        parent.complete(outcome);
    }
}

fn gather(parent: &mut Request, found: Vec<Data>) {
    if found.iter().any(|data| matches!(data, Data::Given(_))) {
        let mut all = Segments::new();
        for data in found {
            match data {
                Data::Given(segments) => all.append(segments),
                other => unreachable!("one part was given, another is {other:?}"),
            }
        }
        *parent.data_mut() = Data::Given(all);
    } else if found.iter().any(|data| matches!(data, Data::Extents(_))) {
        let mut lists = found.iter().filter_map(Data::as_extents);
        let mut all: ExtentList = lists.next().cloned().unwrap_or_default();
        lists.for_each(|list| all.append(list));
        *parent.data_mut() = Data::Extents(all);
    }
}
