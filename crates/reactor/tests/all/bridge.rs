//! The bridge to tokio: what runs there is awaited here.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::on_both;
use reactor::{
    Loop,
    bridge::{CallLost, call},
};

on_both! {
    a_result_arrives
    a_panic_is_told
    a_call_that_is_dropped_is_cancelled
}

fn a_result_arrives(mut made: Loop) {
    let sum = made.block_on(async {
        let slow = call(async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            40
        });
        let quick = call(async { 2 });
        slow.unwrap().await.unwrap() + quick.unwrap().await.unwrap()
    });
    assert_eq!(sum, 42);
}

fn a_panic_is_told(mut made: Loop) {
    let lost = call(async { panic!("a call panics on purpose") });
    let lost: Result<(), CallLost> = made.block_on(lost.unwrap());
    assert_eq!(lost, Err(CallLost));
    assert_eq!(made.block_on(call(async { 7 }).unwrap()), Ok(7));
}

/// Says when it is gone.
struct Flag(Arc<AtomicBool>);

impl Drop for Flag {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn a_call_that_is_dropped_is_cancelled(mut made: Loop) {
    let gone = Arc::new(AtomicBool::new(false));
    let flag = Flag(gone.clone());
    let endless = call(async move {
        let _flag = flag;
        pending::<()>().await;
    });
    drop(endless.unwrap());
    let reactor = made.reactor().clone();
    made.block_on(async {
        for _ in 0..10_000 {
            if gone.load(Ordering::Acquire) {
                return;
            }
            reactor.sleep(Duration::from_millis(1)).await;
        }
        panic!("the call goes on");
    });
}
