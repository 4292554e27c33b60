//! The numbers of the protocol.

/// Length of a message's header, in bytes: request, flags, size of the payload.
pub const HEADER_LEN: usize = 12;

/// Longest payload taken, in bytes. The longest that a peer of ours has reason to send is a table
/// of shared memory regions, 2056.
pub const MAX_PAYLOAD: usize = 4096;

/// Most descriptors that come with one message: one for each region of a memory table.
pub const MAX_FDS: usize = 8;

/// Most regions of SET_MEM_TABLE.
pub const MAX_TABLE_REGIONS: usize = 8;

/// Most bytes of configuration space in one message.
pub const MAX_CONFIG: usize = 256;

/// Most rings: their index has 8 bits where a descriptor comes with it.
pub const MAX_VRINGS: u16 = 256;

/// The header's flags (spec: Header).
pub mod flags {
    /// The version of the protocol, in the lowest 2 bits.
    pub const VERSION: u32 = 1;
    /// Where the version stands.
    pub const VERSION_MASK: u32 = 3;
    /// This is a reply.
    pub const REPLY: u32 = 1 << 2;
    /// The sender wants an acknowledgement, if REPLY_ACK was agreed on.
    pub const NEED_REPLY: u32 = 1 << 3;
}

/// Bits of features that mean the protocol, not the device.
pub mod feature {
    /// `VHOST_F_LOG_ALL`: writes to guest memory are logged.
    pub const LOG_ALL: u64 = 1 << 26;
    /// `VHOST_USER_F_PROTOCOL_FEATURES`: there are protocol features.
    pub const PROTOCOL_FEATURES: u64 = 1 << 30;
    /// `VIRTIO_F_VERSION_1`.
    pub const VERSION_1: u64 = 1 << 32;
    /// `VIRTIO_F_ACCESS_PLATFORM`: addresses go through an IOMMU.
    pub const ACCESS_PLATFORM: u64 = 1 << 33;
    /// `VIRTIO_F_RING_PACKED`.
    pub const RING_PACKED: u64 = 1 << 34;
}

/// Protocol features (spec: Protocol features), as bits of a set.
pub mod protocol {
    /// Several queues; GET_QUEUE_NUM.
    pub const MQ: u64 = 1 << 0;
    /// The dirty log is shared memory.
    pub const LOG_SHMFD: u64 = 1 << 1;
    /// Announcing a guest after migration.
    pub const RARP: u64 = 1 << 2;
    /// Requests are acknowledged if asked for.
    pub const REPLY_ACK: u64 = 1 << 3;
    /// Setting the MTU.
    pub const NET_MTU: u64 = 1 << 4;
    /// A channel for requests of the back-end.
    pub const BACKEND_REQ: u64 = 1 << 5;
    /// Byte order of rings.
    pub const CROSS_ENDIAN: u64 = 1 << 6;
    /// Sessions of cryptography.
    pub const CRYPTO_SESSION: u64 = 1 << 7;
    /// Migration by post-copy.
    pub const PAGEFAULT: u64 = 1 << 8;
    /// Configuration space is the back-end's.
    pub const CONFIG: u64 = 1 << 9;
    /// Descriptors on the back-end's channel.
    pub const BACKEND_SEND_FD: u64 = 1 << 10;
    /// The guest notifies hardware directly.
    pub const HOST_NOTIFIER: u64 = 1 << 11;
    /// Requests in flight survive the back-end.
    pub const INFLIGHT_SHMFD: u64 = 1 << 12;
    /// RESET_DEVICE.
    pub const RESET_DEVICE: u64 = 1 << 13;
    /// Notifications as messages.
    pub const INBAND_NOTIFICATIONS: u64 = 1 << 14;
    /// Regions of memory come and go one by one.
    pub const CONFIGURE_MEM_SLOTS: u64 = 1 << 15;
    /// The device's status byte is told.
    pub const STATUS: u64 = 1 << 16;
    /// Memory mapped by way of Xen.
    pub const XEN_MMAP: u64 = 1 << 17;
    /// Objects shared between devices.
    pub const SHARED_OBJECT: u64 = 1 << 18;
    /// The device's inner state can be moved.
    pub const DEVICE_STATE: u64 = 1 << 19;
    /// GET_VRING_BASE leaves requests in flight in their log.
    pub const GET_VRING_BASE_INFLIGHT: u64 = 1 << 20;
    /// Addresses of rings are guest-physical.
    pub const GPA_ADDRESSES: u64 = 1 << 21;
    /// The back-end maps memory for the guest.
    pub const SHMEM_MAP: u64 = 1 << 22;
}

macro_rules! requests {
    ($(#[$doc:meta])* $name:ident { $($(#[$one:meta])* $variant:ident = $number:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum $name { $($(#[$one])* $variant = $number,)* }

        impl $name {
            /// All of them, in the order of their numbers.
            pub const ALL: &[$name] = &[$($name::$variant,)*];

            /// The one of this number.
            pub const fn of(number: u32) -> Option<$name> {
                match number {
                    $($number => Some($name::$variant),)*
                    _ => None,
                }
            }

            /// Its number.
            pub const fn number(self) -> u32 {
                self as u32
            }
        }
    };
}

requests! {
    /// What a front-end asks (spec: Front-end message types).
    Request {
        /// Features of the device and of the protocol.
        GetFeatures = 1,
        /// Features that are used.
        SetFeatures = 2,
        /// The session begins.
        SetOwner = 3,
        /// Of old; without effect.
        ResetOwner = 4,
        /// All memory of the guest.
        SetMemTable = 5,
        /// Where writes to guest memory are logged.
        SetLogBase = 6,
        /// What to signal when something was logged.
        SetLogFd = 7,
        /// Size of a ring.
        SetVringNum = 8,
        /// Where a ring lies.
        SetVringAddr = 9,
        /// Where a ring goes on.
        SetVringBase = 10,
        /// Stops a ring.
        GetVringBase = 11,
        /// What the guest signals; starts a ring.
        SetVringKick = 12,
        /// What to signal when requests are done.
        SetVringCall = 13,
        /// What to signal when a ring is broken.
        SetVringErr = 14,
        /// Protocol features there are.
        GetProtocolFeatures = 15,
        /// Protocol features that are used.
        SetProtocolFeatures = 16,
        /// Number of rings there can be.
        GetQueueNum = 17,
        /// Makes a ring do its work, or not.
        SetVringEnable = 18,
        /// Announces a guest in its network.
        SendRarp = 19,
        /// The network's largest packet.
        NetSetMtu = 20,
        /// The channel for requests of the back-end.
        SetBackendReqFd = 21,
        /// A translation of addresses.
        IotlbMsg = 22,
        /// Byte order of a ring.
        SetVringEndian = 23,
        /// Reads configuration space.
        GetConfig = 24,
        /// Writes configuration space.
        SetConfig = 25,
        /// Begins a session of cryptography.
        CreateCryptoSession = 26,
        /// Ends one.
        CloseCryptoSession = 27,
        /// Post-copy is going to be used.
        PostcopyAdvise = 28,
        /// Post-copy: memory is to be registered.
        PostcopyListen = 29,
        /// Post-copy is over.
        PostcopyEnd = 30,
        /// Memory for the log of requests in flight.
        GetInflightFd = 31,
        /// The log of requests in flight.
        SetInflightFd = 32,
        /// A socket for graphics.
        GpuSetSocket = 33,
        /// Back to the state of the beginning.
        ResetDevice = 34,
        /// A ring has something new, told in-band.
        VringKick = 35,
        /// Number of regions of memory there can be.
        GetMaxMemSlots = 36,
        /// One more region of memory.
        AddMemReg = 37,
        /// One region less.
        RemMemReg = 38,
        /// The device's status byte.
        SetStatus = 39,
        /// The same, asked for.
        GetStatus = 40,
        /// An object shared between devices.
        GetSharedObject = 41,
        /// The device's state is moved through a descriptor.
        SetDeviceStateFd = 42,
        /// Whether that went well.
        CheckDeviceState = 43,
        /// Memory that the back-end maps for the guest.
        GetShmemConfig = 44,
    }
}

requests! {
    /// What a back-end asks on its channel (spec: Back-end message types).
    BackRequest {
        /// A translation of addresses is missing.
        IotlbMsg = 1,
        /// Configuration space has changed: the disk's size, say.
        ConfigChange = 2,
        /// Where the guest may notify hardware directly.
        VringHostNotifier = 3,
        /// Requests are done, told in-band.
        VringCall = 4,
        /// A ring is broken, told in-band.
        VringErr = 5,
        /// An object is shared.
        SharedObjectAdd = 6,
        /// It is no longer.
        SharedObjectRemove = 7,
        /// Who has that object?
        SharedObjectLookup = 8,
        /// Maps memory for the guest.
        ShmemMap = 9,
        /// Takes it away.
        ShmemUnmap = 10,
    }
}
