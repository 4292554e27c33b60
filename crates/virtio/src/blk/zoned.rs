//! Zones: what a zone report says (specification, 5.2.6, ZONE_REPORT).

/// Bytes of a zone in a report, and of the report's header.
pub const ZONE_DESCRIPTOR_LEN: usize = 64;

/// What a zone takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ZoneType {
    /// Writes anywhere.
    Conventional = 1,
    /// Writes at the write pointer only.
    SequentialRequired = 2,
    /// Writes at the write pointer are better.
    SequentialPreferred = 3,
}

/// In what state a zone is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ZoneState {
    /// It has no write pointer.
    NotWritePointer = 0,
    /// Nothing was written.
    Empty = 1,
    /// Opened by a write.
    ImplicitlyOpen = 2,
    /// Opened by a request.
    ExplicitlyOpen = 3,
    /// Closed, with room left.
    Closed = 4,
    /// Cannot be written any more.
    ReadOnly = 13,
    /// Written to its end, or finished.
    Full = 14,
    /// Cannot be read any more.
    Offline = 15,
}

/// A zone. Everything is in sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Sectors that can be written.
    pub capacity: u64,
    /// The first sector.
    pub start: u64,
    /// The write pointer.
    pub write_pointer: u64,
    /// What it takes.
    pub kind: ZoneType,
    /// In what state it is.
    pub state: ZoneState,
}

impl Zone {
    /// As it stands in a report.
    pub fn encode(&self) -> [u8; ZONE_DESCRIPTOR_LEN] {
        let mut bytes = [0; ZONE_DESCRIPTOR_LEN];
        bytes[..8].copy_from_slice(&self.capacity.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.start.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.write_pointer.to_le_bytes());
        bytes[24] = self.kind as u8;
        bytes[25] = self.state as u8;
        bytes
    }

    /// From a report; None if type or state do not exist.
    pub fn decode(bytes: &[u8; ZONE_DESCRIPTOR_LEN]) -> Option<Zone> {
        let number = |at: usize| {
            bytes[at..at + 8]
                .iter()
                .rev()
                .fold(0, |n, byte| n << 8 | u64::from(*byte))
        };
        Some(Zone {
            capacity: number(0),
            start: number(8),
            write_pointer: number(16),
            kind: match bytes[24] {
                1 => ZoneType::Conventional,
                2 => ZoneType::SequentialRequired,
                3 => ZoneType::SequentialPreferred,
                _ => return None,
            },
            state: match bytes[25] {
                0 => ZoneState::NotWritePointer,
                1 => ZoneState::Empty,
                2 => ZoneState::ImplicitlyOpen,
                3 => ZoneState::ExplicitlyOpen,
                4 => ZoneState::Closed,
                13 => ZoneState::ReadOnly,
                14 => ZoneState::Full,
                15 => ZoneState::Offline,
                _ => return None,
            },
        })
    }
}

/// The header of a report of so many zones.
pub fn zone_header(zones: u64) -> [u8; ZONE_DESCRIPTOR_LEN] {
    let mut bytes = [0; ZONE_DESCRIPTOR_LEN];
    bytes[..8].copy_from_slice(&zones.to_le_bytes());
    bytes
}

/// How many zones a report's header says there are, at most as many as the report has room for.
pub fn zone_count(report: &[u8]) -> usize {
    let Some((count, _)) = report.split_first_chunk() else {
        return 0;
    };
    let room = (report.len() / ZONE_DESCRIPTOR_LEN).saturating_sub(1);
    usize::try_from(u64::from_le_bytes(*count)).map_or(room, |count| count.min(room))
}
