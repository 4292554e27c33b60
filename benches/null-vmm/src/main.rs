//! `blkit-null-vmm SOCKET BYTES QUEUES`: a null disk over vhost-user, on the rust-vmm crates.
//!
//! **What.** Reads and writes are answered and touch no data; other requests are unsupported. It is
//! what `vhost-user-backend` and `virtio-queue` cost, with the checks a device owes a hostile guest:
//! the header is copied once, the order of descriptors and the place on the disk are checked, and
//! every descriptor is translated.
//!
//! **Why so.** A yardstick must be the others' best: one thread per queue and no lock of ours, memory
//! looked up once per batch, kicks off while the ring is drained, one call per batch at most.
#![forbid(unsafe_code)]

use std::{io, ops::Deref, sync::Arc};

use anyhow::{Context, Result, bail};
use vhost::vhost_user::{Listener, VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost_user_backend::{VhostUserBackend, VhostUserDaemon, VringRwLock, VringState, VringT};
use virtio_bindings::{
    virtio_blk::{
        VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_S_IOERR,
        VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
    },
    virtio_config::VIRTIO_F_VERSION_1,
    virtio_ring::VIRTIO_RING_F_EVENT_IDX,
};
use virtio_queue::{DescriptorChain, QueueT};
use vm_memory::{
    Bytes, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryBackend, GuestMemoryMmap,
};
use vmm_sys_util::{
    epoll::EventSet,
    event::{EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier},
};

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;
type State = VringState<Memory>;

const SECTOR: u64 = 512;

/// The device.
struct Null {
    memory: Memory,
    capacity: u64,
    queues: u16,
    event_index: std::sync::atomic::AtomicBool,
}

/// What the rest of a chain was.
struct Request {
    status: u8,
    status_at: GuestAddress,
    written: u32,
}

impl Null {
    /// Answers all that is there.
    fn drain(&self, vring: &VringRwLock<Memory>) -> io::Result<()> {
        let memory = self.memory.memory();
        let memory: &GuestMemoryMmap = memory.deref();
        let mut state = vring.get_mut();
        let state: &mut State = &mut state;
        let mut some = false;
        while let Some(chain) = state.get_queue_mut().pop_descriptor_chain(memory) {
            let head = chain.head_index();
            let written = match self.look(memory, chain) {
                Some(request) => {
                    let told = memory.write_obj(request.status, request.status_at);
                    request.written * u32::from(told.is_ok())
                }
                None => 0,
            };
            state.add_used(head, written).map_err(io::Error::other)?;
            some = true;
        }
        if some && state.needs_notification().map_err(io::Error::other)? {
            state.signal_used_queue()?;
        }
        Ok(())
    }

    /// Reads a chain: header, data, status. `None` if there is no place for a status.
    fn look(
        &self,
        memory: &GuestMemoryMmap,
        mut chain: DescriptorChain<&GuestMemoryMmap>,
    ) -> Option<Request> {
        let first = chain.next()?;
        let mut header = [0; 16];
        let mut good = !first.is_write_only()
            && first.len() as usize == header.len()
            && memory.read_slice(&mut header, first.addr()).is_ok();
        let word = u128::from_le_bytes(header);
        let (kind, sector) = (word as u32, (word >> 64) as u64);
        let reads = kind == VIRTIO_BLK_T_IN;
        let mut last = chain.next()?;
        let mut len = 0u64;
        for next in chain {
            good &= last.is_write_only() == reads
                && memory.get_slice(last.addr(), last.len() as usize).is_ok();
            len += u64::from(last.len());
            last = next;
        }
        if !last.is_write_only() || last.len() != 1 {
            return None;
        }
        good &= len.is_multiple_of(SECTOR)
            && sector
                .checked_add(len / SECTOR)
                .is_some_and(|end| end <= self.capacity);
        let known = reads || kind == VIRTIO_BLK_T_OUT;
        let status = match (known, good) {
            (false, _) => VIRTIO_BLK_S_UNSUPP,
            (true, false) => VIRTIO_BLK_S_IOERR,
            (true, true) => VIRTIO_BLK_S_OK,
        };
        Some(Request {
            status: status as u8,
            status_at: last.addr(),
            written: if reads && good { len as u32 + 1 } else { 1 },
        })
    }
}

impl VhostUserBackend for Null {
    type Bitmap = ();
    type Vring = VringRwLock<Memory>;

    fn num_queues(&self) -> usize {
        self.queues.into()
    }

    fn max_queue_size(&self) -> usize {
        1024
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_F_VERSION_1
            | 1 << VIRTIO_RING_F_EVENT_IDX
            | 1 << VIRTIO_BLK_F_BLK_SIZE
            | 1 << VIRTIO_BLK_F_SEG_MAX
            | 1 << VIRTIO_BLK_F_MQ
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
            | VhostUserProtocolFeatures::REPLY_ACK
    }

    fn set_event_idx(&self, enabled: bool) {
        let order = std::sync::atomic::Ordering::Relaxed;
        self.event_index.store(enabled, order);
    }

    fn update_memory(&self, _: Memory) -> io::Result<()> {
        // It is the one that the daemon was made with.
        Ok(())
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let mut config = [0; 60];
        config[..8].copy_from_slice(&self.capacity.to_le_bytes());
        config[12..16].copy_from_slice(&126u32.to_le_bytes());
        config[20..24].copy_from_slice(&512u32.to_le_bytes());
        config[34..36].copy_from_slice(&self.queues.to_le_bytes());
        let range = offset as usize..offset as usize + size as usize;
        config.get(range).unwrap_or_default().to_vec()
    }

    fn queues_per_thread(&self) -> Vec<u64> {
        (0..self.queues).map(|queue| 1 << queue).collect()
    }

    fn exit_event(&self, _: usize) -> Option<(EventConsumer, EventNotifier)> {
        new_event_consumer_and_notifier(EventFlag::NONBLOCK).ok()
    }

    fn handle_event(
        &self,
        event: u16,
        _: EventSet,
        vrings: &[Self::Vring],
        _: usize,
    ) -> io::Result<()> {
        // One ring for each thread: its kick is event 0.
        let vring = match vrings {
            [vring] if event == 0 => vring,
            _ => return Err(io::Error::other("an event of no ring")),
        };
        if !self.event_index.load(std::sync::atomic::Ordering::Relaxed) {
            return self.drain(vring);
        }
        loop {
            vring.disable_notification().map_err(io::Error::other)?;
            self.drain(vring)?;
            if !vring.enable_notification().map_err(io::Error::other)? {
                return Ok(());
            }
        }
    }
}

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [socket, bytes, queues] = words.as_slice() else {
        bail!("usage: blkit-null-vmm SOCKET BYTES QUEUES");
    };
    let (bytes, queues): (u64, u16) = (bytes.parse()?, queues.parse()?);
    let mut listener = Listener::new(socket, true).with_context(|| socket.clone())?;
    loop {
        let memory = Memory::new(GuestMemoryMmap::new());
        let null = Arc::new(Null {
            memory: memory.clone(),
            capacity: bytes / SECTOR,
            queues,
            event_index: false.into(),
        });
        let name = "null".to_owned();
        let mut daemon = VhostUserDaemon::new(name, null, memory)
            .map_err(|error| anyhow::anyhow!("daemon: {error:?}"))?;
        daemon
            .start(&mut listener)
            .map_err(|error| anyhow::anyhow!("listen: {error:?}"))?;
        if let Err(error) = daemon.wait() {
            // A front-end that goes is how every session ends.
            eprintln!("session: {error:?}");
        }
    }
}
