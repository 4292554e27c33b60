//! Requests of other reactors: a copy of each, made where the way to the disk is.

use block::{Data, Iov, Op, Reactor, Remote, Request};

/// Submits a copy of a request that belongs to another reactor.
pub(crate) fn submit(home: &Reactor, mut remote: Remote, submit: impl FnOnce(Request)) {
    let (op, len) = (remote.op(), remote.len());
    let mut request = home.request(op, remote.offset(), len);
    request.set_flags(remote.flags());
    *request.data_mut() = match op {
        Op::Read => Data::Wanted,
        Op::Write => {
            let mut bytes = vec![0; len as usize];
            remote.read_data(0, &mut bytes);
            let iov = Iov::of_chunk(home.chunk(bytes.len()), bytes.len());
            iov.write(0, &bytes);
            iov.into()
        }
        _ => Data::None,
    };
    request.intercept(move |mut done| {
        let outcome = done.take_outcome();
        if outcome.is_ok() {
            match std::mem::take(done.data_mut()) {
                Data::Given(found) => remote.give(found.to_vec()),
                Data::Extents(extents) => remote.give_extents(extents),
                _ => {}
            }
        }
        remote.complete(outcome);
        done.finish();
    });
    submit(request);
}
