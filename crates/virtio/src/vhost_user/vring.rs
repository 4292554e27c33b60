//! One ring as the front-end has configured it, before the device may look at it.

use super::{
    backend::Refused,
    memory_table::MemoryTable,
    payload::VringAddress,
    proto::{feature, protocol},
};

/// `VIRTIO_F_EVENT_IDX`: rings have one field more.
const EVENT_IDX: u64 = 1 << 29;

/// A ring that can be run: all was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VringSetup {
    /// Which ring.
    pub index: u16,
    /// Number of its descriptors; a power of two unless it is packed.
    pub size: u16,
    /// The features agreed on; they say whether it is packed.
    pub features: u64,
    /// Guest-physical address of the descriptor table; of a packed ring, all of it.
    pub descriptors: u64,
    /// Guest-physical address of the available ring; packed: the driver's event suppression.
    pub available: u64,
    /// Guest-physical address of the used ring; packed: the device's event suppression.
    pub used: u64,
    /// Where it goes on, as SET_VRING_BASE has it: of a split ring, the next available index.
    pub base: u32,
    /// Guest-physical address of the used ring for the dirty log, if writes to it are logged.
    pub log: Option<u64>,
    /// Whether it does its work.
    pub enabled: bool,
}

impl VringSetup {
    /// Whether it is a packed ring.
    pub fn packed(&self) -> bool {
        self.features & feature::RING_PACKED != 0
    }
}

/// What has been told of a ring.
#[derive(Clone, Debug, Default)]
pub(super) struct Vring {
    pub(super) size: u16,
    pub(super) address: Option<VringAddress>,
    pub(super) base: u32,
    pub(super) enabled: bool,
    pub(super) started: bool,
}

/// What all rings share.
pub(super) struct Shared<'a> {
    pub(super) memory: &'a MemoryTable,
    pub(super) features: u64,
    pub(super) protocol: u64,
}

impl Vring {
    /// The ring, ready to be run, or what it lacks.
    pub(super) fn setup(&self, index: u16, shared: &Shared<'_>) -> Result<VringSetup, Refused> {
        let address = self.address.as_ref().ok_or(Refused::NotConfigured)?;
        let features = shared.features;
        let packed = features & feature::RING_PACKED != 0;
        let size = self.size;
        if size == 0 {
            return Err(Refused::NotConfigured);
        }
        if !packed && (!size.is_power_of_two() || self.base > u32::from(u16::MAX)) {
            return Err(Refused::BadVring);
        }
        let n = u64::from(size);
        let event = if features & EVENT_IDX != 0 { 2 } else { 0 };
        // Length and alignment of each part (virtio 1.3: 2.7, 2.8.10).
        let [table, available, used] = match packed {
            true => [(16 * n, 16), (4, 4), (4, 4)],
            false => [(16 * n, 16), (4 + 2 * n + event, 2), (4 + 8 * n + event, 4)],
        };
        let place = |address: u64, (len, align): (u64, u64)| {
            let guest = match shared.guest_addresses() {
                true => shared.memory.of_guest(address, len),
                false => shared.memory.of_user(address, len),
            };
            let guest = guest.ok_or(Refused::BadAddress)?;
            match guest % align {
                0 => Ok(guest),
                _ => Err(Refused::BadAddress),
            }
        };
        Ok(VringSetup {
            index,
            size,
            features,
            descriptors: place(address.descriptors, table)?,
            available: place(address.available, available)?,
            used: place(address.used, used)?,
            base: self.base,
            log: (address.flags & VringAddress::LOG != 0).then_some(address.log),
            enabled: self.enabled,
        })
    }
}

impl Shared<'_> {
    /// Whether rings are told by the guest's addresses (spec: Rings).
    fn guest_addresses(&self) -> bool {
        self.features & feature::ACCESS_PLATFORM != 0
            || self.protocol & protocol::GPA_ADDRESSES != 0
    }
}
