//! Logging to standard error. No thread is made, so it may begin before a fork.

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

/// Starts logging: `BLKIT_LOG` if it is set, else warnings; `-v` is debug, `-vv` trace.
pub fn init(verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let filter = match std::env::var("BLKIT_LOG") {
        Ok(directives) if verbose == 0 && !directives.is_empty() => EnvFilter::builder()
            .with_default_directive(LevelFilter::WARN.into())
            .parse_lossy(directives),
        _ => EnvFilter::default().add_directive(level.into()),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
}
