//! The parts of messages that have fields (spec: Message contents).

use super::wire::{Put, Reader};

/// A piece of the guest's memory (spec: A single memory region description).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MemoryRegion {
    /// Where the guest sees it.
    pub guest_addr: u64,
    /// Its length in bytes.
    pub size: u64,
    /// Where the front-end sees it.
    pub user_addr: u64,
    /// Where it begins in its descriptor, in bytes.
    pub mmap_offset: u64,
}

impl MemoryRegion {
    pub(super) const LEN: usize = 32;

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.u64(self.guest_addr).u64(self.size);
        out.u64(self.user_addr).u64(self.mmap_offset);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Option<MemoryRegion> {
        Some(MemoryRegion {
            guest_addr: reader.u64()?,
            size: reader.u64()?,
            user_addr: reader.u64()?,
            mmap_offset: reader.u64()?,
        })
    }
}

/// A ring and a number (spec: A vring state description).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VringState {
    /// The ring.
    pub index: u32,
    /// Size, base, or whether it is enabled: as the message has it.
    pub num: u32,
}

impl VringState {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.u32(self.index).u32(self.num);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Option<VringState> {
        Some(VringState {
            index: reader.u32()?,
            num: reader.u32()?,
        })
    }
}

/// Where a ring's parts lie (spec: A vring address description). Addresses are the front-end's own
/// unless GPA_ADDRESSES or ACCESS_PLATFORM was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VringAddress {
    /// The ring.
    pub index: u32,
    /// [`VringAddress::LOG`] or 0.
    pub flags: u32,
    /// The descriptor table; of a packed ring, all of it.
    pub descriptors: u64,
    /// The used ring; of a packed ring, the device's event suppression.
    pub used: u64,
    /// The available ring; of a packed ring, the driver's event suppression.
    pub available: u64,
    /// Guest-physical address of the used ring, for the dirty log.
    pub log: u64,
}

impl VringAddress {
    /// `VHOST_VRING_F_LOG`: writes to the used ring are logged.
    pub const LOG: u32 = 1;

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.u32(self.index).u32(self.flags).u64(self.descriptors);
        out.u64(self.used).u64(self.available).u64(self.log);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Option<VringAddress> {
        Some(VringAddress {
            index: reader.u32()?,
            flags: reader.u32()?,
            descriptors: reader.u64()?,
            used: reader.u64()?,
            available: reader.u64()?,
            log: reader.u64()?,
        })
    }
}

/// A ring and the descriptor for its signals, or none: then the other end polls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VringFd<F> {
    /// The ring.
    pub index: u8,
    /// What is signalled.
    pub fd: Option<F>,
}

impl<F> VringFd<F> {
    /// Set where no descriptor comes with the message.
    pub(super) const NO_FD: u64 = 1 << 8;

    pub(super) fn word(&self) -> u64 {
        let none = if self.fd.is_none() { Self::NO_FD } else { 0 };
        u64::from(self.index) | none
    }
}

/// Where the dirty log lies in its descriptor (spec: Log description).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogArea {
    /// Its length in bytes.
    pub size: u64,
    /// Where it begins, in bytes.
    pub offset: u64,
}

impl LogArea {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.u64(self.size).u64(self.offset);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Option<LogArea> {
        Some(LogArea {
            size: reader.u64()?,
            offset: reader.u64()?,
        })
    }
}

/// A translation of addresses, or that one is missing (spec: An IOTLB message).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Iotlb {
    /// The address the device uses.
    pub iova: u64,
    /// The length in bytes.
    pub size: u64,
    /// The front-end's address.
    pub user_addr: u64,
    /// 1 read, 2 write, 3 both.
    pub permissions: u8,
    /// 1 miss, 2 update, 3 invalidate, 4 access failed.
    pub kind: u8,
}

impl Iotlb {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.u64(self.iova).u64(self.size).u64(self.user_addr);
        out.u8(self.permissions).u8(self.kind).raw(&[0; 6]);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Iotlb> {
        let iotlb = Iotlb {
            iova: reader.u64()?,
            size: reader.u64()?,
            user_addr: reader.u64()?,
            permissions: reader.u8()?,
            kind: reader.u8()?,
        };
        // The structure of the kernel ends with 6 bytes that mean nothing.
        (reader.rest().len() <= 6).then_some(iotlb)
    }
}

/// A range of configuration space (spec: Virtio device config space).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigRange {
    /// Where it begins, in bytes.
    pub offset: u32,
    /// Its length in bytes, at most [`MAX_CONFIG`](super::proto::MAX_CONFIG).
    pub size: u32,
    /// Who writes: 0 the guest, 1 a migration.
    pub flags: u32,
}

impl ConfigRange {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.u32(self.offset).u32(self.size).u32(self.flags);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Option<ConfigRange> {
        Some(ConfigRange {
            offset: reader.u32()?,
            size: reader.u32()?,
            flags: reader.u32()?,
        })
    }
}

/// Memory for the log of requests in flight (spec: Inflight description).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InflightArea {
    /// Its length in bytes.
    pub mmap_size: u64,
    /// Where it begins in its descriptor, in bytes.
    pub mmap_offset: u64,
    /// For how many rings.
    pub queues: u16,
    /// And how large these are.
    pub queue_size: u16,
}

impl InflightArea {
    /// With the 4 bytes that a C compiler puts at the structure's end: peers count them.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.u64(self.mmap_size).u64(self.mmap_offset);
        out.u16(self.queues).u16(self.queue_size).raw(&[0; 4]);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Option<InflightArea> {
        let area = InflightArea {
            mmap_size: reader.u64()?,
            mmap_offset: reader.u64()?,
            queues: reader.u16()?,
            queue_size: reader.u16()?,
        };
        matches!(reader.rest().len(), 0 | 4).then_some(area)
    }
}

/// How the device's state is moved (spec: Device state transfer parameters).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceState {
    /// 0: the back-end saves; 1: it loads.
    pub direction: u32,
    /// 0: the device is stopped. Others are not defined.
    pub phase: u32,
}

/// A part of a descriptor where a ring is to be notified (spec: A vring area description).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VringArea {
    /// The ring in bits 0 to 7; bit 8 if there is no descriptor.
    pub word: u64,
    /// Its length in bytes.
    pub size: u64,
    /// Where it begins, in bytes.
    pub offset: u64,
}

impl VringArea {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.u64(self.word).u64(self.size).u64(self.offset);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Option<VringArea> {
        Some(VringArea {
            word: reader.u64()?,
            size: reader.u64()?,
            offset: reader.u64()?,
        })
    }
}

/// Memory that the back-end maps for the guest (spec: VIRTIO Shared Memory Region).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShmemMap {
    /// The region's number.
    pub id: u8,
    /// Where it begins in its descriptor, in bytes.
    pub fd_offset: u64,
    /// Where it is put in the region, in bytes.
    pub shm_offset: u64,
    /// Its length in bytes.
    pub len: u64,
    /// 1: writable.
    pub flags: u64,
}

impl ShmemMap {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.u8(self.id).raw(&[0; 7]).u64(self.fd_offset);
        out.u64(self.shm_offset).u64(self.len).u64(self.flags);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Option<ShmemMap> {
        let id = reader.u8()?;
        reader.take::<7>()?;
        Some(ShmemMap {
            id,
            fd_offset: reader.u64()?,
            shm_offset: reader.u64()?,
            len: reader.u64()?,
            flags: reader.u64()?,
        })
    }
}
