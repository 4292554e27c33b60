//! Futures on every runtime, and on none.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

use blkit::{AsyncDisk, Buffer, Disk};

use crate::common::World;

async fn memory() -> AsyncDisk {
    let opening = Disk::builder("memory").arg("4M").open_async();
    opening.await.expect("opens")
}

/// Many tasks, each with its own block.
async fn block(disk: AsyncDisk, i: u8) -> Buffer {
    let at = u64::from(i) * 4096;
    disk.write_at(vec![i; 4096], at).await.0.expect("writes");
    disk.flush().await.expect("flushes");
    disk.read(at, 4096).await.expect("reads")
}

#[test]
fn tokio() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build();
    runtime.expect("a runtime").block_on(async {
        let disk = memory().await;
        let tasks: Vec<_> = (0..64)
            .map(|i| tokio::spawn(block(disk.clone(), i)))
            .collect();
        for (i, task) in tasks.into_iter().enumerate() {
            assert_eq!(&task.await.expect("no panic")[..], [i as u8; 4096]);
        }
        disk.close().await.expect("closes");
    });
}

#[test]
fn smol() {
    smol::block_on(async {
        let disk = memory().await;
        let tasks: Vec<_> = (0..64)
            .map(|i| smol::spawn(block(disk.clone(), i)))
            .collect();
        for (i, task) in tasks.into_iter().enumerate() {
            assert_eq!(&task.await[..], [i as u8; 4096]);
        }
        disk.close().await.expect("closes");
    });
}

struct Unpark(Thread, AtomicUsize);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.unpark();
    }
}

#[test]
fn no_runtime_at_all() {
    let unpark = Arc::new(Unpark(thread::current(), AtomicUsize::new(0)));
    let waker = Waker::from(unpark.clone());
    let mut future = pin!(async {
        let disk = memory().await;
        let found = block(disk.clone(), 7).await;
        disk.close().await.expect("closes");
        found
    });
    let found = loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(found) => break found,
            Poll::Pending => thread::park(),
        }
    };
    assert_eq!(&found[..], [7; 4096]);
    assert!(unpark.1.load(Ordering::Relaxed) > 0);
}

#[test]
fn futures_may_be_dropped_at_any_moment() {
    let world = World::new();
    for (name, builder) in world.builders() {
        let disk = builder.clone().open().expect(name);
        let face = disk.to_async();
        let mut context = Context::from_waker(Waker::noop());
        for i in 0..200u64 {
            // Not polled, polled once, and waited for, in turn.
            let mut read = Box::pin(face.read(i * 512, 8192));
            let mut write = Box::pin(face.write_at(vec![3; 8192], 1 << 20));
            let mut written = false;
            if i % 3 > 0 {
                let _ = read.as_mut().poll(&mut context);
                written = write.as_mut().poll(&mut context).is_ready();
            }
            if i % 3 == 2 && !written {
                smol::block_on(write).0.expect(name);
            }
            // One that is not even opened.
            if i % 50 == 0 && name != "file" {
                let mut open = Box::pin(builder.clone().open_async());
                let _ = open.as_mut().poll(&mut context);
            }
        }
        disk.flush().expect(name);
        let mut found = [0; 8192];
        disk.read_at(&mut found, 1 << 20).expect(name);
        assert_eq!(found, [3; 8192], "{name}");
        drop(face);
        disk.close().expect(name);
    }
}
