//! Who may attach to a vhost-user-blk export, and when.

use std::{
    os::unix::net::UnixStream,
    sync::Arc,
    time::{Duration, Instant},
};

use blkit_exports::vhost_user_blk::{Export, Options, Sharing};
use block::Device;
use reactor::DriverKind;
use testkit::MemoryDisk;
use virtio::blk::{Operation, feature};

use crate::{
    vhost_user_blk::{Served, received},
    vhost_user_guests::{Guest, Parking, ParkingDisk, with_server},
};

fn disk(sharing: Sharing) -> Arc<Export> {
    of(MemoryDisk::new(1 << 20), sharing)
}

fn of(device: Arc<dyn Device>, sharing: Sharing) -> Arc<Export> {
    let options = Options {
        sharing,
        ..Options::default()
    };
    Export::new(device, options)
}

fn is_turned_away(socket: UnixStream) -> bool {
    let wait = Some(Duration::from_secs(20));
    socket.set_read_timeout(wait).unwrap();
    matches!(received(&socket, &mut [0]), Ok(0))
}

fn writes(guest: &Guest) -> bool {
    guest.control.offered() >> feature::RO & 1 == 0
}

#[test]
fn one_front_end_by_default_and_the_next_when_it_has_gone() {
    with_server(|served| {
        let disk = disk(Sharing::default());
        let mut first = Guest::new(served.connect(&disk));
        assert!(is_turned_away(served.connect(&disk)), "at once");
        assert!(is_turned_away(served.connect(&disk)), "and again");
        first.id();
        assert!(writes(&first));
        drop(first);
        // It need not know that the server has seen it.
        let mut next = Guest::new(served.connect(&disk));
        next.id();
        assert!(writes(&next));
    });
}

#[test]
fn a_front_end_waits_for_the_end_of_the_one_before() {
    for driver in [DriverKind::Uring, DriverKind::Poll] {
        let Some((_, served)) = Served::many(driver, 3) else {
            return;
        };
        // Requests that nobody can cancel: the former is ending until they are let go.
        let parking = Arc::new(Parking::holding());
        let disk = of(Arc::new(ParkingDisk(parking.clone())), Sharing::Exclusive);
        let mut first = Guest::new(served.connect(&disk));
        first.submit(0, Operation::Flush);
        first.taken(1, &parking);
        drop(first);
        let begin = Instant::now();
        let releases = std::thread::spawn({
            let parking = parking.clone();
            move || {
                std::thread::sleep(Duration::from_millis(100));
                parking.release();
            }
        });
        let mut next = Guest::new(served.connect(&disk));
        assert!(begin.elapsed() >= Duration::from_millis(100), "it waited");
        releases.join().unwrap();
        assert_eq!(disk.connections(), 1);
        next.id();
        drop(next);
        served.end();
    }
}

#[test]
fn one_writes_and_others_read() {
    with_server(|served| {
        let disk = disk(Sharing::OneWriter);
        let mut first = Guest::new(served.connect(&disk));
        let mut second = Guest::new(served.connect(&disk));
        assert!(writes(&first) && !writes(&second));
        first.id();
        second.id();
        drop(first);
        let third = Guest::new(served.connect(&disk));
        assert!(writes(&third), "the writer's place was free");
    });
}

#[test]
fn any_number_reads_and_there_is_a_bound() {
    with_server(|served| {
        let options = Options {
            read_only: true,
            max_front_ends: 3,
            ..Options::default()
        };
        let disk = Export::new(MemoryDisk::new(1 << 20), options);
        let mut guests: Vec<Guest> = (0..3).map(|_| Guest::new(served.connect(&disk))).collect();
        assert!(!guests.iter().any(writes));
        for guest in &mut guests {
            guest.id();
        }
        assert_eq!(disk.connections(), 3);
        assert!(is_turned_away(served.connect(&disk)));
    });
}

#[test]
fn a_server_that_stops_ends_what_it_has_and_takes_nobody() {
    with_server(|served| {
        let disk = disk(Sharing::Shared);
        let mut guests: Vec<Guest> = (0..3).map(|_| Guest::new(served.connect(&disk))).collect();
        for guest in &mut guests {
            guest.id();
        }
        disk.stop();
        for guest in &mut guests {
            assert_eq!(received(&guest.control.socket, &mut [0]).unwrap(), 0);
        }
        assert!(is_turned_away(served.connect(&disk)));
        let end = Instant::now() + Duration::from_secs(20);
        while disk.connections() > 0 {
            assert!(Instant::now() < end, "it does not end");
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}
