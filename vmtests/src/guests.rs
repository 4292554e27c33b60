//! The guests, and what is tried in each: few, because booting one costs seconds.

use anyhow::Result;

use crate::{
    cases::{nbd, vhost_user, vsock},
    host::{Lab, Nothing, Services},
    inside::Case,
};

/// A guest.
pub struct Guest {
    /// What it is called.
    pub name: &'static str,
    /// Options of `cargo xtask vm run`.
    pub options: &'static [&'static str],
    /// What is tried in it, in this order.
    pub cases: &'static [Case],
    /// What the host does for it.
    pub services: fn(&Lab) -> Result<Box<dyn Services>>,
}

/// A case, by its name and its function.
const fn case(name: &'static str, run: fn() -> Result<()>) -> Case {
    Case { name, run }
}

/// All of them.
pub const GUESTS: &[Guest] = &[
    Guest {
        name: "kernel",
        options: &["--mod", "nbd", "--mod", "vsock_loopback"],
        cases: &[
            case("nbd_ko", nbd::a_kernel_disk),
            case("vsock", vsock::a_server_is_reached),
        ],
        services: |_| Ok(Box::new(Nothing)),
    },
    Guest {
        name: "vhost-user",
        options: &["--smp", "2", "--tool", "blkdiscard"],
        cases: &[
            case("vhost_user_load", vhost_user::load),
            case("vhost_user_discard", vhost_user::discard),
            case("vhost_user_killed", vhost_user::killed),
            case("vhost_user_resize", vhost_user::resize),
            case("vhost_user_file_system", vhost_user::file_system),
        ],
        services: vhost_user::servers,
    },
];
