//! Logging to standard error. No thread is made, so it may begin before a fork.

use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt,
    registry,
    util::SubscriberInitExt,
};

/// Starts logging: `BLKIT_LOG` (such as `debug` or `warn,blkit_exports=debug`) if it is set, else
/// warnings; `-v` is debug, `-vv` trace.
pub fn init(verbose: u8) {
    let asked = std::env::var("BLKIT_LOG").ok().filter(|_| verbose == 0);
    let filter = match (
        verbose,
        asked.and_then(|targets| targets.parse::<Targets>().ok()),
    ) {
        (0, Some(targets)) => targets,
        (0, None) => Targets::new().with_default(LevelFilter::WARN),
        (1, _) => Targets::new().with_default(LevelFilter::DEBUG),
        _ => Targets::new().with_default(LevelFilter::TRACE),
    };
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(terminal);
    registry().with(filter).with(lines).init();
}
