//! Error values: from a system's `errno` to the few the protocol has, and back.
//!
//! The protocol allows eight values (spec: Error values), two of them only in answer to requests
//! that asked for them. A server must not leak others, a client must not trust others.

use crate::proto;

/// What a failed request had asked for, since two errors are only allowed in answer to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// `CMD_FLAG_FAST_ZERO` was set: "not supported" may be said.
    pub fast_zero: bool,
    /// `CMD_FLAG_DF` was set: "value too large" may be said.
    pub df: bool,
}

/// The value to send for a Linux `errno`. 0 stays 0; what the protocol has no word for is
/// `EINVAL`, as the client is told to take it anyway.
pub const fn nbd_errno(errno: i32, asked: Asked) -> u32 {
    match errno {
        0 => 0,
        linux::EPERM | linux::EROFS => proto::EPERM,
        linux::EIO => proto::EIO,
        linux::ENOMEM => proto::ENOMEM,
        linux::ENOSPC | linux::EDQUOT | linux::EFBIG => proto::ENOSPC,
        linux::ESHUTDOWN => proto::ESHUTDOWN,
        linux::EOPNOTSUPP if asked.fast_zero => proto::ENOTSUP,
        linux::EOVERFLOW if asked.df => proto::EOVERFLOW,
        _ => proto::EINVAL,
    }
}

/// The Linux `errno` for a value received from a server. 0 stays 0; a value that the protocol does
/// not have is `EINVAL` (spec: Error values).
pub const fn linux_errno(error: u32) -> i32 {
    match error {
        0 => 0,
        proto::EPERM => linux::EPERM,
        proto::EIO => linux::EIO,
        proto::ENOMEM => linux::ENOMEM,
        proto::ENOSPC => linux::ENOSPC,
        proto::EOVERFLOW => linux::EOVERFLOW,
        proto::ENOTSUP => linux::EOPNOTSUPP,
        proto::ESHUTDOWN => linux::ESHUTDOWN,
        _ => linux::EINVAL,
    }
}

/// The values of Linux, written out so that the mapping is the same wherever this is compiled.
/// `ENOTSUP` is the same number as `EOPNOTSUPP` there.
mod linux {
    pub const EPERM: i32 = 1;
    pub const EIO: i32 = 5;
    pub const ENOMEM: i32 = 12;
    pub const EINVAL: i32 = 22;
    pub const EFBIG: i32 = 27;
    pub const ENOSPC: i32 = 28;
    pub const EROFS: i32 = 30;
    pub const EOVERFLOW: i32 = 75;
    pub const EOPNOTSUPP: i32 = 95;
    pub const ESHUTDOWN: i32 = 108;
    pub const EDQUOT: i32 = 122;
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Asked = Asked {
        fast_zero: false,
        df: false,
    };

    #[test]
    fn to_the_wire() {
        let fast = Asked {
            fast_zero: true,
            df: false,
        };
        let df = Asked {
            fast_zero: false,
            df: true,
        };
        let table = [
            (0, NOTHING, 0),
            (1, NOTHING, 1),
            (30, NOTHING, 1),
            (5, NOTHING, 5),
            (12, NOTHING, 12),
            (28, NOTHING, 28),
            (122, NOTHING, 28),
            (27, NOTHING, 28),
            (108, NOTHING, 108),
            (95, NOTHING, 22),
            (95, fast, 95),
            (95, df, 22),
            (75, NOTHING, 22),
            (75, df, 75),
            (75, fast, 22),
            (2, NOTHING, 22),
            (-5, NOTHING, 22),
            (i32::MIN, NOTHING, 22),
        ];
        for (errno, asked, expected) in table {
            assert_eq!(nbd_errno(errno, asked), expected, "errno {errno} {asked:?}");
        }
    }

    #[test]
    fn and_back() {
        for known in [0, 1, 5, 12, 22, 28, 75, 95, 108] {
            assert_eq!(linux_errno(known), known as i32);
        }
        for unknown in [2, 4, 11, 30, 109, u32::MAX] {
            assert_eq!(linux_errno(unknown), 22);
        }
    }
}
