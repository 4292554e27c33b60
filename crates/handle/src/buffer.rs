//! The caller's memory.

use std::{any::Any, sync::Arc};

/// Memory that a read fills. The handle owns it from the call until the command is completed, and
/// fills it in place.
///
/// The same bytes must be returned every time, in number and in place.
pub trait ReadBuffer: Any + Send {
    /// The memory.
    fn as_mut_slice(&mut self) -> &mut [u8];
}

/// Memory that a write sends. The handle owns it from the call until the command is completed.
///
/// The same bytes must be returned every time.
pub trait WriteBuffer: Any + Send {
    /// The memory.
    fn as_slice(&self) -> &[u8];
}

impl ReadBuffer for Vec<u8> {
    fn as_mut_slice(&mut self) -> &mut [u8] {
        self
    }
}

impl ReadBuffer for Box<[u8]> {
    fn as_mut_slice(&mut self) -> &mut [u8] {
        self
    }
}

impl WriteBuffer for Vec<u8> {
    fn as_slice(&self) -> &[u8] {
        self
    }
}

impl WriteBuffer for Box<[u8]> {
    fn as_slice(&self) -> &[u8] {
        self
    }
}

impl WriteBuffer for Arc<[u8]> {
    fn as_slice(&self) -> &[u8] {
        self
    }
}

impl WriteBuffer for &'static [u8] {
    fn as_slice(&self) -> &[u8] {
        self
    }
}
