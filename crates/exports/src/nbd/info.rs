//! What a device's limits look like to an NBD client.

use block::{Access, Limits, Op};
use nbd::{
    proto,
    server::{BlockSizes, Context, ExportInfo},
};

/// The export's size, flags and block sizes.
pub(super) fn export_info(limits: &Limits, access: Access, name: &str) -> ExportInfo {
    let preferred = limits
        .preferred_block
        .clamp(BlockSizes::MIN_PREFERRED, 32 << 20);
    ExportInfo {
        size: limits.size,
        flags: flags(limits, access),
        // The minimum is always 1: a device with larger blocks is normalised below the export.
        block_sizes: BlockSizes::new(1, preferred, limits.max_transfer.max(preferred)),
        max_payload: limits.max_transfer,
        name: name.to_owned(),
        description: String::new(),
    }
}

/// Transmission flags (spec: Handshake phase, transmission flags).
fn flags(limits: &Limits, access: Access) -> u16 {
    let offers = |op| limits.support(op).is_offered();
    let writable = access == Access::ReadWrite && offers(Op::Write);
    let flags = [
        (!writable, proto::FLAG_READ_ONLY),
        (offers(Op::Flush), proto::FLAG_SEND_FLUSH),
        (writable && limits.fua.is_offered(), proto::FLAG_SEND_FUA),
        (limits.rotational, proto::FLAG_ROTATIONAL),
        (writable && offers(Op::Discard), proto::FLAG_SEND_TRIM),
        (
            writable && offers(Op::WriteZeroes),
            proto::FLAG_SEND_WRITE_ZEROES,
        ),
        (writable && limits.fast_zero, proto::FLAG_SEND_FAST_ZERO),
        (limits.multi_conn, proto::FLAG_CAN_MULTI_CONN),
        (offers(Op::Cache), proto::FLAG_SEND_CACHE),
        // Taken away again by the handshake where they do not apply.
        (true, proto::FLAG_SEND_DF),
        (true, proto::FLAG_BLOCK_STATUS_PAYLOAD),
    ];
    flags
        .iter()
        .filter(|(set, _)| *set)
        .fold(proto::FLAG_HAS_FLAGS, |all, (_, flag)| all | flag)
}

/// The metadata contexts of a device. `base:allocation` is always there: a device that cannot tell
/// is all data.
pub(super) fn contexts(limits: &Limits) -> Vec<Context> {
    let others = limits.contexts.iter().map(|name| name.to_string());
    [proto::CONTEXT_BASE_ALLOCATION.to_owned()]
        .into_iter()
        .chain(others)
        .enumerate()
        .map(|(id, name)| Context {
            id: id as u32,
            name,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use block::{OpSet, Support};

    use super::*;

    #[test]
    fn a_read_only_export_offers_no_writing() {
        let mut limits = Limits::new(1 << 20, OpSet::DISK);
        limits.fua = Support::Native;
        limits.fast_zero = true;
        let info = export_info(&limits, Access::ReadOnly, "x");
        let writing = proto::FLAG_SEND_FUA
            | proto::FLAG_SEND_TRIM
            | proto::FLAG_SEND_WRITE_ZEROES
            | proto::FLAG_SEND_FAST_ZERO;
        assert_eq!(info.flags & writing, 0);
        assert_ne!(info.flags & proto::FLAG_READ_ONLY, 0);
        assert_ne!(info.flags & proto::FLAG_SEND_FLUSH, 0);
        let info = export_info(&limits, Access::ReadWrite, "x");
        assert_eq!(info.flags & writing, writing);
        assert_eq!(info.flags & proto::FLAG_READ_ONLY, 0);
    }

    #[test]
    fn block_sizes_are_always_valid() {
        for preferred in [1, 512, 4096, 1 << 30] {
            let mut limits = Limits::new(1 << 20, OpSet::DISK);
            limits.preferred_block = preferred;
            assert!(
                export_info(&limits, Access::ReadOnly, "")
                    .block_sizes
                    .is_some(),
                "{preferred}"
            );
        }
    }
}
