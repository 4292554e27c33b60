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
    /// Each part's length, and what it found.
    found: Vec<(u64, Data)>,
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
        inner.found.push((len, Data::None));
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
            Ok(()) => inner.found[place].1 = std::mem::take(done.data_mut()),
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

fn gather(parent: &mut Request, found: Vec<(u64, Data)>) {
    if found.iter().any(|(_, data)| matches!(data, Data::Given(_))) {
        let mut all = Segments::new();
        for (_, data) in found {
            match data {
                Data::Given(segments) => all.append(segments),
                other => unreachable!("one part was given, another is {other:?}"),
            }
        }
        *parent.data_mut() = Data::Given(all);
    } else if found
        .iter()
        .any(|(_, data)| matches!(data, Data::Extents(_)))
    {
        *parent.data_mut() = Data::Extents(gather_extents(found));
    }
}

/// The parts' runs one after the other, as far as there is no gap: an answer may cover less than
/// was asked, and then what follows it has no place.
fn gather_extents(found: Vec<(u64, Data)>) -> ExtentList {
    let mut all: Option<ExtentList> = None;
    for (len, data) in found {
        let Data::Extents(mut list) = data else { break };
        list.truncate(len);
        let covered = list.covered_by_all();
        list.truncate(covered);
        match &mut all {
            Some(all) => all.append(&list),
            None => all = Some(list),
        }
        if covered < len {
            break;
        }
    }
    all.unwrap_or_default()
}
