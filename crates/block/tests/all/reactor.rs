//! What a reactor keeps, and buffers that are shared on it.

use std::{rc::Rc, sync::Arc};

use blkit_block as block;
use block::Iov;
use testkit::SimLoop;

#[test]
fn what_is_kept_is_found_until_it_is_forgotten() {
    let sim = SimLoop::new(1);
    let reactor = sim.reactor();
    let (one, other) = (Arc::new(1), Arc::new(2));
    let key = |of: &Arc<i32>| Arc::as_ptr(of).addr();
    reactor.keep(key(&one), Rc::new("text"));
    reactor.keep(key(&other), Rc::new(7u8));
    assert_eq!(reactor.kept::<&str>(key(&one)).as_deref(), Some(&"text"));
    assert_eq!(reactor.kept::<u8>(key(&other)).as_deref(), Some(&7));
    assert!(reactor.kept::<u8>(key(&one)).is_none(), "another type");
    let held = reactor.kept::<u8>(key(&other)).expect("kept");
    reactor.forget(key(&other));
    reactor.forget(key(&other));
    assert!(reactor.kept::<u8>(key(&other)).is_none());
    assert_eq!(Rc::strong_count(&held), 1);
    assert!(reactor.kept::<&str>(key(&one)).is_some());
}

#[test]
fn a_buffer_is_shared_piece_by_piece() {
    let sim = SimLoop::new(1);
    let whole = Iov::of_chunk(sim.reactor().chunk(16), 16);
    whole.write(0, b"0123456789abcdef");
    let pieces = whole.pieces([(8, 4), (0, 2), (15, 1)]);
    let shared: Vec<Vec<u8>> = pieces.shared().map(|mem| mem.to_vec()).collect();
    assert_eq!(shared, [&b"89ab"[..], b"01", b"f"]);
    let kept: Vec<_> = pieces.shared().collect();
    drop((whole, pieces));
    assert_eq!(kept[0].to_vec(), b"89ab", "each piece keeps the memory");
    drop(kept);
    assert_eq!(sim.reactor().chunks().live(), 0);
}
