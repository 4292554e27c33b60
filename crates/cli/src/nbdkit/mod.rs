//! nbdkit's command line: a user of nbdkit replaces the program, and scripts do not notice.
//!
//! The program called as `nbdkit`, or `blkit nbdkit ...`. Options, messages, exit statuses and the
//! order of things are nbdkit's; what is served, and how, is the same code as for `blkit serve`.
//!
//! The way of a command line: `options` reads the options (by the rules of `getopt`), `words` the plugin and its
//! parameters, `places` binds what clients connect to,
//! `tls` finds the certificates, `life` takes the process to where it serves.
//! `info` answers questions without serving, `messages` tells errors and debug lines, `trace` the
//! debug lines about each layer.

mod callbacks;
mod info;
mod life;
mod messages;
mod options;
mod places;
mod tls;
mod trace;
mod words;

use std::{ffi::OsString, process::ExitCode};

use graph::Registry;
use tracing_subscriber::{filter::LevelFilter, layer::SubscriberExt, util::SubscriberInitExt};

use options::{Mistake, Mode, Options};

/// Runs nbdkit with these words (without the program's name).
pub fn main(words: Vec<OsString>) -> ExitCode {
    let done = options::parse(info::split_script_line(words)).and_then(|options| run(&options));
    done.unwrap_or_else(|mistake| {
        match mistake {
            Mistake::Usage(text) => {
                eprintln!("nbdkit: {text}");
                // Where nbdkit prints it, wrong or not.
                print!("{}", info::USAGE);
            }
            Mistake::Plain(text) => messages::plain(&text),
            Mistake::Error(text) => {
                // A hint stands on lines of its own.
                let mut lines = text.lines();
                messages::error(lines.next().unwrap_or_default());
                lines.for_each(|line| eprintln!("{line}"));
            }
        }
        ExitCode::FAILURE
    })
}

fn run(options: &Options) -> Result<ExitCode, Mistake> {
    let print = |text: &str| {
        crate::topics::print(text).map_err(|error| Mistake::Error(words::told(&error)))
    };
    match options.mode {
        Mode::ShortOptions => return print(&info::spellings(false)),
        Mode::LongOptions => return print(&info::spellings(true)),
        Mode::DumpConfig => return print(&info::config()),
        Mode::Serve | Mode::Help | Mode::Version | Mode::DumpPlugin => {}
    }
    messages::init(
        options.name.as_deref(),
        options.verbose,
        options.log.clone(),
    )
    .map_err(Mistake::Error)?;
    let registry = Registry::standard();
    let filters = options
        .filters
        .iter()
        .map(|word| words::filter(&registry, word));
    let filters = filters.collect::<Result<Vec<_>, _>>()?;
    let plugin = options
        .words
        .first()
        .map(|word| words::plugin(&registry, word))
        .transpose()?;
    let level = if options.verbose {
        LevelFilter::DEBUG
    } else {
        LevelFilter::WARN
    };
    let bridge = messages::Bridge {
        plugin: plugin.unwrap_or("nbdkit").to_owned(),
    };
    tracing_subscriber::registry()
        .with(level)
        .with(bridge)
        .init();
    match (options.mode, plugin) {
        (Mode::Help, plugin) => print(&info::help(&registry, &filters, plugin)),
        (Mode::Version, plugin) => print(&info::version(&filters, plugin)),
        (Mode::DumpPlugin, None) => Err(Mistake::Plain(
            "use 'nbdkit plugin --dump-plugin' or\n'nbdkit /path/to/plugin.so --dump-plugin' or\n\
             if you want to find out about the server use --dump-config"
                .into(),
        )),
        (_, None) => Err(Mistake::Plain(
            "no plugins given on the command line.\n\
             Use 'nbdkit --help' or read the nbdkit(1) manual page for documentation."
                .into(),
        )),
        (Mode::DumpPlugin, Some(plugin)) => {
            let parameters = words::parameters(&options.words[1..])?;
            // Parameters are optional here: without, the plugin's own thread model is told.
            let (spec, model) = if parameters.is_empty() {
                let bare = words::bare_graph(plugin, &filters);
                (bare, callbacks::of_plugin(plugin).model)
            } else {
                let spec = words::graph(&registry, plugin, &filters, &parameters)?;
                let built = registry.build(&spec);
                let built = built.map_err(|error| Mistake::Error(words::told(&error)))?;
                (spec, built.thread_model)
            };
            print(&info::plugin(&registry, &spec, model))
        }
        (_, Some(plugin)) => life::serve(&registry, options, plugin, &filters),
    }
}
