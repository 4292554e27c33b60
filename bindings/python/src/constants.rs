//! The constants of the module `nbd`.

use handle as h;
use pyo3::prelude::*;

/// Adds them.
pub fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    for (name, value) in SIGNED {
        module.add(*name, *value)?;
    }
    for (name, value) in BITS {
        module.add(*name, *value)?;
    }
    for (name, value) in TEXTS {
        module.add(*name, *value)?;
    }
    Ok(())
}

const SIGNED: &[(&str, i32)] = &[
    ("TLS_DISABLE", h::TLS_DISABLE),
    ("TLS_ALLOW", h::TLS_ALLOW),
    ("TLS_REQUIRE", h::TLS_REQUIRE),
    ("SIZE_MINIMUM", h::SIZE_MINIMUM),
    ("SIZE_PREFERRED", h::SIZE_PREFERRED),
    ("SIZE_MAXIMUM", h::SIZE_MAXIMUM),
    ("SIZE_PAYLOAD", h::SIZE_PAYLOAD),
];

const BITS: &[(&str, u32)] = &[
    ("CMD_FLAG_FUA", h::CMD_FLAG_FUA),
    ("CMD_FLAG_NO_HOLE", h::CMD_FLAG_NO_HOLE),
    ("CMD_FLAG_DF", h::CMD_FLAG_DF),
    ("CMD_FLAG_REQ_ONE", h::CMD_FLAG_REQ_ONE),
    ("CMD_FLAG_FAST_ZERO", h::CMD_FLAG_FAST_ZERO),
    ("CMD_FLAG_PAYLOAD_LEN", h::CMD_FLAG_PAYLOAD_LEN),
    ("CMD_FLAG_MASK", h::CMD_FLAG_MASK),
    (
        "HANDSHAKE_FLAG_FIXED_NEWSTYLE",
        h::HANDSHAKE_FLAG_FIXED_NEWSTYLE,
    ),
    ("HANDSHAKE_FLAG_NO_ZEROES", h::HANDSHAKE_FLAG_NO_ZEROES),
    ("HANDSHAKE_FLAG_MASK", h::HANDSHAKE_FLAG_MASK),
    ("STRICT_COMMANDS", h::STRICT_COMMANDS),
    ("STRICT_FLAGS", h::STRICT_FLAGS),
    ("STRICT_BOUNDS", h::STRICT_BOUNDS),
    ("STRICT_ZERO_SIZE", h::STRICT_ZERO_SIZE),
    ("STRICT_ALIGN", h::STRICT_ALIGN),
    ("STRICT_PAYLOAD", h::STRICT_PAYLOAD),
    ("STRICT_AUTO_FLAG", h::STRICT_AUTO_FLAG),
    ("STRICT_MASK", h::STRICT_MASK),
    ("ALLOW_TRANSPORT_TCP", h::ALLOW_TRANSPORT_TCP),
    ("ALLOW_TRANSPORT_UNIX", h::ALLOW_TRANSPORT_UNIX),
    ("ALLOW_TRANSPORT_VSOCK", h::ALLOW_TRANSPORT_VSOCK),
    ("ALLOW_TRANSPORT_SSH", h::ALLOW_TRANSPORT_SSH),
    ("ALLOW_TRANSPORT_MASK", h::ALLOW_TRANSPORT_MASK),
    ("SHUTDOWN_ABANDON_PENDING", h::SHUTDOWN_ABANDON_PENDING),
    ("SHUTDOWN_MASK", h::SHUTDOWN_MASK),
    ("AIO_DIRECTION_READ", h::AIO_DIRECTION_READ),
    ("AIO_DIRECTION_WRITE", h::AIO_DIRECTION_WRITE),
    ("AIO_DIRECTION_BOTH", h::AIO_DIRECTION_BOTH),
    ("READ_DATA", h::READ_DATA),
    ("READ_HOLE", h::READ_HOLE),
    ("READ_ERROR", h::READ_ERROR),
    // Flags of extents, by context: base:allocation and qemu:dirty-bitmap.
    ("STATE_HOLE", 1),
    ("STATE_ZERO", 2),
    ("STATE_DIRTY", 1),
];

const TEXTS: &[(&str, &str)] = &[
    ("NAMESPACE_BASE", "base:"),
    ("NAMESPACE_QEMU", "qemu:"),
    ("CONTEXT_BASE_ALLOCATION", "base:allocation"),
    ("CONTEXT_QEMU_DIRTY_BITMAP", "qemu:dirty-bitmap:"),
    ("CONTEXT_QEMU_ALLOCATION_DEPTH", "qemu:allocation-depth"),
];
