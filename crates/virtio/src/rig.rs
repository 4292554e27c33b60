//! A guest for tests and fuzzing: memory with room for a ring, and both halves on it.

use std::sync::Arc;

use crate::{
    memory::{Area, Memory, Region, RegionMap},
    ring::{
        AddressKind, DeviceRing, DriverRing, RingAreas, RingConfig, SetupError, Tables, packed,
        split,
    },
};

/// Where the ring's region begins.
pub const RING: u64 = 0x10_0000;
/// Where the data begins: two regions that touch.
pub const DATA: u64 = 0x1000_0000;
/// Bytes of each of the two.
pub const DATA_LEN: u64 = 0x1_0000;
/// Descriptors of an indirect table.
pub const TABLE: u16 = 16;

/// A format of rings.
pub trait Format {
    /// The device's half.
    type Device: DeviceRing;
    /// The driver's half.
    type Driver: DriverRing;
    /// Whether it is the packed one.
    const PACKED: bool;
    /// The base of a new ring.
    const START: u32;
    /// A device's half from a base.
    fn device(rig: &Rig, base: u32) -> Self::Device;
    /// A device's half with the rig's in-flight log, which may be damaged.
    fn open_log(rig: &Rig) -> Result<Self::Device, SetupError>;
    /// A device's half with the rig's in-flight log.
    fn logged(rig: &Rig) -> Self::Device {
        Self::open_log(rig).expect("a good log")
    }
    /// A driver's half from the beginning.
    fn driver(rig: &Rig) -> Self::Driver;
    /// Takes again what is in the log.
    fn resume(
        device: &mut Self::Device,
        memory: &Memory,
        chain: &mut crate::ring::Chain,
    ) -> Result<Option<crate::ring::Token>, crate::ring::RingError>;
}

macro_rules! format {
    ($name:ident, $module:ident, $packed:expr, $start:expr) => {
        #[doc = concat!("The format `", stringify!($module), "`.")]
        #[derive(Debug)]
        pub struct $name;
        impl Format for $name {
            type Device = $module::Device;
            type Driver = $module::Driver;
            const PACKED: bool = $packed;
            const START: u32 = $start;
            fn device(rig: &Rig, base: u32) -> $module::Device {
                $module::Device::new(rig.areas::<$name>(), rig.config, base).expect("a good ring")
            }
            fn open_log(rig: &Rig) -> Result<$module::Device, SetupError> {
                let areas = rig.areas::<$name>();
                $module::Device::with_log(areas, rig.config, $start, rig.log())
            }
            fn driver(rig: &Rig) -> $module::Driver {
                let tables = rig.config.indirect.then(|| rig.tables());
                $module::Driver::new(rig.areas::<$name>(), rig.config, tables).expect("a good ring")
            }
            fn resume(
                device: &mut $module::Device,
                memory: &Memory,
                chain: &mut crate::ring::Chain,
            ) -> Result<Option<crate::ring::Token>, crate::ring::RingError> {
                device.resume(memory, chain)
            }
        }
    };
}
format!(Split, split, false, 0);
format!(Packed, packed, true, packed::START);

/// The memory of a guest with one queue.
#[derive(Clone, Debug)]
pub struct Rig {
    /// What was agreed upon.
    pub config: RingConfig,
    /// Its memory.
    pub memory: Memory,
}

fn page(at: usize) -> usize {
    at.next_multiple_of(4096)
}

impl Rig {
    /// Memory for a queue.
    pub fn new(config: RingConfig) -> Rig {
        let regions = vec![
            Region::heap(RING, Rig::at(config.size, 5)),
            Region::heap(DATA, DATA_LEN as usize),
            Region::heap(DATA + DATA_LEN, DATA_LEN as usize),
        ];
        let map = RegionMap::new(regions).expect("good regions");
        Rig {
            config,
            memory: Memory::new(Arc::new(map)),
        }
    }

    /// Where each part of the ring's region begins: descriptors, driver's, device's, tables, log, end.
    pub fn at(size: u16, part: usize) -> usize {
        let [a, b, c] = split::lengths(size);
        let parts = [
            a,
            b,
            c,
            Tables::length(size, TABLE),
            crate::inflight::length(true, size),
        ];
        parts[..part].iter().map(|len| page(*len)).sum()
    }

    fn addresses(&self) -> [u64; 3] {
        [0, 1, 2].map(|part| RING + Rig::at(self.config.size, part) as u64)
    }

    /// The ring's parts.
    pub fn areas<F: Format>(&self) -> RingAreas {
        let lengths = match F::PACKED {
            true => packed::lengths(self.config.size),
            false => split::lengths(self.config.size),
        };
        let map = self.memory.map();
        RingAreas::find(map, AddressKind::User, self.addresses(), lengths).expect("mapped")
    }

    fn part(&self, part: usize) -> (u64, Area) {
        let (start, end) = (
            Rig::at(self.config.size, part),
            Rig::at(self.config.size, part + 1),
        );
        let guest = RING + start as u64;
        let area = self.memory.map().by_guest(guest, end - start);
        (guest, area.expect("mapped"))
    }

    /// Room for indirect tables.
    pub fn tables(&self) -> Tables {
        let (guest, area) = self.part(3);
        Tables {
            area,
            guest,
            entries: TABLE,
        }
    }

    /// Room for a log.
    pub fn log(&self) -> Area {
        self.part(4).1
    }
}

/// xorshift64*: the same everywhere for a seed.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }
}
