//! What nbdkit says, and where: errors to standard error, the system log, a file or nowhere; debug
//! lines always to standard error. Scripts look for the words, so they are nbdkit's.
//!
//! `nbdkit[NAME]: PREFIX: error: TEXT`: the name if there is one, the prefix inside connections.

use std::{
    fs::File,
    io::Write,
    os::unix::net::UnixDatagram,
    path::PathBuf,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tracing::{
    field::{Field, Visit},
    span::{Attributes, Id},
};
use tracing_subscriber::{Layer, layer::Context, registry::LookupSpan};

/// Where errors go.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum LogTo {
    /// Standard error; the system log once in the background.
    #[default]
    Default,
    /// Standard error.
    Stderr,
    /// The system log.
    Syslog,
    /// Nowhere.
    Null,
    /// Appended to this file.
    File(PathBuf),
}

struct Voice {
    /// `nbdkit` or `nbdkit[NAME]`.
    name: String,
    verbose: bool,
    log: LogTo,
    file: Option<Mutex<File>>,
    background: AtomicBool,
}

static VOICE: OnceLock<Voice> = OnceLock::new();

/// Says how messages look and where errors go from now on; the first call counts.
///
/// # Errors
/// The log file cannot be opened.
pub fn init(name: Option<&str>, verbose: bool, log: LogTo) -> Result<(), String> {
    let file = match &log {
        LogTo::File(path) => {
            let opened = File::options().append(true).create(true).open(path);
            let file = opened.map_err(|error| format!("{}: {error}", path.display()))?;
            Some(Mutex::new(file))
        }
        _ => None,
    };
    let voice = Voice {
        name: match name {
            Some(name) => format!("nbdkit[{}]", one_line(name)),
            None => "nbdkit".into(),
        },
        verbose,
        log,
        file,
        background: AtomicBool::new(false),
    };
    // Only one call is made; a second would change nothing.
    let _ = VOICE.set(voice);
    Ok(())
}

/// The process has left its terminal.
pub fn in_background() {
    if let Some(voice) = VOICE.get() {
        voice.background.store(true, Ordering::Relaxed);
    }
}

/// Debug lines are wanted.
pub fn verbose() -> bool {
    VOICE.get().is_some_and(|voice| voice.verbose)
}

/// `nbdkit`, with the instance's name if it has one.
fn name() -> &'static str {
    VOICE.get().map_or("nbdkit", |voice| &voice.name)
}

/// A message of the program itself: no level in it, always on standard error. May have lines.
pub fn plain(text: &str) {
    eprintln!("{}: {text}", name());
}

/// An error.
pub fn error(text: &str) {
    error_in("", text);
}

/// An error in a connection: `prefix` says in which.
pub fn error_in(prefix: &str, text: &str) {
    let line = format!("{prefix}error: {}", one_line(text));
    let Some(voice) = VOICE.get() else {
        return eprintln!("nbdkit: {line}");
    };
    let background = voice.background.load(Ordering::Relaxed);
    match &voice.log {
        LogTo::Null => {}
        LogTo::File(_) => {
            if let Some(file) = &voice.file {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                // There is nowhere to tell that the log cannot be written.
                let _ = writeln!(file, "{}: {line}", voice.name);
            }
        }
        LogTo::Default if background => syslog(&voice.name, &line),
        LogTo::Syslog => syslog(&voice.name, &line),
        LogTo::Default | LogTo::Stderr => eprintln!("{}: {line}", voice.name),
    }
}

/// A warning: told like an error, without being one.
///
/// Its hints stand on lines of their own.
pub fn warning(text: &str) {
    let mut lines = text.lines();
    let first = one_line(lines.next().unwrap_or_default());
    eprintln!("{}: warning: {first}", name());
    lines.for_each(|line| eprintln!("{}", one_line(line)));
}

/// A debug line.
pub fn debug(text: &str) {
    debug_in("", text);
}

/// A debug line in a connection.
pub fn debug_in(prefix: &str, text: &str) {
    if verbose() {
        eprintln!("{}: {prefix}debug: {}", name(), one_line(text));
    }
}

/// One line to the system log (RFC 3164, facility daemon, severity error).
fn syslog(name: &str, line: &str) {
    const DAEMON_ERROR: u32 = 3 * 8 + 3;
    let packet = format!("<{DAEMON_ERROR}>{name}[{}]: {line}", std::process::id());
    let sent =
        UnixDatagram::unbound().and_then(|socket| socket.send_to(packet.as_bytes(), "/dev/log"));
    if sent.is_err() {
        // Hosts without a log daemon, such as containers: better seen than lost.
        eprintln!("{name}: {line}");
    }
}

/// File names and values come from outside: whatever is in them, a message stays one line.
fn one_line(text: &str) -> String {
    crate::report::one_line(text)
}

/// Tells what the libraries log: warnings and errors as errors, the rest as debug lines. What they
/// log about a client (a span with its number as `id`) begins with the plugin's name and the number.
pub struct Bridge {
    /// The plugin's name.
    pub plugin: String,
}

impl Bridge {
    fn prefix<S>(&self, event: &tracing::Event<'_>, cx: &Context<'_, S>) -> String
    where
        S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    {
        cx.event_scope(event)
            .into_iter()
            .flatten()
            .find_map(|span| span.extensions().get::<Client>().map(|client| client.0))
            .map_or(String::new(), |client| {
                format!("{}[{client}]: ", self.plugin)
            })
    }
}

/// The client that a span is about.
struct Client(u64);

struct FindClient(Option<Client>);

impl Visit for FindClient {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "id" {
            self.0 = Some(Client(value));
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

impl<S> Layer<S> for Bridge
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, cx: Context<'_, S>) {
        let mut found = FindClient(None);
        attributes.record(&mut found);
        if let (Some(client), Some(span)) = (found.0, cx.span(id)) {
            span.extensions_mut().insert(client);
        }
    }

    fn on_event(&self, event: &tracing::Event<'_>, cx: Context<'_, S>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        let prefix = self.prefix(event, &cx);
        match *event.metadata().level() {
            tracing::Level::ERROR => error_in(&prefix, &text.0),
            tracing::Level::WARN => warning(&text.0),
            _ => debug_in(&prefix, &text.0),
        }
    }
}

/// An event's message.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        } else {
            self.0.push_str(&format!(" {}={value:?}", field.name()));
        }
    }
}
