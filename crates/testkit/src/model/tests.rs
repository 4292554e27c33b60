use block::{Errno, ExtentFlags, ExtentList, Flags, Op};

use super::*;

fn bytes_of(model: &Model, token: Token, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    model.fill(token, at, &mut bytes);
    bytes
}

fn write(model: &mut Model, at: u64, len: u64, flags: Flags) -> Vec<u8> {
    let token = model.begin(Op::Write, at, len, flags);
    let bytes = bytes_of(model, token, at, len as usize);
    model.end(token, Ok(()), Found::Nothing).unwrap();
    bytes
}

fn read(model: &mut Model, at: u64, bytes: &[u8]) -> Result<(), Violation> {
    let token = model.begin(Op::Read, at, bytes.len() as u64, Flags::NONE);
    model.end(token, Ok(()), Found::Bytes(bytes))
}

fn flush(model: &mut Model) {
    let token = model.begin(Op::Flush, 0, 0, Flags::NONE);
    model.end(token, Ok(()), Found::Nothing).unwrap();
}

#[test]
fn a_completed_write_is_what_reads_find() {
    let mut model = Model::zeroed(1000);
    let first = write(&mut model, 10, 100, Flags::NONE);
    let second = write(&mut model, 50, 100, Flags::NONE);
    read(&mut model, 10, &first[..40]).unwrap();
    read(&mut model, 50, &second).unwrap();
    assert!(read(&mut model, 10, &first).is_err(), "half of it is old");
    assert!(read(&mut model, 0, &[0, 1]).is_err());
    read(&mut model, 150, &[0; 850]).unwrap();
}

#[test]
fn overlapping_writes_in_flight_may_mix() {
    let mut model = Model::zeroed(100);
    let a = model.begin(Op::Write, 0, 100, Flags::NONE);
    let b = model.begin(Op::Write, 0, 100, Flags::NONE);
    let (a_bytes, b_bytes) = (bytes_of(&model, a, 0, 100), bytes_of(&model, b, 0, 100));
    let mut mixed = a_bytes.clone();
    mixed[40..].copy_from_slice(&b_bytes[40..]);
    mixed[99] = 0;
    read(&mut model, 0, &mixed).unwrap();
    model.end(a, Ok(()), Found::Nothing).unwrap();
    model.end(b, Ok(()), Found::Nothing).unwrap();
    assert!(read(&mut model, 0, &mixed).is_err(), "the old byte is gone");
    mixed[99] = a_bytes[99];
    read(&mut model, 0, &mixed).unwrap();
    assert!(read(&mut model, 0, &a_bytes).is_err(), "quiet reads agree");
}

#[test]
fn a_read_may_find_what_was_there_when_it_began() {
    let mut model = Model::zeroed(10);
    let token = model.begin(Op::Read, 0, 10, Flags::NONE);
    let bytes = write(&mut model, 0, 10, Flags::FUA);
    write(&mut model, 0, 10, Flags::FUA);
    model.end(token, Ok(()), Found::Bytes(&[0; 10])).unwrap();
    let token = model.begin(Op::Read, 0, 10, Flags::NONE);
    assert!(model.end(token, Ok(()), Found::Bytes(&bytes)).is_err());
}

#[test]
fn flushes_and_fua_survive_a_crash() {
    let mut model = Model::zeroed(30);
    let old = write(&mut model, 0, 30, Flags::NONE);
    flush(&mut model);
    let fua = write(&mut model, 0, 10, Flags::FUA);
    let lost = write(&mut model, 10, 10, Flags::NONE);
    model.crash();
    let mut image = old.clone();
    image[..10].copy_from_slice(&fua);
    image[10..15].copy_from_slice(&lost[..5]);
    let mut wrong = image.clone();
    wrong[..10].copy_from_slice(&old[..10]);
    assert!(model.recovered(&wrong).is_err(), "the FUA write is lost");
    wrong = image.clone();
    wrong[20..].fill(0);
    assert!(model.recovered(&wrong).is_err(), "flushed bytes are lost");
    model.recovered(&image).unwrap();
    read(&mut model, 0, &image).unwrap();
}

#[test]
fn a_flush_covers_only_what_had_completed() {
    let mut model = Model::zeroed(10);
    let open = model.begin(Op::Write, 0, 10, Flags::NONE);
    flush(&mut model);
    model.end(open, Ok(()), Found::Nothing).unwrap();
    model.crash();
    model.recovered(&[0; 10]).unwrap();
}

#[test]
fn a_flush_that_failed_stays_failed() {
    let mut model = Model::zeroed(10).tolerant();
    let token = model.begin(Op::Flush, 0, 0, Flags::NONE);
    model.end(token, Err(Errno::EIO), Found::Nothing).unwrap();
    let token = model.begin(Op::Flush, 0, 0, Flags::NONE);
    assert!(model.end(token, Ok(()), Found::Nothing).is_err());
}

#[test]
fn extents_are_held_to_their_word() {
    let mut model = Model::zeroed(100);
    write(&mut model, 50, 50, Flags::NONE);
    let ask = |model: &mut Model, list: ExtentList| {
        let token = model.begin(Op::Extents, 0, 100, Flags::NONE);
        model.end(token, Ok(()), Found::Extents(&list))
    };
    ask(&mut model, ExtentList::one(50, ExtentFlags::HOLE_ZERO)).unwrap();
    ask(&mut model, ExtentList::one(100, ExtentFlags::DATA)).unwrap();
    assert!(ask(&mut model, ExtentList::one(60, ExtentFlags::ZERO)).is_err());
    assert!(ask(&mut model, ExtentList::one(101, ExtentFlags::DATA)).is_err());
    assert!(ask(&mut model, ExtentList::new()).is_err());
    let token = model.begin(Op::Discard, 50, 50, Flags::NONE);
    model.end(token, Ok(()), Found::Nothing).unwrap();
    read(&mut model, 50, &[7; 50]).unwrap();
    ask(&mut model, ExtentList::one(100, ExtentFlags::HOLE_ZERO)).unwrap();
    assert!(
        read(&mut model, 50, &[7; 50]).is_err(),
        "it was called zero"
    );
}

#[test]
fn failures_are_refused_unless_tolerated() {
    let mut model = Model::zeroed(10);
    let token = model.begin(Op::Write, 0, 10, Flags::NONE);
    let bytes = bytes_of(&model, token, 0, 10);
    assert!(model.end(token, Err(Errno::EIO), Found::Nothing).is_err());
    let mut half = vec![0; 10];
    half[..5].copy_from_slice(&bytes[..5]);
    read(&mut model, 0, &half).unwrap();
    let token = model.begin(Op::WriteZeroes, 0, 10, Flags::FAST_ZERO);
    model
        .end(token, Err(Errno::ENOTSUP), Found::Nothing)
        .unwrap();
}
