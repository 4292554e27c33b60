//! Every face on every kind of source.

use std::io::{IoSlice, IoSliceMut};

use blkit::{Buffer, Disk, Flags};

use crate::common::{SIZE, World};

fn noise(len: usize, seed: usize) -> Vec<u8> {
    let bytes = (0..len).map(|i| ((i * 7 + i / 251 + seed) % 253) as u8 + 1);
    bytes.collect()
}

fn each(test: impl Fn(&str, &Disk)) {
    let world = World::new();
    for (name, builder) in world.builders() {
        let disk = builder
            .open()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        test(name, &disk);
        disk.close()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn faces_may_go_to_other_threads() {
    fn is_free<T: Send + Sync + 'static>() {}
    is_free::<Disk>();
    is_free::<blkit::AsyncDisk>();
    is_free::<blkit::Context>();
    is_free::<blkit::Error>();
    is_free::<Buffer>();
    fn may_move<T: Send + 'static>() {}
    may_move::<blkit::Queue>();
}

#[test]
fn what_is_written_is_read() {
    each(|name, disk| {
        assert_eq!(disk.size(), SIZE, "{name}");
        let limits = disk.limits();
        assert!(
            limits.can_flush && limits.can_write_zeroes && !limits.read_only,
            "{name}"
        );
        // Short, odd, and longer than a part of a long transfer.
        for (len, at) in [(1, 0), (513, 511), (4096, 8192), (3 << 20, 1_000_001)] {
            let bytes = noise(len, at);
            disk.write_at(&bytes, at as u64).expect(name);
            let mut back = vec![0; len];
            disk.read_at(&mut back, at as u64).expect(name);
            assert!(back == bytes, "{name} {len}");
        }
        disk.write_at_with(b"forced", 100, Flags::FUA).expect(name);
        disk.flush().expect(name);
        disk.write_zeroes(102, 2, Flags::NO_HOLE).expect(name);
        let mut back = [0; 6];
        disk.read_at(&mut back, 100).expect(name);
        assert_eq!(&back, b"fo\0\0ed", "{name}");
        disk.discard(1 << 20, 1 << 20).expect(name);
        disk.read_at(&mut [], SIZE).expect(name);
        disk.write_at(&[], 0).expect(name);
    });
}

#[test]
fn pieces_are_one_transfer() {
    each(|name, disk| {
        let (a, b, c) = (noise(10, 1), noise(4096, 2), noise(700_000, 3));
        for parts in [&[&a[..], &b][..], &[&a, &c, &b, &c]] {
            let slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
            disk.write_vectored_at(&slices, 777).expect(name);
            let mut memory: Vec<_> = parts.iter().map(|part| vec![0; part.len()]).collect();
            let mut slices: Vec<_> = memory.iter_mut().map(|m| IoSliceMut::new(m)).collect();
            disk.read_vectored_at(&mut slices, 777).expect(name);
            assert!(memory == parts, "{name}");
        }
        let disk = disk.to_async();
        smol::block_on(async {
            let buffers = vec![
                Buffer::from(a.clone()),
                Buffer::new(0),
                Buffer::from(b.clone()),
            ];
            let (result, buffers) = disk.write_vectored_at(buffers, 99).await;
            result.expect(name);
            assert_eq!(buffers.len(), 3, "{name}");
            let wanted = vec![Buffer::new(6), Buffer::new(4100)];
            let (result, found) = disk.read_vectored_at(wanted, 99).await;
            result.expect(name);
            let all = [&a[..], &b].concat();
            assert!(
                found[0][..] == all[..6] && found[1][..] == all[6..],
                "{name}"
            );
        });
    });
}

#[test]
fn transfers_longer_than_a_request_are_done_in_parts() {
    let disk = Disk::builder("memory").arg("100M").open().expect("opens");
    smol::block_on(async {
        let disk = disk.to_async();
        let len = (70 << 20) + 3;
        let mut buffer = Buffer::new(len);
        for at in (0..len).step_by(1 << 20) {
            buffer[at] = (at >> 20) as u8 + 1;
        }
        let (result, written) = disk.write_at(buffer, 12345).await;
        result.expect("writes");
        let found = disk.read(12345, len).await.expect("reads");
        assert!(found[..] == written[..]);
        disk.close().await.expect("closes");
    });
}

#[test]
fn extents_say_what_is_zero() {
    each(|name, disk| {
        disk.write_at(&noise(65536, 0), 4 << 20).expect(name);
        let (mut at, mut data, mut zero) = (0, 0, 0);
        while at < SIZE {
            let found = disk.extents(at, SIZE - at).expect(name);
            assert!(!found.is_empty(), "{name}");
            for extent in found {
                assert_eq!(extent.offset, at, "{name}");
                *(if extent.zero { &mut zero } else { &mut data }) += extent.len;
                at += extent.len;
            }
        }
        // The disk behind the server says that all of it is data.
        let known = name != "nbd";
        assert!(data >= 65536, "{name}: {data}");
        assert_eq!(zero >= SIZE / 2, known, "{name}: {zero}");
    });
}

#[test]
fn a_queue_has_many_under_way() {
    each(|name, disk| {
        let mut queue = disk.queue(32);
        let mut done = Vec::new();
        for i in 0..32 {
            queue
                .write(i, noise(4096, i as usize).into(), i * 4096, Flags::NONE)
                .expect(name);
        }
        let full = queue.read(99, Buffer::new(512), 0).expect_err("it is full");
        assert_eq!(full.0.len(), 512);
        assert_eq!(queue.wait(32, &mut done), 32, "{name}");
        assert!(
            done.drain(..).all(|completion| completion.result.is_ok()),
            "{name}"
        );
        queue.flush(1).expect(name);
        queue.write_zeroes(2, 0, 4096, Flags::NONE).expect(name);
        queue.discard(3, 0, 4096).expect(name);
        queue.wait(usize::MAX, &mut done);
        let mut tokens: Vec<_> = done.drain(..).map(|completion| completion.token).collect();
        tokens.sort();
        assert_eq!(tokens, [1, 2, 3], "{name}");
        for i in 1..32 {
            queue.read(i, Buffer::new(4096), i * 4096).expect(name);
        }
        while queue.in_flight() > 0 {
            smol::block_on(queue.completions(1, &mut done));
        }
        assert_eq!(queue.poll(&mut done), 0);
        for completion in done {
            completion.result.expect(name);
            let expected = noise(4096, completion.token as usize);
            assert!(
                completion.buffer[..] == expected,
                "{name} {}",
                completion.token
            );
        }
    });
}
