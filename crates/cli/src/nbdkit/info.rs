//! What nbdkit tells about itself: usage, versions, configuration and plugins, for people, completion
//! and scripts that probe.

use std::{ffi::OsString, fmt::Write};

use block::ThreadModel;
use graph::{GraphSpec, Registry};

use super::{callbacks, options::SPELLINGS, words::PLUGIN_FOLDER};

/// The version of nbdkit whose behaviour this is: scripts compare it.
pub const VERSION: &str = "1.48.1";

/// The usage.
pub const USAGE: &str = "\
nbdkit [-4|--ipv4-only] [-6|--ipv6-only] [-D|--debug PLUGIN|FILTER|nbdkit.FLAG=N]
       [--exit-with-parent] [-e|--exportname EXPORTNAME]
       [--filter=FILTER ...] [-f|--foreground] [-g|--group GROUP]
       [-i|--ipaddr IPADDR] [--keepalive]
       [--log=default|stderr|syslog|null|/path] [--mask-handshake=MASK]
       [--name=NAME] [-n|--newstyle] [--no-mc|--no-meta-contexts]
       [--no-sr|--no-structured-replies] [-o|--oldstyle] [-P|--pidfile PIDFILE]
       [-p|--port PORT] [--print-uri] [-r|--readonly]
       [--run 'COMMAND ARGS ...'] [--selinux-label=LABEL] [-s|--single]
       [--swap] [-t|--threads THREADS] [--timeout=TIMEOUT]
       [--tls=off|on|require] [--tls-certificates=/path/to/certificates]
       [--tls-priority=PRIORITY] [--tls-psk=/path/to/pskfile]
       [--tls-verify-peer] [-U|--unix SOCKET|-] [-u|--user USER]
       [-v|--verbose] [--vsock]
       PLUGIN [[KEY=]VALUE [KEY=VALUE [...]]] | @PATH

nbdkit --dump-config

nbdkit PLUGIN --dump-plugin

nbdkit --help

nbdkit [-V|--version]

nbdkit [--short-options|--long-options]

This is blkit's nbdkit. 'blkit help PLUGIN' explains a plugin; the nbdkit(1)
manual page explains the options.
";

/// All spellings of one kind, one on a line.
pub fn spellings(long: bool) -> String {
    let mut list: Vec<String> = SPELLINGS
        .iter()
        .filter(|spelling| (spelling.name.len() > 1) == long)
        .map(|spelling| format!("{}{}", if long { "--" } else { "-" }, spelling.name))
        .collect();
    if long {
        list.sort();
    }
    list.join("\n") + "\n"
}

/// `--help`: the usage, then filters and plugin, if there are any.
pub fn help(registry: &Registry, filters: &[&str], plugin: Option<&str>) -> String {
    let mut text = USAGE.to_owned();
    let schemas = filters
        .iter()
        .filter_map(|name| Some(("filter", registry.filter(name).ok()?.schema)));
    let plugin = plugin.and_then(|name| Some(("plugin", registry.source(name).ok()?.schema)));
    for (kind, schema) in schemas.chain(plugin) {
        let _ = write!(
            text,
            "\n{kind}: {}\n(built in)\n{}\n",
            schema.name,
            schema.summary()
        );
        for param in schema.params {
            let required = if param.required { " (required)" } else { "" };
            let (name, value) = (param.name, param.type_name);
            let _ = writeln!(text, "{name}=<{value}>{required} {}", param.summary());
        }
    }
    text
}

/// `--version`: of the program, then of filters and plugin.
pub fn version(filters: &[&str], plugin: Option<&str>) -> String {
    let mut text = format!("nbdkit {VERSION}\n");
    for name in filters.iter().copied().chain(plugin) {
        let _ = writeln!(text, "{name} {VERSION}");
    }
    text
}

/// `--dump-config`, sorted by key.
pub fn config() -> String {
    let binary = std::env::current_exe().unwrap_or_default();
    let bindir = binary.parent().unwrap_or(&binary).display().to_string();
    let (major, rest) = VERSION.split_once('.').unwrap_or((VERSION, "0"));
    let minor = rest.split('.').next().unwrap_or("0");
    let mut lines = vec![
        format!("binary={}", binary.display()),
        format!("bindir={bindir}"),
        "exit_with_parent=yes".into(),
        "filterdir=/usr/lib/nbdkit/filters".into(),
        format!("host_cpu={}", std::env::consts::ARCH),
        format!("host_os={}-gnu", std::env::consts::OS),
        "libdir=/usr/lib".into(),
        "mandir=/usr/share/man".into(),
        "max_api_version=2".into(),
        "name=nbdkit".into(),
        format!("plugindir={PLUGIN_FOLDER}"),
        "root_tls_certificates_dir=/etc/pki/nbdkit".into(),
        "run_default_socket=Unix".into(),
        format!("sbindir={bindir}"),
        "selinux=yes".into(),
        "soext=so".into(),
        "sysconfdir=/etc".into(),
        "timeout_option=yes".into(),
        format!("tls={}", if ::tls::BUILT { "yes" } else { "no" }),
        format!("version={VERSION}"),
        format!("version_major={major}"),
        format!("version_minor={minor}"),
        "vsock_option=yes".into(),
        "zstd=yes".into(),
        format!("blkit_version={}", env!("CARGO_PKG_VERSION")),
    ];
    lines.sort();
    lines.join("\n") + "\n"
}

/// `--dump-plugin`. `model` is the whole chain's.
pub fn plugin(registry: &Registry, spec: &GraphSpec, model: ThreadModel) -> String {
    let name = &spec.source.name;
    let binary = std::env::current_exe().unwrap_or_default();
    let path = binary.display();
    let mut text = format!(
        "path={path}\nname={name}\nversion={VERSION}\napi_version=2\nstruct_size=384\n\
         max_thread_model={}\nthread_model={}\nerrno_is_preserved=1\n",
        model_name(callbacks::of_plugin(name).model),
        model_name(model),
    );
    let magic = registry
        .source(name)
        .ok()
        .and_then(|entry| entry.schema.magic());
    if let Some(magic) = magic {
        let _ = writeln!(text, "magic_config_key={}", magic.name);
    }
    for callback in callbacks::of_plugin(name).list() {
        let _ = writeln!(text, "has_{callback}=1");
    }
    for line in callbacks::of_plugin(name).more {
        let _ = writeln!(text, "{line}");
    }
    for filter in spec.filters.iter().rev() {
        let name = &filter.name;
        let _ = write!(
            text,
            "{name}_path={path}\n{name}_name={name}\n{name}_version={VERSION}\n"
        );
    }
    text
}

/// A thread model in the words of nbdkit.
pub fn model_name(model: ThreadModel) -> &'static str {
    match model {
        ThreadModel::SerializeConnections => "serialize_connections",
        ThreadModel::SerializeAllRequests => "serialize_all_requests",
        ThreadModel::SerializeRequests => "serialize_requests",
        ThreadModel::Parallel => "parallel",
    }
}

/// The first words of the script line of an executable plugin, such as `#!/usr/sbin/nbdkit sh`:
/// the kernel passes all words behind the program as one.
pub fn split_script_line(words: Vec<OsString>) -> Vec<OsString> {
    let splits = words
        .first()
        .and_then(|word| word.to_str())
        .is_some_and(|word| word.contains(' ') && !word.contains('='));
    if !splits {
        return words;
    }
    let mut rest = words.into_iter();
    let first = rest.next().unwrap_or_default();
    let first = first.to_string_lossy().into_owned();
    first
        .split_whitespace()
        .map(OsString::from)
        .chain(rest)
        .collect()
}
