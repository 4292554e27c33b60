//! Which callbacks `--dump-plugin` says a plugin has. blkit's sources have none: the list is what
//! nbdkit's plugin of the same name can do, for scripts that look for one.

use block::ThreadModel;

/// What a plugin can do.
#[derive(Clone, Copy)]
pub struct Callbacks {
    name: &'static str,
    /// How much may happen at once, without filters.
    pub model: ThreadModel,
    /// A letter each: Write, Flush, Trim, Zero, fast zero (z), eXtents, Cache, Multi-conn, fUa (u),
    /// Block size, list of exports (L).
    can: &'static str,
    /// Lines of its own.
    pub more: &'static [&'static str],
}

const PARALLEL: ThreadModel = ThreadModel::Parallel;

const fn entry(name: &'static str, can: &'static str, more: &'static [&'static str]) -> Callbacks {
    Callbacks {
        name,
        model: PARALLEL,
        can,
        more,
    }
}

const PLUGINS: &[Callbacks] = &[
    entry("blkio", "WFTZXMuB", &[]),
    entry(
        "data",
        "WFTZzXMuC",
        &["data_base64=yes", "mlock=yes", "zstd=yes"],
    ),
    entry("example1", "", &[]),
    entry("example2", "", &[]),
    entry("example3", "W", &[]),
    entry("example4", "W", &[]),
    entry("floppy", "MBC", &[]),
    entry("full", "WTXMC", &[]),
    entry(
        "file",
        "WFTZXCMuBL",
        &[
            "file_blksszget=yes",
            "file_blkzeroout=yes",
            "file_falloc_fl_punch_hole=yes",
            "file_falloc_fl_zero_range=yes",
        ],
    ),
    entry("info", "MC", &["info_address=yes", "info_base64=yes"]),
    entry("iso", "MC", &[]),
    entry("linuxdisk", "MC", &[]),
    entry("memory", "WFTZzXMuC", &["mlock=yes", "zstd=yes"]),
    entry("null", "WFTZzXMuC", &[]),
    entry("ondemand", "WFTMuL", &[]),
    entry("ones", "WFTZzXMuC", &[]),
    entry("partitioning", "WFMC", &[]),
    entry("pattern", "WMC", &[]),
    entry("random", "WTZMC", &[]),
    entry("sparse-random", "WFTZXMBC", &[]),
    entry("split", "WXC", &[]),
    entry("tmpdisk", "WFTMu", &[]),
    entry("zero", "MC", &[]),
];

/// The entry of a plugin.
pub fn of_plugin(name: &str) -> Callbacks {
    let known = PLUGINS.iter().find(|entry| entry.name == name);
    known.copied().unwrap_or(entry("", "WFTZXM", &[]))
}

impl Callbacks {
    /// The names, in nbdkit's order.
    pub fn list(&self) -> Vec<&'static str> {
        const ALL: &[(&str, Option<char>)] = &[
            ("config", None),
            ("config_complete", None),
            ("config_help", None),
            ("list_exports", Some('L')),
            ("open", None),
            ("close", None),
            ("get_size", None),
            ("block_size", Some('B')),
            ("can_write", Some('W')),
            ("can_trim", Some('T')),
            ("can_zero", Some('Z')),
            ("can_fast_zero", Some('z')),
            ("can_extents", Some('X')),
            ("can_fua", Some('u')),
            ("can_multi_conn", Some('M')),
            ("can_cache", Some('C')),
            ("pread", None),
            ("pwrite", Some('W')),
            ("flush", Some('F')),
            ("trim", Some('T')),
            ("zero", Some('Z')),
            ("extents", Some('X')),
            ("cache", Some('C')),
        ];
        let has = |letter: &Option<char>| letter.is_none_or(|letter| self.can.contains(letter));
        ALL.iter()
            .filter(|(_, letter)| has(letter))
            .map(|(name, _)| *name)
            .collect()
    }
}
