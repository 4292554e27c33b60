//! What a tool waits for.

use std::{future::Future, pin::pin, task::Poll};

use block::Reactor;
use reactor::{Io, process::Signals};

/// What comes first: the value of one, or the end of the other.
pub async fn either<T>(one: impl Future<Output = T>, other: impl Future<Output = ()>) -> Option<T> {
    let (mut one, mut other) = (pin!(one), pin!(other));
    std::future::poll_fn(|cx| {
        if let Poll::Ready(value) = one.as_mut().poll(cx) {
            return Poll::Ready(Some(value));
        }
        other.as_mut().poll(cx).map(|()| None)
    })
    .await
}

/// Waits until somebody wants this process to end. Called again, until somebody wants it once more.
pub async fn signal(reactor: &Reactor, signals: &Signals) {
    let failed = loop {
        match signals.take() {
            Ok(Some(_)) => return,
            Ok(None) => {}
            Err(error) => break error,
        }
        if let Err(error) = Io::of(reactor).readable(signals.fd()).await {
            break error;
        }
    };
    tracing::warn!("this program cannot be stopped by a signal: {failed}");
    std::future::pending().await
}
